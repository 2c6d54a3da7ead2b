"""One note after the other: from a file of the vault to all that is stored about it. Knows no database."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from resonance.errors import ContentError
from resonance.model import Problem, Text
from resonance.search import text as fulltext
from resonance.vault.dialect import Reading
from resonance.vault.note import ParsedNote, file_hash, parse_note
from resonance.vault.root import Root
from resonance.vault.scan import FoundFile, time_of
from resonance.vault.sections import Section, SectionRules, sections_of
from resonance.vault.words import texts_of

# A file written to again so soon may keep its time; one that old has a time that proves something.
_FINE_TICK_NS, _COARSE_TICK_NS = 50_000_000, 2_000_000_000


class Task(NamedTuple):
    """A file to read, and the id of its node. ``hash`` is that of the file if its note is stored already."""

    file: FoundFile
    node: str
    hash: str | None = None


class ReadNote(NamedTuple):
    """A file that was read and parsed, and the id of its node.

    Attributes:
        mtime_ns: when it was written; 0 if that proves nothing.
        texts: what the full-text index is given, prepared.
    """

    file: FoundFile
    note: ParsedNote
    node: str
    mtime_ns: int
    sections: Sequence[Section] = ()
    texts: Sequence[Text] = ()


class Same(NamedTuple):
    """A file that holds the bytes that are stored already."""

    file: FoundFile
    mtime_ns: int


Outcome = ReadNote | Same | Problem


class Reader:
    """Reads notes of a vault by its rules.

    Args:
        verbatim: the text of notes and sections is wanted as it stands, as an embedder needs it; the index
            of words does not, and half of what is read is less to hand over.
    """

    def __init__(self, root: Root, reading: Reading, rules: SectionRules, *, verbatim: bool = True) -> None:
        self.root = root
        self.reading = reading
        self.rules = rules
        self.verbatim = verbatim

    def read(self, task: Task) -> Outcome:
        """The note in a file, or why there is none; a file that cannot be read is no error here."""
        file = task.file
        now = time.time_ns()
        try:
            data, status = self.root.read(file.disk_path)
            written = time_of(status)
            tick = _FINE_TICK_NS if written % 1_000_000_000 else _COARSE_TICK_NS
            mtime_ns = 0 if abs(now - written) < tick else written
            if task.hash is not None and task.hash == file_hash(data):
                return Same(file, mtime_ns)
            note = parse_note(file.path, data, self.reading)
        except ContentError as error:
            return Problem(file.path, error.line, error.reason)
        sections = sections_of(note, data, task.node, self.rules)
        texts = fulltext.prepared(texts_of(note, task.node, sections))
        return ReadNote(file, note, task.node, mtime_ns, sections, texts)
