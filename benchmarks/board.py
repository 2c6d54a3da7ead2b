"""Plays the rounds: contenders take turns, so that what disturbs the machine disturbs them all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from contender import Load, find
from ours import schema

from resonance.factory import page_size_for

CHILD = Path(__file__).with_name("child.py")
LONGEST = 3600

# Nothing measured may look for a network.
_QUIET = {"ANONYMIZED_TELEMETRY": "False", "DO_NOT_TRACK": "1", "LANCEDB_CONFIG_TELEMETRY": "0"}


@dataclass
class Record:
    """All rounds of one contender at one load; ``error`` if one of them failed."""

    load: Load
    name: str
    label: str
    rounds: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None


class Board:
    """The records of one run, made when they are first asked for."""

    def __init__(self, rounds: int, folder: Path | None) -> None:
        self.rounds = rounds
        self.records: dict[tuple[str, str], Record] = {}
        self.absent: dict[str, dict[str, str]] = {}
        self._schema = schema()
        self._folder = folder

    def record(self, load: Load, name: str, names: list[str]) -> Record:
        """What ``name`` did; the first call for a load plays all ``names`` in turns."""
        if (load.name, name) not in self.records:
            self._play(load, names)
        return self.records[load.name, name]

    def _play(self, load: Load, names: list[str]) -> None:
        for name in names:
            label = find(load.question, name).label
            self.records[load.name, name] = Record(load, name, label)
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="bench-", dir=self._folder) as made:
            if load.question == "matrix":
                for name in names:
                    self._turn(load, name, Path(made), prepare=True)
            for number in range(self.rounds):
                # There and back again: nobody is always the one after the largest.
                for name in names if number % 2 == 0 else reversed(names):
                    self._turn(load, name, Path(made))

    def _turn(self, load: Load, name: str, above: Path, *, prepare: bool = False) -> None:
        record = self.records[load.name, name]
        if record.error is not None:
            return
        folder = above / name
        folder.mkdir(exist_ok=True)
        busy = os.getloadavg()[0]
        try:
            found = _run_child(
                replace(load, schema=self._schema, page_size=page_size_for(load.dims)), name, folder, prepare
            )
        except (subprocess.SubprocessError, RuntimeError, ValueError) as error:
            record.error = str(error)
            return
        finally:
            if load.question != "matrix":
                shutil.rmtree(folder, ignore_errors=True)
        if not prepare:
            record.rounds.append({**found, "load": busy})


def _run_child(load: Load, name: str, folder: Path, prepare: bool) -> dict[str, Any]:
    given = {"name": name, "load": load.to_dict(), "folder": str(folder), "prepare": prepare}
    result = subprocess.run(
        [sys.executable, CHILD],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=LONGEST,
        env=os.environ | _QUIET,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"exit status {result.returncode}\n{result.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(result.stdout.rstrip().rsplit("\n", 1)[-1])
    return found


class Replay:
    """A clock that shows the seconds children took, so that pytest-benchmark can keep the statistics."""

    def __init__(self) -> None:
        self._shows = 0.0
        self._next: Iterator[float] = iter(())

    def __call__(self) -> float:
        return self._shows

    def load(self, seconds: list[float]) -> None:
        self._next = iter(seconds)

    def advance(self) -> None:
        with contextlib.suppress(StopIteration):
            self._shows += next(self._next)
