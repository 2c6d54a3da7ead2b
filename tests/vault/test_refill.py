"""A vault's vectors by a second model: made beside the first, of the texts that were indexed."""

import os
import signal
import time

import numpy as np
import pytest
from vaults import Vault, embed_by_hash, hash_embedder

from resonance import ResonanceDB, errors
from resonance.model import Node, Space, SpaceInfo
from resonance.vault.embed import CallableEmbedder
from resonance.vault.ingest import ingest
from resonance.vault.refill import refill
from support import Child, dump, integrity

OLD = hash_embedder("old")


def other_texts(texts):
    """Another model: the same hashes, in another order; nothing to say about N8."""
    rows = embed_by_hash(texts)[:, ::-1].copy()
    rows[[text.startswith("N8") for text in texts]] = 0
    return rows


NEW = CallableEmbedder(other_texts, Space("new", 8))
LONG = "# Long\n\n" + "".join(f"## Part {i}\n\n{f'word{i} ' * 200}\n\n" for i in range(8))


@pytest.fixture
def vault(tmp_path):
    vault = Vault(tmp_path / "vault", tmp_path / "v.db")
    vault.write({f"n{i}.md": f"# N{i}\n\ntext {i} [[n{i + 1}]] #tag\n" for i in range(9)})
    vault.write({"long.md": LONG})
    vault.ingest(embedder=OLD)
    yield vault
    vault.db.close()


def made_from_nothing(vault, embedder, tmp_path):
    with ResonanceDB(tmp_path / "fresh.db") as fresh:
        ingest(fresh, vault.settings, embedder=embedder)
        return vectors(fresh)


def vectors(db):
    return dict(db.query("SELECT id, embedding FROM nodes"))


def counting(embedder):
    seen = []

    def embed(texts):
        seen.extend(texts)
        return embedder.embed(texts)

    return CallableEmbedder(embed, embedder.space), seen


def test_filled_and_switched_it_is_as_if_ingested_with_that_model(vault, tmp_path):
    before = vectors(vault.db)
    report = refill(vault.db, vault.settings, NEW)
    assert (report.missing, report.problems) == (0, [])
    assert vectors(vault.db) == before
    assert vault.db.space == OLD.space
    vault.db.switch_space("new")
    assert vectors(vault.db) == made_from_nothing(vault, NEW, tmp_path)
    assert vectors(vault.db)["n8"] is None
    vault.db.switch_space("old")
    assert vectors(vault.db) == before


def test_a_second_run_embeds_nothing(vault):
    refill(vault.db, vault.settings, NEW)
    embedder, seen = counting(NEW)
    assert refill(vault.db, vault.settings, embedder).vectors == 0
    assert seen == []


def test_an_edit_is_embedded_alone(vault, tmp_path):
    refill(vault.db, vault.settings, NEW)
    vault.write(
        {"n3.md": "# N3\n\nanother text\n", "long.md": LONG.replace("word5", "other5"), "late.md": "x"}
    )
    vault.ingest(embedder=OLD)
    with pytest.raises(errors.SpaceError, match="resonance embed"):
        vault.db.switch_space("new")
    embedder, seen = counting(NEW)
    assert refill(vault.db, vault.settings, embedder).missing == 0
    assert len(seen) == 3
    vault.db.switch_space("new")
    assert vectors(vault.db) == made_from_nothing(vault, NEW, tmp_path)


def test_metadata_and_moves_cost_no_embedding(vault):
    vault.write({"n1.md": "---\nauthor: me\n---\n# N1\n\ntext 1 [[n2]] #tag\n"})
    refill(vault.db, vault.settings, NEW)
    vault.write({"n1.md": "---\nauthor: you\n---\n# N1\n\ntext 1 [[n2]] #tag\n"})
    vault.ingest(embedder=OLD)
    (vault.root / "n2.md").rename(vault.root / "moved.md")
    (vault.root / "long.md").rename(vault.root / "longer.md")
    vault.ingest(embedder=OLD)
    embedder, seen = counting(NEW)
    assert refill(vault.db, vault.settings, embedder).missing == 0
    assert seen == []


def test_a_file_that_has_changed_is_left_to_the_ingest(vault):
    vault.write({"n3.md": "# N3\n\nnot indexed yet\n"})
    (vault.root / "n4.md").unlink()
    report = refill(vault.db, vault.settings, NEW)
    assert {problem.path for problem in report.problems} == {"n3.md", "n4.md"}
    assert (report.missing, report.others) == (2, 0)
    vault.ingest(embedder=OLD)
    report = refill(vault.db, vault.settings, NEW)
    assert (report.vectors, report.missing, report.problems) == (1, 0, [])


