"""Watches what a daemon does, and turns Ctrl-C into a command or into leaving."""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from runner.errors import RunnerError
from runner.events import Event
from runner.model import Trial
from runner.protocol import ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from runner.events import Watcher
    from runner.protocol import Channel, Message
    from runner.screen.progress import Progress

TICK_S = 0.25
RESTARTS = 3
LAST_WORD_S = 0.1
_WAKE_UPS = 4096
_STOP: Message = {"do": "stop", "now": True}


class Left(StrEnum):
    """How watching came to its end."""

    OVER = "over"  # nothing is left to do
    STOPPED = "stopped"  # the work was ended before
    DETACHED = "detached"  # the work goes on without us


def trial_of(row: list[Any]) -> Trial:
    """A trial as the daemon tells of it."""
    index, trial_id, name, output, directory, stages, sweep = row
    return Trial(index, trial_id, name, output, directory, tuple(stages), sweep)


class Follower:
    """Feeds a watcher with what a daemon says until the jobs are over; `trials` takes in those of later rounds.

    `restart` gives a connection to the next daemon when one was killed; without it that is an error.
    """

    def __init__(
        self,
        channel: Channel,
        trials: dict[str, Trial],
        watcher: Watcher,
        progress: Progress,
        restart: Callable[[], Channel] | None = None,
    ) -> None:
        self._channel = channel
        self._trials = trials
        self._sweeps = {trial.sweep for trial in trials.values()}
        self._watcher = watcher
        self._progress = progress
        self._restart = restart
        self._restarts = 0
        self._is_over: Left | None = None
        self._was_stopped = False
        self.has_left = False  # the daemon has nothing left to do

    def follow(self, first: Message, signals: Signals, is_own: bool) -> Left:
        """Watches to the end; `first` is the answer that opened the watch. One of the `signals` that ends the watch
        ends the work, too, where that `is_own`; a closed terminal does not."""
        self._take(first)
        while self._is_over is None and not self._progress.is_over:
            self._watcher.tick(time.time())
            for number in signals.wait(self._channel.fileno(), TICK_S):
                if number == signal.SIGHUP or not is_own:
                    return Left.DETACHED
                self._stop()
            if signals.is_readable:
                self._receive()
        if self._is_over is None and signals.is_readable:
            # That nothing at all is left to do is said together with the last event.
            self._take_all(self._last_words())
        self.has_left = self._is_over is not None
        # What runs elsewhere may have come to its end before the daemon knows that nothing is left.
        return self._is_over or (Left.STOPPED if self._was_stopped else Left.OVER)

    def _last_words(self) -> list[Message]:
        try:
            return self._channel.receive(LAST_WORD_S)
        except ConnectionLostError:  # all has been heard that was waited for
            return []

    def close(self) -> None:
        """Ends the connection, whichever it is by now."""
        self._channel.close()

    def _stop(self) -> None:
        self._was_stopped = True
        try:
            self._channel.send(_STOP)
        except ConnectionLostError:
            self._take_all(self._follow_next())
            self._channel.send(_STOP)

    def _receive(self) -> None:
        try:
            messages = self._channel.receive()
        except ConnectionLostError:
            messages = self._follow_next()
        self._take_all(messages)

    def _follow_next(self) -> list[Message]:
        """Turns to the next daemon; returns what it says first."""
        while self._restart is not None and self._restarts < RESTARTS:
            self._restarts += 1
            self._watcher.say("The daemon was killed; another one takes its work up.")
            self._channel.close()
            self._channel = self._restart()
            try:
                return [self._channel.ask({"do": "watch"})]
            except ConnectionLostError:
                continue
        raise RunnerError("The daemon was killed; what runs goes on. `run` watches it again.")

    def _take_all(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self._take(message)

    def _take(self, message: Message) -> None:
        told = [trial_of(row) for row in message.get("joined", ())]
        # Another client's search may go on there, too.
        joined = [trial for trial in told if trial.key not in self._trials and trial.sweep in self._sweeps]
        self._trials |= {trial.key: trial for trial in joined}
        self._progress.join(joined)
        for record in message.get("events", ()):
            event = Event.from_wire(record, self._trials)
            if event is not None:
                self._watcher.handle(event)
        if "say" in message:
            self._watcher.say(message["say"])
        if "over" in message:
            self._is_over = Left.STOPPED if message["over"] == "stopped" else Left.OVER
        elif message.get("is_done"):
            self._is_over = Left.OVER
        if "error" in message:
            raise RunnerError(message["error"])


class Signals:
    """Signals and a descriptor, waited for together."""

    def __init__(self, wake_up: int) -> None:
        self._wake_up = wake_up
        self._came: list[int] = []
        self._is_waited_for = False
        self.is_readable = False

    def note(self, number: int, _frame: object) -> None:
        if self._came and not self._is_waited_for:  # a daemon that does not answer must not hold the terminal
            raise KeyboardInterrupt
        self._came.append(number)

    def wait(self, descriptor: int, timeout_s: float) -> list[int]:
        self._is_waited_for = True
        ready, _, _ = select.select([descriptor, self._wake_up], [], [], 0 if self._came else timeout_s)
        self.is_readable = descriptor in ready
        if self._wake_up in ready:
            os.read(self._wake_up, _WAKE_UPS)
        came, self._came = self._came, []
        return came


@contextmanager
def noted_signals() -> Iterator[Signals]:
    """Within, Ctrl-C, SIGTERM and a closed terminal are told, unless they were ignored when `run` was typed."""
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signals = Signals(wake_read)
    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heeded = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
    old_wake_up = signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    old = {number: signal.signal(number, signals.note) for number in heeded}
    try:
        yield signals
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(old_wake_up)
        os.close(wake_read)
        os.close(wake_write)
