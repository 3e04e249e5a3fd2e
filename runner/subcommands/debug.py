"""`run -d`: the first trial alone, on this terminal, without a daemon, so that a debugger works."""

from __future__ import annotations

import signal
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runner import handover, plans
from runner.daemon import Daemon
from runner.events import Event
from runner.executors.foreground import ForegroundExecutor
from runner.lock import sole_user
from runner.plan import Journal
from runner.screen.progress import Progress
from runner.screen.watch import PlainWatcher

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from runner.model import PlannedTrial
    from runner.planning import Request
    from runner.resources import Places

TICK_S = 0.25


def run(request: Request, trials: Sequence[PlannedTrial], places: Places) -> tuple[Progress, bool]:
    """Runs the trial; returns how far it came, and whether it was stopped."""
    progress = Progress(Counter(stage for trial in trials for stage in trial.stages), 1)
    watcher = PlainWatcher(progress, len(trials))
    executor = ForegroundExecutor()
    own = {trial.key: trial for trial in trials}

    def tell(event: Event) -> None:
        shown = Event.from_wire(event.to_wire(), own)
        assert shown is not None
        watcher.handle(shown)

    daemon = Daemon(executor, tell, watcher.say, lambda _, why: watcher.say(why))
    with sole_user(request.output):
        plan_id = handover.write(request, trials, places.first())
        plan = plans.Plan(request.output, plan_id)
        try:
            entry = handover.entry(request, len(trials))
            daemon.submit(plan, lambda: Journal(request.output).append(entry))
            handover.copy_file(request)
            with _polite_signals(daemon):
                while not daemon.is_done:
                    daemon.step()
                    daemon.take(executor.wait(TICK_S))
                    watcher.tick(time.time())
        finally:
            watcher.close()
            plan.close()
            plans.delete(request.output, plan_id)
    return progress, daemon.stopped > 0


@contextmanager
def _polite_signals(daemon: Daemon) -> Iterator[None]:
    """SIGTERM and a closed terminal end the trial; Ctrl-C is the program's, as under a shell."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        daemon.stop()

    wanted = (signal.SIGTERM, signal.SIGHUP)
    heeded = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
    old = {number: signal.signal(number, stop) for number in heeded}
    old_interrupt = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        signal.signal(signal.SIGINT, old_interrupt)
