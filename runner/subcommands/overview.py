"""What an output directory has come to, asked of its daemon, or read from the records where none lives."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import client, lock, plans, records, rounds
from runner.batch import batchfile, submitjob
from runner.errors import BusyError
from runner.gather import PREFIXES
from runner.model import JobState
from runner.plan import Journal
from runner.queueing import needs
from runner.trials import STATE_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from runner.lock import Holder
    from runner.model import Trial
    from runner.protocol import Message

EARLIER = "earlier"  # the word for trials that the newest plan does not have
Counts = dict[str, dict[str, "Counter[str]"]]  # by sweep, stage and state


@dataclass(frozen=True)
class TrialView:
    """A trial as it is listed; `states` may be empty where only its place was asked for."""

    index: int
    name: str
    directory: str
    sweep: str
    states: dict[str, str]


@dataclass
class Overview:
    """All that `run status` shows; `daemon` is None when none lives."""

    daemon: Holder | None
    job: str | None = None  # what to call the daemon's job, where it is to be one
    counts: Counts = field(default_factory=dict)
    trials: list[TrialView] = field(default_factory=list)
    failed: list[TrialView] = field(default_factory=list)
    running: list[list[Any]] = field(default_factory=list)
    slots: list[str] = field(default_factory=list)
    places: list[list[Any]] = field(default_factory=list)  # label, busy share, why idle, name, used and total MiB
    paused: list[str] | None = field(default_factory=list)
    is_stopping: bool = False
    searches: list[rounds.Standing] = field(default_factory=list)
    blocked: dict[str, str] = field(default_factory=dict)  # why, of what cannot run as things are

    def add(self, sweep: str, stage: str, state: str, count: int = 1) -> None:
        """Counts jobs."""
        self.counts.setdefault(sweep, {}).setdefault(stage, Counter())[state] += count


@dataclass(frozen=True)
class Failure:
    """Why a job failed, as its last attempt's record says."""

    stage: str
    cause: str
    line: str
    exit_code: int | None
    log: str


def look(output: Path, with_trials: bool) -> Overview:
    """The state of an output directory."""
    result = _look(output, with_trials)
    result.searches = rounds.standings(output)
    result.job = submitjob.job_of(output)
    return result


def _look(output: Path, with_trials: bool) -> Overview:
    try:
        channel = client.connect(output)
    except BusyError:  # on another host, or another user's: the records are there for all
        return _from_records(output, lock.holder(output))
    if channel is None:
        return _from_records(output, None)
    try:
        return _from_daemon(channel.ask({"do": "status", "trials": with_trials}), lock.holder(output))
    finally:
        channel.close()


def failures(trial: TrialView) -> list[Failure]:
    """How the stages of a trial failed."""
    found = []
    history = records.read_attempts(trial.directory)
    for stage in dict.fromkeys(attempt.stage for attempt in history.attempts):
        last = history.last(stage)
        if last is not None and last.end is not None and last.end["state"] in {JobState.FAILED, JobState.TIMEOUT}:
            cause, line = last.end.get("cause") or "", last.end.get("line") or ""
            log = f"{trial.directory}/{last.start['log']}"
            found.append(Failure(stage, cause, line, last.end["exit_code"], log))
    return found


def _from_daemon(answer: Message, holder: Holder | None) -> Overview:
    result = Overview(holder, running=answer["running"], slots=answer["slots"], paused=answer["paused"])
    result.is_stopping = answer["is_stopping"]
    result.places = answer["places"]
    result.blocked = answer.get("blocked", {})  # a daemon of an earlier version does not say
    for sweep, stage, state, count in answer["counts"]:
        result.add(sweep, stage, state, count)
    result.failed = [_view(row, {}) for row in answer["failed"]]
    result.trials = [_view(row, states) for *row, states in answer.get("trials", ())]
    return result


def _view(row: list[Any], states: dict[str, str]) -> TrialView:
    index, _, name, _, directory, _, sweep = row
    return TrialView(index, name, directory, sweep, states)


def _from_records(output: Path, holder: Holder | None) -> Overview:
    result = Overview(holder)
    found = plans.latest(output, [entry["plan"] for entry in Journal(output).entries() if "plan" in entry])
    # A gather over a search stands in the plan of each round.
    planned = {trial.key: trial for plan in found for trial in plan.trials}
    for plan in found:
        plan.close()
    states = _states(planned, batchfile.keys(output), is_served=holder is not None)
    result.blocked = needs.blocked(planned.values(), {key: known.values() for key, known in states.items()})
    for trial in planned.values():
        known = states[trial.key]
        if trial.key in result.blocked:
            known = {stage: JobState.BLOCKED if state is JobState.PENDING else state for stage, state in known.items()}
        values = {stage: state.value for stage, state in known.items()}
        _add(result, TrialView(trial.index, trial.name, trial.directory, trial.sweep, values))
    for name, path in _others(output, {trial.name for trial in result.trials}):
        values = {stage: state.value for stage, state in _stat(str(path)).items()}
        _add(result, TrialView(len(result.trials), name, str(path), EARLIER, values))
    return result


def _states(planned: Mapping[str, Trial], away: Collection[str], is_served: bool) -> dict[str, dict[str, JobState]]:
    """The state of each stage of each trial; what is `away` is in the tasks of a batch system."""
    found = {}
    for key, trial in planned.items():
        stat = _stat(trial.directory, is_served or key in away)
        waits = JobState.SUBMITTED if key in away else JobState.PENDING
        found[key] = {stage: stat.get(stage, waits) for stage in trial.stages}
    return found


def _others(output: Path, listed: set[str]) -> list[tuple[str, Path]]:
    """The trials and units that no plan names any more."""
    trials = [(path.name, path) for path in output.iterdir() if path.name != STATE_DIRECTORY]
    units = [(f"{path.parent.name}/{path.name}", path) for prefix in PREFIXES for path in output.glob(f"{prefix}*/*")]
    return sorted((name, path) for name, path in trials + units if name not in listed and (path / "stat").is_file())


def _add(result: Overview, trial: TrialView) -> None:
    result.trials.append(trial)
    for stage, state in trial.states.items():
        result.add(trial.sweep, stage, state)
    if {JobState.FAILED.value, JobState.TIMEOUT.value} & set(trial.states.values()):
        result.failed.append(trial)


def _stat(directory: str, is_served: bool = False) -> dict[str, JobState]:
    stat = records.read_stat(directory)
    if is_served:
        return stat
    # Nobody is there to run it.
    return {stage: JobState.INTERRUPTED if state is JobState.RUNNING else state for stage, state in stat.items()}
