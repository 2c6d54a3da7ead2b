"""A rebuild: a fresh database aside, put in place in one step."""

import threading

import pytest

from resonance import ResonanceDB
from resonance.errors import RegenerateError, ResonanceError, TransactionError, UsageError
from support import dump, integrity, start_python


@pytest.fixture
def filled(db):
    db.insert_nodes(id=["old-1", "old-2"], title="old", history="rows")
    db.insert_edges([("old-1", "old-2")])
    db.set_ember_state("a.md", confidence=0.5)
    return db


def test_what_the_block_writes_is_all_there_is_afterwards(filled):
    with filled.rebuild() as fresh:
        assert fresh.get_nodes() == []
        fresh.insert_nodes(id=["new-1", "new-2"], embedding=[[1.0, 0.0], [0.0, 1.0]])
        fresh.insert_edges([("new-1", "new-2", "CITES")])
        assert [node.id for node in filled.get_nodes()] == ["old-1", "old-2"]
    assert [node.id for node in filled.get_nodes()] == ["new-1", "new-2"]
    assert [edge.type for edge in filled.get_edges("new-1")] == ["CITES"]
    assert filled.space.dims == 2
    filled.insert_node({"id": "works"})
    assert integrity(filled.path) == [("ok",)]


def test_the_audit_trail_and_the_state_of_enrichment_stay(filled):
    before = filled.get_history()
    with filled.rebuild() as fresh:
        fresh.insert_nodes(id=["new"])
    after = filled.get_history()
    assert after[1:] == before
    assert (after[0].entity_type, after[0].action) == ("database", "rebuild")
    assert after[0].id > before[0].id
    assert filled.get_ember_state("a.md").confidence == 0.5


