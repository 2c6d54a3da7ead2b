"""Regeneration: the whole database anew, beside the live one, and put in its place in one step."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resonance import ResonanceDB
from resonance._core import Connection
from resonance.care import regenerate as module
from resonance.care.regenerate import Regeneration, regenerate
from resonance.errors import (
    BrakeError,
    CannotOpenError,
    CorruptDatabaseError,
    EmbedderError,
    NotADatabaseError,
    RegenerateError,
)
from resonance.model import Edge, Space
from resonance.rebuild import PREFIX, Inspection
from resonance.search.text import unable
from resonance.vault.ingest import ingest
from resonance.vault.settings import load_settings
from resonance.vault.tombstones import undo
from support import FIXTURES, Child, Window, contents, dump, integrity

GRAPH = ("nodes", "edges", "spaces")


class CountingEmbedder:
    """Eight floats that depend on every byte of a text; counts the texts it is asked for."""

    def __init__(self, name: str = "by-hash", fail_after: int | None = None) -> None:
        self.space = Space(name, 8)
        self.texts = 0
        self.fail_after = fail_after

    def embed(self, texts: Sequence[str], /) -> Any:
        self.texts += len(texts)
        if self.fail_after is not None and self.texts > self.fail_after:
            raise EmbedderError("out of words")
        rows = [hashlib.sha256(text.encode()).digest()[:8] for text in texts]
        return np.array([[byte - 127.5 for byte in row] for row in rows], dtype=np.float32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "vault"
    root.mkdir()
    for number in range(12):
        text = f"# Note {number}\n\nTo [[note {number + 1}]], #tag-{number % 3}\n"
        (root / f"note {number}.md").write_text(text)
    return root


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "databases"
    folder.mkdir()
    return folder / "vault.db"


def run(path: Path, root: Path, **options: Any) -> Regeneration:
    options.setdefault("embedder", CountingEmbedder())
    return regenerate(path, load_settings(root, database=path, model="none"), **options)


def listing(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


def graph(path: Path) -> dict[str, Any]:
    """All that follows from the vault, without row numbers and times of files."""
    with ResonanceDB(path, readonly=True) as db:
        return dump(db, GRAPH) | {
            "links": db.links(),
            "files": db.query("SELECT path, node, hash, body_hash FROM files ORDER BY path"),
        }


def test_a_missing_database_is_made_and_an_existing_one_is_made_anew(path: Path, root: Path) -> None:
    first = run(path, root)
    assert (first.files, first.indexed, first.nodes, first.vectors) == (12, 12, 12, 12)
    assert listing(path) == ["vault.db", "vault.db.lock"]
    made = graph(path)
    second = run(path, root)
    assert (second.indexed, second.backup, second.notes) == (12, None, ())
    assert graph(path) == made
    path.unlink()
    run(path, root)
    assert graph(path) == made
    assert integrity(path) == [("ok",)]


def test_it_gives_what_an_ingest_gives(path: Path, root: Path) -> None:
    run(path, root)
    other = path.with_name("other.db")
    with ResonanceDB(other) as db:
        ingest(db, load_settings(root, database=other, model="none"), embedder=CountingEmbedder())
    assert graph(path) == graph(other)


def test_nothing_is_embedded_twice(path: Path, root: Path) -> None:
    run(path, root)
    (root / "note 3.md").write_text("# Note 3\n\nOther words\n")
    again = CountingEmbedder()
    run(path, root, embedder=again)
    assert again.texts == 1
    other_model = CountingEmbedder("another")
    run(path, root, embedder=other_model)
    assert other_model.texts == 12


def test_the_audit_trail_and_the_state_of_enrichment_are_carried_over(path: Path, root: Path) -> None:
    run(path, root)
    with ResonanceDB(path) as db:
        db.insert_node({"id": "note-1", "layer": "changed"})
        db.set_ember_state("note 1.md", confidence=0.5)
        with db.transaction() as writer:
            writer.execute("UPDATE sqlite_sequence SET seq = 5000 WHERE name = 'history'")
        before = db.get_history()
    run(path, root)
    with ResonanceDB(path) as db:
        after = db.get_history()
        assert after[1:] == before
        assert (after[0].action, after[0].id) == ("regenerate", 5001)
        state = db.get_ember_state("note 1.md")
        assert state is not None
        assert state.confidence == 0.5


@pytest.mark.parametrize(("model", "vectors"), [("by-hash", 1), ("another", 0)])
def test_what_was_removed_can_still_be_brought_back(path: Path, root: Path, model: str, vectors: int) -> None:
    run(path, root)
    (root / "note 11.md").unlink()
    with ResonanceDB(path) as db:
        ingest(db, load_settings(root, database=path), embedder=CountingEmbedder())
    run(path, root, embedder=CountingEmbedder(model))
    with ResonanceDB(path) as db:
        assert db.get_node("note-11") is None
        undone = undo(db, load_settings(root, database=path))
        assert (undone.restored, undone.vectors) == (["note 11.md"], vectors)
        node = db.get_node("note-11")
        assert node is not None
        assert (node.embedding is not None) == bool(vectors)
    assert integrity(path) == [("ok",)]


def test_history_of_writes_made_meanwhile_is_not_lost(path: Path, root: Path) -> None:
    run(path, root)

    def meanwhile(what: str, done: int, total: int) -> None:
        if what == "link":
            with ResonanceDB(path) as db:
                db.set_ember_state("note 2.md", confidence=0.25)

    run(path, root, progress=meanwhile)
    with ResonanceDB(path) as db:
        assert db.get_ember_state("note 2.md") is not None


def test_dates_and_summaries_of_unchanged_notes_are_carried_over(path: Path, root: Path) -> None:
    run(path, root)
    with ResonanceDB(path) as db:
        db.update_node_date("note-1", "2026-01-02")
        db.insert_node({"id": "note-2", "summary": "said by somebody"})
        db.insert_node({"id": "note-3", "summary": "said of the old text"})
    (root / "note 3.md").write_text("# Note 3\n\nNew text\n")
    run(path, root)
    with ResonanceDB(path) as db:
        one, two, three = (db.get_node(f"note-{number}") for number in (1, 2, 3))
        assert one is not None
        assert two is not None
        assert three is not None
        assert (one.date, two.summary, three.summary) == ("2026-01-02", "said by somebody", None)


def test_what_no_file_stands_for_is_saved_first_and_named(path: Path, root: Path) -> None:
    run(path, root)
    with ResonanceDB(path) as db:
        db.insert_nodes(id=["made", "by-hand"])
        db.insert_edges([Edge("made", "by-hand"), Edge("note-1", "note-5", "SEEN_WITH")])
    old = dump(path)
    report = run(path, root)
    assert report.backup is not None
    assert "2 nodes that no file stands for, 2 edges" in report.notes[0]
    assert report.backup in report.notes[0]
    assert dump(Path(report.backup)) == old
    with ResonanceDB(path) as db:
        assert db.get_node("made") is None
        assert db.get_edges("note-1", type="SEEN_WITH") == []
    assert run(path, root).backup is None


def test_a_page_that_nobody_mentions_any_more_is_nothing_that_was_made_by_hand(
    path: Path, root: Path
) -> None:
    (root / "amalfa.settings.json").write_text('{"dialect": "logseq"}')
    (root / "note 0.md").write_text("[[Nobody]] #nothing")
    run(path, root)
    with ResonanceDB(path) as db:
        assert {"[[nobody]]", "[[nothing]]"} < {node.id for node in db.get_nodes(type="page")}
    (root / "note 0.md").write_text("")
    report = run(path, root)
    assert (report.backup, report.notes) == (None, ())
    with ResonanceDB(path) as db:
        assert db.get_node("[[nobody]]") is None


def test_readers_keep_what_they_read(path: Path, root: Path) -> None:
    run(path, root)
    with ResonanceDB(path) as reader, reader.snapshot():
        assert len(reader.get_nodes(type="document")) == 12
        (root / "note 11.md").unlink()
        run(path, root)
        assert len(reader.get_nodes(type="document")) == 12
        assert reader.get_node("note-11") is not None
    with ResonanceDB(path) as reader:
        (root / "note 10.md").unlink()
        run(path, root)
        assert len(reader.get_nodes(type="document")) == 10, "an open database sees the new one"
        reader.insert_node({"id": "new"})


def test_an_adopted_database_keeps_its_page_size(path: Path, root: Path) -> None:
    shutil.copyfile(FIXTURES / "amalfa-made.db", path)
    report = run(path, root)
    with Connection(path, create=False) as connection:
        assert connection.execute("PRAGMA page_size") == [(4096,)]
    assert report.backup is not None
    assert "24 nodes that no file stands for" in report.notes[0]
    with Connection(report.backup, create=False) as saved:
        assert saved.execute("SELECT count(*) FROM nodes") == [(24,)]
    assert graph(path)["files"][0][0] == "note 0.md"
    assert integrity(path) == [("ok",)]


# --- what must not happen -------------------------------------------------------------------------


def test_an_empty_root_does_not_empty_the_database(path: Path, root: Path) -> None:
    run(path, root)
    made = graph(path)
    for note in root.iterdir():
        note.unlink()
    with pytest.raises(BrakeError, match="no notes were found"):
        run(path, root)
    assert graph(path) == made
    assert listing(path) == ["vault.db", "vault.db.lock"]
    report = run(path, root, yes=True)
    assert (report.nodes, report.removed) == (0, 12)


def test_a_limit_that_is_named_holds_for_few_notes_too(path: Path, root: Path) -> None:
    run(path, root)
    for number in range(2):
        (root / f"note {number}.md").unlink()
    strict = load_settings(root, database=path, model="none", max_loss=10)
    with pytest.raises(BrakeError, match="2 of 12 notes"):
        regenerate(path, strict)
    assert run(path, root).removed == 2


def test_a_mass_disappearance_stops_it_but_a_move_does_not(path: Path, root: Path) -> None:
    run(path, root)
    (root / "moved").mkdir()
    for number in range(12):
        (root / f"note {number}.md").rename(root / "moved" / f"note {number}.md")
    report = run(path, root)
    assert (report.nodes, report.removed) == (12, 0)
    for number in range(11):
        (root / "moved" / f"note {number}.md").unlink()
    with pytest.raises(BrakeError, match="11 of 12 notes") as caught:
        run(path, root)
    assert len(caught.value.paths) == 11
    report = run(path, root, yes=True)
    assert (report.nodes, report.removed) == (1, 11)


def test_another_vault_does_not_replace_this_one_by_mistake(path: Path, root: Path, tmp_path: Path) -> None:
    run(path, root)
    other = tmp_path / "other"
    other.mkdir()
    for number in range(11):
        shutil.copy(root / f"note {number}.md", other)
    with pytest.raises(BrakeError, match="was made from"):
        run(path, other)
    shutil.copy(root / "note 11.md", other)
    assert run(path, other).nodes == 12, "the same vault in another place"


def test_a_scan_that_could_not_see_everything_loses_nothing(
    path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(path, root)
    made = graph(path)
    (root / "note 5.md").unlink()
    real = module.ingest

    def incomplete(*arguments: Any, **options: Any) -> Any:
        report = real(*arguments, **options)
        report.complete = False
        return report

    monkeypatch.setattr(module, "ingest", incomplete)
    with pytest.raises(BrakeError, match="could not be read"):
        run(path, root)
    assert graph(path) == made


def test_a_new_database_that_does_not_pass_its_check_is_not_put_in_place(
    path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(path, root)
    before = contents(path.parent)
    real = module.ingest

    def forgetful(db: ResonanceDB, *arguments: Any, **options: Any) -> Any:
        report = real(db, *arguments, **options)
        with db.transaction() as writer:
            writer.execute("DELETE FROM files WHERE path = 'note 4.md'")
        return report

    monkeypatch.setattr(module, "ingest", forgetful)
    with pytest.raises(RegenerateError, match="11 of 12 notes"):
        run(path, root)
    assert contents(path.parent) == before


def test_nothing_is_put_in_place_before_the_check_has_ended(
    path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on beside the digest; also where that fails first, its verdict is the one to hear."""
    run(path, root)
    before = contents(path.parent)
    digested = threading.Event()

    def digest_of(_: Connection) -> Any:
        digested.set()
        raise ZeroDivisionError

    def inspect(_: Inspection) -> tuple[str, int]:
        assert digested.wait(60)
        return "ok", 1

    monkeypatch.setattr(module, "digest_of", digest_of)
    monkeypatch.setattr(Inspection, "_inspect", inspect)
    with pytest.raises(RegenerateError, match="not sound"):
        run(path, root)
    assert contents(path.parent) == before


