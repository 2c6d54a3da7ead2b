"""Tools for tests: other processes, other threads, and what a database holds."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np

from resonance._core import Connection

FIXTURES = Path(__file__).parent / "fixtures"

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
"""Runs until somebody interrupts it."""

TABLES = ("nodes", "edges", "links", "files", "ember_state", "spaces", "properties")


def dump(where, tables=TABLES):
    """All rows of the tables, sorted; ``where`` is a path or a ResonanceDB. No history: it has times."""
    if not isinstance(where, str | Path):
        with where.snapshot() as connection:
            return _rows(connection, tables)
    with Connection(where, create=False) as connection:
        return _rows(connection, tables)


def _rows(connection, tables):
    return {
        table: sorted(connection.execute(f"SELECT * FROM {table}"), key=lambda row: repr(row))
        for table in tables
    }


def integrity(where):
    """What SQLite's own check says, foreign keys included."""
    with Connection(where, create=False) as connection:
        return connection.execute("PRAGMA integrity_check") + connection.execute("PRAGMA foreign_key_check")


def unit(rows, width, seed=0):
    """Random unit vectors as float32."""
    made = np.random.default_rng(seed).normal(size=(rows, width))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def start_python(code, *arguments, **options):
    """Another Python that runs ``code``; its arguments are in ``sys.argv[1:]``."""
    return subprocess.Popen(
        # The system's own SQLite is named with a warning, which would be on its stderr.
        [
            sys.executable,
            "-X",
            "faulthandler",
            "-W",
            "ignore:SQLite:UserWarning",
            "-c",
            code,
            *map(str, arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run_python(code, *arguments, timeout=60):
    """What such a Python printed; it must end with 0."""
    process = start_python(code, *arguments)
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, f"exit code {process.returncode}\n{out}\n{err}"
    return out


class Window:
    """How long to wait before a kill: at random, in a span that learns how long the work takes here, now."""

    def __init__(self, usual, seed):
        self._span = usual
        self._random = np.random.default_rng(seed)

    def wait(self):
        time.sleep(self._random.uniform(0, self._span))

    def learn(self, killed):
        """About half of the children end before the kill, however loaded the machine is."""
        self._span *= 1.1 if killed else 0.9


class Child:
    """A forked process that runs ``function(*arguments)``, once ``release`` lets it."""

    def __init__(self, function, *arguments, hold=False):
        reader, writer = os.pipe()
        held, self._go = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # "multi-threaded, use of fork()": on purpose
            self.pid = os.fork()
        if self.pid == 0:
            os.close(self._go)
            os.read(held, 1)
            self._run(writer, function, arguments)
        os.close(writer)
        os.close(held)
        self._reader = reader
        if not hold:
            self.release()

    @staticmethod
    def _run(writer, function, arguments):
        try:
            try:
                answer = (True, function(*arguments))
            except BaseException as error:
                answer = (False, f"{type(error).__name__}: {error}")
            os.write(writer, pickle.dumps(answer))
        finally:
            os._exit(0)

    def release(self):
        if self._go >= 0:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._go, b"!")  # children forked later hold this end too: closing says nothing
            os.close(self._go)
            self._go = -1

    def kill(self):
        """SIGKILL; returns True if it had not ended by itself."""
        os.kill(self.pid, signal.SIGKILL)
        self.release()
        os.close(self._reader)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]) == -signal.SIGKILL

    def result(self):
        self.release()
        with os.fdopen(self._reader, "rb") as stream:
            data = stream.read()
        _, status = os.waitpid(self.pid, 0)
        assert status == 0, f"the child ended with {os.waitstatus_to_exitcode(status)}"
        assert data, "the child sent nothing"
        fine, value = pickle.loads(data)
        assert fine, f"in the child: {value}"
        return value


def in_child(function, *arguments):
    """What ``function`` returns when it is called after a fork."""
    return Child(function, *arguments).result()


def together(count, function, *arguments):
    """What ``count`` forked processes return that start at the same moment; each gets its number first."""
    children = [Child(function, number, *arguments, hold=True) for number in range(count)]
    for child in children:
        child.release()
    return [child.result() for child in children]


class Background(threading.Thread):
    """A thread whose exception is raised by ``result``."""

    def __init__(self, function, *arguments):
        super().__init__(daemon=True)
        self._call = (function, arguments)
        self._value = self._error = None
        self.start()

    def run(self):
        function, arguments = self._call
        try:
            self._value = function(*arguments)
        except BaseException as error:
            self._error = error

    def result(self, timeout=60):
        self.join(timeout)
        assert not self.is_alive(), "the thread is still running"
        self._call = None
        value, error = self._value, self._error
        self._value = self._error = None
        if error is not None:
            raise error
        return value


@contextlib.contextmanager
def busy(connection, sql=ENDLESS):
    """``connection`` is running a statement in another thread, until the block ends."""

    def run():
        with contextlib.suppress(Exception):
            connection.execute(sql)

    thread = Background(run)
    wait_until(lambda: is_inside(connection))
    try:
        yield thread
    finally:
        while thread.is_alive():
            connection.interrupt()
            thread.join(0.01)
        thread.result()


def is_inside(connection):
    from resonance.errors import ConcurrentUseError

    try:
        connection.in_transaction  # noqa: B018
    except ConcurrentUseError:
        return True
    return False


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)


def open_files(folder):
    """What this process has open below ``folder``."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(link.readlink())
            if target.startswith(str(folder)):
                found.append(target)
    return sorted(found)


def contents(folder):
    """Name -> bytes of every regular file in ``folder``, for saying that nothing was touched."""
    return {
        item.name: item.read_bytes() if item.is_file() else None for item in sorted(Path(folder).iterdir())
    }
