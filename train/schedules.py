"""Learning-rate schedules: pure functions from a step to its LR. numpy only.

`schedule(name, steps, peak, warmup, floor)` gives the LR of every step of a run. Step 0 is the first one. In the
formulas T is `steps`, W is `warmup`, P is `peak`, F is `floor` (the last LR as a fraction of the peak) and
p(s) = (s + 1 - start) / (T - start), cut to [0, 1], is the progress of a decay that begins at step `start`:
0 just before it, 1 at the last step, so that the last step runs at P F exactly.

A warm-up multiplies every schedule except one that is read from a file: (s + 1) / W for s < W, or, of the kind
`constant`, 0.1. The convention `linspace`, that of the public data of Luo et al. (arXiv:2503.12811), counts from 0
instead: the warm-up is linspace(0, P, W) and p(s) = (s - start) / (T - start), which would be 1 at step T.

A `Schedule` is a function from steps to LRs. `named`, `ramp`, `piecewise_linear` make them and `join` puts them
together.

>>> schedule("linear", steps=4, peak=1.0, warmup=0, floor=0.0).tolist()
[0.75, 0.5, 0.25, 0.0]
>>> schedule("wsd", steps=10, peak=1.0, warmup=2, floor=0.01)[[0, 1, 7, 8, 9]].round(4).tolist()
[0.5, 1.0, 1.0, 0.1, 0.01]
>>> join([ramp(0, 2, 0.0, 1.0), named("linear", 4, 1.0, floor=0.0)], [2])(np.arange(6.0)).tolist()
[0.0, 0.5, 0.75, 0.5, 0.25, 0.0]
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from train.errors import TrainError, nearest
from train.pieces import FILES, from_file
from train.pieces import Array as Array
from train.pieces import Schedule as Schedule
from train.pieces import join as join
from train.pieces import piecewise_linear as piecewise_linear
from train.pieces import ramp as ramp
from train.pieces import read_knots as read_knots

DECAY = 0.2
"""The last part of a run in which the warmup-stable-decay schedules decay, as a fraction of all its steps."""
CONSTANT_WARMUP = 0.1
"""The LR of a constant warm-up in parts of the schedule's: He et al., 2016 (arXiv:1512.03385, section 4.2)."""
WARMUP_KINDS = ("linear", "constant")
CONVENTIONS = ("last", "linspace")


@dataclass(frozen=True)
class Shape:
    """What a schedule is made for; `steps` and `warmup` count steps, `floor` and `decay` are fractions."""

    steps: int
    peak: float
    warmup: int
    floor: float
    decay: float = DECAY
    warmup_kind: str = "linear"
    convention: str = "last"

    @property
    def decay_start(self) -> int:
        """The first step of the decay stage; a long warm-up shortens the decay."""
        return max(self.warmup, self.steps - round(self.decay * self.steps))

    def done(self, step: Array) -> Array:
        """The steps that count as done at `step`: itself included, or, by the convention linspace, not."""
        return step + (self.convention == "last")

    def progress(self, step: Array, start: int) -> Array:
        """p(s), cut to [0, 1]."""
        return np.clip((self.done(step) - start) / max(self.steps - start, 1), 0.0, 1.0)


def constant(step: Array, shape: Shape) -> Array:
    """P; the floor is not used."""
    return np.full_like(step, shape.peak)


def linear(step: Array, shape: Shape) -> Array:
    """P (1 - (1 - F) p), decaying from the end of the warm-up."""
    return shape.peak * (1 - (1 - shape.floor) * shape.progress(step, shape.warmup))


def polynomial(step: Array, shape: Shape, power: float) -> Array:
    """P (F + (1 - F) (1 - p)^power), decaying from the end of the warm-up."""
    return shape.peak * (shape.floor + (1 - shape.floor) * (1 - shape.progress(step, shape.warmup)) ** power)


def cosine(step: Array, shape: Shape) -> Array:
    """P (F + (1 - F) (1 + cos(pi p)) / 2), decaying from the end of the warm-up.

    Loshchilov and Hutter, SGDR, 2017 (arXiv:1608.03983), without restarts.
    """
    half_wave = (1 + np.cos(np.pi * shape.progress(step, shape.warmup))) / 2
    return shape.peak * (shape.floor + (1 - shape.floor) * half_wave)


