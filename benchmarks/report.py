"""What a run found: as JSON, and as one table."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bars import lines as bars_as_text
from board import Record
from contender import BASELINE

from resonance import engine

FORMAT = 1
PEERS = (
    "apsw chromadb duckdb faiss-cpu hnswlib lancedb numpy pyarrow pytest-benchmark sqlite-utils "
    "sqlite-vec usearch"
).split()

LIMITS = """\
Limits of the method
- One machine, its disk and its caches. Compare ratios within a run; do not compare seconds between machines.
- The data is made up: ids in random order, unit vectors, edges between random nodes. Real ids share prefixes,
  real graphs have hubs; both help whoever sorts.
- A round is one process: import, input and schema are made before the clock starts. So a load goes into an
  empty table, and reading is warm: the file is in the system's cache, and was read once before.
- Timed is all it takes to have the rows on disk: SQLite and DuckDB write back what they logged, for LanceDB
  and Chroma every file is synced. What the disk itself does with a sync is not known here.
- The baseline binds rows of the matrix as they are and has SQLite's defaults (4 KiB pages, 2 MB of cache)
  but for WAL and foreign keys. It is spared the triggers by which our searches learn what has changed; a
  bulk load of ours writes one row in their place. "tuned" sorts first and takes our page size and cache.
- Not all do the same work. LanceDB checks no keys, DuckDB and LanceDB are given Arrow, Chroma builds its
  search index while it adds, sqlite-vec keeps texts beside a table of vectors. Resonance checks and
  normalises every vector and writes an audit entry. The C program checks nothing; its best variant
  does not check foreign keys either.
- "by cpu" is the ratio of processor time: less disturbed by whatever else runs here, but it leaves out
  waiting for the disk, and counts all threads of those that use several.
