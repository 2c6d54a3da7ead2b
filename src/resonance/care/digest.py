"""The digest of what a vault has made of a database: equal for equal vaults, whatever the way there.

Version 1. What is hashed is text, UTF-8, and SHA-256 makes every hash:

- A *line* is a JSON array without spaces, the keys of objects sorted, characters as they are: the name
  of a table, then values of one row. ``["node", id, type, title, domain, layer, hash, meta, date,
  summary]``, with ``meta`` parsed; ``["file", path, hash, body_hash]``; ``["edge", source, target, type,
  confidence, veracity, context_source]``; ``["link", source, kind, type, raw, name, fragment, start, end,
  state, target, mark, candidates]``, with ``candidates`` parsed; ``["section", document, ordinal, start,
  end, hash, text_hash, heading]``, with ``heading`` parsed.
- A *leaf* is one node: the hash of a zero byte and the lines of its row, its file, its section, the
  edges from it and the links in it, sorted, a newline behind each.
- *graph* is the root of the Merkle tree over the leaves in the order of their ids, as RFC 6962 makes
  it: a pair is the hash of a byte 1 and both hashes, a last one without a partner moves up as it is,
  and no leaves at all have the hash of nothing.
- *vectors* is the same over a leaf for each vector, ``["vector", id, [name, dims, revision,
  normalisation], text]``: the space and the hash of the text, not the floats, because the last bits of
  those depend on the machine and the batch they were computed in. Where no text is known, the vector
  was handed over as floats, and ``text`` is ``"bytes:"`` and their hash.
- *root* is the hash of ``resonance digest 1``, ``graph`` and ``vectors``, a newline behind each.

Not in it: row numbers, times, sizes and inodes of files, the root's path, the audit trail, the state of
enrichment. A date or summary of a note that its frontmatter does not tell was written by somebody
else; it is left out, too.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any

from resonance._core import Connection
from resonance.model import Digest
from resonance.questions import Questions

VERSION = 1

_FIRST = itemgetter(0)
_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode
# A list of texts without escapes is canonical up to the spaces between them.
_PLAIN_LIST = re.compile(r'\["[^"\\\x00-\x1f]*"(?:, ?"[^"\\\x00-\x1f]*")*\]')

# SQLite writes texts and whole numbers as JSON the way Python does, and sooner; it does not write every
# float so, nor the keys of objects in order: those values come beside the line, to be put at its end.
_NODES = (
    "SELECT n.id, CASE WHEN n.meta IS NULL AND f.path IS NULL THEN "
    "json_array('node', n.id, n.type, n.title, n.domain, n.layer, n.hash, NULL, n.date, n.summary) END, "
    "n.type, n.title, n.domain, n.layer, n.hash, n.meta, n.date, n.summary, f.path IS NOT NULL, "
    "CASE WHEN f.path IS NOT NULL THEN json_array('file', f.path, f.hash, f.body_hash) END, "
    "CASE WHEN s.id IS NOT NULL THEN json_array('section', s.document, s.ordinal, s.span_start, s.span_end, "
    "s.hash, s.text_hash) END, s.heading "
    "FROM nodes AS n LEFT JOIN files AS f ON f.node = n.id LEFT JOIN sections AS s ON s.node = n.id "
    "ORDER BY n.id"
)
# No line holds a newline, which is what stands between them here.
_EDGES = (
    "SELECT source, group_concat(json_array("
    "'edge', source, target, type, 1.0, 1.0, context_source), char(10)) FROM edges "
    "WHERE confidence = 1 AND veracity = 1 GROUP BY source ORDER BY source"
)
_OTHER_EDGES = (
    "SELECT source, target, type, confidence, veracity, context_source FROM edges "
    "WHERE (confidence = 1 AND veracity = 1) IS NOT TRUE ORDER BY source"
)
_LINK = (
    "json_array('link', source, kind, type, raw, name, fragment, span_start, span_end, state, target, mark"
)
_LINKS = (
    f"SELECT source, group_concat({_LINK}, NULL), char(10)) FROM links "
    "WHERE candidates IS NULL GROUP BY source ORDER BY source"
)
_OTHER_LINKS = f"SELECT source, {_LINK}), candidates FROM links WHERE candidates IS NOT NULL ORDER BY source"
_DOCUMENTS = "SELECT f.node, f.path FROM files AS f JOIN nodes AS n ON n.id = f.node"
_VECTORS = (
    "SELECT id, text, CASE WHEN text IS NULL THEN embedding END FROM (SELECT n.id, n.embedding, "
    "coalesce(f.body_hash, s.text_hash) AS text FROM nodes AS n LEFT JOIN files AS f ON f.node = n.id "
    "LEFT JOIN sections AS s ON s.node = n.id WHERE n.embedding IS NOT NULL) ORDER BY id"
)
_SPACE = "SELECT name, dims, revision, normalisation FROM spaces WHERE active = 1"


def digest(db: Questions) -> Digest:
    """The digest of what ``db`` holds now, all of one moment; see the head of this module.

    Raises:
        CorruptRowError: a row holds text that is no UTF-8.
    """
    with db.snapshot() as connection:
        return digest_of(connection)


def digest_of(connection: Connection) -> Digest:
    """As :func:`digest`, of what a connection sees; nobody may write meanwhile."""
    leaves = dict(_leaves(connection))
    space = connection.execute(_SPACE)
    vectors = [
        _leaf([_line("vector", node_id, list(space[0]) if space else None, text or f"bytes:{_hash(blob)}")])
        for node_id, text, blob in connection.prepare(_VECTORS)
    ]
    documents = {path: leaves[node] for node, path in connection.prepare(_DOCUMENTS)}
    graph, of_vectors = merkle_root(leaves.values()), merkle_root(vectors)
    root = _hash(f"resonance digest {VERSION}\n{graph}\n{of_vectors}\n".encode())
    return Digest(root, graph, of_vectors, leaves, documents, VERSION)


def merkle_root(leaves: Iterable[str]) -> str:
    """The root of the tree over some hashes, in hex, as RFC 6962 has it (section 2.1)."""
    level = [bytes.fromhex(leaf) for leaf in leaves]
    if not level:
        return _hash(b"")
    while len(level) > 1:
        pairs = itertools.zip_longest(level[::2], level[1::2])
        level = [hashlib.sha256(b"\1" + a + b).digest() if b is not None else a for a, b in pairs]
    return level[0].hex()


def _leaves(connection: Connection) -> Iterator[tuple[str, str]]:
    """Every node's id and leaf, in the order of ids."""
    edges = _Beside(connection, _EDGES, _OTHER_EDGES)
    links = _Beside(connection, _LINKS, _OTHER_LINKS)
    sha256 = hashlib.sha256
    for node_id, node, *columns, file, section, heading in connection.prepare(_NODES):
        # Lines of one table sort together, and the tables in the order in which they stand here.
        text = "\0"
        if edges.at is not None and edges.at <= node_id:
            text += edges.of(node_id)
        if file is not None:
            text += f"{file}\n"
        if links.at is not None and links.at <= node_id:
            text += links.of(node_id)
        text += f"{_node(node_id, *columns) if node is None else node}\n"
        if section is not None:
            text += f"{_ended(section, heading)}\n"
        yield node_id, sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class _Beside:
    """Lines that belong to nodes, asked for in the order of ids: those that SQLite makes, and the others.

    Attributes:
        at: the first node that there are lines of, among those not asked for; None behind the last one.
    """

    def __init__(self, connection: Connection, whole: str, others: str) -> None:
        self._wholes = iter(connection.prepare(whole))
        self._others = itertools.groupby(connection.prepare(others), key=_FIRST)
        self._whole, self._other = next(self._wholes, None), next(self._others, None)
        self.at = self._first()

    def of(self, node_id: str) -> str:
        """The lines of a node, sorted, a newline behind each."""
        lines: list[str] = []
        while (whole := self._whole) is not None and whole[0] <= node_id:
            if whole[0] == node_id:
                lines = whole[1].split("\n")
            self._whole = next(self._wholes, None)
        while (other := self._other) is not None and other[0] <= node_id:
            if other[0] == node_id:
                lines += [_other(*row) for row in other[1]]
            self._other = next(self._others, None)
        # Most tables have no others, or none any more.
        self.at = self._first() if self._other is not None else None if whole is None else whole[0]
        if len(lines) > 1:
            lines.sort()  # code points sort as their UTF-8 does
        return "\n".join((*lines, "")) if lines else ""

    def _first(self) -> str | None:
        whole, other = self._whole, self._other
        if whole is None or other is None:
            row = whole or other
            return None if row is None else str(row[0])
        return str(min(whole[0], other[0]))


