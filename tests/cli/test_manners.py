"""What all commands keep to: streams, exit codes, errors, terminals, hostile input."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import Run

from resonance._core import Connection
from support import contents

READERS = {
    "search": ("search", "fruit"),
    "read": ("read", "fruit"),
    "explore": ("explore", "fruit"),
    "links": ("links",),
    "stats": ("stats",),
    "verify": ("verify",),
    "migrate": ("migrate",),
    "backup": ("backup",),
    "export": ("export", "--to", "export.jsonl"),
    "vacuum": ("vacuum",),
}
FILLERS = {"init": ("init", "--no-embed"), "ingest": ("ingest", "--no-embed")}


def make_foreign(path: Path) -> None:
    with Connection(path) as connection:
        connection.execute("CREATE TABLE orders (x)")


HOSTILE = {
    "a folder": (Path.mkdir, "SettingsError"),
    "a FIFO": (os.mkfifo, "CannotOpenError"),
    "a text": (lambda path: path.write_text("no database " * 1000), "NotADatabaseError"),
    "another program's": (make_foreign, "NotADatabaseError"),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("command", [*READERS, *FILLERS])
def test_a_database_that_is_none_is_refused_in_one_breath(
    run_here: Run, vault: Path, tmp_path: Path, command: str, kind: str
) -> None:
    make, error = HOSTILE[kind]
    place = tmp_path / "place"
    place.mkdir()
    path = place / "x.db"
    make(path)
    before = contents(place)
    arguments = (*(READERS | FILLERS)[command], "--root", vault, "--database", path)
    result = run_here(*arguments, "--json")
    assert result.code == 2, result
    assert result.json["error"]["type"] == error
    assert str(path) in result.json["error"]["message"]
    after = contents(place)
    after.pop("x.db.lock", None)
    assert after == before


@pytest.mark.parametrize("command", READERS)
def test_a_missing_database_is_not_made_by_asking(run_here: Run, vault: Path, command: str) -> None:
    result = run_here(*READERS[command], "--root", vault)
    assert result.code == 2, result
    assert result.out == ""
    assert "does not exist" in result.err
    assert len(result.err.splitlines()) <= 2
    assert not (vault / ".resonance").exists()


@pytest.mark.parametrize("command", [*READERS, *FILLERS, "doctor"])
def test_a_missing_root_is_named(run_here: Run, tmp_path: Path, command: str) -> None:
    arguments = (READERS | FILLERS | {"doctor": ("doctor",)})[command]
    result = run_here(*arguments, "--root", tmp_path / "nowhere", "--json")
    assert result.code == 2
    assert result.json["error"]["type"] == "SettingsError"
    assert "nowhere" in result.json["error"]["message"]


def test_errors_go_to_stderr_and_with_json_to_stdout(run: Run, vault: Path) -> None:
    plain, answer = run("stats", vault), run("stats", vault, "--json")
    assert (plain.out, plain.err.startswith("resonance: ")) == ("", True)
    assert (answer.err, answer.json["error"]["name"]) == ("", "SQLITE_CANTOPEN")
    assert answer.json["error"]["data"] == "unchanged"


@pytest.mark.parametrize("command", [*READERS, *FILLERS, "doctor"])
def test_json_is_one_document_and_nothing_else(run: Run, made: Path, model: Path, command: str) -> None:
    arguments = (READERS | FILLERS | {"doctor": ("doctor",)})[command]
    more = ("--model", model) if command == "search" else ()
    result = run(*arguments, *more, "--root", made, "--json")
    assert result.code in (0, 1), result
    document = json.loads(result.out)
    assert "error" not in document
    assert result.out.count("\n") == 1


def test_json_is_json_whatever_the_encoding(run: Run, vault: Path, environment: dict[str, str]) -> None:
    (vault / "\u00dcberblick.md").write_text("---\ntitle: [\n---\n")
    environment["PYTHONIOENCODING"] = "ascii"
    (problem,) = run("init", vault, "--no-embed", "--json").json["problems"]
    assert problem["path"] == "\u00dcberblick.md"
    assert "\\xdcberblick.md" in run("ingest", vault, "--no-embed").out


def test_the_root_is_given_once(run: Run, vault: Path, tmp_path: Path) -> None:
    result = run("stats", vault, "--root", tmp_path)
    assert result.code == 2
    assert "twice" in result.err
    assert run("init", vault, "--no-embed", "--model", "x").code == 2


def test_a_command_line_that_makes_no_sense_is_answered_in_json_too(run: Run) -> None:
    result = run("search", "fruit", "-k", 0, "--json")
    assert result.code == 2
    assert result.json["error"]["type"] == "UsageError"
    assert "-k" in result.json["error"]["message"]
    assert "-k" in result.err, "people are told as well"


STREAMS = {
    "stats >&- 2>&-": 0,
    "stats --root nowhere 2>&-": 2,
    "read nothing 2>/dev/full": 2,
    "links --json >/dev/full": 2,
}


@pytest.mark.parametrize("command", STREAMS)
def test_streams_that_are_closed_or_full(made: Path, environment: dict[str, str], command: str) -> None:
    script = f"exec '{sys.executable}' -m resonance {command}"
    done = subprocess.run(
        ["sh", "-c", script], cwd=made, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (STREAMS[command], "")
    assert done.stderr.count("\n") == ("--json" in command), done.stderr


def test_what_nobody_thought_of_is_not_taken_for_a_finding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], vault: Path
) -> None:
    from resonance import cli
    from resonance.cli import place

    def ends(error: Exception) -> int:
        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(place, "load_settings", fail)
        monkeypatch.setattr(sys, "argv", ["resonance", "stats", str(vault)])
        monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
        monkeypatch.setattr(cli.warnings, "showwarning", None)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    assert ends(MemoryError()) == 2
    assert capsys.readouterr().err == "resonance: not enough memory\n"
    assert ends(RuntimeError("a fault of ours")) == 2
    assert "Traceback" in capsys.readouterr().err, "for whoever mends it"


def test_a_folder_that_has_been_deleted_is_no_place_to_be(run: Run, made: Path) -> None:
    script = f"rmdir \"$PWD\" && exec '{sys.executable}' -P -m resonance stats"
    here = made / "here"
    here.mkdir()
    done = subprocess.run(["sh", "-c", script], cwd=here, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "resonance: the folder you are in has been deleted; go to another one\n"


def test_help_and_version(run: Run) -> None:
    told = run("--help")
    assert told.code == 0
    assert all(name in told.out for name in [*READERS, *FILLERS, "doctor"])
    assert "--json" in run("search", "--help").out
    assert re.fullmatch(r"resonance \S+ \(SQLite \d+\.\d+\.\d+\)\n", run("--version").out)
    assert run("frobnicate").code == 2


def test_a_pipe_that_closes_early_is_no_drama(made: Path, environment: dict[str, str]) -> None:
    for index in range(300):
        (made / f"n{index}.md").write_text("[[Fruit]] " * 50)
    command = f"'{sys.executable}' -m resonance"
    script = f"{command} ingest --no-embed >/dev/null && {command} links | head -1"
    done = subprocess.run(
        ["sh", "-c", script], cwd=made, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


# --- terminals ------------------------------------------------------------------------------------


def on_terminal(arguments: list[object], environment: dict[str, str]) -> str:
    """What a terminal 60 columns wide is sent, on both streams."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "resonance", *map(str, arguments)],
        env=environment | {"COLUMNS": "60", "TERM": "xterm-256color"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    received = b""
    while True:
        ready, _, _ = select.select([master], [], [], 30)
        assert ready, "silence"
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        received += part
    os.close(master)
    process.wait(timeout=30)
    return received.decode()


COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def test_a_terminal_gets_colour_within_its_width(made: Path, environment: dict[str, str]) -> None:
    for arguments in (["links", made], ["explore", "food-apple", "--root", made], ["doctor", made]):
        shown = on_terminal(arguments, environment)
        assert re.search(r"\x1b\[[0-9;]*3[0-7]m", shown), arguments
        assert max(len(COLOUR.sub("", line)) for line in shown.splitlines()) <= 60
        plain = on_terminal(arguments, environment | {"NO_COLOR": "1"})
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", plain)


def test_a_table_of_nothing_is_not_drawn(made: Path, environment: dict[str, str]) -> None:
    shown = COLOUR.sub("", on_terminal(["verify", made], environment))
    assert "7 notes, each as the vault has it" in shown.replace("\r\n", "\n")
    assert "difference" not in shown


def test_a_bar_is_shown_and_taken_away(made: Path, environment: dict[str, str]) -> None:
    shown = on_terminal(["ingest", made, "--no-embed"], environment)
    assert "\x1b[2K" in shown
    assert "7 found" in COLOUR.sub("", shown)


def test_a_note_cannot_take_over_the_terminal(run: Run, vault: Path, environment: dict[str, str]) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J \u202egnp.exe [bold]x[/bold]"
    (vault / "evil.md").write_text(f"# {evil}\n\n{evil} [[{evil}]]\n")
    run("init", vault, "--no-embed")
    for arguments in (
        ["read", "evil", "--root", vault],
        ["explore", "evil", "--root", vault],
        ["links", vault, "--broken"],
    ):
        shown = on_terminal(arguments, environment)
        assert "\x1b]" not in shown
        assert "\x1b[2J" not in shown
        assert "\x07" not in shown
        assert "\u202e" not in shown
        assert "[bold]x[/bold]" in COLOUR.sub("", shown).replace("\r\n", "")
    assert evil in run("read", "evil", "--root", vault).out, "a pipe gets the text as it is"
