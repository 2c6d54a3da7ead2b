"""Single nodes and edges: true upserts, what comes back, and what deleting does."""

import numpy as np
import pytest

from resonance import errors
from resonance.model import Edge, Node
from support import integrity, unit

WHOLE = Node(
    id="a",
    type="note",
    title="Títle",
    domain="d",
    layer="l",
    embedding=np.array([0.6, 0.8], dtype="f4"),
    hash="h",
    meta={"b": [1, {"c": None}], "a": "ü"},
    date="2026-01-02",
    summary="s",
)


def rowid(db, node_id):
    return db.query("SELECT rowid FROM nodes WHERE id = ?", (node_id,))[0][0]


def test_a_node_comes_back_as_it_went_in(db):
    db.insert_node(WHOLE)
    found = db.get_node("a")
    assert found == WHOLE
    assert np.array_equal(found.embedding, WHOLE.embedding)
    assert found.embedding.dtype == np.float32
    assert db.get_node_hash("a") == "h"
    assert db.get_node("b") is None
    assert db.get_node_hash("b") is None


def test_an_update_keeps_what_is_not_named(db):
    """INSERT OR REPLACE would set the rest to NULL, take a new rowid, and cascade the edges away."""
    db.insert_node(WHOLE)
    db.insert_node(Node("b"))
    db.insert_edge("a", "b")
    db.insert_edge("b", "a")
    before = rowid(db, "a")
    db.insert_node(Node("a", title="New"))
    found = db.get_node("a")
    assert found.title == "New"
    assert (found.type, found.summary, found.meta, found.date) == ("note", "s", WHOLE.meta, "2026-01-02")
    assert np.array_equal(found.embedding, WHOLE.embedding)
    assert rowid(db, "a") == before
    assert len(db.get_edges("a", direction="both")) == 2


@pytest.mark.parametrize(
    "name", ["type", "title", "domain", "layer", "embedding", "hash", "meta", "date", "summary"]
)
def test_none_in_a_mapping_is_null(db, name):
    db.insert_node(WHOLE)
    db.insert_node(Node("a", **{name: None}))
    assert getattr(db.get_node("a"), name) is not None, "a Node does not name what is None"
    db.insert_node({"id": "a", name: None})
    found = db.get_node("a")
    assert getattr(found, name) is None
    kept = {
        field: getattr(found, field)
        for field in Node.__dataclass_fields__
        if field not in (name, "embedding")
    }
    assert all(value == getattr(WHOLE, field) for field, value in kept.items())


@pytest.mark.parametrize("name", ["type", "title", "embedding", "meta", "summary"])
def test_none_in_a_column_is_null(db, name):
    db.insert_nodes([WHOLE, Node("b", **{name: getattr(WHOLE, name)})])
    db.insert_nodes(**{"id": ["a", "b"], name: [None, getattr(WHOLE, name)]})
    assert getattr(db.get_node("a"), name) is None
    assert getattr(db.get_node("b"), name) is not None
    db.insert_nodes(**{"id": ["a", "b"], name: None})
    assert getattr(db.get_node("b"), name) is None
    assert db.get_node("a").date == WHOLE.date


def test_no_vectors_at_all(db):
    """None in place of every vector does not need a width."""
    db.insert_node({"id": "a", "embedding": None})
    db.insert_nodes(id=["b", "c"], embedding=[None, None])
    db.insert_nodes(id=["d"], embedding=None)
    assert db.space is None
    assert len(db.get_nodes()) == 4


def test_vectors_are_stored_with_unit_norm(db):
    vectors = (
        np.random.default_rng(0).normal(size=(500, 33)) * 10.0 ** np.arange(-20, 20).repeat(13)[:500, None]
    )
    db.insert_nodes(id=[f"{i}" for i in range(500)], embedding=vectors)
    blobs = dict(db.query("SELECT id, embedding FROM nodes"))
    stored = np.array([np.frombuffer(blobs[f"{i}"], "<f4") for i in range(500)], dtype="f8")
    assert np.abs(np.linalg.norm(stored, axis=1) - 1).max() < 1e-6
    exact = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.abs(stored - exact).max() < 6e-8, "one rounding to float32"