def test_what_sped_up_the_filling_is_undone(path: Path, root: Path) -> None:
    indexes = "SELECT name, sql FROM sqlite_schema WHERE type = 'index' ORDER BY name"
    usual = [("automerge", 4), ("hashsize", 1 << 20)]
    with ResonanceDB(":memory:") as db:
        made = db.query(indexes)
        ingest(db, load_settings(root, database=path, model="none"))
        assert db.query(indexes) == made
    report = run(path, root)
    with ResonanceDB(path) as db:
        assert db.query(indexes) == made
        if unable() is None:
            told = db.query("SELECT k, v FROM text_index_config WHERE k <> 'version' ORDER BY k")
            assert told == usual
            assert [hit.path for hit in db.search_text("Note 7", k=1)] == ["note 7.md"]
        assert db.digest().root == report.digest


def test_a_filling_that_fails_leaves_the_usual_behind(root: Path, path: Path) -> None:
    indexes = "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'links'"
    settings = load_settings(root, database=path, model="none")

    def stop(at: str) -> Callable[[str, int, int], None]:
        def progress(what: str, done: int, total: int) -> None:
            if what == at and total:
                raise ZeroDivisionError

        return progress

    for what in ("read", "link"):
        with ResonanceDB(":memory:") as db:
            made = db.query(indexes)
            with pytest.raises(ZeroDivisionError):
                ingest(db, settings, progress=stop(what))
            assert db.query(indexes) == made
            if unable() is None:
                assert db.query("SELECT v FROM text_index_config WHERE k = 'automerge'") == [(4,)]
            assert ingest(db, settings).files == 12
            assert len(db.links()) == 24


