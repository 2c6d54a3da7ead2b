"""The health check: each of its findings, made to appear by a real fault."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from resonance import DatabaseFactory, ResonanceDB, factory, migrate
from resonance._core import Connection
from resonance.care import health
from resonance.lock import WriteGate
from resonance.model import Finding, Text

DIMS = 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sound database of six nodes with vectors, four of them notes with links."""
    path = tmp_path / "vault.db"
    vectors = np.random.default_rng(7).standard_normal((6, DIMS)).astype(np.float32)
    names = ["a", "b", "c", "d", "e", "f"]
    with ResonanceDB(path) as db:
        db.insert_nodes(id=names, title=names, embedding=vectors, meta=[{"n": 1}] * 6)
        db.insert_edges(source=["a", "b"], target=["b", "c"], type="CITES", context_source=["a.md", "b.md"])
        with db.transaction() as writer:
            for name in names[:4]:
                writer.execute("INSERT INTO files VALUES (?, ?, 1, 1, 1, 'h', 'b')", (f"{name}.md", name))
            for source, target in (("a", "b"), ("b", "c")):
                writer.execute(
                    "INSERT INTO links (source, kind, type, raw, name, state, target) "
                    "VALUES (?, 'wikilink', 'CITES', ?, ?, 'resolved', ?)",
                    (source, f"[[{target}]]", target, target),
                )
            writer.execute("INSERT INTO properties VALUES ('vault.root', ?)", (str(tmp_path),))
        db.insert_texts(Text(name, f"words of {name}") for name in names[:4])
    return path


def check(path: Path | str, *, deep: bool = True) -> dict[str, list[Finding]]:
    findings: dict[str, list[Finding]] = {}
    for finding in DatabaseFactory.perform_health_check(path, deep=deep):
        findings.setdefault(finding.check, []).append(finding)
    return findings


def worst(findings: dict[str, list[Finding]], check: str) -> Finding:
    order = ("ok", "info", "warning", "error")
    return max(findings[check], key=lambda finding: order.index(finding.level))


def damage(path: Path, sql: str, *parameters: object) -> None:
    """Write what no rule of ours would let pass."""
    with Connection(str(path), create=False) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.checkpoint_on_close(True)
        connection.execute(sql, parameters)
        assert connection.changes == 1


def digests(folder: Path) -> dict[str, str]:
    return {
        entry.name: hashlib.sha256(entry.read_bytes()).hexdigest()
        for entry in folder.iterdir()
        if entry.is_file() and not entry.name.endswith(".lock")
    }


def test_a_sound_database_has_no_findings_and_is_left_as_it_was(path: Path) -> None:
    before = digests(path.parent)
    report = DatabaseFactory.perform_health_check(path)
    assert report.ok
    # On the system's engine the doctor may warn of its age, and rightly.
    assert [f for f in report if f.level in ("warning", "error") and f.check != "engine"] == []
    assert {f.check for f in report} >= {
        "engine", "other-sqlite", "file", "schema", "journal", "integrity", "references", "settings",
        "probe", "ids", "metadata", "vectors", "self-search", "coverage", "links", "vault", "history",
    }  # fmt: skip
    assert digests(path.parent) == before


def test_quick_check_is_run_where_deep_is_not_asked_for(path: Path) -> None:
    assert "quick_check" in worst(check(path, deep=False), "integrity").message
    assert "integrity_check" in worst(check(path), "integrity").message


# --- files that are not one of ours ---------------------------------------------------------------


def make_foreign(path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA journal_mode=WAL');"
            "c.execute('CREATE TABLE orders (x)'); c.execute('INSERT INTO orders VALUES (1)'); c.commit()",
            path,
        ],
        check=True,
    )


NOT_OURS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "missing": (lambda path: None, "file", "does not exist"),
    "folder": (lambda path: path.mkdir(), "file", "not a regular file"),
    "fifo": (lambda path: os.mkfifo(path), "file", "not a regular file"),
    "empty": (lambda path: path.touch(), "file", "is empty"),
    "text": (lambda path: path.write_text("no database " * 100), "schema", "not a database"),
    "foreign": (make_foreign, "schema", "another program"),
}


