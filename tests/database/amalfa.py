"""Files as Amalfa leaves them, at each of its three schemas, and what is in them."""

import random
import shutil

from resonance import migrate
from resonance._core import Connection
from support import FIXTURES, unit

NODES = ("id", "type", "title", "domain", "layer", "embedding", "hash", "meta", "date", "summary")
OLD_TABLES = ("nodes", "edges", "ember_state", "history")


def copy_fixture(file):
    """The file that Amalfa itself made."""
    shutil.copyfile(FIXTURES / "amalfa-made.db", file)
    return file


def make(file, steps, *, rows=200, seed=0):
    """A file on which Amalfa has run its first ``steps`` migrations."""
    numbers = random.Random(seed)
    vectors = unit(rows, 16, seed)
    with Connection(file) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for migration in migrate.migrations()[:steps]:
            connection.executescript(migration.sql)
        connection.execute("BEGIN")
        for number in range(rows):
            connection.execute(
                "INSERT INTO nodes (id, type, title, domain, embedding, hash, meta) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    f"note-{number}",
                    "document",
                    f"Überblick {number}",
                    None,
                    vectors[number].tobytes() if number % 7 else None,
                    f"{number:032x}",
                    '{"n": 1}',
                ),
            )
        edges = {(numbers.randrange(rows), numbers.randrange(rows)) for _ in range(2 * rows)}
        connection.executemany(
            "INSERT INTO edges (source, target, type) VALUES (?, ?, 'CITES')",
            [(f"note-{a}", f"note-{b}") for a, b in sorted(edges)],
        )
        connection.execute("INSERT INTO edges VALUES ('note-1', 'nobody', 'CITES', 0.5, 0.25, 'x.md')")
        connection.execute("INSERT INTO edges VALUES ('nobody', 'note-2', 'CITES', 1, 1, NULL)")
        connection.execute("INSERT INTO edges VALUES ('nobody', 'no one', 'CITES', 1, 1, NULL)")
        connection.execute("INSERT INTO ember_state VALUES ('a.md', '2026-01-01', 0, 0.5)")
        if steps > 1:
            connection.execute(
                "INSERT INTO history (entity_type, entity_id, action) VALUES ('node', 'note-1', 'upsert')"
            )
        if steps > 2:
            connection.execute("UPDATE nodes SET summary = 'in short' WHERE id = 'note-3'")
        connection.execute("COMMIT")
        connection.checkpoint_on_close(True)
    return file


def read(file):
    """All rows Amalfa knows of, by table; columns it did not have yet are None."""
    found = {}
    with Connection(file, create=False) as connection:
        for table in OLD_TABLES:
            names = [row[0] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]
            if table == "nodes":
                names = [name if name in names else f"NULL AS {name}" for name in NODES]
            order = "id" if table == "history" else "1, 2, 3"
            found[table] = (
                connection.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY {order}")
                if names
                else []
            )
    return found