@pytest.mark.parametrize("scale", [0.98, 0.999, 1 - 1e-5, 1 - 1e-6, 1 + 1e-6, 1 + 1e-5, 1.001, 1.02])
def test_almost_unit_is_not_unit(db, scale):
    db.insert_nodes(id=[f"{i}" for i in range(20)], embedding=unit(20, 384).astype("f8") * scale)
    for node in db.get_nodes():
        assert abs(np.linalg.norm(node.embedding.astype("f8")) - 1) < 5e-7


def test_a_unit_vector_is_not_touched(db):
    vector = (lambda v: (v / np.linalg.norm(v)).astype("f4"))(np.random.default_rng(1).normal(size=384))
    db.insert_node({"id": "a", "embedding": vector})
    assert db.query("SELECT embedding FROM nodes") == [(vector.tobytes(),)]
    db.insert_node({"id": "a", "embedding": db.get_node("a").embedding})
    assert db.query("SELECT embedding FROM nodes") == [(vector.tobytes(),)]


def test_zero_vectors_are_null_and_counted(db):
    report = db.insert_nodes(id=["a", "b", "c", "d"], embedding=[[0, 0], [1, 0], None, [0.0, -0.0]])
    assert (report.rows, report.inserted, report.zero_vectors) == (4, 4, 2)
    assert [node.embedding is None for node in db.get_nodes()] == [True, False, True, True]
    report = db.insert_nodes(id=["b"], embedding=np.zeros((1, 2)))
    assert (report.updated, report.zero_vectors) == (1, 1)
    assert db.get_stats().vectors == 0


def test_what_is_read_back_cannot_be_written_to(db):
    db.insert_node({"id": "a", "embedding": [1, 0]})
    with pytest.raises(ValueError, match="read-only"):
        db.get_node("a").embedding[0] = 5


def test_meta_is_canonical(db):
    db.insert_node({"id": "a", "meta": {"b": 1, "a": "ü"}})
    assert db.query("SELECT meta FROM nodes") == [('{"a":"ü","b":1}',)]
    assert db.insert_nodes([{"id": "a", "meta": {"a": "ü", "b": 1}}]).unchanged == 1
    db.insert_node({"id": "a", "meta": '{"as": "given"}'})
    assert db.query("SELECT meta FROM nodes") == [('{"as": "given"}',)]
    db.insert_node({"id": "a", "meta": {}})
    assert db.get_node("a").meta == {}


@pytest.mark.parametrize("text", ["{", "[]", "5", "null", '"x"'])
def test_stored_meta_that_is_no_object(db, text):
    db.insert_node({"id": "a"})
    with db.transaction() as connection:
        connection.execute("UPDATE nodes SET meta = ?", (text,))
    for call in (lambda: db.get_node("a"), db.get_nodes):
        with pytest.raises(errors.CorruptRowError, match=r"'a'.*meta") as caught:
            call()
        assert caught.value.node_id == "a"


def test_get_nodes(db):
    db.insert_nodes(
        id=["c", "a", "b", "d"], type=["t", "t", "u", None], domain=["x", "y", "x", "x"], layer="l"
    )

    def found(**how):
        return "".join(node.id for node in db.get_nodes(**how))

    assert found() == "abcd"
    assert found(domain="x") == "bcd"
    assert found(type="t") == "ac"
    assert found(domain="x", type="t", layer="l") == "c"
    assert found(layer="none") == ""
    assert found(limit=2) == "ab"
    assert found(limit=2, offset=1) == "bc"
    assert found(offset=3) == "d", "offset without limit"
    assert found(limit=0) == ""
    assert [node.id for node in db.get_nodes_by_type("t")] == ["a", "c"]


def test_without_vectors(db):
    db.insert_node(WHOLE)
    (node,) = db.get_nodes(exclude_content=True)
    assert node.embedding is None
    assert node == WHOLE
    assert db.get_nodes()[0].embedding is not None


def test_nodes_have_no_content():
    """Hollow: there is no field a stand-in text could be put into."""
    assert not {"content", "text", "body"} & set(Node.__dataclass_fields__)


