"""The one place where connections are opened: hardened, and each setting read back."""

from __future__ import annotations

import contextlib
import os
import random
import stat
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from resonance import migrate
from resonance._core import Connection, engine
from resonance.errors import (
    BusyError,
    CannotOpenError,
    InputError,
    NotADatabaseError,
    ResonanceError,
    UnsafeSQLiteWarning,
    UnsupportedFilesystemError,
    UnsupportedSQLiteError,
)
from resonance.lock import WriteGate
from resonance.model import Finding, HealthReport

BUSY_TIMEOUT_MS = 5000
LOCK_TIMEOUT = 60.0
"""Seconds a writer waits at the gate. Long, because the gate is fair enough to be worth waiting at."""

PAGE_SIZE = 16384
"""Bytes in a page of a new file, unless its vectors are known to be wide."""

WAL_RETRY_SECONDS = 10.0

OLDEST_SQLITE = 3_037_002
SAFE_SQLITE = 3_053_002

NETWORK_FILESYSTEMS = frozenset(
    {"afs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs"}
    | {"nfs", "nfs4", "smb3", "smbfs"}
)
"""Where WAL cannot work: its shared memory does not reach the other machines."""


class Pragma(NamedTuple):
    """A setting, the value it must read back as, and the reason for it."""

    name: str
    value: str | int
    reads_back: str | int
    why: str


# The order matters: nothing may run before the busy time-out, and WAL before what depends on it.
_BEFORE_WAL = (
    Pragma("busy_timeout", BUSY_TIMEOUT_MS, BUSY_TIMEOUT_MS, "wait for other writers, do not fail"),
)
_AFTER_WAL = (
    Pragma("synchronous", "NORMAL", 1, "in WAL mode a crash of the program loses nothing"),
    Pragma("mmap_size", 0, 0, "an I/O error on a map is a SIGBUS, not an error code"),
    Pragma("temp_store", "MEMORY", 2, "sorting needs no files, and leaves none behind"),
    Pragma("foreign_keys", "ON", 1, "edges point to nodes that exist; off by default in SQLite"),
    Pragma("wal_autocheckpoint", 0, 0, "we checkpoint ourselves, under the gate: see session.py"),
    Pragma("journal_size_limit", 64 << 20, 64 << 20, "a WAL that grew once is cut down again"),
    Pragma("cache_size", -64 << 10, -64 << 10, "64 MiB of pages; the default of 2 MiB is too few"),
)
PRAGMAS = _BEFORE_WAL + _AFTER_WAL
"""Every setting a connection has, besides WAL itself."""

_SMALL_CACHE_KIB = 4 << 10
"""Of pages that the processor's caches hold, too; what is not among them the system has."""

# For a file that nobody else sees before it is complete.
_SCRATCH = (
    Pragma("journal_mode", "MEMORY", "memory", "a crash loses the file anyway; rolling back still works"),
    Pragma("synchronous", "OFF", 0, "it is synced once, when it is closed"),
    Pragma("locking_mode", "EXCLUSIVE", "exclusive", "there is nobody to lock out"),
    Pragma("mmap_size", 0, 0, "an I/O error on a map is a SIGBUS, not an error code"),
    Pragma("temp_store", "MEMORY", 2, "sorting needs no files, and leaves none behind"),
    Pragma("foreign_keys", "ON", 1, "edges point to nodes that exist; off by default in SQLite"),
    Pragma("cache_size", -_SMALL_CACHE_KIB, -_SMALL_CACHE_KIB, "rows come in key order: see `one_pass`"),
)
_READER = Pragma("query_only", "ON", 1, "readers open read-write, as WAL needs, and are held to reading")


class _EmptyFileError(NotADatabaseError):
    """There is nothing in it; somebody may be just about to make a database of it."""


