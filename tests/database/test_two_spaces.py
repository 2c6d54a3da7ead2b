"""Vectors of a second model: filled beside those in use, switched in as a whole, and back."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resonance import MissingVectors, ResonanceDB, SpaceInfo, errors
from resonance.model import Node, Space
from resonance.vault.embed import CallableEmbedder
from support import Background, unit

OLD = Space("old", 5, "r1")
NEW = Space("new", 3, "r1")
IDS = [f"n{i:02d}" for i in range(20)]


@pytest.fixture
def two(db):
    """Twenty nodes with a vector of the old model, each its hash, and the new model known."""
    db.set_space(OLD)
    db.insert_nodes(id=IDS, embedding=unit(20, 5), hash=[f"h{i}" for i in range(20)], type=["x", "y"] * 10)
    db.add_space(NEW)
    return db


def fill(db, space=NEW, seed=1, limit=7):
    """As a user would: a piece at a time."""
    after = None
    while batch := db.missing_vectors(space, limit, after=after):
        vectors = unit(len(batch), db_dims(db, space), seed)
        db.insert_vectors(space, batch.ids, vectors, stamps=batch.stamps)
        after = batch.ids[-1]


def db_dims(db, space):
    return (
        space.dims if isinstance(space, Space) else {i.space.name: i.space.dims for i in db.spaces()}[space]
    )


def stored(db, space):
    """What is kept of a space: id -> (bytes, hash)."""
    return {
        node: (blob, text)
        for node, blob, text in db.query(
            "SELECT node, embedding, hash FROM vectors WHERE space = "
            "(SELECT id FROM spaces WHERE name = ? AND dims = ?)",
            (space.name, space.dims),
        )
    }


def in_nodes(db):
    return dict(db.query("SELECT id, embedding FROM nodes"))


# --- filling ---------------------------------------------------------------------------------------


def test_a_second_space_beside_the_first(two):
    assert two.spaces() == [SpaceInfo(OLD, True, 20, 0, 0), SpaceInfo(NEW, False, 0, 20, 0)]
    vectors = 7.5 * unit(20, 3, 1).astype(np.float64)
    report = two.insert_vectors("new", IDS, vectors)
    assert (report.rows, report.inserted, report.skipped) == (20, 20, 0)
    assert two.spaces() == [SpaceInfo(OLD, True, 20, 0, 0), SpaceInfo(NEW, False, 20, 0, 0)]
    assert [info.is_complete for info in two.spaces()] == [True, True]
    assert two.space == OLD
    kept = np.array([np.frombuffer(stored(two, NEW)[node][0], "<f4") for node in IDS])
    assert np.allclose(np.linalg.norm(kept, axis=1), 1, atol=1e-6)
    assert np.allclose(kept, unit(20, 3, 1), atol=1e-6)
    assert two.insert_vectors(NEW, IDS, vectors).unchanged == 20
    assert two.insert_vectors(NEW, IDS[:2], vectors[2:4]).updated == 2
    assert (two.get_stats().vectors, two.get_stats().other_vectors) == (20, 20)


def test_vectors_are_stored_as_insert_nodes_stores_them(two, tmp_path):
    wild = np.random.default_rng(3).normal(size=(20, 3)) * np.logspace(-30, 30, 20)[:, None]
    two.insert_vectors(NEW, IDS, wild)
    with ResonanceDB(tmp_path / "other.db") as other:
        other.insert_nodes(id=IDS, embedding=wild)
        assert {node: blob for node, (blob, _) in stored(two, NEW).items()} == in_nodes(other)


def test_filling_goes_on_where_it_was_cut_off(two):
    batch = two.missing_vectors(NEW, 7)
    assert batch == MissingVectors(IDS[:7], [f"h{i}" for i in range(7)])
    two.insert_vectors(NEW, batch.ids, unit(7, 3), stamps=batch.stamps)
    assert two.missing_vectors(NEW, 3).ids == IDS[7:10]
    assert two.missing_vectors(NEW, 3, after=IDS[10]).ids == IDS[11:14]
    fill(two)
    assert not two.missing_vectors(NEW)


def test_a_model_that_has_nothing_to_say_misses_nothing(two):
    vectors = unit(20, 3)
    vectors[4] = 0
    assert two.insert_vectors(NEW, IDS, vectors).zero_vectors == 1
    assert two.spaces()[1] == SpaceInfo(NEW, False, 19, 0, 0)
    two.switch_space(NEW)
    assert [node for node, blob in in_nodes(two).items() if blob is None] == ["n04"]
    assert two.spaces() == [SpaceInfo(NEW, True, 19, 0, 0), SpaceInfo(OLD, False, 20, 0, 0)]


@pytest.mark.parametrize(
    ("ids", "vectors", "error", "match"),
    [
        (["n00", "n01"], np.ones((2, 4)), errors.EmbeddingError, "4"),
        (["n00", "n01"], [[1, 2, 3], [1, np.nan, 0]], errors.EmbeddingError, "row 1"),
        (["n00", "n01"], [[1, 2, 3]], errors.ColumnError, "rows"),
        (["n00", "n00"], np.ones((2, 3)), errors.DuplicateNodeError, "row 1"),
        (["n00", "who"], np.ones((2, 3)), errors.UnknownNodesError, "row 1: 'who'"),
        (["n00", None], np.ones((2, 3)), errors.InputError, "row 1"),
        (["n00", ""], np.ones((2, 3)), errors.InvalidIdError, "row 1"),
        (["n00"], b"\0" * 12, errors.EmbeddingError, "dtype"),
        ("n00", np.ones((3, 3)), errors.InputError, "not a sequence of ids"),
        (None, np.ones((3, 3)), errors.InputError, "not a sequence of ids"),
        ([], [[1, 2, 3]], errors.ColumnError, "rows"),
    ],
)
def test_rows_that_are_wrong_are_named_and_nothing_is_written(two, ids, vectors, error, match):
    with pytest.raises(error, match=match):
        two.insert_vectors(NEW, ids, vectors)
    assert stored(two, NEW) == {}


@pytest.mark.parametrize("none", [[], np.array([]), np.ones((0, 3))], ids=["list", "array", "matrix"])
def test_no_rows_at_all(two, none):
    assert two.insert_vectors(NEW, [], none).rows == 0


@pytest.mark.parametrize("limit", [0, "1", 1.5])
def test_how_many_to_tell_of_is_a_whole_number(two, limit):
    with pytest.raises(errors.InputError, match="limit="):
        two.missing_vectors(NEW, limit)


def test_the_active_space_is_written_through_the_nodes(two):
    for call in (
        lambda: two.insert_vectors(OLD, ["n00"], unit(1, 5)),
        lambda: two.missing_vectors("old"),
        lambda: two.drop_space(OLD),
    ):
        with pytest.raises(errors.SpaceError, match="active"):
            call()
    for call in (
        lambda: two.insert_vectors("nobody", ["n00"], unit(1, 5)),
        lambda: two.switch_space(Space("new", 4, "r1")),
        lambda: two.search(np.ones(5), space="nobody"),
    ):
        with pytest.raises(errors.SpaceError, match="there are: old@r1"):
            call()


def test_a_name_that_two_spaces_have(two):
    two.add_space(NEW._replace(revision="r2"))
    with pytest.raises(errors.SpaceError, match="say which"):
        two.switch_space("new")
    assert two.missing_vectors("new@r2", 1).ids == ["n00"]
    for wrong in (Space("x", 0), Space("", 3), Space("unnamed", 3)):
        with pytest.raises(errors.SpaceError):
            two.add_space(wrong)


@pytest.mark.parametrize(
    "wrong", ["m5", 5, ("m5", 5), Space("m5", "5"), Space("m5", 2.5), Space(5, 5)], ids=str
)
def test_what_is_no_space(two, wrong):
    with pytest.raises(errors.InputError, match=r"give a (Space\(name|whole number)"):
        two.add_space(wrong)
    with pytest.raises(errors.InputError, match=r"give a (Space\(name|whole number)"):
        two.set_space(wrong, replace=True)
    assert two.space == OLD
    for call in (
        lambda: two.search(np.ones(5), space=5),
        lambda: two.missing_vectors(5),
        lambda: two.insert_vectors(5, IDS, unit(20, 3)),
        lambda: two.switch_space(5),
        lambda: two.drop_space(None),
    ):
        with pytest.raises(errors.InputError, match="give a Space, its name"):
            call()


# --- what goes out of date -------------------------------------------------------------------------


def change_hash(db):
    db.insert_node({"id": "n03", "hash": "another"})


def change_vector(db):
    db.insert_node({"id": "n03", "embedding": [0, 0, 0, 0, 1]})


def lose_vector_and_hash(db):
    db.insert_nodes(id=["n03"], embedding=[None], hash=["another"], mode="shared")
    db.insert_node({"id": "n03", "embedding": [0, 1, 0, 0, 0]})


def change_in_bulk(db):
    rows = [f"b{i:04d}" for i in range(3000)]
    db.insert_nodes(id=[*rows, "n03"], embedding=unit(3001, 5, 9))
    db.insert_vectors(NEW, rows, unit(3000, 3))


def change_behind_our_back(db):
    with db.transaction() as connection:
        connection.execute("UPDATE nodes SET hash = 'x' WHERE id = 'n03'")


CHANGES = [change_hash, change_vector, lose_vector_and_hash, change_in_bulk, change_behind_our_back]


@pytest.mark.parametrize("change", CHANGES)
def test_a_vector_that_is_out_of_date_is_never_switched_in(two, change):
    fill(two)
    change(two)
    info = two.spaces()[1]
    assert info.missing == 1
    assert info.outdated <= 1
    assert two.missing_vectors(NEW).ids == ["n03"]
    assert "n03" not in [hit.id for hit in two.search(np.ones(3), 5000, space=NEW)]
    before = in_nodes(two), stored(two, NEW)
    with pytest.raises(errors.SpaceError, match="1 node without"):
        two.switch_space(NEW)
    assert (in_nodes(two), stored(two, NEW)) == before
    two.switch_space(NEW, require_complete=False)
    assert in_nodes(two)["n03"] is None
    assert two.spaces()[0].missing == 1, "it is remembered that this one is owed"


def test_a_node_that_comes_while_two_spaces_live(two):
    fill(two)
    two.insert_node(Node("late", embedding=unit(1, 5, 4)[0]))
    assert two.missing_vectors(NEW).ids == ["late"]
    two.delete_nodes(["late", "n00"])
    assert two.spaces()[1] == SpaceInfo(NEW, False, 19, 0, 0)
    assert two.query("SELECT count(*) FROM vectors") == [(19,)]


def test_what_changes_nothing_of_the_text_keeps_the_vector(two):
    fill(two)
    two.insert_nodes(id=IDS, title="another", domain="d", embedding=unit(20, 5))
    two.update_node_meta("n03", {"a": 1})
    assert two.spaces()[1].is_complete


@pytest.mark.parametrize("hashed", [True, False])
def test_a_node_that_changes_while_it_is_being_embedded(db, hashed):
    """The race of every filler: the text was read, then somebody wrote."""
    db.insert_nodes(id=IDS, embedding=unit(20, 5), hash="h" if hashed else None)
    db.add_space(NEW)
    batch = db.missing_vectors(NEW)
    db.insert_node({"id": "n05", "hash": "h2"} if hashed else {"id": "n05", "embedding": [0, 0, 0, 0, 1]})
    db.delete_nodes(["n09"])
    report = db.insert_vectors(NEW, batch.ids, unit(20, 3), stamps=batch.stamps)
    assert report.problems == ((5, "'n05' has changed since"), (9, "'n09' is gone"))
    assert (report.inserted, report.skipped) == (18, 2)
    assert db.missing_vectors(NEW).ids == ["n05"]


# --- the switch ------------------------------------------------------------------------------------


def test_switching_there_and_back(two):
    fill(two)
    old, new = in_nodes(two), stored(two, NEW)
    info = two.switch_space("new")
    assert info == SpaceInfo(NEW, True, 20, 0, 0)
    assert two.space == NEW
    assert in_nodes(two) == {node: blob for node, (blob, _) in new.items()}
    assert two.search(np.ones(3), 1)[0].score == max(hit.score for hit in two.search(np.ones(3), 20))
    with pytest.raises(errors.EmbeddingError, match=r"pass space= to search old@r1 \(5 dimensions\)"):
        two.search(np.ones(5))
    two.switch_space(NEW)
    two.switch_space(OLD)
    assert (in_nodes(two), stored(two, NEW)) == (old, new)
    assert [entry.action for entry in two.get_history(entity_type="space")] == [
        "switch", "switch", "add", "activate",
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_there_and_back_is_the_same_bit_for_bit(data):
    """Whatever is stored where: with and without vectors, hashes, rows out of date, gaps in the rows."""
    with ResonanceDB(":memory:") as db:
        count = data.draw(st.integers(1, 12))
        seed = data.draw(st.integers(0, 2**32 - 1))
        some = st.lists(st.booleans(), min_size=count, max_size=count)
        ids = [f"n{i}" for i in range(count)]
        db.set_space(OLD)
        db.insert_nodes(
            id=ids,
            embedding=[
                row if has else None for row, has in zip(unit(count, 5, seed), data.draw(some), strict=True)
            ],
            hash=[f"h{i}" if has else None for i, has in enumerate(data.draw(some))],
        )
        db.delete_nodes([node for node, gone in zip(ids, data.draw(some), strict=True) if gone])
        db.add_space(NEW)
        fill(db, seed=seed, limit=3)
        extra = [node.id for node in db.get_nodes() if data.draw(st.booleans())]
        db.insert_vectors(NEW, extra, unit(len(extra), 3, seed + 1))
        before = in_nodes(db), stored(db, NEW)
        for _ in range(data.draw(st.integers(1, 3))):
            db.switch_space(NEW)
            assert {k: v for k, v in in_nodes(db).items() if v} == {
                k: v for k, (v, _) in before[1].items() if v
            }
            db.switch_space(OLD)
            assert (in_nodes(db), stored(db, NEW)) == before


def test_what_is_owed_stays_owed(two):
    """A switch that leaves nodes without a vector, and back, does not make them complete."""
    batch = two.missing_vectors(NEW, 8)
    two.insert_vectors(NEW, batch.ids, unit(8, 3), stamps=batch.stamps)
    old = in_nodes(two)
    assert two.switch_space(NEW, require_complete=False) == SpaceInfo(NEW, True, 8, 12, 0)
    two.insert_node({"id": "n10", "embedding": [1, 0, 0]})
    assert two.spaces()[0] == SpaceInfo(NEW, True, 9, 11, 0)
    assert two.missing_vectors(OLD).ids == ["n10"], "somebody gave it another vector"
    with pytest.raises(errors.SpaceError):
        two.switch_space(OLD)
    two.insert_vectors(OLD, ["n10"], np.frombuffer(old["n10"], "<f4")[None])
    two.switch_space(OLD)
    assert in_nodes(two) == old
    assert two.spaces()[1] == SpaceInfo(NEW, False, 9, 11, 11)


def test_a_node_that_comes_between_the_look_and_the_switch(two):
    """What was looked at without the lock is not what is switched."""
    fill(two)
    before = in_nodes(two)
    with two.snapshot():
        Background(two.insert_node, Node("late", embedding=unit(1, 5)[0])).result()
        with pytest.raises(errors.SpaceError, match="1 node without"):
            two.switch_space(NEW)
    assert two.space == OLD
    assert {node: blob for node, blob in in_nodes(two).items() if node != "late"} == before
    assert two.spaces()[1] == SpaceInfo(NEW, False, 20, 1, 0)


def test_a_switch_that_is_undone_with_its_transaction(two):
    fill(two)
    before = in_nodes(two)
    two.search(np.ones(5))
    with pytest.raises(ZeroDivisionError), two.transaction():  # noqa: PT012
        two.switch_space(NEW)
        assert two.space == NEW
        assert len(two.search(np.ones(3), 20)) == 20
        raise ZeroDivisionError
    assert (two.space, in_nodes(two)) == (OLD, before)
    assert len(two.search(np.ones(5), 20)) == 20
    two.insert_node({"id": "n01", "embedding": [0, 0, 0, 0, 1]})
    assert two.missing_vectors(NEW).ids == ["n01"], "the triggers are back"


def test_more_nodes_than_a_statement_takes(db, monkeypatch):
    from resonance import aside

    monkeypatch.setattr(aside, "_SWITCHED_AT_ONCE", 7)
    db.insert_nodes(id=IDS, embedding=unit(20, 5))
    db.delete_nodes(IDS[3:11])
    db.add_space(NEW)
    fill(db)
    before = in_nodes(db)
    db.switch_space(NEW)
    assert all(len(blob) == 12 for blob in in_nodes(db).values())
    db.switch_space("unnamed")
    assert in_nodes(db) == before


def test_a_switch_takes_every_rowid(two):
    two.insert_vectors(NEW, IDS, unit(20, 3))
    with two.transaction() as writer:
        writer.execute("UPDATE nodes SET rowid = ? WHERE id = 'n03'", (-(2**63),))
        writer.execute("UPDATE nodes SET rowid = ? WHERE id = 'n04'", (2**63 - 1,))
    assert two.switch_space(NEW).vectors == 20
    assert {len(blob) for blob in in_nodes(two).values()} == {12}


def test_dropping_a_space(two):
    fill(two)
    two.switch_space(NEW)
    assert two.drop_space("old") == 20
    assert two.spaces() == [SpaceInfo(NEW, True, 20, 0, 0)]
    assert two.query("SELECT count(*) FROM vectors") == [(0,)]
    two.add_space(OLD)
    assert two.missing_vectors(OLD).ids == IDS


def test_dropping_one_of_many_spaces_in_pieces(db):
    ids = [f"n{i:03d}" for i in range(300)]
    db.insert_nodes(id=ids, embedding=unit(300, 5))
    for space in (NEW, Space("third", 4)):
        db.add_space(space)
    for node in range(0, 300, 50):
        for space in (NEW, Space("third", 4)):
            db.insert_vectors(space, ids[node : node + 50], unit(50, space.dims))
    assert db.drop_space("new") == 300
    assert [info.vectors for info in db.spaces()] == [300, 300]
    with db.transaction():
        assert db.drop_space("third") == 300
    assert db.query("SELECT count(*) FROM vectors") == [(0,)]


def test_a_space_with_vectors_kept_aside_is_switched_to_and_not_set(two):
    fill(two)
    with pytest.raises(errors.SpaceError, match="switch_space"):
        two.set_space(NEW, replace=True)
    two.set_space(Space("third", 2), replace=True)
    assert [info.space.name for info in two.spaces()] == ["third", "old", "new"]


def test_the_first_space_may_be_filled_aside_too(db):
    db.insert_nodes(id=IDS)
    db.add_space(NEW)
    assert not db.missing_vectors(NEW), "no vector is wanted anywhere"
    db.insert_vectors(NEW, IDS[:5], unit(5, 3))
    db.switch_space(NEW)
    assert db.embeddings().ids == IDS[:5]


# --- search ----------------------------------------------------------------------------------------


def test_searching_the_space_that_is_not_active(two):
    fill(two, limit=20)
    vectors, query = unit(20, 3, 1), unit(1, 3, 8)[0]
    wanted = sorted(zip(-(vectors.astype(float) @ query.astype(float)), IDS, strict=True))
    for space in (NEW, "new", "new@r1"):
        hits = two.search(query, 20, space=space, explain=True)
        assert [hit.id for hit in hits] == [node for _, node in wanted]
        assert np.allclose([-hit.score for hit in hits], [score for score, _ in wanted], atol=1e-6)
        assert hits.explain.path == "stream"
    only = two.search(query, 20, space=NEW, type="x", where=("hash <> ? AND id > ''", ["h0"]))
    assert [hit.id for hit in only] == [n for _, n in wanted if int(n[1:]) % 2 == 0 and n != "n00"]
    diverse = two.search(query, 5, space=NEW, mmr=0.5)
    assert {hit.id: hit.score for hit in diverse}.items() <= {h.id: h.score for h in hits}.items()
    assert two.search(unit(1, 5)[0], 1, space=OLD, explain=True)[0].id == "n00"
    for space, width in ((NEW, 5), (OLD, 3)):
        with pytest.raises(errors.SpaceError, match=f"{width} dimensions"):
            two.search(np.ones(width), space=space)
    two.switch_space(NEW)
    assert two.search(query, 20) == hits
    assert two.search(query, 5, mmr=0.5) == diverse


def test_the_index_follows_a_switch_at_once(db):
    """Of the same width, so that nothing but the log of changes could tell."""
    twin = Space("twin", 5)
    db.insert_nodes(id=IDS, embedding=unit(20, 5))
    db.add_space(twin)
    db.insert_vectors(twin, IDS, unit(20, 5, 7))
    for space, seed in (("unnamed", 0), (twin, 7), ("unnamed", 0), (twin, 7)):
        db.switch_space(space)
        hits = db.search(unit(20, 5, seed)[3], 1, explain=True)
        assert (hits[0].id, round(hits[0].score, 5)) == ("n03", 1)
        assert hits.explain.path == "resident"


def test_the_index_does_not_keep_a_row_that_was_far_away(db):
    """The best of the old space is as good in the new one, so that its code fits; another is better now."""
    twin = Space("twin", 3)
    db.insert_nodes(id=["a", "b", "c"], embedding=[[1, 1, 0], [0, 0, 1], [0, 1, 1]])
    db.add_space(twin)
    db.insert_vectors(twin, ["a", "b", "c"], [[1, 1, 0], [1, 0, 0], [0, 1, 1]])
    assert [hit.id for hit in db.search([1, 0, 0], 1)] == ["a"]
    db.switch_space(twin)
    assert [hit.id for hit in db.search([1, 0, 0], 1)] == ["b"]


@pytest.mark.parametrize("memory", ["resident", "stream"])
def test_readers_get_answers_entirely_of_one_space(path, memory):
    """Same width: a mixture would have no error to tell of it, only wrong scores."""
    twin, ids = Space("twin", 8), [f"n{i:04d}" for i in range(1500)]
    matrices = [unit(1500, 8, 0), unit(1500, 8, 1)]
    query = unit(1, 8, 2)[0]
    answers = []
    for matrix in matrices:
        scores = matrix.astype(float) @ query.astype(float)
        answers.append([ids[row] for row in sorted(range(1500), key=lambda row: (-scores[row], ids[row]))])
    done = threading.Event()

    def read():
        seen = [0, 0]
        while not done.is_set():
            found = [hit.id for hit in db.search(query, 1500, memory=memory)]
            assert found in answers
            seen[answers.index(found)] += 1
        return seen

    with ResonanceDB(path) as db:
        db.insert_nodes(id=ids, embedding=matrices[0])
        db.add_space(twin)
        db.insert_vectors(twin, ids, matrices[1])
        with db.snapshot():
            before = [hit.id for hit in db.search(query, 1500, memory=memory)]
            Background(db.switch_space, twin).result()
            assert [hit.id for hit in db.search(query, 1500, memory=memory)] == before
        readers = [Background(read) for _ in range(2)]
        for turn in range(8):
            db.switch_space(("unnamed", twin)[turn % 2])
            time.sleep(0.02)
        done.set()
        seen = np.sum([reader.result() for reader in readers], axis=0)
    assert (seen > 0).all()


def test_filling_while_others_write_and_read(path):
    """The switch happens only when nothing is missing, however often somebody writes in between."""
    with ResonanceDB(path) as db:
        db.insert_nodes(id=IDS, embedding=unit(20, 5), hash="h0")
        db.add_space(NEW)
        stop = threading.Event()

        def write():
            turn = 0
            while not stop.is_set():
                turn += 1
                db.insert_node({"id": IDS[turn % 20], "hash": f"h{turn}", "embedding": unit(1, 5, turn)[0]})
                db.search(unit(1, 5)[0], 3)
            return turn

        writer = Background(write)
        for _ in range(30):
            fill(db)
        stop.set()
        assert writer.result() > 0
        fill(db)
        db.switch_space(NEW)
        texts = dict(db.query("SELECT id, hash FROM nodes"))
        db.switch_space("unnamed")
        assert {node: text for node, (_, text) in stored(db, NEW).items()} == texts


def test_a_question_is_asked_of_the_space_it_was_embedded_for(db):
    """Even if another one of the same width is switched to in between."""
    twin = Space("twin", 3)
    db.set_space(Space("first", 3))
    db.insert_nodes(id=["a", "b"], embedding=[[1, 0, 0], [0, 1, 0]])
    db.add_space(twin)
    db.insert_vectors(twin, ["a", "b"], [[0, 1, 0], [1, 0, 0]])

    def embed(texts):
        db.switch_space(twin)
        return np.array([[1, 0, 0]])

    db._embedder = CallableEmbedder(embed, Space("first", 3))
    assert db.search_hybrid("anything", 1)[0].id == "a"
    assert db.space == twin
    assert db.search([1, 0, 0], 1)[0].id == "b"


# --- care ------------------------------------------------------------------------------------------


def test_backup_vacuum_and_digest(two, tmp_path):
    fill(two)
    digest = two.digest().root
    two.backup(tmp_path / "copy.db")
    two.vacuum()
    with ResonanceDB(tmp_path / "copy.db") as copy:
        assert stored(copy, NEW) == stored(two, NEW)
        copy.drop_space(NEW)
        assert copy.digest().root == digest, "a digest is of what is in use"
    two.switch_space(NEW)
    assert two.digest().root != digest
    two.switch_space(OLD)
    assert two.digest().root == digest


def test_a_database_built_anew_keeps_what_is_of_the_same_text(path):
    vectors = unit(4, 5)
    with ResonanceDB(path) as db:
        db.insert_nodes(id=["a", "b", "c", "d"], embedding=vectors, hash=["ha", "hb", None, None])
        db.add_space(NEW)
        db.insert_vectors(NEW, ["a", "b", "c", "d"], unit(4, 3))
        with db.rebuild() as fresh:
            fresh.insert_nodes(
                id=["a", "b", "c", "d", "e"],
                embedding=[*vectors[:3], vectors[0], vectors[1]],
                hash=["ha", "another", None, None, "he"],
            )
        assert db.spaces()[1] == SpaceInfo(NEW, False, 2, 3, 0)
        assert db.missing_vectors(NEW).ids == ["b", "d", "e"]
        with db.rebuild() as fresh:
            fresh.insert_nodes(id=["a"])
        assert db.spaces() == [], "nothing is in use, so nothing is beside it"
