"""A text and a run that take a fraction of a second."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from train.config import Config

# Before the first operation: more threads would change the last bits, and the pace of the tests.
torch.set_num_threads(1)

WORDS = ("learning", "rates", "decay", "because", "small", "steps", "average", "what", "warm", "starts", "need")


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 kB of words in random order: their spelling can be learned in a few steps."""
    choice = random.Random(0)
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text(" ".join(choice.choice(WORDS) for _ in range(30_000)))
    return path


@pytest.fixture(scope="session")
def tiny_in(text_file: Path) -> Callable[..., Config]:
    """Make the configuration of a run of 40 steps that writes to a directory; other flags replace its own."""

    def make(directory: Path, **flags: Any) -> Config:
        own = {
            "data": str(text_file),
            "steps": 40,
            "warmup": 5,
            "width": 16,
            "heads": 2,
            "context": 16,
            "batch": 4,
            "log_every": 5,
            "eval_every": 20,
            "eval_batches": 4,
            "checkpoint_every": 15,
            "device": "cpu",
        }
        return Config(directory, **{**own, **flags})

    return make


@pytest.fixture
def tiny(tiny_in: Callable[..., Config], tmp_path: Path) -> Callable[..., Config]:
    """The same, with the directory named below the test's own."""

    def make(name: str = "run", **flags: Any) -> Config:
        return tiny_in(tmp_path / name, **flags)

    return make


@pytest.fixture
def flags_of() -> Callable[[Config], list[str]]:
    """Return the command line that asks for a configuration."""

    def make(config: Config) -> list[str]:
        pairs = [(f"--{name}", str(value)) for name, value in vars(config).items()]
        return [word for pair in pairs for word in pair]

    return make
