"""What is known of a vault between two looks at it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from resonance.vault.ids import assign_ids
from resonance.vault.scan import FoundFile, Scan

if TYPE_CHECKING:
    from resonance.vault.ledger import Names
    from resonance.vault.resolve import Resolver
    from resonance.vault.store import KnownFile


@dataclass(slots=True)
class Picture:
    """The vault on disk and in the database.

    Attributes:
        known: the files that the database knows, by path.
        files: the notes on disk, by path; attachments, left_out: as in :class:`Scan`.
        ids: the id of every path of a note, on disk or known.
        renamed: paths whose id has changed since the last look, or may have.
        seen: whether the whole vault was looked at.
        stable: whether the last look found the same notes, attachments and left_out as there were.
        names: those in the database when it was last ingested. signature: theirs.
        resolver: what resolved links the last time, and the signature of the names it knows.
        totals: what was counted in the database then.
    """

    known: dict[str, KnownFile]
    files: dict[str, FoundFile] = field(default_factory=dict)
    attachments: set[str] = field(default_factory=set)
    left_out: set[str] = field(default_factory=set)
    ids: dict[str, str] = field(default_factory=dict)
    renamed: Set[str] = frozenset()
    seen: bool = False
    stable: bool = False
    names: Names | None = None
    signature: str = ""
    resolver: tuple[str, Resolver] | None = None
    totals: Counter[str] | None = None

    def replace(self, found: Scan) -> None:
        """Take up a look at the whole vault."""
        self.files = {file.path: file for file in found.files}
        self.attachments = found.attachments
        self.left_out = found.left_out
        self.seen, self.stable = True, False

    def update(self, paths: Iterable[str], found: Scan) -> None:
        """Take up a look at some paths: what was at and below them gives way to what is there now."""
        if "." in paths:
            return self.replace(found)
        replaced = set()
        self.stable = not (found.attachments or found.left_out)
        for path in paths:
            if self.files.pop(path, None) is not None:
                replaced.add(path)
                continue  # below a file there is nothing
            below = path + "/"
            self.stable = False
            if path not in self.attachments:
                for file in [name for name in self.files if name.startswith(below)]:
                    del self.files[file]
            for others in (self.attachments, self.left_out):
                others -= {name for name in others if name == path or name.startswith(below)}
        self.stable &= replaced == {file.path for file in found.files}
        self.files.update((file.path, file) for file in found.files)
        self.attachments |= found.attachments
        self.left_out |= found.left_out
        return None

    def assign(self, staying: Set[str]) -> dict[str, str]:
        """The id of every note, on disk or merely staying in the database; tells what is ``renamed``."""
        paths = self.files.keys() | staying
        if paths == self.ids.keys():
            self.renamed = frozenset()
            return self.ids
        before, self.ids = self.ids, assign_ids(paths)
        self.renamed = {path for path, node in self.ids.items() if before.get(path) != node}
        return self.ids

    def as_it_was(self) -> dict[str, str]:
        """As :meth:`assign`, where neither the disk nor the database has other notes than before."""
        self.renamed = frozenset()
        return self.ids

    def resolves(self) -> Resolver:
        """What resolves links by the names there are: the last one, if they are the same."""
        assert self.names is not None
        if self.resolver is None or self.resolver[0] != self.signature:
            self.resolver = self.signature, self.names.resolver()
        return self.resolver[1]
