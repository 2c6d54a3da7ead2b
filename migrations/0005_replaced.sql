-- INSERT OR REPLACE, as Amalfa and many others write, deletes the row that was there without a trigger for
-- deletes, so the log of changes is told before. An insert that finds its id taken gets no further than that.
CREATE TRIGGER node_replaced BEFORE INSERT ON nodes
WHEN EXISTS (SELECT 1 FROM nodes WHERE id = NEW.id AND embedding IS NOT NULL) BEGIN
    INSERT INTO node_changes (low, high) SELECT rowid, rowid FROM nodes WHERE id = NEW.id;
    DELETE FROM node_changes WHERE seq <= (SELECT max(seq) FROM node_changes) - 65536;
END;
