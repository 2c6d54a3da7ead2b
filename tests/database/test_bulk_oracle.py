"""Whatever way rows come in, the tables are those that a dict, and a row by row load, arrive at."""

import itertools
import json
import math

import numpy as np
import pyarrow
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from resonance import ResonanceDB, bulk, errors
from resonance.model import Edge, Node
from resonance.rows import EDGE_COLUMNS, NODE_COLUMNS
from support import dump, integrity

WIDTH = 4
# Shrinking takes minutes here, and the examples are small.
FEW = settings(deadline=None, database=None, derandomize=True, phases=(Phase.explicit, Phase.generate))
IDS = [
    "a",
    "b",
    "c",
    "a/b",
    "A",
    "é",
    "e\u0301",
    "日本",
    "🦊",
    "a" * 30,
    "a" * 31,
    "aaaaaaaa",
    "aaaaaaaab",
    " ",
    "%",
]

text = st.text(max_size=8)
vectors = st.lists(st.integers(-3, 3).map(float), min_size=WIDTH, max_size=WIDTH)
metas = st.dictionaries(text, st.integers() | text | st.none() | st.booleans(), max_size=3)
values = {
    "type": text,
    "title": text,
    "domain": st.sampled_from(["x", "y"]),
    "layer": text,
    "embedding": vectors,
    "hash": text,
    "meta": metas,
    "date": text,
    "summary": text,
}
optional = {name: st.none() | strategy for name, strategy in values.items()}


@st.composite
def batches_of_nodes(draw):
    """Batches of rows that each name some of the columns; ids come back in later batches."""
    batches = []
    for _ in range(draw(st.integers(1, 4))):
        shapes = draw(st.lists(st.sets(st.sampled_from(sorted(values))), min_size=1, max_size=3))
        ids = draw(st.lists(st.sampled_from(IDS), max_size=10, unique=True))
        batches.append(
            [
                {"id": node_id}
                | draw(st.fixed_dictionaries({name: optional[name] for name in sorted(shape)}))
                for node_id in ids
                for shape in [draw(st.sampled_from(shapes))]
            ]
        )
    return batches


def unit(vector):
    """As it is to be stored, or None."""
    norm = math.sqrt(sum(x * x for x in vector))
    return np.array([x / norm for x in vector], dtype="<f4").tobytes() if norm else None


