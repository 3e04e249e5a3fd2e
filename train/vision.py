"""Small models of images: LeNet, ResNets and wide ResNets for small images, and a small vision transformer."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from train.errors import TrainError
from train.gpt import INIT_STD

OWN = ("lenet", "resnet8", "resnet20", "wrn16_4", "vit_tiny")
STAGES = 3


class LeNet(nn.Module):
    """Two convolutions and three layers: LeCun et al., 1998, with ReLU and max pooling."""

    def __init__(self, channels: int, classes: int, size: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 6, 5, padding=2)
        self.second = nn.Conv2d(6, 16, 5, padding=2)
        self.hidden = nn.Sequential(nn.Linear(16 * (size // 4) ** 2, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU())
        self.head = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.first(x).relu(), 2)
        x = functional.max_pool2d(self.second(x).relu(), 2)
        y: Tensor = self.head(self.hidden(x.flatten(1)))
        return y


class ResidualBlock(nn.Module):
    """Two convolutions, normalised before each (He et al., 2016, arXiv:1603.05027)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first_norm = nn.BatchNorm2d(channels)
        self.first = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        same = stride == 1 and channels == width
        self.shortcut = None if same else nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first_norm(x).relu()
        around = x if self.shortcut is None else self.shortcut(y)
        y = self.second(self.second_norm(self.first(y)).relu())
        total: Tensor = y + around
        return total


class ResNet(nn.Module):
    """Three stages of `blocks` residual blocks, of widths 16, 32 and 64 times `factor`.

    With factor 1 the depths of He et al. for small images; wider: Zagoruyko and Komodakis, 2016 (arXiv:1605.07146).
    """

    def __init__(self, channels: int, classes: int, blocks: int, factor: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        layers, width = [], 16
        for stage in range(STAGES):
            for block in range(blocks):
                next_width = 16 * factor * 2**stage
                layers.append(ResidualBlock(width, next_width, 2 if stage and not block else 1))
                width = next_width
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.blocks(self.stem(x))).relu()
        y: Tensor = self.head(x.mean(dim=(2, 3)))
        return y


class ViT(nn.Module):
    """A vision transformer with the mean of all patches for its head (Beyer et al., 2022, arXiv:2205.01580)."""

    def __init__(
        self, channels: int, classes: int, size: int, width: int = 192, heads: int = 3, layers: int = 6
    ) -> None:
        super().__init__()
        patch = max(size // 8, 1)
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.positions = nn.Parameter(
            nn.init.normal_(self.patches.weight.new_empty((size // patch) ** 2, width), std=INIT_STD)
        )
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        y: Tensor = self.head(self.encoder(x).mean(dim=1))
        return y


def build_own(name: str, channels: int, classes: int, size: int) -> nn.Module:
    """Make a model for images [n, channels, size, size]; its last layer is called head."""
    makers: list[tuple[str, Callable[[re.Match[str]], nn.Module]]] = [
        ("lenet", lambda _: LeNet(channels, classes, size)),
        ("vit_tiny", lambda _: ViT(channels, classes, size)),
        (r"resnet(\d+)", lambda found: ResNet(channels, classes, blocks_of(name, int(found[1]), 2))),
        (r"wrn(\d+)_(\d+)", lambda found: ResNet(channels, classes, blocks_of(name, int(found[1]), 4), int(found[2]))),
    ]
    for pattern, make in makers:
        if found := re.fullmatch(pattern, name):
            return make(found)
    raise TrainError(f"unknown model {name!r}: allowed are {', '.join(OWN)}, timm:<name> and clip:<name>")


def blocks_of(name: str, depth: int, beside: int) -> int:
    """Return the blocks of each stage; two convolutions each, and `beside` layers beside them."""
    blocks, rest = divmod(depth - beside, 2 * STAGES)
    if blocks < 1 or rest:
        raise TrainError(f"model is {name}: the depth must be {beside} more than a multiple of {2 * STAGES}")
    return blocks
