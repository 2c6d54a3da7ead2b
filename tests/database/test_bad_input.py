"""What cannot be stored is named, column and row; nothing is written, and the database works on."""

import functools
import math
import types

import numpy as np
import pyarrow as pa
import pytest

from resonance import bulk, errors
from resonance.model import Edge, Node
from support import dump, unit


@pytest.fixture
def filled(db):
    """Three nodes, two edges, a space of four dimensions."""
    db.insert_nodes(id=["a", "b", "c"], title=["A", "B", None], embedding=unit(3, 4))
    db.insert_edges(source=["a", "b"], target=["b", "c"], type="t")
    return db


@pytest.fixture(params=["own transaction", "inside a transaction"])
def attempt(request, filled, monkeypatch):
    """Calls something that must fail, and checks that it left no trace."""
    if request.param == "alone":
        monkeypatch.setattr(bulk, "ALONE_FROM_BYTES", 0)

    def run(kind, call):
        before = dump(filled), len(filled.get_history())
        how = {"mode": "shared"} if request.param == "shared" else {}
        if request.param == "inside a transaction":
            filled.begin_transaction()
        with pytest.raises(kind) as caught:
            call(filled, **how)
        assert isinstance(caught.value, errors.InputError)
        if request.param == "inside a transaction":
            assert filled.query("SELECT count(*) FROM nodes") == [(3,)]
            filled.commit()
        assert not filled.get_raw_db().in_transaction
        assert (dump(filled), len(filled.get_history())) == before
        assert filled.get_raw_db().execute("PRAGMA journal_mode") == [("wal",)]
        filled.insert_node({"id": "works", "embedding": [1, 0, 0, 0]})
        filled.insert_edge("works", "a")
        filled.delete_nodes(["works"])
        return caught.value

    return run


def nodes(**columns):
    return lambda db, **how: db.insert_nodes(**columns, **how)


def rows_of_nodes(*rows):
    return lambda db, **how: db.insert_nodes(rows, **how)


def edges(**columns):
    return lambda db, **how: db.insert_edges(**columns, **how)


X, Y, Z = [1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0]

