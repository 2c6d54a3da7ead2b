"""One ingest: every file is a node or a named problem, and what is stored is what the files say."""

from __future__ import annotations

import errno
import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vaults import Files, Vault, dump, embed_by_hash, hash_embedder

from resonance import ResonanceDB
from resonance.errors import EmbedderError, SettingsError
from resonance.model import Node, Space
from resonance.vault import ingest as ingest_module
from resonance.vault.embed import CallableEmbedder
from resonance.vault.settings import load_settings

Make = Callable[[Files], Vault]

NOTES: dict[str, str | bytes] = {
    "index.md": "---\ntitle: Start\ntags: [Top, a/b]\naliases: Home\ndate: 2024-01-02\n"
    "summary: in short\nrating: 5\n---\n[[one]] ![[one]] [two](sub/two.md) #top [[nowhere]] [[#x]]\n",
    "one.md": "# One\n\n[[Home]] and [[same]]\n",
    "sub/two.md": "[[one]] `[[index]]`\n",
    "a/same.md": "",
    "b/same.md": "<https://example.org>",
}


def test_the_report_adds_up(make_vault: Make) -> None:
    vault = make_vault({**NOTES, "picture.png": "", ".hidden/x.md": "", "bad.md": b"\xff"})
    report = vault.ingest(embedder=hash_embedder())
    assert (report.files, report.indexed, report.unchanged, report.removed) == (6, 5, 0, 0)
    assert [tuple(p) for p in report.problems] == [
        ("bad.md", 1, "is not UTF-8 (byte 0xff); save it as UTF-8")
    ]
    assert (report.nodes, report.tags, report.edges, report.vectors) == (5, 2, 6, 5)
    assert report.links == {"ambiguous": 1, "external": 1, "resolved": 9, "unresolved": 1}
    assert report.skipped == {"hidden": 1, "excluded": 0, "symlinks": 0, "other": 1}
    assert report.embedding == Space("by-hash", 8)
    assert report.embedding_note is None
    assert report.complete


def test_the_report_is_json(make_vault: Make) -> None:
    told = json.loads(json.dumps(make_vault({"bad.md": b"\xff", "a.md": ""}).ingest().to_dict()))
    assert told["problems"] == [
        {"path": "bad.md", "line": 1, "reason": "is not UTF-8 (byte 0xff); save it as UTF-8"}
    ]
    assert told["files"] == told["indexed"] + told["unchanged"] + 1
    assert told["embedding"] is None
    assert told["embedding_note"]
    assert told["seconds"] >= 0


def test_nodes_hold_what_the_head_says(make_vault: Make) -> None:
    vault = make_vault(NOTES)
    vault.ingest()
    node = vault.db.get_node("index")
    assert node is not None
    assert (node.type, node.title, node.domain, node.layer) == (
        "document",
        "Start",
        "knowledge",
        "document",
    )
    assert (node.date, node.summary) == ("2024-01-02", "in short")
    assert node.meta == {
        "source": "index.md",
        "tags": ["Top", "a/b"],
        "aliases": ["Home"],
        "date": "2024-01-02",
        "summary": "in short",
        "rating": 5,
    }
    assert node.embedding is None
    assert node.hash == vault.db.query("SELECT hash FROM files WHERE path = 'index.md'")[0][0]
    tag = vault.db.get_node("#a/b")
    assert tag is not None
    assert (tag.type, tag.title) == ("tag", "a/b")


def test_edges_follow_the_links_that_resolve(make_vault: Make) -> None:
    vault = make_vault(NOTES)
    vault.ingest()
    assert vault.edges() == {
        ("index", "one", "CITES"),
        ("index", "sub-two", "LINKS_TO"),
        ("index", "#top", "TAGGED_AS"),
        ("index", "#a/b", "TAGGED_AS"),
        ("one", "index", "CITES"),
        ("sub-two", "one", "CITES"),
    }
    assert {row[0] for row in vault.db.query("SELECT context_source FROM edges WHERE source='one'")} == {
        "one.md"
    }


