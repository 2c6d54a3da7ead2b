"""Transactions: all or nothing, seen inside and not outside, and never nested."""

import threading

import pytest

from resonance import ResonanceDB, errors, turns
from resonance._core import Connection
from resonance.model import Node, Space
from support import Background, dump, wait_until


def ids(db):
    return "".join(node.id for node in db.get_nodes())


def outside(db, function):
    """What another thread sees."""
    return Background(function, db).result()


def test_commit(db):
    with db.transaction():
        db.insert_node(Node("a"))
        db.insert_nodes(id=["b", "c"])
        db.insert_edge("a", "b")
        assert ids(db) == "abc"
        assert db.get_stats().edges == 1
        assert outside(db, ids) == ""
        with ResonanceDB(db.path) as other:
            assert ids(other) == ""
    assert ids(db) == outside(db, ids) == "abc"


def test_rollback(db):
    db.insert_node(Node("kept"))
    before = dump(db), db.get_history()
    with pytest.raises(ZeroDivisionError), db.transaction():  # noqa: PT012
        db.insert_node(Node("a"))
        db.delete_nodes(["kept"])
        assert ids(db) == "a"
        raise ZeroDivisionError
    assert (dump(db), db.get_history()) == before
    db.insert_node(Node("b"))


def test_the_calls(db):
    db.begin_transaction()
    db.insert_node(Node("a"))
    db.commit()
    db.begin_transaction()
    db.insert_node(Node("b"))
    assert ids(db) == "ab"
    db.rollback()
    assert ids(db) == "a"


def test_without_one(db):
    for call in (db.commit, db.rollback):
        with pytest.raises(errors.TransactionError, match="no transaction is open"):
            call()


def test_they_do_not_nest(db):
    with db.transaction():
        db.insert_node(Node("a"))
        with pytest.raises(errors.TransactionError, match="nest"), db.transaction():
            pass
        with pytest.raises(errors.TransactionError, match="nest"):
            db.begin_transaction()
        for call in (db.checkpoint, db.vacuum, db.analyze):
            with pytest.raises(errors.TransactionError):
                call()
        db.insert_node(Node("b"))
    assert ids(db) == "ab"


def test_ended_by_hand_inside_the_block(db):
    with db.transaction():
        db.insert_node(Node("a"))
        db.commit()
    with db.transaction():
        db.insert_node(Node("b"))
        db.rollback()
    assert ids(db) == "a"


def test_the_transaction_of_another_thread_is_not_mine(db):
    with db.transaction():
        for call in (ResonanceDB.commit, ResonanceDB.rollback):
            with pytest.raises(errors.TransactionError):
                outside(db, call)
        db.insert_node(Node("a"))
    assert ids(db) == "a"


def test_it_is_a_writer_from_its_first_moment(db):
    """BEGIN IMMEDIATE: what was read at its start still holds when it writes."""
    with db.transaction(), Connection(db.path) as rival:
        assert ids(db) == ""
        with pytest.raises(errors.BusyError):
            rival.execute("BEGIN IMMEDIATE")


def test_wrong_input_inside_leaves_the_transaction_going(db):
    with db.transaction():
        db.insert_node(Node("a"))
        for wrong in (
            lambda: db.insert_nodes(id=["x", ""]),
            lambda: db.insert_edges([("a", "nobody")]),
            lambda: db.update_node_meta("nobody", {}),
            lambda: db.insert_nodes([{"id": "x", "title": "t"}, {"id": "y"}, {"id": ""}]),
        ):
            with pytest.raises((errors.InputError, errors.UnknownNodeError)):
                wrong()
        db.insert_node(Node("b"))
    assert ids(db) == "ab"


@pytest.fixture
def failing(db):
    """Writing a node called bad fails in SQLite itself, after others of its batch were written."""
    with db.transaction() as connection:
        connection.execute(
            "CREATE TRIGGER no BEFORE INSERT ON nodes WHEN new.id = 'zbad' "
            "BEGIN SELECT RAISE(ABORT, 'not this'); END"
        )
    return db