# call, error, column, row
CASES = {
    # ids
    "id None": (nodes(id=["x", None]), errors.InvalidIdError, "id", 1),
    "id empty": (nodes(id=["x", "y", ""]), errors.InvalidIdError, "id", 2),
    "id NUL": (nodes(id=["x\0"]), errors.InvalidIdError, "id", 0),
    "id surrogate": (nodes(id=["x", "\ud800"]), errors.InvalidIdError, "id", 1),
    "id number": (nodes(id=["x", 5]), errors.ColumnError, "id", 1),
    "id bytes": (nodes(id=["x", b"y"]), errors.ColumnError, "id", 1),
    "id float": (nodes(id=["x", math.nan]), errors.ColumnError, "id", 1),
    "one id for all": (nodes(id="x"), errors.ColumnError, "id", None),
    "ids None": (nodes(id=None), errors.ColumnError, "id", None),
    "ids bytes": (nodes(id=b"xyz"), errors.ColumnError, "id", None),
    "ids a number": (nodes(id=5), errors.ColumnError, "id", None),
    "ids 0-d": (nodes(id=np.array("x")), errors.ColumnError, "id", None),
    "ids 2-d": (nodes(id=np.array([["x"], ["y"]])), errors.ColumnError, "id", None),
    "ids of bytes": (nodes(id=np.array([b"x", b"y"])), errors.ColumnError, "id", 0),
    "no ids": (nodes(title=["x"]), errors.ColumnError, "id", None),
    "id twice": (nodes(id=["x", "y", "x"]), errors.DuplicateNodeError, None, 2),
    "id twice, rows": (
        rows_of_nodes({"id": "x"}, {"id": "x", "title": "t"}),
        errors.DuplicateNodeError,
        None,
        1,
    ),
    "id None, row": (rows_of_nodes(Node("x"), Node(None)), errors.InvalidIdError, "id", 1),
    "id missing, row": (rows_of_nodes({"id": "x"}, {"title": "x"}), errors.ColumnError, "id", 1),
    "ids without an order": (nodes(id={"x", "y"}, title=["t", "u"]), errors.ColumnError, "id", None),
    "ids a mapping": (nodes(id={"x": 1}), errors.ColumnError, "id", None),
    "ids masked": (nodes(id=np.ma.array(["x", "y"], mask=[0, 1])), errors.InvalidIdError, "id", 1),
    "id empty, second shape": (
        rows_of_nodes({"id": "x", "title": "t"}, {"id": "y"}, {"id": ""}),
        errors.InvalidIdError,
        "id",
        2,
    ),
    # text
    "title number": (nodes(id=["x", "y"], title=["t", 5]), errors.ColumnError, "title", 1),
    "title surrogate": (nodes(id=["x", "y"], title=["t", "\udfff"]), errors.ColumnError, "title", 1),
    "title surrogate, once for all": (nodes(id=["x"], title="\udfff"), errors.ColumnError, "title", 0),
    "title short": (nodes(id=["x", "y"], title=["t"]), errors.ColumnError, "title", None),
    "title long": (nodes(id=["x"], title=["t", "u"]), errors.ColumnError, "title", None),
    "title long and wrong": (nodes(id=["x"], title=["t", 5]), errors.ColumnError, "title", 1),
    "title a number": (nodes(id=["x"], title=7), errors.ColumnError, "title", None),
    "title, second shape": (
        rows_of_nodes({"id": "x"}, {"id": "y", "title": "t"}, {"id": "z", "title": 5}),
        errors.ColumnError,
        "title",
        2,
    ),
    "unknown column": (nodes(id=["x"], titel=["t"]), errors.ColumnError, "titel", None),
    "unknown key": (rows_of_nodes({"id": "x"}, {"id": "y", "titel": 1}), errors.ColumnError, "titel", 1),
    "keys of two kinds": (rows_of_nodes({"id": "x", 5: 1, "titel": 2}), errors.ColumnError, 5, 0),
    "no node": (rows_of_nodes({"id": "x"}, "y"), errors.ColumnError, None, 1),
    "tuple": (rows_of_nodes(("x", "y")), errors.ColumnError, None, 0),
    "meta list": (nodes(id=["x", "y"], meta=[{}, []]), errors.ColumnError, "meta", 1),
    "meta no JSON": (nodes(id=["x"], meta=['{"a":']), errors.ColumnError, "meta", 0),
    "meta JSON list": (nodes(id=["x", "y"], meta=["{}", "[]"]), errors.ColumnError, "meta", 1),
    "meta NaN": (nodes(id=["x"], meta=[{"a": math.nan}]), errors.ColumnError, "meta", 0),
    "meta object": (nodes(id=["x"], meta=[{"a": object()}]), errors.ColumnError, "meta", 0),
    "meta JSON too large": (nodes(id=["x"], meta=['{"a": -1e999}']), errors.ColumnError, "meta", 0),
    "meta JSON with NaN": (nodes(id=["x"], meta=['{"a": NaN}']), errors.ColumnError, "meta", 0),
    "meta JSON with half a pair": (
        nodes(id=["x", "y"], meta=["{}", r'{"a": "\ud83d"}']),
        errors.ColumnError,
        "meta",
        1,
    ),
    "meta a number": (nodes(id=["x"], meta=5), errors.ColumnError, "meta", None),
    "meta surrogate": (nodes(id=["x", "y"], meta=[{}, {"a": "\ud800"}]), errors.ColumnError, "meta", 1),
    # vectors
    "vector NaN": (
        nodes(id=["x", "y"], embedding=[X, [math.nan, 0, 0, 0]]),
        errors.EmbeddingError,
        "embedding",
        1,
    ),
    "vector infinite": (
        nodes(id=["x"], embedding=[[math.inf, 0, 0, 0]]),
        errors.EmbeddingError,
        "embedding",
        0,
    ),
    "too large for float32": (
        nodes(id=["x"], embedding=np.array([[1e39, 0, 0, 0]])),
        errors.EmbeddingError,
        "embedding",
        0,
    ),
    "wrong width": (nodes(id=["x", "y"], embedding=np.ones((2, 3))), errors.EmbeddingError, "embedding", 0),
    "wrong width, list": (
        nodes(id=["x", "y"], embedding=[X, [1.0, 2]]),
        errors.EmbeddingError,
        "embedding",
        1,
    ),
    "wrong width after None": (
        nodes(id=["x", "y"], embedding=[None, [1.0, 2]]),
        errors.EmbeddingError,
        "embedding",
        1,
    ),
    "wrong width, row": (
        rows_of_nodes(Node("x"), Node("y", embedding=np.ones(5))),
        errors.EmbeddingError,
        "embedding",
        1,
    ),
    "NaN, row": (
        rows_of_nodes(Node("w"), Node("x", embedding=X), Node("y", embedding=[0, 0, math.nan, 1])),
        errors.EmbeddingError,
        "embedding",
        2,
    ),
    "no dimensions": (nodes(id=["x"], embedding=[[]]), errors.EmbeddingError, "embedding", 0),
    "no dimensions, array": (
        nodes(id=["x"], embedding=np.ones((1, 0))),
        errors.EmbeddingError,
        "embedding",
        0,
    ),
    "too few vectors": (nodes(id=["x", "y"], embedding=[X]), errors.ColumnError, "embedding", None),
    "no vectors": (nodes(id=["x"], embedding=[]), errors.ColumnError, "embedding", None),
    "too many vectors": (nodes(id=["x"], embedding=[X, Y]), errors.ColumnError, "embedding", None),
    "one vector for all": (
        nodes(id=["x", "y"], embedding=np.ones(4)),
        errors.EmbeddingError,
        "embedding",
        None,
    ),
    "0-d": (nodes(id=["x"], embedding=np.array(1.0)), errors.EmbeddingError, "embedding", None),
    "3-d": (nodes(id=["x"], embedding=np.ones((1, 2, 2))), errors.EmbeddingError, "embedding", None),
    "number": (nodes(id=["x"], embedding=5), errors.ColumnError, "embedding", None),
    "object array": (
        nodes(id=["x"], embedding=np.array([X], dtype=object)),
        errors.EmbeddingError,
        "embedding",
        None,
    ),
    "complex": (
        nodes(id=["x"], embedding=np.ones((1, 4), dtype=complex)),
        errors.EmbeddingError,
        "embedding",
        None,
    ),
    "bool": (
        nodes(id=["x"], embedding=np.ones((1, 4), dtype=bool)),
        errors.EmbeddingError,
        "embedding",
        None,
    ),
    "text array": (
        nodes(id=["x"], embedding=np.array([["a", "b", "c", "d"]])),
        errors.EmbeddingError,
        "embedding",
        None,
    ),
    "dates": (
        nodes(id=["x"], embedding=np.zeros((1, 4), dtype="M8[s]")),
        errors.EmbeddingError,
        "embedding",
        None,
    ),
    "structured": (
        nodes(id=["x"], embedding=np.zeros((1, 4), dtype=[("a", "f4")])),
        errors.EmbeddingError,
        "embedding",
        None,
    ),
    "masked": (
        nodes(id=["x"], embedding=np.ma.array([X], mask=[[0, 0, 0, 1]])),
        errors.EmbeddingError,
        "embedding",
        None,
    ),
    "masked, row": (
        rows_of_nodes(Node("x"), Node("y", embedding=np.ma.array(X, mask=[0, 0, 0, 1])), Node("z")),
        errors.EmbeddingError,
        "embedding",
        1,
    ),
    "bytes": (nodes(id=["x"], embedding=b"\0" * 16), errors.EmbeddingError, "embedding", None),
    "memoryview of bytes": (
        nodes(id=["x"], embedding=memoryview(bytes(16))),
        errors.EmbeddingError,
        "embedding",
        None,
    ),
    "bytearray": (nodes(id=["x"], embedding=bytearray(16)), errors.EmbeddingError, "embedding", None),
    "bytes in a list": (
        nodes(id=["x", "y"], embedding=[X, b"\0" * 16]),
        errors.EmbeddingError,
        "embedding",
        1,
    ),
    "text in a list": (nodes(id=["x", "y"], embedding=[X, "abcd"]), errors.EmbeddingError, "embedding", 1),
    "bytes, row": (
        rows_of_nodes(Node("x"), {"id": "y", "embedding": b"\0" * 16}),
        errors.EmbeddingError,
        "embedding",
        1,
    ),
    "ragged": (
        nodes(id=["x", "y", "z"], embedding=[X, Y, [1.0, [2.0], 3, 4]]),
        errors.EmbeddingError,
        "embedding",
        2,
    ),
    "text": (nodes(id=["x"], embedding="abcd"), errors.EmbeddingError, "embedding", None),
    # edges
    "no such node": (edges(source=["a", "b"], target=["b", "nobody"]), errors.DanglingEdgeError, None, 1),
    "no such source": (edges(source=["nobody"], target=["a"]), errors.DanglingEdgeError, None, 0),
    "source None": (edges(source=["a", None], target=["b", "c"]), errors.InvalidIdError, "source", 1),
    "target empty": (edges(source=["a"], target=[""]), errors.InvalidIdError, "target", 0),
    "target NUL": (edges(source=["a"], target=["b\0"]), errors.InvalidIdError, "target", 0),
    "target surrogate": (edges(source=["a"], target=["\ud800"]), errors.InvalidIdError, "target", 0),
    "type None": (
        edges(source=["a", "b"], target=["b", "c"], type=["t", None]),
        errors.ColumnError,
        "type",
        1,
    ),
    "type empty": (edges(source=["a"], target=["b"], type=""), errors.ColumnError, "type", 0),
    "type number": (edges(source=["a"], target=["b"], type=[5]), errors.ColumnError, "type", 0),
    "ragged edges": (edges(source=["a", "b"], target=["b"]), errors.ColumnError, "target", None),
    "no target": (edges(source=["a"]), errors.ColumnError, "target", None),
    "source text": (edges(source="a", target=["b"]), errors.ColumnError, "source", None),
    "confidence NaN": (
        edges(source=["a", "b"], target=["b", "c"], confidence=[1, math.nan]),
        errors.ColumnError,
        "confidence",
        1,
    ),
    "confidence NaN for all": (
        edges(source=["a"], target=["b"], confidence=math.nan),
        errors.ColumnError,
        "confidence",
        0,
    ),
    "confidence infinite": (
        edges(source=["a"], target=["b"], veracity=np.array([np.inf])),
        errors.ColumnError,
        "veracity",
        0,
    ),
    "confidence None": (
        edges(source=["a", "b"], target=["b", "c"], confidence=[1, None]),
        errors.ColumnError,
        "confidence",
        1,
    ),
    "confidence masked": (
        edges(source=["a", "b"], target=["b", "c"], confidence=np.ma.array([0.5, 0.5], mask=[0, 1])),
        errors.ColumnError,
        "confidence",
        1,
    ),
    "confidence text": (
        edges(source=["a"], target=["b"], confidence=["0.5"]),
        errors.ColumnError,
        "confidence",
        0,
    ),
    "confidence complex": (
        edges(source=["a"], target=["b"], confidence=np.array([1j])),
        errors.ColumnError,
        "confidence",
        0,
    ),
    "confidence dates": (
        edges(source=["a"], target=["b"], confidence=np.zeros(1, "M8[D]")),
        errors.ColumnError,
        "confidence",
        0,
    ),
    "confidence 2-d": (
        edges(source=["a"], target=["b"], confidence=[[1.0]]),
        errors.ColumnError,
        "confidence",
        0,
    ),
    "confidence huge": (
        edges(source=["a"], target=["b"], confidence=[10**400]),
        errors.ColumnError,
        "confidence",
        None,
    ),
    "confidence short": (
        edges(source=["a", "b"], target=["b", "c"], confidence=[1.0]),
        errors.ColumnError,
        "confidence",
        None,
    ),
    "unknown edge column": (
        edges(source=["a"], target=["b"], weight=[1]),
        errors.ColumnError,
        "weight",
        None,
    ),
    "edge too short": (
        lambda db, **how: db.insert_edges([("a", "b"), ("a",)], **how),
        errors.ColumnError,
        None,
        1,
    ),
    "edge too long": (lambda db, **how: db.insert_edges([("a",) * 7], **how), errors.ColumnError, None, 0),
    "edge text": (lambda db, **how: db.insert_edges(["abc"], **how), errors.ColumnError, None, 0),
    "edge None": (
        lambda db, **how: db.insert_edges([Edge("a", "b"), None], **how),
        errors.ColumnError,
        None,
        1,
    ),
    "edge weight": (
        lambda db, **how: db.insert_edges([Edge("a", "b"), Edge("b", "c", "t", "x")], **how),
        errors.ColumnError,
        "confidence",
        1,
    ),
    # the call itself
    "nothing": (lambda db, **how: db.insert_nodes(**how), errors.InputError, None, None),
    "both": (lambda db, **how: db.insert_nodes([], id=["x"], **how), errors.InputError, None, None),
    "one node": (lambda db, **how: db.insert_nodes(Node("x"), **how), errors.ColumnError, None, None),
    "one mapping": (lambda db, **how: db.insert_nodes({"id": "x"}, **how), errors.ColumnError, None, None),
    "a number": (lambda db, **how: db.insert_nodes(5, **how), errors.ColumnError, None, None),
    "one edge": (lambda db, **how: db.insert_edges(Edge("a", "b"), **how), errors.ColumnError, None, None),
    "no edges": (lambda db, **how: db.insert_edges(**how), errors.InputError, None, None),
    "on_missing": (
        lambda db, **how: db.insert_edges([], on_missing="ignore", **how),
        errors.InputError,
        None,
        None,
    ),
    "history": (lambda db, **how: db.insert_nodes([], history="all", **how), errors.InputError, None, None),
}