def stored(row):
    row = dict(row)
    if row.get("embedding") is not None:
        row["embedding"] = unit(row["embedding"])
    if row.get("meta") is not None:
        row["meta"] = json.dumps(row["meta"], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return row


class Model:
    """What the tables should hold, kept in plain dicts."""

    def __init__(self):
        self.nodes = {}
        self.edges = {}

    def insert_nodes(self, batch):
        counts = {"inserted": 0, "updated": 0, "unchanged": 0}
        for row in map(stored, batch):
            known = self.nodes.get(row["id"])
            if known is None:
                self.nodes[row["id"]] = dict.fromkeys(NODE_COLUMNS) | row
                counts["inserted"] += 1
            elif any(known[name] != value for name, value in row.items()):
                known.update(row)
                counts["updated"] += 1
            else:
                counts["unchanged"] += 1
        return counts

    def insert_edges(self, batch, on_missing):
        """Of rows with the same key the last one counts; the ones before it count as unchanged."""
        counts = {"inserted": 0, "updated": 0, "unchanged": 0, "skipped": 0, "stubbed": 0}
        missing = [row for row in batch if not {row["source"], row["target"]} <= set(self.nodes)]
        if missing and on_missing == "error":
            raise errors.DanglingEdgeError("x", [], len(missing), "")
        if on_missing == "stub":
            for end in {end for row in missing for end in (row["source"], row["target"])} - set(self.nodes):
                self.nodes[end] = dict.fromkeys(NODE_COLUMNS) | {"id": end, "type": "stub", "title": end}
                counts["stubbed"] += 1
            missing = []
        counts["skipped"] = len(missing)
        last = {}
        for row in batch:
            if row not in missing:
                row = {"type": "related_to"} | row
                counts["unchanged"] += (row["source"], row["target"], row["type"]) in last
                last[row["source"], row["target"], row["type"]] = row
        for key, row in last.items():
            known = self.edges.get(key)
            if known is None:
                self.edges[key] = {"confidence": 1.0, "veracity": 1.0, "context_source": None} | row
                counts["inserted"] += 1
            elif any(known[name] != value for name, value in row.items()):
                known.update(row)
                counts["updated"] += 1
            else:
                counts["unchanged"] += 1
        return counts

    def check(self, db):
        found = db.query(f"SELECT {', '.join(NODE_COLUMNS)} FROM nodes ORDER BY id")
        assert found == [
            tuple(self.nodes[node_id].values()) for node_id in sorted(self.nodes, key=str.encode)
        ]
        found = db.query(f"SELECT {', '.join(EDGE_COLUMNS)} FROM edges ORDER BY 1, 2, 3")
        keys = sorted(self.edges, key=lambda key: tuple(map(str.encode, key)))
        assert found == [tuple(self.edges[key][name] for name in EDGE_COLUMNS) for key in keys]


def by_shape(batch):
    """Column tables of a batch, one for each set of names."""
    shapes = {}
    for row in batch:
        shapes.setdefault(tuple(sorted(row)), []).append(row)
    for names, group in shapes.items():
        yield {name: [row[name] for row in group] for name in names}


def array_columns(columns):
    """The same as arrays, where there is one for it."""
    made = dict(columns)
    for name, items in columns.items():
        if name == "embedding" and None not in items:
            made[name] = np.array(items, dtype="f4")
        elif name in ("confidence", "veracity"):
            made[name] = np.array(items)
        elif None not in items and all(isinstance(item, str) and "\0" not in item for item in items):
            made[name] = np.array(items, dtype=object)
    return made


def in_chunks(table):
    """The same rows in record batches that begin in the middle of their buffers."""
    cut = table.num_rows // 2
    return pyarrow.concat_tables([table.slice(0, cut), table.slice(cut, 1), table.slice(cut + 1)])


def as_binary(kind):
    return lambda items: pyarrow.array(
        [None if item is None else item.encode() for item in items], getattr(pyarrow, kind)()
    )


TEXT_LAYOUTS = {
    "string": lambda items: pyarrow.array(items, pyarrow.string()),
    "large_string": lambda items: pyarrow.array(items, pyarrow.large_string()),
    "string_view": lambda items: pyarrow.array(items, pyarrow.string_view()),
    "binary": as_binary("binary"),
    "large_binary": as_binary("large_binary"),
    "binary_view": as_binary("binary_view"),
    "dictionary": lambda items: pyarrow.array(items, pyarrow.string()).dictionary_encode(),
    "large dictionary": lambda items: pyarrow.array(items, pyarrow.large_string()).dictionary_encode(),
}
VECTOR_LAYOUTS = {
    "string": pyarrow.list_(pyarrow.float32(), WIDTH),
    "binary": pyarrow.large_list(pyarrow.float64()),
    "dictionary": pyarrow.list_(pyarrow.float16()),
}


def arrow_table(columns, layout="large_string"):
    made = {}
    for name, items in columns.items():
        if name == "meta":
            items = [None if item is None else json.dumps(item) for item in items]
        if name == "embedding":
            made[name] = pyarrow.array(items, VECTOR_LAYOUTS.get(layout, VECTOR_LAYOUTS["string"]))
        elif name in ("confidence", "veracity"):
            made[name] = pyarrow.array(items, pyarrow.float64())
        else:
            made[name] = TEXT_LAYOUTS[layout](items)
    return in_chunks(pyarrow.table(made))


def add(reports):
    names = ("inserted", "updated", "unchanged", "skipped", "stubbed")
    for report in reports:
        assert report.rows == report.inserted + report.updated + report.unchanged + report.skipped
    return {name: sum(getattr(report, name) for report in reports) for name in names}


NODE_WAYS = {
    "mappings": lambda db, batch, **how: [db.insert_nodes(batch, **how)],
    "generator": lambda db, batch, **how: [db.insert_nodes((row for row in batch), **how)],
    "nodes": lambda db, batch, **how: [
        db.insert_nodes([Node(**row) if None not in row.values() else row for row in batch], **how)
    ],
    "columns": lambda db, batch, **how: [db.insert_nodes(**columns, **how) for columns in by_shape(batch)],
    "iterators": lambda db, batch, **how: [
        db.insert_nodes(**{name: iter(items) for name, items in columns.items()}, **how)
        for columns in by_shape(batch)
    ],
    "arrays": lambda db, batch, **how: [
        db.insert_nodes(**array_columns(columns), **how) for columns in by_shape(batch)
    ],
    "rows": lambda db, batch, **how: [db.insert_nodes(batch, history="rows")],
}


@pytest.fixture(params=["in WAL", "alone", "poured"])
def journal(request, monkeypatch):
    """Small loads stay in WAL and go row by row, large ones do neither: each way for every load here."""
    monkeypatch.setattr(bulk, "ALONE_FROM_BYTES", 0 if request.param == "alone" else 1 << 40)
    monkeypatch.setattr(bulk, "POURED_FROM", 0 if request.param == "poured" else 1 << 40)
    monkeypatch.setattr(bulk, "SLICE", 3)
    monkeypatch.setattr(bulk, "_REBUILD_INDEX_FROM", 3)
    return settings(FEW, max_examples=5 if request.param == "alone" else 12)


def wipe(db):
    with db.transaction() as connection:
        connection.executescript("DELETE FROM edges; DELETE FROM nodes; DELETE FROM spaces")


@pytest.mark.parametrize("way", NODE_WAYS)
def test_nodes(way, db, journal):
    @journal
    @given(batches_of_nodes())
    def check(batches):
        model = Model()
        wipe(db)
        for batch in batches:
            reports = NODE_WAYS[way](db, batch)
            counts = add(reports)
            assert counts | model.insert_nodes(batch) == counts
            zeros = sum(row.get("embedding") is not None and not any(row["embedding"]) for row in batch)
            assert sum(report.zero_vectors for report in reports) == zeros
            model.check(db)

    check()


@pytest.mark.parametrize("layout", TEXT_LAYOUTS)
def test_nodes_from_arrow(layout):
    """As before, but for metadata, which Arrow brings as text and which is stored as it stands."""

    @settings(FEW, max_examples=10)
    @given(batches_of_nodes())
    def check(batches):
        model = Model()
        with ResonanceDB(":memory:") as db:
            for batch in batches:
                batch = [{name: value for name, value in row.items() if name != "meta"} for row in batch]
                counts = add([db.insert_nodes(arrow_table(columns, layout)) for columns in by_shape(batch)])
                assert counts | model.insert_nodes(batch) == counts
                model.check(db)

    check()


@pytest.mark.parametrize("way", ["columns", "generator", "rows"])
def test_nodes_into_a_scratch_file(way, tmp_path):
    number = itertools.count()

    @settings(FEW, max_examples=8)
    @given(batches_of_nodes())
    def check(batches):
        model = Model()
        with ResonanceDB(tmp_path / f"{next(number)}.db", scratch=True) as db:
            for batch in batches:
                counts = add(NODE_WAYS[way](db, batch))
                assert counts | model.insert_nodes(batch) == counts
                model.check(db)
        # And as it is on disk.
        with ResonanceDB(db.path, readonly=True) as again:
            model.check(again)

    check()


@settings(FEW, max_examples=12)
@given(batches_of_nodes())
def test_nodes_in_short_transactions_of_a_file(tmp_path_factory, batches):
    model = Model()
    path = tmp_path_factory.mktemp("shared") / "graph.db"
    with ResonanceDB(path) as db, ResonanceDB(path) as other:
        for batch in batches:
            counts = add([db.insert_nodes(**columns, mode="shared") for columns in by_shape(batch)])
            assert counts | model.insert_nodes(batch) == counts
            model.check(other)


@settings(FEW, max_examples=25)
@given(batches_of_nodes())
def test_nodes_in_short_transactions(batches):
    model = Model()
    with ResonanceDB(":memory:") as db:
        for batch in batches:
            counts = add([db.insert_nodes(batch, mode="shared")])
            assert counts | model.insert_nodes(batch) == counts
        model.check(db)


@settings(FEW, max_examples=25)
@given(batches_of_nodes())
def test_nodes_as_row_by_row(batches):
    with ResonanceDB(":memory:") as whole, ResonanceDB(":memory:") as single:
        for batch in batches:
            whole.insert_nodes(batch)
            for row in batch:
                single.insert_node(row)
        assert dump(whole) == dump(single)


ends = st.sampled_from([*IDS[:6], "nobody", "no one"])
weights = st.floats(0, 1).map(abs)


@st.composite
def batches_of_edges(draw):
    batches = []
    for _ in range(draw(st.integers(1, 4))):
        shape = draw(st.sets(st.sampled_from(["type", "confidence", "veracity", "context_source"])))
        fields = {"source": ends, "target": ends, "type": st.sampled_from(["t", "T", "CITES"])}
        fields |= {"confidence": weights, "veracity": weights, "context_source": st.none() | text}
        row = st.fixed_dictionaries(
            {name: fields[name] for name in fields if name in shape | {"source", "target"}}
        )
        batches.append((draw(st.lists(row, max_size=12)), draw(st.sampled_from(["error", "skip", "stub"]))))
    return batches


def whole_edges(batch):
    return [Edge(**({"type": "related_to"} | row)) for row in batch]


EDGE_WAYS = {
    "columns": lambda db, batch, **how: [db.insert_edges(**columns, **how) for columns in by_shape(batch)],
    "iterators": lambda db, batch, **how: [
        db.insert_edges(**{name: iter(items) for name, items in columns.items()}, **how)
        for columns in by_shape(batch)
    ],
    "arrays": lambda db, batch, **how: [
        db.insert_edges(**array_columns(columns), **how) for columns in by_shape(batch)
    ],
    "arrow": lambda db, batch, **how: [
        db.insert_edges(arrow_table(columns), **how) for columns in by_shape(batch)
    ],
    "rows": lambda db, batch, **how: [
        db.insert_edges(**columns, history="rows", **how) for columns in by_shape(batch)
    ],
    "shared": lambda db, batch, **how: [
        db.insert_edges(**columns, mode="shared", **how) for columns in by_shape(batch)
    ],
}


def counts_or_missing(insert, *arguments):
    try:
        return insert(*arguments)
    except errors.DanglingEdgeError as error:
        return error.count


@pytest.mark.parametrize("way", EDGE_WAYS)
def test_edges(way, db, journal):
    def insert_edges(db, batch, on_missing):
        return add(EDGE_WAYS[way](db, batch, on_missing=on_missing))

    @journal
    @given(batches_of_edges())
    def check(batches):
        model = Model()
        model.insert_nodes([{"id": node_id} for node_id in IDS[:6]])
        wipe(db)
        db.insert_nodes(id=IDS[:6])
        for batch, on_missing in batches:
            found = counts_or_missing(insert_edges, db, batch, on_missing)
            assert found == counts_or_missing(model.insert_edges, batch, on_missing)
            model.check(db)
        assert db.get_raw_db().execute("PRAGMA foreign_key_check") == []
        assert db.get_raw_db().execute("PRAGMA foreign_keys") == [(1,)]

    check()


@pytest.mark.parametrize("way", [*EDGE_WAYS, *TEXT_LAYOUTS])
@pytest.mark.parametrize("index", ["kept", "rebuilt"])
def test_edges_whichever_way_their_index_is_made(way, index, monkeypatch, tmp_path):
    """Every batch with the index of targets kept, or dropped and built anew, in a scratch file."""
    monkeypatch.setattr(bulk, "SLICE", 2)
    monkeypatch.setattr(bulk, "POURED_FROM", 2)
    monkeypatch.setattr(bulk, "_rebuild_pays", lambda writer, rows: index == "rebuilt")
    number = itertools.count()

    def insert_edges(db, batch, on_missing):
        if way in EDGE_WAYS:
            return add(EDGE_WAYS[way](db, batch, on_missing=on_missing))
        tables = [arrow_table(columns, way) for columns in by_shape(batch)]
        return add([db.insert_edges(table, on_missing=on_missing) for table in tables])

    @settings(FEW, max_examples=4)
    @given(batches_of_edges())
    def check(batches):
        model = Model()
        model.insert_nodes([{"id": node_id} for node_id in IDS[:6]])
        with ResonanceDB(tmp_path / f"{next(number)}.db", scratch=True) as db:
            db.insert_nodes(id=IDS[:6])
            for batch, on_missing in batches:
                found = counts_or_missing(insert_edges, db, batch, on_missing)
                assert found == counts_or_missing(model.insert_edges, batch, on_missing)
            model.check(db)
            by_index = "SELECT source, target, type FROM edges INDEXED BY idx_edges_target WHERE target > ''"
            assert sorted(db.query(by_index)) == sorted(model.edges)
        assert integrity(db.path) == [("ok",)]

    check()


@settings(FEW, max_examples=25)
@given(batches_of_edges())
def test_edges_one_by_one(batches):
    model = Model()
    model.insert_nodes([{"id": node_id} for node_id in IDS[:6]])
    with ResonanceDB(":memory:") as db, ResonanceDB(":memory:") as single:
        for database in (db, single):
            database.insert_nodes(id=IDS[:6])
        for batch, _ in batches:
            batch = [edge for edge in whole_edges(batch) if edge.source in IDS and edge.target in IDS]
            db.insert_edges(batch)
            model.insert_edges([edge._asdict() for edge in batch], "error")
            for edge in batch:
                single.insert_semantic_edge(*edge)
        assert dump(db) == dump(single)
        model.check(db)


def test_many_rows_in_any_order(tmp_path):
    """Enough of them for several slices, hash tables that grow, and keys with a common start."""
    count = 20_000
    order = np.random.default_rng(5).permutation(count)
    ids = [f"the same beginning/{number}" for number in order]
    ends = np.random.default_rng(6).integers(0, count, size=(2, 50_000))
    with ResonanceDB(tmp_path / "x.db") as db:
        db.insert_nodes(id=ids, title=[node_id[-5:] for node_id in ids])
        db.insert_edges(source=[ids[i] for i in ends[0]], target=[ids[i] for i in ends[1]], type="t")
        assert db.query("SELECT id, title FROM nodes ORDER BY id") == sorted(
            (node_id, node_id[-5:]) for node_id in ids
        )
        pairs = {(ids[a], ids[b], "t") for a, b in ends.T}
        assert set(db.query("SELECT source, target, type FROM edges")) == pairs
        some = ids[17]
        assert {edge.source for edge in db.get_edges(some, direction="in")} == {
            a for a, b, _ in pairs if b == some
        }
