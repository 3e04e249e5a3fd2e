"""The scripts that a `run` would submit, shown and not submitted."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from runner import resources
from runner.batch import arrays, batchfile
from runner.batch.script import batch_of
from runner.executors import registry
from runner.executors.batch import UnreachableError
from runner.model import LOCAL, JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from runner.batch.arrays import Due
    from runner.executors.batch import BatchExecutor, BatchKeys
    from runner.model import PlannedTrial
    from runner.options import StageOptions
    from runner.planning import Request


def print_scripts(request: Request, trials: Iterable[PlannedTrial], out: TextIO) -> None:
    """Each script once, with how many arrays of which size it is submitted as."""
    config = request.config
    options = {
        stage: resources.resolved(item, resources.NOWHERE, config.resource) for stage, item in config.options.items()
    }
    groups: Counter[str] = Counter()
    kept: dict[str, Due] = {}
    for trial in trials:
        for due in _parts(trial, options):
            key = repr((due.executor, due.told, due.gpus, due.cpus))
            groups[key] += 1
            kept.setdefault(key, due)
    for key, count in groups.items():
        _print(kept[key], count, request.output, out)


def _parts(trial: PlannedTrial, options: Mapping[str, StageOptions]) -> Iterator[Due]:
    """What of a trial would go into which task."""
    states = dict.fromkeys(trial.stages, JobState.PENDING)
    while (first := next((stage for stage in states if options[stage].executor != LOCAL), None)) is not None:
        due = arrays.due(trial, first, states, options, "")
        yield due
        states = {stage: state for stage, state in states.items() if stage not in due.stages}


def _print(due: Due, trials: int, output: Path, out: TextIO) -> None:
    executor = registry.load(due.executor)
    keys = executor.keys.model_validate(due.told)
    pack = 1 if keys.pack == "auto" else keys.pack
    tasks = -(-trials // pack)
    most, gpus = _ask(executor, keys, due, out)
    sizes = Counter(len(batch) for batch in arrays.batches([due] * tasks, 1, most or tasks))
    for size, count in sizes.items():
        folder = batchfile.directory_of(output.resolve()) / f"{batchfile.PREFIX}…"
        intent = batchfile.Intent(folder.name, due.executor, due.told, "", os.getcwd(), gpus, due.cpus * pack, ())  # noqa: PTH109
        script = executor.script(replace(batch_of(folder, intent, keys), count=size))
        out.write(f"# {due.executor}: {count:,} {'array' if count == 1 else 'arrays'} of {size:,} tasks\n{script}")


def _ask(executor: BatchExecutor, keys: BatchKeys, due: Due, out: TextIO) -> tuple[int | None, int]:
    """How large an array may be, and how many GPUs a task asks for; where nobody answers, what is known without."""
    try:
        return executor.max_tasks(), int(executor.has_gpus(keys)) if due.gpus is None else due.gpus
    except UnreachableError as error:
        out.write(f"# {error}\n")
        return None, due.gpus or 0
