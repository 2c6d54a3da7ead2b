"""The codes in memory follow the database: whoever wrote, and whatever was done to it."""

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import threading

import numpy as np
import pytest

from resonance import ResonanceDB, _core, errors
from resonance.search.index import VectorIndex
from support import Child, in_child, unit

WIDTH = 24


def found(db, **options):
    """All that a search can find, checked against the scan that uses no codes."""
    query = np.ones(WIDTH)
    hits = db.search(query, 10_000, explain=True, **options)
    assert list(hits) == list(db.search(query, 10_000, memory="stream", **options))
    return {hit.id for hit in hits}


@pytest.fixture
def db(tmp_path):
    with ResonanceDB(tmp_path / "x.db") as db:
        db.insert_nodes(
            id=[f"n{number}" for number in range(50)],
            type=["note", "tag"] * 25,
            embedding=unit(50, WIDTH, seed=1),
        )
        assert len(found(db)) == 50
        yield db


@pytest.fixture
def loads(monkeypatch):
    """How often all vectors were read anew."""
    counted = []
    load = VectorIndex.load
    monkeypatch.setattr(VectorIndex, "load", lambda self: counted.append(1) or load(self))
    return counted


def test_single_rows(db, loads):
    db.insert_node({"id": "new", "embedding": unit(1, WIDTH, seed=2)[0]})
    assert "new" in found(db)
    db.delete_nodes(["n3", "n4"])
    assert not {"n3", "n4"} & found(db)
    db.insert_node({"id": "n5", "embedding": np.ones(WIDTH)})
    assert db.search(np.ones(WIDTH), 1)[0][:2] == ("n5", pytest.approx(1))
    db.insert_node({"id": "n6", "type": "tag"})
    assert "n6" in found(db, type="tag")
    assert "n6" not in found(db, type="note")
    db.insert_node({"id": "n7", "embedding": None})
    assert "n7" not in found(db)
    db.insert_node({"id": "n8", "title": "only a title"})
    assert next(hit for hit in db.search(np.ones(WIDTH), 100) if hit.id == "n8").title == "only a title"
    assert not loads, "only the changed rows were read"


@pytest.mark.parametrize("rows", [10, 2000])
@pytest.mark.parametrize("mode", ["exclusive", "shared"])
def test_bulk(db, loads, rows, mode):
    ids = [f"b{number}" for number in range(rows)]
    db.insert_nodes(id=ids, embedding=unit(rows, WIDTH, seed=3), mode=mode)
    assert set(ids) < found(db)
    assert not loads
    db.insert_nodes(id=ids, embedding=unit(rows, WIDTH, seed=4), mode=mode)
    assert set(ids) < found(db)


@pytest.mark.parametrize("mode", ["exclusive", "shared"])
@pytest.mark.parametrize("rows", [10, 2000])
def test_a_row_that_a_bulk_load_brings_near(db, rows, mode):
    """The row that was nearest stays as it is, so nothing but the log can tell."""
    query, ids = np.ones(WIDTH), [f"b{number}" for number in range(rows)]
    vectors = unit(rows, WIDTH, seed=3)
    db.insert_nodes(id=ids, embedding=vectors)
    before = db.search(query, 1)[0].id
    changed = next(number for number in range(rows) if ids[number] != before)
    vectors[changed] = query / np.linalg.norm(query)
    db.insert_nodes(id=ids, embedding=vectors, mode=mode)
    assert db.search(query, 1)[0].id == ids[changed]


def test_a_bulk_load_that_is_rolled_back(db):
    db.begin_transaction()
    db.insert_nodes(id=[f"b{number}" for number in range(2000)], embedding=unit(2000, WIDTH, seed=3))
    db.rollback()
    assert len(found(db)) == 50
    db.insert_node({"id": "after", "embedding": np.ones(WIDTH)})
    assert "after" in found(db), "triggers fire again"


def test_its_own_transaction_sees_what_it_has_not_committed(db):
    with db.transaction():
        db.insert_node({"id": "new", "embedding": np.ones(WIDTH)})
        assert db.search(np.ones(WIDTH), 1)[0].id == "new"
        other = []
        thread = threading.Thread(target=lambda: other.append(found(db)))
        thread.start()
        thread.join()
        assert "new" not in other[0]
    assert "new" in found(db)


def test_a_rollback(db):
    db.begin_transaction()
    db.insert_node({"id": "new", "embedding": np.ones(WIDTH)})
    db.rollback()
    db.insert_node({"id": "other", "embedding": np.ones(WIDTH)})
    assert "new" not in found(db)
    assert "other" in found(db)


