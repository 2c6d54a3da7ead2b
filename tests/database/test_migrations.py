"""From nothing, from each schema Amalfa had, and back: data comes through, and a failure changes nothing."""

import hashlib
import threading
import time
from pathlib import Path

import amalfa
import numpy as np
import pytest

import resonance
from resonance import DatabaseFactory, ResonanceDB, errors, migrate
from resonance._core import Connection
from resonance.model import Space
from support import Child, Window, contents, dump, integrity, together

ROOT = Path(__file__).parents[2]

RECORDS = [
    ("b548e4cd9d946d39dbb888e94692783cde7099691bf666af54e1b5af60b389fb", 1767981411501),
    ("7b30e2bf86221fedb429141261731220b2b2616a8bb09d3f5fbadccb55f41b16", 1768308220948),
    ("b6400314b4a5187a3a058a5d35c3cb6031eadd86fff72403accdc73495d69e78", 1769588665479),
]

NUMBERS = [(0,), (1,), (2,), (3,), (4,), (5,)]
"""Of all migrations there are."""


def rows(file, sql):
    with Connection(file, create=False) as connection:
        return connection.execute(sql)


# --- a new file -------------------------------------------------------------------------------------------


def test_a_new_file(path, tmp_path):
    with ResonanceDB(path) as db:
        assert db.migration_backup is None
    assert sorted(item.name for item in tmp_path.iterdir()) == ["graph.db", "graph.db.lock"]
    assert rows(path, "PRAGMA application_id") == [(0x52534E43,)]
    assert rows(path, "PRAGMA user_version") == [(len(migrate.migrations()),)]
    found = rows(path, "SELECT number, name, sha256 FROM resonance_migrations ORDER BY number")
    assert found == [(step.number, step.name, step.sha256) for step in migrate.migrations()]
    assert integrity(path) == [("ok",)]


def test_a_new_file_has_the_records_that_amalfa_looks_for(path):
    ResonanceDB(path).close()
    assert rows(path, "SELECT hash, created_at FROM __drizzle_migrations ORDER BY created_at") == RECORDS
    shape = "SELECT name, lower(type), pk FROM pragma_table_info('{}') ORDER BY name"
    theirs = amalfa.FIXTURES / "amalfa-made.db"
    copy = path.with_name("amalfa.db")
    copy.write_bytes(theirs.read_bytes())
    for table in amalfa.OLD_TABLES:
        assert rows(path, shape.format(table)) == rows(copy, shape.format(table)), table


def test_the_package_ships_the_files_of_the_repository():
    shipped = {step.name: step.sql for step in migrate.migrations()}
    kept = {file.stem: file.read_text() for file in (ROOT / "migrations").glob("*.sql")}
    assert shipped == kept
    for step in migrate.migrations():
        assert step.sha256 == hashlib.sha256(step.sql.encode()).hexdigest()
        assert step.name.startswith(f"{step.number:04d}_")


def test_looking_does_not_change_anything(path, tmp_path):
    amalfa.copy_fixture(path)
    before = contents(tmp_path)
    with Connection(path) as connection:
        assert migrate.identify(connection) is migrate.Kind.AMALFA
        assert migrate.applied(connection) == {0: None, 1: None, 2: None}
        assert [step.number for step in migrate.pending(connection)] == [3, 4, 5]
        connection.checkpoint_on_close(True)
    assert contents(tmp_path) == before


def test_opening_again_changes_nothing(path, tmp_path):
    ResonanceDB(path).close()
    before = contents(tmp_path)
    for _ in range(3):
        with ResonanceDB(path) as db:
            assert db.migration_backup is None
        DatabaseFactory.connect_to_resonance(path, readonly=True).close()
    assert contents(tmp_path) == before


# --- Amalfa's own file ------------------------------------------------------------------------------------


@pytest.fixture
def adopted(path):
    amalfa.copy_fixture(path)
    before = amalfa.read(path)
    with ResonanceDB(path) as db:
        yield db, before


def test_every_node_comes_through(adopted):
    db, before = adopted
    assert len(before["nodes"]) == 24
    assert amalfa.read(db.path)["nodes"] == before["nodes"], "every column and every byte of every vector"
    node = db.get_node("docs-note-5")
    assert (node.type, node.title, node.summary) == ("concept", "Note 5 \u2013 Überblick", "a summary")
    assert node.meta == {"source": "docs/note-5.md", "tags": ["a", "b/c"], "n": 5}
    assert db.get_node("docs-note-7").embedding is None
    assert len(db.get_nodes()) == 24


