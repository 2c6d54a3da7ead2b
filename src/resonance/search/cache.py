"""Codes and rows in a file beside the database, so that the next process need not read all of it.

Nothing depends on the file: what is wrong with it is noticed, and the database asked instead. Of which
moment it is says a token that stands in both: a database that has it has gone through that moment,
whatever was written, copied or restored since, and its log of changes tells which rows are others by now.

The file is a head of ``_HEAD`` bytes; records, one for each row; codes, block by block; where each record
ends; the texts of labels; and a table, as JSON, of where these are. All have checksums, each record its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import stat
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from resonance import _core, changes, spaces
from resonance.errors import ResonanceError
from resonance.parallel import shared
from resonance.search.hits import VISIT, Floats, Ints, Scored
from resonance.session import Session
from resonance.words import size as size_of

FORMAT = 1
"""Another one as soon as anything that is written changes, the blocks of codes included."""

SUFFIX = "-vectors"
_MAGIC = b"RSNCVEC\n"
_HEAD = struct.Struct("<8sqqQQ")  # magic, where the table is, its size, its checksum, that of all before
_BEGIN = 64
_TOKEN = "search.vectors"
_AT_ONCE = 8192
"""Rows that are written without a look at whether somebody wants this to end."""

_PATIENCE = 1.0
"""Seconds to wait for other writers: the file can be written another time."""

_FEW_CHANGED = 4096
"""So many rows are read again, however few there are; beyond, an eighth of all. Then all of them are."""

_MANY = 1024
"""Rows that a thread takes at a time; several share what is more."""


class _UnusableError(Exception):
    """Why a file cannot be used."""


class Records:
    """Rows in an open file, in the order of their codes. Threads share it."""

    def __init__(self, descriptor: int, ends: Ints, titles: int) -> None:
        self._descriptor = descriptor
        self._ends = ends
        self._titles = titles
        self.count = len(ends) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of memory it takes."""
        return self._ends.nbytes

    @property
    def status(self) -> os.stat_result:
        """Of the file, whatever its name is by now."""
        return os.fstat(self._descriptor)

    def retitled(self, connection: _core.Connection) -> Ints | None:
        """Rowids of those that have another title by now; None if nobody knows, or if it is too many."""
        found = changes.retitled(connection, self._titles)
        return None if found is None or len(found) > _FEW_CHANGED else np.array(found, np.int64)

    def scored(self, positions: Ints, rowids: Ints, query: Floats, threads: int) -> Scored:
        """The exact scores of rows; NaN where the file does not have what was written.

        Args:
            positions: ascending, below ``count``.
            rowids: of the same rows.
        """

        def read(start: int) -> _core.Rows:
            some = slice(start, start + _MANY)
            return _core.read_records(self._descriptor, self._ends, positions[some], rowids[some], query)

        visits = shared(range(0, len(rowids), _MANY), threads, read)
        return Scored(rowids, np.concatenate([visit.scores for visit in visits]), visits)

    def __del__(self) -> None:
        os.close(self._descriptor)


class Cached(NamedTuple):
    """What a file holds, and the moment it is of."""

    moment: changes.Moment
    codes: _core.Codes
    records: Records


class VectorCache:
    """The file of one database. What went last, or why it did not, is in ``told``."""

    def __init__(self, session: Session) -> None:
        self._session = session
        # By its real name: whoever comes through a link finds the same file.
        self.path = os.path.realpath(session.path) + SUFFIX
        self.told = "not looked for yet"
        self._writing = threading.Lock()

    def read(self, connection: _core.Connection) -> Cached | None:
        """What the file holds, if it is of a moment that the database has gone through not long ago."""
        try:
            descriptor = _open(self.path)
        except FileNotFoundError:
            self.told = "not there"
            return None
        except (OSError, _UnusableError) as error:
            self.told = f"not used: {_reason(error)}"
            return None
        try:
            found = _read(descriptor, connection)
        except (OSError, _UnusableError) as error:
            os.close(descriptor)
            self.told = f"not used: {_reason(error)}"
            return None
        except BaseException:
            os.close(descriptor)
            raise
        self.told = f"used, {found.records.count} rows"
        return found

    def write(
        self, connection: _core.Connection, moment: changes.Moment, codes: _core.Codes, count: int
    ) -> Records | None:
        """Write the rows of a moment, which ``connection`` sees; None if that was not to be, ``told`` why."""
        if self._session.readonly:
            self.told = f"{self.told}; not written: the database was opened with readonly=True"
            return None
        if not self._writing.acquire(blocking=False):
            return None
        try:
            return self._write(connection, moment, codes, count)
        except (OSError, ResonanceError, _UnusableError) as error:
            self.told = f"{self.told}; not written: {_reason(error)}"
            return None
        finally:
            self._writing.release()

    def drop(self, records: Records, why: str) -> None:
        """Take the file away, which is damaged, unless another one stands in its place by now."""
        self.told = f"dropped: {why}"
        if not self._session.readonly:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.lstat(self.path), records.status):
                    Path(self.path).unlink()

    def _write(
        self, connection: _core.Connection, moment: changes.Moment, codes: _core.Codes, count: int
    ) -> Records:
        _require_ours(self.path)
        _require_room(self.path, count * (5 * codes.width + 128))
        aside = f"{self.path}.new"
        # Not by other eyes than those that may read the database.
        mode = stat.S_IMODE(Path(self._session.path).stat().st_mode) & 0o666
        with _alone_on(aside, mode) as descriptor:
            token = secrets.token_hex(16)
            titles = changes.last_title(connection)
            ends = _fill(
                descriptor, connection, {"token": token, **moment._asdict(), "titles": titles}, codes, count
            )
            self._settle(token, moment)
            Path(aside).rename(self.path)
            _sync_folder(self.path)
            records = Records(os.dup(descriptor), ends, titles)
        self.told = f"{self.told}; written, {count} rows"
        return records

    def _settle(self, token: str, moment: changes.Moment) -> None:
        """Have the database say that it has gone through this moment."""
        with self._session.transaction(patience=_PATIENCE) as writer:
            if changes.since(writer, moment, changes.moment(writer)) is None:
                raise _UnusableError("the database has become another meanwhile")
            writer.execute(
                "INSERT INTO properties (key, value) VALUES (?, ?) "
                "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (_TOKEN, token),
            )


