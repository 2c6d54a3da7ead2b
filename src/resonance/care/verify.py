"""Comparing a database with its vault: what would be another if it were made anew now.

The vault is ingested into memory, and the two are held against each other, first by their digests, then
row by row where those differ. Neither is written to.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from resonance import migrate
from resonance._core import Connection
from resonance.backup import backup_connection
from resonance.care import stored
from resonance.care.digest import told_by
from resonance.database import ResonanceDB
from resonance.errors import NotADatabaseError, SchemaError, SpaceError, VaultError
from resonance.factory import BUSY_TIMEOUT_MS, DatabaseFactory
from resonance.model import Digest, Problem
from resonance.vault.embed import NO_MODEL, Embedder
from resonance.vault.ingest import Progress, ingest
from resonance.vault.settings import VaultSettings
from resonance.words import some

TOLERANCE = 1e-3
"""How far the cosine of two vectors of one text may be from 1; another order of adding moves it by 1e-6."""

_NODE_COLUMNS = ("type", "title", "domain", "layer", "hash", "meta", "date", "summary")
_SECTION_COLUMNS = ("document", "ordinal", "span_start", "span_end", "hash", "text_hash", "heading")
_EDGE_COLUMNS = ("confidence", "veracity", "context_source")
_MARK = 7
"""Where in a link that what comes of it begins; before it stands what the file says."""


class Difference(NamedTuple):
    """One thing that differs.

    ``kind`` is ``added``, ``removed``, ``moved``, ``edited`` or ``unreadable`` for a file of the vault;
    ``node``, ``edge``, ``link`` or ``vector`` for what is stored. ``path`` is the file's, where there is
    one; ``id`` the node's.
    """

    kind: str
    path: str | None
    id: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What a comparison found.

    Attributes:
        differences: each of them; empty if the database says what the vault says.
        stored: the digest of the database; made: that of one made anew, without vectors unless they
            were compared.
        files: notes in the vault; problems: those that could not be read.
        vectors: whether the texts were embedded again and compared.
        seconds: wall time.
    """

    differences: tuple[Difference, ...]
    stored: Digest
    made: Digest
    files: int
    problems: tuple[Problem, ...]
    vectors: bool
    seconds: float

    @property
    def ok(self) -> bool:
        return not self.differences

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "ok": self.ok,
            "differences": [difference._asdict() for difference in self.differences],
            "counts": dict(sorted(Counter(difference.kind for difference in self.differences).items())),
            "digest": {name: getattr(self.stored, name) for name in ("root", "graph", "vectors", "version")},
            "vault": {name: getattr(self.made, name) for name in ("graph", "version")},
            "files": self.files,
            "problems": [problem._asdict() for problem in self.problems],
            "vectors": self.vectors,
            "seconds": round(self.seconds, 3),
        }


