"""Vectors belong to one model; those of two are never mixed."""

import itertools

import numpy as np
import pytest

from resonance import bulk, errors
from resonance.model import Node, Space
from support import unit

SMALL = Space("small-model", 4, "r1")


def test_the_first_vectors_define_the_space(db):
    assert db.space is None
    db.insert_nodes(id=["a"])
    assert db.space is None
    db.insert_nodes(id=["a", "b"], embedding=unit(2, 7))
    assert db.space == Space("unnamed", 7)
    with pytest.raises(errors.EmbeddingError, match="7"):
        db.insert_nodes(id=["c"], embedding=unit(1, 8))
    with pytest.raises(errors.EmbeddingError, match="7"):
        db.search(np.ones(8))
    assert db.get_node("c") is None


def test_a_width_may_be_any_whole_number(db):
    db.set_space(Space("wide", np.int64(3)))
    db.add_space(Space("narrow", np.uint8(2)))
    assert [(found.space.dims, type(found.space.dims)) for found in db.spaces()] == [(3, int), (2, int)]


def test_two_widths_in_one_batch(db):
    with pytest.raises(errors.InputError):
        db.insert_nodes([Node("a", embedding=[1, 0]), Node("b", title="x", embedding=[1, 0, 0])])
    assert db.space is None
    assert db.get_nodes() == []


def test_a_space_that_is_undone(db):
    with pytest.raises(ZeroDivisionError), db.transaction():  # noqa: PT012
        db.insert_node(Node("a", embedding=[1, 0]))
        assert db.space == Space("unnamed", 2)
        raise ZeroDivisionError
    assert db.space is None
    db.insert_node(Node("a", embedding=[1, 0, 0]))
    assert db.space.dims == 3


def test_naming_a_space_first(db):
    db.set_space(SMALL)
    assert db.space == SMALL
    with pytest.raises(errors.EmbeddingError):
        db.insert_node(Node("a", embedding=[1, 0]))
    db.insert_node(Node("a", embedding=[1, 0, 0, 0]))
    db.set_space(SMALL)
    assert db.get_stats().vectors == 1


@pytest.mark.parametrize(
    "other",
    [
        Space("other", 4, "r1"),
        Space("small-model", 4, "r2"),
        Space("small-model", 5, "r1"),
        SMALL._replace(normalisation="none"),
    ],
)
def test_another_space(db, other):
    """Equal width is not enough: two models of 384 dimensions gave wrong answers for weeks."""
    db.set_space(SMALL)
    db.insert_nodes(id=["a", "b"], embedding=[[1, 0, 0, 0], None])
    with pytest.raises(errors.SpaceError, match="replace=True"):
        db.set_space(other)
    assert (db.space, db.get_stats().vectors) == (SMALL, 1)
    db.set_space(other, replace=True)
    assert (db.space, db.get_stats().vectors) == (other, 0)
    assert [node.id for node in db.get_nodes()] == ["a", "b"]
    db.insert_node(Node("a", embedding=unit(1, other.dims)[0]))
    db.set_space(SMALL, replace=True)
    assert db.space == SMALL
    assert db.query("SELECT count(*) FROM spaces WHERE active = 1") == [(1,)]
    assert db.get_history(action="activate", limit=1)[0].new_value["dropped"] == 1


def test_another_space_with_no_vectors_in_the_way(db):
    db.set_space(SMALL)
    db.set_space(Space("other", 9))
    assert db.space == Space("other", 9)


@pytest.mark.parametrize("dims", [0, -1])
def test_spaces_that_cannot_be(db, dims):
    with pytest.raises(errors.SpaceError):
        db.set_space(Space("x", dims))
    assert db.space is None


def test_vectors_out(db):
    vectors = unit(10, 5)
    db.insert_nodes(
        id=[f"n{i}" for i in range(10)],
        embedding=[vector if i % 3 else None for i, vector in enumerate(vectors)],
        domain=["x", "y"] * 5,
        type="t",
    )
    matrix = db.embeddings()
    assert matrix.vectors.dtype == np.float32
    assert matrix.vectors.flags.c_contiguous
    assert matrix.vectors.shape == (6, 5)
    wanted = {f"n{i}": vectors[i] for i in range(10) if i % 3}
    assert set(matrix.ids) == set(wanted)
    for node_id, row in zip(matrix.ids, matrix.vectors, strict=True):
        assert np.array_equal(row, wanted[node_id])
    assert set(db.embeddings(domain="x").ids) == {"n2", "n4", "n8"}
    assert db.embeddings(type="none").ids == []
    assert db.embeddings(type="none").vectors.shape == (0, 5)
    matrix.vectors[:] = 0
    assert db.embeddings().vectors.any(), "it was the caller's own"


