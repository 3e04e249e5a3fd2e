"""A project whose `run` is typed in a forked child, which is cheap and can be killed; its daemons can be armed."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import psutil
import pytest

from runner import lock, plans, records
from runner.cli import main
from runner.plan import Journal
from runner.plans import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.conftest import Project

FAULTS = Path(__file__).with_name("faults")
TIMEOUT_S = 60.0

# Each attempt writes its begin and end into a ledger, and says so when it finds another attempt of its job alive.
JOB = """\
busy=$RUNNER_OUTPUT/busy.$RUNNER_STAGE
test -e $busy && read -r _ _ state _ 2>/dev/null < /proc/$(cat $busy)/stat && test $state != Z &&
  echo twice $1 $RUNNER_STAGE >> ledger
echo $$ > $busy
echo begin $1 $RUNNER_STAGE >> ledger
sleep $2
echo end $1 $RUNNER_STAGE >> ledger
rm $busy
"""


def wait_until_dead(processes: Iterable[psutil.Process]) -> None:
    """Waits until processes that were killed are gone; one that nobody has reaped yet is."""
    for process in processes:
        try:
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.002)
        except psutil.NoSuchProcess:
            continue


class Typed:
    """A `run` that was typed; it can be waited for, or killed."""

    def __init__(self, pid: int, said: Path) -> None:
        self.pid = pid
        self._said = said
        self._code: int | None = None

    @property
    def text(self) -> str:
        """What it has said so far."""
        return self._said.read_text(errors="replace")

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code is not None

    def wait(self, timeout_s: float = TIMEOUT_S) -> int:
        """Its exit code; minus the signal that ended it."""
        end = time.monotonic() + timeout_s
        while not self.is_over:
            if time.monotonic() > end:
                pytest.fail(f"`run` does not end; it said:\n{self.text}")
            time.sleep(0.005)
        assert self._code is not None
        return self._code

    def kill(self) -> None:
        """SIGKILL, to it alone."""
        if not self.is_over:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()


class Site:
    """A user's directory in which things go wrong."""

    def __init__(self, project: Project, path: Path | None = None) -> None:
        self.project = project
        self.path = path or project.path
        self.output = self.path / "output"
        self.faults = self.path / "faults"
        self.faults.mkdir()
        inherited = [text] if (text := os.environ.get("PYTHONPATH")) else []
        self.environment = {
            **project.environment,
            "PYTHONPATH": os.pathsep.join([str(FAULTS), *inherited]),
            "RUNNER_FAULTS": str(self.faults),
        }
        self._typed: list[Typed] = []

    # --- typing ---

    def type(self, *arguments: str, prepare: Callable[[], None] | None = None) -> Typed:
        """Types `run`; `prepare` is called in its process first."""
        said = self.path / f"said.{len(self._typed)}"
        said.touch()
        pid = os.fork()
        if pid == 0:
            self._become_run(arguments, said, prepare)
        self._typed.append(Typed(pid, said))
        return self._typed[-1]

    def _become_run(self, arguments: tuple[str, ...], said: Path, prepare: Callable[[], None] | None) -> NoReturn:
        code = 70
        try:
            os.setsid()
            os.chdir(self.path)
            os.environ.clear()
            os.environ.update(self.environment)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
                signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
            file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(file, 1)
            os.dup2(file, 2)
            sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
            sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), line_buffering=True)
            sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), line_buffering=True)
            if prepare is not None:
                prepare()
            code = main(arguments)
        except BaseException:  # noqa: BLE001 - as the interpreter would
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            os._exit(code)

    def finish(self, tries: int = 10) -> int:
        """Types `run` until it has done all; returns how often."""
        for count in range(1, tries + 1):
            typed = self.type()
            code = typed.wait()
            assert "Traceback" not in typed.text, typed.text
            if code == 0:
                return count
            assert code == 1, f"exit code {code}:\n{typed.text}"
        pytest.fail(f"typed {tries} times, it still says:\n{typed.text}\n{self.daemon_log()}")

    def arm(self, points: Iterable[tuple[int, str]]) -> None:
        """Each of the next daemons is killed at one of these."""
        (self.faults / "points").write_text("".join(f"{number} {when}\n" for number, when in points))

    # --- who lives ---

    def daemons(self) -> list[psutil.Process]:
        """The daemons of this output directory."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []  # a zombie has none
            if "runner.serve" in words and words[-1].startswith(str(self.path)):
                found.append(process)
        return found

    def kill_daemon(self) -> list[int]:
        """SIGKILL to the daemon alone; returns its pid, and that of a process which was just starting it."""
        killed = []
        for daemon in self.daemons():
            with suppress(psutil.NoSuchProcess):  # it was about to leave
                daemon.kill()
                killed.append(daemon)
        wait_until_dead(killed)
        return [daemon.pid for daemon in killed]

    def replace_daemon(self) -> None:
        """SIGKILL to the daemon, of which somebody watches the work; returns when the next one has taken it up."""
        killed = self.kill_daemon()
        assert killed
        end = time.monotonic() + TIMEOUT_S
        while (holder := lock.holder(self.output)) is None or holder.pid in killed or not lock.is_held(self.output):
            if time.monotonic() > end:
                pytest.fail(f"no other daemon comes:\n{self.daemon_log()}")
            time.sleep(0.01)

    def kill_clients(self) -> list[int]:
        """SIGKILL to every `run` that was typed; returns their pids."""
        living = [typed for typed in self._typed if not typed.is_over]
        for typed in living:
            typed.kill()
        return [typed.pid for typed in living]

    def kill_everything(self) -> list[int]:
        """The clients, the daemon, then its attempts, as a dying machine might; returns what was killed."""
        killed = self.kill_clients()
        while daemons := self.kill_daemon():
            killed += daemons
        while living := self.project.living():
            for attempt in living:
                try:
                    attempt.kill()
                except psutil.NoSuchProcess:
                    continue
            wait_until_dead(living)
            killed += [attempt.pid for attempt in living]
        return killed

    def daemon_log(self) -> str:
        """What the daemons have noted."""
        path = self.output / ".runner" / "daemon.log"
        return path.read_text(errors="replace") if path.exists() else "(no daemon.log)"

    def wait_until_left(self) -> None:
        """Waits until no daemon is there."""
        end = time.monotonic() + TIMEOUT_S
        while lock.is_held(self.output) or self.daemons():
            if time.monotonic() > end:
                pytest.fail(f"the daemon does not leave:\n{self.daemon_log()}")
            time.sleep(0.01)

    # --- what must hold ---

    def ledger(self) -> Counter[str]:
        """What the jobs themselves wrote, line by line."""
        path = self.path / "ledger"
        return Counter(path.read_text().splitlines() if path.exists() else ())

    def begins(self) -> Counter[tuple[str, str]]:
        """How often each job has begun, by its own account."""
        words = [line.split() for line in self.ledger().elements()]
        return Counter((trial, stage) for what, trial, stage in words if what == "begin")

    def check_whole(self) -> None:
        """No file is torn: each can be read by its own reader."""
        Journal(self.output).entries()
        kept = {path.stem for path in plans.directory_of(self.output).glob("*.jsonl")}
        for plan_id in kept:
            Plan(self.output, plan_id).close()
        for name in self.project.trials():
            directory = str(self.output / name)
            records.read_param(directory)
            records.read_stat(directory)
            records.read_attempts(directory)

    def check_complete(self, trials: int, stages: tuple[str, ...]) -> None:
        """Every trial is complete, each job exactly once; nothing ran twice at a time and nothing is left alive."""
        self.check_whole()
        jobs = {(f"N_{n}", stage) for n in range(trials) for stage in stages}
        done = Counter(
            (name, record["stage"])
            for name in self.project.trials()
            for record in self.project.attempts(name, "exit")
            if record["exit_code"] == 0
        )
        assert done == Counter(jobs)
        for n in range(trials):
            assert self.project.stat(f"N_{n}") == dict.fromkeys(stages, "finished")
        assert not [line for line in self.ledger() if line.startswith("twice")]
        assert not self.project.living()

    def fired(self) -> list[str]:
        """The points at which daemons were killed."""
        path = self.faults / "fired"
        return path.read_text().splitlines() if path.exists() else []

    def calls(self) -> list[str]:
        """The calls of the last daemon that was not killed."""
        return (self.faults / "calls").read_text().splitlines()[-1].split()

    def clean_up(self) -> None:
        """Kills whatever a test left."""
        self.kill_clients()
        while self.kill_daemon():
            continue

    def begin_anew(self) -> None:
        """Removes whatever came of a `run`."""
        self.kill_everything()
        shutil.rmtree(self.output, ignore_errors=True)
        for path in [self.path / "ledger", *self.path.glob("said.*"), *self.faults.iterdir()]:
            path.unlink(missing_ok=True)
        self._typed.clear()


@pytest.fixture
def job_script() -> str:
    """A program that keeps the ledger: its number, and for how many seconds it works."""
    return JOB


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nothing be mounted")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def odd_site(project: Project, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A project directory of the name that the test asks for."""
    path = project.path / request.param
    path.mkdir(parents=True)
    result = Site(project, path)
    yield result
    result.clean_up()


@pytest.fixture
def site(project: Project) -> Iterator[Site]:
    """An empty project directory."""
    result = Site(project)
    yield result
    result.clean_up()
