"""What a daemon does at a user's word. Each word is a method, named as the subcommand that sends it."""

from __future__ import annotations

import functools
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from runner import daemonview, notify, plans
from runner.errors import InputError, RunnerError, SystemFaultError
from runner.model import JobState
from runner.nextrounds import NextRounds
from runner.selection import named
from runner.service.submission import changed_names
from runner.text import counted

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from runner.daemon import Daemon
    from runner.model import Trial
    from runner.plan import Entry, Journal
    from runner.protocol import Message

NOTIFY_S = 60.0  # a notification that takes longer is killed
_STANDARD_ERROR = 2
_FAILED = {JobState.FAILED, JobState.TIMEOUT, JobState.CANCELED, JobState.INTERRUPTED}


class Commands:
    """Keeps the journal, and tells the daemon."""

    def __init__(
        self,
        daemon: Daemon,
        journal: Journal,
        output: Path,
        say: Callable[[str], None],
        joined: Callable[[list[list[Any]]], None] = lambda _: None,
    ) -> None:
        """`joined` tells whoever watches of trials that a search's decision has added."""
        self._daemon = daemon
        self._journal = journal
        self._output = output
        self._say = say
        self._rounds = NextRounds(
            daemon, journal, output, lambda trials: joined([*map(daemonview.row, trials)]), self._keep
        )
        self._plans: dict[str, plans.Plan] = {}
        self._environment: dict[str, str] | None = None
        self._children: list[tuple[float, subprocess.Popen[bytes]]] = []
        self.has_worked = False
        self.lost: list[str] = []  # said when nobody was there yet to hear it

    def do(self, word: str, request: Message) -> Message:
        """Does what a request asks for; returns what the answer says.

        Raises:
            RunnerError: it cannot be done; nothing was.
        """
        method = _WORDS.get(word)
        if method is None:
            raise InputError(
                f"{word}: the daemon does not know this; it may be of another version: `run stop`, then `run`."
            )
        self._keep_canceled()  # before a word that asks for it again
        try:
            return method(self, request)
        except OSError as error:
            raise SystemFaultError(f"{error.filename or self._output}: {error.strerror}.") from error
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{word}: not a request that this daemon knows ({type(error).__name__}: {error})."
            ) from error

    def notify(self, event: str, sweep: str, message: str) -> None:
        """Tells the user, as the newest plan says; a child that takes too long is killed by `tend`."""
        if not self._plans:
            return
        plan = self._plans[next(reversed(self._plans))]
        wanted = plan.secrets.notify
        if wanted is None:
            return
        settings = notify.Notify(wanted["cmd"], wanted["url"], frozenset(wanted["on"]))
        environment, cwd = plan.secrets.environment, plan.header.cwd
        child = notify.start(settings, event, sweep, message, environment, cwd, _STANDARD_ERROR)
        if child is not None:
            self._children.append((time.monotonic() + NOTIFY_S, child))

    def tend(self) -> None:
        """Ends notifications that hang, and rounds that take too long; keeps what was canceled elsewhere."""
        self._keep_canceled()
        for end, child in self._children:
            if child.poll() is None and time.monotonic() > end:
                os.killpg(child.pid, signal.SIGKILL)
        self._children = [(end, child) for end, child in self._children if child.poll() is None]
        self._rounds.tend(self._say)

    def _keep_canceled(self) -> None:
        """What somebody canceled at a batch system stays so for the next daemon, as if it had been canceled here."""
        if canceled := self._daemon.canceled_elsewhere:
            with suppress(OSError):  # a full disk: until there is room
                self._journal.append({"kind": "cancel", "trials": canceled})
                canceled.clear()

    # --- a plan ---

    def submit(self, request: Message) -> Message:
        """Takes a plan in, unless the journal has grown since it was made."""
        plan_id, entry = str(request["plan"]), dict(request["entry"])
        if self._daemon.scheduler.is_stopping:
            raise RunnerError(self._leaving())
        if plan_id in self._plans:  # asked twice, because the answer was lost
            return {"difference": None}
        if self._journal.size() != request["size"]:
            return {"stale": True}
        plan = plans.Plan(self._output, plan_id)
        difference = self._daemon.submit(plan, lambda: self._journal.append({**entry, "plan": plan_id}))
        if self._environment is not None:
            difference.environment = changed_names(self._environment, dict(plan.secrets.environment))
        self._keep(plan)
        return {"difference": difference.to_wire()}

    def _keep(self, plan: plans.Plan) -> None:
        self.has_worked = True
        self._environment = dict(plan.secrets.environment)
        self._plans[plan.header.plan_id] = plan
        used = self._daemon.plans_in_use() | {plan.header.plan_id}
        last_full = {item.header.file: plan_id for plan_id, item in self._plans.items() if item.header.is_full}
        is_older_used = False
        for plan_id in list(self._plans):
            # The last whole file tells which trials of older plans are no longer asked for.
            if plan_id in used or (is_older_used and plan_id in last_full.values()):
                is_older_used = True
                continue
            self._journal.append({"kind": "replaced", "plan": plan_id})
            self._plans.pop(plan_id).close()
            plans.delete(self._output, plan_id)

    def restore(self) -> None:
        """Takes up what an earlier daemon left; what of it is lost is said."""
        told = {entry["plan"] for entry in self._journal.entries() if "plan" in entry}
        self._daemon.restore(self._output)
        self._rounds.hold(told)
        plans.clean(self._output, told)
        entries = self._journal.open_entries()
        replaced = {entry["plan"] for entry in entries if entry["kind"] == "replaced"}
        opened: dict[str, plans.Plan] = {}
        for entry in entries:
            try:
                if entry["kind"] == "plan" and "plan" in entry and entry["plan"] not in replaced:
                    opened[entry["plan"]] = plans.Plan(self._output, entry["plan"])
            except RunnerError as error:
                self._say_lost(entry, error)
        for number, entry in enumerate(entries):
            kind = entry["kind"]
            try:
                if kind == "plan" and entry.get("plan") in opened:
                    plan = opened[entry["plan"]]
                    self._daemon.submit(plan, lambda: None, _asked_for(entries[number + 1 :], opened))
                    self._plans[plan.header.plan_id] = plan
                    self._environment = dict(plan.secrets.environment)
                    self.has_worked = True
                elif kind == "retry":
                    self._daemon.intake.retry(self._known(entry["trials"]), entry["ask"], is_restored=True)
                elif kind == "cancel":
                    # An attempt that was asked for after it must not be ended by it.
                    again = _asked_for(entries[number + 1 :], opened)
                    self._daemon.cancel(self._known(set(entry["trials"]) - again))
                elif kind == "pause":
                    self._daemon.pause(entry["sweep"])
                elif kind == "resume":
                    self._daemon.resume()
            except RunnerError as error:
                self._say_lost(entry, error)
        self._rounds.let_go()
        self._daemon.end_strays()

    def _say_lost(self, entry: Entry, error: RunnerError) -> None:
        message = f"What was asked for at {entry.get('time', '?')} is not taken up again: {error} Type `run`."
        self._say(message)
        self.lost.append(message)

    def finish(self) -> None:
        """Writes that nothing is left to do, and removes the plans that no one needs."""
        if self.has_worked and not self._daemon.scheduler.is_stopping:
            self._journal.append({"kind": "done"})
        for plan in self._plans.values():
            plan.close()
        if self._plans:
            # A plan that is not in the journal yet is another client's, who is about to hand it over.
            told = {entry["plan"] for entry in self._journal.entries() if "plan" in entry}
            last = self._plans[next(reversed(self._plans))].header.asked
            kept = {plan_id for plan_id, plan in self._plans.items() if plan.header.asked == last}
            for plan_id in plans.ids(self._output) & told - kept:
                plans.delete(self._output, plan_id)

    # --- a user's word ---

    def stop(self, request: Message) -> Message:
        """Ends what runs, politely and at the second time hard; without `now`, lets it come to its end."""
        if not self._daemon.scheduler.is_stopping:
            self._journal.append({"kind": "stop"})
        if request.get("now"):
            self._daemon.stop()
        else:
            self._daemon.drain()
        return {"running": len(list(self._daemon.running()))}

    def pause(self, request: Message) -> Message:
        """Starts nothing more of a sweep, or nothing at all."""
        sweep = request.get("sweep")
        sweeps = {trial.sweep for trial in self._daemon.scheduler.trials()}
        if sweep is not None and sweep not in sweeps:
            known = ", ".join(sorted(sweeps)) or "none"
            first = "A trial of several grids counts for the first of them."
            raise InputError(f"{sweep}: no sweep with trials of its own. Known: {known}. {first}")
        self._journal.append({"kind": "pause", "sweep": sweep})
        self._daemon.pause(sweep)
        return {"running": len(list(self._daemon.running()))}

    def resume(self, _request: Message) -> Message:
        """Takes every pause back."""
        if self._daemon.scheduler.is_stopping:
            raise RunnerError(self._leaving())
        self._journal.append({"kind": "resume"})
        self._daemon.resume()
        return {}

    def cancel(self, request: Message) -> Message:
        """Takes trials out of the queue, and ends what runs of them."""
        trials = named(list(self._daemon.scheduler.trials()), request["words"])
        self._journal.append({"kind": "cancel", "trials": [trial.key for trial in trials]})
        return {"trials": len(trials), "jobs": self._daemon.cancel(trials)}

    def retry(self, request: Message) -> Message:
        """Makes due again what failed, was canceled or interrupted: of the trials named, or of all.

        What was pruned goes on only when it is named.
        """
        if not self._plans and self._journal.is_done():
            self._take_up_last()
        every = list(self._daemon.scheduler.trials())
        words = request.get("words")
        chosen, wanted = (named(every, words), _FAILED | {JobState.PRUNED}) if words else (every, _FAILED)
        trials = [trial for trial in chosen if wanted & set(self._daemon.scheduler.states(trial).values())]
        ask = plans.new_id()
        if trials:
            self._journal.append({"kind": "retry", "ask": ask, "trials": [trial.key for trial in trials]})
        return {"trials": len(trials), "jobs": self._daemon.intake.retry(trials, ask)}

    def _take_up_last(self) -> None:
        """Takes in again what was asked for last and is done: what has failed of it stays so."""
        for entry in self._journal.asked(plans.ids(self._output)):
            if entry["kind"] == "plan":
                plan = plans.Plan(self._output, entry["plan"])
                self._daemon.submit(plan, functools.partial(self._journal.append, entry))
                self._keep(plan)
            else:
                self._journal.append(entry)
                self._daemon.intake.retry(self._known(entry["trials"]), entry["ask"], is_restored=True)

    def _leaving(self) -> str:
        running = len(list(self._daemon.running()))
        left = (
            f" when {counted(running, 'running attempt')} {'has' if running == 1 else 'have'} ended" if running else ""
        )
        end = " (`run stop --now` ends them)" if running else ""
        return f"{self._output}: the daemon was told to stop and leaves{left}{end}; type `run` then, which goes on."

    # --- what there is to see ---

    def status(self, request: Message) -> Message:
        """The counts of every sweep and stage, what runs where, and, when asked for, every trial."""
        return daemonview.status(self._daemon, self._output, with_trials=bool(request.get("trials")))

    def watched(self, request: Message) -> Message:
        """What a watcher hears first: the trials, when asked for, and what each job has come to."""
        return daemonview.watched(self._daemon, with_trials=bool(request.get("trials")))

    def _known(self, ids: Iterable[str]) -> Sequence[Trial]:
        found = (self._daemon.scheduler.trial(trial_id) for trial_id in ids)
        return [trial for trial in found if trial is not None]


def _asked_for(entries: Iterable[Entry], opened: Mapping[str, plans.Plan]) -> set[str]:
    """The trials that some entries ask for."""
    found: set[str] = set()
    for entry in entries:
        if entry["kind"] == "retry":
            found.update(entry["trials"])
        elif entry["kind"] == "plan" and entry.get("plan") in opened:
            found.update(trial.key for trial in opened[entry["plan"]].trials)
    return found


_WORDS: dict[str, Callable[[Commands, Message], Message]] = {
    "submit": Commands.submit,
    "stop": Commands.stop,
    "pause": Commands.pause,
    "resume": Commands.resume,
    "cancel": Commands.cancel,
    "retry": Commands.retry,
    "status": Commands.status,
}
