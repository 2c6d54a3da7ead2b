"""``embed`` and ``spaces``: a second model beside the first, by the command line."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commandline import WORDS, Run

from resonance import ResonanceDB


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the same five words, in three dimensions."""
    from model2vec import StaticModel
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = {word: index for index, word in enumerate(["[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.normalizer = normalizers.Lowercase()
    vectors = np.array([(0, 0, 0), *(row[1:] for row in WORDS.values())], dtype=np.float32)
    folder = tmp_path_factory.mktemp("models") / "five-other"
    StaticModel(vectors=vectors, tokenizer=tokenizer, config={"normalize": False}).save_pretrained(folder)
    return folder


def database(root: Path) -> Path:
    return root / ".resonance/resonance.db"


def test_fill_list_switch_search_and_back(run: Run, made: Path, model: Path, second: Path) -> None:
    (first,) = run("spaces", "--root", made, "--json").json
    assert (first["space"]["name"], first["active"], first["vectors"]) == ("five-words", True, 6)
    report = run("embed", made, "--model", second, "--json").json
    assert (report["space"]["name"], report["missing"], report["problems"]) == ("five-other", 0, [])
    assert run("search", "fruit", "--model", model, "--root", made, "--mode", "vector").code == 0
    rows = [line.split("\t") for line in run("spaces", "--root", made).out.splitlines()]
    assert [(row[0].split("@")[0], row[1], row[3], row[5]) for row in rows] == [
        ("five-words", "4", "0", "in use"),
        ("five-other", "3", "0", "kept"),
    ]
    assert "of other spaces" in run("stats", made).out
    told = run("spaces", "switch", "five-other", made, "--json").json
    assert (told["active"], told["complete"], told["vectors"]) == (True, True, report["vectors"])
    assert run("search", "car", "--model", second, "--root", made, "--mode", "vector").code == 0
    refused = run("search", "car", "--model", model, "--root", made, "--mode", "vector")
    assert refused.code == 2
    assert "five-other" in refused.err
    switched = run("spaces", "switch", "five-words", "--root", made)
    assert switched.code == 0
    assert "in use\tfive-words" in switched.out
    assert "embeddings.model" in switched.err
    dropped = run("spaces", "drop", "five-other", "--root", made)
    assert dropped.out == "dropped\t6 vectors of five-other\n"
    assert len(run("spaces", "--database", database(made), "--json").json) == 1


def test_a_space_with_vectors_missing_is_not_switched_to(
    run: Run, made: Path, model: Path, second: Path
) -> None:
    run("embed", made, "--model", second)
    (made / "Late.md").write_text("engine\n")
    run("ingest", made, "--model", model)
    refused = run("spaces", "switch", "five-other", "--root", made, "--json")
    assert refused.code == 2
    assert refused.json["error"]["type"] == "SpaceError"
    assert "1 node without" in refused.json["error"]["message"]
    (made / "Late.md").write_text("engine, and not indexed\n")
    result = run("embed", made, "--model", second)
    assert result.code == 1
    assert "Late.md\tis another text" in result.out
    told = run("spaces", "switch", "five-other", "--root", made, "--partial", "--json").json
    assert (told["missing"], told["complete"]) == (1, False)


def test_an_ingest_by_old_settings_does_not_switch_back(
    run: Run, made: Path, model: Path, second: Path
) -> None:
    run("embed", made, "--model", second)
    run("spaces", "switch", "five-other", "--root", made)
    (made / "Late.md").write_text("engine\n")
    refused = run("ingest", made, "--model", model, "--json")
    assert (refused.code, refused.json["error"]["type"]) == (2, "SpaceError")
    assert "in use are those of five-other" in refused.json["error"]["message"]
    assert run("ingest", made, "--no-embed", "--json").code == 0
    assert run("ingest", made, "--model", second, "--json").json["embedding"]["name"] == "five-other"
    (made / "Later.md").write_text("engine\n")
    switched = run("ingest", made, "--model", model, "--yes", "--json")
    assert (switched.code, switched.json["embedding"]["name"]) == (0, "five-words")


def test_what_cannot_be(run_here: Run, made: Path, model: Path) -> None:
    for arguments, error in (
        (("embed", made, "--model", model), "SpaceError"),
        (("embed", made, "--model", "none"), "EmbedderError"),
        (("spaces", "switch", "nobody", "--root", made), "SpaceError"),
        (("spaces", "drop", "five-words", "--root", made), "SpaceError"),
    ):
        result = run_here(*arguments, "--json")
        assert (result.code, result.json["error"]["type"]) == (2, error)
    assert run_here("spaces", "--json", "switch", "five-words").code == 2


def test_ctrl_c_and_a_second_run(made: Path, second: Path, run: Run, environment: dict[str, str]) -> None:
    for index in range(4000):
        (made / f"n{index}.md").write_text(f"# n{index}\n\ncar {index}\n")
    run("ingest", made, "--no-embed")
    process = subprocess.Popen(
        [sys.executable, "-m", "resonance", "embed", made, "--model", second],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with ResonanceDB(database(made)) as db:
        deadline = time.monotonic() + 60
        while db.get_stats().other_vectors < 200:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert "Traceback" not in err
        stored = db.get_stats().other_vectors
    assert process.returncode == 130
    assert stored >= 200
    report = run("embed", made, "--model", second, "--json").json
    assert report["missing"] == 0
    assert report["vectors"] + stored == 4006


def test_the_doctor_knows_what_is_kept(run: Run, made: Path, second: Path) -> None:
    run("embed", made, "--model", second)
    findings = {f["check"]: f for f in run("doctor", made, "--json").json["findings"]}
    assert findings["spaces"]["level"] == "info"
    assert "complete" in findings["spaces"]["message"]
    with ResonanceDB(database(made)) as db, db.transaction() as connection:
        connection.execute("UPDATE vectors SET embedding = zeroblob(12) WHERE node = 'fruit'")
    findings = {f["check"]: f for f in run("doctor", made, "--json").json["findings"]}
    assert findings["spaces"]["level"] == "error"
    assert "fruit" in findings["spaces"]["message"]
