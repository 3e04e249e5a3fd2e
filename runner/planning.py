"""What the command line asks for: the file read, the parts of it chosen, its trials in their directories."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import config, plan, plans, records, trials
from runner.directories import Directories
from runner.errors import InputError
from runner.gpus.devices import is_gpu
from runner.memory import Memory
from runner.model import LOCAL, JobState
from runner.params.header import ResourceKeys
from runner.rounds import Expansion
from runner.units import Units

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from runner.code.snapshot import Source
    from runner.config import Config
    from runner.model import PlannedTrial
    from runner.params.header import Resource
    from runner.trials import Draft
    from runner.values import Params


@dataclass(frozen=True)
class Request:
    """A command line, with what the file and the output directory say to it; nothing has been written."""

    config: Config
    output: Path
    introduced: Params  # the default with which each parameter was first given one here
    new_defaults: Params  # those of them that are given one now
    journal_size: int
    open_plans: Sequence[str]  # whose trials may wait, without a directory yet
    options: argparse.Namespace
    upto: int | None = None  # the round after which searches are decided anew
    source: Source | None = None  # the code to be kept for these trials, with `snapshot: true`
    time: str = field(default_factory=lambda: time.strftime("%Y%m%d.%H%M%S"))

    @property
    def copy(self) -> Path:
        """Where the file is copied to."""
        name = self.config.path.name
        title = self.options.title
        return self.output / (name if title is None else f"{name}.{title.replace('/', '_')}")

    def trials(self, is_preview: bool = False) -> Iterator[PlannedTrial]:
        """The trials that are asked for, one by one; a preview of millions needs no more memory than one of ten."""
        has_subdirectories = not self._option("no_subdir", False)
        memory = Memory(self.config.options, self.config.settings)
        elsewhere = frozenset(stage for stage, item in self.config.options.items() if item.cwd is not None)
        layout = trials.Layout(self.options.output, self.time, memory, has_subdirectories, elsewhere)
        waiting = {} if is_preview else plans.names(self.output, self.open_plans)
        directories = Directories(self.output, self.introduced, waiting, remembers=not is_preview)
        name_of = directories.name_of if has_subdirectories else attrgetter("preferred_name")
        if not self.config.has_units:
            return trials.complete(self._drafts(self.config), self.config.templates, layout, name_of)
        config = replace(self.config, is_part=self.config.is_part or self._option("debug", False))
        if not has_subdirectories:
            raise InputError("--no-subdir: gathers and searches need a directory for each trial.")
        config = self._expansion(config).expand(self.upto)
        found = list(self._drafts(config))
        # What a decided round lost is not tried again: its decision stands without.
        rounds = [(sweep.title, sweep.round) for sweep in config.sweeps if sweep.round]
        lost = _of_all_titles(found, {(title, item) for title, stand in rounds for item in stand.lost})
        left_out = _of_all_titles(found, {(title, item) for title, stand in rounds for item in stand.left_out})
        drafts = [item for item in found if item.trial_id not in lost]
        if self._option("debug", False):  # what the others wait for does not matter
            drafts = drafts[:1]
        complete = list(trials.complete(drafts, config.templates, layout, name_of))
        decides = not self._option("command", None)  # a round is decided by all its stages
        units = Units(config, layout, None if is_preview else self._finished_units, decides)
        return iter(units.plan(found, complete, left_out))

    def _drafts(self, chosen: Config) -> Iterator[Draft]:
        sample, seed = self._option("sample", None), self._option("seed", 0)
        return trials.drafts(chosen, self.introduced, sample, seed, self.options.output)

    def _expansion(self, chosen: Config) -> Expansion:
        sample, seed = self._option("sample", None), self._option("seed", 0)
        return Expansion(chosen, self.introduced, self.options.output, sample, seed)

    @property
    def expansion(self) -> Expansion:
        """What makes later rounds of the file's searches."""
        return self._expansion(self.config)

    def _finished_units(self, name: str) -> list[str]:
        """The units of a gather that an earlier `run` has finished."""
        stats = sorted((self.output / f"gather.{name}").glob("*/stat"))
        return [
            "/".join(path.parts[-3:-1])
            for path in stats
            if set(records.read_stat(str(path.parent)).values()) == {JobState.COMPLETED}
        ]

    def _option(self, name: str, default: Any) -> Any:
        # The subcommands lack the options that only `run` itself has.
        return getattr(self.options, name, default)


