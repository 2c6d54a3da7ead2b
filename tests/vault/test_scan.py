"""Scanning: every entry is a note, a problem, or counted as passed over; nothing is followed out."""

from __future__ import annotations

import errno
import json
import os
import unicodedata
from pathlib import Path

import pytest
from vaults import write

from resonance.vault.root import Root
from resonance.vault.scan import Scan, scan, scan_paths
from resonance.vault.settings import SETTINGS_FILE, load_settings


def look(root: Path, **options: object) -> Scan:
    settings = load_settings(root, **options)  # type: ignore[arg-type]
    with Root(root) as opened:
        return scan(settings, opened)


def paths(found: Scan) -> list[str]:
    return [file.path for file in found.files]


def test_notes_are_found_at_every_depth_and_sorted(root: Path) -> None:
    write(root, {"b.md": "", "a/z.md": "", "a/b/c/d.markdown": "", "A.MD": "", "x.txt": "", "md": ""})
    found = look(root)
    assert paths(found) == ["A.MD", "a/b/c/d.markdown", "a/z.md", "b.md"]
    assert found.skipped == {"hidden": 0, "excluded": 0, "symlinks": 0, "other": 2}
    assert found.attachments == {"md", "x.txt"}
    assert found.complete
    assert found.problems == []


def test_size_time_and_inode_come_along(root: Path) -> None:
    write(root, {"a.md": "12345"})
    status = (root / "a.md").stat()
    (file,) = look(root).files
    assert file[2:] == (5, status.st_mtime_ns, status.st_ino)


def test_hidden_files_and_folders_are_counted(root: Path) -> None:
    write(root, {".git/a.md": "", ".obsidian/b.md": "", ".c.md": "", "d.md": "", "e/.f/g.md": ""})
    found = look(root)
    assert paths(found) == ["d.md"]
    assert found.skipped["hidden"] == 4


def test_our_own_folder_is_not_counted(root: Path) -> None:
    write(root, {".resonance/resonance.db": "", "a.md": ""})
    assert look(root).skipped["hidden"] == 0


def test_a_hidden_source_that_is_named_is_read(root: Path) -> None:
    write(root, {".notes/a.md": "", ".notes/.b.md": "", "c.md": ""})
    assert paths(look(root, sources=[".notes"])) == [".notes/a.md"]


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("drafts", ["a/b.md", "drafting.md", "x.draft.md"]),
        ("drafts/", ["a/b.md", "drafting.md", "x.draft.md"]),
        ("*.draft.md", ["a/b.md", "a/drafts/d.md", "drafting.md", "drafts/c.md"]),
        ("a/drafts", ["a/b.md", "drafting.md", "drafts/c.md", "x.draft.md"]),
        ("/drafts", ["a/b.md", "a/drafts/d.md", "drafting.md", "x.draft.md"]),
        ("./a/b.md", ["a/drafts/d.md", "drafting.md", "drafts/c.md", "x.draft.md"]),
        ("**/drafts/**", ["a/b.md", "drafting.md", "x.draft.md"]),
        ("a/*", ["drafting.md", "drafts/c.md", "x.draft.md"]),
        ("a/**/*.md", ["drafting.md", "drafts/c.md", "x.draft.md"]),
        ("**/*.md", []),
        ("a/*.md", ["a/drafts/d.md", "drafting.md", "drafts/c.md", "x.draft.md"]),
        ("*/d.md", ["a/b.md", "a/drafts/d.md", "drafting.md", "drafts/c.md", "x.draft.md"]),
        ("a/[a-c].md", ["a/drafts/d.md", "drafting.md", "drafts/c.md", "x.draft.md"]),
        ("draft?ng.md", ["a/b.md", "a/drafts/d.md", "drafts/c.md", "x.draft.md"]),
    ],
)
def test_exclude_patterns(root: Path, pattern: str, left: list[str]) -> None:
    names = ["a/b.md", "a/drafts/d.md", "drafting.md", "drafts/c.md", "x.draft.md"]
    write(root, dict.fromkeys(names, ""))
    found = look(root, exclude=[pattern])
    assert paths(found) == left
    assert (found.skipped["excluded"] >= 1) == (left != sorted(names))


@pytest.mark.parametrize("pattern", ["x/[z-a].md", "x/[!].md", "x/[[&&a.md", "x/[[a].md"])
def test_a_set_that_makes_no_sense_fits_nothing_else(root: Path, pattern: str) -> None:
    write(root, {"x/b.md": "", "z.md": ""})
    assert paths(look(root, exclude=[pattern])) == ["x/b.md", "z.md"]
    assert paths(look(root, sources=[pattern, "*.md"])) == ["z.md"]


