"""Every exception Resonance raises, in one family.

Catch :class:`ResonanceError` to catch them all.  A message names the thing that is wrong (path, row,
column, id) and says what to do about it; the same facts are attributes, for programs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

DataState = Literal["unchanged", "committed", "unknown"]

ROWS_NAMED = 20
"""How many offending rows a message names before it only counts the rest."""


class ResonanceError(Exception):
    """Base of every error raised by this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The usual way calls the class with its message, which is not what most of these take.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[ResonanceError], args: tuple[Any, ...], facts: dict[str, Any]) -> ResonanceError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error


# --- storage: what SQLite or the file system said ------------------------------------------------


class StorageError(ResonanceError):
    """SQLite refused or failed.

    Attributes:
        code: SQLite's primary result code, e.g. 5.
        extended_code: SQLite's extended result code, e.g. 517.
        name: its symbolic name, e.g. ``"SQLITE_BUSY_SNAPSHOT"``.
        path: the database file, or ``":memory:"``.
        operation: what was being done, e.g. ``"step"``.
        sql: the statement, where there is one.
        offset: byte offset of the offending token in ``sql``, or -1.
        data: what became of the data: ``"unchanged"``, ``"committed"`` or ``"unknown"``.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int = 1,
        extended_code: int | None = None,
        name: str = "SQLITE_ERROR",
        path: str = "",
        operation: str = "",
        sql: str | None = None,
        offset: int = -1,
        data: DataState = "unknown",
    ) -> None:
        self.code = code
        self.extended_code = code if extended_code is None else extended_code
        self.name = name
        self.path = path
        self.operation = operation
        self.sql = sql
        self.offset = offset
        self.data = data
        super().__init__(message)


class SQLError(StorageError):
    """A statement that SQLite cannot run: wrong syntax, a missing table, a wrong argument."""


class BusyError(StorageError):
    """Another connection holds the lock that is needed; try again."""


class LockTimeoutError(BusyError):
    """The write lock did not come in time; the transaction was not begun.

    ``waited`` is in seconds; ``holder`` is the pid of the process that holds the lock, when known.
    """

    def __init__(self, path: str, waited: float, holder: int | None) -> None:
        self.waited = waited
        self.holder = holder
        who = f"process {holder}" if holder else "another connection"
        super().__init__(
            f"{path}: waited {waited:.1f} s for the write lock, which {who} holds; nothing was "
            f"written. Try again, or end that process",
            code=5,
            name="SQLITE_BUSY",
            path=path,
            operation="begin",
            data="unchanged",
        )


class ConstraintError(StorageError):
    """A row breaks a rule of the schema (unique, not null, check)."""


class ForeignKeyError(ConstraintError):
    """A row points to a node that does not exist, or a node is deleted that others point to."""


class CorruptDatabaseError(StorageError):
    """The file is damaged. Nothing was repaired in place: restore a backup or run ``resonance init``."""


class NotADatabaseError(StorageError):
    """The file is not an SQLite database, or not one of ours."""


class ReadOnlyError(StorageError):
    """A write was asked of a reader, or the file cannot be written."""


class CannotOpenError(StorageError):
    """The file cannot be opened or created."""


class MovedDatabaseError(StorageError):
    """The file has been deleted, moved or replaced since it was opened; what is written there is lost."""


class DiskFullError(StorageError):
    """There is no room left; free some and repeat the call."""


class StorageIOError(StorageError):
    """The operating system failed to read or write."""


class InterruptedStorageError(StorageError):
    """The call was interrupted on purpose; its transaction was rolled back."""


class TooBigError(StorageError):
    """A value is longer than SQLite can hold."""


class StorageMemoryError(StorageError, MemoryError):
    """SQLite could not get memory."""


class UnsupportedFilesystemError(StorageError):
    """The file lies where WAL cannot work (a network share, for one). Move it to a local disk."""


class UnsupportedSQLiteError(ResonanceError):
    """The SQLite engine in use is older than the oldest one this package can be safe on."""


class UnsafeSQLiteWarning(UserWarning):
    """The SQLite engine in use has known bugs; the workarounds are on. Build with the bundled one."""


class CheckpointWarning(UserWarning):
    """The commit is done and safe, but its WAL could not be written back; the next commit tries again."""


# --- use: the call came at the wrong time --------------------------------------------------------


class UsageError(ResonanceError):
    """An object was used in a way it does not allow."""


class ClosedError(UsageError):
    """The connection, statement, view or database is closed."""


class ConcurrentUseError(UsageError):
    """Another thread is inside the same connection."""


class ReentrancyError(UsageError):
    """A callback used the connection that is calling it."""


class ForkedConnectionError(UsageError):
    """The connection was opened before a fork; open a new one in the child."""


class TransactionError(UsageError):
    """A transaction inside a transaction, or a commit without one."""


# --- input: what was handed over is wrong --------------------------------------------------------


class InputError(ResonanceError, ValueError):
    """Something handed over cannot be stored. Nothing was written."""


class ColumnError(InputError):
    """A column has the wrong name, length or type.

    ``column`` is its name, ``row`` the first offending row (0-based), or None for the whole column.
    """

    def __init__(self, message: str, *, column: str | None = None, row: int | None = None) -> None:
        self.column = column
        self.row = row
        super().__init__(message)


class InvalidIdError(ColumnError):
    """An id is empty, missing, not text, or holds a NUL or a lone surrogate."""


class EmbeddingError(ColumnError):
    """A vector is not finite, or has the wrong type, shape or width.

    ``row`` is the first offending row; ``got`` and ``want`` describe what was found and expected.
    """

    def __init__(
        self,
        message: str,
        *,
        row: int | None = None,
        got: object = None,
        want: object = None,
        column: str | None = "embedding",
    ) -> None:
        self.got = got
        self.want = want
        super().__init__(message, column=column, row=row)


class RowsError(InputError):
    """Several rows are wrong. ``rows`` holds the first of them, ``count`` says how many there are."""

    def __init__(self, what: str, rows: Sequence[tuple[int, str]], count: int, advice: str) -> None:
        self.rows = list(rows)
        self.count = count
        named = ", ".join(f"row {row}: {text}" for row, text in self.rows)
        rest = f" and {count - len(self.rows)} more" if count > len(self.rows) else ""
        super().__init__(f"{count} {what} ({named}{rest}); nothing was written. {advice}")


class DuplicateNodeError(RowsError):
    """The same id occurs more than once in one batch."""


class DanglingEdgeError(RowsError):
    """Edges point to nodes that do not exist."""


class UnknownNodesError(RowsError):
    """Rows were given for nodes that do not exist."""


class UnknownNodeError(ResonanceError, KeyError):
    """No node has this id."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        super().__init__(f"no node has the id {node_id!r}")

    def __str__(self) -> str:
        return str(self.args[0])


