"""Other engines that answer for the vectors of a database."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from resonance import _core, changes, spaces
from resonance.errors import BackendError, CorruptRowError, InputError
from resonance.model import FloatArray
from resonance.search.filters import Filter
from resonance.session import Session

Ints = npt.NDArray[np.int64]

Nearest = Callable[[FloatArray, int], npt.ArrayLike]
"""Of queries (q, d) float32 of unit norm, and k: row numbers (q, m), in any order; negative for none.

Several threads call it at once. It is never asked for more rows than there are.
"""

_FEW = 1000
"""Rows that pass a filter are all scored when they are so few: no engine need be asked."""


class Backend(Protocol):
    """Another engine, such as faiss, usearch or hnswlib, for ``ResonanceDB.search(..., backend=...)``.

    It proposes rows; the database scores them exactly, applies filters and names the hits. Which rows it
    proposes, its recall, is its own affair.
    """

    def load(self, ids: Sequence[str], vectors: FloatArray, /) -> Nearest:
        """Take all vectors, and return the function that answers for them.

        Called before the first search and whenever the database has changed. Searches that run meanwhile
        go on with the function they have.

        Args:
            ids: of the nodes, row by row.
            vectors: (n, d) float32, C-contiguous, every row of unit norm; it may be kept.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class BackendView:
    """What a backend answers for: the rows of one moment."""

    moment: changes.Moment
    rowids: Ints
    nearest: Nearest

    @property
    def rows(self) -> int:
        return len(self.rowids)

    def chosen(self, connection: _core.Connection, chosen: Filter) -> Ints | None:
        """Numbers of the rows that pass a filter, ascending; None for all."""
        where, values = chosen.sql()
        if where == "1":
            return None
        passed = _core.read_rowids(
            connection, f"SELECT rowid FROM nodes WHERE {where} AND embedding IS NOT NULL", values
        )
        return np.flatnonzero(np.isin(self.rowids, passed))

    def is_all(self, k: int, passed: Ints | None) -> bool:
        """Whether ``k`` rows are all that can be wanted, or those that pass so few that all are proposed."""
        return k >= self.rows or (passed is not None and len(passed) <= max(_FEW, k))

    def propose(self, queries: npt.NDArray[np.float64], k: int, passed: Ints | None) -> list[Ints]:
        """For each query the rows it says are nearest and that pass; each once.

        Raises:
            BackendError: it failed, or answered with something else.
        """
        if passed is not None and self.is_all(k, passed):
            return [passed] * len(queries)
        try:
            answer = np.asarray(self.nearest(queries.astype(np.float32), min(k, self.rows)))
        except Exception as error:
            raise BackendError(f"the backend failed on {len(queries)} queries: {error}") from error
        fine = answer.dtype.kind in "iu" and answer.ndim == 2 and len(answer) == len(queries)
        if not fine:
            raise BackendError(
                f"the backend answered {len(queries)} queries with {answer.dtype} of shape {answer.shape}; "
                f"give row numbers of shape ({len(queries)}, m)"
            )
        # Some engines say -1 for none, others the largest unsigned number.
        signed = answer.astype(np.int64)
        if (signed >= self.rows).any():
            raise BackendError(f"the backend answered row {signed.max()} of {self.rows}")
        rows = [np.unique(each[each >= 0]) for each in signed]
        return rows if passed is None else [np.intersect1d(each, passed, True) for each in rows]


class BackendIndex:
    """Keeps a backend loaded with what the database holds; the counterpart of ``VectorIndex``."""

    def __init__(self, session: Session, backend: Backend) -> None:
        self._session = session
        self._backend = weakref.ref(backend)
        self._lock = threading.Lock()
        self._view: BackendView | None = None

    def view(self, connection: _core.Connection) -> BackendView | None:
        """The view of the moment that ``connection`` sees; None if there is none."""
        view = self._view
        return view if view is not None and view.moment == changes.moment(connection) else None

    def load(self) -> None:
        """Hand all vectors over, if they are not those of the newest moment."""
        with self._lock:
            backend = self._backend()
            with self._session.snapshot() as connection:
                now, width = changes.moment(connection), spaces.width(connection)
                if width < 0 or backend is None or (self._view is not None and self._view.moment == now):
                    return
                self._view = None  # before the next one takes its memory
                there = "FROM nodes WHERE embedding IS NOT NULL ORDER BY rowid"
                found = connection.query(f"SELECT rowid {there}", ())
                vectors = np.empty((len(found), width), np.float32)
                names = _core.read_vectors(connection, f"SELECT id, embedding {there}", (), vectors).to_list()
            # A score of anything else would be no cosine; the scan that answers instead says which row it is.
            if not (spaces.off_unit(vectors) <= spaces.NORM_TOLERANCE).all():
                raise CorruptRowError("a stored vector is not of unit norm")
            rowids = np.fromiter((row[0] for row in found), np.int64, len(found))
            self._view = BackendView(now, rowids, _loaded(backend, names, vectors))

    def discard(self) -> None:
        """Forget what was loaded; the next search loads it again."""
        self._view = None


def _loaded(backend: Backend, ids: list[str], vectors: FloatArray) -> Nearest:
    if not ids:
        return lambda queries, k: np.empty((len(queries), 0), np.int64)
    try:
        nearest = backend.load(ids, vectors)
    except Exception as error:
        raise BackendError(f"the backend could not load {len(ids)} vectors: {error}") from error
    if not callable(nearest):
        raise BackendError(f"the backend's load returned {nearest!r}, not a function that answers")
    return nearest


class Backends:
    """What is loaded for each backend, as long as somebody holds it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._indexes: weakref.WeakKeyDictionary[Any, BackendIndex] = weakref.WeakKeyDictionary()

    def index(self, backend: Backend) -> BackendIndex:
        """The index of this backend, made when it is first asked for.

        Raises:
            InputError: it is no backend.
        """
        if not callable(getattr(backend, "load", None)):
            raise InputError(f"backend={backend!r} has no method load; see resonance.search.Backend")
        try:
            with self._lock:
                if backend not in self._indexes:
                    self._indexes[backend] = BackendIndex(self._session, backend)
                return self._indexes[backend]
        except TypeError as error:
            raise InputError(
                f"backend={backend!r}: {error}; an ordinary object will do, hashed by identity"
            ) from error

    def discard(self) -> None:
        """Forget them all."""
        with self._lock:
            self._indexes.clear()
