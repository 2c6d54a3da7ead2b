"""What broke in Amalfa's database layer, made to happen again: each of these fails on the old behaviour.

The numbers are those of its incident reports.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from resonance import ResonanceDB
from resonance._core import Connection
from resonance.backup import backup_connection
from resonance.care.restore import restore
from resonance.care.verify import verify
from resonance.errors import BackupError, ContentError, CorruptRowError, EmbeddingError
from resonance.factory import DatabaseFactory
from resonance.model import Content, Hit, Node
from resonance.vault.ingest import ingest
from resonance.vault.settings import VaultSettings, load_settings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "vault"
    root.mkdir()
    (root / "a.md").write_text("# A\n\nto [[b]]\n")
    (root / "b.md").write_text("# B\n\nback to [[a]]\n")
    return root


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "graph.db"


def settings(root: Path, path: Path) -> VaultSettings:
    return load_settings(root, database=path, model="none")


# --- I3: `new Float32Array(bytes)` took each byte for a number: 1,536 dimensions, norms of 5,000 ------


def test_bytes_are_never_taken_for_numbers(path: Path) -> None:
    vector = np.array([0.6, 0.8, 0, 0], dtype="<f4")
    with ResonanceDB(path) as db:
        db.insert_node(Node("a", embedding=vector))
        for wrong in (vector.tobytes(), bytearray(vector.tobytes()), memoryview(vector.tobytes())):
            with pytest.raises(EmbeddingError):
                db.insert_node({"id": "b", "embedding": wrong})
            with pytest.raises(EmbeddingError):
                db.search(wrong)  # type: ignore[call-overload]
        wide = np.frombuffer(vector.tobytes(), dtype=np.uint8).astype(np.float32)
        with pytest.raises(EmbeddingError, match="16"):
            db.insert_node({"id": "b", "embedding": wide})
        with pytest.raises(EmbeddingError, match="16"):
            db.search(wide)
        assert db.get_node("b") is None


def test_a_norm_of_five_thousand_is_found(path: Path) -> None:
    with ResonanceDB(path) as db:
        db.insert_node(Node("a", embedding=np.array([1, 0, 0, 0], dtype=np.float32)))
        db.insert_node(Node("b", embedding=np.array([5414, 1, 1, 1], dtype=np.float32)))
        assert np.linalg.norm(db.get_node("b").embedding) == pytest.approx(1)  # type: ignore[union-attr]
    assert DatabaseFactory.perform_health_check(path).ok, "the negative control"
    with Connection(path, create=False) as connection:
        blob = np.array([5414, 1, 1, 1], dtype="<f4").tobytes()
        connection.execute("UPDATE nodes SET embedding = ? WHERE id = 'b'", (blob,))
    assert not DatabaseFactory.perform_health_check(path).ok
    with Connection(path, create=False) as connection:
        connection.execute("UPDATE nodes SET embedding = zeroblob(24) WHERE id = 'b'")
    with ResonanceDB(path) as db, pytest.raises(CorruptRowError):
        db.embeddings()


# --- I4: the text was NULL, then a placeholder, and the placeholder was fed to a language model --------


def test_there_is_no_content_to_be_null_and_no_stand_in_for_it(path: Path, root: Path) -> None:
    assert "content" not in {field.name for field in dataclasses.fields(Node)}
    vectors = {"embedding": [[1.0, 0.0], [0.0, 1.0]]}
    with ResonanceDB(path, root=root) as db:
        ingest(db, settings(root, path))
        db.insert_nodes(id=["a", "b"], **vectors)
        db.insert_nodes(id=["idea"], type="concept", embedding=[[1.0, 1.0]])
        columns = {column for (column,) in db.query("SELECT name FROM pragma_table_info('nodes')")}
        assert not columns & {"content", "text", "body"}
        (root / "a.md").unlink()
        hits = db.search([1.0, 0.0], hydrate=True)
        texts = {hit.id: hit.content.text for hit in hits if hit.content is not None}
        assert texts == {"a": None, "b": "# B\n\nback to [[a]]\n", "idea": None}
        for missing in ("a", "idea"):
            with pytest.raises(ContentError):
                db.content_many([missing], policy="raise")
        assert [hit.id for hit in db.search([1.0, 0.0], hydrate="drop")] == ["b"]
    assert Hit("x", 1.0).content is None
    assert Content("x", None, "missing", None, None).text is None


# --- I7: absolute paths in the metadata, so nothing could be read once the folder had moved ------------


def test_nothing_that_is_stored_of_a_note_names_the_place_of_the_vault(path: Path, root: Path) -> None:
    with ResonanceDB(path) as db:
        ingest(db, settings(root, path))
        assert db.content("a").state == "fresh"
        for table in ("nodes", "edges", "links", "files"):
            for row in db.query(f"SELECT * FROM {table}"):
                assert str(root) not in repr(row)
        before = db.digest()
    moved = root.rename(root.with_name("elsewhere"))
    with ResonanceDB(path, root=moved) as db:
        assert [content.state for content in db.content_many(["a", "b"])] == ["fresh", "fresh"]
        assert verify(db, settings(moved, path)).ok
        ingest(db, settings(moved, path))
        assert db.digest() == before


# --- I16: an empty database was reported as a success ---------------------------------------------------


def test_an_empty_copy_is_no_backup(path: Path, root: Path, tmp_path: Path) -> None:
    with ResonanceDB(path) as db:
        ingest(db, settings(root, path))
        report = db.backup(tmp_path / "good.db")
    assert (report.nodes, report.edges) == (2, 2)
    (tmp_path / "empty.db").touch()
    before = path.read_bytes()
    with pytest.raises(BackupError, match="is empty"):
        restore(path, tmp_path / "empty.db")
    assert path.read_bytes() == before
    assert not DatabaseFactory.perform_health_check(tmp_path / "empty.db").ok
    assert not DatabaseFactory.perform_health_check(tmp_path / "missing.db").ok


def test_a_copy_that_lost_rows_is_no_backup(path: Path, root: Path, tmp_path: Path) -> None:
    with ResonanceDB(path) as db:
        ingest(db, settings(root, path))

        class Forgetful:
            """A source whose copy comes out a row short."""

            def __init__(self, connection: Connection) -> None:
                self.connection = connection

            def backup_to(self, copy: Connection) -> None:
                self.connection.backup_to(copy)
                copy.execute("DELETE FROM edges WHERE source = 'a'")

            def __getattr__(self, name: str) -> object:
                return getattr(self.connection, name)

        with db.snapshot() as connection, pytest.raises(BackupError, match="the source"):
            backup_connection(Forgetful(connection), str(tmp_path / "x.db"))  # type: ignore[arg-type]
    assert not (tmp_path / "x.db").exists()


def test_a_checkpoint_says_what_it_has_done(path: Path) -> None:
    with ResonanceDB(path) as db, ResonanceDB(path) as other:
        db.insert_node(Node("a"))
        with other.snapshot():
            db.insert_node(Node("b"))
            held = db.checkpoint()
            assert held.checkpointed < held.log, "a reader keeps frames back, and it shows"
        done = db.checkpoint()
        assert (done.busy, done.checkpointed) == (False, done.log)


# --- I18: `cp` of a live database held none of a hundred rows -------------------------------------------


def test_a_copy_by_hand_loses_what_a_backup_keeps(path: Path, tmp_path: Path) -> None:
    with ResonanceDB(path) as db:
        for number in range(100):
            db.insert_node(Node(f"n{number}"))
        shutil.copyfile(path, tmp_path / "by-hand.db")
        db.backup(tmp_path / "backup.db")
        counts = {}
        for name in ("by-hand", "backup"):
            with Connection(tmp_path / f"{name}.db", create=False) as copy:
                tables = copy.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'nodes'")[0][0]
                counts[name] = copy.execute("SELECT count(*) FROM nodes")[0][0] if tables else 0
    assert counts["backup"] == 100
    assert counts["by-hand"] < 100, "the negative control"
    assert restore(path, tmp_path / "backup.db").nodes == 100


# --- I19: "fresh" was told by the times of files, and a commit to a WAL changes no time -------------------


def test_freshness_is_told_by_the_bytes_not_by_anybodys_clock(path: Path, root: Path) -> None:
    with ResonanceDB(path) as db:
        ingest(db, settings(root, path))
        note = root / "a.md"
        status = note.stat()
        note.write_text("# A\n\nto [[c]]\n")
        os.utime(note, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.utime(path, (2**31, 2**31))
        assert note.stat().st_mtime_ns == status.st_mtime_ns
        assert note.stat().st_size == status.st_size
        assert db.content("a").state == "changed"
        assert [each.kind for each in verify(db, settings(root, path)).differences] == ["edited"]
        os.utime(root / "b.md", (2**31, 2**31))
        os.utime(path, (0, 0))
        assert db.content("b").state == "fresh"


# --- I24: a comparison that could not fail was taken for a proof -----------------------------------------


def test_the_proof_can_fail(path: Path, root: Path) -> None:
    with ResonanceDB(path) as db:
        ingest(db, settings(root, path))
        sound = db.digest()
        assert verify(db, settings(root, path)).ok
        with db.transaction() as writer:
            writer.execute("UPDATE edges SET target = 'a', source = 'b', type = 'x' WHERE source = 'a'")
        assert db.digest().root != sound.root
        found = verify(db, settings(root, path))
        # Both sides are read anew: neither stands for the other.
        assert found.stored.graph != found.made.graph == sound.graph
        assert {each.kind for each in found.differences} == {"edge"}
