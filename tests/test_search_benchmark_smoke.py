"""The search benchmark runs and checks its answers; how fast they are is none of this file's business."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("ours", "ours-cached", "ours-stream", "numpy")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny run of ours beside NumPy: what it printed, and its JSON."""
    folder = tmp_path_factory.mktemp("benchmarks")
    command = [
        sys.executable,
        "benchmarks/search.py",
        "--scale=tiny",
        "--rounds=2",
        f"--only={','.join(OURS)}",
    ]
    command += [
        f"--only={','.join(OURS)}",
        f"--results={folder / 'search.json'}",
        f"--work={folder / 'work'}",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (case,) = json.loads((folder / "search.json").read_text())["runs"]["tiny"]["cases"]
    assert not any((folder / "work").iterdir())
    return result.stdout, case


@pytest.fixture(scope="module")
def entries(finished):
    return {(each["question"], each["contender"]): each for each in finished[1]["results"]}


def test_everything_is_asked_of_ours(entries):
    for question in "k10 k100 k1000 k10000 filter where many open insert threads".split():
        for who in ("ours", "ours-cached"):
            seconds = entries[question, who]["seconds"]
            assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
    assert len(entries["k10", "numpy"]["turns"]) == 2
    assert entries["k10", "ours"]["ratio"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    assert "absent" in entries["where", "numpy"]


def test_ours_are_the_answers_of_brute_force(entries):
    checked = [each for each in entries.values() if "recall" in each["turns"][0]]
    assert len(checked) == 7 + 7 + 6 + 6
    for each in checked:
        first = each["turns"][0]
        assert first["recall"] == 1
        if each["contender"] != "numpy":
            assert first["same"] == 1
            assert first["worst_score"] < 1e-12


def test_threads_that_ask_while_one_writes_get_right_answers(entries):
    (turn,) = entries["threads", "ours"]["turns"]
    assert (turn["wrong"], turn["errors"]) == (0, 0), turn["first_bad"]
    assert turn["queries"] == 8 * 20


def test_the_table_tells_the_limits_of_the_method_first(finished):
    text = finished[0]
    assert 0 <= text.index("Limits of the method") < text.index("x ours")
    assert "the 10 nearest" in text