# Found only when the transaction is open, and the file perhaps not in WAL mode.
FOUND_LATE = ["no such node", "no such source", "wrong width", "NaN, row", "id empty, second shape"]


@pytest.mark.parametrize("attempt", ["alone", "shared"], indirect=True)
@pytest.mark.parametrize("name", FOUND_LATE)
def test_refused_by_large_and_shared_loads(attempt, name):
    test_refused(attempt, name)


@pytest.mark.parametrize("name", CASES)
def test_refused(attempt, name):
    call, kind, column, row = CASES[name]
    error = attempt(kind, call)
    if isinstance(error, errors.RowsError):
        assert [where for where, _ in error.rows] == [row]
        assert error.count == 1
    else:
        assert getattr(error, "row", None) == row
        assert getattr(error, "column", None) == column
    if row is not None:
        assert f"row {row}" in str(error)
    if column is not None:
        assert repr(column) in str(error)


def test_the_row_is_named_however_far_down(filled):
    """A NaN at row 48,213 of 60,000."""
    vectors = np.random.default_rng(1).normal(size=(60_000, 4))
    vectors[48_213, 2] = math.nan
    vectors[51_000, 0] = math.inf
    ids = [f"n{number}" for number in range(60_000)]
    before = dump(filled)
    for given in (vectors, vectors.astype("f4"), list(vectors)):
        with pytest.raises(errors.EmbeddingError, match="row 48213") as caught:
            filled.insert_nodes(id=ids, embedding=given)
        assert caught.value.row == 48_213
    rows = [{"id": node_id, "embedding": vector} for node_id, vector in zip(ids, vectors, strict=True)]
    with pytest.raises(errors.EmbeddingError, match="row 48213"):
        filled.insert_nodes(rows)
    assert dump(filled) == before