def test_an_embedder_that_fails_changes_nothing(path: Path, root: Path) -> None:
    run(path, root)
    before = contents(path.parent)
    with pytest.raises(EmbedderError, match="out of words"):
        run(path, root, embedder=CountingEmbedder("another", fail_after=0))
    assert contents(path.parent) == before


def test_a_failed_first_run_leaves_no_database(path: Path, root: Path) -> None:
    with pytest.raises(EmbedderError):
        run(path, root, embedder=CountingEmbedder(fail_after=0))
    assert listing(path) == ["vault.db.lock"]


def test_a_model_that_is_not_here_does_not_cost_the_vectors(
    path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(path, root)
    (root / "note 3.md").write_text("# Note 3\n\nOther words\n")
    settings = load_settings(root, database=path)
    monkeypatch.setattr("resonance.vault.vectors.choose_embedder", lambda *a, **k: (None, "it is not here"))
    report = regenerate(path, settings)
    assert (report.vectors, report.embedding) == (11, Space("by-hash", 8))
    assert report.notes == ("the vectors of 11 notes that have not changed were kept",)
    # Switched off is another matter.
    assert regenerate(path, load_settings(root, database=path, model="none")).vectors == 0


def test_vectors_that_are_not_sound_are_made_anew(path: Path, root: Path) -> None:
    run(path, root)
    made = graph(path)
    with ResonanceDB(path) as db, db.transaction() as writer:
        writer.execute("UPDATE nodes SET embedding = zeroblob(32) WHERE id = 'note-1'")
    again = CountingEmbedder()
    report = run(path, root, embedder=again)
    assert again.texts == 12
    assert "note-1" in report.notes[0]
    assert graph(path) == made


def test_a_vector_that_is_not_that_of_its_text_is_only_made_anew_when_asked(path: Path, root: Path) -> None:
    run(path, root)
    made = graph(path)
    with ResonanceDB(path) as db, db.transaction() as writer:
        writer.execute(
            "UPDATE nodes SET embedding = (SELECT embedding FROM nodes WHERE id = 'note-2') "
            "WHERE id = 'note-1'"
        )
    run(path, root)
    assert graph(path) != made, "the negative control: equal texts keep their vectors"
    again = CountingEmbedder()
    run(path, root, embedder=again, reembed=True)
    assert (again.texts, graph(path)) == (12, made)
    with pytest.raises(EmbedderError, match="nothing was changed"):
        run(path, root, embedder=None, reembed=True)
    assert graph(path) == made


def test_another_programs_database_is_left_alone(path: Path, root: Path) -> None:
    with Connection(path) as connection:
        connection.execute("CREATE TABLE orders (x)")
    before = contents(path.parent)
    with pytest.raises(NotADatabaseError, match="another program"):
        run(path, root)
    assert contents(path.parent) == before


def test_a_damaged_database_is_left_alone_and_the_way_out_is_named(path: Path, root: Path) -> None:
    run(path, root)
    with Connection(path, create=False) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'files'")[0][0]
        size = connection.execute("PRAGMA page_size")[0][0]
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * 100)
    damaged = path.read_bytes()
    with pytest.raises(CorruptDatabaseError, match=r"Move vault\.db, vault\.db-wal and vault\.db-shm away"):
        run(path, root)
    assert path.read_bytes() == damaged


