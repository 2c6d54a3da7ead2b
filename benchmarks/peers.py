"""Stores that keep vectors their own way: sqlite-vec, DuckDB, LanceDB, Chroma."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from contender import Case, Load, check_equal, check_matrix, check_sample, contender
from measured import sync_below
from ours import arrow_nodes
from standard import exhaust

# --- sqlite-vec: a virtual table, by apsw because sqlite3 is often built without extensions --------------


def connect_vec(folder: Path) -> Any:
    import apsw
    import sqlite_vec

    connection = apsw.Connection(str(folder / "graph.db"))
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


@contender("nodes", "sqlite-vec", "sqlite-vec, vec0 table", packages=("apsw", "sqlite-vec"))
def vec_nodes(load: Load, folder: Path) -> Case:
    columns = load.make().columns
    connection = connect_vec(folder)
    others = ", ".join(f"+{name} text" for name in columns if name not in ("id", "embedding"))
    connection.execute(
        f"CREATE VIRTUAL TABLE nodes USING vec0(id text primary key, {others}, embedding float[{load.dims}])"
    )
    yield
    connection.execute("BEGIN")
    connection.executemany(
        f"INSERT INTO nodes ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
        zip(*columns.values(), strict=True),
    )
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint").fetchall()
    yield
    check_equal("nodes", connection.execute("SELECT count(*) FROM nodes").fetchall(), [(load.nodes,)])
    by_id = "SELECT embedding FROM nodes WHERE id = ?"
    check_sample(load, lambda name: connection.execute(by_id, (name,)).fetchall()[0][0])
    connection.close()
    return load.nodes


@contender("matrix", "sqlite-vec", "sqlite-vec, frombuffer, vstack", packages=("apsw", "sqlite-vec"))
def vec_matrix(load: Load, folder: Path) -> Case:
    if not (folder / "graph.db").exists():
        exhaust(vec_nodes(load, folder))
    connection = connect_vec(folder)

    def read() -> tuple[list[str], Any]:
        rows = connection.execute("SELECT id, embedding FROM nodes").fetchall()
        ids = [row[0] for row in rows]
        return ids, np.vstack([np.frombuffer(row[1], dtype=np.float32) for row in rows])

    read()
    yield
    ids, vectors = read()
    yield
    connection.close()
    return check_matrix(load, ids, vectors)


# --- DuckDB -----------------------------------------------------------------------------------------


@contender("nodes", "duckdb", "DuckDB, from Arrow", packages=("duckdb", "pyarrow"))
def duckdb_nodes(load: Load, folder: Path) -> Case:
    import duckdb

    table = arrow_nodes(load.make())
    connection = duckdb.connect(str(folder / "graph.duckdb"))
    others = ", ".join(f"{name} VARCHAR" for name in table.column_names if name not in ("id", "embedding"))
    connection.execute(f"CREATE TABLE nodes (id VARCHAR PRIMARY KEY, {others}, embedding FLOAT[{load.dims}])")
    connection.register("given", table)
    yield
    connection.execute(f"INSERT INTO nodes ({', '.join(table.column_names)}) SELECT * FROM given")
    connection.execute("CHECKPOINT")
    yield
    check_equal("nodes", connection.execute("SELECT count(*) FROM nodes").fetchone(), (load.nodes,))
    by_id = "SELECT embedding FROM nodes WHERE id = ?"
    check_sample(
        load, lambda name: np.array(connection.execute(by_id, (name,)).fetchone()[0], dtype=np.float32)
    )
    connection.close()
    return load.nodes


@contender("edges", "duckdb", "DuckDB, from Arrow", packages=("duckdb", "pyarrow"), at_most=1_000_000)
def duckdb_edges(load: Load, folder: Path) -> Case:
    import duckdb
    import pyarrow

    edges = load.make()
    connection = duckdb.connect(str(folder / "graph.duckdb"))
    connection.execute("CREATE TABLE nodes (id VARCHAR PRIMARY KEY)")
    connection.execute(
        "CREATE TABLE edges (source VARCHAR NOT NULL REFERENCES nodes (id), target VARCHAR NOT NULL "
        "REFERENCES nodes (id), type VARCHAR NOT NULL, confidence DOUBLE, "
        "PRIMARY KEY (source, target, type))"
    )
    connection.register("ids", pyarrow.table({"id": edges.ids}))
    connection.execute("INSERT INTO nodes SELECT id FROM ids")
    connection.execute("CHECKPOINT")
    connection.register("given", pyarrow.table(edges.columns))
    yield
    connection.execute("INSERT INTO edges SELECT source, target, type, confidence FROM given")
    connection.execute("CHECKPOINT")
    yield
    check_equal("edges", connection.execute("SELECT count(*) FROM edges").fetchone(), (load.edges,))
    connection.close()
    return load.edges


@contender("matrix", "duckdb", "DuckDB, to Arrow, to NumPy", packages=("duckdb", "pyarrow"))
def duckdb_matrix(load: Load, folder: Path) -> Case:
    import duckdb

    if not (folder / "graph.duckdb").exists():
        exhaust(duckdb_nodes(load, folder))
    connection = duckdb.connect(str(folder / "graph.duckdb"), read_only=True)

    def read() -> tuple[list[str], Any]:
        found = connection.execute("SELECT id, embedding FROM nodes").to_arrow_table()
        return found["id"].to_pylist(), matrix_of(found["embedding"], load.dims)

    read()
    yield
    ids, vectors = read()
    yield
    connection.close()
    return check_matrix(load, ids, vectors)


def matrix_of(column: Any, dims: int) -> Any:
    """One C-contiguous matrix out of a chunked column of fixed-size lists."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(chunks).astype(np.float32, copy=False).reshape(-1, dims)


