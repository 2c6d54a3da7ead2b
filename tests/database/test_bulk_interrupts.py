"""Ctrl-C in the middle of a load, whatever way it goes: nothing half written, and all works on."""

import os
import signal

import pyarrow
import pytest

from resonance import Edge, Node, ResonanceDB, bulk, errors
from support import dump, integrity, unit

COUNT = 40
IDS = [f"n{i:02d}" for i in range(COUNT)]
VECTORS = unit(COUNT, 4)
NODES = {"id": IDS, "title": [f"title of {name}" for name in IDS], "embedding": VECTORS}
EDGES = {"source": IDS, "target": [*IDS[1:], IDS[0]], "type": ["NEXT"] * COUNT}


def nodes_table():
    vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(VECTORS.reshape(-1)), 4)
    return pyarrow.table({**NODES, "embedding": vectors})


def nodes(db, **how):
    db.insert_nodes(**NODES, **how)


def nodes_one_by_one(db, **how):
    db.insert_nodes(
        (Node(**dict(zip(NODES, row, strict=True))) for row in zip(*NODES.values(), strict=True)), **how
    )


def edges(db, **how):
    db.insert_edges(**EDGES, **how)


LOADS = {
    "nodes, columns": nodes,
    "nodes, one by one": nodes_one_by_one,
    "nodes, Arrow": lambda db, **how: db.insert_nodes(nodes_table(), **how),
    "nodes, with history": lambda db, **how: nodes(db, history="rows", **how),
    "edges, columns": edges,
    "edges, one by one": lambda db, **how: db.insert_edges(
        [Edge(*row) for row in zip(*EDGES.values(), strict=True)], **how
    ),
    "edges, Arrow": lambda db, **how: db.insert_edges(pyarrow.table(EDGES), **how),
    "edges, with history": lambda db, **how: edges(db, history="rows", **how),
    "edges and stubs": lambda db, **how: db.insert_edges(
        source=IDS, target=[f"new {name}" for name in IDS], on_missing="stub", **how
    ),
}


class CtrlC:
    """A ``progress`` that presses Ctrl-C when it is called for the ``number``-th time."""

    def __init__(self, number):
        self.left = number
        self.told = []

    def __call__(self, done, total):
        self.told.append((done, total))
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


def fill(db):
    """What is there before: some of the rows, with other values."""
    db.insert_nodes(id=IDS, title="before")
    db.insert_edges([(IDS[0], IDS[1], "NEXT", 0.5), (IDS[3], IDS[2], "OTHER")])


def whole(path, load, **options):
    """The tables after a load that nobody interrupted."""
    with ResonanceDB(path, **options) as db:
        fill(db)
        load(db)
        return dump(db)


def works_on(db):
    raw = db.get_raw_db()
    assert not raw.in_transaction
    assert raw.execute("PRAGMA foreign_keys") == [(1,)]
    indexes = raw.execute("SELECT name FROM sqlite_schema WHERE name = 'idx_edges_target'")
    assert indexes == [("idx_edges_target",)]


@pytest.fixture(params=["in WAL, index kept", "in WAL, index rebuilt", "alone, index rebuilt", "scratch"])
def place(request, monkeypatch):
    """Options of the file; and which way a load takes there."""
    monkeypatch.setattr(bulk, "SLICE", 10)
    monkeypatch.setattr(bulk, "ALONE_FROM_BYTES", 0 if "alone" in request.param else 1 << 40)
    monkeypatch.setattr(bulk, "_rebuild_pays", lambda writer, rows: "rebuilt" in request.param)
    return {"scratch": True} if request.param == "scratch" else {}


