"""Many rows at once: what ``insert_nodes`` and ``insert_edges`` do.

Rows are planned without the database and without the lock; the lock is held only to write them.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from resonance import _core, changes, rows, spaces
from resonance.errors import InputError, ResonanceError, SpaceError
from resonance.factory import engine_number, one_pass
from resonance.history import History
from resonance.model import InsertReport, Space
from resonance.session import Session

Progress = Callable[[int, int], object]

SLICE = 16_384
"""Rows between two looks at signals, and two calls of ``progress``."""

ALONE_FROM_BYTES = 8 << 20
"""From here on a load is long enough to leave WAL for, which costs a few syncs of its own."""

SHARED_HOLD = 0.02
"""Seconds of writing in a batch of ``mode="shared"``: with its commit, less than the 50 ms others bear."""

SHARED_PAUSE = 0.008
"""Seconds the lock is left alone between two such batches: as long as a waiter sleeps at most."""

STUBS_AT_ONCE = 512
"""Nodes made in one transaction of a shared load of edges."""

POURED_FROM = changes.TRIGGERS_UP_TO + 1
"""Rows of a load that one statement may write; with triggers to fire it would keep them all aside first."""

_POURS_SINCE = 3_050_002
"""The engine's version in which a failed statement of many rows was mended."""

_REBUILD_INDEX_FROM = 65_536
"""Rows of a batch for which it is worth asking whether an index is better built anew."""

_REBUILD_INDEX_RATIO = 1.5
"""An index is built anew when a batch has at least 1/1.5 of the rows the table has."""


def insert_nodes(
    session: Session,
    batches: Sequence[rows.Batch],
    *,
    mode: str,
    history: str,
    progress: Progress | None,
) -> InsertReport:
    """See ``ResonanceDB.insert_nodes``."""
    started = time.monotonic()
    row_history = _checked(mode, history)
    with session.reading() as connection:
        width = spaces.width(connection)
    plans = []
    for batch in batches:
        with rows.rows_of(batch):
            plan = _core.NodePlan(rows.node_columns(batch.source, width))
        plans.append(plan)
        if width < 0 and plan.vectors is not None and plan.vectors.width:
            width = plan.vectors.width
    vectors = [plan.vectors for plan in plans if plan.vectors is not None]
    widths = {column.width for column in vectors if column.width and column.length}
    total = sum(plan.count for plan in plans)
    told = list(zip(plans, _of_all(progress, plans), strict=True))
    if mode == "shared" and not session.in_transaction:
        with session.transaction() as writer:
            spaces.settle_width(writer, widths)
            space = spaces.active(writer) if widths else None
        with _summarised(session, "nodes") as written:
            for plan, telling in told:
                _write_shared(session, plan, telling, written, space)
    else:
        size = total * (4 * max(widths, default=0) + 100)
        poured = _pours(session, total)
        # A new node breaks no key: nothing can point to it yet.
        with session.loading(alone=size >= ALONE_FROM_BYTES, keys_checked=poured) as writer:
            spaces.settle_width(writer, widths)
            record = History(writer)
            with changes.in_bulk(writer, plans):
                for plan, telling in told:
                    with record.of_nodes(plan, row_history):
                        _write(session, writer, plan, telling, poured=poured)
            if not row_history:
                _summarise(writer, "nodes", _counts(plans))
    counts = _counts(plans)
    return InsertReport(
        rows=total,
        inserted=counts["inserted"],
        updated=counts["updated"],
        unchanged=total - counts.total(),
        zero_vectors=sum(column.zeros for column in vectors),
        seconds=time.monotonic() - started,
    )


def insert_edges(
    session: Session,
    source: rows.Source,
    *,
    on_missing: str,
    mode: str,
    history: str,
    progress: Progress | None,
) -> InsertReport:
    """See ``ResonanceDB.insert_edges``."""
    started = time.monotonic()
    row_history = _checked(mode, history)
    if on_missing not in ("error", "skip", "stub"):
        raise InputError(f"on_missing={on_missing!r}; give 'error', 'skip' or 'stub'")
    plan = rows.edge_plan(source)
    if mode == "shared" and not session.in_transaction:
        with _summarised(session, "edges") as written:
            if on_missing == "stub":
                _stub_shared(session, plan, written)
            with _fresh_view(session) as connection:
                plan.check_ends(connection, "error" if on_missing == "error" else "skip")
            _write_shared(session, plan, progress, written)
        stubbed = written["stubbed"]
    else:
        poured = _pours(session, plan.rows)
        # Every end is looked up once, in the transaction that writes: no key is checked row by row.
        large = plan.rows * 100 >= ALONE_FROM_BYTES
        with session.loading(alone=large, keys_checked=True, sorts=large) as writer:
            with History(writer).of_stubs(row_history):
                plan.check_ends(writer, on_missing)
            with History(writer).of_edges(plan, row_history):
                if _rebuild_pays(writer, plan.count):
                    with one_pass(writer):
                        writer.execute("DROP INDEX idx_edges_target")
                        _write(session, writer, plan, progress, poured=poured)
                        plan.release()
                        writer.execute("CREATE INDEX idx_edges_target ON edges (target)")
                else:
                    _write(session, writer, plan, progress, poured=poured)
            stubbed = plan.stubbed
            if not row_history:
                _summarise(writer, "edges", _counts([plan]) + Counter(stubbed=stubbed))
    return InsertReport(
        rows=plan.rows,
        inserted=plan.inserted,
        updated=plan.updated,
        unchanged=plan.rows - plan.skipped - plan.inserted - plan.updated,
        skipped=plan.skipped,
        stubbed=stubbed,
        problems=tuple((row, f"no such node: {text}") for row, text in plan.problems),
        seconds=time.monotonic() - started,
    )


