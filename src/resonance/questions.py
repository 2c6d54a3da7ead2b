"""What can be asked of a database: everything that only reads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, cast, overload

import numpy.typing as npt

from resonance import _core, arrow, matrix, rows, spaces
from resonance.errors import InputError
from resonance.model import (
    Anchor,
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
    Link,
    LinkState,
    Node,
    Space,
    Stats,
    WhyNot,
)
from resonance.rows import NODE_COLUMNS
from resonance.search import hybrid
from resonance.search import text as fulltext
from resonance.search.backend import Backend, Backends
from resonance.search.cache import VectorCache
from resonance.search.exact import Memory, Options, Question, search
from resonance.search.filters import Filter, GroupBy, Where, count_of
from resonance.search.index import VectorIndex
from resonance.search.why import why_not
from resonance.session import Session
from resonance.stats import read_stats

if TYPE_CHECKING:
    import pyarrow

    from resonance.database import ResonanceDB
    from resonance.vault.embed import Embedder

_WITHOUT_EMBEDDING = tuple(name for name in NODE_COLUMNS if name != "embedding")


class Questions:
    """The half of :class:`ResonanceDB` that reads; any thread may ask, each sees a snapshot of its own."""

    def __init__(self, path: str, session: Session, root: Path | None, vector_cache: bool = False) -> None:
        self.path = path
        self._root = root
        self._session = session
        cache = VectorCache(session) if vector_cache and not session.is_alone else None
        self._index = VectorIndex(session, cache)
        self._backends = Backends(session)
        self._embedder: Embedder | None = None

    # --- rows --------------------------------------------------------------------------------------

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
        if max_degree is not None:
            max_degree = count_of(max_degree, "max_degree")
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

    # --- columns -----------------------------------------------------------------------------------

    def embeddings(self, *, domain: str | None = None, type: str | None = None) -> EmbeddingMatrix:
        """All vectors as one matrix, in storage order; nodes without a vector are left out.

        Raises:
            CorruptRowError: a stored vector has another width than the space.
        """
        return matrix.read_all(self._session, Filter(domain=domain, type=type))

    def iter_embeddings(self, batch_size: int = 4096) -> Iterator[EmbeddingMatrix]:
        """The vectors in pieces of at most ``batch_size`` rows, each in memory of its own.

        Each piece is a fresh look at the database, so that no snapshot is kept for the length of the
        loop: rows written meanwhile may or may not be seen, rows that stay are seen once. Inside
        :meth:`snapshot` all are of one moment.

        Raises:
            SpaceError: another space has become the active one since the first piece.
            ResonanceError: the database has been rebuilt or restored since.
            CorruptRowError: a stored vector has another width than the space.
        """
        return matrix.read_pieces(self._session, count_of(batch_size, "batch_size", least=1))

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
            CorruptRowError: a stored vector has another width than the space, or a text is not UTF-8.
        """
        with self._session.snapshot() as connection:
            chosen = Filter(domain=domain, type=type, layer=layer)
            return arrow.read_table(connection, table, chosen, spaces.width(connection))

    # --- search ------------------------------------------------------------------------------------

    @property
    def space(self) -> Space | None:
        """The embedding space the vectors belong to; None before the first one."""
        found = self.query("SELECT name, dims, revision, normalisation FROM spaces WHERE active = 1")
        return Space(*found[0]) if found else None

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
        space: Space | str | None = None,
    ) -> Any:
        """The ``k`` nearest nodes by cosine similarity, exactly; ties are ordered by id.

        Args:
            query: a vector (d,), or a matrix (q, d) for q answers. It need not be of unit length.
            domain, type, layer, ids: only nodes that match; evaluated before scoring.
            where: only nodes for which this condition in SQL over the columns of ``nodes`` holds; values
                belong into parameters: ``where=("date >= ?", ["2026-01-01"])``, and one that stands in
                several places is a ``:name``, its value given where it stands first. The first search with it
                reads all nodes, the next ones do not as long as nobody commits.
            min_score: leave out what is less similar.
            hydrate: put the text of each hit's node, with its state, into ``hit.content``; True, or a
                policy as :meth:`content_many` takes it. ``"drop"`` leaves such hits out of the answer.
            after: the last hit of the page before, or its (score, id): go on behind it.
            mmr: from 0 (diverse) to 1 (near): choose among the nearest such that they differ. Such answers
                have no further pages.
            memory: ``"resident"`` keeps int8 codes of all vectors, a good quarter of their bytes, from the
                first search on, and follows what anybody writes; ``"stream"`` reads the database each
                time. The answers are the same.
            group_by: ``"document"``: one hit for each document, with the score of the best of it and its
                sections; conditions are then about the document, and ``hit.section`` is the best section.
            backend: another engine that says which rows are nearest; see :class:`resonance.search.Backend`.
                Their scores are exact, whether they are all there is up to it. Inside a transaction, and
                with ``"stream"``, it is not asked.
            explain: set ``explain`` of the hits.
            space: the space the query is of, by identity, name, or ``name@revision``; None for the active
                one. Another is read from the database each time; of it, only what is up to date is found.

        Returns:
            :class:`Hits`, best first; a list of them for a matrix.

        Raises:
            EmbeddingError: the query is not finite, all zeros, or not as wide as the space.
            SpaceError: ``space`` is not there, or the query is of another.
            InputError: what is wrong with another argument.
            CorruptRowError: a stored vector is not one of this space.
            BackendError: the backend failed.
            ContentError: with ``hydrate``, no root is known, or as the policy says.
        """
        chosen = Filter(domain=domain, type=type, layer=layer, ids=ids, where=where)
        question = Question(
            query, k, chosen, min_score=min_score, after=after, mmr=mmr, group_by=group_by, space=space
        )
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
                their new order, without those to leave out. What it raises is raised. With ``hydrate``
                the hits carry their text.
            conditions: ``domain``, ``type``, ``layer``, ``ids``, ``where``, ``group_by``, as for
                :meth:`search`.

        Returns:
            :class:`Hits`. ``lists`` says which lists there were, ``notes`` why one is missing (no model,
            no vectors, no text index), ``reranked`` whether a reranker was asked.

        Raises:
            TextSearchError: there is neither list.
            EmbeddingError: the vector that was given is not one, or not of this space.
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
        return self._embedded(text)[0]

    def _embedded(self, text: str) -> tuple[FloatArray, Space]:
        """The vector of a text, and the space it is of: another one may be active a moment later."""
        from resonance.vault.embed import embedder_of, question_vector

        embedder = self._embedder
        if embedder is None or embedder.space != self.space:
            self._embedder = embedder = embedder_of(self)
        return question_vector(embedder, text), embedder.space

    def why_not(self, id: str, query: Any, k: int = 10, **conditions: Any) -> WhyNot:
        """Why a search with these arguments does not find a node, or at which rank it does.

        Args:
            query: a vector (d,).
            conditions: ``domain``, ``type``, ``layer``, ``ids``, ``where``, ``min_score``.
        """
        return why_not(self._session, id, query, k, conditions)

    # --- texts -------------------------------------------------------------------------------------

    def hydrate(self, found: Any, policy: ContentPolicy | Literal[True] = "flag") -> Any:
        """Give hits their contents, in place; returns them. Of a node that is gone by now it is ``missing``.

        Args:
            found: :class:`Hits`, or a list of them.
            policy: as :meth:`content_many` takes it; True for ``"flag"``.
        """
        from resonance.vault.hydrate import hydrate_nodes

        answers: list[Hits] = [found] if isinstance(found, Hits) else found
        ids = list(dict.fromkeys(hit.section or hit.id for hits in answers for hit in hits))
        how: ContentPolicy = "flag" if policy is True else policy
        read = hydrate_nodes(cast("ResonanceDB", self), ids, how, root=self._root, there=False)
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

        found = hydrate_nodes(cast("ResonanceDB", self), [id], policy, root=self._root, strict=True)
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

        return hydrate_nodes(cast("ResonanceDB", self), ids, policy, root=self._root)

    # --- links -------------------------------------------------------------------------------------

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

    def anchors(self, links: Sequence[Link]) -> list[Anchor | None]:
        """Which place of its note each link names (``[[note#Heading]]``), read from the files now.

        None for links that name none, or lead to no note.
        """
        from resonance.vault.anchors import find_anchors

        return find_anchors(cast("ResonanceDB", self), links, self._root)

    def _links(self, conditions: Mapping[str, str | None], *more: str) -> list[Link]:
        given = {name: value for name, value in conditions.items() if value is not None}
        where = " AND ".join((*(f"l.{name} = :{name}" for name in given), *more)) or "1"
        found = self.query(
            f"SELECT {rows.LINK_COLUMNS} FROM {rows.LINK_TABLES} WHERE {where} "
            "ORDER BY l.source, l.span_start, l.id",
            given,
        )
        return [rows.link_from_row(row) for row in found]

    # --- what is known of the whole ----------------------------------------------------------------

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
    def page_size(self) -> int:
        """Bytes in a page of the file; settled when it was made."""
        with self._session.reading() as connection:
            return int(connection.execute("PRAGMA page_size")[0][0])

    # --- anything else -----------------------------------------------------------------------------

    def snapshot(self) -> contextlib.AbstractContextManager[_core.Connection]:
        """``with db.snapshot():`` everything this thread reads inside is of one moment."""
        return self._session.snapshot()

    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Run one SELECT and return all rows.

        Raises:
            ReadOnlyError: the statement would write, or change the connection, which others use too.
        """
        with self._session.reading() as connection:
            return connection.query(sql, parameters)
