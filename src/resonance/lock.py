"""The gate: one advisory lock per database, taken before every write.

SQLite's own waiting is unfair, and some steps (switching to WAL, migrating, checkpointing) do not wait
at all. So writers of all processes queue here first, on a file of its own beside the database:
closing a descriptor of the database itself would drop SQLite's POSIX locks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from typing import NoReturn

from resonance.errors import CannotOpenError, LockTimeoutError, UsageError

_POLL_SHORTEST = 0.0005
_POLL_LONGEST = 0.008

_QUEUES = sys.platform == "linux"
_QUEUE_OFFSET = 64


class WriteGate:
    """An exclusive, per-process-and-object lock on ``<database>.lock``. Not re-entrant.

    The file holds the pid of the last holder, so that a time-out can name it. It is never deleted:
    two processes could then hold two different files.
    """

    def __init__(self, database: str) -> None:
        self._fd = -1
        self._database = database
        with contextlib.suppress(ValueError):  # a NUL in the name: opening the database will say so
            # By its real name: whoever comes through a link must meet the others at the same gate.
            database = os.path.realpath(database)
        self.path = f"{database}.lock"
        _gates.add(self)

    def acquire(self, timeout: float) -> float:
        """Wait at most ``timeout`` seconds; returns the seconds waited.

        Raises:
            LockTimeoutError: somebody else kept it all that time.
        """
        if self._fd < 0:
            try:
                self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as error:
                raise CannotOpenError(
                    f"{self.path}: {os.strerror(error.errno or 0)}; the folder of a database must be "
                    f"writable, for readers too",
                    code=14,
                    name="SQLITE_CANTOPEN",
                    path=self._database,
                    operation="lock",
                    data="unchanged",
                ) from error
        started = time.monotonic()
        self._queue(started, timeout)
        try:
            self._wait(lambda: fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB), started, timeout)
        finally:
            self._leave_queue()
        try:
            with contextlib.suppress(OSError):  # a full disk, for one: who holds it is only good to know
                os.pwrite(self._fd, f"{os.getpid():<12}".encode(), 0)
        except BaseException:
            self.release()
            raise
        return time.monotonic() - started

    # One waiter at a time stands at the gate, the others queue behind it, and so does a holder who comes
    # back at once: without this it would win against those who sleep between two looks. The queue is a
    # record lock on the same file, and only about fairness: on systems where record locks and flock are
    # one and the same there is none.

    def _queue(self, started: float, timeout: float) -> None:
        if _QUEUES:
            lock = fcntl.LOCK_EX | fcntl.LOCK_NB
            self._wait(lambda: fcntl.lockf(self._fd, lock, 1, _QUEUE_OFFSET), started, timeout)

    def _leave_queue(self) -> None:
        if _QUEUES and self._fd >= 0:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _QUEUE_OFFSET)

    def _wait(self, take: Callable[[], object], started: float, timeout: float) -> None:
        pause = _POLL_SHORTEST
        while True:
            try:
                take()
                return
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
                    raise
            waited = time.monotonic() - started
            if waited >= timeout:
                raise LockTimeoutError(self._database, waited, self.holder())
            # Jitter keeps waiters from falling into step; no one of them may starve.
            time.sleep(min(pause * random.uniform(0.5, 1.5), max(timeout - waited, 0)))
            pause = min(pause * 1.5, _POLL_LONGEST)

    def release(self) -> None:
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def held(self, timeout: float) -> Iterator[None]:
        self.acquire(timeout)
        try:
            yield
        finally:
            self.release()

    def holder(self) -> int | None:
        """The pid that wrote itself into the lock file last, if it is still alive."""
        try:
            pid = int(os.pread(self._fd, 12, 0))
            os.kill(pid, 0)
        except PermissionError:
            return pid  # alive, and somebody else's
        except (OSError, ValueError):
            return None
        return pid

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        # A copy would close the descriptor that the original goes on using.
        raise UsageError(f"{self.path}: a lock can be neither copied nor pickled")


_gates: weakref.WeakSet[WriteGate] = weakref.WeakSet()


def _close_gates() -> None:
    # A child shares the parent's lock through the inherited descriptor, and would keep it alive.
    for gate in _gates:
        gate.close()


os.register_at_fork(after_in_child=_close_gates)
