"""Which place of a note a link names: the heading or block behind its ``#``, looked up when somebody asks.

Nothing of it is stored, so nothing of it goes stale: the note is read and its headings are found as they
were when it was indexed. A note that has changed since then is not judged by.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from resonance.errors import ContentError, SettingsError
from resonance.model import Anchor, Link
from resonance.vault.body import Body
from resonance.vault.dialect import Dialect
from resonance.vault.note import ParsedNote, file_hash, parse_note
from resonance.vault.root import Root
from resonance.vault.settings import settings_of

if TYPE_CHECKING:
    from resonance.database import ResonanceDB

_SIGNS = re.compile(r"[\W_]+")
# Obsidian's own vault has blocks that are named right behind an embed.
_BLOCK = re.compile(rb"(?:^|(?<=[ \t\r\n])|(?<=\]\]))\^([\w-]+)[ \t]*(?=\r|\n|\Z)", re.MULTILINE)
# Dendron embeds from one place to another: #start,1:#end, where the number leaves out lines.
_EXTENT = re.compile(r"(?:,-?\d+)?(?::#.*)?\Z", re.DOTALL)
# A heading that another block encloses, such as a quote, is no section's; but it is there.
_ANY_HEADING = re.compile(rb"^[ \t>*+-]*(#{1,6})[ \t]+([^\r\n]*?)[ \t#]*$", re.MULTILINE)
# Of two headings of one name, web pages call the second -1 (or _1), a few -2.
_NUMBERED = re.compile(r"[-_](\d{1,4})\Z")
_UNKNOWN = Anchor("unknown")
_MISSING = Anchor("missing")

_SECTIONS = "SELECT node, span_start, span_end FROM sections WHERE document = ? ORDER BY span_start DESC"


class _Called(NamedTuple):
    """A heading: where it begins, its level, and what it may be called."""

    start: int
    level: int
    names: set[str]


def find_anchors(db: ResonanceDB, links: Sequence[Link], root: Path | None = None) -> list[Anchor | None]:
    """What the fragments of some links name, in their order; None for a link that names no place in a note.

    Args:
        root: the vault's root; None for the one that is stored.
    """
    found: list[Anchor | None] = [None] * len(links)
    by_target: defaultdict[str, list[int]] = defaultdict(list)
    for index, link in enumerate(links):
        if link.fragment is not None and link.state == "resolved" and link.target is not None:
            by_target[link.target].append(index)
    files = {node: (path, hash_) for node, path, hash_ in db.query("SELECT node, path, hash FROM files")}
    places = {target: indexes for target, indexes in by_target.items() if target in files}
    for indexes in places.values():
        for index in indexes:
            found[index] = _UNKNOWN
    folder = root or db.root
    if not places or folder is None:
        return found
    try:
        settings = settings_of(db, folder)
        opened = Root(folder, real=root is None)
    except (SettingsError, ContentError):
        return found
    with opened:
        for target, indexes in places.items():
            path, hash_ = files[target]
            try:
                data, _ = opened.read(path)
                if file_hash(data) != hash_:
                    continue
                note = parse_note(path, data, settings.reading)
            except ContentError:
                continue
            read = functools.cache(functools.partial(_read_again, note, data, settings.reading.dialect))
            headings = list(_headings(note, data, read))
            # Nearly all links name one heading, and long notes have hundreds.
            firsts = {key: heading.start for heading in reversed(headings) for key in heading.names}
            sections = db.query(_SECTIONS, (target,))
            for index in indexes:
                fragment = links[index].fragment or ""
                if settings.reading.dialect == "dendron":
                    fragment = _EXTENT.sub("", fragment, count=1)
                at = None if fragment.startswith("^") else firsts.get(_key(fragment))
                if at is None or "#" in fragment:
                    at = _place(note, data, headings, fragment, read)
                found[index] = _MISSING if at is None else _anchor(sections, at)
    return found


def _anchor(sections: Sequence[tuple[str, int, int]], at: int) -> Anchor:
    holding = (node for node, start, end in sections if start <= at < end)
    return Anchor("found", next(holding, None), at)


def _read_again(note: ParsedNote, data: bytes, dialect: Dialect) -> Body:
    """Where there is code and the like in a note, which is seldom asked."""
    body = Body(note.path, data, note.body, note.body_offset, dialect)
    body.read()
    return body


def _place(
    note: ParsedNote, data: bytes, headings: Sequence[_Called], fragment: str, read: Callable[[], Body]
) -> int | None:
    """Where what a fragment names begins, in bytes; None if it is not there."""
    if fragment.startswith("^"):
        wanted = fragment[1:].casefold()
        if "_" in wanted and read().dialect != "dendron":
            return None
        blocks = _BLOCK.finditer(data, note.body_offset)
        places = (m.start() for m in blocks if m.group(1).decode().casefold() == wanted)
        return next((at for at in places if not read().is_silent(at)), None)
    names = [name for name in fragment.split("#") if name.strip()]
    at = _under(headings, [_key(name) for name in names])
    if at is not None:
        return at
    # Writers of plain markdown name places by HTML, or by what stands in braces behind a heading.
    name = re.escape(fragment.strip().encode())
    in_html = rb"""\b(?:id|name)\s*=\s*(["']?)%b\1(?=[\s/>])""" % name
    in_braces = rb"\{(?:[^{}\r\n]*[\s:])?#%b(?=[\s}])" % name
    named = re.compile(rb"%b|%b" % (in_html, in_braces), re.I)
    for match in named.finditer(data, note.body_offset):
        if not read().in_code(match.start()):
            return match.start()
    numbered = _NUMBERED.search(fragment)
    if numbered is None or not (number := int(numbered.group(1))):
        return None
    key = _key(fragment[: numbered.start()])
    alike = [heading.start for heading in headings if key in heading.names]
    return next(reversed(alike[number - 1 : number + 1]), None)


def _headings(note: ParsedNote, data: bytes, read: Callable[[], Body]) -> Iterator[_Called]:
    """The headings of a note, in their order, each called as it reads and as it is written."""
    known = {heading.start: heading for heading in note.headings}
    written = {
        m.start(1): m
        for m in _ANY_HEADING.finditer(data, note.body_offset)
        if m.start(1) in known or (data[m.start() : m.start(1)].strip() and not read().is_silent(m.start(1)))
    }
    for at in sorted(known.keys() | written.keys()):
        keys = set()
        level = 0
        if at in written:
            level = len(written[at].group(1))
            keys.add(_key(written[at].group(2).decode(errors="replace")))
        if at in known:
            level = known[at].level
            keys.add(_key(known[at].text))
        yield _Called(at, level, keys)


def _under(headings: Sequence[_Called], keys: Sequence[str]) -> int | None:
    """The first heading called by the last key, below one called by the key before it, and so on."""
    if not keys:
        return None
    first = keys[0]
    for index, (at, level, called) in enumerate(headings):
        if first not in called:
            continue
        if len(keys) == 1:
            return at
        below = []
        for heading in headings[index + 1 :]:
            if heading.level <= level:
                break
            below.append(heading)
        deeper = _under(below, keys[1:])
        if deeper is not None:
            return deeper
    return None


@functools.lru_cache(maxsize=4096)
def _key(name: str) -> str:
    """What names of headings are compared by: letters and digits, in any case; all of it if there are none.

    So one rule does for Obsidian's links, which leave out some signs, and for the slugs of web pages.
    """
    text = unicodedata.normalize("NFC", name).casefold()
    return _SIGNS.sub("", text) or "".join(text.split())
