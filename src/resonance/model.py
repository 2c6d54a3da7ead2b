"""The plain values that go in and come out. Nothing here imports anything else of the package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow

FloatArray = npt.NDArray[np.float32]
JSONObject = Mapping[str, Any]

ContentState = Literal["fresh", "changed", "moved", "missing", "unreadable"]
ContentPolicy = Literal["flag", "raise", "refresh", "drop"]
LinkState = Literal["resolved", "unresolved", "ambiguous", "external"]
LinkMark = Literal["case", "missing", "outside", "page", "backslash"]


@dataclass(slots=True)
class Node:
    """A hollow node: metadata and a vector, never content.

    A field left ``None`` is *not given*: :meth:`ResonanceDB.insert_node` keeps what is stored there.
    To store NULL, hand over a mapping that names the column, or a column of ``None``.

    Attributes:
        id: unique, not empty, no NUL character.
        embedding: shape (d,), float32, unit norm when read back from a database.
        meta: a JSON object.
        date: ISO 8601 text.
    """

    id: str
    type: str | None = None
    title: str | None = None
    domain: str | None = None
    layer: str | None = None
    embedding: FloatArray | None = field(default=None, repr=False, compare=False)
    hash: str | None = None
    meta: JSONObject | None = None
    date: str | None = None
    summary: str | None = None


class Edge(NamedTuple):
    """A directed, typed edge.

    ``confidence`` and ``veracity`` are meant to lie in [0, 1]; any finite number is stored.
    """

    source: str
    target: str
    type: str = "related_to"
    confidence: float = 1.0
    veracity: float = 1.0
    context_source: str | None = None


class Link(NamedTuple):
    """One occurrence of a link in the vault: a row of the link ledger.

    ``source`` is the id of the note that holds it and ``path`` its file; ``start`` and ``end`` are byte
    offsets in that file (all None where the link came from elsewhere); ``raw`` is the text as written,
    ``name`` what it asks for, ``fragment`` the heading path or ``^block`` behind its ``#``; ``target``
    is a node id when ``state`` is ``resolved``; ``candidates`` are node ids when it is ``ambiguous``, the
    nearest first; ``type`` is the type of the edge it makes when it resolves.

    ``mark`` is what else there is to know: ``case`` (it fits only if the case of letters is ignored),
    ``missing`` (a file that is no note, and not there), ``outside`` (a path out of the vault's root),
    ``page`` (a page of Logseq without a file), ``backslash`` (with ``/`` for ``\\`` it would fit).
    """

    source: str
    kind: str
    raw: str
    name: str
    state: LinkState
    target: str | None = None
    candidates: tuple[str, ...] = ()
    type: str = "CITES"
    start: int | None = None
    end: int | None = None
    fragment: str | None = None
    path: str | None = None
    mark: LinkMark | None = None

    @property
    def is_broken(self) -> bool:
        """Whether it leads nowhere, to a file that is not there, or to several notes."""
        return self.state in ("unresolved", "ambiguous") or self.mark == "missing"


class Anchor(NamedTuple):
    """The place within a note that a link names behind its ``#``.

    ``state`` is ``found``; ``missing``, where the note has no such heading or block; or ``unknown``, where
    its file cannot be read or is not the one that was indexed. ``section`` is the id of the section it is
    in, None where the note has none; ``start`` its byte offset in the file.
    """

    state: Literal["found", "missing", "unknown"]
    section: str | None = None
    start: int | None = None


class Rank(NamedTuple):
    """The place of a node in one of the lists that a search was put together from; ``rank`` begins at 1."""

    rank: int
    score: float


class Hit(NamedTuple):
    """One answer of a search. A higher ``score`` is better.

    Of a search by vector the score is the cosine similarity, in [-1, 1] to within 1e-7, as stored vectors
    are of unit length; by text, BM25; of a hybrid search what fusing the two gave, or what the reranker said.

    Attributes:
        id: the node; the document where hits are grouped by document.
        path: its file, or that of the document it is a section of.
        content: the text as it is now, if the search was asked to hydrate; of the section if there is one.
        section: the section that scored, if it was one: the node itself, or the best one of the document.
        heading: its heading path, outermost first; span: its place in the file, in bytes; document: whose
            section it is.
        ranks: of a hybrid search, the node's place in each list that held it.
    """

    id: str
    score: float
    title: str | None = None
    path: str | None = None
    content: Content | None = None
    section: str | None = None
    heading: tuple[str, ...] = ()
    span: tuple[int, int] | None = None
    document: str | None = None
    ranks: Mapping[str, Rank] | None = None


class Text(NamedTuple):
    """What the full-text index is given of a node.

    ``names`` are other names of it, such as aliases and tags; ``headings`` those in its body; ``hash``
    is the hash of the node whose text this is. None of it is stored, only the words it is found by.
    """

    id: str
    body: str
    title: str = ""
    names: str = ""
    headings: str = ""
    hash: str | None = None


class Explain(NamedTuple):
    """What a search did.

    ``path``: ``"resident"`` (codes in memory), ``"stream"`` (rows read from the database) or ``"backend"``
    (another engine was asked); ``rows``: with a vector; ``passed``: the filter; ``scored``: exactly, the
    others were out by their bounds; ``seconds``: by stage. For a matrix of queries they are sums over all
    of them. ``cache``: what became of the file that ``vector_cache`` asks for, or why it is not used; None
    if nobody asks.
    """

    path: str
    rows: int
    passed: int
    scored: int
    seconds: Mapping[str, float]
    cache: str | None = None


class WhyNot(NamedTuple):
    """What keeps a node from being found.

    ``reason``: ``found``, ``unknown`` (no such node), ``no vector``, ``filtered`` (``detail`` names the
    condition), ``below min_score`` or ``beyond k``. ``score`` is its own, ``rank`` its place (from 1)
    among the nodes that pass the filter, ``kth`` the score of the last hit.
    """

    reason: str
    detail: str | None = None
    score: float | None = None
    rank: int | None = None
    kth: float | None = None


class Hits(list[Hit]):
    """Answers of a search, best first, and how they came about.

    Attributes:
        explain: set where it was asked for.
        lists: what was asked in a search by text: ``"text"``, ``"vector"``, or both.
        notes: what that answer does without, and why; empty when all went as asked.
        reranked: whether a reranker had the last word.
    """

    explain: Explain | None = None
    lists: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    reranked: bool = False


class Names(Protocol):
    """Texts as they came from the database, of which no ``str`` has been made yet."""

    def to_list(self) -> list[str]: ...
    def buffers(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]: ...


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingMatrix:
    """Ids and their vectors, row by row; ``ids, vectors = matrix`` unpacks it.

    Attributes:
        names: the ids as UTF-8, from which :attr:`ids` are made and which :meth:`to_arrow` hands over.
        vectors: (n, d) float32, C-contiguous; rows as they are stored: of unit norm, unless another
            program wrote them, which the doctor tells.
    """

    names: Names
    vectors: FloatArray

    @property
    def ids(self) -> list[str]:
        """The ids: a list that is made when first asked for, and the same one from then on."""
        return self.names.to_list()

    def __len__(self) -> int:
        return len(self.vectors)

    def __iter__(self) -> Iterator[Any]:
        yield self.ids
        yield self.vectors

    def to_arrow(self) -> pyarrow.Table:
        """A pyarrow table of ``id`` and ``embedding`` (FixedSizeList<float32>), without copying vectors.

        Of a database that has never had a vector it is an empty one, with lists of any length.
        """
        from resonance.arrow import matrix_table

        return matrix_table(self)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.to_arrow().__arrow_c_stream__(requested_schema)


class Content(NamedTuple):
    """The text of a node, read from its file now.

    ``state`` tells how it relates to what was indexed: ``fresh`` (the same bytes), ``changed``,
    ``moved`` (the same bytes at ``path``, which is not where they were indexed), ``missing`` or
    ``unreadable``. ``text`` is None for the last two, and ``reason`` says why. ``span`` is the byte
    range of ``text`` within the file.
    """

    id: str
    text: str | None
    state: ContentState
    path: str | None
    span: tuple[int, int] | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Digest:
    """What a database says about its vault, in hashes: SHA-256, in hex.

    Attributes:
        root: of everything: the same vault, embedded by the same model, has the same root, whatever
            the machine, the order and the history.
        graph: of nodes, edges and the ledger of links; vectors: of the texts that have a vector.
        leaves: id -> hash of each node, with its edges and links; in the order of ids.
        documents: path -> hash of the node of each file.
        version: of the algorithm, which the head of ``resonance.care.digest`` describes.
    """

    root: str
    graph: str
    vectors: str
    leaves: Mapping[str, str] = field(repr=False)
    documents: Mapping[str, str] = field(repr=False)
    version: int = 1


class HistoryEntry(NamedTuple):
    """One row of the audit trail. Order is by ``id``: clocks can go back, rowids do not."""

    id: int
    entity_type: str
    entity_id: str
    action: str
    old_value: JSONObject | None
    new_value: JSONObject | None
    timestamp: str | None


class EmberState(NamedTuple):
    """What automated enrichment remembers of a file."""

    file_path: str
    last_analyzed: str | None = None
    sidecar_created: bool | None = None
    confidence: float | None = None


class Space(NamedTuple):
    """The identity of an embedding model. Vectors of two spaces are never compared."""

    name: str
    dims: int
    revision: str = ""
    normalisation: str = "unit"


class SpaceInfo(NamedTuple):
    """A space and what is stored of it.

    Attributes:
        active: whether these are the vectors in the nodes, which a search finds.
        vectors: how many there are, those out of date not counted.
        missing: nodes that want a vector of it and have none that is up to date: those that have one in
            the active space, and every note and section of a vault.
        outdated: those of the missing that have one, which was made from another text.
    """

    space: Space
    active: bool
    vectors: int
    missing: int
    outdated: int

    @property
    def is_complete(self) -> bool:
        """Whether no vector is missing."""
        return self.missing == 0


@dataclass(frozen=True, slots=True)
class MissingVectors:
    """Nodes without an up-to-date vector in a space, in the order of their ids.

    ``stamps`` say what is to be embedded: handed back with the vectors, they keep one from being stored
    for a node that has changed in between.
    """

    ids: list[str]
    stamps: list[str | None]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class InsertReport:
    """What became of the rows handed over: ``rows = inserted + updated + unchanged + skipped``.

    ``stubbed`` counts nodes made for edges that had none; ``zero_vectors`` counts rows whose vector
    was all zeros and was stored as NULL; ``problems`` holds (row, reason) for the first 20 rows skipped.
    """

    rows: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    stubbed: int = 0
    zero_vectors: int = 0
    problems: tuple[tuple[int, str], ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts and sizes; ``sections`` are among the ``nodes``, ``other_vectors`` are of spaces not active.

    Times are seconds; ``*_p99`` are over the last 1,024 write transactions.
    """

    nodes: int
    sections: int
    edges: int
    vectors: int
    db_size_bytes: int
    semantic_tokens: int
    links: Mapping[str, int]
    types: Mapping[str, int]
    space: Space | None
    other_vectors: int
    wal_size_bytes: int
    writes: int
    lock_wait_p50: float
    lock_wait_p99: float
    lock_hold_p50: float
    lock_hold_p99: float


class Checkpoint(NamedTuple):
    """``busy``: a reader kept frames back; ``log`` and ``checkpointed`` count WAL frames."""

    busy: bool
    log: int
    checkpointed: int


class Problem(NamedTuple):
    """A file that could not be indexed, and why. ``line`` is 1-based, or None for the whole file."""

    path: str
    line: int | None
    reason: str


class Finding(NamedTuple):
    """One result of a health check. ``level`` is ``ok``, ``info``, ``warning`` or ``error``."""

    check: str
    level: Literal["ok", "info", "warning", "error"]
    message: str


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What :func:`perform_health_check` saw. ``ok`` is False when any finding is an error."""

    path: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return all(finding.level != "error" for finding in self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)
