"""Every result code SQLite can be brought to give is an exception of its own, with all its facts."""

import os
import pickle

import pytest

from resonance import errors
from resonance._core import Connection
from support import ENDLESS, Background, is_inside, run_python, start_python, wait_until


def failure(kind, connection, sql, parameters=()):
    with pytest.raises(kind) as caught:
        connection.execute(sql, parameters)
    assert type(caught.value) is kind
    return caught.value


def test_syntax_error_tells_where(connection):
    error = failure(errors.SQLError, connection, "SELECT 1 FRM nothing")
    assert (error.code, error.extended_code, error.name) == (1, 1, "SQLITE_ERROR")
    assert error.sql == "SELECT 1 FRM nothing"
    assert error.sql[error.offset :].startswith("nothing")
    assert error.path == connection.path
    assert error.operation == "prepare"
    assert error.data == "unchanged"
    assert connection.path in str(error)
    assert "nothing" in str(error)


def test_offset_counts_bytes(connection):
    error = failure(errors.SQLError, connection, "SELECT 'äöü', missing_column")
    assert error.sql.encode()[error.offset :] == b"missing_column"


def test_missing_table(connection):
    error = failure(errors.SQLError, connection, "SELECT * FROM nowhere")
    assert "no such table: nowhere" in str(error)
    assert error.name == "SQLITE_ERROR"


CONSTRAINTS = {
    "UNIQUE": ("INSERT INTO t(u) VALUES (1), (1)", 2067),
    "PRIMARYKEY": ("INSERT INTO p VALUES ('a'), ('a')", 1555),
    "NOTNULL": ("INSERT INTO t(n) VALUES (NULL)", 1299),
    "CHECK": ("INSERT INTO t(c) VALUES (-1)", 275),
    "DATATYPE": ("INSERT INTO s VALUES ('no number')", 3091),
    "FOREIGNKEY": ("INSERT INTO f VALUES (7)", 787),
}


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints(connection, name):
    connection.executescript(
        """
        PRAGMA foreign_keys = ON;
        CREATE TABLE t (u UNIQUE, n NOT NULL DEFAULT 0, c CHECK (c >= 0));
        CREATE TABLE p (id TEXT PRIMARY KEY) WITHOUT ROWID;
        CREATE TABLE s (i INTEGER) STRICT;
        CREATE TABLE f (id REFERENCES p (id));
        """
    )
    sql, extended = CONSTRAINTS[name]
    kind = errors.ForeignKeyError if name == "FOREIGNKEY" else errors.ConstraintError
    error = failure(kind, connection, sql)
    assert isinstance(error, errors.ConstraintError)
    assert (error.code, error.extended_code) == (19, extended)
    assert error.name == f"SQLITE_CONSTRAINT_{name}"
    assert error.operation == "step"
    assert error.data == "unchanged"
    assert connection.execute("SELECT count(*) FROM t") == [(0,)]


def test_a_deferred_foreign_key_fails_the_commit(connection):
    connection.executescript(
        "PRAGMA foreign_keys = ON; CREATE TABLE p (id PRIMARY KEY);"
        "CREATE TABLE f (id REFERENCES p DEFERRABLE INITIALLY DEFERRED)"
    )
    connection.execute("BEGIN")
    connection.execute("INSERT INTO f VALUES (7)")
    error = failure(errors.ForeignKeyError, connection, "COMMIT")
    assert error.operation == "commit"
    assert connection.in_transaction
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT * FROM f") == []


def test_read_only(connection):
    connection.executescript("CREATE TABLE t (a); PRAGMA query_only = ON")
    error = failure(errors.ReadOnlyError, connection, "INSERT INTO t VALUES (1)")
    assert (error.code, error.name, error.data) == (8, "SQLITE_READONLY", "unchanged")


