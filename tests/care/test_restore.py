"""Restore: a backup that has shown that it is one takes the place of the database, in one step."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resonance import ResonanceDB
from resonance._core import Connection
from resonance.care.restore import RestoreReport, restore
from resonance.errors import BackupError, CorruptDatabaseError, NotADatabaseError, SchemaTooNewError
from resonance.rebuild import PREFIX
from support import FIXTURES, Child, Window, contents, dump, integrity

GRAPH = ("nodes", "edges", "links", "files", "spaces", "properties")


def fill(db: ResonanceDB, title: str, count: int = 50) -> None:
    ids = [f"n{number}" for number in range(count)]
    vectors = np.random.default_rng(count).standard_normal((count, 4))
    db.insert_nodes(id=ids, title=title, embedding=vectors)
    db.insert_edges(source=ids[1:], target=ids[:-1], type="NEXT")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "databases"
    folder.mkdir()
    return folder / "graph.db"


@pytest.fixture
def backup(path: Path, tmp_path: Path) -> Path:
    """A backup of the database, which has moved on since."""
    target = tmp_path / "monday.db"
    with ResonanceDB(path) as db:
        fill(db, "old")
        db.backup(target)
        fill(db, "new", 60)
        db.delete_nodes(["n0"])
    return target


def listing(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


def test_the_backup_takes_the_place_and_the_present_one_is_saved(path: Path, backup: Path) -> None:
    old, new, bytes_before = dump(backup, GRAPH), dump(path), backup.read_bytes()
    report = restore(path, backup)
    left = listing(path)
    assert isinstance(report, RestoreReport)
    assert (report.nodes, report.edges) == (50, 49)
    assert dump(path, GRAPH) == old
    assert backup.read_bytes() == bytes_before
    assert report.saved is not None
    assert dump(Path(report.saved)) == new
    with ResonanceDB(path) as db:
        assert db.digest().root == report.digest
        assert db.get_history()[0][2:6] == ("*", "restore", None, {"from": "monday.db"})
        db.insert_node({"id": "after"})
    assert integrity(path) == [("ok",)]
    assert left == ["graph.db", Path(report.saved).name, "graph.db.lock"]
    again = restore(path, report.saved)
    assert dump(path, GRAPH) == {name: new[name] for name in GRAPH}
    assert again.saved != report.saved


def test_a_missing_database_is_made(path: Path, backup: Path) -> None:
    old = dump(backup, GRAPH)
    path.unlink()
    assert restore(path, backup).saved is None
    assert listing(path) == ["graph.db", "graph.db.lock"]
    assert dump(path, GRAPH) == old


def test_readers_keep_what_they_read(path: Path, backup: Path) -> None:
    with ResonanceDB(path) as reader:
        with reader.snapshot():
            before = len(reader.get_nodes())
            restore(path, backup)
            assert len(reader.get_nodes()) == before == 59
        assert len(reader.get_nodes()) == 50, "an open database sees the restored one"


def test_readers_never_see_a_mixture(path: Path, backup: Path, tmp_path: Path) -> None:
    other = tmp_path / "tuesday.db"
    with ResonanceDB(path) as db:
        db.backup(other)
        seen: set[tuple[Any, ...]] = set()
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                with db.snapshot():
                    titles = {title for (title,) in db.query("SELECT DISTINCT title FROM nodes")}
                    seen.add((len(db.get_nodes(exclude_content=True)), *sorted(titles)))

        readers = [threading.Thread(target=read) for _ in range(2)]
        for thread in readers:
            thread.start()
        for turn in range(10):
            restore(path, (backup, other)[turn % 2])
        stop.set()
        for thread in readers:
            thread.join()
    assert seen <= {(50, "old"), (59, "new")}
    assert seen


def test_pages_of_another_size(path: Path, backup: Path) -> None:
    old = dump(backup, GRAPH)
    path.unlink()
    with ResonanceDB(path, page_size=4096) as db:
        db.insert_node({"id": "x"})
    restore(path, backup)
    assert dump(path, GRAPH) == old
    with Connection(path, create=False) as connection:
        assert connection.execute("PRAGMA page_size") == [(4096,)]


def test_an_older_schema_is_brought_to_head_and_the_backup_stays(path: Path, tmp_path: Path) -> None:
    amalfa = tmp_path / "amalfa.db"
    shutil.copyfile(FIXTURES / "amalfa-made.db", amalfa)
    before = amalfa.read_bytes()
    report = restore(path, amalfa)
    assert (report.nodes, report.saved) == (24, None)
    assert amalfa.read_bytes() == before
    with ResonanceDB(path, create=False) as db:
        assert db.migration_backup is None
        assert len(db.get_nodes()) == 24
    assert listing(path) == ["graph.db", "graph.db.lock"]


# --- what is refused --------------------------------------------------------------------------------


def damaged(path: Path) -> None:
    """A page in the middle is overwritten."""
    data = bytearray(path.read_bytes())
    with Connection(path, create=False) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'edges'")[0][0]
        size = connection.execute("PRAGMA page_size")[0][0]
        connection.checkpoint_on_close(True)
    data[(page - 1) * size : page * size] = b"\xff" * size
    path.write_bytes(data)


def out_of_step(path: Path) -> None:
    """An index that knows a row by another type than it has."""
    with Connection(path, create=False) as connection:
        connection.execute("UPDATE nodes SET type = 'typed' WHERE id = 'n1'")
        page = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'idx_nodes_type'")[0][0]
        size = connection.execute("PRAGMA page_size")[0][0]
    data = bytearray(path.read_bytes())
    index = slice((page - 1) * size, page * size)
    assert data[index].count(b"typed") == 1
    data[index] = data[index].replace(b"typed", b"typEd")
    path.write_bytes(data)
    with Connection(path, create=False) as connection:
        assert connection.execute("PRAGMA quick_check") == [("ok",)]


def dangling(path: Path) -> None:
    with Connection(path, create=False) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("DELETE FROM nodes WHERE id = 'n1'")


def newer(path: Path) -> None:
    with Connection(path, create=False) as connection:
        connection.execute("PRAGMA user_version = 99")


def foreign(path: Path) -> None:
    path.unlink()
    with Connection(path) as connection:
        connection.execute("CREATE TABLE orders (x)")


BAD = {
    "empty": (lambda path: path.write_bytes(b""), BackupError, "is empty"),
    "not there": (lambda path: path.unlink(), BackupError, "no such file"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), BackupError, "no such file"),
    "a text": (lambda path: path.write_text("no database" * 1000), NotADatabaseError, "not a database"),
    "cut off": (lambda path: os.truncate(path, path.stat().st_size // 2), BackupError, "damaged"),
    "damaged": (damaged, BackupError, "damaged"),
    "with an index out of step": (out_of_step, BackupError, "damaged"),
    "with references to nothing": (dangling, BackupError, "broken reference"),
    "of a newer version": (newer, SchemaTooNewError, "upgrade"),
    "another program's": (foreign, NotADatabaseError, "another program"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_sound_backup_changes_nothing(path: Path, backup: Path, kind: str) -> None:
    spoil, error, told = BAD[kind]
    spoil(backup)
    before = contents(path.parent)
    with pytest.raises(error, match=told):
        restore(path, backup)
    assert contents(path.parent) == before


def test_the_database_itself_is_no_backup(path: Path, backup: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    for source in (path, link):
        with pytest.raises(BackupError, match="the database itself"):
            restore(path, source)


def test_a_database_that_cannot_be_saved_is_not_replaced(path: Path, backup: Path) -> None:
    damaged(path)
    before = path.read_bytes()
    with pytest.raises((BackupError, CorruptDatabaseError), match="away"):
        restore(path, backup)
    assert path.read_bytes() == before
    # What the message advises helps.
    for name in ("graph.db", "graph.db-wal", "graph.db-shm"):
        path.with_name(name).unlink(missing_ok=True)
    assert restore(path, backup).nodes == 50


def test_another_programs_database_is_left_alone(path: Path, backup: Path) -> None:
    foreign(path)
    before = contents(path.parent)
    with pytest.raises(NotADatabaseError):
        restore(path, backup)
    assert contents(path.parent) == before


# --- runs that are cut off ----------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from resonance.care import restore as module
from resonance.session import Session
path, backup, when = sys.argv[1:]
def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
def killing(owner, name, after):
    real = getattr(owner, name)
    def killer(*arguments, **options):
        value = real(*arguments, **options) if after else None
        kill()
    setattr(owner, name, killer)
if when == "copied":
    killing(Session, "checkpoint", False)
    killing(Session, "_return_to_wal", False)
else:
    killing(module, when, True)
module.restore(path, backup)
"""