def cosine_restarts(step: Array, shape: Shape, cycles: float) -> Array:
    """The cosine decay `cycles` times over, each from P to P F and of equal length: SGDR with its warm restarts."""
    edges = np.round(np.linspace(shape.warmup, shape.steps, int(cycles) + 1))
    cycle = np.clip(np.searchsorted(edges, step, side="right") - 1, 0, int(cycles) - 1)
    length = np.maximum(edges[cycle + 1] - edges[cycle], 1)
    progress = np.clip((shape.done(step) - edges[cycle]) / length, 0.0, 1.0)
    return shape.peak * (shape.floor + (1 - shape.floor) * (1 + np.cos(np.pi * progress)) / 2)


def wsd(step: Array, shape: Shape) -> Array:
    """P F^p in the decay stage, P before it: warmup-stable-decay with exponential decay.

    Hu et al., MiniCPM, 2024 (arXiv:2404.06395).
    """
    return shape.peak * shape.floor ** shape.progress(step, shape.decay_start)


def wsd_linear(step: Array, shape: Shape) -> Array:
    """P (1 - (1 - F) p) in the decay stage, P before it.

    Hägele et al., 2024 (arXiv:2405.18392).
    """
    return shape.peak * (1 - (1 - shape.floor) * shape.progress(step, shape.decay_start))


def wsd_sqrt(step: Array, shape: Shape) -> Array:
    """P (1 - (1 - F) sqrt(p)) in the decay stage, P before it: the "1-sqrt" decay.

    Hägele et al., 2024 (arXiv:2405.18392).
    """
    return shape.peak * (1 - (1 - shape.floor) * np.sqrt(shape.progress(step, shape.decay_start)))


def step_decay(step: Array, shape: Shape) -> Array:
    """P F^(i / (n - 1)) on the i-th of n = round(1 / decay) stairs of equal length: at the default decay, five."""
    stairs = max(round(1 / shape.decay), 1) if shape.decay else shape.steps
    return shape.peak * shape.floor ** (np.floor(step * stairs / shape.steps) / max(stairs - 1, 1))


def multistep(step: Array, shape: Shape) -> Array:
    """P for the first 80% of the steps, P sqrt(F) for the next 10%, P F for the last 10%.

    Bi et al., DeepSeek LLM, 2024 (arXiv:2401.02954): with F = 0.1 their 100%, 31.6%, 10%.
    """
    first, second = round(0.8 * shape.steps), round(0.9 * shape.steps)
    drops = (step >= first) * 0.5 + (step >= second) * 0.5
    return shape.peak * shape.floor**drops


def inverse_sqrt(step: Array, shape: Shape) -> Array:
    """P sqrt(W / max(s + 1, W)) with W at least 1; the floor is not used.

    Vaswani et al., 2017 (arXiv:1706.03762).
    """
    warmup = max(shape.warmup, 1)
    return shape.peak * np.sqrt(warmup / np.maximum(shape.done(step), warmup))


