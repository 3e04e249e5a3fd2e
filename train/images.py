"""Sets of images: scikit-learn's digits, directories, torchvision's and Hugging Face's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.config import ImageConfig
from train.download import downloading
from train.errors import TrainError, nearest
from train.splits import with_test_split


class Pictures(Protocol):
    """A numbered set of pictures, each an image of bytes [channels, height, width]."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Tensor: ...


@dataclass(frozen=True)
class ImageSet:
    """Pictures, their classes [n], the classes' names, the rows of each split, and a digest of the content."""

    pictures: Pictures
    labels: Tensor
    names: list[str]
    splits: dict[str, NDArray[np.int64]]
    sha256: str


def read(config: ImageConfig) -> ImageSet:
    """Find the set of a config, downloading it if need be."""
    kind, _, name = config.data.partition(":")
    readers: dict[str, Callable[[str, Path], ImageSet]] = {
        "digits": lambda _name, _directory: digits(),
        "folder": lambda name, _directory: folder(Path(name)),
        "torchvision": from_torchvision,
        "hf": from_hugging_face,
    }
    if kind not in readers:
        hint = nearest(kind, readers)
        raise TrainError(f"unknown data {config.data!r}{hint}; allowed are digits, folder:, torchvision: and hf:")
    return readers[kind](name, config.data_dir)


def digits() -> ImageSet:
    """Return 1,797 handwritten digits of 8 x 8 pixels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pictures = torch.from_numpy((found.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(np.asarray(found.target, dtype=np.int64))
    return in_memory(pictures, labels, [str(name) for name in found.target_names], with_test_split(len(labels)))


def in_memory(pictures: Tensor, labels: Tensor, names: list[str], splits: dict[str, NDArray[np.int64]]) -> ImageSet:
    """Return a set that is one tensor [n, channels, height, width] of bytes."""
    return ImageSet(pictures, labels, names, splits, digest((pictures.numpy(), labels.numpy())))


def digest(parts: Iterable[bytes | NDArray[Any]]) -> str:
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).data)
    return sha256.hexdigest()


class Decoded:
    """Pictures that are read when they are needed."""

    def __init__(self, source: Callable[[int], Any], size: int) -> None:
        """Take what returns a PIL image by its number."""
        self.source, self.size = source, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: int) -> Tensor:
        from torchvision.transforms.v2.functional import pil_to_tensor

        picture: Tensor = pil_to_tensor(self.source(number).convert("RGB"))
        return picture


def folder(root: Path) -> ImageSet:
    """Return a directory with a directory of images for each class, or with such directories `train` and `test`."""
    ImageFolder = vision("torchvision.datasets", f"data folder:{root}").ImageFolder  # noqa: N806
    by_split = {name: root / name for name in ("train", "val", "test") if (root / name).is_dir()}
    try:
        sets = {name: ImageFolder(path) for name, path in (by_split or {"train": root}).items()}
    except (OSError, FileNotFoundError) as error:
        raise TrainError(f"data is folder:{root}: {error}") from error
    names = next(iter(sets.values())).classes
    for name, found in sets.items():
        if found.classes != names:
            raise TrainError(f"data is folder:{root}: its split {name} has other classes than the first one")
    samples = [sample for found in sets.values() for sample in found.samples]
    labels = torch.tensor([label for _, label in samples])
    content = (Path(path).relative_to(root).as_posix().encode() + size_of(path) for path, _ in samples)
    load = next(iter(sets.values())).loader
    pictures = Decoded(lambda number: opened(samples[number][0], load), len(samples))
    splits = one_after_the_other({name: len(found) for name, found in sets.items()})
    return ImageSet(pictures, labels, names, splits, digest(content))


def opened(path: str, load: Callable[[str], Any]) -> Any:
    """Return the picture of a file; raise TrainError with the file's name where there is none."""
    try:
        return load(path)
    # A SyntaxError is what PIL calls a broken PNG.
    except (OSError, SyntaxError) as error:
        raise TrainError(f"cannot read the picture {path}: {getattr(error, 'strerror', None) or error}") from error


