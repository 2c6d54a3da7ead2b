"""Exact search: the same answers whether from codes in memory or from a scan of SQLite's rows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt

from resonance import _core, spaces
from resonance.errors import CorruptRowError, EmbeddingError, InputError, SpaceError
from resonance.model import ContentPolicy, Explain, Hit, Hits, Space
from resonance.parallel import READERS
from resonance.search.backend import Backend, BackendIndex, BackendView
from resonance.search.cache import Records
from resonance.search.diversity import most_diverse
from resonance.search.filters import Filter, GroupBy, Where, count_of, is_grouped, is_number
from resonance.search.hits import Scored, Sight, named, scored
from resonance.search.index import Likely, VectorIndex, View
from resonance.session import Session

Memory = Literal["resident", "stream"]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bounds = npt.NDArray[np.float32]

Row = tuple[str, str, str]
ROW: Row = ("rowid", "embedding", "id")
"""The columns of ``nodes`` that a scan is about."""

_NOTHING = Scored(np.empty(0, np.int64), np.empty(0))


class Options(TypedDict, total=False):
    """The keyword arguments of ``ResonanceDB.search``."""

    domain: str | None
    type: str | None
    layer: str | None
    ids: Iterable[str] | None
    where: Where | None
    min_score: float | None
    after: tuple[float, str] | Hit | None
    mmr: float | None
    memory: Memory
    group_by: GroupBy | None
    backend: Backend | None
    explain: bool
    hydrate: bool | ContentPolicy
    space: Space | str | None


_ATTEMPTS = 3
_DIVERSE_AMONG = 4
"""Among how many times k candidates diversity chooses."""

_ASKED_AGAIN = 4
"""For how many times as many rows a backend is asked when those it gave are too few."""

_MUCH = 2000
"""For so many hits several connections score."""

_NODES_A_DOCUMENT = 4
"""How many nodes are looked at for each document wanted, at first; and then that many times as many."""


class StaleIndexError(Exception):
    """Codes in memory are not of the rows that are stored: somebody wrote without the log noticing."""


class DamagedRecordsError(Exception):
    """A file does not have the rows that were written to it."""

    def __init__(self, records: Records, why: str) -> None:
        super().__init__(why)
        self.records = records


class Question:
    """What is asked, checked: unit queries and the conditions on answers."""

    def __init__(
        self,
        query: Any,
        k: int,
        chosen: Filter,
        *,
        min_score: float | None = None,
        after: tuple[float, str] | Hit | None = None,
        mmr: float | None = None,
        group_by: GroupBy | None = None,
        space: Space | str | None = None,
    ) -> None:
        self.space = space
        self.aside: int | None = None
        self.grouped = is_grouped(group_by)
        self.wanted = count_of(k)
        if mmr is not None and not (is_number(mmr) and 0 <= mmr <= 1):
            raise InputError(f"mmr={mmr!r}; give a number from 0 (diverse) to 1 (near)")
        if mmr is not None and after is not None:
            raise InputError("mmr and after: diverse hits have no next page; give one, or a larger k")
        if min_score is not None and not (is_number(min_score) and np.isfinite(min_score)):
            raise InputError(f"min_score={min_score!r}; give a number")
        self.single = is_vector(query)
        self.queries = _unit_queries([query] if self.single else query)
        self.candidates = self.wanted if mmr is None else _DIVERSE_AMONG * self.wanted
        # How many nodes to look at; documents are more than one each.
        self.k = _NODES_A_DOCUMENT * self.candidates if self.grouped else self.candidates
        self.chosen = chosen.of_documents() if self.grouped else chosen
        self.mmr = mmr
        self.least = -np.inf if min_score is None else float(min_score)
        self.after = _position(after)

    @property
    def asks_much(self) -> bool:
        """Whether it pays to know which state of the file it is asked of."""
        return self.k >= _MUCH or self.chosen.beyond_labels is not None

    @property
    def most(self) -> float:
        # A document of the page before may have sections that score less than its last hit.
        return np.inf if self.after is None or self.grouped else self.after[0]

    def settle_space(self, connection: _core.Connection) -> int:
        """Find out where the vectors of the space stand that is asked about. Returns its width, or -1.

        Raises:
            SpaceError: there is no such space, or the queries are of another.
            EmbeddingError: the queries are not as wide as the active space.
        """
        self.aside, width, got = None, spaces.width(connection), self.queries.shape[1]
        if self.space is not None:
            found = spaces.find(connection, self.space)
            self.aside, width = None if found.active else found.id, found.space.dims
            if got != width:
                raise SpaceError(
                    f"the query has {got} dimensions, so it is not of the space {spaces.told(found.space)}"
                )
        if width not in (-1, got):
            others = " or ".join(spaces.told(space) for space in spaces.wide(connection, got))
            hint = f", or pass space= to search {others}" if others else ""
            raise EmbeddingError(
                f"the query has {got} dimensions, the space of the database has {width}; "
                f"embed it with the same model{hint}",
                column=None,
                got=got,
                want=width,
            )
        return width


def search(
    session: Session, index: VectorIndex | BackendIndex, question: Question, memory: Memory, explain: bool
) -> Any:
    """Hits for one query vector, or a list of them for each row of a matrix; see ``ResonanceDB.search``."""
    if memory not in ("resident", "stream"):
        raise InputError(f"memory={memory!r}; give 'resident' or 'stream'")
    # Inside the caller's own snapshot there is no other moment to turn to.
    pinned = session.pinned or session.in_transaction
    for attempt in range(_ATTEMPTS):
        last = pinned or attempt == _ATTEMPTS - 1
        state = None if pinned or not question.asks_much else session.state()
        # Once others have brought the index beyond what this thread saw, they wait until it has looked again:
        # a writer that never rests would have it read the whole file otherwise.
        with _still(index, attempt, session) as still, session.snapshot() as connection:
            # The snapshot is of this state if nobody has committed since.
            sight = Sight(session, connection, state if state and session.state() == state else None)
            width = question.settle_space(connection)
            # What a transaction has not committed yet is seen by itself alone, so it is not in the index.
            usable = memory == "resident" and not session.in_transaction and width > 0
            usable = usable and question.aside is None
            try:
                view = index.view(connection) if usable else None
            except CorruptRowError:
                view, usable = None, False  # it may be a row that the filter leaves out
            still.close()
            if view is not None or last or not usable:
                try:
                    return _answered(sight, index, view, question, explain)
                except StaleIndexError:
                    index.discard()
                    if last:
                        return _answered(sight, index, None, question, explain)
        try:
            index.load()
        except CorruptRowError:
            memory = "stream"
    raise AssertionError("the last attempt answers")


@contextmanager
def _still(index: VectorIndex | BackendIndex, attempt: int, session: Session) -> Iterator[ExitStack]:
    """Nobody brings the index up to date until the stack is closed, if this is not the first attempt."""
    with ExitStack() as stack:
        if attempt and isinstance(index, VectorIndex) and not session.is_alone:
            stack.enter_context(index.still())
        yield stack


def _answered(
    sight: Sight,
    index: VectorIndex | BackendIndex,
    view: View | BackendView | None,
    question: Question,
    explain: bool,
) -> Any:
    try:
        answers = _answers(sight, view, question, explain)
    except DamagedRecordsError as error:
        assert isinstance(index, VectorIndex)
        assert isinstance(view, View)
        index.drop_records(error.records, str(error))
        answers = _answers(sight, replace(view, records=None), question, explain)
    if explain and isinstance(index, VectorIndex):
        for answer in answers:
            if answer.explain is not None:
                answer.explain = answer.explain._replace(cache=index.cache_told)
    return answers[0] if question.single else answers


def _answers(sight: Sight, view: View | BackendView | None, question: Question, explain: bool) -> list[Hits]:
    paths = {View: "resident", BackendView: "backend"}
    notes = _Notes("stream" if view is None else paths[type(view)])
    while True:
        found = _nearest(sight, view, question, notes)
        with notes.stage("hits"):
            hits = (_hits(sight.connection, each, question) for each in found)
            answers = [each for each in hits if each is not None]
        if len(answers) == len(found):
            break
        question.k *= _NODES_A_DOCUMENT
    if explain:
        for answer in answers:
            answer.explain = notes.explain()
    return answers


def _nearest(
    sight: Sight, view: View | BackendView | None, question: Question, notes: _Notes
) -> list[Scored]:
    if question.k == 0 or not len(question.queries):
        return [_NOTHING] * len(question.queries)
    if view is None:
        return _streamed(sight.connection, question, notes)
    if isinstance(view, BackendView):
        return _from_backend(sight, view, question, notes)
    return _from_codes(sight, view, question, notes)


class _Notes:
    """What a search did, for ``explain``."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.rows = self.passed = self.scored = 0
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - started

    def explain(self) -> Explain:
        return Explain(self._path, self.rows, self.passed, self.scored, dict(self._seconds))


