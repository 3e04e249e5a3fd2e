"""The table and the picture that a run ends with."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from runner.examine import grouping, plot_curves, plots, results_table
from runner.examine.grouping import Curve, Group

PNG = b"\x89PNG\r\n\x1a\n"


def rows(final: float, steps: int = 100, first: float = 8.0, lr: float = 0.01) -> str:
    lines = ["step,lr,loss,val_loss"]
    for step in range(1, steps + 1):
        value = final + (first - final) * np.exp(-12 * step / 100) * (step < steps)
        lines.append(f"{step},{lr},{float(value)!r},{value + 0.1 if step % 50 == 0 else ''}")
    return "\n".join(lines) + "\n"


def size(picture: Path) -> tuple[int, int]:
    header = picture.read_bytes()[:24]
    assert header.startswith(PNG)
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


def test_results_table(make_trial: Any) -> None:
    dirs = [
        make_trial(f"lr_{lr:g}-seed_{seed}", {"lr": lr, "seed": seed, "width": 48}, {"metrics.csv": rows(2 + seed)})
        for seed in (10, 2)
        for lr in (0.1, 0.02)
    ]
    (dirs[0] / "eval_test.json").write_text('{"split": "test", "loss": 1.5}')
    (dirs[1] / "eval_test.json").write_text("broken")
    table = results_table(dirs)
    assert list(table.columns) == ["lr", "seed", "loss", "val_loss", "test_loss"]
    assert table.index.name == "trial"
    assert table.index.tolist() == ["lr_0.02-seed_2", "lr_0.02-seed_10", "lr_0.1-seed_2", "lr_0.1-seed_10"]
    assert table["loss"].tolist() == [4, 12, 4, 12]
    assert table.loc["lr_0.1-seed_10", "test_loss"] == 1.5


def test_results_table_of_little(make_trial: Any, output: Path) -> None:
    assert results_table([]).empty
    assert results_table([output / "missing"]).empty
    table = results_table([make_trial("a", {"lr": 1}, {"metrics.csv": rows(2)})])
    assert list(table.columns) == ["loss", "val_loss"]
    assert table.index.tolist() == ["a"]
    assert results_table([make_trial("b", {"lr": 2})]).shape == (1, 0)


def test_results_table_sorts_values_of_mixed_types(make_trial: Any) -> None:
    values = [None, "b", 3, "a", True, [1], 0.5, float("nan")]
    dirs = [make_trial(f"t{index}", {"x": value}) for index, value in enumerate(values)]
    order = results_table(dirs).index.tolist()
    assert order == ["t6", "t4", "t2", "t5", "t3", "t1", "t7", "t0"]


@pytest.mark.parametrize("content", [None, "", "step,lr,loss\n", "step,lr,loss\n1,0.1,nan\n", "step,lr,acc\n1,0,1\n"])
def test_no_curve_no_picture(make_trial: Any, tmp_path: Path, content: str | None) -> None:
    path = make_trial("a", {"lr": 1}, {} if content is None else {"metrics.csv": content})
    target = tmp_path / "curves.png"
    assert plot_curves([path], target) is None
    assert plot_curves([], target) is None
    assert not target.exists()


def test_one_trial_and_one_point(make_trial: Any, tmp_path: Path) -> None:
    first = make_trial("a", {"lr": 1}, {"metrics.csv": rows(2)})
    second = make_trial("b", {"lr": 2}, {"metrics.csv": rows(2, steps=1)})
    target = tmp_path / "new" / "curves.png"
    assert plot_curves([first], target) == target
    assert size(target)[0] == 1425
    assert plot_curves([first, second], target) == target
    assert plot_curves([second], target) == target
    assert [path.name for path in target.parent.iterdir()] == ["curves.png"]


@pytest.mark.parametrize("kind", [str, Path])
def test_a_directory_may_stand_alone(make_trial: Any, tmp_path: Path, kind: Any) -> None:
    trial = make_trial("a", {"lr": 1}, {"metrics.csv": rows(2)})
    assert results_table(kind(trial)).index.tolist() == ["a"]
    assert plot_curves(kind(trial), kind(tmp_path / "curves.png")) == tmp_path / "curves.png"


def test_a_picture_of_what_a_sweep_may_hold(make_trial: Any, tmp_path: Path) -> None:
    """Seeds, a short trial, one that diverged, one without LR, text that means something to matplotlib."""
    dirs = [
        make_trial(f"{name}{seed}", {"data": text, "seed": seed}, {"metrics.csv": rows(2 + seed / 10, steps)})
        for seed in (0, 1, 2)
        for name, text, steps in [("a", "$x_1$ {", 100), ("b", "_数据\n", 37), ("c", None, 400)]
    ]
    dirs.append(make_trial("d", {"data": [1, 2]}, {"metrics.csv": rows(1e6)}))
    dirs.append(make_trial("e", {"data": True}, {"metrics.csv": "step,loss\n1,3\n2,inf\n3,2.5\n"}))
    dirs.append(make_trial("g", {"data": 2}, {"metrics.csv": "step,lr,loss\n1,0,3\n"}))
    dirs.append(make_trial("h", {"data": 3}, {"metrics.csv": rows(2, lr=1e-6)}))
    dirs.append(make_trial("i", {"data": 4}, {"metrics.csv": rows(1e99) + "101,0,1e308\n102,0,1e308\n"}))
    dirs.append(make_trial("f", {"data": 1}, {"metrics.csv": "step,lr,loss\n1,text,3\n2,text,2.5\n"}))
    target = tmp_path / "curves.png"
    assert plot_curves(dirs, target) == target
    assert plot_curves(dirs, target, metric="val_loss") == target
    assert plot_curves([dirs[-1], dirs[-2]], target) == target
    assert size(target)[1] > 300


@pytest.mark.parametrize("key", ["lr", "data"])
def test_many_trials_are_drawn(make_trial: Any, tmp_path: Path, key: str) -> None:
    values: list[Any] = [10.0**-exponent for exponent in range(10)] if key == "lr" else [f"d{i}" for i in range(10)]
    dirs = [
        make_trial(f"t{i}-{j}-{k}", {key: value, "wd": j, "seed": k}, {"metrics.csv": rows(2 + i / 10)})
        for i, value in enumerate(values)
        for j in range(10)
        for k in range(5)
    ]
    assert plot_curves(dirs, tmp_path / "curves.png") is not None
    assert len(results_table(dirs)) == 500


def curve(final: float, param: dict[str, Any] | None = None, steps: int = 100, first: float = 8.0) -> Curve:
    grid = np.arange(1, steps + 1, dtype=float)
    values = final + (first - final) * np.exp(-12 * grid / 100)
    return Curve(param or {}, grid, values, grid, np.full(steps, 0.01))


def test_groups_differ_in_more_than_the_seed() -> None:
    params = [{"lr": lr, "seed": seed, "_name": str(seed)} for seed in (0, 1) for lr in (1, True, 1.0)]
    groups = grouping.group_by_seed([curve(2, param) for param in params])
    assert [len(group.curves) for group in groups] == [2, 2, 2]
    assert [group.param for group in groups] == [{"lr": 1}, {"lr": True}, {"lr": 1.0}]
    assert grouping.varying_names(groups) == ["lr"]


def test_mean_and_range_count_each_seed_where_it_was_measured() -> None:
    long = (np.array([1.0, 2.0, 3.0, 4.0]), np.array([4.0, 3.0, 2.0, 1.0]))
    short = (np.array([1.0, 3.0]), np.array([6.0, 4.0]))
    steps, mean, low, high = grouping.mean_and_range([long, short])
    assert steps.tolist() == [1, 2, 3, 4]
    assert mean.tolist() == [5, 4, 3, 1]
    assert low.tolist() == [4, 3, 2, 1]
    assert high.tolist() == [6, 5, 4, 1]


def test_thin_keeps_the_mean_and_bounds_the_count() -> None:
    grid = np.arange(1000, dtype=float)
    steps, values = grouping.thin(grid, grid * 2, points=250)
    assert len(steps) == 250
    assert values.mean() == pytest.approx((grid * 2).mean())
    assert grouping.thin(grid[:5], grid[:5], points=250)[0].tolist() == [0, 1, 2, 3, 4]


def test_limits_show_the_end_not_the_beginning() -> None:
    lines = [(one.steps, one.values) for one in (curve(2.0), curve(2.2))]
    low, high, is_log = grouping.limits(lines)
    assert 1.8 < low < 2.0
    assert 2.2 < high < 3.0
    assert not is_log
    diverged = (lines[0][0], np.linspace(3, 1e5, 100))
    assert grouping.limits([*lines, lines[0], diverged])[1] < 3.0
    worse = curve(3.0)
    assert grouping.limits([*lines, (worse.steps, worse.values)])[1] > 3.0


def test_bands_of_seeds_are_within_the_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown: list[tuple[float, float]] = []
    monkeypatch.setattr(Figure, "legend", lambda figure, *_, **__: shown.append(figure.axes[0].get_ylim()))
    curves = [curve(lr + seed, {"lr": lr, "seed": seed}, first=3.5) for lr in (2.0, 2.1) for seed in (-0.4, 0.0, 0.4)]
    plots.draw(grouping.group_by_seed(curves), "loss", tmp_path / "curves.png")
    ((low, high),) = shown
    assert low < min(curve.values.min() for curve in curves)
    assert high > max(curve.values.max() for curve in curves)


def test_limits_show_the_beginning_where_there_is_room() -> None:
    steps = np.arange(100, dtype=float)
    low, high, _ = grouping.limits([(steps, 3 - steps / 100)])
    assert low < 2.01
    assert high > 3


def test_limits_of_what_falls_far_are_logarithmic() -> None:
    steps = np.arange(100, dtype=float)
    low, high, is_log = grouping.limits([(steps, 10 ** (-steps / 10))])
    assert is_log
    assert 0 < low < 1e-9
    assert high < 0.1


@pytest.mark.parametrize("value", [0.0, 2.0, -3.0])
def test_limits_of_a_constant(value: float) -> None:
    low, high, _ = grouping.limits([(np.arange(10.0), np.full(10, value))])
    assert low < value < high


def test_the_colour_shows_the_parameter_that_matters() -> None:
    groups = [Group({"lr": lr, "wd": wd, "b": True}, [curve(2 + lr)]) for lr in (0.1, 0.2, 0.3) for wd in range(9)]
    assert grouping.colour_parameter(groups, ["b", "lr", "wd"]) == "lr"
    assert grouping.colour_parameter(groups, ["b"]) is None
    assert grouping.best(groups, 3) == [0, 1, 2]


def test_best_is_highest_where_the_metric_rises() -> None:
    groups = [Group({"lr": lr}, [curve(lr, first=0.1)]) for lr in (0.5, 0.9, 0.7)]
    assert not grouping.is_falling(groups)
    assert grouping.best(groups, 2) == [1, 2]


def test_labels_are_short() -> None:
    assert grouping.label({"lr": 0.01, "on": True}, ["lr", "on", "x"]) == "lr=0.01, on=True, x=None"
    assert len(grouping.label({"a": "x" * 100, "b": "y" * 100, "c": "z" * 100}, ["a", "b", "c"])) == 62


def test_importing_the_package_is_light() -> None:
    code = "import sys, runner.examine; print([m for m in ('pandas', 'matplotlib', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_drawing_leaves_no_global_state(make_trial: Any, tmp_path: Path) -> None:
    path = make_trial("a", {"lr": 1}, {"metrics.csv": rows(2)})
    code = (
        "import sys; from pathlib import Path; from runner.examine import plot_curves;"
        f"plot_curves([Path({str(path)!r})], Path({str(tmp_path / 'c.png')!r}));"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
