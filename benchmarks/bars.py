"""Where a run stands against what the design asks for: each bar, what was found, whether it is met."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from contender import BASELINE

MIB = 1 << 20
MORE_MEMORY = 256 * MIB
"""What a bulk load may take beyond its input."""

LARGE = 100_000
"""Rows from which on a load is one the bars are about."""

# Of which question, whose rate against whose, how many times at least, in words.
_RATES = (
    ("nodes", "ours", BASELINE, 3.0, "nodes into a live file"),
    ("nodes", "ours-wal", BASELINE, 3.0, "nodes in WAL, open elsewhere"),
    ("nodes", "ours-fresh", BASELINE, 5.0, "nodes into a fresh file"),
    ("nodes", "ours-rebuilt", BASELINE, 5.0, "nodes into a fresh file, then put in place"),
    ("nodes", "ours-arrow", "ours", 1.0, "nodes from Arrow against columns"),
    ("edges", "ours", BASELINE, 4.0, "edges, foreign keys true"),
    ("edges", "ours-wal", BASELINE, 4.0, "edges in WAL, open elsewhere"),
    ("edges", "ours-arrow", "ours", 1.0, "edges from Arrow against columns"),
    ("matrix", "ours", BASELINE, 8.0, "the whole matrix"),
    ("matrix", "ours", "c", 0.8, "the whole matrix against plain C"),
)
_GROWTH = ("edges", 1_000_000, 10_000_000, 0.6)


def bars(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Each bar that the entries of a run can say something about."""
    found = {(entry["case"], entry["contender"]): entry for entry in run["results"] if "error" not in entry}
    return [*_rates(found), *_growth(found), *_sizes(found)]


def _rates(found: dict[tuple[str, str], Any]) -> Iterator[dict[str, Any]]:
    for question, name, against, wanted, words in _RATES:
        for (case, contender), entry in found.items():
            other = found.get((case, against))
            large = max(entry["nodes"], entry["edges"]) >= LARGE
            if (entry["question"], contender) != (question, name) or other is None or not large:
                continue
            pairs = zip(entry["rounds"], other["rounds"], strict=False)
            ratio = statistics.median(theirs["seconds"] / mine["seconds"] for mine, theirs in pairs)
            yield _bar(case, f"{words} / {other['label']}", ratio, wanted)


def _growth(found: dict[tuple[str, str], Any]) -> Iterator[dict[str, Any]]:
    question, small, large, wanted = _GROWTH
    at = {
        entry["edges"]: entry["rate"]
        for (_, contender), entry in found.items()
        if entry["question"] == question and contender == "ours"
    }
    if small in at and large in at:
        yield _bar(f"{question}-{large}", f"rate / rate at {small:,}", at[large] / at[small], wanted)


def _sizes(found: dict[tuple[str, str], Any]) -> Iterator[dict[str, Any]]:
    """Of all ways of ours the one that took most."""
    for case in dict.fromkeys(case for case, _ in found):
        ours = [entry for (at, name), entry in found.items() if at == case and name.startswith("ours")]
        baseline = found.get((case, BASELINE))
        if not ours or ours[0]["question"] == "matrix" or max(ours[0]["nodes"], ours[0]["edges"]) < LARGE:
            continue
        if baseline is not None:
            largest = max(entry["disk_bytes"] for entry in ours)
            yield _bar(case, "file / file of the baseline", largest / baseline["disk_bytes"], 1.0, most=True)
        added = max(entry["added_bytes"] for entry in ours) / MIB
        yield _bar(case, "MiB of memory beside the input", added, MORE_MEMORY / MIB, most=True)


def _bar(case: str, what: str, value: float, wanted: float, *, most: bool = False) -> dict[str, Any]:
    met = value <= wanted if most else value >= wanted
    return {"case": case, "what": what, "found": value, "wanted": wanted, "at_most": most, "met": met}


def lines(run: dict[str, Any]) -> list[str]:
    """The same as text."""
    told = [f"{'bar':76}  {'found':>8}  {'wanted':>8}"]
    for bar in bars(run):
        sign = "<=" if bar["at_most"] else ">="
        told.append(
            f"{bar['case'] + ': ' + bar['what']:76}  {bar['found']:8.2f}  {sign} {bar['wanted']:5g}"
            f"{'' if bar['met'] else '  MISSED'}"
        )
    return told if len(told) > 1 else []
