"""Checks that can fail: of the engine, of the file, and of what is stored in it.

Nothing is changed: what is written is rolled back, and a file that is not ours is only read.
"""

from __future__ import annotations

import contextlib
import gc
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from resonance import factory, migrate
from resonance._core import Connection, engine
from resonance.care import stored
from resonance.database import ResonanceDB
from resonance.errors import (
    BusyError,
    ForeignKeyError,
    ResonanceError,
    SchemaTooNewError,
    UnsupportedSQLiteError,
)
from resonance.factory import DatabaseFactory
from resonance.lock import WriteGate
from resonance.model import Finding, HealthReport
from resonance.words import counted, size, some

PATIENCE = 5.0
"""Seconds the probe waits for other writers before it reports that it could not be made."""

LARGE_WAL = 256 << 20
"""A WAL above this many bytes is not being written back; ours is cut at 64 MiB."""

OUR_LEFTOVERS = (".resonance-build-", ".resonance-backup-", ".resonance-export-")

_BUSY_MS = 5000
_PROBED = ("nodes", "edges", "links", "files", "history", "properties")

Level = Literal["ok", "info", "warning", "error"]


def check_health(path: str | os.PathLike[str], *, deep: bool = True) -> HealthReport:
    """Examine a database for real; see :meth:`DatabaseFactory.perform_health_check`.

    Whatever stops the examination is a finding of level ``error``, not an exception.

    Args:
        deep: run ``integrity_check``, which compares every index with its table; else ``quick_check``.
    """
    name = os.fspath(path)
    return HealthReport(name, tuple(_examine(name, deep)))


def _examine(path: str, deep: bool) -> Iterator[Finding]:
    """From the outside in. A file that is not there, not ours or not up to date is not looked into."""
    yield from _guarded("engine", _engine())
    if path == ":memory:":
        yield Finding("file", "error", "a database in memory belongs to one connection; name a file")
        return
    # Before this function opens the file itself.
    yield from _guarded("other-sqlite", _other_sqlite(path))
    for check, examine in (("file", _file(path)), ("schema", _bare(path, deep))):
        found = list(_guarded(check, examine))
        yield from found
        if not any(finding.check == check and finding.level == "ok" for finding in found):
            return
    yield from _guarded("settings", _settings(path))
    yield from _guarded("probe", _probe(path))
    yield from _guarded("open", _stored(path))


def _stored(path: str) -> Iterator[Finding]:
    with ResonanceDB(path, create=False, readonly=True) as db:
        for check, look in stored.CHECKS:
            yield from _guarded(check, look(db))


