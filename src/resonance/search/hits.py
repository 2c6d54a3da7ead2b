"""From rows of nodes to hits: one visit of each row gives its exact score, its id and its title."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from resonance import _core
from resonance.model import Hit
from resonance.parallel import piece_by_piece
from resonance.session import Session
from resonance.watch import State

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

VISIT = "SELECT embedding, id, title FROM nodes WHERE rowid = ?"
_UNPLACED = tuple(Hit("", 0.0))[3:]
"""What a hit says beyond id, score and title before anybody knows where it is."""

_MANY = 1024
"""Rows that one connection visits at a time; several share what is more."""


class Sight(NamedTuple):
    """What a search looks at: one connection's snapshot, and the state of the file it is of, if known."""

    session: Session
    connection: _core.Connection
    state: State | None


class Scored:
    """Rows of nodes with their scores, best or not, in no order but that of ``rowids``."""

    def __init__(self, rowids: Ints, scores: Floats, visits: list[_core.Rows] | None = None) -> None:
        self.rowids = rowids
        self.scores = scores
        self._visits = visits or []

    def and_(self, other: Scored) -> Scored:
        """These rows and those."""
        return Scored(
            np.concatenate([self.rowids, other.rowids]),
            np.concatenate([self.scores, other.scores]),
            [*self._visits, *other._visits],
        )

    def hits(self, connection: _core.Connection, numbers: Ints) -> list[Hit]:
        """Hits for the rows with these numbers, in their order."""
        scores, visits = self.scores[numbers], self._visits
        if not visits:
            # Each page once.
            order = np.argsort(numbers)
            visits = [_core.visit_rows(connection, VISIT, self.rowids[numbers[order]], None)]
            numbers = np.argsort(order)
        return _core.named_rows(Hit, visits, numbers, scores, _UNPLACED)


def scored(sight: Sight, readers: int, rowids: Ints, query: Floats) -> Scored:
    """The exact scores of rows; NaN where there is no such row, or no vector in it.

    Args:
        readers: how many connections may share the work.
        rowids: ascending, so that each page is read once.
    """
    useful = min(readers, len(rowids) // _MANY)
    if useful < 2:
        visit = _core.visit_rows(sight.connection, VISIT, rowids, query)
        return Scored(rowids, visit.scores, [visit])
    with sight.session.beside(sight.connection, useful, sight.state) as connections:
        visits = [
            visit
            for _, visit in piece_by_piece(
                connections,
                0,
                len(rowids),
                lambda connection, start, stop: _core.visit_rows(
                    connection, VISIT, rowids[start:stop], query
                ),
                at_once=_MANY,
            )
        ]
    return Scored(rowids, np.concatenate([visit.scores for visit in visits]), visits)


def named(connection: _core.Connection, found: Scored, chosen: Ints, grouped: bool) -> list[Hit]:
    """Hits for the rows with these numbers, best first; if ``grouped`` one a document, by its best row.

    Args:
        chosen: numbers of rows, ascending.
    """
    ranked = found.scores[chosen]
    order = np.argsort(-ranked)
    ranked = ranked[order]
    hits = found.hits(connection, chosen[order])
    if _has_files(connection):
        _place(connection, hits, grouped)
    if grouped or (ranked[1:] == ranked[:-1]).any():
        # Of a document and a section of it that score the same, the document counts.
        hits.sort(key=lambda hit: (-hit.score, hit.id, hit.section or ""))
    if not grouped:
        return hits
    best: dict[str, Hit] = {}
    for hit in hits:
        best.setdefault(hit.id, hit)
    return list(best.values())


def _has_files(connection: _core.Connection) -> bool:
    found = connection.execute("SELECT EXISTS (SELECT 1 FROM files) OR EXISTS (SELECT 1 FROM sections)")
    return bool(found[0][0])


def _place(connection: _core.Connection, hits: list[Hit], grouped: bool) -> None:
    """Say of each hit in which file and which section it is."""
    above = "LEFT JOIN nodes AS documents ON documents.id = s.document" if grouped else ""
    for number, path, document, heading, start, end, title in connection.execute(
        "SELECT chosen.key, files.path, s.document, s.heading, s.span_start, s.span_end, "
        f"{'documents.title' if grouped else 'NULL'} FROM json_each(?) AS chosen "
        f"LEFT JOIN sections AS s ON s.node = chosen.value {above} "
        "LEFT JOIN files ON files.node = coalesce(s.document, chosen.value) "
        "WHERE files.path IS NOT NULL OR s.document IS NOT NULL",
        (json.dumps([hit.id for hit in hits]),),
    ):
        hit = hits[number]
        if document is None:
            hits[number] = hit._replace(path=path)
            continue
        hits[number] = hit._replace(
            id=document if grouped else hit.id,
            title=title if grouped else hit.title,
            path=path,
            section=hit.id,
            heading=tuple(json.loads(heading)),
            span=(start, end),
            document=document,
        )
