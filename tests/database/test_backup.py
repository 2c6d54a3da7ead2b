"""Copies that are known to be good, and what keeps a file small."""

import sqlite3
import threading
from pathlib import Path

import pytest

from resonance import ResonanceDB, backup, errors
from resonance._core import Connection
from resonance.model import Node
from support import Background, contents, dump, integrity, unit


@pytest.fixture
def filled(db):
    db.insert_nodes(id=[f"n{i}" for i in range(500)], embedding=unit(500, 16), title="t")
    db.insert_edges(source=[f"n{i}" for i in range(499)], target=[f"n{i + 1}" for i in range(499)])
    db.set_ember_state("a.md", confidence=0.5)
    return db


def test_a_copy(filled, tmp_path):
    report = filled.backup(tmp_path / "copy.db")
    assert (report.path, report.nodes, report.edges) == (str(tmp_path / "copy.db"), 500, 499)
    assert report.size_bytes == (tmp_path / "copy.db").stat().st_size
    assert report.seconds > 0
    assert integrity(tmp_path / "copy.db") == [("ok",)]
    assert dump(tmp_path / "copy.db") == dump(filled)
    history = "SELECT * FROM history ORDER BY id"
    with Connection(tmp_path / "copy.db") as copy:
        assert copy.execute(history) == filled.query(history)


def test_not_inside_a_transaction(filled, tmp_path):
    with filled.transaction():
        filled.insert_node(Node("new"))
        with pytest.raises(errors.TransactionError, match="committed"):
            filled.backup(tmp_path / "copy.db")
    assert filled.get_node("new") is not None
    assert not (tmp_path / "copy.db").exists()


def test_it_holds_what_is_only_in_the_log(filled, tmp_path):
    """A plain copy of the file holds none of it."""
    assert (tmp_path / "graph.db-wal").stat().st_size > 0
    filled.backup(tmp_path / "copy.db")
    assert len(dump(tmp_path / "copy.db")["nodes"]) == 500


def test_it_is_one_file(filled, tmp_path):
    before = {item.name for item in tmp_path.iterdir()}
    filled.backup(tmp_path / "copy.db")
    assert {item.name for item in tmp_path.iterdir()} - before == {"copy.db"}
    plain = sqlite3.connect((tmp_path / "copy.db").as_uri() + "?mode=ro&immutable=1", uri=True)
    try:
        assert plain.execute("SELECT count(*) FROM nodes").fetchone() == (500,)
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    finally:
        plain.close()


def test_it_can_be_used_as_it_is(filled, tmp_path):
    filled.backup(tmp_path / "copy.db")
    with ResonanceDB(tmp_path / "copy.db") as copy:
        assert dump(copy) == dump(filled)
        assert copy.migration_backup is None
        copy.insert_node(Node("new"))
        assert copy.get_stats().nodes == 501
    assert filled.get_node("new") is None


def test_nothing_is_overwritten(filled, tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    (tmp_path / "with-log-wal").write_text("a log")
    for name in ("precious", "link", "folder", "with-log", "graph.db"):
        with pytest.raises(errors.BackupError, match="never overwrites"):
            filled.backup(tmp_path / name)
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "with-log").exists()
    assert dump(filled)["nodes"]


@pytest.mark.parametrize("where", ["none/copy.db", "file/copy.db", "/proc/copy.db", "x" * 300])
def test_where_it_cannot_be(filled, tmp_path, where):
    (tmp_path / "file").write_text("x")
    before = {item.name for item in tmp_path.iterdir()}
    with pytest.raises(errors.BackupError):
        filled.backup(tmp_path / where)
    assert {item.name for item in tmp_path.iterdir()} == before


def test_a_copy_that_is_not_what_the_source_is(filled, tmp_path, monkeypatch):
    """It does not get its name."""
    counts = backup._counts

    def one_less(connection):
        nodes, edges = counts(connection)
        return nodes - ("copy.db" in connection.path), edges

    monkeypatch.setattr(backup, "_counts", one_less)
    before = {item.name for item in tmp_path.iterdir()}
    with pytest.raises(errors.BackupError, match="499"):
        filled.backup(tmp_path / "copy.db")
    assert {item.name for item in tmp_path.iterdir()} == before