def test_ids_beside_vectors(db):
    """They are bytes until somebody wants them, and as many as there are rows."""
    ids = [f"größe {i}" for i in range(20_000)]
    db.insert_nodes(id=ids, embedding=[vector if i % 5 else None for i, vector in enumerate(unit(20_000, 3))])
    matrix = db.embeddings()
    data, ends = matrix.names.buffers()
    assert len(matrix) == len(matrix.vectors) == len(ends) - 1 == 16_000
    assert data[ends[7] : ends[8]].tobytes().decode() == matrix.ids[7]
    assert set(matrix.ids) == {f"größe {i}" for i in range(20_000) if i % 5}
    assert matrix.ids is matrix.ids
    assert matrix.to_arrow()["id"].to_pylist() == matrix.ids


def test_no_vectors_out(db):
    assert db.embeddings().ids == []
    assert db.embeddings().vectors.shape == (0, 0)
    assert list(db.iter_embeddings()) == []
    db.insert_nodes(id=["a"])
    assert db.embeddings().ids == []
    table = db.embeddings().to_arrow()
    assert (table.num_rows, table.column_names) == (0, ["id", "embedding"])
    assert str(table.schema.field("embedding").type.value_type) == "float"
    assert db.insert_nodes(table).rows == 0
    db.insert_nodes(id=["a"], embedding=[[1, 0]])
    db.delete_nodes(["a"])
    assert db.embeddings().to_arrow().schema.field("embedding").type.list_size == 2


@pytest.mark.parametrize("size", [1, 3, 7, 10, 100])
def test_vectors_in_pieces(db, size):
    db.insert_nodes(id=[f"n{i}" for i in range(11)], embedding=[None, *unit(10, 4)])
    pieces = list(db.iter_embeddings(size))
    assert all(0 < len(piece.ids) <= size for piece in pieces)
    assert [node_id for piece in pieces for node_id in piece.ids] == db.embeddings().ids
    assert np.array_equal(np.concatenate([piece.vectors for piece in pieces]), db.embeddings().vectors)
    for one, two in itertools.pairwise(pieces):
        assert not np.shares_memory(one.vectors, two.vectors)


def test_pieces_while_others_write(db):
    """No snapshot is kept; rows that stay are seen once."""
    db.insert_nodes(id=[f"n{i:02d}" for i in range(20)], embedding=unit(20, 4))
    seen = []
    for number, piece in enumerate(db.iter_embeddings(3)):
        seen += piece.ids
        db.insert_node(Node(f"new{number}", embedding=[1, 0, 0, 0])) if number < 3 else None
        db.delete_nodes([f"n{19 - number:02d}"]) if number < 2 else None
    assert len(seen) == len(set(seen))
    assert {f"n{i:02d}" for i in range(18)} <= set(seen)
    assert len(next(db.iter_embeddings(10**20))) == len(db.embeddings())
    for wrong in (0, -1, "a", True, 2.5, None):
        with pytest.raises(errors.InputError, match="batch_size"):
            db.iter_embeddings(wrong)


def test_pieces_are_of_one_space(db):
    ids = [f"n{i}" for i in range(9)]
    db.insert_nodes(id=ids, embedding=unit(9, 4))
    pieces = db.iter_embeddings(3)
    assert len(next(pieces)) == 3
    db.set_space(Space("other", 4), replace=True)
    db.insert_nodes(id=ids, embedding=unit(9, 4, seed=1))
    with pytest.raises(errors.SpaceError, match="another space"):
        next(pieces)


def test_a_shared_load_stops_when_its_space_is_not_in_use_any_more(db, monkeypatch):
    monkeypatch.setattr(bulk, "SHARED_HOLD", 0)
    monkeypatch.setattr(bulk, "SHARED_PAUSE", 0)

    def switch(done, total):
        if db.space.name == "unnamed":
            db.set_space(Space("other", 4), replace=True)

    ids = [f"n{i:03}" for i in range(100)]
    with pytest.raises(errors.SpaceError, match="not the active space"):
        db.insert_nodes(id=ids, embedding=unit(100, 4), mode="shared", progress=switch)
    assert len(db.embeddings()) == 0
    assert db.insert_nodes(id=ids, title="t", mode="shared", progress=switch).rows == 100


@pytest.mark.parametrize("damage", ["zeroblob(12)", "x''", "zeroblob(4004)"])
def test_a_stored_vector_of_the_wrong_width(db, damage):
    db.insert_nodes(id=[f"n{i}" for i in range(50)], embedding=unit(50, 4))
    with db.transaction() as connection:
        connection.execute(f"UPDATE nodes SET embedding = {damage} WHERE id = 'n33'")
    for call in (db.embeddings, lambda: list(db.iter_embeddings(7)), lambda: list(db.iter_embeddings())):
        with pytest.raises(errors.CorruptRowError, match=r"'n33'.*4 float32") as caught:
            call()
        assert caught.value.node_id == "n33"
    db.delete_nodes(["n33"])
    assert len(db.embeddings().ids) == 49


def test_ids_that_are_not_text(db):
    db.insert_nodes(id=["a"], embedding=[[1, 0]])
    with db.transaction() as connection:
        connection.execute("INSERT INTO nodes (id, embedding) VALUES (CAST(x'ff41' AS TEXT), zeroblob(8))")
    for call in (db.embeddings, lambda: list(db.iter_embeddings()), db.get_nodes, db.to_arrow):
        with pytest.raises(errors.CorruptRowError):
            call()
