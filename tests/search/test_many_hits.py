"""Answers of thousands of hits: several connections score them, and each row is visited once."""

import gc
import sys
import threading
from typing import NamedTuple

import numpy as np
import pytest

from resonance import ResonanceDB, _core, errors, parallel
from resonance.readers import Readers
from resonance.search.hits import _MANY
from resonance.session import Session
from support import unit

WIDTH, ROWS = 12, 5 * _MANY
QUERY = np.arange(1.0, WIDTH + 1)


@pytest.fixture
def db(tmp_path):
    vectors = unit(ROWS, WIDTH, seed=3)
    vectors[1000:1400] = vectors[0]
    ids = [f"n{number:05d}" for number in np.random.default_rng(4).permutation(ROWS)]
    titles = [None if number % 3 == 0 else f"ä{number}" * (number % 5) for number in range(ROWS)]
    with ResonanceDB(tmp_path / "x.db") as db:
        # A load stores its rows in the order of their ids; two of them do not.
        for half in (slice(1, None, 2), slice(0, None, 2)):
            db.insert_nodes(id=ids[half], title=titles[half], embedding=vectors[half])
        yield db


@pytest.fixture
def shared(monkeypatch):
    """How many connections each search scored with."""
    counted = []
    beside = Session.beside

    def counting(self, *given):
        lent = beside(self, *given)
        connections = lent.__enter__()
        counted.append(len(connections))
        lent.__exit__(None, None, None)
        return beside(self, *given)

    monkeypatch.setattr(Session, "beside", counting)
    return counted


@pytest.mark.parametrize("k", [_MANY, 2 * _MANY, ROWS - 1, ROWS, 10**6])
def test_as_the_scan_of_rows(db, k):
    hits = db.search(QUERY, k)
    assert list(hits) == list(db.search(QUERY, k, memory="stream"))
    assert len(hits) == min(k, ROWS)
    assert list(hits) == sorted(hits, key=lambda hit: (-hit.score, hit.id))
    stored = dict(db.query("SELECT id, title FROM nodes"))
    assert all(stored[hit.id] == hit.title for hit in hits)
    assert all(hit.path is None and hit.section is None and hit.heading == () for hit in hits)


def test_several_connections_of_one_moment(db, shared):
    assert len(db.search(QUERY, ROWS)) == ROWS
    with db.snapshot():
        assert len(db.search(QUERY, ROWS)) == ROWS
    assert shared == [2, 1] or max(shared) > 2  # as many as there are processors, four at most


def test_a_commit_before_the_others_look(db, monkeypatch):
    """They would see what the first does not; so it scores alone."""
    db.search(QUERY)
    pinned, turns = Readers.pinned, []
    with ResonanceDB(db.path) as other:

        def late(self):
            turns.append(1)
            if len(turns) == 2:
                with other.transaction() as writer:
                    writer.execute("UPDATE nodes SET title = 'later'")
            return pinned(self)

        with monkeypatch.context() as patched:
            patched.setattr(Readers, "pinned", late)
            hits = db.search(QUERY, ROWS)
        assert len(turns) > 1
        assert not any(hit.title == "later" for hit in hits)
        assert {hit.title for hit in db.search(QUERY, ROWS)} == {"later"}


def test_while_somebody_writes(db):
    stop = threading.Event()

    def write():
        number = 0
        while not stop.is_set():
            db.insert_nodes(id=["n00001", "n00002"], title=[f"same {number}"] * 2)
            number += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(10):
            hits = {hit.id: hit.title for hit in db.search(QUERY, ROWS)}
            assert len(hits) == ROWS
            assert hits["n00001"] == hits["n00002"] or not hits["n00001"].startswith("same")
    finally:
        stop.set()
        thread.join(60)


def test_a_title_that_is_no_text_is_named(db):
    with db.transaction() as writer:
        writer.execute("UPDATE nodes SET title = CAST(x'ff' AS TEXT) WHERE id = 'n00007'")
    with pytest.raises(errors.CorruptRowError, match="UTF-8"):
        db.search(QUERY, ROWS)


class Four(NamedTuple):
    """What rows are made into."""

    id: str | None
    score: float
    title: str | None
    rest: tuple


def hits_of(visits, numbers):
    made = _core.named_rows(Four, visits, np.array(numbers), np.full(len(numbers), 0.5), ((),))
    assert all(type(each) is Four for each in made)
    assert not any(gc.is_tracked(each) for each in made) or sys.version_info >= (3, 14)
    return made


def test_rows_that_are_not_there():
    with _core.Connection(":memory:") as connection:
        connection.execute("CREATE TABLE t (embedding BLOB, id TEXT, title TEXT)")
        vector = np.ones(2, "<f4")
        connection.execute("INSERT INTO t VALUES (?, 'a', NULL)", (vector.tobytes(),))
        connection.execute("INSERT INTO t VALUES (NULL, 'b', 'B')")
        sql = "SELECT embedding, id, title FROM t WHERE rowid = ?"
        rows = _core.visit_rows(connection, sql, np.array([1, 2, 3]), np.array([1.0, 0.5]))
        assert rows.scores.tolist()[0] == 1.5
        assert np.isnan(rows.scores[1:]).all()
        named = [("a", 0.5, None, ()), ("b", 0.5, "B", ()), (None, 0.5, None, ())]
        assert hits_of([rows], [0, 1, 2]) == named
        assert hits_of([rows, rows], [4, 0, 3, 5]) == [named[1], named[0], named[0], named[2]]
        for numbers in ([3], [-1], [1, 3]):
            with pytest.raises(IndexError):
                hits_of([rows], numbers)
        with pytest.raises(errors.CorruptRowError, match="node 'a'"):
            _core.visit_rows(connection, sql, np.array([1]), np.ones(3))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_pieces_by_whoever_is_free(threads):
    assert parallel.shared(range(40), threads, lambda piece: piece * piece) == [
        piece * piece for piece in range(40)
    ]
    assert parallel.shared([], threads, str) == []
    before = threading.active_count()
    for bad in (0, 39):
        with pytest.raises(ZeroDivisionError):
            parallel.shared(range(40), threads, lambda piece, bad=bad: 1 // (piece - bad))
    assert threading.active_count() == before


def test_the_collector_is_on_again(db):
    with pytest.raises(IndexError):
        hits_of([], [0])
    assert gc.isenabled()
    gc.disable()
    try:
        assert len(db.search(QUERY, 3000)) == 3000
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert len(db.search(QUERY, 3000)) == 3000
    assert gc.isenabled()


@pytest.mark.parametrize("width", [2, 3])
def test_rows_whose_codes_mislead(tmp_path, width):
    """In few dimensions the middle of the bounds says little: some of the best do not look it."""
    rows = 12_000
    with ResonanceDB(tmp_path / "y.db") as db:
        db.insert_nodes(id=[f"n{number:05d}" for number in range(rows)], embedding=unit(rows, width, seed=1))
        for query in unit(6, width, seed=2):
            for k in (2000, 3000):
                assert list(db.search(query, k)) == list(db.search(query, k, memory="stream"))
