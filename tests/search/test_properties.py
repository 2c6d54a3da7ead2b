"""Pages, filters, matrices and any history of writes give what brute force over a plain dict gives."""

import contextlib
import math
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resonance import ResonanceDB, _core, errors

FEW = settings(
    deadline=None,
    database=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
WIDTH = 6
TYPES, DOMAINS = ("note", "tag", None), ("x", "y", "", None)


def vectors_with_ties(rows, seed):
    """Few different directions, so that scores tie across pages, and some that nearly do."""
    random = np.random.default_rng(seed)
    made = np.eye(WIDTH)[random.integers(0, 3, rows)] + np.eye(WIDTH)[random.integers(3, WIDTH, rows)]
    return made + random.choice([0, 0, 1e-7], (rows, 1)) * random.normal(size=(rows, WIDTH))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Rows in an order that is not that of their ids."""
    rows = 400
    random = np.random.default_rng(8)
    path = tmp_path_factory.mktemp("x") / "x.db"
    with ResonanceDB(path) as db:
        db.insert_nodes(
            id=[f"n{number:03d}" for number in random.permutation(rows)],
            type=random.choice(["note", "tag"], rows).tolist(),
            domain=random.choice(["x", "y"], rows).tolist(),
            layer=random.choice(["deep", "high", "wide"], rows, p=[0.1, 0.8, 0.1]).tolist(),
            date=[f"2026-01-{1 + number % 28:02d}" for number in range(rows)],
            embedding=vectors_with_ties(rows, 8),
        )
        db.delete_nodes([f"n{number:03d}" for number in range(0, 60, 3)])
    return path


@pytest.fixture
def db(path):
    """Nobody writes to it, so that examples can share it."""
    with ResonanceDB(path) as db:
        yield db


QUERIES = st.integers(0, 10**6).map(lambda seed: vectors_with_ties(1, seed)[0])
MEMORY = st.sampled_from(["resident", "stream"])
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["note", "tag", "absent"]),
        "domain": st.sampled_from(["x", "y"]),
        "layer": st.sampled_from(["deep", "high"]),
        "ids": st.lists(st.integers(0, 420).map("n{:03d}".format), max_size=200),
        "where": st.sampled_from(
            [
                "date < '2026-01-15'",
                ("date = ? OR id > ?", ["2026-01-03", "n350"]),
                "type = 'note' OR domain = 'y'",
                "title IS NOT NULL",
                "id IN (SELECT id FROM nodes WHERE layer = 'wide')",
            ]
        ),
        "min_score": st.sampled_from([-1, 0, 0.5, 0.7071067]),
    },
)


@settings(FEW)
@given(QUERIES, FILTERS, st.lists(st.integers(1, 90), min_size=1, max_size=4), MEMORY)
def test_pages_have_every_hit_once_and_in_order(db, query, filters, sizes, memory):
    whole = list(db.search(query, 1000, memory=memory, **filters))
    paged, last = [], None
    for turn in range(1000):
        page = db.search(query, sizes[turn % len(sizes)], memory=memory, after=last, **filters)
        if not page:
            break
        paged += page
        last = page[-1] if turn % 2 else (page[-1].score, page[-1].id)
    assert paged == whole


@settings(FEW)
@given(QUERIES, FILTERS, st.integers(1, 420), MEMORY)
def test_conditions_together_are_those_of_sql(db, query, filters, k, memory):
    conditions, values = ["embedding IS NOT NULL"], []
    for name in ("type", "domain", "layer"):
        if name in filters:
            conditions.append(f"{name} = ?")
            values.append(filters[name])
    if "ids" in filters:
        conditions.append(f"id IN ({', '.join('?' * len(filters['ids']))})")
        values += filters["ids"]
    if "where" in filters:
        sql, given = filters["where"] if isinstance(filters["where"], tuple) else (filters["where"], [])
        conditions.append(f"({sql})")
        values += given
    exact = np.asarray(query) / np.linalg.norm(query)
    found = db.query(f"SELECT id, embedding FROM nodes WHERE {' AND '.join(conditions)}", values)
    scores = {name: float(np.frombuffer(blob, "<f4").astype(float) @ exact) for name, blob in found}
    least = filters.get("min_score", -2)
    hits = db.search(query, k, memory=memory, **filters)
    # Near the least score, and among scores that tie but for rounding, either way of summing is right.
    sure = {name for name, score in scores.items() if score >= least + 1e-12}
    maybe = {name for name, score in scores.items() if score >= least - 1e-12}
    assert min(k, len(sure)) <= len(hits) <= min(k, len(maybe))
    assert len({hit.id for hit in hits}) == len(hits)
    assert all(hit.id in maybe and abs(hit.score - scores[hit.id]) < 1e-12 for hit in hits)
    assert list(hits) == sorted(hits, key=lambda hit: (-hit.score, hit.id))
    left = [scores[name] for name in sure - {hit.id for hit in hits}]
    assert not left or max(left) <= hits[-1].score + 1e-12


@settings(FEW)
@given(st.lists(QUERIES, max_size=9), FILTERS, st.integers(0, 420), st.none() | st.floats(-1, 1))
def test_a_matrix_is_asked_as_its_rows_are(db, queries, filters, k, after):
    page = {} if after is None else {"after": (after, "n200")}
    matrix = np.array(queries).reshape(-1, WIDTH)
    answers = db.search(matrix, k, **filters, **page)
    assert [list(each) for each in answers] == [list(db.search(row, k, **filters, **page)) for row in matrix]


@settings(FEW)
@given(QUERIES, FILTERS, st.integers(-2, 2), MEMORY)
def test_k_around_the_number_of_rows(db, query, filters, beyond, memory):
    whole = list(db.search(query, 10_000, memory=memory, **filters))
    k = max(0, len(whole) + beyond)
    assert list(db.search(query, k, memory=memory, **filters)) == whole[:k]


@settings(FEW)
@given(QUERIES, FILTERS, st.integers(1, 30))
def test_why_not_tells_the_rank_that_search_gives(db, query, filters, k):
    whole = list(db.search(query, 1000, **filters))
    for number in sorted({0, k - 1, k, len(whole) - 1} & set(range(len(whole)))):
        why = db.why_not(whole[number].id, query, k, **filters)
        assert why.reason == ("found" if number < k else "beyond k")
        assert (why.rank, why.score) == (number + 1, pytest.approx(whole[number].score, abs=1e-12))


@pytest.mark.parametrize(
    "options",
    [
        {"min_score": "0.5"},
        {"min_score": True},
        {"min_score": math.nan},
        {"mmr": "0.5"},
        {"mmr": math.nan},
        {"mmr": 2},
        {"where": 5},
        {"where": ("type = ?",)},
        {"where": ("type = :type", {"type": "note"})},
        {"where": ("type = ?", "note")},
        {"where": (5, [])},
        {"ids": 5},
        {"ids": [5]},
        {"ids": [b"n001"]},
        {"ids": [None]},
        {"type": 5},
        {"type": "\ud800"},
        {"after": (math.nan, "n001")},
        {"after": (None, "n001")},
        {"after": (0.5, None)},
        {"after": "ab"},
        {"after": 5},
    ],
    ids=str,
)
@pytest.mark.parametrize("memory", ["resident", "stream"])
def test_what_is_no_condition(db, options, memory):
    with pytest.raises(errors.InputError, match=next(iter(options))):
        db.search(np.ones(WIDTH), memory=memory, **options)


class History(RuleBasedStateMachine):
    """Any writes, by two handles on one file; ``rows`` is what must be there, id by id."""

    folder: Path
    names = st.integers(0, 40).map("n{:02d}".format)
    seeds = st.integers(0, 10**6)
    types = st.sampled_from(["note", "tag"])

    @initialize(rows=st.integers(0, 30))
    def open(self, rows):
        self.folder = Path(tempfile.mkdtemp())
        self.handles = [ResonanceDB(self.folder / "x.db") for _ in range(2)]
        self.rows = {}
        self.before = None  # the rows when the transaction began
        self.bulk(0, rows, 1, "note", "exclusive")

    @property
    def db(self):
        """The one that writes; while it is in a transaction nobody else could."""
        return self.handles[0]

    def store(self, name, vector, kind):
        self.rows[name] = (None if vector is None else _core.to_fafcas([vector])[0], kind)

    @rule(name=names, seed=seeds, kind=types)
    def insert_or_update(self, name, seed, kind):
        vector = vectors_with_ties(1, seed)[0]
        self.db.insert_node({"id": name, "embedding": vector, "type": kind})
        self.store(name, vector, kind)

    @rule(name=names, kind=types)
    def change_the_type_alone(self, name, kind):
        self.db.insert_node({"id": name, "type": kind})
        self.rows[name] = (self.rows.get(name, (None, ""))[0], kind)

    @rule(name=names)
    def forget_the_vector(self, name):
        if name in self.rows:
            self.db.insert_node({"id": name, "embedding": None})
            self.rows[name] = (None, self.rows[name][1])

    @rule(some=st.lists(names, max_size=8))
    def delete(self, some):
        self.db.delete_nodes(some)
        for name in some:
            self.rows.pop(name, None)

    @rule(
        start=st.integers(0, 60),
        rows=st.sampled_from([0, 3, 1100, 1100]),
        seed=seeds,
        kind=types,
        mode=st.sampled_from(["exclusive", "shared"]),
    )
    def bulk(self, start, rows, seed, kind, mode):
        """More than a thousand rows are logged as a range, without triggers."""
        if mode == "shared" and self.before is not None:
            mode = "exclusive"
        ids = [f"n{number:02d}" for number in range(start, start + rows)]
        vectors = vectors_with_ties(rows, seed)
        if rows:
            self.db.insert_nodes(id=ids, embedding=vectors, type=kind, mode=mode)
        for name, vector in zip(ids, vectors, strict=True):
            self.store(name, vector, kind)

    @precondition(lambda self: self.before is None)
    @rule()
    def begin(self):
        self.db.begin_transaction()
        self.before = dict(self.rows)

    @precondition(lambda self: self.before is not None)
    @rule()
    def roll_back(self):
        self.db.rollback()
        self.rows, self.before = self.before, None

    @precondition(lambda self: self.before is not None)
    @rule()
    def commit(self):
        self.db.commit()
        self.before = None

    @precondition(lambda self: self.before is None)
    @rule()
    def vacuum(self):
        self.db.vacuum()

    @precondition(lambda self: self.before is None)
    @rule()
    def checkpoint(self):
        self.db.checkpoint()

    @precondition(lambda self: self.before is None)
    @rule()
    def swap_handles(self):
        self.handles.reverse()

    @precondition(lambda self: self.before is None)
    @rule()
    def open_again(self):
        self.handles[0].close()
        self.handles[0] = ResonanceDB(self.folder / "x.db")

    @invariant()
    def each_handle_finds_what_is_there(self):
        if not hasattr(self, "handles"):
            return
        committed = self.rows if self.before is None else self.before
        for handle, rows in zip(self.handles, (self.rows, committed), strict=True):
            query = np.arange(1.0, WIDTH + 1)
            exact = query / np.linalg.norm(query)
            for kind in (None, "note"):
                wanted = {
                    name: float(vector.astype(float) @ exact)
                    for name, (vector, of) in rows.items()
                    if vector is not None and kind in (None, of)
                }
                for k in (3, 10_000):
                    hits = handle.search(query, k, type=kind)
                    assert len(hits) == min(k, len(wanted))
                    assert all(abs(wanted[hit.id] - hit.score) < 1e-12 for hit in hits)
                    best = sorted(wanted.values(), reverse=True)[:k]
                    assert np.allclose([hit.score for hit in hits], best, rtol=0, atol=1e-12)
                    assert list(hits) == list(handle.search(query, k, type=kind, memory="stream"))

    def teardown(self):
        with contextlib.suppress(AttributeError):
            for handle in self.handles:
                handle.close()
            shutil.rmtree(self.folder)


History.TestCase.settings = settings(FEW, max_examples=25, stateful_step_count=25)
test_any_history_of_writes = pytest.mark.timeout(600)(History.TestCase)
