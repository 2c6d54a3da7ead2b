"""The digest: the same vault, the same hash, whatever the way there; another vault, another hash."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vaults import Files, Vault, hash_embedder, write

from resonance import ResonanceDB
from resonance.care.digest import merkle_root
from resonance.care.regenerate import regenerate
from resonance.model import Digest, Node
from resonance.vault.embed import CallableEmbedder
from resonance.vault.ingest import ingest
from resonance.vault.settings import load_settings

Make = Callable[[Files], Vault]

FILES = {
    "Index.md": "---\ntags: [a, b]\ndate: 2024-01-31\n---\n[[Überblick]] [[nowhere]] [[twin]] ![[pic.png]]\n",
    "Überblick.md": "# Über\n\n[x](sub/twin.md) #a/b\n",
    "sub/twin.md": "[[Index]] <https://example.org>\n",
    "other/twin.md": "---\naliases: [Al]\nextra: {b: 1, a: [1.5, null]}\n---\n[[Al]]\n",
    "日本/メモ.md": "[[index]]\n",
    "pic.png": b"\x89PNG",
}


@pytest.fixture
def vault(make_vault: Make) -> Vault:
    vault = make_vault(FILES)
    vault.ingest(embedder=hash_embedder())
    return vault


def anew(vault: Vault) -> Digest:
    """The digest of the vault as it is now, ingested from nothing."""
    with ResonanceDB(":memory:") as db:
        ingest(db, vault.settings, embedder=hash_embedder())
        return db.digest()


def test_the_same_vault_in_another_place_and_another_order(vault: Vault, make_vault: Make) -> None:
    first = vault.db.digest()
    names = list(FILES)
    for seed in range(5):
        random.Random(seed).shuffle(names)
        other = make_vault({name: FILES[name] for name in names})
        for name in names:
            os.utime(other.root / name, (seed, seed))
        other.ingest(embedder=hash_embedder())
        assert other.db.digest() == first
    assert (len(first.root), first.version) == (64, 1)


def test_the_order_in_which_the_disk_lists_them(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    class Listed:
        backwards = False

        def __init__(self, place: Any) -> None:
            self.entries = real(place)

        def __enter__(self) -> Iterator[Any]:
            return iter(sorted(self.entries, key=lambda entry: entry.name, reverse=Listed.backwards))

        def __exit__(self, *_: Any) -> None:
            self.entries.close()

    monkeypatch.setattr(os, "scandir", Listed)
    forwards = anew(vault)
    Listed.backwards = True
    assert anew(vault) == forwards == vault.db.digest()


def test_names_the_disk_spells_in_another_unicode_form(vault: Vault, make_vault: Make) -> None:
    other = make_vault({unicodedata.normalize("NFD", name): text for name, text in FILES.items()})
    other.ingest(embedder=hash_embedder())
    assert other.db.digest() == vault.db.digest()


def edit_and_check(vault: Vault, steps: int, seed: int) -> str:
    """Random edits, moves and removals, in many ingests, each against a fresh start."""
    chance = random.Random(seed)
    names = ["Index.md", "sub/twin.md", "other/twin.md", "a b.md", "a-b.md", "New.md", "é.md", "data"]
    texts = ["[[twin]] ", "[[Al]] ", "#a/b ", "[[New|t]] ", "[t](../a%20b.md) ", "![[data]] ", "text\n"]
    texts.append("# Part\n\n" + "words of it " * 120 + "\n\n")
    compared = 0
    for step in range(steps):
        name, dice = chance.choice(names), chance.random()
        if dice < 0.2:
            (vault.root / name).unlink(missing_ok=True)
        elif dice < 0.4 and (vault.root / name).exists():
            os.replace(vault.root / name, vault.root / chance.choice(names))  # noqa: PTH105  # over another
        else:
            head = chance.choice(["", "---\naliases: Al\n---\n", "---\ndate: 2020-02-02\ntags: x\n---\n"])
            write(vault.root, {name: head + "".join(chance.choices(texts, k=3))})
        if chance.random() < 0.1 or step == steps - 1:
            vault.ingest(embedder=hash_embedder(), yes=True)
            assert vault.db.digest() == anew(vault), f"after step {step}, seed {seed}"
            compared += 1
    return f"{steps} edits done, {compared} comparisons, 0 bad, seed {seed}"


def test_step_by_step_or_at_once(vault: Vault) -> None:
    edit_and_check(vault, 200, seed=7)


@pytest.mark.stress
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(5))
def test_a_thousand_edits_or_at_once(vault: Vault, seed: int) -> None:
    print(edit_and_check(vault, 1000, seed))


def test_a_rebuild_and_what_is_no_part_of_the_vault(vault: Vault) -> None:
    before = vault.db.digest()
    vault.db.set_ember_state("Index.md", confidence=0.5)
    vault.db.update_node_date("sub-twin", "2026-01-01")
    vault.db.insert_node({"id": "sub-twin", "summary": "said by somebody"})
    with vault.db.transaction() as writer:
        writer.execute("UPDATE files SET mtime_ns = 1, inode = 1, size = size + 1")
        writer.execute("UPDATE links SET id = id + 1000")
        writer.execute("UPDATE properties SET value = '/elsewhere' WHERE key = 'vault.root'")
    vault.db.vacuum()
    assert vault.db.digest() == before
    vault.db.close()
    report = regenerate(vault.database, vault.settings, embedder=hash_embedder())
    with ResonanceDB(vault.database) as db:
        assert db.digest() == before
        assert report.digest == before.root
        node = db.get_node("sub-twin")
        assert node is not None
        assert (node.date, node.summary) == ("2026-01-01", "said by somebody"), "the negative control"


CHANGES = {
    "a title": "UPDATE nodes SET title = title || '!' WHERE id = 'index'",
    "a type": "UPDATE nodes SET type = 'x' WHERE id = 'index'",
    "a tag's title": "UPDATE nodes SET title = 'x' WHERE id = '#a'",
    "a hash": "UPDATE nodes SET hash = 'x' WHERE id = 'index'",
    "metadata": "UPDATE nodes SET meta = json_set(meta, '$.extra.a[0]', 1.25) WHERE id = 'other-twin'",
    "metadata that is none": "UPDATE nodes SET meta = '{' WHERE id = 'index'",
    "a date that the note tells": "UPDATE nodes SET date = '2024-01-30' WHERE id = 'index'",
    "an edge": "DELETE FROM edges WHERE source = 'index' AND target = '#a'",
    "an edge's weight": "UPDATE edges SET confidence = 0.5 WHERE source = 'index' AND target = '#a'",
    "an edge's source": "UPDATE edges SET context_source = NULL WHERE source = 'index' AND target = '#a'",
    "another edge": "INSERT INTO edges (source, target, type) VALUES ('index', 'sub-twin', 'x')",
    "a link": "DELETE FROM links WHERE name = 'nowhere'",
    "a link's place": "UPDATE links SET span_start = span_start + 1 WHERE name = 'nowhere'",
    "a link's state": "UPDATE links SET state = 'external' WHERE name = 'nowhere'",
    "candidates": "UPDATE links SET candidates = '[]' WHERE state = 'ambiguous'",
    "a file's hash": "UPDATE files SET hash = '' WHERE node = 'index'",
    "a path": "UPDATE files SET path = 'x.md' WHERE node = 'index'",
    "a node": "INSERT INTO nodes (id) VALUES ('x')",
}


@pytest.mark.parametrize("what", CHANGES)
def test_any_other_change_changes_the_graph(vault: Vault, what: str) -> None:
    before = vault.db.digest()
    with vault.db.transaction() as writer:
        writer.execute(CHANGES[what])
        assert writer.changes == 1
    after = vault.db.digest()
    assert (after.graph != before.graph, after.root != before.root) == (True, True)
    different = {
        node
        for node in before.leaves.keys() | after.leaves.keys()
        if before.leaves.get(node) != after.leaves.get(node)
    }
    assert len(different) == 1
    assert len(after.documents) == 5


def test_vectors_count_by_space_and_text_not_by_their_bits(vault: Vault) -> None:
    before = vault.db.digest()
    with vault.db.transaction() as writer:
        blob = writer.execute("SELECT embedding FROM nodes WHERE id = 'index'")[0][0]
        vector = np.frombuffer(blob, dtype="<f4") * np.float32(1 + 2**-22)
        writer.execute("UPDATE nodes SET embedding = ? WHERE id = 'index'", (vector.tobytes(),))
    assert vault.db.digest() == before, "another machine's last bits"
    seen = {before.root}
    for sql in (
        "UPDATE nodes SET embedding = NULL WHERE id = 'index'",
        "UPDATE spaces SET revision = 'other' WHERE active",
        "UPDATE files SET body_hash = 'x' WHERE node = 'sub-twin'",
    ):
        with vault.db.transaction() as writer:
            writer.execute(sql)
        seen.add(vault.db.digest().root)
    assert len(seen) == 4
    vault.db.insert_nodes(id=["thought"], embedding=[[1.0] * 8], history="rows")
    one = vault.db.digest().vectors
    vault.db.insert_nodes(id=["thought"], embedding=[[1.0] * 7 + [2.0]], history="rows")
    assert vault.db.digest().vectors != one, "a vector without a text is its floats"


def test_a_model_that_changes_its_name_changes_only_the_vectors(vault: Vault) -> None:
    before = vault.db.digest()
    vault.ingest(embedder=CallableEmbedder(hash_embedder().embed, hash_embedder("other").space))
    after = vault.db.digest()
    assert (after.graph, after.leaves) == (before.graph, before.leaves)
    assert after.vectors != before.vectors


def test_an_empty_database_has_a_digest(db_path: Path) -> None:
    with ResonanceDB(db_path) as db:
        empty = db.digest()
        assert (empty.graph, dict(empty.leaves)) == (hashlib.sha256(b"").hexdigest(), {})
        db.insert_node(Node("a"))
        assert db.digest().root != empty.root


@pytest.fixture
def db_path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


def test_the_tree_is_that_of_rfc_6962() -> None:
    """Against the recursive definition of its section 2.1, written out."""

    def tree(hashes: list[bytes]) -> bytes:
        if len(hashes) == 1:
            return hashes[0]
        split = 1 << (len(hashes) - 1).bit_length() - 1
        return hashlib.sha256(b"\1" + tree(hashes[:split]) + tree(hashes[split:])).digest()

    hashes = [hashlib.sha256(bytes([number])).digest() for number in range(40)]
    for count in range(1, 41):
        assert merkle_root(digest.hex() for digest in hashes[:count]) == tree(hashes[:count]).hex()


def test_the_algorithm_as_it_is_written_down(make_vault: Make) -> None:
    """From the description alone, without the code; a change here is a new version."""
    vault = make_vault({"a.md": "[[b]] #t", "b.md": "---\ndate: 2024-01-31\n---\n"})
    vault.ingest()

    def sha(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    def leaf(*lines: list[Any]) -> str:
        told = sorted(json.dumps(line, ensure_ascii=False, separators=(",", ":")) for line in lines)
        return sha("\0" + "".join(line + "\n" for line in told))

    a, b = sha("[[b]] #t"), sha("---\ndate: 2024-01-31\n---\n")
    meta_a = {"aliases": [], "source": "a.md", "tags": ["t"]}
    meta_b = {"aliases": [], "date": "2024-01-31", "source": "b.md", "tags": []}
    tag = leaf(["node", "#t", "tag", "t", "knowledge", "tag", None, None, None, None])
    of_a = leaf(
        ["node", "a", "document", "a", "knowledge", "document", a, meta_a, None, None],
        ["file", "a.md", a, sha("a\n\n[[b]] #t")],
        ["edge", "a", "b", "CITES", 1.0, 1.0, "a.md"],
        ["edge", "a", "#t", "TAGGED_AS", 1.0, 1.0, "a.md"],
        ["link", "a", "wikilink", "CITES", "[[b]]", "b", None, 0, 5, "resolved", "b", None, None],
        ["link", "a", "tag", "TAGGED_AS", "#t", "t", None, 6, 8, "resolved", "#t", None, None],
    )  # fmt: skip
    of_b = leaf(
        ["node", "b", "document", "b", "knowledge", "document", b, meta_b, "2024-01-31", None],
        ["file", "b.md", b, sha("b\n\n")],
    )
    found = vault.db.digest()
    assert dict(found.leaves) == {"#t": tag, "a": of_a, "b": of_b}
    assert dict(found.documents) == {"a.md": of_a, "b.md": of_b}
    inner = hashlib.sha256(b"\1" + bytes.fromhex(tag) + bytes.fromhex(of_a)).digest()
    graph = hashlib.sha256(b"\1" + inner + bytes.fromhex(of_b)).hexdigest()
    assert (found.graph, found.vectors) == (graph, sha(""))
    assert found.root == sha(f"resonance digest 1\n{graph}\n{sha('')}\n")


def test_every_kind_of_row_as_it_is_written_down(make_vault: Make) -> None:
    """Each leaf made from the rows themselves, with Python's JSON and Python's sorting alone."""
    part = "words of it " * 60
    headings = ('# A "b", c', "# d\\\\ e", "# é", "# x, y", "## z", "# tab\tin it")
    files = FILES | {"long.md": "".join(f"{heading}\n\n{part}\n\n" for heading in headings)}
    vault = make_vault(files | {"a b.md": "[[long]] [[twin|x]] [[Twin]]\n", 'q"uote.md': "[[a b]] #a\n"})
    vault.ingest(embedder=hash_embedder())
    db = vault.db
    db.insert_semantic_edge("index", "long", "LIKES", 0.1, 1 / 3)
    db.insert_semantic_edge("index", "a-b", "A", 1e30, 1.0, 'by "hand"')
    db.insert_node({"id": "\U0010ffff\U0010ffff", "meta": {"b": [1.5, "é"], "a": None}, "date": "2020"})
    db.insert_edge("\U0010ffff\U0010ffff", "index")
    with db.transaction() as writer:
        writer.execute('UPDATE sections SET heading = \'[ "\\u00e9","x" ]\' WHERE ordinal = 2')
        writer.execute("UPDATE sections SET heading = 'no JSON' WHERE ordinal = 3")
        writer.execute(
            "INSERT INTO edges (source, target, type, veracity) VALUES ('long', 'index', 'N', NULL)"
        )

    def value(text: str | None) -> Any:
        try:
            return None if text is None else json.loads(text)
        except ValueError:
            return f"no JSON: {text}"

    lines: dict[str, list[list[Any]]] = {}
    of_files = {node for (node,) in db.query("SELECT node FROM files")}
    for node, *columns, meta, date, summary in db.query(
        "SELECT id, type, title, domain, layer, hash, meta, date, summary FROM nodes"
    ):
        if node in of_files and date not in (value(meta) or {}).values():
            date = None
        lines[node] = [["node", node, *columns, value(meta), date, summary]]
    for node, *columns in db.query("SELECT node, path, hash, body_hash FROM files"):
        lines[node].append(["file", *columns])
    for edge in db.query("SELECT source, target, type, confidence, veracity, context_source FROM edges"):
        lines[edge[0]].append(["edge", *edge])
    for *link, candidates in db.query(
        "SELECT source, kind, type, raw, name, fragment, span_start, span_end, state, target, mark, "
        "candidates FROM links"
    ):
        lines[link[0]].append(["link", *link, value(candidates)])
    for node, *columns, heading in db.query(
        "SELECT node, document, ordinal, span_start, span_end, hash, text_hash, heading FROM sections"
    ):
        lines[node].append(["section", *columns, value(heading)])

    def leaf(told: list[list[Any]]) -> str:
        texts = [json.dumps(t, ensure_ascii=False, separators=(",", ":"), sort_keys=True) for t in told]
        return hashlib.sha256(b"\0" + "".join(f"{text}\n" for text in sorted(texts)).encode()).hexdigest()

    expected = {node: leaf(told) for node, told in sorted(lines.items())}
    assert list(db.digest().leaves.items()) == list(expected.items())
    kinds = {(line[0], line[-1] is None) for told in lines.values() for line in told}
    assert {("link", False), ("link", True), ("section", False), ("edge", True), ("edge", False)} <= kinds


ANOTHER = """
import sys
from resonance import ResonanceDB
from resonance.vault.ingest import ingest
from resonance.vault.settings import load_settings
with ResonanceDB(":memory:") as db:
    ingest(db, load_settings(sys.argv[1], database=sys.argv[2], model="none"))
    print(db.digest().root)
"""


def test_another_process_with_another_hash_seed_and_language(make_vault: Make) -> None:
    vault = make_vault(FILES)
    vault.ingest()
    found = set()
    for seed, language in (("1", "C.UTF-8"), ("2", "C")):
        environment = os.environ | {"PYTHONHASHSEED": seed, "LC_ALL": language, "TZ": f"UTC+{seed}"}
        command = [sys.executable, "-c", ANOTHER, str(vault.root), str(vault.database)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        found.add(done.stdout.strip())
    assert found == {vault.db.digest().root}


@pytest.mark.skipif(
    "RESONANCE_CORPORA" not in os.environ, reason="RESONANCE_CORPORA names no folder of vaults"
)
def test_real_vaults_twice(tmp_path: Path) -> None:
    for root in sorted(Path(os.environ["RESONANCE_CORPORA"]).iterdir()):
        if not root.is_dir() or root.name == "cpp-docs":
            continue
        digests = []
        for name in ("one.db", "two.db"):
            with ResonanceDB(tmp_path / f"{root.name}-{name}") as db:
                ingest(db, load_settings(root, database=tmp_path / name, model="none"))
                digests.append(db.digest())
        assert digests[0] == digests[1]
        assert len(digests[0].documents) > 50
