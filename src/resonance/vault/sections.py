"""The sections of long notes: where each begins and ends, and what its vector stands for.

A section is a heading with the text under it. Small neighbours become one, what is too long is cut
between blocks; every byte of the body lies in at least one section. A note that would fit into one
section has none.
"""

from __future__ import annotations

import bisect
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

from resonance.errors import SettingsError
from resonance.vault.ids import section_ids
from resonance.vault.links import Places

if TYPE_CHECKING:
    from resonance.vault.note import ParsedNote

_LINE = re.compile(r"\n|\r(?!\n)")
_SPACE = re.compile(r"\s")
_WORD = re.compile(r"\w")


@dataclass(frozen=True, slots=True)
class SectionRules:
    """How long sections are, in characters; ``sections`` in the settings.

    Attributes:
        min_chars: what is shorter is joined to a neighbour.
        max_chars: what is longer is cut. Notes up to this length have no sections; 0: none has.
        overlap_chars: how much of the part before a cut is repeated behind it.
    """

    min_chars: int = 400
    max_chars: int = 2_000
    overlap_chars: int = 200

    def told(self) -> list[int]:
        """All that the sections of a vault depend on, besides its files."""
        return [self.min_chars, self.max_chars, self.overlap_chars]


def read_rules(where: object, told: object) -> SectionRules:
    """The rules that the settings tell.

    Args:
        where: what to name in an error.
        told: an object with any fields of :class:`SectionRules`; False for no sections; None for the
            defaults.

    Raises:
        SettingsError: it is something else, or the lengths contradict each other.
    """
    if told is None:
        return SectionRules()
    if told is False:
        return SectionRules(0, 0, 0)
    names = [field.name for field in fields(SectionRules)]
    if not isinstance(told, Mapping):
        raise SettingsError(
            f"{where}: sections must be an object such as {{'max_chars': 2000}}, or false for none"
        )
    for name, value in told.items():
        if name not in names:
            raise SettingsError(f"{where}: sections.{name} is not known; there are {', '.join(names)}")
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise SettingsError(f"{where}: sections.{name} must be a whole number, not {value!r}")
    rules = SectionRules(**told)
    if rules.max_chars and not (
        rules.min_chars <= rules.max_chars and rules.overlap_chars <= rules.max_chars // 2
    ):
        raise SettingsError(
            f"{where}: sections.min_chars ({rules.min_chars}) must not be above max_chars "
            f"({rules.max_chars}), nor overlap_chars ({rules.overlap_chars}) above half of it"
        )
    return rules


class Section(NamedTuple):
    """A section of a note.

    Attributes:
        node: the id of its node.
        heading: the heading path, outermost first; empty for text above the first heading.
        start, end: where it stands in the file, in bytes.
        hash: SHA-256 of these bytes, in hex.
        above: the note's title and the headings it stands under. body: its text.
        text_hash: a hash that differs wherever :attr:`text` does.
    """

    node: str
    heading: tuple[str, ...]
    start: int
    end: int
    hash: str
    above: str
    body: str
    text_hash: str

    @property
    def text(self) -> str:
        """What its vector stands for."""
        return f"{self.above}\n\n{self.body}"


class _Piece(NamedTuple):
    """Text from ``start`` to ``end``, in characters, below a boundary of a ``level``."""

    start: int
    end: int
    level: int
    heading: tuple[str, ...]

    @property
    def size(self) -> int:
        return self.end - self.start


def sections_of(note: ParsedNote, data: bytes, node: str, rules: SectionRules) -> list[Section]:
    """The sections of a note, in their order; none if it is short.

    Args:
        data: the bytes of its file.
        node: the id of the note.
    """
    if not rules.max_chars or len(note.body) <= rules.max_chars:
        return []
    body, offset = note.body, note.body_offset
    breaks, heads = _characters(note, data)
    cut = [
        (piece.heading, part, start, end)
        for piece in _merged(_pieces(note, heads), rules)
        for part, (start, end) in enumerate(_cut(body, piece, breaks, rules), 1)
    ]
    # The title of the note, as its first heading, says nothing that the note's own id does not.
    ids = section_ids(node, ((heading[heading[:1] == (note.title,) :], part) for heading, part, _, _ in cut))
    byte = None if body.isascii() else Places(body, offset)
    found = []
    for section, (heading, _, start, end) in zip(ids, cut, strict=True):
        first, last = (offset + start, offset + end) if byte is None else (byte(start), byte(end))
        above = _above(note.title, heading)
        digest = _sha256(data[first:last])
        text_hash = _sha256(f"{above}\n{digest}".encode())
        found.append(Section(section, heading, first, last, digest, above, body[start:end], text_hash))
    return found


def _above(title: str, heading: Sequence[str]) -> str:
    """What a section's vector stands for besides its text: the note's title and the headings above it."""
    return " / ".join([title, *[name for name in heading if name != title]])


def title_of(note_title: str, heading: Sequence[str]) -> str:
    """The title of a section: its heading, or the note's title where it has none."""
    for name in reversed(heading):
        if name:
            return name
    return note_title


# --- from headings to pieces ----------------------------------------------------------------------


def _pieces(note: ParsedNote, heads: Sequence[int]) -> list[_Piece]:
    """The text above the first heading, and each heading with its text up to the next one.

    Args:
        heads: where the headings start, in characters.
    """
    body = note.body
    marks: list[tuple[int, int, tuple[str, ...]]] = [(0, 0, ())]
    path: list[tuple[int, tuple[str, ...]]] = [(0, ())]
    for start, (_, level, text) in zip(heads, note.headings, strict=True):
        while path[-1][0] >= level:
            path.pop()
        names = (*path[-1][1], text)
        path.append((level, names))
        # A heading may be indented by a few spaces; the piece begins with its line.
        if body[start - 1 : start] != "\n":
            line = body.rfind("\n", 0, start) + 1
            start = line if body[line:start].isspace() else start
        marks.append((start, level, names))
    ends = [mark[0] for mark in marks[1:]] + [len(body)]
    pieces = [
        _Piece(start, end, level, heading) for (start, level, heading), end in zip(marks, ends, strict=True)
    ]
    return _without_bare(body, pieces)