def test_a_failure_of_storage_inside_undoes_all_of_it_and_says_so(failing):
    """Half a batch cannot be undone without savepoints; so the caller must not believe in the rest."""
    failing.insert_node(Node("before"))
    with (  # noqa: PT012
        pytest.raises(errors.TransactionError, match=r"nothing was committed.*not this") as caught,
        failing.transaction(),
    ):
        failing.insert_node(Node("a"))
        with pytest.raises(errors.ConstraintError):
            failing.insert_nodes(id=["b", "zbad"])
        with pytest.raises(errors.TransactionError, match="leave it first"):
            failing.insert_node(Node("c"))
    assert isinstance(caught.value.__cause__, errors.ConstraintError)
    assert ids(failing) == "before"
    failing.insert_node(Node("after"))
    assert len(failing.get_nodes()) == 2


def test_the_same_with_the_calls(failing):
    failing.begin_transaction()
    failing.insert_node(Node("a"))
    with pytest.raises(errors.ConstraintError):
        failing.insert_nodes(id=["b", "zbad"])
    with pytest.raises(errors.TransactionError):
        failing.commit()
    assert ids(failing) == ""
    failing.begin_transaction()
    failing.insert_node(Node("a"))
    with pytest.raises(errors.ConstraintError):
        failing.insert_nodes(id=["b", "zbad"])
    failing.rollback()
    failing.insert_node(Node("c"))
    assert ids(failing) == "c"


def test_what_is_written_past_such_a_failure_is_undone_too(failing):
    with pytest.raises(errors.TransactionError), failing.transaction() as connection:  # noqa: PT012
        with pytest.raises(errors.ConstraintError):
            failing.insert_nodes(id=["b", "zbad"])
        connection.execute("INSERT INTO nodes (id) VALUES ('sneaked in')")
    assert ids(failing) == ""


def test_the_error_itself_comes_out_if_nobody_catches_it(failing):
    with pytest.raises(errors.ConstraintError), failing.transaction():
        failing.insert_nodes(id=["b", "zbad"])
    failing.insert_node(Node("c"))
    assert ids(failing) == "c"


def test_read_only(path):
    ResonanceDB(path).close()
    with ResonanceDB(path, readonly=True) as db:
        for call in (
            lambda: db.insert_node(Node("a")),
            lambda: db.insert_nodes(id=["a"]),
            lambda: db.insert_edges([("a", "b")]),
            lambda: db.delete_nodes(["a"]),
            lambda: db.delete_edges([("a", "b", "t")]),
            lambda: db.set_ember_state("a"),
            db.begin_transaction,
            db.vacuum,
            db.analyze,
            db.checkpoint,
            lambda: db.get_raw_db().execute("INSERT INTO nodes (id) VALUES ('a')"),
        ):
            with pytest.raises(errors.ReadOnlyError):
                call()
        assert db.get_nodes() == []
        assert db.get_stats().nodes == 0


# --- snapshots --------------------------------------------------------------------------------------------


def test_a_snapshot_stays_as_it_was(db):
    db.insert_node(Node("a"))
    with db.snapshot():
        assert ids(db) == "a"
        outside(db, lambda db: db.insert_node(Node("b")))
        assert ids(db) == "a"
        with db.snapshot():
            assert ids(db) == "a"
        assert db.get_stats().nodes == 1
        assert outside(db, ids) == "ab"
    assert ids(db) == "ab"


def test_a_snapshot_starts_at_once(db):
    with db.snapshot():
        outside(db, lambda db: db.insert_node(Node("a")))
        assert ids(db) == ""


