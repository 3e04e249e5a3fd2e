"""Coverage of the error bars of mpl/ on synthetic sets of curves, with the schedules of the published ones.

    python -m bench.mpl_bars [--sets 40]

The truth of a set is a mixture of two laws with random parameters, and, of the second kind, a part that no law here
has: one that follows the LR at once, and a slow wave. Prints, over sets, the coverage past the divergence, the share of
sets that are covered to between 85% and 95%, and the interval score beside that of the best constant width.
"""

from __future__ import annotations

import argparse

import numpy as np

from mpl import Curve, FitResult, fit
from mpl.curve import divergence
from tests.mpl.curves import PARAMETERS
from train.schedules import Array, schedule

PEAK, WARMUP, EVERY = 3e-4, 2160, 128
FITTED = (("cosine", 24000), ("constant", 24000), ("wsdcon_30", 16000))
UNSEEN = (("constant", 72000), ("cosine", 72000), ("wsd", 24000), ("wsdld", 24000), ("wsdcon_10", 16000))
NOISE, MEMORY = 6e-4, 0.9
"""Of log losses: the standard deviation, and the correlation of one point with the next."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=40)
    sets = parser.parse_args().sets
    for kind, size in (("mixed laws", 0.0), ("with a part of no law", 1.0)):
        found = np.array([one_set(np.random.default_rng([seed, 7]), size) for seed in range(sets)])
        share, score, constant = found.T
        within = np.mean((share >= 0.85) & (share <= 0.95))
        print(
            f"{kind}: coverage {share.mean():.3f}, median {np.median(share):.3f}, "
            f"within 85 to 95%: {within:.2f} of sets; "
            f"interval score {score.mean():.5f}, best constant {constant.mean():.5f}"
        )


def one_set(rng: np.random.Generator, size: float) -> tuple[float, float, float]:
    """Return the share covered, the interval score, and that of the best constant width."""
    truth = Truth(rng, size)
    fitted = [truth.curve(name, steps) for name, steps in FITTED]
    result = fit(fitted)
    errors, halves = [], []
    for curve in (truth.curve(name, steps) for name, steps in UNSEEN):
        late = curve.part(np.flatnonzero(curve.step >= divergence(curve, fitted)))
        predicted = result.predict(late.lrs, late.step)
        errors.append(np.abs(late.loss - predicted.loss))
        halves.append(predicted.upper - predicted.loss)
    error, half = np.concatenate(errors), np.concatenate(halves)

    def score(width: Array | float) -> float:
        return float(np.mean(2 * width + 20 * np.maximum(error - width, 0)))

    constant = min(score(width) for width in np.geomspace(error.min() + 1e-6, error.max(), 100))
    return float((error <= half).mean()), score(half), constant


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
        if name.startswith("wsdcon"):
            lrs[8000:] = PEAK * float(name.partition("_")[2]) / 100
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
