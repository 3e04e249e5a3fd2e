"""What a kind of problem brings to the loop: examples, a model, a loss and metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from torch import Tensor, nn

from train.errors import TrainError

Batch: TypeAlias = tuple[Tensor, Tensor]
"""Inputs and targets of some examples, on the CPU."""


class Examples(Protocol):
    """A numbered set of examples. `random` says whether a batch draws random numbers (augmentation)."""

    random: bool

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> Batch:
        """Return the examples of these numbers, [n] int64."""
        ...


class Task(ABC):
    """Made from a config; what `train.trainer` needs to know of a problem."""

    metrics: tuple[str, ...] = ("loss",)
    """What is measured in an evaluation, in names without a _; the first is the loss."""
    sha256: str
    """Digest of the data."""
    training: Examples
    epoch: int
    """Examples in an epoch."""
    replacement = False
    """Whether training examples are drawn independently, rather than each once in an epoch."""

    @abstractmethod
    def evaluation(self, split: str, limit: int) -> Examples:
        """Return the examples of a split for evaluation, or `limit` evenly spaced ones (0: all)."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Make the model, from torch's random numbers."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch, []."""

    @abstractmethod
    def measure(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return each metric, summed over the batch's examples, [len(metrics)]."""

    def factors(self, split: str) -> tuple[float, ...]:
        """Return what each metric's mean over a split is multiplied by, for units that depend on the split."""
        return (1.0,) * len(self.metrics)

    def last_layer(self, model: nn.Module) -> nn.Module | None:
        """Return the layer that ends in the classes, if it is one of its own."""
        return None

    def about(self) -> dict[str, Any]:
        """Return what was found out about the data and the model, for about.json."""
        return {}

    def write_files(self, directory: Path) -> None:
        """Write what else a user of the model needs, if there is anything."""
        return

    def samples(self, model: nn.Module, n: int) -> Tensor | str:
        """Return `n` samples to look at: images [n, 3 or 1, height, width] of bytes, or a text."""
        raise TrainError(f"samples is {n}: this task has none to show")