def test_each_thread_has_its_own(db):
    started, go_on = threading.Event(), threading.Event()

    def look():
        with db.snapshot():
            before = ids(db)
            started.set()
            go_on.wait(10)
            return before, ids(db)

    thread = Background(look)
    started.wait(10)
    db.insert_node(Node("a"))
    with db.snapshot():
        assert ids(db) == "a"
    go_on.set()
    assert thread.result() == ("", "")


def test_a_snapshot_inside_a_transaction_sees_its_writes(db):
    with db.transaction():
        db.insert_node(Node("a"))
        with db.snapshot():
            assert ids(db) == "a"
            db.insert_node(Node("b"))
            assert ids(db) == "ab"


def test_writing_inside_a_snapshot(db):
    with db.snapshot():
        db.insert_node(Node("a"))
        assert ids(db) == "", "still the moment it was taken"
    assert ids(db) == "a"


def test_readers_that_are_spoilt_are_not_lent_again(db):
    db.insert_node(Node("a"))
    with db.snapshot() as connection:
        connection.close()
    with db.snapshot() as connection:
        connection.execute("COMMIT")
    with db.snapshot() as connection:
        connection.execute("COMMIT")
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM nodes")
    db.insert_node(Node("b"))
    for _ in range(5):
        assert ids(db) == "ab"
        with db.snapshot():
            assert ids(db) == "ab"


def test_a_reader_that_fails_is_lent_again(db):
    for _ in range(3):
        with pytest.raises(errors.SQLError):
            db.query("SELECT * FROM nowhere")
        with pytest.raises(ZeroDivisionError), db.snapshot():
            raise ZeroDivisionError
    assert ids(db) == ""


# --- waiting for the lock -----------------------------------------------------------------------------------


