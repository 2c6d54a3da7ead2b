"""Between rows of the tables and the values of :mod:`resonance.model`."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from resonance import _core
from resonance.errors import (
    ROWS_NAMED,
    ColumnError,
    CorruptRowError,
    DuplicateNodeError,
    InputError,
    InvalidIdError,
)
from resonance.model import Edge, HistoryEntry, Link, Node, Text

NODE_COLUMNS = (
    "id",
    "type",
    "title",
    "domain",
    "layer",
    "embedding",
    "hash",
    "meta",
    "date",
    "summary",
)
EDGE_COLUMNS = ("source", "target", "type", "confidence", "veracity", "context_source")
LINK_COLUMNS = (
    "l.source, l.kind, l.raw, l.name, l.state, l.target, l.candidates, l.type, l.span_start, l.span_end, "
    "l.fragment, files.path, l.mark"
)
LINK_TABLES = "links AS l LEFT JOIN files ON files.node = l.source"

Row = tuple[Any, ...]

_PANDAS_INDEX = re.compile(r"__index_level_\d+__")
"""A column that pandas adds for an index without a name, whoever asks."""

CHUNK = 65_536
"""Rows of a column of text that are looked at together."""


def degree(end: str) -> str:
    """SQL for the number of edges of the node at an end of the edge ``e``; stops counting at ``:most``.

    Those from a document's sections to it do not count: they only say how long it is.
    """
    return (
        "(SELECT count(*) FROM (SELECT 1 FROM edges AS o WHERE o.source = e."
        f"{end} UNION ALL SELECT 1 FROM edges AS i WHERE i.target = e.{end} "
        "AND NOT EXISTS (SELECT 1 FROM sections AS s WHERE s.node = i.source AND s.document = i.target) "
        "LIMIT :most + 1))"
    )


def node_from_row(row: Sequence[Any], columns: Sequence[str] = NODE_COLUMNS) -> Node:
    values = dict(zip(columns, row, strict=True))
    if values.get("embedding") is not None:
        values["embedding"] = vector_from_blob(values["embedding"], values["id"])
    if values.get("meta") is not None:
        values["meta"] = json_from_text(values["meta"], values["id"], "meta")
    return Node(**values)


def vector_from_blob(blob: bytes, node_id: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(d,) float32 over the bytes, read-only."""
    if not isinstance(blob, bytes) or len(blob) % 4:
        raise CorruptRowError(
            f"node {node_id!r}: its embedding is not a whole number of float32; embed it again",
            node_id,
        )
    return np.frombuffer(blob, dtype="<f4")


