"""The vectors of a database as codes that stay in memory, and follow what anybody writes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from resonance import changes, spaces
from resonance._core import Codes, Connection, read_rowids
from resonance.parallel import READERS, ROWS_AT_ONCE, piece_by_piece, readers, rowids, rows_at_most
from resonance.search.filters import Filter
from resonance.search.kept import Asked, Kept
from resonance.search.passes import Bounds, Passes, Wanted
from resonance.session import Session
from resonance.watch import State

_COLUMNS = "SELECT rowid, embedding, type, domain, layer FROM nodes"
_MOST_RANGES = 4096
"""Beyond so many ranges of changed rows reading all of them costs less."""


@dataclass(frozen=True, slots=True)
class View:
    """The rows of one moment. What it refers to is never changed, only added to beyond ``count``."""

    moment: changes.Moment
    codes: Codes
    count: int
    dead: npt.NDArray[np.uint8] | None
    passes: Passes
    kept: Kept = field(default_factory=Kept)

    @property
    def rows(self) -> int:
        """How many nodes have a vector."""
        return self.count - (0 if self.dead is None else int(self.dead.sum()))

    def chosen(
        self, connection: Connection, chosen: Filter, state: State | None
    ) -> npt.NDArray[np.int64] | None:
        """Positions of the rows that pass a filter, ascending; None for all.

        Args:
            state: of the file that ``connection`` sees, if it is known; then what a condition chose is
                kept for as long as nobody commits.
        """
        rest, key = chosen.beyond_labels, chosen.key
        if rest is None and not any(label is not None for label in chosen.labels):
            return None
        if key is None or (rest is not None and state is None):
            return self._evaluated(connection, chosen)
        asked = Asked(key, None if rest is None else state)
        positions = self.kept.get(asked)
        if positions is None:
            positions = self._evaluated(connection, chosen)
            self.kept.put(asked, positions)
        return positions

    def candidates(
        self,
        queries: npt.NDArray[np.float64],
        k: int,
        positions: npt.NDArray[np.int64] | None,
        least: float,
        most: float,
    ) -> list[Bounds]:
        """See ``Codes.candidates``. One query may be answered together with those of other threads."""
        if positions is None and len(queries) == 1:
            wanted = Wanted(self.codes, self.count, self.dead, k, least, most)
            return [self.passes.candidates(wanted, queries[0])]
        return self.codes.candidates(queries, k, self.count, self.dead, positions, least, most)

    def _evaluated(self, connection: Connection, chosen: Filter) -> npt.NDArray[np.int64]:
        positions = None
        if any(label is not None for label in chosen.labels):
            positions = self.codes.labelled(chosen.labels, self.count)
        if (rest := chosen.beyond_labels) is not None:
            where, values = rest.sql()
            rowids = read_rowids(connection, f"SELECT rowid FROM nodes WHERE {where} ORDER BY rowid", values)
            located = self.codes.locate(rowids, rowids, self.count)
            positions = located if positions is None else np.intersect1d(positions, located, True)
        assert positions is not None
        return positions if self.dead is None else positions[self.dead[positions] == 0]


class VectorIndex:
    """Loads codes when they are first asked for, and reads only changed rows from then on.

    Threads share it: each search works on a :class:`View`, which stays as it is while another thread
    brings the next one up.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.RLock()
        self._view: View | None = None
        self._passes = Passes()

    @property
    def nbytes(self) -> int:
        """Bytes of memory it takes; 0 before the first search."""
        view = self._view
        return 0 if view is None else view.codes.nbytes + (0 if view.dead is None else view.dead.nbytes)

    def view(self, connection: Connection) -> View | None:
        """The view of the moment that ``connection`` sees; None if only :meth:`load` can make it."""
        now = changes.moment(connection)
        view = self._view
        if view is not None and view.moment == now:
            return view
        if view is None or view.moment.schema != now.schema or view.moment.seq > now.seq:
            return None
        with self._lock:
            view = self._view
            if view is None or view.moment == now:
                return view
            try:
                self._view = self._refreshed(connection, view, now)
            except BaseException:
                self._view = None  # half of the changed rows may have been added
                raise
            return self._view

    @contextmanager
    def still(self) -> Iterator[None]:
        """Inside, no other thread brings up the next view: a snapshot taken inside is not behind it."""
        with self._lock:
            yield

    def load(self) -> None:
        """Read all vectors, if there is no view of the newest moment."""
        with self._session.snapshots(READERS) as connections, self._lock:
            first = connections[0]
            now, view, width = changes.moment(first), self._view, spaces.width(first)
            newer = view is not None and view.moment.schema == now.schema and view.moment.seq >= now.seq
            if newer or width < 0:
                return
            self._view = None  # before the next one takes its memory
            codes = Codes(width)
            bounds = rowids(first)
            if bounds is not None:
                span = bounds[1] - bounds[0]
                # Where few rowids are in use, one reader goes from row to row: pieces would be without end.
                sparse = span > rows_at_most(first, width)
                useful = connections[: 1 if sparse else readers(connections, span)]
                parts = {connection: Codes(width) for connection in useful}
                for _ in piece_by_piece(
                    useful,
                    *bounds,
                    lambda connection, *piece: _append(parts[connection], connection, *piece),
                    at_once=span if sparse else ROWS_AT_ONCE,
                ):
                    pass
                codes.absorb(list(parts.values()))
            self._view = View(now, codes, codes.count, None, self._passes)

    def discard(self) -> None:
        """Forget what is in memory; the next search reads it again."""
        with self._lock:
            self._view = None

    def _refreshed(self, connection: Connection, view: View, now: changes.Moment) -> View | None:
        ranges = changes.since(connection, view.moment, now)
        if ranges is None or len(ranges) > _MOST_RANGES or spaces.width(connection) != view.codes.width:
            return None
        if not ranges:
            return replace(view, moment=now)
        lows, highs = np.array(ranges, np.int64).reshape(-1, 2).T.copy()
        gone = view.codes.locate(lows, highs, view.count)
        for low, high in ranges:
            _append(view.codes, connection, low, high + 1)
        count = view.codes.count
        dead = view.dead
        if gone.size or dead is not None:
            before, dead = dead, np.zeros(count, np.uint8)
            if before is not None:
                dead[: view.count] = before
            dead[gone] = 1
            if int(dead.sum()) > max(_MOST_RANGES, count // 4):
                return None
        return View(now, view.codes, count, dead, self._passes)


def _append(codes: Codes, connection: Connection, start: int, stop: int) -> None:
    codes.append(
        connection, f"{_COLUMNS} WHERE rowid BETWEEN ? AND ? AND embedding IS NOT NULL", (start, stop - 1)
    )
