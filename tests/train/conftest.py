"""Runs of every task that take a fraction of a second."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from train import checkpoint
from train.config import CONFIGS, Config, LmConfig

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
def tiny_in(text_file: Path) -> Callable[..., LmConfig]:
    """Make the configuration of a run of 40 steps that writes to a directory; other options replace its own."""

    def make(directory: Path, **options: Any) -> LmConfig:
        own: dict[str, Any] = {
            "data": str(text_file),
            "steps": 40,
            "warmup": 5,
            "width": 16,
            "heads": 2,
            "context": 16,
            "batch": 4,
            "log_every": 5,
            "eval_every": 20,
            "eval_examples": 16,
            "checkpoint_every": 15,
            "device": "cpu",
        }
        return LmConfig(out=directory, **{**own, **options})

    return make


@pytest.fixture
def tiny(tiny_in: Callable[..., LmConfig], tmp_path: Path) -> Callable[..., LmConfig]:
    """The same, with the directory named below the test's own."""

    def make(name: str = "run", **options: Any) -> LmConfig:
        return tiny_in(tmp_path / name, **options)

    return make


@pytest.fixture(scope="session")
def busy_in(text_file: Path) -> Callable[..., Config]:
    """Make a run of a task with everything on that a resumption could forget."""

    def make(task: str, directory: Path, **options: Any) -> Config:
        own: dict[str, Any] = {
            "steps": 60,
            "warmup": 6,
            "batch": 8,
            "accumulate": 2,
            "workers": 1,
            "averages": ["ema_0.9", "poly_2"],
            "best": True,
            "patience": 4,
            "eval_every": 7,
            "eval_examples": 32,
            "log_every": 3,
            "checkpoint_every": 5,
            "keep": 2,
            "loggers": [],
            "device": "cpu",
        }
        tasks: dict[str, dict[str, Any]] = {
            "lm": {"data": str(text_file), "width": 16, "heads": 2, "context": 16, "dropout": 0.1, "optimizer": "muon"},
            "image": {"crop": "shift", "flip": True, "mixup": 0.2, "model": "resnet8", "optimizer": "sgd", "lr": 0.05},
            "tabular": {"hidden": [8], "optimizer": "adam", "amsgrad": True},
        }
        return CONFIGS[task](out=directory, **{**own, **tasks[task], **options})

    return make


@pytest.fixture
def flags_of() -> Callable[[Config], list[str]]:
    """Return the command line that asks for a configuration."""

    def make(config: Config) -> list[str]:
        values = config.model_dump(mode="json", exclude_unset=True)
        texts = {name: value if isinstance(value, str) else yaml.safe_dump(value) for name, value in values.items()}
        pairs = [(f"--{name}", text.removesuffix("\n...\n").strip()) for name, text in texts.items()]
        return ["--task", config.task, *(word for pair in pairs for word in pair)]

    return make


def rows(config: Config) -> list[list[str]]:
    """Return the lines of metrics.csv without the times."""
    lines = [line.split(",") for line in (config.out / "metrics.csv").read_text().splitlines()]
    assert lines[0][:3] == ["step", "lr", "loss"]
    assert lines[0][-2:] == ["time_s", "time"]
    return [line[:-2] for line in lines]


def final_state(config: Config) -> dict[str, Any]:
    """Return the newest checkpoint of a run that has ended."""
    state = checkpoint.load_newest(config.out)
    assert state is not None
    assert state["ended"]
    return state


def assert_equal(first: Any, second: Any, where: str) -> None:
    """Fail where two states differ in a bit."""
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_equal(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for number, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_equal(one, other, f"{where}[{number}]")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    else:
        assert first == second, where


def assert_same(one: Config, other: Config) -> None:
    """Fail where two runs differ in more than the time: in their metrics, weights, averages or anything they keep."""
    assert rows(one) == rows(other)
    first, second = final_state(one), final_state(other)
    for state in (first, second):
        state.pop("time_s")
    assert_equal(first, second, "state")


@pytest.fixture
def same_run() -> Callable[[Config, Config], None]:
    return assert_same


@pytest.fixture
def table() -> Callable[[Config], list[list[str]]]:
    return rows


@pytest.fixture
def ended_state() -> Callable[[Config], dict[str, Any]]:
    return final_state
