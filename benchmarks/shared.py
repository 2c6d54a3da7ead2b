"""How long does a load with mode="shared" keep the write lock, and how long does another writer wait?

    python benchmarks/shared.py [NODES] [EDGES] [DIMENSIONS]

The other writer is a process of its own that writes a row every millisecond; it counts its waits. The
load of the machine stands beside each figure, as it is all that tells a slow machine from a slow program.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from resonance import ResonanceDB


def write(path: str) -> None:
    """The other writer, until its standard input ends."""
    os.set_blocking(0, False)
    waits = []
    with ResonanceDB(path) as db:
        print("ready", flush=True)
        while sys.stdin.buffer.read(1) is None:
            started = time.perf_counter()
            db.insert_node({"id": "other", "title": f"{started}"})
            waits.append(time.perf_counter() - started)
            time.sleep(0.001)
    print(json.dumps(waits))


def beside_a_writer(db: ResonanceDB, path: Path, what: str, rows: int, load: Callable[..., object]) -> None:
    other = subprocess.Popen(
        [sys.executable, __file__, "write", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    other.stdout.readline()
    holds: list[float] = []
    started = time.perf_counter()
    load(progress=lambda _done, _total: holds.append(db.last_hold))
    seconds = time.perf_counter() - started
    waits = json.loads(other.communicate()[0])
    told = f"{rows / seconds:10,.0f} rows/s, {len(holds):,} holds of the lock {spread(holds)}"
    print(f"{what:10}{told}, {len(waits):,} waits of the other {spread(waits)}", end="")
    print(f"   load {os.getloadavg()[0]:.1f}", flush=True)


def spread(times: list[float]) -> str:
    return "p50 {:.1f} p99 {:.1f} most {:.1f} ms".format(*np.quantile(times, (0.5, 0.99, 1)) * 1e3)


def main(path: Path, nodes: int, edges: int, dims: int) -> None:
    random = np.random.default_rng(0)
    ids = [f"node-{number:08d}" for number in random.permutation(nodes)]
    vectors = random.normal(size=(nodes, dims)).astype(np.float32)
    ends = random.integers(0, nodes, size=(2, edges))
    source, target = ([ids[end] for end in side] for side in ends)
    with ResonanceDB(path, dims=dims) as db:

        def load_nodes(**options: object) -> object:
            return db.insert_nodes(id=ids, embedding=vectors, mode="shared", **options)

        def load_edges(**options: object) -> object:
            return db.insert_edges(source=source, target=target, type="LINK", mode="shared", **options)

        beside_a_writer(db, path, "nodes", nodes, load_nodes)
        beside_a_writer(db, path, "edges", edges, load_edges)


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write(sys.argv[2])
    else:
        sizes = [int(each) for each in sys.argv[1:]] + [100_000, 300_000, 384][len(sys.argv) - 1 :]
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder, "shared.db"), *sizes)
