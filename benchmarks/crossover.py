"""Where one way of doing a thing becomes cheaper than another: the numbers behind our constants.

    python benchmarks/crossover.py [pages] [indexes] [shared] [readers] [--rounds 3] [--small]

Each figure is a median over rounds; in a round the alternatives take turns, each in a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import data
import numpy as np

from resonance import ResonanceDB, bulk, matrix

RESULTS = Path(__file__).parent / "results" / "crossover.json"
PAGE_SIZES = (4096, 8192, 16384, 32768, 65536)
WIDTHS = (256, 384, 1024)
# Rows of a batch, and how many times as many are there already: beyond about a million edges an index
# is larger than the cache.
BATCHES = {200_000: (0.25, 0.5, 1.0, 1.5, 2.0, 4.0, 8.0, 16.0), 1_000_000: (1.0, 2.0)}

Figures = dict[str, float]


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call it in a new process, after everything written so far has reached the disk."""
    os.sync()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def in_turns(rounds: int, alternatives: dict[Any, Callable[[], Figures]]) -> dict[Any, Figures]:
    """The median of each figure of each alternative."""
    found: dict[Any, list[Figures]] = {name: [] for name in alternatives}
    for number in range(rounds):
        names = list(alternatives)
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(alternatives[name]())
    return {
        name: {key: statistics.median(figures[key] for figures in taken) for key in taken[0]}
        for name, taken in found.items()
    }


@contextmanager
def timed(figures: Figures, name: str) -> Iterator[None]:
    """Seconds by the wall, and of processor time, which other programs on the machine disturb less."""
    started, worked = time.perf_counter(), time.process_time()
    yield
    figures[name] = time.perf_counter() - started
    figures[f"{name}_cpu"] = time.process_time() - worked


def read_again(db: ResonanceDB, rows: int, times: int = 5) -> Figures:
    """A warm ``embeddings()``: median and best of several."""
    taken: list[Figures] = []
    for _ in range(times + 1):
        figures: Figures = {}
        with timed(figures, "read"):
            found = db.embeddings()
        taken.append(figures)
        assert found.vectors.shape[0] == len(found.ids) == rows
        del found
    best = min(figures["read"] for figures in taken[1:])
    return {name: statistics.median(figures[name] for figures in taken[1:]) for name in taken[0]} | {
        "read_best": best
    }


# --- pages ------------------------------------------------------------------------------------------


def measure_pages(folder: str, page_size: int, dims: int, count: int, singles: int) -> Figures:
    figures: Figures = {}
    nodes = data.make_nodes(count, dims)
    path = Path(folder, f"pages-{page_size}-{dims}.db")
    with ResonanceDB(path, page_size=page_size) as db:
        with timed(figures, "insert"):
            db.insert_nodes(**nodes.columns)
            db.checkpoint(truncate=False)
        figures["file_bytes"] = path.stat().st_size
        figures |= read_again(db, count)
        # A note that changed: one row, one transaction, somewhere in the file.
        chosen = np.random.default_rng(1).choice(count, singles, replace=False)
        taken = []
        for row in chosen.tolist():
            started = time.perf_counter()
            db.insert_node({"id": nodes.texts["id"][row], "embedding": nodes.vectors[row - 1]})
            taken.append(time.perf_counter() - started)
        figures["single"] = statistics.median(taken)
        assert db.query("SELECT count(*) FROM nodes") == [(count,)]
        assert db.query("SELECT page_size FROM pragma_page_size") == [(page_size,)]
    for file in Path(folder).glob(f"{path.name}*"):
        file.unlink()
    return figures


