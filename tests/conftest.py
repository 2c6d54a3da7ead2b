"""What all tests share: a fresh database file each, and a check that nothing stays open."""

import gc
import shutil
import signal

import pytest

from resonance import ResonanceDB
from resonance._core import Connection, live_objects

# Started in the background, a shell has Ctrl-C ignored, and every process the tests start inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def nothing_left_open():
    """Every connection and statement a test makes is gone when it ends."""
    before = live_objects()
    yield
    if live_objects() != before:
        gc.collect()
    after = live_objects()
    assert after[0] == before[0], "connections open before and after differ"
    # A connection that lives longer than one test keeps more and more statements.
    assert after[1] == before[1] or before[0], "statements open before and after differ"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "graph.db"


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory):
    """A database with nothing in it. Copying one is ten times faster than making one."""
    file = tmp_path_factory.mktemp("empty") / "empty.db"
    ResonanceDB(file).close()
    return file


@pytest.fixture
def db(path, empty_file):
    shutil.copyfile(empty_file, path)
    with ResonanceDB(path) as database:
        yield database


@pytest.fixture
def connection(tmp_path):
    """A bare connection of the core: no pragmas, no schema."""
    with Connection(tmp_path / "bare.db") as bare:
        yield bare
