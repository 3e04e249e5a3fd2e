"""Runs that begin with another one's state."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from train import trainer
from train.config import Config, LmConfig
from train.errors import TrainError
from train.signals import Stop
from train.state import Run

Make = Callable[..., LmConfig]
Table = Callable[[Config], list[list[str]]]
State = Callable[[Config], dict[str, Any]]


@pytest.fixture
def whole(tiny: Make, tmp_path: Any) -> LmConfig:
    """A run of 40 steps whose learning rate rises for ten steps, falls for ten, and stays: in one piece."""
    (tmp_path / "knots.csv").write_text("step,lr\n0,0\n10,0.01\n20,0.002\n40,0.002\n")
    config = tiny("whole", schedule=str(tmp_path / "knots.csv"), averages=["ema_0.9"])
    assert trainer.train(config, Stop()) == 0
    return config


def segments(tiny: Make) -> list[LmConfig]:
    # The warm-up belongs to a schedule.
    both: dict[str, Any] = {"averages": ["ema_0.9"], "warmup": 100}
    first = tiny("first", steps=10, lr1=0.0, lr2=0.01, **both)
    second = tiny("second", steps=20, init_from=first.out, begin=10, lr1=0.01, lr2=0.002, **both)
    third = tiny("third", steps=40, init_from=second.out / "checkpoints" / "20.pt", lr1=0.002, lr2=0.002, **both)
    return [first, second, third]


def test_segments_in_a_row_equal_the_whole_run(tiny: Make, whole: LmConfig, table: Table, ended_state: State) -> None:
    parts = segments(tiny)
    for config in parts:
        assert trainer.train(config, Stop()) == 0
    joined = [row for config in parts for row in table(config)[1:]]
    once = table(whole)[1:]
    # The last step of each segment is evaluated too.
    assert [row[:3] for row in joined] == [row[:3] for row in once]
    assert joined[-1] == once[-1]
    last, state = ended_state(parts[2]), ended_state(whole)
    for key in ("model", "averages", "optimizers", "rngs", "lrs"):
        assert str(last[key]) == str(state[key]), key
    np.testing.assert_array_equal(np.load(parts[2].out / "lr.npy"), np.load(whole.out / "lr.npy"))


@pytest.mark.parametrize("begin", [0, 10])
def test_an_evaluation_before_the_first_step_has_no_training_loss(tiny: Make, table: Table, begin: int) -> None:
    first = segments(tiny)[0]
    assert trainer.train(first, Stop()) == 0
    origin: dict[str, Any] = {"init_from": first.out, "begin": begin} if begin else {}
    config = tiny("evaluated", steps=20, averages=["ema_0.9"], eval_first=True, **origin)
    (record, *_) = train.run(config)
    assert (record.step, record.loss) == (begin, None)
    row = table(config)[1]
    assert (row[0], row[2]) == (str(begin), "")
    assert float(row[3]) == pytest.approx(record.metrics["val_loss"])
    events = EventAccumulator(str(config.out)).Reload()
    assert [event.step for event in events.Scalars("loss/train")] == [*range(begin + 5, 25, 5)]


def test_a_segment_has_its_own_options_of_the_optimizer(tiny: Make, ended_state: State) -> None:
    first, second, _ = segments(tiny)
    assert trainer.train(first, Stop()) == 0
    second = second.model_copy(update={"weight_decay": 0.5, "beta1": 0.8})
    assert trainer.train(second, Stop()) == 0
    decayed, biases = ended_state(second)["optimizers"][0]["param_groups"]
    assert (decayed["weight_decay"], biases["weight_decay"]) == (0.5, 0.0)
    assert decayed["betas"] == (0.8, 0.95)


def test_an_average_that_the_origin_lacks_begins_with_its_weights(tiny: Make) -> None:
    first = tiny("first")
    assert trainer.train(first, Stop()) == 0
    config = tiny("evaluated", steps=60, init_from=first.out, averages=["ema_0.9"], eval_first=True)
    (record, *_) = train.run(config)
    assert record.metrics["val_ema_0.9_loss"] == record.metrics["val_loss"]


def test_a_segment_that_is_interrupted_goes_on(tiny: Make, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, _ = segments(tiny)
    assert trainer.train(first, Stop()) == 0
    stop = Stop()
    own = Run.train_step

    def train_step(run: Run, parts: Any) -> None:
        own(run, parts)
        if run.step == 13:
            stop.receive(signal.SIGTERM, None)

    monkeypatch.setattr(Run, "train_step", train_step)
    assert trainer.train(second, stop) == 75
    monkeypatch.undo()
    assert trainer.train(second, Stop()) == 0
    assert [row[0] for row in table(second)[1:]] == ["15", "20"]
    assert trainer.train(second, Stop()) == 0


def test_what_begins_no_segment_is_told(tiny: Make) -> None:
    first, second, _ = segments(tiny)
    with pytest.raises(TrainError, match=r"init_from: there is no .*first"):
        trainer.train(second, Stop())
    assert trainer.train(first, Stop()) == 0
    for flags, message in (
        ({"begin": 7}, r"first holds no checkpoint of step 7; there are: 10"),
        ({"steps": 10}, "steps is 10: init_from is the state of step 10; no step is left"),
        ({"width": 32}, "the checkpoint of step 10 is of another model: .*size mismatch"),
        ({"optimizer": "muon"}, r"the checkpoint is of another optimizer: optimizer \(adamw there, muon here\)"),
        ({"optimizer": "sgd"}, r"the checkpoint is of another optimizer: optimizer \(adamw there, sgd here\)"),
        ({"amsgrad": True}, r"the checkpoint is of another optimizer: amsgrad \(False there, True here\)"),
    ):
        values = {**second.model_dump(exclude_unset=True), **flags}
        with pytest.raises(TrainError, match=message):
            trainer.train(LmConfig.model_validate(values), Stop())
    assert not second.out.exists()
