"""The links and tags in the markdown of one note, each with its place.

Code, mathematics and comments (HTML's and Obsidian's ``%% %%``) are never searched for any.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyromark

from resonance.errors import ContentError
from resonance.vault.links import Places, RawLink, markdown_link, tag_link, wikilink

_OPTIONS = (
    pyromark.Options.ENABLE_WIKILINKS
    | pyromark.Options.ENABLE_MATH
    | pyromark.Options.ENABLE_TABLES
    | pyromark.Options.ENABLE_FOOTNOTES
    | pyromark.Options.ENABLE_TASKLISTS
    | pyromark.Options.ENABLE_STRIKETHROUGH
)
_LINK_WITHOUT_NAME = re.compile(r"!?\[\[\|[^\[\]\r\n]*\]\]")
_NOT_IN_TAG = r"\s!-,.:-@\[-^`{-~\u2000-\u206f\u2e00-\u2e7f"
_TAG = re.compile(rf"#(?<!\S#)(?!/)(?=\d*[^\d{_NOT_IN_TAG}])[^{_NOT_IN_TAG}]+")
_LONE_CR = re.compile(r"\r(?!\n)")


class Heading(NamedTuple):
    """A heading that no other block encloses: its place in the file in bytes, its level, its text."""

    start: int
    level: int
    text: str


class Body:
    """The markdown behind the frontmatter: one pass over the parser's events."""

    def __init__(self, path: str, data: bytes, body: str, offset: int) -> None:
        self.path = path
        self.data = data
        self.body = body
        self.offset = offset
        self.links: list[RawLink] = []
        self.title = ""
        self.headings: list[Heading] = []
        self.blocks: list[int] = []
        self.runs: list[tuple[int, int]] = []

    def read(self) -> None:
        """Find the links; ``title``, the text of the first heading of level 1; and where blocks begin.

        ``blocks`` are the places of all blocks that no other one encloses, ``headings`` those of the
        headings among them, without those in comments.
        """
        has_comments = "%%" in self.body
        has_empty = "[[|" in self.body
        has_tags = _TAG.search(self.body) is not None
        try:
            self._events(has_comments or has_empty or has_tags)
        except BaseException as error:
            # A panic of the parser is no Exception, and one note must not end the run.
            if type(error).__name__ != "PanicException":
                raise
            raise ContentError(self.path, f"the markdown parser failed ({error})") from error
        comments = self._comments() if has_comments else []
        if has_tags or has_empty:
            self._search_runs()
        if comments:
            self.links = [link for link in self.links if not _within(link.start, comments)]
            self.headings = [head for head in self.headings if not _within(head.start, comments)]

    def _events(self, keep_runs: bool) -> None:
        in_link = in_code = in_heading = 0
        heading: list[str] = []
        last = -1
        outermost = 0  # the end of the last block that no other one encloses
        # The parser does not end every construct at a lone CR; a LF in its place keeps all offsets.
        text = _LONE_CR.sub("\n", self.body) if "\r" in self.body else self.body
        events: Iterator[tuple[Any, Any]] = pyromark.events_with_range(text, options=_OPTIONS)
        for event, span in events:
            if isinstance(event, str):
                if in_heading:
                    heading.append(" ")
                continue
            name = next(iter(event))
            value = event[name]
            if name == "Text":
                if in_heading:
                    heading.append(value)
                if keep_runs and not in_code and not in_link:
                    start, end = span["start"], span["end"]
                    if start == last:
                        start = self.runs.pop()[0]
                    self.runs.append((start, end))
                    last = end
            elif name == "Start":
                if span["start"] >= outermost:
                    self.blocks.append(self.offset + span["start"])
                    outermost = span["end"]
                if isinstance(value, str):
                    continue
                ((tag, detail),) = value.items()
                if tag == "Link" or tag == "Image":
                    in_link += 1
                    self._link(tag == "Image", detail, span["start"], span["end"])
                elif tag == "CodeBlock":
                    in_code += 1
                elif tag == "Heading":
                    in_heading = 1
                    heading.clear()
            elif name == "End":
                if value == "Link" or value == "Image":
                    in_link -= 1
                elif value == "CodeBlock":
                    in_code -= 1
                elif in_heading and isinstance(value, dict) and "Heading" in value:
                    in_heading = 0
                    self._heading(value["Heading"], heading, self.offset + span["start"])
            elif name == "Code" and in_heading:
                heading.append(value)

    def _heading(self, name: str, parts: list[str], start: int) -> None:
        text = " ".join("".join(parts).split())
        level = int(name[1:])
        if level == 1 and not self.title:
            self.title = text
        if self.blocks[-1] == start:
            self.headings.append(Heading(start, level, text))

    def _link(self, image: bool, detail: dict[str, Any], start: int, end: int) -> None:
        start += self.offset
        end += self.offset
        raw = self.data[start:end].decode()
        if isinstance(detail["link_type"], dict):
            if "\n" not in raw and "\r" not in raw:
                self.links.append(wikilink("embed" if image else "wikilink", raw, start, end))
            return
        url = detail["dest_url"]
        if detail["link_type"] == "Email":
            url = f"mailto:{url}"
        self.links.append(markdown_link("image" if image else "link", raw, url, start, end))

    def _comments(self) -> list[tuple[int, int]]:
        """Byte ranges of ``%% comments %%``. One that never ends is text, lest it hide the rest."""
        marks: list[int] = []
        for start, end in self.runs:
            run = self.data[self.offset + start : self.offset + end]
            marks += [self.offset + start + m.start() for m in re.finditer(rb"%%", run)]
        return list(zip(marks[::2], marks[1::2], strict=False))

    def _search_runs(self) -> None:
        """Find what the parser sees as mere text: tags, and wikilinks without a name."""
        for start, end in self.runs:
            start, end = self.offset + start, self.offset + end
            run = self.data[start:end].decode()
            place = Places(run, start)
            if "#" in run:
                glued = start > self.offset and self.data[start - 1] not in b" \t\r\n"
                for match in _TAG.finditer(run):
                    if match.start() == 0 and glued:
                        continue
                    raw = match.group().rstrip("/")
                    at, end = place(match.start()), place(match.start() + len(raw))
                    self.links.append(tag_link(raw, at, end))
            if "[[|" in run:
                for match in _LINK_WITHOUT_NAME.finditer(run):
                    raw = match.group()
                    kind = "embed" if raw.startswith("!") else "wikilink"
                    at, end = place(match.start()), place(match.end())
                    self.links.append(wikilink(kind, raw, at, end))


def _within(offset: int, ranges: list[tuple[int, int]]) -> bool:
    at = bisect.bisect_right(ranges, (offset, offset)) - 1
    return at >= 0 and ranges[at][0] <= offset < ranges[at][1]
