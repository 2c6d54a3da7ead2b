"""What ingests have removed, kept for a while, and bringing it back."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from resonance.history import History
from resonance.model import Problem
from resonance.vault import ledger
from resonance.vault.pace import Pace
from resonance.vault.relink import relink_restored
from resonance.vault.root import Root
from resonance.vault.scan import scan, territory
from resonance.vault.settings import VaultSettings

if TYPE_CHECKING:
    from resonance._core import Connection
    from resonance.database import ResonanceDB

KEPT_DAYS = 30
KEPT_NOTES = 10_000
"""Of older runs, so many notes at most; the last run that removed something is kept whole."""

# The vault's own edges follow from its links; those of others are in no file, so they are kept here.
_OTHERS_EDGES = (
    "{side} IN (SELECT value FROM json_each(?)) AND NOT EXISTS "
    "(SELECT 1 FROM files WHERE files.node = edges.source AND files.path = edges.context_source)"
)
_RULES = "(SELECT value FROM properties WHERE key = 'vault.rules')"
# Table, the note that a row belongs to, which rows. A section belongs to its document.
_ROWS = (
    (
        "nodes",
        "coalesce((SELECT document FROM sections WHERE sections.node = nodes.id), id)",
        "id IN (SELECT value FROM json_each(?))",
    ),
    ("sections", "document", "node IN (SELECT value FROM json_each(?))"),
    ("files", "node", "node IN (SELECT value FROM json_each(?))"),
    ("links", "source", "source IN (SELECT value FROM json_each(?))"),
    ("edges", "source", _OTHERS_EDGES.format(side="source")),
    ("edges", "target", _OTHERS_EDGES.format(side="target")),
)


@dataclass(slots=True)
class Undone:
    """What :func:`undo` brought back.

    Attributes:
        removed_at: when it was removed, ISO 8601 in UTC; None if there was nothing to bring back.
        restored: the paths of the notes, sorted.
        left_out: those that are in the database again already, or whose id another note has now.
        edges: how many edges of others came back; those of the vault follow from its links.
        vectors: how many of the notes have their vector again.
        remaining: how many earlier runs can still be undone.
    """

    removed_at: str | None = None
    restored: list[str] = field(default_factory=list)
    left_out: list[Problem] = field(default_factory=list)
    edges: int = 0
    vectors: int = 0
    remaining: int = 0

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "removed_at": self.removed_at,
            "restored": self.restored,
            "left_out": [problem._asdict() for problem in self.left_out],
            "edges": self.edges,
            "vectors": self.vectors,
            "remaining": self.remaining,
        }


def new_run(db: ResonanceDB) -> int:
    """A number for a run that is about to remove something."""
    return int(db.query("SELECT coalesce(max(run), 0) + 1 FROM tombstones")[0][0])


def bury(connection: Connection, run: int, nodes: Sequence[str]) -> None:
    """Keep all that is stored about some nodes, which the open transaction is about to delete."""
    sections = connection.query(
        "SELECT node FROM sections WHERE document IN (SELECT value FROM json_each(?))",
        (json.dumps(list(nodes)),),
    )
    chosen = json.dumps([*nodes, *(node for (node,) in sections)])
    for table, node, where in _ROWS:
        # Numbers of rows are given anew when they come back.
        numbered = table in ("links", "sections")
        columns = [c for c in _columns(connection, table) if not (numbered and c == "id")]
        pairs = ", ".join(f"'{column}', {column}" for column in columns)
        if table == "files":
            pairs += f", 'rules', {_RULES}"
        vector = "(SELECT id FROM spaces WHERE active = 1), embedding" if table == "nodes" else "NULL, NULL"
        connection.execute(
            f"INSERT INTO tombstones (run, removed_at, entity, node, space, embedding, row) "
            f"SELECT ?, ?, '{table}', {node}, {vector}, json_object({pairs}) FROM {table} WHERE {where} "
            f"ORDER BY {'id' if table == 'links' else node}",
            (run, int(time.time()), chosen),
        )


def expire(db: ResonanceDB) -> None:
    """Forget what was removed long ago, or before much else was."""
    runs = db.query(
        "SELECT run, count(DISTINCT node) FROM tombstones WHERE entity = 'nodes' "
        "GROUP BY run ORDER BY run DESC"
    )
    horizon = time.time() - KEPT_DAYS * 86_400
    kept = 0
    for place, (run, notes) in enumerate(runs):
        kept += notes if place else 0
        (removed_at,) = db.query("SELECT removed_at FROM tombstones WHERE run = ? LIMIT 1", (run,))[0]
        if kept > KEPT_NOTES or removed_at < horizon:
            _forget(db, Pace(db), run)


def undo(db: ResonanceDB, settings: VaultSettings) -> Undone:
    """Bring back what the last ingest that removed notes removed: nodes, vectors, links and edges.

    Whether the files are there again does not matter. If they are not, the notes are back all the same,
    with nothing behind them, until the next ingest removes them again. A second call brings back what
    the run before removed. A call that is cut off can be repeated.

    Raises:
        SettingsError: the root cannot be opened.
    """
    with Root(settings.root) as root:
        there = scan(settings, root)
    found = db.query("SELECT run, removed_at FROM tombstones ORDER BY run DESC LIMIT 1")
    if not found:
        return Undone()
    run, removed_at = found[0]
    undone = Undone(datetime.fromtimestamp(removed_at, UTC).isoformat().replace("+00:00", "Z"))
    pace = Pace(db)
    nodes = _fitting(db, run, undone)
    hashes = dict(
        db.query(
            # What was read by other rules stays unfinished, and is read again.
            f"SELECT node, json_extract(row, '$.hash') FROM tombstones WHERE run = ? AND entity = 'files' "
            f"AND json_extract(row, '$.rules') IS {_RULES}",
            (run,),
        )
    )
    for batch in pace.batches(nodes):
        with pace.measured(), db.transaction() as connection:
            connection.execute("DELETE FROM properties WHERE key = 'vault.resolved'")
            ledger.make_targets(db, _targets(connection, run, batch))
            undone.vectors += _restore(connection, run, batch)
    with db.transaction() as connection:
        undone.edges = _restore_edges(connection, run)
    _forget(db, pace, run)
    seen = territory(settings, there)
    names = ledger.read_names(db, there.attachments, seen, settings.reading.dialect)
    relink_restored(db, names, nodes)
    for batch in pace.batches(nodes):
        with pace.measured(), db.transaction() as connection:
            connection.executemany(
                "UPDATE files SET hash = ? WHERE node = ?", [(hashes[n], n) for n in batch if n in hashes]
            )
    undone.remaining = db.query("SELECT count(DISTINCT run) FROM tombstones")[0][0]
    return undone


def _fitting(db: ResonanceDB, run: int, undone: Undone) -> list[str]:
    """The nodes of a run that can come back. Notes it in ``undone``."""
    paths = dict(
        db.query(
            "SELECT node, json_extract(row, '$.path') FROM tombstones WHERE run = ? AND entity = 'files'",
            (run,),
        )
    )
    ids = {node for (node,) in db.query("SELECT id FROM nodes")}
    files = dict(db.query("SELECT path, node FROM files"))
    fitting = []
    for (node,) in db.query(
        "SELECT node FROM tombstones WHERE run = ? AND entity = 'nodes' "
        "AND json_extract(row, '$.id') = node ORDER BY id",
        (run,),
    ):
        path = paths.get(node, node)
        if path in files:
            undone.left_out.append(Problem(path, None, f"is in the database again, as {files[path]}"))
        elif node in ids:
            undone.left_out.append(Problem(path, None, f"its id {node} now belongs to another node"))
        else:
            fitting.append(node)
            if node in paths:
                undone.restored.append(path)
    undone.restored.sort()
    return fitting


def _targets(connection: Connection, run: int, nodes: Sequence[str]) -> set[str]:
    """What the links of some notes led to."""
    found = connection.execute(
        "SELECT DISTINCT json_extract(row, '$.target') FROM tombstones WHERE run = ? AND entity = 'links' "
        "AND node IN (SELECT value FROM json_each(?)) AND json_extract(row, '$.target') IS NOT NULL",
        (run, json.dumps(list(nodes))),
    )
    return {target for (target,) in found}


def _restore(connection: Connection, run: int, nodes: Sequence[str]) -> int:
    """Put some nodes back with their files and links. Returns how many have a vector."""
    chosen = json.dumps(list(nodes))
    where = "run = ? AND entity = ? AND node IN (SELECT value FROM json_each(?))"
    space = "(SELECT id FROM spaces WHERE active = 1)"
    for table in ("nodes", "sections", "files", "links"):
        told = connection.execute(f"SELECT row FROM tombstones WHERE {where} LIMIT 1", (run, table, chosen))
        if not told:
            continue
        columns = [c for c in _columns(connection, table) if c in json.loads(told[0][0])]
        values = [f"json_extract(row, '$.{column}')" for column in columns]
        if table == "files":
            # Unfinished until its links lead somewhere: a call that is cut off loses none of them.
            values[columns.index("hash")] = "''"
        if table == "nodes":
            columns.append("embedding")
            # A vector of another space than the present one means nothing here.
            values.append(f"CASE WHEN space IS {space} THEN embedding END")
        if table == "links":
            # Until they are resolved again, links lead only to what is there.
            target = "json_extract(row, '$.target')"
            lost = f"{target} IS NOT NULL AND {target} NOT IN (SELECT id FROM nodes)"
            values[columns.index("state")] = (
                f"CASE WHEN {lost} THEN 'unresolved' ELSE json_extract(row, '$.state') END"
            )
            values[columns.index("target")] = (
                f"CASE WHEN {lost} THEN NULL ELSE json_extract(row, '$.target') END"
            )
        connection.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)} FROM tombstones "
            f"WHERE {where} ORDER BY id ON CONFLICT DO NOTHING",
            (run, table, chosen),
        )
    history = History(connection)
    for node in nodes:
        history.record("node", node, "restore", None, None)
    connection.execute(
        "DELETE FROM tombstones WHERE run = ? AND entity <> 'edges' "
        "AND node IN (SELECT value FROM json_each(?))",
        (run, chosen),
    )
    held = connection.execute(
        "SELECT count(embedding), count(*) FROM nodes WHERE id IN (SELECT value FROM json_each(?))", (chosen,)
    )
    with_vector, restored = held[0]
    if with_vector < restored:
        connection.execute("DELETE FROM properties WHERE key = 'vault.vectors'")
    return int(with_vector)


def _restore_edges(connection: Connection, run: int) -> int:
    """Edges of others, where both their ends are there and nobody has made them again."""
    columns = _columns(connection, "edges")
    values = ", ".join(f"json_extract(row, '$.{column}')" for column in columns)
    # Those of sections are the vault's own; they are not counted.
    for mine in ("IN", "NOT IN"):
        connection.execute(
            f"INSERT INTO edges ({', '.join(columns)}) SELECT {values} FROM tombstones "
            f"WHERE run = ? AND entity = 'edges' "
            f"AND json_extract(row, '$.source') {mine} (SELECT node FROM sections) "
            f"AND json_extract(row, '$.source') IN (SELECT id FROM nodes) "
            f"AND json_extract(row, '$.target') IN (SELECT id FROM nodes) ORDER BY id ON CONFLICT DO NOTHING",
            (run,),
        )
    restored = connection.changes
    connection.execute("DELETE FROM tombstones WHERE run = ? AND entity = 'edges'", (run,))
    return restored


def _forget(db: ResonanceDB, pace: Pace, run: int) -> None:
    rows = [row for (row,) in db.query("SELECT id FROM tombstones WHERE run = ? ORDER BY id", (run,))]
    for batch in pace.batches(rows):
        with pace.measured(), db.transaction() as connection:
            connection.execute(
                "DELETE FROM tombstones WHERE id BETWEEN ? AND ? AND run = ?", (batch[0], batch[-1], run)
            )


def _columns(connection: Connection, table: str) -> list[str]:
    """The columns of a table but for the vector, which is no JSON."""
    found = connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
    return [name for (name,) in found if name != "embedding"]
