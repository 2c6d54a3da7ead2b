"""The ledger of links, and the edges that follow from it.

Edges of the vault carry the path of their document as ``context_source``; an edge somebody else made
between the same nodes is never touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from resonance.vault.dialect import Dialect
from resonance.vault.links import RawLink
from resonance.vault.resolve import Resolution, Resolver
from resonance.vault.scan import Territory

if TYPE_CHECKING:
    from resonance.database import ResonanceDB

# Rows of this kind come from adopted databases, not from a document.
_FOREIGN_KIND = "edge"

_INSERT = (
    "INSERT INTO links (source, kind, type, raw, name, fragment, span_start, span_end, state, "
    "target, candidates, mark) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


_TARGET = 9
_CHOSEN = "(SELECT value FROM json_each(?))"


class Document(NamedTuple):
    """A note whose links are to be written. ``hash`` marks its file as done once they are."""

    path: str
    node: str
    hash: str
    links: Sequence[RawLink]


class Names(NamedTuple):
    """All that resolution depends on; see :class:`Resolver`."""

    ids: Mapping[str, str]
    aliases: Mapping[str, tuple[str, ...]]
    attachments: frozenset[str]
    territory: Territory
    dialect: Dialect
    numbers: Mapping[str, str]
    blocks: Mapping[str, tuple[str, ...]]

    def signature(self) -> str:
        """Equal for equal names, so that a ledger resolved with them need not be resolved again."""
        told = [sorted(value.items()) for value in self._by_path()]
        return digest([told, *files_told(self.attachments, self.territory), self.dialect])

    def hold(self, others: Names, paths: Iterable[str]) -> bool:
        """Whether some notes answer to the same names here as in ``others``."""
        return all(
            mine.get(path) == theirs.get(path)
            for path in paths
            for mine, theirs in zip(self._by_path(), others._by_path(), strict=True)
        )

    def _by_path(self) -> tuple[Mapping[str, object], ...]:
        return self.ids, self.aliases, self.numbers, self.blocks

    def resolver(self) -> Resolver:
        """What resolves links by these names."""
        return Resolver(
            self.ids,
            self.aliases,
            self.attachments,
            territory=self.territory,
            dialect=self.dialect,
            numbers=self.numbers,
            blocks=self.blocks,
        )


def files_told(attachments: Iterable[str], territory: Territory) -> list[Any]:
    """What a scan says about files that are no notes, as a JSON value."""
    return [sorted(attachments), territory.sources, sorted(territory.left_out)]


def digest(value: object) -> str:
    """SHA-256 of a JSON value, in hex."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def read_names(
    db: ResonanceDB,
    attachments: Iterable[str],
    territory: Territory,
    dialect: Dialect,
    paths: Collection[str] | None = None,
) -> Names:
    """The names that the notes in the database answer to: all of them, or those at ``paths``."""
    # An index is used where it may find little.
    where, chosen = ("", ()) if paths is None else (f"f.path IN {_CHOSEN} AND ", (json.dumps(list(paths)),))
    ids = dict(db.query(f"SELECT f.path, f.node FROM files AS f WHERE {where} true", chosen))
    aliases: dict[str, tuple[str, ...]] = {}
    numbers: dict[str, str] = {}
    blocks: dict[str, tuple[str, ...]] = {}
    for path, called, number, held in db.query(
        "SELECT f.path, json_extract(n.meta, '$.aliases'), json_extract(n.meta, '$.id'), "
        "json_extract(n.meta, '$.blocks') FROM files AS f JOIN nodes AS n ON n.id = f.node "
        f"WHERE {where} (json_extract(n.meta, '$.aliases[0]') IS NOT NULL "
        "OR json_extract(n.meta, '$.id') IS NOT NULL OR json_extract(n.meta, '$.blocks[0]') IS NOT NULL)",
        chosen,
    ):
        if names := _texts(called):
            aliases[path] = names
        if number is not None:
            numbers[path] = str(number)
        if dialect == "logseq" and (names := _texts(held)):
            blocks[path] = names
    return Names(ids, aliases, frozenset(attachments), territory, dialect, numbers, blocks)


def _texts(told: Any) -> tuple[str, ...]:
    """A list that metadata holds, as texts."""
    value = json.loads(told) if isinstance(told, str) and told.startswith("[") else []
    return tuple(str(item) for item in value)


@contextlib.contextmanager
def filling(db: ResonanceDB) -> Iterator[bool]:
    """Round the writing of many documents: whether nothing has been written so far, and nobody looks on.

    Then the indexes of the ledger are made at the end, which is sooner done than placing each row.
    """
    if not db.is_alone or db.query("SELECT 1 FROM links LIMIT 1"):
        yield False
        return
    indexes = db.query(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'links' AND sql IS NOT NULL"
    )
    with db.transaction() as connection:
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
    try:
        yield True
    finally:
        with db.transaction() as connection:
            for _, sql in indexes:
                connection.execute(sql)


