"""Draw how the time of a search grows with rows and with k, out of the JSON of the search benchmark.

python benchmarks/search_plot.py [search.json] [picture.png]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from plot import HERE, INK, dress, write_ends

LINES = {
    "lancedb": ("LanceDB", "#e59866"),
    "sqlite-vec": ("sqlite-vec", "#c9b37e"),
    "numpy": ("NumPy", "#34495e"),
    "usearch": ("usearch, exact", "#b39ddb"),
    "faiss": ("faiss IndexFlatIP", "#7fb3d5"),
    "ours-stream": ('Resonance, "stream"', "#f1948a"),
    "ours": ("Resonance", "#c0392b"),
}
BY_K = {"k10": 10, "k100": 100, "k1000": 1000, "k10000": 10_000}

Points = list[tuple[int, float, float, float]]


def by_rows(cases: list[dict[str, Any]], name: str) -> Points:
    """(rows, ms, lowest, highest) of the ten nearest among made-up vectors."""
    found = {}
    for case in cases:
        if (case["kind"], case["dims"]) == ("made", 384):
            for entry in case["results"]:
                if (entry["question"], entry["contender"]) == ("k10", name) and "seconds" in entry:
                    found[case["rows"]] = _ms(entry)
    return [(at, *ms) for at, ms in sorted(found.items())]


def by_k(case: dict[str, Any], name: str) -> Points:
    """(k, ms, lowest, highest) in one case."""
    return [
        (BY_K[entry["question"]], *_ms(entry))
        for entry in case["results"]
        if entry["contender"] == name and entry["question"] in BY_K and "seconds" in entry
    ]


def _ms(entry: dict[str, Any]) -> tuple[float, float, float]:
    seconds = entry["seconds"]
    return 1000 * seconds["median"], 1000 * seconds["min"], 1000 * seconds["max"]


def draw(axes: Axes, lines: dict[str, Points], title: str, label: str) -> None:
    """One panel."""
    ends = []
    for name, (words, colour) in LINES.items():
        if not (points := lines[name]):
            continue
        ours = name.startswith("ours")
        at, ms, low, high = zip(*points, strict=True)
        axes.fill_between(at, low, high, color=colour, alpha=0.12, lw=0)
        axes.plot(at, ms, color=colour, lw=2.6 if ours else 1.5, marker="o", ms=5 if ours else 3.5)
        ends.append((at[-1], ms[-1], words, colour, ours))
    dress(axes, title, label)
    write_ends(axes, ends)


def main() -> None:
    given = [Path(each) for each in sys.argv[1:]]
    source = given[0] if given else HERE / "results" / "search.json"
    target = given[1] if len(given) > 1 else HERE.parent / "docs" / "images" / "search.png"
    runs = json.loads(source.read_text(encoding="utf-8"))["runs"]
    # The growth run last: where sizes meet, its points are the ones of one run.
    cases = [case for name in sorted(runs, key=lambda name: name == "growth") for case in runs[name]["cases"]]
    full = [case for case in cases if case["kind"] == "made" and by_k(case, "ours")[1:]]
    figure, panels = plt.subplots(1, 2, figsize=(12.5, 5), dpi=150, sharey=True)
    draw(panels[0], {name: by_rows(cases, name) for name in LINES}, "The 10 nearest of n vectors", "rows")
    if full:
        case = max(full, key=lambda case: case["rows"])
        title = f"The k nearest of {case['rows']:,} vectors"
        draw(panels[1], {name: by_k(case, name) for name in LINES}, title, "k")
    panels[0].set_ylabel("ms a query, one thread", color=INK, fontsize=9)
    run = next(iter(runs.values()))
    words = (
        f"{run['machine']['processor']}, {run['machine']['cores']} cores; 384 dimensions, exact, one thread; "
        f"lines are medians, bands go from the fastest to the slowest round. make bench-search, {run['date']}"
    )
    figure.text(0.008, 0.012, words, fontsize=7.5, color="#7f8c8d")
    figure.tight_layout(rect=(0, 0.03, 0.99, 1), w_pad=2.5)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, facecolor="white")
    print(target)


if __name__ == "__main__":
    main()
