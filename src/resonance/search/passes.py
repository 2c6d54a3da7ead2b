"""Several threads that ask at the same time share one pass over the codes."""

from __future__ import annotations

import os
import threading
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from resonance._core import Codes

Bounds = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]

AT_ONCE = os.cpu_count() or 1
"""Passes side by side; who asks beyond them waits, and goes together with those that wait as well."""

MANY_HITS, MANY_ROWS = 2000, 65_536
"""From so many hits of so many rows on, processors that nobody else wants share the scan of one query."""

MOST_HELPERS = 3
"""Beyond so many the memory is what they wait for."""

MOST_TOGETHER = 16
"""Queries of one pass: four cost little more than one does, beyond that each costs its own time."""


class Wanted(NamedTuple):
    """What queries must have in common for one pass to answer them."""

    codes: Codes
    rows: int
    dead: npt.NDArray[np.uint8] | None
    k: int
    least: float
    most: float

    def is_same(self, other: Wanted) -> bool:
        numbers = (self.rows, self.k, self.least, self.most)
        same = numbers == (other.rows, other.k, other.least, other.most)
        return same and self.codes is other.codes and self.dead is other.dead


class _Turn:
    """One query: it waits, then leads a pass or is taken along, in which case it is told its answer."""

    def __init__(self, wanted: Wanted, query: npt.NDArray[np.float64]) -> None:
        self.wanted = wanted
        self.query = query
        self.woken = threading.Event()
        self.crew: list[_Turn] | None = None  # set when it is to lead: itself, and whom it takes along
        self.bounds: Bounds | None = None


class Passes:
    """Who may scan, and with whom. Alone a query never waits."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._lock = threading.Lock()
        self._free = at_once
        self._waiting: list[_Turn] = []

    def candidates(self, wanted: Wanted, query: npt.NDArray[np.float64]) -> Bounds:
        """What ``Codes.candidates`` answers for one query of unit length, (width,)."""
        turn = _Turn(wanted, query)
        if threading.current_thread() is threading.main_thread():
            # Ctrl-C interrupts this thread wherever it is: it neither waits, nor is it waited for.
            return self._scanned([turn], counted=False)[0]
        with self._lock:
            if self._free:
                self._free -= 1
                turn.crew = [turn]
            else:
                self._waiting.append(turn)
        if turn.crew is None:
            turn.woken.wait()
        if turn.crew is not None:
            try:
                for each, bounds in zip(turn.crew, self._scanned(turn.crew, counted=True), strict=True):
                    each.bounds = bounds
            finally:
                self._leave(turn, turn.crew)
        assert turn.bounds is not None
        return turn.bounds

    def _leave(self, turn: _Turn, crew: list[_Turn]) -> None:
        """Tell the crew, and let the next one lead. Whom a failure has left without an answer waits again."""
        with self._lock:
            others = [each for each in crew if each is not turn]
            self._waiting[:0] = [each for each in others if each.bounds is None]
            for each in others:
                if each.bounds is not None:
                    each.woken.set()
            self._give_up_one()

    def _give_up_one(self) -> None:
        """With the lock held: a pass less is under way, so another one may be."""
        if not self._waiting:
            self._free += 1
            return
        first = self._waiting[0]
        together = [each for each in self._waiting if each.wanted.is_same(first.wanted)]
        first.crew = together[:MOST_TOGETHER]
        self._waiting = [each for each in self._waiting if each not in first.crew]
        first.woken.set()

    def _scanned(self, crew: list[_Turn], *, counted: bool) -> list[Bounds]:
        codes, rows, dead, k, least, most = crew[0].wanted
        queries = np.array([turn.query for turn in crew])
        shared = k >= MANY_HITS and rows >= MANY_ROWS and len(crew) == 1
        if not shared or not counted:
            # What the main thread took, Ctrl-C might keep it from giving back.
            helpers = min(max(0, self._free - 1), MOST_HELPERS) if shared else 0
            return codes.candidates(queries, k, rows, dead, None, least, most, 1 + helpers)
        with self._lock:
            helpers = min(self._free, MOST_HELPERS)
            self._free -= helpers
        try:
            return codes.candidates(queries, k, rows, dead, None, least, most, 1 + helpers)
        finally:
            with self._lock:
                for _ in range(helpers):
                    self._give_up_one()
