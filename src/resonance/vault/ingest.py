"""Bringing a database up to date with a vault.

Scan, compare, read, parse and embed happen outside any transaction; what is written goes in short
ones. A run that is cut off leaves files without a hash, which the next run takes up again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Container
from typing import TYPE_CHECKING

from resonance.errors import BrakeError, ContentError
from resonance.model import Problem
from resonance.vault import ledger
from resonance.vault.embed import Embedder
from resonance.vault.ids import assign_ids
from resonance.vault.note import RULES, file_hash, parse_note
from resonance.vault.pace import Pace
from resonance.vault.report import IngestReport
from resonance.vault.resolve import Resolver
from resonance.vault.root import Root
from resonance.vault.scan import FoundFile, Scan, scan, territory
from resonance.vault.sections import sections_of
from resonance.vault.settings import VaultSettings
from resonance.vault.store import ReadNote, Store
from resonance.vault.vectors import Vector, Vectors

if TYPE_CHECKING:
    from resonance.database import ResonanceDB

Progress = Callable[[str, int, int], None]
"""Called with what is being done (scan, read, embed, link), how much is done, and how much there is."""

LARGEST_LOSS = 0.25
SMALLEST_LOSS = 10

# A file written to again so soon may keep its time; one that old has a time that proves something.
_FINE_TICK_NS, _COARSE_TICK_NS = 50_000_000, 2_000_000_000


def ingest(
    db: ResonanceDB,
    settings: VaultSettings,
    *,
    embedder: Embedder | None = None,
    progress: Progress | None = None,
    yes: bool = False,
    reuse_from: ResonanceDB | None = None,
    only: Container[str] | None = None,
) -> IngestReport:
    """Make ``db`` say what the vault says. Also fills an empty database.

    Args:
        embedder: the model to embed with; None for the one the settings ask for, if it is here,
            which is then loaded only if there is something to embed.
        progress: called now and then with (what, done, total).
        yes: go on even if many files are gone, or if another model's vectors have to be dropped.
        reuse_from: another database whose vectors of equal texts are taken over.
        only: paths of the files to bring up to date; all others stay as they were, even if they are
            gone. The report counts these only.

    Raises:
        BrakeError: the vault is empty, or more than a quarter of its files (and more than ten) are
            gone. Nothing was changed; the error lists them.
        SettingsError: the root cannot be opened.
        EmbedderError: the embedder failed; what was written before stays, and counts as unfinished.
    """
    started = time.monotonic()
    with Root(settings.root, max_file_bytes=settings.max_file_bytes) as root:
        vectors = Vectors(db, settings, embedder, reuse_from, replace=yes)
        run = _Run(db, settings, root, vectors, progress or _silent)
        run.compare(yes=yes, only=only)
        run.remove()
        run.read_changed()
        run.fill_vectors()
        run.link()
    report = run.report()
    report.seconds = time.monotonic() - started
    return report


class _Run:
    """One ingest, step by step."""

    def __init__(
        self,
        db: ResonanceDB,
        settings: VaultSettings,
        root: Root,
        vectors: Vectors,
        progress: Progress,
    ) -> None:
        self.db = db
        self.settings = settings
        self.root = root
        self.vectors = vectors
        self.progress = progress
        self.store = Store(db)
        self.pace = self.store.pace
        self.before = self.store.properties()
        self.known = self.store.known_files()
        self.rules = ledger.digest([RULES, *settings.reading.signature(), *settings.sections.told()])
        self.other_rules = self.before.get("vault.rules") != self.rules
        self.found = Scan()
        self.gone: list[str] = []
        self.ids: dict[str, str] = {}
        self.candidates: list[FoundFile] = []
        self.documents: list[ledger.Document] = []
        self.problems: list[Problem] = []
        self.unchanged = 0

    # --- what is there ----------------------------------------------------------------------------

    def compare(self, *, yes: bool, only: Container[str] | None = None) -> None:
        """Scan, and tell which files may have changed and which are gone."""
        self.progress("scan", 0, 0)
        self.found = scan(self.settings, self.root)
        if only is not None:
            self.found.files = [file for file in self.found.files if file.path in only]
            self.found.problems = [problem for problem in self.found.problems if problem.path in only]
        self.problems = list(self.found.problems)
        present = {file.path for file in self.found.files} | {p.path for p in self.problems}
        if self.found.complete and only is None:
            self.gone = sorted(self.known.keys() - present)
            if not yes:
                self._brake()
        # Files that may merely be out of sight keep their ids from being given to others.
        staying = self.known.keys() - set(self.gone)
        self.ids = assign_ids({file.path for file in self.found.files} | staying)
        self.vectors.ours = frozenset(self.ids.values())
        for file in self.found.files:
            known = self.known.get(file.path)
            if (
                known is not None
                and (known.size, known.mtime_ns, known.inode) == (file.size, file.mtime_ns, file.inode)
                and known.hash
                and self._as_before(file)
            ):
                self.unchanged += 1
            else:
                self.candidates.append(file)

    def _as_before(self, file: FoundFile) -> bool:
        """Whether the same bytes would become the same node."""
        return not self.other_rules and self.known[file.path].node == self.ids[file.path]

    def _brake(self) -> None:
        if self.known and not self.found.files:
            raise BrakeError(
                f"{self.settings.root}: no notes were found, but the database knows {len(self.known)}. "
                f"Is the folder mounted, are the sources right? Nothing was changed; "
                f"pass --yes to remove them all",
                self.gone,
            )
        limit = max(SMALLEST_LOSS, LARGEST_LOSS * len(self.known))
        if len(self.gone) <= limit:
            return
        lost = self._not_moved()
        if len(lost) > limit:
            raise BrakeError(
                f"{self.settings.root}: {len(lost)} of {len(self.known)} notes are gone, "
                f"beginning with {', '.join(lost[:3])}. Nothing was changed; pass --yes to remove them",
                lost,
            )

    def _not_moved(self) -> list[str]:
        """The files that are gone and did not just move: no new file has their bytes."""
        sizes = {self.known[path].size for path in self.gone}
        hashes = set()
        for file in self.found.files:
            if file.path not in self.known and file.size in sizes:
                try:
                    hashes.add(file_hash(self.root.read(file.disk_path)[0]))
                except ContentError:
                    continue
        return [path for path in self.gone if self.known[path].hash not in hashes]

    # --- nodes ------------------------------------------------------------------------------------

    def remove(self) -> None:
        """Delete the nodes of files that are gone. Their vectors are kept for where they moved to."""
        nodes = [self.known[path].node for path in self.gone]
        self.vectors.save(nodes)
        self.store.remove(nodes)

    def read_changed(self) -> None:
        """Read, parse, embed and write the files that may have changed."""
        done = 0
        for batch in self.pace.batches(self.candidates, _weight):
            read: list[ReadNote] = []
            touched: list[tuple[int, int, int, str]] = []
            for file in batch:
                try:
                    self._read(file, read, touched)
                except ContentError as error:
                    self.problems.append(Problem(file.path, error.line, error.reason))
            vectors = self.vectors.of([(r.note, r.sections) for r in read])
            renamed = [
                known.node
                for r in read
                if (known := self.known.get(r.file.path)) is not None and known.node != r.node
            ]
            if read or touched:
                self.store.write(read, vectors, renamed, touched)
            self.documents += [ledger.Document(r.note.path, r.node, r.note.hash, r.note.links) for r in read]
            done += len(batch)
            self.progress("read", done, len(self.candidates))

    def _read(self, file: FoundFile, read: list[ReadNote], touched: list[tuple[int, int, int, str]]) -> None:
        now = time.time_ns()
        data, status = self.root.read(file.disk_path)
        tick = _FINE_TICK_NS if status.st_mtime_ns % 1_000_000_000 else _COARSE_TICK_NS
        mtime_ns = 0 if abs(now - status.st_mtime_ns) < tick else status.st_mtime_ns
        known = self.known.get(file.path)
        if known is not None and known.hash == file_hash(data) and self._as_before(file):
            self.unchanged += 1
            touched.append((file.size, mtime_ns, file.inode, file.path))
        else:
            note, node = parse_note(file.path, data, self.settings.reading), self.ids[file.path]
            sections = sections_of(note, data, node, self.settings.sections)
            read.append(ReadNote(file, note, node, mtime_ns, sections))

    def fill_vectors(self) -> None:
        """Embed the notes that have no vector though they have not changed: the model is new."""
        pending = set(self.vectors.pending()) - {document.path for document in self.documents}
        waiting = [file for file in self.found.files if file.path in pending]
        done = 0
        for batch in self.pace.batches(waiting, _weight):
            notes = []
            for file in batch:
                try:
                    data, _ = self.root.read(file.disk_path)
                    if file_hash(data) == self.known[file.path].hash:
                        note = parse_note(file.path, data, self.settings.reading)
                        node = self.ids[file.path]
                        notes.append((note, sections_of(note, data, node, self.settings.sections)))
                except ContentError:
                    continue  # it changed since the scan; the next ingest reports it
            found: dict[str, Vector] = {}
            for (note, sections), vectors in zip(notes, self.vectors.of(notes), strict=True):
                found[self.ids[note.path]] = vectors.note
                found |= {s.node: v for s, v in zip(sections, vectors.sections, strict=True)}
            self.store.write_vectors(found)
            done += len(batch)
            self.progress("embed", done, len(waiting))

    # --- links ------------------------------------------------------------------------------------

    def link(self) -> None:
        """Write the links of changed notes, and resolve all others again if any name changed."""
        seen = territory(self.settings, self.found)
        told = {
            "vault.root": os.path.realpath(self.settings.root),
            "vault.told": json.dumps(self.settings.told),
            "vault.attachments": ledger.digest(ledger.files_told(self.found.attachments, seen)),
            "vault.vectors": self.vectors.signature(),
        }
        if (
            not self.documents
            and not self.gone
            and "vault.resolved" in self.before
            and told.items() <= self.before.items()
        ):
            return
        names = ledger.read_names(self.db, self.found.attachments, seen, self.settings.reading.dialect)
        signature = names.signature()
        settled = self.before.get("vault.resolved") == signature
        if self.documents or not settled:
            self._resolve(names.resolver(), every=not settled)
        ledger.drop_unused_tags(self.db)
        self.store.set_properties(
            {
                **told,
                "vault.rules": self.rules,
                "vault.resolved": signature,
            }
        )

    def _resolve(self, resolver: Resolver, *, every: bool) -> None:
        done = 0
        pace = Pace(self.db)
        for documents in pace.batches(self.documents, lambda document: 4 + len(document.links)):
            with pace.measured():
                ledger.write_documents(self.db, resolver, documents)
            done += len(documents)
            self.progress("link", done, len(self.documents))
        written = {document.node for document in self.documents}
        if not every or len(written) == len(self.ids):
            return
        changed = ledger.changed_resolutions(self.db, resolver, written)
        for sources in pace.batches(sorted(changed), lambda source: 4 + len(changed[source])):
            with pace.measured():
                ledger.write_resolutions(self.db, {source: changed[source] for source in sources})

    def report(self) -> IngestReport:
        counts = self.db.query(
            "SELECT (SELECT count(*) FROM files), (SELECT count(*) FROM nodes WHERE type = 'tag'), "
            "(SELECT count(*) FROM nodes WHERE type = 'page' AND layer = 'page'), "
            "(SELECT count(*) FROM edges), (SELECT count(*) FROM sections), "
            "(SELECT count(*) FROM nodes WHERE embedding IS NOT NULL AND layer IS NOT 'section')"
        )[0]
        links = dict(self.db.query("SELECT state, count(*) FROM links GROUP BY state ORDER BY state"))
        indexed = len(self.documents)
        return IngestReport(
            files=indexed + self.unchanged + len({problem.path for problem in self.problems}),
            indexed=indexed,
            unchanged=self.unchanged,
            removed=len(self.gone),
            problems=sorted(self.problems, key=lambda problem: problem.path),
            complete=self.found.complete,
            nodes=counts[0],
            tags=counts[1],
            pages=counts[2],
            edges=counts[3],
            sections=counts[4],
            vectors=counts[5],
            links=links,
            skipped=self.found.skipped,
            embedding=self.db.space,
            embedding_note=self.vectors.note,
        )


def _weight(file: FoundFile) -> int:
    """About how many nodes a file becomes."""
    return 1 + file.size // 1_000


def _silent(_what: str, _done: int, _total: int) -> None:
    return
