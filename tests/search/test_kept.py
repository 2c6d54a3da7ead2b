"""What a filter chose is kept as long as nothing that it may depend on has changed, and no longer."""

import sqlite3
import threading

import numpy as np
import pytest

from resonance import ResonanceDB
from resonance.bulk import ALONE_FROM_BYTES
from resonance.search import kept
from resonance.search.filters import Filter, is_lasting
from resonance.search.index import View
from resonance.session import Session
from support import Child, unit

WIDTH = 8
QUERY = np.ones(WIDTH)


@pytest.fixture
def db(tmp_path):
    with ResonanceDB(tmp_path / "x.db") as db:
        db.insert_nodes(
            id=[f"n{number}" for number in range(40)],
            title=[f"t{number}" for number in range(40)],
            domain=["a", "b"] * 20,
            embedding=unit(40, WIDTH, seed=1),
        )
        yield db


@pytest.fixture
def evaluated(monkeypatch):
    """How often a filter was put to the database, or to the labels."""
    counted = []
    evaluate = View._evaluated
    monkeypatch.setattr(View, "_evaluated", lambda *given: counted.append(1) or evaluate(*given))
    return counted


def found(db, where="title >= 't3'", **options):
    hits = db.search(QUERY, 100, where=where, **options)
    assert list(hits) == list(db.search(QUERY, 100, where=where, memory="stream", **options))
    return {hit.id for hit in hits}


def test_the_same_filter_is_evaluated_once(db, evaluated):
    first = found(db)
    assert found(db) == first
    assert found(db, ("title >= ?", ["t3"])) == first
    assert found(db, ("title >= ?", ["t3"])) == first
    assert len(evaluated) == 2
    assert found(db, ("title >= ?", ["t4"])) != first
    assert found(db, domain="a") < first
    assert found(db, ids=["n3", "n4"]) == {"n3", "n4"}
    assert len(evaluated) == 5


def test_labels_alone_are_kept_while_the_vectors_stay(db, evaluated):
    assert len(db.search(QUERY, 100, domain="a")) == 20
    db.insert_node({"id": "n1", "title": "another"})
    assert len(db.search(QUERY, 100, domain="a")) == 20
    assert len(evaluated) == 1
    db.insert_node({"id": "n1", "domain": "a"})
    assert len(db.search(QUERY, 100, domain="a")) == 21


def retitle(path):
    with ResonanceDB(path) as other:
        other.insert_node({"id": "n0", "title": "t9"})


def retitle_without_us(path):
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE nodes SET title = 't9' WHERE id = 'n0'")
    connection.close()


@pytest.mark.parametrize("who", ["self", "another handle", "another process", "another program"])
def test_a_commit_by_whomever_ends_it(db, who):
    assert "n0" not in found(db)
    if who == "self":
        db.insert_node({"id": "n0", "title": "t9"})
    elif who == "another handle":
        retitle(db.path)
    else:
        Child(retitle if who == "another process" else retitle_without_us, db.path).result()
    assert "n0" in found(db)


def test_a_subquery_over_another_table(db):
    where = "id IN (SELECT target FROM edges)"
    assert found(db, where) == set()
    db.insert_edge("n1", "n2")
    assert found(db, where) == {"n2"}
    db.delete_edges([("n1", "n2", "related_to")])
    assert found(db, where) == set()


def test_a_large_load_that_leaves_wal(db):
    """It needs the file for itself, so the connection that looks on must make way."""
    asked = {"ids": ["n0", "n3"], "where": "title >= 't3'"}
    assert [hit.id for hit in db.search(QUERY, **asked)] == ["n3"]
    rows = ALONE_FROM_BYTES // (4 * WIDTH + 100) + 1
    with db._session.loading(alone=True, keys_checked=False) as writer:
        left = writer.execute("PRAGMA journal_mode")
    assert left == [("truncate",)]
    db.insert_nodes(
        id=["n0", *(f"m{number}" for number in range(rows))],
        title="t9",
        embedding=unit(rows + 1, WIDTH, seed=2),
    )
    assert {hit.id for hit in db.search(QUERY, **asked)} == {"n0", "n3"}


