"""Maximal marginal relevance: near to the query, and not to each other."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from resonance._core import Connection
from resonance.model import Hit


def most_diverse(
    connection: Connection, hits: Sequence[Hit], k: int, balance: float, aside: int | None = None
) -> list[Hit]:
    """Choose ``k`` hits one by one, each by ``balance * score - (1 - balance) * nearness to those chosen``.

    Source: Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents
    and producing summaries", SIGIR 1998. Their scores stay what they are; the order is that of choosing.

    Args:
        aside: the number of their space, if it is not the active one.
    """
    if not hits:
        return []
    where = "SELECT id, embedding FROM nodes WHERE id"
    if aside is not None:
        where = f"SELECT node, embedding FROM vectors WHERE space = {aside} AND node"
    stored = dict(
        connection.execute(
            f"{where} IN (SELECT value FROM json_each(?))",
            (json.dumps([hit.section or hit.id for hit in hits]),),
        )
    )
    vectors = np.array(
        [np.frombuffer(stored[hit.section or hit.id], "<f4") for hit in hits], dtype=np.float64
    )
    scores = np.array([hit.score for hit in hits])
    nearness = np.full(len(hits), -np.inf)
    left = np.ones(len(hits), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < min(k, len(hits)):
        worth = balance * scores - ((1 - balance) * nearness if chosen else 0)
        best = int(np.argmax(np.where(left, worth, -np.inf)))
        chosen.append(best)
        left[best] = False
        nearness = np.maximum(nearness, vectors @ vectors[best])
    return [hits[number] for number in chosen]
