"""The file beside the database: whatever becomes of it, ids, scores and titles are those of the database."""

import contextlib
import fcntl
import json
import os
import resource
import shutil
import sqlite3
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest

from resonance import ResonanceDB, Space
from resonance.care.health import check_health
from resonance.search import cache
from support import Child, Window, in_child, together, unit

WIDTH, ROWS = 24, 3000
QUERIES = unit(3, WIDTH, seed=9)


def fill(path, rows=ROWS, width=WIDTH, seed=1):
    with ResonanceDB(path) as db:
        db.insert_nodes(
            id=[f"n{number:05d}" for number in range(rows)],
            title=[None if number % 7 == 0 else f"title {number}" for number in range(rows)],
            type=["note", "tag", None] * (rows // 3),
            domain=[f"domain {number % 11}" for number in range(rows)],
            embedding=unit(rows, width, seed=seed),
        )
        # Old engines make tables for it when they close what has grown: another schema, so another file.
        db.analyze()
    return path


@pytest.fixture
def path(tmp_path):
    return fill(tmp_path / "x.db")


@pytest.fixture
def kept(path):
    """A database with its file, which the next one to open it would use."""
    assert told(path).startswith("not there")
    assert told(path) == f"used, {ROWS} rows"
    return path


def beside(path):
    return Path(f"{path}-vectors")


def right(db, queries=QUERIES):
    """Answers for few, many and all are those of brute force; returns what was told of the file at first."""
    first = db.search(queries[0], 3, explain=True).explain.cache
    matrix = db.embeddings()
    ids, titles = matrix.ids, dict(db.query("SELECT id, title FROM nodes"))
    for query in queries.astype(np.float64):
        query /= np.linalg.norm(query)
        scores = matrix.vectors.astype(np.float64) @ query
        best = sorted(zip(-scores, ids, strict=True))
        for k in (1, 10, 2500, len(ids)):
            hits = db.search(query, k)
            assert [hit.id for hit in hits] == [name for _, name in best[:k]]
            wanted = [-score for score, _ in best[:k]]
            assert np.allclose([hit.score for hit in hits], wanted, rtol=0, atol=1e-12)
            assert [hit.title for hit in hits] == [titles[hit.id] for hit in hits]
    tags = {name for (name,) in db.query("SELECT id FROM nodes WHERE type = 'tag' AND embedding IS NOT NULL")}
    assert {hit.id for hit in db.search(queries[0], len(ids), type="tag")} == tags
    return first


def told(path, **options):
    """What the first search after opening says of the file; its answers are right."""
    with ResonanceDB(path, vector_cache=True, **options) as db:
        return right(db)


def flip(file, at, bit=3):
    with file.open("r+b") as stream:
        stream.seek(at)
        (value,) = stream.read(1)
        stream.seek(at)
        stream.write(bytes([value ^ 1 << bit]))


def table_of(file):
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return cache._table(descriptor)
    finally:
        os.close(descriptor)


def retabled(file, **changed):
    """The file with another table, and right checksums."""
    table = table_of(file) | changed
    data = file.read_bytes()
    at = cache._HEAD.unpack_from(data)[1]
    text = json.dumps(table).encode()
    head = cache._HEAD.pack(cache._MAGIC, at, len(text), cache._core.checksum(text), 0)[:-8]
    head += struct.pack("<Q", cache._core.checksum(head))
    file.write_bytes(head + data[len(head) : at] + text)


# --- without anything wrong -----------------------------------------------------------------------------


def test_off_unless_asked_for(path):
    with ResonanceDB(path) as db:
        assert right(db) is None
    assert not beside(path).exists()


def test_none_for_what_nobody_else_can_open(tmp_path):
    for name, options in ((":memory:", {}), (tmp_path / "scratch.db", {"scratch": True})):
        with ResonanceDB(name, vector_cache=True, **options) as db:
            db.insert_nodes(id=["a"], embedding=unit(1, WIDTH))
            assert db.search(QUERIES[0], 1, explain=True).explain.cache is None
    assert not list(tmp_path.glob("*-vectors*"))


def test_what_is_kept_is_what_answers(kept):
    """Rows that are changed without the log noticing are found as they were: nothing else is looked at."""
    with ResonanceDB(kept) as db, db.transaction() as writer:
        writer.set_triggers(False)
        writer.execute("UPDATE nodes SET title = 'unnoticed'")
        writer.set_triggers(True)
    with ResonanceDB(kept, vector_cache=True) as db:
        for k in (3, 2500):
            assert "unnoticed" not in {hit.title for hit in db.search(QUERIES[0], k)}
            assert {hit.title for hit in db.search(QUERIES[0], k, memory="stream")} == {"unnoticed"}


def test_it_is_as_private_as_the_database(path):
    path.chmod(0o640)
    told(path)
    assert beside(path).stat().st_mode & 0o777 == 0o640


def test_several_blocks_of_codes(tmp_path):
    path = fill(tmp_path / "wide.db", rows=24_000, width=300)
    queries = unit(2, 300, seed=4)
    for wanted in ("not there", "used"):
        with ResonanceDB(path, vector_cache=True) as db:
            assert right(db, queries).startswith(wanted)
            assert db._index._view.records.count == 24_000
    table = table_of(beside(path))
    assert len(table["codes"][1]) == 2 * 7


def test_only_used_where_nothing_may_be_written(kept):
    assert told(kept, readonly=True) == f"used, {ROWS} rows"
    beside(kept).unlink()
    assert "readonly" in told(kept, readonly=True)
    assert not beside(kept).exists()


def write_a_little(path, seed):
    with ResonanceDB(path) as other:
        other.insert_nodes(
            id=[f"new {seed} {n}" for n in range(5)], embedding=unit(5, WIDTH, seed=1000 + seed)
        )
        other.insert_node({"id": f"n{seed:05d}", "embedding": QUERIES[1], "title": f"moved {seed}"})
        other.insert_node({"id": f"n{seed + 100:05d}", "title": f"only a title {seed}"})
        other.insert_node({"id": f"n{seed + 200:05d}", "type": "tag"})
        other.insert_node({"id": f"n{seed + 300:05d}", "embedding": None})
        other.delete_nodes([f"n{seed + 400:05d}"])


def test_it_follows_whoever_writes(path):
    with ResonanceDB(path, vector_cache=True) as writer_of_it:
        right(writer_of_it)
        for seed in range(3):
            write_a_little(path, seed)
            with ResonanceDB(path, vector_cache=True) as reader_of_it:
                assert right(reader_of_it).startswith("used")
                write_a_little(path, seed + 50)
                right(reader_of_it)
            right(writer_of_it)


@pytest.mark.parametrize("how", ["another vector", "no vector"])
@pytest.mark.parametrize("opened", ["before", "after"])
def test_what_somebody_replaces_is_not_found_as_it_was(kept, how, opened):
    """SQLite deletes a row that is replaced without telling any trigger for deletes."""
    vector = unit(1, WIDTH, seed=4)[0].tobytes() if how == "another vector" else None
    with ResonanceDB(kept, vector_cache=True) as db:
        if opened == "before":
            db.search(QUERIES[0])
        with contextlib.closing(sqlite3.connect(kept)) as connection, connection:
            connection.executemany(
                "INSERT OR REPLACE INTO nodes (id, type, embedding) VALUES (?, 'new', ?)",
                [(f"n{number:05d}", vector) for number in range(0, 300, 3)],
            )
        right(db)
        assert len(db.search(QUERIES[0], 2 * ROWS, type="note")) == ROWS // 3 - 100
        assert db.search(QUERIES[0], explain=True).explain.path == "resident"


def test_a_row_that_is_written_again_as_it_was_is_no_change(kept):
    with ResonanceDB(kept) as db:
        before = db.query("SELECT max(seq) FROM node_changes")
        db.insert_nodes(id=["n00001", "n00002"], type=["tag", None])
        assert db.query("SELECT max(seq) FROM node_changes") == before


def test_a_snapshot_from_before_it_was_written(path):
    with ResonanceDB(path, vector_cache=True) as db, ResonanceDB(path, vector_cache=True) as other:
        db.search(QUERIES[0], 3)
        with other.snapshot():
            db.insert_node({"id": "n00001", "title": "later"})
            right(db)
            assert "later" not in {hit.title for hit in other.search(QUERIES[0], ROWS)}
        right(other)


@pytest.mark.parametrize("what", ["vectors", "titles"])
def test_written_anew_when_much_has_changed(kept, what):
    with ResonanceDB(kept) as db:
        if what == "vectors":
            db.insert_nodes(id=[f"m{n}" for n in range(5000)], embedding=unit(5000, WIDTH, seed=5))
        else:
            with db.transaction() as writer:
                writer.execute("UPDATE nodes SET title = title || '!' WHERE title IS NOT NULL")
                writer.execute("UPDATE nodes SET title = title || '!' WHERE title IS NOT NULL")
    assert "may have changed since" in told(kept)
    assert told(kept).startswith("used")


def test_titles_the_log_has_forgotten(kept):
    with ResonanceDB(kept) as db, db.transaction() as writer:
        for round in range(3):
            writer.execute(f"UPDATE nodes SET title = 'title {round}'")
        writer.execute("DELETE FROM title_changes WHERE seq <= 5000")
    assert "titles" in told(kept)
    assert told(kept).startswith("used")


def test_in_a_transaction_and_after_it(kept):
    with ResonanceDB(kept, vector_cache=True) as db:
        db.search(QUERIES[0], 3)
        with db.transaction():
            db.insert_node({"id": "n00002", "title": "inside", "embedding": QUERIES[0]})
            assert db.search(QUERIES[0], 1)[0].title == "inside"
            right(db)
        assert db.search(QUERIES[0], 1)[0].title == "inside"
        right(db)


# --- a file that is not what it should be -----------------------------------------------------------------

CUT = {"to nothing": 0, "in the head": 20, "in a row": 5000, "in the codes": -150_000, "at the end": -1}


@pytest.mark.parametrize("place", CUT)
def test_cut_off(kept, place):
    file = beside(kept)
    os.truncate(file, CUT[place] % file.stat().st_size if CUT[place] else 0)
    assert told(kept).startswith("not used: ")
    assert told(kept) == f"used, {ROWS} rows"


def columns(table):
    """Where each column of the one block of codes begins, and how many bytes it has."""
    at, found = table["codes"][0], {}
    names = ("codes", "scales", "errors", "rowids", "types", "domains", "layers")
    for name, each in zip(names, (64, 4, 4, 8, 4, 4, 4), strict=True):
        found[name] = (at, each * ROWS)
        at += each * ROWS
    assert at == table["ends"][0]
    return found


PARTS = (
    "codes",
    "scales",
    "errors",
    "rowids",
    "types",
    "domains",
    "layers",
    "ends",
    "labels",
    "table",
    "head",
)


@pytest.mark.parametrize("share", [0.0, 0.4, 0.99])
@pytest.mark.parametrize("part", PARTS)
def test_a_flipped_bit(kept, part, share):
    file = beside(kept)
    table = table_of(file)
    parts = columns(table) | {name: tuple(table[name][:2]) for name in ("ends", "labels")}
    parts["table"] = cache._HEAD.unpack_from(file.read_bytes())[1:3]
    parts["head"] = (len(cache._MAGIC), cache._HEAD.size - len(cache._MAGIC))
    at, size = parts[part]
    flip(file, at + int(share * size))
    assert told(kept).startswith("not used: ")
    assert told(kept) == f"used, {ROWS} rows"


RECORD = {
    "checksum": 2,
    "size of the id": 8,
    "size of the title": 12,
    "lowest bit": 16,
    "sign": 19,
    "id": 112,
}


@pytest.mark.parametrize("bit", [0, 7])
@pytest.mark.parametrize("part", RECORD)
def test_a_flipped_bit_in_a_row(kept, part, bit):
    file = beside(kept)
    table = table_of(file)
    descriptor = os.open(file, os.O_RDONLY)
    ends = np.frombuffer(cache._checked(descriptor, *table["ends"]), np.int64)
    os.close(descriptor)
    flip(file, int(ends[1234]) + RECORD[part], bit)
    with ResonanceDB(kept, vector_cache=True) as db:
        right(db)
        assert "damaged" in db.search(QUERIES[0], 1, explain=True).explain.cache
        assert not file.exists(), "it was dropped"
        right(db)
    assert told(kept).startswith("not there")
    assert told(kept) == f"used, {ROWS} rows"


def test_a_damaged_row_beside_rows_that_have_changed(kept):
    """Some rows come from the database then, and not all from the file."""
    with ResonanceDB(kept, vector_cache=True) as db:
        db.search(QUERIES[0])
        db.insert_nodes(id=["n00002", "late"], embedding=unit(2, WIDTH, seed=5))
        flip(beside(kept), cache._BEGIN + 20)
        right(db)
        assert "dropped" in db.search(QUERIES[0], explain=True).explain.cache


def test_cut_off_while_it_is_open(kept):
    with ResonanceDB(kept, vector_cache=True) as db:
        db.search(QUERIES[0], 3)
        os.truncate(beside(kept), 1000)
        with db.snapshot():
            right(db)
        assert "damaged" in right(db)
    assert told(kept).startswith("not there")


def test_another_one_in_the_place_of_a_damaged_one_stays(kept):
    with ResonanceDB(kept, vector_cache=True) as db:
        db.search(QUERIES[0], 3)
        os.truncate(beside(kept), 1000)
        beside(kept).rename(beside(kept).with_name("aside"))
        told(kept)
        right(db)
    assert told(kept) == f"used, {ROWS} rows"


def test_what_others_have_written_there_is_left_alone(kept):
    beside(kept).write_bytes(b"something else")
    for _ in range(2):
        assert "does not begin" in told(kept)
        with ResonanceDB(kept, vector_cache=True) as db:
            assert right(db)
            assert "move it away" in db.search(QUERIES[0], 1, explain=True).explain.cache
    assert beside(kept).read_bytes() == b"something else"


OTHERWISE = {
    "format": ({"format": 2}, "format 2"),
    "byte order": ({"byteorder": "big"}, "processor"),
    "token": ({"token": "0"}, "another database"),
    "space": ({"space": ["other", WIDTH, "", "unit"]}, "as a whole"),
    "width": ({"space": ["unnamed", WIDTH + 1, "", "unit"]}, "as a whole"),
    "schema": ({"schema": 1}, "as a whole"),
    "future": ({"seq": 10**9}, "as a whole"),
    "titles": ({"titles": 10**9}, "titles"),
    "rows": ({"rows": ROWS - 1}, "damaged"),
    "more rows": ({"rows": 10**6}, "damaged"),
    "no number": ({"rows": "many"}, "makes no sense"),
    "no ends": ({"ends": None}, "makes no sense"),
    "far away": ({"ends": [10**15, 8, 1]}, "cut off"),
    "huge": ({"labels": [64, 10**15, 1]}, "cut off"),
    "sums": ({"codes": [64, [1, 2]]}, "damaged"),
}


@pytest.mark.parametrize("what", OTHERWISE)
def test_a_table_of_something_else(kept, what):
    changed, reason = OTHERWISE[what]
    retabled(beside(kept), **changed)
    assert reason in told(kept)
    assert told(kept) == f"used, {ROWS} rows"


def test_of_another_database(kept, tmp_path):
    """As many rows, of the same width, after as many changes."""
    other = fill(tmp_path / "other.db", seed=2)
    told(other)
    shutil.copyfile(beside(other), beside(kept))
    assert "another database" in told(kept)
    assert told(kept) == f"used, {ROWS} rows"


@pytest.mark.parametrize("what", ["folder", "fifo", "link", "link to nowhere"])
def test_no_regular_file(path, what, tmp_path):
    file, target = beside(path), tmp_path / "target"
    if what == "folder":
        file.mkdir()
    elif what == "fifo":
        os.mkfifo(file)
    else:
        if what == "link":
            target.write_bytes(b"")
        file.symlink_to(target)
    before = file.lstat()
    with ResonanceDB(path, vector_cache=True) as db:
        right(db)
        assert "no regular file" in db.search(QUERIES[0], 1, explain=True).explain.cache
    assert os.path.samestat(before, file.lstat())
    assert not target.exists() or target.read_bytes() == b""


def test_where_it_cannot_be_written(path):
    Path(f"{beside(path)}.new").mkdir()
    with ResonanceDB(path, vector_cache=True) as db:
        right(db)
        assert "not written" in db.search(QUERIES[0], 1, explain=True).explain.cache
    assert not beside(path).exists()


def as_nobody(folder):
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    return told(folder / "x.db")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read it")
def test_one_that_may_not_be_read(kept):
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)
        for file in (kept, beside(kept)):
            shutil.copyfile(file, folder / file.name)
            (folder / file.name).chmod(0o666)
        beside(folder / "x.db").chmod(0)
        assert "Permission denied" in in_child(as_nobody, folder)


