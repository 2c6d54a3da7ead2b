"""Verify: names what differs between database and vault, and changes neither."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vaults import Files, Vault, embed_by_hash, hash_embedder

from resonance import ResonanceDB
from resonance._core import Connection
from resonance.care.verify import Difference, Verification, open_untouched, verify
from resonance.errors import CannotOpenError, NotADatabaseError, SchemaError, SpaceError, VaultError
from resonance.vault.embed import CallableEmbedder
from support import FIXTURES, contents

Make = Callable[[Files], Vault]

FILES = {
    "Index.md": "---\ntags: [a]\ndate: 2024-01-31\nsummary: all\n---\n[[one]] [[nowhere]] [[twin]]\n",
    "one.md": "# One\n\n[[Index]] #b\n",
    "sub/twin.md": "[[one]]\n",
    "other/twin.md": "text\n",
}


@pytest.fixture
def vault(make_vault: Make) -> Vault:
    vault = make_vault(FILES)
    vault.ingest(embedder=hash_embedder())
    return vault


def check(vault: Vault, **options: Any) -> Verification:
    """Verify, and see that nothing was written."""
    before = (stored(vault), tree(vault.root))
    found = verify(vault.db, vault.settings, **options)
    assert (stored(vault), tree(vault.root)) == before
    assert found.ok == (not found.differences)
    return found


def stored(vault: Vault) -> dict[str, Any]:
    """All but the shared memory, where readers mark their places."""
    found = contents(vault.database.parent)
    return {name: data for name, data in found.items() if not name.endswith("-shm")}


def tree(root: Path) -> dict[str, Any]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def told(found: Verification) -> list[tuple[str, str | None, str]]:
    return [(each.kind, each.path, each.detail) for each in found.differences]


def test_a_database_that_says_what_the_vault_says(vault: Vault) -> None:
    found = check(vault)
    assert found.differences == ()
    assert (found.files, found.problems, found.vectors) == (4, (), False)
    assert found.stored.graph == found.made.graph
    assert found.stored == vault.db.digest()
    assert check(vault, embedder=hash_embedder()).ok


# --- the vault has changed --------------------------------------------------------------------------


def test_files_added_edited_removed_and_moved(vault: Vault) -> None:
    vault.write({"new.md": "new", "one.md": "# One\n\nedited [[Index]] #b\n"})
    vault.remove("other/twin.md")
    (vault.root / "sub/twin.md").rename(vault.root / "moved.md")
    assert told(check(vault)) == [
        ("added", "new.md", "is not in the database"),
        ("edited", "one.md", "has changed since it was indexed"),
        (
            "link",
            "Index.md",
            "[[twin]] at byte 68 is stored as ambiguous (other-twin, sub-twin), and is unresolved",
        ),
        ("moved", "sub/twin.md", "is now at moved.md"),
        ("removed", "other/twin.md", "is not in the vault any more"),
    ]
    vault.ingest(embedder=hash_embedder())
    assert check(vault, embedder=hash_embedder()).ok


def test_an_edit_that_keeps_size_and_time_is_seen(vault: Vault) -> None:
    file = vault.root / "other/twin.md"
    os.utime(file, (0, 0))
    vault.ingest(embedder=hash_embedder())
    status = file.stat()
    file.write_text("texT\n")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert vault.ingest(embedder=hash_embedder()).indexed == 0, "the negative control: a stat sees nothing"
    assert told(check(vault)) == [("edited", "other/twin.md", "has changed since it was indexed")]


def test_a_touched_file_is_no_difference(vault: Vault) -> None:
    for name in FILES:
        os.utime(vault.root / name, (0, 0))
    assert check(vault).ok


def test_a_note_that_broke_is_named_with_its_reason(vault: Vault) -> None:
    vault.write({"other/twin.md": "---\na: [\n---\n", "never.md": b"\xff"})
    found = check(vault)
    (broken,) = [each for each in found.differences if each.kind == "unreadable"]
    assert broken.path == "other/twin.md"
    assert "line" in broken.detail
    assert {problem.path for problem in found.problems} == {"other/twin.md", "never.md"}
    assert not any(each.path == "never.md" for each in found.differences), "init would not take it either"


def test_an_id_that_would_be_another(vault: Vault) -> None:
    vault.write({"Index!.md": "x"})
    kinds = {(each.kind, each.path) for each in check(vault).differences}
    assert {("node", "Index.md"), ("added", "Index!.md")} <= kinds


def test_a_run_that_was_cut_off(vault: Vault) -> None:
    with vault.db.transaction() as writer:
        writer.execute("UPDATE files SET hash = '' WHERE path = 'one.md'")
    assert told(check(vault)) == [("edited", "one.md", "was being ingested when that was cut off")]


def test_a_vault_that_cannot_be_read_in_full_is_not_compared(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    (vault.root / "deep").mkdir()
    monkeypatch.setattr("resonance.vault.scan._DEEPEST", -1)
    with pytest.raises(VaultError, match="nothing was compared"):
        check(vault)


# --- somebody wrote into the database ---------------------------------------------------------------

TAMPERED = {
    "UPDATE nodes SET title = 'Won' WHERE id = 'one'": [
        ("node", "one.md", 'title is "Won", and would be "One"'),
    ],
    "UPDATE nodes SET date = '2024-02-01' WHERE id = 'index'": [
        ("node", "Index.md", 'date is null, and would be "2024-01-31"'),
    ],
    "UPDATE nodes SET meta = json_remove(meta, '$.tags') WHERE id = 'one'": [
        (
            "node",
            "one.md",
            'meta is {"aliases": [], "source": "one.md"}, and would be '
            '{"aliases": [], "source": "one.md", "tags": ["b"]}',
        ),
    ],
    "UPDATE nodes SET hash = 'x' WHERE id = 'one'": None,
    "UPDATE nodes SET title = 'x' WHERE id = '#a'": [
        ("node", None, 'title is "x", and would be "a"'),
    ],
    "INSERT INTO nodes (id, type) VALUES ('stray', 'idea')": [
        ("node", None, "nothing in the vault stands for it (type idea)"),
    ],
    "DELETE FROM edges WHERE source = 'one' AND target = 'index'": [
        ("edge", "one.md", "one -CITES-> index: is not in the database"),
    ],
    "INSERT INTO edges (source, target, type) VALUES ('one', 'sub-twin', 'CITES')": [
        ("edge", "one.md", "one -CITES-> sub-twin: nothing in the vault stands for it"),
    ],
    "UPDATE edges SET confidence = 0.5 WHERE source = 'one' AND target = 'index'": [
        ("edge", "one.md", "one -CITES-> index: confidence is 0.5, and would be 1.0"),
    ],
    "DELETE FROM links WHERE name = 'nowhere'": [
        ("link", "Index.md", "[[nowhere]] at byte 56 is not in the ledger"),
    ],
    "INSERT INTO links (source, kind, type, raw, name, state) "
    "VALUES ('one', 'wikilink', 'CITES', '[[x]]', 'x', 'external')": [
        ("link", "one.md", "[[x]] is stored, and is not in the vault"),
    ],
    "UPDATE links SET state = 'external' WHERE name = 'nowhere'": [
        ("link", "Index.md", "[[nowhere]] at byte 56 is stored as external, and is unresolved"),
    ],
    "UPDATE links SET target = 'sub-twin' WHERE source = 'one' AND name = 'Index'": [
        ("link", "one.md", "[[Index]] at byte 7 is stored as resolved (sub-twin), and is resolved (index)"),
    ],
    "UPDATE links SET span_start = span_start + 1 WHERE name = 'nowhere'": [
        ("link", "Index.md", "[[nowhere]] at byte 56 is not in the ledger"),
        ("link", "Index.md", "[[nowhere]] at byte 57 is stored, and is not in the vault"),
    ],
    "UPDATE files SET body_hash = 'x' WHERE path = 'one.md'": [
        ("vector", "one.md", "the text it is said to stand for is not that of the file"),
    ],
    "UPDATE files SET path = 'two.md' WHERE path = 'one.md'": None,
    "UPDATE nodes SET embedding = zeroblob(32) WHERE id = 'one'": None,
}  # fmt: skip


@pytest.mark.parametrize("sql", TAMPERED)
def test_what_somebody_changed_is_named(vault: Vault, sql: str) -> None:
    assert check(vault).ok, "the negative control"
    with vault.db.transaction() as writer:
        writer.execute(sql)
        assert writer.changes == 1
    found = check(vault)
    assert not found.ok
    wanted = TAMPERED[sql]
    assert wanted is None or told(found) == wanted


def test_a_row_deleted_behind_its_neighbours(vault: Vault) -> None:
    vault.db.delete_nodes(["one"])
    kinds = {(each.kind, each.path or each.id) for each in check(vault).differences}
    assert ("added", "one.md") in kinds
    assert ("node", "#b") not in kinds, "tags stay until the next ingest"
    assert {path for kind, path in kinds if kind == "link"} == {"Index.md", "sub/twin.md"}


def test_what_somebody_wrote_of_a_note_without_it_is_theirs(vault: Vault) -> None:
    vault.db.update_node_date("one", "2026-01-01")
    vault.db.insert_node({"id": "one", "summary": "theirs"})
    assert check(vault).ok, "init keeps it"


# --- vectors ----------------------------------------------------------------------------------------


def swapped(vault: Vault) -> None:
    """Two good vectors, each in the other's place."""
    with vault.db.transaction() as writer:
        vectors = dict(writer.execute("SELECT id, embedding FROM nodes WHERE id IN ('one', 'index')"))
        for node, other in (("one", "index"), ("index", "one")):
            writer.execute("UPDATE nodes SET embedding = ? WHERE id = ?", (vectors[other], node))


