"""Reading all nodes, piece by piece, with several connections."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from resonance._core import Connection

P = TypeVar("P")
T = TypeVar("T")

READERS = min(4, os.cpu_count() or 1)

ROWS_PER_READER = 8192
"""A second connection pays only for more rows than this."""

ROWS_AT_ONCE = 8192
"""Rows that a reader takes at a time: a processor that others use as well then holds up nobody."""

SCAN_CACHE_KIB = 256
"""Of each reader's page cache, while there are several."""


def rowids(connection: Connection) -> tuple[int, int] | None:
    """The first rowid and the one behind the last; None if there are no nodes."""
    # Two questions: SQLite answers each from an end of the tree, but both together by reading all of it.
    low, high = (connection.execute(f"SELECT {end}(rowid) FROM nodes")[0][0] for end in ("min", "max"))
    return None if low is None else (int(low), int(high) + 1)


def rows_at_most(connection: Connection, width: int) -> int:
    """A bound on the nodes with vectors so wide that costs nothing: their rows are not smaller."""
    pages, size = (connection.execute(f"PRAGMA {name}")[0][0] for name in ("page_count", "page_size"))
    return int(pages * size) // (4 * max(width, 1))


def readers(connections: Sequence[Connection], span: int) -> int:
    """How many of them it pays to read ``span`` rowids with."""
    return max(1, min(len(connections), span // ROWS_PER_READER))


def piece_by_piece(
    connections: Sequence[Connection],
    low: int,
    high: int,
    read: Callable[[Connection, int, int], T],
    *,
    at_once: int = ROWS_AT_ONCE,
) -> Iterator[tuple[int, T]]:
    """What ``read(connection, start, stop)`` returns for each piece of low..high (not included), in order.

    Each connection is used by one thread at a time, whoever is free takes the next piece.
    """
    idle = list(connections)
    starts = range(low, high, at_once)

    def one(start: int) -> T:
        connection = idle.pop()
        try:
            return read(connection, start, min(start + at_once, high))
        finally:
            idle.append(connection)

    with _small_caches(connections), ThreadPoolExecutor(len(connections)) as pool:
        yield from zip(starts, pool.map(one, starts), strict=True)


def shared(pieces: Sequence[P], threads: int, work: Callable[[P], T]) -> list[T]:
    """What ``work`` returns for each piece, in order: whoever is free takes the next one, this thread too.

    For work of some milliseconds: it costs less than a pool.
    """
    todo, done, failures = deque(enumerate(pieces)), dict[int, T](), list[BaseException]()

    def run() -> None:
        try:
            while todo:
                try:
                    number, piece = todo.popleft()
                except IndexError:  # somebody else took the last one
                    return
                done[number] = work(piece)
        except BaseException as error:
            failures.append(error)

    helpers = [threading.Thread(target=run, daemon=True) for _ in range(min(threads, len(pieces)) - 1)]
    try:
        for helper in helpers:
            helper.start()
        run()
    finally:
        todo.clear()
        for helper in helpers:
            if helper.ident is not None:
                helper.join()
    if failures:
        raise failures[0]
    return [done[number] for number in range(len(pieces))]


@contextlib.contextmanager
def _small_caches(connections: Sequence[Connection]) -> Iterator[None]:
    """Each page is read once: in a cache that the processor's holds, it is copied from there."""
    sizes = [connection.execute("PRAGMA cache_size")[0][0] for connection in connections]
    for connection in connections:
        connection.execute(f"PRAGMA cache_size = -{SCAN_CACHE_KIB}")
    try:
        yield
    finally:
        for connection, size in zip(connections, sizes, strict=True):
            connection.execute(f"PRAGMA cache_size = {size}")
