"""What the full-text index is given of a note."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from resonance.model import Text
from resonance.vault.note import ParsedNote
from resonance.vault.sections import Section, title_of


def texts_of(note: ParsedNote, node: str, sections: Sequence[Section]) -> list[Text]:
    """A note for the index, whole, and each of its sections.

    A note is found by its title, its aliases and tags, its file's name, its headings, and the text below
    its frontmatter; a section by its heading, by those above it and the note's title, and by its text.
    """
    stem = PurePosixPath(note.path).stem
    names = "\n".join((*note.aliases, *note.tags, *([] if stem == note.title else [stem])))
    headings = "\n".join(text for _, _, text in note.headings)
    texts = [Text(node, note.body, title=note.title, names=names, headings=headings, hash=note.hash)]
    for section in sections:
        title = title_of(note.title, section.heading)
        texts.append(Text(section.node, section.body, title=title, headings=section.above, hash=section.hash))
    return texts
