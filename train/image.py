"""The task `image`: classifiers of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from train.config import ImageConfig
from train.download import downloading
from train.errors import TrainError, nearest
from train.images import Pictures, read, vision
from train.losses import loss_of, measure_classes
from train.splits import parse_split, shuffled, spaced
from train.task import Batch, Task
from train.vision import build_own

MEASURED_PICTURES = 2048
"""Pictures of the training split, evenly spaced, that the mean and deviation of the colours are taken from."""
SMALLEST_PART = 0.25
"""Area of the smallest part that the crop `resized` takes."""


class ImageTask(Task):
    """Pictures and their classes."""

    metrics = ("loss", "accuracy")
    training: Examples

    def __init__(self, config: ImageConfig) -> None:
        self.config = config
        found = read(config)
        self.sha256, self.names, self.labels, self.pictures = found.sha256, found.names, found.labels, found.pictures
        self.splits = {name: shuffled(rows) for name, rows in found.splits.items()}
        self.channels = len(self.pictures[0])
        self.pretrained = Pretrained(config) if config.model.startswith(("timm:", "clip:")) else None
        self.size = config.image_size or (self.pretrained.size if self.pretrained else self.pictures[0].shape[-1])
        self.training = Examples(self, self._rows(config.train_split), augmented=True)
        self.epoch = len(self.training)

    def _rows(self, split: str) -> NDArray[np.int64]:
        parts = parse_split(split, {name: len(rows) for name, rows in self.splits.items()})
        return np.concatenate([self.splits[part.name][part.first : part.last] for part in parts])

    def evaluation(self, split: str, limit: int) -> Examples:
        return Examples(self, spaced(self._rows(split), limit), augmented=False)

    def build(self) -> nn.Module:
        config, classes = self.config, len(self.names)
        if self.pretrained:
            body = self.pretrained.build(self.names)
            mean, deviation = self.pretrained.colours()
        else:
            body = build_own(config.model, self.channels, classes, self.size)
            mean, deviation = self._colours()
        if config.head_init in ("zero", "random"):
            init_head(self.last_layer_of(body), config.head_init)
        if config.head_init == "zero_shot" and not config.model.startswith("clip:"):
            raise TrainError(f"head_init is zero_shot: that is for clip: models, not {config.model}")
        return Normalized(body, mean, deviation, config.channels_last)

    def _colours(self) -> tuple[Tensor, Tensor]:
        rows = spaced(self.training.rows, MEASURED_PICTURES)
        pixels = torch.stack([resized(self.pictures[int(row)], self.size) for row in rows]).float() / 255
        return pixels.mean(dim=(0, 2, 3)), pixels.std(dim=(0, 2, 3)).clamp_min(1e-3)

    def last_layer(self, model: nn.Module) -> nn.Module | None:
        assert isinstance(model, Normalized)
        return self.last_layer_of(model.body)

    def last_layer_of(self, body: Any) -> nn.Module:
        layer = body.get_classifier() if hasattr(body, "get_classifier") else body.head
        assert isinstance(layer, nn.Module)
        return layer

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return loss_of(self.config.loss, outputs, targets)

    def measure(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return measure_classes(self.config.loss, outputs, targets)

    def about(self) -> dict[str, Any]:
        sizes = {f"{name}_images": len(rows) for name, rows in self.splits.items()}
        return {"classes": len(self.names), "channels": self.channels, "size": self.size, **sizes}

    def samples(self, model: nn.Module, n: int) -> Tensor:
        """Return training images as the model gets them."""
        images, _ = self.training.batch(torch.arange(min(n, len(self.training))))
        return images.byte()


class Normalized(nn.Module):
    """A model that takes bytes: it brings the colours to mean 0 and deviation 1 first.

    Where it knows three colours, grey images become images of three equal ones.
    """

    def __init__(self, body: nn.Module, mean: Tensor, deviation: Tensor, channels_last: bool) -> None:
        super().__init__()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.mean: Tensor
        self.scale: Tensor
        self.body = body.to(memory_format=self.memory_format)
        self.register_buffer("mean", 255 * mean[:, None, None])
        self.register_buffer("scale", 1 / (255 * deviation[:, None, None]))

    def forward(self, images: Tensor) -> Tensor:
        x = (images.to(torch.float32) - self.mean) * self.scale
        y: Tensor = self.body(x.contiguous(memory_format=self.memory_format))
        return y


def init_head(layer: nn.Module, how: str) -> None:
    """Set the weights of the last layer to zero, or to small random ones."""
    for name, parameter in layer.named_parameters():
        if how == "zero" or name == "bias":
            nn.init.zeros_(parameter)
        else:
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)


class Examples:
    """Some pictures of a task, of one size; augmented as the config says, or as they are."""

    def __init__(self, task: ImageTask, rows: NDArray[np.int64], augmented: bool) -> None:
        self.pictures: Pictures = task.pictures
        self.labels, self.rows, self.size, self.augmented = task.labels, rows, task.size, augmented
        self.config, self.classes = task.config, len(task.names)
        c = task.config
        self.random = augmented and (c.crop != "none" or c.flip or c.randaugment > 0 or c.mixup > 0)
        self.transform: Any = picture_transform(c, self.size) if augmented else None

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Tensor) -> Batch:
        """Return images [n, channels, size, size] of bytes, and classes [n], or with mixup their mixtures."""
        rows = self.rows[indices.numpy()]
        labels = self.labels[rows]
        if isinstance(self.pictures, Tensor) and self.pictures.shape[-1] == self.size and self.transform is None:
            images = self.pictures[rows]
        else:
            pictures = (self.pictures[int(row)] for row in rows)
            images = torch.stack([self.transform(x) if self.transform else resized(x, self.size) for x in pictures])
        if not self.augmented:
            return images, labels
        if self.config.crop == "shift":
            images = shifted(images, self.size // 8)
        if self.config.flip:
            images = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(-1), images)
        return mixed_up(images, labels, self.config.mixup, self.classes) if self.config.mixup else (images, labels)


def resized(picture: Tensor, size: int) -> Tensor:
    """Return the middle square of a picture [channels, height, width] at a size."""
    if picture.shape[-2:] == (size, size):
        return picture
    from torchvision.transforms.v2 import functional as transforms

    picture = transforms.resize(picture, [size], antialias=True)
    result: Tensor = transforms.center_crop(picture, [size, size])
    return result


def picture_transform(config: ImageConfig, size: int) -> Any:
    """Return what is done to a picture on its own; None where it is nothing."""
    if config.crop != "resized" and not config.randaugment:
        return None
    transforms = vision("torchvision.transforms.v2", "augmentation")
    crop = transforms.RandomResizedCrop(size, scale=(SMALLEST_PART, 1.0), antialias=True)
    steps: list[Any] = [crop if config.crop == "resized" else Resized(size)]
    if config.randaugment:
        steps.append(transforms.RandAugment(magnitude=config.randaugment))
    return transforms.Compose(steps)


class Resized:
    """`resized` at a fixed size."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, picture: Tensor) -> Tensor:
        return resized(picture, self.size)


