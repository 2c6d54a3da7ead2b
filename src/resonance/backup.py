"""Copies of a database that are known to be good.

A live database is never copied by hand: its newest commits lie in the ``-wal`` file, and closing a
descriptor of it drops SQLite's locks. https://sqlite.org/backup.html
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from resonance._core import Connection
from resonance.errors import BackupError


class BackupReport(NamedTuple):
    """A backup that passed its check: row counts of source and copy agree, quick_check is ok."""

    path: str
    size_bytes: int
    nodes: int
    edges: int
    seconds: float


def backup_connection(source: Connection, destination: str) -> BackupReport:
    """Copy the database behind ``source`` to ``destination``, check the copy, then name it so.

    The copy is one file without a ``-wal``, written aside and renamed when it is complete.

    Raises:
        BackupError: the destination exists, or the copy is not what the source is.
    """
    started = time.monotonic()
    target = Path(destination)
    if os.path.lexists(target) or os.path.lexists(f"{target}-wal"):
        raise BackupError(f"{target} exists; a backup never overwrites, name another file")
    if not target.parent.is_dir():
        raise BackupError(f"{target.parent} is not a folder; create it first")
    try:
        with tempfile.TemporaryDirectory(prefix=".resonance-backup-", dir=target.parent) as folder:
            aside = Path(folder) / "copy.db"
            with Connection(str(aside)) as copy:
                nodes, edges = _copy(source, copy, aside)
            sync(aside)
            aside.rename(target)
        sync(target.parent)
    except OSError as error:
        raise BackupError(f"{target}: cannot be written: {error}") from error
    return BackupReport(str(target), target.stat().st_size, nodes, edges, time.monotonic() - started)


def _copy(source: Connection, copy: Connection, path: Path) -> tuple[int, int]:
    """The counts of nodes and edges, which are the same in both."""
    source.backup_to(copy)
    copy.execute("PRAGMA journal_mode = DELETE")
    _check(source, copy, path)
    wanted, found = _counts(source), _counts(copy)
    if found != wanted:
        raise BackupError(f"{path}: the copy holds {found} nodes and edges, the source {wanted}")
    return found


def backup_name(path: str, why: str) -> str:
    """A free name beside the database that tells when and why the copy was made."""
    stem = f"{path}.{why}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    name, attempt = f"{stem}.bak", 1
    while os.path.lexists(name):
        attempt += 1
        name = f"{stem}-{attempt}.bak"
    return name


def _check(source: Connection, copy: Connection, path: Path) -> None:
    verdict = copy.execute("PRAGMA quick_check(5)")
    if verdict != [("ok",)]:
        raise BackupError(f"{path}: the copy is damaged ({verdict[0][0]}); the source probably is too")
    for pragma in ("application_id", "user_version", "page_size"):
        ours, theirs = (c.execute(f"PRAGMA {pragma}")[0][0] for c in (copy, source))
        if ours != theirs:
            raise BackupError(f"{path}: {pragma} of the copy is {ours}, of the source {theirs}")


def _counts(connection: Connection) -> tuple[int, int]:
    return (
        int(connection.execute("SELECT count(*) FROM nodes")[0][0]),
        int(connection.execute("SELECT count(*) FROM edges")[0][0]),
    )


def sync(path: Path) -> None:
    """Have the file or folder on disk. Never of a live database: closing it again drops SQLite's locks."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
