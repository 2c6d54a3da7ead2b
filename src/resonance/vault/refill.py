"""Filling a second space with the vectors of a vault, while the first one stays in use.

The texts are those that were indexed: a file that says something else by now is left to the next ingest.
Reading and embedding happen outside any transaction, what is written goes in short ones. A run that is
cut off has lost nothing: the next one goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from resonance import spaces
from resonance.errors import ContentError, SpaceError
from resonance.model import Problem, Space
from resonance.vault.embed import Embedder
from resonance.vault.note import ParsedNote, parse_note
from resonance.vault.root import Root
from resonance.vault.scan import scan
from resonance.vault.sections import Section, sections_of
from resonance.vault.settings import VaultSettings
from resonance.vault.vectors import Vector, embedded, vectors_of

if TYPE_CHECKING:
    from resonance.database import ResonanceDB
    from resonance.vault.ingest import Progress

TEXTS = 256
"""Texts that are embedded at once: what a kill costs at most."""


@dataclass(slots=True)
class Refill:
    """What :func:`refill` did.

    Attributes:
        space: the one that was filled.
        vectors: how many were stored by this run.
        missing: nodes that still have none; ``resonance ingest`` and another run may give them one.
        problems: files that could not be read, or say something else than what was indexed.
        others: how many of the missing stand for no text of this vault.
    """

    space: Space
    vectors: int = 0
    missing: int = 0
    others: int = 0
    problems: list[Problem] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "space": self.space._asdict(),
            "vectors": self.vectors,
            "missing": self.missing,
            "others": self.others,
            "problems": [problem._asdict() for problem in self.problems],
            "seconds": self.seconds,
        }


def refill(
    db: ResonanceDB, settings: VaultSettings, embedder: Embedder, *, progress: Progress | None = None
) -> Refill:
    """Embed every note and section that has no up-to-date vector in the space of a model.

    Args:
        settings: of the vault that ``db`` was made from.
        embedder: its space must not be the active one; it is added if it is new.
        progress: called now and then with ("embed", notes done, notes in all).

    Raises:
        SpaceError: the space is the active one, which ``resonance ingest`` fills.
        SettingsError: the root cannot be opened.
        EmbedderError: the embedder failed; what was stored before stays.
    """
    started = time.monotonic()
    space = embedder.space
    if db.space == space:
        raise SpaceError(f"{spaces.told(space)} is in use already; `resonance ingest` keeps it complete")
    db.add_space(space)
    report = Refill(space)
    with Root(settings.root, max_file_bytes=settings.max_file_bytes) as root:
        filler = _Filler(db, settings, embedder, root, report)
        pending = filler.pending()
        for done, path in enumerate(pending, 1):
            try:
                filler.add(path)
            except ContentError as error:
                report.problems.append(Problem(path, error.line, error.reason))
            if filler.texts >= TEXTS or done == len(pending):
                filler.flush()
                if progress is not None:
                    progress("embed", done, len(pending))
    report.missing, report.others = filler.left()
    report.seconds = time.monotonic() - started
    return report


class _Job(NamedTuple):
    """A note whose texts are those that were indexed; ``wanting`` are the nodes without a vector."""

    note: ParsedNote
    node: str
    sections: Sequence[Section]
    wanting: frozenset[str]


class _Filler:
    """Gathers notes until there is enough to embed at once."""

    def __init__(
        self, db: ResonanceDB, settings: VaultSettings, embedder: Embedder, root: Root, report: Refill
    ) -> None:
        self.db = db
        self.settings = settings
        self.embedder = embedder
        self.root = root
        self.report = report
        self.texts = 0
        self._jobs: list[_Job] = []
        with db.snapshot() as connection:
            self._space = spaces.find(connection, embedder.space).id
        self._missing = f"{spaces.WANTED} AND NOT {spaces.current(self._space)}"
        self._on_disk: dict[str, str] = {}

    def pending(self) -> list[str]:
        """Paths of the notes of which something has no up-to-date vector."""
        found = self.db.query(
            f"SELECT path FROM files WHERE node IN (SELECT coalesce((SELECT s.document FROM sections AS s "
            f"WHERE s.node = n.id), n.id) FROM nodes AS n WHERE {self._missing}) ORDER BY path"
        )
        if found:
            self._on_disk = {file.path: file.disk_path for file in scan(self.settings, self.root).files}
        return [path for (path,) in found]

    def left(self) -> tuple[int, int]:
        """How many nodes have no up-to-date vector, and how many of them are none of the vault's."""
        (counts,) = self.db.query(
            "SELECT count(*), total(NOT EXISTS (SELECT 1 FROM files AS f WHERE f.node = n.id) "
            "AND NOT EXISTS (SELECT 1 FROM sections AS s WHERE s.node = n.id)) "
            f"FROM nodes AS n WHERE {self._missing}"
        )
        return counts[0], int(counts[1])

    def add(self, path: str) -> None:
        """Read a note.

        Raises:
            ContentError: it cannot be read, or says something else than what was indexed.
        """
        data, _ = self.root.read(self._on_disk.get(path, path))
        note = parse_note(path, data, self.settings.reading)
        stored = self.db.query(
            f"SELECT n.id, {spaces.TEXT}, {self._missing} FROM nodes AS n WHERE n.id IN "
            "(SELECT node FROM files WHERE path = ?1 UNION ALL SELECT node FROM sections "
            "WHERE document = (SELECT node FROM files WHERE path = ?1))",
            (path,),
        )
        nodes = self.db.query("SELECT node FROM files WHERE path = ?", (path,))
        if not nodes:
            return  # it went while others were embedded
        node = nodes[0][0]
        sections = sections_of(note, data, node, self.settings.sections)
        told = {node: note.body_hash} | {section.node: section.text_hash for section in sections}
        if told != {id: text for id, text, _ in stored}:
            raise ContentError(path, "is another text than the one that was indexed; run `resonance ingest`")
        self._jobs.append(_Job(note, node, sections, frozenset(id for id, _, wants in stored if wants)))
        self.texts += len(sections) or 1

    def flush(self) -> None:
        """Embed and store what has been gathered."""
        texts: dict[str, ParsedNote | Section] = {}
        for job in self._jobs:
            texts |= {section.text_hash: section for section in job.sections}
            if not job.sections:
                texts[job.note.body_hash] = job.note
        nodes = [id for job in self._jobs for id in (job.node, *(part.node for part in job.sections))]
        # A vector that is out of date may be that of another text of these.
        found = dict(
            self.db.query(
                "SELECT hash, embedding FROM vectors WHERE space = ? "
                "AND node IN (SELECT value FROM json_each(?)) AND hash <> ?",
                (self._space, json.dumps(nodes), spaces.OWED),
            )
        )
        known = {text: np.frombuffer(blob, dtype="<f4") for text, blob in found.items() if blob is not None}
        known |= embedded(self.embedder, {text: each for text, each in texts.items() if text not in found})
        rows: dict[str, tuple[str, Vector]] = {}
        for job in self._jobs:
            made = vectors_of(job.note, job.sections, known)
            rows[job.node] = job.note.body_hash, made.note
            for section, vector in zip(job.sections, made.sections, strict=False):
                rows[section.node] = section.text_hash, vector
        wanted = frozenset().union(*(job.wanting for job in self._jobs))
        wanting = [id for id in rows if id in wanted]
        if wanting:
            self._store(wanting, rows)
        self._jobs, self.texts = [], 0

    def _store(self, nodes: Sequence[str], rows: Mapping[str, tuple[str, Vector]]) -> None:
        matrix = np.zeros((len(nodes), self.embedder.space.dims), dtype=np.float32)
        for row, node in enumerate(nodes):
            vector = rows[node][1]
            if vector is not None:
                matrix[row] = vector
        stored = self.db.insert_vectors(
            self.embedder.space, nodes, matrix, stamps=[rows[node][0] for node in nodes]
        )
        self.report.vectors += max(stored.inserted + stored.updated - stored.zero_vectors, 0)
