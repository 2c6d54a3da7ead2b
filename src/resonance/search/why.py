"""Why a node is not among the hits."""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance import _core
from resonance.errors import InputError
from resonance.model import WhyNot
from resonance.search.exact import ROW, Question, scanned
from resonance.search.filters import Filter, repeatable
from resonance.session import Session


def why_not(session: Session, id: str, query: Any, k: int, conditions: dict[str, Any]) -> WhyNot:
    """See ``ResonanceDB.why_not``."""
    filters = repeatable({name: value for name, value in conditions.items() if name != "min_score"})
    try:
        chosen = Filter(**filters)
    except TypeError as error:
        raise InputError(f"{error}; give domain, type, layer, ids, where or min_score") from error
    question = Question(query, k, chosen, min_score=conditions.get("min_score"))
    if not question.single:
        raise InputError("why_not asks about one query; give a vector")
    with session.snapshot() as connection:
        found = connection.query("SELECT rowid, embedding IS NOT NULL FROM nodes WHERE id = ?", (id,))
        if not found:
            return WhyNot("unknown")
        rowid, has_vector = found[0]
        if not has_vector:
            return WhyNot("no vector")
        question.settle_space(connection)
        _, scores, _ = scanned(connection, ROW, "nodes WHERE rowid = ?", [rowid], question.queries[0], 1)
        (score,) = scores.tolist()
        for name, value in filters.items():
            where, values = Filter(**{name: value}).sql()
            if not connection.query(f"SELECT 1 FROM nodes WHERE rowid = ? AND {where}", (rowid, *values)):
                return WhyNot("filtered", f"{name}={value!r}", score)
        return _ranked(connection, id, score, question)


def _ranked(connection: _core.Connection, id: str, score: float, question: Question) -> WhyNot:
    where, values = question.chosen.sql()
    there = f"nodes WHERE {where} AND embedding IS NOT NULL"
    rowids, scores, rows = scanned(connection, ROW, there, values, question.queries[0], 2**62)
    tied = rowids[scores == score].tolist()
    ids = sorted(connection.query("SELECT id FROM nodes WHERE rowid = ?", (row,))[0][0] for row in tied)
    rank = int((scores > score).sum()) + ids.index(id) + 1
    kth = float(np.sort(scores)[-min(question.k, rows)]) if question.k else None
    if score < question.least:
        return WhyNot("below min_score", f"min_score={question.least}", score, rank, kth)
    if rank > question.k:
        return WhyNot("beyond k", f"k={question.k}", score, rank, kth)
    return WhyNot("found", None, score, rank, kth)
