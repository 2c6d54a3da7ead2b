"""Reading files below one folder, and never anything else.

The root is opened once; every file is then reached from that descriptor without following symbolic
links, by ``openat2`` or one component at a time, so neither a stored path nor a folder swapped meanwhile
leads out. A hard link is the file itself: there is nothing to tell it by, and it is read.
"""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from resonance.errors import (
    ContentError,
    ContentMissingError,
    PathEscapeError,
    SettingsError,
    UsageError,
)
from resonance.vault.openat2 import open_beneath

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO must not wait for somebody to write into it.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# Folders on the way to the root may be closed to reading.
_PASSING_FLAGS = _FOLDER_FLAGS | getattr(os, "O_PATH", 0)
_LONGEST_PATH = 4096


class Root:
    """A folder, held open. Close it, or use it as a context manager.

    Args:
        folder: the root; it may itself be reached through a symbolic link.
        max_file_bytes: files above this size are refused.
        real: the folder is known by its real path: refuse it if a symbolic link is on the way now.

    Raises:
        SettingsError: the folder cannot be opened.
        PathEscapeError: with ``real``, it leads through a symbolic link.
    """

    _fd = -1

    def __init__(
        self, folder: Path | str, *, max_file_bytes: int = 16 * 1024 * 1024, real: bool = False
    ) -> None:
        self.folder = Path(folder)
        self.max_file_bytes = max_file_bytes
        try:
            self._fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            swapped = real and not os.path.samestat(os.fstat(self._fd), _real_status(self.folder))
        except (OSError, ValueError) as error:
            self.close()
            raise SettingsError(f"{folder}: cannot be opened as a folder ({error})") from error
        if swapped:
            self.close()
            raise PathEscapeError(
                str(folder),
                "the vault's root leads through a symbolic link now, which it did not when it was ingested; "
                "if that is as it should be, name the root",
            )

    @classmethod
    def held(cls, descriptor: int, *, max_file_bytes: int) -> Self:
        """The folder that a descriptor, which is taken over, holds open."""
        root = cls.__new__(cls)
        root.folder, root.max_file_bytes, root._fd = Path(), max_file_bytes, descriptor
        return root

    def fileno(self) -> int:
        """The descriptor of the folder."""
        return self._fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        # A copy would close the descriptor that the original goes on using.
        raise UsageError(f"{self.folder}: an open folder can be neither copied nor pickled")

    def close(self) -> None:
        """Let go of the folder. Closing twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def open_folder(self, path: str = ".") -> int:
        """A descriptor of a folder below the root, which the caller closes."""
        if self._fd < 0:
            raise ContentError(path, "the vault's root has been closed")
        return os.dup(self._fd) if path == "." else self._reach(path, _FOLDER_FLAGS)

    def open_file(self, path: str) -> int:
        """A descriptor of a regular file below the root, opened for reading; the caller closes it.

        Raises:
            PathEscapeError: the path is absolute, has ``..``, empty or NUL-holding components, or
                leads through a symbolic link.
            ContentMissingError: there is no such file.
            ContentError: it is no regular file, too big, or cannot be opened.
        """
        return self._opened(path)[0]

    def _opened(self, path: str) -> tuple[int, os.stat_result]:
        fd = self._reach(path, _FILE_FLAGS)
        status = os.fstat(fd)
        reason = None
        if not stat.S_ISREG(status.st_mode):
            reason = "is not a regular file"
        elif status.st_size > self.max_file_bytes:
            reason = f"holds {status.st_size} bytes, more than the limit of {self.max_file_bytes}"
        if reason:
            os.close(fd)
            raise ContentError(path, reason)
        return fd, status

    def stat(self, path: str) -> os.stat_result:
        """The status of a regular file below the root. Raises as :meth:`open_file` does."""
        fd, status = self._opened(path)
        os.close(fd)
        return status

    def read(self, path: str) -> tuple[bytes, os.stat_result]:
        """All bytes of a file and its status, the same before and after reading.

        Raises:
            ContentError: it kept changing while it was read, or an error of :meth:`open_file`.
        """
        for _ in range(2):
            fd, before = self._opened(path)
            try:
                # One byte more than there should be: what grows meanwhile is seen, not followed.
                data = _read_up_to(fd, before.st_size + 1)
                after = os.fstat(fd)
            except OSError as error:
                raise ContentError(path, _told(error)) from error
            finally:
                os.close(fd)
            if len(data) == after.st_size and _version(before) == _version(after):
                return data, after
        raise ContentError(path, "changes while it is being read; try again")

    def _reach(self, path: str, flags: int) -> int:
        names = components(path)
        if self._fd < 0:
            raise ContentError(path, "the vault's root has been closed")
        fd = open_beneath(self._fd, path, flags)
        if fd is not None:
            return fd
        # Step by step it shows what stands in the way, or that the disk spells the name otherwise.
        fd = os.dup(self._fd)
        for name in names[:-1]:
            fd = self._step(fd, name, path, _FOLDER_FLAGS)
        return self._step(fd, names[-1], path, flags)

    def _step(self, folder: int, name: str, path: str, flags: int) -> int:
        """Open ``name`` within ``folder`` and close ``folder``."""
        try:
            try:
                return os.open(name, flags, dir_fd=folder)
            except FileNotFoundError:
                other = _other_spelling(folder, name)
                if other is None:
                    raise
                return os.open(other, flags, dir_fd=folder)
        except OSError as error:
            raise _refusal(error, folder, name, path) from error
        except UnicodeEncodeError as error:
            raise ContentMissingError(path, "no file can have this name") from error
        finally:
            os.close(folder)


def components(path: str) -> list[str]:
    """The components of a root-relative POSIX path.

    Raises:
        PathEscapeError: it is not one.
    """
    names = path.split("/")
    if path.startswith("/"):
        reason = "is absolute"
    elif "\0" in path:
        reason = "holds a NUL character"
    elif "" in names:
        reason = "has an empty component"
    elif "." in names or ".." in names:
        reason = "has a component '.' or '..'"
    elif "\\" in path:
        reason = "holds a backslash"
    elif len(path) > _LONGEST_PATH:
        reason = "is too long"
    else:
        return names
    raise PathEscapeError(path, f"{reason}; paths must be relative to the vault's root")


def _real_status(folder: Path) -> os.stat_result:
    """The status of a folder reached without following a symbolic link; of the link, where one is."""
    fd = os.open("/", _PASSING_FLAGS)
    try:
        for name in folder.absolute().parts[1:]:
            try:
                deeper = os.open(name, _PASSING_FLAGS, dir_fd=fd)
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    return os.lstat(name, dir_fd=fd)
                raise
            os.close(fd)
            fd = deeper
        return os.fstat(fd)
    finally:
        os.close(fd)


def _read_up_to(fd: int, room: int) -> bytes:
    parts: list[bytes] = []
    while room > 0 and (part := os.read(fd, min(room, 1 << 20))):
        parts.append(part)
        room -= len(part)
    return b"".join(parts)


def _other_spelling(folder: int, name: str) -> str | None:
    """The entry whose name is ``name`` in another Unicode form: stored paths are NFC, disks may not be."""
    if name.isascii():
        return None
    wanted = unicodedata.normalize("NFC", name)
    for entry in sorted(os.listdir(folder)):
        if unicodedata.normalize("NFC", entry) == wanted:
            return entry
    return None


def _refusal(error: OSError, folder: int, name: str, path: str) -> ContentError:
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
        try:
            linked = stat.S_ISLNK(os.lstat(name, dir_fd=folder).st_mode)
        except OSError:
            linked = False
        if linked:
            return PathEscapeError(path, f"leads through the symbolic link {name!r}, not followed")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return ContentMissingError(path, "there is no such file")
    if error.errno == errno.ENAMETOOLONG:
        return ContentMissingError(path, "no file can have so long a name")
    if error.errno == errno.ENXIO:
        return ContentError(path, "is not a regular file")
    return ContentError(path, _told(error))


def _told(error: OSError) -> str:
    return f"cannot be read ({error.strerror or error})"


def _version(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns
