"""Optimizers of torch without its compiler, which takes as long to import as torch itself."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import torch


def eager(make: Callable[[], torch.optim.Optimizer]) -> torch.optim.Optimizer:
    """Return the optimizer that `make` makes, for a run that compiles nothing.

    Torch's optimizers import torch._dynamo, in most of their methods and at each step, only to tell it to leave them
    alone. Where a later torch does so in another way, this has no effect.
    """
    for member in vars(torch.optim.Optimizer).values():
        method = getattr(member, "__wrapped__", None)
        if method is not None:
            method.__dynamo_disable = method  # where torch._compile keeps what the compiler made of it
    optimizer = make()
    step = torch.no_grad()(inspect.unwrap(type(optimizer).step))
    optimizer.step = functools.partial(step, optimizer)  # type: ignore[method-assign]
    return optimizer