def write_documents(
    db: ResonanceDB, resolver: Resolver, documents: Sequence[Document], *, first: bool = False
) -> None:
    """Replace the ledger and the edges of some documents, in one transaction.

    Args:
        first: no document has any so far.
    """
    rows: list[tuple[Any, ...]] = []
    wanted: dict[tuple[str, str, str], str] = {}
    resolve = resolver.resolve
    for path, node, _, links in documents:
        for link in links:
            resolution = resolve(path, link)
            target = resolution.target
            if target is not None and target != node:
                wanted[node, target, link.type] = path
            rows.append((node, *link, *_columns(resolution)))
    nodes = [document.node for document in documents]
    with db.transaction() as connection:
        make_targets(db, {row[_TARGET] for row in rows})
        if not first:
            connection.execute(
                f"DELETE FROM links WHERE kind <> ? AND source IN {_CHOSEN}",
                (_FOREIGN_KIND, json.dumps(nodes)),
            )
        connection.executemany(_INSERT, rows)
        connection.executemany(
            "UPDATE files SET hash = ? WHERE path = ?",
            [(document.hash, document.path) for document in documents],
        )
        _follow(db, nodes, wanted)


def changed_resolutions(
    db: ResonanceDB, resolver: Resolver, written: Container[str]
) -> dict[str, list[tuple[str | None, ...]]]:
    """Rows of the ledger that lead elsewhere now: source -> (state, target, candidates, mark, id).

    Documents in ``written`` have just been resolved and are left out.
    """
    changed: defaultdict[str, list[tuple[str | None, ...]]] = defaultdict(list)
    found = db.query(
        "SELECT l.id, l.source, f.path, l.kind, l.type, l.name, l.state, l.target, l.candidates, l.mark "
        "FROM links AS l JOIN files AS f ON f.node = l.source "
        # A tag leads to its own node, unless somebody has deleted that.
        "WHERE l.kind <> ? AND (? OR l.kind <> 'tag' OR l.state <> 'resolved')",
        (_FOREIGN_KIND, int(resolver.resolves_tags)),
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
        make_targets(db, {row[1] for rows in changed.values() for row in rows})
        connection.executemany(
            "UPDATE links SET state = ?, target = ?, candidates = ?, mark = ? WHERE id = ?",
            [row for rows in changed.values() for row in rows],
        )
        _follow(db, list(changed), _edges_of(db, list(changed)))


def led_to(db: ResonanceDB, documents: Collection[str]) -> set[str]:
    """The tags and pages that links in some documents lead to."""
    return {
        target
        for (target,) in db.query(
            f"SELECT DISTINCT target FROM links WHERE source IN {_CHOSEN} "
            "AND (target LIKE '#%' OR target LIKE '[[%')",
            (json.dumps(list(documents)),),
        )
    }


def drop_unused_tags(db: ResonanceDB, among: Collection[str] | None = None) -> None:
    """Delete the nodes of tags and pages that no note uses any more, and name the pages that stay.

    Args:
        among: look at these tags and pages only.
    """
    where, chosen = ("", ()) if among is None else (f"n.id IN {_CHOSEN} AND ", (json.dumps(list(among)),))
    unused = db.query(
        f"SELECT id FROM nodes AS n WHERE {where} ((type = 'tag' AND layer = 'tag' AND id LIKE '#%') "
        "OR (type = 'page' AND layer = 'page' AND id LIKE '[[%')) "
        "AND NOT EXISTS (SELECT 1 FROM links WHERE target = n.id) "
        "AND NOT EXISTS (SELECT 1 FROM edges WHERE target = n.id OR source = n.id)",
        chosen,
    )
    if unused:
        db.delete_nodes(node for (node,) in unused)
    # The first of all spellings, so that it does not matter which was seen first.
    named = db.query(
        "SELECT n.id, min(l.name) FROM nodes AS n JOIN links AS l ON l.target = n.id "
        f"WHERE {where} n.type = 'page' AND n.layer = 'page' GROUP BY n.id HAVING n.title IS NOT min(l.name)",
        chosen,
    )
    if named:
        db.insert_nodes(id=[row[0] for row in named], title=[row[1] for row in named])


def make_targets(db: ResonanceDB, targets: Iterable[str | None]) -> None:
    """Make the nodes of tags and pages that links lead to, if they are not there."""
    wanted = {target for target in targets if target and target.startswith(("#", "[["))}
    if not wanted:
        return
    chosen = json.dumps(sorted(wanted))
    there = db.query("SELECT id FROM nodes WHERE id IN (SELECT value FROM json_each(?))", (chosen,))
    if new := sorted(wanted - {node for (node,) in there}):
        kinds = ["tag" if node.startswith("#") else "page" for node in new]
        titles = [node[1:] if node.startswith("#") else node[2:-2] for node in new]
        db.insert_nodes(id=new, type=kinds, title=titles, domain="knowledge", layer=kinds)


def _edges_of(db: ResonanceDB, sources: Sequence[str]) -> dict[tuple[str, str, str], str]:
    """The edges that follow from the ledger of some documents, each with the path of its document."""
    return {
        (source, target, type_): path
        for source, target, type_, path in db.query(
            "SELECT DISTINCT l.source, l.target, l.type, f.path FROM links AS l "
            f"JOIN files AS f ON f.node = l.source WHERE l.source IN {_CHOSEN} "
            "AND l.state = 'resolved' AND l.target <> l.source AND l.kind <> ?",
            (json.dumps(sources), _FOREIGN_KIND),
        )
    }


def _follow(db: ResonanceDB, sources: Sequence[str], wanted: Mapping[tuple[str, str, str], str]) -> None:
    """Make the edges of some documents what their ledger says: ``wanted``."""
    chosen = json.dumps(sources)
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


def _columns(resolution: Resolution) -> tuple[str | None, ...]:
    state, target, candidates, mark = resolution
    return state, target, json.dumps(candidates) if candidates else None, mark
