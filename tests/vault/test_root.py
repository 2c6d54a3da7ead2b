"""Reading below the root: no path, link or special file leads out of it or makes it wait."""

from __future__ import annotations

import errno
import os
import socket
import threading
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from resonance.errors import ContentError, ContentMissingError, PathEscapeError, SettingsError
from resonance.vault import openat2
from resonance.vault.root import Root

SECRET = b"secret outside of the vault"

HOSTILE = [
    "../secret.md",
    "../../etc/passwd",
    "/etc/passwd",
    "//etc/passwd",
    "/proc/self/mem",
    "a/../../secret.md",
    "a/../../../etc/passwd",
    "a//b.md",
    "a/./b.md",
    "./a.md",
    ".",
    "..",
    "",
    "/",
    "a/",
    "a/..",
    "..\\secret.md",
    "..\\..\\etc\\passwd",
    "\\etc\\passwd",
    "a\\..\\..\\secret.md",
    "C:\\secret.md",
    "a\0b.md",
    "\0",
    "secret.md\0.md",
    "a/" * 3000 + "b.md",
]


@pytest.fixture(params=["openat2", "steps"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to a file: the kernel's own, where it has one, and step by step."""
    if request.param == "steps":
        monkeypatch.setattr(openat2, "_syscall", None)
    elif openat2._syscall is None:
        pytest.skip("no openat2 on this system")
    return str(request.param)


@pytest.fixture
def opened(root: Path, way: str) -> Iterator[Root]:
    (root.parent / "secret.md").write_bytes(SECRET)
    (root / "a").mkdir()
    (root / "a" / "b.md").write_bytes(b"inside")
    with Root(root, max_file_bytes=1000) as opened:
        yield opened


def open_descriptors() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def test_a_file_is_read_with_its_status(opened: Root) -> None:
    data, status = opened.read("a/b.md")
    assert (data, status.st_size) == (b"inside", 6)
    assert opened.stat("a/b.md").st_ino == status.st_ino


@pytest.mark.parametrize("path", HOSTILE)
def test_hostile_paths_are_refused(opened: Root, path: str) -> None:
    before = open_descriptors()
    with pytest.raises(PathEscapeError):
        opened.read(path)
    assert open_descriptors() == before


@pytest.mark.parametrize("target", ["../secret.md", "a/b.md", "/etc/passwd", "loop.md"])
def test_a_link_in_place_of_a_file_is_not_followed(opened: Root, target: str) -> None:
    name = "loop.md" if target == "loop.md" else "link.md"
    (opened.folder / name).symlink_to(target)
    with pytest.raises(PathEscapeError, match="symbolic link"):
        opened.read(name)


@pytest.mark.parametrize("target", ["..", "a", "/", "link"])
def test_a_link_in_place_of_a_folder_is_not_followed(opened: Root, target: str) -> None:
    (opened.folder / "link").symlink_to(target)
    for path in ("link/b.md", "link/secret.md", "link/x/y.md"):
        with pytest.raises(PathEscapeError, match="symbolic link"):
            opened.read(path)


def test_a_root_that_is_swapped_meanwhile_stays_the_root(opened: Root) -> None:
    opened.folder.rename(opened.folder.parent / "moved")
    opened.folder.symlink_to(opened.folder.parent)
    assert opened.read("a/b.md")[0] == b"inside"
    with pytest.raises(ContentMissingError):
        opened.read("secret.md")


def test_a_swapping_attacker_never_wins(opened: Root) -> None:
    """A folder that turns into a link and back while it is read, over and over."""
    inside, link = opened.folder / "a", opened.folder / "link"
    (inside / "secret.md").write_bytes(b"inside")
    link.symlink_to(opened.folder.parent)
    aside = opened.folder / "aside"
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            inside.rename(aside)
            link.rename(inside)
            inside.rename(link)
            aside.rename(inside)

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = {"read": 0, "refused": 0}
    try:
        for _ in range(3000):
            try:
                data = opened.read("a/secret.md")[0]
            except ContentError:
                seen["refused"] += 1
            else:
                assert data == b"inside"
                seen["read"] += 1
    finally:
        stop.set()
        swapper.join()
    assert seen["read"]
    assert seen["refused"]


@pytest.mark.parametrize("path", ["absent.md", "a/absent.md", "absent/b.md", "a/b.md/c.md"])
def test_what_is_not_there_is_missing(opened: Root, path: str) -> None:
    with pytest.raises(ContentMissingError):
        opened.read(path)


@pytest.mark.parametrize("path", ["n" * 300 + ".md", "\udcff.md"])
def test_names_no_disk_can_have_are_missing(opened: Root, path: str) -> None:
    with pytest.raises(ContentMissingError):
        opened.read(path)


def test_a_folder_is_no_file(opened: Root) -> None:
    with pytest.raises(ContentError, match="not a regular file"):
        opened.read("a")


def test_a_fifo_is_refused_without_waiting(opened: Root) -> None:
    os.mkfifo(opened.folder / "fifo.md")
    with pytest.raises(ContentError, match="not a regular file"):
        opened.read("fifo.md")


def test_a_socket_is_refused(opened: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(opened.folder)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.md")
        with pytest.raises(ContentError, match="not a regular file"):
            opened.read("socket.md")


def test_a_file_above_the_limit_is_refused_unread(opened: Root) -> None:
    with (opened.folder / "sparse.md").open("wb") as file:
        file.truncate(5 * 1024**3)
    with pytest.raises(ContentError, match="more than the limit"):
        opened.read("sparse.md")


def test_a_file_without_permission_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "a").mkdir()
    (root / "a" / "b.md").write_bytes(b"inside")
    monkeypatch.setattr(openat2, "_syscall", None)
    real = os.open

    def refusing(name: str, flags: int, **options: int) -> int:
        if name == "b.md":
            raise PermissionError(errno.EACCES, "Permission denied", name)
        return real(name, flags, **options)

    monkeypatch.setattr(os, "open", refusing)
    with Root(root) as opened, pytest.raises(ContentError, match="Permission denied") as caught:
        opened.read("a/b.md")
    assert caught.value.path == "a/b.md"


def test_a_name_in_the_disks_own_unicode_form_is_found(opened: Root) -> None:
    decomposed = unicodedata.normalize("NFD", "Überblick")
    (opened.folder / decomposed).mkdir()
    (opened.folder / decomposed / f"{decomposed}.md").write_bytes(b"x")
    assert opened.read("Überblick/Überblick.md")[0] == b"x"


def test_a_file_that_grows_while_it_is_read_is_read_again(
    opened: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = opened.folder / "a" / "b.md"
    real, calls = os.read, [0]

    def growing(fd: int, count: int) -> bytes:
        calls[0] += 1
        if calls[0] == 2:
            file.write_bytes(b"inside, and more")
        return real(fd, count)

    monkeypatch.setattr(os, "read", growing)
    assert opened.read("a/b.md")[0] == b"inside, and more"


def test_a_file_rewritten_while_it_is_read_is_read_again(
    opened: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the old text and half of the new, of the right length, is neither."""
    file = opened.folder / "a" / "b.md"
    real, calls = os.read, [0]

    def rewritten(fd: int, count: int) -> bytes:
        calls[0] += 1
        data = real(fd, min(count, 3))
        if calls[0] == 1:
            file.write_bytes(b"OUTSID")
            os.utime(file, ns=(1, 1))
        return data

    monkeypatch.setattr(os, "read", rewritten)
    assert opened.read("a/b.md")[0] == b"OUTSID"


def test_a_file_that_never_rests_is_an_error(opened: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    file = opened.folder / "a" / "b.md"
    real = os.read

    def growing(fd: int, count: int) -> bytes:
        data = real(fd, count)
        file.write_bytes(file.read_bytes() + b".")
        return data

    monkeypatch.setattr(os, "read", growing)
    with pytest.raises(ContentError, match="changes while it is being read"):
        opened.read("a/b.md")


def test_no_descriptor_is_left_behind(opened: Root) -> None:
    before = open_descriptors()
    for path in ("a/b.md", "a", "absent/x.md", "a/b.md/c", "../x", "a/\udcff"):
        try:
            opened.read(path)
        except ContentError:
            continue
    assert open_descriptors() == before


def test_a_closed_root_refuses(root: Path) -> None:
    opened = Root(root)
    opened.close()
    opened.close()
    with pytest.raises(ContentError, match="closed"):
        opened.read("a.md")


def test_a_root_that_is_no_folder_is_refused(root: Path) -> None:
    with pytest.raises(SettingsError):
        Root(root / "absent")
