"""An ingest keeps the full-text index in step with the vault."""

import pytest
from vaults import write

from resonance import errors
from resonance.care.health import check_health
from resonance.care.regenerate import regenerate
from resonance.database import ResonanceDB
from resonance.search import text as fulltext

pytestmark = pytest.mark.skipif(fulltext.unable() is not None, reason="this engine has no text search")


def found(vault, text, **how):
    return [hit.id for hit in vault.db.search_text(text, **how)]


@pytest.fixture
def vault(make_vault):
    made = make_vault(
        {
            "pears.md": "---\nalias: Pyrus\ntags: fruit\n---\n# Pears\n\nThey ripen late.\n\n## Storage\n",
            "plums.md": "# Plums\n\nThey ripen early. A note on storage.\n",
            "数据库.md": "# 数据库\n\n全文检索很快。\n",
        }
    )
    assert made.ingest().texts == 3
    return made


def test_title_aliases_tags_headings_and_body_are_found(vault):
    assert found(vault, "pears") == found(vault, "pyrus") == found(vault, "fruit") == ["pears"]
    assert found(vault, "late") == ["pears"]
    assert found(vault, "storage") == ["pears", "plums"]
    assert found(vault, "检索") == found(vault, "数据库") == [vault.db.query("SELECT node FROM files")[-1][0]]
    assert found(vault, "aliases") == []  # a key of the frontmatter


def test_a_note_is_found_by_the_name_of_its_file(make_vault):
    vault = make_vault({"2026-11-30 Alice.md": "# Salaries\n\nMore of them.\n", "b.md": "# Bob\n"})
    vault.ingest()
    node, other = (row[0] for row in vault.db.query("SELECT node FROM files ORDER BY path"))
    assert found(vault, "alice") == found(vault, "2026-11-30") == [node]
    (vault.root / "2026-11-30 Alice.md").rename(vault.root / "2026-11-30 Bob.md")
    vault.ingest()
    assert found(vault, "alice") == []
    assert len(found(vault, "bob")) == 2
    assert found(vault, "salaries") == [node for node in found(vault, "bob") if node != other]


def test_hits_name_their_file_and_carry_its_text(vault):
    hits = vault.db.search_text("early", hydrate=True)
    assert (hits[0].title, hits[0].path) == ("Plums", "plums.md")
    assert hits[0].content.text.startswith("# Plums")
    assert hits.lists == ("text",)


def test_edited_renamed_and_removed_notes(vault):
    vault.write({"plums.md": "# Plums\n\nThey are blue.\n", "quinces.md": "# Quinces\n\nHard.\n"})
    vault.remove("pears.md")
    vault.ingest()
    assert found(vault, "early ripen storage") == []
    assert found(vault, "blue") == ["plums"]
    assert found(vault, "hard") == ["quinces"]
    (vault.root / "plums.md").rename(vault.root / "prunes.md")
    vault.ingest()
    assert found(vault, "blue") == ["prunes"]
    with vault.db.snapshot() as connection:
        assert fulltext.coverage(connection) == (3, (), 0)


def test_only_what_changed_is_indexed_again(vault):
    before = dict(vault.db.query("SELECT node, key FROM texts"))
    vault.write({"plums.md": "# Plums\n\nThey are blue.\n"})
    vault.ingest()
    after = dict(vault.db.query("SELECT node, key FROM texts"))
    assert {node for node in after if after[node] != before[node]} == {"plums"}
    vault.ingest()
    assert dict(vault.db.query("SELECT node, key FROM texts")) == after


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM texts",
        "DELETE FROM text_index",
        "DROP TABLE text_index",
        "UPDATE properties SET value = '0' WHERE key = 'text.rules'",
    ],
)
def test_what_is_missing_is_filled_in_by_the_next_ingest(vault, damage):
    with vault.db.transaction() as connection:
        connection.execute(damage)
    with vault.db.snapshot() as connection:
        assert len(fulltext.coverage(connection).lacking) == 3
    report = vault.ingest()
    assert (report.indexed, report.texts) == (0, 3)
    assert found(vault, "early") == ["plums"]
    with vault.db.snapshot() as connection:
        assert fulltext.coverage(connection) == (3, (), 0)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("DELETE FROM texts WHERE node = 'plums'", "1 of 3 notes not in the text index"),
        ("UPDATE texts SET hash = 'of another version' WHERE node = 'pears'", "1 of 3 notes"),
        ("DROP TABLE text_index", "3 of 3 notes"),
        ("INSERT INTO text_index (rowid, body) VALUES (999, 'words of nobody')", "1 row of no node"),
    ],
)
def test_the_doctor_sees_what_is_missing_and_what_is_too_much(vault, damage, told):
    def findings():
        return [finding for finding in check_health(vault.database) if finding.check == "text"]

    assert [(finding.level, finding.message) for finding in findings()] == [
        ("ok", "3 texts in the index: every note and section")
    ]
    with vault.db.transaction() as connection:
        connection.execute(damage)
    assert any(finding.level == "warning" and told in finding.message for finding in findings())


