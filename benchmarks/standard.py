"""The baseline, and others on the same schema that also go row by row: sqlite3, apsw, sqlite-utils."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from contender import Case, Load, check_equal, check_matrix, check_sample, contender

EDGE_SQL = "INSERT INTO edges (source, target, type, confidence) VALUES (?, ?, ?, ?)"
MATRIX_SQL = "SELECT id, embedding FROM nodes WHERE embedding IS NOT NULL"


def node_sql(columns: dict[str, Any]) -> str:
    return f"INSERT INTO nodes ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


def connect(load: Load, folder: Path, *, tuned: bool = False) -> sqlite3.Connection:
    """The baseline's settings; ``tuned`` adds those of ours that are only a matter of asking for them."""
    connection = sqlite3.connect(folder / "graph.db", isolation_level=None)
    if tuned:
        connection.execute(f"PRAGMA page_size = {load.page_size}")
        connection.execute("PRAGMA cache_size = -65536")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.executescript(load.schema)
    return connection


def check_file(load: Load, folder: Path) -> int:
    """Open the finished file with another library than (mostly) wrote it, and count."""
    connection = sqlite3.connect(folder / "graph.db")
    try:
        count = "SELECT count(*) FROM "
        check_equal("nodes", connection.execute(f"{count}nodes").fetchone(), (load.nodes,))
        check_equal("quick_check", connection.execute("PRAGMA quick_check").fetchone(), ("ok",))
        if not load.edges:
            by_id = "SELECT embedding FROM nodes WHERE id = ?"
            check_sample(load, lambda name: connection.execute(by_id, (name,)).fetchone()[0])
            return load.nodes
        for index in ("", "INDEXED BY idx_edges_target"):
            found = connection.execute(f"{count}edges {index}").fetchone()
            check_equal(f"edges {index}", found, (load.edges,))
        check_equal("broken keys", connection.execute("PRAGMA foreign_key_check").fetchall(), [])
        return load.edges
    finally:
        connection.close()


# --- sqlite3 ----------------------------------------------------------------------------------------


@contender("nodes", "stdlib", "sqlite3, executemany", meta=True)
def stdlib_nodes(load: Load, folder: Path, *, tuned: bool = False) -> Case:
    columns = load.make().columns
    connection = connect(load, folder, tuned=tuned)
    yield
    connection.execute("BEGIN")
    # Rows of the matrix are bound as they are: nothing else that sqlite3 takes is faster.
    rows: Any = zip(*columns.values(), strict=True)
    if tuned:
        rows = sorted(rows, key=lambda row: row[0])
    connection.executemany(node_sql(columns), rows)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint")
    yield
    connection.close()
    return check_file(load, folder)


@contender("nodes", "stdlib-tuned", "sqlite3, executemany, tuned", meta=True)
def tuned_nodes(load: Load, folder: Path) -> Case:
    return (yield from stdlib_nodes(load, folder, tuned=True))


@contender("edges", "stdlib", "sqlite3, executemany")
def stdlib_edges(load: Load, folder: Path, *, tuned: bool = False) -> Case:
    edges = load.make()
    connection = connect(load, folder, tuned=tuned)
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO nodes (id) VALUES (?)", [(name,) for name in sorted(edges.ids)])
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint")
    yield
    connection.execute("BEGIN")
    rows: Any = zip(*edges.texts.values(), edges.confidence.tolist(), strict=True)
    if tuned:
        rows = sorted(rows)
    connection.executemany(EDGE_SQL, rows)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint")
    yield
    connection.close()
    return check_file(load, folder)


@contender("edges", "stdlib-tuned", "sqlite3, executemany, tuned")
def tuned_edges(load: Load, folder: Path) -> Case:
    return (yield from stdlib_edges(load, folder, tuned=True))


def exhaust(case: Iterator[None]) -> None:
    for _ in case:
        pass


@contender("matrix", "stdlib", "sqlite3, frombuffer, vstack")
def stdlib_matrix(load: Load, folder: Path, *, joined: bool = False) -> Case:
    if not (folder / "graph.db").exists():
        exhaust(stdlib_nodes(load, folder))
    connection = sqlite3.connect(folder / "graph.db")

    def read() -> tuple[list[str], Any]:
        rows = connection.execute(MATRIX_SQL).fetchall()
        ids = [row[0] for row in rows]
        if joined:
            flat = np.frombuffer(b"".join([row[1] for row in rows]), dtype=np.float32)
            return ids, flat.reshape(len(ids), -1)
        return ids, np.vstack([np.frombuffer(row[1], dtype=np.float32) for row in rows])

    read()
    yield
    ids, vectors = read()
    yield
    connection.close()
    return check_matrix(load, ids, vectors)