def test_every_vector_can_be_used(adopted):
    db, before = adopted
    stored = {row[0]: np.frombuffer(row[5], "<f4") for row in before["nodes"] if row[5] is not None}
    assert len(stored) == 23
    matrix = db.embeddings()
    assert set(matrix.ids) == set(stored)
    for node_id, vector in zip(matrix.ids, matrix.vectors, strict=True):
        assert np.array_equal(vector, stored[node_id])
    assert db.space == Space("unknown", 384)
    for node_id, vector in stored.items():
        assert db.search(vector, 1)[0].id == node_id


def test_every_edge_comes_through_and_the_one_that_dangles_is_a_link(adopted):
    db, before = adopted
    real = [edge for edge in before["edges"] if edge[1] != "ghost-node"]
    assert len(real) == 25
    assert amalfa.read(db.path)["edges"] == real
    assert [edge[3:] for edge in db.get_edges("docs-note-1", type="supports")] == [
        (0.75, 0.5, "docs/note-1.md")
    ]
    (link,) = db.links()
    assert (link.source, link.name, link.raw, link.type, link.state) == (
        "docs-note-3",
        "ghost-node",
        "ghost-node",
        "LINKS_TO",
        "unresolved",
    )
    assert link.target is None


def test_history_and_ember_state_come_through(adopted):
    db, before = adopted
    after = amalfa.read(db.path)
    assert len(before["history"]) == 49
    assert after["history"] == before["history"]
    assert after["ember_state"] == before["ember_state"]
    state = db.get_ember_state("docs/note-1.md")
    assert (state.last_analyzed, state.sidecar_created, state.confidence) == (
        "2026-01-02T03:04:05Z",
        True,
        0.9,
    )


def test_the_original_is_kept(adopted):
    db, before = adopted
    backup = Path(db.migration_backup)
    assert backup.parent == Path(db.path).parent
    assert amalfa.read(backup) == before
    assert rows(backup, "PRAGMA integrity_check") == [("ok",)]
    assert rows(backup, "PRAGMA application_id") == [(0,)]
    original = amalfa.FIXTURES / "amalfa-made.db"
    schema = "SELECT type, name, sql FROM sqlite_schema ORDER BY name"
    copy = backup.with_name("again.db")
    copy.write_bytes(original.read_bytes())
    assert rows(backup, schema) == rows(copy, schema)


def test_the_backup_can_be_adopted_in_its_turn(adopted):
    db, _ = adopted
    with ResonanceDB(db.migration_backup) as again:
        assert dump(again) == dump(db)


def test_amalfa_finds_its_records(adopted):
    db, _ = adopted
    assert db.query("SELECT hash, created_at FROM __drizzle_migrations ORDER BY created_at") == RECORDS
    names = [row[0] for row in db.query("SELECT name FROM resonance_migrations ORDER BY number")]
    assert names == [step.name for step in migrate.migrations()]


def test_what_is_adopted_is_sound(adopted):
    db, _ = adopted
    db.insert_edge("docs-note-3", "docs-note-4")
    db.delete_nodes(["docs-note-0"])
    db.close()
    assert integrity(db.path) == [("ok",)]


def test_adopted_once(adopted):
    db, _ = adopted
    db.close()
    with ResonanceDB(db.path) as again:
        assert again.migration_backup is None
    assert len(list(Path(db.path).parent.glob("*.bak"))) == 1


def test_read_only_openers_adopt_too(path):
    """There is no reading the old schema; the backup is made all the same."""
    amalfa.copy_fixture(path)
    with ResonanceDB(path, readonly=True) as db:
        assert len(db.get_nodes()) == 24
        assert Path(db.migration_backup).exists()
        with pytest.raises(errors.ReadOnlyError):
            db.insert_node({"id": "x"})


