"""``watch`` and ``undo``: while people write, and when they did not mean it."""

from __future__ import annotations

import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resonance.cli import place
from resonance.cli.output import FINDINGS, Answer, answering, describe, to_people
from resonance.cli.place import Database, Json, Model, Root, RootOption
from resonance.cli.vault import (
    Exclude,
    MaxLoss,
    NoEmbed,
    Sources,
    find_vault,
    opened,
    shown_progress,
    tell_paths,
)
from resonance.database import ResonanceDB
from resonance.words import counted, listed, some

if TYPE_CHECKING:
    from resonance.vault.report import IngestReport

JsonLines = Annotated[
    bool, typer.Option("--json", help="Tell each event as a JSON document on its own line.")
]
Poll = Annotated[
    bool, typer.Option("--poll", help="Look at all files every second: where the system does not tell.")
]


def watch(
    root: Root = None,
    root_option: RootOption = None,
    database: Database = None,
    source: Sources = None,
    exclude: Exclude = None,
    model: Model = None,
    no_embed: NoEmbed = False,
    max_loss: MaxLoss = None,
    poll: Poll = False,
    as_json: JsonLines = False,
) -> None:
    """Bring the database up to date and keep it so, until Ctrl-C.

    Notes that are gone are removed, unless they are so many that an ingest would ask for --yes: then
    they stay in the database until they are there again, or an ingest with --yes removes them.
    """
    with answering(as_json) as answer:
        from resonance.vault.watch import watch as follow

        where = find_vault(root, root_option, database, source, exclude, model, no_embed, max_loss)
        with opened(where) as (db, *_), shown_progress(answer) as progress:
            teller = _Teller(answer)
            stop = threading.Event()

            def end(number: int, _frame: object) -> None:
                stop.set()
                sys.exit(128 + number)

            signal.signal(signal.SIGTERM, end)
            try:
                follow(db, where.settings, listener=teller, progress=progress, stop=stop, poll=poll)
            finally:
                teller("stopped")
            raise typer.Exit(128 + signal.SIGTERM)


def undo(
    root: Root = None,
    root_option: RootOption = None,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Bring back the notes that the last ingest removed from the database.

    With their vectors, links and edges, and whether or not their files are there again. Once more
    brings back what the run before removed.
    """
    with answering(as_json) as answer:
        from resonance.vault.tombstones import undo as bring_back

        where = place.find(root, root_option, database)
        with ResonanceDB(where.database, create=False) as db:
            place.require_same_root(db, where)
            undone = bring_back(db, where.settings)
        if as_json:
            answer.document(undone.to_dict())
        elif undone.removed_at is None:
            answer.note("nothing was removed lately")
        else:
            answer.facts(
                (
                    ("brought back", counted(len(undone.restored), "note")),
                    ("removed at", undone.removed_at),
                    ("vectors", f"{undone.vectors:,}"),
                    ("edges of others", f"{undone.edges:,}" if undone.edges else ""),
                    ("left to undo", counted(undone.remaining, "run")),
                )
            )
            tell_paths(answer, undone.restored)
            for problem in undone.left_out:
                answer.note(f"not {problem.path}: {problem.reason}")
        if undone.left_out:
            raise typer.Exit(FINDINGS)


class _Teller:
    """Says what a watch does."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def __call__(self, event: str, /, **facts: Any) -> None:
        if self.answer.as_json:
            if "report" in facts:
                facts |= facts.pop("report").to_dict()
            if "error" in facts:
                facts["error"] = describe(facts["error"])
            self.answer.event(event, **facts)
            return
        text = getattr(self, f"_{event}")(**facts)
        if text:
            # Other programs may read this in a pipe.
            self.answer.line(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)

    def _ready(self, report: IngestReport) -> str:
        return f"watching {counted(report.files, 'note')}; Ctrl-C ends it" + self._problems(report)

    def _ingest(self, report: IngestReport, paths: list[str]) -> str:
        done = listed(
            (
                (report.indexed, "indexed"),
                (report.removed - report.moved, "removed"),
                (report.moved, "moved"),
            )
        )
        return f"{some(paths)}: {done or 'nothing'}" + self._problems(report)

    def _problems(self, report: IngestReport) -> str:
        return "".join(
            f"\n          {p.path}{f':{p.line}' if p.line else ''}: {p.reason}" for p in report.problems
        )

    def _held(self, paths: list[str], because: str | None) -> str:
        if not paths:
            return "nothing is held back any more"
        return (
            f"{counted(len(paths), 'note')} held back, not removed: {some(paths)}. "
            f"{because or ''} `resonance ingest --yes` removes them"
        )

    def _error(self, error: Exception) -> str:
        to_people(f"resonance: {error}; trying again", "red")
        return ""

    def _gone(self, root: str) -> str:
        return f"{root} is not there any more; waiting for it"

    def _settings(self, path: str) -> str:
        return f"{path} has changed; start again to use it"

    def _stopped(self) -> str:
        return ""
