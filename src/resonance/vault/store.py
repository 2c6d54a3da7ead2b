"""Notes and their files into the database, in batches that nobody has to wait long for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from json.encoder import encode_basestring as _quoted
from typing import TYPE_CHECKING, Any, NamedTuple

from resonance.model import Text
from resonance.search import text as fulltext
from resonance.vault import moves, tombstones
from resonance.vault.note import ParsedNote
from resonance.vault.pace import Pace
from resonance.vault.reader import ReadNote
from resonance.vault.sections import title_of
from resonance.vault.vectors import NoteVectors, Vector

if TYPE_CHECKING:
    from resonance.database import ResonanceDB


PART_OF = "PART_OF"
"""The type of the edge from a section to its document."""


class KnownFile(NamedTuple):
    """What is stored about a file. ``hash`` is empty while its links have not been written."""

    path: str
    node: str
    size: int
    mtime_ns: int
    inode: int
    hash: str
    body_hash: str


class Store:
    """The tables of nodes and files, as a vault writes them.

    Every write removes the marks of a finished run: whatever cuts this one off, the next sees that
    links and vectors may be incomplete.
    """

    def __init__(self, db: ResonanceDB) -> None:
        self.db = db
        self.pace = Pace(db)
        self._run: int | None = None

    @contextlib.contextmanager
    def filling(self) -> Iterator[None]:
        """Round a run that may write very much: where nobody waits or asks meanwhile, in large parts."""
        if not self.db.is_alone:
            yield
            return
        with self.db.transaction() as connection:
            fulltext.expect(connection, much=True)
        try:
            yield
        finally:
            with self.db.transaction() as connection:
                fulltext.expect(connection, much=False)

    def known_files(self, paths: Iterable[str] | None = None) -> dict[str, KnownFile]:
        """Files, by path: all of them, or those of ``paths`` that are known."""
        sql = "SELECT path, node, size, mtime_ns, inode, hash, body_hash FROM files"
        if paths is None:
            rows = self.db.query(sql)
        else:
            rows = self.db.query(
                f"{sql} WHERE path IN (SELECT value FROM json_each(?))", (json.dumps(list(paths)),)
            )
        return {row[0]: KnownFile(*row) for row in rows}

    def properties(self) -> dict[str, str]:
        """What the last run wrote down about the vault as a whole."""
        return dict(self.db.query("SELECT key, value FROM properties WHERE key LIKE 'vault.%'"))

    def set_properties(self, wanted: Mapping[str, str]) -> None:
        """Write down what this run knows of the vault as a whole."""
        with self.db.transaction() as connection:
            connection.executemany(
                "INSERT INTO properties (key, value) VALUES (?, ?) "
                "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                list(wanted.items()),
            )

    def remove(self, nodes: Sequence[str]) -> None:
        """Delete nodes, with their edges, links and files; :func:`tombstones.undo` brings them back."""
        pace = Pace(self.db)
        if nodes and self._run is None:
            self._run = tombstones.new_run(self.db)
        for batch in pace.batches(nodes):
            with pace.measured(), self.db.transaction() as connection:
                self._unsettle(connection)
                assert self._run is not None
                tombstones.bury(connection, self._run, batch)
                self.db.delete_nodes(batch)

    def move(self, wanted: Sequence[moves.Move]) -> list[moves.Move]:
        """Give nodes new ids and paths. Returns those that could not be: another node has the id."""
        refused = []
        pace = Pace(self.db)
        for batch in pace.batches(wanted):
            with pace.measured(), self.db.transaction() as connection:
                self._unsettle(connection)
                taken = moves.taken(connection, batch)
                moves.carry_out(connection, [move for move in batch if move.node not in taken])
                refused += [move for move in batch if move.node in taken]
        return refused

    def write(
        self,
        read: Sequence[ReadNote],
        vectors: Sequence[NoteVectors],
        renamed: Sequence[str],
        touched: Sequence[tuple[int, int, int, str]],
    ) -> None:
        """One batch: nodes, those of their sections, and their files, which stay unfinished.

        Args:
            renamed: nodes that these notes had until now under other ids.
            touched: (size, mtime_ns, inode, path) of files that are otherwise as they were.
        """
        texts = [text for r in read for text in r.texts]
        with self.pace.measured(), self.db.transaction() as connection:
            connection.executemany(
                "UPDATE files SET size = ?, mtime_ns = ?, inode = ? WHERE path = ?", touched
            )
            if not read:
                return
            self._unsettle(connection)
            if renamed:
                self.db.delete_nodes(renamed)
            self._insert_notes(read, vectors)
            self._replace_sections(connection, read, vectors)
            fulltext.write(connection, texts)
            connection.executemany(
                "INSERT INTO files (path, node, size, mtime_ns, inode, hash, body_hash) "
                "VALUES (?, ?, ?, ?, ?, '', ?) ON CONFLICT (path) DO UPDATE SET "
                "node = excluded.node, size = excluded.size, mtime_ns = excluded.mtime_ns, "
                "inode = excluded.inode, hash = '', body_hash = excluded.body_hash",
                [
                    (r.file.path, r.node, r.file.size, r.mtime_ns, r.file.inode, r.note.body_hash)
                    for r in read
                ],
            )

    def unfinish(self, paths: Iterable[str]) -> None:
        """Have some notes read again once their files can be, even if these are as they were."""
        with self.db.transaction() as connection:
            connection.executemany("UPDATE files SET hash = '' WHERE path = ?", [(path,) for path in paths])

    def write_vectors(self, nodes: Mapping[str, Vector]) -> None:
        """Give vectors to nodes, as far as they are there."""
        with self.pace.measured(), self.db.transaction():
            there = self.db.query(
                "SELECT id FROM nodes WHERE id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(nodes)),),
            )
            if there:
                self.db.insert_nodes(
                    id=[node for (node,) in there], embedding=[nodes[node] for (node,) in there]
                )

    def write_texts(self, texts: Sequence[Text]) -> None:
        """Index the texts of nodes that are there."""
        with self.pace.measured(), self.db.transaction() as connection:
            fulltext.write(connection, texts)

    def texts_to_come(self) -> set[str]:
        """Paths of finished notes whose text is not in the index as it is; none if the engine cannot.

        Rows of the index that belong to no node, which an older engine may leave, are removed.
        """
        if fulltext.unable() is not None:
            return set()
        with self.db.snapshot() as connection:
            if fulltext.seems_complete(connection):
                return set()
            covered = fulltext.coverage(connection)
        if covered.orphans:
            with self.db.transaction() as connection:
                fulltext.sweep(connection)
        return set(covered.lacking)

    def _insert_notes(self, read: Sequence[ReadNote], vectors: Sequence[NoteVectors]) -> None:
        kept = self._kept([r.node for r in read])
        none = (None, None)
        self.db.insert_nodes(
            id=[r.node for r in read],
            type=[r.note.type or "document" for r in read],
            title=[r.note.title for r in read],
            domain="knowledge",
            layer="document",
            hash=[r.note.hash for r in read],
            meta=[_meta(r.note) for r in read],
            date=[r.note.date or kept.get(r.node, none)[0] for r in read],
            summary=[r.note.summary or kept.get(r.node, none)[1] for r in read],
            **self._embedding([vector.note for vector in vectors]),
        )

    def _replace_sections(
        self, connection: Any, read: Sequence[ReadNote], vectors: Sequence[NoteVectors]
    ) -> None:
        """Make the sections of some notes what they are now; those that stay keep their nodes."""
        chosen = json.dumps([r.node for r in read])
        before = connection.query(
            "SELECT node FROM sections WHERE document IN (SELECT value FROM json_each(?))", (chosen,)
        )
        found = [(r, section) for r in read for section in r.sections]
        if before:
            connection.execute(
                "DELETE FROM sections WHERE document IN (SELECT value FROM json_each(?))", (chosen,)
            )
            gone = {node for (node,) in before} - {section.node for _, section in found}
            if gone:
                self.db.delete_nodes(gone)
        if not found:
            return
        nodes = [section.node for _, section in found]
        self.db.insert_nodes(
            id=nodes,
            type="section",
            title=[title_of(r.note.title, section.heading) for r, section in found],
            domain="knowledge",
            layer="section",
            hash=[section.hash for _, section in found],
            **self._embedding([vector for each in vectors for vector in each.sections]),
        )
        connection.executemany(
            "INSERT INTO sections (node, document, ordinal, heading, span_start, span_end, hash, text_hash) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    section.node,
                    r.node,
                    ordinal,
                    f"[{', '.join(map(_quoted, section.heading))}]",
                    section.start,
                    section.end,
                    section.hash,
                    section.text_hash,
                )
                for r in read
                for ordinal, section in enumerate(r.sections)
            ],
        )
        self.db.insert_edges(
            source=nodes,
            target=[r.node for r, _ in found],
            type=PART_OF,
            context_source=[r.note.path for r, _ in found],
        )

    def _embedding(self, vectors: list[Vector]) -> dict[str, Any]:
        # Before there is a space there is no vector to take back, nor a width to say none with.
        return {} if self.db.space is None else {"embedding": vectors}

    def _kept(self, nodes: Sequence[str]) -> dict[str, tuple[str | None, str | None]]:
        """Dates and summaries that did not come from frontmatter: id -> (date, summary).

        Somebody wrote them into the database, and a new version of the note does not undo that.
        """
        kept = {}
        for node, date, summary, meta in self.db.query(
            "SELECT id, date, summary, meta FROM nodes WHERE id IN (SELECT value FROM json_each(?)) "
            "AND (date IS NOT NULL OR summary IS NOT NULL)",
            (json.dumps(list(nodes)),),
        ):
            told = json.loads(meta or "{}")
            if not isinstance(told, dict):
                told = {}
            own_date = _same(date, told.get("date"), told.get("created"))
            own_summary = _same(summary, told.get("summary"), told.get("description"))
            kept[node] = (None if own_date else date, None if own_summary else summary)
        return kept

    def _unsettle(self, connection: Any) -> None:
        connection.execute("DELETE FROM properties WHERE key IN ('vault.resolved', 'vault.vectors')")


def _meta(note: ParsedNote) -> dict[str, Any]:
    return {**note.meta, "source": note.path, "tags": list(note.tags), "aliases": list(note.aliases)}


def _same(stored: str | None, *told: object) -> bool:
    """Whether a stored text is what the frontmatter said, up to white space."""
    return stored is None or any(" ".join(str(value).split()) == stored for value in told)
