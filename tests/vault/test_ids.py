"""Ids: equal to Amalfa's for ASCII, unique and not empty for every alphabet, whatever the order."""

from __future__ import annotations

import random
import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resonance.vault.ids import assign_ids, normalise_tag, slug, tag_id

SEGMENT = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=12
)
PATHS = st.lists(SEGMENT, min_size=1, max_size=4).map("/".join).map(lambda p: p + ".md")
ASCII_PATHS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("docs/note-0.md", "docs-note-0"),
        ("README.md", "readme"),
        ("Notes/C++ Tips.md", "notes-c-tips"),
        ("a/b/../c.md", "a-b-c"),
        ("src/core/GraphEngine.ts", "src-core-graphengine"),
        ("data.json", "data"),
        ("_private/__init__.js", "private-init"),
        ("archive.tar.md.md", "archive-tar-md"),
        ("README.MD", "readme-md"),
        ("note.markdown", "note-markdown"),
        ("2024/01/01.md", "2024-01-01"),
    ],
)
def test_ascii_paths_get_the_ids_amalfa_gives_them(path: str, expected: str) -> None:
    assert slug(path) == expected
    assert assign_ids([path]) == {path: expected}


@given(ASCII_PATHS)
def test_ascii_slugs_follow_the_rule_step_by_step(path: str) -> None:
    text = re.sub(r"\.(md|ts|js|json)$", "", path).lower()
    text = re.sub(r"[^a-z0-9/]", "-", text).replace("/", "-")
    assert slug(path) == re.sub(r"-+", "-", text).strip("-")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("日本語.md", "日本語"),
        ("Überblick.md", "überblick"),
        ("हिन्दी/नोट.md", "हिन्दी-नोट"),
        ("مرحبا بالعالم.md", "مرحبا-بالعالم"),
        ("emoji 🎉 day.md", "emoji-day"),
    ],
)
def test_every_alphabet_keeps_its_letters(path: str, expected: str) -> None:
    assert slug(path) == expected


def test_both_unicode_forms_of_a_name_have_one_slug() -> None:
    assert slug(unicodedata.normalize("NFD", "Überblick.md")) == slug("Überblick.md")


def test_paths_that_share_a_slug_all_carry_a_digest() -> None:
    ids = assign_ids(["a/b.md", "a-b.md", "c.md"])
    assert ids["c.md"] == "c"
    assert {ids["a/b.md"][:4], ids["a-b.md"][:4]} == {"a-b~"}
    assert len(set(ids.values())) == 3


def test_names_without_a_letter_get_an_id() -> None:
    ids = assign_ids(["🎉.md", "!!!.md", "C++.md", "C#.md"])
    assert len(set(ids.values())) == 4
    assert all(ids.values())


@given(st.sets(PATHS, max_size=30), st.randoms(use_true_random=False))
@example({"a/b.md", "a-b.md", "A_B.md"}, random.Random(0))
def test_ids_are_unique_and_depend_on_the_set_alone(paths: set[str], chance: random.Random) -> None:
    ids = assign_ids(paths)
    assert set(ids) == paths
    assert len(set(ids.values())) == len(paths)
    assert all(node and not node.startswith("#") and "\0" not in node for node in ids.values())
    shuffled = list(paths) * 2
    chance.shuffle(shuffled)
    assert assign_ids(shuffled) == ids


@given(st.sets(PATHS, min_size=1, max_size=20))
def test_an_id_changes_only_with_the_paths_that_share_its_slug(paths: set[str]) -> None:
    ids = assign_ids(paths)
    gone = min(paths)
    rest = assign_ids(paths - {gone})
    assert all(rest[path] == ids[path] for path in rest if slug(path) != slug(gone))


@pytest.mark.parametrize(
    ("tag", "expected"),
    [("#Work", "work"), ("a/B", "a/b"), ("/a/", "a"), ("STRASSE", "strasse"), ("my  tag", "my tag")],
)
def test_tags_are_compared_without_case_and_signs(tag: str, expected: str) -> None:
    assert normalise_tag(tag) == expected
    assert tag_id(tag) == "#" + expected
