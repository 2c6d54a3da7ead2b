"""The links and tags in the markdown of one note, each with its place.

Code, mathematics and comments (HTML's and Obsidian's ``%% %%``) are never searched for any, but for
the one comment that is meant to be: Amalfa's ``<!-- tags: [RELATION: name] -->``.
"""

from __future__ import annotations

import bisect
import re
from typing import Any, NamedTuple

import pyromark

from resonance._core import outline
from resonance.errors import ContentError
from resonance.vault.dialect import Dialect, edge_type
from resonance.vault.links import (
    CITES,
    TAGGED_AS,
    Places,
    RawLink,
    markdown_link,
    relation_link,
    tag_link,
    wikilink,
)
from resonance.vault.logseq import BLOCK_OWN_ID, BLOCK_REFERENCE, PAGE_IN_BRACKETS, without_orphans

_PLAIN_OPTIONS = (
    pyromark.Options.ENABLE_TABLES
    | pyromark.Options.ENABLE_FOOTNOTES
    | pyromark.Options.ENABLE_TASKLISTS
    | pyromark.Options.ENABLE_STRIKETHROUGH
)
_OPTIONS = _PLAIN_OPTIONS | pyromark.Options.ENABLE_WIKILINKS | pyromark.Options.ENABLE_MATH
_LINK_WITHOUT_NAME = re.compile(r"!?\[\[\|[^\[\]\r\n]*\]\]")
_NOT_IN_TAG = r"\s!-,.:-@\[-^`{-~\u2000-\u206f\u2e00-\u2e7f"
_TAG = re.compile(rf"#(?<!\S#)(?!/)(?=\d*[^\d{_NOT_IN_TAG}])[^{_NOT_IN_TAG}]+")
# Names of Dendron's notes, which its tags are, have dots in them.
_DOTTED_TAG = re.compile(rf"{_TAG.pattern}(?:\.[^{_NOT_IN_TAG}]+)*")
_AMALFA_TAG = re.compile(r"\[tag:([^\[\]\r\n]+)\]", re.IGNORECASE)
_AMALFA_TAGS = re.compile(r"<!--[ \t]{0,9}tags:", re.IGNORECASE)
_AMALFA_RELATION = re.compile(r"\[([\w-]+):(?:([^\[\]\r\n]+)|[ \t]{0,9}\[\[([^\[\]\r\n]+)\]\])\]")
_AMALFA_QUALITY = "QUALITY"
_BEFORE_BLOCK = re.compile(rb"[ \t>*+-]*(?:\d{1,9}[.)][ \t]+)?")
_LONE_CR = re.compile(r"\r(?!\n)")


class Heading(NamedTuple):
    """A heading that no other block encloses: its place in the file in bytes, its level, its text."""

    start: int
    level: int
    text: str


