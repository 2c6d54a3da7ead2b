"""What an ingest did, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from resonance.model import Problem, Space


@dataclass(slots=True)
class IngestReport:
    """What became of every file, and what the database holds now.

    ``files = indexed + unchanged + distinct paths in problems``: each file found is counted once.

    Attributes:
        files: notes found, whether they could be read or not, and folders that could not.
        indexed: read and written. unchanged: as they were. removed: no longer at their path; of these,
            ``moved`` were found at another one, and their nodes went there with all they have.
        held: notes that are gone but were not removed; held_because: why.
        problems: what could not be indexed, each with its path and reason. What an earlier ingest
            made of such a file stays.
        complete: False when a folder could not be read; then nothing was removed.
        nodes: notes in the database; sections, tags: nodes of these; pages: nodes of pages that have no
            file (Logseq). edges: all of them; vectors: all but those of sections.
        texts: nodes in the full-text index, sections among them; 0 where the engine cannot.
        links: the ledger by state.
        skipped: entries passed over, by reason.
        embedding: the space of the vectors; embedding_note: why there are none, or fewer.
        seconds: wall time.
    """

    files: int = 0
    indexed: int = 0
    unchanged: int = 0
    removed: int = 0
    moved: int = 0
    held: list[str] = field(default_factory=list)
    held_because: str | None = None
    problems: list[Problem] = field(default_factory=list)
    complete: bool = True
    nodes: int = 0
    sections: int = 0
    tags: int = 0
    pages: int = 0
    edges: int = 0
    vectors: int = 0
    texts: int = 0
    links: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    embedding: Space | None = None
    embedding_note: str | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "files": self.files,
            "indexed": self.indexed,
            "unchanged": self.unchanged,
            "removed": self.removed,
            "moved": self.moved,
            "held": self.held,
            "held_because": self.held_because,
            "problems": [problem._asdict() for problem in self.problems],
            "complete": self.complete,
            "nodes": self.nodes,
            "sections": self.sections,
            "tags": self.tags,
            "pages": self.pages,
            "edges": self.edges,
            "vectors": self.vectors,
            "texts": self.texts,
            "links": dict(self.links),
            "skipped": dict(self.skipped),
            "embedding": self.embedding._asdict() if self.embedding else None,
            "embedding_note": self.embedding_note,
            "seconds": round(self.seconds, 3),
        }