@pytest.mark.parametrize(
    ("when", "new"), [("_copy", False), ("digest", False), ("_save", False), ("copied", True)]
)
def test_a_killed_run_leaves_the_one_or_the_other(path: Path, backup: Path, when: str, new: bool) -> None:
    present, wanted = dump(path, GRAPH), dump(backup, GRAPH)
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", KILLED, path, backup, when], timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert any(name.startswith(PREFIX) for name in listing(path)), "it was cut off half-way"
    assert dump(path, GRAPH) == (wanted if new else present)
    assert integrity(path) == [("ok",)]
    restore(path, backup)
    assert dump(path, GRAPH) == wanted
    assert not any(name.startswith(PREFIX) for name in listing(path))


def kill_and_check(path: Path, backups: list[Path], rounds: int, seed: int) -> int:
    """Killed at random, with and without a reader: one of the two is there, whole."""
    wanted = [dump(backup, GRAPH) for backup in backups]
    window = Window(0.2, seed)
    killed = turn = 0
    while killed < rounds:
        turn += 1
        assert turn < 10 * rounds + 20, "nothing is killed"
        reader = ResonanceDB(path, readonly=True) if turn % 3 == 0 else None
        child = Child(restore, os.fspath(path), os.fspath(backups[turn % 2]))
        window.wait()
        hit = child.kill()
        window.learn(hit)
        killed += hit
        if reader is not None:
            assert len(reader.get_nodes()) in (50, 59)
            reader.close()
        assert dump(path, GRAPH) in wanted
        for saved in path.parent.glob("*.bak"):
            saved.unlink()
    assert integrity(path) == [("ok",)]
    return killed


def test_killed_at_random(path: Path, backup: Path, tmp_path: Path) -> None:
    other = tmp_path / "tuesday.db"
    with ResonanceDB(path) as db:
        db.backup(other)
    kill_and_check(path, [backup, other], 15, seed=5)


@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_killed_two_hundred_times(path: Path, backup: Path, tmp_path: Path) -> None:
    other = tmp_path / "tuesday.db"
    with ResonanceDB(path) as db:
        db.backup(other)
    print(f"{kill_and_check(path, [backup, other], 200, seed=6)} kills done, 0 bad, seed 6")


def test_every_backup_of_a_row_can_be_restored(path: Path, tmp_path: Path) -> None:
    with ResonanceDB(path) as db:
        for number in range(20):
            db.insert_node({"id": f"n{number}"})
            db.backup(tmp_path / f"{number}.db")
    for number in range(20):
        assert restore(path, tmp_path / f"{number}.db").nodes == number + 1
    assert integrity(path) == [("ok",)]