def with_little_room(path, most):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    with ResonanceDB(path, vector_cache=True) as db:
        right(db)
        return db.search(QUERIES[0], 1, explain=True).explain.cache


@pytest.mark.parametrize("most", [100_000, 300_000, 550_000])
def test_a_disk_without_room(path, most):
    assert "not written: File too large" in in_child(with_little_room, path, most)
    assert sorted(file.name for file in path.parent.iterdir()) == ["x.db", "x.db.lock"]
    assert told(path).startswith("not there")


# --- a database that becomes another ---------------------------------------------------------------------


def vacuumed(path):
    with ResonanceDB(path) as db:
        db.delete_nodes([f"n{number:05d}" for number in range(0, ROWS, 2)])
        db.vacuum()


def rebuilt(path):
    with ResonanceDB(path) as db, db.rebuild() as fresh:
        fresh.insert_nodes(
            id=[f"n{number:05d}" for number in range(ROWS)], embedding=unit(ROWS, WIDTH, seed=3)
        )


def in_another_space(path):
    with ResonanceDB(path) as db:
        db.set_space(Space("other", WIDTH), replace=True)
        db.insert_nodes(id=[f"n{number:05d}" for number in range(ROWS)], embedding=unit(ROWS, WIDTH, seed=3))


def switched(path):
    with ResonanceDB(path) as db:
        new = Space("other", WIDTH)
        db.add_space(new)
        ids = [f"n{number:05d}" for number in range(ROWS)]
        db.insert_vectors(new, ids, unit(ROWS, WIDTH, seed=3))
        db.switch_space(new, require_complete=False)


