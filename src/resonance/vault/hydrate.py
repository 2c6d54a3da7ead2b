"""Reading the text of a node from its file, now, and saying whether it is what was indexed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resonance.errors import (
    ContentError,
    ContentMissingError,
    PathEscapeError,
    SettingsError,
    UnknownNodeError,
)
from resonance.model import Content
from resonance.vault.frontmatter import split
from resonance.vault.note import decode, file_hash
from resonance.vault.root import Root
from resonance.vault.scan import scan
from resonance.vault.settings import VaultSettings, load_settings

if TYPE_CHECKING:
    from resonance.database import ResonanceDB

_MD5_DIGITS = 32


@dataclass(frozen=True, slots=True)
class Record:
    """What is stored about the file behind a node: where it was, how long, and its hash."""

    id: str
    path: str
    size: int | None
    hash: str | None


def hydrate_node(db: ResonanceDB, node_id: str) -> Content:
    """The text of a node of ``db``; see :func:`hydrate`.

    Raises:
        UnknownNodeError: there is no such node.
        ContentError: the node stands for no file, or the database knows no root.
        PathEscapeError: its path leads out of the root.
    """
    found = db.query(
        "SELECT f.path, f.size, n.hash, n.meta, n.type FROM nodes AS n "
        "LEFT JOIN files AS f ON f.node = n.id WHERE n.id = ?",
        (node_id,),
    )
    if not found:
        raise UnknownNodeError(node_id)
    path, size, known_hash, meta, kind = found[0]
    path = path or _source(meta)
    if path is None:
        raise ContentError(node_id, f"this node (type {kind}) stands for no file")
    if db.root is None:
        raise ContentError(path, "the vault's root is not known; open the database with root=...")
    with Root(db.root) as root:
        return hydrate(
            root,
            Record(node_id, path, size, known_hash),
            moved=lambda record: find_moved(root, record, _Known(db)),
        )


def hydrate(root: Root, record: Record, *, moved: Callable[[Record], str | None] | None = None) -> Content:
    """The text behind a record: the body without frontmatter, and its byte range in the file.

    The bytes are hashed every time; an equal size and time prove nothing.

    Args:
        moved: where to look for a file that is not at its path; returns a path, or None.

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
    parts = split(text)
    body = text[parts[2] :] if parts else text
    span = (len(data) - len(body.encode()) if parts else skipped, len(data))
    if not same:
        reason = "the file has changed since it was indexed"
        if record.hash is None:
            reason = "no hash was stored for this node"
        return Content(record.id, body, "changed", path, span, reason)
    return Content(record.id, body, "fresh" if path == record.path else "moved", path, span)


def find_moved(root: Root, record: Record, known: Container[str]) -> str | None:
    """The path of a file with the same bytes that no node stands for yet, or None."""
    if record.size is None or record.hash is None:
        return None
    try:
        settings = load_settings(root.folder)
    except SettingsError:
        settings = VaultSettings(root.folder)
    for file in scan(settings, root).files:
        if file.size != record.size or file.path in known:
            continue
        try:
            data, _ = root.read(file.path)
        except ContentError:
            continue
        if file_hash(data) == record.hash:
            return file.path
    return None


class _Known:
    """The paths that nodes stand for, asked one by one."""

    def __init__(self, db: ResonanceDB) -> None:
        self.db = db

    def __contains__(self, path: object) -> bool:
        return bool(self.db.query("SELECT 1 FROM files WHERE path = ?", (path,)))


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
