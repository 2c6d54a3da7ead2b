"""Arrow in and out: every layout a producer may choose gives the same rows as plain lists."""

import ctypes
import json

import numpy as np
import pytest

from resonance import ResonanceDB, ResonanceError
from resonance.errors import ColumnError, CorruptRowError, DuplicateNodeError, EmbeddingError, InvalidIdError
from support import dump, unit

pa = pytest.importorskip("pyarrow")

IDS = ["a", "bé", "日本語のとても長いノート", "d" * 40]
TITLES = ["A", None, "", "longer than the twelve bytes a string view holds"]


def vectors():
    return unit(4, 8)


def fixed_size(values):
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "plain.db"
    with ResonanceDB(path) as db:
        db.insert_nodes(id=IDS, title=TITLES, embedding=vectors(), meta=[{"n": i} for i in range(4)])
        return dump(db)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
@pytest.mark.parametrize("encode", [False, True], ids=["plain", "dictionary"])
def test_every_string_layout_gives_the_same_nodes(db, plain, kind, encode):
    def column(values):
        array = pa.array(values, kind)
        return array.cast(pa.string()).dictionary_encode() if encode else array

    table = pa.table(
        {
            "id": column(IDS),
            "title": column(TITLES),
            "embedding": fixed_size(vectors()),
            "meta": pa.array([f'{{"n":{i}}}' for i in range(4)], kind),
        }
    )
    report = db.insert_nodes(table)
    assert (report.rows, report.inserted) == (4, 4)
    assert dump(db) == plain


@pytest.mark.parametrize("index", [pa.int8(), pa.uint8(), pa.int16(), pa.uint32(), pa.int64()], ids=str)
def test_every_width_of_dictionary_index_is_read(db, index):
    encoded = pa.DictionaryArray.from_arrays(pa.array([1, 0, None, 1], index), pa.array(["note", "tag"]))
    db.insert_nodes(pa.table({"id": IDS, "type": encoded}))
    assert [db.get_node(i).type for i in IDS] == ["tag", "note", None, "tag"]


def test_slices_and_chunks_start_where_they_say(db, plain):
    table = pa.table(
        {
            "id": ["x", *IDS, "y"],
            "title": ["x", *TITLES, "y"],
            "embedding": fixed_size(np.vstack([vectors()[:1], vectors(), vectors()[:1]])),
            "meta": ["{}", *[f'{{"n":{i}}}' for i in range(4)], "{}"],
        }
    )
    chunks = pa.concat_tables([table.slice(1, 1), table.slice(2, 2), table.slice(4, 1)])
    assert chunks.column("id").num_chunks == 3
    db.insert_nodes(chunks)
    assert dump(db) == plain


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16(), 8)], ids=str
)
def test_lists_of_any_float_are_vectors_and_null_is_none(db, kind):
    values = [vectors()[0].astype("f2").tolist(), None]
    db.insert_nodes(pa.table({"id": ["a", "b"], "embedding": pa.array(values, kind)}))
    want = np.asarray(values[0], dtype="f4")
    assert np.allclose(db.get_node("a").embedding, want / np.linalg.norm(want), atol=1e-6)
    assert db.get_node("b").embedding is None


def test_edges_come_from_a_table_too(db):
    db.insert_nodes(id=["a", "b"])
    table = pa.table({"source": ["a", "b"], "target": ["b", "a"], "confidence": pa.array([0.25, 1], "f4")})
    assert db.insert_edges(table).inserted == 2
    assert db.get_edges("a")[0].confidence == 0.25


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_any_width_of_number_is_read(db, kind):
    db.insert_nodes(id=["a", "b"])
    weights = pa.array(np.array([1, 0], dtype=kind))
    db.insert_edges(pa.table({"source": ["a", "b"], "target": ["b", "a"], "confidence": weights}))
    assert [db.get_edges(name, direction="out")[0].confidence for name in "ab"] == [1, 0]


