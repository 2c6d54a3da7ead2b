"""Hits by document: the best of a document and its sections, as brute force finds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import resonance
from resonance.errors import InputError
from resonance.model import Hit


def fill(db: Any, sizes: list[int], seed: int = 0, dims: int = 4) -> None:
    """Documents d0, d1, ... with so many sections each; coarse vectors, so that scores tie."""
    rng = np.random.default_rng(seed)
    ids, types, owner = [], [], []
    for number, size in enumerate(sizes):
        ids += [f"d{number}", *(f"d{number}#{part}" for part in range(size))]
        types += ["even" if number % 2 == 0 else "odd", *["section"] * size]
        owner += [f"d{number}"] * (size + 1)
    vectors = rng.integers(-1, 2, (len(ids), dims)).astype(np.float32)
    db.insert_nodes(id=ids, type=types, title=[f"title of {node}" for node in ids], embedding=vectors)
    with db.transaction() as connection:
        connection.executemany(
            "INSERT INTO sections VALUES (NULL, ?, ?, ?, ?, ?, ?, '', '')",
            [
                (node, document, row, json.dumps(["T", node]), row, row + 1)
                for row, (node, document) in enumerate(zip(ids, owner, strict=True))
                if node != document
            ],
        )


def brute_force(db: Any, query: list[float], kind: str | None = None) -> list[tuple[str, float, str | None]]:
    owners = dict(db.query("SELECT node, document FROM sections"))
    types = dict(db.query("SELECT id, type FROM nodes"))
    best: dict[str, tuple[float, str]] = {}
    for hit in db.search(query, 10_000, memory="stream"):
        document = owners.get(hit.id, hit.id)
        if kind is None or types[document] == kind:
            best.setdefault(document, (hit.score, hit.id))
    found = [
        (document, score, node if node != document else None) for document, (score, node) in best.items()
    ]
    return sorted(found, key=lambda each: (-each[1], each[0]))


def told(hits: list[Hit]) -> list[tuple[str, float, str | None]]:
    return [(hit.id, hit.score, hit.section) for hit in hits]


@pytest.fixture
def db(tmp_path: Path) -> Any:
    with resonance.ResonanceDB(str(tmp_path / "x.db")) as db:
        yield db


QUERY = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=4, max_size=4).filter(any)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=25), st.integers(0, 99), QUERY, st.integers(0, 12))
def test_groups_are_what_brute_force_finds(sizes: list[int], seed: int, query: list[float], k: int) -> None:
    with resonance.ResonanceDB(":memory:") as db:
        fill(db, sizes, seed)
        expected = brute_force(db, query)
        for memory in ("stream", "resident"):
            assert told(db.search(query, k, group_by="document", memory=memory)) == expected[:k]
        odd = told(db.search(query, k, group_by="document", type="odd"))
        assert odd == brute_force(db, query, "odd")[:k]
        least = [each for each in expected if each[1] >= 0.4]
        assert told(db.search(query, k, group_by="document", min_score=0.4)) == least[:k]
        both = db.search([query, query[::-1]], k, group_by="document")
        assert told(both[0]) == expected[:k]


def test_a_hit_is_the_document_and_names_its_best_section(db: Any) -> None:
    db.insert_nodes(id=["d", "d#a", "e"], title=["D", "A", "E"], embedding=np.eye(3, 4, dtype=np.float32))
    with db.transaction() as connection:
        connection.execute(
            "INSERT INTO sections VALUES (NULL, 'd#a', 'd', 0, '[\"T\", \"A\"]', 5, 9, '', '')"
        )
        connection.execute("INSERT INTO files VALUES ('d.md', 'd', 9, 0, 0, '', '')")
    first = db.search([0.1, 1, 0, 0], 1, group_by="document")[0]
    assert (first.id, first.title, first.path) == ("d", "D", "d.md")
    assert (first.section, first.heading, first.span) == ("d#a", ("T", "A"), (5, 9))
    alone = db.search([0.1, 1, 0, 0], 1)[0]
    assert (alone.id, alone.title, alone.path, alone.document) == ("d#a", "A", "d.md", "d")
    assert (alone.section, alone.heading, alone.span) == ("d#a", ("T", "A"), (5, 9))
    own = db.search([1, 0.1, 0, 0], 1, group_by="document")[0]
    assert (own.id, own.section, own.heading, own.span) == ("d", None, (), None)


def test_pages_of_groups_neither_repeat_nor_leave_out(db: Any) -> None:
    fill(db, [7] * 20)
    query = [1.0, 0.5, -1.0, 0.0]
    pages: list[Hit] = []
    last = None
    while page := db.search(query, 3, group_by="document", after=last):
        pages += page
        last = page[-1]
    assert told(pages) == brute_force(db, query)


def test_diverse_groups_are_different_documents(db: Any) -> None:
    fill(db, [5] * 10)
    hits = db.search([1.0, 0.5, -1.0, 0.0], 5, group_by="document", mmr=0.5)
    assert len({hit.id for hit in hits}) == 5
    assert hits[0].id == brute_force(db, [1.0, 0.5, -1.0, 0.0])[0][0]


def test_nothing_else_can_be_grouped_by(db: Any) -> None:
    with pytest.raises(InputError, match="group_by"):
        db.search([1.0], group_by="section")
    fill(db, [2])
    assert db.search([1.0, 0, 0, 0], 0, group_by="document") == []
