"""The one way to open a connection: which settings it has, in which order, and what a reader may do."""

import errno
from typing import ClassVar

import pytest

from resonance import DatabaseFactory, ResonanceDB, disk, errors, factory
from resonance._core import Connection
from support import start_python, wait_until

SETTINGS = {
    "busy_timeout": 5000,
    "journal_mode": "wal",
    "synchronous": 1,
    "mmap_size": 0,
    "temp_store": 2,
    "foreign_keys": 1,
    "wal_autocheckpoint": 0,
    "query_only": 0,
}


@pytest.fixture
def made(path):
    DatabaseFactory.connect_to_resonance(path).close()
    return path


def setting(connection, name):
    return connection.execute(f"PRAGMA {name}")[0][0]


@pytest.mark.parametrize("readonly", [False, True])
def test_settings(made, readonly):
    with DatabaseFactory.connect(made, readonly=readonly) as connection:
        found = {name: setting(connection, name) for name in SETTINGS}
    assert found == SETTINGS | {"query_only": int(readonly)}


def test_settings_of_a_database(db):
    connection = db.get_raw_db()
    assert {name: setting(connection, name) for name in SETTINGS} == SETTINGS
    with db.snapshot() as reader:
        assert {name: setting(reader, name) for name in SETTINGS} == SETTINGS | {"query_only": 1}


def test_each_setting_has_its_reason():
    assert len({pragma.name for pragma in factory.PRAGMAS}) == len(factory.PRAGMAS)
    for pragma in factory.PRAGMAS:
        assert len(pragma.why) > 15, pragma.name


class Recorder:
    """A connection that keeps a list of what it is told, and may answer in its own way."""

    answers: ClassVar = {}
    log: ClassVar = []

    def __init__(self, *arguments, **options):
        self._connection = Connection(*arguments, **options)

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, sql, parameters=()):
        type(self).log.append(" ".join(sql.split()))
        for start, answer in type(self).answers.items():
            if sql.startswith(start):
                return answer() if callable(answer) else answer
        return self._connection.execute(sql, parameters)


@pytest.fixture
def recorder(monkeypatch):
    monkeypatch.setattr(factory, "Connection", Recorder)
    monkeypatch.setattr(Recorder, "answers", {})
    monkeypatch.setattr(Recorder, "log", [])
    return Recorder


def test_order(made, recorder):
    DatabaseFactory.connect(made, readonly=True).close()
    told = [sql.removeprefix("PRAGMA ") for sql in recorder.log]
    assert told[:2] == ["busy_timeout = 5000", "busy_timeout"], "before anything that may have to wait"
    order = [
        "journal_mode",
        "synchronous = NORMAL",
        "mmap_size = 0",
        "temp_store = MEMORY",
        "foreign_keys = ON",
    ]
    places = [told.index(name) for name in order]
    assert places == sorted(places)
    assert told[-2:] == ["query_only = ON", "query_only"]
    for place, sql in enumerate(told):
        if " = " in sql and not sql.startswith(("SELECT", "journal_mode")):
            assert told[place + 1] == sql.split(" = ")[0], "each is read back at once"
    assert "journal_mode = WAL" not in told, "it is on already"


def test_wal_is_switched_on_once(path, recorder):
    DatabaseFactory.connect(path).close()
    assert recorder.log.count("PRAGMA journal_mode = WAL") == 1
    DatabaseFactory.connect(path).close()
    assert recorder.log.count("PRAGMA journal_mode = WAL") == 1


@pytest.mark.parametrize("name", [pragma.name for pragma in factory.PRAGMAS] + ["query_only"])
def test_a_setting_that_does_not_take(made, recorder, name):
    recorder.answers[f"PRAGMA {name}"] = [(77,)]
    with pytest.raises(errors.ResonanceError, match=f"{name}.*did not take.*77"):
        DatabaseFactory.connect(made, readonly=True)