class DatabaseFactory:
    """Opens connections. Every other way of opening the file is a bug."""

    @staticmethod
    def connect(
        path: str | os.PathLike[str],
        *,
        readonly: bool = False,
        create: bool = True,
        page_size: int = PAGE_SIZE,
    ) -> Connection:
        """A hardened connection to ``path``; the schema is not touched.

        Args:
            readonly: hold it to reading. The file and its folder must be writable all the same: readers
                of a WAL database update its ``-shm``.
            create: make the file if it is missing.
            page_size: bytes, for a file that is made now; a power of two from 512 to 65,536.

        Raises:
            CannotOpenError: missing, a folder, a device, or not to be had.
            NotADatabaseError: not SQLite, or another program's; it was not written to.
            SchemaTooNewError: a later version of Resonance wrote it.
            UnsupportedFilesystemError: WAL does not take there.
            UnsupportedSQLiteError: the engine is older than 3.37.2.
        """
        check_engine()
        _check_page_size(page_size)
        name = os.fspath(path)
        memory = name == ":memory:"
        if not memory:
            _require_regular_file(name, create and not readonly)
            _require_local_filesystem(name)
        wal_there = os.path.lexists(f"{name}-wal")
        connection = Connection(name, create=create and not readonly)
        try:
            for pragma in _BEFORE_WAL:
                _set(connection, pragma)
            kind = migrate.identify(connection)
            if kind is migrate.Kind.EMPTY and (readonly or not create):
                raise _EmptyFileError(
                    f"{name}: is empty, not a database; `resonance init` makes one",
                    code=26,
                    name="SQLITE_NOTADB",
                    path=name,
                    operation="open",
                    data="unchanged",
                )
            if not memory:
                if kind is migrate.Kind.EMPTY:
                    connection.execute(f"PRAGMA page_size = {page_size}")
                enter_wal(connection)
                connection.checkpoint_on_close(True)
            for pragma in _AFTER_WAL:
                if not (memory and pragma.name in ("mmap_size", "journal_size_limit", "wal_autocheckpoint")):
                    _set(connection, pragma)
            if not memory:
                connection.watch_wal()
            if readonly:
                _set(connection, _READER)
        except BaseException:
            if not wal_there:
                # Closing then takes away the empty WAL that looking at the file has made.
                connection.checkpoint_on_close(True)
            connection.close()
            raise
        return connection

    @staticmethod
    def connect_to_resonance(path: str | os.PathLike[str], *, readonly: bool = False) -> Connection:
        """A hardened connection to a Resonance database whose schema is brought up to date first.

        A file made by Amalfa is adopted: backed up, then migrated.
        """
        name = os.fspath(path)
        gate = WriteGate(name)
        try:
            return connect_migrated(name, gate, readonly=readonly, create=not readonly)[0]
        finally:
            gate.close()

    @staticmethod
    def perform_health_check(path: str | os.PathLike[str], *, deep: bool = True) -> HealthReport:
        """Probe the file for real: write, read, roll back, and check what is stored.

        Args:
            deep: run ``integrity_check`` over the whole file; otherwise only ``quick_check``.
        """
        from resonance.care.health import check_health

        return check_health(os.fspath(path), deep=deep)


def page_size_for(dims: int) -> int:
    """The page size for vectors of ``dims`` dimensions: room for about sixteen of them.

    Measured at 256, 384 and 1,024 dimensions (benchmarks/crossover.py): larger pages read and write
    vectors faster and waste less, but every small write has to write a whole one.
    """
    size = PAGE_SIZE
    while size < 65536 and size < 16 * 4 * dims:
        size *= 2
    return size


def connect_scratch(path: str, page_size: int) -> Connection:
    """A new database that only this connection will see, as fast to fill as SQLite can be.

    Raises:
        CannotOpenError: the file exists, or cannot be made.
    """
    check_engine()
    _check_page_size(page_size)
    if os.path.lexists(path):
        raise _cannot_open(path, "it exists; scratch=True is for new files")
    _require_regular_file(path, create=True)
    connection = Connection(path)
    try:
        connection.execute(f"PRAGMA page_size = {page_size}")
        for pragma in _SCRATCH:
            _set(connection, pragma)
        migrate.apply(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: str) -> Connection:
    """A reader of a database that is in use. While a load has left WAL there is no reading, so this waits."""
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            reader = DatabaseFactory.connect(path, readonly=True)
            break
        except BusyError:
            if time.monotonic() > deadline:
                raise
    reader.execute(f"PRAGMA cache_size = -{_SMALL_CACHE_KIB}")
    return reader


def connect_to_scratch(path: str | os.PathLike[str]) -> Connection:
    """A scratch database that is complete, to copy from. In WAL it would have to be synced first."""
    connection = Connection(os.fspath(path), create=False)
    try:
        for pragma in _SCRATCH:
            # It would lock what is attached, too.
            if pragma.name != "locking_mode":
                _set(connection, pragma)
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def one_pass(connection: Connection) -> Iterator[None]:
    """For work that comes to each page once: it is faster where the processor's caches hold the pages."""
    before = connection.execute("PRAGMA cache_size")[0][0]
    connection.execute(f"PRAGMA cache_size = -{_SMALL_CACHE_KIB}")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA cache_size = {before}")


