"""ResonanceDB: the typed front of everything below."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from resonance import _core, bulk, rows, spaces
from resonance.aside import Spaces
from resonance.backup import BackupReport, backup_connection
from resonance.errors import (
    ColumnError,
    InputError,
    InvalidIdError,
    TransactionError,
    UnknownNodeError,
    UsageError,
)
from resonance.factory import PAGE_SIZE, page_size_for
from resonance.history import History
from resonance.model import Checkpoint, Edge, InsertReport, JSONObject, Node, Space, Text
from resonance.questions import Questions
from resonance.rebuild import put_in_place, workshop
from resonance.search import text as fulltext
from resonance.search.filters import is_number
from resonance.session import Session
from resonance.watch import Version

_WITHOUT_CANDIDATES = """
    WITH doomed AS (SELECT value FROM json_each(?)), remaining AS (
        SELECT l.id, json_group_array(c.value) FILTER (WHERE c.value NOT IN doomed) AS candidates
        FROM links AS l, json_each(l.candidates) AS c
        WHERE l.candidates IS NOT NULL GROUP BY l.id HAVING max(c.value IN doomed)
    )
    UPDATE links SET candidates = nullif(remaining.candidates, '[]'),
        state = iif(remaining.candidates = '[]', 'unresolved', state)
    FROM remaining WHERE remaining.id = links.id
