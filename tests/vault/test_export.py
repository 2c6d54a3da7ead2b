"""Exports: a new file that other programs can read, with where each text and link stands and how it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from vaults import Files, Vault, hash_embedder

from resonance import ResonanceDB
from resonance.care.export import export
from resonance.errors import ExportError, InputError

Make = Callable[[Files], Vault]
GRAPHML = "{http://graphml.graphdrawing.org/xmlns}"


@pytest.fixture
def vault(make_vault: Make) -> Vault:
    vault = make_vault(
        {"a.md": '---\ntitle: Ünï <&> "x"\n---\n[[b]] [[nowhere]] #t\n', "b.md": "gone", "c.md": "c"}
    )
    vault.ingest(embedder=hash_embedder())
    vault.write({"c.md": "changed"})
    vault.remove("b.md")
    return vault


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def test_json_lines(vault: Vault, tmp_path: Path) -> None:
    target = tmp_path / "graph.jsonl"
    report = export(vault.db, target)
    assert (report.format, report.nodes, report.edges, report.links) == ("jsonl", 4, 2, 3)
    assert report.size_bytes == target.stat().st_size
    head, *rest = lines(target)
    assert head["digest"] == vault.db.digest().root
    assert head["space"]["name"] == "by-hash"
    nodes = {row["id"]: row for row in rest if row["table"] == "nodes"}
    assert {node: (row["path"], row["state"]) for node, row in nodes.items()} == {
        "a": ("a.md", "fresh"), "b": ("b.md", "missing"), "c": ("c.md", "changed"), "#t": (None, None),
    }  # fmt: skip
    start, end = nodes["a"]["span"]
    assert (vault.root / "a.md").read_bytes()[start:end] == b"[[b]] [[nowhere]] #t\n"
    assert nodes["a"]["title"] == 'Ünï <&> "x"'
    assert nodes["a"]["meta"]["source"] == "a.md"
    assert "embedding" not in nodes["a"]
    assert not any("text" in row for row in rest), "no text is exported"
    (edge,) = [row for row in rest if row["table"] == "edges" and row["target"] == "b"]
    assert (edge["source"], edge["type"], edge["confidence"], edge["context_source"]) == (
        "a", "CITES", 1.0, "a.md",
    )  # fmt: skip
    (link,) = [row for row in rest if row["table"] == "links" and row["state"] == "unresolved"]
    assert (vault.root / "a.md").read_bytes()[link["start"] : link["end"]] == b"[[nowhere]]"


def test_json_lines_with_vectors(vault: Vault, tmp_path: Path) -> None:
    export(vault.db, tmp_path / "x.ndjson", vectors=True)
    rows = {row["id"]: row for row in lines(tmp_path / "x.ndjson") if row["table"] == "nodes"}
    node = vault.db.get_node("a")
    assert node is not None
    assert np.array_equal(np.array(rows["a"]["embedding"], dtype=np.float32), node.embedding)
    assert rows["#t"]["embedding"] is None


def test_graphml(vault: Vault, tmp_path: Path) -> None:
    vault.db.insert_nodes(id=["bell"], title=["ring\x07\x1b \ufffe"], meta=[{"n": 1}])
    report = export(vault.db, tmp_path / "g.graphml")
    assert (report.nodes, report.edges, report.links) == (5, 2, 0)
    root = ElementTree.parse(tmp_path / "g.graphml").getroot()
    names = {key.get("id"): key.get("attr.name") for key in root.iter(f"{GRAPHML}key")}
    assert len(names) == len(list(root.iter(f"{GRAPHML}key")))

    def values(element: ElementTree.Element) -> dict[str | None, str | None]:
        return {names[data.get("key")]: data.text for data in element.iter(f"{GRAPHML}data")}

    nodes = {node.get("id"): values(node) for node in root.iter(f"{GRAPHML}node")}
    assert nodes.keys() == {"a", "b", "c", "#t", "bell"}
    assert nodes["a"]["title"] == 'Ünï <&> "x"'
    assert (nodes["c"]["state"], nodes["a"]["span_start"]) == ("changed", "29")
    assert nodes["bell"]["title"] == "ring\\x07\\x1b \\xfffe"
    assert json.loads(nodes["bell"]["meta"] or "") == {"n": 1}
    edges = {(edge.get("source"), edge.get("target")): values(edge) for edge in root.iter(f"{GRAPHML}edge")}
    assert edges["a", "b"]["type"] == "CITES"
    assert edges["a", "b"]["confidence"] == "1.0"


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "feather"])
@pytest.mark.parametrize("table", ["nodes", "edges", "links"])
def test_arrow(vault: Vault, tmp_path: Path, suffix: str, table: str) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import feather, parquet

    target = tmp_path / f"x.{suffix}"
    report = export(vault.db, target, table=table, vectors=True)  # type: ignore[arg-type]
    found = (parquet.read_table if suffix == "parquet" else feather.read_table)(target)
    counts = {"nodes": 4, "edges": 2, "links": 3}
    assert found.num_rows == counts[table] == getattr(report, table)
    if table == "nodes":
        rows = {row["id"]: row for row in found.to_pylist()}
        assert (rows["b"]["state"], rows["#t"]["state"], rows["a"]["span_start"]) == ("missing", None, 29)
        assert len(rows["a"]["embedding"]) == 8
    if table == "links":
        assert {row["state"] for row in found.to_pylist()} == {"resolved", "unresolved"}
        assert all(row["start"] < row["end"] for row in found.to_pylist())


def test_arrow_without_vectors_has_no_column_for_them(vault: Vault, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    export(vault.db, tmp_path / "x.parquet")
    assert "embedding" not in parquet.read_table(tmp_path / "x.parquet").column_names


def test_without_the_vault_the_graph_is_exported_all_the_same(vault: Vault, tmp_path: Path) -> None:
    with ResonanceDB(vault.database, root=tmp_path / "nowhere", readonly=True) as db:
        export(db, tmp_path / "x.jsonl")
    rows = {row["id"]: row for row in lines(tmp_path / "x.jsonl") if row["table"] == "nodes"}
    assert (rows["a"]["path"], rows["a"]["state"], rows["a"]["span"]) == ("a.md", None, None)


@pytest.mark.parametrize("suffix", ["jsonl", "graphml", "parquet", "arrow"])
def test_a_file_that_exists_is_never_overwritten(vault: Vault, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"x.{suffix}"
    target.write_text("mine")
    with pytest.raises(ExportError, match="never overwrites"):
        export(vault.db, target)
    assert target.read_text() == "mine"
    dangling = tmp_path / f"link.{suffix}"
    dangling.symlink_to(tmp_path / "away")
    with pytest.raises(ExportError, match="never overwrites"):
        export(vault.db, dangling)
    assert not (tmp_path / "away").exists()


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_not_overwritten_either(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    target = tmp_path / "x.jsonl"
    real = Path.hardlink_to

    def late(self: Path, other: Path) -> None:
        target.write_text("mine")
        if not links:
            raise PermissionError(1, "no hard links here")
        real(self, other)

    monkeypatch.setattr(Path, "hardlink_to", late)
    with pytest.raises(ExportError, match="never overwrites"):
        export(vault.db, target)
    assert target.read_text() == "mine"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["0", "x.jsonl"]


def test_a_file_system_without_hard_links(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(self: Path, other: Path) -> None:
        raise PermissionError(1, "no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", none)
    export(vault.db, tmp_path / "x.jsonl")
    assert len(lines(tmp_path / "x.jsonl")) == 10


def test_what_cannot_be_written_is_named(vault: Vault, tmp_path: Path) -> None:
    for name, error in (
        ("x.csv", InputError),
        ("x", InputError),
        ("no folder/x.jsonl", ExportError),
    ):
        with pytest.raises(error):
            export(vault.db, tmp_path / name)
    with pytest.raises(InputError, match="give one of"):
        export(vault.db, tmp_path / "x.parquet", table="files")  # type: ignore[arg-type]
    assert export(vault.db, tmp_path / "x", format="jsonl").nodes == 4
