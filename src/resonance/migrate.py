"""Schema: what a file is, what it still needs, and how it gets there.

``identify``, ``applied`` and ``pending`` only read; ``apply`` moves. Each migration and its record are
one transaction, and a file that already holds data is backed up, and the backup checked, first.
"""

from __future__ import annotations

import enum
import hashlib
import time
from functools import cache
from importlib import resources
from typing import NamedTuple

from resonance._core import Connection
from resonance.backup import backup_connection, backup_name
from resonance.errors import (
    CorruptDatabaseError,
    MigrationError,
    NotADatabaseError,
    SchemaTooNewError,
    StorageError,
)

APPLICATION_ID = 0x52534E43
"""``RSNC``, stored in the file's header: https://sqlite.org/pragma.html#pragma_application_id"""

# Amalfa's bookkeeping knows its migrations by these times only.
_AMALFA_TIMES = {1767981411501: 0, 1768308220948: 1, 1769588665479: 2}

_RECORD = """
CREATE TABLE IF NOT EXISTS resonance_migrations (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    applied_at TEXT NOT NULL
) STRICT
"""


_ANEW = "move the file, its -wal and its -shm away and run `resonance init`"


class Kind(enum.Enum):
    """What a file turned out to be."""

    EMPTY = "empty"
    AMALFA = "made by Amalfa"
    RESONANCE = "made by Resonance"


class Migration(NamedTuple):
    """One file of ``migrations/``: plain SQL, ``number`` = order."""

    number: int
    name: str
    sql: str
    sha256: str


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations of this version, in order."""
    found = []
    for item in resources.files("resonance").joinpath("migrations").iterdir():
        if item.name.endswith(".sql"):
            sql = item.read_text(encoding="utf-8")
            name = item.name.removesuffix(".sql")
            digest = hashlib.sha256(sql.encode()).hexdigest()
            found.append(Migration(int(name[:4]), name, sql, digest))
    found.sort()
    if [migration.number for migration in found] != list(range(len(found))) or not found:
        raise MigrationError("the installed package has no complete set of migrations; reinstall it")
    return tuple(found)


def identify(connection: Connection) -> Kind:
    """What the open file is, from its header and its schema; reads only.

    Raises:
        NotADatabaseError: not SQLite, or another program's database.
        SchemaTooNewError: a later version of Resonance wrote it.
    """
    application = connection.execute("PRAGMA application_id")[0][0]
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if application == APPLICATION_ID:
        version = connection.execute("PRAGMA user_version")[0][0]
        if version > len(migrations()):
            raise SchemaTooNewError(
                f"{connection.path}: its schema is version {version}, this Resonance knows "
                f"{len(migrations())}; upgrade Resonance, or {_ANEW}"
            )
        return Kind.RESONANCE
    if application == 0 and not tables:
        return Kind.EMPTY
    if application == 0 and {"nodes", "edges", "__drizzle_migrations"} <= tables:
        return Kind.AMALFA
    raise NotADatabaseError(
        f"{connection.path}: an SQLite database of another program (application id {application}, "
        f"tables {', '.join(sorted(tables)[:5]) or 'none'}); it was left alone. Name another file",
        code=26,
        name="SQLITE_NOTADB",
        path=connection.path,
        operation="open",
        data="unchanged",
    )


def objects(connection: Connection) -> set[str]:
    """The tables, indexes and triggers of a file, such as ``"index idx_edges_target"``."""
    found = connection.execute("SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")
    return {f"{kind} {name}" for kind, name in found}


def made_by_migrations() -> set[str]:
    """The same of a file that has had all migrations."""
    with Connection(":memory:") as empty:
        for migration in migrations():
            empty.executescript(migration.sql)
        return objects(empty)


def applied(connection: Connection) -> dict[int, str | None]:
    """Number -> recorded SHA-256 of each migration the file has had; None where Amalfa did it."""
    kind = identify(connection)
    if kind is Kind.EMPTY:
        return {}
    if kind is Kind.AMALFA:
        times = [row[0] for row in connection.execute("SELECT created_at FROM __drizzle_migrations")]
        unknown = [when for when in times if when not in _AMALFA_TIMES]
        if unknown:
            raise SchemaTooNewError(
                f"{connection.path}: made by a later Amalfa (migrations {unknown}); upgrade Resonance"
            )
        return {_AMALFA_TIMES[when]: None for when in times}
    return dict(connection.execute("SELECT number, sha256 FROM resonance_migrations ORDER BY number"))


def pending(connection: Connection) -> list[Migration]:
    """Migrations the file still needs, in order; reads only.

    Raises:
        MigrationError: an applied migration differs from the one in this package.
    """
    done = applied(connection)
    for migration in migrations():
        if done.get(migration.number) not in (None, migration.sha256):
            raise MigrationError(
                f"{connection.path}: migration {migration.name} was applied with another content "
                f"than this package has; install the version that wrote it, or {_ANEW}"
            )
    if done and max(done) >= len(migrations()):
        raise SchemaTooNewError(
            f"{connection.path}: has had migration {max(done)}, which this version does not know; "
            f"upgrade Resonance, or {_ANEW}"
        )
    return [migration for migration in migrations() if migration.number not in done]


def apply(connection: Connection) -> str | None:
    """Bring the file to the newest schema; the caller holds the gate.

    Returns:
        the path of the backup, where the file held data and was changed; else None.

    Raises:
        MigrationError: a migration failed. The file is as it was after the last one that did not.
        CorruptDatabaseError: the file holds data and is damaged; nothing was changed.
    """
    todo = pending(connection)
    if not todo:
        return None
    kind = identify(connection)
    backup = None
    if kind is not Kind.EMPTY:
        _require_intact(connection)
        backup = backup_name(connection.path, f"before-{todo[0].number:04d}")
        backup_connection(connection, backup)
    for migration in todo:
        _apply_one(connection, migration, adopted=kind is Kind.AMALFA)
    return backup


def _apply_one(connection: Connection, migration: Migration, *, adopted: bool) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_RECORD)
        if adopted:
            _record_adopted(connection, migration.number)
        connection.executescript(migration.sql)
        _record(connection, migration, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {migration.number + 1}")
        broken = connection.execute("PRAGMA foreign_key_check")
        if broken:
            raise MigrationError(f"{connection.path}: {migration.name} left {len(broken)} broken references")
        connection.execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if isinstance(error, StorageError):
            raise MigrationError(
                f"{connection.path}: migration {migration.name} failed and was undone: {error}"
            ) from error
        raise


def _record_adopted(connection: Connection, before: int) -> None:
    for earlier in migrations()[:before]:
        if not connection.execute("SELECT 1 FROM resonance_migrations WHERE number = ?", (earlier.number,)):
            _record(connection, earlier, "adopted")


def _record(connection: Connection, migration: Migration, when: str) -> None:
    connection.execute(
        "INSERT INTO resonance_migrations VALUES (?, ?, ?, ?)",
        (migration.number, migration.name, migration.sha256, when),
    )


def _require_intact(connection: Connection) -> None:
    verdict = connection.execute("PRAGMA quick_check(5)")
    if verdict != [("ok",)]:
        raise CorruptDatabaseError(
            f"{connection.path}: damaged ({'; '.join(str(row[0]) for row in verdict)}), so it was not "
            f"migrated; restore a backup, or move it away and rebuild with `resonance init`",
            code=11,
            name="SQLITE_CORRUPT",
            path=connection.path,
            operation="quick_check",
            data="unchanged",
        )
