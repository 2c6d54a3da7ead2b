"""Asking a database from asyncio, without keeping the loop from its other work.

    from resonance import ResonanceDB, aio

    async with aio.open("vault.db") as db:
        hits = await db.search_hybrid("how do we deploy")

Each question runs in a thread of asyncio's own, and the core gives the GIL away while it scans. When a
task that waits is cancelled, it goes on at once with :class:`asyncio.CancelledError`; the question, which
cannot be stopped half-way, ends in its thread, and nobody hears its answer. Questions only read, so
nothing is left half done.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from resonance.database import ResonanceDB
from resonance.model import Content, ContentPolicy, EmbeddingMatrix, Hits, Node, Stats

P = ParamSpec("P")
T = TypeVar("T")


class AsyncDB:
    """The questions of a :class:`ResonanceDB`, awaitable; each means what the method of its name does.

    Every question sees the database as it is when its turn comes: a snapshot or a transaction that this
    thread has open does not reach the threads they run in.

    Args:
        db: the database, which stays the caller's to close.
    """

    def __init__(self, db: ResonanceDB) -> None:
        self.db = db

    async def search(self, query: Any, k: int = 10, **options: Any) -> Any:
        """See :meth:`ResonanceDB.search`."""
        return await self.run(lambda: self.db.search(query, k, **options))

    async def search_text(self, text: str, k: int = 10, **options: Any) -> Hits:
        """See :meth:`ResonanceDB.search_text`."""
        return await self.run(self.db.search_text, text, k, **options)

    async def search_hybrid(self, text: str, k: int = 10, **options: Any) -> Hits:
        """See :meth:`ResonanceDB.search_hybrid`; ``vector`` and ``rerank`` are called in the thread."""
        return await self.run(self.db.search_hybrid, text, k, **options)

    async def content(self, id: str, *, policy: ContentPolicy = "flag") -> Content | None:
        """See :meth:`ResonanceDB.content`."""
        return await self.run(self.db.content, id, policy=policy)

    async def content_many(self, ids: Iterable[str], *, policy: ContentPolicy = "flag") -> list[Content]:
        """See :meth:`ResonanceDB.content_many`."""
        return await self.run(self.db.content_many, list(ids), policy=policy)

    async def embeddings(self, *, domain: str | None = None, type: str | None = None) -> EmbeddingMatrix:
        """See :meth:`ResonanceDB.embeddings`."""
        return await self.run(self.db.embeddings, domain=domain, type=type)

    async def get_node(self, id: str) -> Node | None:
        """See :meth:`ResonanceDB.get_node`."""
        return await self.run(self.db.get_node, id)

    async def get_stats(self) -> Stats:
        """See :meth:`ResonanceDB.get_stats`."""
        return await self.run(self.db.get_stats)

    async def query(self, sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        """See :meth:`ResonanceDB.query`."""
        return await self.run(self.db.query, sql, parameters)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call anything else in such a thread, such as a method that writes."""
        return await asyncio.to_thread(function, *args, **kwargs)


@contextlib.asynccontextmanager
async def open(path: str | os.PathLike[str], **options: Any) -> AsyncIterator[AsyncDB]:
    """A database of its own, closed at the end; the options are those of :class:`ResonanceDB`."""
    db = await asyncio.to_thread(ResonanceDB, path, **options)
    try:
        yield AsyncDB(db)
    finally:
        await asyncio.to_thread(db.close)
