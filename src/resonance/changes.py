"""The log of changed nodes, by which a search learns what to look at again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from resonance._core import Connection, NodePlan

TRIGGERS_UP_TO = 1000
"""Rows for which triggers write the log; beyond, one row for all of them costs less than firing does."""

EVERYTHING = (-(2**63), 2**63 - 1)


class Moment(NamedTuple):
    """A state of the nodes: two that are equal are the same. The schema's number also changes when a file
    is vacuumed, which gives nodes other rowids, or replaced."""

    schema: int
    seq: int


def moment(connection: Connection) -> Moment:
    """The state that ``connection`` sees."""
    schema = connection.execute("PRAGMA schema_version")[0][0]
    seq = connection.execute("SELECT max(seq) FROM node_changes")[0][0]
    return Moment(schema, seq or 0)


def since(connection: Connection, before: Moment, now: Moment) -> list[tuple[int, int]] | None:
    """Ranges of rowids that changed, ascending, apart from each other; None if the log does not tell."""
    oldest = connection.execute("SELECT min(seq) FROM node_changes")[0][0]
    if (
        before.schema != now.schema
        or before.seq > now.seq
        or (oldest is not None and oldest > before.seq + 1)
    ):
        return None
    ranges: list[tuple[int, int]] = []
    for low, high in connection.execute(
        "SELECT low, high FROM node_changes WHERE seq > ? ORDER BY low", (before.seq,)
    ):
        if (low, high) == EVERYTHING:
            return None
        if ranges and low <= ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], high))
        else:
            ranges.append((low, high))
    return ranges


def last_title(connection: Connection) -> int:
    """The number of the last change of a title."""
    return int(connection.execute("SELECT max(seq) FROM title_changes")[0][0] or 0)


def retitled(connection: Connection, before: int) -> list[int] | None:
    """Rowids of nodes whose title has changed since; None if the log does not tell."""
    oldest, last = connection.execute("SELECT min(seq), max(seq) FROM title_changes")[0]
    if last is None:
        return [] if before == 0 else None
    if last < before or oldest > before + 1:
        return None
    return [row for (row,) in connection.execute("SELECT row FROM title_changes WHERE seq > ?", (before,))]


@contextlib.contextmanager
def in_bulk(writer: Connection, plans: Sequence[NodePlan]) -> Iterator[None]:
    """Write these plans in here; the log gets one row if they are large."""
    # While vectors of other spaces are kept, a trigger has to tell which of them are out of date.
    if sum(plan.count for plan in plans) <= TRIGGERS_UP_TO or _keeps_other_vectors(writer):
        yield
        return
    before, updated = _last_rowid(writer), sum(plan.updated for plan in plans)
    writer.set_triggers(False)
    try:
        yield
    finally:
        writer.set_triggers(True)
    after = _last_rowid(writer)
    if sum(plan.updated for plan in plans) > updated:
        _log(writer, *EVERYTHING)
    elif after > before:
        _log(writer, before + 1, after)


def log_all(writer: Connection) -> None:
    """Have searches read all nodes again."""
    _log(writer, *EVERYTHING)


def _keeps_other_vectors(connection: Connection) -> bool:
    return bool(connection.execute("SELECT 1 FROM vectors LIMIT 1"))


def _last_rowid(connection: Connection) -> int:
    return int(connection.execute("SELECT max(rowid) FROM nodes")[0][0] or 0)


def _log(writer: Connection, low: int, high: int) -> None:
    writer.execute("INSERT INTO node_changes (low, high) VALUES (?, ?)", (low, high))
