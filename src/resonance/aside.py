"""Vectors of spaces that are not active: filled aside while the others are in use, then switched in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from resonance import _core, changes, spaces
from resonance.errors import ROWS_NAMED, ColumnError, InputError, SpaceError, UnknownNodesError
from resonance.history import History
from resonance.model import FloatArray, InsertReport, MissingVectors, Space, SpaceInfo
from resonance.search.filters import count_of
from resonance.session import Session
from resonance.spaces import OWED, TEXT, WANTED, StoredSpace, current, told
from resonance.words import counted

Progress = Callable[[int, int], object]

HOLD, PAUSE = 0.02, 0.008
"""Seconds of writing in a batch, and between two: as other writers bear it, see ``bulk.SHARED_HOLD``."""

_FIRST_BATCH, _LARGEST_BATCH = 64, 1024
_SWITCHED_AT_ONCE = 2048
"""Nodes of a statement of a switch: what SQLite sets aside for it stays small, and Ctrl-C is heard."""

# A node whose text nobody gave a hash of is known again by its vector.
_STAMP = f"coalesce({TEXT}, 'vector ' || hex(n.embedding))"
_AMONG = "n.id IN (SELECT value FROM json_each(?))"


class Spaces:
    """The part of :class:`ResonanceDB` about spaces that live side by side."""

    _session: Session

    def spaces(self) -> list[SpaceInfo]:
        """Every space with its counts, the active one first. Looks at every node."""
        with self._session.snapshot() as connection:
            return spaces.listed(connection)

    def add_space(self, space: Space) -> None:
        """Make a second space known, to fill it while the active one stays in use.

        Nothing happens if it is known. Fill it with :meth:`insert_vectors`, then :meth:`switch_space`.

        Raises:
            SpaceError: it has no dimensions, or no name of a model.
        """
        with self._session.writing() as writer:
            spaces.add(writer, space)

    def missing_vectors(
        self, space: Space | str, limit: int = 1024, *, after: str | None = None
    ) -> MissingVectors:
        """Nodes that want a vector in a space that is not active, and have none of their present text.

        These are the nodes with a vector in the active space, and the notes and sections of a vault. A
        vector is out of date, and missing, when the hash of the node's text is another one (that of the
        vault's note or section, else ``nodes.hash``), or when such a node without a vault was given
        another vector in the active space.

        Args:
            space: its identity, its name, or ``name@revision``.
            limit: of how many nodes to tell.
            after: go on behind this id.

        Raises:
            SpaceError: there is no such space, or it is the active one.
        """
        limit = count_of(limit, "limit", least=1)
        with self._session.snapshot() as connection:
            found = _aside(connection, space)
            rows = connection.query(
                f"SELECT n.id, {_STAMP} FROM nodes AS n WHERE n.id > ? AND {WANTED} "
                f"AND NOT {current(found.id)} ORDER BY n.id LIMIT ?",
                (after or "", limit),
            )
        return MissingVectors([node for node, _ in rows], [stamp for _, stamp in rows])

    def insert_vectors(
        self,
        space: Space | str,
        ids: Iterable[str],
        vectors: Any,
        *,
        stamps: Sequence[str | None] | None = None,
        progress: Progress | None = None,
    ) -> InsertReport:
        """Give nodes vectors in a space that is not active; searches do not see them yet.

        All rows are checked before the first is written. They are then written in short transactions
        with room for other writers between them (inside a transaction of this thread: in that one), so
        a crash keeps a part, and :meth:`missing_vectors` tells what is left.

        Args:
            space: its identity, its name, or ``name@revision``.
            ids: of nodes that exist, each once.
            vectors: (n, d) of any real dtype; stored with unit norm. A row of zeros says that the model
                has nothing to say about that text: the node then has no vector, and misses none.
            stamps: those of :meth:`missing_vectors`. A node that has changed since, or is gone, is left
                out; the report names it. Without stamps the vectors count as those of the nodes as they
                are now.
            progress: called with (rows done, rows in all).

        Raises:
            InvalidIdError, ColumnError, EmbeddingError, DuplicateNodeError: naming column and rows;
                nothing was written.
            UnknownNodesError: without stamps, a node does not exist; nothing was written.
            SpaceError: there is no such space, or it is the active one.
        """
        started = time.monotonic()
        if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
            raise InputError(f"{ids!r:.60} is not a sequence of ids")
        nodes = list(ids)
        if stamps is not None and len(stamps) != len(nodes):
            raise ColumnError(f"{len(stamps)} stamps for {len(nodes)} ids", column="stamps")
        with self._session.snapshot() as connection:
            found = _aside(connection, space)
            units, zeros = _checked(nodes, vectors, found.space.dims)
            if stamps is None:
                _require_nodes(connection, nodes)
        counts = _Counts()
        at, size = 0, _FIRST_BATCH
        while at < len(nodes):
            batch = slice(at, at + size)
            with self._session.writing() as writer:
                found = _aside(writer, found.space)
                _write(writer, found.id, at, nodes[batch], units[batch], stamps and stamps[batch], counts)
            at += size
            if progress is not None:
                progress(min(at, len(nodes)), len(nodes))
            if not self._session.in_transaction:
                size = _next_size(size, self._session.holds[-1])
                if at < len(nodes) and not self._session.is_alone:
                    time.sleep(PAUSE)
        return InsertReport(
            rows=len(nodes),
            inserted=counts.inserted,
            updated=counts.updated,
            unchanged=counts.unchanged,
            skipped=counts.skipped,
            zero_vectors=zeros,
            problems=tuple(counts.problems),
            seconds=time.monotonic() - started,
        )

    def switch_space(self, space: Space | str, *, require_complete: bool = True) -> SpaceInfo:
        """Make another space the active one, in one transaction; its vectors are in use from then on.

        Who reads keeps what they read. The vectors that were active are kept beside, so switching back
        is the same again, bit for bit. Nothing happens if the space is active already. The write lock
        is held throughout: a few seconds for 100,000 nodes, see docs/vectors.md.

        Args:
            space: its identity, its name, or ``name@revision``.
            require_complete: refuse while vectors are missing or out of date. If False, those nodes have
                no vector afterwards; one that is out of date is never taken.

        Raises:
            SpaceError: there is no such space, or it is not complete; nothing was changed.
        """
        if require_complete:
            # Before the lock is taken: this alone takes a while.
            with self._session.snapshot() as connection:
                found = spaces.find(connection, space)
                if not found.active and (missing := spaces.missing(connection, found.id)):
                    raise _incomplete(found, missing)
        with self._session.writing() as writer:
            found, info = _switch(writer, space)
            if info.missing and require_complete and not found.active:  # since then
                raise _incomplete(found, info.missing)
        return info

    def drop_space(self, space: Space | str) -> int:
        """Forget a space that is not active, and its vectors. Returns how many there were.

        They go in short transactions; after a crash, repeat it.

        Raises:
            SpaceError: there is no such space, or it is the active one.
        """
        dropped, last, size = 0, 0, _FIRST_BATCH
        while True:
            # Looked for without the lock: rows of other spaces may lie in between.
            with self._session.reading() as connection:
                found = _aside(connection, space)
                rows = connection.query(
                    "SELECT id, embedding IS NOT NULL FROM vectors WHERE space = ? AND id > ? "
                    "ORDER BY id LIMIT ?",
                    (found.id, last, size),
                )
            with self._session.writing() as writer:
                found = _aside(writer, found.space)
                writer.executemany(
                    "DELETE FROM vectors WHERE id = ? AND space = ?", [(row, found.id) for row, _ in rows]
                )
                dropped += sum(1 for _, some in rows if some)
                if len(rows) < size:
                    writer.execute("DELETE FROM vectors WHERE space = ?", (found.id,))
                    # Its number may be given to another space.
                    writer.execute(
                        "UPDATE tombstones SET space = NULL, embedding = NULL WHERE space = ?", (found.id,)
                    )
                    writer.execute("DELETE FROM spaces WHERE id = ?", (found.id,))
                    History(writer).record("space", found.space.name, "drop", found.space._asdict(), None)
                    return dropped
            last = rows[-1][0]
            if not self._session.in_transaction:
                size = _next_size(size, self._session.holds[-1])
                time.sleep(0 if self._session.is_alone else PAUSE)


class _Counts:
    def __init__(self) -> None:
        self.inserted = self.updated = self.unchanged = self.skipped = 0
        self.problems: list[tuple[int, str]] = []


def _next_size(size: int, held: float) -> int:
    if held > 2 * HOLD:
        return max(size // 2, 1)
    return min(2 * size, _LARGEST_BATCH) if held < HOLD / 2 else size


def _aside(connection: _core.Connection, space: Space | str) -> StoredSpace:
    found = spaces.find(connection, space)
    if found.active:
        raise SpaceError(
            f"{told(found.space)} is the active space, whose vectors stand in the nodes; write them with "
            f"insert_nodes(id=..., embedding=...), or name another space"
        )
    return found


def _checked(nodes: list[str], vectors: Any, dims: int) -> tuple[FloatArray, int]:
    """Unit rows, and how many were all zeros."""
    if not nodes and hasattr(vectors, "__len__") and not len(vectors):
        vectors = np.empty((0, dims))
    given = _core.as_vectors(vectors, dims)
    column = _core.vector_column("embedding", given, dims)
    _core.NodePlan([_core.text_column("id", nodes), column])
    units = np.zeros_like(given)
    directed = given.any(axis=1)
    if directed.any():
        units[directed] = _core.to_fafcas(given[directed])
    return units, column.zeros


def _require_nodes(connection: _core.Connection, nodes: list[str]) -> None:
    known = {
        node
        for (node,) in connection.query(f"SELECT id FROM nodes AS n WHERE {_AMONG}", (json.dumps(nodes),))
    }
    wrong = [(row, repr(node)) for row, node in enumerate(nodes) if node not in known]
    if wrong:
        raise UnknownNodesError(
            "vectors are of nodes that do not exist", wrong[:ROWS_NAMED], len(wrong), "Insert the nodes first"
        )


def _write(
    writer: _core.Connection,
    space: int,
    first: int,
    nodes: Sequence[str],
    units: FloatArray,
    stamps: Sequence[str | None] | None,
    counts: _Counts,
) -> None:
    """One batch, in the transaction that is open."""
    stamp = "NULL" if stamps is None else _STAMP
    there = {
        node: rest
        for node, *rest in writer.query(
            f"SELECT n.id, {TEXT}, {stamp}, v.id, v.hash, v.embedding FROM nodes AS n "
            f"LEFT JOIN vectors AS v ON v.node = n.id AND v.space = {space} WHERE {_AMONG}",
            (json.dumps(list(nodes)),),
        )
    }
    inserts, updates = [], []
    for row, (node, unit) in enumerate(zip(nodes, units, strict=True)):
        if node not in there or (stamps is not None and stamps[row] != there[node][1]):
            counts.skipped += 1
            if len(counts.problems) < ROWS_NAMED:
                why = "has changed since" if node in there else "is gone"
                counts.problems.append((first + row, f"{node!r} {why}"))
            continue
        text, _, number, hash, before = there[node]
        blob = unit.tobytes() if unit.any() else None
        if number is None:
            inserts.append((node, space, blob, text))
        elif (hash, before) != (text, blob):
            updates.append((blob, text, number))
        else:
            counts.unchanged += 1
    writer.executemany("INSERT INTO vectors (node, space, embedding, hash) VALUES (?, ?, ?, ?)", inserts)
    writer.executemany("UPDATE vectors SET embedding = ?, hash = ? WHERE id = ?", updates)
    counts.inserted += len(inserts)
    counts.updated += len(updates)


def _incomplete(space: StoredSpace, missing: int) -> SpaceError:
    return SpaceError(
        f"{counted(missing, 'node')} without an up-to-date vector of {told(space.space)}, so nothing was "
        f"switched; fill it with insert_vectors (or `resonance embed`), or pass "
        f"require_complete=False (`--partial`) to leave them without one"
    )


def _switch(writer: _core.Connection, space: Space | str) -> tuple[StoredSpace, SpaceInfo]:
    """Returns the space as it was found, and what it is now."""
    new = spaces.find(writer, space)
    if new.active:
        return new, spaces.counted(writer, new)
    old = next((each for each in spaces.stored(writer) if each.active), None)
    vectors, missing, last = 0, 0, -np.inf
    writer.set_triggers(False)
    try:
        while rows := writer.query(_SWAPPED, (new.id, old and old.id, last, _SWITCHED_AT_ONCE)):
            swapped, lacking = _swap(writer, old, new, rows)
            vectors, missing, last = vectors + swapped, missing + lacking, rows[-1][0]
    finally:
        writer.set_triggers(True)
    writer.execute("UPDATE spaces SET active = 0 WHERE active = 1")
    writer.execute("UPDATE spaces SET active = 1 WHERE id = ?", (new.id,))
    # What a vault knew of its vectors was said of others.
    writer.execute("DELETE FROM properties WHERE key = 'vault.vectors'")
    changes.log_all(writer)
    History(writer).record(
        "space",
        new.space.name,
        "switch",
        old and old.space._asdict(),
        {**new.space._asdict(), "missing": missing},
    )
    return new, SpaceInfo(new.space, True, vectors, missing, 0)


# As TEXT and WANTED have it, with each table looked into once.
_SWAPPED = """
SELECT n.rowid, n.id, n.embedding, coalesce(s.text_hash, f.body_hash, n.hash),
       n.embedding IS NOT NULL OR s.node IS NOT NULL OR f.node IS NOT NULL,
       v.id, v.embedding, v.hash, o.id
