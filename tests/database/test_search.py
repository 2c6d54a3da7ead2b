"""Exact search is what brute force in float64 finds: order, ties, filters, thresholds, any k."""

import sys

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from resonance import ResonanceDB, errors
from resonance.model import Hit
from support import unit

FEW = settings(deadline=None, database=None, derandomize=True, phases=(Phase.explicit, Phase.generate))


def brute_force(nodes, query, k, *, domain=None, type=None, layer=None, ids=None, min_score=None):
    """Ids and scores, best first; equal scores in the order of their ids."""
    query = np.asarray(query, dtype=np.float64)
    query = query / np.linalg.norm(query)
    found = []
    for node_id, vector, has in nodes:
        wanted = {"domain": domain, "type": type, "layer": layer}
        if vector is None or any(value is not None and has[name] != value for name, value in wanted.items()):
            continue
        if ids is not None and node_id not in ids:
            continue
        score = float(np.dot(vector.astype(np.float64), query))
        if min_score is None or score >= min_score:
            found.append((node_id, score))
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:k]


def check(db, nodes, query, k, **how):
    hits = db.search(query, k, **how)
    wanted = brute_force(nodes, query, k, **how)
    assert [hit.id for hit in hits] == [node_id for node_id, _ in wanted]
    assert np.allclose([hit.score for hit in hits], [score for _, score in wanted], rtol=0, atol=1e-12)
    return hits


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """400 nodes in 16 dimensions; every tenth has no vector, and a third share theirs with others."""
    random = np.random.default_rng(11)
    vectors = unit(400, 16, seed=12)
    vectors[200:330] = vectors[random.integers(0, 20, 130)]
    nodes = []
    for number in random.permutation(400):
        has = {"domain": "xyz"[number % 3], "type": ["note", "tag"][number % 2], "layer": None}
        nodes.append((f"n{number:03d}", None if number % 10 == 0 else vectors[number], has))
    with ResonanceDB(tmp_path_factory.mktemp("search") / "x.db") as db:
        db.insert_nodes(
            id=[node_id for node_id, _, _ in nodes],
            embedding=[vector for _, vector, _ in nodes],
            **{name: [has[name] for _, _, has in nodes] for name in ("domain", "type", "layer")},
        )
        stored = dict(zip(*db.embeddings(), strict=True))
        db.search(np.ones(16), ids=[])  # the connections that reading takes are there from now on
        yield db, [(node_id, stored.get(node_id), has) for node_id, _, has in nodes]


queries = st.integers(0, 10_000).map(lambda seed: np.random.default_rng(seed).normal(size=16))


@settings(FEW, max_examples=80)
@given(
    st.data(),
    queries,
    st.integers(0, 500),
    st.none() | st.sampled_from("xyzw"),
    st.none() | st.sampled_from(["note", "tag", "none"]),
    st.none() | st.floats(-1, 1),
)
def test_as_brute_force(library, data, query, k, domain, type, min_score):
    db, nodes = library
    ids = data.draw(
        st.none() | st.lists(st.sampled_from([node[0] for node in nodes] + ["nobody"]), max_size=30)
    )
    check(db, nodes, query, k, domain=domain, type=type, ids=ids, min_score=min_score)


def test_a_vector_that_is_stored_finds_all_that_share_it(library):
    db, nodes = library
    shared = [
        node_id
        for node_id, vector, _ in nodes
        if vector is not None and np.array_equal(vector, nodes_by(nodes, "n001"))
    ]
    assert len(shared) > 3
    for k in range(len(shared) + 2):
        hits = check(db, nodes, nodes_by(nodes, "n001"), k)
        assert [hit.id for hit in hits[: len(shared)]] == sorted(shared)[:k], "ties in the order of their ids"
    assert hits[0].score == pytest.approx(1, abs=1e-7)


def test_ties_whatever_order_they_came_in(db):
    for node_id in ("b", "d", "a", "c"):
        db.insert_node({"id": node_id, "embedding": [1, 0]})
    for k in range(5):
        assert [hit.id for hit in db.search([1, 0], k)] == list("abcd")[:k]


def nodes_by(nodes, wanted):
    return next(vector for node_id, vector, _ in nodes if node_id == wanted)


@pytest.mark.parametrize("k", [0, 1, 10, 359, 360, 361, 10**9])
def test_any_k(library, k):
    db, nodes = library
    hits = check(db, nodes, np.arange(16.0) - 5, k)
    assert len(hits) == min(k, 360)