def without_its_log(path):
    with ResonanceDB(path) as db, db.transaction() as writer:
        writer.execute("DELETE FROM node_changes")


@pytest.mark.parametrize("become", [vacuumed, rebuilt, in_another_space, switched, without_its_log])
def test_a_database_that_became_another(kept, become):
    become(kept)
    assert told(kept).startswith("not used")
    assert told(kept).startswith("used")


@pytest.mark.parametrize("when", ["before", "after"])
def test_put_back_from_a_copy(path, when, tmp_path):
    """The copy goes on from where it was, over as many changes, and nobody but the token can tell."""
    copy = tmp_path / "copy.db"
    if when == "after":
        told(path)
    shutil.copyfile(path, copy)
    with ResonanceDB(path, vector_cache=True) as db:
        db.insert_node({"id": "n00001", "embedding": QUERIES[0]})
        right(db)
    if when == "before":
        told(path)
    assert not Path(f"{path}-wal").exists()
    shutil.copyfile(copy, path)
    with ResonanceDB(path) as db:
        db.insert_node({"id": "n00002", "embedding": QUERIES[1]})
        db.insert_node({"id": "n00003", "embedding": QUERIES[2]})
    assert told(path).startswith("used" if when == "after" else "not used")
    assert told(path).startswith("used")


