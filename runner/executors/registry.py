"""The batch systems that `executor:` may name: two that are built in, and those that packages bring along."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from runner.errors import did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

    from runner.executors.batch import BatchExecutor

GROUP = "runner.executors"  # of entry points; each names a class without arguments
_BUILT_IN = {"slurm": "SlurmExecutor", "sge": "SgeExecutor"}


def is_built_in(name: str) -> bool:
    """Whether no package needs to be asked for it."""
    return name in _BUILT_IN


def names() -> list[str]:
    """The names of all batch systems."""
    return sorted({*_BUILT_IN, *_entry_points().names})


def load(name: str) -> BatchExecutor:
    """The executor of this name.

    Raises:
        ValueError: there is none, or its package cannot be loaded.
    """
    if name in _BUILT_IN:
        made: BatchExecutor = getattr(import_module(f"runner.executors.{name}"), _BUILT_IN[name])()
        return made
    for entry in _entry_points().select(name=name):
        try:
            made = entry.load()()
        except Exception as error:  # noqa: BLE001 - whatever a package's own code raises
            raise ValueError(f"{name!r} is an executor of {entry.value}, which cannot be loaded: {error}") from None
        return made
    raise ValueError(f"{name!r} is no executor.{did_you_mean(name, names())} Allowed: {', '.join(names())}.")


def _entry_points() -> EntryPoints:
    from importlib.metadata import entry_points  # takes longer than all the rest

    return entry_points(group=GROUP)
