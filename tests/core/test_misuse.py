"""Closed, busy in another thread, forked, entered again: what is called then raises, and nothing crashes."""

import contextlib
import gc
import inspect
import os
import sys
import threading
import time
import weakref

import numpy as np
import pytest

from resonance import _core, errors, rows
from resonance._core import Connection, Statement, live_objects
from support import Background, busy, in_child, integrity, open_files

VECTORS = "SELECT id, embedding FROM nodes"


def connection_calls(connection, other):
    """Each public name of a connection that must refuse to work when it cannot."""
    return {
        "backup_to": lambda: connection.backup_to(other),
        "backup_to (as target)": lambda: other.backup_to(connection),
        "changes": lambda: connection.changes,
        "checkpoint": lambda: connection.checkpoint(),
        "checkpoint_on_close": lambda: connection.checkpoint_on_close(True),
        "execute": lambda: connection.execute("SELECT 1"),
        "executemany": lambda: connection.executemany("SELECT ?", [(1,)]),
        "executescript": lambda: connection.executescript("SELECT 1"),
        "in_transaction": lambda: connection.in_transaction,
        "prepare": lambda: connection.prepare("SELECT 1"),
        "query": lambda: connection.query("SELECT 1"),
        "set_busy_timeout": lambda: connection.set_busy_timeout(1),
        "set_triggers": lambda: connection.set_triggers(True),
        "total_changes": lambda: connection.total_changes,
        "watch_wal": lambda: connection.watch_wal(),
        # functions of the module that work on a connection
        "read_columns": lambda: _core.read_columns(connection, VECTORS, (), "tv", 2),
        "read_vectors": lambda: _core.read_vectors(connection, VECTORS, (), np.empty((1, 2), "f4")),
        "score_vectors": lambda: _core.score_vectors(connection, VECTORS, (), np.ones(2), 1),
        "visit_rows": lambda: _core.visit_rows(connection, "SELECT NULL, ?, 'a'", np.array([1]), np.ones(2)),
        "write_records": lambda: _core.write_records(
            connection, "SELECT NULL, ?, 'a'", np.array([1]), 2, -1, 0
        ),
        "read_rowids": lambda: _core.read_rowids(connection, "SELECT 1", ()),
        "Codes.append": lambda: _core.Codes(2).append(connection, "SELECT 1, x'00', 1, 1, 1", ()),
        "NodePlan.write": lambda: _core.NodePlan([_core.text_column("id", ["a"])]).write(connection, 0, 1),
        "EdgePlan.check_ends": lambda: edge_plan().check_ends(connection, "error"),
        "EdgePlan.missing_ends": lambda: edge_plan().missing_ends(connection),
        "EdgePlan.write": lambda: edge_plan().write(connection, 0, 1),
    }


HARMLESS_ON_CONNECTIONS = {"close", "closed", "interrupt", "path", "wal_frames"}


def statement_calls(statement):
    return {
        "blob": lambda: statement.blob(0),
        "bind_values": lambda: statement.bind_values(),
        "columns": lambda: statement.columns,
        "execute": lambda: statement.execute(),
        "next": lambda: next(statement),
        "readonly": lambda: statement.readonly,
        "reset": lambda: statement.reset(),
    }


HARMLESS_ON_STATEMENTS = {"active", "close", "sql"}


def edge_plan():
    return rows.edge_plan(rows.Given({"source": ["a"], "target": ["a"]}, "source"))


@pytest.fixture
def other():
    with Connection(":memory:") as memory:
        yield memory


def public(kind):
    return {name for name in vars(kind) if not name.startswith("_")}


def test_the_matrix_has_every_public_name(connection, other):
    listed = set(connection_calls(connection, other)) | HARMLESS_ON_CONNECTIONS
    assert public(Connection) <= listed
    listed = set(statement_calls(None)) | HARMLESS_ON_STATEMENTS
    assert public(Statement) <= listed


def test_the_matrix_has_every_function_that_takes_a_connection(connection, other):
    taking = set()
    for name, item in vars(_core).items():
        if name.startswith("_") or not callable(item):
            continue
        owned = vars(item).items() if isinstance(item, type) else [("", item)]
        for attribute, function in owned:
            with contextlib.suppress(TypeError, ValueError):
                if "connection" in inspect.signature(function).parameters:
                    taking.add(f"{name}.{attribute}".rstrip("."))
    # Both kinds of plan inherit one of them.
    taking = {
        name.replace("Plan.write", "NodePlan.write") if name == "Plan.write" else name for name in taking
    }
    assert taking
    assert taking <= set(connection_calls(connection, other))


def all_raise(kind, calls):
    for name, call in calls.items():
        with pytest.raises(kind) as caught:
            call()
        assert type(caught.value) is kind, name
        assert str(caught.value), name


# --- closed -----------------------------------------------------------------------------------------


