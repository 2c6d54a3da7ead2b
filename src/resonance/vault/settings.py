"""What a vault consists of: its root, its sources, what to leave out, where its database lies."""

from __future__ import annotations

import json
import os
import posixpath
import re
import stat
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from resonance.errors import SettingsError
from resonance.vault.dialect import (
    ANY_KEY,
    DIALECTS,
    OLD_PAGES,
    Dialect,
    Reading,
    Relations,
    edge_type,
    relations_of,
)
from resonance.vault.sections import SectionRules, read_rules

if TYPE_CHECKING:
    from resonance.database import ResonanceDB

SETTINGS_FILE = "amalfa.settings.json"
DEFAULT_DATABASE = ".resonance/resonance.db"
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_LOSS = 0.25

_WILDCARDS = frozenset("*?[")
_GIVEN = "the arguments"
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """Everything the vault's code needs to know.

    Attributes:
        root: the folder every stored path is relative to; absolute.
        sources: folders, files or patterns (``*``, ``**``, ``?``, ``[...]``) to read, relative to
            the root, POSIX, NFC; ``"."`` is the root itself. No folder lies inside another one.
        exclude: patterns of files and folders to leave out, see :mod:`resonance.vault.scan`.
        database: the SQLite file; absolute.
        model: the embedding model asked for: a name, a folder, ``"none"``, or None for the default.
        dims: the width of its vectors, where the settings name one.
        reading: whose conventions the notes follow, and which keys of their heads are relations.
        max_file_bytes: larger files are reported, not read.
        sections: how long notes are cut into sections.
        told: the arguments of :func:`load_settings` that took precedence over the settings file.
        max_loss: the share of the known notes, 0 to 1, that may be gone before somebody has to say
            yes; None for a quarter of them, or ten if that is more.
    """

    root: Path
    sources: tuple[str, ...] = (".",)
    exclude: tuple[str, ...] = ()
    database: Path = Path(DEFAULT_DATABASE)
    model: str | None = None
    dims: int | None = None
    reading: Reading = field(default_factory=Reading)
    max_file_bytes: int = MAX_FILE_BYTES
    sections: SectionRules = field(default_factory=SectionRules)
    told: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    max_loss: float | None = None


def is_pattern(root: Path, source: str) -> bool:
    """Whether a source is a pattern; a folder whose name holds a ``[`` is not."""
    return bool(_WILDCARDS & set(source)) and not os.path.lexists(root / source)


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; no name is too long or too odd to ask for."""
    try:
        return path.is_dir()
    except OSError:
        return False


def load_settings(
    root: Path | str,
    *,
    database: Path | str | None = None,
    sources: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    model: str | None = None,
    dialect: Dialect | None = None,
    max_loss: float | None = None,
) -> VaultSettings:
    """The settings of the vault at ``root``: the arguments, else ``amalfa.settings.json``, else defaults.

    A ``database`` given here is relative to the working folder, one in the file to the root.
    ``max_loss`` is in percent, here and in the file (``maxLoss``).

    Raises:
        SettingsError: the root is no folder, or a value, given or in the file, makes no sense.
    """
    given = {"sources": sources, "exclude": exclude, "model": model, "dialect": dialect}
    sources = _texts(_GIVEN, given, "sources")
    exclude = _texts(_GIVEN, given, "exclude")
    model = _text(_GIVEN, given, "model")
    folder = expanded(root).absolute()
    if not is_folder(folder):
        raise SettingsError(f"{folder}: no such folder; name the folder that holds the notes")
    file = folder / SETTINGS_FILE
    told = _read(file)

    where = "sources" if sources is not None else str(file)
    if sources is None:
        sources = _texts(file, told, "sources") or _texts(file, told, "source")
    if exclude is None:
        exclude = _texts(file, told, "excludePatterns")
    if database is None:
        path = folder / expanded(_text(file, told, "database") or DEFAULT_DATABASE)
    else:
        path = expanded(database).absolute()
    try:
        taken = path.is_dir()
    except OSError as error:
        raise SettingsError(f"{path}: the database cannot be there ({error.strerror})") from error
    if taken:
        raise SettingsError(f"{path}: the database is a folder; name a file")

    percent = told.get("maxLoss") if max_loss is None else max_loss
    if percent is not None and (
        not isinstance(percent, int | float) or isinstance(percent, bool) or not 0 <= percent <= 100
    ):
        where = f"{file}: maxLoss" if max_loss is None else "max_loss"
        raise SettingsError(f"{where} must be a percentage between 0 and 100, not {percent!r}")
    reading = Reading(_dialect(file, told, dialect), _relations(file, told))
    left_out = [*(exclude or ()), *(OLD_PAGES if reading.dialect == "logseq" else ())]
    embeddings = _mapping(file, told, "embeddings")
    named = model if model is not None else _text(file, embeddings, "model", "embeddings.")
    return VaultSettings(
        root=folder,
        sources=_tidy_sources(where, folder, sources or (".",)),
        exclude=tuple(dict.fromkeys(unicodedata.normalize("NFC", text) for text in left_out)),
        database=path,
        model=named,
        dims=_dims(file, embeddings) if model is None else None,
        reading=reading,
        sections=read_rules(file, told.get("sections")),
        told={name: value for name, value in given.items() if value is not None},
        max_loss=None if percent is None else percent / 100,
    )


def expanded(path: Path | str) -> Path:
    """The path with ``~`` and ``~name`` as the home folders they stand for, where those are known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def settings_of(db: ResonanceDB, root: Path | str) -> VaultSettings:
    """The settings by which ``db`` was last ingested, for its vault at ``root``.

    They are read from the settings file again; arguments that took precedence over it then do so now.
    """
    found = db.query("SELECT value FROM properties WHERE key = 'vault.told'")
    told = json.loads(found[0][0]) if found else {}
    known = {name: told[name] for name in ("sources", "exclude", "model", "dialect") if name in told}
    return load_settings(root, database=db.path, **known)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise OSError("it is not a regular file")  # to read a pipe is to wait
        told = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(
            f"{file}: cannot be read as JSON ({error}); mend it, or move it away to use the defaults"
        ) from error
    if not isinstance(told, dict):
        raise SettingsError(f"{file}: must hold one JSON object, not {_kind(told)}")
    return told


