"""The limit: a plain C program over the very engine that Resonance was built with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from contender import Case, Load, check_equal, contender
from ours import filled
from standard import check_file

from resonance import ResonanceDB, engine

ROOT = Path(__file__).resolve().parent.parent
SOURCE = Path(__file__).with_name("limit.c")
BUILD = ROOT / "build" / "bench"

_AS_BASELINE = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
_DURABLE = "COMMIT; PRAGMA wal_checkpoint;"
# A new file needs no journal, and one sync at the end: what a crash leaves of it is thrown away.
_BEST = (
    "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE; "
    "PRAGMA temp_store = MEMORY; PRAGMA foreign_keys = OFF; PRAGMA cache_size = "
)


@cache
def program() -> Path | str:
    """The compiled program, or the reason why there is none."""
    if not engine()["bundled"]:
        return "Resonance was built on the system's SQLite, whose build is not known"
    if shutil.which("cc") is None:
        return "there is no C compiler (cc)"
    objects = sorted(ROOT.glob("build/dev/CMakeFiles/_core.dir/**/engine.c.o"))
    headers = sorted(ROOT.glob("build/dev/sqlite/*/sqlite3.h"))
    if len(objects) != 1 or not headers:
        return "the engine that `make setup` compiles is not in build/dev"
    BUILD.mkdir(parents=True, exist_ok=True)
    made = BUILD / "limit"
    partial = BUILD / f"limit.{os.getpid()}"
    folder = headers[0].parent
    command = ["cc", "-O3", "-Wall", "-Wextra", f"-I{folder}", SOURCE, objects[0], "-o", partial]
    result = subprocess.run([*command, "-lpthread", "-lm"], capture_output=True, text=True, check=False)
    if result.returncode:
        return f"limit.c does not compile: {result.stderr[:500]}"
    partial.replace(made)
    return made


def absent() -> str | None:
    """Why there is no such program, or None."""
    found = program()
    return found if isinstance(found, str) else None


def run(*arguments: Any) -> dict[str, Any]:
    found = program()
    if isinstance(found, str):
        raise FileNotFoundError(found)
    result = subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"limit: {result.stderr}")
    told: dict[str, Any] = json.loads(result.stdout)
    check_equal("engine", told.pop("source_id"), engine()["source_id"])
    return told


def write_columns(columns: dict[str, Any], folder: Path, keys: int) -> list[str]:
    """Columns as the program reads them; the first ``keys`` also give the order of the table."""
    folder.mkdir()
    kinds = []
    for name, values in columns.items():
        if isinstance(values, np.ndarray):
            values.tofile(folder / f"{name}.raw")
            kinds.append(f"{name}:r" if values.ndim == 1 else f"{name}:b{values.itemsize * values.shape[1]}")
            continue
        texts = [text.encode() for text in values]
        offsets = np.zeros(len(texts) + 1, dtype=np.uint64)
        np.cumsum([len(text) for text in texts], out=offsets[1:])
        offsets.tofile(folder / f"{name}.off")
        (folder / f"{name}.txt").write_bytes(b"".join(texts))
        kinds.append(f"{name}:t")
    if keys:
        rows = list(zip(*list(columns.values())[:keys], strict=True))
        order = np.array(sorted(range(len(rows)), key=rows.__getitem__), dtype=np.uint32)
        order.tofile(folder / "order.u32")
    return kinds


def insert(load: Load, folder: Path, *, best: bool) -> Case:
    given = load.make()
    table, keys = ("edges", 3) if load.edges else ("nodes", 1)
    kinds = write_columns(given.columns, folder / "input", keys if best else 0)
    path = folder / "graph.db"
    # Made by Resonance, so the schema is ours; page size and journal are what is compared.
    with ResonanceDB(path, page_size=load.page_size if best else 4096) as db:
        if load.edges:
            db.insert_nodes(id=given.ids)
    setup, before, after = _AS_BASELINE + "PRAGMA foreign_keys = ON", "BEGIN", _DURABLE
    if best:
        # In key order a cache that fits the processor's is faster; building an index wants a large one.
        setup, after = f"{_BEST}-{65536 if load.edges else 4096}", "COMMIT"
        if load.edges:
            before, after = (
                "BEGIN; DROP INDEX idx_edges_target",
                "CREATE INDEX idx_edges_target ON edges (target); COMMIT",
            )
    os.sync()
    yield
    told = run("insert", path, folder / "input", table, load.rows, setup, before, after, *kinds)
    yield
    shutil.rmtree(folder / "input")
    told["rows"] = check_file(load, folder)
    return told


@contender("nodes", "c", "C, settings of the baseline", absent_because=absent)
def nodes_as_baseline(load: Load, folder: Path) -> Case:
    return (yield from insert(load, folder, best=False))


@contender("nodes", "c-best", "C, sorted, fresh file, no journal", absent_because=absent)
def nodes_best(load: Load, folder: Path) -> Case:
    return (yield from insert(load, folder, best=True))


@contender("edges", "c", "C, settings of the baseline", absent_because=absent)
def edges_as_baseline(load: Load, folder: Path) -> Case:
    return (yield from insert(load, folder, best=False))


@contender("edges", "c-best", "C, sorted, no journal, keys unchecked", absent_because=absent)
def edges_best(load: Load, folder: Path) -> Case:
    return (yield from insert(load, folder, best=True))


@contender("matrix", "c", "C, one connection, memcpy", absent_because=absent)
def matrix(load: Load, folder: Path) -> Case:
    path = filled(load, folder)
    yield
    told = run("matrix", path, load.nodes, load.dims, "PRAGMA cache_size = -65536")
    yield
    wanted = float(load.make().vectors.sum(dtype=np.float64))
    if abs(told.pop("sum") - wanted) > 1e-3 * load.nodes**0.5:
        raise ValueError("the vectors are not those that were written")
    return told
