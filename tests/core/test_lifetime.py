"""Nothing leaks: not memory, not files, not statements."""

import gc
import os

import pytest

from resonance import errors
from resonance._core import Connection, live_objects
from support import open_files, run_python

sanitized = pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer keeps freed memory for a while"
)


def test_counts_go_up_and_down(tmp_path):
    start = live_objects()
    connection = Connection(tmp_path / "x.db")
    assert live_objects() == (start[0] + 1, start[1])
    statement = connection.prepare("SELECT 1")
    connection.execute("SELECT 2")
    assert live_objects() == (start[0] + 1, start[1] + 2)
    statement.close()
    assert live_objects() == (start[0] + 1, start[1] + 1)
    connection.close()
    assert live_objects() == start


def test_dropping_is_closing(tmp_path):
    start = live_objects()
    connection = Connection(tmp_path / "x.db")
    connection.execute("CREATE TABLE t (a)")
    statement = connection.prepare("SELECT * FROM t")
    del connection
    gc.collect()
    assert statement.execute() == [], "a statement holds on to its connection"
    del statement
    gc.collect()
    assert live_objects() == start
    assert open_files(tmp_path) == []


def test_failures_leave_nothing_behind(tmp_path):
    start = live_objects()
    (tmp_path / "text").write_text("no database at all" * 100)
    for _ in range(50):
        with pytest.raises(errors.CannotOpenError):
            Connection(tmp_path)
        with pytest.raises(errors.NotADatabaseError), Connection(tmp_path / "text") as connection:
            connection.execute("SELECT * FROM sqlite_schema")
        with Connection(":memory:") as connection:
            for sql in ("SELECT", "SELECT * FROM nowhere", "SELECT 1; SELECT 2", "", "SELECT '\ud800'"):
                for call in (connection.execute, connection.prepare):
                    with pytest.raises(errors.SQLError):
                        call(sql)
            with pytest.raises(errors.ColumnError):
                connection.execute("SELECT ?", (object(),))
    gc.collect()
    assert live_objects() == start
    assert open_files(tmp_path) == []


LOOP = """
import gc, os, sys
import numpy as np
from resonance import errors
from resonance._core import *
from resonance.rows import Given, edge_plan

def memory():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")

path, rounds = sys.argv[1], int(sys.argv[2])
connection = Connection(path)
connection.executescript("CREATE TABLE IF NOT EXISTS nodes (id TEXT PRIMARY KEY, type, title, embedding);"
    "CREATE TABLE IF NOT EXISTS edges (source, target, type, PRIMARY KEY (source, target, type))")

def work(number):
{body}

for number in range(rounds):
    work(number)
before = memory()
for number in range(rounds, 5 * rounds):
    work(number)
print((memory() - before) / (4 * rounds), len(os.listdir("/proc/self/fd")), live_objects())
"""

BODIES = {
    "rows": """
    values = (str(number % 50), "t" * 500, b"v" * 500)
    connection.execute("INSERT OR IGNORE INTO nodes (id, title, embedding) VALUES (?, ?, ?)", values)
    connection.execute("SELECT * FROM nodes LIMIT 10")
""",
    "errors": """
    for sql, parameters in (
        ("SELECT * FROM nowhere", ()),
        ("SELECT ?", ()),
        ("SELECT '\\ud800'", ()),
        ("SELECT ?", ("\\ud800" * 100,)),
    ):
        try:
            connection.execute(sql, parameters)
        except errors.ResonanceError:
            pass
    try:
        connection.execute("INSERT INTO nodes (id) VALUES ('x'), ('x')")
    except errors.ConstraintError:
        pass
""",
    "statements": """
    statement = connection.prepare(f"SELECT {number}, ? -- " + "x" * 1000)
    statement.bind_values(("y" * 2000,))
    next(statement)
    if number % 2:
        statement.close()
    connection.execute(f"SELECT {number}")
""",
    "connections": """
    with Connection(path) as other:
        other.execute("SELECT count(*) FROM nodes")
    Connection(path).execute("SELECT 1")
""",
    "columns": """
    ids = [f"{row} {number % 5}" for row in range(20)]
    vectors = vector_column("embedding", np.ones((20, 50)))
    plan = NodePlan([text_column("id", ids), text_column("title", "x" * 500, 20), vectors])
    plan.write(connection, 0, 20)
    edges = edge_plan(Given({"source": ids, "target": ids[::-1], "type": "t"}, "source"))
    edges.check_ends(connection, "stub")
    edges.write(connection, 0, 10)
    edges.write(connection, 10, 20, poured=True)
    edges.release()
    names = read_vectors(connection, "SELECT id, embedding FROM nodes", (), np.empty((100, 50), "f4"))
    kept = names.buffers()
    names.extend(names)
    assert names.to_list() == 2 * names.to_list()[: len(kept[1]) - 1]
    score_vectors(connection, "SELECT rowid, embedding FROM nodes", (), np.ones(50), 5)
""",
    "columns that are wrong": """
    nowhere = edge_plan(Given(dict.fromkeys(("source", "target", "type"), ["nobody"] * 50), "source"))
    for make in (
        lambda: NodePlan([text_column("id", ["a", "a"])]),
        lambda: NodePlan([text_column("id", ["a", ""])]),
        lambda: NodePlan([text_column("id", ["a"]), text_column("title", ["x"] * 100)]),
        lambda: vector_column("embedding", [[1.0, 2.0], [float("nan"), 1.0]]),
        lambda: vector_column("embedding", np.ones((10, 100)), 3),
        lambda: nowhere.check_ends(connection, "error"),
        lambda: read_vectors(connection, "SELECT id, embedding FROM nodes", (), np.empty((1, 3), "f4")),
        lambda: score_vectors(connection, "SELECT 1, x'00'", (), np.ones(5), 5),
    ):
        try:
            make()
        except errors.ResonanceError:
            pass
""",
}


@sanitized
@pytest.mark.parametrize("name", BODIES)
def test_memory_and_files_stay_level(tmp_path, name):
    rounds = 300 if name == "columns" else 1000
    out = run_python(LOOP.replace("{body}", BODIES[name]), tmp_path / "x.db", rounds)
    slope, files, objects = out.split(maxsplit=2)
    assert float(slope) < 512, "bytes lost in each round"
    assert int(files) < 12
    assert eval(objects)[0] == 1
    assert eval(objects)[1] <= 129
