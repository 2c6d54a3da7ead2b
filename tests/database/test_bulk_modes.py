"""Large loads: outside WAL when alone, in WAL when not, in short transactions when shared."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from resonance import ResonanceDB, bulk
from resonance._core import Connection
from resonance.errors import DanglingEdgeError, InputError
from support import dump, integrity, run_python, start_python, unit


@pytest.fixture
def any_load_is_large(monkeypatch):
    monkeypatch.setattr(bulk, "ALONE_FROM_BYTES", 0)


def journal_mode(db):
    return db.get_raw_db().execute("PRAGMA journal_mode")[0][0]


def test_a_load_alone_leaves_wal_only_for_its_duration(db, any_load_is_large):
    seen = []
    db.insert_nodes(id=["a", "b"], progress=lambda done, total: seen.append(journal_mode(db)))
    assert seen == ["truncate"]
    assert journal_mode(db) == "wal"
    assert not Path(f"{db.path}-journal").exists()
    assert db.get_raw_db().execute("PRAGMA synchronous") == [(1,)]
    assert [node.id for node in db.get_nodes()] == ["a", "b"]


def test_a_load_stays_in_wal_while_another_connection_has_the_file(db, any_load_is_large):
    seen = []
    with ResonanceDB(db.path) as other:
        assert other.get_nodes() == []
        db.insert_nodes(
            id=["a"], progress=lambda done, total: seen.append((journal_mode(db), other.get_nodes()))
        )
        assert seen == [("wal", [])]
        assert len(other.get_nodes()) == 1


def test_a_load_stays_in_wal_while_somebody_reads_on_its_own_connection(db, any_load_is_large):
    db.insert_nodes(id=["a", "b"])
    reading = db.get_raw_db().prepare("SELECT id FROM nodes ORDER BY id")
    assert next(reading) == ("a",)
    assert db.insert_nodes(id=["c"]).inserted == 1
    assert next(reading) == ("b",)
    reading.close()
    assert db.get_raw_db().execute("PRAGMA journal_mode") == [("wal",)]


def test_who_opens_the_file_during_a_load_waits_and_then_reads(db, any_load_is_large):
    code = "import sys; from resonance import ResonanceDB; print(len(ResonanceDB(sys.argv[1]).get_nodes()))"
    started = []

    def start_reader(done, total):
        if not started:
            started.append(start_python(code, db.path))
            time.sleep(0.5)

    db.insert_nodes(id=["a", "b", "c"], progress=start_reader)
    assert started[0].communicate(timeout=60)[0] == "3\n"


def test_a_failed_load_outside_wal_leaves_nothing_and_returns_to_wal(db, any_load_is_large):
    db.insert_node({"id": "before"})
    before = dump(db)

    def fail(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        db.insert_nodes(id=["a", "b"], progress=fail)
    assert journal_mode(db) == "wal"
    assert dump(db) == before


def test_a_kill_outside_wal_leaves_all_or_nothing(path):
    code = """
import sys, random
from resonance import ResonanceDB, bulk
bulk.ALONE_FROM_BYTES = 0
bulk.SLICE = 500
with ResonanceDB(sys.argv[1]) as db:
    for batch in range(1000):
        db.insert_nodes(id=[f"{batch}-{i}" for i in range(4000)], embedding=[[1.0] * 64] * 4000)
        print(batch, flush=True)
