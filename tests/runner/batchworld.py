"""A batch system that does as a test says, and a user's output directory whose trials it has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import daemon, plans, records
from runner.batch import batches, batchfile, claims, desk, news, taskreturns
from runner.batch.batchfile import Intent
from runner.commands import Commands
from runner.daemon import Daemon
from runner.executors import registry
from runner.executors.batch import BatchKeys, FullError, Gone, Here, Seen, TaskId, TaskState, UnreachableError, Why
from runner.model import JobState
from runner.options import StageOptions
from runner.plan import Journal
from tests.runner.standins import Clock, FakeExecutor, World, header, planned

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    import pytest

    from runner.events import Event
    from runner.executors.batch import Batch
    from runner.model import Trial

NAME = "fake"
LEASE_S = 1.0
ROOT = Path(__file__).resolve().parents[2]
KILL, STOP, CONTINUE = "kill", "stop", "continue"


class FakeSystem:
    """By the contract of a batch executor; `fault` is raised by every command, `refusal` by those that submit."""

    keys: type[BatchKeys] = BatchKeys
    vanished: Why | None = None

    def __init__(self) -> None:
        self.batches: dict[str, Batch] = {}  # by job, also those that it has forgotten
        self.rows: dict[TaskId, Seen] = {}
        self.fates: dict[TaskId, tuple[Why, str]] = {}
        self.canceled: list[tuple[str, tuple[int, ...] | None]] = []
        self.commands: list[str] = []
        self.most = 1000
        self.fault: Exception | None = None
        self.refusal: Exception | None = None
        self.room = 1000  # for so many jobs
        self.queue_room: int | None = None  # for so many tasks at a time
        self.refused_now: set[str] = set()  # the names of jobs for which there is no room, however many there are
        self.inherited: int | None = None  # the descriptor that the last submission was given
        self.loses_answer = False  # the next submission works, and nobody hears of it

    def _command(self, word: str) -> None:
        self.commands.append(word)
        if self.fault is not None:
            raise self.fault

    def script(self, batch: Batch) -> str:
        return f"{batch.task}\n"

    def submit(self, batch: Batch, script: str, inherited: int | None = None) -> str:
        self._command("submit")
        assert script == self.script(batch)
        self.inherited = inherited
        if self.refusal is not None:
            raise self.refusal
        if self.queue_room is not None and len(self.rows) + batch.count > self.queue_room:
            raise FullError("sbatch: QOSMaxSubmitJobPerUserLimit")
        if len(self.batches) == self.room or batch.name in self.refused_now:
            raise UnreachableError("sbatch: QOSMaxSubmitJobPerUserLimit")
        job = str(len(self.batches) + 1)
        self.batches[job] = batch
        for number in range(batch.count):
            self.rows[TaskId(job, number)] = Seen(TaskId(job, number), batch.name, TaskState.WAITING, "Priority")
        if self.loses_answer:
            self.loses_answer = False
            raise UnreachableError("sbatch: Socket timed out.")
        return job

    def queue(self) -> Sequence[Seen]:
        self._command("queue")
        return list(self.rows.values())

    def find(self, names: Collection[str], since: float) -> Mapping[str, str]:
        self._command("find")
        return {batch.name: job for job, batch in self.batches.items() if batch.name in names}

    def gone(self, tasks: Collection[TaskId], names: Collection[str], since: float) -> Sequence[Gone]:
        self._command("gone")
        found = [Gone(task, self.batches[task.job].name, *self.fates[task]) for task in tasks if task in self.fates]
        return [item for item in found if item.name in names]

    def told_in(self, log: str) -> Why | None:
        words = [why for why in Why if f"fake: {why.value}\n" in log]
        return words[0] if words else None

    def cancel(self, job: str, numbers: Collection[int] | None = None) -> None:
        self._command("cancel")
        self.canceled.append((job, None if numbers is None else tuple(sorted(numbers))))
        for task in list(self.rows):
            if task.job == job and (numbers is None or task.number in numbers):
                del self.rows[task]

    def has_gpus(self, keys: BatchKeys) -> bool:
        self._command("has_gpus")
        return False

    def max_tasks(self) -> int:
        self._command("max_tasks")
        return self.most

    def here(self, environment: Mapping[str, str]) -> Here | None:
        if "FAKE_TASK" not in environment:
            return None
        job, number, restart = environment["FAKE_TASK"].split()
        return Here(TaskId(job, int(number)), int(restart))

    # --- what happens there ---

    def run(self, task: TaskId) -> None:
        """A task runs, as far as the batch system says."""
        self.rows[task] = Seen(task, self.batches[task.job].name, TaskState.RUNNING, node="n1")

    def lose(self, task: TaskId, why: Why | None = None, text: str = "") -> None:
        """A task is in the queue no more."""
        self.rows.pop(task, None)
        if why is not None:
            self.fates[task] = (why, text or why.value.upper())


class HeldErrands:
    """Does its work when it is asked to settle, without a thread; while `is_held`, nothing is done."""

    is_held = False

    def __init__(self, wake: Callable[[], None]) -> None:
        self._open: deque[tuple[Callable[[], Any], Callable[[Future[Any]], None]]] = deque()

    def do(self, work: Callable[[], Any], then: Callable[[Future[Any]], None]) -> None:
        self._open.append((work, then))

    def settle(self) -> None:
        while self._open and not HeldErrands.is_held:
            work, then = self._open.popleft()
            future: Future[Any] = Future()
            try:
                future.set_result(work())
            except Exception as error:  # noqa: BLE001 - as a thread's future has it
                future.set_exception(error)
            then(future)

    @property
    def is_idle(self) -> bool:
        return not self._open


class Site:
    """An output directory with one daemon after the other, and the batch system that outlives them."""

    def __init__(self, output: Path, clock: Clock) -> None:
        self.output = output
        (output / ".runner").mkdir()
        self.clock = clock
        self.system = FakeSystem()
        self.world = World()
        self.journal = Journal(output)
        self.plans = 0
        self.said: list[str] = []
        self.events: list[Event] = []
        self.children: list[subprocess.Popen[bytes]] = []
        self.begin()

    # --- the daemon ---

    def begin(self) -> None:
        """The next daemon."""
        self.executor = FakeExecutor(self.world)
        self.daemon = Daemon(self.executor, self.events.append, self.said.append, lambda *_: None)
        self.commands = Commands(self.daemon, self.journal, self.output, self.said.append)
        self.commands.restore()

    def settle(self, rounds: int = 4) -> None:
        """Goes round the daemon's loop until what is asked for is answered."""
        for _ in range(rounds):
            self.daemon.take(self.executor.poll())
            self.daemon.step()

    def look(self, times: int = 1) -> None:
        """The time comes at which the queue is looked at."""
        for _ in range(times):
            self.clock.now += 40.0
            self.settle()

    def run(
        self, *indices: int, stages: str = "a", told: Mapping[str, Any] | None = None, command: str = "true",
        options: Mapping[str, StageOptions] | None = None, **flags: Any,
    ) -> dict[str, int]:  # fmt: skip
        """Types `run`; returns what it changes."""
        self.plans += 1
        batch = {"lease": LEASE_S, **(told or {})}
        given = {stage: StageOptions(executor=NAME, batch=batch) for stage in stages} | dict(options or {})
        trials = [planned(self.output, index, tuple(stages), command=command) for index in indices]
        plans.write(self.output, header(f"p{self.plans}", given, **flags), plans.Secrets(dict(os.environ)), trials)
        request = {"plan": f"p{self.plans}", "size": self.journal.size(), "entry": {"kind": "plan", "time": "now"}}
        difference: dict[str, int] = self.commands.do("submit", request)["difference"]["counts"]
        self.settle()
        return difference

    def do(self, word: str, **request: Any) -> None:
        self.commands.do(word, request)
        self.settle()

    def trial(self, name: str) -> Trial:
        return next(trial for trial in self.daemon.scheduler.trials() if trial.name == name)

    def states(self, name: str = "T_0") -> dict[str, str]:
        return {stage: state.value for stage, state in self.daemon.scheduler.states(self.trial(name)).items()}

    def state(self, name: str = "T_0") -> JobState:
        (state,) = self.daemon.scheduler.states(self.trial(name)).values()
        return state

    def told(self) -> list[tuple[str, str]]:
        """The events: word and trial."""
        return [(event.kind.value, event.job.trial.name) for event in self.events]

    def hold(self) -> None:
        """Nothing is done any more beside the daemon's loop, but how large an array may be is known."""
        self.daemon._batches._desk(NAME).max_tasks = self.system.most
        HeldErrands.is_held = True

    # --- what lies on the disk ---

    @property
    def folders(self) -> list[Path]:
        return batchfile.folders(self.output)

    def folder(self, job: str = "1") -> Path:
        return batchfile.directory_of(self.output) / self.system.batches[job].name

    def intent(self, *keys: str, told: Mapping[str, Any] | None = None, plan: str = "p1") -> Intent:
        """The intent of tasks, one for each trial, as a daemon writes it."""
        plan_file = plans.Plan(self.output, plan)
        trials = {trial.key: trial for trial in plan_file.trials}
        parts = [
            batchfile.Part(key, {stage: (plan, *plan_file.place_of(trials[key])) for stage in trials[key].stages}, plan)
            for key in keys
        ]
        plan_file.close()
        batch = {"lease": LEASE_S, **(told or {})}
        return Intent(batchfile.new_name(), NAME, batch, plan, "/", None, 1, tuple((part,) for part in parts))

    def ends(self, name: str = "T_0") -> list[dict[str, Any]]:
        """The ends of a trial's attempts."""
        return [item.end for item in records.read_attempts(f"{self.output}/{name}").attempts if item.end]

    # --- tasks as processes ---

    def start(self, job: str = "1", number: int = 0, restart: int = 0) -> subprocess.Popen[bytes]:
        """The batch system begins a task, in a process of its own."""
        task = TaskId(job, number)
        self.system.run(task)
        folder = self.folder(job)
        with (folder / f"{number}.log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "runner.task", "run", str(folder)],
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": f"{ROOT}:{self.output / 'packages'}",
                    "FAKE_TASK": f"{job} {number} {restart}",
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.children.append(child)
        return child

    def finish(self, child: subprocess.Popen[bytes], job: str = "1", number: int = 0, why: Why = Why.ENDED) -> int:
        """A task comes to its end, and leaves the queue; returns its exit code."""
        code = child.wait(30)
        self.system.lose(TaskId(job, number), why)
        return code

    def through(self, job: str = "1", number: int = 0) -> None:
        """A task runs from its beginning to its end."""
        assert self.finish(self.start(job, number), job, number) == 0, self.log(job, number)

    def log(self, job: str = "1", number: int = 0) -> str:
        return (self.folder(job) / f"{number}.log").read_text()

    def begun(self, job: str = "1", number: int = 0, claim: int = 0) -> bool:
        return claims.path_of(self.folder(job), number, claim).exists()

    def package(self) -> None:
        """What makes the executor known in a task's process."""
        directory = self.output / "packages" / f"{NAME}-1.dist-info"
        directory.mkdir(parents=True)
        (directory / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1\n")
        entry = f"{NAME} = tests.runner.batchworld:FakeSystem"
        (directory / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{entry}\n")


def sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site; for a fixture. Its clock goes on only when it is told to."""
    clock = Clock()
    for module in (daemon, batches, desk, news, taskreturns):
        monkeypatch.setattr(module, "boot_seconds", clock)
    monkeypatch.setattr(desk, "Errands", HeldErrands)
    monkeypatch.setattr(HeldErrands, "is_held", False)
    known: list[Site] = []
    monkeypatch.setattr(registry, "load", lambda _name: known[0].system)
    site = Site.__new__(Site)
    known.append(site)
    site.__init__(tmp_path, clock)  # type: ignore[misc]
    site.package()
    yield site
    for child in site.children:
        child.kill()
        child.wait()


def lines(path: Path) -> list[Any]:
    """The lines of a file that only grows."""
    return [json.loads(line) for line in path.read_text().splitlines()]
