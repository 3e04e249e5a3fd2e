"""Work beside the daemon's loop."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from runner.service.errands import Errands

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future


class Loop:
    """A loop that goes round when it is woken."""

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.errands = Errands(self.woken.set)
        self.results: list[Any] = []

    def keep(self, future: Future[Any]) -> None:
        self.results.append(future.exception() or future.result())

    def go_on(self, until: Callable[[], bool]) -> None:
        while not until():
            assert self.woken.wait(10)
            self.woken.clear()
            self.errands.settle()


def test_pieces_are_done_one_after_the_other_and_settled_in_their_order() -> None:
    loop, gate, began = Loop(), threading.Event(), []

    def first() -> int:
        assert gate.wait(10)
        began.append(1)
        return 1

    def second() -> int:
        began.append(2)
        return 2

    loop.errands.do(first, loop.keep)
    loop.errands.do(second, loop.keep)
    loop.errands.settle()
    assert loop.results == []
    assert not loop.errands.is_idle
    gate.set()
    loop.go_on(lambda: loop.errands.is_idle)
    assert began == [1, 2]
    assert loop.results == [1, 2]


def test_an_error_reaches_whoever_settles() -> None:
    loop = Loop()
    loop.errands.do(lambda: 1 // 0, loop.keep)
    loop.go_on(lambda: loop.errands.is_idle)
    assert isinstance(loop.results[0], ZeroDivisionError)


def test_what_follows_is_done_on_the_loops_own_thread() -> None:
    loop, threads = Loop(), []
    loop.errands.do(threading.get_ident, lambda future: threads.extend([future.result(), threading.get_ident()]))
    loop.go_on(lambda: bool(threads))
    assert threads[0] != threads[1] == threading.get_ident()


def test_what_follows_may_ask_for_more() -> None:
    loop = Loop()
    loop.errands.do(lambda: 1, lambda _: loop.errands.do(lambda: 2, loop.keep))
    loop.go_on(lambda: loop.results == [2])
    assert loop.errands.is_idle
