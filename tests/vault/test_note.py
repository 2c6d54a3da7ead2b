"""Parsing a note: links, tags and metadata by Obsidian's conventions, each with its place in the file."""

from __future__ import annotations

import time

import pyromark
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resonance.errors import ContentError, FrontmatterError
from resonance.vault.dialect import DIALECTS, Dialect, Reading
from resonance.vault.links import RawLink
from resonance.vault.note import ParsedNote, parse_note


def parse(text: str, path: str = "folder/note.md") -> ParsedNote:
    data = text.encode()
    parsed = parse_note(path, data)
    assert data[parsed.body_offset :].decode() == parsed.body
    for link in parsed.links:
        assert data[link.start : link.end].decode() == link.raw
    return parsed


def links(text: str) -> list[tuple[str, str, str | None]]:
    return [(link.kind, link.name, link.fragment) for link in parse(text).links]


def tags(text: str) -> list[str]:
    return [link.name for link in parse(text).links if link.kind == "tag"]


@pytest.mark.parametrize(
    ("text", "kind", "name", "fragment"),
    [
        ("[[note]]", "wikilink", "note", None),
        ("[[folder/note]]", "wikilink", "folder/note", None),
        ("[[note.md]]", "wikilink", "note.md", None),
        ("[[note|a text]]", "wikilink", "note", None),
        ("[[note|]]", "wikilink", "note", None),
        ("[[ note ]]", "wikilink", "note", None),
        ("[[note#heading]]", "wikilink", "note", "heading"),
        ("[[note#heading#sub|x]]", "wikilink", "note", "heading#sub"),
        ("[[note#^block]]", "wikilink", "note", "^block"),
        ("[[#self]]", "wikilink", "", "self"),
        ("[[#^block]]", "wikilink", "", "^block"),
        ("[[|alias]]", "wikilink", "", None),
        ("[[|]]", "wikilink", "", None),
        ("[[a_b *c*]]", "wikilink", "a_b *c*", None),
        ("[[a&b]]", "wikilink", "a&b", None),
        ("[[日本語#見出し]]", "wikilink", "日本語", "見出し"),
        ("[[https://example.org/a#b]]", "wikilink", "https://example.org/a#b", None),
        ("[[Dune: part two]]", "wikilink", "Dune: part two", None),
        ("[[mailto:me@example.org]]", "wikilink", "mailto:me@example.org", None),
        ("![[note]]", "embed", "note", None),
        ("![[picture.png|100x200]]", "embed", "picture.png", None),
        ("![[note#heading]]", "embed", "note", "heading"),
        ("[text](a.md)", "link", "a.md", None),
        ("[text](../b/a%20b.md#x%20y)", "link", "../b/a b.md", "x y"),
        ("[text](<a b.md>)", "link", "a b.md", None),
        ('[text](a.md "title")', "link", "a.md", None),
        ("[text](a.md?view=1#x)", "link", "a.md", "x"),
        ("[text](#here)", "link", "", "here"),
        ("[text](a%23b.md)", "link", "a#b.md", None),
        ("[text](a%3Ab.md)", "link", "./a:b.md", None),
        ("[text](a%ffb.md)", "link", "a%ffb.md", None),
        ("[text](a%00b.md)", "link", "a%00b.md", None),
        ("[*text*](a.md)", "link", "a.md", None),
        ("[text](https://example.org/a?b#c)", "link", "https://example.org/a?b#c", None),
        ("<https://example.org>", "link", "https://example.org", None),
        ("<me@example.org>", "link", "mailto:me@example.org", None),
        ("![alt](a%20b.png)", "image", "a b.png", None),
        ("**[[note]]**", "wikilink", "note", None),
        ("> [[note]]", "wikilink", "note", None),
        ("- [ ] [[note]]", "wikilink", "note", None),
        ("## A [[note]]", "wikilink", "note", None),
        ("[^1]\n\n[^1]: [[note]]", "wikilink", "note", None),
        ("| a |\n|---|\n| [[note\\|text]] |", "wikilink", "note", None),
        ("| a |\n|---|\n| ![[note\\|text]] |", "embed", "note", None),
        ("é ü 日 [[note]]", "wikilink", "note", None),
    ],
)
def test_every_form_of_a_link(text: str, kind: str, name: str, fragment: str | None) -> None:
    assert links(text) == [(kind, name, fragment)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[a][r], [r], [r][] and [x][y]\n\n[r]: b%20c.md", ["b c.md"] * 3),
        ("[[a]][[b]] ![[c]]", ["a", "b", "c"]),
        ("[![alt](p.png)](a.md)", ["a.md", "p.png"]),
        ("[[a]](b)", ["a"]),
        ("[[note\nnext line]]", []),
        ("[[]] [ [a]]", []),
        ("\\[[a]]", []),
    ],
)
def test_several_links_and_none(text: str, names: list[str]) -> None:
    assert [link.name for link in parse(text).links] == names