def test_closed_connection(connection, other):
    connection.close()
    assert connection.closed
    all_raise(errors.ClosedError, connection_calls(connection, other))
    connection.close()
    connection.interrupt()
    assert connection.path.endswith("bare.db")
    assert "closed" in repr(connection)
    assert other.execute("SELECT 1") == [(1,)]


def test_connection_that_failed_to_open(tmp_path, other):
    half = Connection.__new__(Connection)
    with pytest.raises(errors.CannotOpenError):
        half.__init__(tmp_path)
    all_raise(errors.ClosedError, connection_calls(half, other))
    half.close()
    half.interrupt()
    assert (half.path, half.closed, half.wal_frames) == (None, True, 0)
    assert repr(half)


def test_closed_statement(connection):
    statement = connection.prepare("SELECT 1")
    statement.close()
    all_raise(errors.ClosedError, statement_calls(statement))
    statement.close()
    assert statement.sql == "SELECT 1"
    assert not statement.active


def test_statements_left_open_when_the_connection_closes(connection):
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)")
    resting, running = connection.prepare("SELECT 1"), connection.prepare("SELECT a FROM t")
    assert next(running) == (1,)
    connection.close()
    for statement in (resting, running):
        all_raise(errors.ClosedError, statement_calls(statement))
        statement.close()
    assert not running.active


def test_statements_cannot_be_made_by_hand(connection):
    with pytest.raises(TypeError):
        Statement()
    hollow = Statement.__new__(Statement)
    all_raise(errors.ClosedError, statement_calls(hollow))
    hollow.close()


def test_opening_twice_lets_go_of_the_first_file(tmp_path):
    connection = Connection(tmp_path / "a.db")
    connection.execute("CREATE TABLE t (a)")
    statement = connection.prepare("SELECT count(*) FROM t")
    connection.__init__(tmp_path / "b.db")
    assert connection.path.endswith("b.db")
    assert statement.execute() == [(0,)]
    statement.close()
    del statement
    assert open_files(tmp_path) in ([], [str(tmp_path / "b.db")])
    connection.close()
    assert open_files(tmp_path) == []


# --- another thread -----------------------------------------------------------------------------------


def test_another_thread_is_inside(connection, other):
    statement = connection.prepare("SELECT 1")
    with busy(connection) as thread:
        all_raise(errors.ConcurrentUseError, connection_calls(connection, other))
        all_raise(errors.ConcurrentUseError, statement_calls(statement))
        for close in (connection.close, statement.close):
            with pytest.raises(errors.ConcurrentUseError) as caught:
                close()
            assert str(thread.ident) in str(caught.value)
            assert str(threading.get_ident()) in str(caught.value)
        assert not connection.closed
    assert connection.execute("SELECT 2") == [(2,)]
    assert statement.execute() == [(1,)]


def test_two_connections_in_two_threads_do_not_disturb_each_other(tmp_path, connection):
    with Connection(connection.path) as second, busy(connection):
        assert second.execute("SELECT 1") == [(1,)]


def test_a_connection_may_wander_between_threads(connection):
    connection.execute("CREATE TABLE t (a)")
    Background(connection.execute, "INSERT INTO t VALUES (1)").result()
    assert connection.execute("SELECT a FROM t") == [(1,)]
    Background(connection.close).result()
    assert connection.closed


def test_a_statement_collected_while_another_thread_is_inside(connection):
    """It cannot be finalized then, and is not forgotten either."""
    before = live_objects()
    statement = connection.prepare("SELECT 1")
    assert live_objects() == (before[0], before[1] + 1)
    with busy(connection):
        del statement
        gc.collect()
        assert live_objects()[1] == before[1] + 1, "only the one that is running"
    connection.execute("SELECT 2")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    assert open_files(connection.path) == []


def test_a_running_statement_collected_meanwhile_lets_go_of_its_snapshot(connection):
    connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)")
    statement = connection.prepare("SELECT a FROM t")
    assert next(statement) == (1,)
    with busy(connection):
        del statement
    connection.execute("DROP TABLE t")


def test_many_threads_fight_for_one_connection(connection):
    """Each call either works or says that another thread is inside; meanwhile statements come and go."""
    connection.execute("CREATE TABLE t (a)")
    done = []

    def fight(number):
        wins = 0
        while wins < 50:
            try:
                statement = connection.prepare("SELECT ?1, (SELECT count(*) FROM t)")
                assert statement.execute((number,))[0][0] == number
                connection.execute("INSERT INTO t VALUES (?)", (number,))
                wins += 1
            except errors.ConcurrentUseError:
                time.sleep(0.0001)
        done.append(wins)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [Background(fight, number) for number in range(4)]
        for thread in threads:
            thread.result()
    finally:
        sys.setswitchinterval(interval)
    assert connection.execute("SELECT count(*) FROM t") == [(200,)]
    assert sum(done) == 200


