"""Full-text search by SQLite's FTS5: an index of words that holds none of the text.

Rows of the index are known by keys of their own (table ``texts``): rowids of nodes change when the
file is vacuumed, and a key that is never given twice cannot lead to another node. A row of the index
without its key is never found, so where an old engine cannot remove it, forgetting the key does.
https://sqlite.org/fts5.html#contentless_delete_tables
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from resonance._core import Connection, engine
from resonance.errors import InputError, TextSearchError
from resonance.factory import SAFE_SQLITE, engine_number
from resonance.model import Hits, Text
from resonance.search import tokens
from resonance.search.filters import Filter, GroupBy, count_of, is_grouped
from resonance.search.hits import Scored, named

WEIGHTS = (4.0, 3.0, 2.0, 1.0)
"""What a word counts in a title, in other names (aliases and tags), in headings, and in the body."""

_CREATE = f"""
CREATE VIRTUAL TABLE text_index USING fts5(
    title, names, headings, body, content='', contentless_delete=1, tokenize="{tokens.TOKENIZER}")
"""
# https://sqlite.org/fts5.html#special_insert_commands: bytes in memory, and parts of a level to merge.
_USUAL = {"hashsize": 1 << 20, "automerge": 4}
_FILLING = {"hashsize": 16 << 20, "automerge": 0}
_RULES = "text.rules"
_WEIGHTS = ", ".join(str(weight) for weight in WEIGHTS)
# The rows to answer with: of nodes; or of documents, by what the whole document scores, with the best of
# its sections. A section's score says little of its note's: measured by benchmarks/quality.py.
_BEST = {
    False: "SELECT nodes.rowid, found.score FROM found JOIN texts ON texts.key = found.key "
    "JOIN nodes ON nodes.id = texts.node ORDER BY found.score DESC, nodes.id LIMIT ?",
    True: ", best AS MATERIALIZED (SELECT nodes.rowid AS number, nodes.id, found.score FROM found "
    "JOIN texts ON texts.key = found.key JOIN nodes ON nodes.id = texts.node "
    "WHERE NOT EXISTS (SELECT 1 FROM sections WHERE sections.node = nodes.id) "
    "ORDER BY found.score DESC, nodes.id LIMIT ?), "
    "places AS MATERIALIZED (SELECT sections.document, nodes.rowid AS number, max(found.score) FROM found "
    "JOIN texts ON texts.key = found.key JOIN sections ON sections.node = texts.node "
    "JOIN nodes ON nodes.id = texts.node WHERE sections.document IN (SELECT id FROM best) "
    "GROUP BY sections.document) "
    "SELECT coalesce(places.number, best.number), best.score FROM best "
    "LEFT JOIN places ON places.document = best.id",
}
_IN = "(SELECT value FROM json_each(?))"


@cache
def unable() -> str | None:
    """Why this engine cannot search text; None if it can."""
    facts = engine()
    version = facts["version"]
    if engine_number() < SAFE_SQLITE:
        # A crafted file can make it write beyond its memory (CVE-2026-11822), and where a file comes from
        # nobody knows. It could not delete from an index without content either.
        return f"SQLite {version} is older than 3.53.2, before which full-text search is not safe"
    if "ENABLE_FTS5" not in facts["options"]:
        return f"this SQLite {version} was built without FTS5"
    return None


def missing(connection: Connection) -> str | None:
    """Why there is no text search here, and what to do about it; None if there is."""
    if (why := unable()) is not None:
        return f"{why}; rebuild Resonance with its own engine"
    if not _exists(connection):
        return "no text has been indexed; `resonance ingest` does it"
    if _rules(connection) != str(tokens.RULES):
        return (
            "the text index was made by other rules; `resonance ingest` makes it anew, but for texts of "
            "insert_texts, which are to be given again, all of them"
        )
    return None


def _exists(connection: Connection) -> bool:
    return bool(connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'text_index'"))


def _rules(connection: Connection) -> str | None:
    found = connection.execute("SELECT value FROM properties WHERE key = ?", (_RULES,))
    return found[0][0] if found else None


# --- writing --------------------------------------------------------------------------------------


def ensure(writer: Connection) -> bool:
    """Make the index where there is none by today's rules; False where the engine cannot."""
    if unable() is not None:
        return False
    exists = _exists(writer)
    if exists and _rules(writer) == str(tokens.RULES):
        return True
    writer.execute("DELETE FROM texts")
    if exists:
        writer.execute("DROP TABLE text_index")
    writer.execute(_CREATE)
    writer.execute(
        "INSERT INTO properties (key, value) VALUES (?, ?) "
        "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (_RULES, str(tokens.RULES)),
    )
    return True


def write(writer: Connection, rows: Sequence[Text]) -> bool:
    """Index texts, instead of what was indexed for the same nodes; False where the engine cannot.

    Args:
        rows: as :func:`prepared` gives them.
    """
    forget(writer, json.dumps([row.id for row in rows]))
    if not ensure(writer):
        return False
    if not rows:
        return True
    found = writer.execute("SELECT seq FROM sqlite_sequence WHERE name = 'texts'")
    first = (found[0][0] if found else 0) + 1
    writer.executemany(
        "INSERT INTO texts (key, node, hash) VALUES (?, ?, ?)",
        [(first + number, row.id, row.hash) for number, row in enumerate(rows)],
    )
    writer.executemany(
        "INSERT INTO text_index (rowid, title, names, headings, body) VALUES (?, ?, ?, ?, ?)",
        [(first + number, row.title, row.names, row.headings, row.body) for number, row in enumerate(rows)],
    )
    return True


