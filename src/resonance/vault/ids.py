"""The one place where ids are made."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

_EXTENSION = re.compile(r"\.(?:md|ts|js|json)$")
_OUTSIDE_ASCII_SLUG = re.compile(r"[^a-z0-9]+")
_DIGITS = 12
_LONGEST_SLUG = 80
# What a slug may leave out of a heading without saying less than it.
_PUNCTUATION = re.compile(r"[\s\-_.,:;'\"()\[\]{}/\\`?\u2010-\u201f\u2026]+")
_SECTION_DIGITS = 8


def slug(path: str) -> str:
    """The readable form of a root-relative path: ``Notes/C++ tips.md`` -> ``notes-c-tips``.

    The extension (``.md .ts .js .json``, in lower case) is dropped, the rest is put in lower case,
    and every run of anything but letters, digits and marks of any alphabet becomes one ``-``. For
    ASCII paths this is what Amalfa's ``generateId`` returns. May be empty, and paths may share one:
    :func:`assign_ids` takes care of both.
    """
    return _dashed(unicodedata.normalize("NFC", _EXTENSION.sub("", path)).lower())


def assign_ids(paths: Iterable[str]) -> dict[str, str]:
    """The id of every path: path -> id.

    A function of the *set* of paths, so their order does not matter. A slug that only one path wants
    is its id; paths that share a slug, or have none, get ``slug~`` and the first 12 hex digits of the
    path's SHA-256 (``~`` never occurs in a slug). No id is empty and no two are equal.
    """
    wanted: defaultdict[str, list[str]] = defaultdict(list)
    for path in set(paths):
        wanted[slug(path)].append(path)
    ids: dict[str, str] = {}
    for name, sharers in wanted.items():
        if name and len(sharers) == 1:
            ids[sharers[0]] = name
            continue
        digests = {path: _digest(path) for path in sharers}
        short = {path: digest[:_DIGITS] for path, digest in digests.items()}
        distinct = len(set(short.values())) == len(sharers)
        for path, digest in (short if distinct else digests).items():
            ids[path] = f"{name}~{digest}"
    return ids


def section_ids(document: str, sections: Iterable[tuple[Sequence[str], int]]) -> list[str]:
    """The ids of the sections of a document, in their order.

    ``vaults#what-becomes-of-a-note/ids``: the document's id, ``#``, and the slugs of the headings, from
    the outermost; ``#^`` where there are none. An id depends on nothing else in the file: where a slug
    leaves out more than punctuation (``C++``, ``C#``), ``~`` and 8 hex digits of a hash follow. Headings
    that occur again are numbered, ``~2``, as are the parts of one section, ``:2``. No document's id
    holds a ``#``, and no tag's has anything before it.

    Args:
        sections: the headings that name each section, and which part of it this is, from 1.
    """
    seen: Counter[str] = Counter()
    ids = []
    for headings, part in sections:
        name = _heading_slug(headings)
        if part == 1:
            seen[name] += 1
        again = f"~{seen[name]}" if seen[name] > 1 else ""
        ids.append(f"{document}#{name}{again}{f':{part}' if part > 1 else ''}")
    return ids


def _heading_slug(headings: Sequence[str]) -> str:
    if not headings:
        return "^"
    read = [_heading(text) for text in headings]
    name = "/".join(slug for slug, _, _ in read if slug)
    if all(told for _, told, _ in read):
        return name
    return f"{name}~{_digest(json.dumps([text for _, _, text in read]))[:_SECTION_DIGITS]}"


@functools.lru_cache(maxsize=1024)
def _heading(heading: str) -> tuple[str, bool, str]:
    """The slug of a heading, whether it tells all about it, and the heading as headings are compared."""
    text = unicodedata.normalize("NFC", " ".join(heading.split())).lower()
    slug = _dashed(text)
    told = slug == _PUNCTUATION.sub("-", text).strip("-") and 0 < len(slug) <= _LONGEST_SLUG
    return slug[:_LONGEST_SLUG], told, text


def normalise_tag(tag: str) -> str:
    """A tag as it is compared: without ``#``, NFC, case folded; ``""`` when nothing is left."""
    text = unicodedata.normalize("NFC", tag).strip().lstrip("#").strip("/ \t")
    return unicodedata.normalize("NFC", " ".join(text.split()).casefold())


def tag_id(tag: str) -> str:
    """The id of a tag's node. It starts with ``#``, which no file's id does."""
    return "#" + normalise_tag(tag)


def page_id(name: str) -> str:
    """The id of a page that has a name but no file. It starts with ``[[``, which no file's id does."""
    return f"[[{normalise_tag(name)}]]"


def _dashed(text: str) -> str:
    if text.isascii():
        return _OUTSIDE_ASCII_SLUG.sub("-", text).strip("-")
    kept = "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in text)
    return unicodedata.normalize("NFC", "-".join(kept.split()))


def _digest(path: str) -> str:
    return hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()
