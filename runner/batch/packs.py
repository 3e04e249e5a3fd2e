"""`pack: auto`: how many trials share an allocation, by what earlier ones of their kind were seen to need."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from runner.gpus.desk import SampleFile
from runner.gpus.learning import Learning, kind_of
from runner.service.gpuwork import SAMPLES
from runner.trials import STATE_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from runner.batch.arrays import Due

MOST = 16  # trials in one allocation


class Packs:
    """Of each kind one trial goes ahead alone; the others wait for what it shows."""

    def __init__(self, holds: Callable[[str], bool]) -> None:
        """`holds` says whether a trial, by its key, is in an allocation, or waits for one."""
        self._holds = holds
        self._ahead: dict[tuple[str, ...], str] = {}  # by kind, the trial that went ahead

    def sort(self, items: Iterable[Due], output: Path) -> Iterator[tuple[list[Due], int | None]]:
        """Trials that go together, with how many share an allocation; None: they wait."""
        learning = Learning()
        for kind, sample in SampleFile(output / STATE_DIRECTORY / SAMPLES).read():
            learning.note(kind, sample)
        groups: dict[tuple[str, ...], list[Due]] = defaultdict(list)
        for item in items:
            groups[tuple(kind_of(item.trial, stage) for stage in item.stages)].append(item)
        for kinds, members in groups.items():
            fits = [fit for kind in kinds if (fit := learning.fits(kind)) is not None]
            if fits:
                yield members, min(*fits, MOST)
            elif kinds not in self._ahead:
                self._ahead[kinds] = members[0].trial.key
                yield members[:1], 1
                yield members[1:], None
            else:  # it has shown nothing: there is no driver to ask, for one
                yield members, None if self._holds(self._ahead[kinds]) else 1