def test_numbers_may_be_a_dictionary(db):
    db.insert_nodes(id=list("abcd"))
    weights = pa.array([9.0, 0.75, 0.25, 0.75]).dictionary_encode()[1:]
    table = pa.table({"source": list("abc"), "target": list("bcd"), "confidence": weights})
    db.insert_edges(table)
    db.insert_edges(
        pa.table({"source": ["d"], "target": ["a"], "confidence": pa.array([0.5]).dictionary_encode()})
    )
    found = db.query("SELECT source, confidence FROM edges ORDER BY source")
    assert found == [("a", 0.75), ("b", 0.25), ("c", 0.75), ("d", 0.5)]
    for values, says in (([0.5, None], "row 1: null"), (["x", "y"], "dictionary of one")):
        bad = {"source": ["a", "b"], "target": ["b", "c"], "confidence": pa.array(values).dictionary_encode()}
        with pytest.raises(ColumnError, match=says):
            db.insert_edges(pa.table(bad))
    assert db.query("SELECT source, confidence FROM edges ORDER BY source") == found


START = pa.array([0], pa.int32())


def union(make):
    return make(pa.array([0], pa.int8()), [pa.array(["text"]), pa.array([1])])


def bad_tables():
    good = vectors()
    broken = good.copy()
    broken[2, 3] = np.nan
    inner_null = pa.FixedSizeListArray.from_arrays(pa.array([1.0, None, 1.0, 2.0], pa.float32()), 2)
    return {
        "null id": ({"id": ["a", None]}, InvalidIdError, "row 1"),
        "empty id": ({"id": ["a", ""]}, InvalidIdError, "row 1"),
        "NUL in id": ({"id": ["a", "b\0"]}, InvalidIdError, "row 1"),
        "numbers as ids": ({"id": [1, 2]}, ColumnError, "'id'"),
        "not UTF-8": ({"id": pa.array([b"a", b"\xff"])}, InvalidIdError, "row 1: is not UTF-8"),
        "duplicate id": ({"id": ["a", "b", "a"]}, DuplicateNodeError, "row 2"),
        "NaN": ({"id": IDS, "embedding": fixed_size(broken)}, EmbeddingError, "row 2"),
        "null in a vector": ({"id": ["a", "b"], "embedding": inner_null}, EmbeddingError, "row 0"),
        "ragged": ({"id": ["a", "b"], "embedding": [[1.0, 2.0], [1.0]]}, EmbeddingError, "row 1: 1"),
        "text as vector": ({"id": ["a"], "embedding": ["x"]}, EmbeddingError, "'embedding'"),
        "integers as vector": ({"id": ["a"], "embedding": [[1, 2]]}, EmbeddingError, "'embedding'"),
        "meta not an object": ({"id": ["a", "b"], "meta": ["{}", "[1]"]}, ColumnError, "'meta', row 1"),
        "unknown column": ({"id": ["a"], "content": ["text"]}, ColumnError, "'content'"),
        "meta with more behind it": ({"id": ["a"], "meta": ['{"a":1}\0x']}, ColumnError, "'meta', row 0"),
        "meta with half a pair": ({"id": ["a"], "meta": [r'{"a":"\uD83D"}']}, ColumnError, "'meta', row 0"),
        "meta with a number too long to read": (
            {"id": ["a", "b"], "meta": ["{}", f'{{"a":{"1" * 5000}}}']},
            ColumnError,
            "'meta', row 1",
        ),
        "meta too deep to read": (
            {"id": ["a"], "meta": [f'{{"a":{"[" * 999}{"]" * 999}}}']},
            ColumnError,
            "'meta', row 0",
        ),
        "union": ({"id": ["a"], "title": union(pa.UnionArray.from_sparse)}, ColumnError, "'title': .*us"),
        "dense union": (
            {
                "id": ["a"],
                "title": union(lambda kinds, values: pa.UnionArray.from_dense(kinds, START, values)),
            },
            ColumnError,
            "'title': .*ud",
        ),
        "no id": ({"title": ["a"]}, ColumnError, "'id' is missing"),
        "twice": (
            pa.table([pa.array(["a"]), pa.array(["t"]), pa.array(["u"])], names=["id", "title", "title"]),
            ColumnError,
            "two columns are called 'title'",
        ),
    }


def test_the_index_of_pandas_and_columns_of_nothing_are_let_be(db):
    table = pa.table({"id": ["a"], "embedding": pa.nulls(1), "title": pa.nulls(1), "__index_level_0__": [7]})
    assert db.insert_nodes(table).inserted == 1
    assert db.get_node("a").embedding is None


