"""What a link leads to: Obsidian's rules, without its guess where names are ambiguous."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from posixpath import dirname
from typing import NamedTuple

from resonance.model import LinkMark, LinkState
from resonance.vault.dialect import Dialect
from resonance.vault.ids import normalise_tag, page_id, slug, tag_id
from resonance.vault.links import TAGGED_AS, RawLink
from resonance.vault.logseq import page_names
from resonance.vault.scan import NOTE_SUFFIXES, Territory

_FILE_EXTENSION = re.compile(r"\.[A-Za-z0-9]*[A-Za-z][A-Za-z0-9]*\Z")
_ATTACHMENTS = frozenset(
    "3gp avif base bmp canvas csv docx epub excalidraw flac gif htm html ico jpeg jpg json m4a mkv mov"
    " mp3 mp4 ogg ogv opus pdf png pptx svg tiff txt wav webm webp xlsx xml yaml yml zip".split()
)
_MOST_REMEMBERED = 1 << 15
_RELATIVE_KINDS = frozenset({"link", "image"})
_NAMED_KINDS = frozenset({"tag", "block"})


class Resolution(NamedTuple):
    """Where a link leads. ``target`` and ``candidates`` are node ids.

    ``external`` is what lies outside the graph: URLs, attachments, paths out of the vault.
    ``candidates`` of an ambiguous link come nearest first. ``mark`` says what else there is to know,
    see :class:`resonance.model.Link`.
    """

    state: LinkState
    target: str | None = None
    candidates: tuple[str, ...] = ()
    mark: LinkMark | None = None


_UNRESOLVED = Resolution("unresolved")
_EXTERNAL = Resolution("external")
_OUTSIDE = Resolution("external", mark="outside")
_MISSING = Resolution("external", mark="missing")


class Resolver:
    """Resolves the links of one vault; a function of the sets it is given, not of their order.

    Args:
        ids: path -> node id of every note that has a node.
        aliases: path -> the other names it answers to.
        attachments: paths of the files that are no notes.
        territory: where all files are in ``attachments``, so that one that is not does not exist.
        dialect: whose rules to follow.
        numbers: path -> the ``id`` its frontmatter gives it; relations may name it.
        blocks: path -> ids of Logseq's blocks in it.
    """

    def __init__(
        self,
        ids: Mapping[str, str],
        aliases: Mapping[str, Iterable[str]] | None = None,
        attachments: Iterable[str] = (),
        *,
        territory: Territory | None = None,
        dialect: Dialect = "obsidian",
        numbers: Mapping[str, str] | None = None,
        blocks: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        self._resolved: dict[tuple[str, str, str, str], Resolution] = {}
        # The links of a note come one after the other.
        self._seen_from = "", ""
        self._ids = ids
        self._nodes = frozenset(ids.values())
        self._dialect = dialect
        self._territory = territory
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
        self._by_alias: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        for path, names in (aliases or {}).items():
            for name in names:
                self._by_alias[_key(name.strip())].add((path, name.strip()))
        self._by_number: defaultdict[str, set[str]] = defaultdict(set)
        for path, number in (numbers or {}).items():
            self._by_number[_key(number)].add(path)
        self._by_block: defaultdict[str, set[str]] = defaultdict(set)
        for path, block_ids in (blocks or {}).items():
            for block in block_ids:
                self._by_block[block].add(path)
        self._files: defaultdict[str, list[str]] = defaultdict(list)
        for path in sorted(self._attachments):
            self._files[_key(path).rpartition("/")[2]].append(path)
        self._pages: defaultdict[str, set[str]] = defaultdict(set)
        if dialect == "logseq":
            for path in ids:
                for name in page_names(path):
                    self._pages[_page_key(name)].add(path)
            for path, names in (aliases or {}).items():
                for name in names:
                    self._pages[_page_key(name)].add(path)

    @property
    def resolves_tags(self) -> bool:
        """Whether tags may lead to notes, and so elsewhere when notes come and go."""
        return self._dialect in ("logseq", "dendron")

    def resolve(self, source: str, link: RawLink) -> Resolution:
        """Where a link in the note at path ``source`` leads."""
        if link.name == "":
            return self._resolve(source, link) if link.kind in _NAMED_KINDS else self._found(source)
        # Notes of one folder are seen from the same place, and mention the same notes again and again.
        if (seen_from := self._seen_from)[0] != source:
            seen_from = self._seen_from = source, dirname(source)
        key = seen_from[1], link.kind, link.type, link.name
        found = self._resolved.get(key)
        if found is None:
            if len(self._resolved) >= _MOST_REMEMBERED:
                self._resolved.clear()
            found = self._resolved[key] = self._resolve(source, link)
        return found

    def _resolve(self, source: str, link: RawLink) -> Resolution:
        if link.kind == "tag":
            return self._tag(source, link.name)
        if link.kind == "block":
            return self._choose(source, self._by_block.get(link.name, ())) or _UNRESOLVED
        if link.is_url:
            return _EXTERNAL
        if link.name == "":
            return self._found(source)
        name = unicodedata.normalize("NFC", link.name)
        if link.kind in _RELATIVE_KINDS:
            found = self._relative(source, name)
        elif link.kind == "relation":
            found = self._relation(source, name, link.type)
        elif self._dialect == "logseq":
            found = self._page(source, name) or self._wiki(source, name, page=name)
        else:
            found = self._wiki(source, name)
        if found is _UNRESOLVED and "\\" in name:
            straight = link._replace(name=name.replace("\\", "/"))
            if self.resolve(source, straight).state != "unresolved":
                return Resolution("unresolved", mark="backslash")
        return found

    def _tag(self, source: str, name: str) -> Resolution:
        """``#name``: a node of its own, but for dialects in which every tag is a note's name."""
        if self._dialect == "logseq":
            return self._page(source, name) or _page(name)
        if self._dialect == "dendron":
            paths = self._by_name.get(_key(f"tags.{name.replace('/', '.')}"), ())
            if found := self._choose(source, paths):
                return found
        return Resolution("resolved", tag_id(name))

    def _page(self, source: str, name: str) -> Resolution | None:
        """A page of Logseq: its file, whatever folder it lies in. Letters' case never counts."""
        return self._choose(source, self._pages.get(_page_key(name), ()))

    def _relation(self, source: str, name: str, type: str) -> Resolution:
        """A name on its own: as between brackets, or what the frontmatter calls ``id``, or a node's id."""
        found = self._page(source, name) or self._wiki(source, name)
        if found.state == "unresolved":
            numbered = self._choose(source, self._by_number.get(_key(name), ()))
            if numbered is not None:
                return numbered
            for node in (name, slug(name)):
                if node in self._nodes:
                    return Resolution("resolved", node)
            if type == TAGGED_AS:
                return self._tag(source, name)
            if self._dialect == "logseq":
                return _page(name)
        return found

    def _wiki(self, source: str, name: str, *, page: str = "") -> Resolution:
        """``[[name]]``: the exact path, else whatever note's path ends in it, else an alias.

        Args:
            page: what to call the page if there is no file, where pages need none.
        """
        if name.startswith(("./", "../", "/")):
            return self._relative(source, name)
        exact = self._exact(name)
        if exact is None and "/" in name:
            exact = self._exact(_join(dirname(source), name) or "")
        if exact is not None:
            return self._found(exact)
        found = self._named(source, name) or self._file(name)
        if found is not None:
            return found
        extension = _FILE_EXTENSION.search(name)
        if extension is not None and extension.group()[1:].lower() in _ATTACHMENTS:
            whole = self._territory is not None and self._territory.whole
            return _MISSING if whole else _EXTERNAL
        return _page(page) if page else _UNRESOLVED

    def _file(self, name: str) -> Resolution | None:
        """A file that is no note, found by the end of its path."""
        if name in self._attachments:
            return _EXTERNAL
        key = _key(name)
        ending = [
            path
            for path in self._files.get(key.rpartition("/")[2], ())
            if _key(path) == key or _key(path).endswith("/" + key)
        ]
        if not ending:
            return None
        same = any(path.endswith(name) for path in ending)
        return _EXTERNAL if same else Resolution("external", mark="case")

    def _relative(self, source: str, name: str) -> Resolution:
        """``[text](name)``: a path from the source's folder, or from the root behind a slash."""
        rooted = name.startswith("/")
        path = _join("" if rooted else dirname(source), name)
        if path is None:
            return _OUTSIDE
        exact = self._exact(path)
        if exact is not None:
            return self._found(exact)
        if path in self._attachments or path in self._folders:
            return _EXTERNAL
        found = self._choose(source, self._by_path.get(_key(_stem(path)), ()), "case")
        if found is None and any(_key(file) == _key(path) for file in self._files.get(_last(path), ())):
            found = Resolution("external", mark="case")
        if found is None and self._dialect != "markdown":
            # Obsidian writes names and paths from its root into such links, too.
            found = self._named(source, name) or (None if rooted else self._file(name))
        if found is not None:
            return found
        extension = _FILE_EXTENSION.search(name)
        if extension is not None and extension.group().lower() in NOTE_SUFFIXES:
            return _UNRESOLVED
        # Not looked for: places on the site these notes are published on, and what was left out.
        if rooted:
            return _EXTERNAL
        if extension is None:
            return _UNRESOLVED
        return _MISSING if self._territory is not None and path in self._territory else _EXTERNAL

    def _named(self, source: str, name: str) -> Resolution | None:
        """The notes whose path ends in ``name``, else those that have it as an alias, in any case."""
        key = _key(_stem(name))
        tail = "/" + key
        ending = [
            path
            for path in self._by_name.get(key.rpartition("/")[2], ())
            if ("/" + _key(_stem(path))).endswith(tail)
        ]
        if ending:
            exact = any(("/" + _stem(path)).endswith("/" + _stem(name)) for path in ending)
            if exact:
                return self._choose(source, ending)
            # A whole path decides among several as it does where the case is right.
            below = (_join(dirname(source), name) if "/" in name else None) or name
            whole = self._by_path.get(key) or self._by_path.get(_key(_stem(below)))
            return self._choose(source, whole or ending, "case")
        called = self._by_alias.get(_key(name), ())
        exact = any(alias == name for _, alias in called)
        return self._choose(source, {path for path, _ in called}, None if exact else "case")

    def _exact(self, path: str) -> str | None:
        if path in self._ids:
            return path
        return next((p for s in NOTE_SUFFIXES if (p := path + s) in self._ids), None)

    def _choose(
        self, source: str, candidates: Iterable[str], mark: LinkMark | None = None
    ) -> Resolution | None:
        paths = list(candidates)
        if not paths:
            return None
        if len(paths) == 1:
            return self._found(paths[0], mark)
        here = dirname(source)
        paths.sort(key=lambda path: (_distance(here, dirname(path)), path))
        return Resolution("ambiguous", None, tuple(self._ids[path] for path in paths), mark)

    def _found(self, path: str, mark: LinkMark | None = None) -> Resolution:
        return Resolution("resolved", self._ids[path], (), mark)


def _page(name: str) -> Resolution:
    """A page that nobody has written yet, which to Logseq is a page like any other."""
    return Resolution("resolved", page_id(name), (), "page") if _page_key(name) else _UNRESOLVED


def _page_key(name: str) -> str:
    return normalise_tag(name)


def _last(path: str) -> str:
    return _key(path).rpartition("/")[2]


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
    if "/" not in name and name[:1] not in ("", "."):
        return f"{folder}/{name}" if folder else name
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