@pytest.mark.parametrize(
    "text",
    [
        "`[[a]] #tag [x](y.md)`",
        "``[[a]] ` #tag``",
        "```\n[[a]] #tag\n```",
        "```dataview\nlist from [[a]]\n```\n",
        "~~~\n[[a]]\n```\n[[b]]\n~~~",
        "```\n[[a]] never closed\n\n#tag",
        "    [[indented]] #tag",
        "- item\n\n      [[a]] #tag",
        "<!-- [[a]] #tag [x](y.md) -->",
        "text <!-- [[a]]\n#tag --> text",
        "<div>\n[[a]] #tag\n</div>",
        "$[[a]] #tag$",
        "$$\n[[a]]\n#tag\n$$",
        "%% [[a]] #tag [x](y.md) %%",
        "text %%[[a]]%% text",
        "%%\n\nseveral\n\n[[a]] #tag\n\n%%",
        "%%\n```\n[[a]]\n```\n[[b]]\n%%",
    ],
)
def test_code_comments_and_mathematics_hold_no_links(text: str) -> None:
    assert links(text) == []


@pytest.mark.parametrize(
    "text", ["100%% of [[a]]", "`%%` [[a]] `%%`", "%% x %% [[a]] %% y %%", "%%a%% %%b%% [[a]] %%"]
)
def test_what_only_looks_like_a_comment_hides_nothing(text: str) -> None:
    assert links(text) == [("wikilink", "a", None)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#tag", ["tag"]),
        ("text #tag, #other. (#no)", ["tag", "other"]),
        ("#a/b/c #a/b/ #a//b", ["a/b/c", "a/b", "a//b"]),
        ("#1984 #y1984 #2024-01 #12a", ["y1984", "2024-01", "12a"]),
        ("#under_score #hy-phen", ["under_score", "hy-phen"]),
        ("#日本語 #Über #🎉x", ["日本語", "Über", "🎉x"]),
        ("a#b http://x/#y &#35;x \\#no x\\#y", []),
        ("# #heading-tag\n\n## #other", ["heading-tag", "other"]),
        ("#not a heading", ["not"]),
        ("- #item\n- [ ] #task", ["item", "task"]),
        ("> #quoted", ["quoted"]),
        ("**#bold** *#em* #tag", ["tag"]),
        ("[#label](a.md) [[a#heading]] [[a|see #x]]", []),
        ("#same #Same", ["same", "Same"]),
        ("#!bang #/path ## #", []),
        ("line one\n#two", ["two"]),
        ("| a |\n|---|\n| x #cell |", ["cell"]),
        ("#a,#b", ["a"]),
        ("#c++ #c#", ["c", "c"]),
    ],
)
def test_tags_in_the_text(text: str, expected: list[str]) -> None:
    assert tags(text) == expected


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("tags: [a, B/c, '#d']", ("a", "B/c", "d")),
        ("tags:\n- a\n- b\n", ("a", "b")),
        ("tags: a", ("a",)),
        ("tags: 'a b #c'", ("a", "b", "c")),
        ("tags: a, b c", ("a", "b c")),
        ("tags: [my tag, 'x, y']", ("my tag", "x, y")),
        ("tag: one", ("one",)),
        ("Tags: [a]\nTAG: b c", ("a", "b", "c")),
        ("tags: [a, A, '#a']", ("a",)),
        ("tags: [2024, 1.10, null, '']", ("2024", "1.10")),
        ("tags:", ()),
        ("tags: {a: b}", ("b",)),
        ("tags: ['#', '/']", ()),
    ],
)
def test_tags_in_the_frontmatter(block: str, expected: tuple[str, ...]) -> None:
    data = f"---\n{block}\n---\n".encode()
    parsed = parse_note("note.md", data)
    assert parsed.tags == expected
    assert not {"tags", "Tags", "TAG"} & parsed.meta.keys()
    assert all(data[link.start : link.end].decode() == link.raw for link in parsed.links)


