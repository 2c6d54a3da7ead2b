"""The full-text index of a database: it follows the nodes, holds none of their text, and answers by BM25."""

import pytest

from resonance import ResonanceDB, Text, engine, errors
from resonance.search import text as fulltext
from support import Child, integrity

pytestmark = pytest.mark.skipif(fulltext.unable() is not None, reason="this engine has no text search")


@pytest.fixture
def filled(db):
    """Four nodes with texts, and one without."""
    db.insert_nodes(id=["a", "b", "c", "d", "silent"], type=["x", "x", "y", "y", "x"], title=list("ABCDS"))
    db.insert_texts(
        [
            Text("a", "apples and pears"),
            Text("b", "pears", title="Apples"),
            Text("c", "nothing of the kind, though it goes on for a while", names="apples"),
            Text("d", "plums"),
        ]
    )
    return db


def ids(hits):
    return [hit.id for hit in hits]


def test_a_word_counts_more_in_a_title_and_in_other_names_than_in_the_body(filled):
    hits = filled.search_text("apples")
    assert ids(hits) == ["b", "c", "a"]
    assert hits.lists == ("text",)
    assert hits.notes == ()
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits[-1].score > 0


def test_more_and_rarer_words_are_better(filled):
    fillers = [f"filler{number}" for number in range(20)]
    filled.insert_nodes(id=fillers)
    filled.insert_texts(Text(name, "and so on") for name in fillers)
    assert ids(filled.search_text("pears plums and", 3)) == ["d", "b", "a"]
    assert ids(filled.search_text("pears apples and", 3))[0] == "b"
    assert ids(filled.search_text("kind pears plums", 1)) == ["d"]


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ({"type": "x"}, ["b", "a"]),
        ({"type": "y"}, ["c"]),
        ({"ids": ["a", "d", "unknown"]}, ["a"]),
        ({"ids": []}, []),
        ({"domain": "nowhere"}, []),
        ({"k": 2}, ["b", "c"]),
        ({"k": 0}, []),
        ({"k": 10**9}, ["b", "c", "a"]),
    ],
)
def test_filters_and_counts(filled, how, wanted):
    assert ids(filled.search_text("apples", **how)) == wanted


def test_ties_are_ordered_by_id(db):
    names = [f"n{number:03}" for number in range(300)]
    db.insert_nodes(id=names[::-1])
    db.insert_texts(Text(name, "the same words") for name in names[::-1])
    assert ids(db.search_text("words", 300)) == names
    assert ids(db.search_text("words", 7)) == names[:7]


def test_phrases_must_occur(filled):
    assert ids(filled.search_text('"apples and pears"')) == ["a"]
    assert ids(filled.search_text('plums "and pears"')) == ["a"]
    assert ids(filled.search_text('"pears and apples"')) == []


def test_a_new_text_takes_the_place_of_the_old_one(filled):
    filled.insert_texts([Text("a", "quinces")])
    assert ids(filled.search_text("pears")) == ["b"]
    assert ids(filled.search_text("quinces")) == ["a"]


def test_deleting_a_node_takes_its_text_along(filled):
    filled.delete_nodes(["b"])
    assert ids(filled.search_text("apples")) == ["c", "a"]
    filled.insert_nodes(id=["b"])
    assert ids(filled.search_text("apples")) == ["c", "a"]


def test_what_is_rolled_back_is_not_in_the_index(filled):
    filled.begin_transaction()
    filled.insert_texts([Text("silent", "quinces")])
    filled.delete_nodes(["a"])
    assert ids(filled.search_text("quinces pears")) == ["silent", "b"]
    filled.rollback()
    assert ids(filled.search_text("quinces")) == []
    assert ids(filled.search_text("and")) == ["a"]


def test_an_upsert_of_the_node_keeps_its_text(filled):
    filled.insert_node({"id": "a", "summary": "of fruit"})
    assert ids(filled.search_text("pears")) == ["b", "a"]


def test_keys_survive_vacuum_and_are_never_given_twice(filled):
    filled.delete_nodes(["d", "silent"])
    before = dict(filled.query("SELECT node, key FROM texts"))
    filled.vacuum()
    assert dict(filled.query("SELECT node, key FROM texts")) == before
    assert ids(filled.search_text("apples")) == ["b", "c", "a"]
    filled.insert_nodes(id=["e"])
    filled.insert_texts([Text("e", "medlars")])
    assert filled.query("SELECT key FROM texts WHERE node = 'e'")[0][0] > 4


def test_the_text_itself_is_not_in_the_file(db, path):
    secret = "xylophonequartz zymurgyfjord " * 50
    db.insert_nodes(id=["a"])
    db.insert_texts([Text("a", secret)])
    db.checkpoint()
    assert b"xylophonequartz zymurgyfjord" not in path.read_bytes()
    assert ids(db.search_text('"zymurgyfjord xylophonequartz"')) == ["a"]


