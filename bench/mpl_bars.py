"""Coverage of the error bars of mpl/ on sets of curves with the schedules of the published ones.

    python -m bench.mpl_bars [--sets 40]
    python -m bench.mpl_bars --trained output/mpl_bars    # trains five small models there first: about half an hour

Synthetic sets: the truth is a mixture of two laws with random parameters, and, of the second kind, a part that no law
here has: one that follows the LR at once, and a slow wave. Prints, over sets, the coverage past the divergence, the
share of sets that are covered to between 85% and 95%, and the interval score beside that of the best constant width.
Trained sets: the same for each curve of models that `python -m train` trains, fitted on runs of 2,400 steps at most,
some unseen ones three times as long. Runs that exist are kept.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mpl import Curve, FitResult, fit
from mpl.curve import divergence
from mpl.readers import read_trial
from tests.mpl.curves import PARAMETERS
from train.schedules import Array, schedule

PEAK, WARMUP, EVERY = 3e-4, 2160, 128
FITTED = (("cosine", 24000), ("constant", 24000), ("wsdcon_30", 16000))
UNSEEN = (("constant", 72000), ("cosine", 72000), ("wsd", 24000), ("wsdld", 24000), ("wsdcon_10", 16000))
NOISE, MEMORY = 6e-4, 0.9
"""Of log losses: the standard deviation, and the correlation of one point with the next."""
SHORT, SHORT_WARMUP = 2400, 216
TRAINED_FITTED = (("cosine", SHORT), ("wsdcon_30", 2 * SHORT // 3))
TRAINED_UNSEEN = (
    *(("constant", 3 * SHORT), ("cosine", 3 * SHORT), ("wsd", SHORT), ("wsdld", SHORT)),
    *(("wsdcon_10", 2 * SHORT // 3), ("wsdcon_60", 2 * SHORT // 3)),
)
MODELS = {
    "w16b8": (16, 8, 1e-2),
    "w32b8": (32, 8, 1e-2),
    "w32b32": (32, 32, 1e-2),
    "w64b8": (64, 8, 5e-3),
    "w32b8lo": (32, 8, 3e-3),
}
"""Width, batch and peak LR."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=40)
    parser.add_argument("--trained", type=Path)
    arguments = parser.parse_args()
    if arguments.trained:
        for model in MODELS:
            print_trained(arguments.trained / model, *trained_set(arguments.trained / model, *MODELS[model]))
        return
    for kind, size in (("mixed laws", 0.0), ("with a part of no law", 1.0)):
        found = np.array([synthetic_set(np.random.default_rng([seed, 7]), size) for seed in range(arguments.sets)])
        share, score, constant = found.T
        within = np.mean((share >= 0.85) & (share <= 0.95))
        print(
            f"{kind}: coverage {share.mean():.3f}, median {np.median(share):.3f}, "
            f"within 85 to 95%: {within:.2f} of sets; "
            f"interval score {score.mean():.5f}, best constant {constant.mean():.5f}"
        )


def synthetic_set(rng: np.random.Generator, size: float) -> tuple[float, float, float]:
    """Return the share covered, the interval score, and that of the best constant width."""
    truth = Truth(rng, size)
    fitted = [truth.curve(name, steps) for name, steps in FITTED]
    errors, halves = misses(fit(fitted), fitted, [truth.curve(name, steps) for name, steps in UNSEEN])
    return judge(np.concatenate(errors), np.concatenate(halves))


def past(curve: Curve, others: list[Curve]) -> Curve:
    """Return what follows the divergence of a curve from the others."""
    return curve.part(np.flatnonzero(curve.step >= divergence(curve, others)))


def misses(result: FitResult, fitted: list[Curve], unseen: Sequence[Curve]) -> tuple[list[Array], list[Array]]:
    """Return, of each unseen curve past its divergence, the errors of the fit and the half-widths of its bars."""
    errors, halves = [], []
    for late in (past(curve, fitted) for curve in unseen):
        predicted = result.predict(late.lrs, late.step)
        errors.append(np.abs(late.loss - predicted.loss))
        halves.append(predicted.upper - predicted.loss)
    return errors, halves


def judge(error: Array, half: Array) -> tuple[float, float, float]:
    """Return the share covered, the interval score, and that of the best constant width."""

    def score(width: Array | float) -> float:
        return float(np.mean(2 * width + 20 * np.maximum(error - width, 0)))

    constant = min(score(width) for width in np.geomspace(error.min() + 1e-6, error.max(), 200))
    return float((error <= half).mean()), score(half), constant