def _of_all_titles(drafts: Iterable[Draft], named: Collection[tuple[str | None, str]]) -> set[str]:
    """The trials that are named, by title and id, in each sweep that asks for them."""
    return {item.trial_id for item in drafts if all((title, item.trial_id) in named for title in item.titles)}


def read(options: argparse.Namespace) -> Request:
    """Reads what a command line names.

    Raises:
        InputError: the file or an option is wrong.
    """
    chosen = trials.select(_load(options), options.title, getattr(options, "command", None))
    words = getattr(options, "resource", None)
    if words is not None:
        chosen = replace(chosen, resource=_resource_option(words), resource_said=f"-r {' '.join(words)}")
    request = _placed(chosen, options)
    _keep_the_users_file(request.copy, Path(options.yaml))
    return request


def _load(options: argparse.Namespace) -> Config:
    # A debugger is on this terminal.
    wanted = LOCAL if getattr(options, "debug", False) else getattr(options, "executor", None)
    return config.load(Path(options.yaml), executor=wanted)


def read_round(file: str, text: str, options: argparse.Namespace, number: int) -> Request:
    """The request that an earlier `run` made with this text of the file, for a later round of its searches."""
    chosen = trials.select(config.load(Path(file), text, options.executor), options.title, options.command)
    return replace(_placed(chosen, options), upto=number if options.force else None)


def again(request: Request) -> Request:
    """The same request to an output directory that another `run` has changed since."""
    return replace(_placed(request.config, request.options), source=request.source)


def _placed(chosen: Config, options: argparse.Namespace) -> Request:
    output = _output(options.output)
    journal = plan.Journal(output)
    size = journal.size()
    introduced = journal.introduced()
    new_defaults = plan.newly_introduced(chosen.settings.base, introduced)
    introduced |= new_defaults
    upto = 1 if getattr(options, "force", False) else None
    return Request(chosen, output, introduced, new_defaults, size, journal.open_plans(), options, upto)


def _output(name: str) -> Path:
    output = Path(name)
    try:
        name.encode()
        if output.exists() and not output.is_dir():
            raise InputError(f"-o {output}: is a file; name a directory.")
    except OSError as error:
        raise InputError(f"-o {name[:80]}: {error.strerror}.") from None
    except UnicodeEncodeError:
        raise InputError(f"-o {name!a}: not UTF-8; name another directory.") from None
    return output


def _keep_the_users_file(copy: Path, source: Path) -> None:
    """The copy must not meet a directory, nor, in `-o .`, overwrite a file that is the user's."""
    if copy.is_dir():
        raise InputError(f"{copy}: a directory stands where the copy of {source} goes; move it away.")
    if copy.parent.resolve() == Path.cwd() and copy.exists() and not copy.samefile(source):
        raise InputError(f"{copy}: a file of yours stands where the copy of {source} goes; choose another -o.")


def _resource_option(words: Sequence[str]) -> Resource:
    if list(words) == ["auto"]:
        return "auto"
    cpu = re.fullmatch(r"cpu:([1-9]\d*)", words[0])
    if cpu and len(words) == 1:
        return ResourceKeys(cpu=int(cpu[1]))
    for word in words:
        if not all(map(is_gpu, word.split(","))):
            raise InputError(f"-r {word}: no resource; allowed: GPU indices such as 0 1 or 0,1 2,3, or cpu:4, or auto.")
    return list(words)
