-- A summary for each node.

ALTER TABLE nodes ADD COLUMN summary text;

INSERT INTO __drizzle_migrations (hash, created_at)
VALUES ('b6400314b4a5187a3a058a5d35c3cb6031eadd86fff72403accdc73495d69e78', 1769588665479);
