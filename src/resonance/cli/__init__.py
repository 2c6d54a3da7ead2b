"""The command line: it parses, calls, and prints."""

from __future__ import annotations

import signal
import sys
import warnings
from types import FrameType
from typing import Any, NoReturn, TextIO


def main() -> None:
    """Run the command that ``sys.argv`` names; ends the process with its exit code."""
    # So that what cleans up behind a run that is cut off also does when it is told to end.
    signal.signal(signal.SIGTERM, _end)
    warnings.showwarning = _show_warning
    try:
        from resonance.cli.app import app

        app(prog_name="resonance")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: Any = None,
) -> None:
    print(f"resonance: warning: {message}", file=file or sys.stderr)
