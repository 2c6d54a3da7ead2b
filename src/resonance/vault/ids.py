"""The one place where ids are made."""

from __future__ import annotations

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
    the outermost; ``#^`` where no heading stands above the text. An id depends on nothing else in the
    file: where a slug does not tell all about its heading (``C++``, ``C#``), ``~`` and 12 hex digits of
    a hash follow. Headings that occur again are numbered, ``~2``, as are the parts of one section,
    ``:2``. No document's id holds a ``#``, and no tag's has anything before it.

    Args:
        sections: the heading path of each section, and which part of it this is, from 1.
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
    texts = [unicodedata.normalize("NFC", " ".join(text.split())).lower() for text in headings]
    slugs = [_dashed(text) for text in texts]
    name = "/".join(slug[:_LONGEST_SLUG] for slug in slugs if slug)
    told = all(
        slug and len(slug) <= _LONGEST_SLUG and slug == text.replace(" ", "-")
        for slug, text in zip(slugs, texts, strict=True)
    )
    return name if told else f"{name}~{_digest(json.dumps(texts))[:_DIGITS]}"


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
