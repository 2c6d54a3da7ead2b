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

import functools
import hashlib
import heapq
import itertools
import json
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any

from resonance._core import Connection
from resonance.model import Digest
from resonance.questions import Questions

VERSION = 1

_FIRST = itemgetter(0)

_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode

# SQLite writes texts and whole numbers as JSON the way Python does, and sooner; it does not write every
# float so, nor the keys of objects in order: those values come beside the line, to be put at its end.
_LINES = (
    "SELECT id, json_array('node', id, type, title, domain, layer, hash, NULL, date, summary) "
    "FROM nodes AS n WHERE meta IS NULL AND "
    "NOT EXISTS (SELECT 1 FROM files AS f WHERE f.node = n.id) ORDER BY id",
    "SELECT node, json_array('file', path, hash, body_hash) FROM files ORDER BY node",
    "SELECT source, json_array('edge', source, target, type, 1.0, 1.0, context_source) FROM edges "
    "WHERE confidence = 1 AND veracity = 1 ORDER BY source",
)
_BEGINNINGS = (
    "SELECT source, json_array('link', source, kind, type, raw, name, fragment, span_start, span_end, state, "
    "target, mark), candidates FROM links ORDER BY source",
    "SELECT node, json_array('section', document, ordinal, span_start, span_end, hash, text_hash), heading "
    "FROM sections ORDER BY node",
)
_OTHER_EDGES = (
    "SELECT source, target, type, confidence, veracity, context_source FROM edges "
    "WHERE (confidence = 1 AND veracity = 1) IS NOT TRUE ORDER BY source"
)
_OTHER_NODES = (
    "SELECT n.id, n.type, n.title, n.domain, n.layer, n.hash, n.meta, n.date, n.summary, f.path IS NOT NULL "
    "FROM nodes AS n LEFT JOIN files AS f ON f.node = n.id "
    "WHERE n.meta IS NOT NULL OR f.path IS NOT NULL ORDER BY n.id"
)
_DOCUMENTS = "SELECT node, path FROM files"
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
            node_id: _leaf(itertools.chain.from_iterable(lines for _, lines in found))
            for node_id, found in itertools.groupby(_lines(connection), key=_FIRST)
        }
        space = connection.execute(_SPACE)
        vectors = [
            _leaf(
                [_line("vector", node_id, list(space[0]) if space else None, text or f"bytes:{_hash(blob)}")]
            )
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


def _lines(connection: Connection) -> Iterator[tuple[str, list[str]]]:
    """Every node's lines of one table after the other, in the order of ids."""
    tables: list[Iterable[tuple[str, str]]] = [connection.prepare(sql) for sql in _LINES]
    tables += [_ended(connection.prepare(sql)) for sql in _BEGINNINGS]
    tables.append((row[0], _line("edge", *row)) for row in connection.prepare(_OTHER_EDGES))
    tables.append((row[0], _node(*row)) for row in connection.prepare(_OTHER_NODES))
    return heapq.merge(*map(_by_node, tables), key=_FIRST)


def _by_node(rows: Iterable[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    for node_id, found in itertools.groupby(rows, key=_FIRST):
        yield node_id, [line for _, line in found]


def _ended(rows: Iterable[tuple[str, str, str | None]]) -> Iterator[tuple[str, str]]:
    """Lines of which the last value, a list as JSON, is still to be added."""
    for node_id, line, last in rows:
        yield node_id, f"{line[:-1]},{'null' if last is None else _canonical(last)}]"


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
    told = [meta.get(key) for key in keys] if isinstance(meta, dict) else []
    return stored if any(" ".join(str(value).split()) == stored for value in told) else None


@functools.lru_cache(maxsize=1024)
def _canonical(text: str) -> str:
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
