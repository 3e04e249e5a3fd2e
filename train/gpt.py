"""A decoder-only transformer over tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

INIT_STD = 0.02
ROPE_BASE = 10_000


class Attention(nn.Module):
    """Causal self-attention with several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, rotation: Tensor | None) -> Tensor:
        batch, length, width = x.shape
        # [batch, length, 3 width] → three times [batch, heads, length, width / heads]
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        y: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return y


def rotations(length: int, width: int) -> Tensor:
    """Return the cosines and sines of rotary positions, [2, length, width / 2].

    Su et al., RoFormer, 2021 (arXiv:2104.09864).
    """
    frequencies = ROPE_BASE ** -(torch.arange(0, width, 2) / width)
    angles = torch.arange(length)[:, None] * frequencies
    return torch.stack((angles.cos(), angles.sin()))


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn each pair (i, i + width / 2) of [batch, heads, length, width] by the angle of its position."""
    cos, sin = rotation[:, : x.shape[-2]].to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


class Block(nn.Module):
    """Attention and a GELU layer, each on a normalised copy of the residual stream."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, rotation: Tensor | None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), rotation))
        y: Tensor = x + self.dropout(self.down(functional.gelu(self.up(self.mlp_norm(x)))))
        return y


class GPT(nn.Module):
    """Maps tokens [batch, length] to the logits of the next ones, [batch, length, vocabulary].

    The embedding of the tokens is the output layer too.
    """

    def __init__(
        self,
        vocabulary: int,
        layers: int,
        width: int,
        heads: int,
        context: int,
        rope: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = None if rope else nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        self.register_buffer("rotation", rotations(context, width // heads) if rope else None, persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                # Each block adds to the residual stream twice: keep its variance independent of the depth.
                residual = name.endswith(("attention.out.weight", "down.weight"))
                nn.init.normal_(parameter, std=INIT_STD / (2 * layers) ** 0.5 if residual else INIT_STD)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens)
        if self.positions is not None:
            x = x + self.positions.weight[: tokens.shape[1]]
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, self.rotation)
        return functional.linear(self.norm(x), self.tokens.weight)
