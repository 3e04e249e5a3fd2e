"""A plan as it meets what the daemon already has: where a trial's recipe comes from, and what the plan changes."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.model import Terms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runner.model import Slot, Trial
    from runner.options import StageOptions
    from runner.plans import Plan

_SHOWN = 5
# What differs between two shells without meaning anything.
_VOLATILE = frozenset(
    {"PWD", "OLDPWD", "SHLVL", "_", "COLUMNS", "LINES", "TERM", "WINDOWID", "STY", "TMUX", "TMUX_PANE"}
)
_VOLATILE_PREFIXES = ("SSH_", "XDG_", "DBUS_", "GNOME_", "VSCODE_", "KONSOLE_", "TERM_", "BASH_FUNC_", "VTE_")


class Origin:
    """Where a trial comes from: the plan of each stage, and by which word of the user's it was last asked for."""

    def __init__(self, plan_of: Mapping[str, Plan], ask: str) -> None:
        self.plan_of = plan_of
        self.ask = ask
        options = {stage: plan.header.options[stage] for stage, plan in plan_of.items()}
        self.retries = {stage: item.retry for stage, item in options.items()}
        self.terms = {
            stage: Terms(1 if item.gpus is None else item.gpus, item.per_gpu, item.stagger_s, item.executor)
            for stage, item in options.items()
        }

    def options(self, stage: str) -> StageOptions:
        """What the stage was told."""
        return self.plan_of[stage].header.options[stage]

    def environment(self, trial: Trial, stage: str, attempt: int, slot: Slot) -> dict[str, str]:
        """The environment of an attempt: that of whoever typed `run`, the stage's, and what tells it where it is."""
        header = self.plan_of[stage].header
        is_elsewhere = self.options(stage).cwd is not None
        output = os.path.join(header.cwd, trial.output) if is_elsewhere else trial.output  # noqa: PTH118 - a text
        own = {"RUNNER_OUTPUT": output, "RUNNER_STAGE": stage, "RUNNER_ATTEMPT": str(attempt)}
        if trial.needs is not None and trial.needs.decides:
            own |= {"RUNNER_PLAN": header.plan_id, "RUNNER_ROUND": str(trial.round)}
        if slot.gpus is not None:
            # Without the order, CUDA counts GPUs by speed and NVML by bus.
            own |= {"CUDA_VISIBLE_DEVICES": slot.gpus, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        options = self.options(stage)
        cores = {} if options.cpus is None else {"OMP_NUM_THREADS": str(options.cpus)}
        return {**cores, **self.plan_of[stage].secrets.environment, **own, **options.env}

    def is_same(self, other: Origin, trial: Trial) -> bool:
        """Whether the trial's stages are just as they are there."""
        return self.plan_of.keys() == other.plan_of.keys() and all(
            plan.is_same(other.plan_of[stage], trial) for stage, plan in self.plan_of.items()
        )

    def is_run_like(self, other: Origin) -> bool:
        """Whether the options of its stages are the same there."""
        return all(self.options(stage) == other.options(stage) for stage in self.plan_of if stage in other.plan_of)


class Origins:
    """The origins of one plan's trials, which most of them share."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._of_stages: dict[tuple[str, ...], Origin] = {}

    def of(self, stages: tuple[str, ...]) -> Origin:
        """The origin of a trial with these stages."""
        if stages not in self._of_stages:
            self._of_stages[stages] = Origin(dict.fromkeys(stages, self.plan), self.plan.ask)
        return self._of_stages[stages]

    def joined(self, old: Origin, stages: tuple[str, ...], kept: Iterable[str] | None = None) -> Origin:
        """The origin of a trial of which an earlier plan wants other stages besides: all, or those `kept`."""
        plan_of = {stage: old.plan_of[stage] for stage in (old.plan_of if kept is None else kept)}
        plan_of |= dict.fromkeys(stages, self.plan)
        order = list(self.plan.header.options)
        ordered = sorted(plan_of, key=lambda stage: order.index(stage) if stage in order else -1)
        return Origin({stage: plan_of[stage] for stage in ordered}, self.plan.ask)


@dataclass
class Difference:
    """What a plan changes: for each word the number of trials, and the names of the first few."""

    counts: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)
    environment: list[str] = field(default_factory=list)

    def count(self, word: str, trial: Trial) -> None:
        """Adds a trial: new, due (begun or failed before), waiting, changed, running, finished, dropped or kept."""
        self.counts[word] += 1
        if len(names := self.names.setdefault(word, [])) < _SHOWN:
            names.append(trial.name)

    def to_wire(self) -> dict[str, Any]:
        """The difference as it goes over the socket."""
        return {"counts": dict(self.counts), "names": self.names, "environment": self.environment}


def changed_names(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The names of the variables that differ between two environments, those left out that always do."""
    differing = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return sorted(name for name in differing - _VOLATILE if not name.startswith(_VOLATILE_PREFIXES))
