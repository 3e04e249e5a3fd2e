"""The command line."""

from pathlib import Path

import pytest

from train.config import Config, parse
from train.errors import TrainError


def test_flags_are_read_in_both_spellings() -> None:
    first = parse(["--out", "o", "--weight_decay", "0.3", "--log_every", "7"])
    second = parse(["--out", "o", "--weight-decay", "0.3", "--log-every", "7"])
    assert first == second == Config(Path("o"), weight_decay=0.3, log_every=7)


def test_counts_may_be_written_as_floats() -> None:
    assert parse(["--out", "o", "--steps", "2e2", "--batch", "4.0"]) == Config(Path("o"), steps=200, batch=4)


def test_a_switch_may_stand_alone_or_take_a_value() -> None:
    assert not parse(["--out", "o"]).compile
    assert parse(["--out", "o", "--compile"]).compile
    assert parse(["--out", "o", "--compile", "True"]).compile
    assert not parse(["--out", "o", "--compile", "False"]).compile


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--out o --scheduel wsd", "unknown argument --scheduel, did you mean --schedule?"),
        ("--out o --weight_dekay=1", "unknown argument --weight_dekay, did you mean --weight_decay?"),
        ("--out o stray", "unknown argument stray"),
        ("--out o --sched wsd", "unknown argument --sched"),
        ("", "the following arguments are required: --out"),
        ("--out o --steps 1.5", "argument --steps: invalid integer value: '1.5'"),
        ("--out o --steps many", "argument --steps: invalid integer value: 'many'"),
        ("--out o --compile maybe", "argument --compile: invalid boolean value: 'maybe'"),
        ("--out o --steps 0", "steps is 0: at least 1 is needed"),
        ("--out o --width 50", "width is 50: heads (4) must divide it"),
        ("--out o --lr -1", "lr is -1.0: a finite number above 0 is needed"),
        ("--out o --lr nan", "lr is nan: a finite number above 0 is needed"),
        ("--out o --seed -1", "seed is -1: a finite number of at least 0 is needed"),
        ("--out o --beta2 1", "beta2 is 1.0: 0 or more and below 1 is needed"),
        ("--out o --steps 50 --warmup 51", "warmup is 51: it must lie between 0 and steps (50)"),
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


def test_only_what_decides_the_result_is_compared() -> None:
    one = Config(Path("one"), threads=1, checkpoint_every=5, device="cpu")
    other = Config(Path("other"), threads=2, checkpoint_every=50, device="cuda")
    assert one.compared() == other.compared()
    assert one.compared() != Config(Path("one"), seed=1).compared()
    assert {"lr", "schedule", "seed", "width"} <= one.varied().keys()
    assert not {"out", "device", "log_every"} & one.varied().keys()


def test_a_wrong_value_is_refused_in_code_too() -> None:
    with pytest.raises(TrainError, match="heads is 0"):
        Config(Path("o"), heads=0)
