"""The one place where ids are made."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

_EXTENSION = re.compile(r"\.(?:md|ts|js|json)$")
_OUTSIDE_ASCII_SLUG = re.compile(r"[^a-z0-9]+")
_DIGITS = 12


def slug(path: str) -> str:
    """The readable form of a root-relative path: ``Notes/C++ tips.md`` -> ``notes-c-tips``.

    The extension (``.md .ts .js .json``, in lower case) is dropped, the rest is put in lower case,
    and every run of anything but letters, digits and marks of any alphabet becomes one ``-``. For
    ASCII paths this is what Amalfa's ``generateId`` returns. May be empty, and paths may share one:
    :func:`assign_ids` takes care of both.
    """
    text = unicodedata.normalize("NFC", _EXTENSION.sub("", path)).lower()
    if text.isascii():
        return _OUTSIDE_ASCII_SLUG.sub("-", text).strip("-")
    kept = "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in text)
    return unicodedata.normalize("NFC", "-".join(kept.split()))


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


def normalise_tag(tag: str) -> str:
    """A tag as it is compared: without ``#``, NFC, case folded; ``""`` when nothing is left."""
    text = unicodedata.normalize("NFC", tag).strip().lstrip("#").strip("/ \t")
    return unicodedata.normalize("NFC", " ".join(text.split()).casefold())


def tag_id(tag: str) -> str:
    """The id of a tag's node. It starts with ``#``, which no file's id does."""
    return "#" + normalise_tag(tag)


def _digest(path: str) -> str:
    return hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()
