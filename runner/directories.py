"""Which directory belongs to which trial: a name once given stays, and two trials never share one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runner import records
from runner.errors import InputError
from runner.grid import trial_id
from runner.naming import with_hash

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.trials import Draft
    from runner.values import Params


class Directories:
    """The trials' directories under one output directory, read when they are asked for."""

    def __init__(
        self, output: Path, introduced: Params, waiting: Mapping[str, Params] | None = None, remembers: bool = True
    ) -> None:
        """`waiting`: names that trials without a directory have already, with their parameters.

        `remembers`: a name that was given out is the trial's from then on; a preview of millions does without, as
        names collide within a plan only where the namer errs.
        """
        self._output = output
        self._introduced = introduced
        self._on_disk, self._files = _entries(output)
        self._id_of: dict[str, str | None] = {}
        given = {name: trial_id(params, introduced) for name, params in (waiting or {}).items()}
        self._given: dict[str, str] | None = given if remembers else None
        self._waiting = {identity: name for name, identity in given.items()}
        self._name_of: dict[str, str] | None = None

    def name_of(self, draft: Draft) -> str:
        """The name of the trial's directory, old or new.

        Raises:
            InputError: a file has the name that the directory needs.
        """
        name = self._choose(draft)
        if name in self._files:
            raise InputError(f"{self._output / name}: a file is in the way of a trial's directory; move it away.")
        if self._given is not None:
            self._given[name] = draft.trial_id
        return name

    def _choose(self, draft: Draft) -> str:
        name = draft.preferred_name
        owner = self._owner(name)
        if owner == draft.trial_id:
            return name
        known = self._waiting.get(draft.trial_id) or self._known_names().get(draft.trial_id)
        if known is not None:
            return known
        if owner is None:
            return name
        name = with_hash(name, draft.trial_id)
        return name if self._owner(name) in {None, draft.trial_id} else draft.trial_id

    def _owner(self, name: str) -> str | None:
        """The id of the trial to which a directory belongs; None for one that does not exist, or holds no trial."""
        if self._given is not None and name in self._given:
            return self._given[name]
        if name not in self._on_disk:
            return None
        if name not in self._id_of:
            param = records.read_param(f"{self._output}/{name}")
            own = None if param is None else {key: value for key, value in param.items() if not key.startswith("_")}
            self._id_of[name] = None if own is None else trial_id(own, self._introduced)
        return self._id_of[name]

    def _known_names(self) -> dict[str, str]:
        """Every trial on the disk by its id; read once, and only when a trial is not where its name says."""
        if self._name_of is None:
            on_disk = sorted(self._on_disk)
            self._name_of = {owner: name for name in on_disk if (owner := self._owner(name)) is not None}
        return self._name_of


def _entries(output: Path) -> tuple[set[str], set[str]]:
    """The names of the directories, and those of all else."""
    directories: set[str] = set()
    others: set[str] = set()
    if output.exists():
        with os.scandir(output) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    (directories if entry.is_dir() else others).add(entry.name)
    return directories, others
