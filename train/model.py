"""A decoder-only transformer over bytes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.config import Config

VOCABULARY = 256
INIT_STD = 0.02


class Attention(nn.Module):
    """Causal self-attention with several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        # [batch, length, 3 width] → three times [batch, heads, length, width / heads]
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        y: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return y


class Block(nn.Module):
    """Attention and a GELU layer, each on a normalised copy of the residual stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        y: Tensor = x + self.down(functional.gelu(self.up(self.mlp_norm(x))))
        return y


class GPT(nn.Module):
    """Returns the mean cross-entropy, in nats a byte, of each next byte of the windows that it is given."""

    def __init__(self, layers: int, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.bytes = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                # Each block adds to the residual stream twice: keep its variance independent of the depth.
                residual = name.endswith(("attention.out.weight", "down.weight"))
                nn.init.normal_(parameter, std=INIT_STD / (2 * layers) ** 0.5 if residual else INIT_STD)

    def logits(self, inputs: Tensor) -> Tensor:
        x = self.bytes(inputs) + self.positions.weight[: inputs.shape[1]]
        for block in self.blocks:
            x = block(x)
        return functional.linear(self.norm(x), self.bytes.weight)

    def forward(self, windows: Tensor) -> Tensor:
        """Map windows [batch, context + 1] of bytes to a loss []."""
        logits = self.logits(windows[:, :-1])
        return functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


def build(config: Config) -> GPT:
    """Make the model; the seed decides its weights."""
    torch.manual_seed(config.seed)
    return GPT(config.layers, config.width, config.heads, config.context)


@torch.no_grad()
def mean_loss(model: nn.Module, windows: Tensor, rows: int = 256) -> float:
    """Return the mean loss over windows [n, context + 1] of bytes, `rows` of them at a time."""
    was_training = model.training
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=windows.device)
    for part in torch.split(windows, rows):
        total += model(part.long()).double() * len(part)
    model.train(was_training)
    return float(total) / len(windows)
