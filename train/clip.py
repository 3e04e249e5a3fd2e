"""CLIP's image tower as a classifier, and its text tower for classifying without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional

COLOURS = (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
TEMPLATES = ("a photo of a {}.", "a picture of a {}.", "an image of the {}.", "{}")


class ClipClassifier(nn.Module):
    """A linear layer on the normalised embedding of an image."""

    def __init__(self, tower: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        y: Tensor = self.head(functional.normalize(self.tower(images), dim=-1))
        return y


def build_clip(name: str, pretrained: str, directory: Path, classes: Sequence[str], zero_shot: bool) -> nn.Module:
    """Make a classifier of open_clip's model; `zero_shot` takes the classes' names for its last layer."""
    clip: Any = open_clip.create_model(name, pretrained=pretrained or None, cache_dir=str(directory))
    width = open_clip.get_model_config(name)["embed_dim"]
    model = ClipClassifier(clip.visual, width, len(classes))
    if zero_shot:
        with torch.no_grad():
            weight = text_embeddings(clip, open_clip.get_tokenizer(name, cache_dir=str(directory)), classes)
            model.head.weight.copy_(clip.logit_scale.exp() * weight)
            model.head.bias.zero_()
    return model


def text_embeddings(clip: Any, tokenizer: Any, classes: Sequence[str]) -> Tensor:
    """Return the mean embedding of each class's name in some sentences, [classes, width], of length 1.

    Radford et al., CLIP, 2021 (arXiv:2103.00020), section 3.1.4.
    """
    texts = [template.format(name.replace("_", " ")) for name in classes for template in TEMPLATES]
    embedded = clip.encode_text(tokenizer(texts), normalize=True)
    return functional.normalize(embedded.view(len(classes), len(TEMPLATES), -1).mean(dim=1), dim=-1)
