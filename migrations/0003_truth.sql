-- What Resonance adds: edges that always point to nodes, the ledger of links, the files behind the
-- nodes, and the space their vectors live in.

-- Properties of this database, such as the version of the rules its vault was read by.
CREATE TABLE properties (
    key TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Embedding models; vectors of two spaces are never compared. At most one is active.
CREATE TABLE spaces (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    revision TEXT NOT NULL DEFAULT '',
    dims INTEGER NOT NULL CHECK (dims > 0),
    normalisation TEXT NOT NULL DEFAULT 'unit',
    active INTEGER NOT NULL DEFAULT 0 CHECK (active IN (0, 1)),
    UNIQUE (name, revision, dims, normalisation)
) STRICT;

CREATE UNIQUE INDEX idx_spaces_active ON spaces (active) WHERE active = 1;

-- Vectors that were here before spaces were: their model is unknown, their width is not.
INSERT INTO spaces (name, dims, active)
SELECT 'unknown', length(embedding) / 4, 1
FROM nodes
WHERE length(embedding) >= 4 AND length(embedding) % 4 = 0
GROUP BY length(embedding)
ORDER BY count(*) DESC, length(embedding)
LIMIT 1;

-- Nodes again, with their rules in the schema. NO ACTION on the keys that point here: an INSERT OR
-- REPLACE by somebody else must not take the edges along.
CREATE TABLE nodes_strict (
    id TEXT PRIMARY KEY NOT NULL CHECK (id <> '' AND instr(id, char(0)) = 0),
    type TEXT,
    title TEXT,
    domain TEXT,
    layer TEXT,
    embedding BLOB CHECK (length(embedding) % 4 = 0),
    hash TEXT,
    meta TEXT,
    date TEXT,
    summary TEXT
) STRICT;

INSERT INTO nodes_strict (id, type, title, domain, layer, embedding, hash, meta, date, summary)
SELECT id, type, title, domain, layer, embedding, hash, meta, date, summary FROM nodes;

DROP TABLE nodes;
ALTER TABLE nodes_strict RENAME TO nodes;

-- Every occurrence of a link: where it stands, what it says, and what it leads to.
CREATE TABLE links (
    id INTEGER PRIMARY KEY,
    source TEXT NOT NULL REFERENCES nodes (id),
    kind TEXT NOT NULL,
    type TEXT NOT NULL,
    raw TEXT NOT NULL,
    name TEXT NOT NULL,
    fragment TEXT,
    span_start INTEGER,
    span_end INTEGER,
    state TEXT NOT NULL CHECK (state IN ('resolved', 'unresolved', 'ambiguous', 'external')),
    target TEXT REFERENCES nodes (id),
    candidates TEXT,
    mark TEXT,
    CHECK ((state = 'resolved') = (target IS NOT NULL))
) STRICT;

CREATE INDEX idx_links_source ON links (source);
CREATE INDEX idx_links_target ON links (target) WHERE target IS NOT NULL;

-- Edges that dangle become what they are: links that nothing answers yet.
INSERT INTO links (source, kind, type, raw, name, state)
SELECT source, 'edge', type, target, target, 'unresolved'
FROM edges
WHERE source IN (SELECT id FROM nodes) AND target NOT IN (SELECT id FROM nodes)
ORDER BY source, target, type;

CREATE TABLE edges_strict (
    source TEXT NOT NULL REFERENCES nodes (id),
    target TEXT NOT NULL REFERENCES nodes (id),
    type TEXT NOT NULL,
    confidence REAL DEFAULT 1.0,
    veracity REAL DEFAULT 1.0,
    context_source TEXT,
    PRIMARY KEY (source, target, type)
) STRICT, WITHOUT ROWID;

INSERT INTO edges_strict (source, target, type, confidence, veracity, context_source)
SELECT source, target, type, confidence, veracity, context_source
FROM edges
WHERE source IN (SELECT id FROM nodes) AND target IN (SELECT id FROM nodes)
ORDER BY source, target, type;

-- An edge from nowhere has no note to stand in; the audit trail keeps it.
INSERT INTO history (entity_type, entity_id, action, old_value)
SELECT 'edge', source || ' -> ' || target, 'dropped',
       json_object('source', source, 'target', target, 'type', type, 'reason', 'its source is no node')
FROM edges
WHERE source NOT IN (SELECT id FROM nodes);

DROP TABLE edges;
ALTER TABLE edges_strict RENAME TO edges;

-- The primary key answers questions from the source's side; this one those from the target's.
CREATE INDEX idx_edges_target ON edges (target);

-- The files behind the nodes. Paths are relative to the vault's root, POSIX, NFC; none leads out of it.
CREATE TABLE files (
    path TEXT PRIMARY KEY NOT NULL CHECK (
        path <> '' AND length(path) <= 4096 AND instr(path, char(0)) = 0 AND instr(path, '\') = 0
        AND instr('/' || path || '/', '//') = 0 AND instr('/' || path || '/', '/./') = 0
        AND instr('/' || path || '/', '/../') = 0
    ),
    node TEXT NOT NULL UNIQUE REFERENCES nodes (id),
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    hash TEXT NOT NULL,
    body_hash TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX idx_files_body ON files (body_hash);

-- The sections of long notes. Each is a node; its text stands at a span of the document's file, in
-- bytes. hash is that of the span, by which it is found again when the file has shifted; text_hash
-- that of all its vector stands for.
CREATE TABLE sections (
    id INTEGER PRIMARY KEY,
    node TEXT NOT NULL UNIQUE REFERENCES nodes (id),
    document TEXT NOT NULL REFERENCES nodes (id),
    ordinal INTEGER NOT NULL,
    heading TEXT NOT NULL, -- a JSON array, from the outermost
    span_start INTEGER NOT NULL,
    span_end INTEGER NOT NULL CHECK (span_start < span_end),
    hash TEXT NOT NULL,
    text_hash TEXT NOT NULL,
    UNIQUE (document, ordinal)
) STRICT;

CREATE INDEX idx_sections_text ON sections (text_hash);

-- What ingests have removed, for a while: row by row, as JSON, with the vector beside it. A run is one
-- ingest; `entity` names the table the row was in, `node` the note it belonged to.
CREATE TABLE tombstones (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    removed_at INTEGER NOT NULL,
    entity TEXT NOT NULL,
    node TEXT NOT NULL,
    space INTEGER,
    embedding BLOB,
    row TEXT NOT NULL
) STRICT;

CREATE INDEX idx_tombstones_run ON tombstones (run, entity, node);

-- The nodes whose text is in the full-text index, by the keys it knows them by, which are never given
-- twice; and the hash of the node whose text that was. The index itself is made with the first text,
-- by engines that have what it needs.
CREATE TABLE texts (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    node TEXT NOT NULL UNIQUE REFERENCES nodes (id),
    hash TEXT
) STRICT;

-- Vectors of the spaces that are not active, each with the hash of the text it was made from: when the
-- node's is another by now, the vector is out of date. NULL where the model had nothing to say. Those of
-- the active space stand in nodes. By row number, because SQLite is slow with large rows in a key.
CREATE TABLE vectors (
    id INTEGER PRIMARY KEY,
    node TEXT NOT NULL REFERENCES nodes (id) ON UPDATE CASCADE ON DELETE CASCADE,
    space INTEGER NOT NULL REFERENCES spaces (id),
    embedding BLOB CHECK (length(embedding) % 4 = 0),
    hash TEXT,
    UNIQUE (node, space)
) STRICT;

CREATE INDEX idx_nodes_type ON nodes (type);
CREATE INDEX idx_history_entity ON history (entity_id);

-- Which nodes a search has to look at again: rowids low..high, both included. Who reads it remembers
-- the last seq it saw; who is further behind than this table reaches back reads all nodes anew.
CREATE TABLE node_changes (
    seq INTEGER PRIMARY KEY,
    low INTEGER NOT NULL,
    high INTEGER NOT NULL
) STRICT;

CREATE TRIGGER node_inserted AFTER INSERT ON nodes WHEN NEW.embedding IS NOT NULL BEGIN
    INSERT INTO node_changes (low, high) VALUES (NEW.rowid, NEW.rowid);
    DELETE FROM node_changes WHERE seq <= (SELECT max(seq) FROM node_changes) - 65536;
END;

CREATE TRIGGER node_updated AFTER UPDATE OF id, type, domain, layer, embedding ON nodes
WHEN OLD.embedding IS NOT NULL OR NEW.embedding IS NOT NULL BEGIN
    INSERT INTO node_changes (low, high) VALUES (NEW.rowid, NEW.rowid);
    DELETE FROM node_changes WHERE seq <= (SELECT max(seq) FROM node_changes) - 65536;
END;

CREATE TRIGGER node_deleted AFTER DELETE ON nodes WHEN OLD.embedding IS NOT NULL BEGIN
    INSERT INTO node_changes (low, high) VALUES (OLD.rowid, OLD.rowid);
    DELETE FROM node_changes WHERE seq <= (SELECT max(seq) FROM node_changes) - 65536;
END;

-- Who gives a node that stands for no text of a vault another vector has another text in mind.
CREATE TRIGGER vectors_outdated AFTER UPDATE OF embedding ON nodes
WHEN OLD.embedding IS NOT NEW.embedding
AND NOT EXISTS (SELECT 1 FROM files WHERE files.node = NEW.id)
AND NOT EXISTS (SELECT 1 FROM sections WHERE sections.node = NEW.id) BEGIN
    DELETE FROM vectors WHERE node = NEW.id;
END;