- "memory" is the high-water mark while the clock runs, above what the process held when it started."""


def summary(records: Iterable[Record]) -> list[dict[str, Any]]:
    """One dict for each contender and load, with ratios to the baseline, round by round."""
    records = list(records)
    baselines = {each.load.name: each for each in records if each.name == BASELINE}
    found = []
    for record in records:
        load = record.load
        entry: dict[str, Any] = {
            "case": load.name,
            "question": load.question,
            "contender": record.name,
            "label": record.label,
            "nodes": load.nodes,
            "edges": load.edges,
            "dims": load.dims,
            "meta": load.meta,
            "rounds": record.rounds,
        }
        if record.error is not None or not record.rounds:
            found.append({**entry, "error": record.error or "not played"})
            continue
        seconds = [each["seconds"] for each in record.rounds]
        entry |= {
            "rows": record.rounds[0]["rows"],
            "input_bytes": record.rounds[0]["input_bytes"],
            "seconds": spread(seconds),
            "cpu_seconds": spread([each["cpu"] for each in record.rounds]),
            "rate": load.rows / statistics.median(seconds),
            "disk_bytes": max(each["disk_bytes"] for each in record.rounds),
            "peak_bytes": max(each["peak"] for each in record.rounds),
            "added_bytes": max(each["peak"] - each["resident"] for each in record.rounds),
        }
        baseline = baselines.get(load.name)
        if baseline is not None and baseline.error is None:
            pairs = zip(baseline.rounds, record.rounds, strict=False)
            pairs = list(pairs)
            entry["ratio"] = spread([theirs["seconds"] / mine["seconds"] for theirs, mine in pairs])
            entry["cpu_ratio"] = spread([theirs["cpu"] / mine["cpu"] for theirs, mine in pairs])
        found.append(entry)
    return found


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def describe(scale: str, started: float, rounds: int) -> dict[str, Any]:
    """The circumstances of a run that ends now."""
    about = engine()
    return {
        "scale": scale,
        "rounds": rounds,
        "date": time.strftime("%Y-%m-%d", time.gmtime(started)),
        "duration": time.time() - started,
        "engine": {name: about[name] for name in ("version", "origin", "source_id")},
        "versions": {name: _version(name) for name in ["resonance", *PEERS]} | _built_in(),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "python": platform.python_version(),
        },
    }


def _built_in() -> dict[str, str]:
    import sqlite3

    return {"sqlite3 of Python": sqlite3.sqlite_version}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def kept_in(path: Path) -> dict[str, Any]:
    """The runs in a file, by scale."""
    if path.exists():
        before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if before.get("format") == FORMAT:
            return before
    return {"format": FORMAT, "runs": {}}


def keep(path: Path, run: dict[str, Any]) -> None:
    """Put a run into the file, in the place of an earlier one of the same scale."""
    kept = kept_in(path)
    kept["runs"][run["scale"]] = run
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def keep_played(path: Path, run: dict[str, Any]) -> None:
    """The same, but cases left out (``-k``) stay as they were measured: ratios are within a case."""
    earlier = kept_in(path)["runs"].get(run["scale"], {"results": [], "absent": {}})
    played = {entry["case"] for entry in run["results"]}
    others = [entry for entry in earlier["results"] if entry["case"] not in played]
    absent = {case: why for case, why in earlier["absent"].items() if case not in played}
    results = sorted([*others, *run["results"]], key=lambda entry: entry["case"])
    absent |= {case: why for case, why in run["absent"].items() if case in played}
    keep(path, {**run, "results": results, "absent": absent})


# --- the table --------------------------------------------------------------------------------------

_HEAD = ("", "seconds", "min .. max", "rows/s", "x baseline", "min .. max", "by cpu", "file MB", "memory MB")
_WIDTHS = (40, 9, 17, 11, 10, 15, 6, 8, 9)


def table(run: dict[str, Any]) -> str:
    """A run as text, limits of the method first."""
    machine, about = run["machine"], run["engine"]
    versions = ", ".join(f"{name} {value}" for name, value in run["versions"].items() if value)
    lines = [
        LIMITS,
        "",
        f"{run['date']}, scale {run['scale']}, {run['duration'] / 60:.1f} minutes",
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"{machine['system']}, Python {machine['python']}",
        f"engine: SQLite {about['version']} ({about['origin']}); {versions}",
    ]
    case = None
    for entry in run["results"]:
        if entry["case"] != case:
            case = entry["case"]
            lines += [
                "",
                f"{_title(entry)}; {_circumstances(run, case)}",
                _line(_HEAD),
                "-" * (sum(_WIDTHS) + 2 * len(_WIDTHS) - 2),
            ]
        lines.append(_row(entry))
    for case, reasons in run["absent"].items():
        by_reason: dict[str, list[str]] = {}
        for name, reason in reasons.items():
            by_reason.setdefault(reason, []).append(name)
        lines += ["", *(f"not in {case}: {', '.join(who)}: {reason}" for reason, who in by_reason.items())]
    if told := bars_as_text(run):
        lines += ["", *told]
    return "\n".join(lines)


def _title(entry: dict[str, Any]) -> str:
    size = f"input {entry['input_bytes'] / 1e6:,.0f} MB" if "input_bytes" in entry else "failed"
    if entry["question"] == "edges":
        return (
            f"{entry['edges']:,} edges between {entry['nodes']:,} nodes, foreign keys true at the end; {size}"
        )
    what = f"{entry['nodes']:,} nodes with {entry['dims']} dimensions"
    if entry["question"] == "matrix":
        return f"The matrix of {what}, read whole"
    return f"{what}{' and metadata' if entry['meta'] else ''}; {size}"


def _circumstances(run: dict[str, Any], case: str) -> str:
    """How often a case was played, and how busy the machine was."""
    rounds = [entry["rounds"] for entry in run["results"] if entry["case"] == case]
    loads = [each["load"] for taken in rounds for each in taken]
    if not loads:
        return "not played"
    return f"{max(map(len, rounds))} rounds, load average {statistics.median(loads):.1f}"


def _row(entry: dict[str, Any]) -> str:
    if "error" in entry:
        return f"{entry['label']:{_WIDTHS[0]}}  failed: {entry['error'].splitlines()[-1]}"
    seconds, ratio = entry["seconds"], entry.get("ratio")
    return _line(
        (
            entry["label"],
            f"{seconds['median']:.3f}",
            f"{seconds['min']:.3f} .. {seconds['max']:.3f}",
            f"{entry['rate']:,.0f}",
            "" if ratio is None else f"{ratio['median']:.2f}",
            "" if ratio is None else f"{ratio['min']:.2f} .. {ratio['max']:.2f}",
            "" if ratio is None else f"{entry['cpu_ratio']['median']:.2f}",
            f"{entry['disk_bytes'] / 1e6:,.1f}",
            f"{entry['added_bytes'] / 1e6:,.1f}",
        )
    )


def _line(cells: tuple[str, ...]) -> str:
    padded = [f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)]
    return "  ".join([f"{cells[0]:{_WIDTHS[0]}}", *padded[1:]])


if __name__ == "__main__":
    for each in sys.argv[1:]:
        for kept_run in json.loads(Path(each).read_text(encoding="utf-8"))["runs"].values():
            print(table(kept_run), end="\n\n")
