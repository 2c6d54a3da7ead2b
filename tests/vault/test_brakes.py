"""Brakes: an empty or half-empty vault is asked about, not carried out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from vaults import Files, Vault, dump, hash_embedder

from resonance.errors import BrakeError, SettingsError
from resonance.vault import ledger, tombstones
from resonance.vault.settings import SETTINGS_FILE

Make = Callable[[Files], Vault]


def many(count: int, folder: str = "old") -> dict[str, str | bytes]:
    return {f"{folder}/{number}.md": f"note {number}" for number in range(count)}


def test_an_empty_vault_removes_nothing(make_vault: Make) -> None:
    vault = make_vault({"a.md": "", "b.md": ""})
    vault.ingest()
    before = dump(vault.db)
    vault.remove("a.md", "b.md")
    with pytest.raises(BrakeError) as caught:
        vault.ingest()
    assert caught.value.paths == ["a.md", "b.md"]
    assert dump(vault.db) == before
    assert vault.ingest(yes=True).removed == 2
    assert vault.db.query("SELECT count(*) FROM nodes") == [(0,)]


def test_an_empty_vault_and_an_empty_database_are_fine(make_vault: Make) -> None:
    assert make_vault({}).ingest().files == 0


@pytest.mark.parametrize(
    ("known", "gone", "stops"),
    [(20, 10, False), (20, 11, True), (100, 25, False), (100, 26, True), (11, 10, False)],
)
def test_a_mass_disappearance_stops(make_vault: Make, known: int, gone: int, stops: bool) -> None:
    vault = make_vault(many(known))
    vault.ingest()
    lost = sorted(vault.ids())[:gone]
    before = dump(vault.db)
    vault.remove(*lost)
    if not stops:
        assert vault.ingest().removed == gone
        return
    with pytest.raises(BrakeError) as caught:
        vault.ingest()
    assert caught.value.paths == lost
    assert "--yes" in str(caught.value)
    assert dump(vault.db) == before
    assert vault.ingest(yes=True).removed == gone


def test_a_folder_that_was_renamed_is_no_loss(make_vault: Make) -> None:
    vault = make_vault(many(40))
    vault.ingest()
    (vault.root / "old").rename(vault.root / "new")
    report = vault.ingest()
    assert (report.removed, report.indexed, report.nodes) == (40, 40, 40)


def test_files_of_the_same_length_do_not_pass_for_moved_ones(make_vault: Make) -> None:
    vault = make_vault(many(40))
    vault.ingest()
    vault.remove(*vault.ids())
    vault.write({f"new/{number}.md": f"NOTE {number}" for number in range(40)})
    with pytest.raises(BrakeError):
        vault.ingest()


def test_a_pattern_that_hides_much_stops(make_vault: Make) -> None:
    vault = make_vault({**many(40), "b.md": ""})
    vault.ingest()
    vault.options["exclude"] = ["old"]
    with pytest.raises(BrakeError):
        vault.ingest()


def test_a_source_that_is_gone_removes_nothing(make_vault: Make) -> None:
    vault = make_vault({**many(40, "docs"), "other/b.md": ""})
    vault.options["sources"] = ["docs", "other"]
    vault.ingest()
    (vault.root / "docs").rename(vault.root.parent / "unmounted")
    report = vault.ingest()
    assert (report.removed, report.complete, report.nodes) == (0, False, 41)
    assert [problem.path for problem in report.problems] == ["docs"]


@pytest.mark.parametrize(
    ("percent", "gone", "stops"),
    [(0, 1, True), (5, 2, False), (5, 3, True), (50, 20, False), (50, 21, True), (100, 39, False)],
)
def test_how_much_may_go_is_a_setting(make_vault: Make, percent: float, gone: int, stops: bool) -> None:
    vault = make_vault(many(40))
    vault.options["max_loss"] = percent
    vault.ingest()
    vault.remove(*sorted(vault.ids())[:gone])
    if stops:
        with pytest.raises(BrakeError):
            vault.ingest()
        vault.options["max_loss"] = 100
    assert vault.ingest().removed == gone


@pytest.mark.parametrize("value", ["25", -1, 101, True, [25]])
def test_a_share_that_is_none_is_refused(make_vault: Make, value: object) -> None:
    vault = make_vault({})
    vault.write({SETTINGS_FILE: json.dumps({"maxLoss": value})})
    with pytest.raises(SettingsError, match="maxLoss must be a percentage"):
        vault.ingest()


def test_the_settings_file_says_how_much_may_go(make_vault: Make) -> None:
    vault = make_vault({**many(40), SETTINGS_FILE: '{"maxLoss": 2.5}'})
    assert vault.settings.max_loss == 0.025
    vault.ingest()
    vault.remove(*sorted(vault.ids())[:2])
    with pytest.raises(BrakeError):
        vault.ingest()


def test_a_share_that_comes_out_even_may_go(make_vault: Make) -> None:
    vault = make_vault(many(100))
    vault.options["max_loss"] = 29
    vault.ingest()
    vault.remove(*sorted(vault.ids())[:29])
    assert vault.ingest().removed == 29


def test_what_is_out_of_sight_is_held_and_yes_carries_it_out(make_vault: Make) -> None:
    vault = make_vault({**many(3, "docs"), "other/b.md": "", "other/copied.md": ""})
    vault.options["sources"] = ["docs", "other"]
    vault.ingest()
    (vault.root / "docs").rename(vault.root.parent / "unmounted")
    # The same bytes elsewhere prove nothing while the first may still be there.
    vault.write({"other/0.md": "note 0", "other/b.md": "edited"})
    report = vault.ingest()
    assert (report.removed, report.moved, report.indexed, report.complete) == (0, 0, 2, False)
    assert report.held == ["docs/0.md", "docs/1.md", "docs/2.md"]
    assert report.held_because == "a folder could not be read"
    assert vault.ingest().held == report.held
    report = vault.ingest(yes=True)
    assert (report.removed, report.held, report.nodes) == (3, [], 3)


# --- bringing back ------------------------------------------------------------------------------------

LINKED: dict[str, str | bytes] = {
    "a.md": "---\ntags: [x, y]\naliases: [Al]\n---\n# A\n\n[[b]] [[gone]] [[Al]] #z ![p](p.png) <https://a.b>",
    "b.md": "[[a]] [[Al]] [[c]]",
    "c.md": "[[a]] #x",
    "long.md": "# Long\n\n" + "".join(f"## Part {n}\n\n{'words ' * 400}[[a]]\n\n" for n in range(4)),
    "p.png": b"",
}


def bring_back(vault: Vault) -> tombstones.Undone:
    return tombstones.undo(vault.db, vault.settings)


@pytest.mark.parametrize("restored_first", [True, False])
@pytest.mark.parametrize("lost", [["a.md"], ["a.md", "b.md"], ["a.md", "b.md", "c.md", "long.md"]])
def test_undo_brings_back_all_there_was(make_vault: Make, lost: list[str], restored_first: bool) -> None:
    vault = make_vault(LINKED)
    vault.ingest(embedder=hash_embedder())
    vault.db.insert_node({"id": "program"})
    vault.db.insert_semantic_edge("program", "a", "about", confidence=0.25, context_source="me")
    vault.db.insert_edge("a", "b", "knows")
    before = dump(vault.db)
    vault.remove(*lost)
    assert vault.ingest(yes=True).removed == len(lost)
    assert vault.db.get_node("a") is None
    if restored_first:
        vault.write({name: LINKED[name] for name in lost})
    undone = bring_back(vault)
    assert (undone.restored, undone.left_out, undone.remaining) == (sorted(lost), [], 0)
    assert (undone.vectors, undone.edges) == (len(lost), 2)
    assert undone.removed_at is not None
    assert dump(vault.db) == before
    assert vault.db.query("SELECT * FROM pragma_foreign_key_check") == []
    assert [entry.action for entry in vault.db.get_history("a")][:2] == ["restore", "delete"]
    assert vault.db.query("SELECT count(*) FROM tombstones") == [(0,)]

    if restored_first:
        report = vault.ingest(embedder=hash_embedder())
        assert (report.indexed, report.removed) == (0, 0)
        assert dump(vault.db) == before
        # The words are not kept with what was removed: an ingest reads them again.
        assert "a" in {hit.id for hit in vault.db.search_text("gone")}
    else:
        assert vault.db.content("a").state == "missing"
        assert vault.ingest(yes=True).removed == len(lost)
        assert bring_back(vault).restored == sorted(lost)


def test_what_comes_meanwhile_does_not_cost_what_comes_back(make_vault: Make) -> None:
    vault = make_vault({"long.md": LINKED["long.md"]})
    vault.ingest()
    before = dump(vault.db)
    vault.remove("long.md")
    vault.write({"new.md": f"# New\n\n{LINKED['long.md']!s}"})
    vault.ingest(yes=True)
    assert bring_back(vault).restored == ["long.md"]
    for table, rows in before.items():
        assert set(rows) <= set(dump(vault.db)[table]), table


def test_undo_goes_back_run_by_run(make_vault: Make) -> None:
    vault = make_vault(many(4))
    vault.ingest()
    states = [dump(vault.db)]
    for number in range(3):
        vault.remove(f"old/{number}.md")
        vault.ingest(yes=True)
        states.append(dump(vault.db))
    for number, state in zip((2, 1, 0), states[2::-1], strict=True):
        undone = bring_back(vault)
        assert (undone.restored, undone.remaining) == ([f"old/{number}.md"], number)
        assert dump(vault.db) == state
    assert bring_back(vault) == tombstones.Undone()


def test_undo_leaves_out_what_is_there_again(make_vault: Make) -> None:
    vault = make_vault({"a.md": "[[b]]", "b.md": "", "c c.md": ""})
    vault.ingest()
    vault.remove("a.md", "b.md", "c c.md")
    vault.write({"other.md": ""})
    vault.ingest(yes=True)
    vault.write({"b.md": "written anew", "c-c.md": "has that id now"})
    vault.ingest()
    undone = bring_back(vault)
    assert undone.restored == ["a.md"]
    assert {p.path: p.reason for p in undone.left_out} == {
        "b.md": "is in the database again, as b",
        "c c.md": "its id c-c now belongs to another node",
    }
    assert ("a", "b", "CITES") in vault.edges()
    assert vault.db.query("SELECT size FROM files WHERE path = 'b.md'") == [(12,)]


def test_vectors_of_another_model_do_not_come_back(make_vault: Make) -> None:
    vault = make_vault({"a.md": "text", "b.md": ""})
    vault.ingest(embedder=hash_embedder("old"))
    vault.remove("a.md")
    vault.ingest(yes=True, embedder=hash_embedder("old"))
    vault.ingest(embedder=hash_embedder("new"))
    vault.write({"a.md": "text"})
    undone = bring_back(vault)
    assert (undone.restored, undone.vectors) == (["a.md"], 0)
    report = vault.ingest(embedder=hash_embedder("new"))
    assert (report.indexed, report.vectors) == (0, 2)


@pytest.mark.parametrize("step", ["read_names", "write_resolutions"])
def test_an_undo_that_is_cut_off_loses_nothing(
    make_vault: Make, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    vault = make_vault(LINKED)
    vault.ingest(embedder=hash_embedder())
    before = dump(vault.db)
    vault.remove("a.md", "b.md")
    vault.ingest(yes=True)
    vault.write({name: LINKED[name] for name in ("a.md", "b.md")})

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(ledger, step, cut)
        with pytest.raises(KeyboardInterrupt):
            bring_back(vault)
    vault.ingest(embedder=hash_embedder())
    assert dump(vault.db) == before


def test_a_moved_note_leaves_nothing_to_undo(make_vault: Make) -> None:
    vault = make_vault({"a.md": "text"})
    vault.ingest()
    (vault.root / "a.md").rename(vault.root / "b.md")
    assert vault.ingest().moved == 1
    assert bring_back(vault) == tombstones.Undone()


def test_what_was_removed_is_forgotten_in_time(make_vault: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = make_vault(many(60))
    vault.ingest()
    monkeypatch.setattr(tombstones, "KEPT_NOTES", 5)
    gone = 0
    for count in (3, 3, 3, 20):
        vault.remove(*(f"old/{number}.md" for number in range(gone, gone + count)))
        vault.ingest(yes=True)
        gone += count
    # Of the runs before the last one only the last that fits; the last one whole.
    kept = vault.db.query("SELECT count(*) FROM tombstones WHERE entity = 'nodes' GROUP BY run ORDER BY run")
    assert kept == [(3,), (20,)]
    later = time.time() + (tombstones.KEPT_DAYS + 1) * 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    vault.write({"new.md": ""})
    vault.ingest()
    assert bring_back(vault) == tombstones.Undone()