def test_a_snapshot_keeps_its_moment(db):
    ready, go = threading.Event(), threading.Event()

    def write():
        ready.wait(30)
        db.insert_node({"id": "new", "embedding": np.ones(WIDTH)})
        assert "new" in found(db)
        go.set()

    thread = threading.Thread(target=write)
    thread.start()
    with db.snapshot():
        assert "new" not in found(db)
        ready.set()
        assert go.wait(30)
        assert "new" not in found(db), "another thread has brought the codes further"
    thread.join()
    assert "new" in found(db)


def insert(path, *ids):
    with ResonanceDB(path) as db:
        db.insert_nodes(id=list(ids), embedding=unit(len(ids), WIDTH, seed=5))


def test_another_process(db, loads):
    Child(insert, db.path, "a").result()  # the first to close gathers statistics, which are in the schema
    assert "a" in found(db)
    loads.clear()
    Child(insert, db.path, "b", "c").result()
    assert {"a", "b", "c"} < found(db)
    assert not loads


def test_another_program(db, loads):
    """The schema itself notices, so it need not be Resonance that writes."""
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit()"
    for sql in (
        "UPDATE nodes SET embedding = NULL WHERE id = 'n1'",
        "DELETE FROM nodes WHERE id = 'n2'",
        "UPDATE nodes SET embedding = (SELECT embedding FROM nodes WHERE id = 'n9') WHERE id = 'n3'",
    ):
        subprocess.run([sys.executable, "-c", code, db.path, sql], check=True)
        assert not {"n1"} & found(db)
    assert "n2" not in found(db)
    assert not loads


def test_a_vacuum_gives_rows_other_numbers(db):
    db.delete_nodes([f"n{number}" for number in range(0, 50, 2)])
    assert len(found(db)) == 25
    db.vacuum()
    assert len(found(db)) == 25
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('VACUUM')"
    db.delete_nodes(["n1"])
    subprocess.run([sys.executable, "-c", code, db.path], check=True)
    assert len(found(db)) == 24


def test_a_rebuild_puts_another_database_in_place(db):
    for number in range(3):
        with db.rebuild() as fresh:
            fresh.insert_nodes(id=["x", f"y{number}"], embedding=unit(2, WIDTH, seed=number))
        assert found(db) == {"x", f"y{number}"}


def test_a_new_space(db):
    from resonance.model import Space

    db.set_space(Space("other", 3), replace=True)
    assert db.search([1, 0, 0]) == []
    db.insert_nodes(id=["n1"], embedding=[[1, 0, 0]])
    assert [hit.id for hit in db.search([1, 0, 0])] == ["n1"]


def test_a_row_replaced_without_a_trace(db):
    """REPLACE fires no delete trigger, and somebody may have switched triggers off altogether."""
    with db.transaction() as writer:
        writer.set_triggers(False)
        try:
            writer.execute("DELETE FROM nodes WHERE id = 'n1'")
            writer.execute(
                "UPDATE nodes SET embedding = ? WHERE id = 'n2'", (unit(1, WIDTH, seed=77)[0].tobytes(),)
            )
        finally:
            writer.set_triggers(True)
    assert "n1" not in found(db), "a row that is missing when it is scored gives it away"


def test_a_log_that_does_not_reach_back(db, loads):
    for number in range(3):
        db.insert_node({"id": f"x{number}", "embedding": np.ones(WIDTH)})
    with db.transaction() as writer:
        writer.execute("DELETE FROM node_changes WHERE seq < (SELECT max(seq) FROM node_changes)")
    assert {"x0", "x1", "x2"} < found(db)
    assert loads


def test_the_log_is_bounded(db):
    with db.transaction() as writer:
        writer.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 70000) "
            "INSERT INTO node_changes (low, high) SELECT -1, -1 FROM n"
        )
    db.insert_node({"id": "x", "embedding": np.ones(WIDTH)})
    db.insert_node({"id": "y", "embedding": np.ones(WIDTH)})
    assert db.query("SELECT count(*) FROM node_changes") == [(65536,)]
    assert {"x", "y"} < found(db)


