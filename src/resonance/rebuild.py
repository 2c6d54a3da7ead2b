"""Building a database aside and putting it in the place of the live one.

The new one grows in a folder beside the live one, which is removed whole; a run that is killed leaves
its folder to the next run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

from resonance._core import Connection
from resonance.errors import CannotOpenError, RegenerateError
from resonance.factory import LOCK_TIMEOUT, connect_to_scratch
from resonance.history import History
from resonance.lock import WriteGate
from resonance.session import Session
from resonance.spaces import OWED, TEXT
from resonance.watch import Version
from resonance.words import counted

PREFIX = ".resonance-build-"
_LOCK = "lock"

# Spaces that were filled beside the one in use stay beside it, with their vectors of texts that are the
# same; of a text without a hash, if its vector in use is.
_CARRY_SPACES = """
INSERT INTO main.spaces (name, revision, dims, normalisation)
SELECT name, revision, dims, normalisation FROM live.spaces AS there
WHERE active = 0 AND NOT EXISTS (
    SELECT 1 FROM main.spaces AS here WHERE here.name = there.name AND here.revision = there.revision
    AND here.dims = there.dims AND here.normalisation = there.normalisation)
"""
_CARRY_VECTORS = f"""
INSERT INTO main.vectors (node, space, embedding, hash)
SELECT n.id, here.id, v.embedding, v.hash
FROM live.vectors AS v
JOIN live.spaces AS there ON there.id = v.space AND there.active = 0
JOIN main.spaces AS here
  ON here.name = there.name AND here.revision = there.revision AND here.dims = there.dims
 AND here.normalisation = there.normalisation AND here.active = 0
JOIN main.nodes AS n ON n.id = v.node
WHERE v.hash IS {TEXT} AND v.hash IS NOT '{OWED}' AND (v.hash IS NOT NULL OR n.embedding IS (
    SELECT old.embedding FROM live.nodes AS old WHERE old.id = n.id))
ORDER BY v.id
"""


@contextlib.contextmanager
def workshop(path: Path) -> Iterator[Path]:
    """A folder beside the database, on the same disk, removed whole; as are those of killed runs."""
    gate = WriteGate(str(path))
    try:
        with gate.held(LOCK_TIMEOUT):
            _sweep(path)
            folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{path.name}-", dir=path.parent))
            # Held until the end: a folder whose lock is free was left behind.
            held = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(held, fcntl.LOCK_EX)
    except OSError as error:
        why = f"{os.strerror(error.errno or 0)}; the folder of a database must be writable"
        raise cannot_make(path, f"{path.parent}: {why}") from error
    finally:
        gate.close()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def cannot_make(path: Path, why: str) -> CannotOpenError:
    return CannotOpenError(
        why, code=14, name="SQLITE_CANTOPEN", path=str(path), operation="init", data="unchanged"
    )


def _sweep(path: Path) -> None:
    ours = re.compile(re.escape(f"{PREFIX}{path.name}-") + r"[a-z0-9_]{8}")
    for folder in path.parent.iterdir():
        if ours.fullmatch(folder.name) and not folder.is_symlink() and _is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    try:
        held = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(held)
    return True


def attach_live(source: Connection, path: str) -> None:
    """Attach the live database to the new one, as ``live``."""
    # As bytes: the name of a file need not be UTF-8.
    source.execute("ATTACH CAST(? AS TEXT) AS live", (os.fsencode(path),))


def carry_records(source: Connection) -> None:
    """Put the audit trail and the state of enrichment of ``live``, attached to ``source``, into it; and
    the vectors of spaces that are not active.

    Of the building itself no entry is kept: how it went does not matter later.
    """
    source.execute("DELETE FROM main.history")
    source.execute("INSERT INTO main.history SELECT * FROM live.history ORDER BY id")
    source.execute(
        "UPDATE main.sqlite_sequence SET seq = max(seq, (SELECT max(seq) FROM live.sqlite_sequence "
        "WHERE name = 'history')) WHERE name = 'history' AND EXISTS "
        "(SELECT 1 FROM live.sqlite_sequence WHERE name = 'history')"
    )
    source.execute("INSERT OR IGNORE INTO main.ember_state SELECT * FROM live.ember_state")
    if source.execute("SELECT 1 FROM main.spaces WHERE active = 1"):
        source.execute(_CARRY_SPACES)
        source.execute(_CARRY_VECTORS)


class Inspection:
    """Whether a new database may take the place of the live one: checked by a thread beside the copying."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(1)
        self._found: Future[tuple[str, int]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pool.shutdown()

    def begin(self) -> None:
        """From now on nobody writes to it."""
        self._found = self._pool.submit(self._inspect)

    def _inspect(self) -> tuple[str, int]:
        with connect_to_scratch(self._path) as fresh:
            verdict = fresh.execute("PRAGMA quick_check(5)")[0][0]
            return str(verdict), len(fresh.execute("PRAGMA foreign_key_check"))

    def require_sound(self) -> None:
        """Wait for the verdict.

        Raises:
            RegenerateError: it is not sound.
        """
        assert self._found is not None, "begin() comes first"
        verdict, broken = self._found.result()
        if verdict != "ok" or broken:
            raise RegenerateError(
                f"{self._path}: the new database is not sound ({verdict}, "
                f"{counted(broken, 'broken reference')}); the one in use is as it was"
            )


def put_in_place(session: Session, path: Path, since: Version | None) -> None:
    """Copy the finished database at ``path`` over the live one, with the live one's records.

    Args:
        since: the version of the live one that must still be there; None for whatever there is.

    Raises:
        RegenerateError: it did not pass its check, or the live one has changed.
    """
    with connect_to_scratch(path) as source, Inspection(path) as inspection:
        attach_live(source, session.path)

        def before(writer: Connection) -> None:
            """Nobody else is writing now: what is carried over is the last there is."""
            if since is not None and session.version_of(writer) != since:
                raise RegenerateError(
                    f"{session.path}: something was committed while the new database was being filled, and "
                    f"is not in it; the one in use is as it was. Fill it again, or pass overwrite=True"
                )
            source.execute("BEGIN IMMEDIATE")
            carry_records(source)
            History(source).record("database", "*", "rebuild", None, None)
            source.execute("COMMIT")
            source.execute("DETACH live")
            inspection.begin()

        session.replace_with(source, before, inspection.require_sound)