@pytest.mark.parametrize("kind", NOT_OURS)
def test_a_file_that_is_not_ours_is_named_and_not_touched(tmp_path: Path, kind: str) -> None:
    make, name, words = NOT_OURS[kind]
    path = tmp_path / "x.db"
    make(path)
    before = digests(tmp_path) if kind != "fifo" else {}
    listed = sorted(entry.name for entry in tmp_path.iterdir())
    found = check(path)
    assert worst(found, name).level == "error"
    assert words in worst(found, name).message
    assert "probe" not in found
    assert "vectors" not in found
    assert (digests(tmp_path) if kind != "fifo" else {}) == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == listed


def test_a_database_in_memory_cannot_be_looked_into() -> None:
    assert worst(check(":memory:"), "file").level == "error"


def test_a_file_of_an_older_schema_is_not_migrated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = migrate.Migration(len(migrate.migrations()), "9999_later", "SELECT 1", "0" * 64)
    every = (*migrate.migrations(), later)
    before = digests(path.parent)
    monkeypatch.setattr(migrate, "migrations", lambda: every)
    found = check(path)
    assert worst(found, "schema").level == "warning"
    assert "9999_later" in worst(found, "schema").message
    assert "probe" not in found
    assert digests(path.parent) == before


def test_a_file_of_a_newer_schema_is_named(path: Path) -> None:
    with Connection(str(path), create=False) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert "version 99" in worst(check(path), "schema").message


def test_a_migration_that_has_changed_since_is_named(path: Path) -> None:
    damage(path, "UPDATE resonance_migrations SET sha256 = 'x' WHERE number = 2")
    found = worst(check(path), "schema")
    assert found.level == "error"
    assert "0002_summary" in found.message


def test_header_and_record_of_migrations_that_disagree_are_named(path: Path) -> None:
    with Connection(str(path), create=False) as connection:
        connection.execute("PRAGMA user_version = 2")
    assert worst(check(path), "schema").level == "error"


# --- damage ---------------------------------------------------------------------------------------


def test_a_truncated_file_is_damaged(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)
    report = DatabaseFactory.perform_health_check(path)
    assert not report.ok
    assert any("damaged" in f.message or "malformed" in f.message for f in report)


def test_an_overwritten_page_is_damaged(path: Path) -> None:
    with Connection(str(path), create=False) as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'edges'")[0][0]
        size = connection.execute("PRAGMA page_size")[0][0]
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * 64)
    found = worst(check(path), "integrity")
    assert found.level == "error"


@pytest.mark.parametrize("dropped", ["TRIGGER node_updated", "INDEX idx_edges_target"])
def test_what_somebody_dropped(path: Path, dropped: str) -> None:
    with Connection(str(path), create=False) as connection:
        connection.execute(f"DROP {dropped}")
    finding = worst(check(path), "objects")
    assert finding.level == "warning"
    assert dropped.split()[1] in finding.message


def test_an_index_out_of_step_is_found_by_the_deep_check_only(path: Path) -> None:
    with Connection(str(path), create=False) as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'idx_nodes_type'")[0][0]
        size = connection.execute("PRAGMA page_size")[0][0]
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.checkpoint_on_close(True)
        connection.execute("UPDATE nodes SET type = 'typed' WHERE id = 'a'")
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        page = file.read(size)
        assert page.count(b"typed") == 1
        file.seek((root - 1) * size)
        file.write(page.replace(b"typed", b"typEd"))
    assert worst(check(path, deep=True), "integrity").level == "error"
    assert worst(check(path, deep=False), "integrity").level == "ok"


def test_a_dangling_reference_is_found(path: Path) -> None:
    damage(path, "INSERT INTO edges (source, target, type) VALUES ('a', 'nowhere', 'X')")
    found = worst(check(path), "references")
    assert found.level == "error"
    assert "edges -> nodes" in found.message


def test_another_journal_mode_is_found(path: Path) -> None:
    with Connection(str(path), create=False) as connection:
        assert connection.execute("PRAGMA journal_mode = DELETE") == [("delete",)]
    assert worst(check(path), "journal").level == "warning"
    assert worst(check(path), "journal").level == "ok", "opening the file has switched it back"


def test_a_setting_that_does_not_take_is_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (factory.Pragma("synchronous", "NORMAL", 7, "nothing"),)
    monkeypatch.setattr(factory, "_AFTER_WAL", broken)
    assert worst(check(path), "settings").level == "error"


# --- the probe ------------------------------------------------------------------------------------


def test_the_probe_says_when_somebody_else_is_writing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PATIENCE", 0.05)
    gate = WriteGate(str(path))
    with gate.held(1):
        found = worst(check(path), "probe")
    gate.close()
    assert found.level == "warning"
    assert str(os.getpid()) in found.message


