"""``init`` and ``ingest``."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commandline import NOTES, Run

from resonance import ResonanceDB
from support import dump

REPORT = {"files", "indexed", "unchanged", "removed", "problems", "nodes", "edges", "vectors", "seconds"}


def database(vault: Path) -> Path:
    return vault / ".resonance" / "resonance.db"


def graph(path: Path) -> dict[str, Any]:
    with ResonanceDB(path, readonly=True) as db:
        return dump(db, ("nodes", "edges", "spaces")) | {
            "links": db.links(),
            "files": db.query("SELECT path, node, hash, body_hash FROM files ORDER BY path"),
        }


def test_init_answers_with_the_report_of_the_contract(run: Run, vault: Path, model: Path) -> None:
    result = run("init", vault, "--model", model, "--json")
    assert result.code == 0, result
    report = result.json
    assert report.keys() >= REPORT
    assert (report["files"], report["indexed"], report["unchanged"], report["removed"]) == (7, 7, 0, 0)
    assert (report["nodes"], report["tags"], report["vectors"], report["problems"]) == (7, 1, 6, [])
    assert report["links"] == {"ambiguous": 1, "external": 1, "resolved": 5, "unresolved": 1}
    assert report["embedding"]["name"] == "five-words"
    assert sorted(entry.name for entry in database(vault).parent.iterdir()) == [
        ".gitignore", "resonance.db", "resonance.db.lock",
    ]  # fmt: skip


def test_a_second_ingest_changes_nothing(run: Run, made: Path, model: Path) -> None:
    before = graph(database(made))
    report = run("ingest", made, "--model", model, "--json").json
    assert (report["files"], report["indexed"], report["unchanged"]) == (7, 0, 7)
    assert graph(database(made)) == before
    # The files were copied a moment ago: times that prove nothing are settled by the first ingest.
    settled = dump(database(made))
    run("ingest", made, "--model", model)
    assert dump(database(made)) == settled


def test_deleting_the_database_and_init_give_the_same_graph(run: Run, made: Path, model: Path) -> None:
    before = graph(database(made))
    shutil.rmtree(database(made).parent)
    assert run("init", made, "--model", model).code == 0
    assert graph(database(made)) == before


def test_ingest_makes_a_database_that_is_missing(run: Run, vault: Path, model: Path) -> None:
    run("init", vault, "--model", model)
    made = graph(database(vault))
    shutil.rmtree(database(vault).parent)
    report = run("ingest", vault, "--model", model, "--json").json
    assert report["indexed"] == 7
    assert graph(database(vault)) == made


def test_ingest_takes_up_what_has_changed(run: Run, made: Path, model: Path) -> None:
    (made / "food/Pear.md").unlink()
    (made / "Nowhere.md").write_text("fruit\n")
    report = run("ingest", made, "--model", model, "--json").json
    assert (report["files"], report["indexed"], report["unchanged"], report["removed"]) == (7, 1, 6, 1)
    assert report["links"].get("unresolved") is None


def test_problems_are_named_and_make_the_exit_code_1(run: Run, vault: Path) -> None:
    (vault / "Bad.md").write_text("---\ntitle: [\n---\n")
    (vault / "Binary.md").write_bytes(b"\xff\xfe\x00")
    for command in ("init", "ingest"):
        result = run(command, vault, "--no-embed", "--json")
        assert result.code == 1, result
        report = result.json
        assert {problem["path"] for problem in report["problems"]} == {"Bad.md", "Binary.md"}
        assert all(problem.keys() == {"path", "line", "reason"} for problem in report["problems"])
        assert report["files"] == 9 == report["indexed"] + report["unchanged"] + 2
        assert report["nodes"] == 7
    plain = run("ingest", vault, "--no-embed")
    assert plain.code == 1
    assert "Bad.md:" in plain.out


def test_without_vectors(run: Run, vault: Path) -> None:
    report = run("init", vault, "--no-embed", "--json").json
    assert (report["vectors"], report["embedding"]) == (0, None)
    result = run("search", "apple", "--mode", "vector", "--root", vault)
    assert result.code == 2
    assert "holds no vectors" in result.err


def test_a_model_that_cannot_be_had_is_said_and_the_rest_is_done(run: Run, vault: Path) -> None:
    result = run("init", vault, "--json")
    assert result.code == 0, result
    assert result.json["nodes"] == 7
    assert "potion-base-8M" in result.json["embedding_note"]
    assert "cannot be had" in result.json["embedding_note"]


def test_a_folder_that_does_not_exist_is_not_made(run: Run, vault: Path, tmp_path: Path) -> None:
    for command in ("init", "ingest"):
        result = run(command, vault, "--no-embed", "--database", tmp_path / "no/where.db")
        assert result.code == 2
        assert "create it first" in result.err
    assert not (tmp_path / "no").exists()


def test_init_over_a_damaged_database_says_how_to_begin_without_it(run: Run, made: Path) -> None:
    with database(made).open("r+b") as file:
        file.seek(40_000)
        file.write(b"\xff" * 100_000)
    damaged = database(made).read_bytes()
    result = run("init", made, "--no-embed")
    assert result.code == 2, result
    assert "Move resonance.db, resonance.db-wal and resonance.db-shm away" in result.err
    assert database(made).read_bytes() == damaged
    for file in database(made).parent.glob("resonance.db*"):
        file.unlink()
    assert run("init", made, "--no-embed").code == 0


def test_the_settings_file_is_read(run: Run, vault: Path, tmp_path: Path) -> None:
    settings = {"sources": ["food"], "excludePatterns": ["Pear*"], "database": "../graph.db"}
    (vault / "amalfa.settings.json").write_text(json.dumps(settings))
    assert run("init", vault, "--no-embed", "--json").json["files"] == 1
    assert (tmp_path / "graph.db").exists()
    assert not (vault / ".resonance").exists()
    flags = ("--source", ".", "--exclude", "food", "--exclude", "Car.md", "--yes")
    assert run("init", vault, *flags, "--no-embed", "--json").json["files"] == 4


def test_here_is_the_root_where_none_is_named(run: Run, vault: Path) -> None:
    assert run("init", "--no-embed", cwd=vault).code == 0
    assert database(vault).exists()


def test_a_database_is_not_filled_from_the_folder_one_happens_to_be_in(
    run: Run, made: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "note.md").write_text("text")
    before = dump(database(made))
    for command in ("init", "ingest"):
        result = run(command, "--database", database(made), "--no-embed", cwd=elsewhere)
        assert result.code == 2, result
        assert "name the root" in result.err
    assert dump(database(made)) == before


def test_an_emptied_vault_stops_both_unless_told(run: Run, made: Path) -> None:
    before = dump(database(made))
    for name in NOTES:
        (made / name).unlink()
    for command in ("init", "ingest"):
        result = run(command, made, "--no-embed", "--json")
        assert result.code == 2, result
        assert result.json["error"]["type"] == "BrakeError"
        assert "--yes" in result.json["error"]["message"]
        assert dump(database(made)) == before
    assert run("init", made, "--no-embed", "--yes", "--json").json["nodes"] == 0


def test_the_brakes_show_the_plan_and_undo_brings_back(run: Run, made: Path) -> None:
    names = ["Fruit.md", "food/Apple.md"]
    texts = {name: (made / name).read_bytes() for name in names}
    before = graph(database(made))
    for name in names:
        (made / name).unlink()
    strict = ("ingest", made, "--no-embed", "--max-loss", "0")
    stopped = run(*strict)
    assert stopped.code == 2, stopped
    assert [line.strip() for line in stopped.err.splitlines() if line.startswith("  ")] == names
    assert run(*strict, "--json").json["error"]["paths"] == names
    assert graph(database(made)) == before
    assert run(*strict, "--yes", "--json").json["removed"] == 2

    undone = run("undo", made, "--json")
    assert (undone.code, undone.json["restored"]) == (0, names), undone
    assert graph(database(made)) == before
    assert run("read", "fruit", "--root", made, "--json").json["state"] == "missing"
    for name, text in texts.items():
        (made / name).write_bytes(text)
    assert run("ingest", made, "--no-embed", "--json").json["unchanged"] == 7
    nothing = run("undo", made)
    assert (nothing.code, nothing.err) == (0, "nothing was removed lately\n")


def test_an_undo_that_leaves_something_out_says_so(run: Run, made: Path) -> None:
    text = (made / "Car.md").read_bytes()
    (made / "Car.md").unlink()
    run("ingest", made, "--no-embed", "--yes")
    (made / "Car.md").write_bytes(text)
    run("ingest", made, "--no-embed")
    result = run("undo", made)
    assert result.code == 1, result
    assert "not Car.md: is in the database again, as car" in result.err


def test_the_vault_itself_is_only_read(run: Run, vault: Path, tmp_path: Path, model: Path) -> None:
    before = {file: file.read_bytes() for file in vault.rglob("*") if file.is_file()}
    outside = tmp_path / "graph.db"
    for arguments in (
        ("init", vault, "--model", model),
        ("ingest", vault, "--model", model),
        ("search", "apple", "--root", vault, "--model", model),
        ("read", "fruit", "--root", vault),
        ("links", vault),
    ):
        assert run(*arguments, "--database", outside).code == 0
    run("doctor", vault, "--database", outside)
    assert {file: file.read_bytes() for file in vault.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_init_leaves_what_was_there(
    run: Run, vault: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    assert run("init", vault, "--no-embed").code == 0
    before = dump(database(vault))
    for index in range(3000):
        (vault / f"more {index}.md").write_text(f"[[more {index + 1}]] " * 20)
    process = subprocess.Popen(
        [sys.executable, "-m", "resonance", "init", vault, "--no-embed", "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = database(vault).parent
    deadline = time.monotonic() + 30
    while not any(folder.glob(".resonance-build-*/fresh.db")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, (out, err)
    assert out == ""
    assert "Traceback" not in err
    assert sorted(entry.name for entry in folder.iterdir()) == [
        ".gitignore",
        "resonance.db",
        "resonance.db.lock",
    ]
    assert dump(database(vault)) == before