def test_a_copy_with_its_file_goes_its_own_way(kept, tmp_path):
    copy = tmp_path / "copy.db"
    for suffix in ("", "-vectors"):
        shutil.copyfile(f"{kept}{suffix}", f"{copy}{suffix}")
    write_a_little(copy, 1)
    write_a_little(kept, 2)
    for path in (copy, kept):
        assert told(path).startswith("used")


def of_the_cache(path):
    found = [each for each in check_health(path).findings if each.check == "vector-cache"]
    assert len(found) < 2
    return found[0] if found else None


def test_the_doctor_says_what_it_is(path):
    assert of_the_cache(path) is None
    told(path)
    assert of_the_cache(path).level == "ok"
    write_a_little(path, 1)
    assert of_the_cache(path).level == "ok"
    rebuilt(path)
    assert of_the_cache(path).level == "info"
    assert "another moment" in of_the_cache(path).message
    beside(path).write_bytes(b"something else")
    assert "does not begin" in of_the_cache(path).message
    beside(path).unlink()
    beside(path).mkdir()
    assert "no regular file" in of_the_cache(path).message


# --- several at once, and killed ---------------------------------------------------------------------------


def search_once(path):
    with ResonanceDB(path, vector_cache=True) as db:
        return [tuple(hit[:3]) for hit in db.search(QUERIES[0], ROWS)]


