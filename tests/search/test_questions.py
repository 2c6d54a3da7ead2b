"""What can be asked beside the k nearest: conditions in SQL, pages, diversity, why a node is not found."""

import numpy as np
import pytest

from resonance import ResonanceDB, errors
from support import unit

WIDTH = 16
QUERY = np.ones(WIDTH)


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    vectors = unit(300, WIDTH, seed=8)
    vectors[100:130] = vectors[0]  # thirty more that tie
    with ResonanceDB(tmp_path_factory.mktemp("x") / "x.db") as db:
        db.insert_nodes(
            id=[f"n{number:03d}" for number in range(300)],
            title=["it's" if number % 50 == 0 else f"t{number}" for number in range(300)],
            type=["note" if number % 3 else "tag" for number in range(300)],
            date=[f"2026-01-{1 + number % 28:02d}" for number in range(300)],
            embedding=vectors,
        )
        db.insert_node({"id": "bare", "type": "note"})
        db.search(QUERY, where="true")  # the connections that reading takes are there from now on
        yield db


def both(db, *arguments, **options):
    hits = db.search(*arguments, **options)
    assert list(hits) == list(db.search(*arguments, memory="stream", **options))
    return hits


@pytest.mark.parametrize(
    "where",
    [
        "date >= '2026-01-20'",
        ("date >= ?", ["2026-01-20"]),
        "title = 'it''s'",
        ("title = ?", ["it's"]),
        ("title = :name OR id = :id OR summary = :name", ["it's", "n007"]),
        ("title <> '?1' AND id <> ?", ["n000"]),
        "id IN (SELECT id FROM nodes WHERE title LIKE 't1%')",
        "title <> ';' AND title <> '--' OR type = ')'",
        "0",
    ],
)
def test_a_condition_in_sql(db, where):
    condition, values = (where, []) if isinstance(where, str) else where
    wanted = {
        row[0] for row in db.query(f"SELECT id FROM nodes WHERE embedding NOT NULL AND ({condition})", values)
    }
    assert {hit.id for hit in both(db, QUERY, 1000, where=where)} == wanted
    notes = {row[0] for row in db.query("SELECT id FROM nodes WHERE type = 'note'")}
    chosen = [f"n{number:03d}" for number in range(0, 300, 2)]
    found = both(db, QUERY, 1000, where=where, type="note", ids=chosen)
    assert {hit.id for hit in found} == wanted & notes & set(chosen)


@pytest.mark.parametrize(
    ("where", "complaint"),
    [
        ("1; DROP TABLE nodes", "';' at character 1"),
        ("1) OR (1", "'\\)' at character 1"),
        ("1 -- and no more", "'-' at character 2"),
        ("1 /* and no more", "'/' at character 2"),
        ("title = 'x", "a quote is not closed"),
        ("(1", "a parenthesis is not closed"),
        ("", "give a condition"),
        ("1\0", "give a condition"),
        (3, "give a condition"),
        (("title = ?1", ["t1"]), r"number behind the \? at character 8.*:name"),
        (("id IN (?2, ?1)", ["n001", "n002"]), r"number behind the \? at character 7"),
    ],
)
def test_what_is_no_condition(db, where, complaint):
    with pytest.raises(errors.InputError, match=complaint):
        db.search(QUERY, where=where)
    assert len(db.search(QUERY, 1000)) == 300


@pytest.mark.parametrize("where", ["no_such_column = 1", "title = = 1", "date >= ?", ("1", [2])])
def test_a_condition_that_sqlite_refuses(db, where):
    with pytest.raises(errors.ResonanceError):
        db.search(QUERY, where=where)


def test_a_condition_cannot_write(db):
    with pytest.raises(errors.ResonanceError):
        db.search(QUERY, where="id IN (DELETE FROM nodes RETURNING id)")
    assert len(db.search(QUERY, 1000)) == 300


@pytest.mark.parametrize("name", ["type", "domain", "layer"])
def test_a_label_that_is_no_text(db, name):
    with pytest.raises(errors.InputError, match=name):
        db.search(QUERY, **{name: 3})


@pytest.mark.parametrize("size", [1, 7, 40, 299, 300])
@pytest.mark.parametrize("query", [QUERY, unit(300, WIDTH, seed=8)[0]], ids=["any", "where many tie"])
def test_pages_show_every_hit_once(db, size, query):
    pages, after = [], None
    while page := both(db, query, size, after=after):
        pages += page
        after = page[-1] if len(pages) % 2 else (page[-1].score, page[-1].id)
    assert pages == list(db.search(query, 1000))


@pytest.mark.parametrize("memory", ["resident", "stream"])
def test_a_matrix_in_any_order_of_memory(db, memory):
    queries = unit(5, WIDTH, seed=9)
    straight = db.search(queries, 7, memory=memory)
    for turned in (np.asfortranarray(queries), np.repeat(queries, 2, axis=1)[:, ::2], queries[::-1][::-1]):
        assert db.search(turned, 7, memory=memory) == straight
        assert db.search(turned, 7, memory=memory, mmr=0.5, type="note")[4] == db.search(
            queries[4], 7, memory=memory, mmr=0.5, type="note"
        )


def test_pages_of_a_filter(db):
    whole = both(db, QUERY, 1000, type="note", min_score=0.0)
    assert list(both(db, QUERY, 1000, type="note", min_score=0.0, after=whole[4])) == list(whole[5:])


