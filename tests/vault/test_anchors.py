"""A link to a place within a note: the section that holds it, or that there is no such place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from vaults import Files, Vault

from resonance import ResonanceDB
from resonance.model import Anchor

Make = Callable[[Files], Vault]

WORDS = "words of it " * 60 + "\n\n"
LONG = (
    f"---\ntags: [x]\n---\n# The note\n\n{WORDS}## First part\n\n{WORDS}### Details\n\n{WORDS}"
    f"## C++ & *more*, [[b|written]] so!\n\n{WORDS}### Details\n\nA block of it. ^Block-1\n\n"
    f"{WORDS}```\n## In code\n```\n\n> ## Quoted\n\nSetext\n---\n\n{WORDS}"
    f'<a name="by-html"></a>\n\n## Named {{#by-brace}}\n\n{WORDS}## Twice\n\n{WORDS}## Twice\n\n{WORDS}'
    f"## +=\n\n{WORDS}## Attributes {{ #by-list .wide title='x' }}\n\n{WORDS}"
    f"## More\n{{: .x #by-line}}\n\n{WORDS}## One\n\n{WORDS}## Two {{#one-1}}\n\n{WORDS}"
)


def anchors(vault: Vault, written: str) -> list[Anchor | None]:
    vault.write({"from.md": written})
    vault.ingest()
    return vault.db.anchors(vault.db.links(source="from"))


@pytest.mark.parametrize(
    ("link", "section"),
    [
        ("[[a#First part]]", "a#first-part"),
        ("[[a#first PART|text]]", "a#first-part"),
        ("![[a#First part]]", "a#first-part"),
        ("[[a#First part#Details]]", "a#first-part/details"),
        ("[[a#The note#First part#Details]]", "a#first-part/details"),
        ("[[a#C++ more, written so#Details]]", "/details"),
        ("[[a#C++ & *more*, b written so!]]", "written-so"),
        ("[x](a.md#first-part)", "a#first-part"),
        ("[x](a.md#First%20part)", "a#first-part"),
        ("[x](a.md#c--more-written-so)", "written-so"),
        ("[x](a.md#twice)", "a#twice"),
        ("[x](a.md#twice-1)", "a#twice~2"),
        ("[x](a.md#twice_1)", "a#twice~2"),
        ("[x](a.md#twice-2)", "a#twice~2"),
        ("[x](a.md#setext-1)", "a#setext"),
        ("[[a#^block-1]]", "/details"),
        ("[[a#Quoted]]", "/details"),
        ("[[a#Setext]]", "a#setext"),
        ("[x](a.md#by-html)", "a#setext"),
        ("[x](a.md#by-brace)", "a#named"),
        ("[x](a.md#by-list)", "a#attributes-by-list"),
        ("[x](a.md#by-line)", "a#more"),
        ("[x](a.md#one-1)", "a#two-one-1"),
        ("[[a#+=]]", "a#"),
    ],
)
def test_the_section_that_a_link_names(make_vault: Make, link: str, section: str) -> None:
    vault = make_vault({"a.md": LONG, "b.md": ""})
    (anchor,) = anchors(vault, link)
    assert anchor is not None
    assert anchor.state == "found"
    assert anchor.section is not None
    assert section in anchor.section
    start, end = vault.db.query(
        "SELECT span_start, span_end FROM sections WHERE node = ?", (anchor.section,)
    )[0]
    assert anchor.start is not None
    assert start <= anchor.start < end
    assert vault.edges() >= {("from", "a", "CITES" if "[[" in link else "LINKS_TO")}, "led to the document"


@pytest.mark.parametrize(
    "link",
    [
        "[[a#No such part]]",
        "[[a#Details#First part]]",
        "[[a#First part#Setext]]",
        "[[a#In code]]",
        "[[a#^no-block]]",
        "[x](a.md#by-htm)",
        "[x](a.md#first-part-of)",
        "[x](a.md#by-lis)",
        "[x](a.md#twice-3)",
        "[x](a.md#twice-0)",
        f"[x](a.md#twice-{'9' * 5000})",
    ],
)
def test_a_place_that_is_not_there(make_vault: Make, link: str) -> None:
    vault = make_vault({"a.md": LONG, "b.md": ""})
    assert anchors(vault, link) == [Anchor("missing")]
    (found,) = vault.db.links(source="from")
    assert (found.state, found.target, found.is_broken) == ("resolved", "a", False)


SILENT = (
    "# S\n\n```\n> # quoted in code\ntext ^in-code\n<a name='anchor-in-code'></a>\n```\n\n"
    "<!--\n> # quoted in html\ntext ^in-html\n-->\n\n%%\n> # quoted in a comment\n\ntext ^in-comment\n%%\n\n"
    "$$\na\n\n> # quoted in a formula\n\nb ^in-formula\n$$\n\n> # Quoted\n> text ^in-quote\n\n- # Listed\n\n"
    "![[picture.png]]^glued\n\ntext ^twice\n\n```\ntext ^with_sign\n```\n\ntext ^with_sign\n"
)


@pytest.mark.parametrize(
    "fragment",
    [
        "quoted in code",
        "^in-code",
        "anchor-in-code",
        "quoted in html",
        "^in-html",
        "quoted in a comment",
        "^in-comment",
        "quoted in a formula",
        "^in-formula",
        "^with_sign",
    ],
)
def test_what_is_no_text_of_the_note_holds_no_place(make_vault: Make, fragment: str) -> None:
    vault = make_vault({"a.md": SILENT})
    assert anchors(vault, f"[[a#{fragment}]]") == [Anchor("missing")]


@pytest.mark.parametrize("fragment", ["Quoted", "Listed", "^in-quote", "^glued", "^TWICE"])
def test_a_place_beside_code_and_comments(make_vault: Make, fragment: str) -> None:
    vault = make_vault({"a.md": SILENT})
    (anchor,) = anchors(vault, f"[[a#{fragment}]]")
    assert anchor is not None
    assert anchor.state == "found"
    assert anchor.start is not None
    assert anchor.start > SILENT.index("> # Quoted")


@pytest.mark.parametrize(
    ("fragment", "place"),
    [
        ("one", "# One"),
        ("one,1", "# One"),
        ("one:#two", "# One"),
        ("one,1:#*", "# One"),
        ("two,-1:#^b_1", "# Two"),
        ("^b_1", "^b_1"),
        ("^b_1:#*", "^b_1"),
        ("three,1:#one", None),
        ("one,x", None),
    ],
)
def test_dendron_says_where_an_embed_ends(make_vault: Make, fragment: str, place: str | None) -> None:
    text = "# One\n\n# Two\n\ntext ^b_1\n"
    vault = make_vault({"a.md": text})
    vault.options["dialect"] = "dendron"
    (anchor,) = anchors(vault, f"![[dendron://vault/a#{fragment}]]")
    assert anchor == (Anchor("missing") if place is None else Anchor("found", None, text.index(place)))


def test_links_that_name_no_place(make_vault: Make) -> None:
    vault = make_vault({"a.md": LONG, "pic.pdf": ""})
    written = "[[a]] [[no#x]] [x](https://example.org/#x) ![[pic.pdf#page=2]] #tag [[a#|t]] [[a#Twice]]"
    found = anchors(vault, written)
    assert [anchor and anchor.state for anchor in found] == [None] * 6 + ["found"]


def test_its_own_note_and_one_that_is_short(make_vault: Make) -> None:
    vault = make_vault({"short.md": "# One\n\ntext\n"})
    assert anchors(vault, "# Here\n\n[[#Here]] [[#There]] [[short#One]] [x](#here)\n") == [
        Anchor("found", None, 0),
        Anchor("missing"),
        Anchor("found", None, 0),
        Anchor("found", None, 0),
    ]


def test_a_note_that_has_changed_is_not_judged_by(make_vault: Make) -> None:
    vault = make_vault({"a.md": LONG, "b.md": ""})
    assert [a and a.state for a in anchors(vault, "[[a#Setext]] [[a#New]]")] == ["found", "missing"]
    vault.write({"a.md": "# New\n"})
    links = vault.db.links(source="from")
    assert vault.db.anchors(links) == [Anchor("unknown")] * 2
    vault.remove("a.md")
    assert vault.db.anchors(links) == [Anchor("unknown")] * 2
    vault.write({"a.md": "# New\n"})
    vault.ingest()
    assert [a and a.state for a in vault.db.anchors(links)] == ["missing", "found"]


def test_a_database_without_its_vault(make_vault: Make) -> None:
    vault = make_vault({"a.md": LONG, "b.md": ""})
    anchors(vault, "[[a#Setext]]")
    vault.db.close()
    vault.root.rename(vault.root.with_name("elsewhere"))
    with ResonanceDB(vault.database, readonly=True) as db:
        assert db.anchors(db.links(source="from")) == [Anchor("unknown")]
