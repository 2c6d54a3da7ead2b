"""The ledger of links, and the edges that follow from it.

Edges of the vault carry the path of their document as ``context_source``; an edge somebody else made
between the same nodes is never touched.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from resonance.vault.links import RawLink
from resonance.vault.resolve import Resolution, Resolver

if TYPE_CHECKING:
    from resonance.database import ResonanceDB

# Rows of this kind come from adopted databases, not from a document.
_FOREIGN_KIND = "edge"

_INSERT = (
    "INSERT INTO links (source, kind, type, raw, name, fragment, span_start, span_end, state, "
    "target, candidates) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class Document(NamedTuple):
    """A note whose links are to be written. ``hash`` marks its file as done once they are."""

    path: str
    node: str
    hash: str
    links: Sequence[RawLink]


class Names(NamedTuple):
    """All that resolution depends on: path -> node, path -> aliases, and the other files."""

    ids: Mapping[str, str]
    aliases: Mapping[str, tuple[str, ...]]
    attachments: frozenset[str]

    def signature(self) -> str:
        """Equal for equal names, so that a ledger resolved with them need not be resolved again."""
        return digest([sorted(self.ids.items()), sorted(self.aliases.items()), sorted(self.attachments)])


def digest(value: object) -> str:
    """SHA-256 of a JSON value, in hex."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def read_names(db: ResonanceDB, attachments: Iterable[str]) -> Names:
    """The names that the notes in the database answer to."""
    ids = dict(db.query("SELECT path, node FROM files"))
    aliases = {
        path: tuple(str(alias) for alias in json.loads(told))
        for path, told in db.query(
            "SELECT f.path, json_extract(n.meta, '$.aliases') FROM files AS f "
            "JOIN nodes AS n ON n.id = f.node WHERE json_extract(n.meta, '$.aliases[0]') IS NOT NULL"
        )
    }
    return Names(ids, aliases, frozenset(attachments))


def write_documents(db: ResonanceDB, resolver: Resolver, documents: Sequence[Document]) -> None:
    """Replace the ledger and the edges of some documents, in one transaction."""
    rows: list[tuple[Any, ...]] = []
    for document in documents:
        for link in document.links:
            resolution = resolver.resolve(document.path, link)
            rows.append(
                (
                    document.node,
                    link.kind,
                    link.type,
                    link.raw,
                    link.name,
                    link.fragment,
                    link.start,
                    link.end,
                    *_columns(resolution),
                )
            )
    nodes = [document.node for document in documents]
    with db.transaction() as connection:
        connection.execute(
            "DELETE FROM links WHERE kind <> ? AND source IN (SELECT value FROM json_each(?))",
            (_FOREIGN_KIND, json.dumps(nodes)),
        )
        connection.executemany(_INSERT, rows)
        connection.executemany(
            "UPDATE files SET hash = ? WHERE path = ?",
            [(document.hash, document.path) for document in documents],
        )
        _follow(db, nodes)


def changed_resolutions(
    db: ResonanceDB, resolver: Resolver, written: Container[str]
) -> dict[str, list[tuple[str | None, ...]]]:
    """Rows of the ledger that lead elsewhere now: source -> (state, target, candidates, id).

    Documents in ``written`` have just been resolved and are left out.
    """
    changed: defaultdict[str, list[tuple[str | None, ...]]] = defaultdict(list)
    found = db.query(
        "SELECT l.id, l.source, f.path, l.kind, l.type, l.name, l.state, l.target, l.candidates "
        "FROM links AS l JOIN files AS f ON f.node = l.source WHERE l.kind NOT IN ('tag', ?)",
        (_FOREIGN_KIND,),
    )
    for row, source, path, kind, type_, name, *stored in found:
        if source in written:
            continue
        resolution = resolver.resolve(path, RawLink(kind, type_, "", name, None, 0, 0))
        columns = _columns(resolution)
        if columns != tuple(stored):
            changed[source].append((*columns, row))
    return dict(changed)


def write_resolutions(db: ResonanceDB, changed: Mapping[str, Sequence[tuple[str | None, ...]]]) -> None:
    """Store what :func:`changed_resolutions` found, and the edges that follow, in one transaction."""
    with db.transaction() as connection:
        connection.executemany(
            "UPDATE links SET state = ?, target = ?, candidates = ? WHERE id = ?",
            [row for rows in changed.values() for row in rows],
        )
        _follow(db, list(changed))


def drop_unused_tags(db: ResonanceDB) -> None:
    """Delete the nodes of tags that no note uses any more."""
    unused = db.query(
        "SELECT id FROM nodes AS n WHERE type = 'tag' AND layer = 'tag' AND id LIKE '#%' "
        "AND NOT EXISTS (SELECT 1 FROM links WHERE target = n.id) "
        "AND NOT EXISTS (SELECT 1 FROM edges WHERE target = n.id OR source = n.id)"
    )
    if unused:
        db.delete_nodes(node for (node,) in unused)


def _follow(db: ResonanceDB, sources: Sequence[str]) -> None:
    """Make the edges of some documents what their ledger says."""
    chosen = json.dumps(sources)
    wanted = {
        (source, target, type_): path
        for source, target, type_, path in db.query(
            "SELECT DISTINCT l.source, l.target, l.type, f.path FROM links AS l "
            "JOIN files AS f ON f.node = l.source "
            "WHERE l.source IN (SELECT value FROM json_each(?)) "
            "AND l.state = 'resolved' AND l.target <> l.source AND l.kind <> ?",
            (chosen, _FOREIGN_KIND),
        )
    }
    there = db.query(
        "SELECT e.source, e.target, e.type, e.context_source IS f.path FROM edges AS e "
        "JOIN files AS f ON f.node = e.source WHERE e.source IN (SELECT value FROM json_each(?))",
        (chosen,),
    )
    present = {(source, target, type_) for source, target, type_, _ in there}
    stale = [
        (source, target, type_)
        for source, target, type_, ours in there
        if ours and (source, target, type_) not in wanted
    ]
    missing = sorted(wanted.keys() - present)
    if stale:
        db.delete_edges(stale)
    if missing:
        db.insert_edges(
            source=[edge[0] for edge in missing],
            target=[edge[1] for edge in missing],
            type=[edge[2] for edge in missing],
            context_source=[wanted[edge] for edge in missing],
        )


def _columns(resolution: Resolution) -> tuple[str, str | None, str | None]:
    candidates = json.dumps(resolution.candidates) if resolution.candidates else None
    return resolution.state, resolution.target, candidates