FROM nodes AS n
LEFT JOIN sections AS s ON s.node = n.id
LEFT JOIN files AS f ON f.node = n.id
LEFT JOIN vectors AS v ON v.node = n.id AND v.space = ?
LEFT JOIN vectors AS o ON o.node = n.id AND o.space = ?
WHERE n.rowid > ? ORDER BY n.rowid LIMIT ?
"""


def _swap(
    writer: _core.Connection, old: StoredSpace | None, new: StoredSpace, rows: list[tuple[Any, ...]]
) -> tuple[int, int]:
    """Put the vectors of some nodes aside, and those of the new space in their place; in the same rows of
    ``vectors``, so that little moves. Returns how many nodes have one now, and how many lack one."""
    given, gone, moved, added = [], [], [], []
    vectors = missing = 0
    for rowid, node, before, text, is_wanted, number, vector, hash, owed in rows:
        is_current = number is not None and hash == text
        after = vector if is_current else None
        vectors += after is not None
        if before != after:
            given.append((after, rowid))
        # Where the old space owed a vector, and nobody has given it, it still does.
        keeps = old is not None and (is_wanted or is_current) and (owed is None or before is not None)
        if owed is not None and before is not None:
            gone.append((owed,))
        if keeps and number is not None:
            moved.append((old and old.id, before, text, number))
        elif keeps:
            added.append((node, old and old.id, before, text))
        elif number is not None:
            gone.append((number,))
        if is_wanted and not is_current:
            missing += 1
            added.append((node, new.id, None, OWED))
    writer.executemany("UPDATE nodes SET embedding = ? WHERE rowid = ?", given)
    writer.executemany("DELETE FROM vectors WHERE id = ?", gone)
    writer.executemany("UPDATE vectors SET space = ?, embedding = ?, hash = ? WHERE id = ?", moved)
    writer.executemany("INSERT INTO vectors (node, space, embedding, hash) VALUES (?, ?, ?, ?)", added)
    return vectors, missing
