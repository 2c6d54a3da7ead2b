"""The audit trail: who, what, which columns, old and new values; never vectors."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from resonance._core import Connection, EdgePlan, NodePlan
from resonance.words import as_json

# In the trail a vector is only said to have been there; 1.5 KB a row would outgrow the data.
_RECORDED = "type, title, domain, layer, embedding IS NOT NULL, hash, meta, date, summary"
_NAMES = ("type", "title", "domain", "layer", "embedding", "hash", "meta", "date", "summary")


class History:
    """Writes to the trail inside the transaction that is open on ``writer``; a failure surfaces."""

    def __init__(self, writer: Connection) -> None:
        self._writer = writer

    def record(
        self,
        entity_type: str,
        entity_id: str,
        action: str,
        old: Mapping[str, Any] | None,
        new: Mapping[str, Any] | None,
    ) -> None:
        self._writer.execute(
            "INSERT INTO history (entity_type, entity_id, action, old_value, new_value) "
            "VALUES (?, ?, ?, ?, ?)",
            (entity_type, entity_id, action, _text(old), _text(new)),
        )

    @contextlib.contextmanager
    def of_nodes(self, plan: NodePlan, wanted: bool) -> Iterator[None]:
        """Record, row by row, what the block does to the nodes of a plan."""
        if not wanted:
            yield
            return
        vectors: dict[str, Any] = {}
        ids = [node_id for (node_id,) in plan.key_values()]
        before = {node_id: self._node(node_id, vectors) for node_id in ids}
        yield
        for node_id in ids:
            old, new = before[node_id], self._node(node_id)
            if old is None:
                self.record("node", node_id, "insert", None, _given(new))
                continue
            assert new is not None
            changed = [name for name in _NAMES if old[name] != new[name]]
            if plan.vectors is not None and self._vector(node_id) != vectors[node_id]:
                changed.append("embedding")
            if changed:
                self.record(
                    "node",
                    node_id,
                    "update",
                    {name: old[name] for name in changed},
                    {name: new[name] for name in changed},
                )

    def nodes_deleted(self, ids: str) -> None:
        """Record the nodes of a JSON array of ids before they go."""
        for node_id, *values in self._writer.execute(
            f"SELECT id, {_RECORDED} FROM nodes WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
            (ids,),
        ):
            self.record("node", node_id, "delete", _given(_named(values)), None)

    @contextlib.contextmanager
    def of_stubs(self, wanted: bool) -> Iterator[None]:
        """Record the nodes that the block makes, which does nothing else to nodes."""
        if not wanted:
            yield
            return
        last = "SELECT coalesce(max(rowid), 0) FROM nodes"
        before = self._writer.execute(last)[0][0]
        yield
        for (node_id,) in self._writer.execute("SELECT id FROM nodes WHERE rowid > ? ORDER BY id", (before,)):
            self.record("node", node_id, "insert", None, _given(self._node(node_id)))

    @contextlib.contextmanager
    def of_edges(self, plan: EdgePlan, wanted: bool) -> Iterator[None]:
        """Record, row by row, what the block does to the edges of a plan."""
        if not wanted:
            yield
            return
        keys = list(dict.fromkeys(plan.key_values()))
        before = {key: self._edge(key) for key in keys}
        yield
        for key in keys:
            old, new = before[key], self._edge(key)
            if old is None and new is not None:
                self.edge("insert", key, None, new)
            elif old != new:
                self.edge("update", key, old, new)

    def edge(
        self,
        action: str,
        key: Sequence[str],
        old: Mapping[str, Any] | None,
        new: Mapping[str, Any] | None,
    ) -> None:
        source, target, type_ = key
        named = {"source": source, "target": target, "type": type_}
        self.record(
            "edge",
            f"{source}-{target}-{type_}",
            action,
            None if old is None else {**named, **old},
            None if new is None else {**named, **new},
        )

    def _node(self, node_id: str, vectors: dict[str, Any] | None = None) -> dict[str, Any] | None:
        if vectors is not None:
            vectors[node_id] = self._vector(node_id)
        found = self._writer.execute(f"SELECT {_RECORDED} FROM nodes WHERE id = ?", (node_id,))
        return _named(found[0]) if found else None

    def _vector(self, node_id: str) -> Any:
        found = self._writer.execute("SELECT embedding FROM nodes WHERE id = ?", (node_id,))
        return found[0][0] if found else None

    def _edge(self, key: Sequence[Any]) -> dict[str, Any] | None:
        found = self._writer.execute(
            "SELECT confidence, veracity, context_source FROM edges "
            "WHERE source = ? AND target = ? AND type = ?",
            key,
        )
        return (
            dict(zip(("confidence", "veracity", "context_source"), found[0], strict=True)) if found else None
        )


def _named(values: Sequence[Any]) -> dict[str, Any]:
    row = dict(zip(_NAMES, values, strict=True))
    row["embedding"] = "stored" if row["embedding"] else None
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        row["meta"] = json.loads(row["meta"])
    return row


def _given(row: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (row or {}).items() if value is not None}


def _text(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else as_json(value, sort_keys=True)
