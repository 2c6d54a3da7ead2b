"""Reading all nodes with several connections, each a range of rowids."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

READERS = min(4, os.cpu_count() or 1)

ROWS_PER_READER = 8192
"""A second connection pays only for more rows than this."""


def cuts(low: int, high: int, connections: int) -> list[int]:
    """Where ranges of low..high (not included) begin, one for each reader that pays, and where the last ends."""
    span = high - low
    readers = max(1, min(connections, span // ROWS_PER_READER))
    return [low + span * number // readers for number in range(readers + 1)]


def in_parallel(read: Callable[[int], T], count: int) -> list[T]:
    """``read(0)``, ``read(1)``, ... in threads of their own; they release the GIL."""
    if count == 1:
        return [read(0)]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(read, range(count)))
