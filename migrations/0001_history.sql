-- The audit trail.

CREATE TABLE history (
    id integer PRIMARY KEY AUTOINCREMENT NOT NULL,
    entity_type text NOT NULL,
    entity_id text NOT NULL,
    action text NOT NULL,
    old_value text,
    new_value text,
    timestamp text DEFAULT (CURRENT_TIMESTAMP)
);

INSERT INTO __drizzle_migrations (hash, created_at)
VALUES ('7b30e2bf86221fedb429141261731220b2b2616a8bb09d3f5fbadccb55f41b16', 1768308220948);