def connect_migrated(
    path: str,
    gate: WriteGate,
    *,
    readonly: bool = False,
    create: bool = True,
    page_size: int = PAGE_SIZE,
) -> tuple[Connection, str | None]:
    """A connection with the schema at head, and the path of the backup if one had to be made.

    First opening and migrating happen under the gate: SQLite does not wait when two connections
    switch a new file to WAL.
    """
    if path == ":memory:":
        connection = DatabaseFactory.connect(path, page_size=page_size)
        return connection, migrate.apply(connection)
    _require_regular_file(path, create)
    if Path(path).exists():
        try:
            connection = DatabaseFactory.connect(path, readonly=readonly, create=create, page_size=page_size)
            try:
                if not migrate.pending(connection):
                    return connection, None
            except BaseException:
                connection.close()
                raise
            connection.close()
        except BusyError:
            pass
        except _EmptyFileError:
            if not Path(gate.path).exists():
                raise
    else:
        _require_local_filesystem(path)
    with gate.held(LOCK_TIMEOUT):
        connection = DatabaseFactory.connect(path, create=create, page_size=page_size)
        try:
            backup = migrate.apply(connection)
            if readonly:
                _set(connection, _READER)
        except BaseException:
            connection.close()
            raise
    return connection, backup


def check_engine() -> None:
    """Refuse an engine that is too old, and warn once about one with known bugs."""
    global _warned
    version = engine_number()
    if version < OLDEST_SQLITE:
        raise UnsupportedSQLiteError(
            f"SQLite {engine()['version']} is older than 3.37.2, which Resonance needs; rebuild it with "
            f"the bundled engine"
        )
    if version < SAFE_SQLITE and not _warned:
        _warned = True
        warnings.warn(
            f"SQLite {engine()['version']} ({engine()['origin']}) has known bugs that can lose data; "
            f"Resonance works around those it knows of. Rebuild it with the bundled engine, 3.53.2 or later",
            UnsafeSQLiteWarning,
            stacklevel=3,
        )


_warned = False


def engine_number() -> int:
    """The version as SQLite counts it: 3.53.2 is 3053002."""
    major, minor, patch = (int(part) for part in str(engine()["version"]).split(".")[:3])
    return major * 1_000_000 + minor * 1_000 + patch


def _check_page_size(size: int) -> None:
    if not 512 <= size <= 65536 or size & (size - 1):
        raise InputError(f"page_size={size}; give a power of two from 512 to 65536")


def _set(connection: Connection, pragma: Pragma) -> None:
    connection.execute(f"PRAGMA {pragma.name} = {pragma.value}")
    found = connection.execute(f"PRAGMA {pragma.name}")
    if found != [(pragma.reads_back,)]:
        raise ResonanceError(
            f"{connection.path}: PRAGMA {pragma.name} = {pragma.value} did not take: it reads back as "
            f"{found}. It is needed to {pragma.why}"
        )


def enter_wal(connection: Connection) -> None:
    """Switch to WAL unless it is on. SQLite answers BUSY at once here, so the waiting is ours."""
    deadline = time.monotonic() + WAL_RETRY_SECONDS
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode")[0][0]
            if mode != "wal":
                mode = connection.execute("PRAGMA journal_mode = WAL")[0][0]
            break
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.001, 0.01))
    if mode != "wal":
        raise UnsupportedFilesystemError(
            f"{connection.path}: this file system does not take WAL mode (it stays in {mode!r}), without "
            f"which readers and writers block each other; put the database on a local disk",
            path=connection.path,
            operation="journal_mode",
            data="unchanged",
        )


def _require_regular_file(path: str, create: bool) -> None:
    """Only regular files are opened: opening a FIFO would hang, a device could do anything."""
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        if not create:
            raise _cannot_open(path, "it does not exist; `resonance init` makes it") from None
        if not Path(path).absolute().parent.is_dir():
            raise _cannot_open(path, "its folder does not exist; create it first") from None
        return
    except (OSError, ValueError) as error:
        raise _cannot_open(path, str(error)) from error
    if not stat.S_ISREG(mode):
        raise _cannot_open(path, "it is not a regular file; name a file")


def _cannot_open(path: str, why: str) -> CannotOpenError:
    return CannotOpenError(
        f"{path}: cannot be opened: {why}",
        code=14,
        name="SQLITE_CANTOPEN",
        path=path,
        operation="open",
        data="unchanged",
    )


def _require_local_filesystem(path: str) -> None:
    kind = filesystem_of(path)
    if kind in NETWORK_FILESYSTEMS:
        raise UnsupportedFilesystemError(
            f"{path}: lies on {kind}, a network file system, where WAL mode cannot work: its shared memory "
            f"does not reach other machines. Put the database on a local disk (--database)",
            path=path,
            operation="open",
            data="unchanged",
        )


def filesystem_of(path: str, mounts: str = "/proc/self/mounts") -> str | None:
    """The type of the file system that holds ``path``, or None where that cannot be known."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        lines = Path(mounts).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    where = Path(path).absolute().resolve()
    best, kind = -1, None
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
        if where.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind


__all__ = ["DatabaseFactory", "Finding", "Pragma", "connect_migrated", "filesystem_of"]
