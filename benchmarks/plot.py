"""Draw how rates grow with size, out of the JSON of one or more runs.

python benchmarks/plot.py [results.json] [picture.png]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

HERE = Path(__file__).parent

# Who is drawn, as what, in which colour; ours last, on top.
LINES = {
    "chroma": ("Chroma", "#b39ddb"),
    "sqlite-vec": ("sqlite-vec", "#c9b37e"),
    "sqlite-utils": ("sqlite-utils", "#9e9e9e"),
    "lancedb": ("LanceDB", "#e59866"),
    "duckdb": ("DuckDB", "#d4ac0d"),
    "apsw": ("apsw", "#7fb3d5"),
    "stdlib": ("sqlite3", "#34495e"),
    "c-best": ("C, best case", "#aab7b8"),
    "c": ("C program", "#aab7b8"),
    "ours-fresh": ("Resonance, fresh file", "#f1948a"),
    "ours": ("Resonance", "#c0392b"),
}
# Where it matters to know what somebody leaves out.
NOT_ALL = {
    ("edges", "lancedb"): "LanceDB (no keys)",
    ("edges", "c-best"): "C, best case (keys unchecked)",
    ("nodes", "chroma"): "Chroma (indexes them)",
}
PANELS = (
    ("nodes", "Nodes with 384-d vectors in", "nodes", ("c",)),
    ("edges", "Edges in, foreign keys true", "edges", ("c",)),
    ("matrix", "All 384-d vectors out", "nodes", ()),
)
INK, FAINT = "#2c3e50", "#d5dbdb"


def points(
    runs: dict[str, Any], question: str, size: str, name: str
) -> list[tuple[int, float, float, float]]:
    """(size, rate, lowest, highest) of one contender, by size."""
    found = {}
    for run in runs.values():
        for entry in run["results"]:
            if (entry["question"], entry["contender"]) != (question, name) or "error" in entry:
                continue
            if entry["meta"] or entry["dims"] not in (0, 384):
                continue
            seconds, rows = entry["seconds"], entry["rows"]
            found[entry[size]] = (entry["rate"], rows / seconds["max"], rows / seconds["min"])
    return [(at, *rates) for at, rates in sorted(found.items())]


def draw(
    axes: Axes, runs: dict[str, Any], question: str, title: str, size: str, without: tuple[str, ...]
) -> None:
    """One panel."""
    ends = []
    for name, (label, colour) in LINES.items():
        taken = [] if name in without else points(runs, question, size, name)
        if not taken:
            continue
        ours, limit = name.startswith("ours"), name.startswith("c-") or name == "c"
        at = [point[0] for point in taken]
        axes.fill_between(
            at, [point[2] for point in taken], [point[3] for point in taken], color=colour, alpha=0.12, lw=0
        )
        axes.plot(
            at,
            [point[1] for point in taken],
            color=colour,
            lw=2.6 if ours else 1.5,
            ls=(0, (4, 2)) if limit else "-",
            marker="o",
            ms=5 if ours else 3.5,
            zorder=3 if ours else 2,
        )
        ends.append((at[-1], taken[-1][1], NOT_ALL.get((question, name), label), colour, ours))
    dress(axes, title, size)
    write_ends(axes, ends)


def dress(axes: Axes, title: str, label: str) -> None:
    """Scales, grid and title of a panel."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold", pad=10)
    axes.set_xlabel(label, color=INK, fontsize=9)
    axes.grid(which="major", color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8.5, length=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(in_short))
        axis.set_minor_formatter(NullFormatter())
        axis.set_minor_locator(NullLocator())


def write_ends(axes: Axes, ends: list[tuple[int, float, str, str, bool]]) -> None:
    """Names at the right edge, moved apart where they would overlap, with a thread back to their line."""
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    step = (high / low) ** (1 / 19)
    places: list[float] = []
    for _, rate, *_ in sorted(ends, key=lambda end: end[1]):
        places.append(max(rate, places[-1] * step) if places else rate)
    # Too far up at the top: press them down again.
    for i in range(len(places) - 1, -1, -1):
        above = places[i + 1] / step if i + 1 < len(places) else high
        places[i] = min(places[i], above)
    edge = right * (right / left) ** 0.03
    for place, (at, rate, label, colour, ours) in zip(
        places, sorted(ends, key=lambda end: end[1]), strict=True
    ):
        axes.plot([at, edge], [rate, place], color=colour, lw=0.6, alpha=0.7, clip_on=False, zorder=1)
        axes.text(
            edge * 1.04,
            place,
            label,
            color=colour if ours else INK,
            fontsize=8.5,
            va="center",
            fontweight="bold" if ours else "normal",
            clip_on=False,
        )
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)


def in_short(value: float, _: object = None) -> str:
    """1000000 as 1M."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def main() -> None:
    given = [Path(each) for each in sys.argv[1:]]
    source = given[0] if given else HERE / "results" / "latest.json"
    target = given[1] if len(given) > 1 else HERE.parent / "docs" / "images" / "growth.png"
    runs = json.loads(source.read_text(encoding="utf-8"))["runs"]
    figure, panels = plt.subplots(1, 3, figsize=(15.5, 4.9), dpi=150)
    for axes, (question, title, size, without) in zip(panels, PANELS, strict=True):
        draw(axes, runs, question, title, size, without)
    panels[0].set_ylabel("rows a second, durable", color=INK, fontsize=9)
    panels[2].set_ylabel("rows a second, warm", color=INK, fontsize=9)
    any_run = next(iter(runs.values()))
    machine = any_run["machine"]
    figure.text(
        0.008,
        0.012,
        f"{machine['processor']}, {machine['cores']} cores; SQLite {any_run['engine']['version']}; lines are "
        f"medians, bands go from the slowest to the fastest round. make bench, {any_run['date']}",
        fontsize=7.5,
        color="#7f8c8d",
    )
    figure.tight_layout(rect=(0, 0.03, 0.99, 1), w_pad=2.5)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, facecolor="white")
    print(target)


if __name__ == "__main__":
    main()