def size_of(path: str) -> bytes:
    return f" {Path(path).stat().st_size}\n".encode()


def one_after_the_other(sizes: dict[str, int]) -> dict[str, NDArray[np.int64]]:
    """Return the rows of splits of these sizes; a lone one is cut into a training and a test split."""
    if len(sizes) == 1:
        return with_test_split(*sizes.values())
    ends = np.cumsum([*sizes.values()])
    return {name: np.arange(end - sizes[name], end) for name, end in zip(sizes, ends, strict=True)}


def from_torchvision(name: str, directory: Path) -> ImageSet:
    """Return a set of torchvision.datasets that has a training and a test split."""
    library = vision("torchvision.datasets", f"data torchvision:{name}")
    if not hasattr(library, name):
        raise TrainError(f"torchvision has no set {name!r}{nearest(name, dir(library))}")
    with downloading(directory, f"torchvision's {name}"):
        sets = {split: open_torchvision(getattr(library, name), directory, split) for split in ("train", "test")}
    labels = torch.cat([labels_of(found) for found in sets.values()])
    names = [str(text) for text in getattr(sets["train"], "classes", range(int(labels.max()) + 1))]
    splits = one_after_the_other({split: len(found) for split, found in sets.items()})
    if all(hasattr(found, "data") for found in sets.values()):
        return in_memory(torch.cat([bytes_of(found.data) for found in sets.values()]), labels, names, splits)
    first = len(sets["train"])
    pictures = Decoded(lambda n: sets["train"][n][0] if n < first else sets["test"][n - first][0], len(labels))
    return ImageSet(pictures, labels, names, splits, digest((name.encode(), labels.numpy())))


def open_torchvision(dataset: Any, directory: Path, split: str) -> Any:
    """Open one split: the sets say in two ways which one is meant."""
    try:
        return dataset(directory, train=split == "train", download=True)
    except TypeError:
        return dataset(directory, split=split, download=True)


def labels_of(dataset: Any) -> Tensor:
    for name in ("targets", "labels", "_labels"):
        if hasattr(dataset, name):
            return torch.as_tensor(getattr(dataset, name), dtype=torch.int64)
    return torch.tensor([int(dataset[number][1]) for number in range(len(dataset))])


def bytes_of(data: Any) -> Tensor:
    """Return a set's own array, [n, h, w], [n, h, w, c] or [n, c, h, w], as [n, c, h, w]."""
    pictures = torch.as_tensor(data)
    if pictures.ndim == 3:
        return pictures[:, None]
    return pictures if pictures.shape[1] in (1, 3) else pictures.permute(0, 3, 1, 2).contiguous()


def from_hugging_face(name: str, directory: Path) -> ImageSet:
    """Return a set of Hugging Face's hub, or a local directory of one: the first image and the first class column."""
    library = vision("datasets", f"data hf:{name}")
    with downloading(directory, f"Hugging Face's {name}"):
        sets = dict(library.load_dataset(name, cache_dir=str(directory)))
    features = next(iter(sets.values())).features
    image = next((key for key, value in features.items() if isinstance(value, library.Image)), None)
    label = next((key for key, value in features.items() if isinstance(value, library.ClassLabel)), None)
    if image is None or label is None:
        raise TrainError(
            f"data is hf:{name}: it needs a column of images and one of classes, and has {', '.join(features)}"
        )
    both = library.concatenate_datasets(list(sets.values()))
    labels = torch.tensor(both[label][:])
    splits = one_after_the_other({split: len(found) for split, found in sets.items()})
    pictures = Decoded(lambda number: both[number][image], len(labels))
    prints = "".join(found._fingerprint for found in sets.values())
    return ImageSet(pictures, labels, features[label].names, splits, digest((prints.encode(), labels.numpy())))


def vision(module: str, what: str) -> Any:
    """Import a library of the extra `vision`, or say that it is needed."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise TrainError(f"{what} needs the package {package}: pip install {package}") from error
