"""Measuring a model on the splits of an evaluation, and what follows from the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from train.averages import Average
from train.config import Config
from train.errors import TrainError, nearest
from train.task import Examples, Task
from train.world import World


def columns(splits: Sequence[str], averages: Sequence[str], metrics: Sequence[str], averages_only: bool) -> list[str]:
    """Return the names of what an evaluation finds: val_loss, val_ema_0.99_loss, …"""
    weights = [*([] if averages_only else [""]), *(f"{name}_" for name in averages)]
    return [f"{split}_{which}{metric}" for split in splits for which in weights for metric in metrics]


@torch.no_grad()
def measure(
    model: nn.Module,
    task: Task,
    examples: Examples,
    rows: int,
    world: World,
    arithmetic: AbstractContextManager[Any],
) -> dict[str, float]:
    """Return each metric's mean over the examples, `rows` at a time in each process."""
    total = torch.zeros(len(task.metrics), dtype=torch.float64, device=world.device)
    was_training = model.training
    model.eval()
    # The running statistics of other processes are those of their own batches.
    world.share(model.buffers())
    for first in range(world.rank * rows, len(examples), world.size * rows):
        inputs, targets = examples.batch(torch.arange(first, min(first + rows, len(examples))))
        with arithmetic:
            outputs: Tensor = model(inputs.to(world.device, non_blocking=True))
        total += task.measure(outputs.float(), targets.to(world.device, non_blocking=True)).double()
    model.train(was_training)
    means = (world.sum(total) / len(examples)).tolist()
    return dict(zip(task.metrics, means, strict=True))


class Evaluation:
    """The splits of a config, measured with the last weights and with the averages."""

    def __init__(self, config: Config, task: Task, world: World) -> None:
        self.config, self.task, self.world = config, task, world
        self.examples = {
            name: task.evaluation(split, config.eval_examples) for name, split in config.eval_splits.items()
        }
        self.factors = {name: task.factors(split) for name, split in config.eval_splits.items()}
        self.columns = columns([*self.examples], config.averages, task.metrics, config.averages_only)

    def __call__(
        self, model: nn.Module, averages: Sequence[Average], arithmetic: AbstractContextManager[Any]
    ) -> dict[str, float]:
        """Return the value of every column."""
        found = {} if self.config.averages_only else self._measured(model, "", arithmetic)
        for average in averages:
            with average.swapped_in():
                found |= self._measured(model, f"{average.name}_", arithmetic)
        return {column: found[column] for column in self.columns}

    def _measured(self, model: nn.Module, which: str, arithmetic: AbstractContextManager[Any]) -> dict[str, float]:
        return {
            f"{split}_{which}{metric}": value * factor
            for split, examples in self.examples.items()
            for (metric, value), factor in zip(
                measure(model, self.task, examples, self.config.eval_batch, self.world, arithmetic).items(),
                self.factors[split],
                strict=True,
            )
        }


def with_monitor(config: Config, allowed: Sequence[str]) -> Config:
    """Return the config with the metric that decides, and in which direction."""
    monitor = config.monitor or allowed[0]
    if monitor not in allowed:
        hint = nearest(monitor, allowed)
        raise TrainError(f"monitor is {monitor}{hint}; an evaluation finds {', '.join(allowed)}")
    less = monitor.rpartition("_")[2] in ("loss", "error", "bpb")
    return config.model_copy(
        update={"monitor": monitor, "monitor_mode": config.monitor_mode or ("min" if less else "max")}
    )


class Best:
    """The best value of the monitored metric so far, and how many evaluations ago it was."""

    def __init__(self, mode: str | None) -> None:
        self.sign = -1.0 if mode == "max" else 1.0
        self.value = math.nan
        self.step = 0
        self.since = 0

    def update(self, value: float, step: int) -> bool:
        """Take the value of an evaluation; return whether it is the best one."""
        better = math.isnan(self.value) or self.sign * value < self.sign * self.value
        if better:
            self.value, self.step, self.since = value, step, 0
        else:
            self.since += 1
        return better

    def state(self) -> dict[str, float | int]:
        return {"value": self.value, "step": self.step, "since": self.since}

    def restore(self, state: dict[str, Any]) -> None:
        self.value, self.step, self.since = state["value"], state["step"], state["since"]