class TextSearchError(ResonanceError):
    """There is no full-text search here: the engine cannot, or nothing has been indexed yet."""


class SpaceError(InputError):
    """Vectors of two embedding spaces were about to be mixed or compared."""


# --- schema ---------------------------------------------------------------------------------------


class SchemaError(ResonanceError):
    """The schema of the file is not one this version can work with."""


class SchemaTooNewError(SchemaError):
    """A newer version of Resonance wrote this file; upgrade, or move it away and run ``resonance init``."""


class MigrationError(SchemaError):
    """A migration failed or has changed since it was applied; the file is as it was before."""


class CorruptRowError(ResonanceError):
    """A stored row holds something that cannot be right. ``node_id`` names it, where known."""

    def __init__(self, message: str, node_id: str | None = None) -> None:
        self.node_id = node_id
        super().__init__(message)


# --- vault: files and their content ---------------------------------------------------------------


class BackendError(ResonanceError):
    """Another engine that was to answer a search failed, or answered with what is no row number."""


class VaultError(ResonanceError):
    """The vault, its settings or its embedding model cannot be used as asked."""


class SettingsError(VaultError):
    """A settings file is unreadable or holds a value that makes no sense."""


class BrakeError(VaultError):
    """So much would be deleted that a human has to say yes first. Nothing was changed."""

    def __init__(self, message: str, paths: Iterable[str] = ()) -> None:
        self.paths = list(paths)
        super().__init__(message)


class WatchError(VaultError):
    """The system cannot watch the folder. Nothing was changed."""


class EmbedderError(VaultError):
    """The embedding model is missing, or returned something other than (n, d) finite floats."""


class ContentError(VaultError):
    """One file cannot be read or understood. ``path`` is root-relative, ``line`` 1-based or None."""

    def __init__(self, path: str, reason: str, line: int | None = None) -> None:
        self.path = path
        self.line = line
        self.reason = reason
        where = f"{path}:{line}" if line else path
        super().__init__(f"{where}: {reason}")


class FrontmatterError(ContentError):
    """The YAML block at the head of a file is malformed or exceeds a limit."""


class PathEscapeError(ContentError):
    """A path leads out of the vault's root."""


class ContentMissingError(ContentError):
    """The file a node stands for is not there any more."""


class StaleContentError(ContentError):
    """The file has changed since it was indexed."""


# --- care ------------------------------------------------------------------------------------------


class BackupError(ResonanceError):
    """A backup could not be made, or did not pass its own check."""


class ExportError(ResonanceError):
    """An export could not be written; nothing was overwritten, and nothing is left half done."""


class RegenerateError(ResonanceError):
    """The database that was built anew did not pass its check; the one in use is as it was."""
