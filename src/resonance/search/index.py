"""The vectors of a database as codes that stay in memory, and follow what anybody writes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from resonance import changes, spaces
from resonance._core import Codes, Connection, read_rowids
from resonance.parallel import READERS, ROWS_AT_ONCE, piece_by_piece, readers, rowids, rows_at_most
from resonance.search.cache import Records, VectorCache
from resonance.search.filters import Filter
from resonance.search.kept import Asked, Kept
from resonance.search.passes import Bounds, Passes, Wanted
from resonance.session import Session
from resonance.watch import State

_COLUMNS = "SELECT rowid, embedding, type, domain, layer FROM nodes"
_MOST_RANGES = 4096
"""Beyond so many ranges of changed rows reading all of them costs less."""


class Likely(NamedTuple):
    """Rows that may be among the nearest, with bounds of their scores: first the ``filed`` ones, that are to
    be read from a file, in the order they have there, then the others in the order of ``rowids``."""

    positions: npt.NDArray[np.int64]
    rowids: npt.NDArray[np.int64]
    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]
    filed: int = 0

    def some(self, chosen: npt.NDArray[np.bool_]) -> Likely:
        """Those of these rows that are chosen."""
        return self._picked(chosen, int(np.count_nonzero(chosen[: self.filed])))

    def filed_first(self, filed: npt.NDArray[np.bool_]) -> Likely:
        """These rows, of which those are to be read from a file; ascending in ``positions`` so far."""
        others = np.flatnonzero(~filed)
        order = np.concatenate([np.flatnonzero(filed), others[np.argsort(self.rowids[others])]])
        return self._picked(order, len(order) - len(others))

    def _picked(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.int64], filed: int) -> Likely:
        return Likely(self.positions[chosen], self.rowids[chosen], self.low[chosen], self.high[chosen], filed)


@dataclass(frozen=True, slots=True)
class View:
    """The rows of one moment. What it refers to is never changed, only added to beyond ``count``."""

    moment: changes.Moment
    codes: Codes
    count: int
    dead: npt.NDArray[np.uint8] | None
    passes: Passes
    kept: Kept = field(default_factory=Kept)
    records: Records | None = None

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

    def likely(self, connection: Connection, bounds: Bounds) -> Likely:
        """The rows of an answer of :meth:`candidates`."""
        positions, low, high = bounds
        rowids = self.codes.rowids(positions)
        filed = np.zeros(len(positions), bool)
        if self.records is not None and (retitled := self.records.retitled(connection)) is not None:
            filed[: int(np.searchsorted(positions, self.records.count))] = True
            if retitled.size:
                filed &= ~np.isin(rowids, retitled)
        return Likely(positions, rowids, low, high).filed_first(filed)

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

    def __init__(self, session: Session, cache: VectorCache | None = None) -> None:
        self._session = session
        self._cache = cache
        self._lock = threading.RLock()
        self._view: View | None = None
        self._passes = Passes()

    @property
    def nbytes(self) -> int:
        """Bytes of memory it takes; 0 before the first search."""
        view = self._view
        if view is None:
            return 0
        return view.codes.nbytes + sum(part.nbytes for part in (view.dead, view.records) if part is not None)

    @property
    def cache_told(self) -> str | None:
        """What became of the file beside the database; None where none is wanted."""
        return None if self._cache is None else self._cache.told

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
        """Read all vectors, if there is no view of the newest moment: from the file beside the database, and
        what has changed since from the database; or all from there, and write the file."""
        with self._session.snapshots(READERS) as connections:
            with self._lock:
                view = self._loaded(connections)
            # Others search meanwhile.
            if view is None or self._cache is None or not view.count:
                return
            records = self._cache.write(connections[0], view.moment, view.codes, view.count)
        with self._lock:
            now = self._view
            if records is not None and now is not None and now.codes is view.codes:
                self._view = replace(now, records=records)

    def _loaded(self, connections: list[Connection]) -> View | None:
        """The view, if it has been read from the database."""
        first = connections[0]
        now, view, width = changes.moment(first), self._view, spaces.width(first)
        newer = view is not None and view.moment.schema == now.schema and view.moment.seq >= now.seq
        if newer or width < 0:
            return None
        self._view = None  # before the next one takes its memory
        if self._cache is not None and (found := self._cache.read(first)) is not None:
            codes, records = found.codes, found.records
            view = View(found.moment, codes, codes.count, None, self._passes, records=records)
            self._view = self._refreshed(first, view, now)
            if self._view is not None:
                return None
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
        return self._view

    def drop_records(self, records: Records, why: str) -> None:
        """Answer from the database alone: what the file has is not what was written."""
        with self._lock:
            view = self._view
            if view is not None and view.records is records:
                self._view = replace(view, records=None)
        if self._cache is not None:
            self._cache.drop(records, why)

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
        return View(now, view.codes, count, dead, self._passes, records=view.records)


def _append(codes: Codes, connection: Connection, start: int, stop: int) -> None:
    codes.append(
        connection, f"{_COLUMNS} WHERE rowid BETWEEN ? AND ? AND embedding IS NOT NULL", (start, stop - 1)
    )