@pytest.mark.parametrize("name", LOADS)
def test_nothing_is_written(name, place, tmp_path):
    load = LOADS[name]
    wanted = whole(tmp_path / "whole.db", load)
    with ResonanceDB(tmp_path / "graph.db", **place) as db:
        fill(db)
        before = dump(db)
        for number in range(1, COUNT // bulk.SLICE + 1):
            progress = CtrlC(number)
            with pytest.raises(KeyboardInterrupt):
                load(db, progress=progress)
            assert progress.told == [(10 * each, COUNT) for each in range(1, number + 1)]
            assert dump(db) == before
            works_on(db)
        assert db.query("SELECT * FROM history WHERE action != 'bulk'") == []
        load(db)
        assert dump(db) == wanted
    assert integrity(db.path) == [("ok",)]


@pytest.mark.parametrize("name", [name for name in LOADS if "history" not in name])
def test_a_shared_load_has_written_whole_batches(name, tmp_path, monkeypatch):
    """As far as it said, in the order of keys; the same load again does the rest.

    No time at all to hold the lock, as on a machine that stalls: each batch writes something all the same.
    """
    monkeypatch.setattr(bulk, "SHARED_HOLD", 0)
    load = LOADS[name]
    wanted = whole(tmp_path / "whole.db", load)
    table = "nodes" if name.startswith("nodes") else "edges"
    with ResonanceDB(tmp_path / "graph.db") as db:
        fill(db)
        before = dump(db)[table]
        progress = CtrlC(1)
        with pytest.raises(KeyboardInterrupt):
            load(db, mode="shared", progress=progress)
        done, total = progress.told[-1]
        assert total == COUNT
        assert len(progress.told) == 1
        found = dump(db)[table]
        fresh = [row for row in found if row not in before]
        assert all(row in wanted[table] for row in fresh)
        assert 0 < len(fresh) <= done
        works_on(db)
        load(db, mode="shared")
        assert dump(db) == wanted
    assert integrity(db.path) == [("ok",)]


@pytest.mark.parametrize("mode", ["exclusive", "shared"])
def test_progress_is_of_all_rows_whatever_they_name(db, mode, monkeypatch):
    monkeypatch.setattr(bulk, "SLICE", 10)
    told = []
    rows = [Node(f"n{number}", title="t" if number % 3 else None) for number in range(30)]
    db.insert_nodes(rows, mode=mode, progress=lambda *done: told.append(done))
    assert [total for _, total in told] == [30] * len(told)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert (told[-1], len(told) > 1) == ((30, 30), True)


@pytest.mark.parametrize("writes", ["delete", "commit", "rollback", "transaction", "insert"])
@pytest.mark.parametrize("name", ["nodes, columns", "edges, columns"])
def test_progress_may_look_but_not_write(name, writes, place, tmp_path):
    load = LOADS[name]
    with ResonanceDB(tmp_path / "graph.db", **place) as db:
        fill(db)
        before = dump(db)
        write = {
            "delete": lambda: db.delete_nodes([IDS[-1]]),
            "commit": db.commit,
            "rollback": db.rollback,
            "transaction": db.begin_transaction,
            "insert": lambda: db.insert_node({"id": "another"}),
        }[writes]
        counts = []

        def progress(done, total):
            counts.append(db.get_stats())
            write()

        with pytest.raises(errors.TransactionError, match=r"progress|nest"):
            load(db, progress=progress)
        assert len(counts) == 1
        assert dump(db) == before
        works_on(db)
        load(db, progress=lambda done, total: counts.append(db.get_stats()))
        assert db.get_raw_db().execute("PRAGMA foreign_key_check") == []


def test_a_rebuild_leaves_the_live_one(tmp_path, monkeypatch):
    monkeypatch.setattr(bulk, "SLICE", 10)
    with ResonanceDB(tmp_path / "graph.db") as db:
        fill(db)
        before, files = dump(db), sorted(tmp_path.iterdir())

        def rebuild():
            with db.rebuild() as fresh:
                nodes(fresh)
                edges(fresh, progress=CtrlC(2))

        with pytest.raises(KeyboardInterrupt):
            rebuild()
        assert dump(db) == before
        assert sorted(tmp_path.iterdir()) == files
        works_on(db)


def test_an_error_of_progress_comes_out_and_nothing_is_written(db):
    def fail(done, total):
        raise ZeroDivisionError(f"{done} of {total}")

    for name, load in LOADS.items():
        if name.startswith("edges, "):
            db.insert_nodes(id=IDS)
        before = dump(db)
        with pytest.raises(ZeroDivisionError, match="40 of 40"):
            load(db, progress=fail)
        assert dump(db) == before
        works_on(db)
