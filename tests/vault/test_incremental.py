"""Step by step or at once, in any order: the same vault gives the same database."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from edits import Editor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vaults import Files, Vault, dump, embed_by_hash, hash_embedder, write

import resonance
from resonance.model import Space
from resonance.vault import ledger, note
from resonance.vault.embed import CallableEmbedder
from resonance.vault.ingest import Keeper, ingest
from resonance.vault.report import IngestReport
from resonance.vault.settings import SETTINGS_FILE, load_settings
from resonance.vault.tally import tally, tally_named
from resonance.vault.tombstones import undo

Make = Callable[[Files], Vault]


def from_scratch(vault: Vault) -> dict[str, list[tuple[Any, ...]]]:
    with tempfile.TemporaryDirectory() as place:
        fresh = Vault(vault.root, Path(place) / "fresh.db")
        fresh.options = vault.options
        fresh.ingest(embedder=hash_embedder())
        found = dump(fresh.db)
        fresh.db.close()
    return found


def test_creating_a_note_resolves_what_waited_for_it(make_vault: Make) -> None:
    vault = make_vault({"a.md": "[[later]] [x](later.md)"})
    assert vault.ingest().links == {"unresolved": 2}
    vault.write({"later.md": ""})
    report = vault.ingest()
    assert (report.indexed, report.unchanged) == (1, 1)
    assert report.links == {"resolved": 2}
    assert vault.edges() == {("a", "later", "CITES"), ("a", "later", "LINKS_TO")}


def test_deleting_a_note_takes_its_edges_and_leaves_the_links_to_it(make_vault: Make) -> None:
    vault = make_vault({"a.md": "[[b]]", "b.md": "[[a]] #tag", "c.md": "[[a]]"})
    vault.ingest()
    vault.remove("b.md")
    report = vault.ingest()
    assert (report.removed, report.nodes, report.tags) == (1, 2, 0)
    assert vault.edges() == {("c", "a", "CITES")}
    assert [(link.source, link.raw) for link in vault.db.links(state="unresolved")] == [("a", "[[b]]")]


@pytest.mark.parametrize(
    ("deleted", "unresolved", "candidates"),
    [
        (["b"], ["[[b]]"], [("x-twin", "y-twin")]),
        (["#tag"], ["#tag"], [("x-twin", "y-twin")]),
        (["x-twin"], [], [("y-twin",)]),
        (["x-twin", "y-twin"], ["[[twin]]"], []),
    ],
)
def test_what_is_deleted_from_the_database_alone_comes_back_with_its_links(
    make_vault: Make, deleted: list[str], unresolved: list[str], candidates: list[tuple[str, ...]]
) -> None:
    vault = make_vault({"a.md": "[[b]] #tag [[twin]]", "b.md": "[[a]]", "x/twin.md": "", "y/twin.md": ""})
    vault.ingest(embedder=hash_embedder())
    before = dump(vault.db)
    assert vault.db.delete_nodes(deleted) == len(deleted)
    assert [link.raw for link in vault.db.unresolved()] == unresolved
    assert [link.candidates for link in vault.db.ambiguous()] == candidates
    vault.ingest(embedder=hash_embedder())
    assert dump(vault.db) == before == from_scratch(vault)


def test_editing_a_note_replaces_its_links(make_vault: Make) -> None:
    vault = make_vault({"a.md": "[[b]] #x", "b.md": "", "c.md": ""})
    vault.ingest()
    vault.write({"a.md": "[[c]] #y"})
    vault.ingest()
    assert vault.edges() == {("a", "c", "CITES"), ("a", "#y", "TAGGED_AS")}
    assert vault.db.get_node("#x") is None


def test_a_second_note_of_a_name_makes_links_ambiguous_and_back(make_vault: Make) -> None:
    vault = make_vault({"a.md": "[[n]]", "x/n.md": ""})
    vault.ingest()
    assert vault.edges() == {("a", "x-n", "CITES")}
    vault.write({"y/n.md": ""})
    assert vault.ingest().links == {"ambiguous": 1}
    assert vault.edges() == set()
    vault.remove("y/n.md")
    assert vault.ingest().links == {"resolved": 1}
    assert vault.edges() == {("a", "x-n", "CITES")}


def test_an_edit_that_changes_no_name_resolves_only_its_own_links(
    make_vault: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = make_vault({"a.md": "[[b]]", "b.md": "[[a]]"})
    vault.ingest()
    monkeypatch.setattr(ledger, "changed_resolutions", lambda *_: pytest.fail("resolved all"))
    vault.write({"a.md": "no link"})
    vault.ingest()
    assert vault.edges() == {("b", "a", "CITES")}


def test_an_alias_that_comes_and_goes(make_vault: Make) -> None:
    vault = make_vault({"a.md": "[[other name]]", "b.md": ""})
    vault.ingest()
    vault.write({"b.md": "---\naliases: Other Name\n---\n"})
    assert vault.ingest().links == {"resolved": 1}
    vault.write({"b.md": ""})
    assert vault.ingest().links == {"unresolved": 1}
    assert vault.edges() == set()


def test_an_attachment_that_comes_and_goes(make_vault: Make) -> None:
    vault = make_vault({"a.md": "[[data]]"})
    assert vault.ingest().links == {"unresolved": 1}
    vault.write({"data": ""})
    report = vault.ingest()
    assert (report.indexed, report.links) == (0, {"external": 1})


def test_ids_follow_a_collision_that_comes_and_goes(make_vault: Make) -> None:
    vault = make_vault({"a b.md": "[[c]]", "c.md": "[[a b]]"})
    os.utime(vault.root / "a b.md", ns=(10**18 + 1, 10**18 + 1))
    vault.ingest(embedder=hash_embedder())
    assert vault.ids()["a b.md"] == "a-b"
    vault.write({"a-b.md": "new"})
    report = vault.ingest(embedder=hash_embedder())
    assert (report.nodes, report.indexed) == (3, 2)
    assert "a-b" not in vault.ids().values()
    assert vault.db.get_node("a-b") is None
    assert dump(vault.db) == from_scratch(vault)
    vault.remove("a b.md")
    vault.ingest(embedder=hash_embedder())
    assert vault.ids() == {"a-b.md": "a-b", "c.md": "c"}
    assert dump(vault.db) == from_scratch(vault)


def test_an_id_passes_from_one_file_to_another(make_vault: Make) -> None:
    vault = make_vault({"a b.md": "first", "c.md": "[[a b]] [[a-b]]"})
    vault.ingest(embedder=hash_embedder())
    (vault.root / "a b.md").rename(vault.root / "a-b.md")
    vault.ingest(embedder=hash_embedder())
    assert vault.ids()["a-b.md"] == "a-b"
    assert dump(vault.db) == from_scratch(vault)


def test_new_rules_read_every_file_again(make_vault: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = make_vault({"a.md": "x", "b.md": "[[a]]"})
    vault.ingest()
    monkeypatch.setattr("resonance.vault.ingest.RULES", note.RULES + 1)
    assert vault.ingest().indexed == 2
    assert vault.ingest().unchanged == 2


def set_up(vault: Vault, **values: Any) -> None:
    (vault.root / SETTINGS_FILE).write_text(json.dumps(values))


def test_a_note_that_was_out_of_sight_when_the_rules_changed_is_read_by_them_once_it_is_back(
    make_vault: Make,
) -> None:
    text = {"malformed.md": "[[a|b]]", "held.md": "[[a|b]]"}
    vault = make_vault({**text, "a.md": "", "b.md": ""})
    vault.ingest(embedder=hash_embedder())
    vault.write({"malformed.md": b"\xff"})
    vault.remove("held.md")
    set_up(vault, dialect="dendron", maxLoss=0)
    keeper = Keeper(vault.db, vault.settings, embedder=hash_embedder())
    report = keeper.ingest(hold=True)
    assert (report.held, len(report.problems)) == (["held.md"], 1)
    vault.write(text)
    assert keeper.ingest(text).indexed == 2
    assert dump(vault.db) == from_scratch(vault)
    assert vault.ingest(embedder=hash_embedder()).unchanged == 4


def test_a_note_that_was_out_of_sight_when_the_model_changed_is_embedded_once_it_is_back(
    make_vault: Make,
) -> None:
    text = {"malformed.md": "one", "held.md": "two"}
    vault = make_vault({**text, "a.md": "three"})
    vault.ingest(embedder=hash_embedder("first"))
    vault.write({"malformed.md": b"\xff"})
    vault.remove("held.md")
    set_up(vault, maxLoss=0)
    keeper = Keeper(vault.db, vault.settings, embedder=hash_embedder())
    keeper.ingest(hold=True)
    vault.write(text)
    assert keeper.ingest(text).vectors == 3
    assert dump(vault.db) == from_scratch(vault)


def test_one_note_read_by_new_rules_is_no_word_about_the_others(make_vault: Make) -> None:
    vault = make_vault({"a.md": "", "b.md": "", "c.md": "[[a|b]]", "d.md": "[[a|b]]"})
    vault.ingest(embedder=hash_embedder())
    set_up(vault, dialect="dendron")
    vault.ingest(embedder=hash_embedder(), only=["c.md"])
    vault.ingest(embedder=hash_embedder(), only=["c.md"])
    assert vault.ingest(embedder=hash_embedder()).indexed == 4
    assert dump(vault.db) == from_scratch(vault)
    assert vault.ingest(embedder=hash_embedder()).unchanged == 4


def test_what_is_brought_back_is_read_by_the_rules_there_are_now(make_vault: Make) -> None:
    vault = make_vault({"a.md": "", "b.md": "", "c.md": "[[a|b]]"})
    vault.ingest(embedder=hash_embedder())
    vault.remove("c.md")
    vault.ingest(embedder=hash_embedder())
    set_up(vault, dialect="dendron")
    vault.ingest(embedder=hash_embedder())
    vault.write({"c.md": "[[a|b]]"})
    assert undo(vault.db, vault.settings).restored == ["c.md"]
    vault.ingest(embedder=hash_embedder())
    assert dump(vault.db) == from_scratch(vault)


@pytest.mark.parametrize("step", ["write_documents", "drop_unused_tags", "read_names"])
@pytest.mark.parametrize("removes", [True, False])
def test_a_run_that_is_cut_off_is_taken_up_again(
    make_vault: Make, monkeypatch: pytest.MonkeyPatch, step: str, removes: bool
) -> None:
    vault = make_vault({"a.md": "[[b]] #x", "b.md": "[[c]]", "d.md": "[[gone]]", "gone.md": ""})
    vault.ingest(embedder=hash_embedder())
    vault.write({"a.md": "[[c]] #y", "c.md": "[[a]]"})
    if removes:
        vault.remove("gone.md")
    cut_off(vault, monkeypatch, step)
    vault.ingest(embedder=hash_embedder())
    assert dump(vault.db) == from_scratch(vault)


def cut_off(vault: Vault, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """An ingest that ends when it comes to a step of the ledger."""

    def cut(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(ledger, step, cut)
        with pytest.raises(KeyboardInterrupt):
            vault.ingest(embedder=hash_embedder())


def test_a_removal_that_is_cut_off_is_taken_up_again(
    make_vault: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = make_vault({"a.md": "[[n]]", "x/n.md": "", "y/n.md": ""})
    vault.ingest(embedder=hash_embedder())
    vault.remove("y/n.md")

    cut_off(vault, monkeypatch, "read_names")
    vault.ingest(embedder=hash_embedder())
    assert vault.edges() == {("a", "x-n", "CITES")}
    assert dump(vault.db) == from_scratch(vault)


NAMES = ["a.md", "b.md", "B.md", "a b.md", "a-b.md", "x/a.md", "y/a.md", "x/n.md", "é.md", "data"]
TEXTS = st.lists(
    st.sampled_from(
        [
            "[[a]] ",
            "[[n]] ",
            "[[x/a]] ",
            "[[Al]] ",
            "[[data]] ",
            "![[é]] ",
            "[[#self]] ",
            "[t](x/n.md) ",
            "[t](../a.md) ",
            "#t ",
            "#T/u ",
            "text ",
            "\n",
        ]
    ),
    max_size=5,
).map("".join)
HEADS = st.sampled_from(
    ["", "", "---\naliases: Al\n---\n", "---\ntags: [t, v]\n---\n", "---\ntitle: T\nsummary: s\n---\n"]
)
EDIT = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(NAMES), st.tuples(HEADS, TEXTS).map("".join)),
    st.tuples(st.just("remove"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("move"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.tuples(st.just("ingest"), st.none(), st.none()),
)


def edit(root: Path, action: str, name: str | None, value: str | None) -> None:
    if action == "write":
        assert name is not None
        assert value is not None
        write(root, {name: value})
    elif name is not None and (root / name).exists():
        if value is None:
            (root / name).unlink()
        else:
            (root / value).parent.mkdir(exist_ok=True)
            os.replace(root / name, root / value)  # noqa: PTH105  # over whatever is there


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(EDIT, min_size=1, max_size=30))
def test_any_history_of_edits_ends_where_a_fresh_start_does(
    edits: list[tuple[str, str | None, str | None]],
) -> None:
    with tempfile.TemporaryDirectory() as place:
        vault = Vault(Path(place) / "vault", Path(place) / "x.db")
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


def told(report: IngestReport) -> Counter[str]:
    """What a report says that the database holds."""
    names = ("nodes", "edges", "sections", "vectors", "texts")
    counts = {name: getattr(report, name) for name in names}
    return Counter(counts | {f"link {state}": count for state, count in report.links.items()})


def follow_edits(place: Path, count: int, seed: int) -> None:
    """Edit at random; look at everything, at what was touched, or at nothing yet; compare with scratch."""
    vault = Vault(place / "vault", place / "x.db")
    vault.options["exclude"] = ["drafts"]
    editor = Editor(vault.root, seed)
    keeper = Keeper(vault.db, vault.settings, embedder=hash_embedder())
    keeper.ingest()
    waiting: set[str] = set()
    try:
        for number in range(count):
            waiting |= editor.edit()
            chance = editor.random.random()
            if chance < 0.15:
                vault.ingest(embedder=hash_embedder(), yes=True)
            elif chance < 0.8:
                report = keeper.ingest(waiting, yes=True)
                assert told(report) == tally(vault.db), f"seed {seed}, edit {number}"
                assert (report.tags, report.pages) == tally_named(vault.db)
            else:
                continue
            waiting.clear()
            if number % 10 == 0:
                assert dump(vault.db) == from_scratch(vault), f"seed {seed}, edit {number}"
        keeper.ingest(waiting, yes=True)
        assert dump(vault.db) == from_scratch(vault), f"seed {seed}"
        assert vault.db.query("SELECT * FROM pragma_foreign_key_check") == []
        # There was something to compare.
        assert vault.db.query("SELECT count(*) > 3 FROM files") == [(1,)]
        assert vault.db.get_history(action="move")
    finally:
        vault.db.close()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundred_random_edits_end_where_a_fresh_start_does(tmp_path: Path, seed: int) -> None:
    follow_edits(tmp_path, 100, seed)


@pytest.mark.stress
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(10, 15))
def test_a_thousand_random_edits_end_where_a_fresh_start_does(tmp_path: Path, seed: int) -> None:
    follow_edits(tmp_path, 1000, seed)
    print(f"1000 edits done, 0 bad, seed {seed}")


# --- moves ------------------------------------------------------------------------------------------


def test_a_moved_note_is_the_same_node_under_another_id(make_vault: Make) -> None:
    long = "# Long\n\n" + "".join(f"## Part {n}\n\n{'words ' * 400}\n\n" for n in range(4))
    vault = make_vault({"old/a.md": f"{long}[[b]] #t [rel](b.md)", "old/b.md": "[[a]] [[old/a]]", "c.md": ""})
    vault.ingest(embedder=hash_embedder())
    rowid = vault.db.query("SELECT rowid FROM nodes WHERE id = 'old-a'")
    vectors = vault.db.query("SELECT hex(embedding) FROM nodes WHERE id LIKE 'old-a%' ORDER BY rowid")
    assert len(vectors) > 4
    vault.db.insert_edge("c", "old-a", "about")
    vault.db.insert_edge("old-a", "c", "knows")
    vault.db.update_node_date("old-a", "1999-01-01")
    vault.db.set_ember_state("old/a.md", confidence=0.5)
    (vault.root / "new").mkdir()
    (vault.root / "old/a.md").rename(vault.root / "new/a.md")

    report = vault.ingest(embedder=CallableEmbedder(lambda _: pytest.fail("embedded"), Space("by-hash", 8)))
    assert (report.indexed, report.removed, report.moved) == (1, 1, 1)
    assert vault.ids()["new/a.md"] == "new-a"
    assert vault.db.query("SELECT rowid FROM nodes WHERE id = 'new-a'") == rowid
    assert vault.db.query("SELECT hex(embedding) FROM nodes WHERE id LIKE 'new-a%' ORDER BY rowid") == vectors
    assert vault.db.query("SELECT 1 FROM nodes WHERE id LIKE 'old-a%'") == []
    assert {("c", "new-a", "about"), ("new-a", "c", "knows"), ("old-b", "new-a", "CITES")} <= vault.edges()
    assert vault.db.query("SELECT date FROM nodes WHERE id = 'new-a'") == [("1999-01-01",)]
    state = vault.db.get_ember_state("new/a.md")
    assert state is not None
    assert state.confidence == 0.5
    # The name still finds it, the old path does not.
    states = {link.name: (link.state, link.target) for link in vault.db.links(source="old-b")}
    assert states == {"a": ("resolved", "new-a"), "old/a": ("unresolved", None)}
    for node in ("old-a", "new-a"):
        (entry,) = vault.db.get_history(node, action="move")
        assert entry.old_value == {"id": "old-a", "path": "old/a.md"}
        assert entry.new_value == {"id": "new-a", "path": "new/a.md"}
    assert vault.db.get_history(action="delete") == []
    vault.db.delete_edges([("c", "new-a", "about"), ("new-a", "c", "knows")])
    vault.db.update_node_date("new-a", None)
    assert dump(vault.db) == from_scratch(vault)


def test_of_several_with_the_same_bytes_each_goes_to_its_name(make_vault: Make) -> None:
    vault = make_vault({"x/a.md": "same", "x/b.md": "same", "x/c.md": "", "x/d.md": ""})
    vault.ingest()
    (vault.root / "x").rename(vault.root / "y")
    (vault.root / "y/b.md").rename(vault.root / "y/0.md")
    (vault.root / "y/d.md").rename(vault.root / "y/e.md")
    report = vault.ingest()
    assert (report.removed, report.moved) == (4, 3)
    moved = {
        (entry.old_value["path"], entry.new_value["path"])
        for entry in vault.db.get_history(action="move")
        if entry.old_value and entry.new_value
    }
    assert moved == {("x/a.md", "y/a.md"), ("x/b.md", "y/0.md"), ("x/c.md", "y/c.md")}


def test_a_move_onto_an_id_that_somebody_has_is_a_removal(make_vault: Make) -> None:
    vault = make_vault({"a.md": "text", "b.md": "[[a]]"})
    vault.ingest(embedder=hash_embedder())
    vault.db.insert_node({"id": "new", "title": "a program's"})
    (vault.root / "a.md").rename(vault.root / "new.md")
    report = vault.ingest(embedder=hash_embedder())
    assert (report.removed, report.nodes) == (1, 2)
    assert vault.db.get_node("a") is None
    assert dump(vault.db)["files"] == from_scratch(vault)["files"]


def test_of_moved_notes_with_the_same_bytes_each_keeps_what_it_has(make_vault: Make) -> None:
    vault = make_vault({"a.md": "twin", "b.md": "twin", "x/c.md": "twin", "d.md": ""})
    vault.ingest()
    for node in ("a", "b", "x-c"):
        vault.db.insert_edge("d", node, f"knows {node}")
    for old, new in (("a.md", "z.md"), ("b.md", "y.md"), ("x/c.md", "a c.md")):
        (vault.root / old).rename(vault.root / new)
    # The same name, but another file.
    (vault.root / "w").mkdir()
    (vault.root / "w/a.md").write_text("twin")
    assert vault.ingest().moved == 3
    assert vault.edges() == {("d", "z", "knows a"), ("d", "y", "knows b"), ("d", "a-c", "knows x-c")}


def test_moved_edited_and_gone_in_one_run(make_vault: Make) -> None:
    vault = make_vault({f"{name}.md": f"text {name} [[a]] [[b]] [[c]]" for name in "abcd"})
    vault.ingest(embedder=hash_embedder())
    (vault.root / "a.md").rename(vault.root / "sub a.md")
    (vault.root / "b.md").rename(vault.root / "a.md")
    vault.remove("c.md")
    vault.write({"d.md": "edited"})
    vault.ingest(embedder=hash_embedder())
    assert dump(vault.db) == from_scratch(vault)


# --- a run for some paths -----------------------------------------------------------------------------


def test_only_what_is_asked_for_is_looked_at(make_vault: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = make_vault({"a.md": "1", "b.md": "1", "sub/c.md": "1", "sub/d.md": "1"})
    keeper = Keeper(vault.db, vault.settings)
    keeper.ingest()
    vault.write({"a.md": "2", "b.md": "2", "sub/c.md": "2", "sub/new.md": ""})
    vault.remove("sub/d.md")
    monkeypatch.setattr("resonance.vault.ingest.scan", lambda *_: pytest.fail("looked at everything"))
    report = keeper.ingest(["a.md", "sub"])
    assert (report.files, report.indexed, report.removed) == (3, 3, 1)
    bodies = dict(vault.db.query("SELECT path, size FROM files"))
    assert bodies.keys() == {"a.md", "b.md", "sub/c.md", "sub/new.md"}
    assert keeper.ingest(["b.md"]).indexed == 1
    monkeypatch.undo()
    assert vault.ingest().indexed == 0


def test_a_changed_note_takes_no_look_at_the_others(
    make_vault: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "# Long\n\n" + "".join(f"## Part {n}\n\n{'words ' * 400}\n\n" for n in range(4))
    vault = make_vault({"a.md": "[[b]] #t", "b.md": long, "c.md": "[[b]] #u", "bad.md": b"\xff"})
    keeper = Keeper(vault.db, vault.settings, embedder=hash_embedder())
    keeper.ingest()
    for change in ({"b.md": f"{long}[[c]] #v"}, {"b.md": "[[a]] [[no]]"}, {"b.md": long}, {"c.md": "#w"}):
        vault.write(change)
        with monkeypatch.context() as watched:
            for name in ("ingest.tally", "ledger.Names.signature", "picture.assign_ids"):
                watched.setattr(f"resonance.vault.{name}", lambda *_: pytest.fail("looked at everything"))
            report = keeper.ingest(change)
        assert report.indexed == 1
        assert told(report) == tally(vault.db)
        assert dump(vault.db) == from_scratch(vault)


@pytest.mark.parametrize("head", ["aliases: [Al]", "id: 12"])
def test_a_note_with_a_new_name_takes_a_look_at_the_others(make_vault: Make, head: str) -> None:
    vault = make_vault({"a.md": "", "b.md": "---\nrequires: [Al, 12]\n---\n"})
    keeper = Keeper(vault.db, vault.settings, embedder=hash_embedder())
    keeper.ingest()
    for text in (f"---\n{head}\n---\n", "nothing", f"---\n{head}\n---\nmore"):
        vault.write({"a.md": text})
        report = keeper.ingest(["a.md"])
        assert report.links.get("resolved", 0) == ("---" in text)
        assert told(report) == tally(vault.db)
        assert dump(vault.db) == from_scratch(vault)


def test_what_another_thread_writes_meanwhile_is_counted(make_vault: Make) -> None:
    vault = make_vault({"a.md": "1", "b.md": ""})
    vault.db.insert_nodes([{"id": "x"}, {"id": "y"}])

    def meddle(texts: Sequence[str]) -> Any:
        if "2" in texts[0]:
            thread = threading.Thread(target=vault.db.insert_edge, args=("x", "y", f"OF_{len(texts[0])}"))
            thread.start()
            thread.join()
        return embed_by_hash(texts)

    keeper = Keeper(vault.db, vault.settings, embedder=CallableEmbedder(meddle, Space("meddling", 8)))
    keeper.ingest()
    for text in ("22", "222", "333"):
        vault.write({"a.md": text})
        report = keeper.ingest(["a.md"])
        assert told(report) == tally(vault.db)


def test_what_another_process_wrote_is_seen(make_vault: Make) -> None:
    vault = make_vault({"a.md": "[[b]]", "b.md": ""})
    keeper = Keeper(vault.db, vault.settings)
    keeper.ingest()
    vault.write({"c.md": "[[a]]"})
    with resonance.ResonanceDB(vault.db.path) as other:
        ingest(other, vault.settings)
    vault.write({"a.md": "[[c]]"})
    keeper.ingest(["a.md"])
    assert vault.edges() == {("a", "c", "CITES"), ("c", "a", "CITES")}
    vault.write({"d.md": ""})
    with resonance.ResonanceDB(vault.db.path) as other:
        ingest(other, vault.settings)
    vault.remove("d.md")
    assert keeper.ingest(["d.md"]).removed == 1


def test_a_folder_that_goes_gives_its_ids_free(make_vault: Make) -> None:
    vault = make_vault({"x/a b.md": "1", "x-a-b.md": "2", "x/p.png": "", "b.md": "[[x/p.png]]"})
    keeper = Keeper(vault.db, vault.settings, embedder=hash_embedder())
    keeper.ingest()
    assert "x-a-b" not in vault.ids().values()
    shutil.rmtree(vault.root / "x")
    keeper.ingest(["x"])
    assert vault.ids() == {"x-a-b.md": "x-a-b", "b.md": "b"}
    assert dump(vault.db) == from_scratch(vault)


# --- a vault that moves -------------------------------------------------------------------------------


def test_a_vault_moves_with_its_database(tmp_path: Path) -> None:
    """Absolute paths in the database once made every note of a moved vault unfindable."""
    root = write(tmp_path / "here", {"a.md": "text", "sub/b.md": "[[a]]"})
    (root / ".resonance").mkdir()
    database = ".resonance/resonance.db"
    with resonance.ResonanceDB(root / database) as db:
        ingest(db, load_settings(root, model="none"))
        assert db.root == root
        assert str(tmp_path) not in str(dump(db))
    there = root.rename(tmp_path / "there")
    with resonance.ResonanceDB(there / database) as db:
        assert db.root == there
        assert db.content("sub-b").state == "fresh"
        assert ingest(db, load_settings(there, model="none")).unchanged == 2
        assert db.query("SELECT value FROM properties WHERE key = 'vault.root'") == [(str(there),)]
        db.backup(tmp_path / "resonance.db")
    # A copy of the vault is a vault of its own, a copy of the database alone is not.
    copy = Path(shutil.copytree(there, tmp_path / "copy"))
    write(copy, {"a.md": "changed"})
    for where, state in ((copy / database, "changed"), (tmp_path / "resonance.db", "fresh")):
        with resonance.ResonanceDB(where, readonly=True) as db:
            assert db.content("a").state == state
