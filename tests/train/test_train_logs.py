"""Loggers beside metrics.csv."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from train import checkpoint, evaluate, trainer
from train.config import ImageConfig, LmConfig, TabularConfig
from train.errors import TrainError
from train.logs import Record, duration, number
from train.signals import Stop
from train.usage import MIB, Usage

Make = Callable[..., LmConfig]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(2.3456789, "2.345679"), (0.1, "0.100000"), (0.0, "0.000000"), (math.nan, "nan"), (-math.inf, "-inf")],
        *[(0.0123456789, "0.01234568"), (1.23456789e-5, "1.234568e-05"), (3e-9, "3e-09"), (-2e-4, "-0.0002")],
    ],
)
def test_small_losses_keep_their_digits(value: float, text: str) -> None:
    assert number(value, 6) == text
    row = Record(5, 0.01, value, {"val_loss": value}, 1.5, 2.0).line(["val_loss", "test_loss"])
    assert row == f"5,0.01,{text},{text},,1.500,2.000"


def test_a_loss_near_zero_is_told_by_run_and_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.txt").write_text("".join(f"{n % 7 * 1e-4:g} 1:{n % 5} 2:{n % 3}\n" for n in range(50)))
    options: dict[str, Any] = {"data": str(tmp_path / "small.txt"), "loss": "squared", "steps": 200, "lr": 1e-2}
    config = TabularConfig(out=tmp_path / "run", device="cpu", loggers=[], log_every=100, **options)
    assert trainer.train(config, Stop()) == 0
    assert evaluate.main([str(config.out)]) == 0
    *_, ended, told = capsys.readouterr().out.splitlines()
    last = (config.out / "metrics.csv").read_text().splitlines()[-1].split(",")
    exact = json.loads((config.out / "eval_test.json").read_text())["loss"]
    assert 0 < exact < 1e-2
    assert float(told.split()[1].removeprefix("loss=")) == pytest.approx(exact, rel=1e-4)
    assert float(ended.split()[1].removeprefix("val_loss=")) == pytest.approx(float(last[3]), rel=1e-4)


def test_tensorboard_shows_use_and_texts(tiny: Make) -> None:
    config = tiny(samples=2, steps=20)
    assert trainer.train(config, Stop()) == 0
    events = EventAccumulator(str(config.out)).Reload()
    assert {"use/cpu_percent", "use/memory_mib", "use/steps_per_s"} <= set(events.Tags()["scalars"])
    (text,) = events.Tensors("samples/text_summary")
    assert text.step == 20
    assert text.tensor_proto.string_val[0].decode().count("----\n") == 1


@pytest.mark.parametrize(
    "fault", [RuntimeError("device 0 is not visible"), pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)]
)
def test_a_gpu_whose_driver_tells_no_utilisation_ends_no_run(fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(device: torch.device) -> int:
        asked.append(device)
        raise fault

    monkeypatch.setattr(torch.cuda, "utilization", refuse)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _device: 3 * MIB)
    usage = Usage(torch.device("cuda"))
    for _ in range(2):
        found = usage.now()
        assert found["use/gpu_memory_mib"] == 3
        assert "use/gpu_percent" not in found
    assert len(asked) == 1
    monkeypatch.setattr(torch.cuda, "utilization", lambda _device: 87)
    assert Usage(torch.device("cuda")).now()["use/gpu_percent"] == 87


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

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Image=None, Error=RuntimeError))
    config = tiny(loggers=["wandb"])
    assert trainer.train(config, Stop()) == 0
    (run,) = runs
    name = (config.out / "wandb_id").read_text()
    assert (run.options["id"], run.options["resume"]) == (name, "allow")
    assert run.seen["lr"] == 0.01
    assert [step for step, _ in run.logged] == list(range(5, 45, 5))
    assert run.summary == {"val_loss": run.logged[-1][1]["loss/val"], "completed": True}
    assert run.finished
    assert not list(config.out.glob("events.*"))

    # Another one in its place.
    (config.out / checkpoint.DIRECTORY / "40.pt").unlink()
    assert trainer.train(tiny(loggers=["wandb"], seed=1), Stop()) == 0
    assert runs[1].options["id"] not in ("", name)


def test_why_weights_and_biases_does_not_begin_is_told(tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise RuntimeError("No API key configured.")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Image=None, Error=RuntimeError))
    with pytest.raises(TrainError, match="loggers: wandb: No API key configured"):
        trainer.train(tiny(loggers=["wandb"]), Stop())


def test_a_logger_that_is_not_installed_is_told(tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = tiny(loggers=["tensorboard", "wandb"])
    with pytest.raises(TrainError, match="loggers: wandb needs the package wandb"):
        trainer.train(config, Stop())
    # What wandb leaves where it logs looks like a package.
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))
    with pytest.raises(TrainError, match="loggers: wandb needs the package wandb"):
        trainer.train(config, Stop())
    assert not config.out.exists()


def test_a_split_named_train_stands_beside_the_mean_of_the_steps(tiny: Make) -> None:
    config = tiny(eval_splits={"train": "train[:10%]"})
    assert trainer.train(config, Stop()) == 0
    events = EventAccumulator(str(config.out)).Reload()
    row = (config.out / "metrics.csv").read_text().splitlines()[-1].split(",")
    for tag, column in (("loss/train", 2), ("loss/train_split", 3)):
        assert events.Scalars(tag)[-1].value == pytest.approx(float(row[column]), abs=1e-5)


@pytest.mark.parametrize(("seconds", "text"), [(3.2, "3 s"), (75, "1m15s"), (7300, "2h01m")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
