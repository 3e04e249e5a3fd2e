"""The daemon's process: `python -m runner.serve OUTPUT`. It listens, works, and leaves when nothing is left to do.

The journal says what was asked for; whatever is asked is written there before it is done, so that the next daemon takes
up the work of one that was killed.
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import protocol
from runner.batch import submitjob
from runner.commands import Commands
from runner.daemon import Daemon
from runner.errors import RunnerError, SystemFaultError
from runner.executors.local import LocalExecutor
from runner.inbox import Inbox
from runner.lock import Holder, Lock
from runner.plan import Journal
from runner.process import this_host
from runner.service.connections import Connections
from runner.service.daemonlog import open_log
from runner.service.notices import Notices
from runner.trials import STATE_DIRECTORY

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from runner.events import Event

LOCK_WAIT_S = 15.0  # for a daemon that is just leaving
FIRST_WAIT_S = 15.0  # for the first command
LEAVE_S = 10.0  # for those who still watch when nothing is left to do
BEAT_S = 2.0  # between two looks at the lock and the inbox
_WAKE_UPS = 4096


class Server:
    """One daemon: its lock, its socket, its journal and its work."""

    def __init__(self, output: Path, lock: Lock, log: logging.Logger, is_ready: Callable[[], None]) -> None:
        self.output = output
        self._lock = lock
        self._log = log
        self._is_ready = is_ready
        self._selector = selectors.DefaultSelector()
        self._connections = Connections(self._selector, self._answer)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._executor = LocalExecutor()
        self._journal = Journal(output)
        self.daemon = Daemon(self._executor, self._tell, self._say, self._paused, wake=self._wake)
        self._commands = Commands(self.daemon, self._journal, output, self._say, self._joined)
        self._notices = Notices(self.daemon.scheduler, self._commands.notify)
        self._inbox = Inbox(output)
        self._was_asked = False
        self._terminated = False
        self._is_gone = False
        self._leave_at: float | None = None

    @property
    def was_told_to_leave(self) -> bool:
        """Whether it leaves because of a signal, whatever is left to do."""
        return self._terminated

    def run(self) -> int:
        """Serves until nothing is left to do; returns the exit code."""
        self._catch_signals()
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._woken)
        path = protocol.socket_path(self.output)
        self._connections.listen(path)
        host = this_host()
        started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        self._lock.tell(Holder(os.getpid(), host.name, host.boot, host.pid_namespace, os.getuid(), started, str(path)))
        self._commands.restore()
        self._log.info("serving %s", self.output)
        self._is_ready()
        try:
            self._loop()
        finally:
            self.daemon.close()
            self._connections.close(path)
        if not self._terminated and not self._is_gone:
            self._commands.finish()
        self._log.info("leaving")
        return 0

    # --- the loop ---

    def _loop(self) -> None:
        wait_until = time.monotonic() + FIRST_WAIT_S
        beat_at = 0.0
        while True:
            self.daemon.take(self._executor.poll())
            step_s = self.daemon.step()
            now = time.monotonic()
            if now >= beat_at:
                beat_at = now + BEAT_S
                self._beat()
            if self._may_leave(now, wait_until):
                return
            flush_s = self._connections.flush(now)
            waits = [step_s, flush_s, self._executor.poll_s, beat_at - now]
            timeout = max(0.0, min(item for item in waits if item is not None))
            for key, mask in self._selector.select(timeout):
                key.data(mask)

    def _may_leave(self, now: float, wait_until: float) -> bool:
        # Who started it may still be about to ask, also when what an earlier daemon left is done already.
        is_expecting = now < wait_until and not (self._was_asked or self._terminated)
        if not self.daemon.is_done or is_expecting:
            self._leave_at = None
            return False
        if self._leave_at is None:
            self._leave_at = now + LEAVE_S
            self._connections.tell({"over": "stopped" if self.daemon.scheduler.is_stopping else "done"})
            self._connections.flush(now, is_forced=True)
        return not self._connections.any() or now >= self._leave_at

    def _beat(self) -> None:
        if not self._lock.is_in_place():
            if not self._is_gone:
                self._is_gone = True
                self._say(f"{self.output}: the output directory was removed; what runs is ended.")
                self.daemon.stop()
            return
        self._lock.beat()
        self._connections.keep_listening()
        self._commands.tend()
        for request in self._inbox.take():
            self._answer(request, None)

    def _wake(self) -> None:
        """Has the loop go round; called from any thread."""
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:  # it goes round already
            return

    def _woken(self, _mask: int) -> None:
        os.read(self._wake_read, _WAKE_UPS)

    # --- what is said ---

    def _answer(self, request: protocol.Message, connection: Any) -> protocol.Message | None:
        """Does what a request asks for; returns the answer."""
        word = str(request.get("do"))
        self._was_asked = True
        try:
            if word == "watch" and connection is not None:
                self._watch(connection, {"answer": True, **self._commands.watched(request)})
                return None
            self._log.info("asked: %s", {key: value for key, value in request.items() if key != "entry"})
            answer = {"answer": True, **self._commands.do(word, request)}
            if request.get("watch") and connection is not None and not answer.get("stale"):
                self._watch(connection, {**answer, **self._commands.watched(request)})
                return None
            return answer
        except RunnerError as error:
            self._log.warning("refused %s: %s", word, error)
            return {"answer": False, "error": str(error), "exit_code": error.exit_code}

    def _watch(self, connection: Any, answer: protocol.Message) -> None:
        self._connections.watch(connection, answer)
        while self._commands.lost:
            self._connections.send(connection, {"say": self._commands.lost.pop(0)})

    def _tell(self, event: Event) -> None:
        self._connections.event(event)
        self._notices.hear(event)

    def _joined(self, rows: list[list[Any]]) -> None:
        self._connections.tell({"joined": rows})

    def _say(self, message: str) -> None:
        self._log.info("%s", message)
        self._connections.tell({"say": message})

    def _paused(self, sweep: str, why: str) -> None:
        """The daemon has paused a sweep by itself."""
        self._journal.append({"kind": "pause", "sweep": sweep})
        self._say(why)
        self._notices.paused(sweep, why)

    # --- signals ---

    def _catch_signals(self) -> None:
        """SIGTERM ends what runs and leaves the queue to the next daemon; a closed terminal is nothing to us."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._terminate)

    def _terminate(self, *_: object) -> None:
        self._terminated = True
        self.daemon.leave()


