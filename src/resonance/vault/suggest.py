"""Whose conventions a vault seems to follow, told by which of its links find a note."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from resonance.vault import ledger
from resonance.vault.dialect import DIALECTS, Dialect
from resonance.vault.links import RawLink, wikilink
from resonance.vault.scan import Territory

if TYPE_CHECKING:
    from resonance.database import ResonanceDB

_LOGSEQ_FOLDERS = frozenset({"pages", "journals"})
_NOWHERE = Territory((), frozenset())


class Suggestion(NamedTuple):
    """Of ``links`` in brackets ``resolved`` find a note; read as ``dialect`` more would, ``would``."""

    dialect: Dialect
    links: int
    resolved: int
    would: int


class _Written(NamedTuple):
    path: str
    kind: str
    type: str
    raw: str
    resolved: bool


def suggest_dialect(db: ResonanceDB) -> Suggestion | None:
    """The dialect in which more links would resolve, if most do not; else None.

    A page without a file counts only where the vault has Logseq's folders. Plain markdown, which
    has no links in brackets, is suggested where the other kind resolves and no dialect helps.
    """
    found = [
        _Written(*row)
        for row in db.query(
            "SELECT f.path, l.kind, l.type, l.raw, l.state = 'resolved' FROM links AS l "
            "JOIN files AS f ON f.node = l.source WHERE l.kind IN ('wikilink', 'embed', 'frontmatter') "
            "AND l.name <> '' AND l.state <> 'external'"
        )
    ]
    resolved = sum(link.resolved for link in found)
    if len(found) <= 2 * resolved:
        return None
    told = dict(db.query("SELECT key, value FROM properties WHERE key = 'vault.dialect'"))
    now = told.get("vault.dialect", "obsidian")
    tried = [_try(db, found, cast(Dialect, name)) for name in DIALECTS if name not in (now, "markdown")]
    best = max(tried, key=lambda suggestion: suggestion.would)
    if best.would > resolved:
        return best._replace(resolved=resolved)
    plain = db.query("SELECT count(*) FROM links WHERE kind = 'link' AND state = 'resolved'")[0][0]
    if now != "markdown" and plain > len(found):
        return Suggestion("markdown", len(found), resolved, resolved)
    return None


def _try(db: ResonanceDB, found: list[_Written], dialect: Dialect) -> Suggestion:
    names = ledger.read_names(db, (), _NOWHERE, dialect)
    resolver = names.resolver()
    pages = any(_LOGSEQ_FOLDERS & set(path.split("/")[:-1]) for path in names.ids)
    would = 0
    for written in found:
        resolution = resolver.resolve(written.path, _again(written, dialect))
        would += resolution.state == "resolved" and (pages or resolution.mark != "page")
    return Suggestion(dialect, len(found), 0, would)


def _again(written: _Written, dialect: Dialect) -> RawLink:
    """A link in brackets, read by another dialect."""
    if not written.raw.endswith("]]"):  # it was too long to be kept whole
        return RawLink(written.kind, written.type, "", "", None, 0, 0)
    return wikilink(written.kind, written.raw, 0, 0, type=written.type, label_first=dialect == "dendron")