def test_a_vector_of_another_text_shows_when_it_is_made_again(vault: Vault) -> None:
    swapped(vault)
    assert check(vault).ok, "the negative control: nothing but the model can tell"
    found = check(vault, embedder=hash_embedder())
    assert [(each.kind, each.path) for each in found.differences] == [
        ("vector", "Index.md"), ("vector", "one.md"),
    ]  # fmt: skip
    assert "is not that of its text (their cosine is" in found.differences[0].detail


def test_a_vector_that_is_not_there(vault: Vault) -> None:
    with vault.db.transaction() as writer:
        writer.execute("UPDATE nodes SET embedding = NULL WHERE id = 'one'")
    assert told(check(vault, embedder=hash_embedder())) == [("vector", "one.md", "is not stored")]


def test_last_bits_are_no_difference_and_an_angle_is(vault: Vault) -> None:
    def nearly(by: float) -> CallableEmbedder:
        def embed(texts: Sequence[str]) -> Any:
            rows = embed_by_hash(texts)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            rows[:, 0] += by
            return rows

        return CallableEmbedder(embed, hash_embedder().space)

    assert check(vault, embedder=nearly(1e-6)).ok
    assert not check(vault, embedder=nearly(0.1)).ok


def test_another_model_is_not_compared(vault: Vault) -> None:
    with pytest.raises(SpaceError, match="name the one that made them"):
        check(vault, embedder=hash_embedder("other"))


