"""What one process measures of itself, and of the files it made."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path

_CLEAR_HIGH_WATER = "5"


def forget_peak() -> None:
    """Let the high-water mark of memory start again from here (Linux; elsewhere it cannot)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text(_CLEAR_HIGH_WATER)


def memory() -> tuple[int, int]:
    """Resident bytes now, and their high-water mark."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return peak, peak
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    now, peak = (int(found[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak


def bytes_below(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def sync_below(folder: Path) -> None:
    """Have every file in a folder, and the names of them, on disk: for tools that do not see to it."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