@pytest.mark.parametrize("k", [2**58 - 1, sys.maxsize, 10**20])
@pytest.mark.parametrize(
    "options", [{}, {"group_by": "document"}, {"mmr": 1.0}, {"memory": "stream"}], ids=str
)
def test_more_than_any_file_has(library, k, options):
    db, _ = library
    query = np.arange(16.0) - 5
    assert db.search(query, k, **options) == db.search(query, 360, **options)


def test_a_matrix_of_queries(library):
    db, _ = library
    matrix = np.random.default_rng(3).normal(size=(7, 16))
    answers = db.search(matrix, 5)
    assert answers == [db.search(row, 5) for row in matrix]
    assert answers == db.search(matrix.tolist(), 5)
    assert db.search(matrix[:1], 5) == answers[:1]
    assert db.search(np.ones((0, 16)), 5) == []
    assert db.search(matrix, 0) == [[]] * 7
    assert db.search(matrix, 3, domain="nowhere") == [[]] * 7


def test_types_of_queries(library):
    db, _ = library
    query = np.arange(16, dtype="f4") + 1
    wanted = [hit.id for hit in db.search(query, 20)]
    for again in (
        query.astype("f8"),
        query.astype(">f4"),
        query.astype("i8"),
        query.tolist(),
        tuple(query),
        np.repeat(query, 2)[::2],
        query * 1e30,
        query.astype("f8") * 1e-30,
        range(1, 17),
    ):
        assert [hit.id for hit in db.search(again, 20)] == wanted


def test_threshold_is_inclusive(db):
    db.insert_nodes(id=["a", "b", "c"], embedding=[[1, 0], [0, 1], [-1, 0]])
    assert [hit.id for hit in db.search([1, 0], min_score=1)] == ["a"]
    assert [hit.id for hit in db.search([1, 0], min_score=0)] == ["a", "b"]
    assert [hit.id for hit in db.search([1, 0], min_score=-1)] == ["a", "b", "c"]
    assert db.search([1, 0], min_score=1.1) == []


def test_filters(db):
    db.insert_nodes(
        id=["a", "b", "c"],
        embedding=[[1, 0], [1, 1], [0, 1]],
        domain=["x", "x", None],
        layer=["l", None, "l"],
        type="t",
    )
    assert [hit.id for hit in db.search([1, 0], domain="x")] == ["a", "b"]
    assert [hit.id for hit in db.search([1, 0], layer="l")] == ["a", "c"]
    assert [hit.id for hit in db.search([1, 0], layer="l", domain="x", type="t")] == ["a"]
    assert [hit.id for hit in db.search([1, 0], ids=["c", "b", "nobody", "b"])] == ["b", "c"]
    assert [hit.id for hit in db.search([1, 0], ids={"c"})] == ["c"]
    assert [hit.id for hit in db.search([1, 0], ids=(name for name in "ab"))] == ["a", "b"]
    assert db.search([1, 0], ids=[]) == []
    assert db.search([1, 0], domain="") == []


def test_ids_in_any_alphabet(db):
    ids = ["日本", "é", "e\u0301", 'quo"te', "back\\slash", "a,b", "🦊", "5", "%", "null"]
    db.insert_nodes(id=ids, embedding=np.ones((len(ids), 3)))
    assert [hit.id for hit in db.search([1, 1, 1], 99)] == sorted(ids, key=str)
    for node_id in ids:
        assert [hit.id for hit in db.search([1, 1, 1], ids=[node_id])] == [node_id]


def test_what_a_hit_holds(db):
    db.insert_node({"id": "a", "title": "A", "embedding": [3, 4]})
    with db.transaction() as connection:
        connection.execute("INSERT INTO files VALUES ('notes/a.md', 'a', 1, 2, 3, 'h', 'b')")
    assert db.search([3, 4]) == [Hit("a", pytest.approx(1), "A", "notes/a.md")]


def test_nothing_to_find(db):
    assert db.search([1, 0]) == []
    assert db.search([[1, 0]]) == [[]]
    db.insert_nodes(id=["a", "b"])
    assert db.search([1, 0]) == []


