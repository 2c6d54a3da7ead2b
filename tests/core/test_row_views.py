"""A view of a row's bytes never dangles and never shows another row's bytes."""

import gc
import itertools

import numpy as np
import pytest

from resonance import errors
from resonance._core import Connection
from support import Background, in_child

VECTORS = np.arange(20, dtype="f4").reshape(5, 4)


@pytest.fixture
def rows(connection):
    connection.execute("CREATE TABLE nodes (id INTEGER PRIMARY KEY, embedding BLOB)")
    connection.executemany("INSERT INTO nodes (embedding) VALUES (?)", [(vector,) for vector in VECTORS])
    statement = connection.prepare("SELECT embedding FROM nodes ORDER BY id")
    yield statement
    del statement


def first(rows):
    next(rows)
    return rows.blob(0)


def test_a_view_is_the_row_itself(rows):
    view = memoryview(first(rows))
    assert view.readonly
    assert view.nbytes == 16
    assert np.array_equal(np.frombuffer(view, "f4"), VECTORS[0])
    view.release()
    assert rows.execute() == [(vector.tobytes(),) for vector in VECTORS]


def test_a_view_is_no_copy_and_cannot_be_written(rows):
    next(rows)
    one, two = (np.frombuffer(rows.blob(0), "f4") for _ in range(2))
    assert one.__array_interface__["data"][0] == two.__array_interface__["data"][0]
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 1


def test_the_next_row_waits_for_the_view(rows):
    seen = []
    for number in range(5):
        blob = first(rows)
        array = np.frombuffer(blob, "f4")
        with pytest.raises(BufferError, match="1 views"):
            next(rows)
        assert np.array_equal(array, VECTORS[number])
        del array
        seen.append(blob)
    for blob in seen[:-1]:
        with pytest.raises(BufferError, match="moved on"):
            memoryview(blob)
    assert bytes(seen[-1]) == VECTORS[4].tobytes()


REFUSED = {
    "step": lambda rows, connection: next(rows),
    "execute": lambda rows, connection: rows.execute(),
    "bind": lambda rows, connection: rows.bind_values(),
    "reset": lambda rows, connection: rows.reset(),
    "close": lambda rows, connection: rows.close(),
    "close the connection": lambda rows, connection: connection.close(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_while_a_view_lives(rows, connection, name):
    view = memoryview(first(rows))
    again = memoryview(view)
    with pytest.raises(BufferError, match="views of the current row are still alive"):
        REFUSED[name](rows, connection)
    assert bytes(view) == VECTORS[0].tobytes()
    view.release()
    with pytest.raises(BufferError):
        REFUSED[name](rows, connection)
    again.release()
    REFUSED[name](rows, connection)


@pytest.mark.parametrize("name", REFUSED)
def test_no_view_of_a_row_that_is_gone(rows, connection, name):
    blob = first(rows)
    REFUSED[name](rows, connection)
    with pytest.raises(BufferError):
        memoryview(blob)
    assert len(blob) == 16


EVENTS = {
    "step": lambda held: next(held["rows"]),
    "reset": lambda held: held["rows"].reset(),
    "close": lambda held: held["connection"].close(),
    "drop the statement": lambda held: held.pop("rows", None),
    "drop the connection": lambda held: held.pop("connection", None),
    "drop the blob": lambda held: held.pop("blob", None),
    "another thread": lambda held: Background(held["rows"].execute).result(),
    "fork": lambda held: in_child(lambda: bytes(held["view"]) == VECTORS[0].tobytes()),
}


@pytest.mark.parametrize("order", list(itertools.permutations(EVENTS, 2)), ids="-".join)
def test_in_any_order(tmp_path, order):
    """Whatever else happens, the bytes behind a living view stay as they were."""
    held = {"connection": Connection(tmp_path / "x.db")}
    held["connection"].execute("CREATE TABLE nodes (id INTEGER PRIMARY KEY, embedding BLOB)")
    held["connection"].executemany(
        "INSERT INTO nodes (embedding) VALUES (?)", [(vector,) for vector in VECTORS]
    )
    held["rows"] = held["connection"].prepare("SELECT embedding FROM nodes ORDER BY id")
    next(held["rows"])
    held["blob"] = held["rows"].blob(0)
    held["view"] = memoryview(held["blob"])
    for name in order:
        try:
            EVENTS[name](held)
        except (BufferError, KeyError):
            continue
        finally:
            gc.collect()
            assert bytes(held["view"]) == VECTORS[0].tobytes()
    held["view"].release()
    if "connection" in held:
        held["connection"].close()


def test_the_connection_works_on_while_a_row_is_pinned(rows, connection):
    view = memoryview(first(rows))
    connection.execute("UPDATE nodes SET embedding = zeroblob(16)")
    connection.execute("INSERT INTO nodes (embedding) VALUES (zeroblob(100000))")
    connection.execute("DELETE FROM nodes WHERE id > 1")
    assert bytes(view) == VECTORS[0].tobytes()
    view.release()


def test_a_rollback_leaves_the_view_alone(rows, connection):
    connection.execute("BEGIN")
    view = memoryview(first(rows))
    connection.execute("UPDATE nodes SET embedding = zeroblob(16)")
    connection.execute("ROLLBACK")
    assert bytes(view) == VECTORS[0].tobytes()
    view.release()


def test_what_is_no_blob(connection):
    rows = connection.prepare("SELECT 1, 'text', NULL, x'', x'00ff'")
    with pytest.raises(errors.ColumnError, match="step first"):
        rows.blob(0)
    next(rows)
    for column in (0, 1):
        with pytest.raises(errors.ColumnError, match="not a BLOB"):
            rows.blob(column)
    assert rows.blob(2) is None
    assert bytes(rows.blob(3)) == b""
    assert bytes(rows.blob(4)) == b"\0\xff"
    for column in (-1, 5, 2**31 - 1):
        with pytest.raises(errors.ColumnError):
            rows.blob(column)
    assert list(rows) == []
    with pytest.raises(errors.ColumnError, match="step first"):
        rows.blob(0)
