"""Losses and metrics of classification and regression, for the tasks `image` and `tabular`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def loss_of(kind: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss of outputs [n, k] for classes [n], probabilities [n, k] or, with k = 1, numbers [n].

    `squared` is the squared distance from the one-hot vector of the class, or from the number.
    """
    return each_loss(kind, outputs, targets).mean()


def each_loss(kind: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of every example, [n]."""
    if kind == "cross_entropy":
        return functional.cross_entropy(outputs, targets, reduction="none")
    if targets.ndim == 1 and not targets.is_floating_point():
        targets = functional.one_hot(targets, outputs.shape[1])
    return (outputs - targets.reshape(outputs.shape)).square().sum(dim=1)


def measure_classes(kind: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the summed loss and the number of examples whose class has the largest output, [2]."""
    right = outputs.argmax(dim=1) == targets
    return torch.stack([each_loss(kind, outputs, targets).double().sum(), right.double().sum()])
