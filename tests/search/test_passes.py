"""Threads that ask at the same time share passes, and get what each would get alone."""

import threading

import numpy as np
import pytest

from resonance import ResonanceDB
from resonance.search import passes
from resonance.search.passes import MOST_TOGETHER, Passes, Wanted
from support import unit

WIDTH, ROWS = 32, 2000
QUERIES = unit(40, WIDTH, seed=2).astype(np.float64)
QUERIES /= np.linalg.norm(QUERIES, axis=1, keepdims=True)


class Watched:
    """Codes whose first pass waits until it is let go; the sizes of all passes are noted."""

    def __init__(self, codes, fail=()):
        self.codes, self.fail = codes, set(fail)
        self.sizes, self.shared = [], []
        self.started, self.go = threading.Event(), threading.Event()

    def candidates(self, queries, *rest):
        number = len(self.sizes)
        self.sizes.append(len(queries))
        self.shared.append(rest[-1])
        self.started.set()
        if number == 0:
            assert self.go.wait(60)
        if number in self.fail:
            raise MemoryError(f"pass {number}")
        return self.codes.candidates(queries, *rest)


@pytest.fixture
def codes(tmp_path):
    with ResonanceDB(tmp_path / "x.db") as db:
        db.insert_nodes(id=[f"n{number}" for number in range(ROWS)], embedding=unit(ROWS, WIDTH, seed=1))
        db.search(np.ones(WIDTH))
        yield db._index._view.codes


class Crowd:
    """Threads that ask while the first pass is held up."""

    def __init__(self, codes, fail=(), at_once=1):
        self.codes, self.passes, self.at_once = Watched(codes, fail), Passes(at_once), at_once
        self.answers, self.errors, self.threads = {}, {}, []

    def wanted(self, k):
        return Wanted(self.codes, ROWS, None, k, -np.inf, np.inf)

    def ask(self, number, k=5):
        def run():
            try:
                self.answers[number, k] = self.passes.candidates(self.wanted(k), QUERIES[number])
            except MemoryError as error:
                self.errors[number] = error

        waiting = len(self.passes._waiting)
        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()
        if len(self.threads) == 1:
            assert self.codes.started.wait(60)
        while len(self.threads) > 1 and len(self.passes._waiting) == waiting:
            pass

    def finish(self):
        self.codes.go.set()
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()
        for (number, k), (positions, low, high) in self.answers.items():
            alone = self.codes.codes.candidates(QUERIES[[number]], k, ROWS, None, None, -np.inf, np.inf)[0]
            for got, wanted in zip((positions, low, high), alone, strict=True):
                assert np.array_equal(got, wanted)
        assert self.passes._waiting == []
        assert self.passes._free == self.at_once
        return self.codes.sizes


def test_those_who_wait_go_together(codes):
    crowd = Crowd(codes)
    for number in range(6):
        crowd.ask(number)
    assert crowd.finish() == [1, 5]
    assert len(crowd.answers) == 6


def test_only_with_those_who_want_the_same(codes):
    crowd = Crowd(codes)
    for number, k in enumerate([5, 7, 5, 7, 5, 9]):
        crowd.ask(number, k)
    assert crowd.finish() == [1, 2, 2, 1]
    assert len(crowd.answers) == 6


def test_no_more_than_pay(codes):
    crowd = Crowd(codes)
    for number in range(MOST_TOGETHER + 4):
        crowd.ask(number)
    assert crowd.finish() == [1, MOST_TOGETHER, 3]


def test_a_pass_that_fails_fails_its_leader_alone(codes):
    crowd = Crowd(codes, fail=[0, 1])
    for number in range(5):
        crowd.ask(number)
    assert crowd.finish() == [1, 4, 3]
    assert list(crowd.errors) == [0, 1]
    assert set(crowd.answers) == {(2, 5), (3, 5), (4, 5)}


def test_the_main_thread_waits_for_nobody(codes):
    """Ctrl-C reaches it alone, and could come at any moment of its turn."""
    crowd = Crowd(codes)
    for number in range(3):
        crowd.ask(number)
    crowd.passes.candidates(crowd.wanted(5), QUERIES[30])
    assert crowd.finish() == [1, 1, 2]


@pytest.fixture
def much(monkeypatch):
    monkeypatch.setattr(passes, "MANY_HITS", 100)
    monkeypatch.setattr(passes, "MANY_ROWS", ROWS)


@pytest.mark.parametrize(("at_once", "threads"), [(1, 1), (3, 3), (50, 1 + passes.MOST_HELPERS)])
def test_many_hits_take_what_nobody_uses(codes, much, at_once, threads):
    crowd = Crowd(codes, at_once=at_once)
    crowd.ask(0, 200)
    crowd.finish()
    assert crowd.codes.shared == [threads]


def test_whoever_comes_meanwhile_gets_what_they_give_back(codes, much):
    crowd = Crowd(codes, fail=[0], at_once=3)
    for number in range(5):
        crowd.ask(number, 200 if number in (0, 4) else 5)
    crowd.finish()
    assert crowd.codes.shared[0] == 3
    assert len(crowd.answers) == 4


def test_few_hits_use_one_thread(codes, much):
    crowd = Crowd(codes, at_once=4)
    crowd.ask(0, 5)
    crowd.finish()
    assert crowd.codes.shared == [1]


@pytest.mark.parametrize(("at_once", "threads"), [(1, 1), (2, 2), (50, 1 + passes.MOST_HELPERS)])
def test_the_main_thread_takes_nothing_that_it_had_to_give_back(codes, much, at_once, threads):
    crowd = Crowd(codes, at_once=at_once)
    crowd.codes.go.set()
    for _ in range(3):
        crowd.passes.candidates(crowd.wanted(200), QUERIES[3])
    assert crowd.codes.shared == [threads] * 3
    assert crowd.passes._free == at_once


def test_a_crowd_at_a_database(codes, tmp_path):
    with ResonanceDB(tmp_path / "x.db") as db:
        alone = [list(db.search(query, 7)) for query in QUERIES]
        wrong = []

        def ask(start):
            for turn in range(60):
                number = (start + turn) % len(QUERIES)
                if list(db.search(QUERIES[number], 7)) != alone[number]:
                    wrong.append(number)

        threads = [threading.Thread(target=ask, args=(7 * number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        assert wrong == []