def test_exclude_patterns_match_in_any_unicode_form(root: Path) -> None:
    write(root, {unicodedata.normalize("NFD", "Entwürfe/a.md"): "", "b.md": ""})
    assert paths(look(root, exclude=["Entwürfe"])) == ["b.md"]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["docs"], ["docs/a.md", "docs/sub/b.md"]),
        (["*.md"], ["top.md"]),
        (["docs/*.md"], ["docs/a.md"]),
        (["docs/**/*.md"], ["docs/a.md", "docs/sub/b.md"]),
        (["docs/sub", "*.md"], ["docs/sub/b.md", "top.md"]),
        (["docs/a.md"], ["docs/a.md"]),
        (["src/**/*.md"], ["src/x/c.md"]),
        (["absent/**/*.md", "docs/[!b]*.md"], ["docs/a.md"]),
        (["docs", "docs/sub", "docs/**/*.md"], ["docs/a.md", "docs/sub/b.md"]),
    ],
)
def test_sources(root: Path, sources: list[str], expected: list[str]) -> None:
    write(root, dict.fromkeys(["top.md", "docs/a.md", "docs/sub/b.md", "src/x/c.md"], ""))
    (root / SETTINGS_FILE).write_text(json.dumps({"sources": sources}))
    found = look(root)
    assert paths(found) == expected
    assert found.complete


def test_a_folder_with_brackets_in_its_name_is_no_pattern(root: Path) -> None:
    write(root, {"notes [old]/a.md": "", "notes o/b.md": ""})
    assert paths(look(root, sources=["notes [old]"])) == ["notes [old]/a.md"]


def test_a_pattern_that_nothing_fits_is_reported(root: Path) -> None:
    write(root, {"docs/a.md": "", "docs/latin-1.md": b"\xe9", "pictures/p.png": ""})
    patterns = ["docs/*.md", "pictures/*", "nope/*.md", "docs/*.markdown"]
    found = look(root, sources=patterns)
    assert [(problem.path, problem.reason) for problem in found.problems] == [
        ("docs/*.markdown", "no file fits this source"),
        ("nope/*.md", "no file fits this source"),
    ]
    assert found.complete


def test_a_source_that_is_not_there_makes_the_scan_incomplete(root: Path) -> None:
    write(root, {"docs/a.md": ""})
    found = look(root, sources=["docs", "gone"])
    assert paths(found) == ["docs/a.md"]
    assert [problem.path for problem in found.problems] == ["gone"]
    assert not found.complete


def test_a_folder_that_cannot_be_read_makes_the_scan_incomplete(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, {"a.md": "", "locked/b.md": ""})
    real = os.open

    def refusing(name: str, flags: int, **options: int) -> int:
        if name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", name)
        return real(name, flags, **options)

    monkeypatch.setattr(os, "open", refusing)
    found = look(root)
    assert paths(found) == ["a.md"]
    assert [(p.path, "Permission denied" in p.reason) for p in found.problems] == [("locked", True)]
    assert not found.complete


def test_links_are_not_followed(root: Path) -> None:
    write(root, {"a/b.md": "", "../outside/secret.md": ""})
    (root / "loop").symlink_to(".")
    (root / "out").symlink_to("../outside")
    (root / "linked.md").symlink_to("a/b.md")
    (root / "dangling.md").symlink_to("nowhere.md")
    (root / "picture.png").symlink_to("a/b.md")
    found = look(root)
    assert paths(found) == ["a/b.md"]
    assert found.skipped["symlinks"] == 3
    assert [problem.path for problem in found.problems] == ["dangling.md", "linked.md"]
    assert found.complete


def test_a_source_that_is_a_link_is_a_problem(root: Path) -> None:
    write(root, {"../outside/secret.md": "", "a.md": ""})
    (root / "out").symlink_to("../outside")
    found = look(root, sources=["out"])
    assert paths(found) == []
    assert not found.complete


def test_a_fifo_with_the_name_of_a_note_is_a_problem(root: Path) -> None:
    os.mkfifo(root / "pipe.md")
    (root / "folder.md").mkdir()
    found = look(root)
    assert [(p.path, p.reason) for p in found.problems] == [("pipe.md", "is not a regular file")]
    assert paths(found) == []


@pytest.mark.parametrize(("name", "shown"), [(b"bad\xff.md", "bad\\xff.md"), (b"a\\b.md", "a\\b.md")])
def test_names_that_cannot_be_stored_are_problems(root: Path, name: bytes, shown: str) -> None:
    Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(b"")
    write(root, {"good.md": ""})
    found = look(root)
    assert paths(found) == ["good.md"]
    assert [problem.path for problem in found.problems] == [shown]


def test_folders_without_end_are_a_problem(root: Path) -> None:
    write(root, {"a.md": ""})
    fd = os.open(root, os.O_RDONLY)
    for _ in range(600):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    found = look(root)
    assert paths(found) == ["a.md"]
    assert "deep" in found.problems[0].reason
    assert not found.complete


def test_names_in_every_script_are_notes(root: Path) -> None:
    names = ["日本語.md", "مرحبا.md", "हिन्दी.md", "Ωmega.md", "a\nb.md", "CON.md", "🎉.md", "a b'\".md"]
    write(root, dict.fromkeys(names, ""))
    assert paths(look(root)) == sorted(names)


