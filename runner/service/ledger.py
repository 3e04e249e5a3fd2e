"""What is written into a trial's directory while its jobs run: `param`, `stat`, the start and end of each attempt."""

from __future__ import annotations

import functools
import os
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runner import records, yamlfile
from runner.gather import PREFIXES
from runner.model import CONFIG_FILE, JobState
from runner.process import this_host
from runner.trials import STATE_DIRECTORY, nested

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.model import Job, Outcome, Recipe, Slot, Trial
    from runner.recovery import Found
    from runner.values import Params

_LOG_TIME = re.compile(r"([0-9]{8}\.[0-9]{6})(?:\.[0-9]+)?\Z")


class OutputGoneError(Exception):
    """The whole output directory was removed while its trials ran."""


@dataclass
class Page:
    """What is known of a trial's records, so that they need not be read again."""

    attempts: dict[str, int] = field(default_factory=dict)
    stat: dict[str, JobState] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)  # since the trial was last asked for
    is_new: bool = True  # without a directory: nothing there to be read
    quick: dict[str, int] = field(default_factory=dict)  # interruptions in a row, each soon after a start
    plan: str = ""  # whose recipe `param` shows
    param: str = ""  # while an attempt runs, whose command may empty the directory: the text of `param`
    lines: str = ""  # and that of the attempts
    code: str | None = None  # that the last attempt ran
    fallbacks: dict[str, int] = field(default_factory=dict)  # of each stage's commands for want of memory the next one

    def note(self, stage: str, outcome: Outcome, quick_s: float) -> tuple[int, int]:
        """Counts an attempt's end; returns the failures and the quick interruptions of its job."""
        if outcome.state in {JobState.FAILED, JobState.TIMEOUT}:
            self.failures[stage] = self.failures.get(stage, 0) + 1
        is_quick = outcome.state is JobState.INTERRUPTED and outcome.cause is None and outcome.seconds < quick_s
        self.fallbacks.pop(stage, None)
        if outcome.fallback:
            self.fallbacks[stage] = outcome.fallback
        self.quick[stage] = self.quick.get(stage, 0) + 1 if is_quick else 0
        return self.failures.get(stage, 0), self.quick[stage]


@dataclass(frozen=True)
class Tags:
    """What an attempt's record says of where it comes from; `code` is the hash of the code that it runs."""

    time: str  # of the plan, as {_time} has it
    plan: str
    ask: str
    code: str | None = None
    override: Params | None = None  # the parameters that differ, for want of memory
    inputs: str | None = None  # the hash of what other trials made for it
    reached: int | None = None  # the last step of its metrics before it
    task: str | None = None  # of a batch, that runs it


@dataclass(frozen=True)
class Opened:
    """An attempt that is on record as started."""

    number: int
    log: str  # its path


