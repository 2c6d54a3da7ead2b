"""ResonanceDB: the typed front of everything below."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

import numpy.typing as npt

from resonance import _core, arrow, bulk, matrix, rows, spaces
from resonance.backup import BackupReport, backup_connection
from resonance.errors import ColumnError, InputError, InvalidIdError, UnknownNodeError
from resonance.factory import PAGE_SIZE, page_size_for
from resonance.history import History
from resonance.model import (
    Checkpoint,
    Content,
    ContentPolicy,
    Digest,
    Edge,
    EmbeddingMatrix,
    EmberState,
    FloatArray,
    HistoryEntry,
    Hit,
    Hits,
    InsertReport,
    JSONObject,
    Link,
    LinkState,
    Node,
    Space,
    Stats,
    Text,
    WhyNot,
)
from resonance.rebuild import put_in_place, require_sound, workshop
from resonance.rows import NODE_COLUMNS
from resonance.search import hybrid
from resonance.search import text as fulltext
from resonance.search.backend import Backend, Backends
from resonance.search.exact import GroupBy, Memory, Options, Question, search
from resonance.search.filters import Filter, Where
from resonance.search.index import VectorIndex
from resonance.search.why import why_not
from resonance.session import Session, Version
from resonance.stats import read_stats

if TYPE_CHECKING:
    import pyarrow

    from resonance.vault.embed import Embedder

_WITHOUT_EMBEDDING = tuple(name for name in NODE_COLUMNS if name != "embedding")


class ResonanceDB:
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
    ) -> None:
        self.path = os.fspath(path)
        self._root = None if root is None else Path(root)
        self._session = Session(
            self.path,
            create=create and not readonly,
            readonly=readonly,
            scratch=scratch,
            page_size=page_size or (PAGE_SIZE if dims is None else page_size_for(dims)),
        )
        self._index = VectorIndex(self._session)
        self._backends = Backends(self._session)
        self._embedder: Embedder | None = None

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

    def get_node(self, id: str) -> Node | None:
        """The node, its vector included, or None.

        Raises:
            CorruptRowError: what is stored cannot be read.
        """
        found = self.query(f"SELECT {', '.join(NODE_COLUMNS)} FROM nodes WHERE id = ?", (id,))
        return rows.node_from_row(found[0]) if found else None

    def get_nodes(
        self,
        *,
        domain: str | None = None,
        type: str | None = None,
        layer: str | None = None,
        limit: int | None = None,
        offset: int = 0,
        exclude_content: bool = False,
    ) -> list[Node]:
        """Nodes in the order of their ids.

        Args:
            exclude_content: leave the vectors out, which are most of a row.
        """
        columns = _WITHOUT_EMBEDDING if exclude_content else NODE_COLUMNS
        where, values = Filter(domain=domain, type=type, layer=layer).sql()
        found = self.query(
            f"SELECT {', '.join(columns)} FROM nodes WHERE {where} ORDER BY id LIMIT ? OFFSET ?",
            (*values, -1 if limit is None else limit, offset),
        )
        return [rows.node_from_row(row, columns) for row in found]

    def get_nodes_by_type(self, type: str) -> list[Node]:
        """All nodes of a type, in the order of their ids."""
        return self.get_nodes(type=type)

    def get_node_hash(self, id: str) -> str | None:
        """The hash of the file the node was made from, or None."""
        found = self.query("SELECT hash FROM nodes WHERE id = ?", (id,))
        return found[0][0] if found else None

    def get_edges(
        self, id: str, *, direction: str = "out", type: str | None = None, max_degree: int | None = None
    ) -> list[Edge]:
        """Edges of a node: ``"out"`` of it, ``"in"`` to it, or ``"both"``; sorted.

        Args:
            max_degree: leave out edges whose other end has more edges than that, in and out: the hubs
                that everything is near to. They stay in the database.

        Raises:
            InputError: another direction, or a negative degree.
        """
        sides = {"out": ("source", "target"), "in": ("target", "source")}
        if direction not in (*sides, "both"):
            raise InputError(f"direction {direction!r}; give 'out', 'in' or 'both'")
        if max_degree is not None and max_degree < 0:
            raise InputError(f"max_degree={max_degree}; give 0 or more")
        parts = []
        for here, there in sides.values() if direction == "both" else (sides[direction],):
            part = f"SELECT {', '.join(rows.EDGE_COLUMNS)} FROM edges AS e WHERE {here} = :id"
            part += "" if type is None else " AND type = :type"
            parts.append(part + ("" if max_degree is None else f" AND {rows.degree(there)} <= :most"))
        given = {"id": id, "type": type, "most": max_degree}
        found = self.query(" UNION ".join(parts) + " ORDER BY 1, 2, 3", given)
        return [Edge(*row) for row in found]

    def get_lexicon(self) -> list[dict[str, Any]]:
        """Concepts: nodes of type ``concept`` in the domain ``lexicon``, as id, label, aliases and meta."""
        return [
            {"id": node.id, "label": node.title, "aliases": [], **(node.meta or {})}
            for node in self.get_nodes(domain="lexicon", type="concept", exclude_content=True)
        ]

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

        The sections of a document go with it, and are not counted.
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
        keys = [() if isinstance(edge, str) else tuple(edge)[:3] for edge in edges]
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

        Args:
            edges: an iterable of :class:`Edge` or (source, target, type, ...); or anything with
                ``__arrow_c_stream__``; or
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

        An ingest does this for the notes of a vault. The text itself is not stored.

        Returns:
            False where this engine cannot search text; then nothing of these nodes stays indexed.

        Raises:
            InvalidIdError: an id is not text, or occurs twice; nothing was written.
            ForeignKeyError: there is no such node; nothing was written.
        """
        given = list(texts)
        if len(rows.distinct_ids(text.id for text in given)) < len(given):
            raise InvalidIdError("an id occurs twice; give each once", column="id")
        prepared = fulltext.prepared(given)
        with self._session.writing() as writer:
            return fulltext.write(writer, prepared)

    def embeddings(self, *, domain: str | None = None, type: str | None = None) -> EmbeddingMatrix:
        """All vectors as one matrix, in storage order; nodes without a vector are left out.

        Raises:
            CorruptRowError: a stored vector has another width than the space.
        """
        return matrix.read_all(self._session, Filter(domain=domain, type=type))

    def iter_embeddings(self, batch_size: int = 4096) -> Iterator[EmbeddingMatrix]:
        """The vectors in pieces of at most ``batch_size`` rows, each in memory of its own.

        Each piece is a fresh look at the database, so that no snapshot is kept for the length of the
        loop: rows written meanwhile may or may not be seen, rows that stay are seen once.
        """
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}; give 1 or more")
        return matrix.read_pieces(self._session, batch_size)

    def to_arrow(
        self,
        table: str = "nodes",
        *,
        domain: str | None = None,
        type: str | None = None,
        layer: str | None = None,
    ) -> pyarrow.Table:
        """``nodes`` (filtered) or ``edges`` as a pyarrow table, for polars, pandas, duckdb or Parquet.

        Raises:
            ResonanceError: pyarrow is not installed.
            CorruptRowError: a stored vector has another width than the space.
        """
        with self._session.snapshot() as connection:
            chosen = Filter(domain=domain, type=type, layer=layer)
            return arrow.read_table(connection, table, chosen, spaces.width(connection))

    # --- spaces -----------------------------------------------------------------------------------

    @property
    def space(self) -> Space | None:
        """The embedding space the vectors belong to; None before the first one."""
        found = self.query("SELECT name, dims, revision, normalisation FROM spaces WHERE active = 1")
        return Space(*found[0]) if found else None

    def set_space(self, space: Space, *, replace: bool = False) -> None:
        """Say which model the vectors come from.

        Args:
            replace: if vectors of another space are stored, set them to NULL.

        Raises:
            SpaceError: they are there, and ``replace`` is False; nothing was changed.
        """
        with self._session.writing() as writer:
            spaces.activate(writer, space, replace=replace)

    # --- questions --------------------------------------------------------------------------------

    @overload
    def search(
        self, query: Sequence[float] | npt.NDArray[Any], k: int = 10, **options: Unpack[Options]
    ) -> Hits: ...

    @overload
    def search(
        self, query: Sequence[Sequence[float]], k: int = 10, **options: Unpack[Options]
    ) -> list[Hits]: ...

    def search(
        self,
        query: Any,
        k: int = 10,
        *,
        domain: str | None = None,
        type: str | None = None,
        layer: str | None = None,
        ids: Iterable[str] | None = None,
        where: Where | None = None,
        min_score: float | None = None,
        after: Hit | tuple[float, str] | None = None,
        mmr: float | None = None,
        memory: Memory = "resident",
        group_by: GroupBy | None = None,
        backend: Backend | None = None,
        explain: bool = False,
        hydrate: bool | ContentPolicy = False,
    ) -> Any:
        """The ``k`` nearest nodes by cosine similarity, exactly; ties are ordered by id.

        Args:
            query: a vector (d,), or a matrix (q, d) for q answers. It need not be of unit length.
            domain, type, layer, ids: only nodes that match; evaluated before scoring.
            where: only nodes for which this condition in SQL over the columns of ``nodes`` holds; values
                belong into parameters: ``where=("date >= ?", ["2026-01-01"])``.
            min_score: leave out what is less similar.
            hydrate: put the text of each hit's node, with its state, into ``hit.content``; True, or a
                policy as :meth:`content_many` takes it. ``"drop"`` leaves such hits out of the answer.
            after: the last hit of the page before, or its (score, id): go on behind it.
            mmr: from 0 (diverse) to 1 (near): choose among the nearest such that they differ.
            memory: ``"resident"`` keeps int8 codes of all vectors, a good quarter of their bytes, from the
                first search on, and follows what anybody writes; ``"stream"`` reads the database each
                time. The answers are the same.
            group_by: ``"document"``: one hit for each document, with the score of the best of it and its
                sections; conditions are then about the document, and ``hit.section`` is the best section.
            backend: another engine that says which rows are nearest; see :class:`resonance.search.Backend`.
                Their scores are exact, whether they are all there is up to it. Inside a transaction, and
                with ``"stream"``, it is not asked.
            explain: set ``explain`` of the hits.

        Returns:
            :class:`Hits`, best first; a list of them for a matrix.

        Raises:
            EmbeddingError: the query is not finite, all zeros, or not as wide as the space.
            InputError: what is wrong with another argument.
            CorruptRowError: a stored vector is not one of this space.
            BackendError: the backend failed.
            ContentError: with ``hydrate``, no root is known, or as the policy says.
        """
        chosen = Filter(domain=domain, type=type, layer=layer, ids=ids, where=where)
        question = Question(query, k, chosen, min_score=min_score, after=after, mmr=mmr, group_by=group_by)
        index = self._index if backend is None else self._backends.index(backend)
        found = search(self._session, index, question, memory, explain)
        if hydrate is False:
            return found
        return self.hydrate(found, hydrate)

    def search_text(
        self,
        text: str,
        k: int = 10,
        *,
        domain: str | None = None,
        type: str | None = None,
        layer: str | None = None,
        ids: Iterable[str] | None = None,
        where: Where | None = None,
        group_by: GroupBy | None = None,
        hydrate: bool | ContentPolicy = False,
    ) -> Hits:
        """The ``k`` best nodes for the words of a text, by BM25; ties are ordered by id.

        A node need not hold all words; the more and the rarer, the better, and one in the title counts
        more than one in the body. Case and accents make no difference. What stands in ``"quotation
        marks"`` must occur as it is: that is all the syntax there is, any other character is text.

        Args:
            domain, type, layer, ids, where, group_by, hydrate: as for :meth:`search`.

        Raises:
            TextSearchError: no text has been indexed, or this engine cannot; says what to do.
        """
        chosen = Filter(domain=domain, type=type, layer=layer, ids=ids, where=where)
        with self._session.snapshot() as connection:
            found = fulltext.search_text(connection, text, k, chosen, group_by)
        if hydrate is not False:
            self.hydrate(found, hydrate)
        return found

    def search_hybrid(
        self,
        text: str,
        k: int = 10,
        *,
        vector: hybrid.Vector = None,
        k0: float = 60.0,
        weights: Mapping[str, float] | None = None,
        candidates: int = 100,
        rerank: hybrid.Reranker | None = None,
        hydrate: bool | ContentPolicy = False,
        **conditions: Unpack[hybrid.Conditions],
    ) -> Hits:
        """The ``k`` best nodes by meaning and by words together, fused by reciprocal rank.

        Each list is asked for its ``candidates`` best; a node scores ``weight / (k0 + rank)`` in each
        list that holds it. ``hit.ranks`` tells rank and score in each; ties are ordered by id.

        Args:
            vector: the vector of the text, or a function that makes it; None for the model whose
                vectors are stored.
            weights: of ``"vector"`` and ``"text"``; 1 where none is given.
            candidates: how many of each list are fused, ``k`` at least.
            rerank: called with the text and the fused hits; returns a score for each, or the hits in
                their new order. What it raises is raised. With ``hydrate`` the hits carry their text.
            conditions: ``domain``, ``type``, ``layer``, ``ids``, ``where``, ``group_by``, as for
                :meth:`search`.

        Returns:
            :class:`Hits`. ``lists`` says which lists there were, ``notes`` why one is missing (no model,
            no vectors, no text index), ``reranked`` whether a reranker was asked.

        Raises:
            TextSearchError: there is neither list.
            EmbeddingError: the vector that was given is not one of this space.
        """
        return hybrid.search_hybrid(
            self,
            text,
            k,
            vector=vector,
            k0=k0,
            weights=weights,
            candidates=candidates,
            reranker=rerank,
            hydrate=hydrate,
            conditions=conditions,
        )

    def embed_question(self, text: str) -> FloatArray:
        """The vector of a text, by the model whose vectors are stored.

        Raises:
            EmbedderError: there are no vectors, the model is not here, or it knows no word of the text.
        """
        from resonance.vault.embed import embedder_of, question_vector

        embedder = self._embedder
        if embedder is None or embedder.space != self.space:
            self._embedder = embedder = embedder_of(self)
        return question_vector(embedder, text)

    def why_not(self, id: str, query: Any, k: int = 10, **conditions: Any) -> WhyNot:
        """Why a search with these arguments does not find a node, or at which rank it does.

        Args:
            query: a vector (d,).
            conditions: ``domain``, ``type``, ``layer``, ``ids``, ``where``, ``min_score``.
        """
        return why_not(self._session, id, query, k, conditions)

    def hydrate(self, found: Any, policy: ContentPolicy | Literal[True] = "flag") -> Any:
        """Give hits their contents, in place; returns them.

        Args:
            found: :class:`Hits`, or a list of them.
            policy: as :meth:`content_many` takes it; True for ``"flag"``.
        """
        answers: list[Hits] = [found] if isinstance(found, Hits) else found
        ids = list(dict.fromkeys(hit.section or hit.id for hits in answers for hit in hits))
        read = self.content_many(ids, policy="flag" if policy is True else policy)
        contents = {content.id: content for content in read}
        for hits in answers:
            hits[:] = [
                hit._replace(content=contents[node])
                for hit in hits
                if (node := hit.section or hit.id) in contents
            ]
        return found

    @overload
    def content(self, id: str, *, policy: Literal["flag", "raise", "refresh"] = "flag") -> Content: ...

    @overload
    def content(self, id: str, *, policy: ContentPolicy) -> Content | None: ...

    def content(self, id: str, *, policy: ContentPolicy = "flag") -> Content | None:
        """Read the text of a node from its file, now, and say whether it is still what was indexed.

        Args:
            policy: what to do when it is not; see :meth:`content_many`. ``"drop"`` returns None.

        Raises:
            UnknownNodeError: there is no such node.
            ContentError: the node stands for no file, or no root is known.
            PathEscapeError: its path leads out of the root.
        """
        from resonance.vault.hydrate import hydrate_nodes

        found = hydrate_nodes(self, [id], policy, root=self._root, strict=True)
        return found[0] if found else None

    def content_many(self, ids: Iterable[str], *, policy: ContentPolicy = "flag") -> list[Content]:
        """The texts of many nodes, in the order of ``ids``; files that moved are looked for once.

        One node without a file, or with a path that leads out of the root, does not fail the others:
        its state is ``missing`` or ``unreadable``, and ``reason`` says why.

        Args:
            policy: what to do with a text that is not the one that was indexed:

                - ``"flag"``: return what there is, with its state.
                - ``"raise"``: raise for the first node whose state is ``changed``
                  (:class:`StaleContentError`), ``missing`` (:class:`ContentMissingError`) or
                  ``unreadable`` (:class:`ContentError`). What merely moved is the same text.
                - ``"refresh"``: ingest the files that have changed, those only, and read them again: what
                  comes back is what the database then says. It writes, so the database must not be
                  read-only. Vectors are made anew if the model is here, and are NULL if not.
                - ``"drop"``: leave out all but ``fresh`` and ``moved``.

        Raises:
            UnknownNodeError: a node is not there.
            ContentError: no root is known; or as the policy says.
        """
        from resonance.vault.hydrate import hydrate_nodes

        return hydrate_nodes(self, ids, policy, root=self._root)

    def links(
        self,
        *,
        source: str | None = None,
        target: str | None = None,
        state: LinkState | None = None,
    ) -> list[Link]:
        """Rows of the link ledger, in the order of note and place."""
        return self._links({"source": source, "target": target, "state": state})

    def backlinks(self, id: str) -> list[Link]:
        """The links that other nodes have to this one."""
        return self._links({"target": id}, "l.source <> l.target")

    def unresolved(self) -> list[Link]:
        """The links that no note answers."""
        return self._links({"state": "unresolved"})

    def ambiguous(self) -> list[Link]:
        """The links that several notes would answer, which are their ``candidates``."""
        return self._links({"state": "ambiguous"})

    def _links(self, conditions: Mapping[str, str | None], *more: str) -> list[Link]:
        given = {name: value for name, value in conditions.items() if value is not None}
        where = " AND ".join((*(f"l.{name} = :{name}" for name in given), *more)) or "1"
        found = self.query(
            f"SELECT {rows.LINK_COLUMNS} FROM {rows.LINK_TABLES} WHERE {where} "
            "ORDER BY l.source, l.span_start, l.id",
            given,
        )
        return [rows.link_from_row(row) for row in found]

    def digest(self) -> Digest:
        """Hashes of all that follows from the vault: equal for equal vaults, however they were ingested.

        Raises:
            CorruptRowError: a row holds text that is no UTF-8.
        """
        from resonance.care.digest import digest

        return digest(self)

    def get_stats(self) -> Stats:
        """Counts and sizes, all of one moment."""
        return read_stats(self._session)

    def get_history(
        self,
        entity_id: str | None = None,
        *,
        entity_type: str | None = None,
        action: str | None = None,
        limit: int | None = None,
    ) -> list[HistoryEntry]:
        """The audit trail, newest first."""
        conditions = {"entity_id": entity_id, "entity_type": entity_type, "action": action}
        given: dict[str, Any] = {name: value for name, value in conditions.items() if value is not None}
        where = " AND ".join(f"{name} = :{name}" for name in given) or "1"
        found = self.query(
            f"SELECT id, entity_type, entity_id, action, old_value, new_value, timestamp FROM history "
            f"WHERE {where} ORDER BY id DESC LIMIT :limit",
            {**given, "limit": -1 if limit is None else limit},
        )
        return [rows.history_from_row(row) for row in found]

    def get_ember_state(self, path: str) -> EmberState | None:
        """What enrichment remembers of a file, or None."""
        found = self.query(
            "SELECT file_path, last_analyzed, sidecar_created, confidence FROM ember_state "
            "WHERE file_path = ?",
            (path,),
        )
        if not found:
            return None
        file_path, analyzed, sidecar, confidence = found[0]
        return EmberState(file_path, analyzed, None if sidecar is None else bool(sidecar), confidence)

    def set_ember_state(
        self,
        path: str,
        *,
        last_analyzed: str | None = None,
        sidecar_created: bool | None = None,
        confidence: float | None = None,
    ) -> None:
        """Remember the state of enrichment of a file; what is None keeps its stored value."""
        with self._session.writing() as writer:
            writer.execute(
                "INSERT INTO ember_state (file_path, last_analyzed, sidecar_created, confidence) "
                "VALUES (?, ?, ?, ?) ON CONFLICT (file_path) DO UPDATE SET "
                "last_analyzed = coalesce(excluded.last_analyzed, last_analyzed), "
                "sidecar_created = coalesce(excluded.sidecar_created, sidecar_created), "
                "confidence = coalesce(excluded.confidence, confidence)",
                (path, last_analyzed, sidecar_created, confidence),
            )

    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Run one SELECT and return all rows.

        Raises:
            ReadOnlyError: the statement would write, or change the connection, which others use too.
        """
        with self._session.reading() as connection:
            return connection.query(sql, parameters)

    # --- transactions -----------------------------------------------------------------------------

    def transaction(self) -> contextlib.AbstractContextManager[_core.Connection]:
        """``with db.transaction():`` commits at the end, or rolls back if the block raises.

        Raises:
            TransactionError: one is open in this thread already; they do not nest.
            LockTimeoutError: other writers did not make way.
        """
        return self._session.transaction()

    def snapshot(self) -> contextlib.AbstractContextManager[_core.Connection]:
        """``with db.snapshot():`` everything this thread reads inside is of one moment."""
        return self._session.snapshot()

    def begin_transaction(self) -> None:
        """Start a write transaction in this thread; see :meth:`transaction`."""
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
        """
        with self._session.snapshot() as connection:
            return backup_connection(connection, os.fspath(dest))

    def replace_with(self, source: _core.Connection, *, before: Callable[[_core.Connection], None]) -> None:
        """Put another database in the place of this one, in one step; readers keep what they read.

        Args:
            source: a connection to the other one, with pages of the same size. Nobody may write to it.
            before: called with this database's connection once nobody else can write any more.
        """
        self._session.replace_with(source, before)

    @contextlib.contextmanager
    def rebuild(self) -> Iterator[ResonanceDB]:
        """``with db.rebuild() as fresh:`` fill ``fresh``, and it takes the place of this database.

        ``fresh`` is an empty scratch database beside this one. When the block ends it is checked, given
        the audit trail and the state of enrichment, and copied over this one in one step: readers keep
        what they read, writers wait, a crash leaves one or the other. If the block raises, nothing has
        happened.

        Raises:
            RegenerateError: ``fresh`` did not pass its check.
        """
        with workshop(Path(self._session.path)) as folder:
            path = folder / "fresh.db"
            with ResonanceDB(path, scratch=True, page_size=self.page_size) as fresh:
                fresh._session.lasts = False
                yield fresh
                with fresh.snapshot() as connection:
                    require_sound(connection)
            put_in_place(self._session, path)

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
    def root(self) -> Path | None:
        """The vault's root: as given; else as the last ingest recorded it, or where it has moved to.

        A database that lies in its vault moves with it.
        """
        if self._root is not None:
            return self._root
        told = dict(
            self.query("SELECT key, value FROM properties WHERE key IN ('vault.root', 'vault.database')")
        )
        if "vault.root" not in told:
            return None
        recorded, path = Path(told["vault.root"]), os.path.realpath(self._session.path)
        tail = f"/{told.get('vault.database', '')}"
        if tail == "/" or not path.endswith(tail) or path == f"{recorded}{tail}":
            return recorded
        moved = Path(path.removesuffix(tail))
        # A copy of the database may lie in a folder that is no vault.
        some = self.query("SELECT path FROM files ORDER BY path LIMIT 20")
        return (
            moved if not recorded.is_dir() or any((moved / name).exists() for (name,) in some) else recorded
        )

    @property
    def is_alone(self) -> bool:
        """Whether nobody else can open it: in memory, or ``scratch``."""
        return self._session.is_alone

    @property
    def page_size(self) -> int:
        """Bytes in a page of the file; settled when it was made."""
        with self._session.reading() as connection:
            return int(connection.execute("PRAGMA page_size")[0][0])

    @property
    def last_hold(self) -> float:
        """Seconds for which the last transaction kept the write lock; 0 before the first one."""
        holds = self._session.holds
        return holds[-1] if holds else 0.0

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
