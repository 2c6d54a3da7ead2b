"""Finding the files of a vault. Nothing is opened but folders, and nothing is passed over unseen."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import NamedTuple

from resonance.errors import ContentError, ContentMissingError, PathEscapeError
from resonance.model import Problem
from resonance.vault.root import Root
from resonance.vault.settings import VaultSettings, is_folder, is_pattern

NOTE_SUFFIXES = (".md", ".markdown")

# What editors and synchronising programs leave for a moment while they save: never a file of the vault.
_PASSING = re.compile(
    r"4913|~\$.*|.*(?:~|#|\.sw[a-z]|\.tmp|\.temp|\.part|\.crswap|___jb_\w+___)", re.DOTALL | re.I
)

_INODE_MASK = _LATEST = (1 << 63) - 1
_DEEPEST = 200


class FoundFile(NamedTuple):
    """A note on disk. ``path`` is stored (POSIX, relative, NFC); ``disk_path`` is how the disk spells it."""

    path: str
    disk_path: str
    size: int
    mtime_ns: int
    inode: int


@dataclass(slots=True)
class Scan:
    """What lies in a vault.

    Attributes:
        files: the notes, sorted by path.
        attachments: paths of the other files, for links that point to them.
        skipped: how many entries were left out, and why: ``hidden``, ``excluded``, ``symlinks``
            (folders count as one), ``other`` (files that are no notes).
        left_out: paths of what was excluded, unreadable, or behind a symbolic link.
        problems: what has a note's name but cannot be one, and folders that could not be read.
        complete: False when a folder could not be read, so that a missing file proves nothing.
    """

    files: list[FoundFile] = field(default_factory=list)
    attachments: set[str] = field(default_factory=set)
    skipped: dict[str, int] = field(
        default_factory=lambda: {"hidden": 0, "excluded": 0, "symlinks": 0, "other": 0}
    )
    left_out: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Territory:
    """Where a scan sees every file: a path in here that it did not find does not exist.

    ``sources`` are folders, without patterns; ``left_out`` are files and folders.
    """

    sources: tuple[str, ...]
    left_out: frozenset[str]

    @property
    def whole(self) -> bool:
        """Whether it is everything below the root but for hidden names."""
        return self.sources == (".",) and not self.left_out

    def __contains__(self, path: object) -> bool:
        here = str(path)
        if "/." in f"/{here}":
            return False
        above = {here, "."}
        while folder := here.rpartition("/")[0]:
            above.add(folder)
            here = folder
        return not above.isdisjoint(self.sources) and above.isdisjoint(self.left_out)


def territory(settings: VaultSettings, found: Scan) -> Territory:
    """Where a scan with these settings sees every file."""
    sources = tuple(source for source in settings.sources if not is_pattern(settings.root, source))
    return Territory(sources, frozenset(found.left_out))


def scan(settings: VaultSettings, root: Root) -> Scan:
    """Find every ``*.md`` and ``*.markdown`` file the settings ask for.

    Names that start with a dot, and what ``settings.exclude`` matches, are left out. A pattern
    without a slash is compared with the name of every file and folder on the way, one with a slash
    with the path from the root, as those of the sources are; a folder that matches is left out whole.
    A pattern of the sources that no file fits is a problem.
    """
    walk = _Walk(root, settings)
    for start in walk.starts:
        walk.enter(start)
    walk.tell_of_idle_sources(settings)
    return _tidied(walk.found)


def scan_paths(settings: VaultSettings, root: Root, paths: Iterable[str]) -> Scan:
    """What of a vault lies at and below some paths, as :func:`scan` would find it; maybe nothing.

    Args:
        paths: root-relative, in any Unicode form; ``"."`` is the root itself.
    """
    walk = _Walk(root, settings)
    for path in outermost(paths):
        walk.enter_path(path)
    return _tidied(walk.found)


def outermost(paths: Iterable[str]) -> list[str]:
    """The paths without those that lie below another one, in NFC, sorted."""
    distinct = {unicodedata.normalize("NFC", path) for path in paths}
    if "." in distinct:
        return ["."]
    return sorted(p for p in distinct if not distinct & {str(above) for above in PurePosixPath(p).parents})


def is_passing(path: str) -> bool:
    """Whether a path is hidden, or a file that a program only makes while it saves another one."""
    *folders, name = path.split("/")
    hidden = any(part.startswith(".") for part in (*folders, name))
    return hidden or (not is_note(name) and _PASSING.fullmatch(name) is not None)


def _tidied(found: Scan) -> Scan:
    _drop_twins(found)
    found.files.sort()
    found.problems.sort(key=lambda problem: problem.path)
    return found


def _starts(settings: VaultSettings) -> list[str]:
    """Where to begin: the sources themselves, and for patterns the folders before the first wildcard."""
    starts: set[str] = set()
    for source in settings.sources:
        if not is_pattern(settings.root, source):
            starts.add(source)
            continue
        fixed = []
        for part in source.split("/")[:-1]:
            if set("*?[") & set(part):
                break
            fixed.append(part)
        start = "/".join(fixed) or "."
        if is_folder(settings.root / start):
            starts.add(start)
    if "." in starts:
        return ["."]
    return sorted(s for s in starts if not starts & {str(p) for p in PurePosixPath(s).parents})


def _wanted(settings: VaultSettings) -> Callable[[str], bool] | None:
    """Tells whether a file belongs to a source; None when all that is walked does."""
    patterns = [s for s in settings.sources if is_pattern(settings.root, s)]
    if not patterns:
        return None
    regex = _any_of(patterns)
    places = [s for s in settings.sources if s not in patterns]

    def wanted(path: str) -> bool:
        inside = any(path == place or path.startswith(place + "/") for place in places)
        return inside or regex.fullmatch(path) is not None

    return wanted


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(_translate, patterns)), re.DOTALL)


def _translate(pattern: str) -> str:
    """A pattern of paths as a regular expression: ``*`` stays within a folder, ``**`` does not."""
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]/]+\])", pattern)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    out = ""
    for piece in pieces:
        if piece in known:
            out += known[piece]
        elif piece.startswith("[") and piece.endswith("]"):
            negated = piece[1] == "!"
            body = re.sub(r"([\\\[&~|])", r"\\\1", piece[1 + negated : -1])
            choice = f"[{'^' if negated else ''}{body}]"
            try:
                re.compile(choice)
            except re.error:
                choice = re.escape(piece)  # nothing lies between z and a
            out += choice
        else:
            out += re.escape(piece)
    return f"(?:{out})"


class _Entry:
    """One entry of a folder that was not listed; what :class:`os.DirEntry` would say of it."""

    def __init__(self, name: str, status: os.stat_result) -> None:
        self.name = name
        self._status = status

    def is_dir(self, *, follow_symlinks: bool = False) -> bool:
        return stat.S_ISDIR(self._status.st_mode)

    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self._status.st_mode)

    def stat(self, *, follow_symlinks: bool = False) -> os.stat_result:
        return self._status


def _spellings(fd: int, name: str) -> list[str]:
    """The entries of a folder that have a name, in whatever Unicode form."""
    if name.isascii():
        return [name]
    return [entry for entry in os.listdir(fd) if unicodedata.normalize("NFC", entry) == name]


class _Walk:
    """One pass over the folders of a vault."""

    def __init__(self, root: Root, settings: VaultSettings) -> None:
        self.found = Scan()
        self.root = root
        self.starts = _starts(settings)
        self.wanted = _wanted(settings)
        self.by_name = [p.rstrip("/") for p in settings.exclude if "/" not in p.rstrip("/")]
        by_path = [p.strip("/").removeprefix("./") for p in settings.exclude if "/" in p.rstrip("/")]
        self.by_path = _any_of(by_path) if by_path else None
        # What is ours is no part of the vault, so it is not counted as something left out.
        self.own_folder = _relative(settings.database.parent, settings)
        self.own_files = _relative(settings.database, settings)

    def enter(self, start: str) -> None:
        if start == ".":
            return self.folder(start, "", None)
        above, _, name = start.rpartition("/")
        try:
            parent = self.root.open_folder(above or ".")
        except ContentError as error:
            return self.unreadable(start, error.reason)
        try:
            status = os.lstat(name, dir_fd=parent)
        except OSError as error:
            return self.unreadable(start, error.strerror or str(error))
        finally:
            os.close(parent)
        if stat.S_ISDIR(status.st_mode):
            return self.folder(start, start + "/", None)
        if stat.S_ISLNK(status.st_mode):
            return self.unreadable(start, "is a symbolic link, which is not followed")
        return self.file(start, name, status)

    def enter_path(self, path: str) -> None:
        """What lies at one path, in NFC, and below it."""
        for start in self.starts:
            if path in (".", start) or start.startswith(path + "/"):
                self.enter(start)
            elif start == "." or path.startswith(start + "/"):
                above = "" if start == "." else start + "/"
                try:
                    fd = self.root.open_folder(start)
                except ContentError as error:
                    # Below a source that is a file there is nothing.
                    if not (self.root.folder / start).is_file():
                        self.unreadable(start, error.reason)
                else:
                    self.descend(fd, above, path[len(above) :].split("/"))

    def descend(self, fd: int, prefix: str, names: Sequence[str]) -> None:
        """From a folder of the vault, which is closed, towards an entry below it that may not be there."""
        try:
            for name in _spellings(fd, names[0]):
                try:
                    entry = _Entry(name, os.lstat(name, dir_fd=fd))
                except OSError:
                    continue  # nothing there, which is all there is to know
                if len(names) == 1:
                    self.entry(fd, prefix, entry)
                elif entry.is_dir() and not name.startswith(".") and not self.excluded(name, prefix + name):
                    try:
                        inner = self.root.open_folder(prefix + name)
                    except (ContentMissingError, PathEscapeError):
                        continue
                    except ContentError as error:
                        self.unreadable(prefix + name, error.reason)
                        continue
                    self.descend(inner, f"{prefix}{name}/", names[1:])
        finally:
            os.close(fd)

    def folder(self, path: str, prefix: str, parent: tuple[int, str] | None) -> None:
        """Read one folder: from the root, or by name from a ``parent`` descriptor."""
        if prefix.count("/") > _DEEPEST:
            return self.unreadable(path, f"is more than {_DEEPEST} folders deep")
        try:
            if parent is None:
                fd = self.root.open_folder(path)
            else:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                fd = os.open(parent[1], flags, dir_fd=parent[0])
        except ContentError as error:
            return self.unreadable(path, error.reason)
        except OSError as error:
            return self.unreadable(path, error.strerror or str(error))
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    self.entry(fd, prefix, entry)
        except OSError as error:
            self.unreadable(path, error.strerror or str(error))
        finally:
            os.close(fd)

    def entry(self, fd: int, prefix: str, entry: os.DirEntry[str] | _Entry) -> None:
        name = entry.name
        path = prefix + name
        if name.startswith("."):
            if path != self.own_folder and not self.is_own(path):
                self.found.skipped["hidden"] += 1
        elif self.excluded(name, path):
            self.found.skipped["excluded"] += 1
            self.leave_out(path)
        elif entry.is_dir(follow_symlinks=False):
            self.folder(path, path + "/", (fd, name))
        elif entry.is_symlink() and not is_note(name):
            self.found.skipped["symlinks"] += 1
            self.leave_out(path)
        else:
            try:
                self.file(path, name, entry.stat(follow_symlinks=False))
            except FileNotFoundError:
                pass  # gone between listing and looking, as if it had never been there
            except OSError as error:
                self.problem(path, error.strerror or str(error))

    def file(self, path: str, name: str, status: os.stat_result) -> None:
        if self.wanted is not None and not self.wanted(unicodedata.normalize("NFC", path)):
            return
        if not is_note(name):
            if self.is_own(path):
                return
            self.found.skipped["other"] += 1
            if stat.S_ISREG(status.st_mode) and _PASSING.fullmatch(name) is None:
                self.found.attachments.add(unicodedata.normalize("NFC", path))
        elif stat.S_ISLNK(status.st_mode):
            self.problem(path, "is a symbolic link, which is not followed")
        elif not stat.S_ISREG(status.st_mode):
            self.problem(path, "is not a regular file")
        elif not encodable(path):
            self.problem(path, "the name is not valid UTF-8; rename the file")
        elif "\\" in path:
            self.problem(path, "the name holds a backslash; rename the file")
        else:
            self.found.files.append(
                FoundFile(
                    path if path.isascii() else unicodedata.normalize("NFC", path),
                    path,
                    status.st_size,
                    time_of(status),
                    status.st_ino & _INODE_MASK,
                )
            )

    def is_own(self, path: str) -> bool:
        """Whether a file is the database, or lies beside it under a name made of its own."""
        own = self.own_files
        return own is not None and path.startswith(own) and path[len(own) : len(own) + 1] in ("", "-", ".")

    def excluded(self, name: str, path: str) -> bool:
        if self.by_name:
            name = unicodedata.normalize("NFC", name)
            if any(fnmatchcase(name, pattern) for pattern in self.by_name):
                return True
        return self.by_path is not None and bool(self.by_path.fullmatch(unicodedata.normalize("NFC", path)))

    def tell_of_idle_sources(self, settings: VaultSettings) -> None:
        """Report patterns that nothing fits: more often than not they are misspelt."""
        seen = {*self.found.attachments, *(unicodedata.normalize("NFC", p.path) for p in self.found.problems)}
        seen.update(file.path for file in self.found.files)
        for source in settings.sources:
            if is_pattern(settings.root, source) and not any(map(_any_of([source]).fullmatch, seen)):
                self.problem(source, "no file fits this source")

    def unreadable(self, path: str, reason: str) -> None:
        self.problem(path, f"the folder cannot be read ({reason})")
        self.leave_out(path)
        self.found.complete = False

    def leave_out(self, path: str) -> None:
        self.found.left_out.add(unicodedata.normalize("NFC", printable(path)))

    def problem(self, path: str, reason: str) -> None:
        self.found.problems.append(Problem(printable(path), None, reason))


def time_of(status: os.stat_result) -> int:
    """When a file was written, in nanoseconds. Disks know times that 64 bits do not, after the year 2262."""
    return max(-_LATEST, min(status.st_mtime_ns, _LATEST))


def is_note(name: str) -> bool:
    """Whether a file's name is that of a note."""
    return name.lower().endswith(NOTE_SUFFIXES)


def printable(path: str) -> str:
    """A path that can be printed and stored: bytes that are no UTF-8 become ``\\xNN``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def encodable(path: str) -> bool:
    """Whether a path is text that can be stored: on the disk it may hold bytes that are no UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _relative(path: os.PathLike[str], settings: VaultSettings) -> str | None:
    pure = PurePosixPath(path)
    return str(pure.relative_to(settings.root)) if pure.is_relative_to(settings.root) else None


def _drop_twins(found: Scan) -> None:
    """Of two names that are equal in NFC keep one, the same every time, and name the other."""
    by_path: dict[str, FoundFile] = {}
    for file in sorted(found.files, key=lambda file: (file.disk_path != file.path, file.disk_path)):
        first = by_path.setdefault(file.path, file)
        if first is not file:
            found.problems.append(
                Problem(
                    ascii(file.disk_path)[1:-1],
                    None,
                    f"has the same name as {file.path} but for its Unicode form; rename one of them",
                )
            )
    found.files = list(by_path.values())
