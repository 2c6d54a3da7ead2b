"""The benchmarks run, count right and say what they measured; how fast is none of this file's business."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from resonance import engine

ROOT = Path(__file__).parent.parent
# The limit, plain C over the very object that `make setup` compiled, where there is one.
BUILT_HERE = engine()["bundled"] and (ROOT / "build" / "dev").is_dir()
CONTENDERS = {
    "nodes": {"stdlib", "ours", "ours-shared", "ours-fresh"} | ({"c-best"} if BUILT_HERE else set()),
    "edges": {"stdlib", "ours", "ours-shared"} | ({"c-best"} if BUILT_HERE else set()),
    "matrix": {"stdlib", "ours"},
}
SPREAD = {"median", "min", "max"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny run of ours beside the baseline: what it printed, and where its JSON is."""
    folder = tmp_path_factory.mktemp("benchmarks")
    names = sorted(set.union(*CONTENDERS.values()))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "benchmarks"]
    command += ["--scale=tiny", "--rounds=1", f"--only={','.join(names)}"]
    command += [f"--results={folder / 'results.json'}", f"--work={folder / 'work'}"]
    result = subprocess.run(
        command,
        cwd=ROOT,
        # A run of its own, though the tests may run side by side: benchmarks refuse to then.
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout, folder / "results.json"


@pytest.fixture(scope="module")
def run(finished):
    kept = json.loads(finished[1].read_text())
    assert kept["format"] == 1
    assert list(kept["runs"]) == ["tiny"]
    return kept["runs"]["tiny"]


def test_every_contender_is_measured(run):
    found = {}
    for entry in run["results"]:
        found.setdefault(entry["question"], set()).add(entry["contender"])
    assert found == CONTENDERS


def test_everybody_has_as_many_rows_as_were_given(run):
    for entry in run["results"]:
        assert "error" not in entry
        given = entry["edges"] or entry["nodes"]
        assert entry["rows"] == given
        assert [each["rows"] for each in entry["rounds"]] == [given]


def test_times_sizes_memory_and_ratios_are_told(run):
    for entry in run["results"]:
        assert set(entry["seconds"]) == set(entry["ratio"]) == SPREAD
        assert 0 < entry["seconds"]["min"] <= entry["seconds"]["median"] <= entry["seconds"]["max"]
        assert entry["rate"] > 0
        assert entry["disk_bytes"] > 0
        assert entry["peak_bytes"] >= entry["added_bytes"] >= 0
        if entry["contender"] == "stdlib":
            assert entry["ratio"] == {"median": 1.0, "min": 1.0, "max": 1.0}


def test_the_circumstances_are_told(run):
    assert run["scale"] == "tiny"
    assert run["rounds"] == 1
    assert {"version", "origin", "source_id"} == set(run["engine"])
    assert run["versions"]["resonance"]
    assert run["machine"]["cores"] >= 1


def test_the_table_tells_the_limits_of_the_method_first(finished):
    text = finished[0]
    assert 0 <= text.index("Limits of the method") < text.index("x baseline")


def test_nothing_is_left_behind(finished):
    assert not any((finished[1].parent / "work").iterdir())
