"""Brakes: an empty or half-empty vault is asked about, not carried out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from vaults import Files, Vault, dump

from resonance.errors import BrakeError

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
