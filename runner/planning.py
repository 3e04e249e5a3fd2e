"""What the command line asks for: the file read, the parts of it chosen, its trials in their directories."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import config, plan, trials
from runner.config import CpuResource
from runner.directories import Directories
from runner.errors import InputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from runner.config import Config, Resource
    from runner.model import Trial
    from runner.values import Params


@dataclass(frozen=True)
class Request:
    """A command line, with what the file and the output directory say to it; nothing has been written."""

    config: Config
    output: Path
    introduced: Params  # the default with which each parameter was first given one here
    new_defaults: Params  # those of them that are given one now
    options: argparse.Namespace
    time: str = field(default_factory=lambda: time.strftime("%Y%m%d.%H%M%S"))

    def trials(self, is_preview: bool = False) -> Iterator[Trial]:
        """The trials that are asked for, one by one; a preview of millions needs no more memory than one of ten."""
        has_subdirectories = not self._option("no_subdir", False)
        layout = trials.Layout(self.options.output, self.time, has_subdirectories)
        sample, seed = self._option("sample", None), self._option("seed", 0)
        found = trials.drafts(self.config, self.introduced, sample, seed)
        directories = Directories(self.output, self.introduced, remembers=not is_preview)
        name_of = directories.name_of if has_subdirectories else attrgetter("preferred_name")
        return trials.complete(found, self.config.templates, layout, name_of)

    def _option(self, name: str, default: Any) -> Any:
        # The subcommands lack the options that only `run` itself has.
        return getattr(self.options, name, default)


def read(options: argparse.Namespace) -> Request:
    """Reads what a command line names.

    Raises:
        InputError: the file or an option is wrong.
    """
    chosen = trials.select(config.load(Path(options.yaml)), options.title, getattr(options, "command", None))
    words = getattr(options, "resource", None)
    if words is not None:
        chosen = replace(chosen, resource=_resource_option(words))
    output = Path(options.output)
    if output.exists() and not output.is_dir():
        raise InputError(f"-o {output}: is a file; name a directory.")
    introduced = plan.Journal(output).introduced()
    new_defaults = plan.newly_introduced(chosen.settings.base, introduced)
    return Request(chosen, output, introduced | new_defaults, new_defaults, options)


def _resource_option(words: Sequence[str]) -> Resource:
    if list(words) == ["auto"]:
        return "auto"
    cpu = re.fullmatch(r"cpu:([1-9]\d*)", words[0])
    if cpu and len(words) == 1:
        return CpuResource(cpu=int(cpu[1]))
    for word in words:
        if not re.fullmatch(r"[\w-]+(,[\w-]+)*", word) or word == "auto":
            raise InputError(f"-r {word}: no resource; allowed: GPU indices such as 0 1 or 0,1 2,3, or cpu:4, or auto.")
    return list(words)
