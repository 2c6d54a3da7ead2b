"""What is not a database of ours is refused with a reason, and not one byte of it changes."""

import os
import shutil
import socket

import pytest

from resonance import DatabaseFactory, ResonanceDB, errors, factory
from resonance._core import Connection
from resonance.care.restore import restore
from support import FIXTURES, contents


def text_file(file):
    file.write_text("# Notes\n\nNo database at all.\n" * 50)


def short_file(file):
    file.write_bytes(b"hi")


def foreign(file):
    with Connection(file) as connection:
        connection.executescript("CREATE TABLE customers (name); INSERT INTO customers VALUES ('a')")


def foreign_in_wal_mode(file):
    with Connection(file) as connection:
        connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE customers (name)")
        connection.checkpoint_on_close(True)


def foreign_with_a_hot_log(file):
    with Connection(file) as connection:
        connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE customers (name)")
    assert file.with_name(file.name + "-wal").stat().st_size > 0


def foreign_application(file):
    with Connection(file) as connection:
        connection.executescript("PRAGMA application_id = 1178942; CREATE TABLE nodes (id)")


def only_nodes_and_edges(file):
    """The names alone do not make it Amalfa's."""
    with Connection(file) as connection:
        connection.executescript("CREATE TABLE nodes (id); CREATE TABLE edges (source, target)")


def newer(file):
    ResonanceDB(file).close()
    with Connection(file) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.checkpoint_on_close(True)


def newer_by_its_records(file):
    ResonanceDB(file).close()
    with Connection(file) as connection:
        connection.execute("INSERT INTO resonance_migrations VALUES (9, '0009_later', 'x', 'y')")
        connection.checkpoint_on_close(True)


def newer_amalfa(file):
    shutil.copy(FIXTURES / "amalfa-made.db", file)
    with Connection(file) as connection:
        connection.execute("INSERT INTO __drizzle_migrations (hash, created_at) VALUES ('x', 1799999999999)")
        connection.checkpoint_on_close(True)


def damaged_amalfa(file):
    """Half of the pages are overwritten."""
    shutil.copy(FIXTURES / "amalfa-made.db", file)
    data = bytearray(file.read_bytes())
    for page in range(2, len(data) // 4096, 2):
        data[4096 * page : 4096 * page + 64] = b"\xee" * 64
    file.write_bytes(data)


def truncated(file):
    ResonanceDB(file).close()
    file.with_name(file.name + ".lock").unlink()
    file.write_bytes(file.read_bytes()[:20000])


FILES = {
    text_file: errors.NotADatabaseError,
    short_file: errors.NotADatabaseError,
    foreign: errors.NotADatabaseError,
    foreign_in_wal_mode: errors.NotADatabaseError,
    foreign_with_a_hot_log: errors.NotADatabaseError,
    foreign_application: errors.NotADatabaseError,
    only_nodes_and_edges: errors.NotADatabaseError,
    newer: errors.SchemaTooNewError,
    newer_by_its_records: errors.SchemaTooNewError,
    newer_amalfa: errors.SchemaTooNewError,
    damaged_amalfa: errors.CorruptDatabaseError,
    truncated: errors.CorruptDatabaseError,
}

OPENERS = {
    "ResonanceDB": lambda path: ResonanceDB(path),
    "ResonanceDB, readonly": lambda path: ResonanceDB(path, readonly=True),
    "ResonanceDB, not created": lambda path: ResonanceDB(path, create=False),
    "connect_to_resonance": lambda path: DatabaseFactory.connect_to_resonance(path),
    "connect_to_resonance, readonly": lambda path: DatabaseFactory.connect_to_resonance(path, readonly=True),
}
CREATING = {"ResonanceDB", "connect_to_resonance"}


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__)
def test_refused_and_untouched(tmp_path, make, opener):
    file = tmp_path / "x.db"
    make(file)
    before = contents(tmp_path)
    for _ in range(2):
        with pytest.raises(FILES[make]) as caught:
            OPENERS[opener](file)
        assert str(file) in str(caught.value)
    after = contents(tmp_path)
    for name in ("x.db.lock", "x.db-shm"):
        # The gate has to be taken before a migration; and who reads a log needs its index.
        if make in (damaged_amalfa, foreign_with_a_hot_log, truncated):
            after.pop(name, None)
            before.pop(name, None)
    assert after == before


