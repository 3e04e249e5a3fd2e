"""Trial, job, attempt, and the states of a job with what may follow each."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from fractions import Fraction

    from runner.values import Params


LOCAL = "local"  # the executor that is this machine
CONFIG_FILE = "trial.yaml"  # in a trial's directory: its parameters, for programs that read a file


class JobState(StrEnum):
    """A job's state; the values are the words of the file `stat`, mlrunner's where it has one."""

    PENDING = "pending"
    SUBMITTED = "submitted"  # a batch system has it, and has not begun it
    RUNNING = "running"
    COMPLETED = "finished"
    FAILED = "failed"
    TIMEOUT = "timeout"
    PRUNED = "pruned"
    CANCELED = "canceled"
    INTERRUPTED = "interrupted"
    BLOCKED = "blocked"


DONE = frozenset({JobState.COMPLETED, JobState.PRUNED})
"""What `run` does not run again by itself, and counts as complete."""

# Within one plan. A job that is asked for again is PENDING again, unless it is COMPLETED.
FOLLOWS: Mapping[JobState, frozenset[JobState]] = {
    JobState.PENDING: frozenset(
        {
            JobState.SUBMITTED,
            JobState.RUNNING,
            JobState.BLOCKED,
            JobState.COMPLETED,
            JobState.CANCELED,
            JobState.PRUNED,
        }
    ),
    JobState.SUBMITTED: frozenset(
        {JobState.PENDING, JobState.RUNNING, JobState.FAILED, JobState.CANCELED, JobState.INTERRUPTED}
    ),
    JobState.RUNNING: frozenset(
        {
            JobState.COMPLETED,
            JobState.FAILED,
            JobState.TIMEOUT,
            JobState.PRUNED,
            JobState.CANCELED,
            JobState.INTERRUPTED,
        }
    ),
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset({JobState.PENDING}),
    JobState.TIMEOUT: frozenset({JobState.PENDING}),
    JobState.PRUNED: frozenset({JobState.PENDING}),
    JobState.CANCELED: frozenset({JobState.PENDING}),
    JobState.INTERRUPTED: frozenset({JobState.PENDING}),
    JobState.BLOCKED: frozenset({JobState.PENDING}),
}

# Somebody has the job: it is not ours to start.
IN_HAND = frozenset({JobState.SUBMITTED, JobState.RUNNING})

# An attempt that ends so keeps the later stages of its trial from starting.
BLOCKING = frozenset({JobState.FAILED, JobState.TIMEOUT, JobState.CANCELED})

# What is due again when somebody asks for the trial again.
AGAIN = BLOCKING | {JobState.PRUNED, JobState.INTERRUPTED, JobState.BLOCKED}


class Fallback(NamedTuple):
    """What a stage runs after so many attempts that were out of memory: the parameters that differ, the shell line."""

    params: Params
    command: str


@dataclass(frozen=True)
class Recipe:
    """What a trial runs: its parameters, and the shell line of each stage."""

    params: Params
    commands: Mapping[str, str]
    needs_config: bool = False
    fallbacks: Mapping[str, Sequence[Fallback]] = field(default_factory=dict)


@dataclass(frozen=True)
class Needs:
    """What a trial waits for, by the keys of other trials, and what it reads.

    A gather, and the decision of a search's round, has `members`, of which `need` must be complete when all have come
    to an end. Units that must be complete themselves are in `after`. `reads` are the places of gathers that parameters
    name, relative to where `run` was typed.
    """

    members: tuple[str, ...] = ()
    need: int = 0
    after: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    inputs: str | None = None  # of a decision: what its rounds are made of
    decides: bool = False
    follows: bool = False  # the trials of the next round are not planned yet
    limit_s: float | None = None  # for the round, from its first start

    @property
    def waits(self) -> bool:
        """Whether there is something to wait for."""
        return bool(self.members or self.after)


@dataclass(frozen=True, eq=False, slots=True)
class Trial:
    """One combination of parameter values, as it is scheduled and shown.

    A plan holds each trial once, so that a trial equals itself alone.
    """

    index: int
    trial_id: str
    name: str
    output: str  # what {_output} says
    directory: str  # where its records and logs lie; the output, but for --no-subdir
    stages: tuple[str, ...]
    sweep: str = ""
    priority: int = 0
    kinds: Mapping[str, str] | None = None  # of each stage that learns what memory it needs
    needs: Needs | None = field(default=None, kw_only=True)
    round: int = field(default=0, kw_only=True)  # of a search, from 1

    @property
    def key(self) -> str:
        """What tells it from the others of its output directory: its name, or, without a directory of that name, the
        name of the one that holds its records."""
        return self.name if self.directory.endswith(self.name) else self.directory.rpartition("/")[2]

    @property
    def is_unit(self) -> bool:
        """Whether it is no trial of a grid, but a gather or the decision of a search's round."""
        return "/" in self.name

    @property
    def shown(self) -> str:
        """The trial in a message: its directory, which its name ends, or, without one of its own, both."""
        return self.output if self.output.endswith(self.name) else f"{self.output}: {self.name}"


@dataclass(frozen=True, eq=False, slots=True)
class PlannedTrial(Trial):
    """A trial with what it runs; a plan of many is held without."""

    recipe: Recipe = Recipe({}, {})

    @property
    def params(self) -> Params:
        """Its parameters, the defaults among them."""
        return self.recipe.params

    @property
    def commands(self) -> Mapping[str, str]:
        """The shell line of each stage."""
        return self.recipe.commands


class Job(NamedTuple):
    """One stage of one trial: what is scheduled."""

    trial: Trial
    stage: str


@dataclass(frozen=True)
class Slot:
    """A place where one attempt runs: GPUs that it is shown through CUDA_VISIBLE_DEVICES, or CPU cores.

    `shares`: the part of each GPU that it has, by what names the card.
    """

    label: str
    gpus: str | None = None
    shares: Mapping[str, Fraction] = field(default_factory=dict)

    @property
    def places(self) -> list[str]:
        """Each single place that it takes: `gpu 0` and `gpu 1` of `gpu 0,1 #2`."""
        kind, _, rest = self.label.partition(" ")
        return [f"{kind} {item}" for item in rest.partition(" #")[0].split(",")]


@dataclass(frozen=True)
class Terms:
    """What a stage asks of the scheduler.

    `gpus`: how many, each with `per_gpu` attempts on it at once; None: as many as was learned to fit. Its starts are
    spread over `stagger_s`. What another `executor` than this machine runs needs nothing here.
    """

    gpus: int = 1
    per_gpu: int | None = 1
    stagger_s: float = 0.0
    executor: str = LOCAL


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: `exit_code` is None when none was recorded; `cause` and `line` say why it failed."""

    state: JobState
    exit_code: int | None
    seconds: float
    peak_rss_mib: float | None = None
    cpu_s: float | None = None
    cause: str | None = None
    line: str | None = None
    peak_vram_mib: int | None = None  # on the card where it needed most
    peak_host_mib: float | None = None  # of all its processes together
    fallback: int = 0  # of its commands for want of memory, the one that comes next
