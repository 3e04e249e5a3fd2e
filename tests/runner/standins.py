"""Stand-ins for the world around a daemon: attempts that live in memory, plans on the disk, a clock that is told."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from runner import plans
from runner.appendfile import append_line
from runner.executors.base import Ended
from runner.model import PlannedTrial, Recipe, Slot
from runner.options import StageOptions
from runner.plans import Plan, PlanHeader, Secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runner.executors.base import Launch
    from runner.process import ExitRecord
    from runner.records import Record

FIRST_ID = 1 << 40  # no process has such a number


@dataclass
class Attempt:
    """An attempt that runs."""

    native_id: int
    token: str
    launch: Launch
    signals: list[int] = field(default_factory=list)

    @property
    def job(self) -> tuple[str, str]:
        """The name of its trial, and its stage."""
        path, stage, _ = self.token.rsplit(":", 2)
        return Path(path).parent.name, stage


class World:
    """What outlives a daemon: the attempts that run."""

    def __init__(self) -> None:
        self.living: dict[int, Attempt] = {}
        self.started: list[Attempt] = []
        self.on_start: Callable[[Attempt], None] = lambda attempt: None
        self.on_signal: Callable[[Attempt, int], None] = lambda attempt, number: None

    def jobs(self) -> list[tuple[str, str]]:
        """The jobs that run."""
        return sorted(attempt.job for attempt in self.living.values())

    def find(self, name: str, stage: str) -> Attempt:
        """The attempt of a job that runs."""
        return next(attempt for attempt in self.living.values() if attempt.job == (name, stage))


class FakeExecutor:
    """One daemon's sight of the world, by the contract of an executor."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._known: set[int] = set()
        self._children: set[int] = set()
        self._ended: list[Ended] = []

    def start(self, launch: Launch) -> tuple[int, Record]:
        """An attempt begins, with an empty log."""
        with open(launch.log_path, "xb"):  # noqa: PTH123
            pass
        number = FIRST_ID + len(self.world.started)
        attempt = Attempt(number, launch.exit_record.token, launch)
        self.world.living[number] = attempt
        self.world.started.append(attempt)
        self._known.add(number)
        self._children.add(number)
        self.world.on_start(attempt)
        return number, {"pid": number, "ticks": number}

    def adopt(self, process: Record | None, exit_record: ExitRecord) -> int | None:
        """Finds an attempt that runs, also one whose process was not recorded."""
        for number, attempt in self.world.living.items():
            if attempt.token == exit_record.token:
                assert process is None or process["pid"] == number
                self._known.add(number)
                return number
        return None

    def end(self, attempt: Attempt, exit_code: int | None) -> None:
        """An attempt ends; its shell records the exit code, None: it is killed before."""
        del self.world.living[attempt.native_id]
        if exit_code is not None:
            record = attempt.launch.exit_record
            append_line(record.path, f"{record.prefix}{exit_code}}}\n".encode())
        if attempt.native_id in self._children:
            killed_by = signal.SIGKILL if exit_code is None else None
            self._ended.append(Ended(attempt.native_id, exit_code, 0.1, 1.0, is_watched=True, signal=killed_by))
        elif attempt.native_id in self._known:
            self._ended.append(Ended(attempt.native_id))

    def poll(self) -> list[Ended]:
        """What has ended since the last call."""
        ended, self._ended = self._ended, []
        return ended

    @property
    def poll_s(self) -> float | None:
        """Nothing has to be asked for."""
        return None

    def signal(self, native_id: int, number: int) -> None:
        """Notes the signal."""
        assert native_id in self._known
        if native_id in self.world.living:
            attempt = self.world.living[native_id]
            self.world.on_signal(attempt, number)
            attempt.signals.append(number)

    def release(self, native_id: int) -> None:
        """Watched no more."""
        self._known.discard(native_id)

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class Clock:
    """Seconds that pass when they are told to."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def slots(count: int, gpus: int = 0) -> tuple[Slot, ...]:
    """CPU slots, and those of GPUs."""
    return (*(Slot(f"gpu {index}", str(index)) for index in range(gpus)), *(Slot(f"cpu {i}") for i in range(count)))


def planned(output: Path, index: int, stages: Sequence[str], sweep: str = "s", priority: int = 0, command: str = "true",
            params: Mapping[str, int] | None = None) -> PlannedTrial:  # fmt: skip
    """The trial T_`index`, whose every stage runs the same command."""
    directory = f"{output}/T_{index}"
    recipe = Recipe(dict(params or {"x": index}), dict.fromkeys(stages, command))
    return PlannedTrial(
        index, f"{index:064x}", f"T_{index}", directory, directory, tuple(stages), sweep, priority, recipe=recipe
    )


def header(
    plan_id: str,
    options: Mapping[str, StageOptions],
    count: int = 1,
    *,
    is_full: bool = True,
    is_forced: bool = False,
    prunes: bool = False,
    is_breadth_first: bool = False,
    fail_fast: int | None = None,
    file: str = "/home/me/params.yaml",
    begun_by: str = "",
) -> PlanHeader:
    """What holds for every trial of a plan on `count` CPU slots."""
    return PlanHeader(
        plan_id, "20260101.000000", file, "/", 0o022, is_full, is_forced, False, prunes, options, is_breadth_first,
        fail_fast, slots(count), begun_by=begun_by,
    )  # fmt: skip


def write_plan(
    output: Path, head: PlanHeader, trials: Sequence[PlannedTrial], environment: Mapping[str, str] | None = None
) -> Plan:
    """A plan that was written and read again."""
    plans.write(output, head, Secrets(dict(environment or {})), trials)
    return Plan(output, head.plan_id)