def json_from_text(text: str, node_id: str, column: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptRowError(f"node {node_id!r}: its {column} is not JSON ({error})", node_id) from error
    if not isinstance(value, dict):
        raise CorruptRowError(f"node {node_id!r}: its {column} is JSON, but not an object", node_id)
    return value


def json_to_text(value: object, row: int) -> str | None:
    """Canonical: the same value gives the same text."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ColumnError(
            f"column 'meta', row {row}: {type(value).__name__} is not a mapping",
            column="meta",
            row=row,
        )
    try:
        return json.dumps(
            dict(value), ensure_ascii=False, sort_keys=True, allow_nan=False, separators=(",", ":")
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise ColumnError(
            f"column 'meta', row {row}: cannot be written as JSON ({error})", column="meta", row=row
        ) from error


def link_from_row(row: Sequence[Any]) -> Link:
    link = Link(*row)
    return link._replace(candidates=tuple(json.loads(row[6])) if row[6] else ())


def history_from_row(row: Sequence[Any]) -> HistoryEntry:
    number, entity_type, entity_id, action, old, new, when = row
    return HistoryEntry(
        number, entity_type, entity_id, action, _history_value(old), _history_value(new), when
    )


def _history_value(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    return value if isinstance(value, dict) else {"value": value}


# --- columns ------------------------------------------------------------------------------------------


class Given:
    """Columns as a caller names them in Python; :class:`_core.ArrowTable` answers the same questions."""

    def __init__(self, columns: Mapping[str, Any], counted_by: str) -> None:
        self._columns = columns
        self.names = list(columns)
        values = columns.get(counted_by)
        if counted_by in columns and (values is None or isinstance(values, str | bytes)):
            raise ColumnError(
                f"column {counted_by!r}: give a sequence, one value for each row", column=counted_by
            )
        try:
            if values is not None and not hasattr(values, "__len__"):
                values = list(values)
                self._columns = {**columns, counted_by: values}
            self.length = 0 if values is None else len(values)
        except TypeError as error:
            raise ColumnError(
                f"column {counted_by!r}: {type(values).__name__} is not a sequence of values",
                column=counted_by,
            ) from error

    def text(self, name: str) -> _core.TextColumn:
        values = self._columns[name]
        return _core.text_column(name, _meta_texts(values) if name == "meta" else values, self.length)

    def texts(self, name: str) -> Iterator[_core.TextColumn]:
        """The column in pieces, of which one is held at a time: a long one is not copied."""
        values = self._columns[name]
        if not isinstance(values, list | tuple) and not (isinstance(values, np.ndarray) and values.ndim == 1):
            yield self.text(name)
            return
        for start in range(0, len(values), CHUNK):
            yield _core.text_column(name, values[start : start + CHUNK], first=start)

    def real(self, name: str) -> _core.RealColumn:
        return _core.real_column(name, self._columns[name], self.length)

    def vectors(self, name: str, width: int) -> _core.VectorColumn:
        values = self._columns[name]
        return _core.vector_column(name, [None] * self.length if values is None else values, width)


Source = Given | _core.ArrowTable


def node_columns(source: Source, width: int) -> list[_core.Column]:
    """The columns of a batch of nodes, checked one by one; ``width`` is the space's, or -1."""
    _require_known(_different(source.names), NODE_COLUMNS, required=("id",))
    columns: list[_core.Column] = []
    for name in NODE_COLUMNS:
        if name == "embedding" and name in source.names:
            columns.append(source.vectors(name, width))
        elif name in source.names:
            columns.append(source.text(name))
            if name == "meta" and isinstance(source, _core.ArrowTable):
                _core.check_json_objects(source.text(name), _checked_json)
    return columns


def edge_plan(source: Source) -> _core.EdgePlan:
    """A batch of edges, its columns checked one by one."""
    _require_known(_different(source.names), EDGE_COLUMNS, required=("source", "target"))
    ends, kinds = _core.Distinct(), _core.Distinct()
    columns: list[_core.Column] = [ends.column(name, source.texts(name)) for name in ("source", "target")]
    if "type" in source.names:
        columns.append(kinds.column("type", source.texts("type")))
    else:
        default = _core.text_column("type", Edge._field_defaults["type"], source.length)
        columns.append(kinds.column("type", [default]))
    columns += [source.real(name) for name in ("confidence", "veracity") if name in source.names]
    if "context_source" in source.names:
        columns.append(source.text("context_source"))
    return _core.EdgePlan(ends, kinds, columns)


class Batch(NamedTuple):
    """Nodes that name the same columns, and the row each had in what the caller gave, where it differs."""

    source: Source
    rows: Sequence[int] = ()


def node_batches(nodes: Any, columns: Mapping[str, Any]) -> list[Batch]:
    """What ``insert_nodes`` was given, as batches of columns."""
    if nodes is None:
        return [Batch(Given(columns, "id"))]
    if hasattr(nodes, "__arrow_c_stream__"):
        return [Batch(_core.ArrowTable(nodes))]
    grouped: dict[tuple[str, ...], tuple[dict[str, list[Any]], list[int]]] = {}
    seen: dict[Any, int] = {}
    repeated: list[tuple[int, str]] = []
    for row, node in enumerate(_each(nodes, Node)):
        fields = given_fields(node, row)
        if isinstance(fields["id"], str) and seen.setdefault(fields["id"], row) != row:
            repeated.append((row, f"{fields['id']!r} is also row {seen[fields['id']]}"))
        group, numbers = grouped.setdefault(tuple(fields), ({name: [] for name in fields}, []))
        numbers.append(row)
        for name, value in fields.items():
            group[name].append(value)
    if repeated:
        raise DuplicateNodeError(
            "ids occur more than once in the batch",
            repeated[:ROWS_NAMED],
            len(repeated),
            "Give each id once",
        )
    return [Batch(Given(group, "id"), numbers) for group, numbers in grouped.values()]


def edge_source(edges: Any, columns: Mapping[str, Any]) -> Source:
    """What ``insert_edges`` was given, as columns."""
    if edges is None:
        return Given(columns, "source")
    if hasattr(edges, "__arrow_c_stream__"):
        return _core.ArrowTable(edges)
    return Given(_edges_to_columns(edges), "source")


@contextlib.contextmanager
def rows_of(batch: Batch) -> Iterator[None]:
    """Make errors about a batch name the caller's rows."""
    try:
        yield
    except ColumnError as error:
        if error.row is not None and batch.rows:
            theirs = batch.rows[error.row]
            error.args = (str(error).replace(f"row {error.row}", f"row {theirs}", 1),)
            error.row = theirs
        raise


def given_fields(node: Node | Mapping[str, Any], row: int = 0) -> dict[str, Any]:
    """The columns a node names: fields of a Node that are not None, or all keys of a mapping."""
    if isinstance(node, Node):
        fields = {name: getattr(node, name) for name in NODE_COLUMNS}
        return {name: value for name, value in fields.items() if value is not None or name == "id"}
    if isinstance(node, Mapping):
        _require_known(node, NODE_COLUMNS, required=("id",), row=row)
        return {name: node[name] for name in NODE_COLUMNS if name in node}
    raise ColumnError(f"row {row}: {type(node).__name__} is not a Node or a mapping", row=row)


def _each(items: Any, kind: type) -> Iterable[Any]:
    """What a caller gave many of: one alone would be as many as it has fields."""
    if isinstance(items, Iterable) and not isinstance(items, kind | str | bytes | Mapping):
        return items
    found, want = type(items).__name__, kind.__name__
    raise ColumnError(f"{found} is not a sequence of {want}s; give an iterable, columns or Arrow data")


def _edges_to_columns(edges: Iterable[Edge | Sequence[Any]]) -> dict[str, list[Any]]:
    """What the longest names is given; where others are shorter they have the defaults of an Edge."""
    given: list[Edge] = []
    longest = 2
    for row, item in enumerate(_each(edges, Edge)):
        if isinstance(item, str) or not isinstance(item, Sequence) or not 2 <= len(item) <= 6:
            raise ColumnError(
                f"row {row}: {item!r:.60} is not an Edge or (source, target, type, ...)", row=row
            )
        given.append(Edge(*item))
        longest = max(longest, len(item))
    return {name: [edge[at] for edge in given] for at, name in enumerate(EDGE_COLUMNS[:longest])}


def checked_texts(texts: Iterable[Text]) -> list[Text]:
    """All of them, with their rows in the error if one is none."""
    given = []
    for row, text in enumerate(texts):
        if not isinstance(text, Text):
            raise InputError(f"row {row}: {text!r:.60} is no Text; give Text(id, body)")
        for name in ("body", "title", "names", "headings"):
            if not isinstance(value := getattr(text, name), str):
                raise ColumnError(f"row {row}: {name}={value!r:.60} is no text", column=name, row=row)
        given.append(text)
    return given


def distinct_ids(ids: Iterable[str]) -> set[str]:
    """One string would be as many ids as it has letters; it is refused."""
    if isinstance(ids, str | bytes):
        raise InputError(f"{ids!r:.60} is one id; give a sequence of ids")
    if not isinstance(ids, Iterable):
        raise InputError(f"{ids!r:.60} is not a sequence of ids")
    distinct = set()
    for row, node_id in enumerate(ids):
        if not isinstance(node_id, str):
            raise InvalidIdError(f"row {row}: {type(node_id).__name__} is not an id", column="id", row=row)
        distinct.add(node_id)
    return distinct


def _meta_texts(values: Any) -> Any:
    if values is None or isinstance(values, str | Mapping):
        return _checked_json(values, 0)
    if not isinstance(values, Iterable):
        kind = type(values).__name__
        raise ColumnError(f"column 'meta': {kind} is not a sequence of values", column="meta")
    return [_checked_json(value, row) for row, value in enumerate(values)]


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(number: str) -> float:
    # 1e999 is JSON, but would be read as an infinity, which is none.
    value = float(number)
    return _no_number(number) if math.isinf(value) else value


# With an option ``json.loads`` would make a decoder for each value.
_decode = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite).decode


def _checked_json(value: Any, row: int) -> str | None:
    """JSON text is taken as it is, if it is an object."""
    if not isinstance(value, str):
        return json_to_text(value, row)
    why = ""
    try:
        found = _decode(value)
        if "\\ud" in value or "\\uD" in value:
            # A lone surrogate is nothing that could be written out again.
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        found, why = None, f" ({error})"
    if not isinstance(found, dict):
        raise ColumnError(
            f"column 'meta', row {row}: not the text of a JSON object{why}", column="meta", row=row
        )
    return value


def _different(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if names.count(name) > 1:
            raise ColumnError(f"two columns are called {name!r}; give one", column=name)
        if not _PANDAS_INDEX.fullmatch(name):
            yield name


def _require_known(
    given: Iterable[str], known: Sequence[str], required: Sequence[str], row: int | None = None
) -> None:
    names = set(given)
    where = "" if row is None else f"row {row}: "
    if unknown := sorted(names - set(known), key=str):
        raise ColumnError(
            f"{where}no column is called {unknown[0]!r}; there are {', '.join(known)}",
            column=unknown[0],
            row=row,
        )
    for name in required:
        if name not in names:
            raise ColumnError(f"{where}column {name!r} is missing", column=name, row=row)