def test_a_note_that_moves_keeps_its_row(make_vault):
    text = "# Quinces\n\nHard.\n"
    vault = make_vault({"a/quinces.md": text})
    vault.ingest()
    before = vault.db.query("SELECT node FROM texts")
    (vault.root / "b").mkdir()
    (vault.root / "a/quinces.md").rename(vault.root / "b/quinces.md")
    vault.ingest()
    assert before == [("a-quinces",)]
    assert vault.db.query("SELECT node FROM texts") == [("b-quinces",)]
    assert found(vault, "hard") == ["b-quinces"]


def test_a_file_that_changes_while_the_index_is_filled_is_left_to_the_next_ingest(vault):
    with vault.db.transaction() as connection:
        connection.execute("DELETE FROM texts WHERE node = 'plums'")

    def progress(what, done, total):
        if what == "scan":
            write(vault.root, {"plums.md": "# Plums\n\nThey are blue.\n"})

    vault.ingest(progress=progress)
    vault.ingest()
    assert found(vault, "early") == []
    assert found(vault, "blue") == ["plums"]


def test_a_database_that_is_built_anew_is_searched_at_once(vault):
    vault.write({"plums.md": "# Plums\n\nThey are blue.\n"})
    report = regenerate(vault.database, vault.settings)
    assert report.texts == 3
    assert found(vault, "blue") == ["plums"]
    assert found(vault, "early") == []
    with ResonanceDB(vault.database, readonly=True) as other:
        assert [hit.id for hit in other.search_text("pyrus")] == ["pears"]


def test_long_notes_are_found_whole_and_by_their_sections(make_vault):
    part = "Some words that say little, again and again.\n" * 30
    vault = make_vault(
        {
            "fruit.md": f"# Fruit\n\n## Pears\n\n{part}Conference.\n\n## Plums\n\n{part}Mirabelle.\n",
            "jam.md": "# Jam\n\nOf mirabelle.\n",
        }
    )
    assert vault.ingest().texts == 2 + vault.db.query("SELECT count(*) FROM sections")[0][0]
    everything = vault.db.search_text("mirabelle")
    assert {hit.document or hit.id for hit in everything} == {"fruit", "jam"}
    hits = {hit.id: hit for hit in vault.db.search_text("mirabelle", group_by="document", hydrate=True)}
    assert hits.keys() == {"fruit", "jam"}
    assert hits["fruit"].heading[-1] == "Plums"
    assert hits["fruit"].title == "Fruit"
    assert "Mirabelle" in hits["fruit"].content.text
    assert "Conference" not in hits["fruit"].content.text
    assert hits["jam"].section is None
    whole = {hit.id: hit.score for hit in vault.db.search_text("mirabelle", layer="document")}
    assert {node: hit.score for node, hit in hits.items()} == whole
    only = vault.db.search_text("mirabelle", 1, group_by="document", ids=["fruit"])
    assert [hit.id for hit in only] == ["fruit"]
    with pytest.raises(errors.InputError, match="group_by"):
        vault.db.search_text("mirabelle", group_by="section")