def examine(path: str, connection: _core.Connection) -> tuple[str, int] | None:
    """What there is to say of the file beside a database: why it would not be used, or ""; and its size.

    None if there is none. Its rows are not read.
    """
    name = os.path.realpath(path) + SUFFIX
    try:
        descriptor = _open(name)
    except FileNotFoundError:
        return None
    except (OSError, _UnusableError) as error:
        return _reason(error), 0
    try:
        size = os.fstat(descriptor).st_size
        try:
            _moment(_table(descriptor), connection)
        except (OSError, _UnusableError) as error:
            return _reason(error), size
        return "", size
    finally:
        os.close(descriptor)


# --- reading ------------------------------------------------------------------------------------------


def _open(path: str) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _UnusableError("it is no regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _UnusableError("it is no regular file")
    return descriptor


def _read(descriptor: int, connection: _core.Connection) -> Cached:
    table = _table(descriptor)
    moment = _moment(table, connection)
    with _making_sense():
        rows, (codes_at, sums) = table["rows"], table["codes"]
        ends = np.frombuffer(_checked(descriptor, *table["ends"]), np.int64)
        labels = _unpacked(_checked(descriptor, *table["labels"]))
        codes = _core.read_codes(table["space"][1], rows, table["norm"], descriptor, codes_at, sums)
        if codes is None or len(ends) != rows + 1:
            raise _UnusableError("its codes are damaged")
        _core.set_label_texts(codes, labels)
        return Cached(moment, codes, Records(descriptor, ends, table["titles"]))


@contextlib.contextmanager
def _making_sense() -> Iterator[None]:
    """What fails in here does so because of what the file says, though its checksums are right."""
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, struct.error) as error:
        raise _UnusableError(f"its table makes no sense ({error!r})") from error


def _table(descriptor: int) -> dict[str, Any]:
    head = os.pread(descriptor, _HEAD.size, 0)
    if len(head) < _HEAD.size or not head.startswith(_MAGIC):
        raise _UnusableError("it does not begin like one of these files")
    _, at, size, total, own = _HEAD.unpack(head)
    if own != _core.checksum(head[:-8]):
        raise _UnusableError("its head is damaged, or it was never finished")
    with _making_sense():
        told: dict[str, Any] = json.loads(_checked(descriptor, at, size, total))
        if told["format"] != FORMAT:
            raise _UnusableError(f"it has format {told['format']}, and this version knows {FORMAT}")
        if told["byteorder"] != sys.byteorder:
            raise _UnusableError("it was written by another kind of processor")
    return told