def test_stored_paths_are_nfc_and_remember_the_disks_spelling(root: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Ü/é.md")
    write(root, {decomposed: ""})
    (file,) = look(root).files
    assert (file.path, file.disk_path) == ("Ü/é.md", decomposed)


def test_of_twins_in_two_unicode_forms_one_is_reported(root: Path) -> None:
    composed, decomposed = "é.md", unicodedata.normalize("NFD", "é.md")
    write(root, {composed: "1", decomposed: "22"})
    found = look(root)
    assert [(file.path, file.size) for file in found.files] == [("é.md", 1)]
    (problem,) = found.problems
    assert problem.path == "e\\u0301.md"
    assert "é.md" in problem.reason


def test_names_that_differ_by_case_are_two_notes(root: Path) -> None:
    write(root, {"a.md": "", "A.md": ""})
    assert paths(look(root)) == ["A.md", "a.md"]


def test_the_order_of_the_disk_does_not_matter(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, dict.fromkeys(["b.md", "a/z.md", "é.md", unicodedata.normalize("NFD", "é.md")], ""))
    first = look(root)
    real = os.scandir

    class Reversed:
        def __init__(self, entries: object) -> None:
            self.entries = entries

        def __enter__(self) -> list[object]:
            return list(self.entries.__enter__())[::-1]  # type: ignore[attr-defined]

        def __exit__(self, *error: object) -> None:
            self.entries.__exit__(*error)  # type: ignore[attr-defined]

    monkeypatch.setattr(os, "scandir", lambda fd: Reversed(real(fd)))
    again = look(root)
    assert (again.files, again.problems) == (first.files, first.problems)


# --- some paths only ----------------------------------------------------------------------------------

TREE = {
    "a.md": "1",
    "a.png": "2",
    "sub/b.md": "3",
    "sub/deep/c.md": "4",
    "sub/deep/d.txt": "5",
    "drafts/e.md": "6",
    ".hidden/f.md": "7",
    "é/Ü.md": "8",
    unicodedata.normalize("NFD", "é") + "/x.md": "9",
    "é/" + unicodedata.normalize("NFD", "Ü") + ".md": "10",
    "sub 2/g.md": "11",
}


@pytest.mark.parametrize(
    "asked",
    [
        ["a.md"],
        ["sub"],
        ["sub/deep/c.md", "a.png"],
        ["sub", "sub/b.md"],
        ["drafts", "drafts/e.md"],
        [".hidden/f.md"],
        ["é"],
        ["é/Ü.md"],
        ["é/x.md"],
        [unicodedata.normalize("NFD", "é/Ü.md")],
        ["link/b.md", "link"],
        ["nowhere", "sub/nowhere.md", "a.md/x.md"],
        ["."],
    ],
)
@pytest.mark.parametrize("sources", [None, ["sub", "é", "a.md"], ["sub/**/*.md"]])
def test_some_paths_are_seen_as_among_all(root: Path, asked: list[str], sources: list[str] | None) -> None:
    write(root, TREE)
    (root / "link").symlink_to("sub")
    settings = load_settings(root, exclude=["drafts"], sources=sources)
    names = [unicodedata.normalize("NFC", path) for path in asked]

    def below(path: str) -> bool:
        return "." in names or any(path == name or path.startswith(name + "/") for name in names)

    with Root(root) as opened:
        everything = scan(settings, opened)
        found = scan_paths(settings, opened, asked)
    assert found.files == [file for file in everything.files if below(file.path)]
    assert found.attachments == {path for path in everything.attachments if below(path)}
    assert found.complete


def test_of_a_source_that_is_gone_some_paths_prove_nothing(root: Path) -> None:
    write(root, {"docs/a.md": ""})
    settings = load_settings(root, sources=["docs", "gone"])
    with Root(root) as opened:
        for asked in (["gone/b.md"], ["gone"], ["."]):
            assert not scan_paths(settings, opened, asked).complete
        assert scan_paths(settings, opened, ["docs/a.md"]).complete


@pytest.mark.parametrize(
    "name",
    ["note.md~", "#note.md#", "4913", "note.md.swp", "note.md.tmp", "note.md___jb_tmp___", "~$note.docx"],
)
def test_what_editors_leave_for_a_moment_is_no_attachment(root: Path, name: str) -> None:
    write(root, {name: "", "a.md": ""})
    found = look(root)
    assert (paths(found), found.attachments, found.skipped["other"]) == (["a.md"], set(), 1)


@pytest.mark.parametrize("name", ["4913.md", "a~.md", "tmp", "swp.png", "a.part.pdf"])
def test_names_that_only_look_like_it_are_kept(root: Path, name: str) -> None:
    write(root, {name: ""})
    found = look(root)
    assert {*paths(found), *found.attachments} == {name}


def test_the_database_in_the_vault_is_no_attachment(root: Path) -> None:
    ours = ["graph.db", "graph.db-wal", "graph.db-shm", "graph.db.lock", "graph.db.before-0003.bak"]
    write(root, dict.fromkeys([*ours, "graph.dbx", "a.md"], ""))
    found = look(root, database=root / "graph.db")
    assert found.attachments == {"graph.dbx"}
