"""metrics.csv and eval_<split>.json: typed, and tolerant of what is being written."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from runner.examine import Examiner, final_metrics, final_values, read_metrics


def metrics_file(tmp_path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    (tmp_path / "metrics.csv").write_bytes(data)
    return tmp_path


def test_columns_are_typed(tmp_path: Path) -> None:
    value = 0.1 + 0.2
    path = metrics_file(tmp_path, f"step,lr,loss,val_loss,phase\n1,1e-3,{value!r},,warmup\n2,0.002,2,1.5,decay\n")
    frame = read_metrics(path)
    assert list(frame.columns) == ["step", "lr", "loss", "val_loss", "phase"]
    assert frame["step"].dtype == "int64"
    assert frame["lr"].tolist() == [1e-3, 2e-3]
    assert frame["loss"].tolist() == pytest.approx([value, 2.0], rel=1e-15)
    assert frame["val_loss"].isna().tolist() == [True, False]
    assert frame["phase"].tolist() == ["warmup", "decay"]
    pd.testing.assert_frame_equal(read_metrics(str(path / "metrics.csv")), frame)


@pytest.mark.parametrize(
    ("tail", "steps"),
    [
        ("", [1, 2]),
        ("3", [1, 2]),
        ("3,0.1,2.", [1, 2]),
        ("3,0.1,2.5", [1, 2]),
        ("3,0.1,2.5\n", [1, 2, 3]),
        ("3,0.1,2.5\r\n", [1, 2, 3]),
        ("\n", [1, 2]),
        ("\0\0\0\0", [1, 2]),
        ("3,0.\n4,0.1,2.5\n", [1, 2, 4]),
        ("3,0.1,2.5,9\n4,0.1,2.5\n", [1, 2, 4]),
        ("step,lr,loss\n3,0.1,2.5\n", [1, 2, 3]),
    ],
)
def test_only_whole_rows_are_read(tmp_path: Path, tail: str, steps: list[int]) -> None:
    frame = read_metrics(metrics_file(tmp_path, "step,lr,loss\n1,0.1,4\n2,0.1,3\n" + tail))
    assert frame["step"].tolist() == steps
    assert frame["step"].dtype == "int64"
    assert frame["loss"].dtype == "float64" or frame["loss"].dtype == "int64"
    assert final_values(tmp_path) == {"loss": 2.5 if steps[-1] > 2 else 3.0}


def test_not_numbers_are_numbers(tmp_path: Path) -> None:
    frame = read_metrics(metrics_file(tmp_path, "step,lr,loss\n1,0.1,nan\n2,0.1,inf\n3,,-inf\n4,0.1,NaN\n"))
    assert frame["loss"].dtype == "float64"
    assert frame["loss"].fillna(0).tolist() == [0, math.inf, -math.inf, 0]
    assert frame["lr"].isna().tolist() == [False, False, True, False]


@pytest.mark.parametrize("content", ["", "step,lr", "\n", "step,lr,loss", "step,lr,loss\n"])
def test_nothing_written_yet(tmp_path: Path, content: str) -> None:
    frame = read_metrics(metrics_file(tmp_path, content))
    assert frame.empty
    assert frame[["step", "lr", "loss"]].columns.tolist() == ["step", "lr", "loss"]
    assert final_values(tmp_path) == {}


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_metrics(tmp_path)


def test_a_resumed_trial_has_each_step_once(tmp_path: Path) -> None:
    """The rows after the checkpoint are written a second time, and evaluations in rows of their own."""
    rows = "step,lr,loss,val_loss\n1,0.1,5,\n2,0.1,4,\n3,0.1,3.5,\n2,0.1,4.25,\n3,0.1,3.25,\n3,,,3.75\n"
    frame = read_metrics(metrics_file(tmp_path, rows))
    assert frame["step"].tolist() == [1, 2, 3]
    assert frame["loss"].tolist() == [5, 4.25, 3.25]
    assert frame["val_loss"].tolist()[2] == 3.75
    assert final_values(tmp_path) == {"loss": 3.25, "val_loss": 3.75}


def test_a_byte_order_mark_and_quotes(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbfstep,lr,loss,note\n1,0.1,2.5,"a, b"\n2,0.1,2,""\n'
    frame = read_metrics(metrics_file(tmp_path, content))
    assert frame["note"].tolist()[0] == "a, b"
    assert final_values(tmp_path) == {"loss": 2.0, "note": "a, b"}


def test_final_values_say_nan_where_the_loss_ended_as_nan(tmp_path: Path) -> None:
    values = final_values(metrics_file(tmp_path, "step,lr,loss,val_loss,time\n1,0.1,4,3.5,1\n2,0.1,nan,,2\n"))
    assert math.isnan(values["loss"])
    assert values["val_loss"] == 3.5
    assert set(values) == {"loss", "val_loss"}


def test_evaluations_are_named_by_their_split(tmp_path: Path) -> None:
    metrics_file(tmp_path, "step,lr,loss,val_loss\n1,0.1,4,3.5\n")
    evaluation = {"split": "test", "loss": 1.93, "step": 3000, "exact": True, "note": "x", "bpc": 2}
    (tmp_path / "eval_test.json").write_text(json.dumps(evaluation))
    (tmp_path / "eval_val.json").write_text(json.dumps({"loss": math.nan}))
    values = final_values(tmp_path)
    assert math.isnan(values.pop("val_loss"))
    assert values == {"loss": 4.0, "test_loss": 1.93, "test_bpc": 2}


@pytest.mark.parametrize("content", ["", '{"loss": 1.', "[1]"])
def test_a_broken_evaluation_is_an_error_that_names_the_file(make_trial: Any, output: Path, content: str) -> None:
    files = {"eval_a.json": content, "eval_b.json": '{"loss": 1}', "metrics.csv": "step,lr,loss\n1,0.1,2\n"}
    make_trial("a", {"x": 1}, files)
    examiner = Examiner()
    examiner.add(final_metrics)
    examiner.exam(output)
    assert [error.parser for error in examiner.errors] == ["final_metrics"]
    assert "eval_a.json" in examiner.errors[0].message
    assert examiner.experiments["a"].metric == {"loss": 2.0, "b_loss": 1}
    with pytest.raises(ValueError, match=r"eval_a\.json"):
        final_values(output / "a")


@pytest.mark.parametrize("workers", [-1, 2])
def test_final_metrics_is_a_parser(make_trial: Any, output: Path, workers: int) -> None:
    make_trial("a", {"lr": 0.1}, {"metrics.csv": "step,lr,loss\n1,0.1,2.5\n2,0.1,2.25\n"})
    make_trial("b", {"lr": 0.2}, {"eval_test.json": '{"split": "test", "loss": 1.5}'})
    make_trial("c", {"lr": 0.3})
    examiner = Examiner()
    examiner.add(final_metrics)
    examiner.exam(output, workers=workers)
    table = examiner.table()
    assert list(table.columns) == ["lr", "loss", "test_loss"]
    assert table["loss"].fillna(-1).tolist() == [2.25, -1, -1]
    assert table["test_loss"].fillna(-1).tolist() == [-1, 1.5, -1]


def test_long_files_are_read(tmp_path: Path) -> None:
    rows = "".join(f"{step},0.001,{1 + 1 / step!r},\n" for step in range(1, 200_001))
    path = metrics_file(tmp_path, "step,lr,loss,never\n" + rows)
    frame = read_metrics(path)
    values = final_values(path)
    assert len(frame) == 200_000
    assert values == {"loss": 1 + 1 / 200_000}


def test_spaces_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = metrics_file(tmp_path, b"step, lr, loss, note\n1, 0.1, 2.5, \xff\n")
    frame = read_metrics(path)
    assert list(frame.columns) == ["step", "lr", "loss", "note"]
    assert frame["loss"].tolist() == [2.5]
    assert final_values(path)["loss"] == 2.5
