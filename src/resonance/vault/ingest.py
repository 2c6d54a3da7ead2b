"""Bringing a database up to date with a vault.

Scan, compare, read, parse and embed happen outside any transaction; what is written goes in short
ones. A run that is cut off leaves files without a hash, which the next run takes up again.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from pathlib import PurePosixPath
from posixpath import dirname
from typing import TYPE_CHECKING, get_args

from resonance import rebuild
from resonance.errors import BrakeError, ContentError, SettingsError
from resonance.garbage import seldom_sought
from resonance.model import LinkState, Problem
from resonance.search import text as fulltext
from resonance.vault import brakes, ledger, tombstones
from resonance.vault.embed import Embedder
from resonance.vault.moves import Move, find_moves
from resonance.vault.note import RULES, ParsedNote, file_hash, parse_note
from resonance.vault.picture import Picture
from resonance.vault.reader import Outcome, Reader, ReadNote, Same, Task
from resonance.vault.relink import relink
from resonance.vault.report import IngestReport
from resonance.vault.root import Root
from resonance.vault.scan import (
    FoundFile,
    Scan,
    Territory,
    encodable,
    outermost,
    printable,
    scan,
    scan_paths,
    territory,
)
from resonance.vault.sections import Section, sections_of
from resonance.vault.settings import VaultSettings
from resonance.vault.store import Store
from resonance.vault.tally import tally, tally_around, tally_named
from resonance.vault.vectors import Vector, Vectors
from resonance.vault.words import texts_of
from resonance.vault.workers import read_all
from resonance.watch import Version

if TYPE_CHECKING:
    from resonance.database import ResonanceDB

Progress = Callable[[str, int, int], None]
"""Called with what is being done (scan, read, embed, index, link), how much is done, and of how much."""


def ingest(
    db: ResonanceDB,
    settings: VaultSettings,
    *,
    embedder: Embedder | None = None,
    progress: Progress | None = None,
    yes: bool = False,
    reuse_from: ResonanceDB | None = None,
    only: Iterable[str] | None = None,
) -> IngestReport:
    """Make ``db`` say what the vault says. Also fills an empty database.

    Args:
        embedder: the model to embed with; None for the one the settings ask for, if it is here,
            which is then loaded only if there is something to embed.
        progress: called now and then with (what, done, total).
        yes: go on even if many files are gone, if some may only be out of sight, or if another model's
            vectors have to be dropped, or give way to those of a model that are kept beside.
        reuse_from: another database whose vectors of equal texts are taken over.
        only: root-relative paths of files and folders to bring up to date; all else stays as it is.
            The report counts these only.

    Raises:
        BrakeError: the vault is empty, or more notes are gone than ``settings.max_loss`` allows.
            Nothing was changed; the error lists them.
        SettingsError: the root cannot be opened.
        SpaceError: the model is not that of the vectors in use, but of some that are kept beside them.
            Nothing was changed.
        EmbedderError: the embedder failed; what was written before stays, and counts as unfinished.
    """
    return Keeper(db, settings, embedder=embedder).ingest(
        only, progress=progress, yes=yes, reuse_from=reuse_from
    )


class Keeper:
    """Brings one database up to date again and again, and remembers the vault in between.

    With what it remembers, a run for a few paths looks at these only. When somebody else has written to
    the database meanwhile, it forgets, and looks at everything.

    Attributes:
        held: paths of notes that are gone but were not removed, because of the brakes.
    """

    def __init__(self, db: ResonanceDB, settings: VaultSettings, *, embedder: Embedder | None = None) -> None:
        self.db = db
        self.settings = settings
        self.embedder = embedder
        self.held: frozenset[str] = frozenset()
        self._picture: Picture | None = None
        self._version: Version | None = None

    def ingest(
        self,
        only: Iterable[str] | None = None,
        *,
        progress: Progress | None = None,
        yes: bool = False,
        reuse_from: ResonanceDB | None = None,
        hold: bool = False,
        lately: int = 0,
    ) -> IngestReport:
        """See :func:`ingest`.

        Args:
            hold: where the brakes object, remove nothing but do the rest, instead of raising; what was
                held once stays held until it is there again, or somebody else removes it.
            lately: how many notes went a moment ago, for the brakes to count too.
        """
        started = time.monotonic()
        if not encodable(place := os.path.realpath(self.settings.root)):
            raise SettingsError(f"{printable(place)}: is not UTF-8, so it cannot be stored; rename it")
        version, writes = self.db.version(), self.db.writes_here
        picture = self._picture if only is not None and self._version == version else None
        self._picture = None
        with (
            seldom_sought(),
            Root(self.settings.root, max_file_bytes=self.settings.max_file_bytes) as root,
        ):
            vectors = Vectors(self.db, self.settings, self.embedder, reuse_from, replace=yes)
            vectors.require_no_switch()
            run = _Run(self.db, self.settings, root, vectors, progress or _silent, picture)
            run.look(None if only is None else outermost(only))
            run.compare(held=None if yes else self.held, hold=hold, lately=lately)
            run.remove()
            run.read_changed()
            run.fill_vectors()
            run.fill_texts()
            run.link()
        self.held = frozenset(p for p in self.held if not run.asked(p) and p in run.known) | set(run.held)
        self._version = self.db.version()
        ours = self.db.writes_here - writes
        alone = self._version.others == version.others and self._version.own - version.own == ours
        report = run.report(alone=alone)
        if alone:
            self._picture = run.kept()
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
        picture: Picture | None,
    ) -> None:
        self.db = db
        self.settings = settings
        self.root = root
        self.reader = Reader(root, settings.reading, settings.sections, verbatim=vectors.may_embed)
        self.vectors = vectors
        self.progress = progress
        self.store = Store(db)
        self.pace = self.store.pace
        self.before = self.store.properties()
        self.rules = ledger.digest([RULES, *settings.reading.signature(), *settings.sections.told()])
        self.other_rules = self.before.get("vault.rules") != self.rules
        self.picture = picture or Picture(known=self.store.known_files())
        self.known = self.picture.known
        self.only: Set[str] | None = None
        self.complete = True
        self.skipped: dict[str, int] = {}
        self.present: list[FoundFile] = []
        self.gone: list[str] = []
        self.held: list[str] = []
        self.why_held: str | None = None
        self.moves: list[Move] = []
        self.candidates: list[FoundFile] = []
        self.touched: set[str] = set()
        self.documents: list[ledger.Document] = []
        self.problems: list[Problem] = []
        self.unchanged = 0
        # Of the documents to be read, as they were, where nothing else is going to change.
        self.around: Counter[str] | None = None

    # --- what is there ----------------------------------------------------------------------------

    def look(self, only: list[str] | None) -> None:
        """Scan the vault, or some paths of it where the rest is known."""
        self.progress("scan", 0, 0)
        self.only = None if only is None else frozenset(only)
        if only is not None and self.picture.seen:
            found = scan_paths(self.settings, self.root, only)
            self.picture.update(only, found)
        else:
            found = scan(self.settings, self.root)
            self.picture.replace(found)
        self.present = [file for file in found.files if self.asked(file.path)]
        self.problems = [problem for problem in found.problems if self.asked(problem.path)]
        self.complete = found.complete
        self.skipped = found.skipped

    def asked(self, path: str) -> bool:
        """Whether a path is one that this run is about."""
        if self.only is None or self.only == {"."}:
            return True
        while path and path not in self.only:
            path = dirname(path)
        return path != ""

    def compare(self, *, held: Iterable[str] | None, hold: bool, lately: int) -> None:
        """Tell which files may have changed, which moved and which are gone.

        Args:
            held: notes that must not be removed; None to remove whatever is gone.
        """
        there = {file.path for file in self.present} | {problem.path for problem in self.problems}
        missing = sorted(path for path in self._known_here() if path not in there)
        new = [file for file in self.present if file.path not in self.known]
        origin = find_moves(self.root, (self.known[path] for path in missing), new) if missing else {}
        lost = sorted(set(missing) - set(origin.values()))
        if held is not None and missing and not self.complete:
            # What is out of sight may be there still: then its twin elsewhere is a copy.
            self.held, self.why_held, origin = missing, "a folder could not be read", {}
        elif held is not None:
            self._brake(lost, frozenset(held), hold, lately)
        self.gone = sorted(set(missing) - set(self.held))
        # Files that may merely be out of sight keep their ids from being given to others.
        if self.picture.stable and not missing:
            ids = self.vectors.ours = self.picture.as_it_was()
            return self._sort_out()
        staying = self.known.keys() - set(self.gone)
        ids = self.vectors.ours = self.picture.assign(staying)
        self.moves = [
            Move(old, self.known[old].node, path, ids[path]) for path, old in sorted(origin.items())
        ]
        self.moves += [
            Move(path, self.known[path].node, path, ids[path])
            for path in sorted(self.picture.renamed)
            if path in staying and path in self.picture.files and self.known[path].node != ids[path]
        ]
        return self._sort_out()

    def _known_here(self) -> list[str]:
        if self.only is not None and self.only <= self.known.keys():
            return list(self.only)
        return [path for path in self.known if self.asked(path)]

    def _brake(self, lost: list[str], held: frozenset[str], hold: bool, lately: int) -> None:
        """Raise, or hold back what must not go."""
        self.held = [path for path in lost if path in held]
        self.why_held = "they were held back before" if self.held else None
        fresh = [path for path in lost if path not in held]
        objection = brakes.objection(
            self.settings,
            known=len(self.known),
            found=len(self.picture.files),
            lost=fresh,
            lately=lately + len(self.held),
        )
        if objection is None:
            return
        if not hold:
            raise BrakeError(f"{objection} Nothing was changed; pass --yes to remove them", lost)
        self.held, self.why_held = lost, objection

    def _sort_out(self) -> None:
        """Tell the files that are as they were from those that have to be read."""
        moved = {move.path for move in self.moves}
        for file in self.present:
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
                moved.discard(file.path)
        # What has another id now because of its neighbours is read again, asked for or not.
        self.candidates += [self.picture.files[path] for path in sorted(moved & self.picture.files.keys())]

    def _as_before(self, file: FoundFile) -> bool:
        """Whether the same bytes would become the same node."""
        return not self.other_rules and self.known[file.path].node == self.picture.ids[file.path]

    # --- nodes ------------------------------------------------------------------------------------

    def remove(self) -> None:
        """Delete the nodes of files that are gone, and rename those that moved."""
        moved = {move.old_path for move in self.moves}
        nodes = [self.known[path].node for path in self.gone if path not in moved]
        # Their vectors are kept for texts that are the same.
        self.vectors.save(nodes)
        self.store.remove(nodes)
        refused = self.store.move(self.moves)
        if refused:
            taken = [move.old_node for move in refused if move.old_path != move.path]
            self.vectors.save(taken)
            self.store.remove(taken)
        self.touched.update(self.gone, (move.path for move in self.moves))
        if self.gone or self.moves:
            self._know_again()

    def _know_again(self) -> None:
        """Take up from the database what it says about the files this run has touched."""
        for path in self.touched:
            self.known.pop(path, None)
        self.known.update(self.store.known_files(self.touched))

    def read_changed(self) -> None:
        """Read, parse, embed and write the files that may have changed."""
        done = 0
        if self._steady() and self.picture.totals is not None:
            self.around = tally_around(self.db, self._documents())
        tasks = [self._task(file) for file in self.candidates]
        if not tasks:
            return
        if "vault.root" not in self.before:
            # A run that is cut off leaves notes that can be read.
            self.store.set_properties(self._place())
        with self.store.filling(), contextlib.closing(read_all(self.reader, tasks)) as outcomes:
            for batch in self.pace.batches(self.candidates, _weight):
                self._write(list(itertools.islice(outcomes, len(batch))))
                self.touched.update(file.path for file in batch)
                done += len(batch)
                self.progress("read", done, len(self.candidates))

    def _steady(self) -> bool:
        """Whether, as far as is known, only the notes that are read again are not as they were."""
        return self.picture.stable and not self.gone and not self.moves and not self.vectors.replaced

    def _documents(self) -> list[str]:
        """The ids of the notes that are read again."""
        return [self.picture.ids[file.path] for file in self.candidates]

    def _task(self, file: FoundFile) -> Task:
        known = self.known.get(file.path)
        hash_ = known.hash if known is not None and self._as_before(file) else None
        return Task(file, self.picture.ids[file.path], hash_)

    def _write(self, found: Sequence[Outcome]) -> None:
        self.problems += [problem for problem in found if isinstance(problem, Problem)]
        same = [outcome for outcome in found if isinstance(outcome, Same)]
        self.unchanged += len(same)
        read = [outcome for outcome in found if isinstance(outcome, ReadNote)]
        vectors = self.vectors.of([(r.note, r.sections) for r in read])
        renamed = [
            known.node
            for r in read
            if (known := self.known.get(r.file.path)) is not None and known.node != r.node
        ]
        if read or same:
            touched = [(s.file.size, s.mtime_ns, s.file.inode, s.file.path) for s in same]
            self.store.write(read, vectors, renamed, touched)
        self.documents += [ledger.Document(r.note.path, r.node, r.note.hash, r.note.links) for r in read]

    def fill_vectors(self) -> None:
        """Embed the notes that have no vector though they have not changed: the model is new."""
        written = {document.path for document in self.documents}
        pending = [path for path in self.vectors.pending() if path not in written]
        waiting = [self.picture.files[path] for path in pending if path in self.picture.files]
        done = 0
        unread = set(pending)
        if waiting or self.vectors.replaced:
            self.around = None
        for batch in self.pace.batches(waiting, _weight):
            notes = self._as_known(batch)
            unread -= {note.path for note, _ in notes}
            found: dict[str, Vector] = {}
            for (note, sections), vectors in zip(notes, self.vectors.of(notes), strict=True):
                found[self.picture.ids[note.path]] = vectors.note
                found |= {s.node: v for s, v in zip(sections, vectors.sections, strict=True)}
            self.store.write_vectors(found)
            done += len(batch)
            self.progress("embed", done, len(waiting))
        self._unfinish(unread)

    def _unfinish(self, paths: Set[str]) -> None:
        """Have some notes that could not be read now read again once they can be."""
        if paths:
            self.store.unfinish(paths)
            self.touched |= paths

    def fill_texts(self) -> None:
        """Index the texts of notes that are as they were, where they are not in the index."""
        if self.only is not None:
            return
        pending = self.store.texts_to_come() - {document.path for document in self.documents}
        waiting = [self.picture.files[path] for path in sorted(pending) if path in self.picture.files]
        done = 0
        for batch in self.pace.batches(waiting, _weight):
            texts = [
                text
                for note, sections in self._as_known(batch)
                for text in texts_of(note, self.picture.ids[note.path], sections)
            ]
            self.store.write_texts(fulltext.prepared(texts))
            done += len(batch)
            self.progress("index", done, len(waiting))

    def _as_known(self, files: Sequence[FoundFile]) -> list[tuple[ParsedNote, list[Section]]]:
        """The notes in those of the files that are as the database knows them, with their sections."""
        notes = []
        for file in files:
            try:
                data, _ = self.root.read(file.disk_path)
                if file_hash(data) == self.known[file.path].hash:
                    note = parse_note(file.path, data, self.settings.reading)
                    sections = sections_of(note, data, self.picture.ids[file.path], self.settings.sections)
                    notes.append((note, sections))
            except ContentError:
                continue  # it changed since the scan; the next ingest reports it
        return notes

    # --- links ------------------------------------------------------------------------------------

    def link(self) -> None:
        """Write the links of changed notes, and resolve all others again if any name changed."""
        seen = territory(self.settings, Scan(left_out=self.picture.left_out))
        told = {
            **self._place(),
            "vault.dialect": self.settings.reading.dialect,
            "vault.told": json.dumps(self.settings.told),
            "vault.attachments": ledger.digest(ledger.files_told(self.picture.attachments, seen)),
            "vault.vectors": self.vectors.signature(),
        }
        if (
            not self.documents
            and not self.gone
            and "vault.resolved" in self.before
            and told.items() <= self.before.items()
        ):
            return
        if not self._same_names(seen):
            self.around = None
            self._read_names(seen)
        signature = self.picture.signature
        settled = self.before.get("vault.resolved") == signature
        tags = None if self.around is None else ledger.led_to(self.db, self._documents())
        if self.documents or not settled:
            every = not settled and len(self.documents) < len(self.picture.ids)
            if every:
                self.around = tags = None
            relink(self.db, self.picture.resolves(), self.documents, every=every, progress=self.progress)
        if tags is not None:
            tags |= ledger.led_to(self.db, self._documents())
        ledger.drop_unused_tags(self.db, tags)
        tombstones.expire(self.db)
        self.store.set_properties({**told, **self._rules_told(), "vault.resolved": signature})

    def _rules_told(self) -> dict[str, str]:
        """By which rules the notes in the database were read."""
        if not self.other_rules:
            return {}
        unread = self.known.keys() - {document.path for document in self.documents}
        if all(map(self.asked, unread)):
            self._unfinish(unread)
            return {"vault.rules": self.rules}
        # Some by these, some by others: whoever looks at all of them reads them again.
        return {"vault.rules": ""}

    def _same_names(self, seen: Territory) -> bool:
        """Whether all notes answer to the same names as at the end of the last run."""
        before = self.picture.names
        if before is None or not self._steady():
            return False
        dialect = self.settings.reading.dialect
        now = ledger.read_names(self.db, (), seen, dialect, [file.path for file in self.candidates])
        return now.hold(before, (file.path for file in self.candidates))

    def _read_names(self, seen: Territory) -> None:
        names = ledger.read_names(self.db, self.picture.attachments, seen, self.settings.reading.dialect)
        self.picture.names, self.picture.signature = names, names.signature()

    def _place(self) -> dict[str, str]:
        """Where the vault is, and where in it its database, so that both can be moved together."""
        root = os.path.realpath(self.settings.root)
        # One that is being built takes the place of another one afterwards.
        building = PurePosixPath(self.db.path).parent.name.startswith(rebuild.PREFIX)
        database = os.path.realpath(self.settings.database if building else self.db.path)
        inside = PurePosixPath(database).is_relative_to(root) and encodable(database)
        return {"vault.root": root, "vault.database": os.path.relpath(database, root) if inside else ""}

    # --- afterwards -------------------------------------------------------------------------------

    def kept(self) -> Picture:
        """What the next run may go on from."""
        self._know_again()
        return self.picture

    def report(self, *, alone: bool) -> IngestReport:
        """What was done, and what there is now. ``alone``: nobody else has written meanwhile."""
        totals = self.picture.totals
        if totals is not None and alone and self.around is not None:
            totals = totals.copy()
            totals.update(tally_around(self.db, self._documents()))
            totals.subtract(self.around)
        else:
            totals = tally(self.db)
        self.picture.totals = totals
        tags, pages = tally_named(self.db)
        indexed = len(self.documents)
        return IngestReport(
            files=indexed + self.unchanged + len({problem.path for problem in self.problems}),
            indexed=indexed,
            unchanged=self.unchanged,
            removed=len(self.gone),
            moved=sum(move.path != move.old_path for move in self.moves),
            held=list(self.held),
            held_because=self.why_held,
            problems=sorted(self.problems, key=lambda problem: problem.path),
            complete=self.complete,
            nodes=totals["nodes"],
            tags=tags,
            pages=pages,
            edges=totals["edges"],
            sections=totals["sections"],
            vectors=totals["vectors"],
            texts=totals["texts"],
            links={
                state: count for state in sorted(get_args(LinkState)) if (count := totals[f"link {state}"])
            },
            skipped=self.skipped,
            embedding=self.db.space,
            embedding_note=self.vectors.note,
        )


def _weight(file: FoundFile) -> int:
    """About how many nodes a file becomes."""
    return 1 + file.size // 1_000


def _silent(_what: str, _done: int, _total: int) -> None:
    return