@contender("matrix", "stdlib-joined", "sqlite3, blobs joined")
def joined_matrix(load: Load, folder: Path) -> Case:
    return (yield from stdlib_matrix(load, folder, joined=True))


# --- apsw -------------------------------------------------------------------------------------------


def connect_apsw(load: Load, folder: Path) -> Any:
    import apsw

    connection = apsw.Connection(str(folder / "graph.db"))
    for name, value in (("journal_mode", "WAL"), ("synchronous", "NORMAL"), ("foreign_keys", "ON")):
        connection.execute(f"PRAGMA {name} = {value}")
    connection.execute(load.schema)
    return connection


@contender("nodes", "apsw", "apsw, executemany", packages=("apsw",))
def apsw_nodes(load: Load, folder: Path) -> Case:
    columns = load.make().columns
    connection = connect_apsw(load, folder)
    yield
    connection.execute("BEGIN")
    connection.executemany(node_sql(columns), zip(*columns.values(), strict=True))
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint").fetchall()
    yield
    connection.close()
    return check_file(load, folder)


@contender("edges", "apsw", "apsw, executemany", packages=("apsw",))
def apsw_edges(load: Load, folder: Path) -> Case:
    edges = load.make()
    connection = connect_apsw(load, folder)
    with connection:
        connection.executemany("INSERT INTO nodes (id) VALUES (?)", [(name,) for name in sorted(edges.ids)])
    connection.execute("PRAGMA wal_checkpoint").fetchall()
    yield
    connection.execute("BEGIN")
    connection.executemany(EDGE_SQL, zip(*edges.texts.values(), edges.confidence.tolist(), strict=True))
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint").fetchall()
    yield
    connection.close()
    return check_file(load, folder)


@contender("matrix", "apsw", "apsw, frombuffer, vstack", packages=("apsw",))
def apsw_matrix(load: Load, folder: Path) -> Case:
    if not (folder / "graph.db").exists():
        exhaust(apsw_nodes(load, folder))
    connection = connect_apsw(Load(load.question, load.nodes), folder)

    def read() -> tuple[list[str], Any]:
        rows = connection.execute(MATRIX_SQL).fetchall()
        ids = [row[0] for row in rows]
        return ids, np.vstack([np.frombuffer(row[1], dtype=np.float32) for row in rows])

    read()
    yield
    ids, vectors = read()
    yield
    connection.close()
    return check_matrix(load, ids, vectors)


# --- sqlite-utils -----------------------------------------------------------------------------------


def connect_utils(load: Load, folder: Path) -> Any:
    import sqlite_utils

    database = sqlite_utils.Database(folder / "graph.db")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("PRAGMA foreign_keys = ON")
    if load.schema:
        database.conn.executescript(load.schema)
    return database


@contender("nodes", "sqlite-utils", "sqlite-utils, insert_all", packages=("sqlite-utils",))
def utils_nodes(load: Load, folder: Path) -> Case:
    columns = load.make().columns
    database = connect_utils(load, folder)
    yield
    names = list(columns)
    rows = zip(*list(columns.values())[:-1], (row.tobytes() for row in columns["embedding"]), strict=True)
    database["nodes"].insert_all(dict(zip(names, row, strict=True)) for row in rows)
    database.execute("PRAGMA wal_checkpoint").fetchall()
    yield
    database.close()
    return check_file(load, folder)


@contender("edges", "sqlite-utils", "sqlite-utils, insert_all", packages=("sqlite-utils",), at_most=100_000)
def utils_edges(load: Load, folder: Path) -> Case:
    edges = load.make()
    database = connect_utils(load, folder)
    database["nodes"].insert_all({"id": name} for name in sorted(edges.ids))
    database.execute("PRAGMA wal_checkpoint").fetchall()
    yield
    names = [*edges.texts, "confidence"]
    rows = zip(*edges.texts.values(), edges.confidence.tolist(), strict=True)
    database["edges"].insert_all(dict(zip(names, row, strict=True)) for row in rows)
    database.execute("PRAGMA wal_checkpoint").fetchall()
    yield
    database.close()
    return check_file(load, folder)


@contender("matrix", "sqlite-utils", "sqlite-utils, rows_where", packages=("sqlite-utils",))
def utils_matrix(load: Load, folder: Path) -> Case:
    if not (folder / "graph.db").exists():
        exhaust(utils_nodes(load, folder))
    database = connect_utils(Load(load.question, load.nodes), folder)

    def read() -> tuple[list[str], Any]:
        rows = list(database["nodes"].rows_where("embedding IS NOT NULL", select="id, embedding"))
        ids = [row["id"] for row in rows]
        return ids, np.vstack([np.frombuffer(row["embedding"], dtype=np.float32) for row in rows])

    read()
    yield
    ids, vectors = read()
    yield
    database.close()
    return check_matrix(load, ids, vectors)
