"""The task `tabular`: linear models and MLPs on tables of numbers."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn import datasets
from torch import Tensor, nn

from train.config import TABLES, TabularConfig
from train.download import fetch
from train.errors import TrainError, nearest
from train.losses import each_loss, loss_of, measure_classes
from train.splits import parse_split, shuffled, spaced, with_test_split
from train.task import Batch, Task

MOST_CLASSES = 100
"""More different whole targets than these are numbers rather than classes."""


class TabularTask(Task):
    """Rows of features and a class, or a number, for each."""

    training: Rows

    def __init__(self, config: TabularConfig) -> None:
        self.config = config
        x, targets, splits = read(config)
        self.sha256 = digest(x, targets)
        self.splits = {name: shuffled(rows) for name, rows in splits.items()}
        self.classes = classes_of(targets)
        if self.classes is not None:
            self.metrics = ("loss", "accuracy")
            targets = np.searchsorted(self.classes, targets)
        self.loss_kind = config.loss or ("squared" if self.classes is None else "cross_entropy")
        if self.classes is None and self.loss_kind == "cross_entropy":
            raise TrainError(f"loss is cross_entropy: the targets of {config.data} are numbers, not classes")
        self.x = x
        self.y = torch.from_numpy(targets if self.classes is not None else targets.astype(np.float32))
        self.standardized = config.standardize if config.standardize is not None else not sparse.issparse(x)
        rows = self._rows(config.train_split)
        self.training = Rows(self, rows)
        self.epoch = len(rows)

    def _rows(self, split: str) -> NDArray[np.int64]:
        parts = parse_split(split, {name: len(rows) for name, rows in self.splits.items()})
        return np.concatenate([self.splits[part.name][part.first : part.last] for part in parts])

    def evaluation(self, split: str, limit: int) -> Rows:
        return Rows(self, spaced(self._rows(split), limit))

    def build(self) -> nn.Module:
        outputs = 1 if self.classes is None else len(self.classes)
        widths = [self.x.shape[1], *self.config.hidden]
        layers: list[nn.Module] = [Standardize(*self._statistics())] if self.standardized else []
        for width, next_width in pairwise(widths):
            layers += [nn.Linear(width, next_width), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))

    def _statistics(self) -> tuple[Tensor, Tensor]:
        x = dense(self.x[self.training.rows])
        return x.mean(dim=0), x.std(dim=0, correction=0)

    def last_layer(self, model: nn.Module) -> nn.Module:
        return [*model.children()][-1]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return loss_of(self.loss_kind, outputs, targets)

    def measure(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self.classes is not None:
            return measure_classes(self.loss_kind, outputs, targets)
        return each_loss(self.loss_kind, outputs, targets).double().sum()[None]

    def about(self) -> dict[str, Any]:
        sizes = {f"{name}_rows": len(rows) for name, rows in self.splits.items()}
        classes = None if self.classes is None else self.classes.tolist()
        return {"features": self.x.shape[1], "classes": classes, **sizes}


class Rows:
    """Some rows of a task's table."""

    random = False

    def __init__(self, task: TabularTask, rows: NDArray[np.int64]) -> None:
        self.x, self.y, self.rows = task.x, task.y, rows

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Tensor) -> Batch:
        rows = self.rows[indices.numpy()]
        return dense(self.x[rows]), self.y[rows]


class Standardize(nn.Module):
    """Brings each feature to mean 0 and deviation 1; one that never changes becomes 0."""

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("scale", torch.where(deviation > 0, 1 / deviation, 0))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.scale


def dense(x: Any) -> Tensor:
    return torch.from_numpy(np.asarray(x.toarray() if sparse.issparse(x) else x, dtype=np.float32))


def classes_of(targets: NDArray[Any]) -> NDArray[Any] | None:
    """Return the classes in order; None where the targets are numbers."""
    found = np.unique(targets)
    whole = bool(np.all(found == np.round(found)))
    return found if whole and len(found) <= MOST_CLASSES else None


def digest(x: Any, targets: NDArray[Any]) -> str:
    sha256 = hashlib.sha256(np.ascontiguousarray(targets).data)
    for part in (x.data, x.indices, x.indptr) if sparse.issparse(x) else (np.ascontiguousarray(x),):
        sha256.update(part.data)
    return sha256.hexdigest()


def read(config: TabularConfig) -> tuple[Any, NDArray[Any], dict[str, NDArray[np.int64]]]:
    """Return features [n, d] (sparse from a file), targets [n] and the rows of each split."""
    if config.data in TABLES:
        found = getattr(datasets, f"load_{config.data}")()
        x, y = np.asarray(found.data, dtype=np.float32), np.asarray(found.target)
        return x, y, with_test_split(len(y))
    files = [svmlight_file(name, config.data_dir) for name in (config.data, config.test_data) if name is not None]
    try:
        loaded = datasets.load_svmlight_files([str(path) for path in files])
    except (OSError, ValueError) as error:
        raise TrainError(f"cannot read the libsvm file {' or '.join(map(str, files))}: {error}") from error
    x, y = sparse.vstack(loaded[::2], format="csr"), np.concatenate(loaded[1::2])
    if config.test_data is None:
        return x, y, with_test_split(len(y))
    n = len(loaded[1])
    return x, y, {"train": np.arange(n), "test": np.arange(n, len(y))}


def svmlight_file(name: str, data_dir: Path) -> Path:
    if "://" in name:
        return fetch(name, data_dir)
    if not Path(name).is_file():
        hint = nearest(name, TABLES)
        raise TrainError(f"no data at {name}{hint}; allowed are {', '.join(TABLES)}, a libsvm file or its URL")
    return Path(name)