def test_each_tag_of_a_list_in_one_text_has_its_own_place() -> None:
    found = parse("---\ntags: ab b, ab b, b\n---\n").links
    assert [(link.raw, link.start) for link in found] == [("ab b", 10), ("ab b", 16), ("b", 22)]


def test_tags_of_head_and_text_are_one_list() -> None:
    parsed = parse("---\ntags: [a, b]\n---\n#B #c\n")
    assert parsed.tags == ("a", "b", "c")
    assert [link.type for link in parsed.links] == ["TAGGED_AS"] * 4


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("aliases: [a, B c]", ("a", "B c")),
        ("aliases: a b", ("a b",)),
        ("aliases: a, b", ("a", "b")),
        ("alias: a", ("a",)),
        ("aliases: ['a, b']", ("a, b",)),
        ("aliases:", ()),
        ("aliases: [007, 1.10]", ("007", "1.10")),
        ("Aliases: a, b", ("a", "b")),
        ("ALIAS: a", ("a",)),
    ],
)
def test_aliases(block: str, expected: tuple[str, ...]) -> None:
    assert parse(f"---\n{block}\n---\n").aliases == expected


def test_links_within_frontmatter_values() -> None:
    text = (
        "---\n"
        'a: "[[one]]"\n'
        "b: ['[[two#h|x]]', 'see [[three]] and ![[four]]']\n"
        "c: {d: '[[five]]'}\n"
        "e: [[six]]\n"
        "f:\n- [[seven, eight]]\n"
        "g: |\n  [[nine]]\n"
        "# [[comment]]\n"
        "---\n[[ten]]\n"
    )
    found = parse(text).links
    names = ["one", "two", "three", "four", "five", "six", "seven, eight", "nine", "ten"]
    assert [link.name for link in found] == names
    assert [link.kind for link in found] == ["frontmatter"] * 8 + ["wikilink"]
    assert found[1].fragment == "h"


def test_a_link_written_with_escapes_is_placed_at_its_value() -> None:
    data = b'---\na: "[[it\\u0073]]"\n---\n'
    (link,) = parse_note("note.md", data).links
    assert link.name == "its"
    assert data[link.start : link.end] == b'"[[it\\u0073]]"'


def test_edges_are_typed_by_the_kind_of_link() -> None:
    found = parse("[[a]] ![[b]] [c](c.md) ![d](d.png) #e").links
    assert [link.type for link in found] == ["CITES", "CITES", "LINKS_TO", "LINKS_TO", "TAGGED_AS"]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("---\ntitle: From the head\n---\n# Heading", "From the head"),
        ("---\ntitle: 1.10\n---\n", "1.10"),
        ("---\ntitle: '  two   words '\n---\n", "two words"),
        ("---\ntitle: 2024-01-01\n---\n", "2024-01-01"),
        ("---\ntitle: [a, b]\n---\n# Heading", "Heading"),
        ("---\ntitle: ''\n---\n# Heading", "Heading"),
        ("text\n\n# A *heading* with `code` and [[a|link]] #", "A heading with code and link"),
        ("Heading\n=======", "Heading"),
        ("#\n\n# Second", "Second"),
        ("## Only level 2", "note"),
        ("```\n# code\n```", "note"),
        ("", "note"),
        ("# One\n\n# Two", "One"),
    ],
)
def test_the_title(text: str, title: str) -> None:
    assert parse(text).title == title


