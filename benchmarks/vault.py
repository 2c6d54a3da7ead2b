"""How long a vault takes: from nothing, as it is, and after one of its notes has changed. No model.

    python benchmarks/vault.py VAULT [--rounds 3] [--edits 30]

The vault is copied first and only the copy is written to. All runs are in one process, which is warm
after the first round; the median is printed, and the load of the machine then, as it is all that tells
a slow machine from a slow program. `searchable` ends when the changed word is found.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from resonance import ResonanceDB
from resonance.care.regenerate import regenerate
from resonance.vault.ingest import Keeper, ingest
from resonance.vault.settings import load_settings


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def tell(what: str, times: list[float], saw: str) -> None:
    spread = f"{min(times) * 1e3:,.1f} to {max(times) * 1e3:,.1f}"
    load = os.getloadavg()[0]
    print(f"{what:22} {median(times) * 1e3:10,.1f} ms  ({spread})  load {load:.1f}  {saw}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("vault", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--edits", type=int, default=30)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(shutil.copytree(asked.vault, Path(place, "vault")))
        measure(root, Path(place), asked.rounds, asked.edits)


def measure(root: Path, place: Path, rounds: int, edits: int) -> None:
    def fresh(number: int) -> None:
        settings = load_settings(root, database=place / f"init-{number}.db", model="none")
        regenerate(settings.database, settings)

    tell("init", [seconds(lambda n=n: fresh(n)) for n in range(rounds)], f"{rounds} times from nothing")
    settings = load_settings(root, database=place / "ingest.db", model="none")
    with ResonanceDB(settings.database) as db:
        tell(
            "ingest, from nothing", [seconds(lambda: ingest(db, settings))], "beside readers, in short turns"
        )
        times = [seconds(lambda: ingest(db, settings)) for _ in range(rounds)]
        tell("ingest, unchanged", times, f"{rounds} times")
        keeper = Keeper(db, settings)
        found = keeper.ingest()
        times = edit(db, keeper, root, edits)
        tell("one note, searchable", times, f"{edits} edits in {found.files:,} notes, {found.edges:,} edges")


def edit(db: ResonanceDB, keeper: Keeper, root: Path, edits: int) -> list[float]:
    """Times from a note that was saved to a word of it that is found; a note as long as most."""
    paths = db.query("SELECT path, size FROM files WHERE hash <> '' ORDER BY size, path")
    path = paths[len(paths) // 2][0]
    text = (root / path).read_text(encoding="utf-8")
    times = []
    for number in range(edits):
        (root / path).write_text(f"{text}\n\nedited{number} [itself]({Path(path).name})\n", encoding="utf-8")

        def follow(word: str = f"edited{number}") -> None:
            keeper.ingest([path])
            assert db.search_text(word, k=1)[0].path == path

        times.append(seconds(follow))
    return times


if __name__ == "__main__":
    main()