def test_a_block_that_raises_changes_nothing_and_leaves_nothing_behind(filled, path):
    before, files = dump(filled), sorted(path.parent.iterdir())

    def fail():
        with filled.rebuild() as fresh:
            fresh.insert_nodes(id=["new"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert dump(filled) == before
    assert sorted(path.parent.iterdir()) == files


@pytest.mark.parametrize("open_elsewhere", [False, True])
def test_one_that_is_not_sound_changes_nothing(filled, path, open_elsewhere):
    other = ResonanceDB(path, readonly=True) if open_elsewhere else None
    before = dump(filled)

    def build():
        with filled.rebuild() as fresh:
            fresh.insert_nodes(id=["new"])
            writer = fresh.get_raw_db()
            writer.execute("PRAGMA foreign_keys = OFF")
            writer.execute("INSERT INTO edges (source, target, type) VALUES ('new', 'nobody', 'CITES')")

    with pytest.raises(RegenerateError, match=r"not sound .*1 broken reference\b"):
        build()
    assert dump(filled) == before
    assert not list(path.parent.glob(".resonance-build-*"))
    filled.insert_node({"id": "works"})
    assert integrity(path) == [("ok",)]
    if other is not None:
        assert [node.id for node in other.get_nodes()] == ["old-1", "old-2", "works"]
        other.close()


@pytest.mark.parametrize("who", ["this one", "another one"])
def test_what_is_committed_meanwhile_is_not_lost_unasked(filled, path, who):
    def build(**how):
        with filled.rebuild(**how) as fresh:
            fresh.insert_nodes(id=["new"])
            if who == "this one":
                filled.insert_node({"id": "meanwhile"})
            else:
                with ResonanceDB(path) as other:
                    other.insert_node({"id": "meanwhile"})

    with pytest.raises(RegenerateError, match=r"committed while .* overwrite=True"):
        build()
    assert [node.id for node in filled.get_nodes()] == ["meanwhile", "old-1", "old-2"]
    assert not list(path.parent.glob(".resonance-build-*"))
    build(overwrite=True)
    assert [node.id for node in filled.get_nodes()] == ["new"]


def test_what_is_not_committed_is_not_let_go_of_in_silence(filled, path):
    before, files = dump(filled), sorted(path.parent.iterdir())

    def forget():
        with filled.rebuild() as fresh:
            fresh.begin_transaction()
            fresh.insert_nodes(id=["new"])

    with pytest.raises(TransactionError, match="still open"):
        forget()
    assert dump(filled) == before
    assert sorted(path.parent.iterdir()) == files


@pytest.mark.parametrize("scratch", [False, True])
def test_a_database_nobody_else_can_open_is_not_rebuilt(tmp_path, monkeypatch, scratch):
    monkeypatch.chdir(tmp_path)
    with ResonanceDB(tmp_path / "scratch.db" if scratch else ":memory:", scratch=scratch) as db:
        db.insert_node({"id": "stays"})
        files = sorted(tmp_path.iterdir())
        with pytest.raises(UsageError, match="fill another"):
            db.rebuild().__enter__()
        assert [node.id for node in db.get_nodes()] == ["stays"]
        assert sorted(tmp_path.iterdir()) == files


def test_vectors_of_before_and_after_are_not_given_out_as_one_reading(filled):
    """Rows have other numbers then: going on behind the last one would leave some out."""
    filled.insert_nodes(id=["c", "b"], embedding=[[1.0, 0], [0, 1]])
    filled.insert_nodes(id=["a"], embedding=[[1.0, 1]])
    pieces = filled.iter_embeddings(2)
    assert next(pieces).ids == ["b", "c"]
    with filled.snapshot():
        whole = filled.iter_embeddings(2)
        assert len(next(whole)) == 2
        with filled.rebuild() as fresh:
            fresh.insert_nodes(id=["a", "b", "c"], embedding=[[1.0, 0], [0, 1], [1, 1]])
        assert [piece.ids for piece in whole] == [["a"]]
    with pytest.raises(ResonanceError, match="built anew"):
        next(pieces)
    assert [piece.ids for piece in filled.iter_embeddings(2)] == [["a", "b"], ["c"]]


def test_not_in_a_transaction(filled):
    with filled.transaction(), pytest.raises(TransactionError, match="do not nest"):
        filled.rebuild().__enter__()


def test_readers_keep_their_snapshot_and_see_one_or_the_other(filled):
    seen, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            with filled.snapshot():
                seen.add(tuple(node.id for node in filled.get_nodes()))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    with filled.snapshot() as pinned:
        count = "SELECT count(*) FROM nodes"
        before = pinned.execute(count)

        def rebuild():
            with filled.rebuild() as fresh:
                fresh.insert_nodes(id=["new-1", "new-2", "new-3"])

        writer = threading.Thread(target=rebuild)
        writer.start()
        writer.join()
        assert pinned.execute(count) == before == [(2,)]
    while ("new-1", "new-2", "new-3") not in seen:
        pass
    stop.set()
    for thread in threads:
        thread.join()
    assert seen == {("old-1", "old-2"), ("new-1", "new-2", "new-3")}


def test_a_file_with_other_pages_is_rebuilt_with_them(path):
    with ResonanceDB(path, page_size=4096) as db:
        with db.rebuild() as fresh:
            fresh.insert_nodes(id=["new"])
        assert db.page_size == 4096
        assert db.get_node("new") is not None


def test_a_kill_during_a_rebuild_leaves_one_or_the_other(filled, path):
    filled.close()
    code = """
import sys
from resonance import ResonanceDB
from resonance.errors import RegenerateError
with ResonanceDB(sys.argv[1]) as db:
    for batch in range(1000):
        with db.rebuild() as fresh:
            fresh.insert_nodes(id=[f"{batch}-{i}" for i in range(500)], embedding=[[1.0] * 32] * 500)
        print(batch, flush=True)
"""
    for round_ in range(6):
        process = start_python(code, path)
        for _ in range(round_ + 1):
            process.stdout.readline()
        process.kill()
        process.communicate()
        assert integrity(path) == [("ok",)]
        with ResonanceDB(path) as db:
            counts = db.query("SELECT count(*) FROM nodes GROUP BY substr(id, 1, instr(id, '-'))")
            assert counts == [(500,)]
            with db.rebuild() as fresh:
                fresh.insert_nodes(id=["old-1", "old-2"])
    assert [entry.name for entry in path.parent.iterdir() if entry.name.startswith(".resonance-build-")] == []


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_file_is_in_wal_again_however_it_was_put_in_place(filled, path, elsewhere):
    other = ResonanceDB(path, readonly=True) if elsewhere else None
    with filled.rebuild() as fresh:
        fresh.insert_nodes(id=[f"new-{number}" for number in range(5000)], title="new")
    writer = filled.get_raw_db()
    assert writer.execute("PRAGMA journal_mode") == [("wal",)]
    assert writer.execute("PRAGMA synchronous") == [(1,)]
    assert not path.with_name(f"{path.name}-journal").exists()
    if other is not None:
        assert len(other.get_nodes()) == 5000
        other.close()
    filled.insert_node({"id": "works"})
    with ResonanceDB(path, readonly=True) as again:
        assert len(again.get_nodes()) == 5001
    assert integrity(path) == [("ok",)]
