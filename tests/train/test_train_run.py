"""Whole runs: what they learn, what they write, and that an interruption leaves no trace."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import train
from train import checkpoint, trainer
from train.config import Config, LmConfig
from train.errors import TrainError
from train.flags import parse
from train.signals import Stop
from train.state import Run
from train.tasks import make_task

Make = Callable[..., LmConfig]
AfterStep = Callable[[int, Callable[[], None]], None]
Same = Callable[[Config, Config], None]
Table = Callable[[Config], list[list[str]]]
State = Callable[[Config], dict[str, Any]]


@pytest.fixture
def after_step(monkeypatch: pytest.MonkeyPatch) -> AfterStep:
    """Let something happen once, just after a step, as a signal or a fault would."""

    def at(step: int, act: Callable[[], None]) -> None:
        own = Run.train_step
        pending = [act]

        def train_step(run: Run, parts: Any) -> None:
            own(run, parts)
            if run.step == step and pending:
                pending.pop()()

        monkeypatch.setattr(Run, "train_step", train_step)

    return at


def test_a_run_learns_and_writes_its_files(tiny: Make, table: Table, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny(steps=300, warmup=20, log_every=50, eval_every=100, width=32)
    assert trainer.train(config, Stop()) == 0

    lines = table(config)
    assert lines[0] == ["step", "lr", "loss", "val_loss"]
    found = lines[1:]
    assert [int(row[0]) for row in found] == [50, 100, 150, 200, 250, 300]
    losses = [float(row[2]) for row in found]
    assert math.log(24) < losses[0] < math.log(256), "the first mean lies between knowing the letters and nothing"
    assert losses[-1] < 1.9, "words are easier than letters"
    assert [bool(row[3]) for row in found] == [False, True] * 3
    assert abs(float(found[-1][3]) - losses[-1]) < 0.3

    lrs = np.load(config.out / "lr.npy")
    np.testing.assert_array_equal(lrs, config.lrs())
    assert [float(row[1]) for row in found] == [lrs[int(row[0]) - 1] for row in found]

    about = json.loads((config.out / "about.json").read_text())
    assert about["n_params"] == 256 * 32 + 16 * 32 + 12 * 32 * 32 + 3 * 32
    assert about["data_bytes"] == sum(about[f"{name}_tokens"] for name in ("train", "val", "test"))

    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 7
    assert printed[1].startswith(f"step 100/300 loss {losses[1]:.4f} val_loss {float(found[1][3]):.4f} lr 1.00e-02 ")
    assert printed[-1].startswith(f"done: val_loss={float(found[-1][3]):.4f} steps=300 time=")
    assert not list(config.out.rglob("*.tmp"))


def test_the_written_config_trains_the_same_again(tiny: Make, tmp_path: Path, same_run: Same) -> None:
    config = tiny("first", steps="320 samples", warmup="0.0005 epochs", averages=["ema_0.9"])
    assert trainer.train(config, Stop()) == 0
    written = yaml.safe_load((config.out / "config.yaml").read_text())
    assert (written["steps"], written["order_seed"], written["monitor"]) == (80, 0, "val_loss")
    assert written["warmup"] == math.ceil(0.0005 * json.loads((config.out / "about.json").read_text())["epoch"] / 4)
    again = parse(["--config", str(config.out / "config.yaml"), "--out", str(tmp_path / "again")])
    assert trainer.train(again, Stop()) == 0
    assert (again.out / "config.yaml").read_text() == (config.out / "config.yaml").read_text()
    first, second = (checkpoint.load_newest(path) for path in (config.out, again.out))
    assert first is not None
    assert second is not None
    assert all(torch.equal(value, second["model"][name]) for name, value in first["model"].items())


def test_records_come_at_each_evaluation(tiny: Make) -> None:
    config = tiny(averages=["poly_1"], eval_first=True, eval_splits={"val": "val", "late": "train[-1000:]"})
    records = list(train.run(config))
    assert [record.step for record in records] == [0, 20, 40]
    assert list(records[0].metrics) == ["val_loss", "val_poly_1_loss", "late_loss", "late_poly_1_loss"]
    assert all(record.metrics.keys() == records[0].metrics.keys() for record in records)
    assert records[2].metrics["late_loss"] < records[1].metrics["late_loss"] < records[0].metrics["late_loss"]


def test_rows_are_means_over_all_steps_since_the_last_one(tiny: Make, table: Table) -> None:
    fine, coarse = tiny("fine", log_every=1, eval_every=0), tiny("coarse", log_every=7, eval_every=10)
    trainer.train(fine, Stop())
    trainer.train(coarse, Stop())
    every = [float(row[2]) for row in table(fine)[1:]]
    assert len(every) == 40
    found = table(coarse)[1:]
    steps = [int(row[0]) for row in found]
    assert steps == sorted({*range(7, 41, 7), 10, 20, 30, 40})
    assert [step for step, row in zip(steps, found, strict=True) if row[3]] == [10, 20, 30, 40]
    for begin, end, row in zip([0, *steps], steps, found, strict=False):
        assert float(row[2]) == pytest.approx(np.mean(every[begin:end]), abs=2e-6)


def test_parts_of_a_batch_add_up_to_it(tiny: Make, table: Table) -> None:
    whole, parts = tiny("whole", batch=8), tiny("parts", batch=8, accumulate=4)
    for config in (whole, parts):
        assert trainer.train(config, Stop()) == 0
    first, second = ([float(row[2]) for row in table(config)[1:]] for config in (whole, parts))
    assert first == pytest.approx(second, abs=1e-4)


def test_seeds_of_model_and_order_are_separate(tiny: Make, same_run: Same, table: Table) -> None:
    plain, again = tiny("plain", log_every=1), tiny("again", log_every=1, order_seed=0)
    model, order = tiny("model", seed=1, order_seed=0), tiny("order", order_seed=1)
    for config in (plain, again, model, order):
        assert trainer.train(config, Stop()) == 0
    assert table(plain) == table(again)
    assert len({str(table(config)) for config in (plain, model, order)}) == 3
    batches = {
        name: make_task(config).training.batch(Run(config, make_task(config), world()).parts.order.indices(3))[0]
        for name, config in (("plain", plain), ("model", model), ("order", order))
    }
    assert torch.equal(batches["plain"], batches["model"])
    assert not torch.equal(batches["plain"], batches["order"])


def world() -> Any:
    from train.world import World

    return World(0, 1, torch.device("cpu"))


def test_the_schedule_is_followed(tiny: Make, tmp_path: Path, ended_state: State) -> None:
    path = tmp_path / "still.npy"
    np.save(path, np.zeros(40))
    still, moving = tiny("still", schedule=str(path), weight_decay=0.0), tiny("moving", weight_decay=0.0)
    trainer.train(still, Stop())
    trainer.train(moving, Stop())
    initial = Run(still, make_task(still), world()).model.state_dict()
    assert all(torch.equal(initial[name], value) for name, value in ended_state(still)["model"].items())
    assert not any(torch.equal(initial[name], value) for name, value in ended_state(moving)["model"].items())


@pytest.mark.parametrize("step", [1, 7, 10, 15, 20, 39])
def test_a_signal_at_any_step_leaves_no_trace(
    tiny: Make, after_step: AfterStep, same_run: Same, capsys: pytest.CaptureFixture[str], step: int
) -> None:
    config, undisturbed = tiny("stopped"), tiny("undisturbed")
    stop = Stop()
    after_step(step, lambda: stop.receive(signal.SIGTERM, None))
    assert trainer.train(config, stop) == 75
    assert f"stopped by SIGTERM: step={step} " in capsys.readouterr().out
    state = checkpoint.load_newest(config.out)
    assert state is not None
    assert state["step"] == step
    assert trainer.train(config, Stop()) == 0
    assert f"resuming after step {step} of 40" in capsys.readouterr().out
    assert trainer.train(undisturbed, Stop()) == 0
    same_run(config, undisturbed)


def fault() -> None:
    raise RuntimeError("fault")


@pytest.mark.parametrize(("step", "saved"), [(3, 0), (15, 0), (29, 15), (30, 15), (38, 30)])
def test_a_fault_at_any_step_leaves_no_trace(
    tiny: Make, after_step: AfterStep, same_run: Same, step: int, saved: int
) -> None:
    config, undisturbed = tiny("fault"), tiny("undisturbed")
    after_step(step, fault)
    with pytest.raises(RuntimeError, match="fault"):
        trainer.train(config, Stop())
    state = checkpoint.load_newest(config.out)
    assert (state["step"] if state else 0) == saved
    assert trainer.train(config, Stop()) == 0
    assert trainer.train(undisturbed, Stop()) == 0
    same_run(config, undisturbed)


@pytest.mark.parametrize("task", ["lm", "image", "tabular"])
def test_faults_leave_no_trace_with_everything_on(
    busy_in: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_run: Same, task: str
) -> None:
    config, undisturbed = busy_in(task, tmp_path / "faults"), busy_in(task, tmp_path / "undisturbed")
    assert trainer.train(undisturbed, Stop()) == 0
    own = Run.train_step
    pending = [4, 13, 14, 33]

    def train_step(run: Run, parts: Any) -> None:
        own(run, parts)
        if pending and run.step == pending[0]:
            pending.pop(0)
            fault()

    monkeypatch.setattr(Run, "train_step", train_step)
    while pending:
        with pytest.raises(RuntimeError, match="fault"):
            trainer.train(config, Stop())
    assert trainer.train(config, Stop()) == 0
    same_run(config, undisturbed)
    assert [path.name for path in checkpoint.saved(config.out)] == [
        path.name for path in checkpoint.saved(undisturbed.out)
    ]


def test_a_fault_while_the_checkpoint_is_written_keeps_the_old_one(
    tiny: Make, monkeypatch: pytest.MonkeyPatch, same_run: Same
) -> None:
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
    state = checkpoint.load_newest(config.out)
    assert state is not None
    assert state["step"] == 15
    assert trainer.train(config, Stop()) == 0
    assert trainer.train(undisturbed, Stop()) == 0
    same_run(config, undisturbed)


def contents(directory: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in directory.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_a_finished_run_is_left_alone(tiny: Make, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny()
    assert trainer.train(config, Stop()) == 0
    before = contents(config.out)
    capsys.readouterr()
    assert trainer.train(config, Stop()) == 0
    assert capsys.readouterr().out.startswith("finished before: val_loss=")
    assert contents(config.out) == before


def test_another_configuration_is_refused(tiny: Make, text_file: Path, tmp_path: Path) -> None:
    assert trainer.train(tiny(), Stop()) == 0
    with pytest.raises(TrainError, match=r"different lr \(0\.01 there, 0\.02 here\), seed \(0 there, 1 here\);"):
        trainer.train(tiny(lr=0.02, seed=1), Stop())
    assert trainer.train(tiny(threads=2, checkpoint_every=1), Stop()) == 0

    text = tmp_path / "text"
    text.write_bytes(text_file.read_bytes())
    config = tiny("other", data=str(text))
    assert trainer.train(config, Stop()) == 0
    text.write_bytes(text_file.read_bytes() + b"!")
    with pytest.raises(TrainError, match="the data has changed"):
        trainer.train(config, Stop())


def test_a_default_that_changes_does_not_change_an_old_run(
    tiny: Make, after_step: AfterStep, monkeypatch: pytest.MonkeyPatch, same_run: Same
) -> None:
    config, undisturbed, stop = tiny("old"), tiny("undisturbed"), Stop()
    assert trainer.train(undisturbed, Stop()) == 0
    after_step(20, lambda: stop.receive(signal.SIGTERM, None))
    assert trainer.train(config, stop) == 75
    own = config.model_dump(exclude_unset=True)
    newer = LmConfig(**own).model_copy(update={"weight_decay": 0.7, "beta2": 0.5})
    newer.model_fields_set.difference_update({"weight_decay", "beta2"})
    assert trainer.train(newer, Stop()) == 0
    same_run(config, undisturbed)
    with pytest.raises(TrainError, match=r"different weight_decay \(0\.1 there, 0\.7 here\)"):
        trainer.train(LmConfig(**own, weight_decay=0.7), Stop())


def test_two_processes_do_not_train_in_one_directory(tiny: Make) -> None:
    config = tiny()
    config.out.mkdir()
    code = (
        "import sys; from pathlib import Path; from train.checkpoint import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(config.out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TrainError, match=r"another process is training in .*run"):
            trainer.train(config, Stop())
        holder.communicate()
    assert trainer.train(config, Stop()) == 0


def test_a_schedule_file_that_changed_is_refused(tiny: Make, after_step: AfterStep, tmp_path: Path) -> None:
    path = tmp_path / "lrs.npy"
    np.save(path, np.full(40, 0.01))
    config, stop = tiny(schedule=str(path)), Stop()
    after_step(20, lambda: stop.receive(signal.SIGUSR1, None))
    assert trainer.train(config, stop) == 75
    np.save(path, np.full(40, 0.02))
    with pytest.raises(TrainError, match=r"the schedule .*lrs\.npy has changed"):
        trainer.train(config, Stop())


def test_what_cannot_be_resumed_is_told(tiny: Make, after_step: AfterStep) -> None:
    config, stop = tiny(), Stop()
    after_step(20, lambda: stop.receive(signal.SIGTERM, None))
    assert trainer.train(config, stop) == 75
    (config.out / "metrics.csv").write_text("step,lr,loss,val_loss,time_s,time\n5,0.01,3.0,,0.1,1\n")
    with pytest.raises(TrainError, match=r"metrics\.csv lacks the row of step 20"):
        trainer.train(config, Stop())
    (config.out / "checkpoints" / "20.pt").write_bytes(b"torn")
    with pytest.raises(TrainError, match=r"cannot read .*20\.pt .*remove it to go on from"):
        trainer.train(config, Stop())


def test_a_checkpoint_in_which_a_bit_has_changed_is_told(tiny: Make) -> None:
    config = tiny()
    assert trainer.train(config, Stop()) == 0
    (path,) = checkpoint.saved(config.out)
    content = path.read_bytes()
    weights = checkpoint.load(path)["model"]["tokens.weight"].numpy().tobytes()
    place = content.index(weights) + len(weights) // 2
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(TrainError, match=r"cannot read .*40\.pt \(it is damaged: a checksum differs\); remove it"):
        checkpoint.load(path)
    path.write_bytes(content[:-30] + b"PK" + content[-28:])
    with pytest.raises(TrainError, match=r"cannot read .*40\.pt"):
        checkpoint.load(path)


def test_a_file_that_is_no_checkpoint_begins_no_run(tiny: Make, tmp_path: Path) -> None:
    other = tmp_path / "config.yaml"
    other.write_text("lr: 0.1\n")
    with pytest.raises(TrainError, match=r"cannot read .*config\.yaml .*; init_from takes one that") as caught:
        trainer.train(tiny(init_from=other), Stop())
    assert "remove" not in str(caught.value)


def test_a_checkpoint_is_never_unpickled(tiny: Make, tmp_path: Path) -> None:
    config, proof = tiny(), tmp_path / "executed"
    (config.out / "checkpoints").mkdir(parents=True)

    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (proof,)

    torch.save({"format": checkpoint.FORMAT, "model": Code()}, config.out / "checkpoints" / "1.pt")
    with pytest.raises(TrainError, match="cannot read"):
        trainer.train(config, Stop())
    assert not proof.exists()


@pytest.mark.parametrize(("flags", "loss"), [({"lr": 1e38, "clip": 0.0}, "nan"), ({"max_loss": 3.0}, "5.")])
def test_divergence_ends_with_its_own_code(
    tiny: Make, table: Table, capsys: pytest.CaptureFixture[str], flags: dict[str, Any], loss: str
) -> None:
    config = tiny(**flags)
    assert trainer.train(config, Stop()) == 76
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"diverged: loss={loss}")
    assert [row[0] for row in table(config)] == ["step", "5"]
    assert not (config.out / "checkpoints").exists()


def test_weights_that_are_not_finite_replace_no_checkpoint(
    tiny: Make, table: Table, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Run.add_gradient

    def add_gradient(run: Run, *part: Any) -> None:
        own(run, *part)
        if run.step == 31:
            run.parameters[0].grad = torch.full_like(run.parameters[0], torch.nan)

    monkeypatch.setattr(Run, "add_gradient", add_gradient)
    config = tiny(log_every=40, eval_every=40)
    config = config.model_copy(update={"checkpoint_every": 3})
    assert trainer.train(config, Stop()) == 76
    assert capsys.readouterr().out.splitlines()[-1].startswith("diverged: loss=")
    assert [row[0] for row in table(config)] == ["step", "33"]
    assert [path.name for path in checkpoint.saved(config.out)] == ["30.pt"]


def test_a_run_ends_early_when_nothing_gets_better(tiny: Make, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny(schedule="constant", lr=1e-12, weight_decay=0.0, warmup=0, patience=2, eval_every=3, steps=400)
    assert trainer.train(config, Stop()) == 0
    printed = capsys.readouterr().out.splitlines()[-1]
    assert printed.startswith("done, early: best val_loss at step ")
    state = checkpoint.load_newest(config.out)
    assert state is not None
    assert state["step"] - state["best"]["step"] == 6
    assert state["step"] < 400
    assert trainer.train(config, Stop()) == 0
    assert capsys.readouterr().out.startswith("finished before: ")


def test_the_best_checkpoint_is_that_of_the_best_value(
    busy_in: Callable[..., Config], tmp_path: Path, table: Table
) -> None:
    config = busy_in("tabular", tmp_path, monitor="val_accuracy", patience=0, lr=1.0, schedule="constant", workers=0)
    assert trainer.train(config, Stop()) == 0
    lines = table(config)
    column = lines[0].index("val_accuracy")
    values = {int(row[0]): float(row[column]) for row in lines[1:] if row[column]}
    best = checkpoint.load(config.out / "checkpoints" / "best.pt")
    assert best["step"] == max(values, key=lambda step: (values[step], -step))
    assert [path.name for path in checkpoint.saved(config.out)] == ["55.pt", "60.pt"]


@pytest.mark.parametrize(
    "flags",
    [
        {"data": "absent"},
        {"context": 20_000},
        {"device": "cuda:99"},
        {"device": "meta"},
        {"monitor": "val_accuracy"},
        {"lr_scales": {"tokenz": 2}},
        {"eval_splits": {"val": "valid"}},
        {"init_from": "absent.pt"},
    ],
)
def test_what_makes_no_run_writes_nothing(tiny: Make, flags: dict[str, Any]) -> None:
    config = tiny(**flags)
    with pytest.raises(TrainError):
        trainer.train(config, Stop())
    assert not config.out.exists()


def test_a_place_that_cannot_be_written_is_told(tiny: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainError, match=r"cannot write to .*file"):
        trainer.train(tiny("file"), Stop())