def test_the_first_vectors_have_one_width_whatever_else_their_rows_name(db):
    rows = [Node("x", embedding=X), Node("y", title="t"), Node("z", title="t", embedding=[1, 0, 0])]
    with pytest.raises(errors.EmbeddingError, match="row 2: 3 dimensions") as caught:
        db.insert_nodes(rows)
    assert caught.value.row == 2
    assert (db.space, db.get_nodes()) == (None, [])


def test_short_tuples_of_edges_leave_the_rest_alone(filled):
    """What none of them names stays; where they differ, the shorter ones have what an Edge has."""
    filled.insert_semantic_edge("a", "c", "T", 0.5, 0.4, "context")
    assert filled.insert_edges([("a", "c", "T")]).unchanged == 1
    edge = filled.get_edges("a", type="T")[0]
    assert (edge.confidence, edge.veracity, edge.context_source) == (0.5, 0.4, "context")
    assert filled.insert_edges([("a", "c", "T", 0.25)]).updated == 1
    edge = filled.get_edges("a", type="T")[0]
    assert (edge.confidence, edge.veracity, edge.context_source) == (0.25, 0.4, "context")
    assert filled.insert_edges([("a", "c", "T"), ("a", "b", "U", 0.75)]).updated == 1
    assert filled.get_edges("a", type="T")[0].confidence == 1
    assert filled.insert_edges([Edge("a", "c", "T")]).updated == 1
    assert filled.get_edges("a", type="T")[0].context_source is None