def print_trained(directory: Path, fitted: list[Curve], unseen: list[Curve]) -> None:
    errors, halves = misses(fit(fitted), fitted, unseen)
    share, score, constant = judge(np.concatenate(errors), np.concatenate(halves))
    print(f"{directory.name}: coverage {share:.3f}, interval score {score:.3f}, best constant {constant:.3f}")
    for curve, error, half in zip(unseen, errors, halves, strict=True):
        mean, width = error.mean() / curve.loss.mean(), half.mean() / curve.loss.mean()
        print(f"    {curve.name:16} {(error <= half).mean():.2f}, error {mean:.1%}, half-width {width:.1%}")


def trained_set(directory: Path, width: int, batch: int, peak: float) -> tuple[list[Curve], list[Curve]]:
    """Train what is not there yet; return the fitted curves and the unseen ones."""
    fitted = [trained(directory, *one, width, batch, peak) for one in TRAINED_FITTED]
    unseen = [trained(directory, *one, width, batch, peak) for one in TRAINED_UNSEEN]
    long = unseen[0]  # of a constant LR: its beginning is the run of the usual length
    early = replace(long.part(np.flatnonzero(long.step < SHORT)), name="constant", lrs=long.lrs[:SHORT])
    return [*fitted, early], unseen


def trained(directory: Path, name: str, steps: int, width: int, batch: int, peak: float) -> Curve:
    out = directory / f"{name}_{steps}"
    if not (out / "metrics.csv").exists():
        directory.mkdir(parents=True, exist_ok=True)
        np.save(directory / f"{name}_{steps}.npy", schedule(name, steps, peak, SHORT_WARMUP, decay=1 / 6))
        flags = {"schedule": directory / f"{name}_{steps}.npy", "lr": peak, "steps": steps, "warmup": 0, "out": out}
        flags |= {"width": width, "layers": 1, "batch": batch, "eval_every": 24, "eval_examples": 1024}
        flags |= {"data": "stdlib", "threads": 1, "device": "cpu", "checkpoint_every": 0}
        words = [str(word) for key, value in flags.items() for word in (f"--{key}", value)]
        subprocess.run([sys.executable, "-m", "train", *words], check=True, stdout=subprocess.DEVNULL)
    return replace(read_trial(out, "val_loss"), name=f"{name}_{steps}")


class Truth:
    """Two laws with random parameters, their mixture, and what no law has, of the given size."""

    def __init__(self, rng: np.random.Generator, size: float) -> None:
        self.rng, self.share = rng, rng.uniform()
        level, scale, power, gain, *shape = PARAMETERS[25]
        shape = [value * float(np.exp(0.3 * rng.normal())) for value in shape]
        momentum = (level, scale, power, gain * rng.uniform(0.8, 1.1), 10 ** rng.uniform(-3.3, -2.3))
        self.laws = (
            FitResult.given("mpl", (level, scale, power, gain, *shape)),
            FitResult.given("momentum", momentum),
        )
        self.at_once, self.bend = size * 1.2e-3 * rng.normal(), rng.uniform(0.3, 1.5)
        self.wave = (size * 9e-4 * rng.normal(), rng.uniform(1, 3), rng.uniform(0, 2 * np.pi))

    def curve(self, name: str, steps: int) -> Curve:
        lrs = schedule(name, steps, PEAK, WARMUP, decay=4000 / 24000, convention="linspace")
        at = np.arange(WARMUP, steps, EVERY)
        one, two = (law.predict(lrs, at).loss for law in self.laws)
        noise = np.empty(len(at))
        noise[0] = self.rng.normal()
        for i in range(1, len(at)):
            noise[i] = MEMORY * noise[i - 1] + np.sqrt(1 - MEMORY**2) * self.rng.normal()
        height, pace, phase = self.wave
        more = self.at_once * (lrs[at] / PEAK) ** self.bend + height * np.sin(pace * np.log(np.cumsum(lrs)[at]) + phase)
        return Curve.of(
            f"{name}_{steps}", at, (self.share * one + (1 - self.share) * two) * np.exp(NOISE * noise + more), lrs
        )


if __name__ == "__main__":
    main()