def test_a_lock_that_does_not_come_names_its_holder(db, monkeypatch):
    import subprocess
    import sys

    monkeypatch.setattr(turns, "LOCK_TIMEOUT", 0.2)
    code = """
import sys
from resonance import ResonanceDB
with ResonanceDB(sys.argv[1]) as db, db.transaction():
    print("locked", flush=True)
    sys.stdin.read()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", code, db.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(errors.LockTimeoutError, match=f"process {holder.pid}") as caught:
            db.insert_node(Node("a"))
        assert caught.value.holder == holder.pid
        assert 0.2 <= caught.value.waited < 5
        assert isinstance(caught.value, errors.BusyError)
        assert caught.value.data == "unchanged"
        assert ids(db) == "", "reading goes on"
    finally:
        holder.communicate()
    db.insert_node(Node("a"))


def test_a_holder_that_died_is_not_named(db, monkeypatch):
    """The lock of a killed process is free at once."""
    monkeypatch.setattr(turns, "LOCK_TIMEOUT", 5)
    from support import start_python

    process = start_python(
        "import sys, time; from resonance import ResonanceDB\n"
        "db = ResonanceDB(sys.argv[1]); db.begin_transaction(); db.insert_node({'id': 'x'})\n"
        "print(1, flush=True); time.sleep(60)",
        db.path,
    )
    process.stdout.readline()
    process.kill()
    process.communicate()
    db.insert_node(Node("a"))
    assert ids(db) == "a"


def test_a_lock_another_thread_keeps(db, monkeypatch):
    import os

    monkeypatch.setattr(turns, "LOCK_TIMEOUT", 0.2)
    with db.transaction():
        with pytest.raises(errors.LockTimeoutError) as caught:
            outside(db, lambda db: db.insert_node(Node("b")))
        assert caught.value.holder == os.getpid()
        db.insert_node(Node("a"))
    assert ids(db) == "a"


def test_a_lock_somebody_holds_without_the_gate(db, monkeypatch):
    """The command line of SQLite knows nothing of gates."""
    with Connection(db.path) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        db.get_raw_db().set_busy_timeout(100)
        with pytest.raises(errors.LockTimeoutError, match="another connection") as caught:
            db.insert_node(Node("a"))
        assert caught.value.holder is None
        foreign.execute("ROLLBACK")
    db.insert_node(Node("a"))


def test_readers_do_not_wait_for_writers(db):
    db.insert_node(Node("a"))
    with db.transaction():
        db.insert_node(Node("b"))
        seen = []

        def read():
            for _ in range(20):
                seen.append((ids(db), db.get_stats().nodes, len(db.get_edges("a"))))

        Background(read).result(10)
        assert set(seen) == {("a", 1, 0)}


def test_a_writer_does_not_wait_for_readers(db):
    with db.snapshot():
        for number in range(20):
            outside(db, lambda db, number=number: db.insert_node(Node(f"{number}")))
        assert ids(db) == ""
    assert len(db.get_nodes()) == 20


# --- the end ------------------------------------------------------------------------------------------------


def test_closing(path):
    db = ResonanceDB(path)
    db.insert_node(Node("a"))
    raw = db.get_raw_db()
    db.close()
    db.close()
    assert raw.closed
    calls = [
        lambda: db.insert_node(Node("b")),
        lambda: db.insert_edge("a", "b"),
        lambda: db.insert_semantic_edge("a", "b", "t"),
        lambda: db.get_node("a"),
        db.get_nodes,
        lambda: db.get_nodes_by_type("x"),
        lambda: db.get_node_hash("a"),
        lambda: db.get_edges("a"),
        db.get_lexicon,
        lambda: db.update_node_meta("a", {}),
        lambda: db.update_node_date("a", ""),
        lambda: db.delete_nodes(["a"]),
        lambda: db.delete_edges([("a", "b", "t")]),
        lambda: db.insert_nodes(id=["a"]),
        lambda: db.insert_edges([("a", "b")]),
        db.embeddings,
        lambda: list(db.iter_embeddings()),
        db.to_arrow,
        lambda: db.space,
        lambda: db.set_space(Space("x", 1)),
        lambda: db.search([1]),
        db.links,
        db.get_stats,
        db.get_history,
        lambda: db.get_ember_state("a"),
        lambda: db.set_ember_state("a"),
        lambda: db.query("SELECT 1"),
        lambda: db.transaction().__enter__(),
        lambda: db.snapshot().__enter__(),
        db.begin_transaction,
        db.commit,
        db.rollback,
        db.checkpoint,
        lambda: db.backup(path.with_name("b")),
        db.vacuum,
        db.analyze,
        db.get_raw_db,
        lambda: db.root,
        lambda: db.page_size,
        lambda: db.content("a"),
        lambda: db.rebuild().__enter__(),
    ]
    for number, call in enumerate(calls):
        with pytest.raises(errors.ClosedError, match="closed"):  # noqa: PT012
            call()
            raise AssertionError(number)
    assert not path.with_name("b").exists()
    assert "graph.db" in repr(db)


def test_closing_rolls_back(path):
    db = ResonanceDB(path)
    db.begin_transaction()
    db.insert_node(Node("a"))
    db.close()
    with ResonanceDB(path) as db:
        assert ids(db) == ""


def test_closing_inside_the_block_of_a_transaction(path):
    db = ResonanceDB(path)
    with db.transaction():
        db.insert_node(Node("a"))
        db.close()
    with ResonanceDB(path) as db:
        assert ids(db) == ""
        db.insert_node(Node("b"))


def test_closing_waits_for_the_transaction_of_another_thread(path):
    db = ResonanceDB(path)
    inside, go_on = threading.Event(), threading.Event()

    def write():
        with db.transaction():
            inside.set()
            go_on.wait(10)
            db.insert_node(Node("a"))

    writer = Background(write)
    inside.wait(10)
    closer = Background(db.close)
    closer.join(0.1)
    assert closer.is_alive()
    go_on.set()
    writer.result()
    closer.result()
    with ResonanceDB(path) as db:
        assert ids(db) == "a"


@pytest.mark.parametrize("memory", [False, True])
def test_a_thread_that_ends_inside_its_transaction(path, memory):
    """Nobody could end it any more. The next thread may have the number of that one, and is another."""
    db = ResonanceDB(":memory:" if memory else path)

    def begin():
        db.begin_transaction()
        db.insert_node(Node("a"))

    Background(begin).result()
    Background(lambda: db.insert_node(Node("b"))).result()
    assert ids(db) == "b"
    Background(begin).result()
    with db.transaction():
        db.insert_node(Node("c"))
    assert ids(db) == "bc"
    Background(begin).result()
    assert ids(db) == "bc"
    Background(begin).result()
    Background(db.close).result()


def test_closing_while_another_thread_reads(path):
    db = ResonanceDB(path)
    db.insert_node(Node("a"))
    inside, go_on = threading.Event(), threading.Event()

    def read():
        with db.snapshot() as connection:
            inside.set()
            go_on.wait(10)
            return connection.execute("SELECT id FROM nodes")

    reader = Background(read)
    inside.wait(10)
    db.close()
    go_on.set()
    assert reader.result() == [("a",)], "it finishes on its own connection"
    wait_until(lambda: not path.with_name("graph.db-wal").exists())


def test_closing_while_threads_come_and_go(path, tmp_path):
    from support import open_files

    for _ in range(10):
        db = ResonanceDB(path)

        def use(db=db):
            while True:
                try:
                    db.get_nodes()
                    db.insert_node(Node("a", title=f"{threading.get_ident()}"))
                except errors.ClosedError:
                    return

        threads = [Background(use) for _ in range(4)]
        threading.Event().wait(0.03)
        db.close()
        for thread in threads:
            thread.result()
        assert open_files(tmp_path) == []


def test_an_optimizer_that_fails_does_not_keep_the_file_open(path, tmp_path):
    from support import open_files

    db = ResonanceDB(path)
    db.insert_node(Node("a"))
    raw = db.get_raw_db()
    raw.execute("BEGIN")  # not through the database: nothing can be optimized, nor written back
    db.close()
    assert raw.closed
    assert open_files(tmp_path) == []


def test_forgetting_to_close(path, tmp_path):
    import gc

    from support import open_files

    db = ResonanceDB(path)
    db.insert_node(Node("a"))
    with db.snapshot():
        pass
    del db
    gc.collect()
    assert open_files(tmp_path) == []


def test_failing_to_open_leaves_nothing_open(tmp_path):
    from support import open_files

    (tmp_path / "x.db").write_text("nothing of the kind" * 100)
    for _ in range(5):
        with pytest.raises(errors.NotADatabaseError):
            ResonanceDB(tmp_path / "x.db")
    assert open_files(tmp_path) == []


def test_after_a_fork(path):
    from support import in_child

    with ResonanceDB(path) as db:
        db.insert_node(Node("a"))
        with db.snapshot():
            pass

        def child():
            for call in (
                db.get_nodes,
                lambda: db.insert_node(Node("b")),
                db.get_raw_db,
                db.checkpoint,
                db.embeddings,
            ):
                with pytest.raises(errors.ForkedConnectionError, match="fork"):
                    call()
            db.close()
            with ResonanceDB(path) as mine:
                mine.insert_node(Node("c"))
                return ids(mine)

        assert in_child(child) == "ac"
        assert ids(db) == "ac"
        db.insert_node(Node("d"))
        assert ids(db) == "acd"


def test_a_fork_inside_a_transaction(path):
    """The child keeps neither the lock nor the transaction; the parent keeps both."""
    from support import in_child

    with ResonanceDB(path) as db:
        with db.transaction():
            db.insert_node(Node("a"))

            def child():
                for call in (db.commit, db.rollback, lambda: db.insert_node(Node("b"))):
                    with pytest.raises(errors.ForkedConnectionError):
                        call()
                return True

            assert in_child(child)
            db.insert_node(Node("c"))
        assert ids(db) == "ac"
