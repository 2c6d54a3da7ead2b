"""Meaning and words together: fused by reciprocal rank, and nothing that is missing goes unsaid."""

import math

import numpy as np
import pytest

from resonance import ResonanceDB, Text, errors
from resonance.model import Hit, Rank
from resonance.search import text as fulltext

pytestmark = pytest.mark.skipif(fulltext.unable() is not None, reason="this engine has no text search")

VECTORS = {"a": [1, 0], "b": [0.9, 0.1], "c": [0, 1], "d": [-1, 0]}
BODIES = {
    "a": "apples",
    "c": "pears",
    "d": "pears among other kinds",
    "e": "plums",
    "f": "plums",
    "g": "figs",
}


@pytest.fixture
def both(db):
    """a, b, c and d have vectors, all but b have words."""
    db.insert_nodes(id=list(VECTORS), embedding=list(VECTORS.values()), type=["x", "x", "x", "y"])
    db.insert_nodes(id=["e", "f", "g"], type="x")
    db.insert_texts(Text(node, body) for node, body in BODIES.items())
    return db


def ids(hits):
    return [hit.id for hit in hits]


def test_the_score_is_the_sum_of_reciprocal_ranks(both):
    hits = both.search_hybrid("pears", vector=[1, 0])
    near, words = ids(both.search([1, 0])), ids(both.search_text("pears"))
    assert (near, words) == (["a", "b", "c", "d"], ["c", "d"])
    wanted = {
        node: sum(1 / (60 + ranked.index(node) + 1) for ranked in (near, words) if node in ranked)
        for node in {*near, *words}
    }
    assert {hit.id: hit.score for hit in hits} == pytest.approx(wanted)
    assert ids(hits) == sorted(wanted, key=lambda node: (-wanted[node], node))
    assert (hits.lists, hits.notes, hits.reranked) == (("vector", "text"), (), False)


def test_each_hit_tells_its_rank_and_score_in_each_list(both):
    hits = {hit.id: hit for hit in both.search_hybrid("pears", vector=lambda text: [1, len(text) - 5])}
    words = {hit.id: hit.score for hit in both.search_text("pears")}
    assert hits["c"].ranks == {"vector": Rank(3, pytest.approx(0)), "text": Rank(1, words["c"])}
    assert hits["a"].ranks == {"vector": Rank(1, pytest.approx(1))}


def test_weights_and_the_constant(both):
    assert ids(both.search_hybrid("pears", 1, vector=[1, 0], weights={"text": 0})) == ["a"]
    assert ids(both.search_hybrid("pears", 2, vector=[1, 0], weights={"vector": 0})) == ["c", "d"]
    assert both.search_hybrid("figs", 1, vector=[1, 0], k0=0, weights={"text": 3})[0].score == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"weights": [1, 2]},
        {"weights": "text"},
        {"weights": {"txt": 1}},
        {"weights": {"txt": 1, 2: 1}},
        {"weights": {"text": -1}},
        {"weights": {"text": math.nan}},
        {"k0": -1},
    ],
)
def test_weights_that_make_no_sense(both, wrong):
    with pytest.raises(errors.InputError):
        both.search_hybrid("pears", vector=[1, 0], **wrong)


@pytest.mark.parametrize("name", ["k", "candidates"])
@pytest.mark.parametrize("wrong", [-1, True, 2.5, "3", None])
def test_counts_that_are_none(both, name, wrong):
    with pytest.raises(errors.InputError, match=f"{name}=.*whole number"):
        both.search_hybrid("pears", vector=[1, 0], **{name: wrong})


def test_ties_are_ordered_by_id(both):
    hits = both.search_hybrid("plums", 4, vector=[1, 0], weights={"vector": 1, "text": 1})
    assert ids(hits) == ["a", "e", "b", "f"]


def test_conditions_hold_for_both_lists(both):
    assert ids(both.search_hybrid("pears", vector=[1, 0], type="y")) == ["d"]
    assert ids(both.search_hybrid("pears", vector=[1, 0], ids=["a", "e"])) == ["a"]
    assert ids(both.search_hybrid("pears", vector=[1, 0], where="id >= 'd'")) == ["d"]


def test_conditions_that_can_be_read_only_once(both):
    once = {"ids": (node for node in ["a", "e"]), "where": ("type = ?", iter("x"))}
    hits = both.search_hybrid("plums", vector=[1, 0], **once)
    assert list(hits) == list(both.search_hybrid("plums", vector=[1, 0], ids=["a", "e"], type="x"))
    assert [list(hit.ranks) for hit in hits] == [["vector"], ["text"]]


def test_without_a_model_words_work_alone_and_it_says_so(both):
    hits = both.search_hybrid("pears")
    assert ids(hits) == ["c", "d"]
    assert hits.lists == ("text",)
    assert "no list by meaning" in hits.notes[0]
    assert "unnamed" in hits.notes[0]