def _node(node_id: str, *values: Any) -> str:
    *columns, meta_text, date, summary, has_file = values
    meta = _parsed(meta_text)
    if has_file:
        date, summary = (
            told_by(meta, date, "date", "created"),
            told_by(meta, summary, "summary", "description"),
        )
    return _line("node", node_id, *columns, meta, date, summary)


def told_by(meta: Any, stored: str | None, *keys: str) -> str | None:
    """A date or summary, if the metadata says the same under one of some keys; else None."""
    if stored is None or not isinstance(meta, dict):
        return None
    told = [meta.get(key) for key in keys]
    return stored if any(" ".join(str(value).split()) == stored for value in told) else None


def _other(node_id: str, *values: Any) -> str:
    """The line of a row of ``_OTHER_EDGES`` or ``_OTHER_LINKS``."""
    return _ended(*values) if len(values) == 2 else _line("edge", node_id, *values)


def _ended(line: str, last: str) -> str:
    """A line of which the last value, a list as JSON, is still to be added."""
    return f"{line[:-1]},{_canonical(last)}]"


def _canonical(text: str) -> str:
    if _PLAIN_LIST.fullmatch(text):
        return text.replace('", "', '","')
    return _encode(_parsed(text))


def _parsed(text: str | None) -> Any:
    """A JSON text as a value, so that neither spaces nor the order of keys count."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return f"no JSON: {text}"


def _line(*values: Any) -> str:
    return _encode(values)


def _leaf(lines: Iterable[str]) -> str:
    # Code points sort as their UTF-8 does.
    return _hash(b"\0" + "".join([line + "\n" for line in sorted(lines)]).encode())


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