# --- sections ---------------------------------------------------------------------------------------

LONG = "".join(f"# Part {number}\n\n{'words of it ' * 60}\n\n" for number in range(6))


@pytest.fixture
def long(make_vault: Make) -> Vault:
    vault = make_vault({"long.md": LONG, "short.md": "short"})
    vault.ingest(embedder=hash_embedder())
    assert vault.db.query("SELECT count(*) FROM sections WHERE document = 'long'")[0][0] >= 3
    return vault


def test_sections_follow_their_document(long: Vault) -> None:
    assert check(long, embedder=hash_embedder()).ok
    long.write({"long.md": LONG.replace("words", "other words")})
    assert told(check(long, embedder=hash_embedder())) == [
        ("edited", "long.md", "has changed since it was indexed")
    ]
    (long.root / "long.md").write_text(LONG)
    (long.root / "long.md").rename(long.root / "moved.md")
    assert told(check(long)) == [("moved", "long.md", "is now at moved.md")]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE sections SET span_start = span_start + 1 WHERE node = ?",
        "UPDATE sections SET hash = 'x' WHERE node = ?",
        "UPDATE sections SET heading = '[]' WHERE node = ?",
        "UPDATE nodes SET title = 'x' WHERE id = ?",
        "DELETE FROM edges WHERE source = ?",
        "DELETE FROM sections WHERE node = ?",
    ],
)
def test_a_section_that_somebody_changed_is_named(long: Vault, sql: str) -> None:
    node = long.db.query("SELECT node FROM sections ORDER BY ordinal LIMIT 1 OFFSET 1")[0][0]
    with long.db.transaction() as writer:
        writer.execute(sql, (node,))
        assert writer.changes == 1
    found = check(long)
    assert {(each.id, each.path) for each in found.differences} == {(node, "long.md")}


def test_a_section_with_the_vector_of_another(long: Vault) -> None:
    with long.db.transaction() as writer:
        (_, first), (other, _) = writer.execute(
            "SELECT nodes.id, embedding FROM nodes JOIN sections ON node = nodes.id ORDER BY ordinal LIMIT 2"
        )
        writer.execute("UPDATE nodes SET embedding = ? WHERE id = ?", (first, other))
    assert check(long).ok, "the negative control"
    assert [each.id for each in check(long, embedder=hash_embedder()).differences] == [other]


# --- opening ----------------------------------------------------------------------------------------


def test_a_backup_can_be_verified_and_stays_as_it_is(vault: Vault, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    vault.db.backup(backup)
    before = backup.read_bytes()
    with open_untouched(backup, vault.root) as db:
        assert verify(db, vault.settings).ok
    assert backup.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "backup.db"]


def test_an_older_schema_is_refused_not_migrated(tmp_path: Path) -> None:
    path = tmp_path / "amalfa.db"
    path.write_bytes((FIXTURES / "amalfa-made.db").read_bytes())
    before = contents(tmp_path)
    with pytest.raises(SchemaError, match="resonance migrate"), open_untouched(path):
        pass
    assert contents(tmp_path) == before


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    os.mkfifo(tmp_path / "fifo.db")
    with Connection(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE orders (x)")
    before = contents(tmp_path)
    for name, error in (
        ("absent.db", CannotOpenError),
        ("fifo.db", CannotOpenError),
        ("empty.db", NotADatabaseError),
        ("other.db", NotADatabaseError),
    ):
        with pytest.raises(error), open_untouched(tmp_path / name):
            pass
    assert contents(tmp_path) == before


def test_a_difference_has_its_four_facts(vault: Vault) -> None:
    vault.remove("one.md")
    with ResonanceDB(vault.database, readonly=True) as db:
        found = verify(db, vault.settings)
    removed = Difference("removed", "one.md", "one", "is not in the vault any more")
    assert removed in found.differences
    document = found.to_dict()
    assert document["ok"] is False
    assert document["counts"]["removed"] == 1
    assert removed._asdict() in document["differences"]
    assert document["digest"]["graph"] != document["vault"]["graph"]