def test_closing_while_threads_use_it(tmp_path):
    """close() either works or raises; the others see ClosedError; nothing is freed under a running step."""
    for attempt in range(30):
        connection = Connection(tmp_path / f"{attempt}.db")

        def use(connection=connection):
            while True:
                try:
                    statement = connection.prepare("SELECT count(*) FROM json_each('[1,2,3]')")
                    assert statement.execute() == [(3,)]
                    time.sleep(0.0002)  # else somebody is always inside, and close() never succeeds
                except errors.ConcurrentUseError:
                    continue
                except errors.ClosedError:
                    return

        threads = [Background(use) for _ in range(3)]
        while not connection.closed:
            try:
                connection.close()
            except errors.ConcurrentUseError:
                time.sleep(0.0001)
        for thread in threads:
            thread.result()


# --- after a fork ---------------------------------------------------------------------------------------


def test_after_a_fork(connection, other):
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    statement = connection.prepare("SELECT a FROM t")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO t VALUES (2)")

    def child():
        with Connection(":memory:") as fresh:
            assert fresh.execute("SELECT 1") == [(1,)]
            all_raise(errors.ForkedConnectionError, connection_calls(connection, fresh))
        all_raise(errors.ForkedConnectionError, statement_calls(statement))
        with pytest.raises(errors.ForkedConnectionError) as caught:
            connection.execute("SELECT 1")
        assert str(os.getpid()) in str(caught.value)
        assert str(os.getppid()) in str(caught.value)
        connection.interrupt()
        statement_closed_silently = close_quietly(statement)
        connection.close()
        return statement_closed_silently, connection.closed

    assert in_child(child)[1] is True
    connection.execute("INSERT INTO t VALUES (3)")
    connection.execute("COMMIT")
    assert statement.execute() == [(1,), (2,), (3,)]
    statement.close()
    connection.close()
    assert integrity(connection.path) == [("ok",)]


def close_quietly(statement):
    try:
        statement.close()
    except errors.ForkedConnectionError:
        return False
    return True


def test_a_child_that_only_forgets_the_connection(tmp_path):
    """Its finalizers leave the parent's file and locks alone."""
    file = tmp_path / "x.db"
    held = [Connection(file)]
    held[0].executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (a)")
    held.append(held[0].prepare("SELECT count(*) FROM t"))
    held[0].execute("BEGIN IMMEDIATE")
    held[0].execute("INSERT INTO t VALUES (1)")

    def child():
        held.clear()
        gc.collect()
        # The parent's transaction still keeps others out.
        with Connection(file) as rival, pytest.raises(errors.BusyError):
            rival.execute("BEGIN IMMEDIATE")
        return True

    assert in_child(child)
    held[0].execute("COMMIT")
    assert held[1].execute() == [(1,)]
    held[1].close()
    held[0].close()
    assert integrity(file) == [("ok",)]


def test_a_child_opens_its_own(connection):
    connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (a)")

    def child():
        with Connection(connection.path) as mine:
            mine.execute("INSERT INTO t VALUES (1)")
        return True

    assert in_child(child)
    assert connection.execute("SELECT a FROM t") == [(1,)]


# --- entered again ----------------------------------------------------------------------------------------


class Hostile:
    """Calls something when it is looked at, and remembers what came of it."""

    def __init__(self, act):
        self.act = act
        self.seen = []

    def strike(self):
        try:
            self.act()
        except errors.ResonanceError as error:
            self.seen.append(type(error))
        else:
            self.seen.append(None)


class HostileSequence(Hostile):
    def __iter__(self):
        self.strike()
        return iter((1,))


class HostileMapping(Hostile):
    def keys(self):
        self.strike()
        return ["a"]

    def __contains__(self, key):
        self.strike()
        return key == "a"

    def __getitem__(self, key):
        self.strike()
        return 1


class HostileAttribute(Hostile):
    """Not even looking for ``keys`` is safe."""

    def __getattr__(self, name):
        self.strike()
        raise AttributeError(name)

    def __iter__(self):
        return iter((1,))


class HostileScalar(np.float64):
    def item(self):
        self.hostile.strike()
        return 1

    def __float__(self):
        self.hostile.strike()
        return 1.0


class HostileClass(Hostile):
    """isinstance() asks for ``__class__``."""

    @property
    def __class__(self):
        self.strike()
        return np.int64

    def item(self):
        self.strike()
        return 1


def hostile_parameters(act):
    yield "SELECT ?", HostileSequence(act)
    yield "SELECT :a", HostileMapping(act)
    yield "SELECT ?", HostileAttribute(act)
    hostile = HostileClass(act)
    yield "SELECT ?", Wrapped(hostile)


