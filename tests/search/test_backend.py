"""Other engines answer for the vectors; the database scores, filters and names what they propose."""

import gc
import importlib
import threading
import weakref

import numpy as np
import pytest

from resonance import ResonanceDB, errors
from resonance.search import Backend
from support import unit

ROWS, WIDTH = 3000, 32


class Exact:
    """NumPy, which misses nothing."""

    def __init__(self):
        self.loads, self.asked = [], []

    def load(self, ids, vectors):
        self.loads.append((ids, vectors))

        def nearest(queries, k):
            self.asked.append((queries, k))
            return np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :k]

        return nearest


class Faiss:
    def load(self, ids, vectors):
        index = importlib.import_module("faiss").IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        return lambda queries, k: index.search(queries, k)[1]


class Usearch:
    def load(self, ids, vectors):
        usearch = importlib.import_module("usearch.index")
        index = usearch.Index(ndim=vectors.shape[1], metric="ip", dtype="f32")
        index.add(np.arange(len(vectors)), vectors)
        return lambda queries, k: index.search(queries, k, exact=True).keys.reshape(len(queries), -1)


class Hnswlib:
    def load(self, ids, vectors):
        index = importlib.import_module("hnswlib").Index(space="ip", dim=vectors.shape[1])
        index.init_index(len(vectors), M=32, ef_construction=400, random_seed=1)
        index.add_items(vectors)
        index.set_ef(len(vectors))
        return lambda queries, k: index.knn_query(queries, k)[0]


@pytest.fixture(params=[Exact, Faiss, Usearch, Hnswlib])
def engine(request):
    name = request.param.__name__.lower()
    if name != "exact":
        pytest.importorskip("usearch.index" if name == "usearch" else name)
    made: Backend = request.param()
    return made


@pytest.fixture
def db(tmp_path):
    with ResonanceDB(tmp_path / "x.db") as db:
        db.insert_nodes(
            id=[f"n{number:04d}" for number in range(ROWS)],
            title=[f"The {number}th" for number in range(ROWS)],
            type=["tag" if number % 2 == 0 else "note" for number in range(ROWS)],
            layer=["deep" if number < 20 else "high" for number in range(ROWS)],
            embedding=unit(ROWS, WIDTH, seed=1),
        )
        yield db


QUERY = unit(1, WIDTH, seed=2)[0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": 1},
        {"k": 100},
        {"type": "note"},
        {"layer": "deep"},
        {"layer": "deep", "type": "note", "k": 50},
        {"type": "tag", "k": 1600},
        {"where": ("title LIKE ?", ["%7th"])},
        {"where": "rowid > 1500", "k": 1400},
        {"ids": ["n0001", "n0002", "absent"]},
        {"ids": []},
        {"min_score": 0.3, "k": 500},
        {"min_score": 0.3, "type": "note", "k": 2000},
        {"after": (0.2, "")},
        {"after": (0.2, ""), "type": "note", "k": 20},
        {"after": (-0.9, "")},
        {"mmr": 0.5},
        {"k": 0},
        {"group_by": "document", "k": 30},
    ],
    ids=str,
)
def test_the_same_answers(db, engine, options):
    """Of engines that propose everything they are asked for."""
    hits = db.search(QUERY, **options, backend=engine, explain=True)
    assert list(hits) == list(db.search(QUERY, **options))
    assert hits.explain.path == "backend"


def test_a_matrix_of_queries(db, engine):
    queries = unit(5, WIDTH, seed=3)
    for options in ({}, {"type": "note", "k": 1200}):
        answers = db.search(queries, **options, backend=engine)
        assert [list(each) for each in answers] == [list(each) for each in db.search(queries, **options)]
    assert db.search(np.empty((0, WIDTH)), backend=engine) == []


def test_what_it_is_given():
    with ResonanceDB(":memory:") as db:
        db.insert_nodes(id=["b", "a", "c"], embedding=[[0, 2], None, [3, 4]])
        backend = Exact()
        assert [hit.id for hit in db.search([9, 0], backend=backend)] == ["c", "b"]
        ((ids, vectors),) = backend.loads
        assert ids == [hit for hit, _ in sorted(zip(ids, vectors.tolist(), strict=True))]
        assert dict(zip(ids, vectors.tolist(), strict=True)) == {
            "b": [0, 1],
            "c": [np.float32(0.6), np.float32(0.8)],
        }
        assert (vectors.dtype, vectors.flags.c_contiguous) == (np.float32, True)
        ((queries, k),) = backend.asked
        assert (queries.dtype, queries.tolist(), k) == (np.float32, [[1, 0]], 2)


def test_it_is_loaded_again_when_the_database_changed(db):
    backend = Exact()
    for _ in range(3):
        db.search(QUERY, backend=backend)
    assert len(backend.loads) == 1
    db.insert_node({"id": "new", "embedding": QUERY})
    assert db.search(QUERY, 1, backend=backend)[0].id == "new"
    db.delete_nodes(["new"])
    assert db.search(QUERY, 1, backend=backend)[0].id != "new"
    db.vacuum()
    assert list(db.search(QUERY, backend=backend)) == list(db.search(QUERY))
    assert len(backend.loads) == 4


