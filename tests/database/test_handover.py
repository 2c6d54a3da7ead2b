"""Tables and matrices into the packages people have, and back; a package that is not here is skipped.

``make test-handover`` installs them all.
"""

import numpy as np
import pytest

from resonance import ResonanceDB
from support import dump, unit

pytest.importorskip("pyarrow")

COUNT, WIDTH, K = 500, 24, 7
IDS = [f"note-{i:03d}" for i in range(COUNT)]
VECTORS = unit(COUNT, WIDTH, seed=3)
QUERY = unit(1, WIDTH, seed=4)


@pytest.fixture
def filled(db):
    titles = ["日本語", None, "", "more than the twelve bytes a view holds"] * (COUNT // 4)
    db.insert_nodes(id=IDS, title=titles, domain=["a", "b"] * (COUNT // 2), embedding=VECTORS)
    db.insert_edges(source=IDS[:-1], target=IDS[1:], type="NEXT", confidence=np.linspace(0, 1, COUNT - 1))
    return db


@pytest.fixture
def nearest(filled):
    """Ids of the rows nearest to QUERY."""
    return [hit.id for hit in filled.search(QUERY[0], k=K)]


# --- tables -----------------------------------------------------------------------------------------


def test_pyarrow(filled):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table(filled.embeddings())
    assert table.column_names == ["id", "embedding"]
    assert table.schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), WIDTH)
    assert filled.to_arrow("edges").num_rows == COUNT - 1


def test_polars(filled):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(filled.embeddings())
    assert frame["id"].to_list() == IDS
    assert np.array_equal(frame["embedding"].to_numpy(), VECTORS)
    edges = polars.DataFrame(filled.to_arrow("edges"))
    assert edges.filter(polars.col("source") == IDS[0])["target"].to_list() == [IDS[1]]


def test_pandas(filled):
    pandas = pytest.importorskip("pandas")
    frame = filled.to_arrow(domain="a").to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["id"].to_list() == IDS[::2]
    assert np.array_equal(np.vstack(frame["embedding"]), VECTORS[::2])
    assert filled.to_arrow("edges").to_pandas()["confidence"].max() == 1


def test_duckdb(filled):
    duckdb = pytest.importorskip("duckdb")
    nodes, edges = filled.to_arrow(), filled.to_arrow("edges")
    with duckdb.connect() as connection:
        connection.register("nodes", nodes)
        connection.register("edges", edges)
        degrees = "SELECT domain, count(*) FROM nodes JOIN edges ON source = id GROUP BY 1 ORDER BY 1"
        assert connection.execute(degrees).fetchall() == [("a", COUNT // 2), ("b", COUNT // 2 - 1)]
        best = "SELECT id FROM nodes ORDER BY list_dot_product(embedding, ?::FLOAT[24]) DESC LIMIT 1"
        found = connection.execute(best, [QUERY[0].tolist()]).fetchall()
    assert found == [(IDS[int(np.argmax(VECTORS @ QUERY[0]))],)]


def by_polars(table):
    return pytest.importorskip("polars").DataFrame(table)


def by_pandas(table):
    pandas = pytest.importorskip("pandas")
    return table.to_pandas(types_mapper=pandas.ArrowDtype)


def by_duckdb(table):
    duckdb = pytest.importorskip("duckdb")
    return duckdb.from_arrow(table)


@pytest.mark.parametrize("through", [by_polars, by_pandas, by_duckdb])
def test_there_and_back(filled, tmp_path, through):
    """What another package was given, it hands over by ``__arrow_c_stream__``: the same rows again."""
    with ResonanceDB(tmp_path / "copy.db") as copy:
        copy.insert_nodes(through(filled.to_arrow()))
        copy.insert_edges(through(filled.to_arrow("edges")))
        assert dump(copy, ("nodes", "edges")) == dump(filled, ("nodes", "edges"))


# --- indexes of vectors: the matrix as it is, in one line ---------------------------------------------


def test_faiss(filled, nearest):
    faiss = pytest.importorskip("faiss")
    ids, vectors = filled.embeddings()
    index = faiss.IndexFlatIP(WIDTH)
    index.add(vectors)
    _, rows = index.search(QUERY, K)
    assert [ids[row] for row in rows[0]] == nearest


def test_usearch(filled, nearest):
    usearch = pytest.importorskip("usearch.index")
    ids, vectors = filled.embeddings()
    index = usearch.Index(ndim=WIDTH, metric="ip", dtype="f32")
    index.add(np.arange(len(ids)), vectors)
    found = index.search(QUERY[0], K, exact=True)
    assert [ids[row] for row in found.keys] == nearest


def test_hnswlib(filled, nearest):
    hnswlib = pytest.importorskip("hnswlib")
    ids, vectors = filled.embeddings()
    index = hnswlib.Index("ip", WIDTH)
    index.init_index(len(ids), ef_construction=COUNT, M=48, random_seed=1)
    index.add_items(vectors, num_threads=1)
    index.set_ef(COUNT)
    rows, _ = index.knn_query(QUERY, K)
    # An approximate index; with as many candidates as rows it misses next to nothing.
    assert len({ids[row] for row in rows[0]} & set(nearest)) >= K - 1
