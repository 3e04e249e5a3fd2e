"""From the file to the trials that a `run` asks for: expanded, named, without duplicates, with their shell lines."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from runner import gather
from runner.errors import InputError, did_you_mean
from runner.grid import trial_id
from runner.model import CONFIG_FILE, Fallback, PlannedTrial, Recipe
from runner.naming import Namer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from runner.config import Config
    from runner.grid import Sweep
    from runner.memory import Memory
    from runner.template import Template
    from runner.values import Params


STATE_DIRECTORY = ".runner"
_PATHS = frozenset({"_output", "_config", "_trials"})
MAX_COMMAND_BYTES = 131_000


@dataclass(frozen=True)
class Draft:
    """A trial before it has a directory: `preferred_name` is free unless another trial owns it already."""

    trial_id: str
    preferred_name: str
    params: Params
    stages: tuple[str, ...]
    sweep: str
    priority: int
    titles: frozenset[str | None] = frozenset()  # of all sweeps that name it
    rounds: Mapping[str, int] = field(default_factory=dict)  # of searches, by title, in which each first asks for it
    places: Mapping[str, Sequence[str]] = field(default_factory=dict)  # of gathers that its values name, by unit
    after: frozenset[str] = frozenset()  # gathers of which all units must be complete

    @property
    def round(self) -> int:
        """The round that its records name, the first search's; 0 without one."""
        return next(iter(self.rounds.values()), 0)


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
    return replace(config, sweeps=sweeps, is_part=bool(title is not None or stages))


def drafts(
    config: Config, introduced: Params, sample: int | None = None, seed: int = 0, output: str = "output"
) -> Iterator[Draft]:
    """Every trial once, in the file's order; one that stands in two sweeps runs the stages of both.

    With `sample`, only so many combinations of each sweep, drawn at random. Nothing is held for the trials that have
    been given out, unless the file can name a trial twice.
    """
    leaves = [leaf for sweep in config.sweeps for leaf in sweep.grid.leaves()]
    if any(sweep.links for sweep in config.sweeps):
        leaves = [(key, gather.readable_values(values)) for key, values in leaves]
    namer = Namer(leaves)
    names = [sweep.title or f"grid {number}" for number, sweep in enumerate(config.sweeps, start=1)]
    stages_of = [sweep.stages or tuple(config.templates) for sweep in config.sweeps]
    has_units = config.has_units or any(sweep.links for sweep in config.sweeps)
    expanded = (
        _draft(config, sweep, name, stages, combination, introduced, namer, output, has_units)
        for name, sweep, stages in zip(names, config.sweeps, stages_of, strict=True)
        for combination in (sweep.combinations() if sample is None else sweep.sample(sample, seed))
    )
    if len(set(stages_of)) > 1 or len({sweep.priority for sweep in config.sweeps}) > 1 or has_units:
        return _joined(expanded, tuple(config.templates))
    may_repeat = len(config.sweeps) > 1 or config.settings.alias or any(sweep.grid.repeats() for sweep in config.sweeps)
    return _unique(expanded) if may_repeat else expanded


def _draft(
    config: Config, sweep: Sweep, name: str, stages: tuple[str, ...], combination: Params, introduced: Params,
    namer: Namer, output: str, has_units: bool,
) -> Draft:  # fmt: skip
    params, places = _resolve(config, sweep, combination, output)
    identity = trial_id(params, introduced)
    if not has_units:
        return Draft(identity, namer.name(combination, identity), params, stages, name, sweep.priority)
    shown = {key: gather.readable(value) for key, value in combination.items()}
    used = {gather.gather_of(unit) for unit in places}
    after = frozenset(link.gather for link in sweep.links if link.key == "_after" and link.gather not in used)
    return Draft(
        identity, namer.name(shown, identity), params, stages, name, sweep.priority, frozenset({sweep.title}),
        {} if sweep.round is None else {name: sweep.round.number}, places, after,
    )  # fmt: skip


def _resolve(config: Config, sweep: Sweep, combination: Params, output: str) -> tuple[Params, dict[str, list[str]]]:
    """A combination's parameters, and the places in gathers that they name, by unit."""
    params = config.settings.resolve(combination)
    if not sweep.links:
        return params, {}
    try:
        return gather.expand(params, config.gathers, output)
    except KeyError as error:
        link = next(link for link in sweep.links if error.args[0] in config.gathers[link.gather].by)
        raise InputError(
            f"{link.place}: the gather {link.gather} is grouped by {error}, which this grid leaves unset."
        ) from None


