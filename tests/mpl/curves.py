"""Curves for the tests: synthetic ones, and the published ones where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mpl import Curve
from mpl.laws import law_of, to_logs
from mpl.readers import read_csv
from mpl.terms import compress
from train.schedules import Array, schedule

PUBLISHED = Path(os.environ.get("MPL_CURVES", Path(__file__).resolve().parents[3] / "shared" / "mpl"))
PARAMETERS = {
    25: (3.04045406, 0.52468604, 0.50786857, 363.78751622, 2.06560812, 0.58279013, 0.64142257),
    100: (2.6514477, 0.60115152, 0.45295811, 437.9464276, 2.13245612, 0.59785199, 0.65523644),
}
"""The published fits of the multi-power law (arXiv:2503.12811), by model size."""
FITTED = ("cosine_24000", "constant_24000", "wsdcon_9")
UNSEEN = ("constant_72000", "cosine_72000", "wsd_20000_24000", "wsdld_20000_24000", "wsdcon_3", "wsdcon_18")


def published(size: int, name: str) -> Curve:
    """Return a published curve; skips the test where the data is missing."""
    path = PUBLISHED / f"csv_{size}" / f"{name}.csv"
    if not path.exists():
        pytest.skip(f"the published curves are not at {PUBLISHED}")
    kind, _, last = name.partition("_")
    steps = {"wsd": 24000, "wsdld": 24000, "wsdcon": 16000}.get(kind) or int(last)
    named = f"wsdcon_{int(last) / 30:.2f}" if kind == "wsdcon" else kind
    decay = 4000 / 24000 if kind.startswith("wsd") else 0.2
    spec = f"{named}:steps={steps},peak=3e-4,warmup=2160,convention=linspace,decay={decay}"
    return read_csv(path, spec)


def synthetic(name: str, steps: int, lrs: Array, law: str, values: tuple[float, ...], noise: float = 0.0) -> Curve:
    """Return the curve that a law gives, a point each 50 steps, with relative noise."""
    at = np.arange(steps // 20, steps, 50)
    chosen = law_of(law)
    loss = chosen.loss(to_logs(chosen, values), compress(lrs, at))
    rng = np.random.default_rng([steps, len(name), sum(map(ord, name))])
    return Curve.of(name, at, loss * np.exp(noise * rng.standard_normal(len(at))), lrs)


def three(law: str, values: tuple[float, ...], noise: float = 0.0, steps: int = 6000) -> list[Curve]:
    names = ("cosine", "constant", "wsdcon_30")
    made = [schedule(name, steps, 3e-4, steps // 20) for name in names]
    return [synthetic(name, steps, lrs, law, values, noise) for name, lrs in zip(names, made, strict=True)]