def test_where_wal_does_not_take(path, recorder):
    recorder.answers["PRAGMA journal_mode"] = [("delete",)]
    with pytest.raises(errors.UnsupportedFilesystemError, match="local disk") as caught:
        DatabaseFactory.connect(path)
    assert caught.value.path == str(path)


def busy():
    raise errors.BusyError("busy", code=5, name="SQLITE_BUSY")


def test_switching_to_wal_waits_for_others(path, recorder):
    """SQLite answers BUSY at once here, whatever the time-out."""
    attempts = []

    def busy_twice():
        attempts.append(1)
        if len(attempts) < 3:
            busy()
        recorder.answers.clear()
        return connection_answers(path)

    def connection_answers(path):
        return [("wal",)]

    recorder.answers["PRAGMA journal_mode = WAL"] = busy_twice
    DatabaseFactory.connect(path).close()
    assert len(attempts) == 3


def test_switching_to_wal_does_not_wait_for_ever(path, recorder, monkeypatch):
    monkeypatch.setattr(factory, "WAL_RETRY_SECONDS", 0.05)
    recorder.answers["PRAGMA journal_mode = WAL"] = busy
    with pytest.raises(errors.BusyError):
        DatabaseFactory.connect(path)
    assert 2 < recorder.log.count("PRAGMA journal_mode = WAL") < 60


def test_page_size_of_a_new_file(tmp_path):
    with DatabaseFactory.connect(tmp_path / "a.db") as connection:
        assert setting(connection, "page_size") == factory.PAGE_SIZE == 16384
    with Connection(tmp_path / "b.db") as connection:
        connection.executescript("PRAGMA page_size = 1024; CREATE TABLE x (a); DROP TABLE x")
    with DatabaseFactory.connect(tmp_path / "b.db") as connection:
        assert setting(connection, "page_size") == 1024, "a file that is there keeps its own"


# --- readers ------------------------------------------------------------------------------------------


WRITES = [
    "INSERT INTO nodes (id) VALUES ('x')",
    "INSERT INTO nodes (id) VALUES ('x') RETURNING id",
    "WITH gone AS (SELECT 'a' AS id) DELETE FROM nodes WHERE id IN gone",
    "WITH x AS (SELECT 1) UPDATE nodes SET title = 'changed'",
    "REPLACE INTO nodes (id) VALUES ('a')",
    "CREATE TABLE t (a)",
    "CREATE INDEX i ON nodes (title)",
    "DROP TABLE edges",
    "ALTER TABLE nodes ADD COLUMN more",
    "PRAGMA user_version = 77",
    "PRAGMA application_id = 77",
    "VACUUM",
    "ANALYZE",
    "REINDEX",
    "BEGIN IMMEDIATE",
]


@pytest.mark.parametrize("sql", WRITES)
def test_a_reader_cannot_write(made, sql):
    with DatabaseFactory.connect(made) as writer:
        writer.execute("INSERT INTO nodes (id, title) VALUES ('a', 'kept')")
        with DatabaseFactory.connect(made, readonly=True) as reader:
            with pytest.raises(errors.ReadOnlyError):
                reader.execute(sql)
            assert reader.execute("SELECT id, title FROM nodes") == [("a", "kept")]
            assert not reader.in_transaction
        assert writer.execute("SELECT id, title FROM nodes") == [("a", "kept")]
        assert setting(writer, "user_version") != 77


@pytest.mark.parametrize(
    "sql", [*WRITES, "PRAGMA query_only = OFF", "PRAGMA journal_mode = DELETE", "ATTACH 'x' AS y"]
)
def test_questions_cannot_write(db, sql):
    db.insert_node({"id": "a", "title": "kept"})
    for _ in range(2):
        with pytest.raises(errors.ReadOnlyError):
            db.query(sql)
        assert db.query("SELECT id, title FROM nodes") == [("a", "kept")]
    with db.transaction(), pytest.raises(errors.ReadOnlyError):
        db.query(sql)
    assert db.query("SELECT id, title FROM nodes") == [("a", "kept")]
    with db.snapshot() as reader:
        assert setting(reader, "query_only") == 1


