"""Vectors out: straight from SQLite's rows into one float32 matrix."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from resonance import _core, spaces
from resonance.model import EmbeddingMatrix, FloatArray
from resonance.search.filters import Filter
from resonance.session import Session

ROWS_PER_READER = 8192
"""A second connection pays only for more rows than this."""

READERS = min(4, os.cpu_count() or 1)

ROWS_AT_ONCE = 8192
"""Rows that a reader takes at a time: a processor that others use as well then holds up nobody."""

SCAN_CACHE_KIB = 256
"""Of each reader's page cache, while there are several."""


def read_all(session: Session, chosen: Filter) -> EmbeddingMatrix:
    """One matrix of one moment, read by several connections over ranges of rowids where that pays."""
    where, values = chosen.sql()
    with session.snapshots(READERS) as connections:
        first = connections[0]
        width = spaces.width(first)
        # Two questions: SQLite answers each from an end of the tree, but both together by reading all of it.
        bounds = [first.execute(f"SELECT {end}(rowid) FROM nodes")[0][0] for end in ("min", "max")]
        if width < 0 or bounds[0] is None:
            return EmbeddingMatrix([], np.empty((0, max(width, 0)), dtype=np.float32))
        low, high = int(bounds[0]), int(bounds[1]) + 1
        span = high - low
        if where != "1" or span > _rows_at_most(first):
            # Few of the rowids are wanted or in use: counting first is cheaper than room for all.
            where = f"{where} AND embedding IS NOT NULL"
            count = int(first.execute(f"SELECT count(*) FROM nodes WHERE {where}", values)[0][0])
            out = np.empty((count, width), dtype=np.float32)
            names = _core.read_vectors(first, f"SELECT id, embedding FROM nodes WHERE {where}", values, out)
            return EmbeddingMatrix(names.to_list(), out)
        out = np.empty((span, width), dtype=np.float32)
        readers = max(1, min(len(connections), span // ROWS_PER_READER))
        if readers == 1:
            names = _read_range(first, low, high, out)
            return EmbeddingMatrix(names.to_list(), out[: len(names)])
        return _read_side_by_side(connections[:readers], low, out)


def _read_side_by_side(connections: list[_core.Connection], low: int, out: FloatArray) -> EmbeddingMatrix:
    """Rowids from ``low`` on, as many as ``out`` has room for, piece by piece by whoever is free."""
    idle = list(connections)
    starts = range(0, len(out), ROWS_AT_ONCE)
    ids: list[str] = []

    def read(start: int) -> _core.Names:
        connection = idle.pop()
        try:
            piece = out[start : start + ROWS_AT_ONCE]
            return _read_range(connection, low + start, low + start + len(piece), piece)
        finally:
            idle.append(connection)

    with _small_caches(connections), ThreadPoolExecutor(len(connections)) as pool:
        for start, names in zip(starts, pool.map(read, starts), strict=True):
            # Close the gap that nodes without a vector left at the end of a piece.
            if start != len(ids):
                out[len(ids) : len(ids) + len(names)] = out[start : start + len(names)]
            ids += names.to_list()
    return EmbeddingMatrix(ids, out[: len(ids)])


@contextlib.contextmanager
def _small_caches(connections: list[_core.Connection]) -> Iterator[None]:
    """Each page is read once: in a cache that the processor's holds, it is copied from there."""
    sizes = [connection.execute("PRAGMA cache_size")[0][0] for connection in connections]
    for connection in connections:
        connection.execute(f"PRAGMA cache_size = -{SCAN_CACHE_KIB}")
    try:
        yield
    finally:
        for connection, size in zip(connections, sizes, strict=True):
            connection.execute(f"PRAGMA cache_size = {size}")


def read_pieces(session: Session, size: int) -> Iterator[EmbeddingMatrix]:
    """Pieces of at most ``size`` rows; see ``ResonanceDB.iter_embeddings``."""
    last = -(2**63)
    while True:
        with session.snapshot() as connection:
            width = spaces.width(connection)
            if width < 0:
                return
            rowids = connection.execute(
                "SELECT min(rowid), max(rowid), count(*) FROM (SELECT rowid FROM nodes "
                "WHERE embedding IS NOT NULL AND rowid > ? ORDER BY rowid LIMIT ?)",
                (last, size),
            )[0]
            if not rowids[2]:
                return
            out = np.empty((rowids[2], width), dtype=np.float32)
            names = _read_range(connection, rowids[0], rowids[1] + 1, out)
        yield EmbeddingMatrix(names.to_list(), out)
        last = rowids[1]


def _read_range(connection: _core.Connection, start: int, stop: int, out: FloatArray) -> _core.Names:
    return _core.read_vectors(
        connection,
        "SELECT id, embedding FROM nodes WHERE rowid >= ? AND rowid < ?",
        (start, stop),
        out,
    )


def _rows_at_most(connection: _core.Connection) -> int:
    """A bound on the number of nodes that costs nothing: rows are not smaller than this."""
    pages, size = (connection.execute(f"PRAGMA {name}")[0][0] for name in ("page_count", "page_size"))
    return int(pages * size) // (4 * max(spaces.width(connection), 1))
