"""Sections in the database: nodes, edges and vectors of their own, which follow their document."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vaults import Files, Vault, dump, embed_by_hash, hash_embedder

import resonance
from resonance.model import Space
from resonance.vault.embed import CallableEmbedder
from resonance.vault.ingest import ingest

Make = Callable[[Files], Vault]

SHORT_RULES = json.dumps({"sections": {"min_chars": 30, "max_chars": 80, "overlap_chars": 20}})
TEXT = "Words that fill the greater part of a section. "
LONG = f"# T\n\n{TEXT}\n\n## A\n\n{TEXT}\n\n## B\n\n{TEXT}\n"


class Counting(CallableEmbedder):
    """Remembers what it was asked to embed."""

    def __init__(self) -> None:
        super().__init__(self.note, Space("by-hash", 8))
        self.texts: list[str] = []

    def note(self, texts: Sequence[str]) -> Any:
        self.texts += texts
        return embed_by_hash(texts)


@pytest.fixture
def vault(make_vault: Make) -> Vault:
    vault = make_vault({"amalfa.settings.json": SHORT_RULES, "long.md": LONG, "short.md": "[[long]]"})
    vault.ingest(embedder=hash_embedder())
    return vault


def from_scratch(vault: Vault) -> dict[str, list[tuple[Any, ...]]]:
    with tempfile.TemporaryDirectory() as place:
        fresh = Vault(vault.root, Path(place) / "fresh.db")
        fresh.ingest(embedder=hash_embedder())
        found = dump(fresh.db)
        fresh.db.close()
    return found


def sections(vault: Vault) -> list[str]:
    return [node for (node,) in vault.db.query("SELECT node FROM sections ORDER BY document, ordinal")]


def test_headings_are_stored_as_they_are_written(make_vault: Make) -> None:
    heading = 'a "b" c:\\d\te é 😀'
    vault = make_vault(
        {"amalfa.settings.json": SHORT_RULES, "long.md": LONG.replace("## A", f"## {heading}")}
    )
    vault.ingest()
    (found,) = vault.db.query("SELECT heading FROM sections WHERE ordinal = 1")
    assert json.loads(found[0]) == ["T", heading.replace("\t", " ")]


def test_a_section_is_a_node_with_an_edge_to_its_document(vault: Vault) -> None:
    assert sections(vault) == ["long#^", "long#a", "long#b"]
    node = vault.db.get_node("long#a")
    assert node is not None
    assert (node.type, node.title, node.layer) == ("section", "A", "section")
    assert node.embedding is not None
    assert [(e.source, e.type, e.context_source) for e in vault.db.get_edges("long", direction="in")] == [
        ("long#^", "PART_OF", "long.md"),
        ("long#a", "PART_OF", "long.md"),
        ("long#b", "PART_OF", "long.md"),
        ("short", "CITES", "short.md"),
    ]
    heading, start, end = vault.db.query(
        "SELECT heading, span_start, span_end FROM sections WHERE node = 'long#a'"
    )[0]
    assert json.loads(heading) == ["T", "A"]
    assert (vault.root / "long.md").read_bytes()[start:end].decode() == f"## A\n\n{TEXT}\n\n"


def test_sections_are_counted_apart(vault: Vault) -> None:
    report = vault.ingest()
    assert (report.files, report.nodes, report.sections, report.vectors) == (2, 2, 3, 2)
    assert report.to_dict()["sections"] == 3
    stats = vault.db.get_stats()
    assert (stats.nodes, stats.sections, stats.vectors) == (5, 3, 5)
    assert stats.types == {"document": 2, "section": 3}


def test_in_the_vector_of_a_long_note_the_first_section_weighs_as_much_as_all(vault: Vault) -> None:
    def vector(node: str) -> Any:
        found = vault.db.get_node(node)
        assert found is not None
        return found.embedding

    total = np.sum([vector(node) for node in sections(vault)], axis=0)
    both = total / np.linalg.norm(total) + vector("long#^")
    assert np.allclose(vector("long"), both / np.linalg.norm(both), atol=1e-6)


def test_an_edit_embeds_only_the_sections_it_touched(vault: Vault) -> None:
    counting = Counting()
    text = LONG.replace("## B\n\nWords", "## B\n\nOther words")
    vault.write({"long.md": text})
    vault.ingest(embedder=counting)
    assert len(counting.texts) == 1
    assert "Other words" in counting.texts[0]
    vault.write({"long.md": text.replace("## B", f"## New\n\n{TEXT}\n\n## B")})
    vault.ingest(embedder=counting)
    assert sections(vault) == ["long#^", "long#a", "long#new", "long#b"]
    assert len(counting.texts) == 2
    assert "## New" in counting.texts[1]
    assert dump(vault.db) == from_scratch(vault)


def test_sections_keep_their_vectors_when_their_note_moves_or_only_its_yaml_changes(vault: Vault) -> None:
    counting = Counting()
    (vault.root / "long.md").rename(vault.root / "moved.md")
    vault.ingest(embedder=counting)
    assert sections(vault) == ["moved#^", "moved#a", "moved#b"]
    vault.write({"moved.md": "---\ntags: [x]\n---\n" + LONG})
    vault.ingest(embedder=counting)
    assert counting.texts == []
    assert dump(vault.db) == from_scratch(vault)


def test_sections_go_with_their_document_and_when_it_gets_short(vault: Vault) -> None:
    vault.write({"other.md": LONG})
    vault.ingest(embedder=hash_embedder())
    assert len(sections(vault)) == 6
    vault.remove("other.md")
    assert vault.ingest(embedder=hash_embedder()).sections == 3
    vault.write({"long.md": "# T\n\nShort."})
    assert vault.ingest(embedder=hash_embedder()).sections == 0
    assert vault.db.query("SELECT id FROM nodes WHERE type = 'section'") == []
    assert vault.edges() == {("short", "long", "CITES")}


def test_deleting_a_document_deletes_its_sections(vault: Vault) -> None:
    assert vault.db.delete_nodes(["long", "nothing"]) == 1
    assert sections(vault) == []
    assert vault.db.query("SELECT id FROM nodes") == [("short",)]


def test_other_lengths_in_the_settings_cut_every_note_again(vault: Vault) -> None:
    vault.write({"amalfa.settings.json": json.dumps({"sections": {"min_chars": 50, "max_chars": 120}})})
    with pytest.raises(resonance.ResonanceError, match="overlap_chars"):
        vault.ingest()
    told = {"sections": {"min_chars": 70, "max_chars": 120, "overlap_chars": 0}}
    vault.write({"amalfa.settings.json": json.dumps(told)})
    counting = Counting()
    vault.ingest(embedder=counting)
    assert sections(vault) == ["long#^", "long#b"]
    assert len(counting.texts) == 1  # the section B is as it was
    assert dump(vault.db) == from_scratch(vault)
    vault.write({"amalfa.settings.json": '{"sections": false}'})
    assert vault.ingest(embedder=hash_embedder()).sections == 0
    assert dump(vault.db) == from_scratch(vault)


def test_another_model_gives_sections_other_vectors(vault: Vault) -> None:
    report = vault.ingest(embedder=hash_embedder("other"))
    assert (report.indexed, report.vectors) == (0, 2)
    assert vault.db.get_stats().vectors == 5


def test_a_database_without_vectors_gets_those_of_sections_too(make_vault: Make) -> None:
    vault = make_vault({"amalfa.settings.json": SHORT_RULES, "long.md": LONG})
    vault.ingest()
    assert vault.db.get_stats().vectors == 0
    vault.ingest(embedder=hash_embedder())
    assert dump(vault.db) == from_scratch(vault)


def test_a_regeneration_takes_the_vectors_of_sections_over(vault: Vault, tmp_path: Path) -> None:
    counting = Counting()
    with resonance.ResonanceDB(str(tmp_path / "new.db"), root=vault.root) as fresh:
        ingest(fresh, vault.settings, embedder=counting, reuse_from=vault.db)
        assert counting.texts == []
        assert dump(fresh) == dump(vault.db)


PARTS = [
    "# T\n\n",
    f"## A\n\n{TEXT}\n\n",
    f"## A\n\n{TEXT}\n\n",
    "### B\n\nShort. [[a]]\n\n",
    f"{TEXT}{TEXT}\n\n{TEXT}\n\n",
    f"## C++\n\n{TEXT}[[b]] #tag\n\n",
]
NOTE = st.lists(st.sampled_from(PARTS), max_size=7).map("".join)
NAMES = st.sampled_from(["a.md", "b.md", "a b.md", "a-b.md", "x/a.md"])
EDIT = st.one_of(
    st.tuples(st.just("write"), NAMES, NOTE),
    st.tuples(st.just("write"), NAMES, NOTE),
    st.tuples(st.just("remove"), NAMES, st.just("")),
    st.tuples(st.just("move"), NAMES, NAMES),
    st.tuples(st.just("ingest"), st.just(""), st.just("")),
    st.tuples(st.just("rules"), st.just(""), st.sampled_from(["80", "200"])),
)


def edit(root: Path, action: str, name: str, value: str) -> None:
    file = root / name
    if action == "rules":
        told = {"sections": {"min_chars": 30, "max_chars": int(value), "overlap_chars": 20}}
        (root / "amalfa.settings.json").write_text(json.dumps(told))
    elif action == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(value)
    elif file.is_file() and action == "remove":
        file.unlink()
    elif file.is_file():
        (root / value).parent.mkdir(exist_ok=True)
        os.replace(file, root / value)  # noqa: PTH105  # over whatever is there


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(EDIT, min_size=1, max_size=20))
def test_any_history_of_edits_leaves_the_sections_of_a_fresh_start(edits: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        vault = Vault(Path(place) / "vault", Path(place) / "x.db")
        edit(vault.root, "rules", "", "80")
        try:
            for action, name, value in edits:
                if action == "ingest":
                    vault.ingest(embedder=hash_embedder(), yes=True)
                else:
                    edit(vault.root, action, name, value)
            vault.ingest(embedder=hash_embedder(), yes=True)
            assert dump(vault.db) == from_scratch(vault)
            assert vault.db.query("SELECT * FROM pragma_foreign_key_check") == []
        finally:
            vault.db.close()


# --- reading them ---------------------------------------------------------------------------------

SECOND = f"## A\n\n{TEXT}\n\n"


def read(vault: Vault, node: str = "long#a") -> tuple[str | None, str, tuple[int, int] | None]:
    content = vault.db.content(node)
    return content.text, content.state, content.span


def test_a_section_is_read_by_its_span(vault: Vault) -> None:
    start = LONG.index("## A")
    assert read(vault) == (SECOND, "fresh", (start, start + len(SECOND)))
    assert "".join(read(vault, node)[0] or "" for node in sections(vault)) == LONG


@pytest.mark.parametrize("before", ["\n", "---\ntags: [ä]\n---\n", "# New\n\nText.\n\n" * 20])
def test_a_section_is_found_again_where_it_has_shifted_to(vault: Vault, before: str) -> None:
    vault.write({"long.md": before + LONG.replace("## B", "## B, edited")})
    start = len(before.encode()) + LONG.index("## A")
    assert read(vault) == (SECOND, "moved", (start, start + len(SECOND)))


def test_a_section_that_was_edited_shows_its_new_text_and_says_so(vault: Vault) -> None:
    vault.write({"long.md": "\n" + LONG.replace("## A\n\nWords", "## A\n\nOther words")})
    text, state, span = read(vault)
    assert (text, state) == (SECOND.replace("Words", "Other words"), "changed")
    assert span == (1 + LONG.index("## A"), 1 + LONG.index("## B") + len("Other "))
    assert read(vault, "long#b")[1] == "moved"


def test_a_section_that_is_gone_is_missing(vault: Vault) -> None:
    vault.write({"long.md": LONG.replace("## A", "## Renamed").replace("Words", "Others")})
    assert read(vault) == (None, "missing", None)
    vault.remove("long.md")
    assert read(vault) == (None, "missing", None)


def test_a_section_of_a_moved_file_is_found_there(vault: Vault) -> None:
    (vault.root / "long.md").rename(vault.root / "moved.md")
    content = vault.db.content("long#a")
    assert (content.text, content.state, content.path) == (SECOND, "moved", "moved.md")


def test_a_search_can_carry_the_texts_of_sections(vault: Vault) -> None:
    node = vault.db.get_node("long#b")
    assert node is not None
    assert node.embedding is not None
    hit = vault.db.search(node.embedding, 1, group_by="document", hydrate=True)[0]
    assert (hit.id, hit.section, hit.heading, hit.path) == ("long", "long#b", ("T", "B"), "long.md")
    assert hit.content is not None
    assert (hit.content.text, hit.content.span) == (f"## B\n\n{TEXT}\n", hit.span)
