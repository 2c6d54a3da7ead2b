"""``stats``, ``doctor``, ``verify``, ``migrate``, ``backup``, ``restore``, ``export``, ``vacuum``."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from resonance.cli import place
from resonance.cli.output import FINDINGS, Answer, answering, safe
from resonance.cli.place import Database, Json, Model, Root, RootOption
from resonance.cli.vault import Exclude, Sources
from resonance.cli.vault import shown_progress as progress_bar
from resonance.database import ResonanceDB
from resonance.factory import DatabaseFactory
from resonance.model import HealthReport, LinkState
from resonance.words import counted, listed, size

if TYPE_CHECKING:
    from resonance.care.verify import Verification

_MARKS = {"ok": ("✓", "green"), "info": ("·", "dim"), "warning": ("!", "yellow"), "error": ("✗", "bold red")}


def stats(
    root: Root = None, root_option: RootOption = None, database: Database = None, as_json: Json = False
) -> None:
    """Count what is stored."""
    with answering(as_json) as answer:
        where = place.find(root, root_option, database)
        with place.open_for_reading(where) as db:
            found = db.get_stats()
            made_from = db.root
            files, history = (
                db.query(f"SELECT count(*) FROM {table}")[0][0] for table in ("files", "history")
            )
        if as_json:
            told: dict[str, Any] = dataclasses.asdict(found)
            told["space"] = found.space._asdict() if found.space else None
            told |= {"links": dict(found.links), "types": dict(found.types)}
            told |= {"files": files, "history": history, "root": str(made_from) if made_from else None}
            answer.document({"path": str(where.database), **told})
            return
        space = found.space
        types = listed((count, kind or "untyped") for kind, count in _most(found.types))
        by = f" by {space.name}, {space.dims} dimensions" if space else ""
        answer.facts(
            (
                ("database", str(where.database)),
                ("size", size(found.db_size_bytes) + _wal(found.wal_size_bytes)),
                ("vault", f"{made_from}, {counted(files, 'note')}" if made_from else "none ingested"),
                ("nodes", f"{found.nodes:,}{types and f'  ({types})'}"),
                ("edges", f"{found.edges:,}"),
                ("links", listed((found.links.get(state, 0), state) for state in get_args(LinkState))),
                ("vectors", f"{found.vectors:,}{by}"),
                ("kept aside", f"{found.other_vectors:,} of other spaces" if found.other_vectors else ""),
                ("history", counted(history, "entry", "entries")),
            )
        )


def doctor(
    root: Root = None,
    root_option: RootOption = None,
    database: Database = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not compare the indexes with their tables.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Examine the engine, the file, and what is stored in it; exit code 1 if something is wrong.

    It writes to see whether that works, undoes it, and looks whether it is undone.
    """
    with answering(as_json) as answer:
        where = place.find(root, root_option, database)
        report = DatabaseFactory.perform_health_check(where.database, deep=not quick)
        if as_json:
            answer.document(
                {"path": report.path, "ok": report.ok, "findings": [f._asdict() for f in report.findings]}
            )
        else:
            _show(answer, report)
        if any(finding.level in ("warning", "error") for finding in report):
            raise typer.Exit(FINDINGS)


def verify(
    root: Root = None,
    root_option: RootOption = None,
    database: Database = None,
    source: Sources = None,
    exclude: Exclude = None,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="Embed every text again, and compare the vectors too.")
    ] = False,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Compare the database with the vault, and name each difference; exit code 1 if there is one.

    It says what `resonance init` would change, and changes nothing itself.
    """
    with answering(as_json) as answer:
        from resonance.care.verify import open_untouched
        from resonance.care.verify import verify as compare
        from resonance.vault.embed import embedder_of

        where = place.find(root, root_option, database, sources=source, exclude=exclude, model=model)
        with open_untouched(where.database, where.root) as db:
            settings = place.settings_for(db, where)
            embedder = embedder_of(db, where.settings, asked=model) if vectors else None
            with progress_bar(answer) as progress:
                found = compare(db, settings, embedder=embedder, progress=progress)
        if as_json:
            answer.document({"path": str(where.database), "root": str(settings.root), **found.to_dict()})
        else:
            _show_differences(answer, found)
        if not found.ok:
            raise typer.Exit(FINDINGS)


def _show_differences(answer: Answer, found: Verification) -> None:
    answer.table(
        ("difference", "in", "what"),
        [(each.kind, each.path or each.id or "", each.detail) for each in found.differences],
        ("yellow", "", ""),
    )
    if found.differences:
        answer.line() if answer.on_terminal else None
        again = " --reembed" if any(each.kind == "vector" for each in found.differences) else ""
        answer.note(
            f"{counted(len(found.differences), 'difference')}; `resonance ingest` brings files up to "
            f"date, `resonance init{again}` builds everything anew"
        )
        return
    answer.facts(
        (
            (
                "verified",
                f"{counted(len(found.stored.documents), 'note')}, each as the vault has it",
            ),
            ("vectors", "each is that of its text" if found.vectors else "not made again; --vectors does"),
            ("digest", found.stored.root),
        )
    )


def migrate(
    root: Root = None, root_option: RootOption = None, database: Database = None, as_json: Json = False
) -> None:
    """Bring the schema up to date, after a backup. All others do so too, but for doctor and verify."""
    with answering(as_json) as answer:
        from resonance import migrate as migrations

        where = place.find(root, root_option, database)
        with DatabaseFactory.connect(where.database, readonly=True) as connection:
            todo = [migration.name for migration in migrations.pending(connection)]
        with ResonanceDB(where.database, create=False) as db:
            saved = db.migration_backup
        if as_json:
            answer.document({"path": str(where.database), "applied": todo, "backup": saved})
            return
        answer.facts(
            (
                ("database", str(where.database)),
                ("applied", ", ".join(todo) or "nothing; the schema was up to date"),
                ("backup", saved or ""),
            )
        )


def backup(
    root: Root = None,
    root_option: RootOption = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="The file to make.  [dim]default: beside the database[/dim]"),
    ] = None,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Copy the database while it is in use, and check the copy."""
    with answering(as_json) as answer:
        where = place.find(root, root_option, database)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        target = to or where.database.with_name(f"{where.database.name}.{stamp}.bak")
        with ResonanceDB(where.database, create=False, readonly=True) as db:
            report = db.backup(target)
        if as_json:
            answer.document(report._asdict())
            return
        answer.facts(
            (
                ("backup", report.path),
                ("holds", f"{counted(report.nodes, 'node')}, {counted(report.edges, 'edge')}: checked"),
                ("size", size(report.size_bytes)),
            )
        )


