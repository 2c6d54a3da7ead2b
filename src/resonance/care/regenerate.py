"""Building the whole database from the vault, beside the one in use, and putting it in its place.

Nothing of the live file is touched until the new one is complete and checked. Then it is copied over in
one step, while writers wait and readers keep their snapshot. A run that is killed leaves a folder
beside the database, which the next run removes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resonance._core import Connection
from resonance.backup import BackupReport, backup_connection, backup_name
from resonance.care import stored
from resonance.care.digest import digest_of
from resonance.database import ResonanceDB
from resonance.errors import BrakeError, CorruptDatabaseError, EmbedderError, RegenerateError
from resonance.factory import PAGE_SIZE, connect_to_scratch
from resonance.garbage import seldom_sought
from resonance.history import History
from resonance.model import Space
from resonance.rebuild import Inspection, attach_live, cannot_make, carry_records, workshop
from resonance.vault.brakes import bearable
from resonance.vault.embed import NO_MODEL, CallableEmbedder, Embedder
from resonance.vault.ingest import Progress, ingest
from resonance.vault.report import IngestReport
from resonance.vault.settings import DEFAULT_DATABASE, VaultSettings
from resonance.words import counted, some

_CACHE_KIB = 64 << 10

# Nodes of the live database that no file, section, tag or page without a file accounts for.
_STRAY_NODES = """
SELECT count(*) FROM live.nodes AS old
WHERE NOT EXISTS (SELECT 1 FROM live.files WHERE files.node = old.id)
  AND NOT EXISTS (SELECT 1 FROM live.sections WHERE sections.node = old.id)
  AND NOT (old.layer IS old.type AND coalesce(old.type IN ('tag', 'page'), 0))
  AND NOT EXISTS (SELECT 1 FROM main.nodes WHERE nodes.id = old.id)
"""

# Edges that no link of a note stands for: the vault's own name their note as context_source.
_STRAY_EDGES = """
SELECT count(*) FROM live.edges AS old
LEFT JOIN live.files ON files.node = old.source
WHERE (files.path IS NULL OR old.context_source IS NOT files.path)
  AND NOT EXISTS (SELECT 1 FROM live.sections
                  WHERE sections.node = old.source AND sections.document = old.target)
  AND NOT EXISTS (SELECT 1 FROM main.edges
                  WHERE edges.source = old.source AND edges.target = old.target AND edges.type = old.type)
"""

# What somebody wrote into the database about a note that is the same as it was.
_CARRY_WRITTEN = """
UPDATE main.nodes SET {column} = (SELECT old.{column} FROM live.nodes AS old WHERE old.id = nodes.id)
WHERE {column} IS NULL AND EXISTS (
    SELECT 1 FROM live.nodes AS old WHERE old.id = nodes.id AND old.hash = nodes.hash
    AND old.{column} IS NOT NULL)
"""


# What ingests have removed, for undo. Vectors of a space that the new database does not have stay behind.
_CARRY_REMOVED = """
INSERT INTO main.tombstones (id, run, removed_at, entity, node, space, embedding, row)
SELECT old.id, old.run, old.removed_at, old.entity, old.node, here.id,
       CASE WHEN here.id IS NOT NULL THEN old.embedding END, old.row
FROM live.tombstones AS old
LEFT JOIN live.spaces AS there ON there.id = old.space
LEFT JOIN main.spaces AS here
       ON here.name = there.name AND here.revision = there.revision AND here.dims = there.dims
      AND here.normalisation = there.normalisation