class Wrapped(tuple):
    """A tuple of one hostile value, which passes its record on."""

    __slots__ = ()

    def __new__(cls, hostile):
        return super().__new__(cls, (hostile,))

    @property
    def seen(self):
        return self[0].seen


def acts(connection, statement, other):
    calls = connection_calls(connection, other) | statement_calls(statement)
    return calls | {"close": connection.close, "statement.close": statement.close}


def test_parameters_that_use_the_connection(connection, other):
    connection.execute("CREATE TABLE nodes (id, embedding)")
    statement = connection.prepare("SELECT 1")
    run = 0
    for name, act in acts(connection, statement, other).items():
        for sql, parameters in hostile_parameters(act):
            mine = connection.prepare(sql)
            for call in (connection.execute, connection.query):
                assert call(sql, parameters) == [(1,)], name
            assert mine.execute(parameters) == [(1,)], name
            mine.bind_values(parameters)
            assert list(mine) == [(1,)], name
            assert parameters.seen, name
            assert set(parameters.seen) == {errors.ReentrancyError}, name
            run += 1
    assert run == 4 * len(acts(connection, statement, other))
    assert connection.execute("SELECT 1") == [(1,)]
    assert statement.execute() == [(1,)]


def test_rows_that_use_the_connection(connection):
    """The rows of executemany are read before the connection is entered: they may use it, even close it."""
    connection.execute("CREATE TABLE t (a)")

    def rows():
        yield (1,)
        connection.execute("INSERT INTO t VALUES (0)")
        yield (2,)

    assert connection.executemany("INSERT INTO t VALUES (?)", rows()) == 2
    assert connection.execute("SELECT a FROM t") == [(0,), (1,), (2,)]

    def closing():
        yield (3,)
        connection.close()

    with pytest.raises(errors.ClosedError):
        connection.executemany("INSERT INTO t VALUES (?)", closing())


def test_a_row_that_uses_the_connection(connection):
    connection.execute("CREATE TABLE t (a)")
    row = HostileSequence(lambda: connection.executemany("INSERT INTO t VALUES (?)", [(1,)]))
    assert connection.executemany("INSERT INTO t VALUES (?)", [row, row]) == 2
    assert row.seen == [errors.ReentrancyError] * 2


def test_a_parameter_that_raises_leaves_the_connection_usable(connection):
    class Angry:
        def __iter__(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        connection.execute("SELECT ?", Angry())
    with pytest.raises(ZeroDivisionError):
        connection.executemany("SELECT ?", [Angry()])
    statement = connection.prepare("SELECT ?")
    with pytest.raises(ZeroDivisionError):
        statement.bind_values(Angry())
    assert statement.execute((1,)) == [(1,)]
    assert connection.execute("SELECT ?", (1,)) == [(1,)]


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="classes written in Python have no buffers before 3.12"
)
def test_a_buffer_that_uses_the_connection(connection):
    class Buffer(Hostile):
        def __buffer__(self, flags):
            self.strike()
            return memoryview(b"bytes")

    value = Buffer(connection.close)
    assert connection.execute("SELECT ?", (value,)) == [(b"bytes",)]
    assert value.seen == [errors.ReentrancyError]


def test_a_finalizer_that_uses_the_connection(connection):
    """Garbage may be collected at any moment, also inside a call."""
    connection.execute("CREATE TABLE t (a)")
    seen = []

    class Litter:
        def __init__(self):
            self.me = self

        def __del__(self):
            try:
                connection.execute("SELECT 1")
                seen.append(None)
            except errors.ReentrancyError:
                seen.append(errors.ReentrancyError)

    class Messy:
        def __iter__(self):
            Litter()
            gc.collect()
            return iter((1,))

    assert connection.execute("SELECT ?", Messy()) == [(1,)]
    assert seen == [errors.ReentrancyError]


def test_a_statement_in_a_garbage_cycle_when_the_connection_closes(tmp_path):
    """Its weak references are gone before it is: closing then must not leave the file open."""
    connection = Connection(tmp_path / "x.db")
    connection.execute("CREATE TABLE t (a)")
    cycle = [connection.prepare("SELECT * FROM t")]
    cycle.append(cycle)
    watcher = weakref.ref(cycle[0], lambda _: connection.close())
    del cycle
    gc.collect()
    assert watcher() is None
    assert connection.closed
    assert open_files(tmp_path) == []


def test_values_that_a_plan_has_sorted_number_no_more_columns():
    def column(name, distinct):
        return distinct.column(name, iter([_core.text_column(name, ["a", "b"])]))

    ends, kinds = _core.Distinct(), _core.Distinct()
    _core.EdgePlan(ends, kinds, [column("source", ends), column("target", ends), column("type", kinds)])
    for distinct in (ends, kinds):
        with pytest.raises(errors.ColumnError, match="late: these values are sorted") as raised:
            column("late", distinct)
        assert raised.value.column == "late"
