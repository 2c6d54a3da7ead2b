"""Which rows filters chose, kept for those who ask the same again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from resonance.watch import State

Positions = npt.NDArray[np.int64]

MOST_POSITIONS = 1 << 20
"""Positions that are kept, of all filters together: 8 MiB."""

_FOR_EACH = 512
"""Positions that a filter itself counts for, be there ever so few rows that it chooses."""


class Asked(NamedTuple):
    """A filter, and the state of the file it was answered for; None where any will do."""

    filter: Hashable
    state: State | None


class Kept:
    """Positions by the filter that chose them: those that were last asked for. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chosen: OrderedDict[Asked, Positions] = OrderedDict()
        self._count = 0

    def get(self, asked: Asked) -> Positions | None:
        """What :meth:`put` was given for the same."""
        with self._lock:
            found = self._chosen.get(asked)
            if found is not None:
                self._chosen.move_to_end(asked)
            return found

    def put(self, asked: Asked, positions: Positions) -> None:
        """Keep these; nobody may change them any more."""
        positions.flags.writeable = False
        with self._lock:
            if asked.state is not None:
                for each in [each for each in self._chosen if each.state not in (None, asked.state)]:
                    self._drop(each)
            self._drop(asked)
            self._chosen[asked] = positions
            self._count += _FOR_EACH + len(positions)
            while self._count > MOST_POSITIONS:
                self._drop(next(iter(self._chosen)))

    def _drop(self, asked: Asked) -> None:
        gone = self._chosen.pop(asked, None)
        self._count -= 0 if gone is None else _FOR_EACH + len(gone)
