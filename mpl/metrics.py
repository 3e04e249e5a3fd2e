"""How well a prediction meets a curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from train.schedules import Array


@dataclass(frozen=True)
class Metrics:
    """R2, mean and root mean square error, and the mean and the largest relative error (PredE, WorstE)."""

    r2: float
    mae: float
    rmse: float
    prede: float
    worste: float

    @staticmethod
    def of(predicted: Array, loss: Array) -> Metrics:
        """Compare arrays [n].

        >>> Metrics.of(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 5.0])).worste
        0.2
        """
        error = predicted - loss
        relative = np.abs(error) / loss
        spread = float(((loss - loss.mean()) ** 2).sum())
        r2 = 1 - float((error**2).sum()) / spread if spread else float("nan")
        return Metrics(
            r2=r2,
            mae=float(np.abs(error).mean()),
            rmse=float(np.sqrt((error**2).mean())),
            prede=float(relative.mean()),
            worste=float(relative.max()),
        )

    @staticmethod
    def mean(several: Sequence[Metrics]) -> Metrics:
        """Return the mean of each figure over curves."""
        return Metrics(*(float(np.mean([getattr(one, field.name) for one in several])) for field in fields(Metrics)))

    def as_dict(self) -> dict[str, float]:
        return asdict(self)
