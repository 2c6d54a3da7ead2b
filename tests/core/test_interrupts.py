"""Ctrl-C stops a long call, and what was half done is undone."""

import pytest

from support import run_python

PREAMBLE = """
import os, signal, sys, threading, time
from resonance import errors
from resonance._core import Connection
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
connection = Connection(sys.argv[1])
connection.execute("CREATE TABLE t (a)")
def ctrl_c_in(seconds):
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()
"""


def run(path, code):
    return run_python(PREAMBLE + code + "\nconnection.close()", path).split()


CALLS = {
    "execute": "connection.execute(ENDLESS)",
    "executemany": "connection.executemany(ENDLESS.replace('SELECT 1', 'SELECT ?'), [(1,)])",
    "executescript": "connection.executescript('SELECT 1; ' + ENDLESS)",
    "step": "next(connection.prepare(ENDLESS))",
    "write": "connection.execute('INSERT INTO t ' + ENDLESS.replace('count(*)', 'i'))",
}


@pytest.mark.parametrize("name", CALLS)
def test_ctrl_c(path, name):
    assert run(
        path,
        f"""
ctrl_c_in(0.15)
began = time.monotonic()
try:
    {CALLS[name]}
except KeyboardInterrupt:
    print("stopped", time.monotonic() - began < 10)
print(connection.execute("SELECT count(*) FROM t")[0][0], connection.in_transaction)
""",
    ) == ["stopped", "True", "0", "False"]


def test_ctrl_c_in_a_transaction(path):
    assert run(
        path,
        """
connection.execute("BEGIN")
connection.execute("INSERT INTO t VALUES (1)")
ctrl_c_in(0.15)
try:
    connection.execute(ENDLESS)
except KeyboardInterrupt:
    print("stopped")
print(connection.in_transaction)
connection.execute("COMMIT")
print(connection.execute("SELECT count(*) FROM t")[0][0])
""",
    ) == ["stopped", "True", "1"]


def test_many_short_statements_are_stopped_too(path):
    assert run(
        path,
        """
rows = [(number,) for number in range(3_000_000)]
connection.execute("BEGIN")
ctrl_c_in(0.3)
try:
    connection.executemany("INSERT INTO t VALUES (?)", rows)
    print("ran to the end")
except KeyboardInterrupt:
    print("stopped")
""",
    ) == ["stopped"]


def test_what_a_signal_handler_raises_comes_out(path):
    assert run(
        path,
        """
class Mine(Exception): pass
def handler(number, frame):
    raise Mine
signal.signal(signal.SIGUSR1, handler)
threading.Timer(0.15, os.kill, (os.getpid(), signal.SIGUSR1)).start()
try:
    connection.execute(ENDLESS)
except Mine as error:
    print(type(error).__name__, error.__context__)
print(connection.execute("SELECT 1"))
""",
    ) == ["Mine", "None", "[(1,)]"]


def test_a_handler_that_only_takes_note_does_not_stop_anything(path):
    assert run(
        path,
        """
seen = []
signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
count = connection.execute(ENDLESS.replace("FROM n)", "FROM n WHERE i < 5000000)"))
print(count[0][0], len(seen))
""",
    ) == ["5000000", "1"]


def test_a_handler_that_uses_the_connection(path):
    assert run(
        path,
        """
def handler(number, frame):
    connection.execute("SELECT 1")
signal.signal(signal.SIGUSR1, handler)
threading.Timer(0.15, os.kill, (os.getpid(), signal.SIGUSR1)).start()
try:
    connection.execute(ENDLESS)
except errors.ReentrancyError:
    print("refused")
print(connection.execute("SELECT 1"))
""",
    ) == ["refused", "[(1,)]"]


def test_ctrl_c_reaches_the_main_thread_while_another_one_works(path):
    assert run(
        path,
        """
def work():
    try:
        connection.execute(ENDLESS)
    except errors.InterruptedStorageError:
        print("interrupted")
thread = threading.Thread(target=work)
thread.start()
ctrl_c_in(0.2)
try:
    time.sleep(30)
except KeyboardInterrupt:
    print("main")
while thread.is_alive():
    connection.interrupt()
    thread.join(0.01)
""",
    ) == ["main", "interrupted"]


def test_the_lock_of_the_interpreter_is_free_meanwhile(path):
    """Another thread runs Python code while a statement runs."""
    counted = run(
        path,
        """
sql = ENDLESS.replace("FROM n)", "FROM n WHERE i < 3000000)")
thread = threading.Thread(target=lambda: connection.execute(sql))
thread.start()
turns = 0
while thread.is_alive():
    turns += 1
print(turns)
""",
    )
    assert int(counted[0]) > 1000
