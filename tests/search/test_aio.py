"""Questions from asyncio do not keep the loop from its other work."""

import asyncio
import threading

import numpy as np
import pytest

from resonance import ResonanceDB, Text, aio, errors
from resonance.search import text as fulltext
from support import unit


@pytest.fixture(scope="module")
def large_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("aio") / "large.db"
    with ResonanceDB(path) as db:
        db.insert_nodes(id=[f"n{number:06}" for number in range(60_000)], embedding=unit(60_000, 128))
    return path


@pytest.fixture
def large(large_file):
    with ResonanceDB(large_file, readonly=True) as db:
        yield db


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


@pytest.mark.parametrize("memory", ["resident", "stream"])
def test_the_loop_keeps_ticking_while_a_scan_runs(large, memory):
    """Counted in turns of the loop: a scan that kept the GIL would leave it a few, before and after."""
    queries = unit(40, 128, seed=1)

    async def main():
        task = asyncio.ensure_future(aio.AsyncDB(large).search(queries, 5, memory=memory))
        turns = 0
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        return turns, await task

    turns, found = run(main())
    assert turns > 200
    assert found == large.search(queries, 5)


def test_each_question_answers_as_without_asyncio(large):
    query = unit(1, 128, seed=2)[0]

    async def main():
        db = aio.AsyncDB(large)
        return await asyncio.gather(
            db.search(query, 3, ids=["n000001", "n000002"]),
            db.embeddings(),
            db.get_node("n000007"),
            db.query("SELECT count(*) FROM nodes"),
            db.get_stats(),
            db.run(large.get_nodes_by_type, "none"),
        )

    hits, matrix, node, count, stats, none = run(main())
    assert hits == large.search(query, 3, ids=["n000001", "n000002"])
    assert np.array_equal(matrix.vectors, large.embeddings().vectors)
    assert (node.id, count, stats.nodes, none) == ("n000007", [(60_000,)], 60_000, [])


@pytest.mark.skipif(fulltext.unable() is not None, reason="this engine has no text search")
def test_text_and_contents(tmp_path):
    (tmp_path / "a.md").write_text("pears")

    async def main():
        async with aio.open(tmp_path / "graph.db", root=tmp_path) as db:
            await db.run(db.db.insert_nodes, id=["a", "b"], meta=[{"source": "a.md"}, {"source": "b.md"}])
            await db.run(db.db.insert_texts, [Text("a", "pears"), Text("b", "plums")])
            found = await asyncio.gather(
                db.search_text("plums"),
                db.search_hybrid("pears", vector=[1.0]),
                db.content("a"),
                db.content_many(node for node in "ab"),
            )
        with pytest.raises(errors.ClosedError):
            await db.search_text("plums")
        return found

    text, hybrid, content, contents = run(main())
    assert [hit.id for hit in text] == ["b"]
    assert [hit.id for hit in hybrid] == ["a"]
    assert content.text == "pears"
    assert [each.state for each in contents] == ["changed", "missing"]


def test_errors_reach_whoever_awaits(large):
    async def main():
        with pytest.raises(errors.EmbeddingError):
            await aio.AsyncDB(large).search([1.0, 2.0])
        with pytest.raises(errors.UnknownNodeError):
            await aio.AsyncDB(large).content("nobody")

    run(main())


def test_a_task_that_is_cancelled_goes_on_at_once_and_the_question_ends_by_itself(large):
    entered, release, ended = threading.Event(), threading.Event(), threading.Event()

    def question():
        entered.set()
        release.wait(60)
        count = large.query("SELECT count(*) FROM nodes")[0][0]
        ended.set()
        return count

    async def main():
        task = asyncio.ensure_future(aio.AsyncDB(large).run(question))
        while not entered.is_set():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not ended.is_set()
        release.set()

    run(main())
    assert ended.wait(60)
    assert large.query("SELECT count(*) FROM nodes") == [(60_000,)]