def identities(
    config: Config, sweep: Sweep, introduced: Params, sample: int | None, seed: int, output: str
) -> list[str]:
    """The ids of a sweep's trials, each once."""
    combinations = sweep.combinations() if sample is None else sweep.sample(sample, seed)
    found = (trial_id(_resolve(config, sweep, item, output)[0], introduced) for item in combinations)
    return list(dict.fromkeys(found))


def _unique(expanded: Iterable[Draft]) -> Iterator[Draft]:
    seen: set[bytes] = set()
    for item in expanded:
        key = bytes.fromhex(item.trial_id[:32])
        if key not in seen:
            seen.add(key)
            yield item


def _joined(expanded: Iterable[Draft], order: tuple[str, ...]) -> Iterator[Draft]:
    """Each trial where it stands first, with the stages of every sweep that names it and the highest priority."""
    found: dict[str, Draft] = {}
    for item in expanded:
        known = found.get(item.trial_id)
        if known is None:
            found[item.trial_id] = item
            continue
        if known.stages != item.stages:
            both = tuple(stage for stage in order if stage in known.stages or stage in item.stages)
            known = found[item.trial_id] = replace(known, stages=both)
        if known.priority < item.priority:
            known = found[item.trial_id] = replace(known, priority=item.priority)
        if known.titles != item.titles or known.after != item.after:
            titles, after = known.titles | item.titles, known.after | item.after
            rounds = known.rounds if item.rounds.keys() <= known.rounds.keys() else {**known.rounds, **item.rounds}
            found[item.trial_id] = replace(known, titles=titles, after=after, rounds=rounds)
    return iter(found.values())


@dataclass(frozen=True)
class Layout:
    """Where trials are put: each into a directory of its name, or all into the output directory itself.

    Without subdirectories the records of a trial lie under `.runner/trials/<id>/`.
    """

    output: str
    time: str
    memory: Memory
    has_subdirectories: bool = True
    elsewhere: frozenset[str] = frozenset()  # the stages that run in another directory than this one

    def trial(self, index: int, item: Draft, name: str, templates: Mapping[str, Template]) -> PlannedTrial:
        """The trial with its directories and shell lines."""
        if self.has_subdirectories:
            output = directory = os.path.join(self.output, name)  # noqa: PTH118 - the text as it stands in commands
        else:
            output = self.output
            directory = os.path.join(self.output, STATE_DIRECTORY, "trials", item.trial_id)  # noqa: PTH118
        own: Params = {"_name": name, "_output": output, "_time": self.time, "_config": f"{directory}/{CONFIG_FILE}"}
        values = {stage: item.params | self.found_from(stage, own) for stage in item.stages}
        commands = {stage: templates[stage].render(values[stage]) for stage in item.stages}
        for stage, command in commands.items():
            if len(command) > MAX_COMMAND_BYTES // 4 and len(command.encode()) > MAX_COMMAND_BYTES:
                raise InputError(f"{output[:200]}: the command of `{stage}` is longer than Linux lets an argument be.")
        needs_config = any("_config" in templates[stage].names for stage in item.stages)
        fallbacks = {
            stage: [Fallback(changed, templates[stage].render(values[stage] | changed)) for changed in changes]
            for stage, changes in self.memory.fallbacks(item.stages, item.params)
        }
        recipe = Recipe(item.params, commands, needs_config, fallbacks)
        kinds = self.memory.kinds(item.stages, item.params)
        return PlannedTrial(
            index, item.trial_id, name, output, directory, item.stages, item.sweep, item.priority, kinds, recipe
        )

    def found_from(self, stage: str, own: Params) -> Params:
        """The runner's own placeholders, those that are paths such that a stage finds them from where it runs."""
        if stage not in self.elsewhere:
            return own
        return {key: os.path.abspath(str(value)) if key in _PATHS else value for key, value in own.items()}  # noqa: PTH100


def complete(
    found: Iterable[Draft], templates: Mapping[str, Template], layout: Layout, name_of: Callable[[Draft], str]
) -> Iterator[PlannedTrial]:
    """Trials of drafts; `name_of` settles the name of each."""
    return (layout.trial(index, item, name_of(item), templates) for index, item in enumerate(found))


def nested(params: Params) -> dict[str, Any]:
    """The parameters as a program's configuration file has them: `optimizer.lr` is the key lr under optimizer."""
    result: dict[str, Any] = {}
    for name, value in params.items():
        *parents, last = name.split(".")
        inner = result
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return result
