"""Many threads, many processes: every row that was acknowledged is there, and nobody hears BUSY."""

import os
import sys
import threading
import time

import numpy as np
import pytest

from resonance import ResonanceDB, engine
from resonance.model import Edge, Node
from support import Background, Child, integrity, together, unit


def write_numbered(db, writer, seconds):
    """Insert numbered nodes, alone and in batches, for a while; how many, and the longest wait."""
    deadline = time.monotonic() + seconds
    count, longest = 0, 0.0
    while time.monotonic() < deadline:
        began = time.monotonic()
        if count % 3 == 0:
            with db.transaction():
                for number in range(count, count + 3):
                    db.insert_node(Node(f"w{writer}-{number}", title=f"{number}"))
            count += 3
        else:
            db.insert_nodes(id=[f"w{writer}-{count}"], title=[f"{count}"], embedding=unit(1, 8, count))
            count += 1
        longest = max(longest, time.monotonic() - began)
    return count, longest


def check_rows(path, counts):
    """No gap, nothing twice, nothing else."""
    with ResonanceDB(path) as db:
        found = dict(db.query("SELECT id, title FROM nodes"))
        assert found == {
            f"w{writer}-{number}": f"{number}"
            for writer, count in enumerate(counts)
            for number in range(count)
        }
    assert integrity(path) == [("ok",)]


def test_threads_that_write_and_threads_that_read_one_object(path):
    """Each reader sees whole transactions, and never time going backwards."""
    done = threading.Event()

    def read(db):
        rounds = last = 0
        while not done.is_set():
            with db.snapshot():
                one = db.get_stats().nodes
                rows = db.query(
                    "SELECT substr(id, 1, instr(id, '-')), count(*), max(CAST(title AS INTEGER)) "
                    "FROM nodes GROUP BY 1"
                )
                assert sum(count for _, count, _ in rows) == one
                assert all(count == highest + 1 for _, count, highest in rows), "no gaps"
            assert len(db.embeddings().ids) <= db.get_stats().nodes
            assert one >= last
            last = one
            rounds += 1
        return rounds

    with ResonanceDB(path) as db:
        readers = [Background(read, db) for _ in range(4)]
        writers = [Background(write_numbered, db, number, 2.0) for number in range(4)]
        counts = [writer.result()[0] for writer in writers]
        done.set()
        rounds = [reader.result() for reader in readers]
    assert min(counts) > 0
    assert min(rounds) > 0
    check_rows(path, counts)


def process_that_writes(number, path, seconds):
    with ResonanceDB(path) as db:
        return write_numbered(db, number, seconds)


def process_that_reads(number, path, seconds):
    deadline = time.monotonic() + seconds
    last = rounds = 0
    with ResonanceDB(path, readonly=True) as db:
        while time.monotonic() < deadline:
            nodes = db.get_stats().nodes
            assert nodes >= last
            last = nodes
            rounds += 1
    return rounds


def processes(path, writers, readers, seconds):
    ResonanceDB(path).close()
    reading = [Child(process_that_reads, number, path, seconds) for number in range(readers)]
    results = together(writers, process_that_writes, path, seconds)
    assert min([1, *(child.result() for child in reading)]) > 0
    counts = [count for count, _ in results]
    assert min(counts) > 0, "nobody starves"
    check_rows(path, counts)
    return counts, max(longest for _, longest in results)


def test_processes_that_write_and_processes_that_read(path):
    _, longest = processes(path, 4, 2, 2.0)
    assert longest < 2.0


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("writers", "readers"), [(4, 4), (8, 4), (8, 8)])
def test_processes_for_half_a_minute(path, writers, readers):
    counts, longest = processes(path, writers, readers, 30.0)
    print(f"{writers} x {readers}: {sum(counts)} commits, longest wait {longest:.2f} s, 0 lost")
    assert longest < 10.0


def test_a_big_load_between_small_writers(path):
    """Small writers wait for the load, and lose nothing."""

    def load(number, path):
        with ResonanceDB(path) as db:
            for batch in range(3):
                ids = [f"big-{batch}-{i}" for i in range(4000)]
                db.insert_nodes(id=ids, embedding=np.ones((4000, 32)))
                db.insert_edges(source=ids, target=ids[::-1])
        return 12000, 0

    def work(number, path):
        return load(number, path) if number == 0 else process_that_writes(number, path, 1.5)

    ResonanceDB(path).close()
    results = together(4, work, path)
    with ResonanceDB(path) as db:
        assert db.get_stats().nodes == sum(count for count, _ in results)
        assert db.get_stats().edges == 12000
    assert integrity(path) == [("ok",)]


