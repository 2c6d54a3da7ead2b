"""Which Python values become which SQLite values, and which are refused."""

import array
import datetime
import decimal
import math
import re
import struct

import numpy as np
import pytest

from resonance import errors


def shown(value):
    """The same in every process that runs these tests: without the address of an object."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))[:30]


def stored(connection, value):
    return connection.execute("SELECT typeof(?1), ?1", (value,))[0]


@pytest.mark.parametrize(
    ("value", "kind", "read"),
    [
        (None, "null", None),
        (True, "integer", 1),
        (False, "integer", 0),
        (0, "integer", 0),
        (2**63 - 1, "integer", 2**63 - 1),
        (-(2**63), "integer", -(2**63)),
        (1.5, "real", 1.5),
        (-0.0, "real", -0.0),
        (5e-324, "real", 5e-324),
        (math.inf, "real", math.inf),
        (-math.inf, "real", -math.inf),
        ("", "text", ""),
        ("plain", "text", "plain"),
        ("a\0b\0", "text", "a\0b\0"),
        ("🦊 日本語 é é", "text", "🦊 日本語 é é"),
        ("\x7f\x01\n", "text", "\x7f\x01\n"),
        (b"", "blob", b""),
        (b"\0\xff", "blob", b"\0\xff"),
        (bytearray(b"ab"), "blob", b"ab"),
        (bytearray(), "blob", b""),
        (memoryview(b"abcdef")[2:4], "blob", b"cd"),
        (memoryview(b""), "blob", b""),
        (array.array("f", [1.0]), "blob", struct.pack("f", 1.0)),
        (np.array([1, 2], dtype="<f4"), "blob", struct.pack("<2f", 1, 2)),
        (np.zeros(0, dtype="<f4"), "blob", b""),
        (np.array([(1, 2.5)], dtype=[("Other", "<i4"), ("x", "<f8")]), "blob", struct.pack("<id", 1, 2.5)),
        (np.float64(1.5), "real", 1.5),
        (np.float32(0.1), "real", float(np.float32(0.1))),
        (np.float16(2), "real", 2.0),
        (np.longdouble(1.5), "real", 1.5),
        (np.int64(-5), "integer", -5),
        (np.uint64(2**63 - 1), "integer", 2**63 - 1),
        (np.uint8(7), "integer", 7),
        (np.bool_(True), "integer", 1),
        (np.str_("x"), "text", "x"),
        (np.bytes_(b"x"), "blob", b"x"),
    ],
    ids=shown,
)
def test_kept_as_it_is(connection, value, kind, read):
    assert stored(connection, value) == (kind, read)
    if isinstance(read, float):
        assert math.copysign(1, stored(connection, value)[1]) == math.copysign(1, read)


class Text(str):
    __slots__ = ()


class Number(int):
    def __index__(self):
        raise AssertionError("not asked")


def test_subclasses_count_as_what_they_are(connection):
    assert stored(connection, Text("x")) == ("text", "x")
    assert stored(connection, Number(5)) == ("integer", 5)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (2**63, "64 bits"),
        (-(2**63) - 1, "64 bits"),
        (np.uint64(2**63), "64 bits"),
        (math.nan, "NaN"),
        (np.float32("nan"), "NaN"),
        ("\ud800", "surrogate"),
        ("good \udfff bad", "surrogate"),
        (datetime.datetime(2024, 1, 1), "datetime"),
        (datetime.date(2024, 1, 1), "date"),
        (np.datetime64("2024-01-01", "ns"), "datetime64"),
        (np.timedelta64(1, "D"), "timedelta64"),
        (decimal.Decimal("1.5"), "Decimal"),
        (1j, "complex"),
        (np.complex64(1), "complex"),
        ([1], "list"),
        ({}, "dict"),
        (object(), "object"),
        (np.array([object()]), "addresses"),
        (np.array([(1, "x")], dtype=[("a", "i4"), ("b", "O")]), "addresses"),
        (memoryview(np.array(["x"], dtype=object)), "addresses"),
        (np.arange(6)[::2], "contiguous"),
        (np.array(["2024"], dtype="M8[D]"), "cannot be stored"),
    ],
    ids=shown,
)
def test_refused(connection, value, says):
    connection.execute("CREATE TABLE t (a)")
    with pytest.raises(errors.ColumnError, match=says):
        connection.execute("INSERT INTO t VALUES (?)", (value,))
    with pytest.raises(errors.ColumnError, match=says):
        connection.executemany("INSERT INTO t VALUES (?)", [(1,), (value,)])
    assert connection.execute("SELECT a FROM t") == [(1,)], "only the row before it, which has no transaction"
    with pytest.raises(errors.ColumnError, match=says):
        connection.execute("SELECT :a", {"a": value})


def test_a_released_buffer(connection):
    view = memoryview(b"abc")
    view.release()
    with pytest.raises(errors.ColumnError):
        connection.execute("SELECT ?", (view,))


def test_the_value_is_copied(connection):
    value = bytearray(b"before")
    statement = connection.prepare("SELECT ?")
    statement.bind_values((value,))
    value[:] = b"after!"
    value.clear()
    assert next(statement) == (b"before",)


def test_by_position_and_by_name(connection):
    assert connection.execute("SELECT ?, ?", [1, 2]) == [(1, 2)]
    assert connection.execute("SELECT ?2, ?1", (1, 2)) == [(2, 1)]
    assert connection.execute("SELECT :b, @a, $b", {"a": 1, "b": 2, "c": 3}) == [(2, 1, 2)]
    assert connection.execute("SELECT ?1, ?1", {"1": 5}) == [(5, 5)]
    assert connection.execute("SELECT ?, ?", iter((1, 2))) == [(1, 2)]


@pytest.mark.parametrize(
    ("sql", "parameters", "says"),
    [
        ("SELECT ?", (), "0 values for 1"),
        ("SELECT ?", (1, 2), "2 values for 1"),
        ("SELECT 1", (1,), "1 values for 0"),
        ("SELECT ?3", (1, 2), "2 values for 3"),
        ("SELECT :a", {"b": 1}, "parameter a"),
        ("SELECT ?", {"a": 1}, "parameter 1"),
        ("SELECT ?", "x", "tuple"),
        ("SELECT ?", b"x", "tuple"),
        ("SELECT ?", 5, "tuple"),
        ("SELECT ?", None, "tuple"),
    ],
)
def test_wrong_parameters(connection, sql, parameters, says):
    with pytest.raises(errors.ColumnError, match=says):
        connection.execute(sql, parameters)
    assert connection.execute("SELECT 1") == [(1,)]


def test_bindings_are_forgotten_between_runs(connection):
    statement = connection.prepare("SELECT ?")
    assert statement.execute((5,)) == [(5,)]
    with pytest.raises(errors.ColumnError):
        statement.execute(())
    statement.bind_values((6,))
    statement.reset()
    assert next(statement) == (None,)


@pytest.mark.parametrize("data", [b"\xff", b"abc\xc3", b"\xed\xa0\x80", b"ok\0\xfe"])
def test_stored_text_that_is_not_utf8(connection, data):
    connection.execute("CREATE TABLE t (id, name)")
    connection.execute("INSERT INTO t VALUES (1, CAST(? AS TEXT)), (2, 'fine')", (data,))
    with pytest.raises(errors.CorruptRowError, match="'name'"):
        connection.execute("SELECT id, name FROM t ORDER BY id")
    assert connection.execute("SELECT CAST(name AS BLOB) FROM t WHERE id = 1") == [(data,)]
    rows = connection.prepare("SELECT id, name FROM t ORDER BY id")
    with pytest.raises(errors.CorruptRowError):
        next(rows)
    assert next(rows) == (2, "fine"), "the rows after it can be read"
    rows.close()


def test_a_column_name_that_is_not_utf8_free(connection):
    assert connection.prepare('SELECT 1 AS "ü 🦊"').columns == ("ü 🦊",)