def restore(
    backup: Annotated[Path, typer.Argument(metavar="BACKUP", help="A file that `resonance backup` made.")],
    root: Root = None,
    root_option: RootOption = None,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Put a backup in the place of the database, which is saved first.

    The backup is checked whole before anything is changed, and stays as it is. Whoever is reading is
    not disturbed.
    """
    with answering(as_json) as answer:
        from resonance.care.regenerate import make_room
        from resonance.care.restore import restore as put_back

        where = place.find(root, root_option, database)
        make_room(where.database, where.settings)
        report = put_back(where.database, backup)
        if as_json:
            answer.document(report._asdict())
            return
        answer.facts(
            (
                ("database", report.path),
                ("restored", f"{counted(report.nodes, 'node')}, {counted(report.edges, 'edge')}: checked"),
                ("saved", report.saved or ""),
                ("digest", report.digest),
            )
        )


def export(
    to: Annotated[Path, typer.Option("--to", help="The file to make: .jsonl, .graphml, .parquet or .arrow.")],
    root: Root = None,
    root_option: RootOption = None,
    format: Annotated[
        str | None,
        typer.Option("--format", help="The format, if the name does not tell.", show_default=False),
    ] = None,
    table: Annotated[
        str, typer.Option("--table", help="For Parquet and Arrow: nodes, edges or links.")
    ] = "nodes",
    vectors: Annotated[bool, typer.Option("--vectors", help="With the vectors.")] = False,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Write the graph to a new file for other programs: nodes, edges, links; no text."""
    with answering(as_json) as answer:
        from resonance.care.export import export as write

        where = place.find(root, root_option, database)
        with place.open_for_reading(where) as db:
            report = write(db, to, format=cast(Any, format), table=cast(Any, table), vectors=vectors)
        if as_json:
            answer.document(report._asdict())
            return
        counts = ((report.nodes, "node"), (report.edges, "edge"), (report.links, "link"))
        answer.facts(
            (
                ("export", report.path),
                ("holds", ", ".join(counted(*each) for each in counts if each[0]) or "nothing"),
                ("size", size(report.size_bytes)),
            )
        )


def vacuum(
    root: Root = None, root_option: RootOption = None, database: Database = None, as_json: Json = False
) -> None:
    """Give the space of what was deleted back to the file system."""
    with answering(as_json) as answer:
        where = place.find(root, root_option, database)
        with ResonanceDB(where.database, create=False) as db:
            before = _on_disk(where.database)
            db.vacuum()
            db.checkpoint()
            after = _on_disk(where.database)
        if as_json:
            answer.document({"path": str(where.database), "before": before, "after": after})
            return
        answer.facts(
            (("database", str(where.database)), ("size", f"{size(before)} before, {size(after)} now"))
        )


def _show(answer: Answer, report: HealthReport) -> None:
    if not answer.on_terminal:
        answer.table(("", "", ""), [(f.level, f.check, f.message) for f in report])
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for finding in report:
        mark, style = _MARKS[finding.level]
        quiet = finding.level in ("ok", "info")
        grid.add_row(
            Text(mark, style=style),
            Text(finding.check),
            Text(safe(finding.message), style="" if quiet else style),
        )
    answer.console.print(grid)
    levels = [finding.level for finding in report]
    wrong = listed((levels.count(level), f"{level}s") for level in ("error", "warning"))
    answer.line()
    answer.line(f"{report.path}: {wrong or 'sound'}", "bold" if not wrong else "bold yellow")


def _wal(count: int) -> str:
    return f", and {size(count)} not yet written back" if count else ""


def _most(types: Any) -> list[tuple[str, int]]:
    return sorted(types.items(), key=lambda item: (-item[1], item[0]))


def _on_disk(path: Path) -> int:
    return sum(p.stat().st_size for p in (path, Path(f"{path}-wal")) if p.exists())