"""
    random = np.random.default_rng(7)
    acknowledged = -1
    for _ in range(6):
        path.unlink(missing_ok=True)
        process = start_python(code, path)
        process.stdout.readline()
        time.sleep(random.uniform(0, 0.15))
        process.kill()
        lines = process.communicate()[0].split()
        acknowledged = max(map(int, lines), default=0)
        with ResonanceDB(path) as db:
            counts = db.query("SELECT count(*) FROM nodes GROUP BY substr(id, 1, instr(id, '-'))")
            assert {count for (count,) in counts} == {4000}
            assert len(counts) in (acknowledged + 1, acknowledged + 2)
        assert integrity(path) == [("ok",)]


def test_a_shared_load_lets_others_write_between_its_transactions(db):
    count = 60_000
    others = []
    done = threading.Event()

    def write_meanwhile():
        with ResonanceDB(db.path) as other:
            while not done.is_set():
                other.insert_node({"id": f"other-{len(others)}"})
                others.append(1)

    thread = threading.Thread(target=write_meanwhile)
    thread.start()
    try:
        report = db.insert_nodes(id=[f"n{i}" for i in range(count)], embedding=unit(count, 16), mode="shared")
    finally:
        done.set()
        thread.join()
    assert report.inserted == count
    assert db.get_stats().nodes == count + len(others)
    assert db.get_stats().writes > 5
    assert len(others) > 5


def test_shared_and_exclusive_loads_write_the_same(tmp_path):
    dumps = []
    for mode in ("exclusive", "shared"):
        with ResonanceDB(tmp_path / mode) as db:
            db.insert_nodes(id=[f"n{i}" for i in range(3000)], embedding=unit(3000, 4), mode=mode)
            edges = [(f"n{i}", f"n{i * 7 % 3000}", "t", 0.5) for i in range(3000)]
            db.insert_edges([*edges, ("n1", "nowhere")], mode=mode, on_missing="skip")
            dumps.append(dump(db))
    assert dumps[0] == dumps[1]


def test_stubs_of_a_shared_load_are_made_a_few_at_a_time(db, monkeypatch):
    monkeypatch.setattr(bulk, "STUBS_AT_ONCE", 10)
    db.insert_node({"id": "n7", "title": "no stub"})
    before = db.get_stats().writes
    ids = [f"n{i}" for i in range(100)]
    report = db.insert_edges(source=ids, target="hub", on_missing="stub", mode="shared")
    assert (report.inserted, report.stubbed, report.skipped) == (100, 100, 0)
    assert db.get_stats().writes - before >= 11
    assert db.get_node("n7").title == "no stub"
    assert len(db.get_nodes_by_type("stub")) == 100


def test_a_shared_load_inside_a_snapshot_sees_the_nodes_there_are_now(db):
    with db.snapshot():
        db.insert_nodes(id=["a", "b"])
        assert db.get_nodes() == []
        assert db.insert_edges([("a", "b")], mode="shared").inserted == 1
        with pytest.raises(DanglingEdgeError):
            db.insert_edges([("a", "nobody")], mode="shared")


def test_edges_are_checked_even_where_sqlite_does_not(db, any_load_is_large):
    db.insert_nodes(id=["a"])
    with pytest.raises(DanglingEdgeError):
        db.insert_edges([("a", "nowhere")])
    db.insert_edges([("a", "a")])
    assert db.get_raw_db().execute("PRAGMA foreign_keys") == [(1,)]
    assert db.get_raw_db().execute("PRAGMA foreign_key_check") == []


def test_the_index_of_targets_is_whole_however_it_was_made(db):
    count = bulk._REBUILD_INDEX_FROM + 10
    ids = [f"n{i}" for i in range(1000)]
    db.insert_nodes(id=ids)
    for types in ("first", "second"):
        # The first load rebuilds the index, the second finds a table that is as large and keeps it.
        source = [ids[i % 1000] for i in range(count)]
        target = [ids[i // 1000] for i in range(count)]
        db.insert_edges(source=source, target=target, type=types)
    assert db.get_stats().edges == 2 * count
    assert len(db.get_edges("n0", direction="in")) == 2000
    db.close()
    assert integrity(db.path) == [("ok",)]


def test_an_interrupt_during_a_long_load_writes_nothing(path):
    code = """
import os, signal, sys, threading
from resonance import ResonanceDB
ids = [f"n{i}" for i in range(400_000)]
with ResonanceDB(sys.argv[1]) as db:
    try:
        db.insert_nodes(id=ids, title="some text", progress=lambda d, t: os.kill(os.getpid(), signal.SIGINT))
    except KeyboardInterrupt:
        print(db.get_stats().nodes, db.get_raw_db().in_transaction)
    db.insert_node({"id": "works"})
"""
    assert run_python(code, path) == "0 False\n"


def test_unknown_modes_are_refused(db):
    with pytest.raises(InputError, match="mode='fast'"):
        db.insert_nodes(id=["a"], mode="fast")
    with pytest.raises(InputError, match="needs mode='exclusive'"):
        db.insert_nodes(id=["a"], mode="shared", history="rows")


def test_a_load_inside_a_transaction_belongs_to_it(db, any_load_is_large):
    db.begin_transaction()
    db.insert_nodes(id=["a", "b"])
    db.insert_edges([("a", "b")])
    db.rollback()
    assert db.get_stats().nodes == 0
    with Connection(db.path, create=False) as plain:
        assert plain.execute("SELECT count(*) FROM edges") == [(0,)]


@pytest.mark.parametrize("with_table", [False, True])
def test_a_load_that_sorts_in_a_file_leaves_the_connection_as_it_was(db, any_load_is_large, with_table):
    writer = db.get_raw_db()
    if with_table:
        writer.execute("CREATE TEMP TABLE mine AS SELECT 7 AS number")
    before = writer.execute("PRAGMA cache_size")
    count = bulk._REBUILD_INDEX_FROM
    ids = [f"n{i}" for i in range(300)]
    db.insert_nodes(id=ids)
    stores = []
    db.insert_edges(
        source=[ids[i // 300 % 300] for i in range(count)],
        target=[ids[i % 300] for i in range(count)],
        progress=lambda done, total: stores.append(writer.execute("PRAGMA temp_store")[0][0]),
    )
    assert set(stores) == {2 if with_table else 1}
    assert writer.execute("PRAGMA temp_store") == [(2,)]
    assert writer.execute("PRAGMA cache_size") == before
    if with_table:
        assert writer.execute("SELECT number FROM mine") == [(7,)]
    assert db.get_stats().edges == count