def test_lexicon(db):
    db.insert_nodes(
        [
            Node("one", "concept", "One", "lexicon", meta={"aliases": ["1"], "category": "number"}),
            Node("two", "concept", "Two", "lexicon"),
            Node("three", "document", "Three", "lexicon"),
            Node("four", "concept", "Four", "knowledge"),
        ]
    )
    assert db.get_lexicon() == [
        {"id": "one", "label": "One", "aliases": ["1"], "category": "number"},
        {"id": "two", "label": "Two", "aliases": []},
    ]


def test_updating_meta_and_date(db):
    db.insert_node(WHOLE)
    db.update_node_meta("a", {"new": True})
    db.update_node_date("a", "2027-01-01")
    found = db.get_node("a")
    assert (found.meta, found.date, found.title) == ({"new": True}, "2027-01-01", "Títle")
    db.update_node_meta("a", None)
    db.update_node_date("a", None)
    assert (db.get_node("a").meta, db.get_node("a").date) == (None, None)
    for call in (db.update_node_meta, db.update_node_date):
        with pytest.raises(errors.UnknownNodeError, match="'nobody'") as caught:
            call("nobody", None)
        assert isinstance(caught.value, KeyError)
        assert caught.value.node_id == "nobody"
    with pytest.raises(errors.ColumnError):
        db.update_node_meta("a", [1])
    assert [node.id for node in db.get_nodes()] == ["a"]


# --- edges --------------------------------------------------------------------------------------------


def test_edges(db):
    db.insert_nodes(id=["a", "b", "c"])
    db.insert_edge("a", "b")
    db.insert_edge("a", "c", "CITES")
    db.insert_edge("c", "a", "CITES")
    db.insert_semantic_edge("a", "b", "like", 0.5, 0.25, "why.md")
    assert db.get_edges("a") == [
        Edge("a", "b", "like", 0.5, 0.25, "why.md"),
        Edge("a", "b", "related_to"),
        Edge("a", "c", "CITES"),
    ]
    assert db.get_edges("a", direction="in") == [Edge("c", "a", "CITES")]
    assert len(db.get_edges("a", direction="both")) == 4
    assert db.get_edges("a", type="CITES") == [Edge("a", "c", "CITES")]
    assert db.get_edges("a", direction="both", type="CITES") == [
        Edge("a", "c", "CITES"),
        Edge("c", "a", "CITES"),
    ]
    assert db.get_edges("nobody") == []
    with pytest.raises(errors.InputError, match="'up'"):
        db.get_edges("a", direction="up")


def test_an_edge_twice(db):
    db.insert_nodes(id=["a", "b"])
    db.insert_semantic_edge("a", "b", "like", 0.5, 0.25, "why.md")
    db.insert_edge("a", "b", "like")
    assert db.get_edges("a") == [Edge("a", "b", "like", 0.5, 0.25, "why.md")], "nothing but its key was named"
    db.insert_semantic_edge("a", "b", "like", 0.75)
    assert db.get_edges("a") == [Edge("a", "b", "like", 0.75, 1.0, None)]


def test_an_edge_to_itself_is_listed_once(db):
    db.insert_node({"id": "a"})
    db.insert_edge("a", "a", "self")
    assert db.get_edges("a", direction="both") == [Edge("a", "a", "self")]


@pytest.mark.parametrize(("source", "target"), [("a", "nobody"), ("nobody", "a"), ("nobody", "no one")])
def test_edges_point_to_nodes(db, source, target):
    db.insert_node({"id": "a"})
    for call in (
        lambda: db.insert_edge(source, target),
        lambda: db.insert_semantic_edge(source, target, "t"),
        lambda: db.insert_edges([(source, target)]),
    ):
        with pytest.raises(errors.DanglingEdgeError):
            call()
    assert db.get_stats().edges == 0
    with db.transaction() as connection, pytest.raises(errors.ForeignKeyError):
        connection.execute("INSERT INTO edges (source, target, type) VALUES (?, ?, 't')", (source, target))


