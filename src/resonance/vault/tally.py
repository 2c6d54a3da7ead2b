"""How much a database holds: counted from its beginning, or where something has changed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resonance.database import ResonanceDB

_WHOLE = {
    "nodes": "SELECT count(*) FROM files",
    "edges": "SELECT count(*) FROM edges",
    "sections": "SELECT count(*) FROM sections",
    "vectors": "SELECT count(*) FROM nodes WHERE embedding IS NOT NULL AND layer IS NOT 'section'",
    "texts": "SELECT count(*) FROM texts",
}
_LINKS = "SELECT state, count(*) FROM links GROUP BY state"

# Of some documents and their sections, with all that begins or ends at them.
_AROUND = (
    "WITH documents (node) AS MATERIALIZED (SELECT value FROM json_each(?)), "
    "here (node) AS MATERIALIZED (SELECT node FROM documents UNION ALL "
    "SELECT s.node FROM documents AS d CROSS JOIN sections AS s ON s.document = d.node) "
)
_PARTS = {
    "nodes": "SELECT count(*) FROM files WHERE node IN documents",
    "edges": "SELECT count(*) FROM edges WHERE source IN here OR target IN here",
    "sections": "SELECT count(*) FROM sections WHERE document IN documents",
    "vectors": "SELECT count(*) FROM nodes WHERE id IN here AND embedding IS NOT NULL "
    "AND layer IS NOT 'section'",
    "texts": "SELECT count(*) FROM texts WHERE node IN here",
}
_PART_LINKS = "SELECT state, count(*) FROM links WHERE source IN here OR target IN here GROUP BY state"

_NAMED = (
    "SELECT (SELECT count(*) FROM nodes WHERE type = 'tag'), "
    "(SELECT count(*) FROM nodes WHERE type = 'page' AND layer = 'page')"
)


def tally(db: ResonanceDB) -> Counter[str]:
    """The numbers of a report: ``nodes``, ``edges``, ``sections``, ``vectors``, ``texts``, ``link STATE``."""
    counts = db.query(f"SELECT {', '.join(f'({sql})' for sql in _WHOLE.values())}")[0]
    return _counted(counts, db.query(_LINKS))


def tally_around(db: ResonanceDB, documents: Iterable[str]) -> Counter[str]:
    """What of it some documents have a part in: takes no longer where there is more besides."""
    chosen = (json.dumps(list(documents)),)
    counts = db.query(f"{_AROUND} SELECT {', '.join(f'({sql})' for sql in _PARTS.values())}", chosen)[0]
    return _counted(counts, db.query(_AROUND + _PART_LINKS, chosen))


def tally_named(db: ResonanceDB) -> tuple[int, int]:
    """How many tags there are, and pages without a file."""
    tags, pages = db.query(_NAMED)[0]
    return tags, pages


def _counted(counts: Iterable[int], links: Iterable[tuple[str, int]]) -> Counter[str]:
    return Counter(dict(zip(_WHOLE, counts, strict=True)) | {f"link {state}": n for state, n in links})