def verify(
    db: ResonanceDB,
    settings: VaultSettings,
    *,
    embedder: Embedder | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Compare ``db`` with its vault, and name what would be another if it were made anew.

    A date or summary that somebody wrote into the database of a note that has none of its own is kept
    by ``resonance init``, so it is no difference. Vectors are looked at for width and length; whether
    they belong to their texts only embedding those again can tell.

    Args:
        embedder: embed every text again, and compare the vectors.
        progress: called now and then with (what, done, total).

    Raises:
        VaultError: a folder of the vault could not be read, so there is nothing to compare with.
        SpaceError: the embedder is not the model of the stored vectors.
    """
    started = time.monotonic()
    if embedder is None:
        settings = dataclasses.replace(settings, model=NO_MODEL)
    elif db.space is not None and embedder.space != db.space:
        raise SpaceError(
            f"the vectors of {db.path} are by {db.space.name} ({db.space.dims} dimensions), this model is "
            f"{embedder.space.name} ({embedder.space.dims}); name the one that made them"
        )
    with ResonanceDB(":memory:") as made:
        report = ingest(made, settings, embedder=embedder, progress=progress)
        if not report.complete:
            named = some([f"{problem.path}: {problem.reason}" for problem in report.problems])
            raise VaultError(f"{settings.root}: could not be read in full, so nothing was compared ({named})")
        with db.snapshot():
            comparison = _Comparison(db, made, {problem.path: problem for problem in report.problems})
            comparison.compare()
            if embedder is not None:
                comparison.compare_vectors()
            else:
                comparison.look_at_vectors()
    return Verification(
        tuple(sorted(comparison.found, key=_order)),
        comparison.digests[0],
        comparison.digests[1],
        report.files,
        tuple(report.problems),
        embedder is not None,
        time.monotonic() - started,
    )


@contextlib.contextmanager
def open_untouched(path: Path, root: Path | None = None) -> Iterator[ResonanceDB]:
    """A database to look at, which is neither migrated nor switched to WAL for that.

    Raises:
        CannotOpenError, NotADatabaseError: it is not there, or not one of ours.
        SchemaError: its schema is not up to date.
    """
    with contextlib.ExitStack() as stack:
        if not path.is_file():
            DatabaseFactory.connect(path, readonly=True).close()  # which says what is wrong
        if _is_at_rest(path):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="resonance-verify-"))
            copy = Path(folder) / path.name
            with Connection(path, create=False) as connection:
                connection.execute("PRAGMA query_only = ON")
                backup_connection(connection, str(copy))
            path = copy
        yield stack.enter_context(ResonanceDB(path, create=False, readonly=True, root=root))


def _is_at_rest(path: Path) -> bool:
    """Whether it is a database of ours, up to date, and not in WAL mode, as backups are."""
    had_wal = Path(f"{path}-wal").exists()
    with Connection(path, create=False) as connection:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.execute("PRAGMA query_only = ON")
        connection.checkpoint_on_close(not had_wal)
        kind = migrate.identify(connection)
        if kind is migrate.Kind.EMPTY:
            raise NotADatabaseError(
                f"{path}: is empty, not a database; `resonance init` makes one",
                code=26,
                name="SQLITE_NOTADB",
                path=str(path),
                operation="open",
                data="unchanged",
            )
        todo = [migration.name for migration in migrate.pending(connection)]
        if todo:
            raise SchemaError(
                f"{path}: {kind.value}, and its schema is not up to date ({some(todo)}), so it was not "
                f"compared; `resonance migrate` does that, after a backup"
            )
        return connection.execute("PRAGMA journal_mode") != [("wal",)]


class _File(NamedTuple):
    node: str
    hash: str
    body_hash: str


class _Comparison:
    """Two databases, the stored one and the one just made; finds what differs."""

    def __init__(self, db: ResonanceDB, made: ResonanceDB, problems: Mapping[str, Problem]) -> None:
        self.both = (db, made)
        self.problems = problems
        self.digests = (db.digest(), made.digest())
        self.files = tuple(
            {
                path: _File(*rest)
                for path, *rest in each.query("SELECT path, node, hash, body_hash FROM files")
            }
            for each in self.both
        )
        self.paths = {file.node: path for files in reversed(self.files) for path, file in files.items()}
        self.sections = {
            node: document
            for each in reversed(self.both)
            for node, document in each.query("SELECT node, document FROM sections")
        }
        self.paths |= {
            node: self.paths[document] for node, document in self.sections.items() if document in self.paths
        }
        self.found: list[Difference] = []
        # Nodes of files that differ, and their sections: all about them follows from that.
        self.explained: set[str] = set()

    def compare(self) -> None:
        """Files first; then, where a leaf differs all the same, row by row."""
        if self.digests[0].graph == self.digests[1].graph:
            return
        self._compare_files()
        self.explained |= {node for node, document in self.sections.items() if document in self.explained}
        leaves = [digest.leaves for digest in self.digests]
        differing = {
            node for node in leaves[0].keys() | leaves[1].keys() if leaves[0].get(node) != leaves[1].get(node)
        }
        chosen = sorted(differing - self.explained)
        nodes = [_read_nodes(each, chosen) for each in self.both]
        edges = [_read_edges(each, chosen) for each in self.both]
        links = [_read_links(each, chosen) for each in self.both]
        for node in chosen:
            before = len(self.found)
            self._compare_node(node, nodes[0].get(node), nodes[1].get(node))
            settled = self._compare_links(node, links[0].get(node, []), links[1].get(node, []))
            self._compare_edges(node, edges[0].get(node, {}), edges[1].get(node, {}), settled)
            self._compare_texts(node)
            self._compare_sections(node)
            if len(self.found) == before:
                self._add("node", node, "differs from what the vault makes of it")

    def _add(self, kind: str, node: str | None, detail: str, path: str | None = None) -> None:
        self.found.append(Difference(kind, path or self.paths.get(node or ""), node, detail))

    def _compare_files(self) -> None:
        stored, made = self.files
        new = {path: file for path, file in made.items() if path not in stored}
        by_hash: dict[str, list[str]] = {}
        for path in sorted(new, reverse=True):
            by_hash.setdefault(new[path].hash, []).append(path)
        for path, file in sorted(stored.items()):
            now = made.get(path)
            if now is None:
                self._gone(path, file, by_hash)
            elif file.hash != now.hash:
                detail = "has changed since it was indexed"
                if not file.hash:
                    detail = "was being ingested when that was cut off"
                self._explain("edited", path, detail, file, now)
            elif file.node != now.node:
                detail = f"has the id {file.node}, and would get {now.node}"
                self._explain("node", path, detail, file, now)
        for path in sorted(path for paths in by_hash.values() for path in paths):
            self._explain("added", path, "is not in the database", None, new[path])

    def _gone(self, path: str, file: _File, by_hash: dict[str, list[str]]) -> None:
        if path in self.problems:
            problem = self.problems[path]
            where = f"line {problem.line}: " if problem.line else ""
            self._explain("unreadable", path, where + problem.reason, file, None)
        elif paths := by_hash.get(file.hash):
            now = paths.pop()
            self._explain("moved", path, f"is now at {now}", file, self.files[1][now])
        else:
            self._explain("removed", path, "is not in the vault any more", file, None)

    def _explain(self, kind: str, path: str, detail: str, file: _File | None, now: _File | None) -> None:
        nodes = [each.node for each in (file, now) if each is not None]
        self._add(kind, nodes[0], detail, path)
        self.explained.update(nodes)

    def _compare_node(self, node: str, row: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> None:
        if row is None and now is not None:
            self._add("node", node, f"is not in the database (type {now['type']})")
        elif now is None and row is not None:
            self._add("node", node, f"nothing in the vault stands for it (type {row['type']})")
        elif row is not None and now is not None:
            for column in _NODE_COLUMNS:
                if row[column] != now[column]:
                    self._add(
                        "node", node, f"{column} is {_short(row[column])}, and would be {_short(now[column])}"
                    )

    def _compare_sections(self, node: str) -> None:
        select = f"SELECT {', '.join(_SECTION_COLUMNS)} FROM sections WHERE node = ?"
        found = [each.query(select, (node,)) for each in self.both]
        rows = [dict(zip(_SECTION_COLUMNS, row, strict=True)) for each in found for row in each]
        if len(rows) < 2:
            return  # then the node itself is not there, or there for something else
        for column in _SECTION_COLUMNS:
            old, new = (row.get(column) for row in rows)
            if old != new:
                self._add(
                    "node", node, f"the section's {column} is {_short(old)}, and would be {_short(new)}"
                )

    def _compare_texts(self, node: str) -> None:
        path = self.paths.get(node)
        file, now = (files.get(path or "") for files in self.files)
        if file is not None and now is not None and file.body_hash != now.body_hash:
            self._add("vector", node, "the text it is said to stand for is not that of the file")

    def _compare_links(self, node: str, rows: list[Any], now: list[Any]) -> set[str]:
        """Returns the targets that links of this node have lost or gained."""
        left, right = Counter(rows), Counter(now)
        lost, gained = sorted((left - right).elements(), key=repr), list((right - left).elements())
        targets = {str(target) for *_, target, _ in (*lost, *gained) if target is not None}
        for link in lost:
            same = next((other for other in gained if other[:_MARK] == link[:_MARK]), None)
            if same is None:
                self._add("link", node, f"{_place(link)} is stored, and is not in the vault")
            else:
                gained.remove(same)
                self._add("link", node, f"{_place(link)} is stored as {_leads(link)}, and is {_leads(same)}")
        for link in sorted(gained, key=repr):
            self._add("link", node, f"{_place(link)} is not in the ledger")
        return targets

    def _compare_edges(self, node: str, rows: dict[Any, Any], now: dict[Any, Any], settled: set[str]) -> None:
        """Edges that a difference among the links explains are not named again."""
        for key in sorted(rows.keys() | now.keys()):
            target, kind = key
            told = f"{node} -{kind}-> {target}"
            if target in settled or target in self.explained:
                continue
            if key not in now:
                self._add("edge", node, f"{told}: nothing in the vault stands for it")
            elif key not in rows:
                self._add("edge", node, f"{told}: is not in the database")
            elif rows[key] != now[key]:
                pairs = zip(_EDGE_COLUMNS, rows[key], now[key], strict=True)
                named = ", ".join(f"{name} is {a}, and would be {b}" for name, a, b in pairs if a != b)
                self._add("edge", node, f"{told}: {named}")

    # --- vectors ----------------------------------------------------------------------------------

    def look_at_vectors(self) -> None:
        """Whether they could be vectors at all."""
        if wrong := stored.unsound_vectors(self.both[0]):
            self._add("vector", None, wrong)

    def compare_vectors(self) -> None:
        """Whether each is the one of its text; for texts that are as they were."""
        kept, made = (_read_vectors(each) for each in self.both)
        there = self.digests[1].leaves.keys() - self.explained
        for node in sorted((kept.keys() | made.keys()) & there):
            old, new = kept.get(node), made.get(node)
            if old is None or new is None:
                self._add(
                    "vector", node, "is not stored" if old is None else "the model has none for this text"
                )
            elif old.shape != new.shape:
                self._add("vector", node, f"is {len(old)} wide, and would be {len(new)}")
            elif not (cosine := float(np.dot(old, new))) > 1 - TOLERANCE or cosine > 1 + TOLERANCE:
                self._add("vector", node, f"is not that of its text (their cosine is {cosine:.3f})")


def _order(difference: Difference) -> tuple[Any, ...]:
    return difference.kind, difference.path or "", difference.id or "", difference.detail


# --- reading --------------------------------------------------------------------------------------


def _read_nodes(db: ResonanceDB, ids: list[str]) -> dict[str, dict[str, Any]]:
    found = {}
    for node, has_file, *values in db.query(
        f"SELECT id, EXISTS (SELECT 1 FROM files WHERE node = id), {', '.join(_NODE_COLUMNS)} FROM nodes "
        f"WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(ids),),
    ):
        row = dict(zip(_NODE_COLUMNS, values, strict=True))
        with contextlib.suppress(ValueError, TypeError):
            row["meta"] = json.loads(row["meta"])
        if has_file:
            row["date"] = told_by(row["meta"], row["date"], "date", "created")
            row["summary"] = told_by(row["meta"], row["summary"], "summary", "description")
        found[node] = row
    return found


def _read_edges(db: ResonanceDB, ids: list[str]) -> dict[str, dict[tuple[str, str], tuple[Any, ...]]]:
    found: dict[str, dict[tuple[str, str], tuple[Any, ...]]] = {}
    for source, target, kind, *values in db.query(
        f"SELECT source, target, type, {', '.join(_EDGE_COLUMNS)} FROM edges "
        f"WHERE source IN (SELECT value FROM json_each(?))",
        (json.dumps(ids),),
    ):
        found.setdefault(source, {})[target, kind] = tuple(values)
    return found


def _read_links(db: ResonanceDB, ids: list[str]) -> dict[str, list[tuple[Any, ...]]]:
    """(raw, start, kind, type, name, fragment, end, mark, state, target, candidates) of links, by node."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for source, *values in db.query(
        "SELECT source, raw, span_start, kind, type, name, fragment, span_end, mark, state, target, "
        "candidates FROM links WHERE source IN (SELECT value FROM json_each(?))",
        (json.dumps(ids),),
    ):
        found.setdefault(source, []).append(tuple(values))
    return found


def _read_vectors(db: ResonanceDB) -> dict[str, Any]:
    return {
        node: np.frombuffer(blob, dtype="<f4").astype(np.float64)
        for node, blob in db.query("SELECT id, embedding FROM nodes WHERE embedding IS NOT NULL")
    }


def _place(link: tuple[Any, ...]) -> str:
    return f"{link[0]} at byte {link[1]}" if link[1] is not None else str(link[0])


def _leads(link: tuple[Any, ...]) -> str:
    mark, state, target, candidates = link[_MARK:]
    told = [target or ", ".join(json.loads(candidates or "[]")), f"marked {mark}" if mark else ""]
    named = ", ".join(text for text in told if text)
    return f"{state} ({named})" if named else str(state)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return text if len(text) <= 60 else text[:59] + "…"
