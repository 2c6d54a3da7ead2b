"""kill -9 at any moment: what was acknowledged is there, nothing half, and the file is sound."""

import os
import signal
import time

import numpy as np
import pytest

from resonance import ResonanceDB
from resonance.model import Node
from support import Child, integrity, start_python

WRITER = """
import os, sys
from resonance import ResonanceDB
from resonance.model import Node

path, start = sys.argv[1], int(sys.argv[2])
with ResonanceDB(path) as db:
    number = start
    while True:
        kind = number % 4
        if kind == 0:
            db.insert_node(Node(f"{number}", title="single"))
        elif kind == 1:
            with db.transaction():
                for part in range(5):
                    db.insert_node(Node(f"{number}/{part}" if part else f"{number}", title="five"))
                    if part:
                        db.insert_edge(f"{number}", f"{number}/{part}")
        elif kind == 2:
            ids = [f"{number}", *(f"{number}/{part}" for part in range(50))]
            db.insert_nodes(id=ids, title="bulk", embedding=[[1.0, 2.0]] * 51)
        else:
            db.insert_node(Node(f"{number}", title="checkpoint"))
            if number % 20 == 3:
                db.checkpoint()
        os.write(1, f"{number}\\n".encode())
        number += 1
"""


def run_writer(path, start, acks):
    """The same in a forked process, which starts in a tenth of the time."""
    os.dup2(acks, 1)
    code = WRITER.replace("sys.argv[1], int(sys.argv[2])", "PATH, START")
    exec(compile(code, "writer", "exec"), {"PATH": str(path), "START": start})


def check(path, acknowledged):
    """Whole transactions only, each acknowledged one, and no gap before the last."""
    with ResonanceDB(path) as db:
        found = {}
        for node_id, title in db.query("SELECT id, title FROM nodes"):
            found.setdefault(int(node_id.split("/")[0]), []).append(title)
        edges = dict(db.query("SELECT source, count(*) FROM edges GROUP BY source"))
    sizes = {0: ("single", 1), 1: ("five", 5), 2: ("bulk", 51), 3: ("checkpoint", 1)}
    for number, titles in found.items():
        title, size = sizes[number % 4]
        assert titles == [title] * size, f"transaction {number} is there in part"
        if number % 4 == 1:
            assert edges.get(f"{number}") == 4
    last = max(found, default=-1)
    assert sorted(found) == list(range(last + 1)), "no gap"
    assert last in (acknowledged, acknowledged + 1), "all that was acknowledged, and at most one more"
    return last


def kill_and_check(path, rounds, seed):
    """All rounds work on one file that grows."""
    random = np.random.default_rng(seed)
    acknowledged = -1
    killed = commits = 0
    longest = 0.12
    while killed < rounds or commits <= 3 * rounds:
        assert killed < 10 * rounds, "hardly any commit is acknowledged before a kill"
        if commits < killed:
            longest *= 1.1  # a machine so slow that most are killed before they begin
        reader, acks = os.pipe()
        child = Child(run_writer, path, acknowledged + 1, acks)
        os.close(acks)
        time.sleep(random.uniform(0.005, longest))
        killed += child.kill()
        with os.fdopen(reader) as stream:
            lines = [line for line in stream.read().split("\n") if line]
        acknowledged = check(path, int(lines[-1]) if lines else acknowledged)
        commits += len(lines)
        if random.random() < 0.2:
            assert integrity(path) == [("ok",)]
    assert integrity(path) == [("ok",)]
    return killed, commits


def test_killed_between_and_inside_commits(path):
    kill_and_check(path, 30, seed=1)


@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_killed_a_thousand_times(path):
    killed, commits = kill_and_check(path, 1000, seed=2)
    print(f"{killed} kills, {commits} acknowledged commits, 0 lost, 0 in part")


def test_killed_by_a_whole_process_of_its_own(path):
    """Once with nothing shared: another interpreter, another copy of the library."""
    process = start_python(WRITER, path, 0)
    lines = [process.stdout.readline() for _ in range(30)]
    process.send_signal(signal.SIGKILL)
    rest = process.communicate()[0].split()
    check(path, int((rest or lines)[-1]))
    assert integrity(path) == [("ok",)]


@pytest.mark.parametrize("attempt", range(3))
def test_killed_while_writing_the_log_back(path, attempt):
    with ResonanceDB(path) as db:
        db.insert_nodes(id=[f"n{i}" for i in range(2000)], title="x" * 500)

    def endless(path):
        with ResonanceDB(path) as db:
            turn = 0
            while True:
                db.insert_nodes(id=[f"n{i}" for i in range(2000)], title=f"{turn}" * 500)
                db.checkpoint()
                turn += 1

    child = Child(endless, path)
    time.sleep(0.1 + 0.05 * attempt)
    assert child.kill()
    with ResonanceDB(path) as db:
        titles = db.query("SELECT count(*), count(DISTINCT title) FROM nodes")
        assert titles == [(2000, 1)]
    assert integrity(path) == [("ok",)]


def test_killed_while_vacuuming(path):
    with ResonanceDB(path) as db:
        db.insert_nodes(id=[f"n{i}" for i in range(3000)], title="x" * 500)

    def endless(path):
        with ResonanceDB(path) as db:
            while True:
                db.vacuum()

    for attempt in range(5):
        child = Child(endless, path)
        time.sleep(0.03 * (attempt + 1))
        assert child.kill()
        with ResonanceDB(path) as db:
            assert db.get_stats().nodes == 3000
            db.insert_node(Node(f"after {attempt}"))
            db.delete_nodes([f"after {attempt}"])
    assert integrity(path) == [("ok",)]


def test_a_stopped_holder_of_the_lock_is_named(path, monkeypatch):
    """SIGSTOP: it is alive, and will not let go."""
    from resonance import errors, turns

    monkeypatch.setattr(turns, "LOCK_TIMEOUT", 0.3)
    ready, told = os.pipe()

    def hold(path, told):
        with ResonanceDB(path) as db, db.transaction():
            db.insert_node(Node("a"))
            os.write(told, b"!")
            time.sleep(30)

    with ResonanceDB(path) as db:
        pass
    child = Child(hold, path, told)
    os.close(told)
    os.read(ready, 1)
    os.close(ready)
    os.kill(child.pid, signal.SIGSTOP)
    try:
        with ResonanceDB(path) as db:
            with pytest.raises(errors.LockTimeoutError) as caught:
                db.insert_node(Node("b"))
            assert caught.value.holder == child.pid
            assert db.get_nodes() == []
    finally:
        assert child.kill()
    with ResonanceDB(path) as db:
        db.insert_node(Node("b"))
        assert [node.id for node in db.get_nodes()] == ["b"]