@pytest.mark.parametrize("name", bad_tables())
def test_a_bad_table_is_refused_whole_by_name_and_row(db, name):
    columns, error, says = bad_tables()[name]
    db.insert_node({"id": "stays", "title": "as it is"})
    before = dump(db)
    with pytest.raises(error, match=says):
        db.insert_nodes(columns if isinstance(columns, pa.Table) else pa.table(columns))
    assert dump(db) == before
    db.insert_node({"id": "still works"})


def test_what_json_may_hold(db):
    deep = f'{{"a":{"[" * 200}{"]" * 200}}}'
    metas = [r'{"a":"\ud83d\ude00"}', deep, f'{{"a":{"1" * 2000}}}', r'{"a":"\\ud83d"}']
    db.insert_nodes(pa.table({"id": list("abcd"), "meta": metas}))
    assert [db.get_node(name).meta for name in "abcd"] == [json.loads(meta) for meta in metas]


def test_a_row_that_is_null_is_named_whatever_its_fields_hold(db):
    fields = [pa.array(["a", "b", "c"]), pa.array(["A", "B", "C"])]
    mask = pa.array([False, False, True])
    rows = pa.StructArray.from_arrays(fields, ["id", "title"], mask=mask)
    chunks = pa.chunked_array([rows.slice(0, 1), rows.slice(1)])
    with pytest.raises(ColumnError, match="row 2: null") as caught:
        db.insert_nodes(chunks)
    assert (caught.value.row, db.get_nodes()) == (2, [])
    assert db.insert_nodes(pa.chunked_array([rows.slice(0, 2)])).inserted == 2


class Given:
    """Hands over what it was given."""

    def __init__(self, capsule):
        self.capsule = capsule

    def __arrow_c_stream__(self, requested_schema=None):
        return self.capsule


def test_a_stream_is_read_once(db):
    spent = pa.table({"id": ["a"]}).__arrow_c_stream__()
    pa.RecordBatchReader._import_from_c_capsule(spent)
    ours = Given(pa.table({"id": ["a"]}).__arrow_c_stream__())
    assert db.insert_nodes(ours).inserted == 1
    for given in (Given(spent), ours):
        with pytest.raises(ColumnError, match="read already"):
            db.insert_nodes(given)
    for wrong in (None, 5, pa.schema({"id": pa.string()}).__arrow_c_schema__()):
        with pytest.raises(ColumnError, match="no Arrow stream"):
            db.insert_nodes(Given(wrong))


@pytest.mark.parametrize(("name", "says"), [(None, "called ''"), (b"\xff\0", "column 1 .* not UTF-8")])
def test_columns_without_a_name_or_with_one_that_is_no_text(db, name, says):
    """The format allows the one, and cannot keep anybody from the other."""
    capsule = pa.table({"id": ["a"], "title": ["A"]}).__arrow_c_stream__()
    address = ctypes.pythonapi.PyCapsule_GetPointer
    address.restype, address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    first = ctypes.c_void_p.from_address(address(capsule, b"arrow_array_stream"))
    get_schema = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    original = get_schema(first.value)

    @get_schema
    def renamed(stream, schema):
        failed = original(stream, schema)
        # format, name, metadata, flags, n_children, children: each of eight bytes.
        children = ctypes.c_void_p.from_address(schema + 5 * 8).value
        second = ctypes.c_void_p.from_address(children + 8).value
        ctypes.c_char_p.from_address(second + 8).value = name
        return failed

    first.value = ctypes.cast(renamed, ctypes.c_void_p).value
    with pytest.raises(ColumnError, match=says):
        db.insert_nodes(Given(capsule))


def test_a_stream_that_fails_half_way_writes_nothing(db):
    def batches():
        yield pa.record_batch({"id": ["a", "b"]})
        raise OSError("the disk went away")

    reader = pa.RecordBatchReader.from_batches(pa.schema({"id": pa.string()}), batches())
    with pytest.raises(ColumnError, match=r"failed after 2 rows.*the disk went away"):
        db.insert_nodes(reader)
    assert db.get_nodes() == []


def test_what_goes_out_comes_in_again(db, tmp_path):
    db.insert_nodes(
        id=IDS, title=TITLES, embedding=[vectors()[0], None, vectors()[2], None], meta=[{"x": 1}] + [None] * 3
    )
    db.insert_edges([("a", "bé"), ("bé", "a", "t", 0.5, 0.25, "why")])
    with ResonanceDB(tmp_path / "copy.db") as copy:
        copy.insert_nodes(db.to_arrow())
        copy.insert_edges(db.to_arrow("edges"))
        assert dump(copy, ("nodes", "edges")) == dump(db, ("nodes", "edges"))