def shifted(images: Tensor, by: int) -> Tensor:
    """Shift each image by up to `by` pixels in both directions, with black behind it."""
    n, channels, height, width = images.shape
    padded = nn.functional.pad(images, (by, by, by, by))
    down, right = torch.randint(2 * by + 1, (2, n, 1))
    rows, columns = down + torch.arange(height), right + torch.arange(width)
    return padded[
        torch.arange(n)[:, None, None, None],
        torch.arange(channels)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def mixed_up(images: Tensor, labels: Tensor, alpha: float, classes: int) -> Batch:
    """Return each image mixed with another one, and the shares of the classes.

    Zhang et al., mixup, 2018 (arXiv:1710.09412), with one share for the batch.
    """
    # A beta distribution, from two gamma ones: torch's own Beta has no generator either.
    share = torch.distributions.Beta(alpha, alpha).sample()
    other = torch.randperm(len(images))
    targets = nn.functional.one_hot(labels, classes).float()
    images = images.float()
    return share * images + (1 - share) * images[other], share * targets + (1 - share) * targets[other]


class Pretrained:
    """A model of timm or open_clip, with or without pretrained weights."""

    def __init__(self, config: ImageConfig) -> None:
        self.config = config
        self.library, _, self.name = config.model.partition(":")
        if self.library == "timm":
            timm = vision("timm", f"model {config.model}")
            if self.name.partition(".")[0] not in timm.list_models():
                raise TrainError(f"timm has no model {self.name!r}{nearest(self.name, timm.list_models())}")
            found: Any = timm.get_pretrained_cfg(self.name)
            self.size: int = found.input_size[-1]
        else:
            open_clip = vision("open_clip", f"model {config.model}")
            if self.name not in open_clip.list_models():
                raise TrainError(f"open_clip has no model {self.name!r}{nearest(self.name, open_clip.list_models())}")
            size = open_clip.get_model_config(self.name)["vision_cfg"]["image_size"]
            self.size = size if isinstance(size, int) else size[0]

    def build(self, names: list[str]) -> nn.Module:
        """Make the model for the named classes, with three colours; where a download fails, that is told."""
        config = self.config
        if self.library == "clip":
            from train.clip import build_clip

            with downloading(config.data_dir, f"the weights {config.pretrained or '(none)'} of {config.model}"):
                return build_clip(self.name, config.pretrained, config.data_dir, names, config.head_init == "zero_shot")
        import timm

        name = self.name if config.pretrained in ("", "default") else f"{self.name}.{config.pretrained}"
        size = {"img_size": config.image_size} if config.image_size and "vit" in name else {}
        options: dict[str, Any] = {"num_classes": len(names), "cache_dir": str(config.data_dir), **size}
        if not config.pretrained:
            return timm.create_model(name, **options)
        with downloading(config.data_dir, f"the weights {config.pretrained} of {config.model}"):
            return timm.create_model(name, pretrained=True, **options)

    def colours(self) -> tuple[Tensor, Tensor]:
        """Return the mean and deviation of the colours that the weights were trained with."""
        if self.library == "clip":
            from train.clip import COLOURS

            return torch.tensor(COLOURS[0]), torch.tensor(COLOURS[1])
        import timm

        found: Any = timm.get_pretrained_cfg(self.name)
        return torch.tensor(found.mean), torch.tensor(found.std)