def test_an_edit_while_it_embeds_is_not_stored_as_if_it_were_the_text(vault):
    def embed(texts):
        if any("text 3" in text for text in texts):
            vault.write({"n3.md": "# N3\n\nanother text\n"})
            vault.ingest(embedder=OLD)
        return NEW.embed(texts)

    report = refill(vault.db, vault.settings, CallableEmbedder(embed, NEW.space))
    assert report.missing == 1
    assert vault.db.missing_vectors("new").ids == ["n3"]


def test_nodes_that_stand_for_no_text_are_told(vault):
    vault.db.insert_node(Node("mine", embedding=np.ones(8)))
    report = refill(vault.db, vault.settings, NEW)
    assert (report.missing, report.others) == (1, 1)
    vault.db.insert_vectors("new", ["mine"], np.ones((1, 8)))
    assert refill(vault.db, vault.settings, NEW).missing == 0


def test_the_space_in_use_is_the_business_of_the_ingest(vault):
    with pytest.raises(errors.SpaceError, match="in use already"):
        refill(vault.db, vault.settings, OLD)


def test_an_embedder_that_fails_half_way(vault, monkeypatch):
    from resonance.vault import refill as module

    monkeypatch.setattr(module, "TEXTS", 3)
    calls = []

    def embed(texts):
        calls.append(texts)
        if len(calls) == 3:
            raise OSError("out of order")
        return NEW.embed(texts)

    with pytest.raises(errors.EmbedderError, match="out of order"):
        refill(vault.db, vault.settings, CallableEmbedder(embed, NEW.space))
    (info,) = [each for each in vault.db.spaces() if not each.active]
    assert info.vectors > 0
    embedder, seen = counting(NEW)
    assert refill(vault.db, vault.settings, embedder).missing == 0
    assert len(seen) < 20 - 5


def test_an_ingest_with_the_second_model_takes_what_is_kept(vault, tmp_path):
    """Where the settings name a model whose vectors are there, and are meant, nothing is made twice."""
    refill(vault.db, vault.settings, NEW)
    before = vectors(vault.db)
    vault.write({"n3.md": "# N3\n\nanother text\n"})
    embedder, seen = counting(NEW)
    report = vault.ingest(embedder=embedder, yes=True)
    assert "kept" in report.embedding_note
    assert [text.split()[0] for text in seen] == ["N3", "N8"], "the edit, and what the model is silent about"
    assert vectors(vault.db) == made_from_nothing(vault, NEW, tmp_path)
    vault.write({"n3.md": "# N3\n\ntext 3 [[n4]] #tag\n"})
    embedder, seen = counting(OLD)
    vault.ingest(embedder=embedder, yes=True)
    assert len(seen) == 1
    assert vectors(vault.db) == before


def test_what_is_undone_misses_its_vector_in_the_other_space(vault):
    from resonance.vault.tombstones import undo

    refill(vault.db, vault.settings, NEW)
    (vault.root / "n3.md").unlink()
    vault.ingest(embedder=OLD)
    assert vault.db.spaces()[1].is_complete
    vault.write({"n3.md": "# N3\n\ntext 3 [[n4]] #tag\n"})
    undo(vault.db, vault.settings)
    assert vault.db.missing_vectors("new").ids == ["n3"]


def test_undo_never_gives_back_a_vector_of_a_space_that_is_gone(vault):
    """Numbers of spaces are given again."""
    from resonance.vault.tombstones import undo

    refill(vault.db, vault.settings, NEW)
    vault.db.switch_space("new")
    (vault.root / "n3.md").unlink()
    vault.ingest(embedder=NEW)
    vault.db.switch_space("old")
    vault.db.drop_space("new")
    third = CallableEmbedder(embed_by_hash, Space("third", 8))
    refill(vault.db, vault.settings, third)
    vault.db.switch_space("third")
    undo(vault.db, vault.settings)
    assert vectors(vault.db)["n3"] is None


def test_a_second_space_survives_being_built_anew(vault):
    from resonance.care.regenerate import regenerate

    refill(vault.db, vault.settings, NEW)
    vault.write({"n3.md": "# N3\n\nanother text\n"})
    vault.db.close()
    regenerate(vault.database, vault.settings, embedder=OLD)
    vault.db = ResonanceDB(vault.database)
    _, info = vault.db.spaces()
    assert (info.space, info.missing, info.outdated) == (NEW.space, 1, 0)
    assert vault.db.missing_vectors("new").ids == ["n3"]
    refill(vault.db, vault.settings, NEW)
    vault.db.switch_space("new")
    assert integrity(vault.database) == [("ok",)]


