"""Links as they are written: what kinds there are, and what each one asks for."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple
from urllib.parse import unquote

CITES, LINKS_TO, TAGGED_AS = "CITES", "LINKS_TO", "TAGGED_AS"

# A picture may stand in a note as a URL of megabytes; nobody looks for one in the ledger.
_LONGEST_RAW = 1_000
_LONGEST_NAME = 4_096

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//")
# A note may be called "Dune: part two", so between brackets a colon alone makes no URL.
_URL_IN_BRACKETS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|mailto:")
# Looks like a URL, but says which folder of the same workspace holds the note.
_DENDRON_VAULT = re.compile(r"\A\s*dendron://[^/#]*/(?=[^\s#])")


class RawLink(NamedTuple):
    """One occurrence of a link or tag, as it is written.

    Attributes:
        kind: ``wikilink``, ``embed``, ``link``, ``image``, ``tag``, ``frontmatter`` (a wikilink in its
            values), ``relation`` (a name without brackets) or ``block`` (of Logseq).
        type: the type of the edge it makes when it resolves.
        raw: the text as written.
        name: what it asks for, percent-decoded; empty for the note itself. A whole URL where the
            link has a scheme.
        fragment: the heading path or ``^block`` behind ``#``, or None.
        start, end: byte offsets in the file.
    """

    kind: str
    type: str
    raw: str
    name: str
    fragment: str | None
    start: int
    end: int

    @property
    def is_url(self) -> bool:
        """Whether it leads to a URL (``https://host``, ``mailto:``, ``//host``), not to a file."""
        pattern = _URL if self.kind in ("link", "image") else _URL_IN_BRACKETS
        return pattern.match(self.name) is not None


def wikilink(
    kind: str, raw: str, start: int, end: int, *, type: str = CITES, label_first: bool = False
) -> RawLink:
    """``[[name#fragment|text]]``, or the same with ``!`` before it.

    Args:
        label_first: Dendron's way, ``[[text|name]]``, where ``dendron://vault/`` may stand before the name.
    """
    inner = raw.removeprefix("!")[2:-2]
    if label_first:
        target = _DENDRON_VAULT.sub("", inner.rpartition("|")[2], count=1)
    else:
        target, piped, _ = inner.partition("|")
        if piped:
            target = target.removesuffix("\\")  # in a table the pipe is escaped
    name, _, fragment = target.partition("#")
    if _URL_IN_BRACKETS.match(name.strip()):
        name, fragment = target, ""
    return RawLink(
        kind,
        type,
        raw[:_LONGEST_RAW],
        name.strip()[:_LONGEST_NAME],
        fragment.strip() or None,
        start,
        end,
    )


def markdown_link(kind: str, raw: str, url: str, start: int, end: int) -> RawLink:
    """``[text](url)`` or ``![text](url)``, in any of their forms; ``url`` without its escapes."""
    name, fragment = (_known if len(url) <= _LONGEST_NAME else _asked_for)(url)
    return RawLink(kind, LINKS_TO, raw[:_LONGEST_RAW], name, fragment, start, end)


def _asked_for(url: str) -> tuple[str, str | None]:
    """The name and the fragment in a URL."""
    fragment = None
    if _URL.match(url) is None:
        url, _, fragment = url.partition("#")
        url = _percent_decoded(url.partition("?")[0])
        if _URL.match(url) is not None:
            url = f"./{url}"  # a file's name; its colon was escaped to say so
        fragment = _percent_decoded(fragment) or None
    return url[:_LONGEST_NAME], fragment


# Notes mention the same ones again and again.
_known = functools.lru_cache(maxsize=4096)(_asked_for)


def tag_link(raw: str, start: int, end: int) -> RawLink:
    """``#tag``, or an entry of the frontmatter's list with or without the sign."""
    return RawLink("tag", TAGGED_AS, raw, raw.lstrip("#").strip("/"), None, start, end)


def relation_link(type: str, raw: str, name: str, start: int, end: int) -> RawLink:
    """A name that stands without brackets where only names stand."""
    return RawLink("relation", type, raw[:_LONGEST_RAW], name[:_LONGEST_NAME], None, start, end)


class Places:
    """Byte offsets of characters; quick when asked for places that lie near each other."""

    def __init__(self, text: str, offset: int) -> None:
        self.text = text
        self.character = 0
        self.byte = offset

    def __call__(self, character: int) -> int:
        if character >= self.character:
            self.byte += len(self.text[self.character : character].encode())
        else:
            self.byte -= len(self.text[character : self.character].encode())
        self.character = character
        return self.byte


def _percent_decoded(text: str) -> str:
    if "%" not in text:
        return text
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text
    return text if "\0" in decoded else decoded
