"""What a run of the search benchmark found: as JSON, as tables, and against what the design asks for."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from report import spread

BASE = "ours"
"""Whose time all ratios are against."""

CACHED = "ours-cached"
"""Ours once more, with the file beside the database."""

FLOAT32 = 4
NOT_OFFERED = "not offered"
LARGE = 100_000
"""Rows from which on the bars say something."""

LIMITS = """\
Limits of the method
- One machine and its caches. Compare ratios within a run; do not compare seconds between machines.
- Made-up vectors are unit vectors in random directions: nothing is near to anything, which is hard on a
  bound and harder on a graph such as hnswlib's. Real ones are paragraphs of the vaults that RESONANCE_CORPORA
  names, asked for by headings, embedded with the default model.
- Everybody has a process and one thread; they take turns question by question. A time is the median of up
  to ten different queries in a turn; shown is the median over the rounds. All is warm, "open" too.
- Thousands of hits Resonance scans for and reads with as many threads as there are processors that it does
  not use itself meanwhile. The file of vector_cache has been written before anybody looks at the time.
- "x ours" is the ratio within each round: above 1, Resonance answers faster.
- Resonance answers with ids and titles out of the database, the others with row numbers and scores. It
  evaluates its filter on each call; faiss, NumPy and usearch are handed the rows that pass.
- "recall" is the share of the true rows found, "in order" the share of answers that are the true rows in the
  true order, "score off by" the largest difference to the float64 score, all against brute force in float64.
