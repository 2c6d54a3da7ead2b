"""What a link leads to: Obsidian's rules, without its guess where names are ambiguous."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from posixpath import dirname
from typing import NamedTuple

from resonance.model import LinkState
from resonance.vault.ids import tag_id
from resonance.vault.links import RawLink
from resonance.vault.scan import NOTE_SUFFIXES

_FILE_EXTENSION = re.compile(r"\.[A-Za-z0-9]*[A-Za-z][A-Za-z0-9]*\Z")
_ATTACHMENTS = frozenset(
    "3gp avif base bmp canvas csv docx epub excalidraw flac gif htm html ico jpeg jpg json m4a mkv mov"
    " mp3 mp4 ogg ogv opus pdf png pptx svg tiff txt wav webm webp xlsx xml yaml yml zip".split()
)
_RELATIVE_KINDS = frozenset({"link", "image"})


class Resolution(NamedTuple):
    """Where a link leads. ``target`` and ``candidates`` are node ids.

    ``external`` is what lies outside the graph: URLs, attachments, paths out of the vault.
    ``candidates`` of an ambiguous link come nearest first.
    """

    state: LinkState
    target: str | None = None
    candidates: tuple[str, ...] = ()


_UNRESOLVED = Resolution("unresolved")
_EXTERNAL = Resolution("external")


class Resolver:
    """Resolves the links of one vault; a function of the sets it is given, not of their order.

    Args:
        ids: path -> node id of every note that has a node.
        aliases: path -> the other names it answers to.
        attachments: paths of the files that are no notes.
    """

    def __init__(
        self,
        ids: Mapping[str, str],
        aliases: Mapping[str, Iterable[str]] | None = None,
        attachments: Iterable[str] = (),
    ) -> None:
        self._ids = ids
        self._attachments = frozenset(attachments)
        self._folders = {""}
        for path in (*ids, *self._attachments):
            folder = dirname(path)
            while folder not in self._folders:
                self._folders.add(folder)
                folder = dirname(folder)
        self._by_path: defaultdict[str, list[str]] = defaultdict(list)
        self._by_name: defaultdict[str, list[str]] = defaultdict(list)
        for path in sorted(ids):
            key = _key(_stem(path))
            self._by_path[key].append(path)
            self._by_name[key.rpartition("/")[2]].append(path)
        self._by_alias: defaultdict[str, set[str]] = defaultdict(set)
        for path, names in (aliases or {}).items():
            for name in names:
                self._by_alias[_key(name.strip())].add(path)

    def resolve(self, source: str, link: RawLink) -> Resolution:
        """Where a link in the note at path ``source`` leads."""
        if link.kind == "tag":
            return Resolution("resolved", tag_id(link.name))
        if link.is_url:
            return _EXTERNAL
        if link.name == "":
            return self._found(source)
        name = unicodedata.normalize("NFC", link.name)
        if link.kind in _RELATIVE_KINDS:
            return self._relative(source, name)
        return self._wiki(source, name)

    def _wiki(self, source: str, name: str) -> Resolution:
        """``[[name]]``: the exact path, else whatever note's path ends in it, else an alias."""
        if name.startswith(("./", "../", "/")):
            return self._relative(source, name)
        exact = self._exact(name)
        if exact is None and "/" in name:
            exact = self._exact(_join(dirname(source), name) or "")
        if exact is not None:
            return self._found(exact)
        named = self._named(source, name)
        if named is not None:
            return named
        extension = _FILE_EXTENSION.search(name)
        known = extension is not None and extension.group()[1:].lower() in _ATTACHMENTS
        return _EXTERNAL if known or name in self._attachments else _UNRESOLVED

    def _relative(self, source: str, name: str) -> Resolution:
        """``[text](name)``: a path from the source's folder, or from the root behind a slash."""
        rooted = name.startswith("/")
        path = _join("" if rooted else dirname(source), name)
        if path is None:
            return _EXTERNAL
        exact = self._exact(path)
        if exact is not None:
            return self._found(exact)
        if path in self._attachments or path in self._folders:
            return _EXTERNAL
        found = self._choose(source, self._by_path.get(_key(_stem(path)), ()))
        if found is None:
            # Obsidian writes names and paths from its root into such links, too.
            found = self._named(source, name)
        if found is not None:
            return found
        extension = _FILE_EXTENSION.search(name)
        is_note = extension is not None and extension.group().lower() in NOTE_SUFFIXES
        # Other files are not looked for, nor places on the site these notes are published on.
        return _EXTERNAL if not is_note and (rooted or extension) else _UNRESOLVED

    def _named(self, source: str, name: str) -> Resolution | None:
        """The notes whose path ends in ``name``, else those that have it as an alias."""
        key = _key(_stem(name))
        tail = "/" + key
        ending = [
            path
            for path in self._by_name.get(key.rpartition("/")[2], ())
            if ("/" + _key(_stem(path))).endswith(tail)
        ]
        return self._choose(source, ending) or self._choose(source, self._by_alias.get(_key(name), ()))

    def _exact(self, path: str) -> str | None:
        if path in self._ids:
            return path
        return next((p for s in NOTE_SUFFIXES if (p := path + s) in self._ids), None)

    def _choose(self, source: str, candidates: Iterable[str]) -> Resolution | None:
        paths = list(candidates)
        if not paths:
            return None
        if len(paths) == 1:
            return self._found(paths[0])
        here = dirname(source)
        paths.sort(key=lambda path: (_distance(here, dirname(path)), path))
        return Resolution("ambiguous", None, tuple(self._ids[path] for path in paths))

    def _found(self, path: str) -> Resolution:
        return Resolution("resolved", self._ids[path])


def _key(text: str) -> str:
    """What names are compared by: NFC, case folded."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text).casefold()


def _stem(path: str) -> str:
    for suffix in NOTE_SUFFIXES:
        if path[-len(suffix) :].lower() == suffix:
            return path[: -len(suffix)]
    return path


def _join(folder: str, name: str) -> str | None:
    """``name`` seen from ``folder``, without ``.`` and ``..``; None when that leads out of the root."""
    parts = folder.split("/") if folder else []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _distance(here: str, there: str) -> int:
    """How many steps it takes to walk from one folder to another."""
    a = here.split("/") if here else []
    b = there.split("/") if there else []
    common = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        common += 1
    return len(a) + len(b) - 2 * common
