"""One file of markdown, parsed: its metadata, its text, and every link in it."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from resonance.errors import ContentError
from resonance.vault import logseq
from resonance.vault.body import Body, Heading
from resonance.vault.dialect import Reading
from resonance.vault.frontmatter import Frontmatter, Text, parse_frontmatter
from resonance.vault.ids import normalise_tag
from resonance.vault.links import CITES, TAGGED_AS, Places, RawLink, relation_link, tag_link, wikilink

RULES = 4
"""Raised whenever the same file would become something else, so that vaults are read again."""

_BOM = b"\xef\xbb\xbf"
_WIKILINK = re.compile(r"!?\[\[[^\[\]\r\n]+\]\]")
_ONLY_LINKS = re.compile(r"\s*!?\[\[[^\[\]\r\n]+\]\](?:[\s,;]*!?\[\[[^\[\]\r\n]+\]\])*[\s,;]*")
# An entry between commas without a sign of being a link or a tag.
_BARE_ENTRY = re.compile(r"(?<![^,\s])[^,\s#\[\]](?:[^,#\[\]]*[^,\s#\[\]])?(?=[ \t]*(?:,|\Z))")
_ISO_DATE = re.compile(r"\d{4}(?:-\d{2}(?:-\d{2}(?:[T ].*)?)?)?", re.DOTALL)
_TYPE = re.compile(r"\w[\w .:/-]{0,39}")
_NEWLINE = re.compile(rb"\r\n|\n|\r")

# Obsidian takes these two in any case.
_TAG_KEYS = ("tags", "tag")
_ALIAS_KEYS = ("aliases", "alias")
_DATE_KEYS = ("date", "created")
_SUMMARY_KEYS = ("summary", "description")
_RESERVED = frozenset({"source", "frontmatter"})

_OBSIDIAN = Reading()
_place = attrgetter("start", "end")


class ParsedNote(NamedTuple):
    """A note, read.

    Attributes:
        path: root-relative path.
        title: from the frontmatter, else the first heading of level 1, else the file's name.
        tags: as written, without ``#``, each once, in order of appearance.
        aliases: other names it answers to.
        type: the frontmatter's ``type``, or None.
        date: ISO 8601 text from the frontmatter's ``date`` or ``created``, or None.
        summary: the frontmatter's ``summary`` or ``description``, or None.
        meta: the rest of the frontmatter, a JSON object.
        links: all links and tags, in order of appearance.
        body: the text behind the frontmatter.
        body_offset: where it starts in the file, in bytes.
        headings: those that no other block encloses; places in the file, in bytes.
        blocks: where such blocks begin, headings among them.
        hash: SHA-256 of the file, in hex.
        body_hash: SHA-256 of :attr:`embedding_text`, in hex.
    """

    path: str
    title: str
    tags: tuple[str, ...]
    aliases: tuple[str, ...]
    type: str | None
    date: str | None
    summary: str | None
    meta: dict[str, Any]
    links: tuple[RawLink, ...]
    body: str
    body_offset: int
    headings: tuple[Heading, ...]
    blocks: tuple[int, ...]
    hash: str
    body_hash: str

    @property
    def embedding_text(self) -> str:
        """What the note's vector stands for: its title and its body."""
        return embedding_text(self.title, self.body)


def embedding_text(title: str, body: str) -> str:
    """Title and body, the text a note's vector is made of."""
    return f"{title}\n\n{body}"


def file_hash(data: bytes) -> str:
    """The hash by which a file is known: SHA-256 of its bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def decode(path: str, data: bytes) -> tuple[str, int]:
    """The text of a file, and how many bytes of byte order mark stand before it.

    Raises:
        ContentError: it is not UTF-8, or holds a NUL character; ``line`` is where.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ContentError(path, "is UTF-16; save it as UTF-8", 1)
    skipped = len(_BOM) if data.startswith(_BOM) else 0
    nul = data.find(b"\0")
    if nul >= 0:
        raise ContentError(path, "holds a NUL character; it is no text", _line(data, nul))
    try:
        return data[skipped:].decode(), skipped
    except UnicodeDecodeError as error:
        at = skipped + error.start
        reason = f"is not UTF-8 (byte 0x{data[at]:02x}); save it as UTF-8"
        raise ContentError(path, reason, _line(data, at)) from error