def _guarded(check: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """What a check raises is what it found."""
    try:
        yield from findings
    except ResonanceError as error:
        yield Finding(check, "error", str(error))


# --- the engine -----------------------------------------------------------------------------------


def _engine() -> Iterator[Finding]:
    facts = engine()
    version, number = facts["version"], factory.engine_number()
    origin = f"compiled in, from {facts['origin']}" if facts["bundled"] else "the system's"
    level: Level = "ok"
    advice = ""
    if number < factory.OLDEST_SQLITE:
        raise UnsupportedSQLiteError(f"SQLite {version} is older than 3.37.2; rebuild Resonance")
    if number < factory.SAFE_SQLITE:
        level = "warning"
        advice = ". It has bugs that lose data, which Resonance avoids; rebuild it with its own engine"
    yield Finding("engine", level, f"SQLite {version}, {origin}, source {facts['source_id'][:35]}{advice}")
    options = set(facts["options"])
    if "THREADSAFE=0" in options:
        yield Finding(
            "engine", "error", "SQLite was built without thread safety; rebuild Resonance with its own"
        )
    if lacking := [name for name in ("ENABLE_FTS5", "ENABLE_MATH_FUNCTIONS") if name not in options]:
        yield Finding("engine", "info", f"this SQLite was built without {', '.join(lacking)}")
    if facts["header_version"] != number:
        yield Finding(
            "engine",
            "info",
            f"built against SQLite {_dotted(facts['header_version'])}, running on {version}",
        )
    standard = sys.modules.get("sqlite3")
    if standard is not None:
        yield Finding(
            "engine", "info", f"the standard library's sqlite3, loaded too, is {standard.sqlite_version}"
        )


def _dotted(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


# --- the file, before SQLite is asked -------------------------------------------------------------


def _file(path: str) -> Iterator[Finding]:
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        yield Finding("file", "error", f"{path} does not exist; `resonance init` makes it")
        return
    except (OSError, ValueError) as error:
        yield Finding("file", "error", f"{path}: {error}")
        return
    if not stat.S_ISREG(status.st_mode):
        yield Finding("file", "error", f"{path} is not a regular file; name a database")
        return
    if status.st_size == 0:
        yield Finding("file", "error", f"{path} is empty; restore a backup, or fill it with `resonance init`")
        return
    kind = factory.filesystem_of(path)
    if kind in factory.NETWORK_FILESYSTEMS:
        yield Finding(
            "file",
            "error",
            f"{path} lies on {kind}, a network file system, where WAL cannot work; move it to a local disk",
        )
        return
    yield Finding("file", "ok", f"{size(status.st_size)} on {kind or 'an unknown file system'}")
    yield from _wal(path)
    yield from _leftovers(path)


def _wal(path: str) -> Iterator[Finding]:
    with contextlib.suppress(OSError):
        used = Path(f"{path}-wal").stat().st_size
        if used > LARGE_WAL:
            yield Finding(
                "wal",
                "warning",
                f"the write-ahead log has grown to {size(used)}; end the readers that have been open for "
                f"long, then run `resonance vacuum`",
            )
        else:
            yield Finding("wal", "ok", f"the write-ahead log holds {size(used)}")


def _leftovers(path: str) -> Iterator[Finding]:
    folder = Path(path).absolute().parent
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return
    ours = [name for name in names if name.startswith(OUR_LEFTOVERS)]
    if ours:
        yield Finding(
            "leftovers",
            "warning",
            f"{folder} holds {some(ours)}: work in progress, or left behind when a run was killed. If "
            f"none is running, delete them; `resonance init` removes what it left itself",
        )
    stem = f"{Path(path).name}.before-"
    backups = [name for name in names if name.startswith(stem) and name.endswith(".bak")]
    if backups:
        used = sum(_size(folder / name) for name in backups)
        yield Finding(
            "leftovers",
            "info",
            f"{counted(len(backups), 'backup')} made before changes, {size(used)}; the last is {backups[-1]}",
        )


# --- who else has it open -------------------------------------------------------------------------


def _other_sqlite(path: str) -> Iterator[Finding]:
    """Two SQLite libraries in one process drop each other's file locks."""
    strangers = _strangers(path)
    if strangers is None:
        yield Finding("other-sqlite", "info", "who has the file open cannot be seen on this system")
        return
    libraries = _sqlite_libraries()
    if not engine()["bundled"] and len(libraries) < 2:
        yield Finding("other-sqlite", "ok", "one SQLite library in this process, the system's")
    elif strangers:
        who = f"another SQLite library ({some(libraries)})" if libraries else "something other than Resonance"
        yield Finding(
            "other-sqlite",
            "error",
            f"{who} has the file open in this process ({counted(strangers, 'connection')}). When one of the "
            f"two closes it, the locks of both are gone and data can be lost; do all work through Resonance",
        )
    else:
        yield Finding("other-sqlite", "ok", "no other SQLite library in this process has the file open")


def _strangers(path: str) -> int | None:
    """Connections of this process to the file that are not ours; None where that cannot be seen.

    Told by the write-ahead log, which each connection opens for itself: descriptors of the file itself
    outlive their connection while another one holds a lock.
    """
    found: int | None = None
    # Other threads open and close connections between the two counts: only what stays is real.
    for _ in range(3):
        descriptors = _descriptors_of(f"{path}-wal")
        if descriptors is None:
            return None
        found = max(0, descriptors - sum(_is_open_on(connection, path) for connection in _connections()))
        if not found:
            break
        time.sleep(0.01)
    return found


def _connections() -> list[Connection]:
    return [item for item in gc.get_objects() if type(item) is Connection]


def _is_open_on(connection: Connection, path: str) -> bool:
    try:
        return not connection.closed and Path(connection.path).samefile(path)
    except (OSError, ValueError):
        return False


def _descriptors_of(path: str) -> int | None:
    """How many descriptors of this process are open on a file; None where that is hidden."""
    try:
        numbers = list(Path("/proc/self/fd").iterdir())
    except OSError:
        return None
    try:
        wanted = Path(path).stat()
    except (OSError, ValueError):
        return 0
    count = 0
    for number in numbers:
        with contextlib.suppress(OSError):
            status = number.stat()
            count += (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino)
    return count


def _sqlite_libraries() -> list[str]:
    """File names of the SQLite libraries mapped into this process, other than our core."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    mapped = {line.split(maxsplit=5)[5] for line in lines if line.count("/")}
    names = {"/".join(Path(item).parts[-2:]) for item in mapped if ".so" in item or ".dylib" in item}
    return sorted(name for name in names if "libsqlite3" in name or "apsw" in name or "pysqlite3" in name)


# --- the file, as SQLite sees it, on a connection that changes no setting ----------------------------


def _bare(path: str, deep: bool) -> Iterator[Finding]:
    had_wal = os.path.lexists(f"{path}-wal")
    with Connection(path, create=False) as connection:
        connection.set_busy_timeout(_BUSY_MS)
        connection.execute("PRAGMA query_only = ON")
        # Closing the last connection then also removes the empty -wal that reading has made.
        connection.checkpoint_on_close(not had_wal)
        kind = migrate.identify(connection)
        if kind is migrate.Kind.EMPTY:
            yield Finding("schema", "error", f"{path} holds no tables; fill it with `resonance init`")
            return
        yield from _guarded("schema", _schema(connection, kind))
        yield from _guarded("journal", _journal(connection, kind))
        yield from _guarded("integrity", _integrity(connection, deep))
        yield from _guarded("references", _references(connection))


def _schema(connection: Connection, kind: migrate.Kind) -> Iterator[Finding]:
    todo = migrate.pending(connection)
    if not todo:
        version = connection.execute("PRAGMA user_version")[0][0]
        if version != len(migrate.migrations()):
            raise SchemaTooNewError(
                f"the header says schema {version}, the record of migrations {len(migrate.migrations())}; "
                f"restore a backup, or rebuild with `resonance init`"
            )
        yield Finding(
            "schema", "ok", f"version {version}, each migration as this package has it ({kind.value})"
        )
        missing = sorted(migrate.made_by_migrations() - migrate.objects(connection))
        if missing:
            message = (
                f"somebody dropped {some(missing)}, without which answers may be slow, or old; restore a "
                f"backup, or rebuild with `resonance init`"
            )
            yield Finding("objects", "warning", message)
        return
    yield Finding(
        "schema",
        "warning",
        f"{kind.value}; {counted(len(todo), 'migration')} to be done ({some([m.name for m in todo])}). "
        f"`resonance migrate` does them, after a backup; then what is stored can be examined",
    )


def _journal(connection: Connection, kind: migrate.Kind) -> Iterator[Finding]:
    mode = connection.execute("PRAGMA journal_mode")[0][0]
    page_size = connection.execute("PRAGMA page_size")[0][0]
    if mode == "wal":
        yield Finding("journal", "ok", f"WAL, pages of {page_size} bytes")
    elif kind is migrate.Kind.RESONANCE:
        yield Finding(
            "journal",
            "warning",
            f"journal mode {mode}: something switched WAL off, and readers and writers block each other. "
            f"Resonance switches it on again when it opens the file next",
        )


def _integrity(connection: Connection, deep: bool) -> Iterator[Finding]:
    pragma = "integrity_check" if deep else "quick_check"
    verdict = [str(row[0]) for row in connection.execute(f"PRAGMA {pragma}(20)")]
    if verdict == ["ok"]:
        yield Finding("integrity", "ok", f"{pragma} found nothing wrong")
    else:
        yield Finding(
            "integrity",
            "error",
            f"the file is damaged: {'; '.join(verdict)[:400]}. Restore a backup, or move the file, its "
            f"-wal and its -shm away together and run `resonance init`",
        )


def _references(connection: Connection) -> Iterator[Finding]:
    broken = connection.execute("PRAGMA foreign_key_check")
    if broken:
        tables = sorted({f"{table} -> {parent}" for table, _, parent, _ in broken})
        yield Finding(
            "references",
            "error",
            f"{counted(len(broken), 'row')} pointing to rows that do not exist ({some(tables)}); "
            f"rebuild with `resonance init`",
        )
    else:
        yield Finding("references", "ok", "every reference leads to a row")


# --- the file, opened as Resonance opens it -----------------------------------------------------------


def _settings(path: str) -> Iterator[Finding]:
    """Opening verifies each setting; this names them."""
    with DatabaseFactory.connect(path, create=False) as connection:
        told = [f"{pragma.name} {pragma.value}" for pragma in factory.PRAGMAS]
        mode = connection.execute("PRAGMA journal_mode")[0][0]
    yield Finding("settings", "ok", f"journal_mode {mode}, {', '.join(told)}: each read back")


def _probe(path: str) -> Iterator[Finding]:
    """Write a node and an edge, read them back, roll back, and see that nothing has changed."""
    gate = WriteGate(path)
    try:
        gate.acquire(PATIENCE)
        with (
            DatabaseFactory.connect(path, readonly=True) as witness,
            DatabaseFactory.connect(path, create=False) as writer,
        ):
            yield from _written_and_undone(writer, witness)
    except BusyError:
        holder = gate.holder()
        who = f"process {holder}" if holder else "another connection"
        yield Finding(
            "probe", "warning", f"not made: {who} kept the write lock for {PATIENCE:.0f} s; try again later"
        )
    finally:
        gate.close()


def _written_and_undone(writer: Connection, witness: Connection) -> Iterator[Finding]:
    before = _version_and_counts(witness)
    probe = f"resonance-health-probe-{secrets.token_hex(8)}"
    writer.execute("BEGIN IMMEDIATE")
    try:
        writer.execute("INSERT INTO nodes (id, type, title) VALUES (?, 'probe', 'probe')", (probe,))
        writer.execute("INSERT INTO edges (source, target, type) VALUES (?1, ?1, 'PROBE')", (probe,))
        read_back = writer.execute(
            "SELECT nodes.title, edges.target FROM nodes JOIN edges ON edges.source = nodes.id "
            "WHERE nodes.id = ?",
            (probe,),
        )
        seen_outside = witness.execute("SELECT count(*) FROM nodes WHERE id = ?", (probe,))[0][0]
        enforced = _refuses_dangling_edge(writer, probe)
    finally:
        if writer.in_transaction:
            writer.execute("ROLLBACK")
    after = _version_and_counts(witness)
    left = writer.execute("SELECT count(*) FROM nodes WHERE id = ?", (probe,))[0][0]
    if read_back != [("probe", probe)]:
        yield Finding("probe", "error", f"a node and an edge were written, but read back as {read_back}")
    if not enforced:
        yield Finding("probe", "error", "an edge to a node that does not exist was taken")
    if seen_outside or left:
        yield Finding("probe", "error", f"rows of a transaction that was rolled back are there: {probe}")
    elif before[0] == after[0] and before[1] != after[1]:
        yield Finding("probe", "error", f"rolling back changed the file: {before[1]} became {after[1]}")
    elif read_back and enforced:
        yield Finding("probe", "ok", "wrote a node and an edge, read them back, rolled back: no trace")


def _refuses_dangling_edge(writer: Connection, probe: str) -> bool:
    try:
        writer.execute("INSERT INTO edges (source, target, type) VALUES (?1, ?1 || '-', 'PROBE')", (probe,))
    except ForeignKeyError:
        return True
    return False


def _version_and_counts(connection: Connection) -> tuple[int, dict[str, Any]]:
    """``data_version`` moves when anybody commits: counts of two versions need not agree."""
    version = connection.execute("PRAGMA data_version")[0][0]
    counts = {table: connection.execute(f"SELECT count(*) FROM {table}")[0][0] for table in _PROBED}
    return version, counts


# --- words ----------------------------------------------------------------------------------------


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
