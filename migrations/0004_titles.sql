-- Which rows have another title than they had: who keeps titles beside the database looks here. Their
-- vectors are the same, so it is no matter for node_changes.
CREATE TABLE title_changes (
    seq INTEGER PRIMARY KEY,
    row INTEGER NOT NULL
) STRICT;

CREATE TRIGGER node_retitled AFTER UPDATE OF title ON nodes
WHEN OLD.title IS NOT NEW.title AND NEW.embedding IS NOT NULL BEGIN
    INSERT INTO title_changes (row) VALUES (NEW.rowid);
    DELETE FROM title_changes WHERE seq <= (SELECT max(seq) FROM title_changes) - 65536;
END;
