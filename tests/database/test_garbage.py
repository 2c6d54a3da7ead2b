"""Garbage is looked for less often while very much is made, and as before afterwards."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from resonance.garbage import seldom_sought


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before, enabled = gc.get_threshold(), gc.isenabled()
    yield
    gc.set_threshold(*before)
    (gc.enable if enabled else gc.disable)()


def test_as_before_when_the_last_block_has_ended_whatever_happened_in_it() -> None:
    gc.set_threshold(700, 11, 12)

    def fail() -> None:
        with seldom_sought():
            assert gc.get_threshold()[0] > 10_000
            assert gc.get_threshold()[1:] == (11, 12)
            with seldom_sought():
                pass
            assert gc.get_threshold()[0] > 10_000
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert gc.get_threshold() == (700, 11, 12)


def test_blocks_of_several_threads_that_end_in_any_order() -> None:
    gc.set_threshold(700, 10, 10)
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with seldom_sought():
            inside.set()
            leave.wait(60)

    with seldom_sought():
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(60)
    assert gc.get_threshold()[0] > 10_000
    leave.set()
    thread.join()
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("rare", [0, 10_000_000])
def test_what_is_off_or_rarer_stays_so(rare: int) -> None:
    gc.set_threshold(rare, 10, 10)
    gc.disable()
    with seldom_sought():
        assert gc.get_threshold()[0] == rare
        assert not gc.isenabled()
    assert gc.get_threshold() == (rare, 10, 10)
    assert not gc.isenabled()
