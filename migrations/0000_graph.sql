-- The graph as Amalfa made it first. The last two statements leave the record that Amalfa's own
-- migrator looks for, so that it opens the file as up to date.

CREATE TABLE nodes (
    id text PRIMARY KEY NOT NULL,
    type text,
    title text,
    domain text,
    layer text,
    embedding blob,
    hash text,
    meta text,
    date text
);

CREATE TABLE edges (
    source text NOT NULL,
    target text NOT NULL,
    type text NOT NULL,
    confidence real DEFAULT 1,
    veracity real DEFAULT 1,
    context_source text,
    PRIMARY KEY (source, target, type)
);

CREATE INDEX idx_edges_source ON edges (source);
CREATE INDEX idx_edges_target ON edges (target);

CREATE TABLE ember_state (
    file_path text PRIMARY KEY NOT NULL,
    last_analyzed text,
    sidecar_created integer,
    confidence real
);

CREATE TABLE __drizzle_migrations (
    id SERIAL PRIMARY KEY,
    hash text NOT NULL,
    created_at numeric
);

INSERT INTO __drizzle_migrations (hash, created_at)
VALUES ('b548e4cd9d946d39dbb888e94692783cde7099691bf666af54e1b5af60b389fb', 1767981411501);
