"""``stats``, ``doctor``, ``migrate``, ``backup``, ``vacuum``."""

from __future__ import annotations

import shutil
from pathlib import Path

from commandline import Run

from resonance import ResonanceDB
from resonance._core import Connection
from support import FIXTURES, dump


def database(vault: Path) -> Path:
    return vault / ".resonance" / "resonance.db"


def test_stats(run: Run, made: Path) -> None:
    told = run("stats", made, "--json").json
    assert (told["nodes"], told["files"], told["vectors"]) == (8, 7, 6)
    assert told["types"] == {"document": 7, "tag": 1}
    assert told["space"] == {"name": "five-words", "dims": 4} | {
        key: told["space"][key] for key in ("revision", "normalisation")
    }
    assert told["root"] == str(made)
    plain = run("stats", made).out
    assert "nodes\t8  (7 document, 1 tag)\n" in plain


def test_doctor_of_a_sound_database(run: Run, made: Path) -> None:
    before = database(made).read_bytes()
    result = run("doctor", made, "--json")
    findings = result.json["findings"]
    assert result.json["ok"] is True
    assert [f for f in findings if f["level"] == "error"] == []
    warnings = [f["check"] for f in findings if f["level"] == "warning"]
    assert (result.code, warnings) in ((0, []), (1, ["engine"])), "an old engine is a finding"
    assert database(made).read_bytes() == before
    assert "probe\twrote a node" in run("doctor", made, "--quick").out


def test_doctor_of_one_that_is_not(run: Run, made: Path) -> None:
    with Connection(database(made), create=False) as connection:
        connection.execute("UPDATE nodes SET embedding = zeroblob(16) WHERE id = 'car'")
    result = run("doctor", made)
    assert result.code == 1
    assert "error\tvectors\t1 vector not of unit length" in result.out
    assert run("doctor", made, "--database", made / "none.db").code == 1
    # What the doctor advises helps.
    assert run("init", made, "--no-embed").code == 0
    assert "error" not in run("doctor", made).out


def test_verify(run: Run, made: Path, model: Path) -> None:
    before = database(made).read_bytes()
    sound = run("verify", made, "--json")
    assert (sound.code, sound.json["ok"], sound.json["differences"]) == (0, True, [])
    digest = sound.json["digest"]["root"]
    assert f"digest\t{digest}\n" in run("verify", made).out
    assert run("verify", made, "--vectors", "--model", model).code == 0
    assert database(made).read_bytes() == before

    (made / "Car.md").write_text("# Car\n\nchanged\n")
    (made / "New.md").write_text("new\n")
    found = run("verify", made)
    assert found.code == 1
    assert (
        found.out
        == "added\tNew.md\tis not in the database\nedited\tCar.md\thas changed since it was indexed\n"
    )
    assert run("verify", made, "--exclude", "New.md", "--json").json["counts"] == {"edited": 1}
    rebuilt = run("init", made, "--model", model, "--json").json
    again = run("verify", made, "--json")
    assert (again.code, again.json["digest"]["root"]) == (0, rebuilt["digest"])
    assert rebuilt["digest"] != digest


def test_verify_knows_the_options_of_the_ingest(run: Run, vault: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    assert run("init", vault, "--no-embed", "--exclude", "food", "--database", path).code == 0
    assert run("verify", "--database", path).code == 0, "from anywhere"
    assert run("verify", vault, "--database", path, "--exclude", "nothing").code == 1
    assert run("verify", vault, "--database", path, "--vectors").code == 2, "there are none"


def test_migrate(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "adopted.db"
    shutil.copyfile(FIXTURES / "amalfa-made.db", path)
    told = run("migrate", "--database", path, "--json").json
    assert told["applied"] == ["0003_truth", "0004_titles", "0005_replaced"]
    with Connection(told["backup"], create=False) as backup:
        assert backup.execute("SELECT count(*) FROM nodes") == [(24,)]
    again = run("migrate", "--database", path, "--json").json
    assert (again["applied"], again["backup"]) == ([], None)
    assert "up to date" in run("migrate", "--database", path).out


def test_backup(run: Run, made: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    told = run("backup", made, "--to", target, "--json").json
    assert (told["path"], told["nodes"]) == (str(target), 8)
    assert dump(target) == dump(database(made))
    again = run("backup", made, "--to", target)
    assert again.code == 2
    assert "never overwrites" in again.err
    beside = run("backup", made)
    assert beside.code == 0
    assert len(list(database(made).parent.glob("resonance.db.*.bak"))) == 1


def test_restore(run: Run, made: Path, tmp_path: Path) -> None:
    target = tmp_path / "monday.db"
    assert run("backup", made, "--to", target).code == 0
    sound = run("verify", made, "--json").json["digest"]["root"]
    (made / "Car.md").unlink()
    assert run("ingest", made, "--no-embed").code == 0
    told = run("restore", target, made, "--json").json
    assert (told["path"], told["nodes"], told["digest"]) == (str(database(made)), 8, sound)
    assert Path(told["saved"]).parent == database(made).parent
    assert run("verify", made).out == "removed\tCar.md\tis not in the vault any more\n"
    plain = run("restore", target, "--root", made)
    assert f"digest\t{sound}\n" in plain.out
    refused = run("restore", made / "Fruit.md", made)
    assert (refused.code, refused.out) == (2, "")
    shutil.rmtree(made / ".resonance")
    assert run("restore", target, made).code == 0
    assert (made / ".resonance/.gitignore").exists()


def test_export(run: Run, made: Path, tmp_path: Path) -> None:
    target = tmp_path / "graph.jsonl"
    told = run("export", made, "--to", target, "--json").json
    assert (told["format"], told["nodes"], told["size_bytes"]) == ("jsonl", 8, target.stat().st_size)
    assert target.read_text().count("\n") == 1 + told["nodes"] + told["edges"] + told["links"]
    again = run("export", made, "--to", target)
    assert (again.code, "never overwrites" in again.err) == (2, True)
    assert run("export", made, "--to", tmp_path / "x", "--format", "graphml").code == 0
    assert run("export", made, "--to", tmp_path / "x.csv").code == 2
    assert run("export", made).code == 2


def test_vacuum(run: Run, made: Path) -> None:
    with ResonanceDB(database(made)) as db:
        db.insert_nodes(id=[f"n{i}" for i in range(2000)], summary="x" * 1000)
        db.delete_nodes([f"n{i}" for i in range(2000)])
    told = run("vacuum", made, "--json").json
    assert told["after"] < told["before"] * 0.7
    assert database(made).stat().st_size == told["after"]


def test_the_doctor_suggests_a_dialect(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "dendron"
    root.mkdir()
    (root / "a.md").write_text("[[See there|b.c]] [[And there|b.d]]")
    (root / "b.c.md").write_text("[[Back|a]]")
    run("init", root, "--no-embed")
    told = run("doctor", root, "--json")
    assert told.code == 1
    (found,) = [finding for finding in told.json["findings"] if finding["check"] == "dialect"]
    assert found["level"] == "warning"
    assert "3 of 3 links in brackets find no note; read as dendron, 2 would" in found["message"]
    assert '"dialect": "dendron" into amalfa.settings.json' in found["message"]
    (root / "amalfa.settings.json").write_text('{"dialect": "dendron"}')
    assert run("ingest", root, "--no-embed").code == 0
    told = run("doctor", root, "--json")
    assert not [finding for finding in told.json["findings"] if finding["check"] == "dialect"]
    assert run("links", root, "--broken", "--json").json[0]["name"] == "b.d"