# --- LanceDB ----------------------------------------------------------------------------------------


@contender("nodes", "lancedb", "LanceDB, from Arrow", packages=("lancedb", "pyarrow"))
def lance_nodes(load: Load, folder: Path) -> Case:
    import lancedb

    given = arrow_nodes(load.make())
    database = lancedb.connect(folder / "graph.lance")
    table = database.create_table("nodes", schema=given.schema)
    yield
    table.add(given)
    sync_below(folder)
    yield
    check_equal("nodes", table.count_rows(), load.nodes)

    def vector_of(name: str) -> Any:
        found = table.search().where(f"id = '{name}'").limit(1).to_arrow()
        return matrix_of(found["embedding"], load.dims)[0]

    check_sample(load, vector_of)
    return load.nodes


@contender("edges", "lancedb", "LanceDB, from Arrow (no keys)", packages=("lancedb", "pyarrow"))
def lance_edges(load: Load, folder: Path) -> Case:
    import lancedb
    import pyarrow

    given = pyarrow.table(load.make().columns)
    table = lancedb.connect(folder / "graph.lance").create_table("edges", schema=given.schema)
    yield
    table.add(given)
    sync_below(folder)
    yield
    check_equal("edges", table.count_rows(), load.edges)
    return load.edges


@contender("matrix", "lancedb", "LanceDB, to Arrow, to NumPy", packages=("lancedb", "pyarrow"))
def lance_matrix(load: Load, folder: Path) -> Case:
    import lancedb

    if not (folder / "graph.lance").exists():
        exhaust(lance_nodes(load, folder))
    table = lancedb.connect(folder / "graph.lance").open_table("nodes")

    def read() -> tuple[list[str], Any]:
        found = table.search().select(["id", "embedding"]).to_arrow()
        return found["id"].to_pylist(), matrix_of(found["embedding"], load.dims)

    read()
    yield
    ids, vectors = read()
    yield
    return check_matrix(load, ids, vectors)


# --- Chroma -----------------------------------------------------------------------------------------


def open_chroma(folder: Path) -> tuple[Any, Any]:
    import chromadb

    client = chromadb.PersistentClient(
        str(folder / "graph.chroma"), settings=chromadb.Settings(anonymized_telemetry=False)
    )
    return client, client.get_or_create_collection("nodes", embedding_function=None)


@contender("nodes", "chroma", "Chroma, add (indexed as it goes)", packages=("chromadb",), at_most=30_000)
def chroma_nodes(load: Load, folder: Path) -> Case:
    nodes = load.make()
    names = [name for name in nodes.texts if name != "id"]
    about = [
        dict(zip(names, row, strict=True)) for row in zip(*(nodes.texts[name] for name in names), strict=True)
    ]
    client, collection = open_chroma(folder)
    step = client.get_max_batch_size()
    yield
    for start in range(0, load.nodes, step):
        collection.add(
            ids=nodes.texts["id"][start : start + step],
            embeddings=nodes.vectors[start : start + step],
            metadatas=about[start : start + step],
        )
    sync_below(folder)
    yield
    check_equal("nodes", collection.count(), load.nodes)
    check_sample(
        load,
        lambda name: np.asarray(
            collection.get(ids=[name], include=["embeddings"])["embeddings"][0], dtype=np.float32
        ),
    )
    return load.nodes


@contender("matrix", "chroma", "Chroma, get", packages=("chromadb",), at_most=30_000)
def chroma_matrix(load: Load, folder: Path) -> Case:
    if not (folder / "graph.chroma").exists():
        exhaust(chroma_nodes(load, folder))
    _, collection = open_chroma(folder)

    def read() -> tuple[list[str], Any]:
        found = collection.get(include=["embeddings"])
        return found["ids"], np.asarray(found["embeddings"], dtype=np.float32)

    read()
    yield
    ids, vectors = read()
    yield
    return check_matrix(load, ids, vectors)