def _from_codes(sight: Sight, view: View, question: Question, notes: _Notes) -> list[Scored]:
    with notes.stage("filter"):
        positions = view.chosen(sight.connection, question.chosen, sight.state)
    notes.rows = view.rows
    notes.passed = notes.rows if positions is None else len(positions)
    with notes.stage("scan"):
        candidates = view.candidates(question.queries, question.k, positions, question.least, question.most)
    found = []
    with notes.stage("rescore"):
        for query, bounds in zip(question.queries, candidates, strict=True):
            each = _rescored(sight, view, question, query, view.likely(sight.connection, bounds))
            notes.scored += len(each.rowids)
            found.append(each)
    return found


def _rescored(sight: Sight, view: View, question: Question, query: Floats, rows: Likely) -> Scored:
    """Of the rows that may be among the k best those that still may be when the likely ones have scores.

    Which are taken for likely makes no difference to the answer: none is left out whose upper bound
    reaches the k-th best score of theirs.
    """
    low, high = rows.low, rows.high
    if question.k < _MUCH or len(low) <= question.k or question.most < np.inf:
        return _within_bounds(sight, view, query, rows)
    twice = low + high
    wanted = 2 * high >= -np.partition(-twice, question.k - 1)[question.k - 1]
    each = _within_bounds(sight, view, query, rows.some(wanted))
    if wanted.all():
        return each
    least = -np.partition(-each.scores, question.k - 1)[question.k - 1]
    return each.and_(_within_bounds(sight, view, query, rows.some(~wanted & (high >= least))))


