"""Loggers beside metrics.csv."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from train import trainer
from train.config import ImageConfig, LmConfig
from train.errors import TrainError
from train.logs import duration
from train.signals import Stop

Make = Callable[..., LmConfig]


def test_tensorboard_shows_use_and_texts(tiny: Make) -> None:
    config = tiny(samples=2, steps=20)
    assert trainer.train(config, Stop()) == 0
    events = EventAccumulator(str(config.out)).Reload()
    assert {"use/cpu_percent", "use/memory_mib", "use/steps_per_s"} <= set(events.Tags()["scalars"])
    (text,) = events.Tensors("samples/text_summary")
    assert text.step == 20
    assert text.tensor_proto.string_val[0].decode().count("----\n") == 1


def test_tensorboard_shows_images(tmp_path: Path) -> None:
    config = ImageConfig(out=tmp_path, steps=2, warmup=0, samples=3, batch=8, eval_examples=8, device="cpu")
    assert trainer.train(config, Stop()) == 0
    events = EventAccumulator(str(tmp_path)).Reload()
    (images,) = events.Images("samples")
    assert (images.step, images.width, images.height) == (2, 3 * 8, 8)


def test_samples_do_not_change_the_run(tiny: Make, table: Callable[[LmConfig], list[list[str]]]) -> None:
    shown, plain = tiny("shown", samples=1, dropout=0.2), tiny("plain", dropout=0.2)
    for config in (shown, plain):
        assert trainer.train(config, Stop()) == 0
    assert table(shown) == table(plain)


class FakeRun:
    """What a run of wandb is used for."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.seen: dict[str, Any] = {}
        self.config = SimpleNamespace(update=lambda values, **_: self.seen.update(values))
        self.summary: dict[str, Any] = {}
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.finished = False

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


def test_weights_and_biases_gets_the_same_numbers(tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[FakeRun] = []

    def init(**options: Any) -> FakeRun:
        runs.append(FakeRun(**options))
        return runs[-1]

    util = SimpleNamespace(generate_id=lambda: "abc123")
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, util=util))
    config = tiny(loggers=["wandb"])
    assert trainer.train(config, Stop()) == 0
    (run,) = runs
    assert (run.options["id"], run.options["resume"]) == ("abc123", "allow")
    assert run.seen["lr"] == 0.01
    assert [step for step, _ in run.logged] == list(range(5, 45, 5))
    assert run.summary == {"val_loss": run.logged[-1][1]["loss/val"], "completed": True}
    assert run.finished
    assert not list(config.out.glob("events.*"))


def test_a_logger_that_is_not_installed_is_told(tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = tiny(loggers=["tensorboard", "wandb"])
    with pytest.raises(TrainError, match="loggers: wandb needs the package wandb"):
        trainer.train(config, Stop())
    assert not config.out.exists()


@pytest.mark.parametrize(("seconds", "text"), [(3.2, "3 s"), (75, "1m15s"), (7300, "2h01m")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
