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
import heapq
import itertools
import json
from collections.abc import Iterable, Iterator
from math import isfinite
from typing import Any

from resonance._core import Connection
from resonance.model import Digest
from resonance.questions import Questions

VERSION = 1

_quoted = json.encoder.encode_basestring
_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode

_NODES = (
    "SELECT n.id, n.type, n.title, n.domain, n.layer, n.hash, n.meta, n.date, n.summary, f.path IS NOT NULL "
    "FROM nodes AS n LEFT JOIN files AS f ON f.node = n.id ORDER BY n.id"
)
_FILES = "SELECT node, path, hash, body_hash FROM files ORDER BY node"
_EDGES = "SELECT source, target, type, confidence, veracity, context_source FROM edges ORDER BY source"
_LINKS = (
    "SELECT source, kind, type, raw, name, fragment, span_start, span_end, state, target, mark, candidates "
    "FROM links ORDER BY source"
)
_SECTIONS = (
    "SELECT node, document, ordinal, span_start, span_end, hash, text_hash, heading "
    "FROM sections ORDER BY node"
)
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
        leaves = {
            node_id: _leaf(line for _, line in lines)
            for node_id, lines in itertools.groupby(_lines(connection), key=lambda pair: pair[0])
        }
        space = connection.execute(_SPACE)
        vectors = [
            _leaf(
                [_line("vector", node_id, list(space[0]) if space else None, text or f"bytes:{_hash(blob)}")]
            )
            for node_id, text, blob in connection.prepare(_VECTORS)
        ]
        documents = {path: leaves[node] for node, path, *_ in connection.prepare(_FILES)}
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


def _lines(connection: Connection) -> Iterator[tuple[str, bytes]]:
    """Every line and the id of its node, in the order of ids."""
    nodes = ((row[0], _node(*row)) for row in connection.prepare(_NODES))
    files = ((node, _line("file", *values)) for node, *values in connection.prepare(_FILES))
    edges = ((row[0], _line("edge", *row)) for row in connection.prepare(_EDGES))
    links = ((row[0], _with_list("link", *row)) for row in connection.prepare(_LINKS))
    sections = ((node, _with_list("section", *values)) for node, *values in connection.prepare(_SECTIONS))
    return heapq.merge(nodes, files, edges, links, sections, key=lambda pair: pair[0])


def _node(node_id: str, *values: Any) -> bytes:
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
    told = [meta.get(key) for key in keys] if isinstance(meta, dict) else []
    return stored if any(" ".join(str(value).split()) == stored for value in told) else None


def _with_list(*values: Any) -> bytes:
    """A line whose last value is a list, stored as JSON."""
    *columns, last = values
    return _line(*columns, _parsed(last))


def _parsed(text: str | None) -> Any:
    """A JSON text as a value, so that neither spaces nor the order of keys count."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return f"no JSON: {text}"


def _line(*values: Any) -> bytes:
    # As json.dumps of them all, in a third of the time.
    return f"[{','.join(map(_told, values))}]".encode()


def _told(value: Any) -> str:
    kind = value.__class__
    if kind is str:
        return _quoted(value)
    if value is None:
        return "null"
    return repr(value) if kind is int or (kind is float and isfinite(value)) else _encode(value)


def _leaf(lines: Iterable[bytes]) -> str:
    return _hash(b"\0" + b"".join(line + b"\n" for line in sorted(lines)))


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
