"""The conventions of links, one a line: what is written in a real note, and what the ledger says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from vaults import Files, Vault

Make = Callable[[Files], Vault]

VAULT = {
    "Home.md": "# Home\n\n## Part\n\n### Deep\n\nText ^block\n",
    "folder/Note.md": "---\naliases: [Other Name, Zweiter]\nid: 42\n---\n",
    "folder/with space.md": "",
    "folder/deep/Leaf.md": "",
    "one/Twin.md": "",
    "two/Twin.md": "",
    "here/near.md": "",
    "Dune: part two.md": "",
    "a.b.c.md": "",
    "日本/メモ.md": "",
    "here/é.md": "",  # decomposed on no system: written NFC
    "files/cat.png": "",
    "files/paper.pdf": "",
    "files/board.canvas": "{}",
    "files/table.base": "",
    "LICENSE": "",
}
HOME, NOTE, LEAF = "home", "folder-note", "folder-deep-leaf"
TWINS = ("one-twin", "two-twin")

# What is written in here/case.md, and for each link: kind, type, fragment, state, target, mark.
Expected = tuple[str, str, str | None, str, Any, str | None]


def wiki(target: Any, *, kind: str = "wikilink", to: str | None = None, mark: str | None = None) -> Expected:
    return (kind, "CITES", to, "ambiguous" if isinstance(target, tuple) else "resolved", target, mark)


def embed(target: Any, to: str | None = None) -> Expected:
    return wiki(target, kind="embed", to=to)


def link(target: str, *, to: str | None = None, mark: str | None = None) -> Expected:
    return ("link", "LINKS_TO", to, "resolved", target, mark)


def file(kind: str = "embed", to: str | None = None, mark: str | None = None) -> Expected:
    type_ = "CITES" if kind in ("wikilink", "embed", "frontmatter") else "LINKS_TO"
    return (kind, type_, to, "external", None, mark)


def open_(kind: str = "wikilink", mark: str | None = None) -> Expected:
    return (kind, "LINKS_TO" if kind in ("link", "image") else "CITES", None, "unresolved", None, mark)


def tag(name: str) -> Expected:
    return ("tag", "TAGGED_AS", None, "resolved", f"#{name}", None)


def head(target: str, type: str = "CITES", kind: str = "frontmatter", mark: str | None = None) -> Expected:
    return (kind, type, None, "resolved", target, mark)


OBSIDIAN: list[tuple[str, list[Expected]]] = [
    # notes by name, path, extension, text
    ("[[Note]]", [wiki(NOTE)]),
    ("[[folder/Note]]", [wiki(NOTE)]),
    ("[[deep/Leaf]]", [wiki(LEAF)]),
    ("[[Note.md]]", [wiki(NOTE)]),
    ("[[/folder/Note]]", [wiki(NOTE)]),
    ("[[./near]]", [wiki("here-near")]),
    ("[[../folder/Note]]", [wiki(NOTE)]),
    ("[[Note|text]]", [wiki(NOTE)]),
    ("[[Note|a|b]]", [wiki(NOTE)]),
    ("[[ Note ]]", [wiki(NOTE)]),
    ("[[with space]]", [wiki("folder-with-space")]),
    ("[[a.b.c]]", [wiki("a-b-c")]),
    ("[[Dune: part two]]", [wiki("dune-part-two")]),
    ("[[メモ]]", [wiki("日本-メモ")]),
    ("[[e\u0301]]", [wiki("here-é")]),
    ("[[Nowhere]]", [open_()]),
    # headings, blocks, itself
    ("[[Home#Part]]", [wiki(HOME, to="Part")]),
    ("[[Home#Part#Deep|x]]", [wiki(HOME, to="Part#Deep")]),
    ("[[Home#^block]]", [wiki(HOME, to="^block")]),
    ("[[#Part]]", [wiki("here-case", to="Part")]),
    ("[[#^block]]", [wiki("here-case", to="^block")]),
    ("[x](#part)", [link("here-case", to="part")]),
    # embeds
    ("![[Note]]", [embed(NOTE)]),
    ("![[Home#Part]]", [embed(HOME, "Part")]),
    ("![[Home|![[Note]]]]", [embed(HOME), embed(NOTE)]),
    # case, aliases, several of a name
    ("[[note]]", [wiki(NOTE, mark="case")]),
    ("[[Other Name]]", [wiki(NOTE)]),
    ("[[other name]]", [wiki(NOTE, mark="case")]),
    ("[[Twin]]", [wiki(TWINS)]),
    ("[[one/Twin]]", [wiki("one-twin")]),
    # markdown's own, relative and encoded
    ("[x](near.md)", [link("here-near")]),
    ("[x](../folder/with%20space.md)", [link("folder-with-space")]),
    ("[x](<../folder/with space.md>)", [link("folder-with-space")]),
    ("[x](../folder/with space.md)", []),
    ("[x](../Home.md#part)", [link(HOME, to="part")]),
    ("[x](../Home.md?raw=1#a%20b)", [link(HOME, to="a b")]),
    ("[x](../home.md)", [link(HOME, mark="case")]),
    ("[x](Note.md)", [link(NOTE)]),
    ("[x](/Home.md)", [link(HOME)]),
    ('[x](near.md "title")', [link("here-near")]),
    ("[x][r] [r] [r][]\n\n[r]: near.md", [link("here-near")] * 3),
    ("[r]: near.md", []),
    ("[x](../Dune%3A%20part%20two.md)", [link("dune-part-two")]),
    ("[x](%E6%97%A5.md)", [open_("link")]),
    # other files, there or not, and places outside
    ("![[cat.png]]", [file()]),
    ("![[cat.png|100x200]]", [file()]),
    ("![[paper.pdf#page=3]]", [file(to="page=3")]),
    ("[[board.canvas]]", [file("wikilink")]),
    ("![[table.base#View]]", [file(to="View")]),
    ("![x](../files/cat.png)", [file("image")]),
    ("![x](cat.png)", [file("image")]),
    ("[x](../LICENSE)", [file("link")]),
    ("![[dog.png]]", [file(mark="missing")]),
    ("![x](../files/dog.png)", [file("image", mark="missing")]),
    ("[x](../folder/)", [file("link")]),
    ("[x](../../out.md)", [file("link", mark="outside")]),
    ("[x](https://example.org/Note.md#a)", [file("link")]),
    ("<https://example.org>", [file("link")]),
    ("<me@example.org>", [file("link")]),
    ("[x](obsidian://open?vault=v)", [file("link")]),
    ("[x](file:///etc/hosts)", [file("link")]),
    ("[[https://example.org]]", [file("wikilink")]),
    ("![](data:image/png;base64,AAAA)", [file("image")]),
    # as Windows writes paths: not followed, but told
    ("[x](..\\Home.md)", [open_("link", "backslash")]),
    ("[[folder\\Note]]", [open_(mark="backslash")]),
    # wherever text may stand
    ("> [!note] Title [[Note]]\n> - [[Home]]", [wiki(NOTE), wiki(HOME)]),
    ("| a |\n|---|\n| [[Note\\|x]] ![[Home\\|x]] |", [wiki(NOTE), embed(HOME)]),
    ("x[^1] ^[in [[Note]]]\n\n[^1]: [[Home]]", [wiki(NOTE), wiki(HOME)]),
    ("- [ ] [[Note]] **[[Home]]** ==[[Leaf]]==", [wiki(NOTE), wiki(HOME), wiki(LEAF)]),
    ("<b>[[Note]]</b>", [wiki(NOTE)]),
    ("# [[Note]]", [wiki(NOTE)]),
    ("[[Note]](near.md)", [wiki(NOTE)]),
    ("[[[Note]]]", [wiki(NOTE)]),
    ("[[Note\nHome]]", []),
    ("[[]] []", []),
    ("\\[\\[Note]] \\#tag", []),
    # code, comments and mathematics hold none
    ("`[[Note]] #a`", []),
    ("```\n[[Note]]\n```", []),
    ("~~~dataview\nlist from [[Note]] and #a", []),
    ("    [[Note]]", []),
    ("%% [[Note]] #a %% [[Home]]", [wiki(HOME)]),
    ("%%\n\n[[Note]]\n\n%%", []),
    ("<!-- [[Note]] #a -->", []),
    ("$[[Note]]$ and $$\n[[Home]] #a\n$$", []),
    # tags
    ("#tag #Some/Nested/Tag #y1984 #1984", [tag("tag"), tag("some/nested/tag"), tag("y1984")]),
    ("a#b [x](near.md#c) [[Home#d]]", [link("here-near", to="c"), wiki(HOME, to="d")]),
    ("---\ntags: [One, two/three, '#four', 5]\n---\n", [tag(n) for n in ("one", "two/three", "four", "5")]),
    ("---\ntags: one two\n---\n", [tag("one"), tag("two")]),
    ("---\ntags: one, two three\n---\n", [tag("one"), tag("two three")]),
    ("---\ntag: one\n---\n#One", [tag("one"), tag("one")]),
    # links in values of the YAML, and keys that are relations
    ('---\nauthor: "[[Note]]"\n---\n', [head(NOTE, "AUTHOR")]),
    ("---\nauthor: [[Note]]\n---\n", [head(NOTE, "AUTHOR")]),
    (
        "---\nbuilds on: ['[[Note]]', \"[[Home|x]]\"]\n---\n",
        [head(NOTE, "BUILDS_ON"), head(HOME, "BUILDS_ON")],
    ),
    ("---\nsummary: see [[Note]]\n---\n", [head(NOTE)]),
    ("---\nrelated: see [[Note]]\n---\n", [head(NOTE, "RELATED")]),
    (
        "---\nrequires: Home, '[[Note]]'\n---\n".replace("'", ""),
        [head(HOME, "REQUIRES", "relation"), head(NOTE, "REQUIRES")],
    ),
    ("---\na: {b: ['in [[Note]]']}\n---\n", [head(NOTE)]),
    ("---\naliases: ['[[Note]]']\n---\n", [head(NOTE)]),
    ("---\nrelated: [[Note]]\n---\n", [head(NOTE, "RELATED")]),
    (
        "---\nrequires: 42, Home\n---\n",
        [head(NOTE, "REQUIRES", "relation"), head(HOME, "REQUIRES", "relation")],
    ),
    (
        "---\nsupports: [Note, Leaf]\n---\n",
        [head(NOTE, "SUPPORTS", "relation"), head(LEAF, "SUPPORTS", "relation")],
    ),
    ("---\ndepends-on: folder-deep-leaf\n---\n", [head(LEAF, "DEPENDS_ON", "relation")]),
    ("---\nRelated To: note\n---\n", [head(NOTE, "RELATED_TO", "relation", "case")]),
    ("---\nrelated: true\nsupports: {a: b}\nrequires:\n---\n", []),
    ("---\nrequires: Nobody\n---\n", [("relation", "REQUIRES", None, "unresolved", None, None)]),
    ("---\nrelated: https://example.org\n---\n", [("relation", "RELATED", None, "external", None, None)]),
    # Amalfa's
    (
        "[tag: Note] [Tag:Nobody]",
        [head(NOTE, "TAGGED_AS", "relation"), head("#nobody", "TAGGED_AS", "relation")],
    ),
    ("[tag: x](near.md) `[tag: x]` \\[tag: x]", [link("here-near"), head("#x", "TAGGED_AS", "relation")]),
    (
        "<!-- tags: [IMPLEMENTS: Note] [Part_Of: folder-deep-leaf] [QUALITY: high] [X: Nobody] -->",
        [
            head(NOTE, "IMPLEMENTS", "relation"),
            head(LEAF, "PART_OF", "relation"),
            ("relation", "X", None, "unresolved", None, None),
        ],
    ),
    ("text <!-- tags: [REL: [[Note]]] --> text", [head(NOTE, "REL", "relation")]),
    ("`<!-- tags: [REL: Note] -->` <!-- tags -->", []),
    # Mathematics of several blocks
    ("$$\n[[1,2]]\n\n#x [a](near.md)\n$$\n[[Home]]", [wiki(HOME)]),
    ("- $$\n  [[1]]\n\n  [[2]] #x$$ [[Home]]\n\n$$\n\n[[Note]]", [wiki(HOME), wiki(NOTE)]),
    ("costs $$ [[Home]]\n\n$$ [[Note]]", [wiki(HOME), wiki(NOTE)]),
    ("$$\n[[1]]\n\n[[2]]\n$$\n\n[[Home]]\n\n$$\n[[3]]\n\n[[4]]\n$$", [wiki(HOME)]),
    ("```\n$$\n```\n[[Home]]\n\n$$\nx\n\n#y\n$$", [wiki(HOME)]),
    ("%%\n$$\n%%\n[[Home]]\n\n$$ [[Note]]", [wiki(HOME), wiki(NOTE)]),
]

DENDRON: list[tuple[str, list[Expected]]] = [
    ("[[a text|a.b.c]]", [wiki("a-b-c")]),
    ("[[a.b.c]]", [wiki("a-b-c")]),
    ("[[a text|Home#Part]]", [wiki(HOME, to="Part")]),
    ("![[Home#Part]]", [embed(HOME, "Part")]),
    ("| a |\n|---|\n| [[x\\|Note]] |", [wiki(NOTE)]),
    ("[[Note|Nowhere]]", [open_()]),
    ("[[dendron://other/a.b.c]]", [wiki("a-b-c")]),
    ("[[a text| dendron://the.vault/Home#Part ]]", [wiki(HOME, to="Part")]),
    ("![[dendron://vault/Home#Part]]", [embed(HOME, "Part")]),
    ("[[text|dendron://vault/Nowhere]]", [open_()]),
    ("[[text|dendron://vault/]] [[https://example.org/a]]", [file("wikilink")] * 2),
    ("---\nrelated: '[[x|dendron://vault/Note]]'\n---\n", [head(NOTE, "RELATED")]),
    ("---\nrelated: '[[x|Note]]'\n---\n", [head(NOTE, "RELATED")]),
    ("#tag", [tag("tag")]),
    ("#role.bug #v1.0. #x.. #.x #1.2", [tag("role.bug"), tag("v1.0"), tag("x")]),
]

BLOCK = "634fae2e-edab-42e0-8385-59df3fc3da0e"
PAGES = {
    "pages/Space___Sub Page.md": f"- x\n  id:: {BLOCK}\n",
    "pages/What%3F.md": "",
    "pages/titled.md": "title:: Another/Title\nalias:: Nick, [[Nack]]\n\n- text\n",
    "pages/Tagged.md": "",
    "journals/2021_01_12.md": "",
}
TAGGED = "pages-tagged"


def page(name: str, kind: str = "wikilink", type: str = "CITES") -> Expected:
    return (kind, type, None, "resolved", f"[[{name}]]", "page")


LOGSEQ: list[tuple[str, list[Expected]]] = [
    ("[[Space/Sub Page]]", [wiki("pages-space-sub-page")]),
    ("[[space/sub page]]", [wiki("pages-space-sub-page")]),
    ("[[What?]]", [wiki("pages-what-3f")]),
    ("[[Another/Title]] [[titled]] [[Nick]] [[nack]]", [wiki("pages-titled")] * 4),
    ("[[Jan 12th, 2021]] [[2021-01-12]]", [wiki("journals-2021-01-12")] * 2),
    (
        "[[2021-01-12 Tue]] [[Tuesday, 12.01.2021]] [[12th January 2021]] #[[20210112]]",
        [wiki("journals-2021-01-12")] * 3
        + [("tag", "TAGGED_AS", None, "resolved", "journals-2021-01-12", None)],
    ),
    ("[[12-01-2021]] [[2021-01-12 Mon]]", [page("12-01-2021"), page("2021-01-12 mon")]),
    ("[[Home]] [[folder/Note]]", [wiki(HOME), wiki(NOTE)]),
    ("[[Not Written]] [[not written]]", [page("not written")] * 2),
    (
        "#Tagged #[[Not Written]] #free",
        [
            ("tag", "TAGGED_AS", None, "resolved", TAGGED, None),
            page("not written", "tag", "TAGGED_AS"),
            page("free", "tag", "TAGGED_AS"),
        ],
    ),
    (
        f"(({BLOCK})) {{{{embed (({BLOCK}))}}}} [x]((({BLOCK})))",
        [wiki("pages-space-sub-page", kind="block")] * 3,
    ),
    ("((00000000-0000-0000-0000-000000000000)) (()) ((x))", [open_("block")]),
    ("[x]([[Tagged]])", [wiki(TAGGED)]),
    (
        "type:: [[Tagged]], [[Home]]\nnote:: see [[Home]]\n",
        [head(TAGGED, "TYPE", "wikilink"), head(HOME, "TYPE", "wikilink"), wiki(HOME)],
    ),
    (
        "tags:: Tagged, #free, [[Home]]\n",
        [
            ("tag", "TAGGED_AS", None, "resolved", TAGGED, None),
            page("free", "tag", "TAGGED_AS"),
            ("tag", "TAGGED_AS", None, "resolved", HOME, None),
        ],
    ),
    (
        "- block\n  requires:: Tagged, [[Home]]\n",
        [head(TAGGED, "REQUIRES", "relation"), head(HOME, "REQUIRES", "wikilink")],
    ),
    (f"```\n(({BLOCK})) tags:: x\ntags:: y\n```", []),
    ("## Part\n\t- [[Home]]\n\t\t- `[[x]]`\n\t\t- deep [[Tagged]]\n", [wiki(HOME), wiki(TAGGED)]),
    ("- a\n\t- ```\n\t  [[x]]\n\t  ```\n\t- [[Home]]\n", [wiki(HOME)]),
    ("[x](../pages/What%253F.md)", [link("pages-what-3f")]),
]

MARKDOWN: list[tuple[str, list[Expected]]] = [
    ("[[nodiscard]] #include %% [a](near.md) %%", [link("here-near")]),
    ("costs $5 [a](near.md) or $6", [link("here-near")]),
    ("[x](Note.md) [x](../folder/Note.md)", [open_("link"), link(NOTE)]),
    ("[[Home]][r]\n\n[r]: near.md", [link("here-near")]),
    (
        "---\ntags: [a]\nrelated: Home\nauthor: '[[Home]]'\n---\n",
        [tag("a"), head(HOME, "RELATED", "relation")],
    ),
]

TABLES = {"obsidian": OBSIDIAN, "dendron": DENDRON, "logseq": LOGSEQ, "markdown": MARKDOWN}
CASES = [(dialect, *case) for dialect, table in TABLES.items() for case in table]


@pytest.mark.parametrize(("dialect", "text", "expected"), CASES, ids=[f"{d}: {t!r}" for d, t, _ in CASES])
def test_convention(make_vault: Make, dialect: str, text: str, expected: list[Expected]) -> None:
    files = VAULT | (PAGES if dialect == "logseq" else {})
    vault = make_vault(files | {"here/case.md": text})
    vault.options["dialect"] = dialect
    report = vault.ingest()
    assert (report.problems, report.nodes) == ([], 1 + sum(name.endswith(".md") for name in files))
    found = vault.db.links(source="here-case")
    told = [
        (row.kind, row.type, row.fragment, row.state, row.candidates or row.target, row.mark) for row in found
    ]
    assert told == expected
    data = (vault.root / "here/case.md").read_bytes()
    for row in found:
        assert row.path == "here/case.md"
        assert row.start is not None
        assert data[row.start : row.end].decode() == row.raw
    edges = {(edge.target, edge.type) for edge in vault.db.get_edges("here-case")}
    resolved = {(target, type_) for _, type_, _, state, target, _ in expected if state == "resolved"}
    assert edges == {(target, type_) for target, type_ in resolved if target != "here-case"}
