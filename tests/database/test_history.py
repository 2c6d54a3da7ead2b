"""The audit trail: who, what, which columns, old and new values; small, and never vectors."""

import json

import numpy as np
import pytest

from resonance import bulk, errors
from resonance.care.export import export
from resonance.model import Edge, Node
from support import unit


def trail(db, **how):
    return [
        (entry.entity_type, entry.entity_id, entry.action, entry.old_value, entry.new_value)
        for entry in db.get_history(**how)
    ]


def test_an_insert(db):
    db.insert_node(Node("a", title="A", meta={"n": 1}, embedding=[1, 0]))
    assert trail(db) == [
        ("node", "a", "insert", None, {"title": "A", "meta": {"n": 1}, "embedding": "stored"})
    ]


def test_an_update_holds_what_changed(db):
    db.insert_node(Node("a", title="A", summary="s", type="t"))
    db.insert_node({"id": "a", "title": "B", "summary": "s", "type": None})
    assert trail(db, limit=1) == [
        ("node", "a", "update", {"title": "A", "type": "t"}, {"title": "B", "type": None})
    ]
    db.update_node_meta("a", {"x": 1})
    assert trail(db, limit=1) == [("node", "a", "update", {"meta": None}, {"meta": {"x": 1}})]


def test_no_change_no_entry(db):
    db.insert_node(Node("a", title="A", embedding=[3, 4]))
    before = trail(db)
    db.insert_node(Node("a", title="A"))
    db.insert_node(Node("a", embedding=[6, 8]))
    assert trail(db) == before


def test_vectors_are_mentioned_not_kept(db):
    vectors = unit(3, 384)
    db.insert_node(Node("a", embedding=vectors[0]))
    db.insert_node(Node("a", embedding=vectors[1]))
    assert trail(db, limit=1) == [("node", "a", "update", {"embedding": "stored"}, {"embedding": "stored"})]
    db.insert_node({"id": "a", "embedding": None})
    assert trail(db, limit=1) == [("node", "a", "update", {"embedding": "stored"}, {"embedding": None})]
    db.delete_nodes(["a"])
    assert db.query("SELECT max(length(old_value) + length(new_value)) FROM history")[0][0] < 100


def test_a_bulk_load_is_one_entry(db):
    db.insert_nodes(id=[f"n{i}" for i in range(100)], embedding=unit(100, 8))
    assert trail(db) == [("nodes", "*", "bulk", None, {"inserted": 100, "updated": 0})]
    db.insert_nodes(id=["n0", "n1", "new"], title=["x", "y", "z"])
    assert trail(db, limit=1) == [("nodes", "*", "bulk", None, {"inserted": 1, "updated": 2})]
    db.insert_edges(source=["n0", "n1"], target=["n1", "n2"])
    assert trail(db, limit=1) == [("edges", "*", "bulk", None, {"inserted": 2, "updated": 0})]
    before = len(trail(db))
    db.insert_nodes(id=["n0"], title=["x"])
    db.insert_edges(source=["n0"], target=["n1"])
    assert len(trail(db)) == before, "nothing changed"


@pytest.mark.parametrize("way", ["lists", "iterators", "arrays", "scalars"])
def test_row_by_row_if_asked(db, way):
    made = {
        "lists": lambda *items: list(items),
        "iterators": lambda *items: iter(items),
        "arrays": lambda *items: np.array(items),
        "scalars": lambda *items: list(items),
    }[way]
    db.insert_nodes(
        id=made("a", "b", "c"), title="t" if way == "scalars" else made("t", "t", "t"), history="rows"
    )
    assert [entry[1:3] for entry in trail(db)] == [("c", "insert"), ("b", "insert"), ("a", "insert")]
    kind = "CITES" if way == "scalars" else made("CITES", "CITES")
    db.insert_edges(source=made("a", "b"), target=made("b", "c"), type=kind, history="rows")
    assert [entry[:3] for entry in trail(db, limit=2)] == [
        ("edge", "b-c-CITES", "insert"),
        ("edge", "a-b-CITES", "insert"),
    ]
    db.insert_edges(source=made("a"), target=made("c"), history="rows")
    assert trail(db, limit=1)[0][1] == "a-c-related_to"


def test_nodes_made_for_edges_are_told(db):
    db.insert_nodes(id=["b"])
    db.insert_edges([("a", "b"), ("c", "a")], on_missing="stub", history="rows")
    assert [entry[:3] for entry in trail(db)][::-1][1:] == [
        ("node", "a", "insert"),
        ("node", "c", "insert"),
        ("edge", "a-b-related_to", "insert"),
        ("edge", "c-a-related_to", "insert"),
    ]
    assert trail(db, entity_type="node")[0][4] == {"type": "stub", "title": "c"}
    for mode in ("exclusive", "shared"):
        db.insert_edges([("a", mode)], on_missing="stub", mode=mode)
        assert trail(db, limit=1)[0][4] == {"inserted": 1, "updated": 0, "stubbed": 1}


