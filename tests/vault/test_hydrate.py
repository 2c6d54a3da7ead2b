"""Hydration: the text as it is now, what became of it, and never a stand-in."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from vaults import Files, Vault

import resonance
from resonance.errors import ContentError, PathEscapeError, UnknownNodeError
from resonance.model import Content, Node
from resonance.vault.hydrate import Record, hydrate
from resonance.vault.root import Root

Make = Callable[[Files], Vault]

HEAD = "---\ntitle: é\n---\n"
BODY = "# Note\n\nTexte é, 日本.\r\n"


@pytest.fixture
def vault(make_vault: Make) -> Vault:
    vault = make_vault({"a/note.md": HEAD + BODY, "other.md": "other", "twin.md": "other"})
    vault.ingest()
    return vault


def content(vault: Vault, path: str = "a/note.md") -> Content:
    node = vault.db.query("SELECT node FROM files WHERE path = ?", (path,))[0][0]
    return vault.db.content(node)


def test_a_fresh_note_is_its_body_and_its_place(vault: Vault) -> None:
    found = content(vault)
    assert (found.text, found.state, found.path, found.reason) == (BODY, "fresh", "a/note.md", None)
    assert found.span is not None
    start, end = found.span
    data = (vault.root / "a/note.md").read_bytes()
    assert data[start:end].decode() == BODY
    assert end == len(data)


def test_a_touched_note_is_fresh(vault: Vault) -> None:
    os.utime(vault.root / "a/note.md", (0, 0))
    assert content(vault).state == "fresh"


def test_a_changed_note_shows_the_new_text_and_says_so(vault: Vault) -> None:
    vault.write({"a/note.md": HEAD + "new"})
    found = content(vault)
    assert (found.text, found.state) == ("new", "changed")
    assert found.reason is not None


def test_a_change_that_keeps_size_and_time_is_seen(vault: Vault) -> None:
    file = vault.root / "a/note.md"
    before = file.stat()
    with file.open("r+b") as stream:
        stream.seek(-3, os.SEEK_END)
        stream.write(b"!")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert content(vault).state == "changed"


def test_a_note_whose_frontmatter_broke_still_shows_its_body(vault: Vault) -> None:
    vault.write({"a/note.md": "---\n{{broken\n---\nbody"})
    found = content(vault)
    assert (found.text, found.state) == ("body", "changed")


def test_a_moved_note_is_found_by_its_bytes(vault: Vault) -> None:
    (vault.root / "b").mkdir()
    (vault.root / "a/note.md").rename(vault.root / "b/renamed.md")
    found = content(vault)
    assert (found.text, found.state, found.path) == (BODY, "moved", "b/renamed.md")


def test_a_deleted_note_is_missing_even_if_another_has_its_text(vault: Vault) -> None:
    vault.remove("other.md")
    found = content(vault, "other.md")
    assert (found.text, found.state, found.span) == (None, "missing", None)
    assert found.path == "other.md"
    assert found.reason is not None


def test_a_file_of_the_same_size_is_not_the_moved_note(vault: Vault) -> None:
    size = (vault.root / "a/note.md").stat().st_size
    vault.remove("a/note.md")
    vault.write({"b.md": "x" * size})
    assert content(vault).state == "missing"


def test_other_bytes_than_were_looked_for_are_never_shown(vault: Vault) -> None:
    with Root(vault.root) as root:
        record = Record("x", "gone.md", 5, "0" * 64)
        found = hydrate(root, record, moved=lambda _: "other.md")
    assert (found.text, found.state, found.path) == (None, "missing", "gone.md")


@pytest.mark.parametrize("data", [b"\xff\xfex\0", b"caf\xe9", b"a\0b"])
def test_a_note_that_is_no_text_any_more_is_unreadable(vault: Vault, data: bytes) -> None:
    vault.write({"a/note.md": data})
    found = content(vault)
    assert (found.text, found.state) == (None, "unreadable")
    assert found.reason is not None


def test_a_note_that_became_a_fifo_is_unreadable(vault: Vault) -> None:
    vault.remove("a/note.md")
    os.mkfifo(vault.root / "a/note.md")
    assert content(vault).state == "unreadable"


def test_a_note_that_became_a_link_is_refused(vault: Vault, tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("secret")
    vault.remove("a/note.md")
    (vault.root / "a/note.md").symlink_to(tmp_path / "secret.md")
    with pytest.raises(PathEscapeError):
        content(vault)


@pytest.mark.parametrize("path", ["../secret.md", "/etc/passwd", "a/../../secret.md", "a\\..\\b"])
def test_a_stored_path_never_leads_out(vault: Vault, path: str) -> None:
    (vault.root.parent / "secret.md").write_text("secret")
    vault.db.insert_node(Node("evil", meta={"source": path}))
    with pytest.raises(PathEscapeError):
        vault.db.content("evil")


def test_a_node_without_a_file_is_an_error_not_a_text(vault: Vault) -> None:
    vault.db.insert_node(Node("idea", type="concept"))
    with pytest.raises(ContentError, match="stands for no file"):
        vault.db.content("idea")
    with pytest.raises(UnknownNodeError):
        vault.db.content("nothing")


def test_without_a_root_nothing_is_read(tmp_path: Path) -> None:
    with resonance.ResonanceDB(str(tmp_path / "x.db")) as db:
        db.insert_node(Node("a", meta={"source": "a.md"}))
        with pytest.raises(ContentError, match="root"):
            db.content("a")


def test_a_moved_vault_is_read_at_its_new_place(vault: Vault, tmp_path: Path) -> None:
    vault.db.close()
    moved = tmp_path / "elsewhere"
    vault.root.rename(moved)
    with resonance.ResonanceDB(str(vault.database), root=moved) as db:
        node = db.query("SELECT node FROM files WHERE path = 'a/note.md'")[0][0]
        assert db.content(node).state == "fresh"


@pytest.mark.parametrize(("text", "state"), [("Same text\n", "fresh"), ("Other text\n", "changed")])
def test_amalfas_nodes_are_compared_by_its_own_hash(vault: Vault, text: str, state: str) -> None:
    digest = hashlib.md5(b"Same text").hexdigest()
    vault.db.insert_node(Node("amalfa", hash=digest, meta={"source": "amalfa.md"}))
    vault.write({"amalfa.md": text})
    assert vault.db.content("amalfa").state == state


def test_a_file_in_the_disks_own_unicode_form_is_found(make_vault: Make) -> None:
    vault = make_vault({unicodedata.normalize("NFD", "Überblick.md"): "é"})
    vault.ingest()
    assert content(vault, "Überblick.md").state == "fresh"
    assert content(vault, "Überblick.md").text == "é"


def test_a_byte_order_mark_is_not_part_of_the_text(make_vault: Make) -> None:
    vault = make_vault({"a.md": b"\xef\xbb\xbftext", "b.md": b"\xef\xbb\xbf---\na: 1\n---\ntext"})
    vault.ingest()
    assert (content(vault, "a.md").text, content(vault, "a.md").span) == ("text", (3, 7))
    assert (content(vault, "b.md").text, content(vault, "b.md").span) == ("text", (16, 20))