# --- each older schema ------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_older_files_of_amalfa(path, steps):
    amalfa.make(path, steps)
    before = amalfa.read(path)
    with ResonanceDB(path) as db:
        after = amalfa.read(path)
        assert after["nodes"] == before["nodes"]
        assert after["edges"] == [
            edge for edge in before["edges"] if "no" not in (edge[0][:3] + edge[1][:3]).replace("not", "")
        ]
        assert after["ember_state"] == before["ember_state"]
        assert after["history"][: len(before["history"])] == before["history"]
        assert [(link.source, link.name) for link in db.links(state="unresolved")] == [("note-1", "nobody")]
        dropped = db.get_history(action="dropped")
        assert [entry.old_value["target"] for entry in dropped] == ["note-2", "no one"]
        assert rows(db.migration_backup, "SELECT count(*) FROM nodes") == [(200,)]
        assert db.query("SELECT hash, created_at FROM __drizzle_migrations ORDER BY created_at") == RECORDS
    assert integrity(path) == [("ok",)]
    assert rows(path, "SELECT number FROM resonance_migrations ORDER BY number") == NUMBERS


def test_vectors_of_several_models(path):
    """The width that most have is the space; the others are named when they are read."""
    amalfa.make(path, 3)
    with Connection(path) as connection:
        connection.execute("UPDATE nodes SET embedding = zeroblob(40) WHERE id = 'note-1'")
    with ResonanceDB(path) as db:
        assert db.space == Space("unknown", 16)
        with pytest.raises(errors.CorruptRowError, match="note-1") as caught:
            db.embeddings()
        assert caught.value.node_id == "note-1"


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE nodes SET id = '' WHERE id = 'note-1'",
        "UPDATE nodes SET id = 'a' || char(0) WHERE id = 'note-1'",
        "UPDATE nodes SET embedding = x'010203' WHERE id = 'note-1'",
        "UPDATE nodes SET title = x'00ff' WHERE id = 'note-1'",
        "UPDATE edges SET confidence = 'very' WHERE rowid = 1",
        "CREATE TABLE links (a)",
    ],
)
def test_a_file_that_cannot_be_adopted_stays_as_it_is(path, spoil):
    amalfa.make(path, 3)
    with Connection(path) as connection:
        connection.execute(spoil)
        connection.checkpoint_on_close(True)
    before = amalfa.read(path), rows(path, "SELECT * FROM sqlite_schema")
    for _ in range(2):
        with pytest.raises(errors.MigrationError, match="0003_truth failed and was undone"):
            ResonanceDB(path)
    assert (amalfa.read(path), rows(path, "SELECT * FROM sqlite_schema")) == before
    assert rows(path, "PRAGMA application_id") == [(0,)]
    assert integrity(path) == [("ok",)]


# --- what goes wrong --------------------------------------------------------------------------------------


def test_a_migration_that_was_changed_afterwards(path, tmp_path):
    ResonanceDB(path).close()
    with Connection(path) as connection:
        connection.execute("UPDATE resonance_migrations SET sha256 = 'other' WHERE number = 3")
        connection.checkpoint_on_close(True)
    before = contents(tmp_path)
    for opener in (ResonanceDB, DatabaseFactory.connect_to_resonance):
        with pytest.raises(errors.MigrationError, match="0003_truth was applied with another content"):
            opener(path)
    assert contents(tmp_path) == before


@pytest.fixture
def one_more(monkeypatch):
    """Pretend that this version has one more migration."""
    known = migrate.migrations()

    def add(sql):
        step = migrate.Migration(len(known), f"{len(known):04d}_more", sql, "digest")
        monkeypatch.setattr(migrate, "migrations", lambda: (*known, step))

    return add


