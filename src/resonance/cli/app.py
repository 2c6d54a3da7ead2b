"""All commands, and the options that belong to none of them."""

from __future__ import annotations

from typing import Annotated

import typer

from resonance.cli import care, follow, questions, spaces, vault

app = typer.Typer(
    name="resonance",
    help="A knowledge graph over a folder of markdown: one file to search and follow, the text stays yours.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        import resonance

        print(f"resonance {resonance.__version__} (SQLite {resonance.sqlite_version})")
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the versions and exit."),
    ] = False,
) -> None:
    pass


_VAULT, _QUESTIONS, _CARE = "The vault", "Questions", "Care"

for _panel, _commands in (
    (_VAULT, (vault.init, vault.ingest, follow.watch, follow.undo, spaces.embed)),
    (_QUESTIONS, (questions.search, questions.read, questions.explore, questions.links)),
    (
        _CARE,
        (
            care.stats,
            care.doctor,
            care.verify,
            care.migrate,
            care.backup,
            care.restore,
            care.export,
            care.vacuum,
        ),
    ),
):
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)

app.add_typer(spaces.group, name="spaces", rich_help_panel=_CARE)