def test_a_transaction_and_a_snapshot_see_their_own(db):
    before = found(db)
    with db.transaction():
        db.insert_node({"id": "n0", "title": "t9"})
        assert found(db) == before | {"n0"}
        db.insert_node({"id": "n0", "title": "t0"})
        assert found(db) == before
    with db.snapshot():
        assert found(db) == before
        others = []

        def write_and_ask():
            db.insert_node({"id": "n0", "title": "t9"})
            others.extend([found(db), found(db)])

        thread = threading.Thread(target=write_and_ask)
        thread.start()
        thread.join(60)
        assert others == [before | {"n0"}] * 2
        assert found(db) == before, "what is kept is of a later state"
    assert found(db) == before | {"n0"}


def test_a_commit_just_before_the_snapshot(db, monkeypatch):
    """The state that was looked up is then not the one that is seen, whichever came first."""
    before = found(db)
    titles = iter(["t9", "t0", "t9"])
    snapshot = Session.snapshot

    with ResonanceDB(db.path) as other:

        def late(self):
            with other.transaction() as writer:
                writer.execute("UPDATE nodes SET title = ? WHERE id = 'n0'", (next(titles),))
            return snapshot(self)

        for wanted in (before | {"n0"}, before, before | {"n0"}):
            with monkeypatch.context() as patched:
                patched.setattr(Session, "snapshot", late)
                hits = db.search(QUERY, 100, where="title >= 't3'")
            assert {hit.id for hit in hits} == wanted
            assert found(db) == wanted


@pytest.mark.parametrize(
    "where",
    [
        "abs(random()) % 2 = 0",
        "date(date) > date('now')",
        "date > CURRENT_DATE",
        "date > datetime()",
        "date > strftime ('%Y', ?)",
        '"random"() > 0',
        "[random] () > 0",
        "randomblob(1) > x'80'",
        "changes() = 0",
        "1 IN (SELECT data_version FROM pragma_data_version)",
        "1 = (SELECT count(*) FROM sqlite_stmt)",
        "unheard_of(title)",
    ],
)
def test_what_may_change_by_itself_is_not_kept(where):
    assert not is_lasting(where)
    assert Filter(where=(where, [1] * where.count("?"))).key is None


@pytest.mark.parametrize(
    "where",
    [
        "date >= '2026-01-01' AND (title LIKE 'a%' OR type IN ('x', 'y'))",
        "coalesce(length(title), 0) > 3 AND NOT (domain = 'a')",
        "json_extract(meta, '$.a') = 1",
        "EXISTS (SELECT 1 FROM edges WHERE source = nodes.id)",
    ],
)
def test_what_lasts(where):
    assert is_lasting(where)


def test_a_condition_that_changes_by_itself_is_evaluated_each_time(db, evaluated):
    chances = {len(db.search(QUERY, 100, where="random() % 2 = 0")) for _ in range(20)}
    assert len(chances) > 1
    assert len(evaluated) == 20


def test_values_of_another_type_are_another_filter(db):
    assert found(db, ("typeof(?) = 'integer'", [1])) == {f"n{number}" for number in range(40)}
    assert found(db, ("typeof(?) = 'integer'", [1.0])) == set()
    assert found(db, ("typeof(?) = 'integer'", ["1"])) == set()
    assert found(db, ("typeof(?) = 'integer'", [True])) == {f"n{number}" for number in range(40)}
    assert Filter(where=("title = ?", [np.float64(1)])).key is None


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(kept, "MOST_POSITIONS", 4 * kept._FOR_EACH)
    some = kept.Kept()
    asked = [kept.Asked(number, None) for number in range(4)]
    for each in asked[:3]:
        some.put(each, np.arange(100))
    assert some.get(asked[0]) is not None
    some.put(asked[3], np.arange(200))
    assert [some.get(each) is not None for each in asked] == [True, False, True, True]
    some.put(asked[1], np.arange(3 * kept._FOR_EACH + 1))
    assert [some.get(each) is not None for each in asked] == [False] * 4
    assert Filter(ids=["x" * 100_000]).key is None