BROKEN = {
    "syntax": "CREATE TABLE more (a); INSERT INTO nodes (id) VALUES ('new'); CREATE TABEL",
    "constraint": "INSERT INTO nodes (id) VALUES ('new'); INSERT INTO nodes (id) VALUES ('')",
    "foreign key": "INSERT INTO edges (source, target, type) VALUES ('a', 'nowhere', 't')",
    "dropped": "DROP TABLE edges; DROP TABLE nowhere",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_migration_that_fails(path, one_more, name):
    with ResonanceDB(path) as db:
        db.insert_nodes(id=["a", "b"])
        db.insert_edge("a", "b")
    before = dump(path), rows(path, "SELECT * FROM sqlite_schema ORDER BY name")
    one_more(BROKEN[name])
    with pytest.raises(errors.MigrationError, match="0006_more"):
        ResonanceDB(path)
    assert (dump(path), rows(path, "SELECT * FROM sqlite_schema ORDER BY name")) == before
    assert rows(path, "PRAGMA user_version") == [(6,)]
    assert rows(path, "SELECT max(number) FROM resonance_migrations") == [(5,)]
    assert integrity(path) == [("ok",)]


def test_references_that_a_migration_breaks(path, one_more):
    with ResonanceDB(path) as db:
        db.insert_nodes(id=["a", "b"])
        db.insert_edge("a", "b")
    before = dump(path)
    one_more("PRAGMA defer_foreign_keys = ON; DELETE FROM nodes WHERE id = 'b'")
    with pytest.raises(errors.MigrationError, match="1 broken references"):
        ResonanceDB(path)
    assert dump(path) == before


def test_data_is_backed_up_before_it_is_migrated(path, one_more):
    with ResonanceDB(path) as db:
        db.insert_nodes(id=["a", "b"], title=["kept", None])
    before = dump(path)
    one_more("DELETE FROM nodes")
    with ResonanceDB(path) as db:
        assert db.get_nodes() == []
        backup = Path(db.migration_backup)
        assert "before-0006" in backup.name
    assert dump(backup) == before
    assert integrity(backup) == [("ok",)]


def test_two_backups_of_the_same_second(path, one_more):
    ResonanceDB(path).close()
    one_more("INSERT INTO nodes (id) VALUES ('')")
    for _ in range(3):
        with pytest.raises(errors.MigrationError):
            ResonanceDB(path)
    assert len(list(path.parent.glob("*.bak"))) == 3


def test_no_backup_no_migration(path, one_more, monkeypatch):
    ResonanceDB(path).close()
    before = dump(path)
    one_more("DELETE FROM nodes")

    def fail(connection, destination):
        raise errors.BackupError("no room")

    monkeypatch.setattr(migrate, "backup_connection", fail)
    with pytest.raises(errors.BackupError):
        ResonanceDB(path)
    assert dump(path) == before
    assert rows(path, "PRAGMA user_version") == [(6,)]


def test_the_schema_of_a_later_version(path, one_more):
    one_more("CREATE TABLE later (a)")
    ResonanceDB(path).close()
    known = migrate.migrations()[:-1]
    one_more_gone = pytest.MonkeyPatch()
    one_more_gone.setattr(migrate, "migrations", lambda: known)
    try:
        with pytest.raises(errors.SchemaTooNewError, match="upgrade Resonance"):
            ResonanceDB(path)
    finally:
        one_more_gone.undo()


# --- several at once, and none to the end -----------------------------------------------------------------


def open_it(number, path):
    with ResonanceDB(path) as db:
        db.insert_node({"id": f"opener-{number}"})
        return db.get_stats().nodes, db.migration_backup


def open_new_file_together(folder, rounds, processes=8):
    for attempt in range(rounds):
        file = folder / f"{attempt}.db"
        seen = together(processes, open_it, file)
        assert max(nodes for nodes, _ in seen) == processes
        assert {backup for _, backup in seen} == {None}
        assert rows(file, "SELECT number FROM resonance_migrations ORDER BY number") == NUMBERS
        assert rows(file, "SELECT hash, created_at FROM __drizzle_migrations ORDER BY created_at") == RECORDS
        assert rows(file, "SELECT count(*) FROM nodes") == [(processes,)]
        assert integrity(file) == [("ok",)]


def test_eight_processes_open_a_new_file_together(tmp_path):
    open_new_file_together(tmp_path, 20)


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_eight_processes_open_a_new_file_together_many_times(tmp_path):
    open_new_file_together(tmp_path, 150)


def test_eight_threads_open_a_new_file_together(tmp_path):
    for attempt in range(10):
        file = tmp_path / f"{attempt}.db"
        barrier = threading.Barrier(8)
        found = []

        def work(number, file=file, barrier=barrier, found=found):
            barrier.wait()
            found.append(open_it(number, file))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        assert rows(file, "SELECT count(*) FROM resonance_migrations") == [(6,)]


def test_several_processes_adopt_the_same_file(path):
    amalfa.copy_fixture(path)
    before = amalfa.read(path)
    seen = together(6, open_it, path)
    assert len([backup for _, backup in seen if backup]) == 1
    after = amalfa.read(path)
    assert [row for row in after["nodes"] if not row[0].startswith("opener")] == before["nodes"]
    assert len(after["nodes"]) == 30
    assert integrity(path) == [("ok",)]


def open_and_close(file):
    ResonanceDB(file).close()


def seconds(function):
    started = time.monotonic()
    function()
    return time.monotonic() - started


def kill_while_adopting(folder, kills, seed):
    """Old or new, never mixed; and the next one to open it brings it to the end."""
    sources = [amalfa.copy_fixture(folder / "made.db")]
    sources += [amalfa.make(folder / f"after-{steps}.db", steps, rows=400) for steps in (1, 3)]
    wanted, first, usual, edges = {}, {}, {}, {}
    unanswered = "SELECT source, type, raw, state FROM links ORDER BY source, type, raw"
    for source in sources:
        first[source] = amalfa.read(source)
        copy = folder / f"whole-{source.name}"
        copy.write_bytes(source.read_bytes())
        usual[source] = seconds(lambda copy=copy: Child(open_and_close, copy).result())
        wanted[source] = dump(copy)
        edges[source] = amalfa.read(copy)["edges"], rows(copy, unanswered)
    windows = {source: Window(usual[source], seed) for source in sources}
    killed = states = attempt = 0
    while killed < kills:
        assert attempt < 20 * kills, "nearly every child ended before it was killed"
        attempt += 1
        source = sources[attempt % len(sources)]
        file = folder / f"{attempt}" / "x.db"
        file.parent.mkdir()
        file.write_bytes(source.read_bytes())
        child = Child(open_and_close, file)
        windows[source].wait()
        hit = child.kill()
        windows[source].learn(hit)
        killed += hit
        number = rows(file, "PRAGMA user_version")[0][0]
        assert integrity(file)[0] == ("ok",)
        if number == 0:
            assert amalfa.read(file) == first[source]
            assert rows(file, "PRAGMA application_id") == [(0,)]
        elif number == len(migrate.migrations()):
            assert dump(file) == wanted[source]
        else:
            assert rows(file, "SELECT max(number) FROM resonance_migrations") == [(number - 1,)]
            found = amalfa.read(file)["edges"]
            # The fourth, 0003, makes links of those that dangle.
            if number < 4:
                assert found == first[source]["edges"]
            else:
                assert (found, rows(file, unanswered)) == edges[source]
        states += hit and number > 0
        with ResonanceDB(file) as db:
            assert dump(db) == wanted[source]
        assert integrity(file) == [("ok",)]
        for backup in file.parent.glob("*.bak"):
            assert amalfa.read(backup)["nodes"] == first[source]["nodes"]
    return attempt, states


def test_killed_while_adopting(tmp_path):
    kill_while_adopting(tmp_path, 15, seed=1)


@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_killed_while_adopting_many_times(tmp_path):
    runs, states = kill_while_adopting(tmp_path, 500, seed=2)
    print(f"500 killed of {runs} runs, {states} of them found migrated in part or whole, 0 bad")
    assert states >= 50


def kill_while_creating(folder, kills, seed):
    window = Window(seconds(lambda: Child(open_and_close, folder / "whole.db").result()), seed)
    killed = attempt = 0
    while killed < kills:
        assert attempt < 20 * kills, "nearly every child ended before it was killed"
        attempt += 1
        file = folder / f"{attempt}" / "x.db"
        file.parent.mkdir()
        child = Child(open_and_close, file)
        window.wait()
        hit = child.kill()
        window.learn(hit)
        killed += hit
        with ResonanceDB(file) as db:
            db.insert_node({"id": "a"})
        assert rows(file, "SELECT number FROM resonance_migrations ORDER BY number") == NUMBERS
        assert rows(file, "SELECT hash, created_at FROM __drizzle_migrations ORDER BY created_at") == RECORDS
        assert integrity(file) == [("ok",)]
    return attempt


def test_killed_while_creating(tmp_path):
    kill_while_creating(tmp_path, 15, seed=3)


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_killed_while_creating_many_times(tmp_path):
    runs = kill_while_creating(tmp_path, 500, seed=4)
    print(f"500 killed of {runs} runs, 0 bad")


def test_version_of_the_package():
    assert resonance.__version__
