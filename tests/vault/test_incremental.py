"""Step by step or at once, in any order: the same vault gives the same database."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vaults import Files, Vault, dump, hash_embedder, write

from resonance.vault import ledger, note

Make = Callable[[Files], Vault]


def from_scratch(vault: Vault) -> dict[str, list[tuple[Any, ...]]]:
    with tempfile.TemporaryDirectory() as place:
        fresh = Vault(vault.root, Path(place) / "fresh.db")
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