"""


class ResonanceDB(Questions, Spaces):
    """A knowledge graph in one SQLite file: nodes, edges, vectors; the text stays in the vault.

    One object may be shared by threads: writers take turns, each reader sees a snapshot of its own.
    It is a context manager; leaving it closes it.

    Args:
        path: the database file, or ``":memory:"``.
        create: make the file if it is missing; never with ``readonly``.
        root: the vault's root, for :meth:`content`; default: the one the last ingest recorded.
        readonly: refuse to write.
        scratch: make a new file as fast as possible: nothing is on disk for sure, and nobody else can
            open it, before it is closed. A crash leaves a file to throw away.
        dims: the width of the vectors to come, if known: it settles the page size of a new file.
        page_size: bytes in a page of a new file, instead.
        vector_cache: keep what search needs in a file beside the database, ``<path>-vectors``: disposable,
            as large as 1.3 times all vectors, never taken for true where the database has changed.

    Raises:
        CannotOpenError, NotADatabaseError, SchemaTooNewError, UnsupportedFilesystemError: the file
            cannot be used; it was not changed.
        MigrationError: its schema could not be brought up to date; it is as it was.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        create: bool = True,
        root: str | os.PathLike[str] | None = None,
        readonly: bool = False,
        scratch: bool = False,
        dims: int | None = None,
        page_size: int | None = None,
        vector_cache: bool = False,
    ) -> None:
        name = os.fspath(path)
        session = Session(
            name,
            create=create and not readonly,
            readonly=readonly,
            scratch=scratch,
            page_size=page_size or (PAGE_SIZE if dims is None else page_size_for(dims)),
        )
        super().__init__(name, session, None if root is None else Path(root), vector_cache)

    # --- single rows ----------------------------------------------------------------------------

    def insert_node(self, node: Node | Mapping[str, Any]) -> None:
        """Insert a node, or update the columns it names if its id exists.

        Fields of a :class:`Node` that are None are not named; a mapping names exactly its keys, so
        ``{"id": "a", "title": None}`` sets the title to NULL.

        Raises:
            InvalidIdError, ColumnError, EmbeddingError: what is wrong with it; nothing was written.
        """
        self.insert_nodes([node], history="rows")

    def insert_edge(self, source: str, target: str, type: str = "related_to") -> None:
        """Insert an edge; if it exists nothing changes.

        Raises:
            DanglingEdgeError: an end is no node.
        """
        self.insert_edges(source=[source], target=[target], type=[type], history="rows")

    def insert_semantic_edge(
        self,
        source: str,
        target: str,
        type: str,
        confidence: float = 1.0,
        veracity: float = 1.0,
        context_source: str | None = None,
    ) -> None:
        """Insert an edge with its weights, or update the weights if it exists.

        Raises:
            DanglingEdgeError: an end is no node.
        """
        self.insert_edges([Edge(source, target, type, confidence, veracity, context_source)], history="rows")

    def update_node_meta(self, id: str, meta: JSONObject | None) -> None:
        """Replace the metadata of a node.

        Raises:
            UnknownNodeError: there is none.
        """
        self._update(id, {"meta": meta})

    def update_node_date(self, id: str, date: str | None) -> None:
        """Replace the date of a node.

        Raises:
            UnknownNodeError: there is none.
        """
        self._update(id, {"date": date})

    def _update(self, id: str, fields: dict[str, Any]) -> None:
        with self._session.writing() as writer:
            if not writer.execute("SELECT 1 FROM nodes WHERE id = ?", (id,)):
                raise UnknownNodeError(id)
            self.insert_node({"id": id, **fields})

    def delete_nodes(self, ids: Iterable[str]) -> int:
        """Delete nodes with their edges; links to them become unresolved. Returns how many there were.

        An ambiguous link loses them as candidates. Notes whose files are there are back with the next
        ingest, and so is what led to them. The sections of a document go with it, and are not counted.
        """
        wanted = rows.distinct_ids(ids)
        doomed = "SELECT value FROM json_each(?)"
        with self._session.writing() as writer:
            found = writer.query(
                f"SELECT node FROM sections WHERE document IN ({doomed})", (json.dumps(sorted(wanted)),)
            )
            sections = {node for (node,) in found} - wanted
            chosen = json.dumps(sorted(wanted | sections))
            History(writer).nodes_deleted(chosen)
            writer.execute(
                "UPDATE links SET state = 'unresolved', target = NULL, mark = NULL "
                f"WHERE target IN ({doomed})",
                (chosen,),
            )
            unsettled = writer.changes
            # Only notes are ever candidates; to look through all links takes its time.
            if writer.query(f"SELECT 1 FROM files WHERE node IN ({doomed}) LIMIT 1", (chosen,)):
                writer.execute(_WITHOUT_CANDIDATES, (chosen,))
                unsettled += writer.changes
            if unsettled:
                # Whoever brings a node back, such as an ingest, looks at all links again.
                writer.execute("DELETE FROM properties WHERE key = 'vault.resolved'")
            fulltext.forget(writer, chosen)
            for table, column in (
                ("links", "source"),
                ("sections", "node"),
                ("files", "node"),
                ("edges", "source"),
                ("edges", "target"),
                ("nodes", "id"),
            ):
                writer.execute(f"DELETE FROM {table} WHERE {column} IN ({doomed})", (chosen,))
            return writer.changes - len(sections)

    def delete_edges(self, edges: Iterable[Edge | Sequence[Any]]) -> int:
        """Delete edges given as (source, target, type, ...). Returns how many there were."""
        if not isinstance(edges, Iterable):
            raise ColumnError(f"{type(edges).__name__} is not a sequence of (source, target, type)")
        keys = [
            tuple(edge)[:3] if isinstance(edge, Iterable) and not isinstance(edge, str) else ()
            for edge in edges
        ]
        for row, key in enumerate(keys):
            if len(key) != 3 or not all(isinstance(part, str) for part in key):
                raise ColumnError(f"row {row}: give (source, target, type)", row=row)
        with self._session.writing() as writer:
            deleted = 0
            for key in keys:
                writer.execute("DELETE FROM edges WHERE source = ? AND target = ? AND type = ?", key)
                if writer.changes:
                    deleted += 1
                    History(writer).edge("delete", key, old={}, new=None)
            return deleted

    # --- columns --------------------------------------------------------------------------------

    def insert_nodes(
        self,
        nodes: Iterable[Node | Mapping[str, Any]] | Any = None,
        /,
        *,
        mode: str = "exclusive",
        history: str = "summary",
        progress: bulk.Progress | None = None,
        **columns: Any,
    ) -> InsertReport:
        """Insert or update many nodes.

        All rows are checked before the first is written. A node that exists keeps what it has in columns
        that are not given; None in a column stores NULL.

        Args:
            nodes: an iterable of :class:`Node` or mappings; or anything with ``__arrow_c_stream__``
                (a pyarrow, polars, pandas or duckdb table), read straight from its buffers; or
            columns: ``id`` and any other column of ``nodes``, each a sequence or one value for all
                rows. ``embedding`` is (n, d) of any real dtype, or a sequence of vectors and None.
            mode: ``"exclusive"``: one transaction. A large load into a file that nobody else has open
                leaves WAL meanwhile, writes each page once and is durable at return; whoever opens the
                file then waits. ``"shared"``: short transactions with room for other writers between
                them; the rows before a failure stay.
            history: ``"summary"`` writes one row to the audit trail, ``"rows"`` one for each node.
            progress: called with (rows done, rows in all).

        Raises:
            InvalidIdError, ColumnError, EmbeddingError, SpaceError, DuplicateNodeError: naming column
                and rows; nothing was written.
        """
        if (nodes is None) == (not columns):
            raise InputError("give nodes, or columns such as id=[...], title=[...]")
        batches = rows.node_batches(nodes, columns)
        return bulk.insert_nodes(self._session, batches, mode=mode, history=history, progress=progress)

    def insert_edges(
        self,
        edges: Iterable[Edge | Sequence[Any]] | Any = None,
        /,
        *,
        on_missing: str = "error",
        mode: str = "exclusive",
        history: str = "summary",
        progress: bulk.Progress | None = None,
        **columns: Any,
    ) -> InsertReport:
        """Insert or update many edges. Foreign keys hold when it returns, whatever the mode.

        Of rows with the same source, target and type the last one counts; the report has the others
        among the unchanged.

        Args:
            edges: an iterable of :class:`Edge` or (source, target, type, ...), where an edge keeps what no
                tuple is long enough to name; or anything with ``__arrow_c_stream__``; or
            columns: ``source``, ``target`` and any other column of ``edges``.
            on_missing: for an end that is no node: ``"error"``, ``"skip"`` the edge (the report names
                it), or ``"stub"``: make a node of type ``stub``.
            mode, history, progress: as in :meth:`insert_nodes`.

        Raises:
            DanglingEdgeError: with ``"error"``; lists the rows, nothing was written.
            InvalidIdError, ColumnError: naming column and row; nothing was written.
        """
        if (edges is None) == (not columns):
            raise InputError("give edges, or columns such as source=[...], target=[...]")
        return bulk.insert_edges(
            self._session,
            rows.edge_source(edges, columns),
            on_missing=on_missing,
            mode=mode,
            history=history,
            progress=progress,
        )

    def insert_texts(self, texts: Iterable[Text]) -> bool:
        """Put the words of nodes into the full-text index, instead of those it had for them.

        An ingest does this for the notes of a vault. The text itself is not stored: an index that another
        version made by other rules of what is a word (:meth:`search_text` then raises) is emptied by the
        first call, and all texts are to be given again.

        Returns:
            False where this engine cannot search text; then nothing of these nodes stays indexed.

        Raises:
            InvalidIdError: an id is not text, or occurs twice; nothing was written.
            ColumnError: something else of one is no text; nothing was written.
            ForeignKeyError: there is no such node; nothing was written.
        """
        given = rows.checked_texts(texts)
        if len(rows.distinct_ids(text.id for text in given)) < len(given):
            raise InvalidIdError("an id occurs twice; give each once", column="id")
        prepared = fulltext.prepared(given)
        with self._session.writing() as writer:
            return fulltext.write(writer, prepared)

    # --- spaces -----------------------------------------------------------------------------------

    def set_space(self, space: Space, *, replace: bool = False) -> None:
        """Say which model the vectors come from.

        Args:
            replace: if vectors of another space are stored, set them to NULL. To keep them instead, use
                :meth:`add_space`, :meth:`insert_vectors` and :meth:`switch_space`.

        Raises:
            SpaceError: they are there, and ``replace`` is False; or ``space`` has vectors kept aside.
                Nothing was changed.
        """
        with self._session.writing() as writer:
            spaces.activate(writer, space, replace=replace)

    # --- the state of enrichment -----------------------------------------------------------------------

    def set_ember_state(
        self,
        path: str,
        *,
        last_analyzed: str | None = None,
        sidecar_created: bool | None = None,
        confidence: float | None = None,
    ) -> None:
        """Remember the state of enrichment of a file; what is None keeps its stored value.

        Raises:
            InputError: ``confidence`` is no number, or ``sidecar_created`` neither true nor false.
        """
        if confidence is not None and not is_number(confidence):
            raise InputError(f"confidence={confidence!r:.60}; give a number")
        if sidecar_created not in (None, True, False):
            raise InputError(f"sidecar_created={sidecar_created!r:.60}; give True or False")
        with self._session.writing() as writer:
            writer.execute(
                "INSERT INTO ember_state (file_path, last_analyzed, sidecar_created, confidence) "
                "VALUES (?, ?, ?, ?) ON CONFLICT (file_path) DO UPDATE SET "
                "last_analyzed = coalesce(excluded.last_analyzed, last_analyzed), "
                "sidecar_created = coalesce(excluded.sidecar_created, sidecar_created), "
                "confidence = coalesce(excluded.confidence, confidence)",
                (path, last_analyzed, sidecar_created, confidence),
            )

    # --- transactions -----------------------------------------------------------------------------

    def transaction(self) -> contextlib.AbstractContextManager[_core.Connection]:
        """``with db.transaction():`` commits at the end, or rolls back if the block raises.

        Raises:
            TransactionError: one is open in this thread already; they do not nest.
            LockTimeoutError: other writers did not make way.
        """
        return self._session.transaction()

    def begin_transaction(self) -> None:
        """Start a write transaction in this thread; see :meth:`transaction`.

        A thread that ends without :meth:`commit` has committed nothing.
        """
        self._session.begin()

    def commit(self) -> None:
        """Make the transaction of this thread permanent."""
        self._session.commit()

    def rollback(self) -> None:
        """Undo the transaction of this thread."""
        self._session.rollback()

    # --- care -------------------------------------------------------------------------------------

    def checkpoint(self, *, truncate: bool = True) -> Checkpoint:
        """Write the WAL back into the file and sync it: what was committed survives a loss of power.

        Args:
            truncate: also cut the WAL file down to nothing, if no reader is in the way.
        """
        return self._session.checkpoint(truncate=truncate)

    def backup(self, dest: str | os.PathLike[str]) -> BackupReport:
        """Copy the database to a new file, check the copy, and say what it holds.

        Raises:
            BackupError: ``dest`` exists, or the copy did not pass its check.
            TransactionError: this thread has a transaction open.
        """
        if self._session.in_transaction:
            raise TransactionError(
                "a backup holds what is committed: end the transaction of this thread first"
            )
        with self._session.snapshot() as connection:
            return backup_connection(connection, os.fspath(dest))

    def replace_with(
        self,
        source: _core.Connection,
        *,
        before: Callable[[_core.Connection], None],
        agree: Callable[[], object] | None = None,
    ) -> None:
        """Put another database in the place of this one, in one step; readers keep what they read.

        Args:
            source: a connection to the other one, with pages of the same size. Nobody may write to it.
            before: called with this database's connection once nobody else can write any more.
            agree: called when all is ready to be committed; if it raises, nothing has happened.
        """
        self._session.replace_with(source, before, agree)

    @contextlib.contextmanager
    def rebuild(self, *, overwrite: bool = False) -> Iterator[ResonanceDB]:
        """``with db.rebuild() as fresh:`` fill ``fresh``, and it takes the place of this database.

        ``fresh`` is an empty scratch database beside this one. When the block ends it is checked, given
        the audit trail and the state of enrichment, and copied over this one in one step: readers keep
        what they read, writers wait for the copy, a crash leaves one or the other. If the block raises,
        nothing has happened.

        Args:
            overwrite: let go of what was committed to this database, by whomever, since the block began.

        Raises:
            RegenerateError: ``fresh`` did not pass its check; or, without ``overwrite``, something was
                committed here meanwhile, which is not in it. This database is as it was.
            TransactionError: this thread has a transaction open, here or, at the end, in ``fresh``.
            UsageError: this database is in memory, or ``scratch``.
        """
        if self.is_alone:
            raise UsageError(
                f"{self.path}: nobody else can have this database open; fill another in its place"
            )
        since = self._session.version()
        with workshop(Path(self._session.path)) as folder:
            path = folder / "fresh.db"
            with ResonanceDB(path, scratch=True, page_size=self.page_size) as fresh:
                fresh.lasts = False
                yield fresh
                if fresh._session.in_transaction:
                    raise TransactionError(
                        f"{self.path}: a transaction of the new database is still open, and what is in it "
                        f"would be lost; commit it inside the block. The one in use is as it was"
                    )
            put_in_place(self._session, path, None if overwrite else since)

    def vacuum(self) -> None:
        """Give the space of deleted rows back to the file system."""
        with self._session.exclusively() as writer:
            writer.execute("VACUUM")
        # In WAL mode the file is cut down when the WAL is written back.
        self._session.checkpoint(truncate=True)

    def analyze(self) -> None:
        """Gather statistics for SQLite's query planner."""
        with self._session.exclusively() as writer:
            writer.execute("ANALYZE")

    def get_raw_db(self) -> _core.Connection:
        """The writing connection itself. Write only inside :meth:`transaction`: nothing else locks."""
        return self._session.writer

    @property
    def is_alone(self) -> bool:
        """Whether nobody else can open it: in memory, or ``scratch``."""
        return self._session.is_alone

    @property
    def lasts(self) -> bool:
        """Whether a scratch database is on the disk once it is closed; not so where it is only copied."""
        return self._session.lasts

    @lasts.setter
    def lasts(self, wanted: bool) -> None:
        self._session.lasts = wanted

    @property
    def last_hold(self) -> float:
        """Seconds for which the last transaction kept the write lock; 0 before the first one."""
        holds = self._session.holds
        return holds[-1] if holds else 0.0

    @property
    def writes_here(self) -> int:
        """How many transactions this thread has committed; of all in :meth:`version`, its share."""
        return self._session.writes_here

    def version(self) -> Version:
        """Another value as soon as anybody, here or elsewhere, has written. Waits for a write under way."""
        return self._session.version()

    @property
    def migration_backup(self) -> str | None:
        """The backup that was made because opening the file migrated it, or None."""
        return self._session.migration_backup

    def close(self) -> None:
        """Roll back an open transaction of this thread, tidy up and close; a second call does nothing."""
        self._session.close()
        self._index.discard()
        self._backends.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ResonanceDB({self.path!r})"