def expect(writer: Connection, *, much: bool) -> None:
    """Say that ``much`` is to be written to an index that nobody asks meanwhile, or that this is over.

    What is gathered in memory then goes into it in large parts, which are merged later, with what is
    written then; unless they become very many before.
    """
    if ensure(writer):
        options = _FILLING if much else _USUAL
        writer.executemany("INSERT INTO text_index (text_index, rank) VALUES (?, ?)", list(options.items()))


def prepared(rows: Iterable[Text]) -> list[Text]:
    """Texts in the form in which they are indexed; needs no lock."""
    names, plain = tokens.names, tokens.plain
    return [
        Text(row.id, plain(row.body), names(row.title), names(row.names), names(row.headings), row.hash)
        for row in rows
    ]


def forget(writer: Connection, ids: str) -> None:
    """Take nodes, a JSON array of ids, out of the index."""
    if unable() is None and _exists(writer):
        writer.execute(
            f"DELETE FROM text_index WHERE rowid IN (SELECT key FROM texts WHERE node IN {_IN})", (ids,)
        )
    writer.execute(f"DELETE FROM texts WHERE node IN {_IN}", (ids,))


class Coverage(NamedTuple):
    """Nodes of files against the index: how many are in it; paths of those that are not, or not as they
    are; and how many rows of the index belong to no node."""

    nodes: int
    lacking: tuple[str, ...]
    orphans: int


def seems_complete(connection: Connection) -> bool:
    """Whether the index holds as many texts as there are: quick, and true unless somebody tampered."""
    return missing(connection) is None and bool(
        connection.execute(
            "SELECT count(*) = (SELECT count(*) FROM text_index_docsize) AND "
            "count(*) = (SELECT count(*) FROM files) + (SELECT count(*) FROM sections) FROM texts"
        )[0][0]
    )


def coverage(connection: Connection) -> Coverage:
    """How far the index goes; nothing is in one that cannot be used."""
    usable = missing(connection) is None
    rows = "SELECT id FROM text_index_docsize" if usable else "SELECT 1 WHERE 0"
    empty = connection.execute(f"SELECT node FROM texts WHERE key IN (SELECT key FROM texts EXCEPT {rows})")
    # CROSS keeps the order of the loops: each step is one look-up by a key.
    lacking = connection.execute(
        "WITH wanted (node, path) AS (SELECT node, path FROM files WHERE hash <> '' UNION ALL "
        "SELECT s.node, f.path FROM files AS f CROSS JOIN sections AS s ON s.document = f.node "
        "WHERE f.hash <> '') "
        "SELECT wanted.path FROM wanted CROSS JOIN nodes ON nodes.id = wanted.node "
        "LEFT JOIN texts AS t ON t.node = nodes.id "
        "WHERE t.hash IS NOT nodes.hash OR t.key IS NULL "
        "OR t.node IN (SELECT value FROM json_each(?))",
        (json.dumps([node for (node,) in empty]),),
    )
    held = connection.execute("SELECT count(*) FROM texts")[0][0] - len(empty)
    orphans = connection.execute(f"SELECT count(*) FROM ({rows} EXCEPT SELECT key FROM texts)")[0][0]
    return Coverage(held, tuple(sorted({path for (path,) in lacking})), orphans)


def sweep(writer: Connection) -> None:
    """Remove the rows of the index that belong to no node."""
    if ensure(writer):
        writer.execute(
            "DELETE FROM text_index WHERE rowid IN "
            "(SELECT id FROM text_index_docsize EXCEPT SELECT key FROM texts)"
        )


# --- asking ---------------------------------------------------------------------------------------


def search_text(
    connection: Connection, text: str, k: int, chosen: Filter, group_by: GroupBy | None = None
) -> Hits:
    """The best ``k`` nodes for a text, or the best documents; see ``ResonanceDB.search_text``."""
    if not isinstance(text, str):
        raise InputError(f"text={text!r:.60}; give a str")
    k, grouped = count_of(k), is_grouped(group_by)
    if (why := missing(connection)) is not None:
        raise TextSearchError(f"{connection.path}: {why}")
    asked = tokens.question(text)
    hits = Hits()
    hits.lists = ("text",)
    if asked.dropped:
        hits.notes = (f"the text is long: {asked.dropped:,} of its words were left out",)
    if asked.any is None or not k:
        return hits
    conditions, values = ["text_index MATCH ?"], [asked.any]
    if asked.all != (asked.any,):
        for phrase in asked.all:
            conditions.append("+rowid IN (SELECT rowid FROM text_index WHERE text_index MATCH ?)")
            values.append(phrase)
    where, filtered = (chosen.of_documents() if grouped else chosen).sql()
    if where != "1":
        # The plus keeps SQLite from asking the index once for each node.
        conditions.append(
            f"+rowid IN (SELECT key FROM texts WHERE node IN (SELECT id FROM nodes WHERE {where}))"
        )
        values += filtered
    found = connection.execute(
        f"WITH found AS MATERIALIZED (SELECT rowid AS key, -bm25(text_index, {_WEIGHTS}) AS score "
        f"FROM text_index WHERE {' AND '.join(conditions)}) {_BEST[grouped]}",
        (*values, k),
    )
    rowids, scores = zip(*found, strict=True) if found else ((), ())
    rows = Scored(np.array(rowids, np.int64), np.array(scores, np.float64))
    hits[:] = named(connection, rows, np.arange(len(rowids)), grouped)
    return hits
