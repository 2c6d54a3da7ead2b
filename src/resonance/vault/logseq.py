"""Logseq's own: pages by any name, ``key:: value`` properties, and blocks that are referred to."""

from __future__ import annotations

import re
from datetime import date
from posixpath import basename
from typing import NamedTuple
from urllib.parse import unquote

from resonance.vault.scan import NOTE_SUFFIXES

_BLOCK_ID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
BLOCK_REFERENCE = re.compile(rf"\(\(({_BLOCK_ID})\)\)")
BLOCK_OWN_ID = re.compile(rf"[ \t]*id::[ \t]+({_BLOCK_ID})[ \t]*")
PAGE_IN_BRACKETS = re.compile(r"\[\[([^\[\]\r\n]+)\]\]")

_PROPERTY = re.compile(
    r"(?:^|(?<=\r))[ \t]*(?:[-*+][ \t]+)?([^\s:,;()\[\]{}`'\"#]+)::(?:[ \t]([^\r\n]*))?(?=[\r\n]|\Z)",
    re.MULTILINE,
)
_BULLET = re.compile(r" {0,3}(?:[-*+]|\d{1,9}[.)])(?=\s|\Z)")
_JOURNAL = re.compile(r"(\d{4})[_-](\d{2})[_-](\d{2})")


class Property(NamedTuple):
    """``key:: value``; ``start`` and ``end`` are character offsets of the value in the text searched."""

    key: str
    value: str
    start: int
    end: int


def properties(body: str) -> tuple[list[Property], int]:
    """All lines ``key:: value``, and how many of them, before anything else, are those of the page."""
    found: list[Property] = []
    of_page = 0
    at: int | None = 0
    for match in _PROPERTY.finditer(body):
        found.append(_property(match))
        if at is not None and not body[at : match.start()].strip():
            of_page += 1
            at = match.end()
        else:
            at = None
    return found, of_page


def without_orphans(body: str) -> str:
    """The same text, as long, in which no bullet is so far in that markdown takes it for code.

    Below a line that is no bullet, a tab makes a block of code in markdown, but a child in Logseq.
    """
    if "\t" not in body:
        return body
    lines = body.split("\n")
    below_bullet = False
    for number, line in enumerate(lines):
        if not line.startswith("\t"):
            if line.strip():
                below_bullet = _BULLET.match(line) is not None
        elif not below_bullet:
            lines[number] = " " + line[1:]
    return "\n".join(lines)


def page_names(path: str) -> list[str]:
    """The names a file gives its page: ``a___b%3F.md`` is ``a/b?``, ``2021_01_12.md`` is a day's journal."""
    stem = basename(path)
    for suffix in NOTE_SUFFIXES:
        if stem.lower().endswith(suffix):
            stem = stem[: -len(suffix)]
            break
    names = [unquote(stem.replace("___", "/"))]
    if match := _JOURNAL.fullmatch(stem):
        try:
            day = date(*map(int, match.groups()))
        except ValueError:
            return names
        names += _day_names(day)
    return names


# Not strftime: its months are in the language of the machine.
_MONTHS = "January February March April May June July August September October November December".split()
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()


def _day_names(day: date) -> list[str]:
    """What a journal may be called, whichever form somebody has chosen.

    But for two, ``dd-MM-yyyy`` and ``MM-dd-yyyy``, of which nobody can tell the one from the other.
    """
    year, month, at = day.isoformat().split("-")
    nth, called, weekday = f"{day.day}{_ordinal(day.day)}", _MONTHS[day.month - 1], _DAYS[day.weekday()]
    names = [f"{year}-{month}-{at}", f"{year}/{month}/{at}", f"{year}{month}{at}", f"{month}/{at}/{year}"]
    names += [f"{month}_{at}_{year}", f"{year}年{month}月{at}日"]
    for name in (called[:3], called):
        names += [f"{name} {nth}, {year}", f"{nth} {name} {year}"]
    for name in (weekday[:3], weekday):
        names += [f"{year}-{month}-{at} {name}", f"{name}, {year}/{month}/{at}"]
        names += [
            f"{name}, {month}/{at}/{year}",
            f"{name}, {at}-{month}-{year}",
            f"{name}, {at}.{month}.{year}",
        ]
    return names


def _ordinal(day: int) -> str:
    return "th" if 11 <= day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


def _property(match: re.Match[str]) -> Property:
    told = match.group(2) or ""
    value = told.strip()
    start = match.start(2) + len(told) - len(told.lstrip()) if value else match.end()
    return Property(match.group(1).casefold(), value, start, start + len(value))