@pytest.mark.parametrize("only", [None, ["n3.md"]])
def test_settings_that_name_the_old_model_do_not_switch_back(vault, only):
    refill(vault.db, vault.settings, NEW)
    vault.db.switch_space("new")
    vault.write({"n3.md": "# N3\n\nanother text\n"})
    (vault.root / "n4.md").unlink()
    before = dump(vault.db, ("nodes", "vectors", "spaces", "files"))
    with pytest.raises(errors.SpaceError, match=r"in use are those of new.*db\.switch_space\('old'\)"):
        ingest(vault.db, vault.settings, embedder=OLD, only=only)
    assert dump(vault.db, ("nodes", "vectors", "spaces", "files")) == before
    ingest(vault.db, vault.settings, embedder=NEW, only=only)
    assert vault.db.space == NEW.space


def test_who_says_yes_goes_back_to_the_old_model(vault):
    refill(vault.db, vault.settings, NEW)
    vault.db.switch_space("new")
    report = ingest(vault.db, vault.settings, embedder=OLD, yes=True)
    assert vault.db.space == OLD.space
    assert "the vectors of new" in report.embedding_note


def test_a_model_that_nothing_is_kept_of_takes_over_as_before(vault):
    refill(vault.db, vault.settings, NEW)
    third = CallableEmbedder(embed_by_hash, Space("third", 8))
    vault.write({"n3.md": "# N3\n\nanother text\n"})
    ingest(vault.db, vault.settings, embedder=third)
    assert vault.db.space == third.space


# --- kills -----------------------------------------------------------------------------------------


def slowly(texts):
    time.sleep(0.004)
    return NEW.embed(texts)


def test_killed_while_filling(vault, monkeypatch):
    """kill -9 again and again: each run goes on, and what is there is always of the text it says."""
    from resonance.vault import refill as module

    monkeypatch.setattr(module, "TEXTS", 1)
    vault.write({f"m{i}.md": f"# M{i}\n\nword {i}\n" for i in range(60)})
    vault.ingest(embedder=OLD)
    before, database, options = vectors(vault.db), vault.database, vault.settings
    vault.db.close()

    def fill():
        with ResonanceDB(database) as db:
            refill(db, options, CallableEmbedder(slowly, NEW.space))

    kills, counts = 0, [0]
    while counts[-1] < 60 and kills < 40:
        child = Child(fill)
        time.sleep(0.12)
        kills += child.kill()
        with ResonanceDB(database) as db:
            assert (db.space, vectors(db)) == (OLD.space, before)
            counts.append(next((i.vectors for i in db.spaces() if not i.active), 0))
    assert counts == sorted(counts)
    assert kills > 1
    assert integrity(database) == [("ok",)]
    vault.db = ResonanceDB(database)
    assert refill(vault.db, options, NEW).missing == 0
    vault.db.switch_space("new")
    lacking = {node for node, blob in vectors(vault.db).items() if blob is None}
    assert lacking == {node for node, blob in before.items() if blob is None} | {"n8"}


def test_killed_while_switching(vault):
    """Old or new as a whole; the other one is kept, bit for bit."""
    refill(vault.db, vault.settings, NEW)
    ids = [f"x{i}" for i in range(3000)]
    vault.db.insert_nodes(id=ids, embedding=embed_by_hash(ids))
    vault.db.insert_vectors("new", ids, other_texts(ids))
    old = dump(vault.db, ("nodes", "vectors", "spaces"))
    vault.db.switch_space("new")
    new = dump(vault.db, ("nodes", "vectors", "spaces"))
    in_use = {"old": old["nodes"], "new": new["nodes"]}
    aside = {"new": without_row(old["vectors"]), "old": without_row(new["vectors"])}
    database = vault.database
    vault.db.close()

    def endless():
        with ResonanceDB(database) as db:
            while True:
                for name in ("old", "new"):
                    db.switch_space(name)

    random, seen = np.random.default_rng(1), []
    for _ in range(25):
        child = Child(endless)
        time.sleep(random.uniform(0.03, 0.2))
        assert child.kill()
        with ResonanceDB(database) as db:
            name = db.space.name
            seen.append(name)
            found = dump(db, ("nodes", "vectors"))
            assert found["nodes"] == in_use[name]
            other = {"old": "new", "new": "old"}[name]
            assert without_row(found["vectors"]) == aside[other]
            assert db.search(embed_by_hash(["x7"])[0], 1, space="old")[0].id == "x7"
    assert set(seen) == {"old", "new"}
    assert integrity(database) == [("ok",)]
    vault.db = ResonanceDB(database)


def without_row(rows):
    return sorted(rest for _, *rest in rows)


def test_interrupted_while_filling(vault):
    """Ctrl-C leaves what was stored, and a database in order."""

    def embed(texts):
        os.kill(os.getpid(), signal.SIGINT)
        return NEW.embed(texts)

    with pytest.raises(KeyboardInterrupt):
        refill(vault.db, vault.settings, CallableEmbedder(embed, NEW.space))
    assert vault.db.spaces()[1] == SpaceInfo(NEW.space, False, 0, vault.db.spaces()[1].missing, 0)
    assert refill(vault.db, vault.settings, NEW).missing == 0
