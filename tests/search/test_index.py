"""The codes in memory give what brute force in float64 gives, whatever the vectors and the kernel."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resonance import ResonanceDB, _core, errors
from resonance.search import index
from support import unit

FEW = settings(deadline=None, database=None, derandomize=True, max_examples=60)
KERNELS = [name for name in ("vnni", "avx2", "plain") if _core.choose_kernel(name)]
_core.choose_kernel()


@pytest.fixture(params=KERNELS)
def kernel(request):
    assert _core.choose_kernel(request.param) == request.param
    yield request.param
    _core.choose_kernel()


def brute_force(ids, vectors, query, k, least=-np.inf, after=None):
    """Ids and scores, best first; ties in the order of their ids."""
    query = np.asarray(query, dtype=np.float64)
    scores = vectors.astype(np.float64) @ (query / np.linalg.norm(query))
    ranked = sorted(zip(ids, scores.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
    return [pair for pair in ranked if pair[1] >= least][:k]


def check(db, query, k, least=-np.inf, **options):
    hits = db.search(query, k, explain=True, **options)
    streamed = db.search(query, k, memory="stream", **options)
    assert list(hits) == list(streamed), "the same ids, and the same bits of the scores"
    matrix = db.embeddings()
    if not {"domain", "type", "layer", "ids", "where", "mmr", "after"} & set(options):
        wanted = brute_force(matrix.ids, matrix.vectors, query, k, least)
        assert np.allclose([hit.score for hit in hits], [score for _, score in wanted], rtol=0, atol=1e-12)
        # Scores that differ in the last bit only may come in either order from two ways of summing.
        assert len(hits) == len(wanted)
        for hit, (_, score) in zip(hits, wanted, strict=True):
            assert abs(hit.score - score) < 1e-12
    return hits


def nasty(kind, rows, width, seed):
    """Vectors that are hard on a bound, or on ties."""
    random = np.random.default_rng(seed)
    made = random.normal(size=(rows, width))
    if kind == "few values":
        made = random.integers(-1, 2, size=(rows, width)).astype(float)
        made[:, 0] += 3
    elif kind == "duplicates":
        made = made[random.integers(0, max(1, rows // 10), rows)]
    elif kind == "near ties":
        made = made[0] + 1e-7 * made
    elif kind == "one-hot":
        made = np.eye(width)[random.integers(0, width, rows)] * random.choice([-1, 1], rows)[:, None]
    elif kind == "one huge":
        made = 1e-6 * made
        made[:, random.integers(0, width)] = 1
    elif kind == "scales":
        made *= 10.0 ** random.integers(-30, 30, size=(rows, width))
    made[np.linalg.norm(made, axis=1) == 0, 0] = 1
    return made


KINDS = ("normal", "few values", "duplicates", "near ties", "one-hot", "one huge", "scales")


@settings(FEW)
@given(
    st.sampled_from(KINDS),
    st.integers(1, 700),
    st.sampled_from([1, 2, 16, 63, 64, 65, 130, 384]),
    st.integers(0, 1000),
    st.integers(1, 800),
    st.none() | st.floats(-1, 1),
)
def test_as_brute_force(tmp_path_factory, kind, rows, width, seed, k, least):
    vectors = nasty(kind, rows, width, seed)
    with ResonanceDB(tmp_path_factory.mktemp("x") / "x.db") as db:
        db.insert_nodes(id=[f"n{number:04d}" for number in range(rows)], embedding=vectors)
        for query in (vectors[0], np.random.default_rng(seed + 1).normal(size=width), -vectors[-1]):
            hits = check(db, query, k, -np.inf if least is None else least, min_score=least)
            assert hits.explain.path == "resident"
        matrix = np.array([vectors[number % rows] for number in range(7)])
        answers = db.search(matrix, k)
        assert [list(answer) for answer in answers] == [list(db.search(row, k)) for row in matrix]


@pytest.mark.parametrize("queries", [1, 3, 4, 5, 9])
def test_each_kernel(tmp_path, kernel, queries):
    with ResonanceDB(tmp_path / "x.db") as db:
        db.insert_nodes(id=[f"n{number}" for number in range(3001)], embedding=unit(3001, 100, seed=1))
        asked = unit(queries, 100, seed=2)
        for query, hits in zip(asked, db.search(asked, 12), strict=True):
            assert list(hits) == list(check(db, query, 12))


@pytest.mark.parametrize("width", [1, 31, 64, 160])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 258])
def test_the_largest_codes_there_are(tmp_path, kernel, width, rows):
    """All components of one size, so that every code is 127 or -127, in rows and queries alike."""
    signs = np.random.default_rng(rows).choice([-1.0, 1.0], (rows, width))
    signs[0] = 1
    with ResonanceDB(tmp_path / "x.db") as db:
        db.insert_nodes(id=[f"n{number}" for number in range(rows)], embedding=signs)
        for asked in (np.ones(width), -np.ones(width), signs[-1], -signs[-1]):
            exact = signs @ asked / width
            for answer in (db.search(asked, rows), *db.search(np.array([asked] * 5), rows)):
                assert [hit.score for hit in answer] == pytest.approx(sorted(exact, reverse=True), abs=1e-7)
        with_codes = db.search(np.ones(width), 1, min_score=0.9999)
        assert [hit.score for hit in with_codes] == pytest.approx([1])


def test_bounds_hold_for_every_row(kernel):
    """The candidates' bounds enclose the exact score; with k = all rows that is every row."""
    for kind in KINDS:
        vectors = _core.to_fafcas(nasty(kind, 500, 96, seed=5))
        with _core.Connection(":memory:") as connection:
            connection.execute("CREATE TABLE t (embedding BLOB, a, b, c)")
            connection.executemany(
                "INSERT INTO t (embedding) VALUES (?)", [(row.tobytes(),) for row in vectors]
            )
            codes = _core.Codes(96)
            codes.append(connection, "SELECT rowid, embedding, a, b, c FROM t", ())
            queries = _core.to_fafcas(nasty(kind, 8, 96, seed=6)).astype(np.float64)
            queries /= np.linalg.norm(queries, axis=1, keepdims=True)
            found = codes.candidates(queries, 500, 500, None, None, -np.inf, np.inf)
            for query, (positions, low, high) in zip(queries, found, strict=True):
                exact = vectors[positions].astype(np.float64) @ query
                assert sorted(positions) == list(range(500))
                assert (low <= exact).all()
                assert (exact <= high).all()