# --- runs that are cut off ------------------------------------------------------------------------


def test_what_a_killed_run_left_is_swept_and_what_a_running_one_needs_is_not(path: Path, root: Path) -> None:
    dead = path.parent / f"{PREFIX}vault.db-abcdefgh"
    alive = path.parent / f"{PREFIX}vault.db-ijklmnop"
    others = path.parent / f"{PREFIX}other.db-abcdefgh"
    for folder in (dead, alive, others):
        folder.mkdir()
        (folder / "fresh.db").write_text("half")
    held = os.open(alive / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    run(path, root)
    assert (dead.exists(), alive.exists(), others.exists()) == (False, True, True)
    os.close(held)
    run(path, root)
    assert (alive.exists(), others.exists()) == (False, True)


KILLED = """
import os, signal, sys
from resonance.care import regenerate as module
from resonance.vault.settings import load_settings
path, root, when = sys.argv[1:]
calls = 0
def progress(what, done, total):
    global calls
    calls += 1
    if when == what or when == str(calls):
        os.kill(os.getpid(), signal.SIGKILL)
def killing(name):
    real = getattr(module, name)
    def killer(*arguments):
        real(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(module, name, killer)
if when.startswith("_"):
    killing(when)
if when == "copied":
    from resonance.session import Session
    # Whichever comes first: with and without others who have it open.
    Session.checkpoint = lambda self, *, truncate: os.kill(os.getpid(), signal.SIGKILL)
    Session._return_to_wal = lambda self: os.kill(os.getpid(), signal.SIGKILL)
module.regenerate(path, load_settings(root, database=path, model="none"), progress=progress)
"""


@pytest.mark.parametrize(
    ("when", "new"),
    [
        ("1", False),
        ("read", False),
        ("link", False),
        ("_check", False),
        ("replace", False),
        ("_carry_over", False),
        ("copied", True),
    ],
)
def test_a_killed_run_leaves_the_old_database_or_the_new_one(
    path: Path, root: Path, when: str, new: bool
) -> None:
    run(path, root, embedder=None)
    old = graph(path)
    (root / "note 3.md").write_text("# Note 3\n\nOther words\n")
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", KILLED, path, root, when], timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert [name for name in listing(path) if name.startswith(PREFIX)], "it was cut off half-way"
    after = graph(path)
    assert integrity(path) == [("ok",)]
    assert (after != old) is new
    run(path, root, embedder=None)
    assert listing(path) == ["vault.db", "vault.db.lock"]
    other = path.with_name("other.db")
    run(other, root, embedder=None)
    assert graph(path) == graph(other)
    if new:
        assert after == graph(other)


def kill_and_check(path: Path, root: Path, rounds: int, seed: int) -> int:
    """Killed at random while others read: they see the one vault or the other, and never a mixture."""
    texts = ("# Note 3\n\nTo [[note 4]]\n", "# Note 3\n\nOther words, [[nowhere]]\n")
    digests = []
    for text in texts:
        (root / "note 3.md").write_text(text)
        digests.append(run(path, root).digest)
    assert digests[0] != digests[1]
    window = Window(0.2, seed)
    stop, seen = threading.Event(), set()

    def read() -> None:
        while not stop.is_set():
            with ResonanceDB(path, readonly=True) as db:
                for _ in range(5):
                    seen.add(db.digest().root)

    reader = threading.Thread(target=read)
    reader.start()
    killed = turn = 0
    try:
        while killed < rounds:
            turn += 1
            assert turn < 10 * rounds + 20, "nothing is killed"
            (root / "note 3.md").write_text(texts[turn % 2])
            child = Child(run, path, root)
            window.wait()
            hit = child.kill()
            window.learn(hit)
            killed += hit
            with ResonanceDB(path) as db:
                assert db.digest().root in digests
    finally:
        stop.set()
        reader.join()
    assert seen <= set(digests)
    assert integrity(path) == [("ok",)]
    (root / "note 3.md").write_text(texts[0])
    assert run(path, root).digest == digests[0]
    assert listing(path) == ["vault.db", "vault.db.lock"]
    return killed


def test_killed_at_random_under_readers(path: Path, root: Path) -> None:
    kill_and_check(path, root, 10, seed=3)


@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_killed_two_hundred_times_under_readers(path: Path, root: Path) -> None:
    print(f"{kill_and_check(path, root, 200, seed=4)} kills done, 0 bad, seed 4")


def test_a_database_in_a_place_whose_name_is_no_text(root: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(root) + b"/\xff"))
    folder.mkdir()
    settings = load_settings(root, model="none")
    first = regenerate(folder / "x.db", settings)
    with ResonanceDB(folder / "x.db") as db:
        db.insert_node({"id": "stray"})
        with db.rebuild(overwrite=True) as fresh:
            fresh.insert_node({"id": "kept"})
    again = regenerate(folder / "x.db", settings)
    assert (again.nodes, again.digest) == (first.nodes, first.digest)
    assert again.backup is not None
    with ResonanceDB(folder / "x.db") as db:
        assert ingest(db, settings).unchanged == first.files
        assert db.content("note-1").state == "fresh"


def test_a_vault_that_cannot_be_written_to_wants_its_database_elsewhere(
    root: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    settings = load_settings(root, model="none")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", refuse)
        with pytest.raises(CannotOpenError, match="--database"):
            regenerate(settings.database, settings)
    assert regenerate(path, settings).nodes == 12
    assert not settings.database.parent.exists()
