"""The ledger as it is asked: by note, by state; and what comes and goes with the notes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from vaults import Files, Vault, dump

from resonance.errors import InputError, SettingsError
from resonance.model import Link
from resonance.vault.dialect import Reading, Relations, relations_of
from resonance.vault.settings import load_settings
from resonance.vault.suggest import Suggestion, suggest_dialect

Make = Callable[[Files], Vault]

FILES = {
    "a.md": "[[b]] [[B#h]] [[twin]] [[nobody]] [[a]] ![[gone.png]]",
    "b.md": "[[a#Part#^x|text]]",
    "x/twin.md": "",
    "y/twin.md": "",
}


def test_a_link_says_all_there_is_to_know(make_vault: Make) -> None:
    vault = make_vault(FILES)
    vault.ingest()
    assert vault.db.links(source="b") == [
        Link(
            source="b",
            kind="wikilink",
            raw="[[a#Part#^x|text]]",
            name="a",
            state="resolved",
            target="a",
            candidates=(),
            type="CITES",
            start=0,
            end=18,
            fragment="Part#^x",
            path="b.md",
            mark=None,
        )
    ]


def test_questions_about_the_ledger(make_vault: Make) -> None:
    vault = make_vault(FILES)
    vault.ingest()
    db = vault.db
    assert [(link.path, link.raw, link.mark) for link in db.backlinks("b")] == [
        ("a.md", "[[b]]", None),
        ("a.md", "[[B#h]]", "case"),
    ]
    assert [link.source for link in db.backlinks("a")] == ["b"]
    assert [link.source for link in db.links(target="a")] == ["a", "b"]
    assert db.backlinks("nobody") == []
    assert [link.raw for link in db.unresolved()] == ["[[nobody]]"]
    assert [(link.raw, link.candidates) for link in db.ambiguous()] == [("[[twin]]", ("x-twin", "y-twin"))]
    broken = [link.raw for link in db.links() if link.is_broken]
    assert broken == ["[[twin]]", "[[nobody]]", "![[gone.png]]"]


@pytest.mark.parametrize("order", list(itertools.permutations(["a.md", "b.md", "n.md", "x/n.md"])))
def test_the_order_in_which_notes_come_and_go_does_not_matter(make_vault: Make, order: list[str]) -> None:
    texts = {
        "a.md": "[[n]] [[B]] [[Al]]",
        "b.md": "[[a]] [[x/n]]",
        "n.md": "[[b]]",
        "x/n.md": "---\nalias: al\n---\n",
    }
    stepwise, at_once = (
        make_vault({"start.md": "[[n]] [[Al]]"}),
        make_vault({"start.md": "[[n]] [[Al]]", **texts}),
    )
    for name in order:
        stepwise.write({name: texts[name]})
        stepwise.ingest()
    at_once.ingest()
    assert dump(stepwise.db) == dump(at_once.db)
    for name in order:
        stepwise.remove(name)
        stepwise.ingest(yes=True)
    alone = make_vault({"start.md": "[[n]] [[Al]]"})
    alone.ingest()
    assert dump(stepwise.db) == dump(alone.db)
    assert {link.state for link in stepwise.db.links()} == {"unresolved"}
    assert stepwise.edges() == set()


def test_deleting_a_node_by_hand_leaves_no_mark_behind(make_vault: Make) -> None:
    vault = make_vault({"a.md": "[[B]]", "b.md": ""})
    vault.ingest()
    assert vault.db.links()[0].mark == "case"
    vault.db.delete_nodes(["b"])
    assert [(link.state, link.mark) for link in vault.db.links()] == [("unresolved", None)]


def test_a_hub_is_left_out_when_asked_and_never_when_stored(make_vault: Make) -> None:
    names = [f"n{i}" for i in range(6)]
    files = {f"{name}.md": "[[hub]] [[n0]]" for name in names}
    vault = make_vault({**files, "hub.md": "[[n1]]"})
    vault.ingest()
    db = vault.db
    assert len(db.get_edges("hub", direction="in")) == 6
    assert {edge.target for edge in db.get_edges("n1")} == {"hub", "n0"}
    assert {edge.target for edge in db.get_edges("n1", max_degree=7)} == {"hub", "n0"}
    assert {edge.target for edge in db.get_edges("n1", max_degree=6)} == {"n0"}
    assert db.get_edges("n1", max_degree=5) == []
    both = db.get_edges("n1", direction="both", max_degree=6)
    assert {(edge.source, edge.target) for edge in both} == {("n1", "n0")}
    assert [edge.target for edge in db.get_edges("hub", max_degree=3, type="CITES")] == ["n1"]
    assert db.get_edges("hub", max_degree=3, type="LINKS_TO") == []
    assert len(db.get_edges("hub", direction="in")) == 6
    for wrong in (-1, "3", 2.5):
        with pytest.raises(InputError, match=f"max_degree={wrong!r}"):
            db.get_edges("hub", max_degree=wrong)


# --- pages without a file -----------------------------------------------------------------------------


def test_a_page_of_logseq_gets_its_file_and_loses_it(make_vault: Make) -> None:
    vault = make_vault({"pages/a.md": "[[New Page]] #[[New Page]]", "pages/b.md": "[[new page]]"})
    vault.options["dialect"] = "logseq"
    report = vault.ingest()
    assert (report.nodes, report.pages, report.tags, report.links) == (2, 1, 0, {"resolved": 3})
    node = vault.db.get_node("[[new page]]")
    assert node is not None
    assert (node.type, node.title) == ("page", "New Page")
    before = dump(vault.db)
    vault.write({"pages/New Page.md": "text"})
    report = vault.ingest()
    assert (report.nodes, report.pages) == (3, 0)
    assert vault.db.get_node("[[new page]]") is None
    assert vault.edges() == {
        ("pages-a", "pages-new-page", "CITES"),
        ("pages-a", "pages-new-page", "TAGGED_AS"),
        ("pages-b", "pages-new-page", "CITES"),
    }
    vault.remove("pages/New Page.md")
    vault.ingest()
    assert dump(vault.db) == before


def test_the_spelling_of_a_page_does_not_depend_on_what_was_read_first(make_vault: Make) -> None:
    vault = make_vault({"b.md": "[[some page]]"})
    vault.options["dialect"] = "logseq"
    vault.ingest()
    assert title(vault, "[[some page]]") == "some page"
    vault.write({"a.md": "[[Some Page]]"})
    vault.ingest()
    assert title(vault, "[[some page]]") == "Some Page"
    vault.remove("a.md")
    vault.ingest()
    assert title(vault, "[[some page]]") == "some page"


def title(vault: Vault, node: str) -> str | None:
    found = vault.db.get_node(node)
    assert found is not None
    return found.title


# --- settings -----------------------------------------------------------------------------------------


def test_another_dialect_reads_the_vault_again(make_vault: Make) -> None:
    vault = make_vault({"a.md": "[[text|b]]", "b.md": "#t"})
    assert vault.ingest().links == {"resolved": 1, "unresolved": 1}
    vault.options["dialect"] = "dendron"
    report = vault.ingest()
    assert (report.indexed, report.links) == (2, {"resolved": 2})
    assert vault.ingest().unchanged == 2


def test_a_tag_of_dendron_is_a_note_if_there_is_one(make_vault: Make) -> None:
    vault = make_vault({"a.md": "#x.y #z", "tags.x.md": ""})
    vault.options["dialect"] = "dendron"
    vault.ingest()
    assert vault.edges() == {("a", "#x.y", "TAGGED_AS"), ("a", "#z", "TAGGED_AS")}
    vault.write({"tags.x.y.md": ""})
    vault.ingest()
    assert vault.edges() == {("a", "tags-x-y", "TAGGED_AS"), ("a", "#z", "TAGGED_AS")}
    vault.remove("tags.x.y.md")
    vault.ingest()
    assert vault.edges() == {("a", "#x.y", "TAGGED_AS"), ("a", "#z", "TAGGED_AS")}


@pytest.mark.parametrize(
    ("told", "types"),
    [
        ("null", {"AUTHOR", "REQUIRES", "RELATED"}),
        ("false", {"CITES"}),
        ("[]", {"CITES"}),
        ('"author"', {"AUTHOR", "CITES"}),
        ('["author", "Related"]', {"AUTHOR", "RELATED"}),
        ('["*"]', {"AUTHOR", "RELATED"}),
        (
            '{"author": "WRITTEN_BY", "requires": "needs it", "*": true}',
            {"WRITTEN_BY", "NEEDS_IT", "RELATED"},
        ),
        ('{"author": true, "related": false}', {"AUTHOR", "CITES"}),
    ],
)
def test_the_settings_name_the_relations(make_vault: Make, told: str, types: set[str]) -> None:
    text = "---\nauthor: '[[b]]'\nrelated: ['[[c]]']\nrequires: d\n---\n"
    vault = make_vault({"a.md": text, "b.md": "", "c.md": "", "d.md": ""})
    vault.write({"amalfa.settings.json": f'{{"relations": {told}}}'})
    vault.ingest()
    assert {edge.type for edge in vault.db.get_edges("a")} == types


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ('{"dialect": "roam"}', "dialect must be one of obsidian, dendron, logseq, markdown, not 'roam'"),
        ('{"dialect": 1}', "dialect must be one of"),
        ('{"relations": 1}', "relations must be a list"),
        ('{"relations": {"a": 1}}', "relations.a must be the type of an edge or true, not 1"),
        ('{"relations": {"a": "-"}}', "relations.a must be the type of an edge"),
        ('{"relations": ["!"]}', "holds '!'"),
    ],
)
def test_settings_that_make_no_sense(root: Path, told: str, reason: str) -> None:
    (root / "amalfa.settings.json").write_text(told)
    with pytest.raises(SettingsError, match=r"amalfa\.settings\.json") as caught:
        load_settings(root)
    assert reason in str(caught.value)


def test_the_default_reading_is_obsidians() -> None:
    assert Reading() == Reading("obsidian", Relations())
    assert Relations().of_names("Depends-On") == "DEPENDS_ON"
    assert Relations().of_names("author") is None
    assert Relations().of_links("author") == "AUTHOR"
    assert relations_of([]).of_links("author") is None
    assert relations_of(["über uns"]).of_names("Über-uns") == "ÜBER_UNS"


# --- which dialect it is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"a.md": "[[See b|b]] [[c|See c]]", "b.md": "[[See a|a]]"}, Suggestion("dendron", 3, 0, 2)),
        (
            {"pages/x___y.md": "[[X/Y]] [[Nobody]]", "pages/z.md": "[[x/y]]"},
            Suggestion("logseq", 3, 0, 3),
        ),
        ({"x___y.md": "[[X/Y]] [[Nobody]]", "z.md": "[[x/y]]"}, Suggestion("logseq", 3, 0, 2)),
        (
            {"a.md": "[[nodiscard]] [b](b.md) [b](b.md)", "b.md": "[a](a.md)"},
            Suggestion("markdown", 1, 0, 0),
        ),
        ({"a.md": "[[b]] [[nobody]]", "b.md": ""}, None),
        ({"a.md": "[[nobody]] [[text|somebody]]"}, None),
        ({"a.md": "no link"}, None),
    ],
)
def test_a_dialect_is_suggested_where_more_would_resolve(
    make_vault: Make, files: Files, told: Suggestion | None
) -> None:
    vault = make_vault(files)
    vault.ingest()
    assert suggest_dialect(vault.db) == told
    if told is not None:
        vault.options["dialect"] = told.dialect
        report = vault.ingest()
        assert suggest_dialect(vault.db) is None
        assert report.links.get("resolved", 0) >= told.would


# --- files that are not there -------------------------------------------------------------------------


def marks(vault: Vault) -> dict[str, str | None]:
    return {link.raw: link.mark for link in vault.db.links()}


def test_only_where_all_was_looked_at_is_a_file_missing(make_vault: Make, tmp_path: Path) -> None:
    text = "![](art/a.png) ![](linked/b.png) ![](.hidden/c.png) ![](d.png) ![[e.png]]"
    vault = make_vault({"n.md": text, "art/x.md": ""})
    vault.ingest()
    everything = dict.fromkeys(["![](art/a.png)", "![](linked/b.png)", "![](d.png)", "![[e.png]]"], "missing")
    assert marks(vault) == everything | {"![](.hidden/c.png)": None}
    vault.options["exclude"] = ["art"]
    vault.ingest(yes=True)
    nothing_sure = everything | {"![](art/a.png)": None, "![](.hidden/c.png)": None, "![[e.png]]": None}
    assert marks(vault) == nothing_sure
    del vault.options["exclude"]
    vault.ingest()
    (vault.root / "linked").symlink_to(tmp_path)
    vault.ingest()
    assert marks(vault) == nothing_sure | {"![](art/a.png)": "missing", "![](linked/b.png)": None}
    (vault.root / "linked").unlink()
    vault.write({"d.png": "", "deep/E.png": ""})
    report = vault.ingest()
    assert (report.indexed, marks(vault)["![](d.png)"], marks(vault)["![[e.png]]"]) == (0, None, "case")


def test_sources_are_all_that_is_looked_at(make_vault: Make) -> None:
    vault = make_vault({"docs/n.md": "![](a.png) ![](../b.png) [x](../src/c.py) ![[d.png]]", "o/p.md": ""})
    vault.options["sources"] = ["docs"]
    vault.ingest()
    assert marks(vault) == {
        "![](a.png)": "missing",
        "![](../b.png)": None,
        "[x](../src/c.py)": None,
        "![[d.png]]": None,
    }
