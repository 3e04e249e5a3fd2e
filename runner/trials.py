"""From the file to the trials that a `run` asks for: expanded, named, without duplicates, with their shell lines."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runner.errors import InputError, did_you_mean
from runner.grid import resolve, trial_id
from runner.model import Trial
from runner.naming import Namer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from runner.config import Config
    from runner.grid import Sweep
    from runner.template import Template
    from runner.values import Params


@dataclass(frozen=True)
class Draft:
    """A trial before it has a directory: `preferred_name` is free unless another trial owns it already."""

    trial_id: str
    preferred_name: str
    params: Params
    stages: tuple[str, ...]


def select(config: Config, title: str | None, stages: Sequence[str] | None) -> Config:
    """The part of the file that the options `-t` and `-c` ask for."""
    sweeps = list(config.sweeps)
    if title is not None:
        titles = [sweep.title for sweep in sweeps if sweep.title is not None]
        if title not in titles:
            known = ", ".join(titles) or "none; add `_title` to a grid"
            raise InputError(
                f"-t {title}: no such title.{did_you_mean(title, titles)} Titles in {config.path}: {known}."
            )
        sweeps = [sweep for sweep in sweeps if sweep.title == title]
    for stage in stages or ():
        if stage not in config.templates:
            known = ", ".join(config.templates)
            hint = did_you_mean(stage, config.templates)
            raise InputError(f"-c {stage}: no such stage.{hint} Stages in {config.path}: {known}.")
    if stages:
        wanted = tuple(stage for stage in config.templates if stage in stages)
        sweeps = [replace(sweep, stages=wanted) for sweep in sweeps]
    return replace(config, sweeps=sweeps)


def draft(config: Config, introduced: Params) -> list[Draft]:
    """Every trial once, in the file's order; one that stands in two sweeps runs the stages of both."""
    namer = Namer((key, value) for sweep in config.sweeps for key, values in sweep.choices.items() for value in values)
    drafts: dict[str, Draft] = {}
    for sweep in config.sweeps:
        stages = sweep.stages or tuple(config.templates)
        for combination in sweep.combinations():
            item = _draft(combination, stages, config, introduced, namer)
            known = drafts.get(item.trial_id)
            if known is None:
                drafts[item.trial_id] = item
            elif known.stages != stages:
                both = tuple(stage for stage in config.templates if stage in known.stages or stage in stages)
                drafts[item.trial_id] = replace(known, stages=both)
    return list(drafts.values())


def _draft(combination: Params, stages: tuple[str, ...], config: Config, introduced: Params, namer: Namer) -> Draft:
    params = resolve(combination, config.default)
    identity = trial_id(params, introduced)
    return Draft(identity, namer.name(combination, identity), params, stages)


def complete(
    drafts: Iterable[Draft],
    templates: Mapping[str, Template],
    output: str,
    time: str,
    name_of: Callable[[Draft], str],
) -> Iterator[Trial]:
    """Trials with their directories and shell lines; `name_of` settles the directory of each draft."""
    for index, item in enumerate(drafts):
        name = name_of(item)
        directory = os.path.join(output, name)  # noqa: PTH118 - the text as it stands in commands
        values = item.params | {"_name": name, "_output": directory, "_time": time}
        commands = {stage: templates[stage].render(values) for stage in item.stages}
        yield Trial(index, item.trial_id, name, directory, item.params, commands)


def sweep_sizes(sweeps: Iterable[Sweep]) -> int:
    """The number of combinations, duplicates counted as often as they stand there."""
    return sum(len(sweep) for sweep in sweeps)