def test_a_transaction_and_an_older_snapshot_see_their_own(db):
    """What is loaded is of another moment, so the database answers by itself."""
    backend = Exact()
    with db.transaction():
        db.insert_node({"id": "new", "embedding": QUERY})
        hits = db.search(QUERY, 1, backend=backend, explain=True)
        assert (hits[0].id, hits.explain.path) == ("new", "stream")
    with db.snapshot():
        assert db.search(QUERY, 1, backend=backend)[0].id == "new"
        other = threading.Thread(target=lambda: [db.delete_nodes(["new"]), db.search(QUERY, backend=backend)])
        other.start()
        other.join()
        hits = db.search(QUERY, 1, backend=backend, explain=True)
        assert (hits[0].id, hits.explain.path) == ("new", "stream")
    assert db.search(QUERY, 1, backend=backend)[0].id != "new"


def test_its_recall_is_its_own_but_the_scores_are_exact(db):
    class Forgetful:
        def load(self, ids, vectors):
            return lambda queries, k: np.argsort(-(queries @ vectors[::2].T), axis=1)[:, :k] * 2

    hits = db.search(QUERY, 20, backend=Forgetful())
    right = {hit.id: hit.score for hit in db.search(QUERY, ROWS)}
    assert len(hits) == 20
    assert all(int(hit.id[1:]) % 2 == 0 and hit.score == right[hit.id] for hit in hits)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_none_and_the_same_row_twice(db):
    class Short:
        def load(self, ids, vectors):
            best = int(np.argmax(vectors @ QUERY))
            return lambda queries, k: np.array([[best, -1, best]] * len(queries))

    assert list(db.search(QUERY, 5, backend=Short())) == list(db.search(QUERY, 1))
    assert list(db.search(QUERY, 1, type="note", backend=Short())) in ([], list(db.search(QUERY, 1)))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ([[ROWS]], f"row {ROWS} of {ROWS}"),
        ([[0.5]], "float64"),
        ([0], r"shape \(1,\)"),
        ([[0], [1]], r"shape \(2, 1\)"),
        ("no", "shape"),
        (None, "shape"),
    ],
)
def test_a_backend_that_answers_nonsense(db, answer, says):
    class Wrong:
        def load(self, ids, vectors):
            return lambda queries, k: answer

    with pytest.raises(errors.BackendError, match=says):
        db.search(QUERY, backend=Wrong())
    assert len(db.search(QUERY)) == 10


def test_a_backend_that_fails(db):
    class Fails:
        def __init__(self, when):
            self.when = when

        def load(self, ids, vectors):
            if self.when == "load":
                raise RuntimeError("no room")
            return self.fail if self.when == "ask" else None

        def fail(self, queries, k):
            raise RuntimeError("gone away")

    for when, says in (("load", "load 3000 vectors: no room"), ("ask", "1 queries: gone away"), ("", "None")):
        with pytest.raises(errors.BackendError, match=says):
            db.search(QUERY, backend=Fails(when))


def test_what_is_no_backend(db):
    class Unhashable(Exact):
        __hash__ = None

    for wrong, says in (
        (object(), "no method load"),
        ("faiss", "no method load"),
        (Unhashable(), "identity"),
    ):
        with pytest.raises(errors.InputError, match=says):
            db.search(QUERY, backend=wrong)


def test_nothing_to_find(tmp_path):
    with ResonanceDB(tmp_path / "x.db") as db:
        backend = Exact()
        assert db.search([1, 0], backend=backend) == []
        db.insert_nodes(id=["a"], embedding=[[1, 0]])
        with pytest.raises(errors.EmbeddingError, match="3 dimensions"):
            db.search([1, 0, 0], backend=backend)
        db.delete_nodes(["a"])
        assert db.search([1, 0], backend=backend) == []
        assert backend.loads == []


def test_what_is_loaded_lives_as_long_as_the_backend(db):
    kept = []

    class Heavy:
        def load(self, ids, vectors):
            kept.append(weakref.ref(vectors))
            return lambda queries, k: np.argsort(-(queries @ vectors.T))[:, :k]

    backend = Heavy()
    db.search(QUERY, backend=backend)
    assert kept[0]() is not None
    del backend
    gc.collect()
    assert kept[0]() is None


def test_threads_ask_while_one_writes(db):
    """Whoever asks has the rows of one moment, before or after each change."""
    db.insert_node({"id": "best", "embedding": QUERY})
    backend, wrong, stop = Exact(), [], threading.Event()

    def ask():
        while not stop.is_set():
            hits = db.search(QUERY, 3, backend=backend)
            if hits[0].id != "best" or len(hits) != 3 or abs(hits[0].score - 1) > 1e-6:
                wrong.append(hits)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(40):
        db.insert_node({"id": f"w{number % 7}", "embedding": unit(1, WIDTH, seed=number)[0]})
    stop.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert wrong == []
