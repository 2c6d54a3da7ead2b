"""How long does it take to fill a second space and to switch to it? And who has to wait meanwhile?

    python benchmarks/spaces.py [NODES] [DIMENSIONS]

Vectors are random, so no model is measured. While the space is filled another connection writes a row
every millisecond; nobody else writes during a switch. The load of the machine stands beside each figure.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from resonance import ResonanceDB, Space

SWITCHES = 5


def say(what: str, told: str) -> None:
    print(f"{what:<28} {told}   load {os.getloadavg()[0]:.1f}", flush=True)


def main(path: Path, nodes: int, dims: int) -> None:
    random = np.random.default_rng(0)
    ids = [f"node-{number:07d}" for number in range(nodes)]
    new, waits, done = Space("new", dims), [], threading.Event()

    def write() -> None:
        with ResonanceDB(path) as other:
            while not done.wait(0.001):
                started = time.perf_counter()
                other.insert_node({"id": "other", "title": f"{started}"})
                waits.append(time.perf_counter() - started)

    with ResonanceDB(path, dims=dims) as db:
        db.insert_nodes(id=ids, embedding=random.normal(size=(nodes, dims)), hash=ids)
        size = path.stat().st_size
        db.add_space(new)
        vectors = random.normal(size=(nodes + 1, dims)).astype(np.float32)
        writer = threading.Thread(target=write)
        writer.start()
        started, at, after = time.perf_counter(), 0, None
        while batch := db.missing_vectors(new, 4096, after=after):
            db.insert_vectors(new, batch.ids, vectors[at : at + len(batch)], stamps=batch.stamps)
            at, after = at + len(batch), batch.ids[-1]
        seconds = time.perf_counter() - started
        done.set()
        writer.join()
        say("filling", f"{at / seconds:,.0f} vectors/s")
        waited = np.quantile(waits, (0.5, 0.99, 1)) * 1000
        say("another writer waits", "p50 {:.1f} ms, p99 {:.1f} ms, most {:.0f} ms".format(*waited))
        times, holds = [], []
        for turn in range(SWITCHES):
            started = time.perf_counter()
            db.switch_space(("new", "unnamed")[turn % 2], require_complete=False)
            times.append(time.perf_counter() - started)
            holds.append(db.last_hold)
        say("a switch", f"{statistics.median(times):.2f} s, {min(times):.2f} to {max(times):.2f}")
        say(
            "of them with the lock", f"{statistics.median(holds):.2f} s, {min(holds):.2f} to {max(holds):.2f}"
        )
        query = random.normal(size=dims)
        for what, options in (("of the active space", {"memory": "stream"}), ("aside", {"space": "unnamed"})):
            started = time.perf_counter()
            for _ in range(3):
                db.search(query, **options)
            say(f"a streamed search {what}", f"{(time.perf_counter() - started) / 3 * 1000:.0f} ms")
        say("the file", f"{size >> 20} MiB before, {path.stat().st_size >> 20} MiB now")


if __name__ == "__main__":
    count, width = (int(given) for given in (*sys.argv[1:3], *("100000", "384")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder) / "spaces.db", count, width)
