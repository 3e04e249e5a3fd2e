"""Finding directories and logs, reading `param` and `stat`."""

import math
from pathlib import Path
from typing import Any

import pytest

from runner.examine import latest_log, read_param, read_stat
from runner.examine.readers import RecordError, match_output, natural_key


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-2e+3", -2000.0),
        ("1.5e-3", 1.5e-3),
        (".5e1", 5.0),
        ("1.e3", 1000.0),
        ("3", 3),
        ("0.1", 0.1),
        (".inf", math.inf),
        ("'1e-3'", "1e-3"),
        ("e5", "e5"),
        ("1e", "1e"),
        ("1e3x", "1e3x"),
        ("true", True),
        ("null", None),
        ("[1e-3, a]", [1e-3, "a"]),
        ("'012'", "012"),
        ("!!python/tuple [1, 2]", (1, 2)),
    ],
)
def test_param_values_mean_what_they_say(tmp_path: Path, text: str, value: object) -> None:
    (tmp_path / "param").write_text(f"x: {text}\n")
    read = read_param(tmp_path)["x"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a: [1, 2", "'param' is not valid YAML"),
        (b"a: !!python/object/apply:os.getcwd []", "'param' is not valid YAML"),
        (b"\xff\xfe\xfa", "'param' is not valid YAML"),
        (b"- 1\n- 2\n", "'param' holds a list, not a mapping"),
        (b"", "'param' is empty"),
    ],
)
def test_a_broken_param_is_one_line_that_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "param").write_bytes(content)
    with pytest.raises(RecordError) as error:
        read_param(tmp_path)
    assert str(error.value).startswith(reason)
    assert "\n" not in str(error.value)


def test_a_missing_param_and_a_param_that_is_a_directory(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no 'param' found"):
        read_param(tmp_path)
    (tmp_path / "param").mkdir()
    with pytest.raises(RecordError, match="can't be read"):
        read_param(tmp_path)


def test_stat(make_trial: Any) -> None:
    path = make_trial("a", {"x": 1})
    (path / "stat").write_text("train: finished\ntest: interrupted\n")
    assert read_stat(path) == {"train": "finished", "test": "interrupted"}


def test_natural_order_knows_decimals_and_exponents() -> None:
    names = ["lr_0.5", "lr_0.15", "lr_1e-05", "seed_10", "seed_2", "lr_0.5-a", "10", "9", ""]
    expected = ["", "9", "10", "lr_1e-05", "lr_0.15", "lr_0.5", "lr_0.5-a", "seed_2", "seed_10"]
    assert sorted(names, key=natural_key) == expected


def test_match_output_searches_in_names_and_leaves_out_files_and_records(output: Path) -> None:
    for name in ["b_10", "b_2", "a_1", ".runner"]:
        (output / name).mkdir()
    (output / "b_file").write_text("")
    assert [path.name for path in match_output(output)] == ["a_1", "b_2", "b_10"]
    assert [path.name for path in match_output(str(output), "_1")] == ["a_1", "b_10"]
    assert match_output(output, "^c") == []


def test_match_output_names_what_is_wrong(output: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no output directory .*nowhere"):
        match_output(output / "nowhere")
    with pytest.raises(ValueError, match=r"regex '\*' is not a regular expression"):
        match_output(output, "*")


def test_latest_log_sorts_by_time_and_attempt(tmp_path: Path) -> None:
    times = [
        "20261121.053000",
        "20261121.053000.2",
        "20261121.053000.10",
        "20261122.000001",
        "20251231.235959",
    ]
    for time in times:
        (tmp_path / f"log.train.{time}").write_text(time)
    (tmp_path / "log.test.20270101.000000").write_text("")
    (tmp_path / "log.train.more.20270101.000000").write_text("")
    (tmp_path / "log.trainer.20270101.000000").write_text("")
    expected = ["20251231.235959", *times[:4]]
    found = [latest_log("train", tmp_path, index) for index in range(5)]
    assert [path.read_text() for path in found if path is not None] == expected
    assert latest_log("train", tmp_path) == tmp_path / "log.train.20261122.000001"
    assert latest_log("train", str(tmp_path), -2) == tmp_path / "log.train.20261121.053000.10"
    assert latest_log("train.more", tmp_path) == tmp_path / "log.train.more.20270101.000000"


@pytest.mark.parametrize("index", [1, 2, -2, -3])
def test_latest_log_outside_the_range_is_none(tmp_path: Path, index: int) -> None:
    (tmp_path / "log.train.20261121.053000").write_text("")
    assert latest_log("train", tmp_path, index) is None
    assert latest_log("train", tmp_path, 0) == latest_log("train", tmp_path, -1) is not None


def test_latest_log_without_logs_and_with_a_wrong_index(tmp_path: Path) -> None:
    assert latest_log("train", tmp_path) is None
    assert latest_log("train", tmp_path, 0) is None
    with pytest.raises(TypeError):
        latest_log("train", tmp_path, "0")  # type: ignore[arg-type]


def test_latest_log_of_logs_named_otherwise(tmp_path: Path) -> None:
    """Without a directory per trial, the name follows the time; a pattern stands for several stages."""
    (tmp_path / "log.train.20261121.053000.lr_1").write_text("")
    (tmp_path / "log.train.old").write_text("")
    assert latest_log("train", tmp_path, -1) == tmp_path / "log.train.old"
    assert latest_log("train", tmp_path, 0) == tmp_path / "log.train.20261121.053000.lr_1"
    assert latest_log("tr*n", tmp_path, 0) == tmp_path / "log.train.20261121.053000.lr_1"
