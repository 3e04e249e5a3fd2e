"""Handing a plan over to the daemon: written as a file, then told."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

from runner import client, planning, plans, records, resources
from runner.errors import RunnerError
from runner.plans import PlanHeader, Secrets
from runner.protocol import ConnectionLostError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.model import PlannedTrial
    from runner.plan import Entry
    from runner.planning import Request
    from runner.protocol import Channel, Message
    from runner.resources import Places

_TRIES = 50  # so often a plan is made anew because another `run` was faster
_DAEMONS = 4  # so many may be gone before they answer


def planned_trials(request: Request) -> list[PlannedTrial]:
    """The trials of a request; with -d the first one alone."""
    return list(itertools.islice(request.trials(), 1 if request.options.debug else None))


def write(request: Request, trials: Sequence[PlannedTrial], places: Places) -> str:
    """Writes the plan beside the trials; returns its id."""
    config, options = request.config, request.options
    umask = os.umask(0o022)
    os.umask(umask)
    kept = request.source.keep() if request.source else None
    narrowed = (options.title, options.command, options.sample, options.debug)
    header = PlanHeader(
        plan_id=plans.new_id(),
        time=request.time,
        file=str(config.path.resolve()),
        cwd=kept.directory if kept else os.getcwd(),  # noqa: PTH109
        umask=umask,
        is_full=not any(narrowed),
        is_forced=bool(options.force or options.debug),
        takes_over=options.take_over,
        prunes=options.prune,
        options={stage: resources.resolved(item, places, config.resource) for stage, item in config.options.items()},
        is_breadth_first=config.order == "breadth",
        fail_fast=config.fail_fast,
        slots=places.slots,
        gpus=places.gpus,
        source=_source(request) if any(sweep.search for sweep in config.sweeps) else None,
        code=kept.code if kept else None,
    )
    notify = None if config.notify is None else config.notify.model_dump()
    plans.write(request.output, header, Secrets(dict(os.environ), notify), trials)
    return header.plan_id


def _source(request: Request) -> dict[str, Any]:
    """What it takes to plan the later rounds of a search as this request would have planned them."""
    return {"text": request.config.text, "options": vars(request.options)}


def entry(request: Request, count: int) -> Entry:
    """What the journal says of a plan."""
    asked = {key: value for key, value in vars(request.options).items() if value}
    introduced = request.new_defaults
    return {"kind": "plan", "time": request.time, "options": asked, "trials": count, "introduced": introduced}


def hand_over(
    request: Request, trials: list[PlannedTrial], places: Places
) -> tuple[Channel, Request, list[PlannedTrial], Message]:
    """Gives the plan to the daemon; made anew where another `run` was faster. Returns it with the connection and the
    answer, which says what it changes and opens the watch.

    Raises:
        RefusedError: the daemon refused the plan; nothing of it is kept.
        SystemFaultError: no daemon could be started.
        ConnectionLostError: each one that was started is gone.
    """
    channel = client.connect_or_start(request.output)
    for _ in range(_TRIES):
        plan_id = write(request, trials, places)
        message: Message = {
            "do": "submit",
            "watch": not request.options.detach,
            "plan": plan_id,
            "entry": entry(request, len(trials)),
            "size": request.journal_size,
        }
        try:
            channel, answer = _ask(channel, request, message)
        except RefusedError:
            plans.delete(request.output, plan_id)
            raise
        if not answer.get("stale"):
            copy_file(request)
            return channel, request, trials, answer
        plans.delete(request.output, plan_id)
        request, trials = again(request)
    raise RunnerError(f"{request.output}: too many `run` at once; try again.")


def again(request: Request) -> tuple[Request, list[PlannedTrial]]:
    """The same request, and its trials, where something else was asked for since: its trials and defaults count."""
    request = planning.again(request)
    return request, planned_trials(request)


def _ask(channel: Channel, request: Request, message: Message) -> tuple[Channel, Message]:
    """Asks the daemon, or the next one where it was killed or just left; a plan that is told twice counts once."""
    for _ in range(_DAEMONS - 1):
        try:
            return channel, channel.ask(message)
        except ConnectionLostError:
            channel.close()
            channel = client.connect_or_start(request.output)
    return channel, channel.ask(message)


def copy_file(request: Request) -> None:
    """Keeps the text that was read, which may have been a pipe's."""
    records.replace_text(str(request.copy), request.config.text)
