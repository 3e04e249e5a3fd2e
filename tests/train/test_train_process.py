"""The program as a process: real signals, exit codes, streams."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from train import checkpoint, trainer
from train.config import CONFIGS, Config
from train.signals import Stop

Make = Callable[..., Config]
FlagsOf = Callable[[Config], list[str]]
Same = Callable[[Config, Config], None]
TIMEOUT_S = 60
KILLING = Path(__file__).with_name("killing.py")


def start(module: str, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", module, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the scalars but those of time and use."""
    events = EventAccumulator(str(directory), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith("use/")]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def age_events(directory: Path) -> None:
    """Make event files a second older: they are read in the order of the seconds in their names."""
    for path in directory.glob("events.out.tfevents.*"):
        seconds = path.name.split(".")[3]
        path.rename(path.with_name(path.name.replace(seconds, f"{int(seconds) - 1:010}")))


LONG = {"steps": 1500, "log_every": 10, "checkpoint_every": 70}


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
    tiny: Make, undisturbed: Config, flags_of: FlagsOf, same_run: Same, number: signal.Signals, code: int
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
    state = checkpoint.load_newest(config.out)
    assert state is not None
    assert 490 <= state["step"] < 1500
    if number == signal.SIGKILL:
        assert state["step"] % 70 == 0

    age_events(config.out)
    assert trainer.train(config, Stop()) == 0
    assert scalars(config.out) == scalars(undisturbed.out)
    same_run(config, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_to_the_whole_group_ends_no_worker(tiny: Make, flags_of: FlagsOf, number: signal.Signals) -> None:
    config = tiny(steps=100_000, workers=2)
    command = [sys.executable, "-m", "train", *flags_of(config)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("step 5/"):
        assert process.poll() is None
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (130 if number == signal.SIGINT else 75, "")


def kill_and_compare(busy_in: Make, directory: Path, same_run: Same, task: str, kills: int, seed: int) -> None:
    config, undisturbed = busy_in(task, directory / "killed"), busy_in(task, directory / "undisturbed")
    assert trainer.train(undisturbed, Stop()) == 0
    ended = checkpoint.load_newest(undisturbed.out)
    assert ended is not None

    choice = random.Random(seed)
    steps = sorted(choice.sample(range(1, ended["step"]), kills))
    signals = [choice.choice((signal.SIGKILL, signal.SIGTERM)) for _ in steps]
    path = directory / "config.json"
    path.write_text(json.dumps({"task": task, **config.model_dump(mode="json", exclude_unset=True)}))
    words = [f"{step}:{int(number)}" for step, number in zip(steps, signals, strict=True)]
    command = [sys.executable, str(KILLING), str(path), *words]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=9 * TIMEOUT_S)
    expected = ["SIGKILL" if number == signal.SIGKILL else "75" for number in signals]
    assert result.stdout.split() == [*expected, "0"], result.stderr
    same_run(config, undisturbed)


def test_kills_at_random_steps_leave_no_trace(busy_in: Make, tmp_path: Path, same_run: Same) -> None:
    kill_and_compare(busy_in, tmp_path, same_run, "tabular", kills=3, seed=0)


@pytest.mark.crash
@pytest.mark.timeout(600)
@pytest.mark.parametrize("task", CONFIGS)
def test_twenty_kills_at_random_steps_leave_no_trace(busy_in: Make, tmp_path: Path, same_run: Same, task: str) -> None:
    kill_and_compare(busy_in, tmp_path, same_run, task, kills=20, seed=1)


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


def test_a_run_does_not_wait_for_the_compiler(tiny: Make, flags_of: FlagsOf) -> None:
    code = "import runpy, sys\ntry: runpy.run_module('train', run_name='__main__')\n"
    code += "except SystemExit: print('compiler:', 'torch._dynamo' in sys.modules)"
    command = [sys.executable, "-c", code, *flags_of(tiny(steps=6, checkpoint_every=3))]
    said = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    assert said.stdout.endswith("compiler: False\n")


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


def test_where_no_more_can_be_written_a_line_says_so_and_the_run_goes_on_later(
    tiny: Make, flags_of: FlagsOf, same_run: Same
) -> None:
    config = tiny("full", checkpoint_every=70)
    # A limit of the size of files stands for a full disk: rows fit, a checkpoint does not.
    limited = "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, -1)); "
    words = ["-c", f"{limited}runpy.run_module('train', run_name='__main__')", *flags_of(config)]
    ended = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith("train: error: File too large; when that is mended, the same command goes on in")
    assert ended.stderr.count("\n") == 1
    assert not list(config.out.rglob("*.pt*")), "what is cut off takes no room"
    assert trainer.train(config, Stop()) == 0
    whole = tiny("whole", checkpoint_every=70)
    assert trainer.train(whole, Stop()) == 0
    same_run(config, whole)
