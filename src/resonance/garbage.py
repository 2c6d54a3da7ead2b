"""Python's search for garbage, while very many objects are made that all stay."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

_SELDOM = 200_000
"""Objects between two searches: a vault's links and texts are made by the million, none of them garbage."""

_lock = threading.Lock()
_inside = 0
_before = (0, 0, 0)


@contextlib.contextmanager
def seldom_sought() -> Iterator[None]:
    """Have garbage looked for less often, in all threads; as before when the last block has ended.

    One that is off stays off, and one that is as rare stays as it is.
    """
    global _inside, _before
    with _lock:
        _inside += 1
        if _inside == 1:
            _before = gc.get_threshold()
            if 0 < _before[0] < _SELDOM:
                gc.set_threshold(_SELDOM, *_before[1:])
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                gc.set_threshold(*_before)