- "memory" is what the process holds after its questions beyond what it held before opening; for Resonance it
  has SQLite's caches in it. One inserted vector is searchable after its insert and what the next search
  takes longer than usual; durability differs: faiss and hnswlib keep it in memory only."""

TITLES = {
    "k10": "the 10 nearest",
    "k100": "the 100 nearest",
    "k1000": "the 1,000 nearest",
    "k10000": "the 10,000 nearest",
    "filter": "the 10 nearest of 1 % of the rows (domain = ...)",
    "where": "the 10 nearest of 1 % of the rows (a condition in SQL)",
    "many": "64 queries at once, the 10 nearest of each",
    "open": "open, and the first search",
    "insert": "one vector inserted and searchable",
    "threads": "8 threads, a query (Resonance: while another thread inserts)",
}


def summary(play: Any) -> dict[str, Any]:
    """A case: one entry for each question and contender."""
    case = play.case
    told: dict[str, Any] = {
        "case": case.name,
        "kind": case.kind,
        "rows": play.rows,
        "dims": case.dims,
        "errors": play.errors,
        "labels": {name: each.label for name, each in play.who.items()},
        "load": [turn["load"] for turn in play.turns],
        "results": [],
        "memory": {turn["contender"]: turn for turn in play.turns if turn["question"] == "memory"},
    }
    for question in TITLES:
        base = {turn["round"]: turn for turn in _turns(play, question, BASE)}
        for name in play.who:
            turns = list(_turns(play, question, name))
            if not turns:
                continue
            entry: dict[str, Any] = {"question": question, "contender": name, "turns": turns}
            if "absent" in turns[0]:
                told["results"].append({**entry, "absent": turns[0]["absent"]})
                continue
            entry["seconds"] = spread([turn["seconds"] for turn in turns])
            pairs = [
                turn["seconds"] / base[turn["round"]]["seconds"]
                for turn in turns
                if "seconds" in base.get(turn["round"], {})
            ]
            if pairs:
                entry["ratio"] = spread(pairs)
            told["results"].append(entry)
    return told


def _turns(play: Any, question: str, name: str) -> Iterator[dict[str, Any]]:
    for turn in play.turns:
        if (turn["question"], turn["contender"]) == (question, name):
            yield turn


# --- bars -------------------------------------------------------------------------------------------


def bars(case: dict[str, Any]) -> list[dict[str, Any]]:
    """What the design asks for at 500k x 384, and what was found."""
    at = {(each["question"], each["contender"]): each for each in case["results"] if "seconds" in each}
    found: list[dict[str, Any]] = []

    def bar(what: str, value: float | None, wanted: float, *, most: bool = False) -> None:
        if value is not None:
            met = value <= wanted if most else value >= wanted
            found.append({"what": what, "found": value, "wanted": wanted, "at_most": most, "met": met})

    def median(question: str, name: str, of: str = "seconds") -> float | None:
        entry = at.get((question, name), {})
        return entry[of]["median"] if of in entry else None

    def over(one: float | None, other: float | None) -> float | None:
        return None if one is None or other is None else one / other

    ours = median("k10", BASE)
    bar("top-10: faiss / ours", median("k10", "faiss", "ratio"), 3)
    bar("top-10: sqlite-vec / ours", median("k10", "sqlite-vec", "ratio"), 10)
    bar("top-10: usearch / ours", median("k10", "usearch", "ratio"), 1)
    bar("unfiltered / 1 % by domain", over(ours, median("filter", BASE)), 10)
    bar("unfiltered / 1 % by condition", over(ours, median("where", BASE)), 10)
    bar("64 queries: ours / NumPy", over(median("many", BASE), median("many", "numpy")), 1, most=True)
    bar("64: ours / the product alone", over(median("many", BASE), median("many", "product")), 1, most=True)
    bar("k = 10,000 / k = 10", over(median("k10000", BASE), ours), 2, most=True)
    few = median("k10", CACHED)
    bar("the same with vector_cache", over(median("k10000", CACHED), few), 2, most=True)
    bar("open and first search, seconds", median("open", BASE), 1.5, most=True)
    bar("the same with vector_cache", median("open", CACHED), 1.5, most=True)
    insert = median("insert", BASE)
    bar("one vector searchable, ms", None if insert is None else 1000 * insert, 5, most=True)
    memory = case["memory"].get(BASE)
    if memory is not None:
        matrix = FLOAT32 * case["rows"] * case["dims"]
        bar("codes / float32 matrix", memory["codes"] / matrix, 0.35, most=True)
        bar("resident / float32 matrix", memory["bytes"] / matrix, 0.35, most=True)
    crowd = at.get(("threads", BASE))
    if crowd is not None:
        bad = crowd["turns"][0]["wrong"] + crowd["turns"][0]["errors"]
        bar("wrong answers and errors of threads", bad, 0, most=True)
    return found


# --- tables -----------------------------------------------------------------------------------------

_HEAD = ("", "ms", "min .. max", "x ours", "min .. max", "recall", "in order", "score off by")
_WIDTHS = (32, 10, 19, 8, 15, 7, 8, 12)


def table(run: dict[str, Any]) -> str:
    machine, about = run["machine"], run["engine"]
    lines = [
        LIMITS,
        "",
        f"{run['date']}, scale {run['scale']}, {run['rounds']} rounds, {run['duration'] / 60:.1f} minutes",
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"{machine['system']}, Python {machine['python']}",
        f"engine: SQLite {about['version']} ({about['origin']}); "
        + ", ".join(f"{name} {value}" for name, value in run["versions"].items() if value),
    ]
    for case in run["cases"]:
        lines += ["", *_case(case)]
        for name, reason in run["absent"].get(case["case"], {}).items():
            lines.append(f"not in {case['case']}: {name}: {reason}")
    return "\n".join(lines)


def _case(case: dict[str, Any]) -> Iterator[str]:
    if not case["results"]:
        yield f"=== {case['case']}: nobody took part"
        return
    matrix = FLOAT32 * case["rows"] * case["dims"]
    loads = case["load"]
    yield (
        f"=== {case['rows']:,} {case['kind']} vectors of {case['dims']}: {matrix / 1e6:,.0f} MB of float32; "
        f"load average before each turn: median {statistics.median(loads):.1f}, most {max(loads):.1f}"
    )
    asked = None
    for entry in case["results"]:
        if entry.get("absent") == NOT_OFFERED:
            continue
        if entry["question"] != asked:
            asked = entry["question"]
            yield from ("", TITLES[asked], _line(_HEAD), "-" * (sum(_WIDTHS) + 2 * len(_WIDTHS) - 2))
        yield _row(case, entry)
    yield from ("", "memory after the questions")
    for name, told in case["memory"].items():
        codes = f", codes {told['codes'] / matrix:.3f}" if "codes" in told else ""
        yield (
            f"{case['labels'][name]:32}  {told['bytes'] / 1e6:8,.0f} MB  "
            f"{told['bytes'] / matrix:6.2f} of the matrix{codes}"
        )
    yield from _bars(case)
    for name, error in case["errors"].items():
        yield f"{name} FAILED: {error.strip().splitlines()[-1]}"


def _row(case: dict[str, Any], entry: dict[str, Any]) -> str:
    label = case["labels"][entry["contender"]]
    if "absent" in entry:
        return f"{label:32}  {entry['absent'][:90]}"
    seconds, ratio, first = entry["seconds"], entry.get("ratio"), entry["turns"][0]
    line = _line(
        (
            label,
            f"{1000 * seconds['median']:,.3f}",
            f"{1000 * seconds['min']:,.2f} .. {1000 * seconds['max']:,.2f}",
            "" if ratio is None else f"{ratio['median']:.2f}",
            "" if ratio is None else f"{ratio['min']:.2f} .. {ratio['max']:.2f}",
            f"{first['recall']:.3f}" if "recall" in first else "",
            f"{first['same']:.2f}" if "same" in first else "",
            f"{first['worst_score']:.1e}" if "worst_score" in first else "",
        )
    )
    if "stages" in first:
        stages = dict(first["stages"])
        scored = stages.pop("scored")
        line += f"  {scored} scored; " + ", ".join(f"{name} {1000 * at:.1f}" for name, at in stages.items())
    if "per_second" in first:
        line += (
            f"  {first['queries']} queries, {first['per_second']:.0f}/s, {first['wrong']} wrong, "
            f"{first['errors']} errors, {first['written']} inserted"
        )
    return line


def _bars(case: dict[str, Any]) -> Iterator[str]:
    if case["rows"] < LARGE:
        return
    yield from ("", f"{'bar (of 500,000 x 384)':40}  {'found':>8}  {'wanted':>8}")
    for each in bars(case):
        sign = "<=" if each["at_most"] else ">="
        yield (
            f"{each['what']:40}  {each['found']:8.2f}  {sign} {each['wanted']:5g}"
            f"{'' if each['met'] else '  MISSED'}"
        )


def _line(cells: tuple[str, ...]) -> str:
    padded = [f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)]
    return "  ".join([f"{cells[0]:{_WIDTHS[0]}}", *padded[1:]]).rstrip()


if __name__ == "__main__":
    for path in sys.argv[1:]:
        for kept_run in json.loads(Path(path).read_text(encoding="utf-8"))["runs"].values():
            print(table(kept_run), end="\n\n")