def _tidy_sources(where: str, root: Path, sources: Sequence[str]) -> tuple[str, ...]:
    """Sources relative to the root, without those that lie inside another one."""
    tidy: set[str] = set()
    for source in sources:
        text = unicodedata.normalize("NFC", source.replace("\\", "/"))
        if text.startswith("/"):
            for base in (root, root.resolve()):
                if PurePosixPath(text).is_relative_to(base):
                    text = str(PurePosixPath(text).relative_to(base))
                    break
        text = posixpath.normpath(text or ".")
        if text.startswith(("/", "../")) or text == ".." or "\0" in text:
            raise SettingsError(
                f"{where}: the source {source!r} lies outside the root {root}; "
                f"choose a root that holds all sources"
            )
        tidy.add(text)
    folders = {text for text in tidy if not is_pattern(root, text)}
    return tuple(sorted(text for text in tidy if not folders & {str(p) for p in PurePosixPath(text).parents}))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and _NO_TEXT.search(value) is None


def _text(where: Path | str, told: Mapping[str, Any], key: str, prefix: str = "") -> str | None:
    value: str | None = told.get(key)
    if value is None or _is_text(value):
        return value
    raise SettingsError(f"{where}: {prefix}{key} must be a text, not {_kind(value)}")


def _texts(where: Path | str, told: Mapping[str, Any], key: str) -> Sequence[str] | None:
    value = told.get(key)
    if value is None:
        return None
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple):
        raise SettingsError(f"{where}: {key} must be a list of texts, not {_kind(value)}")
    for item in value:
        if not _is_text(item):
            raise SettingsError(f"{where}: {key} must be a list of texts, but holds {item!r}")
    return value


def _mapping(file: Path, told: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = told.get(key)
    if value is None:
        return {}
    if isinstance(value, str):
        return {"model": value}
    if isinstance(value, dict):
        return value
    raise SettingsError(f"{file}: {key} must be an object such as {{'model': ...}}, not {_kind(value)}")


def _dims(file: Path, embeddings: Mapping[str, Any]) -> int | None:
    value = embeddings.get("dimensions", embeddings.get("dims"))
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise SettingsError(f"{file}: embeddings.dimensions must be a positive number, not {value!r}")


def _dialect(file: Path, told: Mapping[str, Any], asked: str | None) -> Dialect:
    value = asked if asked is not None else told.get("dialect", "obsidian")
    if value not in DIALECTS:
        where = "dialect" if asked is not None else f"{file}: dialect"
        raise SettingsError(f"{where} must be one of {', '.join(DIALECTS)}, not {value!r}")
    return cast(Dialect, value)


def _relations(file: Path, told: Mapping[str, Any]) -> Relations:
    value = told.get("relations")
    if value is None:
        return Relations()
    if value is False:
        value = []
    if not isinstance(value, dict):
        value = dict.fromkeys(_texts(file, {"relations": value}, "relations") or (), True)
    for key, type_ in value.items():
        if not (isinstance(type_, bool) or (isinstance(type_, str) and edge_type(type_))):
            raise SettingsError(f"{file}: relations.{key} must be the type of an edge or true, not {type_!r}")
        if key != ANY_KEY and not edge_type(key):
            raise SettingsError(f"{file}: relations holds {key!r}, which is no key of a note's head")
    return relations_of(value)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}
    if isinstance(value, str):
        return repr(value) if value.strip() else "an empty text"
    return names.get(type(value), "null" if value is None else f"a {type(value).__name__}")
