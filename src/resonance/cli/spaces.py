"""``embed`` and ``spaces``: a second model beside the first, and changing over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from resonance.cli import place
from resonance.cli.output import FINDINGS, Answer, answering
from resonance.cli.place import Database, Json, Model, Root, RootOption
from resonance.cli.vault import find_embedder, shown_progress
from resonance.database import ResonanceDB
from resonance.errors import EmbedderError
from resonance.spaces import told
from resonance.words import counted

if TYPE_CHECKING:
    from resonance.model import SpaceInfo
    from resonance.vault.refill import Refill

group = typer.Typer(
    help="The embedding models whose vectors are stored; one is in use, others are kept beside it.",
    invoke_without_command=True,
)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A space: its name, or name@revision if several have it.")
]


def embed(
    root: Root = None,
    root_option: RootOption = None,
    database: Database = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Make the vectors of a second model, while those of the first stay in use.

    A run that is cut off has lost nothing: the next one goes on. When none is missing, change over with
    `resonance spaces switch`.
    """
    with answering(as_json) as answer:
        from resonance.vault.refill import refill

        where = place.find(root, root_option, database, model=model)
        with ResonanceDB(where.database, create=False, root=where.root) as db:
            place.tell_of_migration(db)
            settings = place.settings_for(db, where)
            embedder, why = find_embedder(where, fetch=True)
            if embedder is None:
                raise EmbedderError(f"nothing was embedded: {why}")
            with shown_progress(answer) as progress:
                report = refill(db, settings, embedder, progress=progress)
        if as_json:
            answer.document({"path": str(where.database), **report.to_dict()})
        else:
            _tell(answer, report)
        if report.missing or report.problems:
            raise typer.Exit(FINDINGS)


@group.callback()
def spaces(
    context: typer.Context,
    root_option: RootOption = None,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """List the embedding models whose vectors are stored; one is in use, others are kept beside it."""
    if context.invoked_subcommand is not None:
        if root_option is not None or database is not None or as_json:
            raise typer.BadParameter(f"put the options behind {context.invoked_subcommand!r}")
        return
    with answering(as_json) as answer:
        where = place.find(None, root_option, database)
        with place.open_for_reading(where) as db:
            found = db.spaces()
        if as_json:
            answer.document([_document(info) for info in found])
            return
        answer.table(
            ("space", "dimensions#", "vectors#", "missing#", "out of date#", ""),
            [
                (
                    info.space.name + (f"@{info.space.revision}" if info.space.revision else ""),
                    str(info.space.dims),
                    str(info.vectors),
                    str(info.missing),
                    str(info.outdated),
                    "in use" if info.active else "kept",
                )
                for info in found
            ],
        )
        if not found:
            answer.note("no vectors are stored")


@group.command()
def switch(
    name: Name,
    root: Root = None,
    root_option: RootOption = None,
    database: Database = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Even if vectors are missing: those nodes then have none.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put another model's vectors in use, in one step; those in use until now are kept beside.

    Whoever is reading is not disturbed, and switching back is the same again.
    """
    with answering(as_json) as answer:
        where = place.find(root, root_option, database)
        with ResonanceDB(where.database, create=False) as db:
            place.tell_of_migration(db)
            info = db.switch_space(name, require_complete=not partial)
        if as_json:
            answer.document({"path": str(where.database), **_document(info)})
            return
        answer.facts((("in use", told(info.space)), ("vectors", _counts(info))))
        answer.note(
            f"an ingest follows the settings: put the model of {info.space.name} into embeddings.model of "
            f"amalfa.settings.json, or pass it with --model"
        )


@group.command()
def drop(
    name: Name,
    root: Root = None,
    root_option: RootOption = None,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Throw away the vectors of a model that is not in use."""
    with answering(as_json) as answer:
        where = place.find(root, root_option, database)
        with ResonanceDB(where.database, create=False) as db:
            place.tell_of_migration(db)
            dropped = db.drop_space(name)
        if as_json:
            answer.document({"path": str(where.database), "space": name, "dropped": dropped})
            return
        answer.facts((("dropped", f"{counted(dropped, 'vector')} of {name}"),))
        answer.note("`resonance vacuum` gives their room back to the file system")


def _document(info: SpaceInfo) -> dict[str, Any]:
    return {**info._asdict(), "space": info.space._asdict(), "complete": info.is_complete}


def _counts(info: SpaceInfo) -> str:
    return f"{info.vectors:,}" + (f", {info.missing:,} missing" if info.missing else "")


def _tell(answer: Answer, report: Refill) -> None:
    answer.facts(
        (
            ("space", told(report.space)),
            ("vectors", f"{report.vectors:,} made"),
            ("missing", f"{report.missing:,}" if report.missing else "none"),
            ("time", f"{report.seconds:.1f} s"),
        )
    )
    answer.table(
        ("problem in", "reason"), [(each.path, each.reason) for each in report.problems], ("yellow", "")
    )
    if report.others:
        answer.note(
            f"{counted(report.others, 'node')} stand for no text of this vault; whoever gave them their "
            f"vectors has to give them these too (db.insert_vectors)"
        )
    if not report.missing:
        answer.note(f"to put them in use: resonance spaces switch {report.space.name}")