def test_a_shared_load_that_stops_has_told_what_stays(db, monkeypatch):
    monkeypatch.setattr(bulk, "SHARED_HOLD", 0)
    monkeypatch.setattr(bulk, "SHARED_PAUSE", 0)

    def stop(done, total):
        if done > 100:
            raise ZeroDivisionError

    ids = [f"n{number}" for number in range(500)]
    with pytest.raises(ZeroDivisionError):
        db.insert_nodes(id=ids, mode="shared", progress=stop)
    there = db.get_stats().nodes
    assert 100 < there < 500
    assert trail(db, limit=1)[0][4] == {"inserted": there, "updated": 0}


def test_what_is_no_unicode_can_be_recorded(db, tmp_path):
    """Others escape half a surrogate pair in JSON, where it is allowed; no text can hold it otherwise."""
    half = r'{"cut": "\ud83d"}'
    db.insert_nodes(id=["a", "b"])
    with db.transaction() as writer:
        writer.execute("UPDATE nodes SET meta = ?", (half,))
    assert len(db.digest().leaves) == 2
    export(db, tmp_path / "graph.jsonl")
    assert '"\\ud83d"' in (tmp_path / "graph.jsonl").read_text()
    db.update_node_meta("a", None)
    db.delete_nodes(["b"])
    for entry in db.get_history(limit=2):
        assert entry.old_value == {"meta": {"cut": "\ud83d"}}


def test_an_edge_given_twice_is_recorded_once(db):
    db.insert_nodes(id=["a", "b"])
    db.insert_edges([Edge("a", "b", "t", 0.1), Edge("a", "b", "t", 0.2)], history="rows")
    assert [entry[4]["confidence"] for entry in trail(db, entity_type="edge")] == [0.2]


def test_edges(db):
    db.insert_nodes(id=["a", "b"])
    db.insert_semantic_edge("a", "b", "t", 0.5)
    named = {"source": "a", "target": "b", "type": "t"}
    first = named | {"confidence": 0.5, "veracity": 1.0, "context_source": None}
    assert trail(db, limit=1) == [("edge", "a-b-t", "insert", None, first)]
    db.insert_semantic_edge("a", "b", "t", 0.25, context_source="x.md")
    second = named | {"confidence": 0.25, "veracity": 1.0, "context_source": "x.md"}
    assert trail(db, limit=1) == [("edge", "a-b-t", "update", first, second)]
    db.insert_semantic_edge("a", "b", "t", 0.25, context_source="x.md")
    assert len(trail(db, entity_type="edge")) == 2
    db.delete_edges([("a", "b", "t"), ("a", "b", "t")])
    assert [entry[:3] for entry in trail(db, entity_type="edge")] == [
        ("edge", "a-b-t", "delete"),
        ("edge", "a-b-t", "update"),
        ("edge", "a-b-t", "insert"),
    ]


def test_deleted_nodes(db):
    db.insert_nodes(id=["a", "b"], title=["A", "B"], summary="s")
    db.delete_nodes(["b", "a", "nobody"])
    assert trail(db, action="delete") == [
        ("node", "b", "delete", {"title": "B", "summary": "s"}, None),
        ("node", "a", "delete", {"title": "A", "summary": "s"}, None),
    ]


def test_asking(db):
    for number in range(5):
        db.insert_node(Node("a", title=f"{number}"))
        db.insert_node(Node(f"b{number}"))
    assert len(db.get_history()) == 10
    assert [entry.new_value["title"] for entry in db.get_history("a")] == ["4", "3", "2", "1", "0"]
    assert [entry.action for entry in db.get_history("a", limit=2)] == ["update", "update"]
    assert [entry.entity_id for entry in db.get_history(action="insert", limit=3)] == ["b4", "b3", "b2"]
    assert db.get_history(entity_type="edge") == []
    assert db.get_history(limit=0) == []
    numbers = [entry.id for entry in db.get_history()]
    assert numbers == sorted(numbers, reverse=True), "by number: clocks go back"


def test_undone_with_its_transaction(db):
    with pytest.raises(ZeroDivisionError), db.transaction():  # noqa: PT012
        db.insert_node(Node("a"))
        assert len(db.get_history()) == 1
        raise ZeroDivisionError
    assert db.get_history() == []


def test_a_trail_that_cannot_be_written_fails_the_call(db):
    db.insert_node(Node("kept"))
    with db.transaction() as connection:
        connection.execute(
            "CREATE TRIGGER no BEFORE INSERT ON history BEGIN SELECT RAISE(ABORT, 'no trail'); END"
        )
    for call in (
        lambda: db.insert_node(Node("a")),
        lambda: db.insert_nodes(id=["a"]),
        lambda: db.insert_edge("kept", "kept"),
        lambda: db.insert_edges([("kept", "kept")]),
        lambda: db.delete_nodes(["kept"]),
    ):
        with pytest.raises(errors.StorageError, match="no trail"):
            call()
    assert [node.id for node in db.get_nodes()] == ["kept"]
    assert db.get_stats().edges == 0


def test_entries_of_others(db):
    """Amalfa writes what it likes into these columns."""
    with db.transaction() as connection:
        for value in ('{"a": 1}', "[1]", "plain words", "", None):
            connection.execute(
                "INSERT INTO history (entity_type, entity_id, action, new_value) "
                "VALUES ('node', 'x', 'upsert', ?)",
                (value,),
            )
    found = [entry.new_value for entry in db.get_history()]
    assert found == [None, {"value": ""}, {"value": "plain words"}, {"value": [1]}, {"a": 1}]
    assert json.dumps(found)
