"""``search``, ``read``, ``explore``, ``links``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from commandline import Run

from resonance import ResonanceDB

HIT = {"id", "score", "title", "path", "state", "section", "heading", "span"}


def test_search_answers_a_list_of_hits(run: Run, made: Path, model: Path) -> None:
    result = run("search", "pear", "-k", 3, "--mode", "vector", "--root", made, "--model", model, "--json")
    assert result.code == 0, result
    hits = result.json
    assert [hit["id"] for hit in hits] == ["food-pear", "fruit", "food-apple"]
    assert all(hit.keys() == HIT for hit in hits)
    assert hits[0] | {"score": 1} == {
        "id": "food-pear",
        "score": 1,
        "title": "Pear",
        "path": "food/Pear.md",
        "state": "fresh",
        "section": None,
        "heading": [],
        "span": None,
    }
    assert hits[0]["score"] == pytest.approx(1, abs=0.01)
    assert hits[0]["score"] >= hits[1]["score"] >= hits[2]["score"]


def test_a_hit_says_whether_its_text_is_still_what_was_indexed(run: Run, made: Path, model: Path) -> None:
    (made / "food/Pear.md").write_text("about something else")
    (made / "food/Apple.md").rename(made / "Moved.md")
    (made / "Fruit.md").unlink()
    hits = run("search", "fruit", "-k", 3, "--root", made, "--model", model, "--json").json
    states = {hit["id"]: (hit["state"], hit["path"]) for hit in hits}
    assert states == {
        "fruit": ("missing", "Fruit.md"),
        "food-apple": ("moved", "Moved.md"),
        "food-pear": ("changed", "food/Pear.md"),
    }


def test_a_node_without_a_file_has_no_state(run: Run, made: Path, model: Path) -> None:
    with ResonanceDB(made / ".resonance/resonance.db") as db:
        db.insert_nodes(id=["alone"], embedding=[[0, 0, 1, 0]])
        db.insert_nodes(id=["alone2"], type="special", embedding=[[0, 1, 0, 0]])
    arguments = ("search", "car", "--type", "special", "--root", made, "--model", model)
    (hit,) = run(*arguments, "--json").json
    assert (hit["id"], hit["state"], hit["path"]) == ("alone2", None, None)
    assert run(*arguments).out.split("\t")[1] == "alone2"


def test_search_without_a_database_or_a_model(run: Run, made: Path) -> None:
    wrong = run("search", "fruit", "--mode", "vector", "--root", made, "--json")
    assert wrong.code == 2
    assert wrong.json["error"]["type"] == "EmbedderError"
    assert "five-words" in wrong.json["error"]["message"]
    missing = run("search", "fruit", "--root", made, "--database", made / "none.db")
    assert missing.code == 2
    assert "does not exist" in missing.err
    assert not (made / "none.db").exists()


def test_a_query_of_unknown_words_says_so(run: Run, made: Path, model: Path) -> None:
    result = run("search", "xyzzy", "--root", made, "--model", model)
    assert result.code == 2
    assert "knows no word" in result.err


def test_vectors_without_a_named_model_can_be_searched_with_one_that_is_named(
    run: Run, tmp_path: Path, model: Path
) -> None:
    path = tmp_path / "made.db"
    with ResonanceDB(path) as db:
        db.insert_nodes(id=["x", "y"], embedding=[[1, 0, 0, 0], [0, 1, 0, 0]])
    refused = run("search", "fruit", "--database", path)
    assert refused.code == 2
    assert "--model" in refused.err
    assert "fastembed" not in refused.err, "nothing to install is called `unnamed`"
    hits = run("search", "fruit", "--database", path, "--model", model, "--json").json
    assert [hit["id"] for hit in hits] == ["x", "y"]


def test_read_prints_the_text_and_nothing_else(run: Run, made: Path) -> None:
    for name in ("food-pear", "food/Pear.md", "Pear"):
        result = run("read", name, "--root", made)
        assert (result.code, result.out) == (0, "# Pear\n\npear pear #food\n\nSee [Apple](Apple.md).\n")
        assert "fresh" in result.err


def test_read_says_when_the_text_is_not_what_was_indexed(run: Run, made: Path) -> None:
    (made / "food/Pear.md").write_text("about something else")
    changed = run("read", "food-pear", "--root", made)
    assert (changed.code, changed.out) == (1, "about something else\n")
    assert "changed" in changed.err
    (made / "food/Pear.md").unlink()
    missing = run("read", "food-pear", "--root", made)
    assert (missing.code, missing.out) == (1, "")
    assert "missing" in missing.err
    answer = run("read", "food-pear", "--root", made, "--json")
    assert answer.code == 1
    assert (answer.json["state"], answer.json["text"]) == ("missing", None)


def test_read_of_a_moved_note(run: Run, made: Path) -> None:
    (made / "food/Pear.md").rename(made / "Birne.md")
    result = run("read", "food-pear", "--root", made, "--json")
    assert result.code == 0
    assert (result.json["state"], result.json["path"]) == ("moved", "Birne.md")
    assert result.json["text"].startswith("# Pear")


def test_a_vault_that_has_moved_with_its_database_is_found(run: Run, made: Path, tmp_path: Path) -> None:
    moved = made.rename(tmp_path / "moved")
    for named in ((), ("--root", moved), ("--database", moved / ".resonance/resonance.db")):
        result = run("read", "food-pear", *named, "--json", cwd=moved)
        assert (result.code, result.json["state"]) == (0, "fresh"), result


def test_a_database_whose_vault_is_not_there_can_be_searched(
    run_here: Run, made: Path, tmp_path: Path
) -> None:
    database = shutil.copyfile(made / ".resonance/resonance.db", tmp_path / "copy.db")
    made.rename(tmp_path / "unmounted")
    result = run_here("search", "pear", "--mode", "text", "--database", database, "--json")
    (hit,) = result.json
    assert (result.code, hit["id"], hit["path"], hit["state"]) == (0, "food-pear", "food/Pear.md", None)
    assert "not known whether the texts are as they were indexed" in result.err


def test_a_vault_that_has_moved_without_its_database_is_found_where_the_root_says(
    run: Run, made: Path, tmp_path: Path
) -> None:
    database = shutil.copy(made / ".resonance/resonance.db", tmp_path / "apart.db")
    moved = made.rename(tmp_path / "moved")
    assert run("read", "food-pear", "--database", database, cwd=moved).code == 2
    assert run("read", "food-pear", "--database", database, "--root", moved).code == 0


def test_a_node_that_does_not_exist(run: Run, made: Path) -> None:
    result = run("read", "food-paer", "--root", made)
    assert result.code == 2
    assert "did you mean food-pear" in result.err
    error = run("explore", "Paer", "--root", made, "--json").json["error"]
    assert error["type"] == "UnknownNodeError"
    assert "food-pear" in error["notes"][0]


def test_a_title_of_two_nodes_is_not_guessed(run: Run, made: Path) -> None:
    result = run("read", "Twin", "--root", made)
    assert result.code == 2
    assert "one-twin, two-twin" in result.err
    assert run("read", "one/Twin.md", "--root", made).out == "car\n"


def test_a_node_without_a_file_cannot_be_read(run: Run, made: Path) -> None:
    result = run("read", "#food", "--root", made)
    assert result.code == 2
    assert "stands for no file" in result.err


def test_explore(run: Run, made: Path) -> None:
    told = run("explore", "food-apple", "-k", 2, "--root", made, "--json").json
    assert told["node"] | {"meta": None} == {
        "id": "food-apple",
        "title": "Apple",
        "type": "document",
        "date": None,
        "summary": None,
        "tags": [],
        "aliases": [],
        "meta": None,
        "path": "food/Apple.md",
        "state": "fresh",
    }
    assert [(link["type"], link["id"], link["title"]) for link in told["outgoing"]] == [
        ("CITES", "fruit", "Fruit")
    ]
    assert [(link["type"], link["id"]) for link in told["incoming"]] == [
        ("CITES", "fruit"),
        ("LINKS_TO", "food-pear"),
    ]
    assert [(link["raw"], link["state"]) for link in told["broken"]] == [("[[Nowhere]]", "unresolved")]
    assert [near["id"] for near in told["nearest"]] == ["fruit", "food-pear"]


def test_explore_in_plain_text(run: Run, made: Path) -> None:
    lines = run("explore", "Fruit", "--root", made).out.splitlines()
    assert "summary\tWhat grows on trees" in lines
    assert "tags\tfood" in lines
    assert "links to\tCITES\tApple\tfood-apple" in lines
    assert "links to\tTAGGED_AS\tfood\t#food" in lines


def test_links(run: Run, made: Path) -> None:
    result = run("links", made, "--json")
    assert result.code == 0
    assert len(result.json) == 8
    (one,) = [link for link in result.json if link["raw"] == "[[Nowhere]]"]
    assert (one["path"], one["line"], one["state"], one["target"]) == ("food/Apple.md", 3, "unresolved", None)
    to = run("links", made, "--to", "Apple", "--json").json
    assert [(link["path"], link["line"]) for link in to] == [("food/Pear.md", 5), ("Fruit.md", 8)]
    assert len(run("links", made, "--from", "Links.md", "--json").json) == 2


def test_broken_links_are_findings(run: Run, made: Path) -> None:
    result = run("links", made, "--broken")
    assert result.code == 1
    assert result.out.splitlines() == [
        "food/Apple.md:3\t[[Nowhere]]\tunresolved\t",
        "Links.md:3\t[[Twin]]\tambiguous\tone-twin, two-twin",
    ]
    assert run("links", made, "--broken", "--from", "Fruit").code == 0


def test_a_line_is_not_told_of_a_file_that_has_changed(run: Run, made: Path) -> None:
    (made / "food/Apple.md").write_text("\n\n\n\n[[Nowhere]]\n")
    lines = run("links", made, "--broken").out.splitlines()
    assert "food/Apple.md\t[[Nowhere]]\tunresolved\t" in lines


MARKED = {
    "Hub.md": "[[a]]",
    "a.md": "[[hub]] ![[gone.png]] [x](../out.md) [[Hub]]\n",
    "b.md": "[[Hub]] [x](..\\a.md) [x](a.md)\n",
}


@pytest.fixture
def marked(run: Run, tmp_path: Path) -> Path:
    root = tmp_path / "marked"
    root.mkdir()
    for name, text in MARKED.items():
        (root / name).write_text(text)
    assert run("init", root, "--no-embed").code == 0
    return root


def test_links_tell_what_is_odd_about_them(run: Run, marked: Path) -> None:
    assert run("links", marked, "--from", "a.md").out.splitlines() == [
        "a.md:1\t[[hub]]\tresolved\thub (but for the case of letters)",
        "a.md:1\t![[gone.png]]\texternal\tgone.png (not there)",
        "a.md:1\t[x](../out.md)\texternal\t../out.md (outside of the vault)",
        "a.md:1\t[[Hub]]\tresolved\thub",
    ]
    told = run("links", marked, "--kind", "wikilink", "--state", "resolved", "--json").json
    assert [(link["raw"], link["mark"]) for link in told] == [
        ("[[hub]]", "case"),
        ("[[Hub]]", None),
        ("[[Hub]]", None),
        ("[[a]]", None),
    ]


def test_a_file_that_is_not_there_is_a_broken_link(run: Run, marked: Path) -> None:
    result = run("links", marked, "--broken")
    assert result.code == 1
    assert result.out.splitlines() == [
        "a.md:1\t![[gone.png]]\texternal\tgone.png (not there)",
        "b.md:1\t[x](..\\a.md)\tunresolved\t(with / for \\ it would fit)",
    ]
    (marked / "gone.png").touch()
    (marked / "b.md").write_text("[x](a.md)")
    run("ingest", marked, "--no-embed")
    assert run("links", marked, "--broken").code == 0
    assert run("links", marked, "--state", "nowhere").code == 2


def test_a_heading_that_is_not_there_is_a_broken_link(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "anchored"
    root.mkdir()
    (root / "a.md").write_text(f"# One\n\n{'words ' * 300}\n\n## Two\n\n{'words ' * 300}\n")
    (root / "b.md").write_text("[[a#Two]]\n[[a#Three]]\n[[a]] [[B#One]]\n")
    assert run("init", root, "--no-embed").code == 0
    result = run("links", root, "--broken")
    assert result.code == 1
    assert result.out.splitlines() == [
        "b.md:2\t[[a#Three]]\tresolved\ta (no such place: #Three)",
        "b.md:3\t[[B#One]]\tresolved\tb (but for the case of letters; no such place: #One)",
    ]
    told = run("links", root, "--json").json
    assert [(link["raw"], link["state"], link["anchor"], link["section"]) for link in told] == [
        ("[[a#Two]]", "resolved", "found", "a#two"),
        ("[[a#Three]]", "resolved", "missing", None),
        ("[[a]]", "resolved", None, None),
        ("[[B#One]]", "resolved", "missing", None),
    ]
    assert "b.md:1\t[[a#Two]]\tresolved\ta#two" in run("links", root).out
    (root / "a.md").write_text("# Three\n\n# One\n")
    (root / "b.md").write_text("# One\n\n[[a#Three]] [[b#One]]\n")
    run("ingest", root, "--no-embed")
    assert run("links", root, "--broken").code == 0


def test_a_heading_of_a_note_that_has_changed_since_is_not_said_to_be_there(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "edited"
    root.mkdir()
    (root / "a.md").write_text("# One\n")
    (root / "b.md").write_text("[[a#One]] [[a]] [[nobody]]\n")
    assert run("init", root, "--no-embed").code == 0
    (root / "a.md").write_text("# Two\n")
    result = run("links", root, "--broken")
    assert result.code == 1
    assert result.out.splitlines() == [
        "b.md:1\t[[a#One]]\tresolved\ta (not as it was indexed: #One may be there or not)",
        "b.md:1\t[[nobody]]\tunresolved\t",
    ]
    assert "1 broken link\n" in result.err
    assert "1 link to a place in a note that cannot be read or is not as it was indexed" in result.err
    told = run("links", root, "--broken", "--json")
    assert (told.code, [link["anchor"] for link in told.json]) == (1, ["unknown", None])
    (root / "b.md").write_text("[[a#One]]\n")
    run("ingest", root, "--no-embed")
    (root / "a.md").write_text("# One\n")
    stale = run("links", root, "--broken")
    assert (stale.code, "leads somewhere" in stale.err) == (1, False)
    run("ingest", root, "--no-embed")
    assert run("links", root, "--broken").code == 0


def test_explore_without_the_hubs(run: Run, marked: Path) -> None:
    told = run("explore", "b", "--root", marked, "--json").json
    assert {other["id"] for other in told["outgoing"]} == {"hub", "a"}
    told = run("explore", "b", "--root", marked, "--max-degree", 2, "--json").json
    assert told["outgoing"] == []
    assert {
        other["id"]
        for other in run("explore", "b", "--root", marked, "--max-degree", 3, "--json").json["outgoing"]
    } == {"hub", "a"}


def test_search_by_words_by_meaning_and_by_both(run: Run, made: Path, model: Path) -> None:
    arguments = ("search", "pear", "--root", made, "--json")
    words = run(*arguments, "--mode", "text")
    assert words.json[0]["id"] == "food-pear"
    assert words.err == ""
    both = run(*arguments, "--model", model, "--explain").json
    assert both[0]["id"] == "food-pear"
    assert both[0]["ranks"]["text"]["rank"] == both[0]["ranks"]["vector"]["rank"] == 1
    assert both[0]["score"] == pytest.approx(2 / 61)
    lines = run("search", "pear", "--root", made, "--model", model, "--explain").out.splitlines()
    assert lines[0].split("\t")[-1] == "vector 1, text 1"


def test_a_model_that_was_named_is_not_replaced_by_the_default_one(
    run_here: Run, vault: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESONANCE_MODEL_DIR", str(model))
    assert run_here("init", vault).code == 0
    for mode in ("hybrid", "vector"):
        asked = ("search", "pear", "--root", vault, "--mode", mode, "--json")
        assert run_here(*asked).json[0]["id"] == "food-pear"
        refused = run_here(*asked, "--model", vault / "no-model")
        assert (refused.code, refused.json["error"]["type"]) == (2, "EmbedderError")
        assert "no-model" in refused.json["error"]["message"]


def test_without_a_model_words_work_alone_and_people_are_told(run: Run, made: Path, model: Path) -> None:
    result = run("search", "pear", "--root", made, "--json")
    assert result.code == 0
    assert result.json[0]["id"] == "food-pear"
    assert "no list by meaning" in result.err
    assert "five-words" in result.err
    # A model that was named is not done without.
    assert run("search", "pear", "--root", made, "--model", made / "no-model").code == 2
