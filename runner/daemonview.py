"""What a daemon tells of itself: how all stands, and what a watcher hears first."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from runner.events import Event, Kind
from runner.model import Job, JobState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.daemon import Daemon
    from runner.model import Trial
    from runner.protocol import Message

_BAD = {JobState.FAILED, JobState.TIMEOUT}
_KIND_OF_STATE = {
    JobState.COMPLETED: Kind.SKIP,
    JobState.FAILED: Kind.FAIL,
    JobState.TIMEOUT: Kind.FAIL,
    JobState.BLOCKED: Kind.BLOCK,
    JobState.CANCELED: Kind.CANCEL,
    JobState.PRUNED: Kind.PRUNE,
    JobState.INTERRUPTED: Kind.INTERRUPT,
}


def status(daemon: Daemon, output: Path, with_trials: bool) -> Message:
    """The counts of every sweep and stage, what runs where, and, when asked for, every trial."""
    scheduler = daemon.scheduler
    answer: Message = {
        "pid": os.getpid(),
        "output": str(output),
        "counts": [[*key, count] for key, count in scheduler.counts.items()],
        "slots": scheduler.labels(),
        "running": [
            [item.job.trial.key, item.job.trial.name, item.job.stage, item.slot.label, item.started, item.attempt]
            for item in daemon.running()
        ],
        "failed": [row(trial) for trial in scheduler.trials() if _BAD & set(scheduler.states(trial).values())],
        "blocked": _blocked(daemon),
        "paused": scheduler.paused,
        "is_stopping": scheduler.is_stopping,
        "places": daemon.places(),
    }
    if with_trials:
        answer["trials"] = [
            [*row(trial), {stage: state.value for stage, state in scheduler.states(trial).items()}]
            for trial in scheduler.trials()
        ]
    return answer


def watched(daemon: Daemon, with_trials: bool) -> Message:
    """What each job has come to, which trials a search has added, and, when asked for, every trial."""
    trials = list(daemon.scheduler.trials())
    answer: Message = {"is_done": daemon.is_done, "events": [event.to_wire() for event in _replay(daemon)]}
    answer["joined"] = [row(trial) for trial in trials if trial.round > 1]
    if with_trials:
        answer["trials"] = [row(trial) for trial in trials]
        answer["slots"] = len(daemon.scheduler.labels())
    return answer


def row(trial: Trial) -> list[Any]:
    """A trial as it is sent to whoever watches."""
    return [trial.index, trial.key, trial.name, trial.output, trial.directory, trial.stages, trial.sweep]


def _blocked(daemon: Daemon) -> dict[str, str]:
    """Why some trials do not run that wait for others, by their keys."""
    scheduler, pipeline = daemon.scheduler, daemon.intake.pipeline
    blocked = (trial for trial in scheduler.trials() if JobState.BLOCKED in scheduler.states(trial).values())
    return {trial.key: why for trial in blocked if (why := pipeline.why_blocked(trial))}


def _replay(daemon: Daemon) -> Iterator[Event]:
    running = {item.job: item for item in daemon.running()}
    for trial in daemon.scheduler.trials():
        for stage, state in daemon.scheduler.states(trial).items():
            job = Job(trial, stage)
            if job in running:
                item = running[job]
                yield Event(Kind.ADOPT, job, item.started, item.slot.label, attempt=item.attempt, log=item.log)
            elif state in _KIND_OF_STATE:
                why = daemon.intake.pipeline.why_blocked(trial) if state is JobState.BLOCKED else ""
                yield Event(_KIND_OF_STATE[state], job, 0.0, line=why)
