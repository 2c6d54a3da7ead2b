"""What goes where: answers to stdout, everything else to stderr; colour and tables on terminals only."""

from __future__ import annotations

import contextlib
import json
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import typer

from resonance.errors import BrakeError, ResonanceError

if TYPE_CHECKING:
    from rich.console import Console

DONE, FINDINGS, COULD_NOT = 0, 1, 2
INTERRUPTED = 130

SHOWN_PATHS = 20

# Characters that move the cursor, change colours or turn the direction of writing.
_UNSAFE = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if chr(code) not in "\n\t"
}


class Answer:
    """One command's way to speak: as a document for programs, or as text for people."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.on_terminal = sys.stdout.isatty() and not as_json
        self._console: Console | None = None

    @property
    def console(self) -> Console:
        """For what only a terminal gets to see."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(highlight=False, soft_wrap=False)
        return self._console

    def document(self, value: Any) -> None:
        """The answer with ``--json``: exactly one document."""
        unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        indent = 2 if sys.stdout.isatty() else None
        _write(json.dumps(value, ensure_ascii=not unicode, indent=indent, default=str) + "\n")

    def event(self, name: str, **facts: Any) -> None:
        """One of many answers with ``--json``: a document on a line of its own, at once."""
        unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        _write(json.dumps({"event": name, **facts}, ensure_ascii=not unicode, default=str) + "\n")
        sys.stdout.flush()

    def line(self, text: str = "", style: str = "", *, flush: bool = False) -> None:
        """A line for people."""
        if self.as_json:
            return
        if self.on_terminal:
            self.console.print(safe(text), style=style or None, markup=False)
        else:
            _write(text + "\n")
            if flush:
                sys.stdout.flush()

    def text(self, text: str) -> None:
        """A text as it is; on a terminal, without what would take the terminal over."""
        _write(safe(text) if self.on_terminal else text)

    def facts(self, rows: Iterable[tuple[str, str]]) -> None:
        """Names and values, one below the other."""
        shown = [(name, value) for name, value in rows if value]
        if self.as_json:
            return
        if not self.on_terminal:
            for name, value in shown:
                _write(f"{name}\t{one_line(value)}\n")
            return
        from rich.table import Table

        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", justify="right")
        grid.add_column(overflow="fold")
        for name, value in shown:
            grid.add_row(cell(name), cell(value))
        self.console.print(grid)

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[str]], styles: Sequence[str] = ()
    ) -> None:
        """A table on a terminal, as wide as it; else lines of values with tabs between them.

        A column whose name ends in ``#`` holds numbers.
        """
        rows = list(rows)
        if self.as_json or not rows:
            return
        if not self.on_terminal:
            for row in rows:
                _write("\t".join(one_line(value) for value in row) + "\n")
            return
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False, header_style="dim")
        for name, style in zip(columns, styles or [""] * len(columns), strict=True):
            number = name.endswith("#")
            table.add_column(
                name.rstrip("#"),
                style=style or None,
                justify="right" if number else "left",
                no_wrap=number,
                overflow="fold",
            )
        for row in rows:
            table.add_row(*(cell(value) for value in row))
        self.console.print(table)

    def note(self, text: str) -> None:
        """Something people should know, beside the answer."""
        to_people(text, "dim")

    def fail(self, error: Exception) -> None:
        """Why it could not be done."""
        if self.as_json:
            try:
                self.document({"error": describe(error)})
                sys.stdout.flush()
                return
            except OSError:
                pass  # where the answer cannot be written, this is why
        to_people(f"resonance: {message_of(error)}", "red")
        for note in getattr(error, "__notes__", ()):
            to_people(f"  {note}")
        if isinstance(error, BrakeError):
            for path in error.paths[:SHOWN_PATHS]:
                to_people(f"  {one_line(path)}")
            if len(error.paths) > SHOWN_PATHS:
                to_people(f"  and {len(error.paths) - SHOWN_PATHS:,} more; --json lists them all")


@contextlib.contextmanager
def answering(as_json: bool) -> Iterator[Answer]:
    """Run a command: what it raises becomes a message and an exit code, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    answer = Answer(as_json)
    try:
        yield answer
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except (ResonanceError, OSError, MemoryError) as error:
        answer.fail(error)
        raise typer.Exit(COULD_NOT) from None
    except KeyboardInterrupt:
        to_people("interrupted; nothing is left half done", "dim")
        raise typer.Exit(INTERRUPTED) from None


def tell_misuse(error: object) -> None:
    """With ``--json``: the document about a command line that makes no sense, if that is the error."""
    # It is one of click's, or of the copy of click that some versions of typer bring along.
    message = getattr(error, "format_message", None)
    if message is not None:
        Answer(True).document({"error": {"type": "UsageError", "message": message()}})


def describe(error: Exception) -> dict[str, Any]:
    """An error as a JSON object."""
    facts = {name: value for name, value in vars(error).items() if not name.startswith("_")}
    told = {"type": type(error).__name__, "message": message_of(error), **facts}
    if notes := getattr(error, "__notes__", None):
        told["notes"] = list(notes)
    return told


def message_of(error: Exception) -> str:
    """What an error says; Python's own about memory says nothing."""
    return str(error) or ("not enough memory" if isinstance(error, MemoryError) else type(error).__name__)


def to_people(text: str, style: str = "") -> None:
    """A line on stderr. Where that cannot be written, the work goes on: there is nobody to tell."""
    with contextlib.suppress(OSError):
        if sys.stderr.isatty():
            from rich.console import Console

            Console(stderr=True, highlight=False).print(safe(text), style=style or None, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)


def safe(text: str) -> str:
    """Without control characters, so that no note can take over the terminal."""
    return text.translate(_UNSAFE)


def one_line(text: str) -> str:
    return " ".join(text.split()) if any(unicodedata.category(c) == "Cc" for c in text) else text


def cell(text: str) -> Any:
    from rich.text import Text

    return Text(safe(one_line(text)))


def _write(text: str) -> None:
    sys.stdout.write(text)
