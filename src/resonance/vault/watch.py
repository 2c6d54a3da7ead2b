"""Following a vault while people write in it.

The system's notifications only say where to look; what is there is found out by looking, as in any
other ingest. What is lost between two of them is found by looking at everything now and then.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from resonance.errors import MovedDatabaseError, ResonanceError, SettingsError, WatchError
from resonance.vault.embed import Embedder
from resonance.vault.ingest import Keeper, Progress
from resonance.vault.report import IngestReport
from resonance.vault.scan import is_passing
from resonance.vault.settings import SETTINGS_FILE, VaultSettings

if TYPE_CHECKING:
    from watchfiles._rust_notify import RustNotify

    from resonance.database import ResonanceDB

GATHER_MS, QUIET_MS = 1_000, 30
"""A burst of changes is taken up when it has been quiet for so long, or at the latest."""

GRACE_MS = 300
"""A note that has vanished may be in the middle of being saved: it is given so long to come back."""

LOOK_AROUND_SECONDS = 300
"""How often everything is looked at, whatever the notifications said."""

SWEEP_SECONDS = 300
"""Removals so close together count as one before the brakes."""

_LONGEST_GRACE = 10.0
_RETRY_SECONDS = 5.0
_PAUSE_SECONDS = 0.5


class Listener(Protocol):
    """Called with what happens: ``ready``, ``ingest``, ``held``, ``error``, ``gone``, ``settings``."""

    def __call__(self, event: str, /, **facts: Any) -> None: ...


def watch(
    db: ResonanceDB,
    settings: VaultSettings,
    *,
    listener: Listener,
    embedder: Embedder | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    poll: bool = False,
) -> None:
    """Bring the database up to date, and keep it so until ``stop`` is set or an exception ends it.

    Notes that the brakes object to lose are held: they stay in the database, and the listener is told.
    What fails is told, and tried again.

    Args:
        listener: called with ``ready`` (``report``) after the first ingest, ``ingest`` (``report``,
            ``paths`` looked at) after one that changed something, ``held`` (``paths``, ``because``)
            when these change, ``error`` (``error``), ``gone`` (``root``) while there is no root, and
            ``settings`` (``path``) when the settings file has changed, which takes a new start.
        poll: look at all files every second, where the system has no notifications to offer.

    Raises:
        SettingsError: there is no root to begin with.
        MovedDatabaseError: the database has been deleted or replaced meanwhile.
        WatchError: the system cannot watch so many folders.
        KeyboardInterrupt: Ctrl-C, or another signal whose handler raised without setting ``stop``.
    """
    _Watch(db, settings, listener, embedder, stop or threading.Event(), poll).run(progress)


class _RootGoneError(Exception):
    """The folder that was being watched is not there, or another one is."""


class _Watch:
    """One watch, over all the folders that may take the root's place meanwhile."""

    def __init__(
        self,
        db: ResonanceDB,
        settings: VaultSettings,
        listener: Listener,
        embedder: Embedder | None,
        stop: threading.Event,
        poll: bool,
    ) -> None:
        self.settings = settings
        self.root = os.fspath(settings.root)
        self.listener = listener
        self.stop = stop
        self.poll = poll
        self.keeper = Keeper(db, settings, embedder=embedder)
        self.identity: tuple[int, int] | None = None
        self.ready = False
        self.failed = False
        self.missed: set[str] = set()
        self.removals: deque[tuple[float, int]] = deque()
        own = os.path.relpath(settings.database, settings.root)
        self.own = None if own.startswith("..") else own
        self.hidden = [
            s for s in settings.sources if any(p.startswith(".") for p in s.split("/")) and s != "."
        ]

    def run(self, progress: Progress | None) -> None:
        from watchfiles._rust_notify import WatchfilesRustInternalError

        while not self.stop.is_set():
            self.identity = self._identity()
            if self.identity is None:
                if not self.ready:
                    raise SettingsError(f"{self.root}: cannot be opened as a folder")
                self.stop.wait(1.0)
                continue
            try:
                with _notifications(self.root, self.poll) as source:
                    self._follow(source, progress)
            except _RootGoneError:
                self.listener("gone", root=self.root)
            except WatchfilesRustInternalError:
                # Something has a name that is not UTF-8, and no more is told of anything: begin again.
                self.stop.wait(_PAUSE_SECONDS)

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = Path(self.root).stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _follow(self, source: RustNotify, progress: Progress | None) -> None:
        # Whatever changes from here on is notified; whatever changed before is found now.
        self._ingest({"."} if self.ready else None, progress)
        looked = time.monotonic()
        while not self.stop.is_set():
            patience = _RETRY_SECONDS if self.failed else LOOK_AROUND_SECONDS
            paths = self._next(source, patience)
            if paths:
                self._await_return(source, paths)
            if self.stop.is_set():
                return
            if self._identity() != self.identity:
                raise _RootGoneError
            if paths:
                self._ingest(paths)
            if time.monotonic() - looked > patience:
                self._ingest(None)
                looked = time.monotonic()

    def _next(self, source: RustNotify, patience: float) -> set[str] | None:
        """Those paths of the next changes that may matter; None when nothing happens for a while."""
        found = source.watch(GATHER_MS, QUIET_MS, int(patience * 1000), self.stop)
        # What the handler of a signal raised is lost in there.
        if found == "signal" and not self.stop.is_set():
            raise KeyboardInterrupt
        return None if isinstance(found, str) else self._relevant(path for _, path in found)

    def _relevant(self, changed: Iterable[str]) -> set[str]:
        paths = set()
        for place in changed:
            path = "." if place == self.root else place.removeprefix(self.root + "/")
            if path == SETTINGS_FILE:
                self.listener("settings", path=path)
            inside = path
            for source in self.hidden:
                if path == source or path.startswith(source + "/"):
                    inside = path[len(source) + 1 :] or "."
            ours = (
                self.own is not None
                and path.startswith(self.own)
                and path[len(self.own) :][:1] in ("", "-", ".")
            )
            if not ours and (inside == "." or not is_passing(inside)):
                paths.add(path)
        return paths

    def _await_return(self, source: RustNotify, paths: set[str]) -> None:
        """Wait while notes that were here a moment ago are not; adds what changes meanwhile to ``paths``.

        Editors write a copy and put it in the place of the file, in two or more steps; and whoever
        deletes a folder deletes its files one by one, which the brakes should see as one.
        """
        deadline = time.monotonic() + _LONGEST_GRACE
        while time.monotonic() < deadline and not self.stop.is_set():
            if all(os.path.lexists(f"{self.root}/{path}") for path in paths):
                return
            more = self._next(source, GRACE_MS / 1000)
            if more is None:
                return
            paths |= more

    def _ingest(self, only: set[str] | None, progress: Progress | None = None) -> None:
        held = self.keeper.held
        if only is not None:
            only |= self.missed
        try:
            report = self.keeper.ingest(only, progress=progress, hold=True, lately=self._lately())
        except SettingsError as error:
            raise _RootGoneError from error
        except MovedDatabaseError:
            raise
        except (ResonanceError, OSError) as error:
            self.missed |= only or {"."}
            self.failed = True
            self.listener("error", error=error)
            return
        self.missed.clear()
        self.failed = False
        self.removals.append((time.monotonic(), report.removed - report.moved))
        self._tell(report, only)
        if self.keeper.held != held:
            self.listener("held", paths=sorted(self.keeper.held), because=report.held_because)

    def _lately(self) -> int:
        """How many notes were removed a moment ago."""
        while self.removals and self.removals[0][0] < time.monotonic() - SWEEP_SECONDS:
            self.removals.popleft()
        return sum(count for _, count in self.removals)

    def _tell(self, report: IngestReport, only: set[str] | None) -> None:
        if not self.ready:
            self.ready = True
            self.listener("ready", report=report)
        elif report.indexed or report.removed or (only is not None and report.problems):
            self.listener("ingest", report=report, paths=sorted(only or {"."}))


def _notifications(root: str, poll: bool) -> RustNotify:
    """What tells of changes from now on.

    Raises:
        WatchError: the system cannot.
    """
    from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

    try:
        # Folders that may not be read are reported by the scan.
        return RustNotify([root], False, poll, 1000, True, True)
    except FileNotFoundError as error:
        raise _RootGoneError from error
    except (OSError, WatchfilesRustInternalError) as error:
        raise WatchError(
            f"{root}: the system cannot watch it ({error}). On Linux the number of watched folders is "
            f"limited (sysctl fs.inotify.max_user_watches); or let it poll, with --poll"
        ) from error
