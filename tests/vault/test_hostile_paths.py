"""Paths that want to lead out of the root: at the door of the table, and whenever something is read."""

from __future__ import annotations

import os
import socket
import stat
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from vaults import Files, Vault

from resonance.errors import ColumnError, ConstraintError, ContentError, ContentMissingError, PathEscapeError
from resonance.vault import openat2
from resonance.vault.root import Root
from support import Child

SECRET, INSIDE = "secret outside of the vault", "inside"
NFC = unicodedata.normalize("NFC", "é.md")


class Case(NamedTuple):
    """A path, what has to be on disk for it, and what reading it must come to."""

    path: str
    answer: str
    make: Callable[[Path], object] = lambda root: None


def link(name: str, target: str) -> Callable[[Path], object]:
    def make(root: Path) -> None:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to(target)

    return make


def several(*makers: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda root: [make(root) for make in makers]


def file(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_text(INSIDE)


def bind(root: Path) -> None:
    here = Path.cwd()
    os.chdir(root)  # the names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket.md")
    finally:
        os.chdir(here)


def device(root: Path) -> None:
    try:
        os.mknod(root / "zero.md", 0o644 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")


# Refused for what they say, before the disk is asked.
TEXTUAL = [
    "../secret.md",
    "../../etc/passwd",
    "../" * 50 + "etc/passwd",
    "/etc/passwd",
    "//etc/passwd",
    "/proc/self/mem",
    "/proc/self/root/etc/passwd",
    "/dev/fd/0",
    "file:///etc/passwd",
    "a/../../secret.md",
    "a/../../../etc/passwd",
    "a/b.md/../../../secret.md",
    "....//....//secret.md",
    "a//b.md",
    "a/./b.md",
    "./a/b.md",
    ".",
    "..",
    "",
    "/",
    "a/",
    "a/..",
    "..\\secret.md",
    "\\etc\\passwd",
    "\\\\host\\share\\secret.md",
    "a\\..\\..\\secret.md",
    "C:\\secret.md",
    "a\0b.md",
    "a/b.md\0/../../secret.md",
    "a/" * 3000 + "b.md",
]

CASES = [
    *(Case(path, "escape") for path in TEXTUAL),
    # Links, wherever they lead.
    Case("link.md", "escape", link("link.md", "../secret.md")),
    Case("absolute.md", "escape", link("absolute.md", "/etc/passwd")),
    Case("inner.md", "escape", link("inner.md", "a/b.md")),
    Case("chain.md", "escape", several(link("chain.md", "next"), link("next", "../secret.md"))),
    Case("loop.md", "escape", link("loop.md", "loop.md")),
    Case("nowhere.md", "escape", link("nowhere.md", "not there")),
    Case("folder.md", "escape", link("folder.md", "..")),
    Case("out/secret.md", "escape", link("out", "..")),
    Case("etc/passwd", "escape", link("etc", "/etc")),
    Case("alias/b.md", "escape", link("alias", "a")),
    Case("a/up/secret.md", "escape", link("a/up", "../..")),
    Case("dots./secret.md", "escape", link("dots.", "..")),
    Case("proc/etc/passwd", "escape", link("proc", "/proc/self/root")),
    Case("fd.md", "escape", link("fd.md", "/proc/self/fd/0")),
    Case("memory.md", "escape", link("memory.md", "/proc/self/mem")),
    # Names that somebody might decode, fold or expand. We do not: they are names.
    Case("..%2fsecret.md", "inside", file("..%2fsecret.md")),
    Case("%2e%2e/secret.md", "missing"),
    Case("%252e%252e%252fsecret.md", "missing"),
    Case("..;/secret.md", "missing"),
    Case("\uff0e\uff0e/secret.md", "missing"),
    Case("\u2025/secret.md", "missing"),
    Case("..\u2215secret.md", "missing"),
    Case("\udcc0\udcae\udcc0\udcae/secret.md", "missing"),
    Case("\ud800.md", "missing"),
    Case("~/secret.md", "missing"),
    Case("$HOME/secret.md", "missing"),
    Case("a /b.md", "missing"),
    Case("a./b.md", "missing"),
    Case("a/b.md.", "missing"),
    Case("a/b.md::$DATA", "missing"),
    Case("CON", "missing"),
    Case("A/B.md", "missing", lambda root: (root / "A").exists() and pytest.skip("case does not matter")),
    Case(NFC, "inside", file(unicodedata.normalize("NFD", NFC))),
    Case("n" * 300 + ".md", "missing"),
    Case("a/b.md/c.md", "missing"),
    # What is there and is no text.
    Case("a", "unreadable"),
    Case("fifo.md", "unreadable", lambda root: os.mkfifo(root / "fifo.md")),
    Case("socket.md", "unreadable", bind),
    Case("zero.md", "unreadable", device),
    # A hard link is the file; whoever can make one can copy it.
    Case("hard.md", "inside", lambda root: (root / "hard.md").hardlink_to(root / "a/b.md")),
]


def test_there_are_sixty_of_them() -> None:
    assert len({case.path for case in CASES}) == len(CASES) >= 60


@pytest.fixture(params=["openat2", "steps"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "steps":
        monkeypatch.setattr(openat2, "_syscall", None)
    elif openat2._syscall is None:
        pytest.skip("no openat2 on this system")
    return str(request.param)


@pytest.fixture
def vault(make_vault: Callable[[Files], Vault]) -> Vault:
    vault = make_vault({"a/b.md": INSIDE})
    (vault.root.parent / "secret.md").write_text(SECRET)
    return vault


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case.path)[:40])
def test_reading_it_never_leads_out(vault: Vault, way: str, case: Case) -> None:
    case.make(vault.root)
    with Root(vault.root) as root:
        if case.answer == "inside":
            assert root.read(case.path)[0].decode() == INSIDE
            return
        with pytest.raises(ContentError) as caught:
            root.read(case.path)
    kinds = {"escape": PathEscapeError, "missing": ContentMissingError, "unreadable": ContentError}
    assert type(caught.value) is kinds[case.answer]


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case.path)[:40])
def test_a_node_that_says_it_lies_there_shows_nothing_else(vault: Vault, case: Case) -> None:
    case.make(vault.root)
    if any("\ud800" <= c <= "\udfff" for c in case.path):
        with pytest.raises(ColumnError, match="surrogate"):
            vault.db.get_raw_db().execute("SELECT ?", (case.path,))
        return
    with vault.db.transaction() as writer:
        writer.execute("INSERT INTO nodes (id) VALUES ('evil')")
    # As somebody would store it who can write to the file and cares for no rule.
    raw = vault.db.get_raw_db()
    raw.execute("PRAGMA ignore_check_constraints = ON")
    raw.execute("INSERT INTO files VALUES (?, 'evil', 1, 1, 1, '', '')", (case.path,))
    raw.execute("PRAGMA ignore_check_constraints = OFF")
    if case.path == "":
        with pytest.raises(ContentError):
            vault.db.content("evil")
        return
    (many,) = vault.db.content_many(["evil"])
    if case.answer == "escape":
        assert (many.text, many.state) == (None, "unreadable")
        with pytest.raises(PathEscapeError):
            vault.db.content("evil")
        with pytest.raises(PathEscapeError):
            vault.db.content_many(["evil"], policy="raise")
        return
    states = {"missing": "missing", "unreadable": "unreadable", "inside": "changed"}
    assert many == vault.db.content("evil")
    assert (many.text, many.state) == (INSIDE if case.answer == "inside" else None, states[case.answer])


@pytest.mark.parametrize("path", TEXTUAL, ids=lambda path: ascii(path)[:40])
def test_the_table_of_files_does_not_take_it(vault: Vault, path: str) -> None:
    vault.ingest()
    with pytest.raises(ConstraintError), vault.db.transaction() as writer:
        writer.execute("UPDATE files SET path = ?", (path,))
    assert vault.db.query("SELECT path FROM files") == [("a/b.md",)]
    with vault.db.transaction() as writer:
        writer.execute("UPDATE files SET path = ?", ("..a/b..c/.d/e...md",))


def test_an_ingest_among_all_of_them_reads_nothing_from_outside(vault: Vault) -> None:
    for case in CASES:
        if case.path != "A/B.md":
            case.make(vault.root)
    report = vault.ingest()
    assert vault.db.query("SELECT path FROM files ORDER BY path") == [
        ("a/b.md",), ("hard.md",), (NFC,),
    ]  # fmt: skip
    assert {problem.path for problem in report.problems} >= {"link.md", "loop.md", "fifo.md", "socket.md"}
    for content in vault.db.content_many(["a-b", "hard", "é"]):
        assert (content.text, content.state) == (INSIDE, "fresh")


def test_a_root_that_was_swapped_for_a_link_is_refused(vault: Vault, way: str) -> None:
    vault.ingest()
    outside = vault.root.parent / "outside"
    (outside / "a").mkdir(parents=True)
    (outside / "a/b.md").write_text(SECRET)
    vault.root.rename(vault.root.with_name("aside"))
    vault.root.symlink_to(outside)
    vault.db._root = None  # as one opens it without saying where the vault is
    with pytest.raises(PathEscapeError, match="root leads through a symbolic link now"):
        vault.db.content("a-b")
    with pytest.raises(PathEscapeError):
        vault.db.content_many(["a-b"])
    above = vault.root.with_name("above")
    above.symlink_to(vault.root.parent)
    with pytest.raises(PathEscapeError):
        Root(above / "aside", real=True)
    # Who names a root means what he names.
    with Root(above / "aside") as named:
        assert named.read("a/b.md")[0].decode() == INSIDE


# --- somebody swaps things while they are read ----------------------------------------------------


def swap_forever(root: str) -> None:
    """A folder, a file and the root itself turn into links to what is outside, and back."""
    os.chdir(root)
    while True:
        for inside in ("a", "f.md"):
            Path(inside).rename("aside")
            Path("link-" + inside).rename(inside)
            Path(inside).rename("link-" + inside)
            Path("aside").rename(inside)
        Path(root).rename(root + "-aside")
        Path(root + "-link").rename(root)
        Path(root).rename(root + "-link")
        Path(root + "-aside").rename(root)


@pytest.fixture
def besieged(root: Path) -> Iterator[Path]:
    outside = root.parent / "outside"
    for place, text in ((outside, SECRET), (root, INSIDE)):
        (place / "a").mkdir(parents=True)
        (place / "a" / "b.md").write_text(text)
        (place / "f.md").write_text(text)
    (root / "link-a").symlink_to(outside / "a")
    (root / "link-f.md").symlink_to(outside / "f.md")
    root.with_name(root.name + "-link").symlink_to(outside)
    child = Child(swap_forever, os.fspath(root))
    yield root
    assert child.kill(), "it swapped to the end"


def read_for(seconds: float, root: Path) -> str:
    """Read as fast as can be; say what came of it."""
    counts = {"read": 0, "refused": 0, "escaped": 0}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or not (counts["read"] and counts["refused"]):
        assert time.monotonic() < deadline + 60, f"nothing happens: {counts}"
        try:
            with Root(root, real=True) as opened:
                for path in ("a/b.md", "f.md") * 10:
                    try:
                        inside = opened.read(path)[0].decode() == INSIDE
                        counts["read" if inside else "escaped"] += 1
                    except ContentError:
                        counts["refused"] += 1
        except Exception:
            counts["refused"] += 1  # the root is not there just now, or is a link
    assert counts["escaped"] == 0
    return f"{counts['read'] + counts['refused']} done, 0 bad: {counts}"


def test_a_racing_swapper_never_wins(besieged: Path, way: str) -> None:
    read_for(1, besieged)


@pytest.mark.stress
def test_a_racing_swapper_never_wins_in_ten_seconds(besieged: Path, way: str) -> None:
    print(way, read_for(10, besieged))
