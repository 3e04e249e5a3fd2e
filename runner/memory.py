"""What stages are told about GPU memory when they are planned: their kinds, and what follows an out of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner import arithmetic
from runner.values import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runner.grid import Settings
    from runner.options import StageOptions
    from runner.values import Params, Value

MAX_FALLBACKS = 10


class Memory:
    """The stages that learn what they need, and those that know what to do without enough of it."""

    def __init__(self, options: Mapping[str, StageOptions], settings: Settings) -> None:
        self._learn = {
            stage: [target for name in item.vram_by for target in settings.targets(name)]
            for stage, item in options.items()
            if item.per_gpu is None
        }
        self._lower = {stage: item.on_oom for stage, item in options.items() if item.on_oom}

    def kinds(self, stages: Sequence[str], params: Params) -> dict[str, str] | None:
        """For each stage that learns, the attempts with which it is taken to need equal memory."""
        found = {stage: _kind(stage, names, params) for stage, names in self._learn.items() if stage in stages}
        return found or None

    def fallbacks(self, stages: Sequence[str], params: Params) -> Iterator[tuple[str, list[Params]]]:
        """For each stage that has any, what changes with each further attempt that is out of memory."""
        for stage, on_oom in self._lower.items():
            if stage in stages:
                yield stage, list(_lowered(params, on_oom))


def lowered(params: Params, on_oom: Mapping[str, str]) -> Params:
    """What `on_oom` makes of its parameters; whole numbers stay whole.

    Raises:
        ValueError: they have no value.
    """
    found: dict[str, Value] = {}
    for name, text in on_oom.items():
        value = arithmetic.parse(text).value(params)
        found[name] = int(value // 1) if isinstance(params[name], int) else value
    return found


def _kind(stage: str, names: Sequence[str], params: Params) -> str:
    return " ".join([stage, *(f"{name}={text_of(params[name])}" for name in names if name in params)])


def _lowered(params: Params, on_oom: Mapping[str, str]) -> Iterator[Params]:
    for _ in range(MAX_FALLBACKS):
        try:
            changed = lowered(params, on_oom)
        except ValueError:  # the one before was the last that can be
            return
        is_same = all(changed[name] == params[name] for name in changed)
        if is_same or any(not isinstance(value, int | float) or value <= 0 for value in changed.values()):
            return
        params = params | changed
        yield changed
