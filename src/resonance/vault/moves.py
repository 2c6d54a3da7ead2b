"""Files that are not gone but elsewhere, and ids that change: a node keeps all it has under its new id."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from posixpath import basename
from typing import TYPE_CHECKING, NamedTuple

from resonance.errors import ContentError
from resonance.history import History
from resonance.vault.note import file_hash
from resonance.vault.root import Root
from resonance.vault.scan import FoundFile

if TYPE_CHECKING:
    from resonance._core import Connection
    from resonance.vault.store import KnownFile


class Move(NamedTuple):
    """A note before and after: its path, its id, or both are other ones."""

    old_path: str
    old_node: str
    path: str
    node: str


def find_moves(root: Root, gone: Iterable[KnownFile], new: Iterable[FoundFile]) -> dict[str, str]:
    """Which of the new files are those that are gone, by their bytes: new path -> old path.

    Of several with the same bytes those belong together that are one file on the disk, then those of the
    same name, the others in the order of their paths. Empty files are the same only if they have the same
    name.
    """
    by_hash: defaultdict[str, list[KnownFile]] = defaultdict(list)
    sizes = set()
    for known in gone:
        if known.hash:
            by_hash[known.hash].append(known)
            sizes.add(known.size)
    moves: dict[str, str] = {}
    candidates = [
        (file, digest) for file in sorted(new) if file.size in sizes and (digest := _hash(root, file))
    ]
    for alike in (_same_file, _same_name, _not_empty):
        for file, digest in candidates:
            fitting = [known for known in by_hash.get(digest, ()) if alike(known, file)]
            if fitting and file.path not in moves:
                found = min(fitting)
                moves[file.path] = found.path
                by_hash[digest].remove(found)
    return moves


def _same_file(known: KnownFile, file: FoundFile) -> bool:
    return known.inode == file.inode and file.size > 0


def _same_name(known: KnownFile, file: FoundFile) -> bool:
    return basename(known.path) == basename(file.path)


def _not_empty(_known: KnownFile, file: FoundFile) -> bool:
    return file.size > 0


def carry_out(connection: Connection, moves: Sequence[Move]) -> None:
    """Give nodes their new ids and paths, in the transaction that is open.

    Rows, vectors, edges of anybody, links to them and the state of enrichment stay what they are. The
    files count as unfinished: what the notes say of themselves and their relative links is read again.
    No new id may be that of a node that is there.
    """
    # A key may point nowhere until the transaction ends.
    connection.execute("PRAGMA defer_foreign_keys = ON")
    by_node = {move.old_node: move for move in moves}
    nodes = {node: move.node for node, move in by_node.items()} | _sections(connection, by_node)
    connection.executemany(
        "UPDATE edges SET context_source = ? WHERE source = ? AND context_source = ?",
        [(move.path, node, move.old_path) for node in nodes for move in (by_node[node.partition("#")[0]],)],
    )
    renamed = [(new, old) for old, new in nodes.items() if new != old]
    for table, column in (
        ("nodes", "id"),
        ("links", "source"),
        ("links", "target"),
        ("edges", "source"),
        ("edges", "target"),
        ("sections", "node"),
        ("sections", "document"),
        ("texts", "node"),
    ):
        connection.executemany(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", renamed)
    connection.executemany(
        "UPDATE files SET path = ?, node = ?, hash = '' WHERE path = ?",
        [(move.path, move.node, move.old_path) for move in moves],
    )
    connection.executemany(
        "UPDATE ember_state SET file_path = ?1 WHERE file_path = ?2 "
        "AND NOT EXISTS (SELECT 1 FROM ember_state WHERE file_path = ?1)",
        [(move.path, move.old_path) for move in moves if move.path != move.old_path],
    )
    history = History(connection)
    for move in moves:
        old, new = (
            {"id": move.old_node, "path": move.old_path},
            {"id": move.node, "path": move.path},
        )
        # Under both ids, so that whoever asks for either finds the other.
        for node in dict.fromkeys((move.old_node, move.node)):
            history.record("node", node, "move", old, new)


def taken(connection: Connection, moves: Sequence[Move]) -> set[str]:
    """Those of the new ids that other nodes have."""
    return _there(connection, [move.node for move in moves if move.node != move.old_node])


def _sections(connection: Connection, moves: Mapping[str, Move]) -> dict[str, str]:
    """The sections of the notes: old id -> new id, which begins with that of the note."""
    found = connection.query(
        "SELECT node, document FROM sections WHERE document IN (SELECT value FROM json_each(?))",
        (json.dumps(list(moves)),),
    )
    renamed = {node: moves[document].node + node.removeprefix(document) for node, document in found}
    taken = _there(connection, [new for old, new in renamed.items() if new != old])
    return {old: new for old, new in renamed.items() if new not in taken}


def _there(connection: Connection, nodes: Sequence[str]) -> set[str]:
    found = connection.query(
        "SELECT id FROM nodes WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(nodes),)
    )
    return {node for (node,) in found}


def _hash(root: Root, file: FoundFile) -> str | None:
    try:
        return file_hash(root.read(file.disk_path)[0])
    except ContentError:
        return None
