"""Who may touch the file when: one writer at a time, any number of readers, no waiting inside SQLite.

Writers of one process queue on a lock, writers of all processes on the gate; only then is
``BEGIN IMMEDIATE`` asked for, which so finds nobody in its way. Readers are connections of their own,
lent to a thread for one question or for the length of a snapshot.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from resonance._core import Connection
from resonance.disk import EarlySync, SameFile
from resonance.errors import (
    BusyError,
    CheckpointWarning,
    ClosedError,
    ForkedConnectionError,
    LockTimeoutError,
    ReadOnlyError,
    SQLError,
    StorageError,
    TransactionError,
    UsageError,
)
from resonance.factory import (
    BUSY_TIMEOUT_MS,
    PAGE_SIZE,
    connect_migrated,
    connect_scratch,
    engine_number,
    enter_wal,
    one_pass,
)
from resonance.lock import WriteGate
from resonance.model import Checkpoint
from resonance.readers import Readers
from resonance.turns import Turns
from resonance.watch import State, Version

CHECKPOINT_FRAMES = 2000
"""The WAL is written back after the commit that makes it longer than this many pages."""

# On engines with the WAL-reset bug nobody may commit while a checkpoint runs.
_CHECKPOINT_UNDER_LOCK = engine_number() < 3_051_003


class Session:
    """The connections of one :class:`ResonanceDB`.

    Attributes:
        migration_backup: path of the backup that opening the file made, or None.
        lasts: whether the file of a scratch database is synced at the end.
        waits, holds: seconds that the last write transactions waited for and kept the write lock.
    """

    def __init__(
        self,
        path: str,
        *,
        create: bool,
        readonly: bool,
        scratch: bool = False,
        page_size: int = PAGE_SIZE,
    ) -> None:
        memory = path == ":memory:"
        # Then one connection does everything: a second one could not see the same.
        self.is_alone = memory or scratch
        # Readers are opened later, when the process may be in another folder.
        self.path = path if memory else str(Path(path).absolute())
        self.readonly = readonly
        self.waits: deque[float] = deque(maxlen=1024)
        self.holds: deque[float] = deque(maxlen=1024)
        self.writes = 0
        self._pid = os.getpid()
        self._gate = WriteGate(self.path)
        self._spoiled_by: BaseException | None = None
        self._began = 0.0
        self._local = threading.local()
        self._closed = False
        self._outside_wal = False
        self._telling = False
        self.lasts = True
        self.migration_backup: str | None = None
        self._disk: EarlySync | None = None
        if scratch:
            self._writer = connect_scratch(self.path, page_size)
            try:
                self._disk = EarlySync(self.path)
            except BaseException:
                self._writer.close()
                raise
        else:
            self._writer, self.migration_backup = connect_migrated(
                self.path, self._gate, readonly=readonly, create=create, page_size=page_size
            )
        self._file = None if self.is_alone else SameFile(self.path)
        self._readers = Readers(self.path, self._file)
        self._turns = Turns(self.path, None if self.is_alone else self._gate)

    def __reduce__(self) -> NoReturn:
        raise UsageError(
            f"{self.path}: an open database can be neither copied nor pickled; hand on its path, and open it "
            f"there once more"
        )

    def write_back_early(self) -> None:
        """Have the disk begin with what a scratch database holds so far; costs the caller nothing."""
        if self._disk is not None and self.lasts:
            self._disk.begin()

    @property
    def writer(self) -> Connection:
        """The connection that writes; only the thread inside a transaction should use it."""
        self._guard()
        return self._writer

    @property
    def in_transaction(self) -> bool:
        """True when this thread has a write transaction open."""
        return self._turns.owner is threading.current_thread()

    @property
    def pinned(self) -> bool:
        """True when this thread reads inside a snapshot."""
        return getattr(self._local, "snapshot", None) is not None

    @property
    def writes_here(self) -> int:
        """How many of ``writes`` this thread has committed."""
        return getattr(self._local, "writes", 0)

    # --- writing --------------------------------------------------------------------------------

    def tell(self, progress: Callable[[int, int], object] | None, done: int, total: int) -> None:
        """Call ``progress`` in the middle of a transaction, in which it may not take part."""
        self._telling = True
        try:
            if progress is not None:
                progress(done, total)
        finally:
            self._telling = False

    def _require_no_telling(self) -> None:
        if self._telling and self.in_transaction:
            raise TransactionError("called by the `progress` of a load: it may look, but not write")

    def begin(self, patience: float | None = None) -> Connection:
        """Start a write transaction; waits for other writers, ``patience`` seconds or a minute.

        Raises:
            TransactionError: this thread has one open already.
            LockTimeoutError: other writers kept the lock all that time.
        """
        self._require_writable()
        started = time.monotonic()
        self._take_turn(patience)
        try:
            self._begin("BEGIN IMMEDIATE", started)
        except BaseException:
            self._turns.end()
            raise
        return self._writer

    def commit(self) -> None:
        """Make the transaction permanent; if that fails it is rolled back.

        Raises:
            TransactionError: none is open in this thread, or an error has rolled it back already.
        """
        self._require_transaction("commit")
        try:
            self._commit()
            due = self._writer.wal_frames > CHECKPOINT_FRAMES and not self.is_alone
            if due and _CHECKPOINT_UNDER_LOCK:
                with self._after_commit():
                    self._checkpoint()
        finally:
            self._turns.end()
        if due and not _CHECKPOINT_UNDER_LOCK:
            with self._after_commit(), self._readers.lent() as connection:
                connection.checkpoint()

    def rollback(self) -> None:
        """Undo everything since ``begin``."""
        self._require_transaction("rollback")
        try:
            self._rollback()
        finally:
            self._turns.end()

    def _begin(self, sql: str, started: float) -> None:
        if self._outside_wal and sql == "BEGIN IMMEDIATE":
            self._return_to_wal()
        try:
            self._writer.execute(sql)
        except BusyError as error:
            raise LockTimeoutError(self.path, time.monotonic() - started, None) from error
        self._began = time.monotonic()
        self.waits.append(self._began - started)
        self._turns.owner = threading.current_thread()

    @contextlib.contextmanager
    def _after_commit(self) -> Iterator[None]:
        """What fails in here is no reason to think that the commit did."""
        try:
            yield
        except StorageError as error:
            warnings.warn(
                f"{self.path}: committed, but not yet written back into the file: {error}",
                CheckpointWarning,
                stacklevel=5,
            )

    def _commit(self) -> None:
        if (error := self._spoiled_by) is not None:
            self._rollback()
            raise TransactionError(
                f"nothing was committed: the transaction was rolled back when this went wrong in it: {error}"
            ) from error
        try:
            self._writer.execute("COMMIT")
        except BaseException:
            self._rollback()
            raise
        self.writes += 1
        self._local.writes = self.writes_here + 1
        self.holds.append(time.monotonic() - self._began)
        self._turns.owner = None

    def _rollback(self) -> None:
        self._turns.owner = self._spoiled_by = None
        # SQLite has rolled back by itself after a full disk or an I/O error.
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    @contextlib.contextmanager
    def transaction(self, patience: float | None = None) -> Iterator[Connection]:
        """``begin``, then ``commit``, or ``rollback`` if the block raises."""
        writer = self.begin(patience)
        try:
            yield writer
        except BaseException:
            if self.in_transaction:
                self.rollback()
            raise
        if self.in_transaction:
            self.commit()

    def version(self) -> Version:
        """Another value after every commit, of this process or another. Waits for the one under way."""
        writer = self.begin()
        try:
            return self.version_of(writer)
        finally:
            self.rollback()

    def version_of(self, writer: Connection) -> Version:
        """The same, while this thread keeps everybody else from writing."""
        # SQLite counts what other connections have committed; this one's are counted here.
        return Version(int(writer.execute("PRAGMA data_version")[0][0]), self.writes)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """The transaction that is open in this thread, or one of its own.

        When something fails half-way, the whole transaction is rolled back: without savepoints, which
        lose commits on older engines, there is no way to undo only a part. It can then not be written
        to any more, and its commit raises.
        """
        if not self.in_transaction:
            with self.transaction() as writer:
                yield writer
            return
        self._require_no_telling()
        if (error := self._spoiled_by) is not None:
            raise TransactionError(
                f"the transaction was rolled back when this went wrong in it: {error}; leave it first"
            ) from error
        before = self._writer.total_changes
        try:
            yield self._writer
        except BaseException as failure:
            if self.in_transaction:
                self._spoil_unless_unchanged(before, failure)
            raise

    def _spoil_unless_unchanged(self, before: int, failure: BaseException) -> None:
        writer = self._writer
        # SQLite has rolled back by itself after a full disk or an I/O error.
        if writer.in_transaction and writer.total_changes == before:
            return
        self._spoiled_by = failure
        if writer.in_transaction:
            writer.execute("ROLLBACK")
        # What the caller still does with the connection itself goes the same way.
        writer.execute("BEGIN")

    @contextlib.contextmanager
    def loading(self, *, alone: bool, keys_checked: bool, sorts: bool = False) -> Iterator[Connection]:
        """A transaction for one large load, or the one that is open in this thread.

        Args:
            alone: if nobody else has the file open, leave WAL for its duration: every page is then
                written once, and synced when it commits. Whoever opens the file meanwhile waits.
            keys_checked: the caller has checked all foreign keys itself.
            sorts: more rows may be sorted than memory should hold: have SQLite use a file without a name.
        """
        if self.in_transaction:
            with self.writing() as writer:
                yield writer
            return
        started = time.monotonic()
        with self.exclusively() as writer:
            left_wal = alone and self._leave_wal()
            # The setting takes temporary tables away, which somebody may have made on get_raw_db().
            sorts = sorts and not writer.execute("SELECT 1 FROM temp.sqlite_schema LIMIT 1")
            try:
                if keys_checked:
                    writer.execute("PRAGMA foreign_keys = OFF")
                if sorts:
                    writer.execute("PRAGMA temp_store = FILE")
                self._begin("BEGIN EXCLUSIVE" if left_wal else "BEGIN IMMEDIATE", started)
                try:
                    yield writer
                except BaseException:
                    if self.in_transaction:
                        self._rollback()
                    raise
                if self.in_transaction:
                    self._commit()
            finally:
                writer.execute("PRAGMA foreign_keys = ON")
                if sorts:
                    writer.execute("PRAGMA temp_store = MEMORY")
                if left_wal:
                    with self._after_commit():
                        self._return_to_wal()
            if writer.wal_frames > CHECKPOINT_FRAMES and not left_wal:
                with self._after_commit():
                    self._checkpoint()

    def _leave_wal(self) -> bool:
        """Switch to a rollback journal; False when somebody has the file open, or reads on this one."""
        if self.is_alone:
            return False
        self._readers.let_go()
        self._writer.set_busy_timeout(0)
        try:
            mode = self._writer.execute("PRAGMA journal_mode = TRUNCATE")[0][0]
        except (BusyError, SQLError):
            return False
        finally:
            self._writer.set_busy_timeout(BUSY_TIMEOUT_MS)
        self._writer.execute("PRAGMA synchronous = FULL")
        self._outside_wal = bool(mode == "truncate")
        return self._outside_wal

    def _return_to_wal(self) -> None:
        # What was loaded is committed, so this may not fail it: a reader that keeps the file out of WAL
        # is waited for at the next chance.
        with contextlib.suppress(BusyError):
            # Takes the empty journal away, which WAL would leave behind.
            self._writer.execute("PRAGMA journal_mode = DELETE")
            enter_wal(self._writer)
            self._writer.execute("PRAGMA synchronous = NORMAL")
            self._outside_wal = False

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[Connection]:
        """The writer, with everybody else's writing kept out but no transaction open."""
        self._require_writable()
        self._take_turn()
        try:
            yield self._writer
        finally:
            self._turns.end()

    def checkpoint(self, *, truncate: bool) -> Checkpoint:
        """Write the WAL back into the file; it is synced to disk when this returns."""
        with self.exclusively():
            result = self._checkpoint()
            if truncate and not result.busy and result.log == result.checkpointed:
                self._writer.checkpoint(truncate=True)
            return result

    def _checkpoint(self) -> Checkpoint:
        """With the turn taken, and with the write lock: see WAL-reset bug, sqlite.org/wal.html."""
        if self.is_alone:
            return Checkpoint(False, 0, 0)
        with self._readers.lent() as other:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                return Checkpoint(*other.checkpoint())
            finally:
                self._writer.execute("ROLLBACK")

    def replace_with(
        self,
        source: Connection,
        before: Callable[[Connection], None],
        agree: Callable[[], object] | None = None,
    ) -> None:
        """Copy ``source`` over this database in one step; see ``ResonanceDB.replace_with``."""
        with self.exclusively() as writer:
            before(writer)
            # With nobody else there each page is written once, as in a large load.
            left_wal = self._leave_wal()
            try:
                with one_pass(writer):
                    source.backup_to(writer, agree)
            finally:
                if left_wal:
                    with self._after_commit():
                        self._return_to_wal()
        if not left_wal:
            with self._after_commit():
                self.checkpoint(truncate=True)

    def _take_turn(self, patience: float | None = None) -> None:
        self._turns.take(patience, require=self._require_file, abandon=self._rollback)

    def _require_file(self) -> None:
        self._guard()
        if self._file is not None:
            self._file.require()

    def _require_writable(self) -> None:
        self._guard()
        if self.readonly:
            raise ReadOnlyError(
                f"{self.path}: opened with readonly=True; open it again for writing",
                code=8,
                name="SQLITE_READONLY",
                path=self.path,
                operation="begin",
                data="unchanged",
            )
        if self.in_transaction:
            raise TransactionError("a transaction is open already in this thread; transactions do not nest")

    def _require_transaction(self, operation: str) -> None:
        self._guard()
        self._require_no_telling()
        if not self.in_transaction:
            raise TransactionError(f"{operation}: no transaction is open in this thread")

    # --- reading --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read with: inside this thread's transaction or snapshot, else a fresh view."""
        self._guard()
        if self.in_transaction:
            yield self._writer
        elif (pinned := getattr(self._local, "snapshot", None)) is not None:
            yield pinned
        elif self.is_alone:
            with self._turns.among_threads(self._rollback):
                yield self._writer
        else:
            with self._readers.lent() as connection:
                yield connection

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Everything this thread reads inside sees the database as it is now."""
        self._guard()
        if self.in_transaction or self.is_alone or getattr(self._local, "snapshot", None) is not None:
            with self.reading() as connection:
                yield connection
            return
        with self._readers.pinned() as connection:
            self._local.snapshot = connection
            try:
                yield connection
            finally:
                self._local.snapshot = None

    @contextlib.contextmanager
    def snapshots(self, count: int) -> Iterator[list[Connection]]:
        """Up to ``count`` connections that all see the same moment; at least one."""
        self._guard()
        if count < 2 or self.is_alone or self.in_transaction or getattr(self._local, "snapshot", None):
            with self.snapshot() as connection:
                yield [connection]
            return
        with self._readers.pinned_together(count) as connections:
            yield connections

    def state(self) -> State | None:
        """Equal for two calls between which nobody, here or elsewhere, has committed; None if unknown."""
        self._guard()
        return None if self.is_alone else self._readers.state()

    @contextlib.contextmanager
    def beside(self, connection: Connection, count: int, state: State | None) -> Iterator[list[Connection]]:
        """``connection``, and up to ``count - 1`` others that see the same.

        Args:
            state: of the database when its snapshot was taken; None if that is not known.
        """
        if count < 2 or state is None or self.state() != state:
            yield [connection]
            return
        with contextlib.ExitStack() as stack:
            others = [stack.enter_context(self._readers.pinned()) for _ in range(count - 1)]
            yield [connection, *others] if self.state() == state else [connection]

    # --- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        """Roll back what this thread left open, tidy up, close; a second call does nothing.

        Waits for a transaction of another thread. A question still running in another thread finishes
        on its own connection, which closes after it.
        """
        if self._closed:
            return
        if self._pid != os.getpid():
            self._closed = True
            return
        if self.in_transaction:
            self.rollback()
        with self._turns.among_threads(self._rollback):
            self._closed = True
            self._readers.close()
            try:
                if not self.readonly and not self.is_alone:
                    self._optimize()
            finally:
                self._writer.close()
                self._gate.close()
            if self._disk is not None:
                self._disk.close(synced=self.lasts)

    def _optimize(self) -> None:
        # Statistics for the query planner: where they cannot be had now, the next close gathers them.
        with contextlib.suppress(StorageError):
            self._gate.acquire(0.05)
            try:
                self._writer.set_busy_timeout(50)
                self._writer.execute("PRAGMA optimize")
            finally:
                self._gate.release()

    def _guard(self) -> None:
        if self._closed:
            raise ClosedError(f"the database {self.path} is closed")
        if self._pid != os.getpid():
            raise ForkedConnectionError(
                f"{self.path} was opened in process {self._pid} and is used in process {os.getpid()}; "
                f"open a ResonanceDB of its own after the fork"
            )