def test_one_object_torn_at_by_threads_that_switch_all_the_time(path):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ResonanceDB(path) as db:
            db.insert_nodes(id=["a", "b"], embedding=[[1, 0], [0, 1]])

            def work(number):
                for turn in range(15):
                    db.insert_node(Node(f"{number}-{turn}"))
                    db.insert_edge("a", f"{number}-{turn}")
                    assert db.get_node(f"{number}-{turn}") is not None
                    assert db.search([1, 0])[0].id == "a"
                    with db.snapshot():
                        assert db.get_stats().nodes >= turn

            threads = [Background(work, number) for number in range(6)]
            for thread in threads:
                thread.result()
            assert db.get_stats().nodes == 92
            assert len(db.get_edges("a")) == 90
    finally:
        sys.setswitchinterval(interval)


def test_the_log_does_not_grow_without_end(path):
    """It is written back as it grows; a reader that stays only delays that."""
    wal = path.with_name("graph.db-wal")

    def load(db, rounds):
        for number in range(rounds):
            db.insert_nodes(id=[f"{os.getpid()}-{i}" for i in range(300)], title=f"{number}" * 3000)

    with ResonanceDB(path) as db, ResonanceDB(path, readonly=True) as other:
        load(db, 60)
        assert wal.stat().st_size < 100 << 20
        with other.snapshot():
            other.get_stats()
            load(db, 20)
        load(db, 20)
        assert wal.stat().st_size < 160 << 20
        assert db.checkpoint().busy is False
        assert wal.stat().st_size == 0


def test_checkpoints_only_while_nobody_can_commit_on_old_engines(path, monkeypatch):
    """The race of the WAL reset needs a commit beside a checkpoint: before 3.51.3 there is none."""
    from resonance import session
    from resonance._core import Connection

    monkeypatch.setattr(session, "_CHECKPOINT_UNDER_LOCK", True)
    monkeypatch.setattr(session, "CHECKPOINT_FRAMES", 5)
    seen = []
    with ResonanceDB(path) as db, Connection(path) as rival:
        lent = db._session._readers.lent

        class Watched:
            def __init__(self, connection):
                self._connection = connection

            def __getattr__(self, name):
                return getattr(self._connection, name)

            def checkpoint(self, **how):
                try:
                    rival.execute("BEGIN IMMEDIATE")
                    rival.execute("ROLLBACK")
                    seen.append("free")
                except Exception as error:
                    seen.append(type(error).__name__)
                return self._connection.checkpoint(**how)

        import contextlib

        @contextlib.contextmanager
        def watched():
            with lent() as connection:
                yield Watched(connection)

        monkeypatch.setattr(db._session._readers, "lent", watched)
        for number in range(5):
            db.insert_nodes(id=[f"{number}-{i}" for i in range(100)], title="x" * 1000)
        db.checkpoint()
    assert len(seen) >= 2
    assert set(seen) == {"BusyError"}


def test_edges_and_nodes_that_depend_on_each_other(path):
    """Deleting and linking at the same time never leaves an edge to nothing."""
    from resonance import errors

    def link(number, path):
        refused = 0
        with ResonanceDB(path) as db:
            for turn in range(40):
                try:
                    db.insert_edges([Edge(f"n{turn % 10}", f"n{(turn + number) % 10}", f"t{number}")])
                except errors.DanglingEdgeError:
                    refused += 1
        return refused

    def delete(number, path):
        with ResonanceDB(path) as db:
            for turn in range(40):
                db.delete_nodes([f"n{turn % 10}"])
                db.insert_node(Node(f"n{turn % 10}"))
        return 0

    with ResonanceDB(path) as db:
        db.insert_nodes(id=[f"n{i}" for i in range(10)])
    together(4, lambda number, path: (delete if number == 0 else link)(number, path), path)
    assert integrity(path) == [("ok",)]


def hold_open(path, ready, go):
    with ResonanceDB(path) as db, db.snapshot():
        os.write(ready, b"!")
        os.read(go, 1)
        return db.query("SELECT count(*) FROM nodes")[0][0]


@pytest.mark.skipif(
    not engine()["bundled"], reason="the system's SQLite does not forget what the parent locks"
)
def test_a_child_of_a_process_that_has_it_open_holds_locks_of_its_own(path):
    """Without them the parent, when it closes, thinks it is the last, and takes the WAL away."""
    ready, tell_ready = os.pipe()
    wait, go = os.pipe()
    with ResonanceDB(path) as db:
        db.insert_node({"id": "a"})
        with db.snapshot():
            child = Child(hold_open, path, tell_ready, wait)
            os.read(ready, 1)
    left = {entry.name for entry in path.parent.iterdir()}
    os.write(go, b"!")
    assert child.result() == 1
    for descriptor in (ready, tell_ready, wait, go):
        os.close(descriptor)
    assert {"-wal", "-shm"} <= {name.removeprefix(path.name) for name in left}
    assert integrity(path) == [("ok",)]
