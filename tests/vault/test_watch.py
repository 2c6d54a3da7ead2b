"""Watching: a real process follows a real folder. Tests wait for what it says, never for a time."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vaults import Files, Vault, dump, write

import resonance
from resonance.vault import watch as watching_module
from resonance.vault.ingest import Keeper
from support import integrity

Make = Callable[[Files], Vault]
PATIENCE = 60


class Watcher:
    """``resonance watch --json`` on a vault whose database lies in it."""

    def __init__(self, root: Path, *options: str) -> None:
        self.root = root
        self.database = root / ".resonance" / "resonance.db"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "resonance", "watch", str(root), "--no-embed", "--json", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.seen: list[dict[str, Any]] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._markers = 0

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def next(self) -> dict[str, Any]:
        """The next event."""
        line = self._lines.get(timeout=PATIENCE)
        assert line is not None, f"it ended with {self.process.wait()}"
        self.seen.append(json.loads(line))
        return self.seen[-1]

    def wait(self, event: str, path: str | None = None) -> dict[str, Any]:
        """The next event of a kind, that names ``path``."""
        while True:
            told = self.next()
            if told["event"] == event and (path is None or path in told["paths"]):
                return told

    def settle(self) -> list[dict[str, Any]]:
        """What has been told when all that was done before has been looked at."""
        self._markers += 1
        name = f"marker {self._markers}.md"
        before = len(self.seen)
        write(self.root, {name: "here"})
        self.wait("ingest", name)
        return self.seen[before:]

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """The exit code; ``seen`` then holds all that was told."""
        self.process.send_signal(number)
        code = self.process.wait(timeout=PATIENCE)
        self.close()
        while (line := self._lines.get(timeout=PATIENCE)) is not None:
            self.seen.append(json.loads(line))
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(timeout=PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def open(self) -> resonance.ResonanceDB:
        return resonance.ResonanceDB(os.fspath(self.database), readonly=True)

    def paths(self) -> set[str]:
        with self.open() as db:
            return {path for (path,) in db.query("SELECT path FROM files") if "marker" not in path}


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[Callable[..., Watcher]]:
    started: list[Watcher] = []

    def start(files: Files, *options: str) -> Watcher:
        watcher = Watcher(write(tmp_path / "vault", files), *options)
        started.append(watcher)
        return watcher

    yield start
    for watcher in started:
        watcher.close()


@pytest.fixture
def watching(starting: Callable[..., Watcher]) -> Callable[..., Watcher]:
    """A watcher that has done its first ingest."""

    def start(files: Files, *options: str) -> Watcher:
        watcher = starting(files, *options)
        assert watcher.next()["event"] == "ready"
        return watcher

    return start


def replace(source: Path, target: Path) -> None:
    os.replace(source, target)  # noqa: PTH105  # over whatever is there


# --- how editors save -------------------------------------------------------------------------------


def in_place(note: Path, text: str) -> None:
    note.write_text(text)


def like_vim(note: Path, text: str) -> None:
    probe, backup, swap = (
        note.with_name("4913"),
        note.with_name(note.name + "~"),
        note.with_name(".note.md.swp"),
    )
    swap.write_text("swap")
    probe.write_text("")
    probe.unlink()
    note.rename(backup)
    note.write_text(text)
    backup.unlink()
    swap.unlink()


def like_emacs(note: Path, text: str) -> None:
    lock, auto = note.with_name(f".#{note.name}"), note.with_name(f"#{note.name}#")
    lock.symlink_to("somebody@here.1234")
    auto.write_text("half")
    backup = note.with_name(note.name + "~")
    note.rename(backup)
    note.write_text(text)
    auto.unlink()
    lock.unlink()


def like_jetbrains(note: Path, text: str) -> None:
    new, old = (note.with_name(f"{note.name}___jb_{which}___") for which in ("tmp", "old"))
    new.write_text(text)
    note.rename(old)
    new.rename(note)
    old.unlink()


def atomically(note: Path, text: str) -> None:
    new = note.with_name(f".{note.name}.x7Gk2.tmp")
    new.write_text(text)
    replace(new, note)


def by_deleting_first(note: Path, text: str) -> None:
    note.unlink()
    note.write_text(text)


@pytest.mark.parametrize(
    "save", [in_place, like_vim, like_emacs, like_jetbrains, atomically, by_deleting_first]
)
def test_a_note_that_is_saved_is_indexed_and_never_lost(
    watching: Callable[..., Watcher], save: Callable[[Path, str], None]
) -> None:
    watcher = watching({"note.md": "[[old]]", "other.md": "[[note]]"})
    for turn in range(3):
        save(watcher.root / "note.md", f"[[new {turn}]]")
        told = watcher.wait("ingest", "note.md")
        assert (told["indexed"], told["removed"], told["problems"]) == (1, 0, [])
    for told in watcher.settle():
        assert set(told["paths"]) <= {"note.md", "marker 1.md"}
    with watcher.open() as db:
        assert [link.name for link in db.links(source="note")] == ["new 2"]
        assert db.get_history("note", action="delete") == []
        assert [link.state for link in db.links(source="other")] == ["resolved"]
    assert watcher.paths() == {"note.md", "other.md"}


def test_a_note_that_vanishes_is_given_time_to_come_back(
    make_vault: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = make_vault({"note.md": "before", "other.md": "[[note]]"})
    monkeypatch.setattr(watching_module, "GRACE_MS", PATIENCE * 1000)
    monkeypatch.setattr(watching_module, "_LONGEST_GRACE", PATIENCE)
    waiting, told, stop = threading.Event(), queue.Queue[Any](), threading.Event()
    wait = watching_module._Watch._await_return

    def await_return(watch: Any, source: Any, paths: set[str]) -> None:
        waiting.set()
        wait(watch, source, paths)

    monkeypatch.setattr(watching_module._Watch, "_await_return", await_return)
    thread = threading.Thread(
        target=watching_module.watch,
        args=(vault.db, vault.settings),
        kwargs={"listener": lambda event, **facts: told.put((event, facts)), "stop": stop},
    )
    thread.start()
    assert told.get(timeout=PATIENCE)[0] == "ready"
    vault.remove("note.md")
    assert waiting.wait(PATIENCE)
    vault.write({"note.md": "after"})
    event, facts = told.get(timeout=PATIENCE)
    stop.set()
    thread.join(PATIENCE)
    assert (event, facts["paths"]) == ("ingest", ["note.md"])
    assert (facts["report"].indexed, facts["report"].removed) == (1, 0)
    assert vault.db.get_history(action="delete") == []


# --- what people do ---------------------------------------------------------------------------------


def test_notes_that_come_move_and_go(watching: Callable[..., Watcher]) -> None:
    watcher = watching({"a.md": "[[later]]", "b.md": "text"})
    write(watcher.root, {"new folder/later.md": "# Later"})
    assert watcher.wait("ingest")["links"] == {"resolved": 1}
    (watcher.root / "new folder").rename(watcher.root / "renamed")
    told = watcher.wait("ingest")
    assert (told["moved"], told["removed"], told["links"]) == (1, 1, {"resolved": 1})
    (watcher.root / "renamed" / "later.md").unlink()
    told = watcher.wait("ingest")
    assert (told["moved"], told["removed"], told["links"]) == (0, 1, {"unresolved": 1})
    assert watcher.paths() == {"a.md", "b.md"}


def test_what_is_hidden_excluded_or_ours_starts_nothing(
    watching: Callable[..., Watcher], tmp_path: Path
) -> None:
    database = str(tmp_path / "vault" / "graph.db")
    watcher = watching({"a.md": ""}, "--exclude", "drafts", "--database", database)
    write(
        watcher.root, {".git/index": "x", ".obsidian/a.md": "x", "drafts/b.md": "x", "graph.db-wal.bak": "x"}
    )
    (told,) = watcher.settle()
    assert set(told["paths"]) <= {"marker 1.md", "drafts", "drafts/b.md"}
    assert (told["files"], told["indexed"]) == (1, 1)


def test_a_malformed_note_is_told_and_the_next_save_mends_it(watching: Callable[..., Watcher]) -> None:
    watcher = watching({"a.md": "fine"})
    write(watcher.root, {"a.md": "---\ntitle: [\n---\n"})
    (problem,) = watcher.wait("ingest", "a.md")["problems"]
    assert (problem["path"], problem["line"]) == ("a.md", 3)
    assert watcher.paths() == {"a.md"}
    write(watcher.root, {"a.md": "fine again"})
    assert watcher.wait("ingest", "a.md")["problems"] == []


def test_a_mass_deletion_is_held_back_and_watching_goes_on(watching: Callable[..., Watcher]) -> None:
    files: dict[str, str | bytes] = {f"old/{number}.md": f"note {number}" for number in range(40)}
    watcher = watching({**files, "b.md": ""})
    for name in files:
        (watcher.root / name).unlink()
    held = watcher.wait("held")
    assert held["paths"] == sorted(files)
    assert "40 of 41 notes are gone" in held["because"]
    assert watcher.paths() == {*files, "b.md"}

    write(watcher.root, {"b.md": "[[0]]"})
    assert watcher.wait("ingest", "b.md")["links"] == {"resolved": 1}

    write(watcher.root, files)
    assert watcher.wait("held")["paths"] == []
    assert watcher.paths() == {*files, "b.md"}


def test_deleting_little_by_little_hits_the_brakes_too(make_vault: Make) -> None:
    vault = make_vault({f"{number}.md": f"note {number}" for number in range(40)})
    keeper = Keeper(vault.db, vault.settings)
    keeper.ingest(hold=True)
    removed = 0
    for number in range(20):
        vault.remove(f"{number}.md")
        removed += keeper.ingest([f"{number}.md"], hold=True, lately=removed).removed
    assert removed == 10
    assert len(keeper.held) == 10
    # Nor does what is held go later, when the sweep is over, until somebody says so.
    assert keeper.ingest(hold=True).removed == 0
    assert keeper.ingest(yes=True).removed == 10
    assert keeper.held == frozenset()


def test_another_process_may_carry_out_what_is_held(watching: Callable[..., Watcher]) -> None:
    files: dict[str, str | bytes] = {f"old/{number}.md": f"note {number}" for number in range(20)}
    watcher = watching({**files, "b.md": ""})
    for name in files:
        (watcher.root / name).unlink()
    watcher.wait("held")
    command = [
        sys.executable,
        "-m",
        "resonance",
        "ingest",
        str(watcher.root),
        "--no-embed",
        "--json",
        "--yes",
    ]
    done = subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    assert json.loads(done.stdout)["removed"] == 20
    write(watcher.root, {"b.md": "after"})
    watcher.wait("ingest", "b.md")
    assert watcher.wait("held")["paths"] == []
    assert watcher.paths() == {"b.md"}


def test_a_root_that_goes_and_comes_back(watching: Callable[..., Watcher]) -> None:
    watcher = watching({"a.md": "", "b.md": ""})
    away = watcher.root.rename(watcher.root.with_name("away"))
    assert watcher.wait("gone")["root"] == str(watcher.root)
    write(away, {"a.md": "written meanwhile"})
    away.rename(watcher.root)
    assert watcher.wait("ingest")["indexed"] == 1
    assert watcher.paths() == {"a.md", "b.md"}


def test_a_name_that_is_no_text_does_not_end_it(watching: Callable[..., Watcher]) -> None:
    watcher = watching({"a.md": "[[b]]"})
    Path(os.fsdecode(os.fsencode(watcher.root) + b"/lat\xe9.md")).write_text("x")
    told = watcher.wait("ingest")
    assert [problem["path"] for problem in told["problems"]] == ["lat\\xe9.md"]
    watcher.settle()
    write(watcher.root, {"b.md": "seen all the same"})
    assert watcher.wait("ingest", "b.md")["indexed"] == 1
    assert watcher.paths() == {"a.md", "b.md"}


# --- how it ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_ends_cleanly(watching: Callable[..., Watcher], number: signal.Signals, code: int) -> None:
    watcher = watching({"a.md": "[[b]]", "b.md": ""})
    write(watcher.root, {"a.md": "[[c]]", "c.md": "[[a]]"})
    watcher.wait("ingest")
    assert watcher.end(number) == code
    assert watcher.seen[-1] == {"event": "stopped"}
    assert not list(watcher.database.parent.glob("*-wal"))
    assert integrity(watcher.database) == [("ok",)]


def test_interrupted_in_the_middle_nothing_is_half_written(
    starting: Callable[..., Watcher], make_vault: Make
) -> None:
    files = {f"{number % 9}/{number}.md": f"[[{number + 1}]] #t{number % 7}" for number in range(1500)}
    watcher = starting(files)
    while not watcher.database.exists():
        assert watcher.process.poll() is None
    assert watcher.end() == 130
    assert integrity(watcher.database) == [("ok",)]
    vault = make_vault(files)
    vault.ingest()
    with resonance.ResonanceDB(os.fspath(watcher.database)) as db:
        Keeper(db, vault.settings).ingest()
        assert dump(db) == dump(vault.db)


def test_there_must_be_a_root_to_begin_with(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "resonance", "watch", str(tmp_path / "absent"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert "no such folder" in json.loads(done.stdout.splitlines()[0])["error"]["message"]


def test_a_database_that_was_deleted_ends_it(starting: Callable[..., Watcher]) -> None:
    watcher = starting({"a.md": "here"})
    watcher.wait("ready")
    watcher.database.unlink()
    write(watcher.root, {"b.md": "nothing may say that this was indexed"})
    assert watcher.next()["event"] == "stopped"
    assert watcher.next()["error"]["type"] == "MovedDatabaseError"
    assert watcher.process.wait(timeout=PATIENCE) == 2
