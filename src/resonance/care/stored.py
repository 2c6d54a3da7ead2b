"""Checks of what is stored: vectors, ids, metadata, the ledger of links, the audit trail.

Each check reads through an open database and yields what it found; ``health`` runs them in order.
Only counts and a few ids are kept in memory, and one batch of vectors at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from resonance import spaces
from resonance.database import ResonanceDB
from resonance.model import Finding, Node
from resonance.search import cache
from resonance.search import text as fulltext
from resonance.vault.suggest import suggest_dialect
from resonance.words import counted, listed, size, some

SCORE_TOLERANCE = 1e-4
SAMPLE = 5
BATCH = 4096
LARGE_HISTORY = 64 << 20

_REBUILD = "`resonance init` builds the database anew"


def _ids(db: ResonanceDB) -> Iterator[Finding]:
    wrong: list[str] = []
    count = 0
    with db.snapshot() as connection:
        # As bytes: text that is no UTF-8 could not be handed over otherwise.
        for rowid, raw in connection.prepare("SELECT rowid, CAST(id AS BLOB) FROM nodes"):
            count += 1
            if not raw or b"\0" in raw or not _is_utf8(raw):
                wrong.append(f"row {rowid}: {raw!r}")
    if wrong:
        yield Finding(
            "ids",
            "error",
            f"{counted(len(wrong), 'id')} empty, no UTF-8, or with a NUL: {some(wrong)}. {_REBUILD}",
        )
    else:
        yield Finding("ids", "ok", counted(count, "node"))


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _metadata(db: ResonanceDB) -> Iterator[Finding]:
    # CASE, because json_type fails on what is no JSON, and OR does not promise an order.
    wrong = db.query(
        "SELECT CAST(id AS BLOB) FROM nodes WHERE meta IS NOT NULL AND "
        "CASE json_valid(meta) WHEN 1 THEN json_type(meta) <> 'object' ELSE 1 END"
    )
    if wrong:
        yield Finding(
            "metadata",
            "error",
            f"the metadata of {counted(len(wrong), 'node')} is no JSON object ({some(_texts(wrong))}); "
            f"set it anew with update_node_meta, or {_REBUILD}",
        )
    else:
        yield Finding("metadata", "ok", "every node's metadata is a JSON object, or not there")


# --- vectors --------------------------------------------------------------------------------------


def _vectors(db: ResonanceDB) -> Iterator[Finding]:
    space = db.space
    total = db.query("SELECT count(*) FROM nodes WHERE embedding IS NOT NULL")[0][0]
    if space is None:
        if total:
            yield Finding(
                "vectors", "error", f"{counted(total, 'vector')}, but no space says whose. {_REBUILD}"
            )
        else:
            yield Finding("vectors", "info", "no vectors are stored, so there is no search by meaning")
        return
    wide = db.query(
        "SELECT CAST(id AS BLOB) FROM nodes WHERE embedding IS NOT NULL AND length(embedding) <> ?",
        (space.dims * 4,),
    )
    if wide:
        yield Finding(
            "vectors",
            "error",
            f"{counted(len(wide), 'vector')} not {space.dims} float32 wide, as the space {space.name} is: "
            f"{some(_texts(wide))}. Store them anew, or {_REBUILD}",
        )
    tally = _Tally()
    for ids, vectors in _batches(db, space.dims):
        tally.add(ids, vectors)
    if tally.not_finite:
        yield Finding(
            "vectors",
            "error",
            f"{counted(len(tally.not_finite), 'vector')} with NaN or infinity: {some(tally.not_finite)}. "
            f"{_REBUILD}",
        )
    if tally.not_unit:
        yield Finding(
            "vectors",
            "error",
            f"{counted(len(tally.not_unit), 'vector')} not of unit length, whose scores are no cosines: "
            f"{some(tally.not_unit)}. Store them anew, or {_REBUILD}",
        )
    if not (wide or tally.not_finite or tally.not_unit):
        yield Finding(
            "vectors",
            "ok",
            f"{total:,} by {space.name}, {space.dims} dimensions, norms within {tally.worst:.0e} of 1",
        )
    if repeated := tally.repeated():
        yield Finding("duplicates", "info", f"{counted(repeated, 'vector')} equal to another one, bit by bit")


def unsound_vectors(db: ResonanceDB) -> str:
    """What is wrong with the vectors, or an empty text."""
    return "; ".join(finding.message for finding in _vectors(db) if finding.level == "error")


class _Tally:
    """What is remembered of the vectors that went by: names of bad ones, 8 bytes of each good one."""

    def __init__(self) -> None:
        self.not_finite: list[str] = []
        self.not_unit: list[str] = []
        self.worst = 0.0
        self._digests: list[npt.NDArray[np.uint64]] = []

    def add(self, ids: Sequence[str], vectors: npt.NDArray[np.float32]) -> None:
        finite = np.isfinite(vectors).all(axis=1)
        off = spaces.off_unit(vectors)
        unit = finite & (off <= spaces.NORM_TOLERANCE)
        self.not_finite += [ids[row] for row in np.flatnonzero(~finite).tolist()]
        self.not_unit += [ids[row] for row in np.flatnonzero(finite & ~unit).tolist()]
        if unit.any():
            self.worst = max(self.worst, float(off[unit].max()))
        # A random linear hash: two different rows agree with a chance of about 2 ** -64.
        weights = np.random.default_rng(0).integers(0, 1 << 63, vectors.shape[1], dtype=np.uint64)
        self._digests.append(
            vectors.view(np.uint32).astype(np.uint64) @ (weights * np.uint64(2) + np.uint64(1))
        )

    def repeated(self) -> int:
        """How many rows have an equal one before them."""
        if not self._digests:
            return 0
        digests = np.concatenate(self._digests)
        return int(len(digests) - len(np.unique(digests)))


def _other_spaces(db: ResonanceDB) -> Iterator[Finding]:
    """Vectors that are kept aside must be fit to be switched in."""
    with db.snapshot() as connection:
        known = [each for each in spaces.stored(connection) if not each.active]
    counts = {info.space: info for info in db.spaces()}
    for each in known:
        tally, name = _Tally(), spaces.told(each.space)
        wide = db.query(
            "SELECT CAST(node AS BLOB) FROM vectors WHERE space = ? AND length(embedding) <> ?",
            (each.id, each.space.dims * 4),
        )
        for ids, vectors in _batches(db, each.space.dims, f"vectors WHERE space = {each.id} AND", "node"):
            tally.add(ids, vectors)
        wrong = sorted({*_texts(wide), *tally.not_finite, *tally.not_unit})
        if wrong:
            yield Finding(
                "spaces",
                "error",
                f"{counted(len(wrong), 'vector')} of {name} not finite, not of unit length or of another "
                f"width: {some(wrong)}. Drop that space, and fill it again",
            )
            continue
        info = counts[each.space]
        left = f"{info.missing:,} missing, {info.outdated:,} of them out of date" if info.missing else ""
        yield Finding(
            "spaces", "info", f"{name} beside it: {counted(info.vectors, 'vector')}, {left or 'complete'}"
        )


def _batches(
    db: ResonanceDB, dims: int, table: str = "nodes WHERE", key: str = "id"
) -> Iterator[tuple[list[str], npt.NDArray[np.float32]]]:
    """All vectors of the right width, a batch at a time; those of another width are named elsewhere."""
    last = 0
    while True:
        found = db.query(
            f"SELECT rowid, CAST({key} AS BLOB), embedding FROM {table} "
            "rowid > ? AND length(embedding) = ? ORDER BY rowid LIMIT ?",
            (last, dims * 4, BATCH),
        )
        if not found:
            return
        last = found[-1][0]
        vectors = np.frombuffer(b"".join(row[2] for row in found), dtype="<f4").reshape(-1, dims)
        yield [_text(row[1]) for row in found], vectors


def _vector_cache(db: ResonanceDB) -> Iterator[Finding]:
    with db.snapshot() as connection:
        found = cache.examine(db.path, connection)
    if found is None:
        return
    why_not, used = found
    name = f"{Path(db.path).name}{cache.SUFFIX} ({size(used)})"
    if why_not:
        yield Finding(
            "vector-cache",
            "info",
            f"{name} would not be used: {why_not}. Delete it, or open the database with vector_cache=True, "
            f"which writes it anew",
        )
    else:
        yield Finding("vector-cache", "ok", f"{name} is of this database")


def _self_search(db: ResonanceDB) -> Iterator[Finding]:
    """A vector searched for must find its own node, and nothing better."""
    sample = _sample(db)
    if not sample:
        return
    lost = []
    for node in sample:
        assert node.embedding is not None
        own = db.search(node.embedding, 1, ids=[node.id])
        best = db.search(node.embedding, 1)
        found = bool(own and best) and own[0].id == node.id
        if (
            not found
            or abs(own[0].score - 1) > spaces.NORM_TOLERANCE
            or best[0].score > own[0].score + SCORE_TOLERANCE
        ):
            lost.append(f"{node.id} scores {own[0].score:.3f}" if own else node.id)
    if lost:
        yield Finding(
            "self-search",
            "error",
            f"{len(lost)} of {len(sample)} nodes are not the best answer to their own vector: {some(lost)}. "
            f"{_REBUILD}",
        )
    else:
        yield Finding("self-search", "ok", f"{len(sample)} nodes found by their own vectors")


def _sample(db: ResonanceDB) -> list[Node]:
    """Nodes with vectors, spread evenly over the table."""
    found = db.query("SELECT max(rowid) FROM nodes WHERE embedding IS NOT NULL")[0][0]
    if found is None:
        return []
    starts = [found * step // SAMPLE + 1 for step in range(SAMPLE)]
    ids = [
        db.query(
            "SELECT id FROM nodes WHERE rowid >= ? AND embedding IS NOT NULL ORDER BY rowid LIMIT 1",
            (min(start, found),),
        )[0][0]
        for start in starts
    ]
    nodes = [db.get_node(node_id) for node_id in dict.fromkeys(ids)]
    return [node for node in nodes if node is not None]


def _coverage(db: ResonanceDB) -> Iterator[Finding]:
    files, without = db.query(
        "SELECT count(*), coalesce(sum(nodes.embedding IS NULL), 0) "
        "FROM files JOIN nodes ON nodes.id = files.node"
    )[0]
    if files and db.space is not None:
        text = "every note has a vector"
        if without:
            text = f"{without:,} of {files:,} notes without a vector, which no search by meaning finds"
        yield Finding("coverage", "info" if without else "ok", text)


def _texts_indexed(db: ResonanceDB) -> Iterator[Finding]:
    """Each note's words must be in the text index, and those of nobody else.

    Whether the index itself is sound, ``integrity_check`` has said; it holds no text to compare with.
    """
    if (why := fulltext.unable()) is not None:
        yield Finding("text", "info", f"{why}, so there is no search by words")
        return
    with db.snapshot() as connection:
        found = fulltext.coverage(connection)
        files = connection.execute("SELECT count(*) FROM files WHERE hash <> ''")[0][0]
    mend = "`resonance ingest` puts it in order"
    if found.lacking:
        yield Finding(
            "text",
            "warning",
            f"{len(found.lacking):,} of {counted(files, 'note')} not in the text index as they are "
            f"({some(found.lacking)}); {mend}",
        )
    if found.orphans:
        yield Finding(
            "text",
            "warning",
            f"the text index has {counted(found.orphans, 'row')} of no node; {mend}",
        )
    if files and not found.lacking and not found.orphans:
        yield Finding("text", "ok", f"{counted(found.nodes, 'text')} in the index: every note and section")


# --- the vault ------------------------------------------------------------------------------------


def _links(db: ResonanceDB) -> Iterator[Finding]:
    states = dict(db.query("SELECT state, count(*) FROM links GROUP BY state ORDER BY state"))
    lost = db.query(
        "SELECT count(*) FROM links WHERE state = 'resolved' AND NOT EXISTS "
        "(SELECT 1 FROM nodes WHERE nodes.id = links.target)"
    )[0][0]
    if lost:
        yield Finding("links", "error", f"{counted(lost, 'link')} to nodes that are not there. {_REBUILD}")
    missing = db.query(
        "SELECT count(*), min(source) FROM links WHERE state = 'resolved' AND source <> target "
        "AND NOT EXISTS (SELECT 1 FROM edges WHERE edges.source = links.source "
        "AND edges.target = links.target AND edges.type = links.type)"
    )[0]
    if missing[0]:
        yield Finding(
            "links",
            "error",
            f"{counted(missing[0], 'link')} resolved, but without an edge (as in {missing[1]}). {_REBUILD}",
        )
    if not lost and not missing[0] and states:
        told = listed((count, state) for state, count in states.items())
        yield Finding("links", "ok", f"{told}; each resolved one has its edge")
    # The vault's own edges name their note as context_source.
    extra, first = db.query(
        "SELECT count(*), min(edges.source) FROM edges "
        "JOIN files ON files.node = edges.source AND files.path = edges.context_source "
        "WHERE NOT EXISTS (SELECT 1 FROM links WHERE links.source = edges.source "
        "AND links.target = edges.target AND links.type = edges.type AND links.state = 'resolved')"
    )[0]
    if extra:
        yield Finding(
            "links",
            "error",
            f"{counted(extra, 'edge')} of notes without a link that says so (first of {first}). {_REBUILD}",
        )


def _dialect(db: ResonanceDB) -> Iterator[Finding]:
    found = suggest_dialect(db)
    if found is None:
        return
    failing = f"{found.links - found.resolved:,} of {counted(found.links, 'link')} in brackets find no note"
    if found.dialect == "markdown":
        advice = "the others do, so these may be no links at all"
    else:
        advice = f"read as {found.dialect}, {found.would:,} would instead of {found.resolved:,}"
    yield Finding(
        "dialect",
        "warning",
        f"{failing}; {advice}. To try it, put "
        f'"dialect": "{found.dialect}" into amalfa.settings.json and run `resonance ingest`',
    )


def _files(db: ResonanceDB) -> Iterator[Finding]:
    files = db.query("SELECT count(*) FROM files")[0][0]
    if not files:
        yield Finding("vault", "info", "no vault has been ingested")
        return
    wild = db.query(
        "SELECT path FROM files WHERE path = '' OR path LIKE '/%' OR instr(path, char(0)) "
        "OR '/' || path || '/' LIKE '%/../%' OR '/' || path || '/' LIKE '%/./%' OR path LIKE '%//%'"
    )
    if wild:
        yield Finding(
            "vault",
            "error",
            f"{counted(len(wild), 'path')} leading out of it: {some(_texts(wild))}. {_REBUILD}",
        )
    root = db.root
    if root is None or not Path(root).is_dir():
        lacking = (
            "where the vault is nobody has written down" if root is None else f"the root {root} is not there"
        )
        yield Finding(
            "vault",
            "warning",
            f"{lacking}, so no text can be read; name it with --root, or {_REBUILD}",
        )
    elif not wild:
        yield Finding("vault", "ok", f"{counted(files, 'note')} below {root}")


def _history(db: ResonanceDB) -> Iterator[Finding]:
    count, used, vectors = db.query(
        "SELECT count(*), total(length(old_value)) + total(length(new_value)), "
        'total(new_value LIKE \'%"embedding":{"0"%\' OR new_value LIKE \'%"embedding":[%\') FROM history'
    )[0]
    told = f"{counted(count, 'entry', 'entries')}, {size(int(used))}"
    if used > LARGE_HISTORY:
        yield Finding("history", "warning", f"the audit trail has grown to {told}")
    else:
        yield Finding("history", "ok", told)
    if vectors:
        yield Finding(
            "history",
            "info",
            f"{counted(int(vectors), 'entry', 'entries')} with vectors as text, as Amalfa wrote them",
        )


Check = Callable[[ResonanceDB], Iterator[Finding]]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("ids", _ids),
    ("metadata", _metadata),
    ("vectors", _vectors),
    ("spaces", _other_spaces),
    ("vector-cache", _vector_cache),
    ("self-search", _self_search),
    ("coverage", _coverage),
    ("text", _texts_indexed),
    ("links", _links),
    ("dialect", _dialect),
    ("vault", _files),
    ("history", _history),
)


def _texts(rows: Sequence[tuple[Any, ...]]) -> list[str]:
    return [_text(row[0]) for row in rows]


def _text(raw: Any) -> str:
    return raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else str(raw)