def test_the_log_of_a_foreign_file_is_left_for_its_owner(tmp_path):
    file = tmp_path / "x.db"
    foreign_with_a_hot_log(file)
    with pytest.raises(errors.NotADatabaseError):
        ResonanceDB(file)
    with Connection(file) as owner:
        assert owner.execute("SELECT * FROM customers") == []


@pytest.mark.parametrize("opener", OPENERS)
def test_a_folder(tmp_path, opener):
    folder = tmp_path / "folder.db"
    folder.mkdir()
    with pytest.raises(errors.CannotOpenError, match="not a regular file"):
        OPENERS[opener](folder)
    assert [item.name for item in tmp_path.iterdir()] == ["folder.db"]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_what_is_no_file(tmp_path, kind, opener):
    """Opening a FIFO would hang."""
    special = tmp_path / "special.db"
    if kind == "fifo":
        os.mkfifo(special)
    elif kind == "device":
        special.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(special))
    with pytest.raises(errors.CannotOpenError, match="not a regular file"):
        OPENERS[opener](special)
    assert [item.name for item in tmp_path.iterdir()] == ["special.db"]


@pytest.mark.parametrize("opener", OPENERS)
def test_a_folder_that_is_missing(tmp_path, opener):
    with pytest.raises(errors.CannotOpenError):
        OPENERS[opener](tmp_path / "none" / "x.db")
    assert list(tmp_path.iterdir()) == []


def test_the_parent_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(errors.CannotOpenError):
        ResonanceDB(tmp_path / "file" / "x.db")


@pytest.mark.parametrize("opener", sorted(set(OPENERS) - CREATING))
def test_a_missing_file_is_not_made(tmp_path, opener):
    with pytest.raises(errors.CannotOpenError, match="resonance init"):
        OPENERS[opener](tmp_path / "x.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 300])
def test_names_that_cannot_be(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.CannotOpenError):
        ResonanceDB(name)
    assert list(tmp_path.iterdir()) == []


def test_a_loop_of_links(tmp_path):
    (tmp_path / "a.db").symlink_to("b.db")
    (tmp_path / "b.db").symlink_to("a.db")
    with pytest.raises(errors.CannotOpenError):
        ResonanceDB(tmp_path / "a.db")


@pytest.mark.parametrize("opener", sorted(set(OPENERS) - CREATING))
def test_an_empty_file_is_no_database(tmp_path, opener):
    file = tmp_path / "x.db"
    file.touch()
    with pytest.raises(errors.NotADatabaseError, match="empty"):
        OPENERS[opener](file)
    assert contents(tmp_path) == {"x.db": b""}


def test_an_empty_file_may_become_one(tmp_path):
    """What is left when the first one to open it is killed at once."""
    file = tmp_path / "x.db"
    file.touch()
    with ResonanceDB(file) as db:
        db.insert_node({"id": "a"})
    with ResonanceDB(file, create=False) as db:
        assert db.get_node("a").id == "a"


# --- where it lies --------------------------------------------------------------------------------------


MOUNTS = """\
/dev/vda / ext4 rw,relatime 0 0
server:/export {home} nfs4 rw,vers=4.2 0 0
/dev/vdb {home}/local ext4 rw 0 0
//server/share {home}/with\\040space cifs rw 0 0
broken line
tmpfs {home}/local/tmp tmpfs rw 0 0
fuse {home}/local/tmp/shadowed ext4 rw 0 0
server:/x {home}/local/tmp/shadowed fuse.sshfs rw 0 0
"""


@pytest.fixture
def mounts(tmp_path):
    file = tmp_path / "mounts"
    file.write_text(MOUNTS.format(home=tmp_path / "home"))
    return str(file)


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("elsewhere/x.db", "ext4"),
        ("home/x.db", "nfs4"),
        ("home/deep/er/x.db", "nfs4"),
        ("home/locals/x.db", "nfs4"),
        ("home/local/x.db", "ext4"),
        ("home/with space/x.db", "cifs"),
        ("home/local/tmp/x.db", "tmpfs"),
        ("home/local/tmp/shadowed/x.db", "fuse.sshfs"),
        ("home/local/../x.db", "nfs4"),
    ],
)
def test_the_file_system_of_a_path(tmp_path, mounts, place, kind):
    assert factory.filesystem_of(str(tmp_path / place), mounts) == kind


