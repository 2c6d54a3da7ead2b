"""Bringing the ledger, and the edges that follow from it, up to date with the names there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from resonance.vault import ledger
from resonance.vault.pace import Pace
from resonance.vault.resolve import Resolver

if TYPE_CHECKING:
    from resonance.database import ResonanceDB


def relink(
    db: ResonanceDB,
    resolver: Resolver,
    documents: Sequence[ledger.Document],
    *,
    every: bool,
    progress: Callable[[str, int, int], None],
) -> None:
    """Write the links of some notes, and with ``every`` resolve those of all others again."""
    pace = Pace(db)
    done = 0
    with ledger.filling(db) as first:
        for batch in pace.batches(documents, lambda document: 4 + len(document.links)):
            with pace.measured():
                ledger.write_documents(db, resolver, batch, first=first)
            done += len(batch)
            progress("link", done, len(documents))
    if every:
        _resolve_again(db, resolver, pace, {document.node for document in documents}, ())


def relink_restored(db: ResonanceDB, names: ledger.Names, nodes: Sequence[str]) -> None:
    """After the nodes and links of some notes were put back: resolve all links, and make their edges."""
    _resolve_again(db, names.resolver(), Pace(db), set(), nodes)


def _resolve_again(
    db: ResonanceDB, resolver: Resolver, pace: Pace, written: set[str], unfollowed: Sequence[str]
) -> None:
    changed = ledger.changed_resolutions(db, resolver, written)
    sources = sorted({*changed, *unfollowed})
    for batch in pace.batches(sources, lambda source: 4 + len(changed.get(source, ()))):
        with pace.measured():
            ledger.write_resolutions(db, {source: changed.get(source, []) for source in batch})
