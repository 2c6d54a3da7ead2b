"""``init`` and ``ingest``: from the folder to the database."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from resonance.cli import place
from resonance.cli.output import FINDINGS, SHOWN_PATHS, Answer, answering, one_line, to_people
from resonance.cli.place import Database, Json, Model, Place, Root, RootOption
from resonance.database import ResonanceDB
from resonance.model import LinkState
from resonance.words import counted, listed

if TYPE_CHECKING:
    from resonance.vault.embed import Embedder
    from resonance.vault.ingest import Progress
    from resonance.vault.report import IngestReport

NO_MODEL = "none"

Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--source", help="A folder, file or pattern below the root; may be repeated.", show_default=False
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", help="A pattern of what to leave out; may be repeated.", show_default=False),
]
NoEmbed = Annotated[bool, typer.Option("--no-embed", help="Make no vectors: no search by meaning.")]
Yes = Annotated[bool, typer.Option("--yes", help="Go on where much would be removed.")]
MaxLoss = Annotated[
    float | None,
    typer.Option(
        "--max-loss",
        metavar="PERCENT",
        help="How much of the vault may be gone before --yes is needed.  [dim]default: 25, or ten[/dim]",
        show_default=False,
    ),
]


def init(
    root: Root = None,
    root_option: RootOption = None,
    database: Database = None,
    source: Sources = None,
    exclude: Exclude = None,
    model: Model = None,
    no_embed: NoEmbed = False,
    reembed: Annotated[
        bool, typer.Option("--reembed", help="Make every vector again, even of texts that are the same.")
    ] = False,
    max_loss: MaxLoss = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Build the database from the vault, anew.

    It is built beside the one in use and takes its place in one step: whoever is reading is not
    disturbed, and a run that fails changes nothing. Vectors of texts that have not changed are
    kept, as are the audit trail and the state of enrichment.
    """
    with answering(as_json) as answer:
        from resonance.care.regenerate import open_live, regenerate

        where = find_vault(root, root_option, database, source, exclude, model, no_embed, max_loss)
        if where.database.exists():
            with open_live(where.database) as db:
                place.tell_of_migration(db)
                place.require_same_root(db, where)
        embedder, why = find_embedder(where, fetch=True)
        with shown_progress(answer) as progress:
            report = regenerate(
                where.database,
                where.settings,
                embedder=embedder,
                progress=progress,
                yes=yes,
                reembed=reembed,
            )
        _answer(answer, where, report, why)