def parse_note(path: str, data: bytes, reading: Reading = _OBSIDIAN) -> ParsedNote:
    """Parse the bytes of the note at ``path``, which is root-relative.

    Args:
        reading: whose conventions it follows.

    Raises:
        ContentError: the bytes are no UTF-8 text.
        FrontmatterError: its frontmatter is malformed or exceeds a limit.
    """
    text, skipped = decode(path, data)
    head = parse_frontmatter(path, text)
    body = text[head.body :] if head.body else text
    offset = skipped + (len(text[: head.body].encode()) if head.body else 0)

    read = Body(path, data, body, offset, reading.dialect)
    read.read()
    links = read.links
    own_links = _frontmatter_links(head, text, skipped, reading)
    if reading.dialect == "logseq":
        links = _read_properties(head, read, links, reading)
    links += own_links
    links.sort(key=_place)

    first = _firsts(head)
    title = first("title") or read.title or PurePosixPath(path).stem
    kind = first("type")
    aliases = [
        alias
        for piece in head.texts
        if piece.key.lower() in _ALIAS_KEYS
        for alias in _entries(head, piece, split_words=False)
    ]
    if reading.dialect == "logseq" and (named := first("title")):
        aliases.insert(0, named)
    date = next((d for key in _DATE_KEYS if (d := first(key)) and _ISO_DATE.fullmatch(d)), None)
    return ParsedNote(
        path=path,
        title=title,
        tags=_distinct_tags(link.name for link in links if link.type == TAGGED_AS),
        aliases=tuple(dict.fromkeys(aliases)),
        type=kind if kind and _TYPE.fullmatch(kind) else None,
        date=date,
        summary=next((s for key in _SUMMARY_KEYS if (s := first(key))), None),
        meta=_rest(head.data) | ({"blocks": read.block_ids} if read.block_ids else {}),
        links=tuple(links),
        body=body,
        body_offset=offset,
        headings=tuple(read.headings),
        blocks=tuple(read.blocks),
        hash=file_hash(data),
        body_hash=file_hash(embedding_text(title, body).encode()),
    )


def _frontmatter_links(head: Frontmatter, text: str, skipped: int, reading: Reading) -> list[RawLink]:
    links: list[RawLink] = []
    place = Places(text, skipped)
    of_names = reading.relations.of_names
    has_brackets = any("[[" in piece.value for piece in head.texts)
    names = {key for key in head.data if key.lower() in _TAG_KEYS or of_names(key) is not None}
    if not names and not has_brackets:
        return links
    bracketed = _bracketed(head.texts, text) if has_brackets else set()
    for index, piece in enumerate(head.texts):
        if piece.key in names or "[[" in piece.value:
            links += _links_of_value(head, piece, text, place, reading, named=index not in bracketed)
    return links


def _bracketed(pieces: Sequence[Text], text: str) -> set[int]:
    """Pieces that are the inside of a ``[[link]]`` without quotes, which follows them as a piece itself."""
    inside: set[int] = set()
    start = end = -1
    for index in range(len(pieces) - 1, -1, -1):
        piece = pieces[index]
        if start <= piece.start and piece.end <= end:
            inside.add(index)
        elif text.startswith("[[", piece.start):
            start, end = piece.start, piece.end
    return inside


def _links_of_value(
    head: Frontmatter, piece: Text, text: str, place: Places, reading: Reading, *, named: bool
) -> list[RawLink]:
    """Links in one text of the frontmatter; ``named``: it may be the name of a note by itself."""
    links: list[RawLink] = []
    is_tag = piece.key.lower() in _TAG_KEYS
    is_name = is_tag or piece.key.lower() in _ALIAS_KEYS
    relations = reading.relations
    if "[[" in piece.value and reading.dialect != "markdown":
        type_ = CITES if is_name else _type_of_links(reading, piece.key, piece.value)
        after = piece.start
        for match in _WIKILINK.finditer(piece.value):
            start, end = _find(text, piece, match.group(), after)
            after = end if end < piece.end else after
            first = reading.dialect == "dendron"
            at = place(start), place(end)
            links.append(wikilink("frontmatter", match.group(), *at, type=type_, label_first=first))
    relation = relations.of_names(piece.key) if named and not is_name else None
    if relation is not None and not _is_names(head.data.get(piece.key)):
        relation = None
    if is_tag or relation is not None:
        after = piece.start
        entries = _entries(head, piece, split_words=relation is None)
        if relation is not None and "[[" in piece.value:
            entries = _BARE_ENTRY.findall(piece.value)
        for entry in entries:
            start, end = _find(text, piece, entry, after)
            after = end if end < piece.end else after
            if relation is not None:
                links.append(relation_link(relation, entry, entry, place(start), place(end)))
            elif normalise_tag(entry):
                links.append(tag_link(entry, place(start), place(end)))
    return links


