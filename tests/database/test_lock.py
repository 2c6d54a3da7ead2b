"""The gate before every write."""

import copy
import gc
import os
import pickle
import time

import pytest

from resonance import ResonanceDB, errors
from resonance.lock import WriteGate
from resonance.vault.root import Root
from support import Background, Child, in_child, open_files, together, wait_until


@pytest.fixture
def gate(path):
    made = WriteGate(str(path))
    yield made
    made.close()


def take(path, timeout=0.05):
    gate = WriteGate(str(path))
    try:
        gate.acquire(timeout)
        return True
    except errors.LockTimeoutError:
        return False
    finally:
        gate.close()


def test_one_at_a_time(gate, path):
    assert gate.acquire(1) < 0.5
    assert take(path) is False
    assert in_child(take, path) is False
    gate.release()
    assert take(path) is True
    assert in_child(take, path) is True
    with gate.held(1):
        assert take(path) is False
    assert take(path) is True


def test_the_holder_is_named(gate, path):
    with gate.held(1):
        rival = WriteGate(str(path))
        with pytest.raises(errors.LockTimeoutError) as caught:
            rival.acquire(0.05)
        assert caught.value.holder == os.getpid()
        assert caught.value.waited >= 0.05
        assert caught.value.path == str(path)
        rival.close()


def test_its_file_is_never_the_database(gate, path, tmp_path):
    with gate.held(1):
        assert [item.name for item in tmp_path.iterdir()] == ["graph.db.lock"]
    gate.close()
    assert (tmp_path / "graph.db.lock").exists(), "two who wait could come to hold two different files"


@pytest.mark.parametrize("content", [b"", b"no number", b"-1", b"999999999   ", b"0"])
def test_a_holder_that_cannot_be_known(gate, path, content):
    with gate.held(1):
        (path.parent / "graph.db.lock").write_bytes(content)
        rival = WriteGate(str(path))
        with pytest.raises(errors.LockTimeoutError):
            rival.acquire(0.02)
        rival.close()


def test_a_killed_holder_lets_go(gate, path):
    reader, writer = os.pipe()

    def hold(path, writer):
        gate = WriteGate(str(path))
        gate.acquire(5)
        os.write(writer, b"!")
        time.sleep(30)

    child = Child(hold, path, writer)
    os.read(reader, 1)
    assert take(path) is False
    assert child.kill()
    assert take(path, 2) is True
    os.close(reader)
    os.close(writer)


def test_a_forked_child_does_not_keep_the_lock(gate, path):
    """It shares the open file, and with it the lock: it closes its end at once."""
    ready, told = os.pipe()

    def linger(told):
        os.write(told, b"!")
        time.sleep(30)

    gate.acquire(1)
    child = Child(linger, told)
    os.read(ready, 1)
    gate.release()
    gate.close()
    assert take(path) is True
    child.kill()
    os.close(ready)
    os.close(told)


def test_an_error_while_holding_it(gate, path):
    with pytest.raises(ZeroDivisionError), gate.held(1):
        raise ZeroDivisionError
    assert take(path) is True


def test_waiting_is_worth_it(gate, path):
    gate.acquire(1)
    waiter = Background(take, path, 5)
    waiter.join(0.05)
    assert waiter.is_alive()
    gate.release()
    assert waiter.result(2) is True


def count_up(number, path, counter, rounds):
    gate = WriteGate(str(path))
    for _ in range(rounds):
        with gate.held(30):
            value = int(counter.read_text())
            counter.write_text(f"{value + 1}")
    return True


def test_nobody_gets_in_beside_the_holder(path, tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    assert all(together(4, count_up, path, counter, 50))
    assert counter.read_text() == "200"


def test_where_no_lock_can_be_made(tmp_path):
    gate = WriteGate(str(tmp_path / "none" / "x.db"))
    with pytest.raises(errors.CannotOpenError, match="writable"):
        gate.acquire(1)
    gate.close()


def test_forgotten_gates_are_closed(path, tmp_path):
    gate = WriteGate(str(path))
    gate.acquire(1)
    assert open_files(tmp_path)
    del gate
    gc.collect()
    wait_until(lambda: open_files(tmp_path) == [])
    assert take(path) is True


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
def test_no_copy_closes_the_lock_of_the_original(path, tmp_path, copied):
    with ResonanceDB(path) as db, Root(tmp_path) as root:
        db.insert_node({"id": "before"})
        before = open_files(tmp_path)
        for whole in (db, WriteGate(str(path)), root):
            with pytest.raises(errors.UsageError, match="neither copied nor pickled"):
                copied(whole)
        gc.collect()
        assert open_files(tmp_path) == before
        db.insert_node({"id": "after"})