@pytest.mark.parametrize(
    ("block", "date"),
    [
        ("date: 2024-01-31", "2024-01-31"),
        ("date: 2024-01-31 10:00", "2024-01-31 10:00"),
        ("created: 2024-01-31T10:00:00Z", "2024-01-31T10:00:00Z"),
        ("date: 2024", "2024"),
        ("date: soon\ncreated: 2024-01", "2024-01"),
        ("date: '[[2024-01-31]]'", None),
        ("date: [2024-01-31]", None),
        ("date:", None),
    ],
)
def test_the_date(block: str, date: str | None) -> None:
    assert parse(f"---\n{block}\n---\n").date == date


def test_summary_type_and_the_rest() -> None:
    parsed = parse(
        "---\ntitle: T\ntype: concept\nsummary: in short\nrating: 4\nsource: a book\nlist: [1, x]\n---\n"
    )
    assert (parsed.type, parsed.summary) == ("concept", "in short")
    assert parsed.meta == {
        "type": "concept",
        "summary": "in short",
        "rating": 4,
        "list": [1, "x"],
        "frontmatter": {"source": "a book"},
    }
    assert parse("---\ndescription: d\n---\n").summary == "d"


@pytest.mark.parametrize("value", ["[[Concept]]", "'" + "x" * 80 + "'", "[a]", "''"])
def test_what_is_no_short_text_is_no_type(value: str) -> None:
    assert parse(f"---\ntype: {value}\n---\n").type is None


def test_a_byte_order_mark_is_no_text() -> None:
    data = b"\xef\xbb\xbf---\ntags: [\xc3\xa9]\n---\n\xc3\xa9 [[a]]"
    parsed = parse_note("note.md", data)
    assert parsed.body == "é [[a]]"
    assert data[parsed.body_offset :].decode() == parsed.body
    assert [data[link.start : link.end].decode() for link in parsed.links] == ["é", "[[a]]"]


@pytest.mark.parametrize("newline", ["\r\n", "\r"])
def test_every_kind_of_line_end(newline: str) -> None:
    text = newline.join(["---", "title: T", "---", "# H", "", "[[a]] #b", "", "```", "[[c]]", "```"])
    parsed = parse(text)
    assert parsed.title == "T"
    assert [link.name for link in parsed.links] == ["a", "b"]


@pytest.mark.parametrize(
    ("data", "reason", "line"),
    [
        ("text".encode("utf-16"), "UTF-16", 1),
        (b"\xfe\xff\x00a", "UTF-16", 1),
        (b"one\ntwo\ncaf\xe9\n", "0xe9", 3),
        (b"one\r\ntwo\rthree \xff", "0xff", 3),
        (b"\xef\xbb\xbfone\n\xc3(", "0xc3", 2),
        (b"\xed\xa0\x80", "not UTF-8", 1),
        (b"one\ntwo\x00", "NUL", 2),
        ("text".encode("utf-16-le"), "NUL", 1),
    ],
)
def test_bytes_that_are_no_text_are_refused_with_their_line(data: bytes, reason: str, line: int) -> None:
    with pytest.raises(ContentError, match=reason) as caught:
        parse_note("note.md", data)
    assert (caught.value.path, caught.value.line) == ("note.md", line)


def test_malformed_frontmatter_is_refused_with_the_line_of_the_file() -> None:
    with pytest.raises(FrontmatterError) as caught:
        parse_note("note.md", b"---\na: 1\nb: {{date}}\n---\n")
    assert caught.value.line == 3


def test_the_hash_of_the_body_ignores_metadata() -> None:
    first = parse("---\ntitle: T\ntags: a\n---\nbody")
    second = parse("---\ntitle: T\ntags: b\n---\nbody")
    assert first.hash != second.hash
    assert first.body_hash == second.body_hash
    assert first.body_hash != parse("---\ntitle: U\n---\nbody").body_hash
    assert first.embedding_text == "T\n\nbody"


def test_a_picture_within_the_text_does_not_fill_the_ledger() -> None:
    (link,) = parse_note("note.md", b"![x](data:image/png;base64," + b"A" * 100_000 + b")").links
    assert len(link.raw) <= 1_000
    assert len(link.name) <= 4_096
    assert link.is_url


