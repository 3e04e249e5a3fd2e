"""Weights & Biases as a logger: needs the package wandb, and its own settings decide where the run goes."""

from __future__ import annotations

import secrets
from typing import Any

from torch import Tensor

from train.config import Config
from train.errors import TrainError
from train.files import RUN_ID, replacing


def library() -> Any:
    """Return the package wandb."""
    try:
        import wandb
        from wandb import Image, init  # noqa: F401 - a mere directory of that name, as wandb leaves, has neither
    except ImportError as error:
        raise TrainError("loggers: wandb needs the package wandb: pip install wandb") from error
    return wandb


class WandbLogger:
    """One W&B run, found again by an id in the run's directory when training is resumed."""

    def __init__(self, config: Config) -> None:
        self.wandb = library()
        path = config.out / RUN_ID
        if not path.exists():
            with replacing(path) as file:
                file.write(secrets.token_hex(4).encode())
        try:
            self.run = self.wandb.init(id=path.read_text(), resume="allow", dir=str(config.out), name=config.out.name)
        except self.wandb.Error as error:
            raise TrainError(f"loggers: wandb: {error}") from error

    def hyperparameters(self, values: dict[str, Any]) -> None:
        self.run.config.update(values, allow_val_change=True)

    def scalars(self, values: dict[str, float], step: int) -> None:
        # A step that a killed run has logged before is left as it is.
        self.run.log(values, step=step)

    def samples(self, samples: Tensor | str, step: int) -> None:
        shown = samples if isinstance(samples, str) else [self.wandb.Image(image) for image in samples]
        self.run.log(
            {"samples": self.wandb.Html(f"<pre>{shown}</pre>") if isinstance(shown, str) else shown}, step=step
        )

    def end(self, step: int, metrics: dict[str, float], completed: bool) -> None:
        self.run.summary.update({**metrics, "completed": completed})

    def sync(self) -> None:
        """W&B's own process keeps what was logged."""

    def close(self) -> None:
        self.run.finish()
