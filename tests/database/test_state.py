"""Ember state, statistics, and small questions about the database itself."""

import pytest

from resonance import ResonanceDB, errors
from resonance.model import EmberState, Node, Space
from support import unit


def test_ember_state(db):
    assert db.get_ember_state("a.md") is None
    db.set_ember_state("a.md", last_analyzed="2026-01-01", sidecar_created=True, confidence=0.5)
    assert db.get_ember_state("a.md") == EmberState("a.md", "2026-01-01", True, 0.5)
    db.set_ember_state("a.md", sidecar_created=False)
    assert db.get_ember_state("a.md") == EmberState("a.md", "2026-01-01", False, 0.5), "the rest is kept"
    db.set_ember_state("b.md")
    assert db.get_ember_state("b.md") == EmberState("b.md")
    with pytest.raises(errors.ColumnError, match="NaN"):
        db.set_ember_state("a.md", confidence=float("nan"))
    for wrong in ({"confidence": "high"}, {"confidence": True}, {"sidecar_created": "no"}):
        with pytest.raises(errors.InputError, match=f"{next(iter(wrong))}="):
            db.set_ember_state("a.md", **wrong)
    assert db.get_ember_state("a.md").confidence == 0.5


def test_stats_of_nothing(db):
    stats = db.get_stats()
    assert (stats.nodes, stats.edges, stats.vectors, stats.semantic_tokens) == (0, 0, 0, 0)
    assert (dict(stats.links), dict(stats.types), stats.space) == ({}, {}, None)
    assert stats.db_size_bytes > 0
    assert (stats.writes, stats.lock_wait_p50, stats.lock_hold_p99) == (0, 0, 0)


def test_stats(db):
    db.insert_nodes(id=["a", "b", "c"], type=["note", "note", None], embedding=[*unit(2, 3), None])
    db.insert_node(Node("d", meta={"semantic_tokens": ["x"]}))
    db.insert_edges([("a", "b"), ("b", "c")])
    with db.transaction() as connection:
        connection.execute(
            "INSERT INTO links (source, kind, type, raw, name, state) "
            "VALUES ('a', 'w', 'CITES', 'x', 'x', 'unresolved')"
        )
    stats = db.get_stats()
    assert (stats.nodes, stats.edges, stats.vectors, stats.semantic_tokens) == (4, 2, 2, 1)
    assert dict(stats.links) == {"unresolved": 1}
    assert dict(stats.types) == {"": 2, "note": 2}
    assert stats.space == Space("unnamed", 3)
    assert stats.writes == 4
    assert 0 < stats.lock_hold_p50 <= stats.lock_hold_p99 < 5
    assert 0 < stats.lock_wait_p50 <= stats.lock_wait_p99 < 5
    assert stats.wal_size_bytes > 0
    db.checkpoint()
    assert db.get_stats().wal_size_bytes == 0
    assert db.get_stats().db_size_bytes == stats.db_size_bytes


def test_stats_grow_with_the_file(db):
    before = db.get_stats().db_size_bytes
    db.insert_nodes(id=[f"n{i}" for i in range(1000)], title="x" * 1000)
    assert db.get_stats().db_size_bytes > before + 1_000_000


def test_in_memory():
    with ResonanceDB(":memory:") as db:
        db.insert_nodes(id=["a", "b"], embedding=[[1, 0], [0, 1]])
        db.insert_edge("a", "b")
        with db.snapshot():
            assert db.get_node("a").id == "a"
            assert db.get_stats().edges == 1
            with db.snapshot():
                assert len(db.search([1, 0])) == 2
            db.insert_node(Node("c"))
        with db.transaction():
            db.insert_node(Node("d"))
            assert len(db.get_nodes()) == 4
        assert db.checkpoint() == (False, 0, 0)
        db.vacuum()
        db.analyze()
        assert len(db.embeddings().ids) == 2
        assert db.migration_backup is None


def test_root(path, tmp_path):
    with ResonanceDB(path, root=tmp_path) as db:
        assert db.root == tmp_path
    with ResonanceDB(path) as db:
        assert db.root is None
        with db.transaction() as connection:
            connection.execute("INSERT INTO properties VALUES ('vault.root', '/some/where')")
        assert str(db.root) == "/some/where"


def test_looks(db, path):
    assert repr(db) == f"ResonanceDB({str(path)!r})"
    assert db.path == str(path)


def test_a_working_folder_that_changes(tmp_path, monkeypatch):
    """A relative name is the file it was when the database was opened."""
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    with ResonanceDB("x.db") as db:
        db.insert_node(Node("a"))
        monkeypatch.chdir(tmp_path / "other")
        with ResonanceDB("x.db") as other:
            other.insert_node(Node("b"))
        assert [node.id for node in db.get_nodes()] == ["a"]
        db.insert_node(Node("c"))
        assert db.get_stats().wal_size_bytes > 0
        assert db.query("SELECT count(*) FROM nodes") == [(2,)]
        db.backup("copy.db")
    assert (tmp_path / "other" / "copy.db").exists()
    assert {item.name for item in (tmp_path / "other").iterdir()} == {"x.db", "x.db.lock", "copy.db"}


def test_through_a_link(tmp_path):
    """Whoever comes by another name meets the others at the same gate."""
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link.db").symlink_to(real / "x.db")
    with ResonanceDB(real / "x.db") as one, ResonanceDB(tmp_path / "link.db") as two:
        one.insert_node(Node("a"))
        two.insert_node(Node("b"))
        assert len(one.get_nodes()) == len(two.get_nodes()) == 2
    assert sorted(item.name for item in tmp_path.iterdir()) == ["link.db", "real"]
    assert sorted(item.name for item in real.iterdir()) == ["x.db", "x.db.lock"]