def pages(folder: str, rounds: int, small: bool) -> list[dict[str, Any]]:
    """Which page size for which width of vectors."""
    rows = []
    for dims in WIDTHS:
        count = 2_000 if small else min(100_000, 38_400_000 // dims)
        found = in_turns(
            rounds,
            {
                size: lambda size=size, dims=dims, count=count: alone(
                    measure_pages, folder, size, dims, count, 20 if small else 200
                )
                for size in PAGE_SIZES
            },
        )
        for size, figures in found.items():
            rows.append({"dims": dims, "page_size": size, "rows": count, **figures})
            read, size_of_all = figures["read"], 4 * dims * count
            say(
                f"{dims:5} dims {size:6} B pages: insert {count / figures['insert']:9,.0f}/s "
                f"(cpu {figures['insert_cpu']:5.2f} s)  read {count / read:10,.0f}/s "
                f"(best {1e-9 * size_of_all / figures['read_best']:4.2f} GB/s, "
                f"cpu {figures['read_cpu'] * 1e3:5.1f} ms)  "
                f"file {figures['file_bytes'] / size_of_all:5.3f} x vectors  "
                f"one row {figures['single'] * 1e3:5.2f} ms"
            )
    count = 20_000 if small else 500_000
    found = in_turns(
        rounds,
        {size: lambda size=size: alone(measure_edge_pages, folder, size, count) for size in PAGE_SIZES},
    )
    for size, figures in found.items():
        rows.append({"dims": 0, "page_size": size, "rows": count, **figures})
        say(
            f"edges      {size:6} B pages: insert {count / figures['insert']:9,.0f}/s "
            f"(cpu {figures['insert_cpu']:5.2f} s)  file {figures['file_bytes'] / count:5.1f} B an edge  "
            f"neighbours of one node {figures['neighbours'] / 2000 * 1e3:6.3f} ms"
        )
    return rows


def measure_edge_pages(folder: str, page_size: int, count: int) -> Figures:
    figures: Figures = {}
    edges = data.make_edges(count, count // 10)
    path = Path(folder, f"pages-{page_size}.db")
    with ResonanceDB(path, page_size=page_size) as db:
        db.insert_nodes(id=edges.ids)
        db.checkpoint()
        before = path.stat().st_size
        with timed(figures, "insert"):
            db.insert_edges(**edges.columns)
            db.checkpoint(truncate=False)
        figures["file_bytes"] = path.stat().st_size - before
        chosen = edges.ids[:2000]
        with timed(figures, "neighbours"):
            found = sum(len(db.get_edges(name, direction="both")) for name in chosen)
        assert found > 0
        assert db.query("SELECT count(*) FROM edges") == [(count,)]
    for file in Path(folder).glob(f"{path.name}*"):
        file.unlink()
    return figures


# --- indexes ----------------------------------------------------------------------------------------


def build_existing(path: str, existing: int, batch: int, nodes: int) -> None:
    edges = data.make_edges(existing + batch, nodes)
    with ResonanceDB(path) as db:
        db.insert_nodes(id=edges.ids)
        if existing:
            db.insert_edges(**{name: column[:existing] for name, column in edges.columns.items()})


def measure_index(path: str, ratio: float, existing: int, batch: int, nodes: int) -> Figures:
    figures: Figures = {}
    edges = data.make_edges(existing + batch, nodes)
    columns = {name: column[existing:] for name, column in edges.columns.items()}
    with mock.patch.object(bulk, "_REBUILD_INDEX_RATIO", ratio), ResonanceDB(path) as db:
        # As in an application that has looked at its graph before.
        db.query("SELECT count(*), count(DISTINCT target) FROM edges")
        with timed(figures, "seconds"):
            db.insert_edges(**columns)
            db.checkpoint(truncate=False)
        assert db.query("SELECT count(*) FROM edges") == [(existing + batch,)]
        assert db.query("SELECT count(*) FROM edges INDEXED BY idx_edges_target") == [(existing + batch,)]
    return figures


def indexes(folder: str, rounds: int, small: bool) -> list[dict[str, Any]]:
    """From which number of edges on an index is better kept than built anew."""
    rows = []
    for batch, ratios in BATCHES.items() if not small else ((70_000, (0.5, 2.0)),):
        for ratio in ratios:
            existing, nodes = int(batch * ratio), batch // 2
            template = Path(folder, "existing.db")
            alone(build_existing, str(template), existing, batch, nodes)

            def attempt(
                choice: float, existing=existing, nodes=nodes, batch=batch, template=template
            ) -> Figures:
                path = Path(folder, "batch.db")
                shutil.copyfile(template, path)
                try:
                    return alone(measure_index, str(path), choice, existing, batch, nodes)
                finally:
                    for file in Path(folder).glob("batch.db*"):
                        file.unlink()

            found = in_turns(rounds, {"kept": lambda a=attempt: a(0.0), "rebuilt": lambda a=attempt: a(1e9)})
            for file in Path(folder).glob("existing.db*"):
                file.unlink()
            kept, rebuilt = found["kept"]["seconds"], found["rebuilt"]["seconds"]
            rows.append(
                {"batch": batch, "existing": existing, "ratio": ratio, "kept": kept, "rebuilt": rebuilt}
                | {f"{name}_cpu": figures["seconds_cpu"] for name, figures in found.items()}
            )
            by_cpu = rows[-1]["kept_cpu"] / rows[-1]["rebuilt_cpu"]
            say(
                f"batch {batch:9,}  existing {ratio:4.2f} x batch: kept {kept:6.3f} s "
                f"({batch / kept:9,.0f}/s)  "
                f"rebuilt {rebuilt:6.3f} s  kept / rebuilt {kept / rebuilt:5.2f} (cpu {by_cpu:4.2f})"
            )
        say(f"batch {batch:9,}: equal at existing = {crossing(rows, batch)} x batch")
    return rows


def crossing(rows: list[dict[str, Any]], batch: int) -> str:
    """Where kept / rebuilt goes through 1, interpolated between the ratios measured."""
    taken = [(row["ratio"], row["kept"] / row["rebuilt"] - 1) for row in rows if row["batch"] == batch]
    for (a, above), (b, below) in itertools.pairwise(taken):
        if above >= 0 > below:
            return f"{a + (b - a) * above / (above - below):.2f}"
    return f"> {taken[-1][0]}" if taken[-1][1] >= 0 else f"< {taken[0][0]}"


# --- sharing ----------------------------------------------------------------------------------------

_OTHER_WRITER = """
import json, sys, time
from resonance import ResonanceDB
waits, calls = [], []
with ResonanceDB(sys.argv[1]) as db:
    print("ready", flush=True)
    stop = time.monotonic() + 600
    import select
    number = 0
    while not select.select([sys.stdin], [], [], float(sys.argv[2]))[0] and time.monotonic() < stop:
        began = time.perf_counter()
        db.insert_node({"id": f"other-{number:07d}", "title": "written by another process"})
        calls.append(time.perf_counter() - began)
        waits.append(db._session.waits[-1])
        number += 1
    print(json.dumps({"waits": waits, "calls": calls}))
"""


def measure_sharing(folder: str, what: str, mode: str, pause: float | None, count: int, dims: int) -> Figures:
    figures: Figures = {}
    path = Path(folder, "shared.db")
    if what == "nodes":
        source: Any = data.make_nodes(count, dims)
    else:
        source = data.make_edges(count, count // 10)
    other = None
    with ResonanceDB(path, dims=dims) as db:
        if what == "edges":
            db.insert_nodes(id=source.ids)
        db.checkpoint()
        if pause is not None:
            other = subprocess.Popen(
                [sys.executable, "-c", _OTHER_WRITER, str(path), str(pause)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert other.stdout is not None
            assert other.stdout.readline() == "ready\n"
            time.sleep(0.2)
        db._session.holds.clear()
        insert = db.insert_nodes if what == "nodes" else db.insert_edges
        with timed(figures, "seconds"):
            insert(**source.columns, mode=mode)
            db.checkpoint(truncate=False)
        holds = np.array(db._session.holds) * 1e3
        if other is not None:
            out, _ = other.communicate("stop\n", timeout=60)
            told = json.loads(out)
            waits = np.array(told["waits"]) * 1e3
            calls = np.array(told["calls"]) * 1e3
            figures |= {
                "other_writes": len(waits),
                **{f"wait_p{q}": float(np.percentile(waits, q)) for q in (50, 99, 100)},
                "call_p99": float(np.percentile(calls, 99)),
            }
        figures |= {f"hold_p{q}": float(np.percentile(holds, q)) for q in (50, 99, 100)}
        figures["holds"] = len(holds)
        others = figures.get("other_writes", 0) if what == "nodes" else 0
        assert db.query(f"SELECT count(*) FROM {what}") == [(count + others,)]
    for file in Path(folder).glob("shared.db*"):
        file.unlink()
    return figures


def shared(folder: str, rounds: int, small: bool) -> list[dict[str, Any]]:
    """How long ``mode="shared"`` keeps the lock while another process writes, and what that costs."""
    rows = []
    for what, count in (("nodes", 5_000 if small else 100_000), ("edges", 20_000 if small else 500_000)):
        # Alone; with another process that writes every 20 ms; with one that always waits.
        choices = [(mode, pause) for pause in (None, 0.02, 0.0) for mode in ("exclusive", "shared")]
        found = in_turns(
            rounds,
            {
                choice: lambda choice=choice, what=what, count=count: alone(
                    measure_sharing, folder, what, *choice, count, 384 if what == "nodes" else 0
                )
                for choice in choices
            },
        )
        for (mode, pause), figures in found.items():
            rows.append({"what": what, "rows": count, "mode": mode, "pause": pause, **figures})
            beside = {None: "alone", 0.02: "beside one writing every 20 ms", 0.0: "beside one always writing"}
            text = (
                f"{what} {mode:9} {beside[pause]:30}: {count / figures['seconds']:9,.0f}/s  lock held p50 "
                f"{figures['hold_p50']:7.1f} p99 {figures['hold_p99']:7.1f} "
                f"max {figures['hold_p100']:7.1f} ms"
            )
            if pause is not None:
                text += (
                    f"  other waited p50 {figures['wait_p50']:6.1f} p99 {figures['wait_p99']:6.1f} max "
                    f"{figures['wait_p100']:6.1f} ms ({figures['other_writes']:.0f} writes)"
                )
            say(text)
    return rows


# --- readers ----------------------------------------------------------------------------------------


def build_matrix(path: str, count: int, dims: int) -> None:
    nodes = data.make_nodes(count, dims)
    with ResonanceDB(path, dims=dims) as db:
        db.insert_nodes(**nodes.columns)


def measure_readers(path: str, readers: int, count: int) -> Figures:
    with (
        mock.patch.object(matrix, "READERS", readers),
        mock.patch.object(matrix, "ROWS_PER_READER", 1),
        ResonanceDB(path) as db,
    ):
        return read_again(db, count, 5 if count > 50_000 else 20)


def readers(folder: str, rounds: int, small: bool) -> list[dict[str, Any]]:
    """How many connections read a matrix fastest, and from how many rows on the second one pays."""
    rows = []
    for count in (1_000, 4_000) if small else (2_000, 4_000, 8_000, 16_000, 32_000, 100_000, 500_000):
        path = Path(folder, "readers.db")
        alone(build_matrix, str(path), count, 384)
        found = in_turns(
            rounds,
            {
                number: lambda number=number, count=count, path=path: alone(
                    measure_readers, str(path), number, count
                )
                for number in (1, 2, 4)
            },
        )
        for file in Path(folder).glob("readers.db*"):
            file.unlink()
        for number, figures in found.items():
            rows.append({"rows": count, "readers": number, **figures})
            say(
                f"{count:8,} x 384 with {number} readers: {figures['read'] * 1e3:8.2f} ms  "
                f"(best {figures['read_best'] * 1e3:8.2f}, cpu {figures['read_cpu'] * 1e3:8.2f})  "
                f"{count / figures['read']:10,.0f}/s  {found[1]['read'] / figures['read']:5.2f} x one reader "
                f"(best {found[1]['read_best'] / figures['read_best']:5.2f})"
            )
    return rows


# ----------------------------------------------------------------------------------------------------

PARTS = {"pages": pages, "indexes": indexes, "shared": shared, "readers": readers}


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the program itself")
    parser.add_argument("--folder", type=Path, help="where to put the databases; default: a temporary one")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part is called {unknown.pop()!r}")
    for name in options.parts or PARTS:
        say(f"\n== {name}: {PARTS[name].__doc__}  (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)")
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            found = PARTS[name](folder, options.rounds, options.small)
        say(f"   (load at the end {os.getloadavg()[0]:.1f})")
        if not options.small:
            kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(kept | {name: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