def test_few_rows_are_scored_exactly(tmp_path):
    with ResonanceDB(tmp_path / "x.db") as db:
        db.insert_nodes(id=[f"n{number}" for number in range(20_000)], embedding=unit(20_000, 64, seed=3))
        explained = db.search(unit(1, 64, seed=4)[0], 10, explain=True).explain
    assert explained.rows == explained.passed == 20_000
    assert 10 <= explained.scored < 400
    assert set(explained.seconds) == {"filter", "scan", "rescore", "hits"}


def test_codes_take_a_good_quarter_of_the_vectors(tmp_path):
    rows = 4 * 32768
    with ResonanceDB(tmp_path / "x.db", scratch=True) as db:
        db.insert_nodes(id=[f"n{number}" for number in range(rows)], embedding=unit(rows, 384, seed=3))
        db.search(np.ones(384))
        assert db._index.nbytes <= 0.35 * rows * 384 * 4


def test_a_wrong_width_and_a_zero_query(tmp_path):
    with ResonanceDB(tmp_path / "x.db") as db:
        db.insert_nodes(id=["a"], embedding=[[1, 0, 0]])
        for memory in ("resident", "stream"):
            with pytest.raises(errors.EmbeddingError, match="2 dimensions, the space of the database has 3"):
                db.search([1, 0], memory=memory)
            with pytest.raises(errors.EmbeddingError, match="zeros"):
                db.search([0, 0, 0], memory=memory)
            assert db.search([1, 0, 0], 0, memory=memory) == []
            assert [hit.id for hit in db.search([1, 0, 0], 10**9, memory=memory)] == ["a"]
        with pytest.raises(errors.InputError, match="memory"):
            db.search([1, 0, 0], memory="disk")


def test_an_empty_database(tmp_path):
    with ResonanceDB(tmp_path / "x.db") as db:
        assert db.search([1, 0]) == []
        assert db.search([[1, 0], [0, 1]]) == [[], []]
        db.insert_nodes(id=["a"], embedding=[[1, 0]])
        db.delete_nodes(["a"])
        assert db.search([1, 0]) == []


def test_rowids_far_apart(db, monkeypatch):
    """As after somebody has written to the file: reading takes as long as there are rows, not rowids."""
    db.insert_nodes(id=["a", "b", "c"], embedding=[[1, 0], [0, 1], [1, 1]])
    with db.transaction() as writer:
        writer.execute("UPDATE nodes SET rowid = 1 << 27 WHERE id = 'b'")
    read = []
    append = index._append
    monkeypatch.setattr(index, "_append", lambda *given: read.append(given) or append(*given))
    assert [hit.id for hit in check(db, [0, 1], 10)] == ["b", "c", "a"]
    assert len(read) == 1


@pytest.mark.parametrize("rowid", [2**63 - 1, -(2**63), 2**40])
def test_any_rowid(db, rowid):
    db.insert_nodes(id=["a", "b", "c"], embedding=[[1, 0], [0, 1], [1, 1]])
    assert len(check(db, [0, 1], 10)) == 3
    with db.transaction() as writer:
        writer.execute("UPDATE nodes SET rowid = ? WHERE id = 'b'", (rowid,))
    for _ in range(2):
        assert [hit.id for hit in check(db, [0, 1], 10)] == ["b", "c", "a"]
        for pieces in (db.iter_embeddings(), db.iter_embeddings(1), [db.embeddings()]):
            assert sorted(node for piece in pieces for node in piece.ids) == ["a", "b", "c"]
        db._index.discard()


def test_a_thread_that_others_overtake_is_answered_from_memory(db, path):
    """Its snapshot is behind the index each time it looks, until the others have to wait for it."""
    db.insert_nodes(id=[f"n{number}" for number in range(50)], embedding=unit(50, 4))
    query = [1.0, 0.0, 0.0, 0.0]
    db.search(query)
    look, me, others = db._index.view, threading.current_thread(), []

    def overtaken(connection):
        if threading.current_thread() is me:
            with ResonanceDB(path) as writer:
                writer.insert_node({"id": f"late{len(others)}", "embedding": query})
            others.append(threading.Thread(target=db.search, args=(query,)))
            others[-1].start()
            others[-1].join(0.3)
        return look(connection)

    db._index.view = overtaken
    try:
        hits = db.search(query, k=3, explain=True)
    finally:
        db._index.view = look
        for other in others:
            other.join()
    assert len(others) == 2
    assert hits.explain.path == "resident"
    assert hits[0].id == "late0"
    assert db.search(query, k=3)[1].id == "late1"
