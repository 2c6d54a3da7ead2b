"""Vectors out: straight from SQLite's rows into one float32 matrix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from resonance import _core, spaces
from resonance.errors import ResonanceError, SpaceError
from resonance.model import EmbeddingMatrix, FloatArray, Space
from resonance.parallel import READERS, piece_by_piece, readers, rowids, rows_at_most
from resonance.search.filters import Filter
from resonance.session import Session

_REPLACED = (
    "SELECT id, action, timestamp FROM history WHERE entity_id = '*' AND entity_type = 'database' "
    "ORDER BY id DESC LIMIT 1"
)
"""When another database was last put in the place of this one."""


def read_all(session: Session, chosen: Filter) -> EmbeddingMatrix:
    """One matrix of one moment, read by several connections over ranges of rowids where that pays."""
    where, values = chosen.sql()
    with session.snapshots(READERS) as connections:
        first = connections[0]
        width = spaces.width(first)
        bounds = rowids(first)
        if width < 0 or bounds is None:
            return EmbeddingMatrix(_core.Names(), np.empty((0, max(width, 0)), dtype=np.float32))
        low, high = bounds
        span = high - low
        if where != "1" or span > rows_at_most(first, width):
            # Few of the rowids are wanted or in use: counting first is cheaper than room for all.
            where = f"{where} AND embedding IS NOT NULL"
            count = int(first.execute(f"SELECT count(*) FROM nodes WHERE {where}", values)[0][0])
            out = np.empty((count, width), dtype=np.float32)
            names = _core.read_vectors(first, f"SELECT id, embedding FROM nodes WHERE {where}", values, out)
            return EmbeddingMatrix(names, out)
        out = np.empty((span, width), dtype=np.float32)
        useful = readers(connections, span)
        if useful == 1:
            names = _read_range(first, low, high, out)
            return EmbeddingMatrix(names, out[: len(names)])
        return _read_side_by_side(connections[:useful], low, out)


def _read_side_by_side(connections: list[_core.Connection], low: int, out: FloatArray) -> EmbeddingMatrix:
    """Rowids from ``low`` on, as many as ``out`` has room for."""
    found = _core.Names()

    def read(connection: _core.Connection, start: int, stop: int) -> _core.Names:
        return _read_range(connection, start, stop, out[start - low : stop - low])

    for start, names in piece_by_piece(connections, low, low + len(out), read):
        # Close the gap that nodes without a vector left at the end of a piece.
        if start - low != len(found):
            out[len(found) : len(found) + len(names)] = out[start - low : start - low + len(names)]
        found.extend(names)
    return EmbeddingMatrix(found, out[: len(found)])


def read_pieces(session: Session, size: int) -> Iterator[EmbeddingMatrix]:
    """Pieces of at most ``size`` rows; see ``ResonanceDB.iter_embeddings``."""
    last: float = -np.inf
    begun: tuple[Space | None, list[Any]] | None = None
    while True:
        with session.snapshot() as connection:
            now = spaces.active(connection), connection.execute(_REPLACED)
            begun = begun or now
            if now[0] != begun[0]:
                raise SpaceError("another space was made the active one between two pieces; begin again")
            if now[1] != begun[1]:
                raise ResonanceError(
                    f"{session.path}: the database was built anew between two pieces, which numbers its rows "
                    f"anew; begin again"
                )
            width = spaces.width(connection)
            if width < 0:
                return
            found = connection.execute(
                "SELECT min(rowid), max(rowid), count(*) FROM (SELECT rowid FROM nodes "
                "WHERE embedding IS NOT NULL AND rowid > ? ORDER BY rowid LIMIT ?)",
                (last, size),
            )[0]
            if not found[2]:
                return
            out = np.empty((found[2], width), dtype=np.float32)
            names = _read_range(connection, found[0], found[1] + 1, out)
        yield EmbeddingMatrix(names, out)
        last = found[1]


def _read_range(connection: _core.Connection, start: int, stop: int, out: FloatArray) -> _core.Names:
    # The one behind the largest rowid there can be is too large to ask for.
    return _core.read_vectors(
        connection, "SELECT id, embedding FROM nodes WHERE rowid BETWEEN ? AND ?", (start, stop - 1), out
    )
