"""Counts and sizes of a database, and how long its writers wait."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from resonance import spaces
from resonance.model import Stats
from resonance.session import Session


def read_stats(session: Session) -> Stats:
    """See ``ResonanceDB.get_stats``."""
    with session.snapshot() as connection:
        one = "SELECT count(*) FROM "
        numbers = [
            connection.execute(one + what)[0][0]
            for what in (
                "nodes",
                "sections",
                "edges",
                "nodes WHERE embedding IS NOT NULL",
                "nodes WHERE meta LIKE '%semantic_tokens%'",
                "vectors WHERE embedding IS NOT NULL",
            )
        ]
        pages = connection.execute("PRAGMA page_count")[0][0]
        page_size = connection.execute("PRAGMA page_size")[0][0]
        links = dict(connection.execute("SELECT state, count(*) FROM links GROUP BY state ORDER BY state"))
        types = dict(
            connection.execute("SELECT coalesce(type, ''), count(*) FROM nodes GROUP BY 1 ORDER BY 1")
        )
        space = spaces.active(connection)
    waits, holds = list(session.waits), list(session.holds)
    return Stats(
        nodes=numbers[0],
        sections=numbers[1],
        edges=numbers[2],
        vectors=numbers[3],
        semantic_tokens=numbers[4],
        other_vectors=numbers[5],
        db_size_bytes=pages * page_size,
        links=links,
        types=types,
        space=space,
        wal_size_bytes=_size(f"{session.path}-wal"),
        writes=session.writes,
        lock_wait_p50=_quantile(waits, 0.5),
        lock_wait_p99=_quantile(waits, 0.99),
        lock_hold_p50=_quantile(holds, 0.5),
        lock_hold_p99=_quantile(holds, 0.99),
    )


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _quantile(values: list[float], q: float) -> float:
    return float(np.quantile(values, q)) if values else 0.0