def _pours(session: Session, rows: int) -> bool:
    """Whether one statement may write many rows.

    Not in a transaction of the caller's, which it would check keys in and, failing, roll back; and not on
    engines where a statement that fails half-way takes later commits along.
    """
    return rows >= POURED_FROM and not session.in_transaction and engine_number() >= _POURS_SINCE


def _write(
    session: Session, writer: _core.Connection, plan: _core.Plan, progress: Progress | None, *, poured: bool
) -> None:
    for start in range(0, plan.count, SLICE):
        plan.write(writer, start, start + SLICE, poured=poured)
        session.write_back_early()
        session.tell(progress, min(start + SLICE, plan.count), plan.count)


def _write_shared(
    session: Session,
    plan: _core.Plan,
    progress: Progress | None,
    written: Counter[str],
    space: Space | None = None,
) -> None:
    """Short transactions, each as many rows as fit into ``SHARED_HOLD``; ``written`` counts what they commit.

    Args:
        space: the one that the vectors are of, if there are any.
    """
    start, step = 0, 64
    while start < plan.count:
        before = _counts([plan])
        with session.transaction() as writer:
            if space is not None and spaces.active(writer) != space:
                raise SpaceError(
                    f"{spaces.told(space)} is not the active space any more, so the load stopped: the rows "
                    f"that were written before stay"
                )
            began = time.monotonic()
            with changes.in_bulk(writer, [plan] if isinstance(plan, _core.NodePlan) else []):
                while True:
                    plan.write(writer, start, start + step)
                    start += step
                    if start >= plan.count or time.monotonic() - began >= SHARED_HOLD:
                        break
        written += _counts([plan]) - before
        held = session.holds[-1]
        if held > 2 * SHARED_HOLD and step > 1:
            step //= 2
        elif held < SHARED_HOLD:
            step = min(2 * step, 1024)
        if progress is not None:
            progress(min(start, plan.count), plan.count)
        time.sleep(SHARED_PAUSE)


def _stub_shared(session: Session, plan: _core.EdgePlan, written: Counter[str]) -> None:
    """Make the nodes that ends are missing, in short transactions."""
    with _fresh_view(session) as connection:
        missing = plan.missing_ends(connection)
    for start in range(0, len(missing), STUBS_AT_ONCE):
        with session.transaction() as writer:
            # Somebody else may have made one by now: that is no stub.
            made = writer.executemany(
                "INSERT INTO nodes (id, type, title) VALUES (?1, 'stub', ?1) ON CONFLICT DO NOTHING",
                [(node_id,) for node_id in missing[start : start + STUBS_AT_ONCE]],
            )
        written["stubbed"] += made
        time.sleep(SHARED_PAUSE)


def _fresh_view(session: Session) -> contextlib.AbstractContextManager[_core.Connection]:
    """The database as it is now, also for a thread that reads in a snapshot; without the lock if possible."""
    return session.transaction() if session.pinned else session.snapshot()


def _rebuild_pays(writer: _core.Connection, rows: int) -> bool:
    """Whether sorting all targets once costs less than placing each of the new ones."""
    if rows < _REBUILD_INDEX_FROM:
        return False
    bound = int(rows * _REBUILD_INDEX_RATIO)
    found = writer.execute("SELECT count(*) FROM (SELECT 1 FROM edges LIMIT ?)", (bound,))
    return bool(found[0][0] < bound)


def _of_all(progress: Progress | None, plans: Sequence[_core.Plan]) -> Iterator[Progress | None]:
    """For each plan what tells of its rows as a part of all."""
    total, before = sum(plan.count for plan in plans), 0
    for plan in plans:
        yield None if progress is None else functools.partial(_tell_part, progress, before, total)
        before += plan.count


def _tell_part(progress: Progress, before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)


def _counts(plans: Sequence[_core.Plan]) -> Counter[str]:
    return Counter(inserted=sum(plan.inserted for plan in plans), updated=sum(plan.updated for plan in plans))


@contextlib.contextmanager
def _summarised(session: Session, table: str) -> Iterator[Counter[str]]:
    """Have the trail tell what the block counts as committed, also of a load that stops half-way."""
    written: Counter[str] = Counter()
    try:
        yield written
    except BaseException as error:
        if written:
            error.add_note(f"Committed before, and there to stay: {dict(written)}")
            # What went wrong matters more than that the trail cannot be written either.
            with contextlib.suppress(ResonanceError), session.transaction(patience=1) as writer:
                _summarise(writer, table, written)
        raise
    if written:
        with session.transaction() as writer:
            _summarise(writer, table, written)


def _summarise(writer: _core.Connection, table: str, counts: Counter[str]) -> None:
    if counts := +counts:
        told = {"inserted": counts["inserted"], "updated": counts["updated"], **counts}
        History(writer).record(table, "*", "bulk", None, told)


def _checked(mode: str, history: str) -> bool:
    if mode not in ("exclusive", "shared"):
        raise InputError(f"mode={mode!r}; give 'exclusive' or 'shared'")
    if history not in ("summary", "rows"):
        raise InputError(f"history={history!r}; give 'summary' or 'rows'")
    if mode == "shared" and history == "rows":
        raise InputError("history='rows' needs mode='exclusive'")
    return history == "rows"
