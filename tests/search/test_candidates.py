"""One pass over codes leaves all rows that may be among the k best, and none that surely are not."""

import numpy as np
import pytest

from resonance import _core
from support import unit

WIDTH, ROWS = 8, 34_000
TILE, SAMPLE = 256, 32
SQL = "SELECT rowid, embedding, kind, kind, kind FROM t WHERE rowid BETWEEN ? AND ?"
QUERY = np.zeros(WIDTH)
QUERY[0] = 1


@pytest.fixture
def table():
    with _core.Connection(":memory:") as connection:
        connection.execute("CREATE TABLE t (embedding BLOB, kind TEXT)")
        yield connection


def encoded(table, vectors):
    rows = [(vector.tobytes(), f"kind {number % 3}") for number, vector in enumerate(vectors)]
    table.executemany("INSERT INTO t VALUES (?, ?)", rows)
    codes = _core.Codes(vectors.shape[1])
    codes.append(table, SQL, (1, len(vectors)))
    return codes


def check(codes, vectors, query, k, *, dead=None, least=-np.inf, most=np.inf):
    """The k best of those that count are there, and every row's bounds reach what k rows surely have."""
    exact = vectors.astype(np.float64) @ query
    positions, low, high = codes.candidates(query[None], k, len(vectors), dead, None, least, most)[0]
    assert len(set(positions.tolist())) == len(positions)
    assert (low <= exact[positions]).all()
    assert (exact[positions] <= high).all()
    counts = (exact >= least) & (exact <= most) & (True if dead is None else dead == 0)
    best = np.sort(exact[counts])[::-1][:k]
    if best.size:
        assert set(np.flatnonzero(counts & (exact >= best[-1]))) <= set(positions.tolist())
    sure = np.sort(low[high <= most - 1e-5])[::-1]
    if len(sure) >= k:
        assert (high >= sure[k - 1]).all(), "nothing is left that k rows are surely better than"
    assert dead is None or not dead[positions].any()
    return positions


def towards(score, rows, seed, width=WIDTH):
    """Unit rows whose scores with QUERY, or the like of it, are these."""
    rest = unit(rows, width - 1, seed=seed)
    score = np.broadcast_to(score, rows)
    return np.column_stack([score, rest * np.sqrt(1 - score**2)[:, None]]).astype(np.float32)


@pytest.mark.parametrize("k", [1, 63, 999, 1000, 2000, 5000, ROWS - 1, ROWS, 2 * ROWS])
@pytest.mark.parametrize("seed", [1, 2])
def test_rows_in_any_order(table, k, seed):
    vectors = unit(ROWS, WIDTH, seed=seed)
    codes = encoded(table, vectors)
    for query in unit(3, WIDTH, seed=seed + 10).astype(np.float64):
        query /= np.linalg.norm(query)
        check(codes, vectors, query, k)
        dead = (np.arange(ROWS) % 5 == 0).astype(np.uint8)
        check(codes, vectors, query, k, dead=dead)
        check(codes, vectors, query, k, least=0.3)
        check(codes, vectors, query, k, most=0.4)


@pytest.mark.parametrize("ascending", [True, False])
def test_rows_in_the_order_of_their_scores(table, ascending):
    scores = np.linspace(-0.9, 0.9, ROWS)
    vectors = towards(scores if ascending else scores[::-1], ROWS, 5)
    codes = encoded(table, vectors)
    for k in (10, 1000, 2000):
        assert len(check(codes, vectors, QUERY, k)) < 2 * k + 1000


def test_a_guess_by_the_best_rows_alone_is_taken_back(table):
    """The tiles of the sample hold all that is near, fewer rows than are wanted."""
    sampled = np.arange(ROWS) // TILE % SAMPLE == 0
    vectors = towards(np.where(sampled, 0.9, 0.1), ROWS, 6)
    codes = encoded(table, vectors)
    assert sampled.sum() < 2000
    assert len(check(codes, vectors, QUERY, 2000)) > 2000
    # Several queries, of which one was guessed wrong.
    exact = vectors.astype(np.float64) @ np.array([QUERY, -QUERY]).T
    found = codes.candidates(np.array([QUERY, -QUERY]), 2000, ROWS, None, None, -np.inf, np.inf)
    for number, (positions, _, _) in enumerate(found):
        scores = exact[:, number]
        assert set(np.flatnonzero(scores >= np.sort(scores)[-2000])) <= set(positions.tolist())


