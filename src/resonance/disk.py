"""The disk, where SQLite leaves it to us."""

from __future__ import annotations

import os
import threading

from resonance.errors import CannotOpenError, MovedDatabaseError, StorageIOError


class SameFile:
    """The file that a path named when it was opened. Whoever has it open goes on with it, whatever becomes
    of the name: SQLite answers from a deleted file, and writes to it, without a word."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._known = _file_of(path)

    def require(self) -> None:
        """See to it that the path still names the same file.

        Raises:
            MovedDatabaseError: it names another one, or none.
        """
        if _file_of(self._path) != self._known:
            raise MovedDatabaseError(
                f"{self._path}: has been deleted, moved or replaced since it was opened, so nothing was read "
                f"or written; open it again",
                code=8,
                extended_code=1032,
                name="SQLITE_READONLY_DBMOVED",
                path=self._path,
                operation="begin",
                data="unchanged",
            )


def _file_of(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116  # asked for with every question: a Path takes as long again
    except OSError:
        return None
    return status.st_dev, status.st_ino


class EarlySync:
    """Syncs a file that no other process has while it is still being written, so that the end is short.

    Its descriptor is closed after SQLite's: the locks that go with it are of a file that nobody shares.

    Raises:
        CannotOpenError: too many files are open.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise CannotOpenError(
                f"{path}: cannot be opened a second time, to sync it: {error.strerror}",
                code=14,
                name="SQLITE_CANTOPEN",
                path=path,
                operation="open",
                data="unchanged",
            ) from error
        self._running: threading.Thread | None = None
        self._failed: OSError | None = None

    def begin(self) -> None:
        """Unless one is running: sync in another thread."""
        if self._running is None or not self._running.is_alive():
            self._running = threading.Thread(target=self._sync, daemon=True)
            self._running.start()

    def _sync(self) -> None:
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            # The system tells of it once: a later sync would find nothing wrong.
            self._failed = error

    def close(self, *, synced: bool) -> None:
        """Wait for the disk, if all of it is to be ``synced``.

        Raises:
            StorageIOError: this sync or an earlier one failed.
        """
        try:
            if self._running is not None:
                self._running.join()
            if synced and self._failed is not None:
                raise self._failed
            if synced:
                os.fsync(self._descriptor)
        except OSError as error:
            raise StorageIOError(
                f"{self._path}: could not be synced to the disk ({error.strerror}), so nobody knows what is "
                f"there; throw it away and make it again",
                code=10,
                name="SQLITE_IOERR_FSYNC",
                path=self._path,
                operation="sync",
                data="unknown",
            ) from error
        finally:
            os.close(self._descriptor)
