"""The task `lm`: a GPT that predicts the next byte, or token, of a text."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from train.config import LmConfig
from train.errors import TrainError
from train.files import replacing
from train.gpt import GPT
from train.splits import parse_split
from train.task import Batch, Task
from train.text import load

TOKENIZER = "tokenizer.json"
PROMPT = "\n"


class Tokenizer(Protocol):
    """Text as numbers below `vocabulary`."""

    vocabulary: int

    def encode(self, text: bytes) -> Tensor: ...

    def decode(self, tokens: list[int]) -> str: ...

    def lengths(self) -> Tensor:
        """Return how many characters, of byte-level tokens bytes, each token has: [vocabulary]."""
        ...

    def to_json(self) -> str | None:
        """Return what tokenizer.json holds; None if there is nothing to know."""
        ...


class LmTask(Task):
    """Windows of `context` + 1 tokens: at random places in training, side by side in evaluations."""

    replacement = True
    training: Windows

    def __init__(self, config: LmConfig) -> None:
        self.config = config
        texts = load(config.data)
        self.tokenizer = make_tokenizer(config.tokenizer, texts["train"])
        self.n_bytes = {name: len(text) for name, text in texts.items()}
        self.tokens = {name: self.tokenizer.encode(text) for name, text in texts.items()}
        self.sha256 = digest(self.tokens.values())
        tokens = self._split(config.train_split)
        self.training = Windows(tokens, None, config.context)
        self.epoch = max((len(tokens) - 1) // config.context, 1)
        if config.tokenizer != "bytes":
            self.metrics = ("loss", "bpb")

    def _split(self, text: str) -> Tensor:
        parts = parse_split(text, {name: len(tokens) for name, tokens in self.tokens.items()})
        tokens = torch.cat([self.tokens[part.name][part.first : part.last] for part in parts])
        if len(tokens) <= self.config.context:
            raise TrainError(
                f"the data {self.config.data} is too short: its split {text} has {len(tokens)} tokens, "
                f"a context of {self.config.context} needs at least {self.config.context + 1}"
            )
        return tokens

    def evaluation(self, split: str, limit: int) -> Windows:
        """Return windows in which no token is predicted twice, evenly spaced."""
        tokens, context = self._split(split), self.config.context
        available = (len(tokens) - 1) // context
        n = min(limit or available, available)
        return Windows(tokens, torch.arange(n) * available // n * context, context)

    def build(self) -> GPT:
        c = self.config
        rope = c.positions == "rope"
        return GPT(self.tokenizer.vocabulary, c.layers, c.width, c.heads, c.context, rope, c.dropout)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    def measure(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the summed mean losses of the windows in nats a token, once for each metric's unit."""
        return (self.loss(outputs, targets).double() * len(targets)).repeat(len(self.metrics))

    def factors(self, split: str) -> tuple[float, ...]:
        """Return the units, nats a token and, if tokens aren't bytes, bits a byte of the split, in nats a token."""
        return (1.0, self.tokens_per_byte(split) / math.log(2))[: len(self.metrics)]

    def tokens_per_byte(self, split: str) -> float:
        """Return the tokens of a split in a byte of its text; bytes of a part are counted by what its tokens spell."""
        parts = parse_split(split, {name: len(tokens) for name, tokens in self.tokens.items()})
        lengths = self.tokenizer.lengths()

        def spelled(tokens: Tensor) -> int:
            return int((torch.bincount(tokens, minlength=len(lengths)) * lengths).sum())

        n_bytes = 0.0
        for part in parts:
            tokens = self.tokens[part.name]
            n_bytes += self.n_bytes[part.name] * spelled(tokens[part.first : part.last]) / spelled(tokens)
        return sum(part.last - part.first for part in parts) / n_bytes

    def about(self) -> dict[str, Any]:
        sizes = {f"{name}_tokens": len(tokens) for name, tokens in self.tokens.items()}
        return {"data_bytes": sum(self.n_bytes.values()), "vocabulary": self.tokenizer.vocabulary, **sizes}

    def write_files(self, directory: Path) -> None:
        if (content := self.tokenizer.to_json()) is not None:
            with replacing(directory / TOKENIZER) as file:
                file.write(content.encode())

    @torch.no_grad()
    def samples(self, model: nn.Module, n: int) -> str:
        """Return `n` texts of four contexts each, one line of dashes between them."""
        device = next(model.parameters()).device
        generator = torch.Generator(device).manual_seed(0)
        prompt = self.tokenizer.encode(PROMPT.encode())
        # A tokenizer of words has no token for a line's end.
        prompt = prompt if len(prompt) else self.training.tokens[:1]
        tokens = prompt.long().to(device).expand(n, -1)
        for _ in range(4 * self.config.context):
            logits = model(tokens[:, -self.config.context :])[:, -1].float()
            tokens = torch.cat((tokens, torch.multinomial(logits.softmax(-1), 1, generator=generator)), dim=1)
        return "\n----\n".join(self.tokenizer.decode(row) for row in tokens.tolist())


