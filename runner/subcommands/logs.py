"""`run logs`: what an attempt has written, and with -f what it writes, into its trial's next stage."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from runner import lock, records
from runner.errors import InputError, RunnerError, did_you_mean
from runner.model import JobState
from runner.selection import named
from runner.subcommands import overview

if TYPE_CHECKING:
    import argparse

    from runner.records import Attempt
    from runner.subcommands.overview import TrialView

POLL_S = 0.1
EXIT_OK = 0
_OPEN = {JobState.PENDING.value, JobState.RUNNING.value}


def run(options: argparse.Namespace) -> int:
    """Prints the newest log of a trial, or of one of its stages."""
    output = Path(options.output)
    if not output.is_dir():
        raise InputError(f"-o {output}: no such directory.")
    trial = _trial(output, options.trial)
    attempt = _newest(trial, options.stage)
    if attempt is None and not options.follow:
        what = f"{options.stage} has not been" if options.stage else "nothing of it has been"
        raise InputError(f"{trial.name}: {what} started yet.")
    try:
        _print(output, trial, options.stage, attempt, options.follow)
    except KeyboardInterrupt:
        if not options.follow:
            raise
    return EXIT_OK


def _trial(output: Path, word: str) -> TrialView:
    found = named(overview.look(output, with_trials=True).trials, [word])
    if len(found) > 1:
        raise InputError(f"{word}: names {len(found)} trials; name one: {', '.join(item.name for item in found[:5])} …")
    return found[0]


def _newest(trial: TrialView, stage: str | None) -> Attempt | None:
    history = records.read_attempts(trial.directory)
    if stage is not None:
        known = {*trial.states, *(item.stage for item in history.attempts)}
        if stage not in known:
            raise InputError(f"{stage}: no stage of {trial.name}.{did_you_mean(stage, known)}")
        return history.last(stage)
    return history.attempts[-1] if history.attempts else None


def _print(output: Path, trial: TrialView, stage: str | None, attempt: Attempt | None, is_followed: bool) -> None:
    out = sys.stdout.buffer
    shown: Attempt | None = None
    offset = 0
    while True:
        if attempt is not None:
            if shown is None or (attempt.stage, attempt.number) != (shown.stage, shown.number):
                if shown is not None:
                    _copy(f"{trial.directory}/{shown.start['log']}", offset)
                    out.write(f"\n--- {attempt.stage}, attempt {attempt.number} ---\n".encode())
                shown, offset = attempt, 0
            offset = _copy(f"{trial.directory}/{attempt.start['log']}", offset)
            out.flush()
        if not is_followed or _is_over(output, trial, stage, attempt):
            _check_log(trial, attempt)
            return
        time.sleep(POLL_S)
        attempt = _newest(trial, stage)


def _check_log(trial: TrialView, attempt: Attempt | None) -> None:
    if attempt is not None and not Path(trial.directory, attempt.start["log"]).exists():
        never = "is not there yet" if attempt.end is None else "was never there, as after `run -d`"
        why, told = f"it was deleted, or {never}", f"`run status {trial.name}` says how it stands"
        raise RunnerError(f"{trial.directory}/{attempt.start['log']}: no such log: {why}; {told}.")


def _copy(path: str, offset: int) -> int:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            file.seek(offset)
            while data := file.read(1 << 20):
                sys.stdout.buffer.write(data)
                offset += len(data)
    except FileNotFoundError:  # on record a moment before it is there
        return offset
    return offset


def _is_over(output: Path, trial: TrialView, stage: str | None, attempt: Attempt | None) -> bool:
    """Whether nothing more comes: the attempt has ended and no stage after it will start."""
    if not lock.is_held(output):
        return True
    if attempt is None or attempt.end is None:
        return False
    if stage is not None:
        return True
    stat = records.read_stat(trial.directory)
    states = [stat.get(item, JobState.PENDING) for item in trial.states]
    return not any(state.value in _OPEN for state in states) or attempt.end["state"] in {
        JobState.FAILED.value,
        JobState.TIMEOUT.value,
        JobState.PRUNED.value,
        JobState.CANCELED.value,
    }