def test_disk_full(connection):
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES ('kept'); PRAGMA max_page_count = 3")
    error = failure(errors.DiskFullError, connection, "INSERT INTO t VALUES (zeroblob(1000000))")
    assert (error.code, error.name, error.data) == (13, "SQLITE_FULL", "unchanged")
    assert connection.execute("SELECT * FROM t") == [("kept",)]
    connection.execute("PRAGMA max_page_count = 10000")
    connection.execute("INSERT INTO t VALUES (zeroblob(1000000))")
    assert connection.execute("SELECT count(*) FROM t") == [(2,)]


def test_busy_names_the_lock_of_another_process(connection):
    connection.execute("CREATE TABLE t (a)")
    other = start_python(
        "import sys; from resonance._core import Connection\n"
        "c = Connection(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); print('locked', flush=True)\n"
        "sys.stdin.read(); c.close()",
        connection.path,
        stdin=-1,
    )
    try:
        assert other.stdout.readline() == "locked\n"
        error = failure(errors.BusyError, connection, "BEGIN IMMEDIATE")
        assert (error.code, error.extended_code, error.name) == (5, 5, "SQLITE_BUSY")
        assert (error.operation, error.data) == ("begin", "unchanged")
        assert not connection.in_transaction
    finally:
        other.communicate()
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("ROLLBACK")


def test_a_snapshot_that_is_too_old_to_write_from(connection, tmp_path):
    connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (a)")
    with Connection(connection.path) as other:
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM t")
        other.execute("INSERT INTO t VALUES (1)")
        error = failure(errors.BusyError, connection, "INSERT INTO t VALUES (2)")
        assert (error.code, error.extended_code, error.name) == (5, 517, "SQLITE_BUSY_SNAPSHOT")
        connection.execute("ROLLBACK")


def test_a_table_in_use_cannot_be_dropped(connection):
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)")
    reading = connection.prepare("SELECT a FROM t")
    assert next(reading) == (1,)
    error = failure(errors.BusyError, connection, "DROP TABLE t")
    assert (error.code, error.name) == (6, "SQLITE_LOCKED")
    reading.reset()
    connection.execute("DROP TABLE t")


def test_interrupt_from_another_thread(connection):
    thread = Background(connection.execute, ENDLESS)
    wait_until(lambda: is_inside(connection))
    while thread.is_alive():
        connection.interrupt()
        thread.join(0.01)
    with pytest.raises(errors.InterruptedStorageError) as caught:
        thread.result()
    assert (caught.value.code, caught.value.name) == (9, "SQLITE_INTERRUPT")
    assert connection.execute("SELECT 1") == [(1,)]


def test_interrupt_with_nothing_running_does_nothing(connection):
    connection.interrupt()
    assert connection.execute("SELECT 1") == [(1,)]


def test_too_big(connection):
    error = failure(errors.TooBigError, connection, "SELECT length(zeroblob(2147483647) || 'x')")
    assert (error.code, error.name) == (18, "SQLITE_TOOBIG")


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer maps terabytes")
def test_out_of_memory():
    code = """
import resource
from resonance import errors
from resonance._core import Connection
with Connection(":memory:") as connection:
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 100_000_000,) * 2)
    try:
        connection.execute("SELECT length(randomblob(900000000))")
    except errors.StorageMemoryError as error:
        print(isinstance(error, MemoryError), error.code, error.name)
    print(connection.execute("SELECT 1"))
"""
    assert run_python(code).split("\n")[:2] == ["True 7 SQLITE_NOMEM", "[(1,)]"]


def test_wrong_type_for_a_rowid(connection):
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    error = failure(errors.StorageError, connection, "INSERT INTO t VALUES ('text')")
    assert (error.code, error.name) == (20, "SQLITE_MISMATCH")


