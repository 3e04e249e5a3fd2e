"""The tasks, each by its config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from train.errors import TrainError

if TYPE_CHECKING:
    from train.config import Config
    from train.task import Task


def make_task(config: Config) -> Task:
    """Read the data of a config's task and check that a model can be trained on it."""
    # Each task has imports of its own.
    from train import config as configs

    match config:
        case configs.LmConfig():
            from train.lm import LmTask

            return LmTask(config)
        case configs.ImageConfig():
            from train.image import ImageTask

            return ImageTask(config)
        case configs.TabularConfig():
            from train.tabular import TabularTask

            return TabularTask(config)
    raise TrainError(f"a config of the task {config.task} is needed, such as LmConfig")