def test_the_ledger_holds_every_occurrence(make_vault: Make) -> None:
    vault = make_vault(NOTES)
    vault.ingest()
    data = (vault.root / "index.md").read_bytes()
    found = vault.db.links(source="index")
    assert [data[link.start : link.end].decode() for link in found] == [link.raw for link in found]
    states = [(link.kind, link.raw, link.state, link.target) for link in found if link.kind != "tag"]
    assert states == [
        ("wikilink", "[[one]]", "resolved", "one"),
        ("embed", "![[one]]", "resolved", "one"),
        ("link", "[two](sub/two.md)", "resolved", "sub-two"),
        ("wikilink", "[[nowhere]]", "unresolved", None),
        ("wikilink", "[[#x]]", "resolved", "index"),
    ]
    (ambiguous,) = vault.db.links(state="ambiguous")
    assert ambiguous.candidates == ("a-same", "b-same")
    assert ("index", "index", "CITES") not in vault.edges()


def test_a_second_ingest_changes_nothing(make_vault: Make) -> None:
    vault = make_vault(NOTES)
    for name in NOTES:
        os.utime(vault.root / name, ns=(10**18 + 1, 10**18 + 1))
    vault.ingest(embedder=hash_embedder())
    before, history = dump(vault.db), vault.db.query("SELECT count(*) FROM history")
    writes = vault.db.get_stats().writes
    report = vault.ingest(embedder=hash_embedder())
    assert (report.indexed, report.unchanged, report.removed) == (0, 5, 0)
    assert vault.db.get_stats().writes == writes
    assert dump(vault.db) == before
    assert vault.db.query("SELECT count(*) FROM history") == history