def _without_bare(body: str, pieces: list[_Piece]) -> list[_Piece]:
    """Headings without text of their own go with the piece behind them."""
    kept: list[_Piece] = []
    bare: _Piece | None = None
    line_end = _LINE if "\r" in body else None
    for piece in pieces:
        joined = piece if bare is None else _Piece(bare.start, piece.end, bare.level, piece.heading)
        bare = None
        if piece is not pieces[-1] and not _WORD.search(body, _text_start(body, piece, line_end), piece.end):
            bare = joined
        else:
            kept.append(joined)
    return kept


def _text_start(body: str, piece: _Piece, line_end: re.Pattern[str] | None) -> int:
    """Where the text below the heading of a piece begins; ``line_end``: None where LF alone ends lines."""
    start, end, _, heading = piece
    if not heading:
        return start
    if line_end is None:
        return body.find("\n", start, end) + 1 or end
    line = line_end.search(body, start, end)
    # The line below a heading may underline it, which holds no letters either.
    return line.end() if line else end


def _merged(pieces: list[_Piece], rules: SectionRules) -> list[_Piece]:
    """Join what is too small to a neighbour, across the least of the headings that divide them."""
    for level in sorted({piece.level for piece in pieces[1:]}, reverse=True):
        joined: list[_Piece] = []
        for run in _runs(pieces, level):
            joined += _joined(run, rules)
        pieces = joined
    return pieces


def _runs(pieces: list[_Piece], level: int) -> Iterator[list[_Piece]]:
    """Neighbours that only headings of this level divide."""
    run: list[_Piece] = []
    for piece in pieces:
        if run and piece.level != level:
            yield run
            run = []
        run.append(piece)
    yield run


def _joined(run: list[_Piece], rules: SectionRules) -> list[_Piece]:
    out: list[_Piece] = []
    for piece in run:
        if out and (last := out[-1]).end - last.start < rules.min_chars and _fits(last, piece, rules):
            out[-1] = _join(last, piece, rules)
        else:
            _join_back(out, rules)
            out.append(piece)
    _join_back(out, rules)
    return out


def _join_back(out: list[_Piece], rules: SectionRules) -> None:
    """Join a last piece that is small, and cannot be joined to the next, to the one before it."""
    if len(out) > 1 and out[-1].size < rules.min_chars and _fits(out[-2], out[-1], rules):
        last = out.pop()
        out[-1] = _join(out[-1], last, rules)


def _fits(first: _Piece, second: _Piece, rules: SectionRules) -> bool:
    return first.size + second.size <= rules.max_chars


def _join(first: _Piece, second: _Piece, rules: SectionRules) -> _Piece:
    """Named by the first that is large enough to be a section, so that small ones do not rename it."""
    named = second if first.size < rules.min_chars <= second.size else first
    return _Piece(first.start, second.end, first.level, named.heading)


# --- what is too long -----------------------------------------------------------------------------


def _cut(body: str, piece: _Piece, breaks: list[int], rules: SectionRules) -> Iterator[tuple[int, int]]:
    """The parts of a piece: one if it is short enough, else several that overlap."""
    start, end = piece.start, piece.end
    at = start
    while end - start > rules.max_chars:
        rest = end - start
        # The last two share what is left, lest the last be a crumb.
        length = rules.max_chars if rest >= rules.max_chars + rules.min_chars else (rest + 1) // 2
        low, high = max(start + length // 2, at), start + length
        at = _block(breaks, low, high, min(start + rules.max_chars, end - 1)) or _line(body, low, high)
        yield start, at
        start = _overlap(body, breaks, at - min(rules.overlap_chars, (at - start) // 2), at)
    yield start, end


def _block(breaks: list[int], low: int, high: int, highest: int) -> int | None:
    """The last block that begins in (low, high], else the first up to ``highest``."""
    at = bisect.bisect_right(breaks, high)
    if at and breaks[at - 1] > low:
        return breaks[at - 1]
    return breaks[at] if at < len(breaks) and breaks[at] <= highest else None


def _line(body: str, low: int, high: int) -> int:
    """The end of the last line that ends in (low, high], else of the last word, else ``high``."""
    for pattern in (_LINE, _SPACE):
        ends = [match.end() for match in pattern.finditer(body, low, high)]
        if ends:
            return ends[-1]
    return high


def _overlap(body: str, breaks: list[int], low: int, at: int) -> int:
    """Where the part behind a cut begins: at the first block from ``low`` on, else line, else word."""
    block = bisect.bisect_left(breaks, low)
    if block < len(breaks) and breaks[block] < at:
        return breaks[block]
    for pattern in (_LINE, _SPACE):
        match = pattern.search(body, low, at)
        if match is not None and match.end() < at:
            return match.end()
    return low


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _characters(note: ParsedNote, data: bytes) -> tuple[list[int], list[int]]:
    """Where in the body, in characters, its outermost blocks and its headings start."""
    offset = note.body_offset
    if note.body.isascii():
        return [at - offset for at in note.blocks], [heading[0] - offset for heading in note.headings]
    characters: dict[int, int] = {}
    last, count = offset, 0
    # The headings are blocks, too.
    for at in note.blocks:
        count += len(data[last:at].decode())
        last = at
        characters[at] = count
    return list(characters.values()), [characters[heading[0]] for heading in note.headings]
