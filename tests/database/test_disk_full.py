"""A disk that is really full: a clear error, nothing half, and it works again when there is room."""

import errno
import subprocess

import pytest

from resonance import ResonanceDB, errors, session
from resonance.model import Node
from support import dump, integrity


@pytest.fixture
def small_disk(tmp_path):
    """A file system of three megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder):
    with (folder / "ballast").open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(b"\0" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017


def fill_up_with_rows(db):
    """Insert until it does not go any more; returns how many went."""
    number = 0
    while True:
        try:
            db.insert_nodes(id=[f"{number}-{i}" for i in range(20)], title="x" * 500)
        except errors.DiskFullError as error:
            return number, error
        number += 1


def test_rows_until_the_disk_is_full(small_disk):
    path = small_disk / "graph.db"
    with ResonanceDB(path) as db:
        fill(small_disk)
        count, error = fill_up_with_rows(db)
        assert (error.code, error.name) == (13, "SQLITE_FULL")
        assert str(path) in str(error)
        assert error.data == "unchanged"
        assert not db.get_raw_db().in_transaction
        assert db.get_stats().nodes == 20 * count, "all that was acknowledged and nothing of the last"
        with pytest.raises(errors.DiskFullError):
            db.insert_nodes(id=[f"again-{i}" for i in range(50)], title="x" * 500)
        (small_disk / "ballast").unlink()
        db.insert_nodes(id=[f"room-{i}" for i in range(50)], title="x" * 500)
        assert db.get_stats().nodes == 20 * count + 50, "the same object works on"
    assert integrity(path) == [("ok",)]


def test_inside_a_transaction(small_disk):
    """SQLite rolls back by itself: the rest must not be committed row by row."""
    path = small_disk / "graph.db"
    with ResonanceDB(path) as db:
        db.insert_node(Node("before"))
        fill(small_disk)
        with pytest.raises(errors.TransactionError, match="nothing was"), db.transaction():  # noqa: PT012
            db.insert_node(Node("a"))
            with pytest.raises(errors.DiskFullError):
                db.insert_nodes(id=[f"n{i}" for i in range(45_000)], title="x" * 2000)
            with pytest.raises(errors.TransactionError):
                db.insert_node(Node("b"))
        assert [node.id for node in db.get_nodes()] == ["before"]
        (small_disk / "ballast").unlink()
        db.insert_node(Node("c"))
        assert len(db.get_nodes()) == 2
    assert integrity(path) == [("ok",)]


def load(db):
    db.insert_nodes(id=[f"n{i}" for i in range(200)], title="x" * 1000)


def transaction(db):
    with db.transaction():
        load(db)


@pytest.mark.parametrize("write", [load, transaction])
def test_a_commit_whose_log_cannot_be_written_back(small_disk, monkeypatch, write):
    """The commit is done, and must not look as if it had failed."""
    path = small_disk / "graph.db"
    with ResonanceDB(path) as db:
        # A log that is large already has room for more when the disk is full; the file has not.
        db.insert_nodes(id=[f"before-{i}" for i in range(500)], title="x" * 1000)
        db.checkpoint(truncate=False)
        fill(small_disk)
        monkeypatch.setattr(session, "CHECKPOINT_FRAMES", 5)
        with pytest.warns(errors.CheckpointWarning, match="committed, but not yet written back"):
            write(db)
        assert db.get_stats().nodes == 700
        assert not db.get_raw_db().in_transaction
        (small_disk / "ballast").unlink()
        assert db.checkpoint().busy is False
    assert integrity(path) == [("ok",)]


def test_a_new_file(small_disk):
    fill(small_disk)
    with pytest.raises(
        (errors.DiskFullError, errors.StorageIOError, errors.CannotOpenError, errors.MigrationError)
    ):
        ResonanceDB(small_disk / "graph.db")
    (small_disk / "ballast").unlink()
    with ResonanceDB(small_disk / "graph.db") as db:
        db.insert_node(Node("a"))


def test_a_backup(small_disk, tmp_path):
    with ResonanceDB(tmp_path / "graph.db") as db:
        db.insert_nodes(id=[f"n{i}" for i in range(4000)], title="x" * 1000)
        wanted = dump(db)
        with pytest.raises((errors.DiskFullError, errors.BackupError)):
            db.backup(small_disk / "copy.db")
        assert list(small_disk.iterdir()) == []
        assert dump(db) == wanted


def test_closing_on_a_full_disk(small_disk):
    path = small_disk / "graph.db"
    db = ResonanceDB(path)
    db.insert_nodes(id=[f"n{i}" for i in range(500)], title="x" * 500)
    fill(small_disk)
    db.close()
    (small_disk / "ballast").unlink()
    with ResonanceDB(path) as db:
        assert db.get_stats().nodes == 500
    assert integrity(path) == [("ok",)]


def test_a_large_load_outside_wal(small_disk, monkeypatch):
    from resonance import bulk

    monkeypatch.setattr(bulk, "ALONE_FROM_BYTES", 0)
    path = small_disk / "graph.db"
    with ResonanceDB(path) as db:
        db.insert_node(Node("before"))
        with pytest.raises(errors.DiskFullError):
            db.insert_nodes(id=[f"n{i}" for i in range(20_000)], title="x" * 500)
        assert [node.id for node in db.get_nodes()] == ["before"]
        assert db.get_raw_db().execute("PRAGMA journal_mode") == [("wal",)]
        db.insert_node(Node("after"))
    assert integrity(path) == [("ok",)]
