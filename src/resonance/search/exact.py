"""Exact search by scanning: every vector that passes the filter is scored in SQLite's own row memory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from resonance import _core
from resonance.errors import EmbeddingError, InputError
from resonance.model import Hit


class Filter:
    """Conditions on nodes, evaluated by SQLite before anything is scored."""

    def __init__(
        self,
        *,
        domain: str | None = None,
        type: str | None = None,
        layer: str | None = None,
        ids: Iterable[str] | None = None,
    ) -> None:
        self._equal = {"domain": domain, "type": type, "layer": layer}
        self._ids = None if ids is None else json.dumps([ids] if isinstance(ids, str) else list(ids))

    def sql(self) -> tuple[str, list[Any]]:
        """A condition and the values of its parameters."""
        conditions, values = [], []
        for name, value in self._equal.items():
            if value is not None:
                conditions.append(f"{name} = ?")
                values.append(value)
        if self._ids is not None:
            conditions.append("id IN (SELECT value FROM json_each(?))")
            values.append(self._ids)
        return " AND ".join(conditions) or "1", values


def search_exact(
    connection: _core.Connection,
    query: Any,
    k: int,
    chosen: Filter,
    min_score: float | None,
    width: int,
) -> list[Hit] | list[list[Hit]]:
    """Hits for one query vector, or a list of them for each row of a matrix; see ``ResonanceDB.search``."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 0:
        raise InputError(f"k={k!r}; give a whole number, 0 or more")
    single = _is_vector(query)
    matrix = _unit_queries([query] if single else query)
    if width >= 0 and matrix.shape[1] != width:
        raise EmbeddingError(
            f"the query has {matrix.shape[1]} dimensions, the space of the database has {width}; embed it "
            f"with the same model",
            column=None,
            got=matrix.shape[1],
            want=width,
        )
    answers = [_nearest(connection, row, int(k), chosen, min_score) for row in matrix]
    return answers[0] if single else answers


def _is_vector(query: Any) -> bool:
    try:
        return np.ndim(query) == 1
    except ValueError:  # rows of different widths; the check to come says which
        return False


def _unit_queries(queries: Any) -> npt.NDArray[np.float64]:
    """(q, d) float64 of unit rows: a query is rounded to float32 once, when it is handed over, at most."""
    checked = _core.to_fafcas(queries)
    exact = np.asarray(queries, dtype=np.float64)
    scale = np.abs(exact).max(axis=1, keepdims=True, initial=np.finfo(float).tiny)
    scaled: npt.NDArray[np.float64] = exact / scale
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True) if checked.size else scaled


def _nearest(
    connection: _core.Connection,
    query: npt.NDArray[np.float64],
    k: int,
    chosen: Filter,
    min_score: float | None,
) -> list[Hit]:
    where, values = chosen.sql()
    rowids, scores = _core.score_vectors(
        connection,
        f"SELECT rowid, embedding FROM nodes WHERE {where} AND embedding IS NOT NULL",
        values,
        query,
    )
    if min_score is not None:
        keep = scores >= min_score
        rowids, scores = rowids[keep], scores[keep]
    if k < len(scores):
        # Everything that ties with the k-th is looked at: the ids decide among them.
        threshold = -np.partition(-scores, k - 1)[k - 1] if k else np.inf
        keep = scores >= threshold
        rowids, scores = rowids[keep], scores[keep]
    named = {
        rowid: (node_id, title, path)
        for rowid, node_id, title, path in connection.execute(
            "SELECT nodes.rowid, nodes.id, nodes.title, files.path FROM nodes "
            "LEFT JOIN files ON files.node = nodes.id "
            "WHERE nodes.rowid IN (SELECT value FROM json_each(?))",
            (json.dumps(rowids.tolist()),),
        )
    }
    hits = [
        Hit(named[rowid][0], score, named[rowid][1], named[rowid][2])
        for rowid, score in zip(rowids.tolist(), scores.tolist(), strict=True)
    ]
    hits.sort(key=lambda hit: (-hit.score, hit.id))
    return hits[:k]
