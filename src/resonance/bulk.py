"""Many rows at once: what ``insert_nodes`` and ``insert_edges`` do.

Rows are planned without the database and without the lock; the lock is held only to write them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from resonance import _core, changes, rows, spaces
from resonance.errors import InputError
from resonance.factory import engine_number, one_pass
from resonance.history import History
from resonance.model import InsertReport
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
            plans.append(_core.NodePlan(rows.node_columns(batch.source, width)))
    vectors = [plan.vectors for plan in plans if plan.vectors is not None]
    widths = {column.width for column in vectors if column.width and column.length}
    total = sum(plan.count for plan in plans)
    if mode == "shared" and not session.in_transaction:
        with session.transaction() as writer:
            spaces.settle_width(writer, widths)
        for plan in plans:
            _write_shared(session, plan, progress)
        if total:
            with session.transaction() as writer:
                _summarise(writer, "nodes", plans)
    else:
        size = total * (4 * max(widths, default=0) + 100)
        poured = _pours(session, total)
        # A new node breaks no key: nothing can point to it yet.
        with session.loading(alone=size >= ALONE_FROM_BYTES, keys_checked=poured) as writer:
            spaces.settle_width(writer, widths)
            record = History(writer)
            with changes.in_bulk(writer, plans):
                for plan in plans:
                    with record.of_nodes(plan, row_history):
                        _write(session, writer, plan, progress, poured=poured)
            if not row_history:
                _summarise(writer, "nodes", plans)
    inserted, updated = (sum(getattr(plan, name) for plan in plans) for name in ("inserted", "updated"))
    return InsertReport(
        rows=total,
        inserted=inserted,
        updated=updated,
        unchanged=total - inserted - updated,
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
        with session.transaction() as writer:
            plan.check_ends(writer, on_missing)
        _write_shared(session, plan, progress)
        with session.transaction() as writer:
            _summarise(writer, "edges", [plan])
    else:
        poured = _pours(session, plan.rows)
        # Every end is looked up once, in the transaction that writes: no key is checked row by row.
        large = plan.rows * 100 >= ALONE_FROM_BYTES
        with session.loading(alone=large, keys_checked=True, sorts=large) as writer:
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
            if not row_history:
                _summarise(writer, "edges", [plan])
    return InsertReport(
        rows=plan.rows,
        inserted=plan.inserted,
        updated=plan.updated,
        unchanged=plan.rows - plan.skipped - plan.inserted - plan.updated,
        skipped=plan.skipped,
        stubbed=plan.stubbed,
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


def _write_shared(session: Session, plan: _core.Plan, progress: Progress | None) -> None:
    """Short transactions, each as many rows as fit into ``SHARED_HOLD``."""
    start, step = 0, 64
    while start < plan.count:
        with session.transaction() as writer:
            began = time.monotonic()
            with changes.in_bulk(writer, [plan] if isinstance(plan, _core.NodePlan) else []):
                while True:
                    plan.write(writer, start, start + step)
                    start += step
                    if start >= plan.count or time.monotonic() - began >= SHARED_HOLD:
                        break
        held = session.holds[-1]
        if held > 2 * SHARED_HOLD and step > 1:
            step //= 2
        elif held < SHARED_HOLD:
            step = min(2 * step, 1024)
        if progress is not None:
            progress(min(start, plan.count), plan.count)
        time.sleep(SHARED_PAUSE)


def _rebuild_pays(writer: _core.Connection, rows: int) -> bool:
    """Whether sorting all targets once costs less than placing each of the new ones."""
    if rows < _REBUILD_INDEX_FROM:
        return False
    bound = int(rows * _REBUILD_INDEX_RATIO)
    found = writer.execute("SELECT count(*) FROM (SELECT 1 FROM edges LIMIT ?)", (bound,))
    return bool(found[0][0] < bound)


def _summarise(writer: _core.Connection, table: str, plans: Sequence[_core.Plan]) -> None:
    inserted, updated = (sum(getattr(plan, name) for plan in plans) for name in ("inserted", "updated"))
    if inserted or updated:
        History(writer).record(table, "*", "bulk", None, {"inserted": inserted, "updated": updated})


def _checked(mode: str, history: str) -> bool:
    if mode not in ("exclusive", "shared"):
        raise InputError(f"mode={mode!r}; give 'exclusive' or 'shared'")
    if history not in ("summary", "rows"):
        raise InputError(f"history={history!r}; give 'summary' or 'rows'")
    if mode == "shared" and history == "rows":
        raise InputError("history='rows' needs mode='exclusive'")
    return history == "rows"
