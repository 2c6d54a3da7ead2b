"""docs/ is a vault of its own: it is ingested, its links lead somewhere, its examples run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from resonance import ResonanceDB
from resonance.vault.ingest import ingest
from resonance.vault.settings import load_settings

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture
def vault(path):
    with ResonanceDB(path) as db:
        db.report = ingest(db, load_settings(DOCS, database=path, model="none"))
        yield db


def test_every_note_is_in_the_graph(vault):
    assert vault.report.problems == []
    assert vault.report.nodes == len(list(DOCS.glob("*.md")))
    for node in vault.get_nodes(type="document"):
        assert node.summary, node.id
        assert node.date, node.id
        assert node.meta["tags"], node.id


def test_every_link_leads_somewhere(vault):
    broken = [(link.source, link.raw) for link in vault.links() if link.state in ("unresolved", "ambiguous")]
    assert broken == []


def test_every_heading_that_is_linked_to_exists(vault):
    paths = dict(vault.query("SELECT node, path FROM files"))
    for target, fragment in vault.query(
        "SELECT target, fragment FROM links WHERE fragment IS NOT NULL AND state = 'resolved'"
    ):
        text = (DOCS / paths[target]).read_text(encoding="utf-8")
        assert re.search(rf"^#+ {re.escape(fragment)}$", text, re.MULTILINE), (target, fragment)


def test_every_note_can_be_reached_from_the_index(vault):
    edges = vault.query("SELECT source, target FROM edges WHERE type IN ('CITES', 'LINKS_TO')")
    reached, grown = {"index"}, True
    while grown:
        more = {target for source, target in edges if source in reached} - reached
        reached, grown = reached | more, bool(more)
    assert reached == {node for (node,) in vault.query("SELECT node FROM files")}


def test_the_examples_of_the_python_note_run_one_after_the_other(tmp_path):
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 7
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "row 0" in done.stdout
    assert "Built of brass" not in done.stdout


def test_the_note_on_the_command_line_names_every_command():
    from resonance.cli.app import app

    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    for command in app.registered_commands:
        assert f"| `{command.callback.__name__}" in text


def test_the_settings_the_note_on_the_engine_names_are_the_ones_that_are_made():
    from resonance import factory

    text = (DOCS / "engine.md").read_text(encoding="utf-8")
    made = {pragma.name: str(pragma.value) for pragma in factory.PRAGMAS} | {"journal_mode": "WAL"}
    told = dict(re.findall(r"^\| `(\w+)` (\w+)", text, re.MULTILINE))
    assert told
    assert {name: made.get(name) for name in told} == told