class Windows:
    """Windows of a text: the inputs are `context` tokens, the targets those that follow each."""

    random = False

    def __init__(self, tokens: Tensor, starts: Tensor | None, context: int) -> None:
        """Take the windows that begin at `starts`, or (None) at any place."""
        self.tokens, self.starts = tokens, starts
        self.window = torch.arange(context + 1)

    def __len__(self) -> int:
        return len(self.tokens) - len(self.window) + 1 if self.starts is None else len(self.starts)

    def batch(self, indices: Tensor) -> Batch:
        starts = indices if self.starts is None else self.starts[indices]
        windows = self.tokens[starts[:, None] + self.window].long()
        return windows[:, :-1], windows[:, 1:]


def digest(tokens: Any) -> str:
    """Return the SHA-256 of all tokens; of bytes, that of the text."""
    sha256 = hashlib.sha256()
    for part in tokens:
        sha256.update(part.numpy())
    return sha256.hexdigest()


def make_tokenizer(name: str, text: bytes) -> Tokenizer:
    if name == "bytes":
        return ByteTokenizer()
    try:
        from tokenizers import Tokenizer as Library
        from tokenizers.implementations.byte_level_bpe import ByteLevelBPETokenizer
    except ImportError as error:
        raise TrainError(f"tokenizer {name} needs the package tokenizers: pip install tokenizers") from error
    if name.startswith("bpe:"):
        size = name.removeprefix("bpe:")
        if not size.isdecimal() or int(size) < 257:
            raise TrainError(f"tokenizer is {name}: after bpe: a size of the vocabulary above 256 is needed")
        learned = ByteLevelBPETokenizer()
        learned.train_from_iterator(iter(_lines(text)), vocab_size=int(size), show_progress=False)
        return BpeTokenizer(Library.from_str(learned.to_str()))
    if not Path(name).is_file():
        raise TrainError(f"tokenizer is {name}: allowed are bytes, bpe:<size> or the path of a tokenizer.json")
    try:
        return BpeTokenizer(Library.from_file(name))
    except Exception as error:
        raise TrainError(f"cannot read the tokenizer {name}: {error}") from error


def _lines(text: bytes) -> list[str]:
    return text.decode(errors="replace").splitlines(keepends=True)


class ByteTokenizer:
    """Bytes are their own numbers."""

    vocabulary = 256

    def encode(self, text: bytes) -> Tensor:
        # A copy: bytes are read-only, and torch has no such tensors.
        return torch.from_numpy(np.frombuffer(text, dtype=np.uint8).copy())

    def decode(self, tokens: list[int]) -> str:
        return bytes(tokens).decode(errors="replace")

    def lengths(self) -> Tensor:
        return torch.ones(self.vocabulary, dtype=torch.int64)

    def to_json(self) -> None:
        return None


class BpeTokenizer:
    """A tokenizer of the library `tokenizers`."""

    def __init__(self, library: Any) -> None:
        # Files of published models often say how sentences are cut and filled to one length: a text is neither.
        library.no_truncation()
        library.no_padding()
        self.library = library
        # Numbers may be left out.
        self.vocabulary = max(library.get_vocab().values()) + 1

    def encode(self, text: bytes) -> Tensor:
        lines = self.library.encode_batch_fast(_lines(text), add_special_tokens=False)
        return torch.tensor([token for line in lines for token in line.ids], dtype=torch.int32)

    def decode(self, tokens: list[int]) -> str:
        return str(self.library.decode(tokens))

    def lengths(self) -> Tensor:
        return torch.tensor([len(self.library.id_to_token(token) or "") for token in range(self.vocabulary)])

    def to_json(self) -> str:
        return str(self.library.to_str())