def test_first_rows_are_named_and_the_rest_counted(filled):
    with pytest.raises(errors.DuplicateNodeError) as caught:
        filled.insert_nodes(id=["x"] * 100)
    assert (len(caught.value.rows), caught.value.count) == (20, 99)
    assert "and 79 more" in str(caught.value)
    with pytest.raises(errors.DanglingEdgeError) as caught:
        filled.insert_edges(source=["a"] * 50 + ["b"], target=["nobody"] * 50 + ["c"])
    assert (len(caught.value.rows), caught.value.count) == (20, 50)
    assert [row for row, _ in caught.value.rows] == list(range(20))
    assert "target 'nobody'" in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, 5.0, 0.0])
@pytest.mark.parametrize("given", ["float32", "float64", "Arrow"])
@pytest.mark.parametrize("how", ["poured", "row by row", "shared"])
def test_a_vector_that_changes_while_it_is_written(filled, monkeypatch, value, given, how):
    monkeypatch.setattr(bulk, "SLICE", 16)
    monkeypatch.setattr(bulk, "SHARED_HOLD", 0)
    monkeypatch.setattr(bulk, "POURED_FROM", 0 if how == "poured" else 1 << 30)
    vectors = unit(200, 4).astype("f4")
    table = {"id": [f"n{number:03}" for number in range(200)], "embedding": vectors}
    if given == "Arrow":
        flat = pa.Array.from_buffers(pa.float32(), vectors.size, [None, pa.py_buffer(vectors)])
        lists = pa.FixedSizeListArray.from_arrays(flat, 4)
        call = {"nodes": pa.table({**table, "embedding": lists})}
    else:
        # What is converted is a copy, and nobody can change it.
        call = {**table, "embedding": vectors.astype(given, copy=False)}
    before = dump(filled), filled.get_history()

    def meddle(done, total):
        vectors[-1].fill(value)

    load = functools.partial(
        filled.insert_nodes, *filter(None, [call.pop("nodes", None)]), **call, progress=meddle
    )
    mode = "shared" if how == "shared" else "exclusive"
    if given == "float64":
        load(mode=mode)
        assert np.allclose(np.linalg.norm(filled.embeddings().vectors, axis=1), 1)
        return
    with pytest.raises(errors.EmbeddingError, match="row 199: the vector was changed") as caught:
        load(mode=mode)
    assert caught.value.row == 199
    if mode == "exclusive":
        assert (dump(filled), filled.get_history()) == before
    assert np.allclose(np.linalg.norm(filled.embeddings().vectors, axis=1), 1)
    assert filled.search(X, k=1)
    filled.insert_node({"id": "works"})