def test_a_damaged_source(filled, tmp_path):
    filled.close()
    data = bytearray(Path(filled.path).read_bytes())
    page = int.from_bytes(data[16:18], "big")
    for number in range(4, len(data) // page):
        data[page * number : page * number + 16] = b"\xee" * 16
    Path(filled.path).write_bytes(data)
    with ResonanceDB(filled.path) as db, pytest.raises((errors.BackupError, errors.CorruptDatabaseError)):
        db.backup(tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def test_while_others_write(filled, tmp_path):
    """It is of one moment, and keeps nobody waiting."""
    stop = threading.Event()

    def write():
        number = 0
        while not stop.is_set():
            with filled.transaction():
                filled.insert_nodes(id=[f"w{number}-{i}" for i in range(7)])
            number += 1
        return number

    writer = Background(write)
    try:
        for number in range(5):
            filled.backup(tmp_path / f"{number}.db")
    finally:
        stop.set()
    written = writer.result()
    sizes = []
    for number in range(5):
        assert integrity(tmp_path / f"{number}.db") == [("ok",)]
        sizes.append(len(dump(tmp_path / f"{number}.db")["nodes"]) - 500)
    assert all(size % 7 == 0 for size in sizes), "whole transactions"
    assert sizes == sorted(sizes)
    assert written > 0


def test_in_memory(tmp_path):
    with ResonanceDB(":memory:") as db:
        db.insert_node(Node("a"))
        assert db.backup(tmp_path / "copy.db").nodes == 1
    with ResonanceDB(tmp_path / "copy.db") as db:
        assert db.get_node("a") is not None


# --- checkpoint, vacuum, analyze --------------------------------------------------------------------------


def test_checkpoint(filled, tmp_path):
    wal = tmp_path / "graph.db-wal"
    assert wal.stat().st_size > 0
    result = filled.checkpoint(truncate=False)
    assert result.busy is False
    assert result.log == result.checkpointed > 0
    assert wal.stat().st_size > 0
    filled.checkpoint()
    assert wal.stat().st_size == 0
    alone = tmp_path / "alone"
    alone.mkdir()
    filled.close()
    (alone / "x.db").write_bytes(Path(filled.path).read_bytes())
    assert len(dump(alone / "x.db")["nodes"]) == 500, "all of it is in the file now"


def test_a_reader_in_the_way_of_a_checkpoint(filled):
    def commit_and_checkpoint():
        filled.insert_node(Node("late"))
        return filled.checkpoint()

    with filled.snapshot():
        filled.query("SELECT 1 FROM nodes LIMIT 1")
        result = Background(commit_and_checkpoint).result()
        assert result.checkpointed < result.log
        assert filled.get_node("late") is None
    result = filled.checkpoint()
    assert result.checkpointed == result.log
    assert filled.get_node("late") is not None


def test_vacuum_gives_space_back_and_keeps_everything(filled, tmp_path):
    filled.insert_nodes(id=[f"big{i}" for i in range(2000)], title="x" * 2000)
    filled.checkpoint()
    size = Path(filled.path).stat().st_size
    with filled.transaction() as connection:
        connection.execute("DELETE FROM nodes WHERE id LIKE 'big%'")
    before = dump(filled), filled.get_history(), filled.space
    filled.vacuum()
    assert Path(filled.path).stat().st_size < size / 4
    assert (dump(filled), filled.get_history(), filled.space) == before
    hits = filled.search(unit(500, 16)[7], 3)
    assert hits[0].id == "n7"
    filled.insert_node(Node("after"))
    filled.close()
    assert integrity(filled.path) == [("ok",)]


def test_analyze(filled):
    filled.analyze()
    assert filled.query("SELECT count(*) > 0 FROM sqlite_stat1") == [(1,)]
    assert filled.get_stats().nodes == 500


def test_closing_leaves_a_file_that_can_be_copied(filled, tmp_path):
    wanted = dump(filled)
    filled.close()
    assert set(contents(tmp_path)) == {"graph.db", "graph.db.lock"}
    (tmp_path / "copy.db").write_bytes(Path(filled.path).read_bytes())
    assert dump(tmp_path / "copy.db") == wanted
