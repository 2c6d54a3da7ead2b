"""Where the vault and its database are: the options that all commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from resonance.cli.output import to_people
from resonance.database import ResonanceDB
from resonance.errors import SettingsError
from resonance.vault.settings import VaultSettings, load_settings, settings_of

Root = Annotated[
    Path | None,
    typer.Argument(
        metavar="[ROOT]", help="The folder of the vault.  [dim]default: here[/dim]", show_default=False
    ),
]
RootOption = Annotated[
    Path | None,
    typer.Option("--root", help="The folder of the vault.  [dim]default: here[/dim]", show_default=False),
]
Database = Annotated[
    Path | None,
    typer.Option(
        "--database",
        help="The database.  [dim]default: as the settings say, else .resonance/resonance.db[/dim]",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")]
Model = Annotated[
    str | None,
    typer.Option("--model", help="The embedding model: a name, or its folder.", show_default=False),
]


class Place(NamedTuple):
    """A vault's settings, and whether its root was named rather than taken to be here."""

    settings: VaultSettings
    named: bool

    @property
    def root(self) -> Path | None:
        """The root if it was named; else a database knows its own."""
        return self.settings.root if self.named else None

    @property
    def database(self) -> Path:
        return self.settings.database


def find(
    root: Path | None,
    root_option: Path | None,
    database: Path | None,
    *,
    sources: list[str] | None = None,
    exclude: list[str] | None = None,
    model: str | None = None,
    max_loss: float | None = None,
) -> Place:
    """The place that the options name.

    Raises:
        SettingsError: there is no such folder, or its settings make no sense.
    """
    if root is not None and root_option is not None and root != root_option:
        raise typer.BadParameter(f"the root is given twice: {root} and --root {root_option}")
    chosen = root or root_option
    settings = load_settings(
        chosen or _here(),
        database=database,
        sources=sources or None,
        exclude=exclude or None,
        model=model,
        max_loss=max_loss,
    )
    return Place(settings, chosen is not None)


def _here() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise SettingsError("the folder you are in has been deleted; go to another one") from error


def settings_for(db: ResonanceDB, place: Place) -> VaultSettings:
    """The options, else what the last ingest was told, for the vault that ``db`` reads its text from.

    Raises:
        SettingsError: no root is known, or it is not there.
    """
    root = db.root
    if root is None:
        raise SettingsError(f"{db.path}: no vault has been ingested; name the root you mean")
    told = {**settings_of(db, root).told, **place.settings.told}
    return load_settings(root, database=place.database, **told)


def open_for_reading(place: Place) -> ResonanceDB:
    """The database, which must exist. Its text is looked for below the root it was made from.

    Raises:
        CannotOpenError, NotADatabaseError: it is not there, or not one.
    """
    db = ResonanceDB(place.database, create=False, readonly=True, root=place.root)
    tell_of_migration(db)
    return db


def tell_of_migration(db: ResonanceDB) -> None:
    """Opening a database may have changed its schema."""
    if db.migration_backup is not None:
        to_people(f"the schema was brought up to date; the database as it was: {db.migration_backup}", "dim")


def require_same_root(db: ResonanceDB, place: Place) -> None:
    """Refuse to fill a database from the folder one happens to be in.

    Raises:
        SettingsError: the database was made from another folder, and none was named.
    """
    made_from = db.root
    if place.named or made_from is None or not made_from.is_dir():
        return
    if os.path.realpath(made_from) != os.path.realpath(place.settings.root):
        raise SettingsError(
            f"{db.path} was made from {made_from}, and you are in {place.settings.root}; name the root "
            f"you mean"
        )
