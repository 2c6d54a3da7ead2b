"""The graph as a new file for other programs: JSON lines, GraphML, Parquet or Arrow."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args
from xml.etree import ElementTree

from resonance import rows
from resonance.arrow import require_pyarrow
from resonance.backup import sync
from resonance.database import ResonanceDB
from resonance.errors import ContentError, ExportError, InputError, VaultError
from resonance.model import Content, Link, Node
from resonance.words import as_json

if TYPE_CHECKING:
    import pyarrow

Format = Literal["jsonl", "graphml", "parquet", "arrow"]
Table = Literal["nodes", "edges", "links"]

_SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".graphml": "graphml",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_BATCH = 1024

# What no XML document may hold, however it is escaped: https://www.w3.org/TR/xml/#charsets
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class ExportReport(NamedTuple):
    """What was written. A count is 0 for what the format, or the table chosen, leaves out."""

    path: str
    format: str
    nodes: int
    edges: int
    links: int
    size_bytes: int


def export(
    db: ResonanceDB,
    target: str | os.PathLike[str],
    *,
    format: Format | None = None,
    table: Table = "nodes",
    vectors: bool = False,
) -> ExportReport:
    """Write what is stored to a new file, all of one moment.

    A node comes with its path, the span of its text in the file, in bytes, and the state of that text
    now; all three are null for nodes without a file, and the last two where the vault is not there. A
    link comes with its span and its state. Texts are not exported.

    Args:
        format: ``jsonl`` (an object a line: first ``graph``, then ``nodes``, ``edges`` and ``links``, as
            its ``table`` says), ``graphml`` (nodes and edges), ``parquet`` or ``arrow`` (one table);
            default: as the file's name ends.
        table: the table for ``parquet`` and ``arrow``.
        vectors: put the vectors in too; not into GraphML.

    Raises:
        ExportError: the file exists, or cannot be written.
        InputError: the format is not known.
        ResonanceError: it needs pyarrow, which is not installed.
    """
    path = Path(target)
    kind = format or _SUFFIXES.get(path.suffix.lower())
    if kind is None or kind not in get_args(Format):
        known = ", ".join(get_args(Format))
        raise InputError(f"{path}: name a format ({known}), or a file that ends in one")
    if table not in get_args(Table):
        raise InputError(f"no table {table!r}; give one of {', '.join(get_args(Table))}")
    with db.snapshot(), _new_file(path) as aside:
        if kind == "jsonl":
            counts = _jsonl(db, aside, vectors)
        elif kind == "graphml":
            counts = _graphml(db, aside)
        else:
            counts = _arrow(db, aside, kind, table, vectors)
    return ExportReport(str(path), kind, *counts, path.stat().st_size)


@contextlib.contextmanager
def _new_file(target: Path) -> Iterator[Path]:
    """A file to write aside, which gets its name when it is complete, if that is still free."""
    taken = f"{target} exists; an export never overwrites, name another file"
    if os.path.lexists(target):
        raise ExportError(taken)
    if not target.absolute().parent.is_dir():
        raise ExportError(f"{target.absolute().parent} is not a folder; create it first")
    try:
        with tempfile.TemporaryDirectory(prefix=".resonance-export-", dir=target.absolute().parent) as folder:
            aside = Path(folder) / "export"
            yield aside
            sync(aside)
            _name(aside, target)
    except FileExistsError as error:
        raise ExportError(taken) from error
    except OSError as error:
        raise ExportError(f"{target}: cannot be written: {error}") from error


def _name(aside: Path, target: Path) -> None:
    try:
        target.hardlink_to(aside)
    except FileExistsError:
        raise
    except OSError as error:
        # File systems without hard links; there somebody could take the name in between.
        if os.path.lexists(target):
            raise FileExistsError from error
        aside.rename(target)


# --- the formats ----------------------------------------------------------------------------------


def _jsonl(db: ResonanceDB, aside: Path, vectors: bool) -> tuple[int, int, int]:
    counts = {"nodes": 0, "edges": 0, "links": 0}
    space = db.space
    with aside.open("w", encoding="utf-8", newline="\n") as file:

        def write(table: str, row: dict[str, Any]) -> None:
            file.write(as_json({"table": table, **row}) + "\n")

        write("graph", {"digest": db.digest().root, "space": space._asdict() if space else None})
        for node, content in _nodes(db):
            write("nodes", _node(node, content, vectors))
            counts["nodes"] += 1
        for edge in _edges(db):
            write("edges", dict(zip(rows.EDGE_COLUMNS, edge, strict=True)))
            counts["edges"] += 1
        for link in db.links():
            write("links", _link(link))
            counts["links"] += 1
    return counts["nodes"], counts["edges"], counts["links"]


def _graphml(db: ResonanceDB, aside: Path) -> tuple[int, int, int]:
    """http://graphml.graphdrawing.org/specification.html"""
    root = ElementTree.Element("graphml", xmlns="http://graphml.graphdrawing.org/xmlns")
    keys: set[str] = set()
    graph = ElementTree.Element("graph", id="vault", edgedefault="directed")

    def add(element: ElementTree.Element, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if value is None:
                continue
            key = f"{element.tag}-{name}"
            if key not in keys:
                keys.add(key)
                kind = {float: "double", int: "long"}.get(type(value), "string")
                told = {"id": key, "for": element.tag, "attr.name": name, "attr.type": kind}
                ElementTree.SubElement(root, "key", told)
            text = as_json(value) if isinstance(value, dict) else str(value)
            ElementTree.SubElement(element, "data", key=key).text = _xml(text)

    nodes = edges = 0
    for node, content in _nodes(db):
        values = _node(node, content, False)
        span = values.pop("span") or (None, None)
        values |= {"span_start": span[0], "span_end": span[1]}
        add(ElementTree.SubElement(graph, "node", id=_xml(values.pop("id"))), values)
        nodes += 1
    for source, target, *rest in _edges(db):
        element = ElementTree.SubElement(graph, "edge", source=_xml(source), target=_xml(target))
        add(element, dict(zip(rows.EDGE_COLUMNS[2:], rest, strict=True)))
        edges += 1
    root.append(graph)
    ElementTree.ElementTree(root).write(aside, encoding="utf-8", xml_declaration=True)
    return nodes, edges, 0


def _arrow(db: ResonanceDB, aside: Path, kind: str, table: str, vectors: bool) -> tuple[int, int, int]:
    if table == "links":
        arrow = require_pyarrow()
        found = arrow.Table.from_pylist([_link(link) for link in db.links()], schema=_link_schema(arrow))
    else:
        found = db.to_arrow(table)
    if table == "nodes":
        found = _with_places(db, found if vectors else _without(found, "embedding"))
    if kind == "parquet":
        from pyarrow import parquet

        parquet.write_table(found, aside)
    else:
        from pyarrow import feather

        # Not compressed, so that it can be mapped into memory.
        feather.write_feather(found, str(aside), compression="uncompressed")
    counts = {name: found.num_rows if name == table else 0 for name in get_args(Table)}
    return counts["nodes"], counts["edges"], counts["links"]


def _without(table: pyarrow.Table, column: str) -> pyarrow.Table:
    return table.drop_columns([column]) if column in table.column_names else table


def _with_places(db: ResonanceDB, table: pyarrow.Table) -> pyarrow.Table:
    arrow = require_pyarrow()
    ids = table["id"].to_pylist()
    contents = [content for batch in _batches(ids) for content in _contents(db, batch)]
    spans = [content.span or (None, None) for content in contents]
    for name, values, kind in (
        ("path", [content.path for content in contents], arrow.string()),
        ("state", [_state(content) for content in contents], arrow.string()),
        ("span_start", [span[0] for span in spans], arrow.int64()),
        ("span_end", [span[1] for span in spans], arrow.int64()),
    ):
        table = table.append_column(name, arrow.array(values, kind))
    return table


def _link_schema(arrow: Any) -> Any:
    kinds = {"start": arrow.int64(), "end": arrow.int64(), "candidates": arrow.list_(arrow.string())}
    return arrow.schema([(name, kinds.get(name, arrow.string())) for name in Link._fields])


# --- rows -----------------------------------------------------------------------------------------


def _nodes(db: ResonanceDB) -> Iterator[tuple[Node, Content]]:
    for batch in _batches([node for (node,) in db.query("SELECT id FROM nodes ORDER BY id")]):
        found = {
            row[0]: rows.node_from_row(row)
            for row in db.query(
                f"SELECT {', '.join(rows.NODE_COLUMNS)} FROM nodes "
                f"WHERE id IN (SELECT value FROM json_each(?))",
                (json.dumps(batch),),
            )
        }
        for content in _contents(db, batch):
            yield found[content.id], content


def _contents(db: ResonanceDB, ids: Sequence[str]) -> list[Content]:
    """Where each text is and how it is; only where it was, if the vault is not there."""
    try:
        return db.content_many(ids)
    except (VaultError, ContentError):
        paths = dict(
            db.query(
                "SELECT node, path FROM files WHERE node IN (SELECT value FROM json_each(?))",
                (json.dumps(list(ids)),),
            )
        )
        return [Content(node, None, "missing", paths.get(node), None) for node in ids]


def _state(content: Content) -> str | None:
    """None for a node without a file, and where nobody looked."""
    return content.state if content.path is not None and (content.span or content.reason) else None


def _node(node: Node, content: Content, vectors: bool) -> dict[str, Any]:
    row = {name: getattr(node, name) for name in rows.NODE_COLUMNS if name != "embedding"}
    if vectors:
        row["embedding"] = None if node.embedding is None else node.embedding.tolist()
    return {**row, "path": content.path, "span": content.span, "state": _state(content)}


def _edges(db: ResonanceDB) -> Iterator[tuple[Any, ...]]:
    yield from db.query(f"SELECT {', '.join(rows.EDGE_COLUMNS)} FROM edges ORDER BY source, target, type")


def _link(link: Link) -> dict[str, Any]:
    return link._asdict() | {"candidates": list(link.candidates)}


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[at : at + _BATCH] for at in range(0, len(ids), _BATCH))


def _xml(text: str) -> str:
    return _NO_XML.sub(lambda match: f"\\x{ord(match.group()):02x}", text)