def test_a_weight_that_changes_while_it_is_written(filled, monkeypatch):
    monkeypatch.setattr(bulk, "SLICE", 16)
    ids = [f"n{number:03}" for number in range(200)]
    filled.insert_nodes(id=ids)
    weights = np.full(199, 0.5)

    def meddle(done, total):
        weights.fill(math.nan)

    filled.insert_edges(source=ids[:-1], target=ids[1:], confidence=weights, progress=meddle)
    assert filled.query("SELECT DISTINCT confidence FROM edges WHERE source LIKE 'n%'") == [(0.5,)]


def test_a_generator_that_raises_half_way(filled):
    def broken():
        yield Node("x")
        yield Node("y")
        raise ZeroDivisionError

    def broken_ids():
        yield "x"
        raise ZeroDivisionError

    before = dump(filled), filled.get_history()
    for call in (
        lambda: filled.insert_nodes(broken()),
        lambda: filled.insert_nodes(id=broken_ids()),
        lambda: filled.insert_nodes(id=["x"], title=broken_ids()),
        lambda: filled.insert_nodes(id=["x"], embedding=broken_ids()),
        lambda: filled.insert_edges(broken()),
        lambda: filled.insert_edges(source=broken_ids(), target=["a"]),
        lambda: filled.insert_edges(source=["a"], target=["b"], confidence=broken_ids()),
        lambda: filled.delete_nodes(broken_ids()),
    ):
        with pytest.raises((ZeroDivisionError, errors.ColumnError)):
            call()
        assert not filled.get_raw_db().in_transaction
    assert (dump(filled), filled.get_history()) == before


