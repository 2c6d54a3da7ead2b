"""The YAML block at the head of a note.

PyYAML only turns the block into events here, which takes no recursion; the limits are checked and
the values built on that stream. Its own composer follows nested brackets by recursion, in C down to a
crash, and its constructor guesses dates, base-60 numbers and a ``no`` that means False.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import frontmatter
import yaml
from frontmatter.default_handlers import BaseHandler

from resonance.errors import FrontmatterError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 64
MAX_NODES = 10_000
_TOO_DEEP = f"is nested more than {MAX_DEPTH} levels deep"

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_FENCE = re.compile(r"---[ \t]*(?:\r\n|\n|\r|\Z)")
_CLOSING_FENCE = re.compile(r"---(?<=[\r\n]---)[ \t]*(?:\r\n|\n|\r|\Z)")
_NEWLINE = re.compile(r"\r\n|\n|\r")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{0,30})?(?:[eE][-+]?[0-9]{1,2})?")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_BARE_LINK = re.compile(r"""\[\[[^\[\]"'\r\n]+\]\]""")
# Lines that are the same to YAML whatever stands around them: ``key: word``, ``key: "text"`` without
# escapes, and lists of the latter. Most blocks have no others.
_QUOTED = r'"[ !#-\[\]-~]*"'
_WORDS = r"[A-Za-z0-9/][\w/.+()-]*(?:[ ]+[\w/.+()][\w/.+()-]*)*"
_EASY_LINE = re.compile(
    r"([A-Za-z_][\w.-]{0,99}):[ ]+"
    rf"(?:({_WORDS})|({_QUOTED})|\[({_QUOTED}(?:,[ ]*{_QUOTED})*)\])"
    r"[ ]*(?:\r\n|\n|\Z)",
    re.ASCII,
)
_EASY_TEXT = re.compile(_QUOTED)
_EASY_CHARS = 8_192
_NUMERIC = frozenset("-+0123456789")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


class Text(NamedTuple):
    """A piece of text in the block. ``start`` and ``end`` are character offsets in the file's text."""

    key: str
    value: str
    start: int
    end: int


@dataclass(slots=True)
class Frontmatter:
    """What stands at the head of a note.

    Attributes:
        data: the block as a JSON object; empty when there is no block.
        texts: its texts in order of appearance, each with the top-level key it stands under.
        body: character offset of the body in the text.
    """

    data: dict[str, Any] = field(default_factory=dict)
    texts: list[Text] = field(default_factory=list)
    body: int = 0


def split(text: str) -> tuple[int, int, int] | None:
    """Where the block starts, where it ends, and where the body starts; None without a block.

    The first line must be ``---``, and so must a later one. As in Obsidian, a first line that is
    never answered by a second fence is a rule drawn across the page, and all of it is body.
    """
    opening = _FENCE.match(text)
    if opening is None:
        return None
    closing = _CLOSING_FENCE.search(text, opening.end())
    if closing is None:
        return None
    return opening.end(), closing.start(), closing.end()


def parse_frontmatter(path: str, text: str) -> Frontmatter:
    """Read the block at the head of ``text``, which is the whole file without a byte order mark.

    Scalars follow YAML 1.2's core rules, so ``no`` and ``2024-02-30`` stay text; so does every number
    that JSON or a float could not hold exactly.

    Raises:
        FrontmatterError: it is no YAML, no mapping, exceeds a limit (256 KiB, 64 levels, 10,000 values),
            repeats a key, or uses anchors, aliases or tags. ``line`` counts from the top of the file.
    """
    parts = split(text)
    if parts is None:
        return Frontmatter()
    start, end, body = parts
    builder = _Builder(path, text[start:end], start)
    if (easy := builder._easy()) is not None:
        return Frontmatter(easy, builder.texts, body)
    handler = _Handler(path, text, parts)
    data, _ = frontmatter.parse(text, handler=handler)
    return Frontmatter(data, handler.texts, body)


class _Handler(BaseHandler):
    """Makes python-frontmatter split as Obsidian does, and load within limits."""

    FM_BOUNDARY = _FENCE
    START_DELIMITER = END_DELIMITER = "---"

    def __init__(self, path: str, text: str, parts: tuple[int, int, int]) -> None:
        super().__init__()
        self.path = path
        self.whole = text
        self.parts = parts
        self.texts: list[Text] = []

    def split(self, text: str) -> tuple[str, str]:
        start, end, body = self.parts
        return self.whole[start:end], self.whole[body:]

    def load(self, fm: str, **_: object) -> dict[str, Any]:
        builder = _Builder(self.path, fm, self.parts[0])
        self.texts = builder.texts
        return builder.build()


class _Builder:
    """Turns the events of one YAML block into plain values, iteratively."""

    def __init__(self, path: str, block: str, offset: int) -> None:
        self.path = path
        self.block = block
        self.offset = offset
        self.texts: list[Text] = []

    def error(self, reason: str, line: int = 0) -> FrontmatterError:
        """``line`` counts from 0 within the block, whose first line is the file's second."""
        return FrontmatterError(self.path, f"frontmatter: {reason}", line + 2)

    def build(self) -> dict[str, Any]:
        if len(self.block) > MAX_BYTES or len(self.block.encode()) > MAX_BYTES:
            raise self.error(f"the block is larger than {MAX_BYTES // 1024} KiB")
        try:
            return self._build(yaml.parse(self.block, Loader=_Loader))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            reason = " ".join(filter(None, (error.context, error.problem))) or "is not YAML"
            if "nesting depth" in reason:
                # It looks ahead, and so may meet its own limit, a higher one, before an event shows ours.
                reason = _TOO_DEEP
            raise self.error(reason, mark.line if mark else 0) from error
        except yaml.reader.ReaderError as error:
            lines = [match.end() for match in _NEWLINE.finditer(self.block)]
            raise self.error(str(error.reason), bisect_right(lines, error.position)) from error
        except (yaml.YAMLError, ValueError, TypeError, IndexError, ArithmeticError) as error:
            raise self.error(f"is not YAML ({error})") from error
        except RecursionError as error:
            raise self.error("is nested too deeply") from error

    def _easy(self) -> dict[str, Any] | None:
        """The values of a block of easy lines, and their texts; None where one of them is not easy."""
        block, at = self.block, 0
        if len(block) > _EASY_CHARS:
            return None
        data: dict[str, Any] = {}
        texts: list[Text] = []
        offset, size, match_line = self.offset, len(block), _EASY_LINE.match
        while at < size:
            line = match_line(block, at)
            if line is None:
                return None
            key, word, quoted, listed = line.groups()
            if key in data:
                return None
            if word is not None:
                data[key] = value = _plain_value(word)
                if value is not None:
                    texts.append(Text(key, word, offset + line.start(2), offset + line.end(2)))
            elif quoted is not None:
                data[key] = value = quoted[1:-1]
                if value:
                    texts.append(Text(key, value, offset + line.start(3), offset + line.end(3)))
            else:
                data[key] = values = []
                start = offset + line.start(4)
                for match in _EASY_TEXT.finditer(listed):
                    values.append(value := match[0][1:-1])
                    if value:
                        texts.append(Text(key, value, start + match.start(), start + match.end()))
            at = line.end()
        self.texts += texts
        return data

    def _build(self, events: Iterator[Any]) -> dict[str, Any]:
        stack: list[_Frame] = []
        result: Any = None
        documents = nodes = 0
        for event in events:
            kind = type(event)
            line = event.start_mark.line
            if kind is yaml.DocumentStartEvent:
                documents += 1
                if documents > 1:
                    raise self.error("holds more than one YAML document", line)
                continue
            if kind is yaml.SequenceEndEvent or kind is yaml.MappingEndEvent:
                frame = stack.pop()
                if kind is yaml.SequenceEndEvent:
                    self._bracket_link(frame, event, stack)
                value: Any = frame.value
            else:
                if kind is yaml.AliasEvent:
                    raise self.error("aliases (*name) are not allowed", line)
                if kind not in (yaml.ScalarEvent, yaml.SequenceStartEvent, yaml.MappingStartEvent):
                    continue
                nodes += 1
                if nodes > MAX_NODES:
                    raise self.error(f"holds more than {MAX_NODES:,} values", line)
                if event.anchor is not None:
                    raise self.error("anchors (&name) are not allowed", line)
                if event.tag is not None:
                    raise self.error(f"tags ({event.tag}) are not allowed", line)
                if stack and stack[-1].expects_key:
                    stack[-1].take_key(self, event)
                    continue
                if kind is not yaml.ScalarEvent:
                    if len(stack) >= MAX_DEPTH:
                        raise self.error(_TOO_DEEP, line)
                    is_mapping = kind is yaml.MappingStartEvent
                    stack.append(_Frame({} if is_mapping else [], event.start_mark.index))
                    continue
                value = self._scalar(event)
                self._note(event, value, stack)
            if stack:
                stack[-1].add(value)
            else:
                result = value
        if result is None:
            return {}
        if not isinstance(result, dict):
            raise self.error("must be a mapping of keys to values")
        return result

    def _scalar(self, event: Any) -> Any:
        if event.style == '"' and _UNSTORABLE.search(event.value):
            raise self.error("an escape stands for no character of a text", event.start_mark.line)
        return _plain_value(event.value) if event.implicit[0] else event.value

    def _note(self, event: Any, value: Any, stack: list[_Frame]) -> None:
        key = stack[0].key if stack else None
        if key is not None and event.value and value is not None:
            start, end = event.start_mark.index, event.end_mark.index
            self.texts.append(Text(key, event.value, self.offset + start, self.offset + end))

    def _bracket_link(self, frame: _Frame, event: Any, stack: list[_Frame]) -> None:
        """``related: [[note]]`` without quotes is a list in a list to YAML, and a link to its author."""
        start, end = frame.start, event.end_mark.index
        key = stack[0].key if stack else None
        if key is not None and _BARE_LINK.fullmatch(self.block, start, end):
            source = self.block[start:end]
            self.texts.append(Text(key, source, self.offset + start, self.offset + end))


class _Frame:
    """A list or mapping that is being filled."""

    __slots__ = ("expects_key", "key", "start", "value")

    def __init__(self, value: list[Any] | dict[str, Any], start: int) -> None:
        self.value = value
        self.start = start
        self.key: str | None = None
        self.expects_key = isinstance(value, dict)

    def take_key(self, builder: _Builder, event: Any) -> None:
        line = event.start_mark.line
        if type(event) is not yaml.ScalarEvent:
            raise builder.error("a key must be plain text (quote it, if it holds brackets)", line)
        if _UNSTORABLE.search(event.value):
            raise builder.error("an escape stands for no character of a text", line)
        if event.value in self.value:
            raise builder.error(f"the key {event.value!r} occurs twice", line)
        self.key = event.value
        self.expects_key = False

    def add(self, value: Any) -> None:
        if isinstance(self.value, dict):
            assert self.key is not None
            self.value[self.key] = value
            self.expects_key = True
        else:
            self.value.append(value)


def _plain_value(text: str) -> Any:
    """The value of a scalar without quotes: null, a boolean, a number JSON can hold, else its text."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if text[0] not in _NUMERIC:
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
