"""Many texts at once, what to do with those that are not as indexed, and hits that carry their text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vaults import Files, Vault, dump, embed_by_hash, hash_embedder

from resonance import ResonanceDB
from resonance.errors import (
    ContentError,
    ContentMissingError,
    InputError,
    ReadOnlyError,
    StaleContentError,
    UnknownNodeError,
)
from resonance.model import Hit, Node
from resonance.vault import hydrate as module
from resonance.vault.hydrate import Record, find_span, hydrate
from resonance.vault.ingest import Keeper, ingest
from resonance.vault.root import Root
from resonance.vault.settings import load_settings

Make = Callable[[Files], Vault]

ALL = ["fresh", "changed", "moved", "missing", "unreadable"]


@pytest.fixture
def vault(make_vault: Make) -> Vault:
    """A note in each of the five states, named after it."""
    vault = make_vault({f"{state}.md": f"text of {state}" for state in ALL})
    vault.ingest(embedder=hash_embedder())
    vault.write({"changed.md": "new text", "unreadable.md": b"\xff\xfe"})
    (vault.root / "moved.md").rename(vault.root / "elsewhere.md")
    vault.remove("missing.md")
    return vault


def test_each_has_its_state_in_the_order_asked_for(vault: Vault) -> None:
    wanted = [*reversed(ALL), "fresh"]
    found = vault.db.content_many(wanted)
    assert [content.id for content in found] == wanted
    assert [content.state for content in found] == wanted
    texts = {content.state: content.text for content in found}
    assert texts == {
        "fresh": "text of fresh",
        "changed": "new text",
        "moved": "text of moved",
        "missing": None,
        "unreadable": None,
    }
    assert found == [vault.db.content(node_id) for node_id in wanted]
    assert vault.db.content_many([]) == []


def test_the_vault_is_looked_through_once(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = []
    real = module.scan
    monkeypatch.setattr(module, "scan", lambda *arguments: scans.append(1) or real(*arguments))
    vault.db.content_many(["moved", "missing"] * 10)
    assert len(scans) == 1


def test_what_is_no_node_is_an_error_and_what_has_no_file_a_state(vault: Vault) -> None:
    with pytest.raises(UnknownNodeError, match="nobody"):
        vault.db.content_many(["fresh", "nobody"])
    vault.db.insert_node(Node("idea", type="concept"))
    fresh, idea = vault.db.content_many(["fresh", "idea"])
    assert (fresh.state, idea.state, idea.text, idea.path) == ("fresh", "missing", None, None)
    assert idea.reason == "this node (type concept) stands for no file"
    with pytest.raises(ContentError, match="stands for no file"):
        vault.db.content_many(["fresh", "idea"], policy="raise")


# --- policies -------------------------------------------------------------------------------------


def test_raise(vault: Vault) -> None:
    for state, error in (
        ("changed", StaleContentError),
        ("missing", ContentMissingError),
        ("unreadable", ContentError),
    ):
        with pytest.raises(ContentError, match=f"{state}.md") as caught:
            vault.db.content(state, policy="raise")
        assert type(caught.value) is error
        with pytest.raises(error):
            vault.db.content_many(["fresh", state], policy="raise")
    assert [vault.db.content(state, policy="raise").text for state in ("fresh", "moved")] == [
        "text of fresh", "text of moved",
    ]  # fmt: skip


def test_drop(vault: Vault) -> None:
    assert [content.id for content in vault.db.content_many(ALL, policy="drop")] == ["fresh", "moved"]
    assert vault.db.content("changed", policy="drop") is None
    assert vault.db.content("fresh", policy="drop") is not None


def test_another_policy_is_refused(vault: Vault) -> None:
    for call in (vault.db.content, vault.db.content_many):
        with pytest.raises(InputError, match="give one of flag, raise, refresh, drop"):
            call("fresh", policy="guess")  # type: ignore[operator]


def test_refresh_ingests_what_has_changed_and_nothing_else(make_vault: Make) -> None:
    vault = make_vault({"a.md": "old [[b]]", "b.md": "b", "c.md": "c", "gone.md": "gone"})
    vault.ingest()
    vault.write({"a.md": "new [[c]] [[later]]", "c.md": "c is new", "later.md": "", "new.md": ""})
    vault.remove("gone.md")
    found = vault.db.content("a", policy="refresh")
    assert (found.text, found.state) == ("new [[c]] [[later]]", "fresh")
    assert vault.edges() == {("a", "c", "CITES")}
    assert [link.name for link in vault.db.links(state="unresolved")] == ["later"]
    assert vault.ids().keys() == {"a.md", "b.md", "c.md", "gone.md"}
    assert vault.db.content("c").state == "changed"
    assert vault.db.content("gone", policy="refresh").state == "missing"
    vault.ingest()
    assert vault.edges() == {("a", "c", "CITES"), ("a", "later", "CITES")}


def test_refresh_keeps_to_the_settings_of_the_last_ingest(make_vault: Make) -> None:
    vault = make_vault({"a.md": "a [[x]]", "draft/x.md": "x"})
    vault.options = {"model": "none", "exclude": ["draft"]}
    vault.ingest()
    vault.write({"a.md": "b [[x]]"})
    assert vault.db.content("a", policy="refresh").state == "fresh"
    assert vault.db.links()[0].state == "unresolved"


def test_refresh_removes_no_note(make_vault: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = make_vault({"a.md": "a", "b.md": "b"})
    vault.ingest()
    vault.write({"a.md": "edited", "b.md": "edited", "amalfa.settings.json": '{"excludePatterns": ["a.md"]}'})
    look = Keeper.ingest

    def vanishing(self: Keeper, only: Any, **options: Any) -> Any:
        vault.remove("b.md")
        return look(self, only, **options)

    monkeypatch.setattr(Keeper, "ingest", vanishing)
    states = [content.state for content in vault.db.content_many(["a", "b"], policy="refresh")]
    assert states == ["changed", "missing"]
    assert set(vault.ids()) == {"a.md", "b.md"}


def test_refresh_without_the_model_leaves_no_vector_of_the_old_text(make_vault: Make) -> None:
    vault = make_vault({"a.md": "old", "b.md": "b"})
    vault.ingest(embedder=hash_embedder())
    vault.write({"a.md": "new"})
    assert vault.db.content("a", policy="refresh").state == "fresh"
    assert vault.db.query("SELECT id, embedding IS NULL FROM nodes ORDER BY id") == [("a", 1), ("b", 0)]
    vault.ingest(embedder=hash_embedder())
    fresh = make_vault({"a.md": "new", "b.md": "b"})
    fresh.ingest(embedder=hash_embedder())
    assert dump(vault.db) == dump(fresh.db)


def test_refresh_does_not_put_another_model_in_the_place_of_the_one_there_was(
    make_vault: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = make_vault({"a.md": "old", "b.md": "b"})
    vault.options = {}
    vault.ingest(embedder=hash_embedder())
    for name, kept in (("other", [1, 0]), ("by-hash", [0, 0])):
        vault.write({"a.md": f"new, by {name}"})
        monkeypatch.setattr(
            module, "choose_embedder", lambda settings, name=name: (hash_embedder(name), None)
        )
        assert vault.db.content("a", policy="refresh").state == "fresh"
        nulls = vault.db.query("SELECT embedding IS NULL FROM nodes ORDER BY id")
        assert [null for (null,) in nulls] == kept
        assert vault.db.space == hash_embedder().space


def test_refresh_of_a_note_that_cannot_be_parsed_says_that_it_has_changed(make_vault: Make) -> None:
    vault = make_vault({"a.md": "a"})
    vault.ingest()
    vault.write({"a.md": "---\na: [\n---\nbody"})
    assert vault.db.content("a", policy="refresh")[1:3] == ("body", "changed")


def test_refresh_needs_to_write(vault: Vault) -> None:
    with ResonanceDB(vault.database, readonly=True, root=vault.root) as db:
        assert db.content("fresh", policy="refresh").state == "fresh"
        with pytest.raises(ReadOnlyError):
            db.content("changed", policy="refresh")


# --- hits -----------------------------------------------------------------------------------------


def query(text: str) -> np.ndarray:
    return embed_by_hash([text])[0]


def test_a_hit_carries_its_text_if_asked_to(vault: Vault) -> None:
    (hit,) = vault.db.search(query("fresh\n\ntext of fresh"), 1)
    assert (hit.id, hit.content) == ("fresh", None)
    (hit,) = vault.db.search(query("fresh\n\ntext of fresh"), 1, hydrate=True)
    assert hit.content == vault.db.content("fresh")
    assert {hit.content.state for hit in vault.db.search(query("x"), hydrate=True) if hit.content} == set(ALL)


def test_hits_by_policy_and_in_batches(vault: Vault) -> None:
    hits = vault.db.search(query("x"), hydrate="drop")
    assert sorted(hit.id for hit in hits) == ["fresh", "moved"]
    with pytest.raises(ContentError):
        vault.db.search(query("x"), hydrate="raise")
    answers = vault.db.search(np.stack([query("x"), query("y")]), 5, hydrate="flag")
    assert [[hit.content.id for hit in hits if hit.content] for hits in answers] == [
        [hit.id for hit in hits] for hits in vault.db.search(np.stack([query("x"), query("y")]), 5)
    ]
    assert vault.db.search(query("x"), 0, hydrate=True) == []


def test_a_hit_that_stands_for_no_file_has_no_text(vault: Vault) -> None:
    vault.db.insert_nodes(id=["thought"], embedding=[query("thought")], history="rows")
    (hit,) = vault.db.search(query("thought"), 1, hydrate=True)
    assert isinstance(hit, Hit)
    assert hit.content is not None
    assert (hit.content.text, hit.content.state) == (None, "missing")


@pytest.mark.parametrize("policy", [True, "flag", "refresh", "drop", "raise"])
def test_a_node_that_is_gone_before_its_text_is_read_fails_no_search(vault: Vault, policy: Any) -> None:
    """Somebody deletes it between the search and the reading."""
    read = vault.db.hydrate

    def deleting(found: Any, policy: Any) -> Any:
        with ResonanceDB(vault.database) as other:
            other.delete_nodes(["fresh"])
        return read(found, policy)

    vault.db.hydrate = deleting  # type: ignore[method-assign]
    ask = partial(vault.db.search, query("x"), ids=["fresh"], hydrate=policy)
    if policy == "raise":
        with pytest.raises(ContentError, match="not there any more"):
            ask()
    elif policy == "drop":
        assert ask() == []
    else:
        (hit,) = ask()
        assert hit.path == "fresh.md"
        assert hit.content is not None
        assert (hit.content.id, hit.content.text, hit.content.state) == ("fresh", None, "missing")


# --- parts of files ---------------------------------------------------------------------------------

NOTE = "# One\n\nfirst é\n\n# Two\n\nsecond 日本\n\n# Three\n\nthird"


def part(name: str, text: str = NOTE) -> Record:
    data = text.encode()
    start = data.index(f"# {name}".encode())
    end = data.find(b"\n# ", start) + 1 or len(data)
    whole = hashlib.sha256(data).hexdigest()
    return Record(name, "a.md", len(data), whole, (start, end), hashlib.sha256(data[start:end]).hexdigest())


@pytest.mark.parametrize("name", ["One", "Two", "Three"])
@pytest.mark.parametrize(
    ("change", "state"),
    [
        (lambda text: text, "fresh"),
        (lambda text: "---\ntitle: new\n---\n" + text, "moved"),
        (lambda text: text.replace("# One", "intro\n# One"), "moved"),
        (lambda text: "\r\n" + text, "moved"),
        (lambda text: text.replace("first", "1").replace("second", "2").replace("third", "3"), "missing"),
    ],
)
def test_a_part_is_found_where_it_is_now_or_not_at_all(
    root: Path, name: str, change: Callable[[str], str], state: str
) -> None:
    record = part(name)
    assert record.span is not None
    wanted = NOTE.encode()[slice(*record.span)].decode()
    (root / "a.md").write_bytes(change(NOTE).encode())
    with Root(root) as opened:
        found = hydrate(opened, record)
    assert found.state == state
    if state == "missing":
        assert (found.text, found.span) == (None, None)
        return
    assert found.text == wanted
    assert found.span is not None
    assert (root / "a.md").read_bytes()[slice(*found.span)].decode() == wanted


def test_a_section_of_the_database_is_its_part_of_the_file(make_vault: Make) -> None:
    vault = make_vault({"a.md": NOTE})
    vault.ingest()
    record = part("Two")
    assert record.span is not None
    with vault.db.transaction() as writer:
        vault.db.insert_nodes(id=["a#two"], type="section")
        writer.execute(
            "INSERT INTO sections VALUES (NULL, 'a#two', 'a', 1, '[\"Two\"]', ?, ?, ?, 'x')",
            (*record.span, record.span_hash),
        )
    found = vault.db.content("a#two")
    assert (found.text, found.state, found.path) == ("# Two\n\nsecond 日本\n\n", "fresh", "a.md")
    vault.write({"a.md": "new\n" + NOTE})
    assert vault.db.content("a").state == "changed"
    shifted = vault.db.content("a#two")
    assert (shifted.text, shifted.state, shifted.span) == (
        found.text, "moved", (record.span[0] + 4, record.span[1] + 4),
    )  # fmt: skip
    (vault.root / "a.md").write_text(NOTE)
    (vault.root / "a.md").rename(vault.root / "b.md")
    moved = vault.db.content("a#two")
    assert (moved.text, moved.state, moved.path, moved.span) == (found.text, "moved", "b.md", record.span)


def test_a_part_that_begins_within_a_line_is_known_by_its_bytes_wherever_it_is(make_vault: Make) -> None:
    line = " ".join(f"word{number}" for number in range(400))
    vault = make_vault({"a.md": f"# One\n\nfirst\n\n# Two\n\n{line}\n\n# Three\n\nlast\n"})
    vault.ingest()
    before = vault.db.content("a#two:2")
    vault.write({"a.md": f"# One\n\nfirst, edited\n\n# Two\n\n{line}\n\n# Three\n\nlast, too\n"})
    after = vault.db.content("a#two:2")
    assert (after.text, after.state) == (before.text, "moved")


def test_of_two_equal_parts_the_nearer_one_is_taken() -> None:
    text = b"x\nsame\ny\nsame\n"
    digest = hashlib.sha256(b"same\n").hexdigest()
    assert find_span(text, (2, 7), digest) == (2, 7)
    assert find_span(text, (8, 13), digest) == (9, 14)
    assert find_span(text, (4, 9), digest) == (2, 7)
    assert find_span(text, (0, 5), hashlib.sha256(b"other").hexdigest()) is None
    assert find_span(b"", (0, 0), hashlib.sha256(b"").hexdigest()) == (0, 0)
    # In the middle of a line, as far from the end as it was.
    assert find_span(b"and one two", (4, 7), hashlib.sha256(b"two").hexdigest(), 7) == (8, 11)


# --- a vault that moves -----------------------------------------------------------------------------


def test_a_vault_that_moved_knows_its_root_after_the_next_ingest(make_vault: Make, tmp_path: Path) -> None:
    vault = make_vault({"a.md": "a"})
    vault.ingest()
    vault.root.rename(tmp_path / "moved")
    with ResonanceDB(vault.database) as db:
        report = ingest(db, load_settings(tmp_path / "moved", database=vault.database, model="none"))
        assert report.unchanged == 1
        assert db.root == tmp_path / "moved"
        assert db.content("a").state == "fresh"
