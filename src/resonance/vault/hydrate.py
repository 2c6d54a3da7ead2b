"""Reading the text of a node from its file, now, and saying whether it is what was indexed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from resonance.errors import (
    ContentError,
    ContentMissingError,
    InputError,
    PathEscapeError,
    SettingsError,
    StaleContentError,
    UnknownNodeError,
)
from resonance.model import Content, ContentPolicy, ContentState
from resonance.vault.embed import NO_MODEL, choose_embedder
from resonance.vault.frontmatter import split
from resonance.vault.ingest import Keeper
from resonance.vault.note import decode, file_hash, parse_note
from resonance.vault.root import Root
from resonance.vault.scan import scan
from resonance.vault.sections import sections_of
from resonance.vault.settings import VaultSettings, settings_of

if TYPE_CHECKING:
    from resonance.database import ResonanceDB

_MD5_DIGITS = 32
_LINE_END = re.compile(rb"\r\n|\n|\r")
_MOST_HASHED = 256 << 20

_SELECT = (
    "SELECT n.id, n.type, iif(s.node IS NULL, n.hash, d.hash), n.meta, f.path, f.size, "
    "s.span_start, s.span_end, s.hash FROM nodes AS n LEFT JOIN sections AS s ON s.node = n.id "
    "LEFT JOIN nodes AS d ON d.id = s.document "
    "LEFT JOIN files AS f ON f.node = coalesce(s.document, n.id) "
    "WHERE n.id IN (SELECT value FROM json_each(?))"
)


@dataclass(frozen=True, slots=True)
class Record:
    """What is stored about the text of a node: where it was, how long its file, and its hash.

    Attributes:
        size: of the file, in bytes.
        hash: of the file: SHA-256, or MD5 as Amalfa makes it.
        span: where the text stands in the file, in bytes, if it is only a part of it.
        span_hash: SHA-256 of those bytes.
    """

    id: str
    path: str
    size: int | None
    hash: str | None
    span: tuple[int, int] | None = None
    span_hash: str | None = None


def hydrate_nodes(
    db: ResonanceDB,
    ids: Iterable[str],
    policy: ContentPolicy = "flag",
    *,
    root: Path | None = None,
    strict: bool = False,
    there: bool = True,
) -> list[Content]:
    """The texts of nodes of ``db``, in their order; see :meth:`ResonanceDB.content_many`.

    Args:
        root: the vault's root; None for the one the last ingest recorded.
        strict: a path that leads out of the root, or a node without a file, is an error.
        there: a node that is not there is an error, and not one without a text.
    """
    if policy not in get_args(ContentPolicy):
        raise InputError(f"policy {policy!r}; give one of {', '.join(get_args(ContentPolicy))}")
    wanted = [ids] if isinstance(ids, str) else list(ids)
    records = _records(db, wanted)
    for node_id in wanted:
        if node_id not in records:
            if there:
                raise UnknownNodeError(node_id)
            records[node_id] = ContentError(node_id, "the node is not there any more")
    strict = strict or policy == "raise"
    found = _read_all(db, records, root, strict)
    if policy == "refresh" and (stale := _stale(records, found)):
        _refresh(db, root, stale)
        # What is not there any more keeps the state that it was found in.
        found |= _read_all(db, _records(db, wanted), root, strict)
    if policy == "raise":
        for content in found.values():
            _require_as_indexed(content)
    return [
        found[node_id] for node_id in wanted if policy != "drop" or found[node_id].state in ("fresh", "moved")
    ]


def hydrate(
    root: Root,
    record: Record,
    *,
    moved: Callable[[Record], str | None] | None = None,
    edited: Callable[[Record, str, bytes], tuple[int, int] | None] | None = None,
) -> Content:
    """The text behind a record: the body without frontmatter, or its span; and which bytes it is.

    What is there is told by its status; what it says by the hash of its bytes, every time, because an
    equal size and time prove nothing.

    Args:
        moved: where to look for a file that is not at its path; returns a path, or None.
        edited: where to look for a part of a file whose bytes are nowhere in it; returns its place, or None.

    Raises:
        PathEscapeError: the path leads out of the root, or through a symbolic link.
    """
    path = record.path
    try:
        try:
            data, _ = root.read(path)
        except ContentMissingError as missing:
            other = moved(record) if moved is not None else None
            if other is None:
                return Content(record.id, None, "missing", path, None, missing.reason)
            path = other
            data, _ = root.read(path)
        text, skipped = decode(path, data)
    except PathEscapeError:
        raise
    except ContentError as error:
        return Content(record.id, None, "unreadable", path, None, error.reason)
    same = _is_same(record.hash, data, text)
    if path != record.path and not same:
        return Content(record.id, None, "missing", record.path, None, "there is no such file")
    if record.span is not None:
        return _part(record, record.span, path, data, edited)
    parts = split(text)
    body = text[parts[2] :] if parts else text
    span = (len(data) - len(body.encode()) if parts else skipped, len(data))
    if not same:
        reason = "the file has changed since it was indexed"
        if record.hash is None:
            reason = "no hash was stored for this node"
        return Content(record.id, body, "changed", path, span, reason)
    return Content(record.id, body, "fresh" if path == record.path else "moved", path, span)


def _part(
    record: Record,
    span: tuple[int, int],
    path: str,
    data: bytes,
    edited: Callable[[Record, str, bytes], tuple[int, int] | None] | None,
) -> Content:
    """A part of a file: at its place, or wherever the same bytes stand now, or what became of it."""
    found = find_span(data, span, record.span_hash, record.size)
    if found is None:
        now = edited(record, path, data) if edited is not None else None
        if now is None:
            reason = "the file has changed, and this part of it is not there as it was indexed"
            return Content(record.id, None, "missing", path, None, reason)
        if hashlib.sha256(data[now[0] : now[1]]).hexdigest() != record.span_hash:
            reason = "this part of the file has changed since it was indexed"
            return Content(record.id, data[now[0] : now[1]].decode(), "changed", path, now, reason)
        found = now  # it begins within a line
    state: ContentState = "fresh" if (path, found) == (record.path, span) else "moved"
    return Content(record.id, data[found[0] : found[1]].decode(), state, path, found)


def find_span(
    data: bytes, span: tuple[int, int], digest: str | None, size: int | None = None
) -> tuple[int, int] | None:
    """Where the bytes that stood at ``span`` stand now, nearest to their old place; None if nowhere.

    Looked for where they were, counted from the end of a file that was ``size`` bytes long, and at the
    start of every line.

    Args:
        digest: the SHA-256 of the bytes, in hex.
    """
    length = span[1] - span[0]
    if digest is None or not 0 <= span[0] <= span[1]:
        return None
    starts = [span[0]]
    if size is not None:
        starts.append(span[0] + len(data) - size)
    lines = [0, *(match.end() for match in _LINE_END.finditer(data))]
    starts += sorted(lines, key=lambda start: abs(start - span[0]))[: _MOST_HASHED // (length or 1)]
    for start in starts:
        if not 0 <= start <= len(data) - length:
            continue
        if hashlib.sha256(data[start : start + length]).hexdigest() == digest:
            return start, start + length
    return None


# --- from the database to the files ---------------------------------------------------------------


def _records(db: ResonanceDB, ids: list[str]) -> dict[str, Record | ContentError]:
    """What is stored of the nodes among ``ids`` that there are; an error for those without a file."""
    found: dict[str, Record | ContentError] = {}
    for node_id, kind, digest, meta, path, size, start, end, part in db.query(_SELECT, (json.dumps(ids),)):
        path = path or _source(meta)
        if path is None:
            found[node_id] = ContentError(node_id, f"this node (type {kind}) stands for no file")
        else:
            span = None if start is None else (start, end)
            found[node_id] = Record(node_id, path, size, digest, span, part)
    return found


def _read_all(
    db: ResonanceDB, records: dict[str, Record | ContentError], root: Path | None, strict: bool
) -> dict[str, Content]:
    found: dict[str, Content] = {}
    files: _Files | None = None
    try:
        for node_id, record in records.items():
            if isinstance(record, ContentError):
                if strict:
                    raise record
                found[node_id] = Content(node_id, None, "missing", None, None, record.reason)
                continue
            files = files or _Files(db, record.path, root)
            try:
                found[node_id] = hydrate(files.root, record, moved=files.moved, edited=files.edited)
            except PathEscapeError as error:
                if strict:
                    raise
                found[node_id] = Content(node_id, None, "unreadable", record.path, None, error.reason)
    finally:
        if files is not None:
            files.root.close()
    return found


def _require_as_indexed(content: Content) -> None:
    """Raise unless the text is the one that was indexed."""
    path, reason = content.path or content.id, content.reason or ""
    if content.state == "changed":
        raise StaleContentError(path, f"{reason}; `resonance ingest` brings the database up to date")
    if content.state == "missing":
        raise ContentMissingError(path, reason)
    if content.state == "unreadable":
        raise ContentError(path, reason)


def _stale(records: dict[str, Record | ContentError], found: dict[str, Content]) -> set[str]:
    """Paths of the files that are there, but not as they were indexed."""
    return {
        record.path
        for node_id, record in records.items()
        if isinstance(record, Record)
        and (
            found[node_id].state == "changed"
            or (record.span is not None and found[node_id].state == "missing")
        )
    }


def _refresh(db: ResonanceDB, root: Path | None, paths: set[str]) -> None:
    """Ingest some files, by the settings and the model of the last ingest, and nothing else."""
    folder = root or db.root
    assert folder is not None
    settings = settings_of(db, folder)
    space, embedder = db.space, None
    if settings.model != NO_MODEL and space is not None:
        embedder, _ = choose_embedder(dataclasses.replace(settings, model=settings.model or space.name))
    if embedder is None or embedder.space != space:
        # Vectors of another model must not take the place of all there are.
        embedder, settings = None, dataclasses.replace(settings, model=NO_MODEL)
    keeper = Keeper(db, settings, embedder=embedder)
    keeper.held = frozenset(paths)  # who reads removes nothing, whatever has become of a file meanwhile
    keeper.ingest(paths)


class _Files:
    """The files of the vault, looked through once when the first one is not at its path."""

    def __init__(self, db: ResonanceDB, path: str, root: Path | None) -> None:
        folder = root or db.root
        if folder is None:
            raise ContentError(path, "the vault's root is not known; open the database with root=...")
        self.db = db
        # The recorded root is a real path: a link on the way was put there since.
        self.root = Root(folder, real=root is None)
        self._by_size: defaultdict[int, list[str]] | None = None
        self._hashes: dict[str, str] = {}

    def moved(self, record: Record) -> str | None:
        """The path of a file with the same bytes that no node stands for, or None."""
        if record.size is None or record.hash is None:
            return None
        if self._by_size is None:
            self._by_size = self._unknown()
        for path in self._by_size[record.size]:
            if path not in self._hashes:
                try:
                    self._hashes[path] = file_hash(self.root.read(path)[0])
                except ContentError:
                    continue
            if self._hashes[path] == record.hash:
                return path
        return None

    def edited(self, record: Record, path: str, data: bytes) -> tuple[int, int] | None:
        """Where the section stands that would get the same id if the file were indexed now, or None."""
        try:
            settings = settings_of(self.db, self.root.folder)
            note = parse_note(path, data, settings.reading)
        except (SettingsError, ContentError):
            return None
        document = record.id.partition("#")[0]
        for section in sections_of(note, data, document, settings.sections):
            if section.node == record.id:
                return section.start, section.end
        return None

    def _unknown(self) -> defaultdict[int, list[str]]:
        try:
            settings = settings_of(self.db, self.root.folder)
        except SettingsError:
            settings = VaultSettings(self.root.folder)
        known = {path for (path,) in self.db.query("SELECT path FROM files")}
        found: defaultdict[int, list[str]] = defaultdict(list)
        for file in scan(settings, self.root).files:
            if file.path not in known:
                found[file.size].append(file.path)
        return found


def _is_same(known: str | None, data: bytes, text: str) -> bool:
    if known is None:
        return False
    if len(known) == _MD5_DIGITS:
        # Nodes made by Amalfa carry the MD5 of the text without the white space around it.
        return hashlib.md5(text.strip().encode(), usedforsecurity=False).hexdigest() == known
    return file_hash(data) == known


def _source(meta: str | None) -> str | None:
    """The path that a node without a row in ``files`` (made by Amalfa, for one) names itself."""
    try:
        told = json.loads(meta or "null")
    except ValueError:
        return None
    source = told.get("source") if isinstance(told, dict) else None
    return source if isinstance(source, str) and source else None
