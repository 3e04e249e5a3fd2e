"""The flags of `python -m train`: one dataclass is their source, with types, defaults and help."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from train.errors import EXIT_USAGE, TrainError, nearest
from train.schedules import ALLOWED, DECAY, Array, schedule

NOT_COMPARED = ("out", "threads", "device", "compile", "checkpoint_every")
"""How and where a run is done: a checkpoint may be resumed with other values of these."""
NOT_VARIED = (*NOT_COMPARED, "log_every", "eval_every", "eval_batches")
"""What is no hyperparameter of the result, and so stays out of TensorBoard's table of them."""


def flag(default: Any, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class Config:
    """Every flag of a run; raises TrainError for values that make no run."""

    out: Path = field(metadata={"help": "directory of the results; a run that began there is resumed"})
    data: str = flag("stdlib", "'stdlib', the sources of Python's standard library, or a text file or directory")
    lr: float = flag(1e-2, "peak learning rate")
    schedule: str = flag("wsd", ALLOWED)
    steps: int = flag(3000, "optimizer steps")
    warmup: int = flag(100, "steps of linear warm-up")
    floor: float = flag(0.1, "last learning rate, as a fraction of the peak")
    decay: float = flag(DECAY, "fraction of the steps in which wsd schedules decay")
    seed: int = flag(0, "seed of the weights and of the batches")
    layers: int = flag(1, "transformer blocks")
    width: int = flag(48, "width of the residual stream")
    heads: int = flag(4, "attention heads; must divide the width")
    context: int = flag(32, "bytes that the model sees")
    batch: int = flag(8, "sequences in a step")
    weight_decay: float = flag(0.1, "decoupled weight decay of the matrices")
    beta1: float = flag(0.9, "AdamW's decay of the mean gradient")
    beta2: float = flag(0.95, "AdamW's decay of the mean squared gradient")
    clip: float = flag(1.0, "largest norm of the gradient; 0: no clipping")
    log_every: int = flag(50, "steps between the rows of metrics.csv")
    eval_every: int = flag(500, "steps between evaluations; 0: only after the last step")
    eval_batches: int = flag(128, "batches of the validation split in an evaluation; always the same ones")
    checkpoint_every: int = flag(500, "steps between checkpoints; 0: only at the end or at a signal")
    threads: int = flag(1, "CPU threads; 0: as many as torch likes")
    device: str = flag("auto", "auto (a GPU if there is one), cpu, cuda or cuda:N")
    compile: bool = flag(False, "compile the model")

    def __post_init__(self) -> None:
        for name in ("steps", "layers", "width", "heads", "context", "batch", "log_every", "eval_batches"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1 is needed")
        for name in ("seed", "eval_every", "checkpoint_every", "threads", "clip", "weight_decay"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value >= 0, name, value, "a finite number of at least 0 is needed")
        for name in ("beta1", "beta2"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "0 or more and below 1 is needed")
        _require(math.isfinite(self.lr) and self.lr > 0, "lr", self.lr, "a finite number above 0 is needed")
        _require(self.seed < 2**63, "seed", self.seed, "below 2**63 is needed")
        _require(self.width % self.heads == 0, "width", self.width, f"heads ({self.heads}) must divide it")

    def lrs(self) -> Array:
        """Return the LR of every step: shape [steps]."""
        return schedule(self.schedule, self.steps, self.lr, self.warmup, self.floor, self.decay)

    def compared(self) -> dict[str, Any]:
        """The values that make this run what it is: only a checkpoint with the same ones is resumed."""
        return {name: value for name, value in asdict(self).items() if name not in NOT_COMPARED}

    def varied(self) -> dict[str, Any]:
        """The hyperparameters: what a user would vary and compare."""
        return {name: value for name, value in asdict(self).items() if name not in NOT_VARIED}


def _require(holds: bool, name: str, value: object, needed: str) -> None:
    if not holds:
        raise TrainError(f"{name} is {value}: {needed}")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with the nearest flag for one that does not exist."""

    def error(self, message: str) -> NoReturn:
        fail(self.prog, message)

    def parse_all(self, argv: Sequence[str] | None) -> argparse.Namespace:
        values, unknown = self.parse_known_args(argv)
        if unknown:
            word = unknown[0].partition("=")[0]
            flags = [option for action in self._actions for option in action.option_strings]
            self.error(f"unknown argument {word}{nearest(word, flags)}")
        return values


def fail(program: str, message: object) -> NoReturn:
    """End the program with one line on stderr."""
    print(f"{program}: error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(EXIT_USAGE)


def integer(text: str) -> int:
    """Read 3000, and also 3e3 and 3000.0: programs that write command lines may hold it as a float."""
    try:
        return int(text)
    except ValueError:
        value = float(text)
        if not value.is_integer():
            raise
        return int(value)


def boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def parse(argv: Sequence[str] | None = None) -> Config:
    """Read the command line; a wrong one ends the program."""
    parser = Parser(prog="train", description="Train a byte-level language model.", allow_abbrev=False)
    types = get_type_hints(Config)
    for entry in fields(Config):
        spellings = dict.fromkeys((f"--{entry.name}", f"--{entry.name.replace('_', '-')}"))
        options: dict[str, Any] = {"dest": entry.name, "help": entry.metadata["help"].replace("%", "%%")}
        if entry.name == "out":
            options |= {"type": Path, "required": True}
        elif types[entry.name] is bool:
            options |= {"type": boolean, "nargs": "?", "const": True, "default": entry.default}
        else:
            read = integer if types[entry.name] is int else types[entry.name]
            options |= {"type": read, "default": entry.default}
        if entry.name != "out":
            options["help"] += f" (default: {entry.default})"
        parser.add_argument(*spellings, **options)
    try:
        config = Config(**vars(parser.parse_all(argv)))
        # A wrong schedule must not cost the import of torch.
        config.lrs()
        return config
    except TrainError as error:
        fail(parser.prog, error)