def test_the_matrix_is_handed_over_without_copying_its_vectors(db):
    db.insert_nodes(id=IDS, embedding=vectors())
    matrix = db.embeddings()
    table = pa.table(matrix)
    assert table.column("id").to_pylist() == matrix.ids
    values = table.column("embedding").chunk(0).flatten()
    assert values.buffers()[1].address == matrix.vectors.__array_interface__["data"][0]
    assert np.array_equal(values.to_numpy().reshape(4, 8), matrix.vectors)


def test_exports_are_refused_by_name(db):
    with pytest.raises(ResonanceError, match="'files'"):
        db.to_arrow("files")
    with pytest.raises(ResonanceError, match="no table"):
        db.to_arrow(["nodes"])
    with pytest.raises(ResonanceError, match="filters are for nodes"):
        db.to_arrow("edges", type="CITES")


def test_text_that_is_not_utf8_is_not_handed_on_as_if_it_were(db):
    db.insert_nodes(id=["a", "b"], title="t")
    db.insert_edges([("a", "b")])
    with db.transaction() as writer:
        writer.execute("UPDATE nodes SET title = CAST(x'74ff' AS TEXT) WHERE id = 'b'")
        writer.execute("UPDATE edges SET context_source = CAST(x'eda080' AS TEXT)")
    for table, column in (("nodes", "title"), ("edges", "context_source")):
        with pytest.raises(CorruptRowError, match=f"'{column}'"):
            db.to_arrow(table)
    assert db.insert_nodes(id=["b"], title="t").updated == 1
    assert db.to_arrow().column("title").to_pylist() == ["t", "t"]


LONG = 150_000
"""Rows: more than are looked at together."""


def long_edges(kind, source=None):
    targets = [f"n{i % 700}" for i in range(LONG)]
    sources = [f"n{i // 700}" for i in range(LONG)] if source is None else source
    encoded = pa.array(sources).dictionary_encode() if kind == "dictionary" else pa.array(sources)
    return pa.table({"source": encoded, "target": targets, "type": pa.array(["t"] * LONG)})


@pytest.mark.parametrize("kind", ["plain", "dictionary"])
def test_a_long_batch_of_edges_is_read_in_pieces(db, kind):
    db.insert_nodes(id=[f"n{i}" for i in range(700)])
    table = long_edges(kind)
    # A slice, so that the pieces begin within a buffer, and two batches of it.
    report = db.insert_edges(pa.concat_tables([table.slice(1, 70_000), table.slice(70_001)]))
    assert report.inserted == LONG - 1
    wanted = [(f"n{i // 700}", f"n{i % 700}") for i in range(1, LONG)]
    assert sorted(db.query("SELECT source, target FROM edges")) == sorted(wanted)


@pytest.mark.parametrize("kind", ["plain", "dictionary", "list"])
@pytest.mark.parametrize(("bad", "what"), [(None, "missing"), ("", "is empty"), ("a\0", "NUL")])
def test_a_bad_row_far_down_is_named_by_its_number(db, kind, bad, what):
    db.insert_nodes(id=[f"n{i}" for i in range(700)])
    sources = [f"n{i // 700}" for i in range(LONG)]
    sources[140_007] = bad
    table = {"source": sources, "target": "n1"} if kind == "list" else long_edges(kind, sources)
    arguments, columns = ([], table) if kind == "list" else ([table], {})
    with pytest.raises(InvalidIdError, match=f"'source', row 140007: .*{what}") as caught:
        db.insert_edges(*arguments, **columns)
    assert caught.value.row == 140_007
    assert db.get_stats().edges == 0


def test_a_list_that_shrinks_while_it_is_read_is_refused(db):
    db.insert_nodes(id=["a"])

    class Shrinking(list):
        def __getitem__(self, where):
            if isinstance(where, slice) and where.start:
                del self[where.start + 10 :]
            return super().__getitem__(where)

    with pytest.raises(ColumnError, match="target"):
        db.insert_edges(source=["a"] * LONG, target=Shrinking(["a"] * LONG))
    assert db.get_stats().edges == 0