def _moment(table: dict[str, Any], connection: _core.Connection) -> changes.Moment:
    """Which it is of, if the database has gone through it and tells what has changed since."""
    with _making_sense():
        known = connection.execute("SELECT value FROM properties WHERE key = ?", (_TOKEN,))
        if known != [(table["token"],)]:
            raise _UnusableError("it is of another database, or of another moment of this one")
        moment, space = changes.Moment(table["schema"], table["seq"]), spaces.active(connection)
        changed = changes.since(connection, moment, changes.moment(connection))
        if changed is None or space is None or list(space) != table["space"]:
            raise _UnusableError("the database has been rebuilt, vacuumed, or has changed as a whole since")
        retitled = changes.retitled(connection, table["titles"])
        if retitled is None:
            raise _UnusableError("too many titles have changed since")
        count = len(retitled) + sum(high - low + 1 for low, high in changed)
        if count > max(_FEW_CHANGED, table["rows"] // 8) or len(retitled) > _FEW_CHANGED:
            raise _UnusableError(f"{count} rows may have changed since")
    return moment


def _checked(descriptor: int, at: int, size: int, total: int) -> bytes:
    if not 0 <= size <= os.fstat(descriptor).st_size:
        raise _UnusableError("it is cut off")
    parts, found = [], 0
    while found < size:
        part = os.pread(descriptor, size - found, at + found)
        if not part:
            raise _UnusableError("it is cut off")
        parts.append(part)
        found += len(part)
    data = b"".join(parts)
    if _core.checksum(data) != total:
        raise _UnusableError("it is damaged")
    return data


# --- writing ------------------------------------------------------------------------------------------


def _fill(
    descriptor: int,
    connection: _core.Connection,
    stamp: dict[str, Any],
    codes: _core.Codes,
    count: int,
) -> Ints:
    """All of it but the name; ``stamp`` says of which moment. Returns where each record ends."""
    os.ftruncate(descriptor, 0)
    # Until it is complete it says whose it is, and nothing else.
    _put(descriptor, _MAGIC.ljust(_BEGIN, b"\0"), 0)
    rowids = codes.rowids(np.arange(count))
    at, pieces = _BEGIN, []
    for start in range(0, count, _AT_ONCE):
        some = rowids[start : start + _AT_ONCE]
        piece = _core.write_records(connection, VISIT, some, codes.width, descriptor, at)
        if piece is None:
            raise _UnusableError("rows are not what was loaded")
        pieces.append(piece[:-1])
        at = int(piece[-1])
    ends = np.concatenate([*pieces, np.array([at])])
    codes_at = at
    at, sums = _core.write_codes(codes, count, descriptor, at)
    table: dict[str, Any] = {
        "format": FORMAT,
        "byteorder": sys.byteorder,
        **stamp,
        "space": spaces.active(connection),
        "rows": count,
        "norm": codes.norm,
        "codes": (codes_at, sums),
    }
    for name, data in (("ends", ends.tobytes()), ("labels", _packed(_core.label_texts(codes)))):
        table[name] = (at, len(data), _core.checksum(data))
        at = _put(descriptor, data, at)
    told = json.dumps(table).encode()
    _put(descriptor, told, at)
    head = _HEAD.pack(_MAGIC, at, len(told), _core.checksum(told), 0)[:-8]
    _put(descriptor, head + struct.pack("<Q", _core.checksum(head)), 0)
    os.fsync(descriptor)
    return ends


def _put(descriptor: int, data: bytes, at: int) -> int:
    """Write at a place; returns where that ends."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written
    return at


def _packed(labels: list[list[bytes]]) -> bytes:
    """For each label the number of texts, their sizes, and the texts."""
    parts = []
    for texts in labels:
        parts.append(np.array([len(texts), *map(len, texts)], np.int64).tobytes())
        parts += texts
    return b"".join(parts)


def _unpacked(data: bytes) -> list[list[bytes]]:
    labels, at = [], 0
    while at < len(data):
        (count,) = struct.unpack_from("<q", data, at)
        ends = at + 8 * (count + 1) + np.cumsum(np.frombuffer(data, np.int64, count, at + 8))
        starts = [at + 8 * (count + 1), *ends.tolist()]
        labels.append([data[start:end] for start, end in zip(starts, ends.tolist(), strict=False)])
        at = starts[-1]
    return labels


@contextlib.contextmanager
def _alone_on(path: str, mode: int) -> Iterator[int]:
    """A descriptor of a file that nobody else writes; it is gone when this fails."""
    _require_ours(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _UnusableError("another process is writing it") from error
        # Who was locked out a moment ago may hold what has been renamed since.
        if not os.path.samestat(os.lstat(path), os.fstat(descriptor)):
            raise _UnusableError("another process has written it")
        try:
            os.fchmod(descriptor, mode)
            yield descriptor
        except BaseException:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.lstat(path), os.fstat(descriptor)):
                    Path(path).unlink()
            raise
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _require_ours(path: str) -> None:
    """There is no file, an empty one, or one that begins like those that are written here."""
    try:
        descriptor = _open(path)
    except FileNotFoundError:
        return
    try:
        begin = os.pread(descriptor, len(_MAGIC), 0)
    finally:
        os.close(descriptor)
    if begin not in (b"", _MAGIC):
        raise _UnusableError(f"{path} was not written by Resonance; move it away")


def _require_room(path: str, wanted: int) -> None:
    found = os.statvfs(Path(path).parent)
    if found.f_bavail * found.f_frsize < wanted:
        raise OSError(errno.ENOSPC, f"the disk has no room for {size_of(wanted)}")


def _sync_folder(path: str) -> None:
    folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
