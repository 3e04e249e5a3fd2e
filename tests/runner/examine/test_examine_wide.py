"""The wide table and the long frame of curves."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runner import yamlfile
from runner.examine import (
    Examiner,
    curves,
    log_metrics,
    paramfile,
    read_metrics,
    wide_table,
)
from runner.examine.wide import is_higher_better
from tests.runner.examine.made import ROWS, age, attempts


def test_a_row_holds_parameters_metrics_and_facts(make_trial: Any, output: Path) -> None:
    files = {"metrics.csv": ROWS, "eval_test.json": '{"loss": 4.5}'}
    files["attempts"] = attempts(peak_rss_mib=512.5, peak_vram_mib=2048)
    make_trial("a", {"lr": 0.1, "norm": "new", "depth": 3, "amp": True}, files)
    make_trial("b", {"lr": 0.2, "norm": "new"}, {"metrics.csv": ROWS.replace("4,0.6", "2,0.9")})
    frame = wide_table(output)
    assert frame.index.tolist() == ["a", "b"]
    assert frame.attrs["parameters"] == ["amp", "depth", "lr"]
    assert frame["depth"].dtype == "Int64"
    assert frame["amp"].dtype == "boolean"
    row = frame.loc["a"]
    assert (row["loss"], row["loss_best"], row["loss_best_step"]) == (4, 3, 2)
    assert (row["accuracy"], row["accuracy_best"]) == (0.6, 0.7)
    assert (row["test_loss"], row["gpu_hours"], row["peak_vram_mib"], row["host"]) == (4.5, 1.0, 2048, "big")
    assert frame.loc["b", "loss_best_step"] == 3
    assert "norm" not in frame
    assert "loss_step" not in frame
    full = wide_table(output, concise=False, maximize=["loss"])
    assert full["norm"].tolist() == ["new", "new"]
    assert full["loss_step"].tolist() == [3, 3]
    assert full["loss_best"].tolist() == [5, 5]


def test_no_trial_is_dropped_in_silence(make_trial: Any, output: Path) -> None:
    make_trial("done", {"x": 1}, {"metrics.csv": ROWS})
    for name, stat in {"failed": "train: failed\n", "runs": "train: running\n", "new": ""}.items():
        path = make_trial(name, {"x": 2}, {"attempts": attempts(exit_code=1, cause="oom", line="CUDA out of memory")})
        (path / "stat").write_text(stat)
    make_trial("nan", {"x": 3}, {"metrics.csv": "step,lr,loss\n1,0.1,2\n2,0.1,nan\n"})
    make_trial("broken", "x: [1\n")
    make_trial("half", {"x": 4}, {"eval_test.json": '{"loss":'})
    make_trial("torn", {"x": 5}, {"stat": "tr"})
    (output / "no trial").mkdir()
    frame: Any = wide_table(output)
    states = {"done": "finished", "failed": "failed", "runs": "running", "new": "pending", "nan": "finished"}
    assert frame["state"].to_dict() == {**states, "broken": "damaged", "half": "finished", "torn": "damaged"}
    assert frame.loc["failed", ["cause", "line", "exit_code"]].tolist() == ["oom", "CUDA out of memory", 1]
    assert "expected" in frame.loc["broken", "cause"]
    assert frame.loc["torn", ["x", "cause"]].tolist() == [5, "stat: holds a str, not a mapping"]
    assert math.isnan(frame.loc["nan", "loss"])
    assert (frame.loc["nan", "loss_best"], frame.loc["nan", "loss_step"]) == (2, 2)
    assert "eval_test.json" in frame.loc["half", "faults"]


def test_a_name_that_a_parameter_has_taken_is_not_lost(make_trial: Any, output: Path) -> None:
    make_trial("a", {"loss": "mse", "state": 1}, {"metrics.csv": ROWS})
    make_trial("b", {"loss": "mae", "state": 1}, {"metrics.csv": ROWS})
    frame = wide_table(output)
    assert frame["loss"].tolist() == ["mse", "mae"]
    assert frame["metric.loss"].tolist() == [4, 4]
    assert frame["run.state"].tolist() == ["finished", "finished"]
    assert frame.attrs["metrics"][0] == "metric.loss"


def test_a_cell_may_hold_a_series(make_trial: Any, output: Path) -> None:
    make_trial("a", {"x": 1}, {"metrics.csv": ROWS})
    make_trial("b", {"x": 2})
    big_df: Any = wide_table(output, series=["loss"])
    assert big_df.loc["a", "loss_curve"].to_dict() == {1: 5, 2: 3, 3: 4}
    assert big_df.loc["b", "loss_curve"] is None


def test_a_name_may_stand_alone(make_trial: Any, output: Path) -> None:
    make_trial("a", {"x": 1}, {"metrics.csv": ROWS})
    alone: Any = wide_table(output, maximize="loss", series="loss")
    assert alone.loc["a", "loss_best"] == 5
    assert [name for name in alone.columns if str(name).endswith("_curve")] == ["loss_curve"]
    assert curves(output, columns="loss").equals(curves(output, columns=["loss"]))


def test_attempts_that_a_kill_cut_off(make_trial: Any, output: Path) -> None:
    exit_line = '{"event": "exit", "stage": "train", "attempt": 1, "exit_code": 7}\n'
    start, *_ = attempts().splitlines(keepends=True)
    torn = make_trial("a", {"x": 1}, {"attempts": start + '{"event": "proc' + exit_line + '{"event": "en'})
    (torn / "stat").write_text("train: failed\n")
    make_trial("b", {"x": 2}, {"attempts": start + "no record\n"})
    make_trial("c", {"x": 3}, {"attempts": attempts().replace("1800.0", '"long"')})
    frame: Any = wide_table(output, concise=False)
    assert frame["state"].tolist() == ["failed", "finished", "finished"]
    assert frame.loc["a", ["exit_code", "attempts"]].tolist() == [7, 1]
    assert all("attempts: " in frame.loc[name, "faults"] for name in "bc")
    assert frame["x"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "content", "loss"),
    [
        ("metrics.jsonl", '{"step": 1, "loss": 3, "note": "x"}\n{"step": 2, "loss": 2.5}\n{"step": 3, "lo', 2.5),
        ("metrics.jsonl", '{"loss": 3}\n\n{"loss": 2.5}\n', 2.5),
        ("metrics.csv", "loss\n3\n2.5\n", 2.5),
        ("metrics.csv", "step,lr,loss\n1,0.1,3\n2,0.1,2.5\n3,0.1,2", 2.5),
        ("metrics.csv", "step,lr,loss,note\n1,0.1,3,a\n2,0.1,2.5,b\n", 2.5),
    ],
)
def test_metrics_of_other_kinds(make_trial: Any, output: Path, name: str, content: str, loss: float) -> None:
    make_trial("a", {"x": 1}, {name: content})
    frame = wide_table(output, concise=False)
    assert frame["loss"].tolist() == [loss]
    assert frame["loss_step"].tolist() == [2 if "step" in content else 1 + ("jsonl" in name)]
    assert curves(output)["loss"].tolist() == [3, 2.5]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.csv", "step,loss\n1,2\n2,nan\n"),
        ("metrics.jsonl", '{"step": 1, "loss": 2}\n{"step": 2, "loss": NaN}\n{"step": 2, "acc": 1}\n'),
    ],
)
def test_a_loss_that_ends_in_nan_is_nan_whatever_file_tells_it(
    make_trial: Any, output: Path, name: str, content: str
) -> None:
    make_trial("a", {"x": 1}, {name: content})
    row: Any = wide_table(output, concise=False).loc["a"]
    assert math.isnan(row["loss"])
    assert row[["loss_step", "loss_best", "loss_best_step"]].tolist() == [2, 2, 1]


def test_curves_are_long_and_tidy(make_trial: Any, output: Path) -> None:
    make_trial("a", {"lr": 0.1, "depth": 1}, {"metrics.csv": ROWS})
    make_trial("b", {"lr": 0.2}, {"metrics.csv": "step,lr,loss,val_loss\n1,0.2,2,\n2,0.2,1,1.5\n1,0.2,9,\n"})
    make_trial("c", {"lr": 0.3})
    frame = curves(output)
    assert list(frame.columns) == ["trial", "depth", "lr", "step", "metric.lr", "loss", "accuracy", "val_loss"]
    assert frame["trial"].astype(str).tolist() == ["a"] * 3 + ["b"] * 2
    assert frame["step"].tolist() == [1, 2, 3, 1, 2]
    assert frame["loss"].tolist() == [5, 3, 4, 9, 1]
    assert frame["lr"].tolist() == [0.1] * 3 + [0.2] * 2
    chosen = curves(output, columns=["val_loss"])
    assert chosen[["trial", "step", "val_loss"]].to_numpy().tolist() == [["b", 2, 1.5]]
    assert list(curves(output, columns=["none"]).columns)[-1] == "none"
    assert curves(output, regex="c").empty


CELLS = st.sampled_from(["1", "2.5", "-3e-4", "", "nan", "inf", "x", "+7", "0.1 ", "1e5"])


def number_or_text(cell: Any) -> str:
    try:
        return repr(float(cell))
    except ValueError:
        return str(cell)


@given(
    st.lists(st.lists(st.lists(CELLS, min_size=2, max_size=4), max_size=6), min_size=1, max_size=4),
    st.sampled_from(["", "9", "9,0.1", "9,0.1,2"]),
)
def test_together_or_alone_a_file_reads_the_same(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[list[str]]], tail: str
) -> None:
    output = tmp_path_factory.mktemp("output")
    for number, rows in enumerate(files):
        path = output / f"t{number}"
        path.mkdir()
        (path / "param").write_text(f"x: {number}\n")
        lines = [",".join([str(step), *cells]) for step, cells in enumerate(rows)]
        (path / "metrics.csv").write_text("\n".join(["step,loss,other", *lines, tail]))
    frame = curves(output, concise=False)
    for trial in sorted(path.name for path in output.glob("t*")):
        alone = read_metrics(output / trial)
        mine = frame[frame["trial"].astype(str) == trial]
        assert mine["step"].tolist() == alone["step"].tolist()
        for name in set(alone.columns) & {"loss", "other"} if len(alone) else ():
            assert list(map(number_or_text, mine[name])) == list(map(number_or_text, alone[name]))
    shutil.rmtree(output)


SCALARS = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.text(max_size=12),
    st.sampled_from(["1e-3", "on", "012", "1:30", "a: b", "a #b", "- x", "'", '"q"', "~", "0x1f", "2024-01-01", "{}"]),
)


@given(st.dictionaries(st.text(min_size=1, max_size=6), SCALARS, max_size=6), st.booleans())
def test_a_plain_param_reads_as_the_yaml_parser_reads_it(params: dict[str, Any], is_ours: bool) -> None:
    text = yamlfile.dump(params) if is_ours else yaml.safe_dump(params, width=1000000)
    assert repr(paramfile.load(text)) == repr(yamlfile.load(text))


@given(st.text(alphabet="a1:# -'\"\\.e_~{}[],\n\t|>&*!%@é", max_size=40))
def test_any_text_reads_as_the_yaml_parser_reads_it(text: str) -> None:
    try:
        wanted = repr(yamlfile.load(text))
    except (yaml.YAMLError, ValueError, TypeError):
        with pytest.raises((yaml.YAMLError, ValueError, TypeError)):
            paramfile.load(text)
    else:
        assert repr(paramfile.load(text)) == wanted


@pytest.mark.parametrize(
    ("name", "higher"),
    [
        *[("loss", False), ("val_accuracy", True), ("test/acc", True), ("top5", True), ("macro", False)],
        *[("bleu4", True), ("hits@10", True), ("map_0.5", True), ("accuracy_best", True), ("loss_scaled_acc", True)],
        *[("dice_loss", False), ("iou_loss", False), ("top1_error", False), ("top5_err", False), ("ssim_loss", False)],
        *[("reward_loss", False), ("reward_std", False), ("map/loss", False), ("loss/recall", False)],
        *[("Dice-Loss", False), ("dice_loss_best", False), ("dice_loss/val", False), ("top5.err.1", False)],
    ],
)
def test_which_metrics_are_better_when_higher(name: str, higher: bool) -> None:
    assert is_higher_better(name) is higher


# --- trials that share one output directory ---


def test_trials_without_directories_of_their_own(output: Path) -> None:
    for number, name in enumerate(["Lr_10", "Lr_2", "Lr_2"]):
        directory = output / ".runner" / "trials" / f"{number}abcdefghij"
        directory.mkdir(parents=True)
        (directory / "param").write_text(f"lr: {number}\n_name: {name}\n_output: output\n")
        (directory / "stat").write_text("train: finished\n")
        (directory / "log.train.20261121.120000").write_text(f"loss=0.{number}\n")
    age(output)
    for _ in range(2):
        frame = wide_table(output)
        assert frame["lr"].to_dict() == {"Lr_2-1abcdefg": 1, "Lr_2-2abcdefg": 2, "Lr_10": 0}
    assert wide_table(output, regex="10", concise=False)["state"].to_dict() == {"Lr_10": "finished"}
    assert curves(output).empty
    examiner = Examiner()
    examiner.add(log_metrics("train"))
    examiner.exam(output)
    assert sorted(examiner.table()["loss"]) == [0.0, 0.1, 0.2]
    examiner = Examiner()
    examiner.exam(output, regex="Lr_10")
    assert [item.param["lr"] for item in examiner.experiments.values()] == [0]