def test_the_probe_finds_that_nothing_can_be_written(path: Path) -> None:
    with Connection(str(path), create=False) as connection:
        connection.execute(
            "CREATE TRIGGER no BEFORE INSERT ON nodes BEGIN SELECT raise(ABORT, 'not today'); END"
        )
    found = worst(check(path), "probe")
    assert found.level == "error"
    assert "not today" in found.message


def test_the_probe_finds_that_what_is_written_is_changed(path: Path) -> None:
    with Connection(str(path), create=False) as connection:
        connection.execute(
            "CREATE TRIGGER meddle AFTER INSERT ON nodes "
            "BEGIN UPDATE nodes SET title = 'other' WHERE id = new.id; END"
        )
    assert "read back as" in worst(check(path), "probe").message


def test_the_probe_finds_edges_to_nowhere_taken(path: Path) -> None:
    with Connection(str(path), create=False) as connection:
        connection.execute("CREATE TABLE copy AS SELECT * FROM edges")
        connection.execute("DROP TABLE edges")
        connection.execute("ALTER TABLE copy RENAME TO edges")
    assert any("was taken" in finding.message for finding in check(path)["probe"])


# --- what is stored -------------------------------------------------------------------------------

UNIT = np.eye(DIMS, dtype=np.float32)[0]

STORED: dict[str, tuple[str, tuple[object, ...], str, str, str]] = {
    "empty id": ("UPDATE nodes SET id = '' WHERE id = 'f'", (), "ids", "error", "1 id "),
    "id with NUL": ("UPDATE nodes SET id = 'f' || char(0) WHERE id = 'f'", (), "ids", "error", "1 id "),
    "id that is no UTF-8": (
        "UPDATE nodes SET id = CAST(x'66ff' AS TEXT) WHERE id = 'f'", (), "ids", "error", "1 id ",
    ),
    "metadata that is no JSON": (
        "UPDATE nodes SET meta = '{\"a\":' WHERE id = 'f'", (), "metadata", "error", "f",
    ),
    "metadata that is a list": ("UPDATE nodes SET meta = '[]' WHERE id = 'f'", (), "metadata", "error", "f"),
    "vector too narrow": (
        "UPDATE nodes SET embedding = ? WHERE id = 'f'", (UNIT[:4].tobytes(),), "vectors", "error", "wide",
    ),
    "vector cut in a number": (
        "UPDATE nodes SET embedding = ? WHERE id = 'f'", (b"123",), "vectors", "error", "wide",
    ),
    "vector too long": (
        "UPDATE nodes SET embedding = ? WHERE id = 'f'", ((UNIT * 1.01).tobytes(),), "vectors", "error",
        "unit length",
    ),
    "vector of NaN": (
        "UPDATE nodes SET embedding = ? WHERE id = 'f'", ((UNIT * np.nan).tobytes(),), "vectors", "error",
        "NaN",
    ),
    "vector of zeros": (
        "UPDATE nodes SET embedding = zeroblob(32) WHERE id = 'f'", (), "vectors", "error", "unit length",
    ),
    "vectors without a space": ("UPDATE spaces SET active = 0", (), "vectors", "error", "no space"),
    "equal vectors": (
        "UPDATE nodes SET embedding = (SELECT embedding FROM nodes WHERE id = 'a') WHERE id = 'f'", (),
        "duplicates", "info", "1 vector equal",
    ),
    "a vector that beats all others": (
        "UPDATE nodes SET embedding = ? WHERE id = 'f'", ((UNIT * 1e6).tobytes(),), "self-search", "error",
        "'f': its embedding is not of unit norm",
    ),
    "a note without a vector": (
        "UPDATE nodes SET embedding = NULL WHERE id = 'a'", (), "coverage", "info", "1 of 4",
    ),
    "a resolved link to nowhere": (
        "UPDATE links SET target = 'nowhere' WHERE source = 'a'", (), "links", "error", "that are not there",
    ),
    "a resolved link without an edge": (
        "DELETE FROM edges WHERE source = 'a'", (), "links", "error", "without an edge",
    ),
    "an edge left over": (
        "DELETE FROM links WHERE source = 'a'", (), "links", "error", "without a link",
    ),
    "a path that leads out": (
        "UPDATE files SET path = 'x/../../a.md' WHERE node = 'a'", (), "vault", "error", "leading out",
    ),
    "an absolute path": (
        "UPDATE files SET path = '/a.md' WHERE node = 'a'", (), "vault", "error", "leading out",
    ),
    "a root that is gone": (
        "UPDATE properties SET value = '/nowhere/at/all' WHERE key = 'vault.root'", (), "vault", "warning",
        "not there",
    ),
    "history with vectors in it": (
        "INSERT INTO history (entity_type, entity_id, action, new_value) "
        "VALUES ('node', 'a', 'insert', '{\"embedding\":{\"0\":0.1}}')", (), "history", "info", "vectors",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", STORED)
def test_what_is_wrong_with_the_rows_is_found(path: Path, fault: str) -> None:
    sql, parameters, name, level, words = STORED[fault]
    # Without the fault the finding is not there.
    assert all(words not in finding.message for finding in check(path).get(name, []))
    damage(path, sql, *parameters)
    found = check(path)
    assert [f.level for f in found[name] if words in f.message] == [level]


def test_a_long_history_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health.stored, "LARGE_HISTORY", 10)
    assert worst(check(path), "history").level == "warning"


def test_all_vectors_are_looked_at_not_only_the_first_batch(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health.stored, "BATCH", 2)
    assert worst(check(path), "vectors").message.startswith("6 by")
    damage(path, "UPDATE nodes SET embedding = zeroblob(32) WHERE id = 'f'")
    assert "cosines: f." in worst(check(path), "vectors").message


# --- around the file ------------------------------------------------------------------------------


def test_a_write_ahead_log_that_is_never_written_back_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "LARGE_WAL", 1000)
    assert "wal" not in check(path)
    with ResonanceDB(path) as db:
        db.insert_node({"id": "z"})
        assert worst(check(path), "wal").level == "warning"


