"""Sections on the command line: one hit a note, with the place in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commandline import Run

FILLER = "and so it goes on, with words that the model has never heard of. "
LONG = f"# Garden\n\n{FILLER}\n\n## Trees\n\nfruit pear {FILLER}\n\n## Garage\n\ncar car {FILLER}\n"


@pytest.fixture
def vault(run: Run, tmp_path: Path, model: Path) -> Path:
    root = tmp_path / "garden"
    root.mkdir()
    rules = {"sections": {"min_chars": 40, "max_chars": 120, "overlap_chars": 0}}
    (root / "amalfa.settings.json").write_text(json.dumps(rules))
    (root / "Long.md").write_text("---\ntags: [x]\n---\n" + LONG)
    (root / "Other.md").write_text("# Other\n\ncar [[Long#Trees]]\n")
    told = run("init", root, "--model", model, "--json").json
    assert (told["files"], told["nodes"], told["sections"], told["vectors"]) == (2, 2, 3, 2)
    return root


def test_a_hit_is_a_note_and_says_where_in_it(run: Run, vault: Path, model: Path) -> None:
    hits = run("search", "pear", "--root", vault, "--model", model, "--json").json
    assert [hit["id"] for hit in hits] == ["long", "other"]
    start = (vault / "Long.md").read_text().index("## Trees")
    assert hits[0] | {"score": 0} == {
        "id": "long",
        "score": 0,
        "title": "Garden",
        "path": "Long.md",
        "state": "fresh",
        "section": "long#trees",
        "heading": ["Garden", "Trees"],
        "span": [start, (vault / "Long.md").read_text().index("## Garage")],
    }
    plain = run("search", "pear", "-k", 1, "--root", vault, "--model", model).out
    assert plain.rstrip("\n").split("\t")[1:] == ["long", "Garden", "Long.md", "fresh", "Trees"]


def test_a_hit_tells_where_its_section_is_now(run: Run, vault: Path, model: Path) -> None:
    text = (vault / "Long.md").read_text()
    (vault / "Long.md").write_text(text.replace("# Garden", "New words.\n\n# Garden"))
    hit = run("search", "pear", "-k", 1, "--root", vault, "--model", model, "--json").json[0]
    assert (hit["state"], hit["span"][0]) == ("moved", text.index("## Trees") + len("New words.\n\n"))


def test_a_section_can_be_read_and_explored(run: Run, vault: Path) -> None:
    done = run("read", "long#trees", "--root", vault)
    assert done.out == f"## Trees\n\nfruit pear {FILLER}\n\n"
    assert done.err == "Long.md: fresh\n"
    told = run("explore", "long", "--root", vault, "--json").json
    assert [(s["id"], s["heading"]) for s in told["sections"]] == [
        ("long#^", ["Garden"]),
        ("long#trees", ["Garden", "Trees"]),
        ("long#garage", ["Garden", "Garage"]),
    ]
    assert [(e["type"], e["id"]) for e in told["incoming"]] == [("CITES", "other")]
    assert [near["id"] for near in told["nearest"]] == ["other"]
    part = run("explore", "Trees", "--root", vault, "--json").json
    assert (part["node"]["document"], part["node"]["heading"]) == ("long", ["Garden", "Trees"])
    assert [near["id"] for near in part["nearest"]] == ["other"]
    assert [(e["type"], e["id"]) for e in part["outgoing"]] == [("PART_OF", "long")]
    plain = run("explore", "long", "--root", vault).out
    assert "sections\t\tTrees\tlong#trees\n" in plain


def test_a_title_names_the_note_before_a_section(run: Run, vault: Path) -> None:
    told = run("explore", "Garden", "--root", vault, "--json").json
    assert told["node"]["id"] == "long"
    near = run("read", "long#tree", "--root", vault)
    assert "long#trees" in near.err


def test_the_types_of_a_search_are_those_of_notes(run: Run, vault: Path, model: Path) -> None:
    arguments = ("search", "pear", "--root", vault, "--model", model, "--json")
    assert [hit["id"] for hit in run(*arguments, "--type", "document").json] == ["long", "other"]
    assert run(*arguments, "--type", "section").json == []
