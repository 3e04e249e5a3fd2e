"""The contract of an executor that hands tasks to a batch system.

A batch is an array of tasks; each task is one allocation, in which `runner.task` runs one trial, or some at once. The
executor writes the script, and speaks the system's own commands: to submit it, to ask what is in the queue, to ask why
a task is gone, to cancel. What came of an attempt it need not know: that is in the trial's records.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt, PositiveInt, field_validator

from runner.errors import RunnerError
from runner.options import mib, seconds

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

COMMAND_S = 60.0  # a command of a batch system that takes longer is ended, and asked again later
Seconds = Annotated[float, BeforeValidator(seconds, json_schema_input_type=float | str)]
Mib = Annotated[int, BeforeValidator(mib, json_schema_input_type=str)]


def _word(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[^\s#'\"\\]+", value):
        raise ValueError("is no name; allowed: one word, without quotes and #")
    return value


def _line(value: object) -> object:
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or value.startswith("#"):
        raise ValueError("is no option; allowed: one line, as in a script but without the mark at its start")
    return value


def _gpu_type(value: object) -> object:
    if isinstance(value, str) and ":" in value:
        raise ValueError("is no type of GPU; how many there are to be, the stage's `gpus` says")
    return _word(value)


def _pack(value: object) -> object:
    if value != "auto" and (type(value) is not int or value < 1):
        raise ValueError("is no number of trials; allowed: 1, 2, 3 … or auto")
    return value


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str) else value


Word = Annotated[str, BeforeValidator(_word, json_schema_input_type=str)]
Line = Annotated[str, BeforeValidator(_line, json_schema_input_type=str)]
Item = TypeVar("Item")
OneOrMore = Annotated[list[Item], BeforeValidator(_one_or_more, json_schema_input_type=str | list[Item])]


class BatchKeys(BaseModel):
    """What params.yaml may say of any batch system. Times in seconds, memory in MiB; `time` and `memory` are those of
    a whole allocation."""

    model_config = ConfigDict(extra="forbid", strict=True)
    own: ClassVar[re.Pattern[str]] = re.compile(r"(?!)")  # lines with options that nobody else may set

    time: Annotated[Seconds, Field(gt=0)] | None = None
    memory: Annotated[Mib, Field(gt=0)] | None = None
    account: Word | None = None
    gpu_type: Annotated[str, BeforeValidator(_gpu_type)] | None = None
    lines: OneOrMore[Line] = []  # further options of the batch system, as they stand in a script without the mark
    setup: OneOrMore[str] = []  # commands before the trial's own: module load, conda activate
    script: str | None = None  # the user's own script, with {_task} where the trial goes
    lease: Annotated[Seconds, Field(ge=1)] = 75.0  # so long a copy of a task is waited for that may be cut off
    limit: PositiveInt | None = None  # tasks of an array that run at once
    pack: Annotated[PositiveInt | Literal["auto"], BeforeValidator(_pack)] = 1  # trials at once in one allocation
    ahead: Seconds = 60.0  # so long before the time limit programs are asked to save
    resumes: NonNegativeInt = 10  # so often a trial that was cut off goes on in a new allocation
    poll: Annotated[Seconds, Field(ge=1)] = 15.0  # between two looks at the queue

    @field_validator("lines")
    @classmethod
    def _leave_own_options(cls, lines: list[str]) -> list[str]:
        for line in lines:
            if found := cls.own.match(line):
                raise ValueError(f"has {found[0].strip()}, which is set by run itself")
        return lines


class TaskState(StrEnum):
    """What the batch system says of a task that it still knows."""

    WAITING = "waiting"
    HELD = "held"  # until somebody lets it go
    RUNNING = "running"


class Why(StrEnum):
    """Why a task is gone, as far as the batch system says."""

    ENDED = "ended"  # by itself, whatever its exit code
    TIME_LIMIT = "time limit"
    OUT_OF_MEMORY = "out of memory"
    NODE_LOST = "node lost"
    PREEMPTED = "preempted"
    CANCELED = "canceled"  # by somebody, an administrator for one
    UNNAMED = "unnamed"  # canceled while it waited, unless accounting is late: it has others of the job


class TaskId(NamedTuple):
    """A task: the batch system's id of the job, and the number in the array, from 0."""

    job: str
    number: int


class Seen(NamedTuple):
    """A task in the queue; `name` is its job's, `reason` what the system says of one that waits."""

    id: TaskId
    name: str
    state: TaskState
    reason: str = ""
    node: str = ""


@dataclass(frozen=True)
class Gone:
    """A task that accounting knows to be over; `text` is the system's own word."""

    id: TaskId
    name: str
    why: Why
    text: str


@dataclass(frozen=True)
class Batch:
    """An array to be submitted: what its script needs."""

    name: str  # no other job has it
    count: int  # of tasks, numbered from 0
    gpus: int | None  # of one allocation; None: one, where the batch system has any
    cpus: int
    cwd: str
    log_directory: str  # for what the tasks themselves say; of task 7: 7.log
    enter: str  # the shell line that puts the script into the user's environment
    task: str  # the shell line that runs a task
    keys: BatchKeys
    template: str | None = None  # the text of the user's own script


@dataclass(frozen=True)
class Here:
    """The task that a process is in; `restart` counts how often the system has begun it anew."""

    id: TaskId
    restart: int


class UnreachableError(RunnerError):
    """The batch system does not answer, or takes nothing now; the same may work later."""


class FullError(UnreachableError):
    """The batch system has no room for so many tasks now; it may have for fewer."""


class RefusedError(RunnerError):
    """The batch system does not take this job, and will not later: its partition does not exist, for one."""


class BatchExecutor(Protocol):
    """Drives a batch system by its commands. Methods that run one block until it answers.

    Raises (each of them): UnreachableError.
    """

    keys: type[BatchKeys]
    vanished: Why | None  # why a task is gone that never began and of which there is no record; None: it was lost

    def script(self, batch: Batch) -> str:
        """The script of an array."""

    def submit(self, batch: Batch, script: str, inherited: int | None = None) -> str:
        """Submits an array; returns its job's id. The command that does it keeps the descriptor `inherited` open.

        Raises:
            RefusedError: it will never be taken.
            FullError: it has too many tasks for now.
        """

    def queue(self) -> Sequence[Seen]:
        """This user's tasks that wait or run."""

    def find(self, names: Collection[str], since: float) -> Mapping[str, str]:
        """The jobs of these names submitted after `since` (seconds since the epoch; clocks may differ by minutes), over
        or not: their ids."""

    def gone(self, tasks: Collection[TaskId], names: Collection[str], since: float) -> Sequence[Gone]:
        """What accounting says of tasks that are over; of those that it does not know (yet), nothing, or that they are
        UNNAMED."""

    def told_in(self, log: str) -> Why | None:
        """Why the batch system ended a task, by what it wrote itself into the task's log; None: nothing of that."""

    def cancel(self, job: str, numbers: Collection[int] | None = None) -> None:
        """Ends these tasks of a job, or all of it; what is over already does not matter."""

    def has_gpus(self, keys: BatchKeys) -> bool:
        """Whether there are GPUs where an array with these options would run."""

    def max_tasks(self) -> int:
        """How many tasks one array may have."""

    def here(self, environment: Mapping[str, str]) -> Here | None:
        """The task in which a process with this environment is."""