def ingest(
    root: Root = None,
    root_option: RootOption = None,
    database: Database = None,
    source: Sources = None,
    exclude: Exclude = None,
    model: Model = None,
    no_embed: NoEmbed = False,
    max_loss: MaxLoss = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Bring the database up to date: only what has changed is read, embedded and written."""
    with answering(as_json) as answer:
        from resonance.vault.ingest import ingest as bring_up_to_date

        where = find_vault(root, root_option, database, source, exclude, model, no_embed, max_loss)
        with opened(where) as (db, embedder, why), shown_progress(answer) as progress:
            report = bring_up_to_date(db, where.settings, embedder=embedder, progress=progress, yes=yes)
        _answer(answer, where, report, why)


def find_vault(
    root: Root,
    root_option: RootOption,
    database: Database,
    source: Sources,
    exclude: Exclude,
    model: Model,
    no_embed: NoEmbed,
    max_loss: MaxLoss,
) -> Place:
    """The vault that the options of ``init``, ``ingest`` and ``watch`` name, and how to read it."""
    if no_embed and model is not None:
        raise typer.BadParameter("--model and --no-embed say two different things")
    return place.find(
        root,
        root_option,
        database,
        sources=source,
        exclude=exclude,
        model=NO_MODEL if no_embed else model,
        max_loss=max_loss,
    )


@contextlib.contextmanager
def opened(where: Place) -> Iterator[tuple[ResonanceDB, Embedder | None, str | None]]:
    """A database to bring up to date; with the model if the database is new, or why there is none."""
    from resonance.care.regenerate import make_room

    new = not where.database.exists()
    make_room(where.database, where.settings)
    with ResonanceDB(where.database) as db:
        place.tell_of_migration(db)
        place.require_same_root(db, where)
        yield db, *(find_embedder(where, fetch=True) if new else (None, None))


def find_embedder(where: Place, *, fetch: bool) -> tuple[Embedder | None, str | None]:
    """The model, fetched if it is not here; or why there is none."""
    from resonance.vault.embed import choose_embedder

    embedder, why = choose_embedder(where.settings)
    if embedder is None and fetch and (where.settings.model or "").lower() != NO_MODEL:
        to_people("fetching the embedding model, this once", "dim")
        embedder, why = choose_embedder(where.settings, obtain=True)
    return embedder, why


def _answer(answer: Answer, where: Place, report: IngestReport, why: str | None) -> None:
    """Print the report, and end with the exit code it deserves."""
    if why is not None and report.embedding is None:
        report.embedding_note = why
    if answer.as_json:
        answer.document(report.to_dict())
    else:
        _tell(answer, where, report)
    if report.problems or not report.complete:
        raise typer.Exit(FINDINGS)


def _tell(answer: Answer, where: Place, report: IngestReport) -> None:
    distinct = len({problem.path for problem in report.problems})
    notes = listed(
        (
            (report.indexed, "indexed"),
            (report.unchanged, "unchanged"),
            (report.removed - report.moved, "removed"),
            (report.moved, "moved"),
            (len(report.held), "gone but held"),
            (distinct, "with problems"),
        )
    )
    links = listed((report.links.get(state, 0), state) for state in get_args(LinkState))
    nodes = report.nodes + report.sections + report.tags + report.pages
    vectors = ""
    if report.embedding is not None:
        vectors = f"{report.vectors:,} by {report.embedding.name}, {report.embedding.dims} dimensions"
    answer.facts(
        (
            ("vault", str(where.settings.root)),
            ("database", str(where.database)),
            ("notes", f"{report.files:,} found" + (f": {notes}" if notes else "")),
            ("links", links),
            ("sections", f"{report.sections:,} of long notes" if report.sections else ""),
            ("graph", f"{counted(nodes, 'node')}, {counted(report.edges, 'edge')}"),
            ("vectors", vectors),
            ("passed over", _passed_over(report)),
            ("digest", getattr(report, "digest", "")),
            ("time", f"{report.seconds:.1f} s"),
        )
    )
    if report.embedding_note and where.settings.model != NO_MODEL:
        answer.note(report.embedding_note)
    for note in getattr(report, "notes", ()):
        answer.note(note)
    if report.held:
        answer.line()
        answer.line(f"Not removed, as {report.held_because}; --yes removes them:")
        tell_paths(answer, report.held)
    elif not report.complete:
        answer.note("a folder could not be read, so nothing was removed")
    if report.problems:
        answer.line()
        shown = report.problems[:SHOWN_PATHS] if answer.on_terminal else report.problems
        answer.table(
            ("problem in", "reason"),
            [(f"{p.path}:{p.line}" if p.line else p.path, p.reason) for p in shown],
            ("yellow", ""),
        )
        if len(shown) < len(report.problems):
            answer.note(f"and {len(report.problems) - len(shown):,} more; --json lists them all")


def tell_paths(answer: Answer, paths: Sequence[str]) -> None:
    """Some paths, one a line; on a terminal only the first of them."""
    shown = paths[:SHOWN_PATHS] if answer.on_terminal else paths
    for path in shown:
        answer.line(f"  {one_line(path)}")
    if len(shown) < len(paths):
        answer.note(f"  and {len(paths) - len(shown):,} more; --json lists them all")


def _passed_over(report: IngestReport) -> str:
    words = {
        "hidden": ("hidden", "hidden"),
        "excluded": ("excluded", "excluded"),
        "symlinks": ("symbolic link", "symbolic links"),
        "other": ("other file", "other files"),
    }
    found = [(count, words.get(why, (why, why))) for why, count in report.skipped.items() if count]
    return ", ".join(counted(count, one, many) for count, (one, many) in found)


@contextlib.contextmanager
def shown_progress(answer: Answer) -> Iterator[Progress | None]:
    """A bar on stderr while it is a terminal; nothing else."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich import progress as bar
    from rich.console import Console
    from rich.text import Text

    words = {
        "scan": "looking for notes",
        "read": "reading and embedding",
        "embed": "embedding",
        "link": "following links",
        "replace": "putting it in place",
    }

    class Rate(bar.ProgressColumn):
        """How many a second, of late."""

        def render(self, task: bar.Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="progress.data.speed")

    with bar.Progress(
        bar.SpinnerColumn(),
        bar.TextColumn("{task.description:<22}"),
        bar.BarColumn(bar_width=None),
        bar.MofNCompleteColumn(),
        Rate(),
        bar.TimeElapsedColumn(),
        bar.TextColumn("left"),
        bar.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bars:
        task = bars.add_task("", total=None)
        stage = ""

        def progress(what: str, done: int, total: int) -> None:
            nonlocal task, stage
            if what != stage:
                bars.remove_task(task)
                task = bars.add_task(words.get(what, what), total=total or None)
                bars.start()
                stage = what
            bars.update(task, completed=done, total=total or None)
            if done >= total:
                bars.stop()  # `watch` goes on for days, and prints
                stage = ""

        yield progress