def test_a_guess_above_what_is_wanted(table):
    """What the sample saw lies above `most`: it says nothing of the rows below."""
    sampled = np.arange(ROWS) // TILE % SAMPLE == 0
    vectors = towards(np.where(sampled, 0.9, 0.1), ROWS, 6)
    codes = encoded(table, vectors)
    assert len(check(codes, vectors, QUERY, 2000, most=0.5)) > 2000


SCORES = {
    "any": np.random.default_rng(7).uniform(-0.9, 0.9, ROWS),
    "ascending": np.linspace(-0.9, 0.9, ROWS),
    "misleading": np.where(np.arange(ROWS) // TILE % SAMPLE == 0, 0.9, 0.1),
}


@pytest.mark.parametrize("order", SCORES)
def test_several_threads_share_a_pass(table, order):
    """Rows of five blocks, by whoever comes to them first: the same rows, with the same bounds, in order."""
    width = 512
    codes = encoded(table, towards(SCORES[order], ROWS, 8, width))
    queries = np.zeros((1, width))
    queries[0, 0] = 1
    dead = (np.arange(ROWS) % 3 == 0).astype(np.uint8)
    for k, least, most in (
        (5, -np.inf, np.inf),
        (2000, -np.inf, np.inf),
        (2000, 0.3, 0.8),
        (ROWS, 0.2, np.inf),
    ):
        wanted = (queries, k, ROWS, dead, None, least, most)
        (alone,) = codes.candidates(*wanted)
        for threads in (2, 3, 9):
            (shared,) = codes.candidates(*wanted, threads)
            for one, other in zip(alone, shared, strict=True):
                assert np.array_equal(one, other)


def test_all_scores_are_one(table):
    vectors = np.tile(unit(1, WIDTH, seed=1), (ROWS, 1))
    codes = encoded(table, vectors)
    query = vectors[0].astype(np.float64)
    assert len(check(codes, vectors, query / np.linalg.norm(query), 1000)) == ROWS


def test_parts_that_are_put_together(table):
    """Blocks that are not full become few, and rows keep what they have."""
    width = 4096  # few rows fill a block
    vectors = unit(3500, width, seed=3)
    whole = encoded(table, vectors)
    parts = [_core.Codes(width) for _ in range(3)]
    for number, (start, stop) in enumerate([(1, 1100), (1101, 1150), (1151, 3400)]):
        parts[number].append(table, SQL, (start, stop))
    codes = _core.Codes(width)
    codes.append(table, SQL, (3401, 3500))
    codes.absorb(parts)
    assert [part.count for part in parts] == [0, 0, 0]
    assert codes.count == 3500
    assert codes.nbytes == whole.nbytes
    positions = np.arange(3500)
    rowids = codes.rowids(positions)
    assert sorted(rowids) == list(range(1, 3501))
    stored = vectors[rowids - 1]
    check(codes, stored, stored[0].astype(np.float64) / np.linalg.norm(stored[0].astype(np.float64)), 20)
    for kind in range(3):
        found = codes.labelled([f"kind {kind}", None, None], 3500)
        assert sorted(rowids[found]) == [row for row in range(1, 3501) if (row - 1) % 3 == kind]
    located = codes.locate(np.array([5, 1120, 3450]), np.array([7, 1160, 3460]), 3500)
    assert sorted(rowids[located]) == [*range(5, 8), *range(1120, 1161), *range(3450, 3461)]
    # It goes on growing where it ended.
    codes.append(table, SQL, (1, 10))
    assert codes.rowids(np.arange(3500, 3510)).tolist() == list(range(1, 11))