def test_search_sees_what_was_just_written(db):
    db.insert_nodes(id=["a"], embedding=[[1, 0]])
    with db.transaction():
        db.insert_node({"id": "b", "embedding": [1, 0]})
        assert [hit.id for hit in db.search([1, 0])] == ["a", "b"]
        db.insert_node({"id": "a", "embedding": [0, 1]})
        assert [hit.id for hit in db.search([1, 0])] == ["b", "a"]
        db.delete_nodes(["b"])
        assert [hit.id for hit in db.search([1, 0])] == ["a"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ([1, 2, 3], "3 dimensions.*has 2"),
        ([1], "1 dimensions"),
        ([0, 0], "zeros"),
        ([[1, 0], [0, 0]], "row 1.*zeros"),
        ([np.nan, 1], "NaN"),
        ([[1, 0], [np.inf, 1]], "row 1"),
        ([1e39, 0], "too large"),
        ([], "dimensions"),
        ([[1, 2], [1]], "row|inhomogeneous|different widths"),
        (["a", "b"], "dtype"),
        ("ab", "dtype"),
        (b"\0" * 8, "dtype"),
        (None, "dtype"),
        (5, "shape"),
        (np.ones((1, 1, 2)), "shape"),
        ([1j, 0], "complex"),
        ([True, False], "bool"),
        ([None, 1], "dtype"),
    ],
)
def test_wrong_queries(db, query, says):
    db.insert_nodes(id=["a"], embedding=[[1, 0]])
    with pytest.raises(errors.EmbeddingError, match=says):
        db.search(query)
    assert len(db.search([1, 0])) == 1


@pytest.mark.parametrize("k", [-1, 1.5, "3", None, True, np.float64(3)])
def test_wrong_k(db, k):
    with pytest.raises(errors.InputError, match="whole number"):
        db.search([1, 0], k)


def test_numpy_numbers_are_fine_as_k(db):
    db.insert_nodes(id=["a", "b"], embedding=[[1, 0], [0, 1]])
    assert len(db.search([1, 0], np.int32(1))) == 1


@pytest.mark.parametrize("damage", ["zeroblob(12)", "x''", "zeroblob(4)"])
def test_a_stored_vector_of_another_width(db, damage):
    db.insert_nodes(id=["a", "b"], embedding=[[1, 0], [0, 1]])
    with db.transaction() as connection:
        connection.execute(f"UPDATE nodes SET embedding = {damage} WHERE id = 'b'")
    for ask in (
        lambda: db.search([1, 0]),
        lambda: db.search([1, 0], memory="stream"),
        lambda: db.why_not("a", [1, 0]),
        lambda: db.why_not("b", [1, 0]),
    ):
        with pytest.raises(errors.CorruptRowError, match=r"node 'b'.*2 float32") as caught:
            ask()
        assert caught.value.node_id == "b"
    assert [hit.id for hit in db.search([1, 0], ids=["a"])] == ["a"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_stored_vector_that_is_not_finite(db, value):
    """One NaN must not make the others vanish, nor pass for a score."""
    db.insert_nodes(id=["a", "b", "c"], embedding=[[1, 0], [0, 1], [1, 1]])
    with db.transaction() as connection:
        connection.execute("UPDATE nodes SET embedding = ? WHERE id = 'b'", (np.array([value, value], "f4"),))
    for k in (1, 2, 3):
        with pytest.raises(errors.CorruptRowError, match=r"node 'b'.*not finite") as caught:
            db.search([1, 1], k)
        assert caught.value.node_id == "b"


def test_dot_product_and_fafcas():
    from resonance import dot_product, to_fafcas

    assert dot_product([1, 2, 3], [4, 5, 6]) == 32.0
    assert dot_product(np.array([1, 2], "f2"), (3, 4)) == 11.0
    for wrong in (([1, 2], [1, 2, 3]), ([[1]], [[1]]), (["a"], ["b"]), ([1j], [1j]), (1, 1)):
        with pytest.raises(errors.EmbeddingError):
            dot_product(*wrong)
    assert to_fafcas([3, 4]).tolist() == [np.float32(0.6), np.float32(0.8)]
    made = to_fafcas(np.random.default_rng(0).normal(size=(1000, 384)) * 1e-20)
    assert (made.dtype, made.shape) == (np.float32, (1000, 384))
    assert made.flags.c_contiguous
    assert np.abs(np.linalg.norm(made.astype("f8"), axis=1) - 1).max() < 1e-6
    again = to_fafcas(made)
    assert again is not made
    assert np.array_equal(again, made), "scaling what is scaled changes nothing"
    assert to_fafcas(np.ones((0, 5))).shape == (0, 5)
    for wrong in ([0, 0], [[1, 0], [0, 0]], [np.nan, 1], [[1], [1, 2]], 5, b"\0" * 8, "x", None, [[]]):
        with pytest.raises(errors.EmbeddingError):
            to_fafcas(wrong)
