"""Connections to read with, opened when they are needed and lent again."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator

from resonance._core import Connection
from resonance.disk import SameFile
from resonance.factory import connect_reader
from resonance.watch import State, Watch

_SNAPSHOT_ATTEMPTS = 4
_MOST_IDLE = 2 * (os.cpu_count() or 1)


class Readers:
    """The connections that read one file. Threads share it; each lent connection is one thread's alone.

    Args:
        file: what ``path`` must name whenever one is lent; None where nobody else has it.
    """

    def __init__(self, path: str, file: SameFile | None) -> None:
        self._path = path
        self._file = file
        self._idle: list[Connection] = []
        self._watch = Watch(functools.partial(connect_reader, path))
        self._closed = False

    def state(self) -> State:
        """Equal for two calls between which nobody, here or elsewhere, has committed."""
        return self._watch.state()

    @contextlib.contextmanager
    def lent(self) -> Iterator[Connection]:
        """A connection outside any transaction.

        Raises:
            MovedDatabaseError: the file is not where it was.
        """
        if self._file is not None:
            self._file.require()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = connect_reader(self._path)
        try:
            yield connection
        finally:
            if connection.closed or connection.in_transaction or len(self._idle) >= _MOST_IDLE:
                connection.close()
            else:
                self._idle.append(connection)
            if self._closed:
                self.let_go()

    @contextlib.contextmanager
    def pinned(self) -> Iterator[Connection]:
        """A connection that sees the database as it is now, as long as it is lent."""
        with self.lent() as connection:
            connection.execute("BEGIN")
            try:
                # BEGIN alone takes no snapshot; the first read does.
                connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1")
                yield connection
            finally:
                if not connection.closed and connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def pinned_together(self, count: int) -> Iterator[list[Connection]]:
        """``count`` connections that see the same moment; one, if others commit all the time."""
        with contextlib.ExitStack() as stack:
            observer = stack.enter_context(self.lent())
            for _ in range(_SNAPSHOT_ATTEMPTS):
                before = observer.execute("PRAGMA data_version")
                with contextlib.ExitStack() as attempt:
                    connections = [attempt.enter_context(self.pinned()) for _ in range(count)]
                    # Unchanged: nobody committed between the first snapshot and the last.
                    if observer.execute("PRAGMA data_version") == before:
                        yield connections
                        return
            yield [stack.enter_context(self.pinned())]

    def let_go(self) -> None:
        """Close what is not lent at the moment; more are opened when they are needed."""
        self._watch.close()
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def close(self) -> None:
        """Let go of the file; a connection that is still lent closes when it is given back."""
        self._closed = True
        self.let_go()