def test_without_vectors_words_work_alone_and_it_says_so(db):
    db.insert_nodes(id=["e", "f"])
    db.insert_texts([Text("e", "plums"), Text("f", "figs")])
    for _ in range(2):
        hits = db.search_hybrid("plums", vector=[1, 0])
        assert (ids(hits), hits.lists) == (["e"], ("text",))
        assert "no list by meaning: the database holds no vectors" in hits.notes[0]
        db.insert_node({"id": "f", "embedding": [1, 0]})
        assert db.search_hybrid("plums", vector=[1, 0], ids=["e"]).notes == ()
        db.insert_node({"id": "f", "embedding": None})


def test_without_a_text_index_meaning_works_alone_and_it_says_so(db):
    db.insert_nodes(id=list(VECTORS), embedding=list(VECTORS.values()))
    hits = db.search_hybrid("pears", vector=[1, 0])
    assert ids(hits) == ["a", "b", "c", "d"]
    assert hits.lists == ("vector",)
    assert "no list by words" in hits.notes[0]


def test_with_neither_it_fails(db):
    with pytest.raises(errors.TextSearchError, match=r"nothing to search by.*ingest"):
        db.search_hybrid("pears")
    with pytest.raises(errors.TextSearchError, match=r"nothing to search by.*no vectors"):
        db.search_hybrid("pears", vector=[1, 0])


def test_a_vector_that_is_wrong_is_an_error_and_no_reason_to_do_without(both):
    with pytest.raises(errors.EmbeddingError):
        both.search_hybrid("pears", vector=[1, 0, 0])
    with pytest.raises(ZeroDivisionError):
        both.search_hybrid("pears", vector=lambda text: 1 / 0)


@pytest.mark.parametrize(
    "wrong", [[[1, 0]], np.ones((1, 2)), np.ones((2, 2)), [[1, 0], [1]], 5, "pears"], ids=str
)
def test_a_vector_that_is_none_or_several(both, wrong):
    for vector in (wrong, lambda text: wrong):
        with pytest.raises(errors.EmbeddingError, match=r"not one vector \(d,\).*take the row"):
            both.search_hybrid("pears", vector=vector)
    with pytest.raises(errors.EmbeddingError, match="vector= is NoneType"):
        both.search_hybrid("pears", vector=lambda text: None)


def test_a_reranker_gives_scores(both):
    asked = []

    def by_table(text, hits):
        asked.append((text, ids(hits)))
        return np.array([{"c": 20, "a": 6}.get(hit.id, 0) for hit in hits])

    hits = both.search_hybrid("pears", 2, vector=[1, 0], rerank=by_table)
    assert asked == [("pears", ids(both.search_hybrid("pears", vector=[1, 0])))]
    assert [(hit.id, hit.score) for hit in hits] == [("c", 20.0), ("a", 6.0)]
    assert hits.reranked
    assert hits[0].ranks.keys() == {"vector", "text", "fused"}
    assert hits[1].ranks["fused"].rank == 3


def test_a_reranker_gives_hits_in_their_new_order(both):
    hits = both.search_hybrid("pears", vector=[1, 0], rerank=lambda text, hits: hits[::-2])
    assert ids(hits) == ids(both.search_hybrid("pears", vector=[1, 0]))[::-2]


@pytest.mark.parametrize(
    "returned",
    [[1.0], [math.nan] * 4, ["x"] * 4, [None] * 4, [Hit("stranger", 1.0)], [Hit("a", 1.0)] * 2, None, 5],
)
def test_a_reranker_that_returns_nonsense(both, returned):
    with pytest.raises(errors.InputError, match="reranker"):
        both.search_hybrid("pears", vector=[1, 0], rerank=lambda text, hits: returned)


def test_a_reranker_may_leave_out_every_hit_and_the_answer_says_so(both):
    hits = both.search_hybrid("pears", vector=[1, 0], rerank=lambda text, hits: [])
    assert hits == []
    assert (hits.reranked, hits.notes) == (True, ("the reranker left out all 4 hits",))
    nothing = both.search_hybrid("pears", vector=[1, 0], ids=[], rerank=lambda text, hits: [])
    assert (nothing, nothing.notes) == ([], ())


def test_what_is_no_reranker(both):
    with pytest.raises(errors.InputError, match="rerank='bm25'"):
        both.search_hybrid("pears", vector=[1, 0], rerank="bm25")


def test_what_a_reranker_raises_is_raised(both):
    def fails(text, hits):
        raise ConnectionError("the service is down")

    with pytest.raises(ConnectionError, match="the service is down"):
        both.search_hybrid("pears", vector=[1, 0], rerank=fails)


def test_a_reranker_reads_the_texts(tmp_path):
    (tmp_path / "a.md").write_text("pears are green")
    (tmp_path / "b.md").write_text("pears are yellow and sweet")
    with ResonanceDB(tmp_path / "graph.db", root=tmp_path) as db:
        db.insert_nodes(id=["a", "b"], meta=[{"source": "a.md"}, {"source": "b.md"}])
        db.insert_texts([Text("a", "pears are green"), Text("b", "pears are yellow and sweet")])
        hits = db.search_hybrid(
            "pears", hydrate=True, rerank=lambda text, hits: [len(hit.content.text) for hit in hits]
        )
        assert [(hit.id, hit.content.text) for hit in hits] == [
            ("b", "pears are yellow and sweet"),
            ("a", "pears are green"),
        ]
