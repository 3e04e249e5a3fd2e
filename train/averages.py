"""Averages of a model's weights and of its other floating-point state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def weight_of(name: str) -> Callable[[int], float]:
    """Return the weight of the newest weights in an average that holds them for the t-th time, t from 1.

    `ema_<d>`: 1 - d, so that the decay d weighs the old average. `poly_<p>`: (p + 1) / (t + p), polynomial-decay
    averaging of Shamir and Zhang, 2013 (arXiv:1212.1824), the plain mean at p = 0. An average is at first a copy.
    """
    kind, _, text = name.partition("_")
    number = float(text)
    if kind == "ema":
        return lambda t: 1.0 if t == 1 else 1.0 - number
    return lambda t: (number + 1) / (t + number)


class Average:
    """One average, updated after each step without a look at its values."""

    def __init__(self, name: str, model: nn.Module) -> None:
        self.name, self.weight = name, weight_of(name)
        self.updates = 0
        self.source = [value for value in model.state_dict(keep_vars=True).values() if value.is_floating_point()]
        self.source = [value.detach() for value in self.source]
        self.tensors = [value.clone() for value in self.source]

    def begin(self) -> None:
        """Be a copy of the weights, as which an average begins."""
        torch._foreach_copy_(self.tensors, self.source)

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        torch._foreach_lerp_(self.tensors, self.source, self.weight(self.updates))

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Let the model have the average's values for a while; its own ones come back to the last bit."""
        own = [value.clone() for value in self.source]
        torch._foreach_copy_(self.source, self.tensors)
        try:
            yield
        finally:
            torch._foreach_copy_(self.source, own)

    def state(self) -> dict[str, Any]:
        return {"name": self.name, "updates": self.updates, "tensors": self.tensors}

    def restore(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        for own, saved in zip(self.tensors, state["tensors"], strict=True):
            own.copy_(saved)
