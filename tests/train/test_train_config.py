"""The command line, and the YAML file below it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from train.config import CONFIGS, Config, ImageConfig, LmConfig, TabularConfig
from train.errors import TrainError
from train.flags import parse


def test_flags_are_read_in_both_spellings() -> None:
    first = parse(["--out", "o", "--weight_decay", "0.3", "--log_every", "7"])
    second = parse(["--out", "o", "--weight-decay", "0.3", "--log-every", "7"])
    assert first == second == LmConfig(out=Path("o"), weight_decay=0.3, log_every=7)


def test_counts_may_be_written_as_floats() -> None:
    assert parse(["--out", "o", "--steps", "2e2", "--batch", "4.0"]) == LmConfig(out=Path("o"), steps=200, batch=4)


def test_a_switch_may_stand_alone_or_take_a_value() -> None:
    assert not parse(["--out", "o"]).compile
    assert parse(["--out", "o", "--compile"]).compile
    assert parse(["--out", "o", "--compile", "True"]).compile
    assert not parse(["--out", "o", "--compile", "False"]).compile


def test_lists_and_mappings_are_yaml() -> None:
    splits, scales = '{val: "train[90%:]", test: test}', "{head: 1e1}"
    words = ["--eval_splits", splits, "--lr-scales", scales, "--averages", "[ema_0.9, poly_3]"]
    config = parse(["--out", "o", "--task", "image", *words])
    assert isinstance(config, ImageConfig)
    assert config.eval_splits == {"val": "train[90%:]", "test": "test"}
    assert config.lr_scales == {"head": 10.0}
    assert config.averages == ["ema_0.9", "poly_3"]


def test_a_file_gives_defaults_and_flags_replace_them(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("task: tabular\nlr: 1e-3\nweight-decay: 0.5\nhidden: [8, 4]\nsteps: 2 epochs\n")
    config = parse(["--config", str(path), "--out", "o", "--weight_decay", "0"])
    assert config == TabularConfig(out=Path("o"), lr=0.001, weight_decay=0.0, hidden=[8, 4], steps="2 epochs")


def test_durations_are_counted_in_steps() -> None:
    config = TabularConfig(out=Path("o"), batch=32, steps="2 epochs", warmup="100 samples", eval_every="0.5 epochs")
    steps = config.in_steps(epoch=100)
    assert (steps.steps, steps.warmup, steps.eval_every, steps.log_every) == (7, 4, 2, 50)
    with pytest.raises(TrainError, match="cannot be counted in steps before the data is read"):
        config.lrs()


@pytest.mark.parametrize(
    ("duration", "batch", "epoch", "steps"),
    [("1.1 epochs", 8, 1600, 220), ("0.07 epochs", 1, 100, 7), ("1e2 samples", 3, 1, 34), ("1.1 epochs", 8, 1601, 221)],
)
def test_parts_of_epochs_are_counted_exactly(duration: str, batch: int, epoch: int, steps: int) -> None:
    assert TabularConfig(out=Path("o"), batch=batch, steps=duration).in_steps(epoch).steps == steps


def test_no_epochs_are_no_steps() -> None:
    with pytest.raises(ValidationError, match="steps is 0: needed is at least 1"):
        TabularConfig(out=Path("o"), steps="0 epochs")


def test_a_segment_of_a_run_has_a_line_for_its_learning_rate() -> None:
    config = LmConfig(out=Path("o"), steps=20, lr1=1.0, lr2=0.0, init_from=Path("there"))
    assert config.lrs(begin=10)[10:].tolist() == pytest.approx(np.linspace(1, 0, 10, endpoint=False).tolist())


@pytest.mark.parametrize("kind", CONFIGS.values())
def test_the_recorded_config_of_a_segment_is_one(kind: type[Config]) -> None:
    config = kind(out=Path("o"), steps=20, lr1=1.0, lr2=0.0).in_steps(100)
    assert kind(**config.model_dump()) == config


FILE_ERRORS = [
    ("scheduel: wsd", "unknown option scheduel, did you mean schedule?"),
    ("model: lenet", "unknown option model: it is an option of task image"),
    ("lr: fast", "lr is 'fast': input should be a valid number"),
    ("- lr", "the config {path} holds no mapping of options"),
    ("lr: [", "the config {path} is no YAML: while parsing"),
]


@pytest.mark.parametrize(("text", "message"), FILE_ERRORS)
def test_a_wrong_file_is_one_line(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit) as ending:
        parse(["--config", str(path), "--out", "o"])
    assert ending.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"train: error: {message.format(path=path)}")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--out o --scheduel wsd", "unknown argument --scheduel, did you mean --schedule?"),
        ("--out o --weight_dekay=1", "unknown argument --weight_dekay, did you mean --weight_decay?"),
        ("--out o --hidden 3", "unknown argument --hidden: it is an option of task tabular"),
        ("--out o stray", "unknown argument stray"),
        ("--out o --task tabular --samples 3", "samples is 3: needed is 0, as a table has none to show"),
        ("--out o --task tabular --data iris --test_data t", "test_data is t: needed is a file beside it, not iris"),
        ("--out o --sched wsd", "unknown argument --sched"),
        ("", "out is missing"),
        ("--config absent.yaml", "cannot read the config absent.yaml: No such file"),
        ("--out o --task imag", "unknown task 'imag', did you mean image?"),
        ("--out o --steps 1.5", "steps is '1.5': a number of steps is needed, or '<number> epochs'"),
        ("--out o --steps many", "steps is 'many': a number of steps is needed"),
        ("--out o --batch 1.5", "batch is '1.5': input should be a valid integer"),
        ("--out o --compile maybe", "compile is 'maybe': input should be a valid boolean"),
        ("--out o --optimizer adamm", "optimizer is 'adamm': input should be 'adamw', 'adam'"),
        ("--out o --averages [ema_2]", "averages.0 is 'ema_2': ema_<decay between 0 and 1> or poly_<power"),
        ("--out o --averages [poly_3,poly_3]", "averages is ['poly_3', 'poly_3']: needed is poly_3 once"),
        ("--out o --eval_splits val", "eval_splits is 'val': input should be a valid dictionary"),
        ("--out o --eval_splits {'a,b':val}", "eval_splits is 'a,b': needed is a name without commas"),
        ("--out o --steps 0", "steps is 0: needed is at least 1"),
        ("--out o --steps -3", "steps is '-3': a number of steps is needed"),
        ("--out o --width 50", "width is 50: needed is heads (4) divide it"),
        ("--out o --accumulate 3", "batch is 8: needed is accumulate (3) divides it"),
        ("--out o --lr -1", "lr is '-1': input should be greater than 0"),
        ("--out o --lr nan", "lr is 'nan': input should be"),
        ("--out o --seed -1", "seed is '-1': input should be greater than or equal to 0"),
        ("--out o --beta2 1", "beta2 is '1': input should be less than 1"),
        ("--out o --lr1 1", "lr1 is 1.0: needed is lr2 beside it"),
        ("--out o --lr1 1 --lr2 0 --schedule cosine", "lr1 is 1.0: needed is either it or schedule"),
        ("--out o --begin 5", "begin is 5: needed is init_from beside it"),
        ("--out o --steps 60", "warmup is 100: it must lie between 0 and steps (60); --warmup sets it"),
        ("--out o --schedule cosin", "unknown schedule 'cosin', did you mean cosine?"),
        ("--out o --schedule absent.npy", "cannot read the schedule absent.npy"),
        ("--out o --floor 0", "schedule wsd needs a floor above 0"),
    ],
)
def test_errors_are_one_line_and_code_2(
    flags: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ending:
        parse(flags.split())
    assert ending.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"train: error: {message}")
    assert printed.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("task", CONFIGS)
def test_every_option_is_documented_in_the_help(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        parse(["--task", task, "--help"])
    assert ending.value.code == 0
    text = capsys.readouterr().out
    assert all(f"--{name}" in text for name in CONFIGS[task].model_fields)
    assert "stay fp32. (fp32, tf32, bf16, fp16; default: fp32)" in " ".join(text.split())


def test_what_is_varied_is_what_a_user_compares() -> None:
    varied = LmConfig(out=Path("one")).varied()
    assert {"lr", "schedule", "seed", "width", "task"} <= varied.keys()
    assert not {"out", "device", "log_every", "threads"} & varied.keys()


def test_a_wrong_value_is_refused_in_code_too() -> None:
    with pytest.raises(ValidationError, match="heads"):
        LmConfig(out=Path("o"), heads=0)
    with pytest.raises(ValidationError, match="widht"):
        Config.model_validate({"out": "o", "widht": 1})