def _type_of_links(reading: Reading, key: str, value: str) -> str:
    """The type of edges to the links in a value: its key's, unless they stand in a sentence."""
    relations = reading.relations
    only = relations.of_links(key) if _ONLY_LINKS.fullmatch(value) else None
    return only or relations.of_names(key) or CITES


def _is_names(value: object) -> bool:
    """Whether a value may be the names of notes: texts or numbers, alone or in a list."""
    items = value if isinstance(value, list) else [value]
    return all(isinstance(item, str | int | float | list) and not isinstance(item, bool) for item in items)


def _read_properties(
    head: Frontmatter, scanned: Body, links: list[RawLink], reading: Reading
) -> list[RawLink]:
    """Take Logseq's ``key:: value`` into account: the page's as its frontmatter, the links in any by key."""
    found, of_page = logseq.properties(scanned.body)
    for property_ in found[:of_page]:
        if head.data.setdefault(property_.key, property_.value) is property_.value:
            value = property_.value.replace("[[", "").replace("]]", "")
            if property_.key not in _TAG_KEYS and property_.key not in _ALIAS_KEYS:
                value = property_.value
            head.texts.append(Text(property_.key, value, property_.start, property_.end))
    place = Places(scanned.body, scanned.offset)
    spans = [(place(p.start), place(p.end), p) for p in found]
    spans = [span for span in spans if not scanned.in_code(span[0])]
    starts = [span[0] for span in spans]
    kept: list[RawLink] = []
    for link in links:
        at = bisect_right(starts, link.start) - 1
        if link.kind == "wikilink" and at >= 0 and link.end <= spans[at][1]:
            key, value = spans[at][2].key, spans[at][2].value
            if key in _ALIAS_KEYS:
                continue
            if key in _TAG_KEYS:
                link = RawLink("tag", TAGGED_AS, link.raw, link.name, None, link.start, link.end)
            else:
                link = link._replace(type=_type_of_links(reading, key, value))
        kept.append(link)
    for _, _, property_ in spans:
        type_ = reading.relations.of_names(property_.key)
        if property_.key in _TAG_KEYS or type_ is not None:
            for match in _BARE_ENTRY.finditer(property_.value):
                start = property_.start + match.start()
                span = place(start), place(start + len(match.group()))
                if property_.key in _TAG_KEYS:
                    kept.append(tag_link(match.group(), *span))
                elif type_ is not None:
                    kept.append(relation_link(type_, match.group(), match.group(), *span))
    return kept


def _find(text: str, piece: Text, part: str, after: int) -> tuple[int, int]:
    """Where ``part`` stands within a piece, or the whole piece where it is written otherwise."""
    start = text.find(part, after, piece.end)
    return (start, start + len(part)) if start >= 0 else (piece.start, piece.end)


def _firsts(head: Frontmatter) -> Callable[[str], str | None]:
    """What tells the text under a key that holds one scalar; as written, not as YAML understands it."""
    written = {piece.key: piece.value for piece in reversed(head.texts)}

    def first(key: str) -> str | None:
        value = head.data.get(key)
        if value is None or isinstance(value, (dict, list, bool)):
            return None
        return " ".join(written.get(key, "").split()) or None

    return first


def _entries(head: Frontmatter, piece: Text, *, split_words: bool) -> list[str]:
    """The entries in a text: itself, if it is one of a list; ``"a, b"`` on its own is two.

    A text on its own without a comma is split into words where that is asked for.
    """
    if "[[" in piece.value:
        return []
    if not isinstance(head.data.get(piece.key), str):
        parts = [piece.value]
    elif "," in piece.value:
        parts = piece.value.split(",")
    else:
        parts = piece.value.split() if split_words else [piece.value]
    return [entry for part in parts if (entry := " ".join(part.split()))]


def _distinct_tags(names: Iterable[str]) -> tuple[str, ...]:
    distinct: dict[str, str] = {}
    for name in names:
        distinct.setdefault(normalise_tag(name), name)
    return tuple(distinct.values())


def _rest(data: dict[str, Any]) -> dict[str, Any]:
    """Frontmatter that has no column of its own. Keys that ``meta`` needs move one level down."""
    consumed = {"title", *(key for key in data if key.lower() in _TAG_KEYS or key.lower() in _ALIAS_KEYS)}
    consumed |= _RESERVED
    rest = {key: value for key, value in data.items() if key not in consumed}
    if not _RESERVED.isdisjoint(data):
        rest["frontmatter"] = {key: data[key] for key in data if key in _RESERVED}
    return rest


def _line(data: bytes, offset: int) -> int:
    return sum(1 for _ in _NEWLINE.finditer(data, 0, offset)) + 1