def test_leftovers_and_backups_are_named(path: Path) -> None:
    assert "leftovers" not in check(path)
    for name in ("build", "backup", "export"):
        path.with_name(f".resonance-{name}-x").mkdir()
    path.with_name("vault.db.before-0003-20260101T000000Z.bak").write_bytes(b"x" * 2048)
    path.with_name("other.db.before-0003-20260101T000000Z.bak").touch()
    levels = {finding.level: finding.message for finding in check(path)["leftovers"]}
    assert all(f".resonance-{name}-x" in levels["warning"] for name in ("build", "backup", "export"))
    assert levels["info"].startswith("1 backup ")
    assert "2.0 KiB" in levels["info"]


@pytest.fixture
def other_sqlite(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    connection.execute("SELECT count(*) FROM nodes").fetchone()
    yield connection
    connection.close()


bundled_only = pytest.mark.skipif(
    not factory.engine()["bundled"], reason="the system's SQLite is one library for all"
)


@bundled_only
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_another_sqlite_library_on_the_same_file_is_found(
    path: Path, other_sqlite: sqlite3.Connection
) -> None:
    with ResonanceDB(path):
        found = worst(check(path), "other-sqlite")
    assert found.level == "error"
    assert "1 connection)" in found.message


@bundled_only
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_our_own_connections_are_not_taken_for_another_library(path: Path) -> None:
    with ResonanceDB(path) as db, ResonanceDB(path) as another:
        db.get_stats()
        assert worst(check(path), "other-sqlite").level == "ok"
        # SQLite keeps the descriptor of a closed connection while another one holds a lock.
        another.close()
        assert worst(check(path), "other-sqlite").level == "ok"


# --- the engine -----------------------------------------------------------------------------------


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "_warned", True)


@pytest.mark.usefixtures("warned")
def test_an_engine_with_known_bugs_is_a_warning(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "SAFE_SQLITE", 9_000_000)
    assert worst(check(path), "engine").level == "warning"


def test_an_engine_that_is_too_old_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "OLDEST_SQLITE", 9_000_000)
    found = check(path)
    assert worst(found, "engine").level == "error"


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({"options": ["THREADSAFE=0", "ENABLE_FTS5", "ENABLE_MATH_FUNCTIONS"]}, "error", "thread"),
        ({"options": []}, "info", "ENABLE_FTS5"),
        ({"header_version": 3_053_001}, "info", "3.53.1"),
    ],
)
def test_what_the_engine_was_built_with_is_looked_at(
    path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], level: str, words: str
) -> None:
    facts = health.engine()
    monkeypatch.setattr(health, "engine", lambda: {**facts, **change})
    assert any(f.level == level and words in f.message for f in check(path)["engine"])