def test_links_are_followed_to_the_file_system(tmp_path, mounts):
    (tmp_path / "home" / "vault").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "home" / "vault")
    assert factory.filesystem_of(str(tmp_path / "link" / "x.db"), mounts) == "nfs4"


def test_relative_names(tmp_path, mounts, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    assert factory.filesystem_of("x.db", mounts) == "nfs4"


def test_where_mounts_cannot_be_read(tmp_path):
    assert factory.filesystem_of(str(tmp_path / "x.db"), str(tmp_path / "none")) is None


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "ceph"])
@pytest.mark.parametrize("opener", OPENERS)
def test_network_file_systems_are_refused(tmp_path, monkeypatch, opener, kind):
    monkeypatch.setattr(factory, "filesystem_of", lambda path: kind)
    wanted = errors.UnsupportedFilesystemError if opener in CREATING else errors.CannotOpenError
    with pytest.raises(wanted):
        OPENERS[opener](tmp_path / "x.db")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_on_a_network_file_system(path, tmp_path, monkeypatch):
    ResonanceDB(path).close()
    before = contents(tmp_path)
    monkeypatch.setattr(factory, "filesystem_of", lambda path: "nfs")
    for opener in OPENERS.values():
        with pytest.raises(errors.UnsupportedFilesystemError, match="local disk") as caught:
            opener(path)
        assert caught.value.data == "unchanged"
    assert contents(tmp_path) == before


# --- the file behind an open database ----------------------------------------------------------------


def delete(path):
    path.unlink()


def replace(path):
    other = path.with_name("other.db")
    with ResonanceDB(other) as db:
        db.insert_nodes(id=["stranger"], embedding=[[0.0, 1.0]])
    other.replace(path)


def move_its_folder(path):
    path.parent.rename(path.parent.with_name("elsewhere"))


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("change", [delete, replace, move_its_folder])
def test_a_file_that_is_another_one_now_is_not_used_any_more(tmp_path, change, readonly):
    """SQLite would go on with the old one: what is written there is lost, what is read there is old."""
    path = tmp_path / "folder" / "graph.db"
    path.parent.mkdir()
    with ResonanceDB(path) as db:
        db.insert_nodes(id=["a"], embedding=[[1.0, 0.0]])
    db = ResonanceDB(path, readonly=readonly)
    assert [hit.id for hit in db.search([1.0, 0.0])] == ["a"]
    change(path)
    for use in (
        lambda: db.get_node("a"),
        lambda: db.search([1.0, 0.0]),
        lambda: db.search([1.0, 0.0], memory="stream"),
        db.embeddings,
        db.get_stats,
        db.digest,
        db.checkpoint,
        lambda: db.backup(tmp_path / "copy.db"),
        lambda: db.insert_node({"id": "lost"}),
        lambda: db.insert_nodes(id=["lost"]),
        db.vacuum,
    ):
        with pytest.raises((errors.MovedDatabaseError, errors.ReadOnlyError)) as caught:
            use()
        assert caught.value.data == "unchanged"
        assert readonly or isinstance(caught.value, errors.MovedDatabaseError)
    db.close()
    if change is replace:
        with ResonanceDB(path) as found:
            assert [node.id for node in found.get_nodes()] == ["stranger"]


def test_a_snapshot_that_was_taken_before_is_kept(db, path):
    db.insert_node({"id": "a"})
    with db.snapshot():
        path.unlink()
        assert [node.id for node in db.get_nodes()] == ["a"]
    with pytest.raises(errors.MovedDatabaseError):
        db.get_nodes()


def test_a_database_that_is_copied_over_stays_open(db, tmp_path):
    db.insert_node({"id": "a"})
    db.backup(tmp_path / "copy.db")
    db.insert_node({"id": "b"})
    restore(db.path, tmp_path / "copy.db")
    assert [node.id for node in db.get_nodes()] == ["a"]
    db.vacuum()
    assert [node.id for node in db.get_nodes()] == ["a"]
