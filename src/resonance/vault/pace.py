"""How much to write at a time, so that nobody waits long for the write lock."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from resonance.database import ResonanceDB

HOLD_SECONDS = 0.015
"""How long a batch means to hold the write lock; the slowest of a hundred take three times that."""

_FIRST_BATCH, _SMALLEST_BATCH, _LARGEST_BATCH = 64, 8, 4096
# A batch that went well says little about the next one, whose notes may be others; one that did not, much.
_GROWTH = 1.5

T = TypeVar("T")


class Pace:
    """Batches that adapt to how long the last one held the write lock.

    One of them for each kind of work: what a note costs says nothing about what a link does.
    """

    def __init__(self, db: ResonanceDB) -> None:
        self.db = db
        self.size = _LARGEST_BATCH if db.is_alone else _FIRST_BATCH

    def batches(self, items: Sequence[T], weight: Callable[[T], int] | None = None) -> Iterator[Sequence[T]]:
        """The items in pieces, none empty, each as heavy as the writing of the last one allows.

        Args:
            weight: how much there is to write for an item; 1 where it is not given.
        """
        at = 0
        while at < len(items):
            end, room = at + 1, self.size - (weight(items[at]) if weight else 1)
            while end < len(items) and (room := room - (weight(items[end]) if weight else 1)) >= 0:
                end += 1
            yield items[at:end]
            at = end

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Round the one transaction that writes a piece; adapts the size of the next."""
        yield
        if self.db.is_alone:
            return
        held = max(self.db.last_hold, 1e-6)
        size = self.size * min(HOLD_SECONDS / held, _GROWTH)
        self.size = int(min(max(size, _SMALLEST_BATCH), _LARGEST_BATCH))