"""


@dataclass(slots=True)
class Regeneration(IngestReport):
    """What a regeneration did.

    Attributes:
        backup: the copy of the database as it was, made because not all of it could be built again.
        digest: the digest of the new database (``db.digest().root``), as it was put in place.
        notes: what people should know about this run.
    """

    backup: str | None = None
    notes: tuple[str, ...] = ()
    digest: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        told = {"backup": self.backup, "notes": list(self.notes), "digest": self.digest}
        return IngestReport.to_dict(self) | told


def regenerate(
    database: str | os.PathLike[str],
    settings: VaultSettings,
    *,
    embedder: Embedder | None = None,
    progress: Progress | None = None,
    yes: bool = False,
    reembed: bool = False,
) -> Regeneration:
    """Build ``database`` anew from its vault; make it if it is missing.

    Carried over: vectors of texts that are the same, the audit trail, the state of enrichment, what
    ``resonance undo`` needs, and dates and summaries written into the database about notes that have
    not changed. If there is
    anything else that no file stands for, a checked backup is made first.

    Args:
        embedder: the model to embed with; None for the one the settings ask for, if it is here.
        progress: called now and then with (what, done, total).
        yes: go on even if the vault has lost many of the notes that the database knows.
        reembed: embed every text again, instead of taking over the vectors of those that are the same.

    Raises:
        BrakeError: the vault is empty, could not be read in full, or more notes are gone than
            ``settings.max_loss`` allows. Nothing was changed.
        NotADatabaseError: the file is another program's; it was left alone.
        CorruptDatabaseError: the file is damaged; it was left alone.
        RegenerateError: the new database did not pass its check. Nothing was changed.
        EmbedderError: the embedder failed, or there is none to ``reembed`` with. Nothing was changed.
    """
    started = time.monotonic()
    path = Path(database).absolute()
    make_room(path, settings)
    with contextlib.ExitStack() as stack:
        live = None
        if path.exists():
            live = stack.enter_context(open_live(path))
        folder = stack.enter_context(workshop(path))
        stack.enter_context(seldom_sought())
        fresh_path = folder / "fresh.db"
        with ResonanceDB(
            fresh_path, scratch=True, page_size=PAGE_SIZE if live is None else live.page_size
        ) as fresh:
            fresh.lasts = False
            # Nodes come by their paths, but links, words and hashes lead everywhere.
            fresh.get_raw_db().execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            report = _build(fresh, settings, embedder, progress, None if reembed else live)
            if reembed and report.embedding is None:
                raise EmbedderError(f"nothing was embedded, and nothing was changed: {report.embedding_note}")
            if live is not None:
                lost = _lost(live, fresh, report)
                report.removed = len(lost)
                if not yes:
                    _brake(live, settings, report, lost)
        if progress is not None:
            progress("replace", 0, 0)
        with connect_to_scratch(fresh_path) as source:
            report.digest = _check(source, report)
            if live is None:
                live = stack.enter_context(ResonanceDB(path))
            _put_in_place(live, source, report)
    report.seconds = time.monotonic() - started
    return report


def make_room(path: Path, settings: VaultSettings) -> None:
    """Make the folder of a vault's own database, and keep it out of version control.

    Raises:
        CannotOpenError: the vault cannot be written to; or the database is to lie elsewhere, in a folder
            that does not exist.
    """
    folder = path.parent
    if path == settings.root / DEFAULT_DATABASE and not folder.exists():
        try:
            folder.mkdir(exist_ok=True)
            (folder / ".gitignore").write_text("*\n", encoding="utf-8")
        except OSError as error:
            why = f"{folder}: cannot be made ({error.strerror}); name another place for the database"
            raise cannot_make(path, f"{why}, with --database") from error
    if not folder.is_dir():
        raise cannot_make(path, f"{folder} does not exist; create it first")


# --- building ---------------------------------------------------------------------------------------


def _build(
    fresh: ResonanceDB,
    settings: VaultSettings,
    embedder: Embedder | None,
    progress: Progress | None,
    live: ResonanceDB | None,
) -> Regeneration:
    notes = []
    reusable = live
    if live is not None and (unsound := stored.unsound_vectors(live)):
        reusable = None
        notes.append(f"no vector was taken over: {unsound}")
    # The database in place belongs to the vault; the one being built only lies there for now.
    found = ingest(fresh, settings, embedder=embedder, progress=progress, reuse_from=reusable)
    report = Regeneration(**{field.name: getattr(found, field.name) for field in dataclasses.fields(found)})
    if reusable is not None and report.embedding is None and (settings.model or "").lower() != NO_MODEL:
        notes += _take_over_vectors(fresh, settings, reusable, report)
    report.notes = tuple(notes)
    return report


def _take_over_vectors(
    fresh: ResonanceDB, settings: VaultSettings, live: ResonanceDB, report: Regeneration
) -> list[str]:
    """Where the model is not here, keep the vectors there are for texts that have not changed."""
    space = live.space
    if space is None or not report.nodes:
        return []
    second = ingest(fresh, settings, embedder=_Speechless(space), reuse_from=live)
    report.vectors, report.embedding = second.vectors, second.embedding
    return [f"the vectors of {counted(second.vectors, 'note')} that have not changed were kept"]


class _Speechless(CallableEmbedder):
    """An embedder of a given space that has nothing to say about any text."""

    def __init__(self, space: Space) -> None:
        super().__init__(lambda texts: np.zeros((len(texts), space.dims), dtype=np.float32), space)


def _lost(live: ResonanceDB, fresh: ResonanceDB, report: Regeneration) -> list[str]:
    """Paths of notes that were neither found nor reported, and whose bytes are nowhere else."""
    known = dict(live.query("SELECT path, hash FROM files"))
    present = dict(fresh.query("SELECT path, hash FROM files"))
    reported = {problem.path for problem in report.problems}
    hashes = set(present.values())
    return sorted(
        path
        for path, digest in known.items()
        if path not in present and path not in reported and digest not in hashes
    )


def _brake(live: ResonanceDB, settings: VaultSettings, report: Regeneration, lost: list[str]) -> None:
    """The rules of an ingest, for the vault as a whole."""
    known = [path for (path,) in live.query("SELECT path FROM files")]
    if not known:
        return
    if report.files == 0:
        raise BrakeError(
            f"{settings.root}: no notes were found, but the database knows {len(known)}. Is the folder "
            f"mounted, are the sources right? Nothing was changed; pass --yes to start from nothing",
            known,
        )
    elsewhere = live.root is not None and live.root.resolve() != settings.root.resolve()
    limit = 0.0 if elsewhere or not report.complete else bearable(settings, len(known))
    if len(lost) > limit:
        why = "a folder could not be read" if not report.complete else "they are gone"
        if elsewhere:
            why = f"the database was made from {live.root}"
        raise BrakeError(
            f"{settings.root}: {len(lost)} of {len(known)} notes that the database knows were not found "
            f"({why}), beginning with {some(lost)}. Nothing was changed; pass --yes to go on "
            f"without them",
            lost,
        )


def _check(source: Connection, report: Regeneration) -> str:
    """The digest of the new database, which is checked meanwhile: SQLite needs no Python for that."""
    files = source.execute("SELECT count(*) FROM files")[0][0]
    if files != report.indexed:
        raise RegenerateError(
            f"{source.path}: the new database holds {files} of {report.indexed} notes; the one in use is as "
            f"it was"
        )
    with Inspection(Path(source.path)) as inspection:
        inspection.begin()
        try:
            return digest_of(source).root
        finally:
            inspection.require_sound()


# --- putting it in place ----------------------------------------------------------------------------


def _put_in_place(live: ResonanceDB, source: Connection, report: Regeneration) -> None:
    attach_live(source, live.path)

    def before(writer: Connection) -> None:
        """Nobody else is writing now: what is carried over is the last there is."""
        saved = _save_strays(source, writer, live.path)
        if saved is not None:
            report.backup = saved[0].path
            report.notes += (saved[1],)
        _carry_over(source, report)
        source.execute("DETACH live")

    live.replace_with(source, before=before)


def _save_strays(source: Connection, writer: Connection, path: str) -> tuple[BackupReport, str] | None:
    nodes, edges = (source.execute(sql)[0][0] for sql in (_STRAY_NODES, _STRAY_EDGES))
    if not nodes and not edges:
        return None
    name = backup_name(path, "before-init")
    saved = backup_connection(writer, name)
    return saved, (
        f"left out of the new database: {counted(nodes, 'node')} that no file stands for, "
        f"{counted(edges, 'edge')} that no link stands for; the old one is saved as {name}"
    )


def _carry_over(source: Connection, report: Regeneration) -> None:
    """The audit trail, the state of enrichment, what undo needs, and what was written about notes."""
    source.execute("BEGIN IMMEDIATE")
    try:
        carry_records(source)
        source.execute(_CARRY_REMOVED)
        for column in ("date", "summary"):
            source.execute(_CARRY_WRITTEN.format(column=column))
        told = {"nodes": report.nodes + report.tags, "edges": report.edges, "vectors": report.vectors}
        History(source).record("database", "*", "regenerate", None, told)
        source.execute("COMMIT")
    except BaseException:
        if source.in_transaction:
            source.execute("ROLLBACK")
        raise


# --- around it --------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_live(
    path: Path, loss: str = "nothing can be carried over from it", operation: str = "init"
) -> Iterator[ResonanceDB]:
    """The live database. ``resonance init`` is the usual advice for a damaged one; here it needs another.

    Args:
        loss: what a damaged one means for this operation.

    Raises:
        CorruptDatabaseError: it is damaged; says how to begin without it.
    """
    try:
        with ResonanceDB(path) as live:
            yield live
    except CorruptDatabaseError as error:
        raise CorruptDatabaseError(
            f"{path} is damaged, so {loss}, and it was left as it is. Move "
            f"{path.name}, {path.name}-wal and {path.name}-shm away, all of them that are there, and "
            f"repeat. What SQLite says: {error}",
            code=error.code,
            extended_code=error.extended_code,
            name=error.name,
            path=str(path),
            operation=operation,
            data="unchanged",
        ) from error
