"""What is known of a vault between two looks at it."""

from __future__ import annotations

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
        resolver: what resolved links the last time, and the signature of the names it knows.
    """

    known: dict[str, KnownFile]
    files: dict[str, FoundFile] = field(default_factory=dict)
    attachments: set[str] = field(default_factory=set)
    left_out: set[str] = field(default_factory=set)
    ids: dict[str, str] = field(default_factory=dict)
    renamed: Set[str] = frozenset()
    seen: bool = False
    resolver: tuple[str, Resolver] | None = None

    def replace(self, found: Scan) -> None:
        """Take up a look at the whole vault."""
        self.files = {file.path: file for file in found.files}
        self.attachments = found.attachments
        self.left_out = found.left_out
        self.seen = True

    def update(self, paths: Iterable[str], found: Scan) -> None:
        """Take up a look at some paths: what was at and below them gives way to what is there now."""
        if "." in paths:
            return self.replace(found)
        for path in paths:
            below = path + "/"
            if self.files.pop(path, None) is None and path not in self.attachments:
                for file in [name for name in self.files if name.startswith(below)]:
                    del self.files[file]
            for others in (self.attachments, self.left_out):
                others -= {name for name in others if name == path or name.startswith(below)}
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

    def resolves(self, names: Names, signature: str) -> Resolver:
        """What resolves links by these names: the last one, if the names are the same."""
        if self.resolver is None or self.resolver[0] != signature:
            self.resolver = signature, names.resolver()
        return self.resolver[1]