class Body:
    """The markdown behind the frontmatter: one pass over the parser's events."""

    def __init__(self, path: str, data: bytes, body: str, offset: int, dialect: Dialect = "obsidian") -> None:
        self.path = path
        self.data = data
        self.body = body
        self.offset = offset
        self.dialect = dialect
        self.block_ids: list[str] = []
        self.links: list[RawLink] = []
        self.title = ""
        self.headings: list[Heading] = []
        self.blocks: list[int] = []
        self.runs: list[tuple[int, int]] = []
        self.html: list[tuple[int, int]] = []
        self.code: list[tuple[int, int]] = []
        self.comments: list[tuple[int, int]] = []
        self.math: list[tuple[int, int]] = []

    def read(self) -> None:
        """Find the links; ``title``, the text of the first heading of level 1; and where blocks begin.

        ``blocks`` are the places of all blocks that no other one encloses, ``headings`` those of the
        headings among them, without those in comments.
        """
        marks_up = self.dialect != "markdown"
        has_comments = marks_up and "%%" in self.body
        has_math = marks_up and "$$" in self.body
        # What the parser takes for mere text is kept and searched only if there may be something in it.
        searched = (
            (marks_up and ("[[|" in self.body or _TAG.search(self.body) is not None))
            or _AMALFA_TAG.search(self.body) is not None
            or (self.dialect == "logseq" and ("((" in self.body or "id::" in self.body))
        )
        try:
            self._events(has_comments or has_math or searched)
        except BaseException as error:
            # A panic of the parser is no Exception, and one note must not end the run.
            if type(error).__name__ != "PanicException":
                raise
            raise ContentError(self.path, f"the markdown parser failed ({error})") from error
        if has_comments:
            self.comments = self._comments()
        if has_math:
            self.math = self._math()
        if searched:
            self._search_runs(marks_up)
        self._search_html()
        for hidden in (self.comments, self.math):
            if hidden:
                self.links = [link for link in self.links if not _within(link.start, hidden)]
                self.headings = [head for head in self.headings if not _within(head.start, hidden)]

    def in_code(self, offset: int) -> bool:
        """Whether a byte of the file lies in a block of code."""
        return _within(offset, self.code)

    def is_silent(self, offset: int) -> bool:
        """Whether a byte of the file lies in code, HTML, a comment, or a formula of several blocks."""
        return (
            _within(offset - self.offset, self.html)
            or self.in_code(offset)
            or _within(offset, self.comments)
            or _within(offset, self.math)
        )

    def _events(self, keep_runs: bool) -> None:
        # The parser does not end every construct at a lone CR; a LF in its place keeps all offsets.
        text = _LONE_CR.sub("\n", self.body) if "\r" in self.body else self.body
        if self.dialect == "logseq":
            text = without_orphans(text)
        options = _PLAIN_OPTIONS if self.dialect == "markdown" else _OPTIONS
        # Runs end where the parser left something out, which merged ones do not show.
        events = pyromark.events_with_range(text, options=options, merge_text=not keep_runs)
        blocks, headings, links, self.runs, self.html, code = outline(events, keep_runs=keep_runs)
        offset = self.offset
        self.blocks = [offset + start for start in blocks]
        self.code = [(offset + start, offset + end) for start, end in code]
        self.headings = [
            Heading(offset + start, level, text) for start, level, text, outer in headings if outer
        ]
        self.title = next((text for _, level, text, _ in headings if level == 1 and text), "")
        for image, detail, start, end in links:
            self._link(image, detail, offset + start, offset + end)

    def _link(self, image: bool, detail: dict[str, Any], start: int, end: int) -> None:
        raw = self.data[start:end].decode()
        if isinstance(detail["link_type"], dict):
            if "\n" not in raw and "\r" not in raw:
                self._wikilink("embed" if image else "wikilink", raw, start, end)
            return
        url = detail["dest_url"]
        if self.dialect == "logseq":
            if match := BLOCK_REFERENCE.fullmatch(url):
                self._block(raw, match.group(1), start, end)
                return
            if match := PAGE_IN_BRACKETS.fullmatch(url):
                link = wikilink("embed" if image else "wikilink", match.group(), start, end)
                self.links.append(link._replace(raw=raw))
                return
        if detail["link_type"] == "Email":
            url = f"mailto:{url}"
        self.links.append(markdown_link("image" if image else "link", raw, url, start, end))

    def _wikilink(self, kind: str, raw: str, start: int, end: int) -> None:
        link = wikilink(kind, raw, start, end, label_first=self.dialect == "dendron")
        if self.dialect == "logseq" and self.data[start - 1 : start] == b"#" and start > self.offset:
            raw = f"#{raw}"
            link = RawLink("tag", TAGGED_AS, raw, link.name, None, start - 1, end)
        self.links.append(link)

    def _block(self, raw: str, name: str, start: int, end: int) -> None:
        self.links.append(RawLink("block", CITES, raw, name.lower(), None, start, end))

    def _comments(self) -> list[tuple[int, int]]:
        """Byte ranges of ``%% comments %%``. One that never ends is text, lest it hide the rest."""
        marks: list[int] = []
        for start, end in self.runs:
            run = self.data[self.offset + start : self.offset + end]
            marks += [self.offset + start + m.start() for m in re.finditer(rb"%%", run)]
        return list(zip(marks[::2], marks[1::2], strict=False))

    def _math(self) -> list[tuple[int, int]]:
        """Byte ranges of ``$$`` blocks with an empty line in them, which to the parser are none.

        As with comments, one that never ends is text.
        """
        ranges: list[tuple[int, int]] = []
        opened = -1
        for start, end in self.runs:
            run = self.data[self.offset + start : self.offset + end]
            for match in re.finditer(rb"\$\$", run):
                at = self.offset + start + match.start()
                if opened >= 0:
                    ranges.append((opened, at))
                    opened = -1
                elif not _within(at, self.comments) and self._begins_line(at):
                    opened = at
        return ranges

    def _begins_line(self, at: int) -> bool:
        line = max(self.data.rfind(b"\n", 0, at) + 1, self.data.rfind(b"\r", 0, at) + 1, self.offset)
        return _BEFORE_BLOCK.fullmatch(self.data, line, at) is not None

    def _search_runs(self, marks_up: bool) -> None:
        """Find what the parser sees as mere text: tags, wikilinks without a name, references to blocks."""
        tag = _DOTTED_TAG if self.dialect == "dendron" else _TAG
        for start, end in self.runs:
            start, end = self.offset + start, self.offset + end
            run = self.data[start:end].decode()
            place = Places(run, start)
            if "#" in run and marks_up:
                glued = start > self.offset and self.data[start - 1] not in b" \t\r\n"
                for match in tag.finditer(run):
                    if match.start() == 0 and glued:
                        continue
                    raw = match.group().rstrip("/")
                    at, end = place(match.start()), place(match.start() + len(raw))
                    self.links.append(tag_link(raw, at, end))
            if "[[|" in run and marks_up:
                for match in _LINK_WITHOUT_NAME.finditer(run):
                    raw = match.group()
                    kind = "embed" if raw.startswith("!") else "wikilink"
                    self._wikilink(kind, raw, place(match.start()), place(match.end()))
            if "[" in run:
                for match in _AMALFA_TAG.finditer(run):
                    at, end = place(match.start()), place(match.end())
                    if name := match.group(1).strip().lstrip("#"):
                        self.links.append(relation_link(TAGGED_AS, match.group(), name, at, end))
            if self.dialect == "logseq":
                if own := BLOCK_OWN_ID.fullmatch(run):
                    self.block_ids.append(own.group(1).lower())
                for match in BLOCK_REFERENCE.finditer(run):
                    self._block(match.group(), match.group(1), place(match.start()), place(match.end()))

    def _search_html(self) -> None:
        """Find the relations in Amalfa's comments."""
        for start, end in self.html:
            block = self.data[self.offset + start : self.offset + end]
            if b"tags:" not in block.lower():
                continue
            text = block.decode()
            place = Places(text, self.offset + start)
            opening = _AMALFA_TAGS.search(text)
            while opening and (closing := text.find("-->", opening.end())) >= 0:
                for match in _AMALFA_RELATION.finditer(text, opening.end(), closing):
                    key, *names = match.groups()
                    type_ = TAGGED_AS if key.lower() == "tag" else edge_type(key)
                    name = next(filter(None, names)).strip()
                    if name and type_ not in ("", _AMALFA_QUALITY):
                        at, end = place(match.start()), place(match.end())
                        self.links.append(relation_link(type_, match.group(), name, at, end))
                opening = _AMALFA_TAGS.search(text, closing)


def _within(offset: int, ranges: list[tuple[int, int]]) -> bool:
    at = bisect.bisect_right(ranges, (offset, offset)) - 1
    return at >= 0 and ranges[at][0] <= offset < ranges[at][1]
