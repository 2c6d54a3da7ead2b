"""What a connection does with the file as a whole: checkpoint, copy, sync, close."""

import pytest

from resonance import _core, errors
from resonance._core import Connection
from support import busy, contents, integrity, open_files


@pytest.fixture
def wal(tmp_path):
    with Connection(tmp_path / "wal.db") as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.watch_wal()
        connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
        yield connection


def test_frames_are_counted(wal):
    before = wal.wal_frames
    assert before > 0
    wal.execute("INSERT INTO t VALUES (zeroblob(100000))")
    assert wal.wal_frames >= before + 20
    wal.checkpoint()
    wal.execute("INSERT INTO t VALUES (2)")
    assert wal.wal_frames < before + 20, "the log started over"


def test_checkpoint(wal, tmp_path):
    frames = wal.wal_frames
    assert wal.checkpoint() == (False, frames, frames)
    assert (tmp_path / "wal.db-wal").stat().st_size > 0
    assert wal.checkpoint(truncate=True)[0] is False
    assert (tmp_path / "wal.db-wal").stat().st_size == 0


def test_checkpoint_with_a_reader_in_the_way(wal):
    with Connection(wal.path) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM t")
        wal.execute("INSERT INTO t VALUES (2)")
        busy, frames, copied = wal.checkpoint(truncate=True)
        assert busy is True
        assert copied < frames
        reader.execute("ROLLBACK")
    assert wal.checkpoint(truncate=True)[0] is False


def test_checkpoint_without_a_wal(connection):
    assert connection.checkpoint() == (False, -1, -1)


def test_closing_leaves_a_file_of_others_alone(tmp_path):
    """Not before it is known to be ours may the last one out write the log back."""
    file = tmp_path / "x.db"
    writer = Connection(file)
    writer.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (a)")
    before = file.stat().st_mtime_ns, file.stat().st_size
    writer.close()
    assert (tmp_path / "x.db-wal").stat().st_size > 0
    assert (file.stat().st_mtime_ns, file.stat().st_size) == before
    with Connection(file) as again:
        assert again.execute("SELECT * FROM t") == []
        again.checkpoint_on_close(True)
    assert list(contents(tmp_path)) == ["x.db"]


def test_copy_of_a_live_file_has_what_is_only_in_its_log(wal, tmp_path):
    with Connection(tmp_path / "copy.db") as copy:
        assert wal.backup_to(copy) > 0
        assert copy.execute("SELECT a FROM t") == [(1,)]
    assert integrity(tmp_path / "copy.db") == [("ok",)]


def test_copy_over_a_live_file_keeps_its_readers(wal, tmp_path):
    """It is one transaction there: who reads goes on with what was."""
    with Connection(tmp_path / "new.db") as new, Connection(wal.path) as reader:
        new.executescript("CREATE TABLE t (a); INSERT INTO t VALUES ('new')")
        reader.execute("BEGIN")
        assert reader.execute("SELECT a FROM t") == [(1,)]
        new.backup_to(wal)
        assert reader.execute("SELECT a FROM t") == [(1,)]
        reader.execute("COMMIT")
        assert reader.execute("SELECT a FROM t") == [("new",)]
        assert wal.execute("SELECT a FROM t") == [("new",)]


@pytest.mark.parametrize("rows", [0, 10_000])
def test_copy_that_somebody_has_to_agree_to(wal, tmp_path, rows):
    seen = []
    with Connection(tmp_path / "new.db") as new, Connection(wal.path) as reader:
        new.executescript("BEGIN; CREATE TABLE t (a)")
        new.executemany("INSERT INTO t VALUES (?)", [(row,) for row in range(rows)])
        new.execute("COMMIT")

        def agree():
            seen.append(reader.execute("SELECT a FROM t"))
            if len(seen) == 1:
                raise LookupError("no")

        with pytest.raises(LookupError):
            new.backup_to(wal, agree)
        assert wal.execute("SELECT a FROM t") == [(1,)]
        wal.execute("INSERT INTO t VALUES (2)")
        assert new.backup_to(wal, agree) > 0
        assert seen == [[(1,)], [(1,), (2,)]], "nothing was committed yet"
        assert reader.execute("SELECT count(*) FROM t") == [(rows,)]


def test_copy_refused(wal, tmp_path):
    with pytest.raises(errors.ReentrancyError):
        wal.backup_to(wal)
    with pytest.raises(TypeError):
        wal.backup_to(None)
    with Connection(tmp_path / "to.db") as target:
        target.executescript("CREATE TABLE t (a); BEGIN; INSERT INTO t VALUES ('kept')")
        with pytest.raises(errors.StorageError) as caught:
            wal.backup_to(target)
        assert caught.value.operation == "backup"
        target.execute("COMMIT")
        assert target.execute("SELECT a FROM t") == [("kept",)]
        with Connection(target.path) as rival:
            rival.execute("BEGIN IMMEDIATE")
            with pytest.raises(errors.BusyError):
                wal.backup_to(target)
            rival.execute("ROLLBACK")
        assert wal.backup_to(target) > 0
    assert wal.execute("SELECT a FROM t") == [(1,)]


def test_copy_while_one_side_is_busy(wal, tmp_path):
    with Connection(tmp_path / "to.db") as target:
        with busy(target), pytest.raises(errors.ConcurrentUseError):
            wal.backup_to(target)
        with busy(wal), pytest.raises(errors.ConcurrentUseError):
            wal.backup_to(target)
        assert wal.backup_to(target) > 0


def test_busy_timeout(wal):
    with Connection(wal.path) as rival:
        rival.execute("BEGIN IMMEDIATE")
        wal.set_busy_timeout(1)
        with pytest.raises(errors.BusyError):
            wal.execute("BEGIN IMMEDIATE")
        for wrong in ("x", 2**40, None):
            with pytest.raises((TypeError, OverflowError)):
                wal.set_busy_timeout(wrong)
        rival.execute("ROLLBACK")
    wal.execute("BEGIN IMMEDIATE")
    wal.execute("ROLLBACK")


def test_closing_lets_go_of_the_files(wal, tmp_path):
    assert open_files(tmp_path)
    wal.close()
    assert open_files(tmp_path) == []


def test_hardening(connection):
    """What a file says about itself is not obeyed."""
    connection.execute("CREATE TABLE t (a)")
    with pytest.raises(errors.SQLError):
        connection.execute('SELECT "a string in the wrong quotes"')
    connection.execute("PRAGMA writable_schema = ON")
    with pytest.raises(errors.SQLError, match="may not be modified"):
        connection.execute("UPDATE sqlite_schema SET sql = 'nonsense'")
    with pytest.raises(errors.SQLError):
        connection.execute("SELECT load_extension('x')")


def test_facts_of_the_engine():
    facts = _core.engine()
    assert set(facts) == {"version", "source_id", "bundled", "origin", "header_version", "options"}
    major, minor, patch = map(int, facts["version"].split("."))
    assert facts["header_version"] == major * 1_000_000 + minor * 1_000 + patch
    assert facts["version"] == Connection(":memory:").execute("SELECT sqlite_version()")[0][0]
    assert facts["source_id"] == Connection(":memory:").execute("SELECT sqlite_source_id()")[0][0]
    assert facts["bundled"] is (facts["origin"] != "system")
    if facts["bundled"]:
        assert (major, minor, patch) >= (3, 53, 2)
        assert {"ENABLE_FTS5", "DQS=0", "OMIT_LOAD_EXTENSION", "ENABLE_CARRAY", "ENABLE_STAT4"} <= set(
            facts["options"]
        )
