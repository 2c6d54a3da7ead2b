"""The search benchmark: the same vectors, the same queries, everybody in turns, checked against float64.

python benchmarks/search.py [--scale small] [--rounds 3] [--only ours,numpy] [--results search.json]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import search_data
from contender import Contender, Load, contenders
from report import describe, keep
from search_data import Case
from search_report import summary, table
from searchers import QUESTION

HERE = Path(__file__).parent
CHILD = HERE / "search_child.py"

_ALL = ("k10", "k100", "k1000", "k10000", "filter", "where", "many")
_DRAWN = ("ours", "ours-stream", "faiss", "numpy", "usearch", "sqlite-vec", "lancedb")
# Three matrices of 3 GB side by side are enough.
_GROWTH = tuple(
    Case("made", rows, 384, ("k10",), _DRAWN if rows <= 1_000_000 else _DRAWN[:4])
    for rows in (10_000, 30_000, 100_000, 300_000, 1_000_000, 2_000_000)
)
SCALES: dict[str, tuple[Case, ...]] = {
    "tiny": (Case("made", 1200, 16, _ALL, each_thread=20),),
    "small": (Case("made", 10_000, 384, _ALL, each_thread=100),),
    "medium": (
        Case("made", 100_000, 384, _ALL, each_thread=1000),
        Case("real", 100_000, 256, _ALL),
    ),
    "large": (
        Case("made", 500_000, 384, _ALL, each_thread=1000),
        Case("real", 1_000_000, 256, _ALL),
    ),
    "growth": _GROWTH,
}
ROUNDS = {"tiny": 1, "small": 5, "medium": 5, "large": 4, "growth": 3}
INSERTS = 15

# One thread for each searcher, whatever it is made of; and nothing measured may look for a network.
_ONE = (
    "OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS RAYON_NUM_THREADS LANCE_CPU_THREADS "
    "TOKIO_WORKER_THREADS DO_NOT_TRACK"
)
_ENVIRONMENT = dict.fromkeys(_ONE.split(), "1") | {
    "ANONYMIZED_TELEMETRY": "False",
    "LANCEDB_CONFIG_TELEMETRY": "0",
}


class Child:
    """A searcher's process. What it cannot do it says; when it ends, it has failed."""

    def __init__(self, first: dict[str, Any]) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the child
        self._process = subprocess.Popen(
            [sys.executable, CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | _ENVIRONMENT,
        )
        self.first = self.tell(first)

    def tell(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"exit status {self._process.wait()}: {self._errors.read()[-2000:]}")
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(60)


class Play:
    """All that is asked about one case."""

    def __init__(self, case: Case, rounds: int, only: set[str] | None, folder: Path) -> None:
        self.case, self.rounds, self.folder = case, rounds, folder
        self.absent: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self.turns: list[dict[str, Any]] = []
        self.who: dict[str, Contender] = {}
        self.rows = 0
        self._cannot: set[tuple[str, str]] = set()
        for each in contenders(QUESTION):
            if (only is not None and each.name not in only) or (case.only and each.name not in case.only):
                continue
            reason = search_data.absent(case) or each.absent(Load(QUESTION, case.rows))
            if reason:
                self.absent[each.name] = reason
            else:
                self.who[each.name] = each

    def run(self) -> None:
        if not self.who:
            return
        given = self.folder / "given"
        say(f"{self.case.name}: making vectors and the truth")
        search_data.make(self.case, given)
        self.rows = search_data.Given(given).rows
        with ExitStack() as stack:
            children = self._open(given, stack)
            for number in range(self.rounds):
                say(f"{self.case.name}: round {number + 1} of {self.rounds}")
                for question in self.case.questions:
                    check = {"check": number == 0}
                    self._turns(children, number, question, {"turn": {"question": question, **check}})
                if number == 0:
                    self._turns(children, number, "memory", {"memory": {}})
            for number in range(self.rounds):
                self._turns(children, number, "open", {"open": {}})
            if self.case.each_thread:
                self._writes(children)

    def _open(self, given: Path, stack: ExitStack) -> dict[str, Child]:
        children = {}
        for name in list(self.who):
            say(f"{self.case.name}: {name}")
            told = {"name": name, "given": str(given), "folder": str(self.folder / name)}
            try:
                Child({"prepare": told}).end()
                children[name] = Child({"open": told})
                stack.callback(children[name].end)
            except RuntimeError as error:
                self.errors[name] = str(error)
        return children

    def _turns(self, children: dict[str, Child], number: int, question: str, command: dict[str, Any]) -> None:
        # There and back again: nobody is always the one after the slowest.
        names = list(children) if number % 2 == 0 else list(reversed(children))
        for name in names:
            if (name, question) in self._cannot:
                continue
            busy = os.getloadavg()[0]
            try:
                found = children[name].tell(command)
            except RuntimeError as error:
                self.errors[name] = str(error)
                children.pop(name)
                continue
            if "absent" in found:
                self._cannot.add((name, question))
            turn = {"question": question, "contender": name, "round": number, "load": busy}
            self.turns.append({**turn, **found})

    def _writes(self, children: dict[str, Child]) -> None:
        for name, child in list(children.items()):
            say(f"{self.case.name}: {name}, many threads")
            # Nobody else answers right while somebody writes, so they are asked without, and less often.
            write = name in ("ours", "ours-cached")
            each = self.case.each_thread // (1 if write else 10)
            command = {"threads": {"each": max(each, 2), "write": write}}
            self._turns({name: child}, 0, "threads", command)
        for number in range(INSERTS):
            self._turns(children, number, "insert", {"insert": {"number": self.rows + number}})


def say(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Exact search beside its peers.")
    parser.add_argument("--scale", choices=list(SCALES), default="small")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", help="names of contenders, with commas")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "search.json")
    parser.add_argument("--work", type=Path, default=HERE.parent / "build" / "bench" / "work")
    options = parser.parse_args()
    only = set(options.only.split(",")) if options.only else None
    rounds, started = options.rounds or ROUNDS[options.scale], time.time()
    options.work.mkdir(parents=True, exist_ok=True)
    results, absent = [], {}
    for case in SCALES[options.scale]:
        with tempfile.TemporaryDirectory(prefix="search-", dir=options.work) as folder:
            play = Play(case, rounds, only, Path(folder))
            play.run()
        results.append(summary(play))
        absent[case.name] = play.absent
        run = describe(options.scale, started, rounds) | {"cases": results, "absent": absent}
        keep(options.results, run)  # a run that is cut off has what it had played
    print(table(run))
    print(f"\nas JSON: {options.results}")
    if any(case["errors"] for case in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
