"""Putting a backup in the place of the live database, once it has shown that it is one."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import NamedTuple

from resonance import migrate
from resonance._core import Connection
from resonance.backup import backup_connection, backup_name
from resonance.care.digest import digest
from resonance.care.regenerate import open_live
from resonance.database import ResonanceDB
from resonance.errors import BackupError, CorruptDatabaseError, StorageError
from resonance.factory import BUSY_TIMEOUT_MS, DatabaseFactory
from resonance.history import History
from resonance.rebuild import workshop
from resonance.words import counted


class RestoreReport(NamedTuple):
    """What is in place now.

    ``saved`` is the database as it was, None if there was none, or nothing in it; ``digest`` is the
    restored one's.
    """

    path: str
    backup: str
    saved: str | None
    nodes: int
    edges: int
    digest: str
    seconds: float


def restore(database: str | os.PathLike[str], backup: str | os.PathLike[str]) -> RestoreReport:
    """Put ``backup`` in the place of ``database``, in one step; readers keep what they read.

    The backup is only read. It is copied aside, checked whole, and brought to the newest schema there;
    then the present database is saved beside itself, and the copy takes its place. A run that is killed
    leaves the one or the other.

    Raises:
        BackupError: it is missing, empty, damaged, or the database itself. Nothing was changed.
        NotADatabaseError, SchemaTooNewError: it is another program's, or a newer version's.
        CorruptDatabaseError: the present database is damaged, so it cannot be saved; says what to do.
    """
    started = time.monotonic()
    path, source = Path(database).absolute(), Path(backup).absolute()
    _require_file(source, path)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(workshop(path))
        copy = folder / "fresh.db"
        page_size = _copy(source, copy)
        if path.exists():
            live = stack.enter_context(open_live(path, "it cannot be saved before it is replaced", "restore"))
        else:
            live = stack.enter_context(ResonanceDB(path, page_size=page_size))
        if live.page_size != page_size:
            _resize(copy, live.page_size)
        # Opening it brings the schema to head.
        with ResonanceDB(copy, create=False) as restored:
            proof = digest(restored).root
            nodes, edges = (
                restored.query(f"SELECT count(*) FROM {name}")[0][0] for name in ("nodes", "edges")
            )
        saved = _put_in_place(live, copy, source.name)
    return RestoreReport(str(path), str(source), saved, nodes, edges, proof, time.monotonic() - started)


def _require_file(source: Path, path: Path) -> None:
    if not source.is_file():
        raise BackupError(f"{source}: there is no such file; name a backup")
    if path.exists() and source.samefile(path):
        raise BackupError(f"{source}: this is the database itself; name a backup")
    if source.stat().st_size == 0:
        raise BackupError(f"{source}: is empty, so nothing was restored; name another backup")


def _copy(source: Path, copy: Path) -> int:
    """Copy a backup and check the copy; returns the size of its pages."""
    had_wal = Path(f"{source}-wal").exists()
    with Connection(source, create=False) as backup:
        backup.set_busy_timeout(BUSY_TIMEOUT_MS)
        backup.execute("PRAGMA query_only = ON")
        backup.checkpoint_on_close(not had_wal)
        try:
            if migrate.identify(backup) is migrate.Kind.EMPTY:
                raise BackupError(f"{source}: holds no tables, so nothing was restored; name another backup")
            migrate.pending(backup)
            with Connection(copy) as fresh:
                backup.backup_to(fresh)
                fresh.execute("PRAGMA journal_mode = DELETE")
                verdict = [str(row[0]) for row in fresh.execute("PRAGMA integrity_check(20)")]
                broken = fresh.execute("PRAGMA foreign_key_check") if verdict == ["ok"] else []
                size = int(fresh.execute("PRAGMA page_size")[0][0])
        except CorruptDatabaseError as error:
            verdict, broken, size = [str(error)], [], 0
    if verdict != ["ok"] or broken:
        why = f"{counted(len(broken), 'broken reference')}" if broken else "; ".join(verdict)[:400]
        raise BackupError(
            f"{source}: is damaged ({why}), so it was not restored, and the database is as it was; "
            f"name another backup"
        )
    return size


def _resize(copy: Path, page_size: int) -> None:
    """Pages can only be copied over pages of the same size."""
    with Connection(copy, create=False) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute("VACUUM")


def _put_in_place(live: ResonanceDB, copy: Path, name: str) -> str | None:
    saved: list[str] = []
    with DatabaseFactory.connect(copy, create=False) as source:

        def before(writer: Connection) -> None:
            """Nobody else is writing now: what is saved is the last there is."""
            if any(writer.execute(f"SELECT 1 FROM {table} LIMIT 1") for table in ("nodes", "history")):
                target = backup_name(live.path, "before-restore")
                _save(writer, target)
                saved.append(target)
            History(source).record("database", "*", "restore", None, {"from": name})

        live.replace_with(source, before=before)
    return saved[0] if saved else None


def _save(writer: Connection, target: str) -> None:
    try:
        backup_connection(writer, target)
    except (BackupError, StorageError) as error:
        raise BackupError(
            f"{writer.path}: could not be saved before it is replaced, so nothing was restored ({error}). If "
            f"it is damaged, end the programs that use it, move it away together with its -wal and its -shm, "
            f"and repeat"
        ) from error