def test_a_reader_of_a_file_that_is_not_there(path):
    with pytest.raises(errors.CannotOpenError, match="does not exist"):
        DatabaseFactory.connect(path, readonly=True)
    assert not path.exists()


def test_a_reader_sees_what_only_the_log_of_a_killed_writer_holds(made, tmp_path):
    """Readers open for writing because only so can they recover it."""
    writer = start_python(
        """
import sys, time
from resonance import ResonanceDB
db = ResonanceDB(sys.argv[1])
for number in range(20):
    db.insert_node({"id": f"n{number}"})
print("written", flush=True)
time.sleep(60)
""",
        made,
    )
    try:
        assert writer.stdout.readline() == "written\n"
    finally:
        writer.kill()
        writer.communicate()
    wal = tmp_path / "graph.db-wal"
    assert wal.stat().st_size > 0
    with DatabaseFactory.connect(made, readonly=True) as reader:
        assert reader.execute("SELECT count(*) FROM nodes") == [(20,)]
    with DatabaseFactory.connect_to_resonance(made) as connection:
        assert connection.execute("SELECT count(*) FROM nodes") == [(20,)]
        assert connection.execute("PRAGMA integrity_check") == [("ok",)]


def test_the_log_is_gone_when_the_last_one_closes(made, tmp_path):
    one, two = DatabaseFactory.connect(made), DatabaseFactory.connect(made)
    one.execute("INSERT INTO nodes (id) VALUES ('a')")
    one.close()
    assert (tmp_path / "graph.db-wal").exists()
    two.close()
    wait_until(lambda: not (tmp_path / "graph.db-wal").exists())
    assert sorted(item.name for item in tmp_path.iterdir()) == ["graph.db", "graph.db.lock"]


def test_in_memory():
    with DatabaseFactory.connect(":memory:") as connection:
        assert setting(connection, "foreign_keys") == 1
    with DatabaseFactory.connect_to_resonance(":memory:") as connection:
        assert connection.execute("SELECT count(*) FROM nodes") == [(0,)]


def test_a_scratch_database_that_cannot_be_synced(path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    db = ResonanceDB(path, scratch=True)
    with monkeypatch.context() as patched:
        patched.setattr(disk.os, "fsync", fail)
        with pytest.raises(errors.StorageIOError, match="make it again") as caught:
            db.close()
    assert (caught.value.path, caught.value.data) == (str(path), "unknown")
    path.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(disk.os, "open", fail)
        with pytest.raises(errors.CannotOpenError):
            ResonanceDB(path, scratch=True)


@pytest.mark.parametrize("version", ["3.37.1", "3.7.0"])
def test_an_engine_that_is_too_old(path, monkeypatch, version):
    monkeypatch.setattr(factory, "engine", lambda: {"version": version, "origin": "system"})
    with pytest.raises(errors.UnsupportedSQLiteError, match=version):
        DatabaseFactory.connect(path)
    assert not path.exists()


def test_an_engine_with_known_bugs_is_named_once(path, monkeypatch):
    monkeypatch.setattr(factory, "engine", lambda: {"version": "3.40.1", "origin": "system"})
    monkeypatch.setattr(factory, "_warned", False)
    with pytest.warns(errors.UnsafeSQLiteWarning, match=r"3\.40\.1"):
        DatabaseFactory.connect(path).close()
    DatabaseFactory.connect(path).close()


def test_an_engine_that_is_good_is_not_mentioned(path, monkeypatch):
    monkeypatch.setattr(factory, "engine", lambda: {"version": "3.53.2", "origin": "system"})
    monkeypatch.setattr(factory, "_warned", False)
    DatabaseFactory.connect(path).close()


@pytest.mark.parametrize(
    ("dims", "size"), [(None, 16384), (256, 16384), (384, 32768), (1024, 65536), (9999, 65536)]
)
def test_the_width_of_the_vectors_settles_the_page_size(tmp_path, dims, size):
    with ResonanceDB(tmp_path / "graph.db", dims=dims) as db:
        assert db.page_size == size
