"""One round of one contender, in a process of its own: memory and caches belong to nobody else.

    python benchmarks/child.py < specification.json

The last line printed is JSON: what was measured, or ``{"prepared": true}`` where only that was asked for.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from contender import Load, check_equal, find
from measured import bytes_below, forget_peak, memory


def measure(name: str, load: Load, folder: Path) -> dict[str, Any]:
    """Play one round."""
    case = find(load.question, name).play(load, folder)
    next(case)
    gc.collect()
    os.sync()
    forget_peak()
    resident, _ = memory()
    started, worked = time.perf_counter(), time.process_time()
    next(case)
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    _, peak = memory()
    told: Any = None
    try:
        next(case)
    except StopIteration as end:
        told = end.value
    found = {"seconds": seconds, "cpu": cpu, "resident": resident, "peak": peak}
    found |= told if isinstance(told, dict) else {"rows": told}
    check_equal("rows", found["rows"], load.rows)
    return {**found, "input_bytes": load.make().size, "disk_bytes": bytes_below(folder)}


def prepare(name: str, load: Load, folder: Path) -> dict[str, Any]:
    """Make the files that later rounds read."""
    case = find(load.question, name).play(load, folder)
    next(case)
    case.close()
    return {"prepared": True}


def main() -> None:
    given = json.load(sys.stdin)
    act = prepare if given["prepare"] else measure
    found = act(given["name"], Load(**given["load"]), Path(given["folder"]))
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
