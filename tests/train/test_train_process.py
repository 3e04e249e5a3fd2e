"""The program as a process: real signals, exit codes, streams."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from train import checkpoint, trainer
from train.config import Config
from train.signals import Stop

Make = Callable[..., Config]
FlagsOf = Callable[[Config], list[str]]
TIMEOUT_S = 60


def start(module: str, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", module, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(directory), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def age_events(directory: Path) -> None:
    """Make event files a second older: they are read in the order of the seconds in their names."""
    for path in directory.glob("events.out.tfevents.*"):
        seconds = path.name.split(".")[3]
        path.rename(path.with_name(path.name.replace(seconds, f"{int(seconds) - 1:010}")))


def without_time(directory: Path) -> list[str]:
    return [line.rpartition(",")[0] for line in (directory / "metrics.csv").read_text().splitlines()]


LONG = {"steps": 3000, "log_every": 10, "checkpoint_every": 70}


@pytest.fixture(scope="module")
def undisturbed(tiny_in: Make, tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = tiny_in(tmp_path_factory.mktemp("undisturbed"), **LONG)
    assert trainer.train(config, Stop()) == 0
    return config


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGUSR1, 75), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_a_process_that_is_ended_and_resumed_equals_an_undisturbed_one(
    tiny: Make, undisturbed: Config, flags_of: FlagsOf, number: signal.Signals, code: int
) -> None:
    config = tiny(**LONG)
    process = start("train", *flags_of(config))
    assert process.stdout is not None
    # Each line is flushed, so the process is at step 500 or a little further, far from its end.
    while not process.stdout.readline().startswith("step 500/"):
        assert process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == code, errors
    assert errors == ""
    state = checkpoint.load(config.out)
    assert state is not None
    assert 490 <= state["step"] < 3000
    if number == signal.SIGKILL:
        assert state["step"] % 70 == 0

    age_events(config.out)
    assert trainer.train(config, Stop()) == 0
    assert scalars(config.out) == scalars(undisturbed.out)
    assert without_time(config.out) == without_time(undisturbed.out)
    first, second = checkpoint.load(config.out), checkpoint.load(undisturbed.out)
    assert first is not None
    assert second is not None
    assert all(torch.equal(value, second["model"][name]) for name, value in first["model"].items())


def test_a_signal_before_the_first_step_is_kept(tiny: Make, flags_of: FlagsOf) -> None:
    config = tiny(steps=100_000)
    code = (
        "import os, signal, sys; from train import __main__ as program; own = program.Stop.install\n"
        "def install(stop): own(stop); os.kill(os.getpid(), signal.SIGTERM); return stop\n"
        "program.Stop.install = install; sys.exit(program.main())"
    )
    command = [sys.executable, "-c", code, *flags_of(config)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert ended.returncode == 75, ended.stderr
    assert "stopped by SIGTERM: step=1 " in ended.stdout


def test_train_and_evaluate_as_commands(tiny: Make, flags_of: FlagsOf) -> None:
    config = tiny()
    process = start("train", *flags_of(config))
    output, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (0, "")
    assert output.splitlines()[-1].startswith("done: val_loss=")

    process = start("train.evaluate", str(config.out), "--split", "val")
    output, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (0, "")
    assert output.startswith("split=val loss=")

    process = start("train", *flags_of(tiny(seed=1)))
    output, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, output) == (2, "")
    assert errors.startswith(f"train: error: {config.out} holds a checkpoint of another run: different seed (0 there")
    assert errors.count("\n") == 1


def test_divergence_and_bad_data_as_exit_codes(tiny: Make, flags_of: FlagsOf) -> None:
    process = start("train", *flags_of(tiny(lr=1e38, clip=0.0)))
    output, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (76, "")
    assert output.splitlines()[-1].startswith("diverged: ")

    config = tiny("other", data="absent")
    process = start("train", *flags_of(config))
    output, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, output) == (2, "")
    assert errors == "train: error: no data at absent: allowed are 'stdlib', a text file or a directory of them\n"
    assert not config.out.exists()