def test_many_changes_lead_to_a_new_reading(db, loads):
    for _ in range(3):
        db.insert_nodes(id=[f"n{number}" for number in range(50)], embedding=unit(50, WIDTH, seed=9))
        assert len(found(db)) == 50
    assert not loads, "few rows are replaced in place"
    with db.transaction() as writer:
        for turn in range(200):
            writer.execute(
                "UPDATE nodes SET embedding = ? WHERE id = ?",
                (unit(1, WIDTH, seed=turn)[0].tobytes(), f"n{turn % 50}"),
            )
    assert len(found(db)) == 50


def test_a_damaged_row_is_named_and_others_are_found(db):
    with db.transaction() as writer:
        writer.execute("UPDATE nodes SET embedding = zeroblob(12) WHERE id = 'n7'")
    with pytest.raises(errors.CorruptRowError, match=f"{WIDTH} float32"):
        db.search(np.ones(WIDTH))
    assert [hit.id for hit in db.search(np.ones(WIDTH), ids=["n8"])] == ["n8"]
    db.insert_node({"id": "n7", "embedding": np.ones(WIDTH)})
    assert len(found(db)) == 50


class Everything:
    """A backend that proposes all rows."""

    def load(self, ids, vectors):
        return lambda queries, k: np.array([range(len(ids))] * len(queries))


@pytest.mark.parametrize("value", [0, 50, 1e30, 3e38, np.inf, np.nan])
@pytest.mark.parametrize("how", ["resident", "stream", "backend"])
def test_what_is_no_unit_vector_has_no_score(db, how, value):
    """Behind our back: a cosine of 70 would mean nothing."""
    found(db)
    way = {"backend": Everything()} if how == "backend" else {"memory": how}
    strange = np.full(WIDTH, value, "<f4")
    with contextlib.closing(sqlite3.connect(db.path)) as connection, connection:
        connection.execute("UPDATE nodes SET embedding = ? WHERE id = 'n7'", (strange.tobytes(),))
    with pytest.raises(errors.CorruptRowError, match=r"'n7'.*not of unit norm"):
        db.search(np.ones(WIDTH), **way)
    with pytest.raises(errors.CorruptRowError, match=r"'n7'.*not of unit norm"):
        db.why_not("n7", np.ones(WIDTH), type="absent")
    assert [hit.id for hit in db.search(np.ones(WIDTH), ids=["n8"], **way)] == ["n8"]
    db.insert_node({"id": "n7", "embedding": np.ones(WIDTH)})
    assert db.search(np.ones(WIDTH), k=1, **way)[0].id == "n7"


def test_after_a_fork(db):
    def ask():
        try:
            db.search(np.ones(WIDTH))
        except errors.ForkedConnectionError:
            return "refused"
        return "answered"

    assert in_child(ask) == "refused"
    assert len(found(db)) == 50


@pytest.mark.parametrize("path", [":memory:", "scratch"])
def test_where_one_connection_does_everything(tmp_path, path):
    where = {"path": path} if path == ":memory:" else {"path": tmp_path / "s.db", "scratch": True}
    with ResonanceDB(**where) as db:
        db.insert_nodes(id=["a", "b"], embedding=unit(2, WIDTH, seed=1))

        def ask():
            for _ in range(20):
                with db.snapshot():
                    found(db)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(20):
            db.insert_node({"id": f"c{number}", "embedding": np.ones(WIDTH)})
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert len(found(db)) == 22


def test_a_copy_is_followed_on_its_own(db, tmp_path):
    db.close()
    shutil.copy(db.path, tmp_path / "copy.db")
    with ResonanceDB(tmp_path / "copy.db") as copy:
        copy.delete_nodes(["n1"])
        assert len(found(copy)) == 49
    with contextlib.closing(sqlite3.connect(db.path)) as connection:
        assert connection.execute("SELECT count(*) FROM nodes").fetchone() == (50,)


def test_threads_ask_while_one_writes(db):
    """Every answer is right for some moment: a node that was there all the time is always found."""
    query, wrong, stop = np.ones(WIDTH), [], threading.Event()
    db.insert_node({"id": "best", "embedding": query})

    def ask():
        while not stop.is_set():
            hits = db.search(query, 3)
            if hits[0].id != "best" or abs(hits[0].score - 1) > 1e-6 or len(hits) != 3:
                wrong.append(hits)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for number in range(150):
        db.insert_node({"id": f"w{number % 40}", "embedding": unit(1, WIDTH, seed=number)[0]})
        if number % 10 == 0:
            db.delete_nodes([f"w{number % 40}"])
    stop.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert wrong == []
    assert _core.live_objects()
    found(db)