def test_killed_while_writing(path):
    window, killed = Window(0.2, seed=3), 0
    answer = search_once(path)
    for _ in range(25):
        beside(path).unlink(missing_ok=True)
        child = Child(search_once, path)
        window.wait()
        died = child.kill()
        killed += died
        window.learn(died)
        assert search_once(path) == answer
        assert told(path).startswith("used"), "what a killed one leaves is in nobody's way"
        assert not Path(f"{beside(path)}.new").exists()
    assert killed >= 3


def test_many_processes_at_once(path):
    for _ in range(3):
        beside(path).unlink(missing_ok=True)
        answers = together(5, lambda number: search_once(path))
        assert all(each == answers[0] for each in answers)
        with ResonanceDB(path, vector_cache=True) as db:
            right(db)
        assert told(path) == f"used, {ROWS} rows"
        assert not Path(f"{beside(path)}.new").exists()


@pytest.mark.parametrize("left", [b"", cache._MAGIC + b"half of it"])
def test_one_that_another_process_is_writing(path, left):
    aside = Path(f"{beside(path)}.new")
    with aside.open("wb") as other:
        other.write(left)
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        with ResonanceDB(path, vector_cache=True) as db:
            right(db)
            assert "another process" in db.search(QUERIES[0], 1, explain=True).explain.cache
        assert aside.read_bytes() == left
    assert told(path).startswith("not there")
    assert told(path).startswith("used")
    assert not aside.exists()


def test_a_writer_that_does_not_end(path):
    with ResonanceDB(path) as other, other.transaction(), ResonanceDB(path, vector_cache=True) as db:
        right(db)
        assert "not written" in db.search(QUERIES[0], 1, explain=True).explain.cache
    assert not list(path.parent.glob("*-vectors*"))
    assert told(path).startswith("not there")


def test_a_change_between_reading_and_writing(path, monkeypatch):
    """The rows of one moment are written, and the log tells of those that have changed since."""
    fill_file = cache._fill

    def late(*given):
        write_a_little(path, 7)
        return fill_file(*given)

    monkeypatch.setattr(cache, "_fill", late)
    told(path)
    monkeypatch.undo()
    assert told(path) == f"used, {ROWS} rows"


def test_a_rebuild_between_reading_and_writing(path, monkeypatch):
    fill_file = cache._fill

    def late(*given):
        ends = fill_file(*given)
        rebuilt(path)
        return ends

    monkeypatch.setattr(cache, "_fill", late)
    with ResonanceDB(path, vector_cache=True) as db:
        db.search(QUERIES[0], 3)
        assert "become another" in db._index.cache_told
        monkeypatch.undo()
        right(db)
    assert told(path).startswith("used")
