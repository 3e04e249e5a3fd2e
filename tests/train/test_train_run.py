"""Whole runs: what they learn, what they write, and that an interruption leaves no trace."""

import csv
import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from train import checkpoint, trainer
from train.config import Config
from train.errors import TrainError
from train.model import build
from train.signals import Stop

Make = Callable[..., Config]
AfterStep = Callable[[int, Callable[[], None]], None]


def rows(config: Config) -> list[list[str]]:
    """Return the lines of metrics.csv without the time."""
    with (config.out / "metrics.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["step", "lr", "loss", "val_loss", "time_s"]
    return [line[:-1] for line in lines]


def weights(config: Config) -> dict[str, torch.Tensor]:
    state = checkpoint.load(config.out)
    assert state is not None
    assert state["step"] == config.steps
    return dict(state["model"])


def assert_same_run(one: Config, other: Config) -> None:
    assert rows(one) == rows(other)
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.fixture
def after_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Let something happen once, just after a step, as a signal or a fault would."""

    def at(step: int, act: Callable[[], None]) -> None:
        own = trainer.Run.train_step
        pending = [act]

        def train_step(run: trainer.Run) -> None:
            own(run)
            if run.step == step and pending:
                pending.pop()()

        monkeypatch.setattr(trainer.Run, "train_step", train_step)

    return at


def test_a_run_learns_and_writes_its_files(tiny: Make, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny(steps=300, warmup=20, log_every=50, eval_every=100, width=32)
    assert trainer.train(config, Stop()) == 0

    table = rows(config)[1:]
    assert [int(row[0]) for row in table] == [50, 100, 150, 200, 250, 300]
    losses = [float(row[2]) for row in table]
    assert math.log(24) < losses[0] < math.log(256), "the first mean lies between knowing the letters and nothing"
    assert losses[-1] < 1.9, "words are easier than letters"
    assert [bool(row[3]) for row in table] == [False, True] * 3
    assert abs(float(table[-1][3]) - losses[-1]) < 0.3

    lrs = np.load(config.out / "lr.npy")
    np.testing.assert_array_equal(lrs, config.lrs())
    assert [float(row[1]) for row in table] == [lrs[int(row[0]) - 1] for row in table]

    described = json.loads((config.out / "config.json").read_text())
    assert described["schedule"] == "wsd"
    assert described["n_params"] == 256 * 32 + 16 * 32 + 12 * 32 * 32 + 3 * 32
    assert described["data_bytes"] == sum(described[f"{name}_bytes"] for name in ("train", "val", "test"))

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert lines[1].startswith(f"step 100/300 loss {losses[1]:.4f} val {float(table[1][3]):.4f} lr 1.00e-02 ")
    assert lines[-1].startswith(f"done: val_loss={float(table[-1][3]):.4f} steps=300 time=")
    assert not list(config.out.glob("*.tmp"))


def test_rows_are_means_over_all_steps_since_the_last_one(tiny: Make) -> None:
    fine, coarse = tiny("fine", log_every=1, eval_every=0), tiny("coarse", log_every=7, eval_every=10)
    trainer.train(fine, Stop())
    trainer.train(coarse, Stop())
    every = [float(row[2]) for row in rows(fine)[1:]]
    assert len(every) == 40
    table = rows(coarse)[1:]
    steps = [int(row[0]) for row in table]
    assert steps == sorted({*range(7, 41, 7), 10, 20, 30, 40})
    assert [step for step, row in zip(steps, table, strict=True) if row[3]] == [10, 20, 30, 40]
    for begin, end, row in zip([0, *steps], steps, table, strict=False):
        assert float(row[2]) == pytest.approx(np.mean(every[begin:end]), abs=2e-6)


def test_the_seed_decides_every_bit(tiny: Make) -> None:
    first, second, other = tiny("first"), tiny("second"), tiny("other", seed=1)
    for config in (first, second, other):
        assert trainer.train(config, Stop()) == 0
    assert_same_run(first, second)
    assert rows(first) != rows(other)


def test_the_schedule_is_followed(tiny: Make, tmp_path: Path) -> None:
    path = tmp_path / "still.npy"
    np.save(path, np.zeros(40))
    still, moving = tiny("still", schedule=str(path), weight_decay=0.0), tiny("moving", weight_decay=0.0)
    trainer.train(still, Stop())
    trainer.train(moving, Stop())
    initial = build(still).state_dict()
    assert all(torch.equal(initial[name], value) for name, value in weights(still).items())
    assert not any(torch.equal(initial[name], value) for name, value in weights(moving).items())


@pytest.mark.parametrize("step", [1, 7, 10, 15, 20, 39])
def test_a_signal_at_any_step_leaves_no_trace(
    tiny: Make, after_step: AfterStep, capsys: pytest.CaptureFixture[str], step: int
) -> None:
    config, undisturbed = tiny("stopped"), tiny("undisturbed")
    stop = Stop()
    after_step(step, lambda: stop.receive(signal.SIGTERM, None))
    assert trainer.train(config, stop) == 75
    assert f"stopped by SIGTERM: step={step} " in capsys.readouterr().out
    state = checkpoint.load(config.out)
    assert state is not None
    assert state["step"] == step
    assert trainer.train(config, Stop()) == 0
    assert f"resuming after step {step} of 40" in capsys.readouterr().out
    assert trainer.train(undisturbed, Stop()) == 0
    assert_same_run(config, undisturbed)


def fault() -> None:
    raise RuntimeError("fault")


@pytest.mark.parametrize(("step", "saved"), [(3, 0), (15, 0), (29, 15), (30, 15), (38, 30)])
def test_a_fault_at_any_step_leaves_no_trace(tiny: Make, after_step: AfterStep, step: int, saved: int) -> None:
    config, undisturbed = tiny("fault"), tiny("undisturbed")
    after_step(step, fault)
    with pytest.raises(RuntimeError, match="fault"):
        trainer.train(config, Stop())
    state = checkpoint.load(config.out)
    assert (state["step"] if state else 0) == saved
    assert trainer.train(config, Stop()) == 0
    assert trainer.train(undisturbed, Stop()) == 0
    assert_same_run(config, undisturbed)


def test_a_fault_while_the_checkpoint_is_written_keeps_the_old_one(tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config, undisturbed = tiny("torn"), tiny("undisturbed")
    write = torch.save

    def torn(state: dict[str, Any], file: Any) -> None:
        write(state, file)
        if state["step"] == 30:
            file.seek(1000)
            file.truncate()
            fault()

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(RuntimeError, match="fault"):
        trainer.train(config, Stop())
    monkeypatch.undo()
    state = checkpoint.load(config.out)
    assert state is not None
    assert state["step"] == 15
    assert trainer.train(config, Stop()) == 0
    assert trainer.train(undisturbed, Stop()) == 0
    assert_same_run(config, undisturbed)


def test_a_finished_run_is_left_alone(tiny: Make, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny()
    assert trainer.train(config, Stop()) == 0
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in config.out.iterdir()}
    capsys.readouterr()
    assert trainer.train(config, Stop()) == 0
    assert capsys.readouterr().out.startswith("finished before: val_loss=")
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in config.out.iterdir()} == before


def test_another_configuration_is_refused(tiny: Make, text_file: Path, tmp_path: Path) -> None:
    assert trainer.train(tiny(), Stop()) == 0
    with pytest.raises(TrainError, match=r"different lr \(0\.01 there, 0\.02 here\), seed \(0 there, 1 here\);"):
        trainer.train(tiny(lr=0.02, seed=1), Stop())
    assert trainer.train(tiny(threads=0, checkpoint_every=1), Stop()) == 0

    text = tmp_path / "text"
    text.write_bytes(text_file.read_bytes())
    config = tiny("other", data=str(text))
    assert trainer.train(config, Stop()) == 0
    text.write_bytes(text_file.read_bytes() + b"!")
    with pytest.raises(TrainError, match="different data's content"):
        trainer.train(config, Stop())


def test_a_schedule_file_that_changed_is_refused(tiny: Make, after_step: AfterStep, tmp_path: Path) -> None:
    path = tmp_path / "lrs.npy"
    np.save(path, np.full(40, 0.01))
    config, stop = tiny(schedule=str(path)), Stop()
    after_step(20, lambda: stop.receive(signal.SIGUSR1, None))
    assert trainer.train(config, stop) == 75
    np.save(path, np.full(40, 0.02))
    with pytest.raises(TrainError, match=r"lr\.npy differs from the schedule .*lrs\.npy"):
        trainer.train(config, Stop())


def test_what_cannot_be_resumed_is_told(tiny: Make, after_step: AfterStep) -> None:
    config, stop = tiny(), Stop()
    after_step(20, lambda: stop.receive(signal.SIGTERM, None))
    assert trainer.train(config, stop) == 75
    (config.out / "metrics.csv").write_text("step,lr,loss,val_loss,time_s\n5,0.01,3.0,,0.1\n")
    with pytest.raises(TrainError, match=r"metrics\.csv lacks the row of step 20"):
        trainer.train(config, Stop())
    (config.out / "checkpoint.pt").write_bytes(b"torn")
    with pytest.raises(TrainError, match=r"cannot read .*checkpoint\.pt .*remove it to begin anew"):
        trainer.train(config, Stop())


def test_a_checkpoint_is_never_unpickled(tiny: Make, tmp_path: Path) -> None:
    config, proof = tiny(), tmp_path / "executed"
    config.out.mkdir()

    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (proof,)

    torch.save({"format": checkpoint.FORMAT, "model": Code()}, config.out / "checkpoint.pt")
    with pytest.raises(TrainError, match="cannot read"):
        trainer.train(config, Stop())
    assert not proof.exists()


def test_divergence_ends_with_its_own_code(tiny: Make, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny(lr=1e38, clip=0.0)
    assert trainer.train(config, Stop()) == 76
    assert capsys.readouterr().out.splitlines()[-1].startswith("diverged: loss=nan step=5 lr=")
    assert [row[0] for row in rows(config)] == ["step", "5"]
    assert not (config.out / "checkpoint.pt").exists()


@pytest.mark.parametrize("flags", [{"data": "absent"}, {"context": 20_000}, {"device": "cuda:99"}])
def test_what_makes_no_run_writes_nothing(tiny: Make, flags: dict[str, Any]) -> None:
    config = tiny(**flags)
    with pytest.raises(TrainError):
        trainer.train(config, Stop())
    assert not config.out.exists()


def test_a_place_that_cannot_be_written_is_told(tiny: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainError, match=r"cannot write to .*file"):
        trainer.train(tiny("file"), Stop())
