"""Whether anybody has committed anything, told by a connection that only looks on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from resonance._core import Connection


class State(NamedTuple):
    """A moment of the whole file, as one connection has counted it; those of two connections differ."""

    watch: int
    commits: int


class Version(NamedTuple):
    """A moment in the life of a database: changed by commits of others, and of our own."""

    others: int
    own: int


class Watch:
    """Opens its connection when it is first asked, and again after :meth:`close`. Threads share it."""

    def __init__(self, open_reader: Callable[[], Connection]) -> None:
        self._open_reader = open_reader
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._opened = 0

    def state(self) -> State:
        """Equal for two calls between which nobody, here or elsewhere, has committed."""
        with self._lock:
            if self._connection is None:
                self._connection = self._open_reader()
                self._opened += 1
            # SQLite counts what others commit; what this one commits is nothing.
            return State(self._opened, int(self._connection.execute("PRAGMA data_version")[0][0]))

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