@pytest.mark.parametrize(
    "text",
    [
        '"',
        "'",
        "a OR",
        "NEAR(",
        "*",
        "^",
        "-",
        "(",
        "col:a",
        "\0",
        "\ud800",
        "🎉" * 999,
        "a" * 1_000_000,
        '"' * 9999,
    ],
)
def test_no_question_breaks_it(filled, text):
    assert isinstance(filled.search_text(text), list)


def test_a_long_question_says_what_was_left_out(filled):
    hits = filled.search_text("pears " + " ".join(f"word{number}" for number in range(100_000)))
    assert ids(hits) == ["b", "a"]
    assert "99,937 of its words" in hits.notes[0]
    hits = filled.search_text(" ".join(f'"word{number}"' for number in range(1000)))
    assert hits == []
    assert "936 of its words" in hits.notes[0]


@pytest.mark.parametrize("k", [-1, 1.5, True, "3", None])
def test_a_count_that_is_none(filled, k):
    with pytest.raises(errors.InputError, match="whole number"):
        filled.search_text("apples", k)


@pytest.mark.parametrize("text", [None, b"apples", 7, ["apples"]])
def test_a_text_that_is_none(filled, text):
    with pytest.raises(errors.InputError, match="give a str"):
        filled.search_text(text)


def test_an_index_that_is_not_there(db):
    with pytest.raises(errors.TextSearchError, match="ingest"):
        db.search_text("apples")


def test_texts_of_nodes_that_are_not_there(filled):
    with pytest.raises(errors.ForeignKeyError):
        filled.insert_texts([Text("a", "changed"), Text("nobody", "words")])
    assert ids(filled.search_text("pears")) == ["b", "a"]
    with pytest.raises(errors.InvalidIdError, match="twice"):
        filled.insert_texts([Text("a", "one"), Text("a", "two")])
    with pytest.raises(errors.InvalidIdError):
        filled.insert_texts([Text(7, "one")])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("silent", "row 1: 'silent' is no Text"),
        (None, "row 1: None is no Text"),
        (("silent", "words"), "row 1: .* is no Text"),
        (Text("silent", None), "row 1: body=None is no text"),
        (Text("silent", b"words"), "row 1: body=b'words' is no text"),
        (Text("silent", "words", title=None), "row 1: title=None"),
        (Text("silent", "words", names=["one"]), "row 1: names="),
        (Text("silent", "words", headings=5), "row 1: headings=5"),
    ],
    ids=str,
)
def test_texts_that_are_none(filled, wrong, says):
    with pytest.raises(errors.InputError, match=says):
        filled.insert_texts([Text("a", "changed"), wrong])
    assert ids(filled.search_text("pears")) == ["b", "a"]


def test_an_index_by_other_rules_is_not_asked_but_made_anew(filled, monkeypatch):
    monkeypatch.setattr("resonance.search.tokens.RULES", 99)
    with pytest.raises(errors.TextSearchError, match="other rules"):
        filled.search_text("apples")
    filled.insert_texts([Text("d", "quinces")])
    assert ids(filled.search_text("apples quinces")) == ["d"]


def test_an_engine_that_cannot(filled, monkeypatch):
    """Where the words cannot be removed, forgetting their key keeps them from being found."""
    with monkeypatch.context() as older:
        older.setattr(fulltext, "unable", lambda: "this engine is old")
        with pytest.raises(errors.TextSearchError, match="this engine is old"):
            filled.search_text("apples")
        assert not filled.insert_texts([Text("a", "quinces")])
        filled.delete_nodes(["b"])
    assert ids(filled.search_text("apples pears")) == ["c"]
    with filled.snapshot() as connection:
        assert fulltext.coverage(connection).orphans == 2
    with filled.transaction() as writer:
        fulltext.sweep(writer)
    with filled.snapshot() as connection:
        assert fulltext.coverage(connection) == (2, (), 0)


def test_readers_see_it_in_another_process(filled, path):
    filled.insert_texts([Text("silent", "medlars")])

    def ask():
        with ResonanceDB(path, readonly=True) as other:
            return ids(other.search_text("medlars"))

    assert Child(ask).result() == ["silent"]
    assert integrity(path) == [("ok",)]


def test_the_score_is_bm25(db):
    """By the formula, from the counts of the words: https://sqlite.org/fts5.html#the_bm25_function"""
    import math

    bodies = ["red red blue", "red green green green", "blue", "white"]
    db.insert_nodes(id=list("abcd"))
    db.insert_texts(Text(node, body) for node, body in zip("abcd", bodies, strict=True))
    average = sum(len(body.split()) for body in bodies) / 4

    def score(body, word):
        count, length = body.split().count(word), len(body.split())
        held = sum(word in other.split() for other in bodies)
        rarity = max(math.log((4 - held + 0.5) / (held + 0.5)), 1e-6)
        return rarity * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * length / average))

    for word in ("green", "white"):
        found = {hit.id: hit.score for hit in db.search_text(word)}
        wanted = {node: score(body, word) for node, body in zip("abcd", bodies, strict=True) if word in body}
        assert found == pytest.approx(wanted)
    assert engine()["bundled"]
