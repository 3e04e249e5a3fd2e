"""A daemon on another host, or in a batch job: plans are handed over and waited for through the file system."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from runner import client, handover, inbox, lock, plans
from runner.batch import submitjob
from runner.errors import RunnerError
from runner.options import seconds
from runner.plan import Journal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.model import PlannedTrial
    from runner.planning import Request
    from runner.protocol import Message
    from runner.resources import Places

TAKEN_S = 60.0  # so long a daemon elsewhere may take to read a plan
POLL_S = 0.5
LOOK_S = 15.0  # between two looks whether the daemon's job is in the queue
LOOKS = 3  # so often it must be missing: one that ends has submitted the next by then


def hand_over(request: Request, trials: Sequence[PlannedTrial], places: Places) -> str | None:
    """Leaves a plan for the daemon that works elsewhere; returns what to tell the user, None where it is gone.

    Raises:
        RunnerError: it did not take it.
    """
    holder = client.elsewhere(request.output)
    assert holder is not None
    end = time.monotonic() + TAKEN_S
    while True:
        plan_id = handover.write(request, trials, places)
        word = {"do": "submit", "plan": plan_id, "entry": handover.entry(request, len(trials))}
        left = inbox.drop(request.output, word | {"size": request.journal_size})
        if _is_taken(request, plan_id, end):
            handover.copy_file(request)
            return f"Handed to the daemon on {holder.host}, which goes on. `run status` sums it up, `run wait` waits."
        left.unlink(missing_ok=True)
        plans.delete(request.output, plan_id)
        if client.elsewhere(request.output) is None:
            return None
        if time.monotonic() >= end:
            break
        request, trials = handover.again(request)
    raise RunnerError(f"{request.output}: the daemon on {holder.host} did not take the plan; see .runner/daemon.log.")


def _is_taken(request: Request, plan_id: str, end: float) -> bool:
    """Whether the daemon takes a plan in before the time `end`.

    False at once where it is gone, or a word that was left before the plan came first, which is out of date then.
    """
    journal = Journal(request.output)
    while True:
        # Asked first: it may take the plan and leave at once.
        is_there, size = client.elsewhere(request.output) is not None, journal.size()
        if any(told.get("plan") == plan_id for told in journal.entries()):
            return True
        if not is_there or size != request.journal_size or time.monotonic() >= end:
            return False
        time.sleep(POLL_S)


def submit(request: Request, trials: Sequence[PlannedTrial], places: Places) -> str:
    """Keeps a plan, and submits a batch job in which the daemon does it; returns what to tell the user.

    Raises:
        InputError: no batch system is asked for.
        BusyError: a daemon works on this machine.
        RunnerError: the batch system did not take the job.
    """
    asked = submitjob.asked(request.config.options.values(), seconds(request.options.submit), os.environ)
    client.prepare(request.output)
    with lock.sole_user(request.output):
        plan_id = handover.write(request, trials, places)
        Journal(request.output).append({**handover.entry(request, len(trials)), "plan": plan_id})
        handover.copy_file(request)
        if submitjob.is_queued(request.output):
            return f"Left for the daemon, {submitjob.job_of(request.output)}, which has not begun yet."
        job = submitjob.submit(request.output.resolve(), asked)
    return f"Submitted the daemon to {asked.executor}: job {job}. `run status` sums it up, `run wait` waits."


def tell(output: Path, request: Message) -> bool:
    """Leaves a word for the daemon's job, where that has not begun; False: there is none.

    Raises:
        RunnerError: the batch system does not answer.
    """
    is_waiting = client.elsewhere(output) is None and submitjob.exists(output) and not lock.is_held(output)
    if is_waiting and submitjob.is_queued(output):
        inbox.drop(output, request)
        return True
    return False


def wait(output: Path) -> None:
    """Waits until a daemon elsewhere, and what is submitted to take its place, has done all that was asked for.

    Raises:
        RunnerError: the daemon's job is gone, and something is left to do.
    """
    look_at, missed = 0.0, 0
    while (works := client.elsewhere(output) is not None) or (submitjob.exists(output) and Journal(output).is_open()):
        if works:
            missed = 0
        elif time.monotonic() >= look_at:
            look_at = time.monotonic() + LOOK_S
            missed = missed + 1 if _is_missing(output) else 0
            if missed == LOOKS:
                raise RunnerError(
                    f"{output}: the daemon's job is gone, and something is left to do; "
                    "`run` goes on from here, `run --submit` in a new job."
                )
        time.sleep(POLL_S)


def _is_missing(output: Path) -> bool:
    try:
        return not submitjob.is_queued(output)
    except RunnerError:  # nobody can tell now, or from this machine
        return False