def test_unchanged_files_are_not_even_opened(make_vault: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = make_vault(NOTES)
    for name in NOTES:
        os.utime(vault.root / name, ns=(10**18 + 1, 10**18 + 1))
    vault.ingest()
    monkeypatch.setattr(ingest_module.Root, "open_file", lambda *_: pytest.fail("opened"))
    assert vault.ingest().unchanged == 5


def test_a_touched_file_is_unchanged(make_vault: Make) -> None:
    vault = make_vault(NOTES)
    vault.ingest()
    for at in (10**18 + 1, 10**18 + 2):
        os.utime(vault.root / "one.md", ns=(at, at))
        assert vault.ingest().unchanged == 5
    stored = vault.db.query("SELECT mtime_ns FROM files WHERE path = 'one.md'")
    assert stored == [(10**18 + 2,)]


def test_a_file_written_just_now_is_looked_at_again(
    make_vault: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two versions of one size may share a time; such a time proves nothing."""
    vault = make_vault({"a.md": "[[x]]", "b.md": "[[x]]"})
    just_now, long_ago = 10**18 + 1, 10**17 + 1
    monkeypatch.setattr(ingest_module.time, "time_ns", lambda: just_now + 1_000_000)

    def write(text: str) -> None:
        vault.write({"a.md": text, "b.md": text})
        os.utime(vault.root / "a.md", ns=(just_now, just_now))
        os.utime(vault.root / "b.md", ns=(long_ago, long_ago))

    write("[[x]]")
    vault.ingest()
    write("[[y]]")
    assert vault.ingest().indexed == 1
    assert [(link.source, link.name) for link in vault.db.links()] == [("a", "y"), ("b", "x")]


@pytest.mark.parametrize(
    ("name", "data", "line", "reason"),
    [
        ("utf16.md", "é".encode("utf-16"), 1, "UTF-16"),
        ("latin.md", b"line\ncaf\xe9", 2, "not UTF-8"),
        ("nul.md", b"a\0", 1, "NUL"),
        ("yaml.md", b"---\na: 1\nb: {{x}}\n---\n", 3, "key must be plain text"),
        ("nested.md", b"---\na: " + b"[" * 25_000 + b"\n---\n", 2, "levels deep"),
        ("bomb.md", b"---\na: &a [x]\nb: [*a]\n---\n", 2, "anchors"),
        ("big.md", b"---\na: " + b"x" * 300_000 + b"\n---\n", 2, "256 KiB"),
        ("huge.md", b"x" * (17 << 20), None, "more than the limit"),
        ("top.md", b"---\n- a\n---\n", 2, "mapping"),
    ],
)
def test_a_bad_file_is_named_and_the_rest_is_loaded(
    make_vault: Make, name: str, data: bytes, line: int | None, reason: str
) -> None:
    vault = make_vault({**NOTES, name: data})
    report = vault.ingest()
    assert (report.files, report.indexed, report.nodes) == (6, 5, 5)
    (problem,) = report.problems
    assert (problem.path, problem.line) == (name, line)
    assert reason in problem.reason
    again = vault.ingest()
    assert (again.unchanged, [p.path for p in again.problems]) == (5, [name])


def test_odd_but_good_files_are_loaded(make_vault: Make) -> None:
    vault = make_vault(
        {
            "empty.md": "",
            "bom.md": b"\xef\xbb\xbf# Title",
            "cr.md": "---\rtitle: T\r---\r[[bom]]\r",
            "unclosed.md": "---\ntitle: T\n",
            "fence.md": "```\n---\na: 1\n",
            "日本語.md": "x",
            "🎉.md": "x",
            "a/b.md": "1",
            "a-b.md": "2",
            "A.md": "upper",
            "a.md": "lower",
        }
    )
    report = vault.ingest()
    assert report.problems == []
    assert report.nodes == 11
    assert len(set(vault.ids().values())) == 11


def test_special_files_and_links_are_named(make_vault: Make, tmp_path: Path) -> None:
    vault = make_vault({"good.md": ""})
    os.mkfifo(vault.root / "pipe.md")
    (vault.root / "loop.md").symlink_to("loop.md")
    (vault.root / "folder").symlink_to(".")
    report = vault.ingest()
    assert [problem.path for problem in report.problems] == ["loop.md", "pipe.md"]
    assert (report.files, report.nodes) == (3, 1)


def test_twins_in_two_unicode_forms_are_one_note_and_one_problem(make_vault: Make) -> None:
    vault = make_vault({"é.md": "a", unicodedata.normalize("NFD", "é.md"): "b"})
    report = vault.ingest()
    assert (report.files, report.nodes, len(report.problems)) == (2, 1, 1)
    assert vault.ingest().unchanged == 1


def test_a_file_that_vanishes_meanwhile_is_named(make_vault: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = make_vault(NOTES)
    real = ingest_module.scan

    def scan_then_lose(*args: Any) -> Any:
        found = real(*args)
        vault.remove("one.md")
        return found

    monkeypatch.setattr(ingest_module, "scan", scan_then_lose)
    report = vault.ingest()
    assert [problem.path for problem in report.problems] == ["one.md"]
    assert (report.files, report.nodes) == (5, 4)


def test_a_folder_that_cannot_be_read_removes_nothing(
    make_vault: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = make_vault(NOTES)
    vault.ingest()
    before = dump(vault.db)
    vault.remove("one.md")
    real = os.open

    def refusing(name: str, flags: int, *mode: int, **options: Any) -> int:
        if name == "sub":
            raise OSError(errno.EIO, "Input/output error")
        return real(name, flags, *mode, **options)

    monkeypatch.setattr(os, "open", refusing)
    report = vault.ingest()
    assert not report.complete
    assert [problem.path for problem in report.problems] == ["sub"]
    assert report.removed == 0
    assert dump(vault.db) == before


def test_a_note_out_of_sight_keeps_its_id(make_vault: Make) -> None:
    vault = make_vault({"docs/x y.md": "old", "b.md": ""})
    vault.options["sources"] = ["docs", "b.md", "docs-x-y.md"]
    vault.ingest()
    (vault.root / "docs").rename(vault.root.parent / "unmounted")
    vault.write({"docs-x-y.md": "new"})
    report = vault.ingest()
    assert not report.complete
    ids = vault.ids()
    assert ids["docs/x y.md"] == "docs-x-y"
    assert ids["docs-x-y.md"].startswith("docs-x-y~")


def test_a_note_that_became_malformed_keeps_its_old_node(make_vault: Make) -> None:
    vault = make_vault(NOTES)
    vault.ingest()
    before = dump(vault.db)
    vault.write({"one.md": "---\n{{x}}: [\n---\n"})
    for _ in range(2):
        report = vault.ingest()
        assert (report.files, report.unchanged) == (5, 4)
        assert [problem.path for problem in report.problems] == ["one.md"]
        assert dump(vault.db) == before
    vault.write({"one.md": "mended"})
    assert vault.ingest().indexed == 1
    assert vault.db.get_edges("one") == []


def test_sources_and_patterns_decide_what_is_read(make_vault: Make) -> None:
    vault = make_vault({"docs/a.md": "", "docs/drafts/b.md": "", "notes/c.md": "", "d.md": ""})
    vault.options |= {"sources": ["docs", "notes", "docs/drafts"], "exclude": ["drafts"]}
    report = vault.ingest()
    assert (report.files, report.skipped["excluded"]) == (2, 1)
    assert set(vault.ids()) == {"docs/a.md", "notes/c.md"}


# --- vectors ------------------------------------------------------------------------------------------


class Counting:
    """Embeds by hash and remembers how many texts it was given."""

    def __init__(self, name: str = "by-hash") -> None:
        self.texts: list[str] = []
        self.embedder = CallableEmbedder(self.embed, Space(name, 8))

    def embed(self, texts: Any) -> Any:
        self.texts += texts
        return embed_by_hash(texts)


def vector_of(vault: Vault, node: str) -> Any:
    found = vault.db.get_node(node)
    assert found is not None
    return found.embedding


def test_a_vector_is_made_of_title_and_body(make_vault: Make) -> None:
    vault = make_vault({"a.md": "---\ntitle: T\n---\nbody"})
    counting = Counting()
    vault.ingest(embedder=counting.embedder)
    assert counting.texts == ["T\n\nbody"]
    expected = embed_by_hash(["T\n\nbody"])[0]
    assert np.allclose(vector_of(vault, "a"), expected / np.linalg.norm(expected), atol=1e-6)


def test_metadata_costs_no_embedding(make_vault: Make) -> None:
    vault = make_vault({"a.md": "---\ntitle: T\n---\nbody"})
    counting = Counting()
    vault.ingest(embedder=counting.embedder)
    before = vector_of(vault, "a")
    vault.write({"a.md": "---\ntitle: T\ntags: x\n---\nbody"})
    report = vault.ingest(embedder=counting.embedder)
    assert (report.indexed, len(counting.texts)) == (1, 1)
    assert np.array_equal(vector_of(vault, "a"), before)


def test_a_moved_note_keeps_its_vector(make_vault: Make) -> None:
    vault = make_vault({"a.md": "# T\n\nbody", "b.md": "other"})
    counting = Counting()
    vault.ingest(embedder=counting.embedder)
    before = vector_of(vault, "a")
    (vault.root / "a.md").rename(vault.root / "c.md")
    report = vault.ingest(embedder=counting.embedder)
    assert (report.indexed, report.removed, len(counting.texts)) == (1, 1, 2)
    assert np.array_equal(vector_of(vault, "c"), before)


def test_vectors_are_taken_over_from_another_database(make_vault: Make, tmp_path: Path) -> None:
    vault = make_vault(NOTES)
    counting = Counting()
    vault.ingest(embedder=counting.embedder)
    fresh = Vault(vault.root, tmp_path / "fresh.db")
    again = Counting()
    fresh.ingest(embedder=again.embedder, reuse_from=vault.db)
    assert again.texts == []
    assert dump(fresh.db) == dump(vault.db)
    other = Counting("another model")
    third = Vault(vault.root, tmp_path / "third.db")
    third.ingest(embedder=other.embedder, reuse_from=vault.db)
    assert len(other.texts) == 5
    fresh.db.close()
    third.db.close()


def test_a_model_that_comes_later_fills_the_gap(make_vault: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = make_vault(NOTES)
    report = vault.ingest()
    assert (report.vectors, report.embedding) == (0, None)
    report = vault.ingest(embedder=hash_embedder())
    assert (report.indexed, report.unchanged, report.vectors) == (0, 5, 5)
    assert report.embedding == Space("by-hash", 8)
    monkeypatch.setattr("resonance.vault.vectors.choose_embedder", lambda _: pytest.fail("loaded"))
    assert vault.ingest().vectors == 5


def test_without_the_model_changed_notes_lose_their_vector_and_the_others_keep_it(
    make_vault: Make,
) -> None:
    vault = make_vault(NOTES)
    vault.ingest(embedder=hash_embedder())
    vault.write({"one.md": "changed", "sub/two.md": "---\ntags: new\n---\n[[one]] `[[index]]`\n"})
    report = vault.ingest()
    assert (report.indexed, report.vectors) == (2, 4)
    assert report.embedding_note
    assert vector_of(vault, "one") is None
    report = vault.ingest(embedder=hash_embedder())
    assert (report.indexed, report.vectors) == (0, 5)


def test_another_model_embeds_all_again(make_vault: Make) -> None:
    vault = make_vault(NOTES)
    vault.ingest(embedder=hash_embedder())
    counting = Counting("other")
    report = vault.ingest(embedder=counting.embedder)
    assert (len(counting.texts), report.vectors) == (5, 5)
    assert report.embedding == Space("other", 8)
    assert report.embedding_note == "5 vectors of by-hash were dropped for those of other"


def test_another_model_under_the_same_settings_is_noticed(
    make_vault: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vault = make_vault(NOTES)
    vault.options = {"model": "the one"}
    other = CallableEmbedder(lambda texts: -embed_by_hash(texts), Space("other", 8))
    choose = "resonance.vault.vectors.choose_embedder"
    monkeypatch.setattr(choose, lambda _: (hash_embedder(), None))
    vault.ingest()
    monkeypatch.setattr(choose, lambda _: (other, None))
    vault.write({"one.md": "new text", "sub/two.md": "---\ntags: new\n---\n[[one]] `[[index]]`\n"})
    report = vault.ingest()
    assert (report.vectors, report.embedding) == (5, Space("other", 8))
    fresh = Vault(vault.root, tmp_path / "fresh.db")
    fresh.ingest(embedder=other)
    assert dump(fresh.db) == dump(vault.db)
    fresh.db.close()


def test_a_model_given_once_need_not_be_loaded_again(
    make_vault: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = make_vault(NOTES)
    vault.options = {}
    vault.ingest(embedder=hash_embedder())
    monkeypatch.setattr("resonance.vault.vectors.choose_embedder", lambda _: pytest.fail("loaded"))
    before = vault.db.query("SELECT * FROM properties ORDER BY key")
    assert vault.ingest().unchanged == 5
    assert vault.db.query("SELECT * FROM properties ORDER BY key") == before


def test_the_default_does_not_take_the_place_of_a_model_somebody_chose(
    make_vault: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = make_vault(NOTES)
    vault.options = {}
    vault.ingest(embedder=hash_embedder("chosen"))
    monkeypatch.setattr("resonance.vault.vectors.choose_embedder", lambda _: (hash_embedder("default"), None))
    vault.write({"one.md": "changed"})
    report = vault.ingest()
    assert (report.vectors, report.embedding) == (4, Space("chosen", 8))
    assert report.embedding_note is not None
    assert "chosen" in report.embedding_note
    report = vault.ingest(embedder=hash_embedder("chosen"))
    assert (report.indexed, report.vectors, report.embedding_note) == (0, 5, None)


def test_a_change_of_model_that_is_cut_off_is_taken_up_again(
    make_vault: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = make_vault(NOTES)

    def broken(texts: Any) -> Any:
        raise RuntimeError("out of memory")

    def use(embedder: CallableEmbedder) -> None:
        monkeypatch.setattr("resonance.vault.vectors.choose_embedder", lambda _: (embedder, None))

    use(hash_embedder("old"))
    vault.ingest()
    vault.write({"one.md": "changed"})
    use(CallableEmbedder(broken, Space("new", 8)))
    with pytest.raises(EmbedderError):
        vault.ingest()
    use(hash_embedder("new"))
    report = vault.ingest()
    assert (report.vectors, report.embedding) == (5, Space("new", 8))


def test_notes_of_a_first_run_that_is_cut_off_can_be_read(
    make_vault: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    vault = make_vault({"a.md": "here"})
    with monkeypatch.context() as patched:
        patched.setattr(ingest_module._Run, "link", stop)
        with pytest.raises(KeyboardInterrupt):
            vault.ingest()
    with ResonanceDB(vault.database) as db:
        assert db.root == vault.root
        assert (db.content("a").state, db.content("a").text) == ("fresh", "here")
    assert vault.ingest().indexed == 1


def test_the_model_is_not_loaded_for_nothing(make_vault: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = make_vault({"a.md": "# T\n\nbody", "b.md": ""})
    choose = "resonance.vault.vectors.choose_embedder"
    monkeypatch.setattr(choose, lambda _: (hash_embedder(), None))
    vault.ingest()
    monkeypatch.setattr(choose, lambda _: pytest.fail("loaded"))
    assert vault.ingest().unchanged == 2
    vault.write({"a.md": "---\ntags: x\n---\n# T\n\nbody"})
    vault.remove("b.md")
    report = vault.ingest()
    assert (report.indexed, report.removed, report.vectors) == (1, 1, 1)


def test_vectors_this_vault_cannot_make_again_are_not_dropped(make_vault: Make) -> None:
    vault = make_vault(NOTES)
    vault.db.set_space(Space("pipeline", 3))
    vault.db.insert_nodes(id=["foreign"], embedding=np.array([[1, 0, 0]], dtype=np.float32))
    report = vault.ingest(embedder=hash_embedder())
    assert (report.nodes, report.vectors) == (5, 1)
    assert report.embedding == Space("pipeline", 3)
    assert report.embedding_note is not None
    assert "--yes" in report.embedding_note
    report = vault.ingest(embedder=hash_embedder(), yes=True)
    assert (report.vectors, report.embedding) == (5, Space("by-hash", 8))


def test_a_text_without_a_direction_has_no_vector(make_vault: Make) -> None:
    vault = make_vault({"a.md": "x", "b.md": "y"})
    zeros = CallableEmbedder(
        lambda texts: embed_by_hash(texts) * [[not t.startswith("a")] for t in texts],
        Space("zeros", 8),
    )
    assert vault.ingest(embedder=zeros).vectors == 1
    assert vector_of(vault, "a") is None


def test_an_embedder_that_fails_loses_nothing(make_vault: Make) -> None:
    vault = make_vault(NOTES)

    def broken(texts: Any) -> Any:
        raise RuntimeError("out of memory")

    with pytest.raises(EmbedderError):
        vault.ingest(embedder=CallableEmbedder(broken, Space("by-hash", 8)))
    report = vault.ingest(embedder=hash_embedder())
    assert (report.indexed, report.vectors) == (5, 5)


def test_nothing_is_embedded_while_the_write_lock_is_held(make_vault: Make) -> None:
    vault = make_vault(NOTES)

    def writing_meanwhile(texts: Any) -> Any:
        with vault.db.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO properties VALUES ('other', 'writer')")
        return embed_by_hash(texts)

    vault.ingest(embedder=CallableEmbedder(writing_meanwhile, Space("x", 8)))
    assert vault.db.query("SELECT value FROM properties WHERE key = 'other'") == [("writer",)]


# --- what others wrote --------------------------------------------------------------------------------


def test_an_edge_of_somebody_else_is_left_alone(make_vault: Make) -> None:
    vault = make_vault({"a.md": "", "b.md": ""})
    vault.ingest()
    vault.db.insert_semantic_edge("a", "b", "CITES", confidence=0.5)
    vault.write({"a.md": "[[b]]"})
    vault.ingest()
    vault.write({"a.md": "no link"})
    vault.ingest()
    assert vault.db.query("SELECT source, target, confidence FROM edges") == [("a", "b", 0.5)]


def test_a_tag_that_somebody_else_uses_stays(make_vault: Make) -> None:
    vault = make_vault({"a.md": "#mine #yours", "b.md": ""})
    vault.ingest()
    vault.db.insert_edge("b", "#yours", "about")
    vault.write({"a.md": ""})
    assert vault.ingest().tags == 1
    assert vault.edges() == {("b", "#yours", "about")}


def test_a_date_and_summary_written_into_the_database_survive(make_vault: Make) -> None:
    vault = make_vault({"a.md": "x", "b.md": "---\nsummary: from  the head\ndate: 2024\n---\n"})
    vault.ingest()
    vault.db.insert_node(Node("a", date="2020-01-01", summary="from a pipeline"))
    vault.write({"a.md": "y", "b.md": "no head"})
    vault.ingest()
    rows = vault.db.query("SELECT id, date, summary FROM nodes ORDER BY id")
    assert rows == [("a", "2020-01-01", "from a pipeline"), ("b", None, None)]


def test_progress_is_told(make_vault: Make) -> None:
    told: list[tuple[str, int, int]] = []
    make_vault(NOTES).ingest(progress=lambda *step: told.append(step))
    assert told[0][0] == "scan"
    assert ("read", 5, 5) in told
    assert ("link", 5, 5) in told


# --- everything at once -------------------------------------------------------------------------------

BOMB = b"---\na: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (c + 1, c + 1, b",".join([b"*%c" % c] * 9)) for c in range(ord("a"), ord("i"))
)
BAD: dict[str, tuple[bytes, int | None]] = {
    "utf-16 le.md": ("\ufeffé".encode("utf-16-le"), 1),
    "utf-16 be.md": ("\ufeffé".encode("utf-16-be"), 1),
    "latin-1.md": (b"one\rtwo\r\ncaf\xe9", 3),
    "nul.md": (b"---\na: 1\n---\n\n\0", 5),
    "50 MB of YAML.md": (b"---\n" + b"key: value\n" * 4_800_000 + b"---\n", None),
    "15 MB of YAML.md": (b"---\n" + b"key: value\n" * 1_400_000 + b"---\n", 2),
    "nested.md": (b"---\nx: 1\na: " + b"[" * 25_000 + b"\n---\n", 3),
    "nested maps.md": (b"---\na: " + b"{b: " * 25_000 + b"\n---\n", 2),
    "nested blocks.md": (b"---\n" + b"".join(b" " * n + b"a:\n" for n in range(200)) + b"---\n", 66),
    "bomb.md": (BOMB + b"---\n", 2),
    "recursive.md": (b"---\na: &a [*a]\n---\n", 2),
    "tag.md": (b"---\na: !!python/object/apply:os.system ['true']\n---\n", 2),
    "twice.md": (b"---\na: 1\nb: 2\na: 3\n---\n", 4),
    "unclosed bracket.md": (b"---\na: [1\n---\n", 3),
    "unclosed quote.md": (b"---\na: 'x\nb: 1\n---\n", 4),
    "tab.md": (b"---\na:\n\tb: 1\n---\n", 3),
}
ODD: dict[str, str | bytes] = {
    "bom.md": b"\xef\xbb\xbf---\ntitle: T\n---\n[[empty]]",
    "cr.md": b"---\rtags: [x]\r---\r[[empty]]\r",
    "empty.md": b"",
    "unclosed head.md": b"---\ntitle: T\n[[empty]]\n",
    "unclosed fence.md": b"```\n[[in code]]\n" * 3,
    "brackets.md": b"[" * 25_000 + b"\n\n" + b"[[" * 25_000 + b"\n\n" + b"> " * 5_000,
    "date.md": b"---\ndate: 2024-13-45\nn: 1" + b"0" * 5_000 + b"\n---\n",
    "long line.md": b"x" * 5_000_000,
    "Case.md": "a",
    "case.md": "b",
    "ÜBER.md": "a",
    "über.md": "b",
    **{
        f"{name}.md": "[[empty]]"
        for name in ("日本語", "مرحبا", "हिन्दी", "Ωmega", "עברית", "ไทย", "🎉", "CON", "a\nb")
    },
}


def test_a_vault_of_bad_files_and_odd_ones(make_vault: Make) -> None:
    vault = make_vault({**ODD, **{name: data for name, (data, _) in BAD.items()}})
    os.mkfifo(vault.root / "fifo.md")
    (vault.root / "loop.md").symlink_to("loop.md")
    (vault.root / "loop").symlink_to("..")
    (vault.root / unicodedata.normalize("NFD", "über.md")).write_text("twin")
    Path(os.fsdecode(os.fsencode(vault.root) + b"/latin\xe9.md")).write_text("x")
    report = vault.ingest()
    named = {"fifo.md": None, "loop.md": None, "u\\u0308ber.md": None, "latin\\xe9.md": None}
    lines = {name: line for name, (_, line) in BAD.items()} | named
    assert {problem.path: problem.line for problem in report.problems} == lines
    assert all(problem.reason for problem in report.problems)
    assert vault.ids().keys() == ODD.keys()
    assert len(set(vault.ids().values())) == len(ODD)
    assert report.files == report.indexed + len(lines) == len(ODD) + len(lines)
    again = vault.ingest()
    assert (again.unchanged, again.indexed, len(again.problems)) == (len(ODD), 0, len(lines))


def test_a_file_from_the_far_future_stops_nothing(make_vault: Make) -> None:
    vault = make_vault({"a.md": "x", "b.md": "y"})
    late = 15_032_385_535  # the last second that ext4 knows, in the year 2446
    try:
        os.utime(vault.root / "a.md", (late, late))
    except OverflowError:
        pytest.skip("no such time here")
    if (vault.root / "a.md").stat().st_mtime < late:
        pytest.skip("no such time on this disk")
    assert vault.ingest().indexed == 2
    assert vault.ingest().unchanged == 2
    vault.write({"a.md": "z"})
    assert vault.ingest().indexed == 1


def test_a_root_whose_name_is_no_text_is_refused_by_name(make_vault: Make, tmp_path: Path) -> None:
    vault = make_vault({"a.md": "x"})
    before = dump(vault.db)
    root = vault.root.rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    link = tmp_path / "link"
    link.symlink_to(root)
    for place in (root, link):
        with pytest.raises(SettingsError, match=r"xff: is not UTF-8"):
            ingest_module.ingest(vault.db, load_settings(place, model="none"))
    assert dump(vault.db) == before
