"""Resolution: Obsidian's rules, the same answer in any order, and no guess among several."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resonance.vault.ids import assign_ids
from resonance.vault.links import RawLink
from resonance.vault.note import parse_note
from resonance.vault.resolve import Resolution, Resolver
from resonance.vault.scan import Territory

PATHS = [
    "index.md",
    "Welcome.md",
    "notes/Unique.md",
    "notes/same.md",
    "notes/deep/same.md",
    "other/same.md",
    "other/Note with spaces.md",
    "other/v1.2.md",
    "other/old.markdown",
    "a/x/page.md",
    "b/x/page.md",
    "日本/メモ.md",
    "case/Only.md",
    "other/Dune: part two.md",
]
ALIASES = {"notes/Unique.md": ["The One", "shared"], "Welcome.md": ["shared"]}
ATTACHMENTS = ["pictures/cat.png", "LICENSE", "other/data"]


def make(paths: list[str] | None = None) -> Resolver:
    return Resolver(assign_ids(paths or PATHS), ALIASES if paths is None else {}, ATTACHMENTS)


def resolve(text: str, source: str = "index.md", resolver: Resolver | None = None) -> Resolution:
    (link,) = parse_note(source, text.encode()).links
    return (resolver or make()).resolve(source, link)


@pytest.mark.parametrize(
    ("text", "source", "target"),
    [
        # the exact path from the root, with and without its extension
        ("[[notes/Unique]]", "index.md", "notes-unique"),
        ("[[notes/Unique.md]]", "index.md", "notes-unique"),
        ("[[other/old]]", "index.md", "other-old-markdown"),
        ("[[/Welcome]]", "notes/same.md", "welcome"),
        # a unique name, wherever it is
        ("[[Unique]]", "other/same.md", "notes-unique"),
        ("[[Unique.md]]", "other/same.md", "notes-unique"),
        ("[[Unique#a#b|text]]", "other/same.md", "notes-unique"),
        ("[[Note with spaces]]", "index.md", "other-note-with-spaces"),
        ("[[v1.2]]", "index.md", "other-v1-2"),
        ("[[メモ]]", "index.md", "日本-メモ"),
        ("![[Unique]]", "index.md", "notes-unique"),
        # the end of a path
        ("[[deep/same]]", "index.md", "notes-deep-same"),
        # a path that is exact from the source's folder
        ("[[x/page]]", "a/start.md", "a-x-page"),
        ("[[./same]]", "notes/start.md", "notes-same"),
        ("[[../other/same]]", "notes/start.md", "other-same"),
        # case
        ("[[unique]]", "index.md", "notes-unique"),
        ("[[NOTES/UNIQUE]]", "index.md", "notes-unique"),
        ("[[ONLY]]", "index.md", "case-only"),
        # aliases
        ("[[The One]]", "index.md", "notes-unique"),
        ("[[the one]]", "index.md", "notes-unique"),
        # the note itself
        ("[[#heading]]", "notes/same.md", "notes-same"),
        ("[x](#heading)", "notes/same.md", "notes-same"),
        # relative links
        ("[x](../Welcome.md)", "notes/same.md", "welcome"),
        ("[x](deep/same.md#h)", "notes/same.md", "notes-deep-same"),
        ("[x](same.md)", "notes/deep/other.md", "notes-deep-same"),
        ("[x](Note%20with%20spaces.md)", "other/same.md", "other-note-with-spaces"),
        ("[x](/notes/Unique.md)", "other/same.md", "notes-unique"),
        ("[x](Unique)", "notes/same.md", "notes-unique"),
        ("[x](../notes/UNIQUE.md)", "other/same.md", "notes-unique"),
        ("[x](Unique.md)", "other/same.md", "notes-unique"),
        ("[x](deep/same.md)", "other/same.md", "notes-deep-same"),
        ("[x][r]\n\n[r]: ../Welcome.md", "notes/same.md", "welcome"),
        ("[x](Dune%3A%20part%20two.md)", "other/same.md", "other-dune-part-two"),
        ("[[Dune: part two]]", "index.md", "other-dune-part-two"),
        # in the frontmatter
        ("---\na: '[[Unique]]'\n---\n", "index.md", "notes-unique"),
        # tags
        ("#Some/Tag", "index.md", "#some/tag"),
    ],
)
def test_resolved(text: str, source: str, target: str) -> None:
    paths = [*PATHS, source] if source not in PATHS else None
    resolver = make() if paths is None else Resolver(assign_ids(paths), ALIASES, ATTACHMENTS)
    assert resolve(text, source, resolver)[:3] == ("resolved", target, ())


@pytest.mark.parametrize(
    ("text", "source", "candidates"),
    [
        ("[[same]]", "index.md", ("notes-same", "other-same", "notes-deep-same")),
        ("[[same]]", "notes/deep/x.md", ("notes-deep-same", "notes-same", "other-same")),
        ("[[SAME.md]]", "other/x.md", ("other-same", "notes-same", "notes-deep-same")),
        ("[[x/page]]", "index.md", ("a-x-page", "b-x-page")),
        ("[[shared]]", "notes/x.md", ("notes-unique", "welcome")),
        ("[x](page.md)", "b/y.md", ("b-x-page", "a-x-page")),
    ],
)
def test_ambiguous_stays_ambiguous_nearest_first(text: str, source: str, candidates: tuple[str, ...]) -> None:
    assert resolve(text, source)[:3] == ("ambiguous", None, candidates)


def test_the_exact_path_decides_among_equal_names() -> None:
    resolver = make(["note.md", "a/note.md", "b/note.md"])
    assert resolve("[[note]]", "b/x.md", resolver) == Resolution("resolved", "note")


@pytest.mark.parametrize(
    ("text", "source", "found"),
    [
        ("[[Page]]", "x.md", Resolution("resolved", "page", mark="case")),
        ("[[PAGE.md]]", "a/x.md", Resolution("resolved", "page", mark="case")),
        ("[x](PAGE.md)", "a/b/c/x.md", Resolution("resolved", "page", mark="case")),
        ("[[A/page]]", "x.md", Resolution("resolved", "a-page", mark="case")),
        ("[[b/a/Page]]", "x.md", Resolution("resolved", "b-a-page", mark="case")),
        ("[[S/Twin]]", "a/x.md", Resolution("resolved", "a-s-twin", mark="case")),
        ("[[S/Twin]]", "x.md", Resolution("ambiguous", None, ("a-s-twin", "b-s-twin"), "case")),
        # Another one's case is right.
        ("[[Mixed]]", "x.md", Resolution("ambiguous", None, ("mixed", "a-mixed"))),
    ],
)
def test_a_whole_path_decides_in_any_case(text: str, source: str, found: Resolution) -> None:
    paths = ["page.md", "a/page.md", "b/a/page.md", "a/s/twin.md", "b/s/twin.md", "mixed.md", "a/Mixed.md"]
    assert resolve(text, source, make(paths)) == found


def test_the_exact_case_of_a_path_decides() -> None:
    resolver = make(["note.md", "Note.md"])
    (link,) = parse_note("x.md", b"[[Note]]").links
    found = resolver.resolve("x.md", link)
    assert found.state == "resolved"
    assert found.target == assign_ids(["note.md", "Note.md"])["Note.md"]


@pytest.mark.parametrize(
    ("kind", "target"), [("tag", "#"), ("block", None), ("link", "index"), ("relation", "index")]
)
def test_without_a_name_it_leads_to_the_note_unless_such_a_link_never_does(
    kind: str, target: str | None
) -> None:
    link = RawLink(kind, "CITES", "", "", None, 0, 0)
    assert make(["index.md"]).resolve("index.md", link).target == target


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("[[nowhere]]", "index.md"),
        ("[[notes/nowhere]]", "index.md"),
        ("[[nothere/Unique]]", "index.md"),
        ("[[nique]]", "index.md"),
        ("[[v1.3]]", "index.md"),
        ("[x](nowhere.md)", "index.md"),
        ("[x](./Unique.md)", "other/x.md"),
        ("[x](../Unique.md)", "other/x.md"),
        ("[x](notes\\Unique.md)", "index.md"),
        ("[x](/nowhere.md)", "index.md"),
        ("[x](nowhere)", "index.md"),
        ("[[The]]", "index.md"),
    ],
)
def test_unresolved(text: str, source: str) -> None:
    assert resolve(text, source)[:3] == ("unresolved", None, ())


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("[x](https://example.org/Welcome.md)", "index.md"),
        ("[[https://example.org]]", "index.md"),
        ("<me@example.org>", "index.md"),
        ("[x](//example.org/a)", "index.md"),
        ("[x](obsidian://open?vault=x)", "index.md"),
        ("![x](data:image/png;base64,AAAA)", "index.md"),
        ("![[cat.png]]", "index.md"),
        ("![[nowhere.png|100]]", "index.md"),
        ("[[paper.pdf#page=3]]", "index.md"),
        ("![x](../pictures/cat.png)", "notes/same.md"),
        ("[x](../src/main.c)", "notes/same.md"),
        ("[x](../../outside.md)", "notes/same.md"),
        ("[[../../outside]]", "notes/same.md"),
        ("[x](LICENSE)", "index.md"),
        ("[x](other/data)", "index.md"),
        ("[x](notes/)", "index.md"),
        ("[x](.)", "notes/deep/x.md"),
        ("[x](..)", "notes/deep/x.md"),
        ("[x](deep)", "notes/same.md"),
        ("[x](/site/route)", "index.md"),
    ],
)
def test_external(text: str, source: str) -> None:
    assert resolve(text, source)[:3] == ("external", None, ())


HERE = Territory((".",), frozenset())
SOME = Territory(("notes", "other"), frozenset({"other/left", "other/cut.png"}))


@pytest.mark.parametrize(
    ("text", "source", "territory", "state", "mark"),
    [
        # what fits to the letter has no mark
        ("[[Unique]]", "index.md", HERE, "resolved", None),
        ("[[notes/Unique.md]]", "index.md", HERE, "resolved", None),
        ("[[Unique.MD]]", "index.md", HERE, "resolved", None),
        ("[[The One]]", "index.md", HERE, "resolved", None),
        ("[x](../notes/Unique.md)", "other/x.md", HERE, "resolved", None),
        # only the case differs
        ("[[unique]]", "index.md", HERE, "resolved", "case"),
        ("[[NOTES/Unique]]", "index.md", HERE, "resolved", "case"),
        ("[[the one]]", "index.md", HERE, "resolved", "case"),
        ("[x](../Notes/Unique.md)", "other/x.md", HERE, "resolved", "case"),
        ("[x](UNIQUE.md)", "other/x.md", HERE, "resolved", "case"),
        ("[[SAME]]", "index.md", HERE, "ambiguous", "case"),
        ("![[CAT.png]]", "index.md", HERE, "external", "case"),
        ("![x](../Pictures/cat.PNG)", "notes/x.md", HERE, "external", "case"),
        # files that are no notes are looked for where all of them are known
        ("![[cat.png]]", "index.md", HERE, "external", None),
        ("![[pictures/cat.png]]", "index.md", HERE, "external", None),
        ("![x](cat.png)", "index.md", HERE, "external", None),
        ("![[dog.png|100]]", "index.md", HERE, "external", "missing"),
        ("![[dog.png]]", "index.md", SOME, "external", None),
        ("![[other/cat.png]]", "index.md", HERE, "external", "missing"),
        ("![x](pictures/dog.png)", "index.md", HERE, "external", "missing"),
        ("![x](pictures/dog.png)", "index.md", None, "external", None),
        ("![x](../notes/dog.png)", "other/x.md", SOME, "external", "missing"),
        ("![x](../pictures/dog.png)", "other/x.md", SOME, "external", None),
        ("![x](left/a/dog.png)", "other/x.md", SOME, "external", None),
        ("![x](cut.png)", "other/x.md", SOME, "external", None),
        ("![x](.hidden/dog.png)", "index.md", HERE, "external", None),
        ("![x](a/.hidden/dog.png)", "index.md", HERE, "external", None),
        ("![x](a/b./dog.png)", "index.md", HERE, "external", "missing"),
        ("![x](dog.png)", "index.md", HERE, "external", "missing"),
        ("![x](dog.png)", "index.md", SOME, "external", None),
        ("[x](/site/dog.png)", "index.md", HERE, "external", None),
        # out of the root
        ("[x](../../outside.md)", "notes/same.md", HERE, "external", "outside"),
        ("[[../../outside]]", "notes/same.md", HERE, "external", "outside"),
        # as Windows writes paths
        ("[x](notes\\Unique.md)", "index.md", HERE, "unresolved", "backslash"),
        ("[[notes\\Unique]]", "index.md", HERE, "unresolved", "backslash"),
        ("[[notes\\Nothing]]", "index.md", HERE, "unresolved", None),
    ],
)
def test_marks(text: str, source: str, territory: Territory | None, state: str, mark: str | None) -> None:
    resolver = Resolver(assign_ids(PATHS), ALIASES, ATTACHMENTS, territory=territory)
    found = resolve(text, source, resolver)
    assert (found.state, found.mark) == (state, mark)


def test_names_that_differ_only_in_case_are_ambiguous_as_in_obsidian() -> None:
    resolver = Resolver(assign_ids(["a/Note.md", "b/note.md", "c/x.md"]))
    assert resolve("[[Note]]", "c/x.md", resolver)[::3] == ("ambiguous", None)
    assert resolve("[[NOTE]]", "c/x.md", resolver)[::3] == ("ambiguous", "case")


def test_a_malformed_note_is_nobodys_target() -> None:
    """Only notes that have a node are in the resolver; a link to any other stays open."""
    assert resolve("[[Unique]]", "index.md", make(["index.md"])) == Resolution("unresolved")


NAMES = st.sampled_from(["a", "b", "A", "c d", "é"])
SOME_PATHS = st.sets(
    st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: "/".join(parts) + ".md"),
    min_size=1,
    max_size=12,
)


@given(SOME_PATHS, st.lists(NAMES, min_size=1, max_size=3), st.booleans(), st.randoms())
def test_the_answer_depends_on_the_set_alone(
    paths: set[str], parts: list[str], wiki: bool, chance: random.Random
) -> None:
    link = RawLink("wikilink" if wiki else "link", "CITES", "", "/".join(parts), None, 0, 0)
    source = min(paths)
    ids = assign_ids(paths)
    shuffled = list(ids.items())
    chance.shuffle(shuffled)
    first = Resolver(ids).resolve(source, link)
    assert Resolver(dict(shuffled)).resolve(source, link) == first
    if first.state == "resolved":
        assert first.target in ids.values()
    assert len(first.candidates) != 1
    assert set(first.candidates) <= set(ids.values())


def test_one_resolver_sees_each_link_from_its_own_folder() -> None:
    resolver = Resolver(assign_ids(["a/near.md", "b/near.md", "a/x.md", "b/x.md"]))
    link = parse_note("a/x.md", b"[x](near.md)").links[0]
    found = [resolver.resolve(source, link).target for source in ("a/x.md", "b/x.md", "a/x.md", "a/near.md")]
    assert found == ["a-near", "b-near", "a-near", "a-near"]