@pytest.mark.parametrize(
    "content", [b"plain text " * 100, b"SQLite format 3\0" + bytes(200)], ids=["text", "head"]
)
def test_not_a_database(tmp_path, content):
    file = tmp_path / "notes.txt"
    file.write_bytes(content)
    with Connection(file) as connection:
        error = failure(errors.NotADatabaseError, connection, "SELECT * FROM sqlite_schema")
        assert (error.code, error.name, error.data) == (26, "SQLITE_NOTADB", "unchanged")
    assert file.read_bytes() == content


def test_corrupt(tmp_path):
    file = tmp_path / "bad.db"
    with Connection(file) as connection:
        connection.executescript("PRAGMA page_size = 4096; CREATE TABLE t (a); CREATE INDEX i ON t (a)")
        connection.execute(
            "INSERT INTO t SELECT randomblob(100) FROM json_each(?)", (str(list(range(2000))),)
        )
    data = bytearray(file.read_bytes())
    for page in range(1, len(data) // 4096):
        data[4096 * page : 4096 * page + 8] = b"\xff" * 8
    file.write_bytes(data)
    with Connection(file) as connection:
        error = failure(errors.CorruptDatabaseError, connection, "SELECT sum(length(a)) FROM t")
        assert error.code == 11
        assert error.name.startswith("SQLITE_CORRUPT")
        assert error.data == "unchanged"
        assert "backup" in str(error)
    assert file.read_bytes() == data


def test_a_truncated_file(tmp_path):
    file = tmp_path / "half.db"
    with Connection(file) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    data = file.read_bytes()[:50000]
    file.write_bytes(data)
    with Connection(file) as connection:
        failure(errors.CorruptDatabaseError, connection, "SELECT length(a), hex(a) FROM t")


@pytest.mark.parametrize("make", [lambda folder: folder, lambda folder: folder / "none" / "x.db"])
def test_what_cannot_be_opened(tmp_path, make):
    where = make(tmp_path)
    with pytest.raises(errors.CannotOpenError) as caught:
        Connection(where)
    assert caught.value.code == 14
    assert caught.value.name.startswith("SQLITE_CANTOPEN")
    assert (caught.value.operation, caught.value.path) == ("open", str(where))


def test_a_missing_file_is_not_made_unless_asked(tmp_path):
    with pytest.raises(errors.CannotOpenError):
        Connection(tmp_path / "missing.db", create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a\0b.db", "\0"])
def test_a_path_with_nul(tmp_path, name):
    with pytest.raises(errors.CannotOpenError, match="NUL"):
        Connection(str(tmp_path / "x") + name)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_looks_like_a_uri_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Connection("file:x.db?mode=memory") as connection:
        connection.execute("CREATE TABLE t (a)")
    assert [item.name for item in tmp_path.iterdir()] == ["file:x.db?mode=memory"]


def test_an_error_does_not_mask_the_one_before(connection):
    """The code in hand decides, not what an earlier call left in the handle."""
    failure(errors.SQLError, connection, "SELECT * FROM nowhere")
    connection.execute("CREATE TABLE t (a UNIQUE)")
    error = failure(errors.ConstraintError, connection, "INSERT INTO t VALUES (1), (1)")
    assert "nowhere" not in str(error)
    assert error.offset == -1


def test_one_family():
    kinds = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, Exception)]
    for kind in kinds:
        assert issubclass(kind, errors.ResonanceError | Warning), kind


def test_errors_survive_pickling(connection):
    """They cross the borders of processes; one that cannot come back hangs a pool."""
    examples = [
        failure(errors.SQLError, connection, "SELECT * FROM nowhere"),
        errors.LockTimeoutError("x.db", 1.5, 77),
        errors.DuplicateNodeError("ids occur twice", [(3, "'a'")], 5, "Give each once"),
        errors.UnknownNodeError("a"),
        errors.EmbeddingError("row 1", row=1, got=3, want=4),
        errors.CorruptRowError("bad", "a"),
        errors.BrakeError("too much", ["a.md"]),
        errors.ContentError("a.md", "why", 3),
    ]
    for error in examples:
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)