def _within_bounds(sight: Sight, view: View, query: Floats, rows: Likely) -> Scored:
    each, filed = _NOTHING, rows.filed
    if view.records is not None and filed:
        each = view.records.scored(rows.positions[:filed], rows.rowids[:filed], query, READERS)
        if np.isnan(each.scores).any():
            row = each.rowids[np.isnan(each.scores)][0]
            raise DamagedRecordsError(view.records, f"the row {row} in it is damaged")
    if filed < len(rows.positions):
        each = each.and_(scored(sight, READERS, rows.rowids[filed:], query))
    # The bounds hold for the row that was encoded; where they do not, it is another one by now.
    if not ((each.scores >= rows.low) & (each.scores <= rows.high)).all():
        raise StaleIndexError
    return each


def _from_backend(sight: Sight, view: BackendView, question: Question, notes: _Notes) -> list[Scored]:
    """It knows nothing of filters and pages: where they leave too few of its rows, it is asked for more."""
    with notes.stage("filter"):
        passed = view.chosen(sight.connection, question.chosen)
    notes.rows = view.rows
    notes.passed = notes.rows if passed is None else len(passed)
    found = [_NOTHING] * len(question.queries)
    pending, k = list(range(len(question.queries))), question.k
    while pending:
        with notes.stage("scan"):
            proposed = view.propose(question.queries[pending], k, passed)
        with notes.stage("rescore"):
            for number, rows in zip(pending, proposed, strict=True):
                each = scored(sight, READERS, view.rowids[rows], question.queries[number])
                if np.isnan(each.scores).any():
                    raise StaleIndexError
                notes.scored += len(rows)
                found[number] = each
        if view.is_all(k, passed):
            break
        pending = [number for number in pending if _may_want(found[number].scores, question)]
        k *= _ASKED_AGAIN
    return found


