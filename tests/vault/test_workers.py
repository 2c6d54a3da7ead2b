"""Many notes are read with the help of other processes, and nothing shows but the time it takes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vaults import Files, Vault, dump, hash_embedder, write

from resonance.errors import EmbedderError
from resonance.model import Problem, Space
from resonance.vault import workers
from resonance.vault.dialect import Reading
from resonance.vault.embed import CallableEmbedder
from resonance.vault.ids import assign_ids
from resonance.vault.reader import Reader, ReadNote, Same, Task
from resonance.vault.root import Root
from resonance.vault.scan import scan
from resonance.vault.sections import SectionRules
from resonance.vault.settings import load_settings

Make = Callable[[Files], Vault]

LONG = "# One\n\n" + "words of it " * 120 + "\n\n## Two\n\n" + "others, für C++ " * 90 + "[[n1]] #tag\n"
FILES: Files = {
    **{f"n{number}.md": f"---\ntags: [a]\n---\n# Note {number}\n\n{LONG}" for number in range(40)},
    "bad.md": "one\ntwo \0\n",
    "worse.md": "---\na: [\n---\n",
    "latin.md": b"caf\xe9\n",
}


@pytest.fixture
def helped(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Helpers for vaults of any size; the list of those that were started."""
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def start(*args: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(real(*args, **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(workers, "WORTH_HELP", 1)
    monkeypatch.setattr(workers, "_processors", lambda: 3)
    monkeypatch.setattr(workers, "_CHUNK_FILES", 3)
    return started


@pytest.fixture
def reading(root: Path) -> Iterator[tuple[Reader, list[Task]]]:
    settings = load_settings(write(root, FILES))
    for name in FILES:
        os.utime(root / name, (1, 1))  # old enough for its time to prove something, whoever looks
    with Root(root) as opened:
        files = scan(settings, opened).files
        ids = assign_ids(file.path for file in files)
        yield Reader(opened, Reading(), SectionRules()), [Task(file, ids[file.path]) for file in files]


def crew_of(reader: Reader, tasks: list[Task], helpers: int) -> workers._Crew:
    return workers._Crew(reader, list(workers._chunks(tasks)), helpers)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_helpers_find_what_we_would(helped: object, reading: tuple[Reader, list[Task]]) -> None:
    reader, tasks = reading
    expected = [reader.read(task) for task in tasks]
    crew = crew_of(reader, tasks, 2)
    try:
        wait_for(lambda: len(crew._done) == len(crew._chunks))
        assert all(isinstance(answer, bytes) for answer in crew._done.values()), "all by helpers"
        assert list(crew.outcomes()) == expected
    finally:
        crew.close()
    kinds = {type(outcome) for outcome in expected}
    assert kinds == {ReadNote, Problem}
    assert [p.line for p in expected if isinstance(p, Problem)] == [2, 1, 3], "the negative control"


def test_a_file_that_is_stored_already_is_not_parsed(
    helped: object, reading: tuple[Reader, list[Task]]
) -> None:
    reader, tasks = reading
    hashes = [note.note.hash if isinstance(note := reader.read(task), ReadNote) else None for task in tasks]
    again = [task._replace(hash=hash_) for task, hash_ in zip(tasks, hashes, strict=True)]
    assert [type(outcome) for outcome in workers.read_all(reader, again)] == [
        Problem if hash_ is None else Same for hash_ in hashes
    ]


def test_lost_helpers_are_done_without(helped: list[object], reading: tuple[Reader, list[Task]]) -> None:
    reader, tasks = reading
    expected = [reader.read(task) for task in tasks]
    crew = crew_of(reader, tasks, 2)
    try:
        wait_for(lambda: crew._begun >= 2)  # they have something in hand
        for program in crew._programs:
            program.kill()
        assert list(crew.outcomes()) == expected
    finally:
        crew.close()
    assert len(helped) == 2


def test_an_error_that_is_no_fault_of_a_file_is_raised_here(
    helped: object, reading: tuple[Reader, list[Task]]
) -> None:
    reader, tasks = reading
    broken = tasks[20]._replace(file=tasks[20].file._replace(disk_path=None))  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        list(workers.read_all(reader, [*tasks[:20], broken, *tasks[21:]]))


def test_who_stops_early_leaves_nobody_behind(
    helped: list[subprocess.Popen[bytes]], reading: tuple[Reader, list[Task]]
) -> None:
    outcomes = workers.read_all(*reading)
    next(outcomes)
    assert [program.poll() for program in helped] == [None, None]
    outcomes.close()
    assert [program.poll() for program in helped] == [-signal.SIGKILL] * 2


def test_an_ingest_that_fails_leaves_nobody_behind(
    helped: list[subprocess.Popen[bytes]], make_vault: Make
) -> None:
    vault = make_vault(FILES)

    def fail(_: object) -> object:
        raise ValueError("no")

    with pytest.raises(EmbedderError):
        vault.ingest(embedder=CallableEmbedder(fail, Space("failing", 8)))
    assert [program.poll() for program in helped] == [-signal.SIGKILL] * 2


@pytest.mark.parametrize("model", [True, False])
def test_the_same_database_and_report(
    monkeypatch: pytest.MonkeyPatch, make_vault: Make, helped: list[object], model: bool
) -> None:
    embedder = hash_embedder() if model else None
    vault, alone = make_vault(FILES), make_vault(FILES)
    report = vault.ingest(embedder=embedder)
    assert len(helped) == 2
    monkeypatch.setattr(workers, "_processors", lambda: 1)
    expected = alone.ingest(embedder=embedder)
    assert len(helped) == 2, "one processor, no helper"
    assert dump(vault.db) == dump(alone.db)
    assert vault.db.digest() == alone.db.digest()
    assert report.problems == expected.problems
    assert vault.db.search_text("fur plusplus", k=50) == alone.db.search_text("fur plusplus", k=50)
    assert len(expected.problems) == 3


def test_a_small_vault_is_read_alone(make_vault: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_Crew", None)
    assert make_vault(FILES).ingest().indexed == 40


def test_without_an_interpreter_to_start(
    helped: list[object], reading: tuple[Reader, list[Task]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "")
    assert len(list(workers.read_all(*reading))) == len(FILES)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert len(list(workers.read_all(*reading))) == len(FILES)
    assert not helped


def test_a_program_without_a_guard_is_not_run_again(root: Path, tmp_path: Path) -> None:
    """What multiprocessing would do to it: import the main module in every helper."""
    write(root, FILES)
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import sys\nfrom resonance import ResonanceDB\nfrom resonance.vault import workers\n"
        "from resonance.vault.ingest import ingest\nfrom resonance.vault.settings import load_settings\n"
        "workers.WORTH_HELP, workers._CHUNK_FILES, workers._processors = 1, 1, lambda: 3\n"
        "print('begun', flush=True)\n"
        "with ResonanceDB(':memory:') as db:\n"
        "    print(ingest(db, load_settings(sys.argv[1], model='none')).indexed)\n"
    )
    run = subprocess.run(
        [sys.executable, script, root], capture_output=True, text=True, timeout=120, check=True
    )
    assert run.stdout == "begun\n40\n"
    assert not run.stderr


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to find the processes")
def test_ctrl_c_ends_them_without_a_word(root: Path) -> None:
    write(root, {f"{number}.md": LONG * 4 for number in range(3000)})
    mark = f"{os.getpid()}-{time.time_ns()}"
    program = (
        "from resonance.vault import workers; workers._processors = lambda: 3; "
        "from resonance.__main__ import main; main()"
    )

    def running() -> list[bytes]:
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if mark.encode() in (place / "environ").read_bytes():
                    found.append((place / "cmdline").read_bytes())
            except OSError:
                continue
        return found

    with subprocess.Popen(
        [sys.executable, "-c", program, "init", root, "--no-embed"],
        env={**os.environ, "RESONANCE_TEST": mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as run:
        wait_for(lambda: sum(b"workers import _main" in line for line in running()) == 2)
        os.killpg(run.pid, signal.SIGINT)
        _, told = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "Traceback" not in told
    wait_for(lambda: not running())
