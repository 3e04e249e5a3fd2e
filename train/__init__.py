"""A training program: `python -m train --out DIR`, `python -m train.evaluate DIR`, or from Python:

    import train

    for record in train.run(train.LmConfig(out="output/try", lr=1e-2)):
        print(record.step, record.metrics)

Importing the package loads neither torch nor numpy; `train.schedules` needs numpy alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.config import ImageConfig as ImageConfig
    from train.config import LmConfig as LmConfig
    from train.config import TabularConfig as TabularConfig
    from train.trainer import run as run

OWNERS = {
    "ImageConfig": "train.config",
    "LmConfig": "train.config",
    "TabularConfig": "train.config",
    "run": "train.trainer",
}


def __getattr__(name: str) -> Any:
    """Load a name of the package when it is first used."""
    if name not in OWNERS:
        raise AttributeError(f"module 'train' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(OWNERS[name]), name)
