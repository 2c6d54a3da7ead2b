"""One statement, several statements, and statements that outlive a change of the schema."""

import itertools

import pytest

from resonance import errors
from resonance._core import Connection


@pytest.mark.parametrize(
    "sql", ["SELECT 1; SELECT 2", "SELECT 1; garbage here", "SELECT 1;; -- x\n DELETE FROM t"]
)
def test_several_statements_are_refused(connection, sql):
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    for call in (connection.execute, connection.prepare, connection.query):
        with pytest.raises(errors.SQLError, match="more than one") as caught:
            call(sql)
        assert sql.encode()[caught.value.offset :].startswith(b"; " if ";;" in sql else b" ")
    assert connection.execute("SELECT a FROM t") == [(1,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1;",
        "SELECT 1 ; ; \n",
        "SELECT 1; -- that is all",
        "/* first */ SELECT 1 /* last */; /* end */",
        "SELECT 1 --",
    ],
)
def test_what_follows_may_be_nothing(connection, sql):
    assert connection.execute(sql) == [(1,)]


@pytest.mark.parametrize("sql", ["", "   ", ";", "-- nothing", "/* nothing */"])
def test_no_statement(connection, sql):
    with pytest.raises(errors.SQLError, match="no statement"):
        connection.execute(sql)


@pytest.mark.parametrize("sql", ["SELECT 1\0; SELECT 2", "SELECT '\ud800'"])
def test_sql_that_is_no_text(connection, sql):
    for call in (connection.execute, connection.prepare, connection.executescript):
        with pytest.raises(errors.SQLError) as caught:
            call(sql)
        assert caught.value.operation == "prepare"
    assert connection.execute("SELECT 1") == [(1,)], "the connection is as it was"


def test_sql_must_be_text(connection):
    for sql in (None, b"SELECT 1", 5):
        with pytest.raises(TypeError):
            connection.execute(sql)
        with pytest.raises(TypeError):
            connection.executescript(sql)


def test_a_script(connection):
    connection.executescript(
        "-- tables\nCREATE TABLE t (a);\nINSERT INTO t VALUES (';'), ('--');\n/* rows */ SELECT * FROM t;"
    )
    assert connection.execute("SELECT a FROM t") == [(";",), ("--",)]
    connection.executescript("")
    connection.executescript(" ; -- nothing\n")


def test_a_script_stops_at_the_first_error(connection):
    with pytest.raises(errors.SQLError) as caught:
        connection.executescript(
            "CREATE TABLE t (a); INSERT INTO t VALUES (1); SELECT * FROM u; INSERT INTO t VALUES (2)"
        )
    assert caught.value.operation == "executescript"
    assert connection.execute("SELECT a FROM t") == [(1,)]
    with pytest.raises(errors.ConstraintError):
        connection.executescript("CREATE TABLE c (a NOT NULL); INSERT INTO c VALUES (NULL); DROP TABLE t")
    assert connection.execute("SELECT a FROM t") == [(1,)]


def test_a_script_in_a_transaction(connection):
    connection.execute("BEGIN")
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    assert connection.in_transaction
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT * FROM sqlite_schema") == []


def test_rows_one_by_one(connection):
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3)")
    statement = connection.prepare("SELECT a, a * a AS square FROM t WHERE a <= ?")
    assert statement.columns == ("a", "square")
    assert statement.readonly
    statement.bind_values((2,))
    assert not statement.active
    assert next(statement) == (1, 1)
    assert statement.active
    assert list(statement) == [(2, 4)]
    assert not statement.active
    statement.bind_values((1,))
    assert list(statement) == [(1, 1)]
    assert not connection.prepare("DELETE FROM t").readonly


def test_a_statement_at_its_end_stays_there_as_iterators_do(connection):
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)")
    statement = connection.prepare("SELECT a FROM t")
    assert list(statement) == [(1,), (2,)]
    assert list(statement) == []
    assert next(statement, None) is None
    statement.reset()
    assert list(statement) == [(1,), (2,)]
    statement.bind_values()
    assert list(statement) == [(1,), (2,)]
    assert statement.execute() == [(1,), (2,)]
    # It groups as any iterator does, which ask once more after the end.
    statement.reset()
    assert [(key, len(list(rows))) for key, rows in itertools.groupby(statement)] == [((1,), 1), ((2,), 1)]


