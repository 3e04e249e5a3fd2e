"""What a run writes while it lasts: metrics.csv, lines on stdout, TensorBoard events, Weights & Biases."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TextIO

from torch import Tensor

from train.config import Config
from train.errors import TrainError
from train.files import RUN_ID, replacing
from train.usage import Usage
from train.world import World

METRICS = "metrics.csv"


def number(value: float, decimals: int) -> str:
    """Return a value with so many decimals; below 0.1, where these would drop what tells it, with one digit more."""
    is_small = 0 < abs(value) < 0.1
    return f"{value:.{decimals + 1}g}" if is_small else f"{value:.{decimals}f}"


@dataclass(frozen=True)
class Record:
    """One logged step: `step` steps are done, `loss` is the mean over those since the record before; None of no step.

    `metrics` holds what an evaluation found, by column (`val_loss`); it is empty between evaluations. `time_s` counts
    the seconds of training, over all interruptions; `time` is the Unix time.
    """

    step: int
    lr: float
    loss: float | None
    metrics: dict[str, float]
    time_s: float
    time: float = field(default_factory=time.time)

    def line(self, columns: list[str]) -> str:
        """Return the row of metrics.csv."""
        values = (number(self.metrics[name], 6) if name in self.metrics else "" for name in columns)
        loss = "" if self.loss is None else number(self.loss, 6)
        return ",".join((str(self.step), repr(self.lr), loss, *values, f"{self.time_s:.3f}", f"{self.time:.3f}"))


class Logger(Protocol):
    """Somewhere else to log to. A resumed run logs steps again that a killed one has logged beyond its checkpoint."""

    def hyperparameters(self, values: dict[str, Any]) -> None: ...

    def scalars(self, values: dict[str, float], step: int) -> None: ...

    def samples(self, samples: Tensor | str, step: int) -> None: ...

    def end(self, step: int, metrics: dict[str, float], completed: bool) -> None: ...

    def sync(self) -> None:
        """Put everything where a killed program leaves it."""
        ...

    def close(self) -> None: ...


def tag(column: str) -> str:
    """Return the name of a scalar: `loss/val_ema_0.9` for the column `val_ema_0.9_loss`.

    A split `train` is `train_split`: `loss/train` is the mean over the steps.
    """
    split, _, metric = column.rpartition("_")
    return f"{metric}/{'train_split' if split == 'train' else split}"


class Log:
    """Streams the records of one run, from the step where it begins or resumes; only the first process writes."""

    def __init__(self, config: Config, columns: list[str], done_steps: int, last_row_step: int, world: World) -> None:
        self.steps, self.columns, self.usage = int(config.steps), columns, Usage(world.device)
        self.metrics: TextIO | None = None
        self.others: list[Logger] = []
        if world.first:
            if done_steps == config.begin:
                remove_outputs(config.out)
            self.others = [make_logger(name, config, done_steps) for name in config.loggers]
            self.metrics = open_metrics(config.out, columns, last_row_step)
        self.first_step, self.begun_s = done_steps, time.perf_counter()

    def begin(self, hyperparameters: dict[str, Any]) -> None:
        for other in self.others:
            other.hyperparameters(hyperparameters)

    def record(self, record: Record) -> None:
        if self.metrics is None:
            return
        self.metrics.write(f"{record.line(self.columns)}\n")
        steps_per_s = (record.step - self.first_step) / (time.perf_counter() - self.begun_s)
        scalars = {tag(name): value for name, value in record.metrics.items()}
        if record.loss is not None:
            scalars |= {"loss/train": record.loss, "lr": record.lr, "use/steps_per_s": steps_per_s, **self.usage.now()}
        for other in self.others:
            other.scalars(scalars, record.step)
        found = "".join(f" {name} {number(value, 4)}" for name, value in record.metrics.items())
        left = f" left {duration((self.steps - record.step) / steps_per_s)}" if steps_per_s else ""
        loss = "" if record.loss is None else f" loss {number(record.loss, 4)}"
        print(
            f"step {record.step}/{self.steps}{loss}{found} lr {record.lr:.2e} {steps_per_s:.3g} steps/s{left}",
            flush=True,
        )

    def samples(self, samples: Tensor | str, step: int) -> None:
        for other in self.others:
            other.samples(samples, step)

    def end(self, step: int, metrics: dict[str, float], completed: bool) -> None:
        for other in self.others:
            other.end(step, metrics, completed)

    def sync(self) -> None:
        """Put all rows and events where a killed program leaves them: a checkpoint counts on it."""
        if self.metrics is not None:
            os.fsync(self.metrics.fileno())
        for other in self.others:
            other.sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.metrics is not None:
            self.metrics.close()
        for other in self.others:
            other.close()


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest} s"


def header(columns: list[str]) -> str:
    return ",".join(("step", "lr", "loss", *columns, "time_s", "time"))


def open_metrics(directory: Path, columns: list[str], last_step: int) -> TextIO:
    """Open metrics.csv behind the row of `last_step`, the last one that the checkpoint knows (0: none)."""
    path = directory / METRICS
    kept = [header(columns)]
    if last_step:
        # A torn last line is beyond the checkpoint, as those before it are synced.
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        rows = [(int(first), line) for line in lines if (first := line.partition(",")[0]).isdecimal()]
        kept += [line for step, line in rows if step <= last_step]
        if not any(step == last_step for step, _ in rows):
            raise TrainError(f"{path} lacks the row of step {last_step}, which the checkpoint beside it counts on")
    with replacing(path) as file:
        file.write("".join(f"{line}\n" for line in kept).encode())
    return path.open("a", buffering=1)


def remove_outputs(directory: Path) -> None:
    """Remove what an earlier run left in a directory where a run begins anew; files of others stay."""
    from train.events import OWN_EVENTS

    for pattern in (OWN_EVENTS, "eval_*.json", RUN_ID):
        for path in directory.glob(pattern):
            path.unlink()


def check_loggers(config: Config) -> None:
    """Raise where the library of a logger is missing."""
    if "wandb" in config.loggers:
        from train.weights_and_biases import library

        library()


def make_logger(name: str, config: Config, done_steps: int) -> Logger:
    """Make a logger of the config; the library behind it is loaded only then."""
    if name == "wandb":
        from train.weights_and_biases import WandbLogger

        return WandbLogger(config)
    from train.events import EventLogger

    return EventLogger(config.out, done_steps)
