"""The kinds of values that options have, and how they are read."""

from __future__ import annotations

import math
from fractions import Fraction as Exact
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from train.errors import TrainError

UNITS = ("epoch", "sample")
AVERAGES = ("ema", "poly")


def whole(value: object) -> object:
    """Let 3e3, 3000.0 and "3e3" be integers: programs that write command lines may hold one as a float."""
    try:
        number = float(value) if isinstance(value, str | float) else math.nan
    except ValueError:
        return value
    return int(number) if number.is_integer() else value


def duration(value: object) -> object:
    """Accept a number of steps, or a text such as "3 epochs" or "1e4 samples"."""
    text, _, unit = str(value).strip().partition(" ")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    unit = unit.removesuffix("s")
    if not (0 <= number < math.inf) or (unit not in UNITS if unit else not number.is_integer()):
        raise ValueError("a number of steps is needed, or '<number> epochs', '<number> samples'")
    return f"{number:.12g} {unit}{'s' if number != 1 else ''}" if unit and number else int(number)


def average(name: str) -> str:
    """Accept ema_<decay> and poly_<power>."""
    kind, _, text = name.partition("_")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if kind not in AVERAGES or not (0 <= number < (1 if kind == "ema" else math.inf)):
        raise ValueError("ema_<decay between 0 and 1> or poly_<power of at least 0> is needed")
    return name


Count = Annotated[int, BeforeValidator(whole), Field(ge=1)]
Whole = Annotated[int, BeforeValidator(whole), Field(ge=0, lt=2**63)]
Steps = Annotated[int | str, BeforeValidator(duration)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Average = Annotated[str, AfterValidator(average)]


def in_steps(value: int | str, batch: int = 1, epoch: int | None = None) -> int:
    """Return a duration in steps of `batch` examples; `epoch` examples are an epoch."""
    if isinstance(value, int):
        return value
    number, unit = value.split(" ")
    if epoch is None:
        raise TrainError(f"{value} cannot be counted in steps before the data is read")
    # 1.1 epochs of 1600 examples are 1760; the product of floats is more.
    return math.ceil(Exact(number) * (epoch if unit.startswith("epoch") else 1) / batch)