def test_a_panic_of_the_parser_is_a_problem_of_one_note(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    def panic(*_: object, **__: object) -> None:
        raise PanicException("index out of bounds")

    monkeypatch.setattr(pyromark, "events_with_range", panic)
    with pytest.raises(ContentError, match="parser failed"):
        parse_note("note.md", b"x")


def test_an_interrupt_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pyromark, "events_with_range", interrupt)
    with pytest.raises(KeyboardInterrupt):
        parse_note("note.md", b"x")


@pytest.mark.parametrize(
    "piece",
    ["[", "[[", "![", ">", "*a ", "`", "- ", "_*", "<", "$a", "[[a|", "](", "&", "%%", "<!-- ", "[^", "#a "],
)
def test_hostile_repetition_is_parsed_in_no_time(piece: str) -> None:
    started = time.monotonic()
    parse_note("note.md", ("é" + piece * 200_000).encode())
    assert time.monotonic() - started < 5


PIECES = st.sampled_from(
    [
        "[[",
        "]]",
        "[",
        "](",
        ")",
        "!",
        "#",
        "|",
        "`",
        "```\n",
        "%%",
        "$",
        "$$",
        "<!--",
        "-->",
        "\n",
        "\n\n",
        "\r",
        "\\",
        "é",
        "日",
        "a",
        "b/c",
        ".md",
        " ",
        "  ",
        "> ",
        "- ",
        "| ",
        "^",
        "*",
        "_",
        "---\n",
        "🎉",
    ]
)


LOGSEQ_PIECES = st.sampled_from(
    [
        "tags:: ", "\nrelated:: ", "alias:: ", "title:: x\n", "((", "634fae2e-edab-42e0-8385-59df3fc3da0e",
        "))", "\n  id:: ", "\t", "\n- ", ", ", "[tag: ", "]", "<!-- tags: [REL: ", "x", "\nrequires: ",
    ]
)  # fmt: skip


@settings(max_examples=400)
@given(st.lists(PIECES, max_size=40).map("".join))
def test_spans_are_right_in_any_text(text: str) -> None:
    data = text.encode()
    try:
        parsed = parse_note("note.md", data)
    except FrontmatterError:
        return
    assert data[parsed.body_offset :].decode() == parsed.body
    assert list(parsed.links) == sorted(parsed.links, key=lambda link: (link.start, link.end))
    for link in parsed.links:
        assert isinstance(link, RawLink)
        assert data[link.start : link.end].decode() == link.raw
        assert link.start >= parsed.body_offset or link.kind in ("frontmatter", "tag")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "piece",
    [
        "[tag: ",
        "[tag:  \t",
        "<!-- tags: ",
        "[A: [[b]]",
        "((634fae2e-",
        "x:: ",
        "a:: b\n",
        "tags:: a, ",
        "\n\t- x",
        "#[[a]] ",
    ],
)
def test_hostile_repetition_in_any_dialect(piece: str, dialect: Dialect) -> None:
    for text in (piece * 30_000, "<!-- tags: " + piece * 30_000, "tags:: " + piece * 30_000):
        started = time.monotonic()
        parse_note("note.md", text.encode(), Reading(dialect))
        assert time.monotonic() - started < 5


@settings(max_examples=300)
@given(st.lists(st.one_of(PIECES, LOGSEQ_PIECES), max_size=40).map("".join), st.sampled_from(DIALECTS))
def test_spans_are_right_in_any_dialect(text: str, dialect: Dialect) -> None:
    data = text.encode()
    try:
        parsed = parse_note("note.md", data, Reading(dialect))
    except FrontmatterError:
        return
    for link in parsed.links:
        written = data[link.start : link.end].decode()
        assert written == link.raw or (link.kind == "frontmatter" and link.raw in written)


@pytest.mark.parametrize(
    "heading", [r"# a \* b", "# a & b &amp; c", "# *a*b `c` d", "# [a [b](c.md)", "a\n===", "# a  b \\\\"]
)
def test_headings_are_the_same_where_text_is_searched_and_where_it_is_not(heading: str) -> None:
    alone, searched = (parse_note("n.md", f"{heading}\n\n{tag}\n".encode()) for tag in ("tag", "#tag"))
    assert (alone.title, alone.headings, alone.blocks) == (searched.title, searched.headings, searched.blocks)
    assert (alone.tags, searched.tags) == ((), ("tag",))
