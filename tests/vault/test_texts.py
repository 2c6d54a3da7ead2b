"""An ingest keeps the full-text index in step with the vault."""

import pytest
from vaults import write

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
