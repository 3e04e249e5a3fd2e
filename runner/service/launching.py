"""Starts an attempt on this machine: its records, its environment, its process."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

from runner import recovery
from runner.executors.base import Launch
from runner.metricsfile import step_reached
from runner.model import JobState, Outcome, Slot
from runner.service.codewatch import CodeWatch
from runner.service.endings import Running
from runner.service.ledger import Tags

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from runner.executors.base import Executor
    from runner.gpus.leases import Lease
    from runner.model import Fallback, Job, Recipe
    from runner.records import Record
    from runner.scheduler import Start
    from runner.service.intake import Intake
    from runner.service.ledger import Ledger, Opened


class Launcher:
    """Starts the attempts of one daemon; in the `task` of a batch each one's progress is looked at, too."""

    def __init__(self, executor: Executor, intake: Intake, ledger: Ledger, task: str | None) -> None:
        self._executor = executor
        self._intake = intake
        self._ledger = ledger
        self._task = task
        self._codes = CodeWatch()

    def launch(self, start: Start, now: float, lease: Lease | None) -> tuple[Running, Record]:
        """Starts an attempt; returns it with what it takes to find it again.

        Raises:
            OutputGoneError: the output directory is no more.
            OSError: the machine refused.
            RunnerError: its records or its plan were damaged meanwhile.
        """
        trial, stage = start.job
        origin = self._intake.origin(trial)
        header, recipe = origin.plan_of[stage].header, origin.plan_of[stage].recipe(trial)
        fallback = self._ledger.page(trial).fallbacks.get(stage, 0)
        lower = recipe.fallbacks[stage][fallback - 1] if fallback else None
        reached = step_reached(trial.directory) if self._task else None
        opened = self._open(start.job, start.slot, recipe, lower, reached)
        options = origin.options(stage)
        launch = Launch(
            command=recipe.commands[stage] if lower is None else lower.command,
            exit_record=recovery.exit_record(trial.directory, stage, opened.number),
            log_path=opened.log,
            environment=origin.environment(trial, stage, opened.number, start.slot),
            cwd=os.path.join(header.cwd, options.cwd or ""),  # noqa: PTH118
            umask=header.umask,
            inherited=None if lease is None else lease.fd,
        )
        native_id, process = self._executor.start(launch)
        running = Running(
            start.job, native_id, opened.number, start.slot, time.time(), now, opened.log, options, fallback,
            reached=reached,
        )  # fmt: skip
        return running, process

    def note_failure(self, job: Job, text: str, log: Path, blocked: Iterable[Job]) -> None:
        """Records an attempt that failed before its command began, with what was said then.

        Raises:
            OSError: the machine refused.
            RunnerError: its records or its plan were damaged meanwhile.
        """
        recipe = self._intake.origin(job.trial).plan_of[job.stage].recipe(job.trial)
        opened = self._open(job, Slot(""), recipe)
        shutil.copyfile(log, opened.log)
        self._ledger.close(job, opened.number, Outcome(JobState.FAILED, None, 0.0, cause="exit", line=text), blocked)

    def _open(
        self, job: Job, slot: Slot, recipe: Recipe, lower: Fallback | None = None, reached: int | None = None
    ) -> Opened:
        """Records that an attempt begins."""
        trial, stage = job
        origin = self._intake.origin(trial)
        plan = origin.plan_of[stage]
        states = self._intake.states(trial)
        due = [item for item in recipe.commands if states.get(item) is not JobState.COMPLETED]
        self._intake.pipeline.prepare(trial)
        tags = Tags(
            plan.header.time, plan.header.plan_id, origin.ask,
            code=plan.header.code or self._codes.state(plan.output, plan.header.cwd),
            override=None if lower is None else lower.params,
            inputs=self._intake.pipeline.inputs(trial, plan.header.cwd),
            reached=reached,
            task=self._task,
        )  # fmt: skip
        return self._ledger.open(job, recipe, due, slot, tags)
