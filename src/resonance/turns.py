"""Whose turn it is to write: threads queue on two locks, and then processes at the gate."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

from resonance.errors import LockTimeoutError
from resonance.factory import LOCK_TIMEOUT
from resonance.lock import WriteGate

_LOOKS_EVERY = 1.0
"""Seconds between two looks whether the thread that writes is still alive."""


class Turns:
    """The turns of those who write to one database. A thread that has one may take another inside it.

    ``abandon``, wherever it is asked for, rolls back the transaction of an ``owner`` that has ended.

    Args:
        gate: what keeps other processes out; None where they cannot come in.

    Attributes:
        owner: the thread whose transaction is open.
    """

    def __init__(self, path: str, gate: WriteGate | None) -> None:
        self.owner: threading.Thread | None = None
        self._path = path
        self._gate = gate
        self._next = threading.Lock()
        self._turn = threading.RLock()
        self._abandoning = threading.Lock()

    def take(
        self, patience: float | None, *, require: Callable[[], None], abandon: Callable[[], None]
    ) -> None:
        """Become the only writer. Two locks in a row: who comes back at once queues behind who waits.

        Args:
            require: called with the turn taken; raises if there is nothing to write to any more.

        Raises:
            LockTimeoutError: others wrote for ``patience`` seconds, or a minute.
        """
        started = time.monotonic()
        patience = LOCK_TIMEOUT if patience is None else patience
        if not self._next.acquire(timeout=patience):
            raise LockTimeoutError(self._path, time.monotonic() - started, os.getpid())
        try:
            if not self._wait(abandon, patience):
                raise LockTimeoutError(self._path, time.monotonic() - started, os.getpid())
        finally:
            self._next.release()
        try:
            require()
            if self._gate is not None:
                self._gate.acquire(patience)
        except BaseException:
            self._turn.release()
            raise

    def end(self) -> None:
        """Let the next one write."""
        if self._gate is not None:
            self._gate.release()
        self._turn.release()

    @contextlib.contextmanager
    def among_threads(self, abandon: Callable[[], None]) -> Iterator[None]:
        """A turn in this process alone, however long it takes to get."""
        self._wait(abandon)
        try:
            yield
        finally:
            self._turn.release()

    def _wait(self, abandon: Callable[[], None], patience: float = float("inf")) -> bool:
        until = time.monotonic() + patience
        while True:
            self._roll_back_abandoned(abandon)
            left = until - time.monotonic()
            if self._turn.acquire(timeout=max(min(left, _LOOKS_EVERY), 0)):
                return True
            if left <= 0:
                return False

    def _roll_back_abandoned(self, abandon: Callable[[], None]) -> None:
        """A thread may end with its transaction open; then nobody else could end that, or write."""
        with self._abandoning:
            if self.owner is None or self.owner.is_alive():
                return
            abandon()
            if self._gate is not None:
                self._gate.release()
            self._turn = threading.RLock()