class Ledger:
    """Keeps the records of the trials of one daemon."""

    def __init__(self) -> None:
        self._pages: dict[str, Page] = {}

    def take_in(self, trial: Trial, found: Found) -> None:
        """Remembers what recovery found; of trials without a directory there is nothing to remember."""
        if found.is_new:
            self._pages.pop(trial.key, None)
        else:
            page = Page(found.attempts, {}, found.failures, is_new=False, code=found.code)
            page.fallbacks = found.fallbacks
            if found.adopted:
                page.param, page.lines = records.texts(trial.directory)
            self._pages[trial.key] = page

    def forget(self, trial: Trial) -> None:
        """The trial is over; its page would only take room."""
        self._pages.pop(trial.key, None)

    def page(self, trial: Trial) -> Page:
        """What is known of a trial."""
        return self._pages.setdefault(trial.key, Page())

    def open(self, job: Job, recipe: Recipe, due: Iterable[str], slot: Slot, tags: Tags) -> Opened:
        """Records that an attempt begins; `tags` go into its record, `due` are the stages that `param` shows anew.

        Raises:
            OutputGoneError: the output directory is no more.
            OSError: the records could not be written.
        """
        trial, stage = job
        page = self.page(trial)
        if page.plan != tags.plan:
            self._prepare(trial, recipe, due, page, tags.time)
            page.plan = tags.plan
        elif not page.param:
            page.param, page.lines = records.texts(trial.directory)
        number = page.attempts.get(stage, 0) + 1
        now = time.time()
        log = _new_log(trial.directory, stage, now)
        record = _start_record(stage, number, now, slot, log) | {"ask": tags.ask, "code": tags.code}
        if tags.override is not None:
            record |= {"fallback": page.fallbacks.get(stage, 0), "override": tags.override}
        if page.code is not None and tags.code != page.code:
            record["code_changed"] = True  # since the trial's attempt before
        if tags.inputs is not None:
            record["inputs"] = tags.inputs
        if tags.task is not None:
            record |= {"task": tags.task, "reached": tags.reached}
        page.code = tags.code
        page.lines += records.append_attempt(trial.directory, record)
        page.attempts[stage] = number
        page.stat[stage] = JobState.RUNNING
        records.write_stat(trial.directory, page.stat)
        return Opened(number, f"{trial.directory}/{log}")

    def note_process(self, job: Job, number: int, process: records.Record) -> None:
        """Records what it takes to find the attempt's process again."""
        record = {"event": "process", "stage": job.stage, "attempt": number, **process}
        self.page(job.trial).lines += records.append_attempt(job.trial.directory, record)

    def close(self, job: Job, number: int, outcome: Outcome, blocked: Iterable[Job]) -> None:
        """Records how an attempt ended, and what that blocks.

        Raises:
            OSError: the records could not be written.
            DamagedRecordError: the end is recorded, but `stat` cannot be brought up to date.
        """
        trial, stage = job
        page = self.page(trial)
        ended = _iso(time.time())
        if page.param and records.restore(trial.directory, page.param, page.lines):
            page.plan = ""  # what else the next stage needs there is written again, too
        records.append_attempt(trial.directory, records.end_record(stage, number, outcome, ended))
        page.param = page.lines = ""  # of a trial that has begun little is held
        if not page.stat:  # an adopted attempt: its `stat` was not read yet
            page.stat = records.read_stat(trial.directory)
        page.stat[stage] = outcome.state
        left = JobState.PRUNED if outcome.state is JobState.PRUNED else JobState.BLOCKED
        page.stat.update((item.stage, left) for item in blocked)
        records.write_stat(trial.directory, page.stat)

    def _prepare(self, trial: Trial, recipe: Recipe, due: Iterable[str], page: Page, plan_time: str) -> None:
        """The trial's directory with its `param`, as this plan's first job of it needs them."""
        make_directory(trial.directory)
        old = {} if page.is_new else records.read_param(trial.directory) or {}
        scripts = {stage: recipe.commands[stage] for stage in due}
        own = {"_name": trial.name, "_output": trial.output, "_time": plan_time}
        if trial.round:
            own["_round"] = str(trial.round)
        page.param = records.write_param(trial.directory, recipe.params, own, (old.get("_scripts") or {}) | scripts)
        if recipe.needs_config:
            records.replace_text(f"{trial.directory}/{CONFIG_FILE}", yamlfile.dump(nested(recipe.params)))
        if not page.is_new:
            page.stat = records.read_stat(trial.directory) | page.stat
            _, page.lines = records.texts(trial.directory)
        page.is_new = False


def make_directory(path: str) -> None:
    """The directory of a trial or a unit.

    Raises:
        OutputGoneError: the output directory is no more.
    """
    try:
        os.mkdir(path)  # noqa: PTH102 - called for every trial; the directory above is nearly always there
    except FileExistsError:
        return
    except FileNotFoundError:
        # More than one may be missing for a unit, or under the state directory: what was removed is not made again.
        head, found, _ = path.rpartition(f"/{STATE_DIRECTORY}/")
        output, unit, _ = path.rsplit("/", 2)
        is_unit = unit.startswith(PREFIXES) and os.path.isdir(output)  # noqa: PTH112
        if not is_unit and not (found and os.path.isdir(f"{head}/{STATE_DIRECTORY}")):  # noqa: PTH112
            raise OutputGoneError(path) from None
        os.makedirs(path, exist_ok=True)  # noqa: PTH103


def _start_record(stage: str, attempt: int, now: float, slot: Slot, log: str) -> records.Record:
    host = this_host()
    return {
        "event": "start",
        "stage": stage,
        "attempt": attempt,
        "started": _iso(now),
        "slot": slot.label,
        **({"gpus": {uuid: str(share) for uuid, share in slot.shares.items()}} if slot.shares else {}),
        "log": log,
        "host": host.name,
        "boot": host.boot,
        "pid_namespace": host.pid_namespace,
    }


def _iso(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")


@functools.lru_cache(maxsize=4)
def _local(second: int) -> str:
    return time.strftime("%Y%m%d.%H%M%S", time.localtime(second))


def _new_log(directory: str, stage: str, now: float) -> str:
    """A log name in mlrunner's form that sorts after those of earlier attempts, wherever clock and time zone went."""
    prefix = f"log.{stage}."
    there = {name for name in os.listdir(directory) if name.startswith(prefix)}  # noqa: PTH208 - called for every job
    times = (found[1] for name in there if (found := _LOG_TIME.match(name, len(prefix))))
    second = name = f"{prefix}{max([_local(int(now)), *times])}"
    count = 1
    while name in there:
        count += 1
        name = f"{second}.{count}"
    return name