@pytest.mark.parametrize("after", [3, "x", (1,), (None, "a")])
def test_a_page_after_nothing(db, after):
    with pytest.raises(errors.InputError, match="after"):
        db.search(QUERY, after=after)


def test_diversity(db):
    query = unit(300, WIDTH, seed=8)[0]
    near = db.search(query, 10)
    assert len({round(hit.score, 6) for hit in near}) == 1, "all ten are copies of one another"
    assert [hit.id for hit in db.search(query, 10, mmr=1.0)] == [hit.id for hit in near]
    diverse = both(db, query, 10, mmr=0.3)
    assert diverse[0].id == near[0].id
    assert len({round(hit.score, 6) for hit in diverse}) > 5
    assert db.search(query, 3, mmr=0.5, ids=[]) == []
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(errors.InputError, match="mmr"):
            db.search(query, mmr=wrong)


@pytest.mark.parametrize("options", [{}, {"group_by": "document"}, {"memory": "stream"}])
def test_diverse_hits_have_no_pages(db, options):
    """In the order in which they were chosen, what is behind the last one was partly shown before it."""
    first = db.search(QUERY, 5, mmr=0.2, **options)
    with pytest.raises(errors.InputError, match=r"mmr and after.*larger k"):
        db.search(QUERY, 5, mmr=0.2, after=first[-1], **options)


def test_why_a_node_is_not_found(db):
    hits = db.search(QUERY, 1000)
    assert db.why_not("nobody", QUERY).reason == "unknown"
    assert db.why_not("bare", QUERY).reason == "no vector"
    for rank in (1, 10, 11, 150, 300):
        told = db.why_not(hits[rank - 1].id, QUERY)
        assert (told.rank, told.score, told.kth) == (rank, hits[rank - 1].score, hits[9].score)
        assert told.reason == ("found" if rank <= 10 else "beyond k")
    filtered = db.why_not("n000", QUERY, type="note")
    assert (filtered.reason, filtered.detail) == ("filtered", "type='note'")
    assert db.why_not("n001", QUERY, 1000, min_score=0.999).reason == "below min_score"
    once = {"ids": iter(["n000", "n001"]), "where": ("title <> ?", iter(["it's"]))}
    assert db.why_not("n001", QUERY, 2, **once).rank == 1
    filtered = db.why_not("n002", QUERY, ids=iter(["n000", "n001"]))
    assert (filtered.reason, filtered.detail) == ("filtered", "ids=['n000', 'n001']")
    with pytest.raises(errors.InputError, match="colour"):
        db.why_not("n001", QUERY, colour="red")
    with pytest.raises(errors.InputError, match="one query"):
        db.why_not("n001", [QUERY])


def test_explain(db):
    for memory in ("resident", "stream"):
        told = db.search(QUERY, 5, type="note", memory=memory, explain=True).explain
        assert told.path == memory
        assert told.passed == 200
        assert all(seconds >= 0 for seconds in told.seconds.values())
    assert told.scored == 200, "a scan scores every row that passes"
    assert db.search(QUERY, 5).explain is None
    both_answers = db.search([QUERY, -QUERY], 5, explain=True)
    assert both_answers[0].explain == both_answers[1].explain


@pytest.mark.parametrize("wrong", [{"k": -1}, {"k": True}, {"k": 1.5}, {"min_score": float("nan")}])
def test_numbers_that_mean_nothing(db, wrong):
    with pytest.raises(errors.InputError):
        db.search(QUERY, **wrong)


def test_a_scan_keeps_few_rows(tmp_path):
    """Rows that come in the order of their scores, worst first, are the hardest for it."""
    from resonance import _core

    rows = 60_000
    angles = np.linspace(np.pi, 0, rows)
    with ResonanceDB(tmp_path / "x.db", scratch=True) as db:
        db.insert_nodes(
            id=[f"{number:06d}" for number in range(rows)],
            embedding=np.stack([np.cos(angles), np.sin(angles)], axis=1),
        )
        with db.snapshot() as connection:
            rowids, scores, seen = _core.score_vectors(
                connection, "SELECT rowid, embedding FROM nodes ORDER BY rowid", (), np.array([1.0, 0.0]), 5
            )
        assert seen == rows
        assert len(rowids) == len(scores) < 100, "the best and what ties with them"
        assert [hit.id for hit in db.search([1, 0], 5, memory="stream")] == [
            hit.id for hit in db.search([1, 0], 5)
        ]


def test_as_many_labels_as_rows(tmp_path):
    """More than one reader numbers them, and their numbers are brought together."""
    rows = 3 * 8192
    domains = [f"{'long ' * (number % 40)}{number}" for number in range(rows)]
    domains[:4] = ["", "é", "日本", "x" * 10_000]
    with ResonanceDB(tmp_path / "x.db") as db:
        db.insert_nodes(
            id=[f"n{number:05d}" for number in range(rows)],
            domain=domains,
            type=["even" if number % 2 == 0 else None for number in range(rows)],
            embedding=unit(rows, 2, seed=1),
        )
        for number in (0, 1, 2, 3, 8191, 8192, 16_385, rows - 1):
            assert [hit.id for hit in both(db, [1, 0], domain=domains[number])] == [f"n{number:05d}"]
        assert both(db, [1, 0], domain="nowhere") == []
        assert len(both(db, [1, 0], rows, type="even")) == rows // 2
        db.insert_node({"id": "new", "domain": "as yet unknown", "embedding": [1, 0]})
        assert [hit.id for hit in both(db, [1, 0], domain="as yet unknown")] == ["new"]