def test_running_a_statement_starts_it_over(connection):
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)")
    statement = connection.prepare("SELECT a FROM t")
    assert next(statement) == (1,)
    assert statement.execute() == [(1,), (2,)]
    assert next(statement) == (1,)
    statement.bind_values()
    assert next(statement) == (1,)
    statement.close()


def test_two_readers_of_the_same_sql(connection):
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)")
    one, two = connection.prepare("SELECT a FROM t"), connection.prepare("SELECT a FROM t")
    assert [next(one), next(two), next(one), next(two)] == [(1,), (1,), (2,), (2,)]
    assert connection.execute("SELECT a FROM t") == [(1,), (2,)]


def test_more_statements_than_are_kept(connection):
    for number in range(400):
        assert connection.execute(f"SELECT {number}") == [(number,)]
    assert connection.execute("SELECT 0") == [(0,)]


def test_columns_that_come_and_go(connection):
    """The statement is the same text; what it means changes."""
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    held = connection.prepare("SELECT * FROM t")
    assert connection.execute("SELECT * FROM t") == held.execute() == [(1,)]
    connection.execute("ALTER TABLE t ADD COLUMN b DEFAULT 2")
    assert connection.execute("SELECT * FROM t") == held.execute() == [(1, 2)]
    connection.execute("ALTER TABLE t DROP COLUMN a")
    assert connection.execute("SELECT * FROM t") == held.execute() == [(2,)]
    assert next(held) == (2,)
    assert held.columns == ("b",)


def test_a_schema_changed_by_somebody_else(connection):
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    assert connection.execute("SELECT * FROM t") == [(1,)]
    with Connection(connection.path) as other:
        other.execute("ALTER TABLE t ADD COLUMN b DEFAULT 'new'")
    assert connection.execute("SELECT * FROM t") == [(1, "new")]


def test_executemany(connection):
    connection.execute("CREATE TABLE t (a UNIQUE)")
    assert connection.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(5)]) == 5
    assert connection.executemany("UPDATE t SET a = a + 10 WHERE a > :least", [{"least": 2}]) == 2
    assert connection.executemany("INSERT INTO t VALUES (?)", []) == 0
    with pytest.raises(errors.ConstraintError):
        connection.executemany("INSERT INTO t VALUES (?)", [(20,), (0,), (21,)])
    assert connection.execute("SELECT count(*) FROM t WHERE a IN (20, 21)") == [(1,)]


def test_executemany_reads_all_rows_before_it_writes_one(connection):
    connection.execute("CREATE TABLE t (a)")

    def rows():
        yield (1,)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        connection.executemany("INSERT INTO t VALUES (?)", rows())
    assert connection.execute("SELECT a FROM t") == []


def test_counts_of_changes(connection):
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)")
    before = connection.total_changes
    connection.execute("UPDATE t SET a = 5")
    assert connection.changes == 2
    connection.execute("SELECT * FROM t")
    assert connection.changes == 2
    assert connection.total_changes == before + 2


def test_rows_returned_by_a_write(connection):
    connection.execute("CREATE TABLE t (a)")
    assert connection.execute("INSERT INTO t VALUES (1), (2) RETURNING a * 2") == [(2,), (4,)]


# --- query ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a FROM t",
        "  select a from t",
        "-- why\n/* not */ WITH x AS (SELECT 1) SELECT a FROM t, x",
        "VALUES (1)",
    ],
)
def test_query_reads(connection, sql):
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    assert connection.query(sql) == [(1,)]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM t",
        "WITH x AS (SELECT 1) DELETE FROM t",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x RETURNING a",
        "/* SELECT */ UPDATE t SET a = 2",
        "BEGIN",
        "COMMIT",
        "SAVEPOINT s",
        "ATTACH ':memory:' AS x",
        "VACUUM",
        "PRAGMA query_only = ON",
        "EXPLAIN PRAGMA query_only = ON",
        "PRAGMA foreign_keys",
        "REINDEX",
        "ANALYZE",
        "CREATE TEMP TABLE u (a)",
    ],
)
def test_query_does_nothing_else(connection, sql):
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    with pytest.raises(errors.ReadOnlyError) as caught:
        connection.query(sql)
    assert caught.value.sql == sql
    assert caught.value.data == "unchanged"
    assert connection.execute("SELECT a FROM t") == [(1,)]
    assert not connection.in_transaction
    assert connection.execute("PRAGMA query_only") == [(0,)], "some pragmas work when they are only compiled"
    assert len(connection.execute("PRAGMA database_list")) == 1
