"""The command line: it parses, calls, and prints."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
import warnings
from types import FrameType
from typing import Any, NoReturn, TextIO


def main() -> None:
    """Run the command that ``sys.argv`` names; ends the process with its exit code."""
    _open_streams()
    # So that what cleans up behind a run that is cut off also does when it is told to end.
    signal.signal(signal.SIGTERM, _end)
    warnings.showwarning = _show_warning
    try:
        from resonance.cli.app import app

        app(prog_name="resonance")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except SystemExit as end:
        if "--json" in sys.argv:
            from resonance.cli.output import tell_misuse

            tell_misuse(end.__context__)
        raise
    except Exception:
        # Python's own exit code for this is 1, which here means that it was done.
        traceback.print_exc()
        sys.exit(2)
    finally:
        _give_up_on_streams()


def _open_streams() -> None:
    """What nobody listens to goes nowhere, and no file is opened under the number of a stream."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "w" if number else "r"))


def _give_up_on_streams() -> None:
    """What could not be written has been told; Python would try again, and end with a code of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
    # Where it cannot be written, what it warns of goes on all the same.
    with contextlib.suppress(OSError):
        print(f"resonance: warning: {message}", file=file or sys.stderr, flush=True)