def two_stage(step: Array, shape: Shape, second: float) -> Array:
    """P for the first half of the steps, `second` P for the rest (above 1: percent); the floor is not used.

    The drop shows how the loss answers to one change of the LR: the two-stage curves of Luo et al., A Multi-Power
    Law for Loss Curve Prediction, 2025 (arXiv:2503.12811).
    """
    fraction = second / 100 if second >= 1 else second
    return np.where(step < max(shape.warmup, shape.steps // 2), shape.peak, shape.peak * fraction)


SCHEDULES: dict[str, Callable[[Array, Shape], Array]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "wsd": wsd,
    "wsd_linear": wsd_linear,
    "wsdld": wsd_linear,
    "wsd_sqrt": wsd_sqrt,
    "step": step_decay,
    "multistep": multistep,
    "inverse_sqrt": inverse_sqrt,
}


@dataclass(frozen=True)
class Family:
    """Schedules whose name ends in a number: `prefix` + a number from `least` to `most`."""

    formula: Callable[[Array, Shape, float], Array]
    least: float
    most: float
    number: str
    """What the number is, with its range, in words."""
    whole: bool = False

    def value(self, name: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not self.least <= value <= self.most or (self.whole and not value.is_integer()):
            raise TrainError(f"schedule {name!r}: {text!r} is not {self.number}")
        return value


FAMILIES = {
    "wsdcon_": Family(two_stage, 0, 100, "a percentage (1 to 100) or a fraction (below 1)"),
    "polynomial_": Family(polynomial, 0.01, 100, "a power (0.01 to 100)"),
    "cosine_restarts_": Family(cosine_restarts, 1, 10**6, "a number of cycles (1 or more)", whole=True),
}
POSITIVE_FLOOR = ("wsd", "step", "multistep")
ALLOWED = (
    f"{', '.join(SCHEDULES)}, wsdcon_<percent of the peak>, polynomial_<power>, cosine_restarts_<cycles>, "
    "or a path ending in .npy (the LR of every step), .csv or .json (knots of a piecewise linear schedule)"
)


def schedule(
    name: str,
    steps: int,
    peak: float,
    warmup: int = 0,
    floor: float = 0.1,
    decay: float = DECAY,
    warmup_kind: str = "linear",
    convention: str = "last",
) -> Array:
    """Return the LR of every step: shape [steps], float64; `named` says what the arguments mean."""
    return named(name, steps, peak, warmup, floor, decay, warmup_kind, convention)(np.arange(steps, dtype=np.float64))


def named(
    name: str,
    steps: int,
    peak: float,
    warmup: int = 0,
    floor: float = 0.1,
    decay: float = DECAY,
    warmup_kind: str = "linear",
    convention: str = "last",
) -> Schedule:
    """Return the schedule of a name, with its warm-up, for steps from 0 to `steps` - 1.

    `name` is a key of SCHEDULES; `wsdcon_<x>`, two constant stages, the second at x percent of the peak (`wsdcon_9`:
    9%) or, when x is below 1, at that fraction of it (`wsdcon_0.09`); `polynomial_<power>`;
    `cosine_restarts_<cycles>`; or the path of a file, to which peak, warm-up and floor do not apply: `.npy` with the
    LR of every step, or the knots of a piecewise linear schedule from step 0 to the last one, as `.csv` (`step,lr`)
    or `.json` ({"knots": [[step, lr], ...]}). Raises TrainError for what makes no schedule.
    """
    is_file = name.endswith(FILES)
    shape = Shape(steps, peak, 0 if is_file else warmup, floor, decay, warmup_kind, convention)
    _check(shape)
    if is_file:
        return from_file(Path(name), steps)
    formula = _formula(name, shape)
    return lambda step: formula(step) * _warm_up(step, shape)


def _warm_up(step: Array, shape: Shape) -> Array:
    """The factor of the warm-up: 1 behind it."""
    if shape.warmup_kind == "constant":
        return np.where(step < shape.warmup, CONSTANT_WARMUP, 1.0)
    if shape.convention == "linspace":
        return np.where(step < shape.warmup, step / max(shape.warmup - 1, 1), 1.0)
    return np.minimum(1.0, (step + 1) / max(shape.warmup, 1))


def _formula(name: str, shape: Shape) -> Schedule:
    for prefix, family in FAMILIES.items():
        if name.startswith(prefix):
            number = family.value(name, name.removeprefix(prefix))
            return lambda step: family.formula(step, shape, number)
    if name not in SCHEDULES:
        raise TrainError(f"unknown schedule {name!r}{nearest(name, SCHEDULES) or ':'} allowed: {ALLOWED}")
    if name in POSITIVE_FLOOR and shape.floor == 0:
        raise TrainError(f"schedule {name} needs a floor above 0: its decay is geometric")
    return lambda step: SCHEDULES[name](step, shape)


def _check(shape: Shape) -> None:
    if shape.steps < 1:
        raise TrainError(f"steps is {shape.steps}: at least 1 is needed")
    if not (math.isfinite(shape.peak) and shape.peak >= 0):
        raise TrainError(f"the peak LR is {shape.peak}: a finite number of at least 0 is needed")
    if not 0 <= shape.warmup <= shape.steps:
        raise TrainError(f"warmup is {shape.warmup}: it must lie between 0 and steps ({shape.steps})")
    if not 0 <= shape.floor <= 1:
        raise TrainError(f"floor is {shape.floor}: it is a fraction of the peak LR, between 0 and 1")
    if not 0 <= shape.decay <= 1:
        raise TrainError(f"decay is {shape.decay}: it is a fraction of the steps, between 0 and 1")
    for key, allowed in (("warmup_kind", WARMUP_KINDS), ("convention", CONVENTIONS)):
        if (word := getattr(shape, key)) not in allowed:
            raise TrainError(f"{key} is {word!r}: allowed are {', '.join(allowed)}")