def _lock(output: Path) -> Lock | None:
    """The lock, once a daemon that is leaving has left; None when another one serves."""
    end = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return Lock(output)
        except BlockingIOError:
            try:
                protocol.Channel(protocol.socket_path(output)).close()
                return None
            except protocol.ConnectionLostError:
                if time.monotonic() > end:
                    raise
        time.sleep(0.02)


def main(arguments: list[str]) -> int:
    """Starts the daemon of an output directory, and returns when it listens, or when another one does.

    With `--here` it is this process, the job of a batch system, which returns when the daemon leaves.
    """
    output = Path(arguments[-1]).resolve()
    if "--here" in arguments:
        return _serve_here(output)
    ready, tell_ready = os.pipe()
    if os.fork() > 0:
        os.close(tell_ready)
        with os.fdopen(ready, "rb") as answer:
            said = answer.read()
        # Nothing was said: it ended before it came so far.
        return int(said) if said else 1
    os.setsid()
    os.close(ready)
    code = _serve(output, tell_ready)
    # The interpreter's own end takes longer than all that has to be done.
    sys.stdout.flush()
    os._exit(code)


def _serve_here(output: Path) -> int:
    """Serves in a job; what is left when its time is over, is its successor's."""
    signals = (signal.SIGUSR1, signal.SIGUSR2)  # some batch systems warn with these
    for number in signals:
        signal.signal(number, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    left: list[Server] = []
    began_at = time.monotonic()
    code = _serve(output, os.open(os.devnull, os.O_WRONLY), left.append)
    # Where another one serves, each job would submit the next at once.
    if Journal(output).is_open() and left and left[0].was_told_to_leave:
        job = submitjob.submit_again(output, time.monotonic() - began_at)
        print("No other daemon is submitted." if job is None else f"The next daemon is job {job}.")
    return code


def _serve(output: Path, tell_ready: int, has_left: Callable[[Server], None] = lambda _: None) -> int:
    try:
        lock = _lock(output)
        if lock is None:
            _ready(tell_ready, 0)
            return 0
        path = output / STATE_DIRECTORY / "daemon.log"
        log = open_log(path)
        server = Server(output, lock, log, lambda: _become_silent(path, tell_ready))
    except BlockingIOError:
        return _give_up(tell_ready, f"{output}: something holds the lock there, and does not answer.", 1)
    except RunnerError as error:
        return _give_up(tell_ready, str(error), error.exit_code)
    try:
        code = server.run()
    except RunnerError as error:
        log.error("%s", error)
        code = _give_up(tell_ready, str(error), error.exit_code)
    except OSError as error:  # a full disk, for one
        log.exception("The machine refused; attempts go on, the next daemon adopts them.")
        code = _give_up(tell_ready, f"{error.filename or output}: {error.strerror}.", SystemFaultError.exit_code)
    except BaseException:
        log.exception("The daemon ends because of an error of its own; attempts go on, the next daemon adopts them.")
        return 1
    if not Journal(output).is_open():
        submitjob.over(output)
    lock.release()
    has_left(server)
    return code


def _become_silent(log: Path, tell_ready: int) -> None:
    """From now on nobody reads standard error; what still comes there, as from notifications, goes beside the log."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    try:
        descriptor = os.open(log.with_suffix(".err"), flags, 0o600)
    except PermissionError:  # another user's, where several share the directory; the log is silent then, too
        descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    _ready(tell_ready, 0)


def _ready(tell_ready: int, code: int) -> None:
    os.write(tell_ready, str(code).encode())
    os.close(tell_ready)


def _give_up(tell_ready: int, message: str, code: int) -> int:
    print(message, file=sys.stderr, flush=True)
    try:
        _ready(tell_ready, code)
    except OSError:  # it was ready before
        return code
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