def _may_want(scores: Floats, question: Question) -> bool:
    """Whether more rows might be among the answer, if these are the nearest."""
    return int((scores < question.most).sum()) < question.k and not (scores < question.least).any()


def _streamed(connection: _core.Connection, question: Question, notes: _Notes) -> list[Scored]:
    where, values = question.chosen.sql()
    columns, there = ROW, f"nodes WHERE {where} AND embedding IS NOT NULL"
    if question.aside is not None:
        # The conditions are about columns of nodes, whose names stand in vectors too.
        columns = ("n.row", "v.embedding", "n.id")
        there = (
            f"(SELECT rowid AS row, id, hash FROM nodes WHERE {where}) AS n "
            f"JOIN vectors AS v ON v.node = n.id AND v.space = {question.aside} "
            f"WHERE v.embedding IS NOT NULL AND v.hash IS {spaces.TEXT}"
        )
    found = []
    with notes.stage("scan"):
        for query in question.queries:
            rowids, scores, notes.rows = scanned(
                connection, columns, there, values, query, question.k, question.least, question.most
            )
            found.append(Scored(rowids, scores))
    notes.passed = notes.scored = notes.rows
    return found


def scanned(
    connection: _core.Connection, columns: Row, there: str, values: list[Any], query: Floats, *limits: Any
) -> tuple[Ints, Floats, int]:
    """What ``score_vectors`` gives for these columns of these rows; an error names the node by its id."""
    rowid, vector, name = columns
    try:
        sql = f"SELECT {rowid}, {vector} FROM {there}"
        return _core.score_vectors(connection, sql, values, query, *limits)
    except CorruptRowError:
        # Ids are read only now: every row of every scan would pay for them.
        sql = f"SELECT {rowid}, {vector}, {name} FROM {there}"
        return _core.score_vectors(connection, sql, values, query, *limits)


def _hits(connection: _core.Connection, found: Scored, question: Question) -> Hits | None:
    """The best of these rows, or of the documents they belong to, in order: by score, then by id.

    None where there may be more documents than these rows belong to, and more are wanted.
    """
    scores = found.scores
    enough = scores >= question.least
    all_there_are = len(scores) < question.k or not enough.all()
    chosen = np.flatnonzero(enough)
    if (question.after is None or question.grouped) and question.k < len(chosen):
        # Everything that ties with the k-th is looked at: the ids decide among them.
        threshold = -np.partition(-scores[chosen], question.k - 1)[question.k - 1] if question.k else np.inf
        chosen = chosen[scores[chosen] >= threshold]
    hits = named(connection, found, chosen, question.grouped)
    if question.after is not None:
        score, last = question.after
        hits = [hit for hit in hits if (-hit.score, hit.id) > (-score, last)]
    if question.grouped and len(hits) < question.candidates and not all_there_are:
        return None
    if question.mmr is not None:
        nearest = hits[: question.candidates]
        hits = most_diverse(connection, nearest, question.wanted, question.mmr, question.aside)
    return Hits(hits[: question.wanted])


def _position(after: tuple[float, str] | Hit | None) -> tuple[float, str] | None:
    if after is None:
        return None
    if isinstance(after, Hit):
        return after.score, after.id
    score, last = after if isinstance(after, tuple | list) and len(after) == 2 else (None, None)
    if not is_number(score) or np.isnan(score) or not isinstance(last, str):
        raise InputError(f"after={after!r}; give the last hit of the page before, or its (score, id)")
    return float(score), last


def is_vector(query: Any) -> bool:
    """Whether it is one vector, of whatever width; no matrix."""
    try:
        return np.ndim(query) == 1
    except ValueError:  # rows of different widths; the check to come says which
        return False


def _unit_queries(queries: Any) -> Floats:
    """(q, d) float64 of unit rows: a query is rounded to float32 once, when it is handed over, at most."""
    checked = _core.to_fafcas(queries)
    exact = np.asarray(queries, dtype=np.float64, order="C")
    scale = np.abs(exact).max(axis=1, keepdims=True, initial=np.finfo(float).tiny)
    scaled: Floats = exact / scale
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True) if checked.size else scaled