class Awkward:
    def __init__(self, error):
        self.error = error

    def __len__(self):
        raise self.error

    __iter__ = __len__

    def __array__(self, *arguments, **options):
        raise self.error


def test_objects_that_raise_when_looked_at(filled):
    before = dump(filled)
    awkward = Awkward(ZeroDivisionError())
    for call in (
        lambda: filled.insert_nodes(id=awkward),
        lambda: filled.insert_nodes(id=["x"], title=awkward),
        lambda: filled.insert_nodes(id=["x"], embedding=awkward),
        lambda: filled.insert_edges(source=["a"], target=["b"], confidence=awkward),
        lambda: filled.search(awkward),
    ):
        with pytest.raises(ZeroDivisionError):
            call()
        assert not filled.get_raw_db().in_transaction
    assert dump(filled) == before


def test_what_is_fine_all_the_same(filled):
    """Any float type, byte order and layout; empty batches; text with a NUL that is no id."""
    for number, array in enumerate(
        [
            np.array([X, Y], dtype="<f8"),
            np.array([X, Y], dtype=">f4"),
            np.array([X, Y], dtype=">f8"),
            np.array([X, Y], dtype="f2"),
            np.array([X, Y], dtype=np.longdouble),
            np.array([[2, 0, 0, 0], [0, 3, 0, 0]], dtype="i8"),
            np.array([X, Z, Y, Z])[::2],
            np.asfortranarray([X, Y]),
            np.array([[*X, *Z], [*Y, *Z]])[:, :4],
            [np.array(X), np.array(Y, dtype=">f4")],
            (tuple(X), Y),
            np.ma.array([X, Y]),
            memoryview(np.array([X, Y])),
        ]
    ):
        ids = [f"{number}-0", f"{number}-1"]
        filled.insert_nodes(id=ids, embedding=array)
        for node_id, wanted in zip(ids, (X, Y), strict=True):
            assert filled.get_node(node_id).embedding.tolist() == wanted
    for call in (
        lambda: filled.insert_nodes(id=[]),
        lambda: filled.insert_nodes([]),
        lambda: filled.insert_nodes(id=[], embedding=np.ones((0, 4))),
        lambda: filled.insert_nodes(id=[], embedding=np.ones((0, 9))),
        lambda: filled.insert_nodes(id=[], embedding=[]),
        lambda: filled.insert_nodes(id=[], embedding=np.array([])),
        lambda: filled.insert_nodes(id=[], title="x"),
        lambda: filled.insert_edges([]),
        lambda: filled.insert_edges(source=[], target=[]),
    ):
        assert call().rows == 0
    filled.insert_nodes(id=["mapping"], meta=[types.MappingProxyType({"a": 1})])
    assert filled.get_node("mapping").meta == {"a": 1}
    filled.insert_nodes(id=["pair"], meta=[r'{"a": "\ud83d\ude00"}'])
    assert filled.get_node("pair").meta == {"a": "😀"}
    filled.insert_node({"id": "NUL", "title": "a\0b", "summary": ""})
    assert filled.get_node("NUL").title == "a\0b"
    assert filled.get_node("NUL").summary == ""
    filled.insert_edge("a", "a", "self")
    assert filled.get_edges("a", type="self") == [Edge("a", "a", "self")]
