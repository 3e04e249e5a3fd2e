"""Learning-rate schedules: pure functions from a step to its LR. numpy only.

`schedule(name, steps, peak, warmup, floor)` gives the LR of every step of a run. Step 0 is the first one. In the
formulas T is `steps`, W is `warmup`, P is `peak`, F is `floor` (the last LR as a fraction of the peak) and
p(s) = (s + 1 - start) / (T - start), cut to [0, 1], is the progress of a decay that begins at step `start`:
0 just before it, 1 at the last step, so that the last step runs at P F exactly.

A linear warm-up, (s + 1) / W for s < W, multiplies every schedule except one that is read from a file.

>>> schedule("linear", steps=4, peak=1.0, warmup=0, floor=0.0).tolist()
[0.75, 0.5, 0.25, 0.0]
>>> schedule("wsd", steps=10, peak=1.0, warmup=2, floor=0.01)[[0, 1, 7, 8, 9]].round(4).tolist()
[0.5, 1.0, 1.0, 0.1, 0.01]
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from train.errors import TrainError, nearest

Array: TypeAlias = NDArray[np.float64]

DECAY = 0.2
"""The last part of a run in which the warmup-stable-decay schedules decay, as a fraction of all its steps."""


@dataclass(frozen=True)
class Shape:
    """What a schedule is made for; `steps` and `warmup` count steps, `floor` and `decay` are fractions."""

    steps: int
    peak: float
    warmup: int
    floor: float
    decay: float = DECAY

    @property
    def decay_start(self) -> int:
        """The first step of the decay stage; a long warm-up shortens the decay."""
        return max(self.warmup, self.steps - round(self.decay * self.steps))


def progress(step: Array, start: int, steps: int) -> Array:
    """p(s) = (s + 1 - start) / (steps - start), cut to [0, 1]."""
    return np.clip((step + 1 - start) / max(steps - start, 1), 0.0, 1.0)


def constant(step: Array, shape: Shape) -> Array:
    """P; the floor is not used."""
    return np.full_like(step, shape.peak)


def linear(step: Array, shape: Shape) -> Array:
    """P (1 - (1 - F) p), decaying from the end of the warm-up."""
    return shape.peak * (1 - (1 - shape.floor) * progress(step, shape.warmup, shape.steps))


def cosine(step: Array, shape: Shape) -> Array:
    """P (F + (1 - F) (1 + cos(pi p)) / 2), decaying from the end of the warm-up.

    Loshchilov and Hutter, SGDR, 2017 (arXiv:1608.03983), without restarts.
    """
    half_wave = (1 + np.cos(np.pi * progress(step, shape.warmup, shape.steps))) / 2
    return shape.peak * (shape.floor + (1 - shape.floor) * half_wave)


def wsd(step: Array, shape: Shape) -> Array:
    """P F^p in the decay stage, P before it: warmup-stable-decay with exponential decay.

    Hu et al., MiniCPM, 2024 (arXiv:2404.06395).
    """
    return shape.peak * shape.floor ** progress(step, shape.decay_start, shape.steps)


def wsd_linear(step: Array, shape: Shape) -> Array:
    """P (1 - (1 - F) p) in the decay stage, P before it.

    Hägele et al., 2024 (arXiv:2405.18392).
    """
    return shape.peak * (1 - (1 - shape.floor) * progress(step, shape.decay_start, shape.steps))


def wsd_sqrt(step: Array, shape: Shape) -> Array:
    """P (1 - (1 - F) sqrt(p)) in the decay stage, P before it: the "1-sqrt" decay.

    Hägele et al., 2024 (arXiv:2405.18392).
    """
    return shape.peak * (1 - (1 - shape.floor) * np.sqrt(progress(step, shape.decay_start, shape.steps)))


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
    return shape.peak * np.sqrt(warmup / np.maximum(step + 1, warmup))


def two_stage(step: Array, shape: Shape, second: float) -> Array:
    """P for the first half of the steps, `second` P for the rest; the floor is not used.

    The drop shows how the loss answers to one change of the LR: the two-stage curves of Luo et al., A Multi-Power
    Law for Loss Curve Prediction, 2025 (arXiv:2503.12811).
    """
    return np.where(step < max(shape.warmup, shape.steps // 2), shape.peak, shape.peak * second)


SCHEDULES: dict[str, Callable[[Array, Shape], Array]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "wsd": wsd,
    "wsd_linear": wsd_linear,
    "wsdld": wsd_linear,
    "wsd_sqrt": wsd_sqrt,
    "multistep": multistep,
    "inverse_sqrt": inverse_sqrt,
}
POSITIVE_FLOOR = ("wsd", "multistep")
ALLOWED = f"{', '.join(SCHEDULES)}, wsdcon_<percent of the peak>, or a path ending in .npy"


def schedule(name: str, steps: int, peak: float, warmup: int = 0, floor: float = 0.1, decay: float = DECAY) -> Array:
    """Return the LR of every step: shape [steps], float64.

    `name` is a key of SCHEDULES; `wsdcon_<x>`, two constant stages, the second at x percent of the peak (`wsdcon_9`:
    9%) or, when x is below 1, at that fraction of it (`wsdcon_0.09`); or the path of a .npy file with the LR of every
    step, to which peak, warm-up and floor do not apply. Raises TrainError for what makes no schedule.
    """
    shape = Shape(steps, peak, warmup, floor, decay)
    _check(shape)
    if name.endswith(".npy"):
        return _from_file(Path(name), steps)
    step = np.arange(steps, dtype=np.float64)
    if name.startswith("wsdcon_"):
        lrs = two_stage(step, shape, _second_stage(name))
    elif name not in SCHEDULES:
        raise TrainError(f"unknown schedule {name!r}{nearest(name, SCHEDULES) or ':'} allowed: {ALLOWED}")
    elif name in POSITIVE_FLOOR and floor == 0:
        raise TrainError(f"schedule {name} needs a floor above 0: its decay is geometric")
    else:
        lrs = SCHEDULES[name](step, shape)
    return lrs * np.minimum(1.0, (step + 1) / max(warmup, 1))


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


def _second_stage(name: str) -> float:
    """Return the second stage of `wsdcon_<x>` as a fraction of the peak."""
    text = name.removeprefix("wsdcon_")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise TrainError(f"schedule {name!r}: {text!r} is not a percentage (1 to 100) or a fraction (below 1)")
    return value / 100 if value >= 1 else value


def _from_file(path: Path, steps: int) -> Array:
    try:
        lrs = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TrainError(f"cannot read the schedule {path}: {error}") from error
    if not isinstance(lrs, np.ndarray) or lrs.dtype.kind not in "fiu" or lrs.shape != (steps,):
        found = f"{lrs.dtype} {lrs.shape}" if isinstance(lrs, np.ndarray) else type(lrs).__name__
        raise TrainError(f"the schedule {path} holds {found}: needed is one LR a step, numbers of shape ({steps},)")
    if not (np.isfinite(lrs).all() and (lrs >= 0).all()):
        raise TrainError(f"the schedule {path} holds an LR that is negative or not finite")
    return lrs.astype(np.float64)
