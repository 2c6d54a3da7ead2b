"""Resonance, in each way it can be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from contender import Case, Load, check_matrix, contender
from standard import check_file

from resonance import Edge, Node, ResonanceDB


def schema() -> str:
    """What the migrations make, as statements for the others; without triggers, which only slow them down."""
    with ResonanceDB(":memory:") as db:
        found = db.query(
            "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND type <> 'trigger' "
            "AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
        )
    return ";\n".join(sql for (sql,) in found) + ";"


# --- nodes ------------------------------------------------------------------------------------------


def insert_nodes(load: Load, folder: Path, given: Any, *, elsewhere: bool = False, **options: Any) -> Case:
    path = folder / "graph.db"
    db = ResonanceDB(path, dims=load.dims)
    # Another connection keeps a load from leaving WAL.
    other = ResonanceDB(path, readonly=True) if elsewhere else None
    arguments, columns = ((), given) if isinstance(given, dict) else ((given,), {})
    yield
    db.insert_nodes(*arguments, **columns, **options)
    db.checkpoint(truncate=False)
    yield
    if other is not None:
        other.close()
    db.close()
    return check_file(load, folder)


@contender("nodes", "ours", "Resonance, columns", meta=True)
def nodes_by_columns(load: Load, folder: Path) -> Case:
    return (yield from insert_nodes(load, folder, load.make().columns))


@contender("nodes", "ours-wal", "Resonance, columns, open elsewhere")
def nodes_open_elsewhere(load: Load, folder: Path) -> Case:
    return (yield from insert_nodes(load, folder, load.make().columns, elsewhere=True))


@contender("nodes", "ours-arrow", "Resonance, Arrow", packages=("pyarrow",), meta=True)
def nodes_by_arrow(load: Load, folder: Path) -> Case:
    return (yield from insert_nodes(load, folder, arrow_nodes(load.make())))


@contender("nodes", "ours-rows", "Resonance, Node by Node")
def nodes_by_rows(load: Load, folder: Path) -> Case:
    columns = load.make().columns
    rows = [Node(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
    return (yield from insert_nodes(load, folder, rows))


@contender("nodes", "ours-shared", 'Resonance, mode="shared"')
def nodes_shared(load: Load, folder: Path) -> Case:
    return (yield from insert_nodes(load, folder, load.make().columns, elsewhere=True, mode="shared"))


@contender("nodes", "ours-fresh", "Resonance, fresh file (scratch)", meta=True)
def nodes_fresh(load: Load, folder: Path) -> Case:
    columns = load.make().columns
    yield
    with ResonanceDB(folder / "graph.db", scratch=True, dims=load.dims) as db:
        db.insert_nodes(**columns)
    yield
    return check_file(load, folder)


@contender("nodes", "ours-rebuilt", "Resonance, rebuild: fresh, checked, in place")
def nodes_rebuilt(load: Load, folder: Path) -> Case:
    columns = load.make().columns
    live = ResonanceDB(folder / "graph.db", dims=load.dims)
    live.insert_nodes(id=["of the graph that was"])
    yield
    with live.rebuild() as fresh:
        fresh.insert_nodes(**columns)
    yield
    live.close()
    return check_file(load, folder)


def arrow_nodes(nodes: Any) -> Any:
    import pyarrow

    flat = pyarrow.array(nodes.vectors.reshape(-1))
    vectors = pyarrow.FixedSizeListArray.from_arrays(flat, nodes.vectors.shape[1])
    return pyarrow.table({**nodes.texts, "embedding": vectors})


# --- edges ------------------------------------------------------------------------------------------


def insert_edges(
    load: Load, folder: Path, edges: Any, given: Any, *, elsewhere: bool = False, **options: Any
) -> Case:
    path = folder / "graph.db"
    db = ResonanceDB(path)
    db.insert_nodes(id=edges.ids)
    db.checkpoint()
    other = ResonanceDB(path, readonly=True) if elsewhere else None
    arguments, columns = ((), given) if isinstance(given, dict) else ((given,), {})
    yield
    db.insert_edges(*arguments, **columns, **options)
    db.checkpoint(truncate=False)
    yield
    if other is not None:
        other.close()
    db.close()
    return check_file(load, folder)


@contender("edges", "ours", "Resonance, columns")
def edges_by_columns(load: Load, folder: Path) -> Case:
    edges = load.make()
    return (yield from insert_edges(load, folder, edges, edges.columns))


@contender("edges", "ours-wal", "Resonance, columns, open elsewhere")
def edges_open_elsewhere(load: Load, folder: Path) -> Case:
    edges = load.make()
    return (yield from insert_edges(load, folder, edges, edges.columns, elsewhere=True))


@contender("edges", "ours-arrow", "Resonance, Arrow", packages=("pyarrow",))
def edges_by_arrow(load: Load, folder: Path) -> Case:
    import pyarrow

    edges = load.make()
    return (yield from insert_edges(load, folder, edges, pyarrow.table(edges.columns)))


@contender("edges", "ours-rows", "Resonance, Edge by Edge", at_most=3_000_000)
def edges_by_rows(load: Load, folder: Path) -> Case:
    edges = load.make()
    confidence = edges.confidence.tolist()
    rows = [Edge(*row) for row in zip(*edges.texts.values(), confidence, strict=True)]
    return (yield from insert_edges(load, folder, edges, rows))


@contender("edges", "ours-shared", 'Resonance, mode="shared"', at_most=3_000_000)
def edges_shared(load: Load, folder: Path) -> Case:
    edges = load.make()
    return (yield from insert_edges(load, folder, edges, edges.columns, elsewhere=True, mode="shared"))


# --- matrix -----------------------------------------------------------------------------------------


def filled(load: Load, folder: Path) -> Path:
    path = folder / "graph.db"
    if not path.exists():
        with ResonanceDB(path, dims=load.dims) as db:
            db.insert_nodes(**load.make().columns)
    return path


@contender("matrix", "ours", "Resonance, embeddings()")
def whole_matrix(load: Load, folder: Path) -> Case:
    with ResonanceDB(filled(load, folder)) as db:
        db.embeddings()
        yield
        found = db.embeddings()
        yield
    return check_matrix(load, found.ids, found.vectors)


@contender("matrix", "ours-pieces", "Resonance, iter_embeddings()")
def pieces_of_matrix(load: Load, folder: Path) -> Case:
    with ResonanceDB(filled(load, folder)) as db:
        for _ in db.iter_embeddings():
            pass
        yield
        rows = sum(len(piece.ids) for piece in db.iter_embeddings())
        yield
        pieces = list(db.iter_embeddings())
    ids = [name for piece in pieces for name in piece.ids]
    return min(rows, check_matrix(load, ids, np.vstack([piece.vectors for piece in pieces])))
