"""One searcher in a process of its own, which answers one command after the other.

    python benchmarks/search_child.py < commands

Commands and answers are lines of JSON: ``{"prepare": ...}`` or ``{"open": ...}`` first, then questions.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from contender import find
from measured import memory
from search_data import Given
from search_report import NOT_OFFERED
from searchers import QUESTION, Searcher

PATIENCE = 1.0
"""Seconds after which a question is not asked again in this turn."""

# (method of the searcher, k): what is asked with one query after the other.
QUESTIONS = {
    "k10": ("ask", 10),
    "k100": ("ask", 100),
    "k1000": ("ask", 1000),
    "k10000": ("ask", 10_000),
    "filter": ("ask_filtered", 10),
    "where": ("ask_where", 10),
    "many": ("ask_many", 10),
}
AT_ONCE = 10
"""Different queries of one turn."""

THREADS = 8
MOST_NEAR = 4000
"""Rows near to a query that are written at most; what is judged by them is then judged at once."""


class Bench:
    """A searcher and the truth about its case."""

    def __init__(self, name: str, given: str, folder: str) -> None:
        self.given = Given(Path(given))
        self.queries = self.given.queries
        self.make: Callable[[], Searcher] = lambda: find(QUESTION, name).play(self.given, Path(folder))  # type: ignore[arg-type, assignment, return-value]
        self.before = memory()[0]
        self.searcher = self.make()

    def turn(self, question: str, check: bool) -> dict[str, Any]:
        """The median of the seconds it took each time; and how right it was, if that is to be checked."""
        method, k = QUESTIONS[question]
        ask = getattr(self.searcher, method, None)
        if ask is None:
            return {"absent": NOT_OFFERED}
        if question == "many":
            ask_all, turns = self.queries, [self.queries] * 3
        else:
            ask_all, turns = self.queries[:AT_ONCE], list(self.queries[:AT_ONCE])
        if check:
            try:
                told = self._check(question, ask, ask_all, k)
            except Exception as error:
                return {"absent": f"{type(error).__name__}: {error}"}
        else:
            told = {}
        ask(turns[0], k)
        gc.collect()
        seconds: list[float] = []
        until = time.perf_counter() + PATIENCE
        for query in turns:
            started = time.perf_counter()
            ask(query, k)
            seconds.append(time.perf_counter() - started)
            if time.perf_counter() > until and len(seconds) > 1:
                break
        if check and hasattr(self.searcher, "stages") and method == "ask":
            told["stages"] = self.searcher.stages(self.queries[0], k)
        return {"seconds": statistics.median(seconds), **told}

    def _check(self, question: str, ask: Any, queries: Any, k: int) -> dict[str, Any]:
        """Share of the true rows that were found, of answers in the true order, and the worst score.

        Rows whose true scores are nearer than float32 can tell may come in either order.
        """
        if question == "many":
            found = self.searcher.many_rows(ask(queries, k))
        else:
            found = [self.searcher.rows(ask(query, k)) for query in queries]
        few = question in ("filter", "where")
        truth, scores = (self.given.rare_truth, self.given.rare_scores) if few else (
            self.given.truth, self.given.truth_scores
        )  # fmt: skip
        recall, same, worst = [], [], 0.0
        for number, (rows, told) in enumerate(found):
            wanted, exact = truth[number][:k], scores[number][:k]
            recall.append(len(np.intersect1d(rows[: len(wanted)], wanted)) / len(wanted))
            same.append(np.array_equal(rows, wanted))
            where = dict(zip(wanted.tolist(), exact.tolist(), strict=True))
            known = [(score, where[row]) for row, score in zip(rows, told, strict=True) if row in where]
            worst = max([worst, *(abs(float(one) - two) for one, two in known)])
        return {"recall": float(np.mean(recall)), "same": float(np.mean(same)), "worst_score": worst}

    def open(self) -> dict[str, Any]:
        """Close, open, and ask one question."""
        self.searcher.close()
        del self.searcher
        gc.collect()
        started = time.perf_counter()
        self.searcher = self.make()
        opened = time.perf_counter() - started
        if getattr(self.searcher, "ask", None) is None:
            return {"absent": NOT_OFFERED}
        self.searcher.ask(self.queries[0], 10)
        return {"seconds": time.perf_counter() - started, "opened": opened}

    def memory(self) -> dict[str, Any]:
        """Resident bytes now, beyond those before it was opened."""
        gc.collect()
        told = {"bytes": memory()[0] - self.before}
        if getattr(self.searcher, "codes_bytes", None) is not None:
            told["codes"] = self.searcher.codes_bytes()
        return told

    def insert(self, number: int) -> dict[str, Any]:
        """One more row, and a search that finds it."""
        if getattr(self.searcher, "insert", None) is None:
            return {"absent": NOT_OFFERED}
        vector = np.random.default_rng(number).standard_normal(self.queries.shape[1], dtype=np.float32)
        vector /= np.linalg.norm(vector)
        usual = []
        for query in (self.queries[0], vector, vector):
            started = time.perf_counter()
            self.searcher.ask(query, 10)
            usual.append(time.perf_counter() - started)
        started = time.perf_counter()
        self.searcher.insert(number, vector)
        inserted = time.perf_counter() - started
        rows, scores = self.searcher.rows(self.searcher.ask(vector, 10))
        seconds = time.perf_counter() - started
        if rows[0] != number or abs(scores[0] - 1) > 1e-5:
            raise ValueError(f"row {number} was inserted, and {rows[0]} found with {scores[0]}")
        # What a search takes varies more than what the new row costs it: the middle of some before and after.
        for query in (vector, vector):
            started = time.perf_counter()
            self.searcher.ask(query, 10)
            usual.append(time.perf_counter() - started)
        found = max(0.0, seconds - inserted - statistics.median(usual[1:]))
        return {"seconds": inserted + found, "inserted": inserted, "search": seconds - inserted}

    def threads(self, each: int, write: bool) -> dict[str, Any]:
        """Threads that ask, each ``each`` times, while another inserts as fast as it can (if ``write``)."""
        if not self.searcher.shared:
            return {"absent": NOT_OFFERED}
        return Crowd(self, each, write and hasattr(self.searcher, "insert")).run()


class Crowd:
    """Threads that ask, and one that writes vectors near to what they ask for."""

    def __init__(self, bench: Bench, each: int, write: bool) -> None:
        self.bench, self.each, self.write = bench, each, write
        self.truth, self.scores = bench.given.truth[:, :10], bench.given.truth_scores[:, :10]
        self.first = 5_000_000
        exact = bench.queries.astype(np.float64)
        self.exact = exact / np.linalg.norm(exact, axis=1, keepdims=True)
        self.written: list[int] = []
        self.vectors: dict[int, Any] = {}
        self.near = np.empty((MOST_NEAR, exact.shape[1]))
        self.near_rows = np.empty(MOST_NEAR, np.int64)
        self.nears = 0
        self.wrong: list[str] = []
        self.errors: list[str] = []
        self.asking = THREADS

    def run(self) -> dict[str, Any]:
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(THREADS)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        if self.write:
            self._write(threads)
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - started
        return {
            "seconds": seconds / (THREADS * self.each),
            "queries": THREADS * self.each,
            "per_second": THREADS * self.each / seconds,
            "written": len(self.written),
            "wrong": len(self.wrong),
            "errors": len(self.errors),
            "first_bad": (self.wrong + self.errors)[:1],
        }

    def _write(self, threads: list[threading.Thread]) -> None:
        """Rows at a steady pace, every tenth of them the nearest that one of the queries ever had."""
        random = np.random.default_rng(7)
        number = self.first
        while any(thread.is_alive() for thread in threads):
            vector = random.standard_normal(self.bench.queries.shape[1], dtype=np.float32)
            near = number % 10 == 0 and self.nears < MOST_NEAR
            if near:
                vector = 20 * self.bench.queries[number // 10 % len(self.exact)] + vector
            vector = (vector / np.linalg.norm(vector)).astype(np.float32)
            self.vectors[number] = vector.astype(np.float64)
            try:
                self.bench.searcher.insert(number, vector)
            except Exception as error:
                self.errors.append(f"insert: {type(error).__name__}: {error}")
                return
            self.written.append(number)
            if near:
                self.near[self.nears], self.near_rows[self.nears] = vector, number
                self.nears += 1
            number += 1
            time.sleep(0.005)

    def _ask(self, thread: int) -> None:
        for turn in range(self.each):
            query = (thread * 7 + turn) % len(self.exact)
            known = self.nears
            try:
                answer = self.bench.searcher.ask(self.bench.queries[query], 10)
                self._judge(query, *self.bench.searcher.rows(answer), known)
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}")

    def _judge(self, query: int, rows: Any, scores: Any, known: int) -> None:
        """The old rows are the first of the true ones, the new ones have their scores, none is missing."""
        old = rows < self.first
        if not self.write:
            if len(np.intersect1d(rows, self.truth[query])) < 9:  # float32 may exchange the last
                self.wrong.append(f"query {query}: {rows}")
            return
        count = int(old.sum())
        right = np.array_equal(rows[old], self.truth[query][:count])
        right &= bool(np.allclose(scores[old], self.scores[query][:count], rtol=0, atol=1e-9))
        right &= bool((np.diff(scores) <= 0).all()) and len(rows) == 10
        for row, score in zip(rows[~old].tolist(), scores[~old], strict=True):
            right &= abs(float(self.vectors[row] @ self.exact[query]) - score) < 1e-6
        missing = self.near[:known] @ self.exact[query] > scores[-1] + 1e-6
        right &= bool(np.isin(self.near_rows[:known][missing], rows).all())
        if not right:
            self.wrong.append(f"query {query}: {rows.tolist()} {scores.tolist()}")


def main() -> None:
    first = json.loads(sys.stdin.readline())
    if "prepare" in first:
        told = first["prepare"]
        folder = Path(told["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        find(QUESTION, told["name"]).play.prepare(Given(Path(told["given"])), folder)  # type: ignore[attr-defined]
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)
        return
    bench = Bench(**first["open"])
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        (name, arguments), = json.loads(line).items()  # fmt: skip
        print(json.dumps(getattr(bench, name)(**arguments)), flush=True)


if __name__ == "__main__":
    main()
