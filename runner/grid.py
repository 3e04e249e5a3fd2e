"""Sweeps to trials: the cartesian product of each grid, lazily, with defaults filled in."""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.values import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runner.values import Params, Value


@dataclass(frozen=True)
class Sweep:
    """One grid document: each parameter's choices, and the stages to run (all when None)."""

    choices: Mapping[str, Sequence[Value]]
    title: str | None = None
    stages: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return math.prod(len(values) for values in self.choices.values())

    def combinations(self) -> Iterator[Params]:
        """Every combination, the last parameter varying fastest."""
        for values in itertools.product(*self.choices.values()):
            yield dict(zip(self.choices, values, strict=True))


def resolve(params: Params, default: Mapping[str, Value]) -> Params:
    """The sweep's own parameters first, then the defaults that it leaves unset."""
    return params | {key: value for key, value in default.items() if key not in params}


def trial_id(params: Mapping[str, Value], introduced: Mapping[str, Value]) -> str:
    """The trial's identity: a hash of its typed parameters, whatever their order.

    `introduced` holds the default with which each parameter was first given one in this output directory. A value equal
    to it adds nothing to the identity, so that a new parameter with a default leaves finished trials what they are.
    """
    told = {
        key: canonical(value)
        for key, value in params.items()
        if key not in introduced or canonical(introduced[key]) != canonical(value)
    }
    text = "\n".join(f"{canonical(key)}: {told[key]}" for key in sorted(told))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
