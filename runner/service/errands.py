"""Work that may take a while, done beside the daemon's loop, one piece after the other."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future


class Errands:
    """One thread; what follows a piece of work is done by whoever calls `settle`."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """`wake` is called, on the thread, when a piece is done."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="errands")
        self._wake = wake
        self._open: deque[tuple[Future[Any], Callable[[Future[Any]], None]]] = deque()

    def do(self, work: Callable[[], Any], then: Callable[[Future[Any]], None]) -> None:
        """Has `work` done; `then` gets what came of it."""
        future = self._thread.submit(work)
        self._open.append((future, then))
        future.add_done_callback(lambda _: self._wake())

    def settle(self) -> None:
        """Does what follows the pieces that are done."""
        while self._open and self._open[0][0].done():
            future, then = self._open.popleft()
            then(future)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._open