def test_deleting_edges(db):
    db.insert_nodes(id=["a", "b"])
    db.insert_edges([("a", "b", "t"), ("b", "a", "t"), ("a", "a", "t")])
    assert db.delete_edges([("a", "b", "t"), ("a", "b", "other"), Edge("b", "a", "t"), ("a", "b", "t")]) == 2
    assert db.get_edges("a", direction="both") == [Edge("a", "a", "t")]
    assert db.delete_edges([]) == 0
    for wrong in (["abc"], [("a", "b")], [("a", "b", 5)], [()], [5], [None], ["a", "b", "t"], "abc"):
        with pytest.raises(errors.ColumnError, match="row 0"):
            db.delete_edges(wrong)
    for wrong in (None, 5):
        with pytest.raises(errors.ColumnError, match="not a sequence"):
            db.delete_edges(wrong)
    assert db.get_stats().edges == 1


# --- deleting nodes -----------------------------------------------------------------------------------


@pytest.fixture
def linked(db):
    """a -> b by a link and its edge; c has an ambiguous link; b has a file."""
    db.insert_nodes(id=["a", "b", "c", "d"])
    db.insert_edges([("a", "b", "CITES"), ("b", "c", "CITES"), ("c", "d", "CITES")])
    with db.transaction() as connection:
        connection.executescript(
            """
            INSERT INTO links (source, kind, type, raw, name, state, target)
            VALUES ('a', 'wikilink', 'CITES', '[[B]]', 'B', 'resolved', 'b'),
                   ('b', 'wikilink', 'CITES', '[[C]]', 'C', 'resolved', 'c'),
                   ('c', 'wikilink', 'CITES', '[[D]]', 'D', 'resolved', 'd'),
                   ('c', 'markdown', 'LINKS_TO', 'x', 'https://x', 'external', NULL);
            INSERT INTO files VALUES ('b.md', 'b', 1, 2, 3, 'h', 'b'), ('a.md', 'a', 1, 2, 3, 'h', 'b');
            """
        )
    return db


def test_deleting_a_node(linked):
    assert linked.delete_nodes(["b", "nobody", "b"]) == 1
    assert [node.id for node in linked.get_nodes()] == ["a", "c", "d"]
    assert linked.query("SELECT source, target FROM edges") == [("c", "d")]
    states = [(link.source, link.name, link.state, link.target) for link in linked.links()]
    assert states == [
        ("a", "B", "unresolved", None),
        ("c", "D", "resolved", "d"),
        ("c", "https://x", "external", None),
    ]
    assert linked.query("SELECT path FROM files") == [("a.md",)]
    linked.close()
    assert integrity(linked.path) == [("ok",)]


def test_deleting_all(linked):
    assert linked.delete_nodes(node.id for node in linked.get_nodes()) == 4
    for table in ("nodes", "edges", "links", "files"):
        assert linked.query(f"SELECT count(*) FROM {table}") == [(0,)]


def test_one_id_is_not_many(linked):
    """Letter by letter "abc" is three nodes."""
    for wrong in ("abc", b"abc", "a", None, 5):
        with pytest.raises(errors.InputError, match="sequence of ids"):
            linked.delete_nodes(wrong)
    for wrong in ([1], [None], ["a", 5]):
        with pytest.raises(errors.InvalidIdError):
            linked.delete_nodes(wrong)
    assert len(linked.get_nodes()) == 4
    assert linked.delete_nodes([]) == 0


def test_links(linked):
    assert [link.name for link in linked.links(source="c")] == ["D", "https://x"]
    assert [link.source for link in linked.links(target="c")] == ["b"]
    assert [link.name for link in linked.links(state="external")] == ["https://x"]
    assert linked.links(source="c", state="unresolved") == []


# --- REPLACE --------------------------------------------------------------------------------------------


def test_replace_as_amalfa_does_it_keeps_the_edges(linked):
    """Foreign keys that cascade would take them along; those here have no action."""
    with linked.transaction() as connection:
        connection.execute("INSERT OR REPLACE INTO nodes (id, title) VALUES ('b', 'replaced')")
    assert linked.get_node("b").title == "replaced"
    assert linked.query("SELECT source, target FROM edges ORDER BY 1") == [("a", "b"), ("b", "c"), ("c", "d")]
    assert [link.target for link in linked.links(target="b")] == ["b"]
    linked.close()
    assert integrity(linked.path) == [("ok",)]
