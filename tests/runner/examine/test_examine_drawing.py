"""The plots: what is drawn, from which numbers."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cbook import STEP_LOOKUP_MAP
from matplotlib.figure import Figure

from runner.errors import InputError
from runner.examine import drawing


@pytest.fixture
def ax() -> Any:
    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    return figure.subplots()


@pytest.fixture
def drawn(ax: Any) -> Any:
    """Makes sure that what was drawn can be painted."""
    return lambda: ax.figure.canvas.draw()


def curves() -> pd.DataFrame:
    rows = [
        (f"{lr}-{seed}", lr, seed, step, lr * step + seed) for lr in (0.1, 0.2) for seed in (0, 2) for step in (1, 2, 3)
    ]
    return pd.DataFrame(rows, columns=["trial", "lr", "seed", "step", "loss"])


def table() -> Any:
    rows = [
        (lr, width, seed, lr * width + seed, 1 / width)
        for lr in (1e-3, 1e-2, 1e-1)
        for width in (8, 16)
        for seed in (0, 1)
    ]
    frame = pd.DataFrame(rows, columns=["lr", "width", "seed", "loss", "accuracy"])
    frame.attrs["parameters"] = ["lr", "width", "seed"]
    return frame


def test_curves_are_means_in_bands(ax: Any, drawn: Any) -> None:
    assert drawing.draw_curves(curves(), ax=ax) == ax
    drawn()
    assert [line.get_ydata().tolist() for line in ax.lines] == [
        pytest.approx([1.1, 1.2, 1.3]),
        pytest.approx([1.2, 1.4, 1.6]),
    ]
    low = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (low.min(), low.max()) == (pytest.approx(0.1), pytest.approx(2.3))
    assert [text.get_text() for text in ax.get_legend().texts] == ["lr=0.1", "lr=0.2"]
    assert len({line.get_color() for line in ax.lines}) == 2


@pytest.mark.parametrize(
    ("options", "title"),
    [
        ({}, "mean of 2 trials, band: lowest to highest"),
        ({"band": "t"}, "mean of 2 trials, band: 95 % t interval of the mean"),
        ({"by": []}, "mean of 4 trials, band: lowest to highest"),
        ({"by": ["lr", "seed"]}, ""),
    ],
)
def test_the_legend_says_what_line_and_band_are(ax: Any, drawn: Any, options: Any, title: str) -> None:
    drawing.draw_curves(curves(), ax=ax, **options)
    drawn()
    assert ax.get_legend().get_title().get_text() == title


def test_a_sweep_says_what_line_and_band_are(ax: Any, drawn: Any) -> None:
    frame = table()
    drawing.draw_sweep(frame[(frame["seed"] == 0) | (frame["lr"] > 1e-2)], "loss", ax=ax)
    drawn()
    assert ax.get_legend().get_title().get_text() == "mean of 1 to 2 trials, band: lowest to highest"
    drawing.draw_sweep(frame[frame["seed"] == 0], "loss", ax=ax)
    assert ax.get_legend().get_title().get_text() == ""


def test_the_ticks_of_many_steps_do_not_touch(ax: Any, drawn: Any) -> None:
    frame = curves()
    ax.figure.set_size_inches(4, 3)
    drawing.draw_curves(frame.assign(step=frame["step"] * 100_000), ax=ax)
    drawn()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_text()]
    assert all(left.x1 + 2 < right.x0 for left, right in pairwise(boxes))
    assert "200k" in [label.get_text() for label in ax.get_xticklabels()]


def test_few_steps_and_steps_far_from_zero_keep_their_digits(ax: Any, drawn: Any) -> None:
    frame = curves()
    drawing.draw_curves(frame.assign(step=frame["step"] * 2000), ax=ax)
    drawn()
    assert "4000" in [label.get_text() for label in ax.get_xticklabels()]
    ax.clear()
    drawing.draw_curves(frame.assign(step=frame["step"] + 12_345_678), ax=ax)
    drawn()
    texts = [label.get_text() for label in ax.get_xticklabels()]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    ("losses", "texts"),
    [
        ([3.0017, 3.0102, 3.1], ["3.002", "3.01", "3.1"]),
        ([3.0017, 3.0018, 1e5], ["3.0017", "3.0018", "1e+05"]),
        ([3.00172, 3.00173, 3.00173], ["3.00172", "3.00173", "3.00173"]),
    ],
)
def test_the_cells_of_a_heat_map_can_be_told_apart(ax: Any, losses: list[float], texts: list[str]) -> None:
    frame = pd.DataFrame({"lr": [1, 2, 3], "width": [8, 8, 8], "loss": losses})
    frame.attrs["parameters"] = ["lr", "width"]
    drawing.draw_heatmap(frame, "loss", "lr", "width", ax=ax)
    assert [text.get_text() for text in ax.texts] == texts


def test_the_band_may_be_an_interval_and_seeds_may_lack(ax: Any, drawn: Any) -> None:
    frame = curves()
    frame.loc[(frame["seed"] == 2) & (frame["step"] == 3), "loss"] = math.nan
    drawing.draw_curves(frame, by=["lr"], band="t", ax=ax)
    drawn()
    assert ax.lines[0].get_ydata().tolist() == pytest.approx([1.1, 1.2, 0.3])


def test_a_heat_map_of_means(ax: Any, drawn: Any) -> None:
    frame = table()
    frame.loc[frame["width"] == 16, "loss"] = [math.nan] * 6
    assert drawing.draw_heatmap(frame, "loss", "lr", "width", ax=ax) == ax
    drawn()
    cells = np.ma.filled(ax.images[0].get_array(), math.nan)
    assert cells[0].tolist() == pytest.approx([0.508, 0.58, 1.3])
    assert np.isnan(cells[1]).all()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.001", "0.01", "0.1"]
    assert len(ax.texts) == 3


def test_a_sweep_over_the_lr(ax: Any, drawn: Any) -> None:
    assert drawing.draw_sweep(table(), "loss", ax=ax) == ax
    drawn()
    assert ax.get_xscale() == "log"
    assert len(ax.lines) == 2
    assert ax.lines[0].get_xdata().tolist() == [1e-3, 1e-2, 1e-1]
    assert ax.lines[0].get_ydata().tolist() == pytest.approx([0.508, 0.58, 1.3])


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0, 1e-4, 1e-1], "symlog"),
        ([0, 1e-2, 1e-1], "linear"),
        ([1e-4, 1e-1], "log"),
        ([-1, 1e-4, 1e-1], "linear"),
        ([0, 0], "linear"),
    ],
)
def test_a_zero_has_its_place_beside_values_of_many_powers(
    ax: Any, drawn: Any, values: list[float], scale: str
) -> None:
    frame = pd.DataFrame({"lr": values, "loss": 1.0})
    frame.attrs["parameters"] = ["lr"]
    drawing.draw_sweep(frame, "loss", ax=ax)
    drawn()
    assert ax.get_xscale() == scale
    if scale == "symlog":
        places = ax.transData.transform([(value, 1.0) for value in values])[:, 0]
        assert np.diff(places).min() > 0.1 * ax.bbox.width


def test_trials_without_a_value_are_one_row_of_a_heat_map(ax: Any) -> None:
    rows = [(lr, begin, lr) for lr in (1, 2, 3) for begin in (math.nan, 200.0, 100.0)]
    frame = pd.DataFrame(rows, columns=["lr", "begin", "loss"])
    frame.attrs["parameters"] = ["lr", "begin"]
    drawing.draw_heatmap(frame, "loss", "lr", "begin", ax=ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["100", "200", "None"]
    assert ax.images[0].get_array().tolist() == [[1, 2, 3]] * 3


@pytest.mark.parametrize(("count", "rotation"), [(3, 0), (6, 0), (12, 45)])
def test_the_values_below_a_heat_map_do_not_overlap(ax: Any, drawn: Any, count: int, rotation: int) -> None:
    frame = pd.DataFrame({"lr": [0.00012 * 2**power for power in range(count)], "width": 8, "loss": 1.0})
    frame.attrs["parameters"] = ["lr", "width"]
    drawing.draw_heatmap(frame, "loss", "lr", "width", ax=ax)
    drawn()
    labels = ax.get_xticklabels()
    assert {label.get_rotation() for label in labels} == {rotation}
    boxes = [label.get_window_extent() for label in labels]
    assert rotation or all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_the_pareto_front(ax: Any, drawn: Any) -> None:
    rows = [(1, 0.5), (2, 0.9), (2, 0.9), (3, 0.8), (4, 0.95), (1, 0.4), (math.nan, 1), (5, math.nan)]
    frame = pd.DataFrame(rows, columns=["hours", "accuracy"])
    assert drawing.pareto(frame, "hours", "accuracy").index.tolist() == [0, 1, 2, 4]
    assert drawing.pareto(frame, "hours", "accuracy", maximize=["hours"]).index.tolist() == [4]
    assert drawing.draw_pareto(frame, "hours", "accuracy", ax=ax) == ax
    drawn()
    assert ax.lines[0].get_xdata().tolist() == [1, 2, 2, 4]


@pytest.mark.parametrize(("inches", "count"), [(10, 120), (6.4, 120), (2.5, 0)])
def test_the_numbers_of_a_heat_map_do_not_overlap(ax: Any, drawn: Any, inches: float, count: int) -> None:
    rows = [(lr, width, 3 + lr * 0.00123 + width * 0.0101) for lr in range(12) for width in range(10)]
    frame = pd.DataFrame(rows, columns=["lr", "width", "loss"])
    frame.attrs["parameters"] = ["lr", "width"]
    ax.figure.set_size_inches(inches, 4)
    drawing.draw_heatmap(frame, "loss", "lr", "width", ax=ax)
    drawn()
    assert len(ax.texts) == count
    boxes = [text.get_window_extent() for text in ax.texts if text.get_position()[1] == 0]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


@pytest.mark.parametrize("x", ["hours", "speed"])
@pytest.mark.parametrize("y", ["loss", "accuracy"])
def test_the_stairs_of_a_front_claim_nothing_that_no_trial_reached(ax: Any, drawn: Any, x: str, y: str) -> None:
    x_sign, y_sign = (-1 if x == "speed" else 1), (-1 if y == "accuracy" else 1)
    frame = pd.DataFrame({x: [1.0, 2.0, 3.0, 4.0], y: [4.0, 3.0, 2.0, 1.0]})
    if x_sign != y_sign:
        frame[y] = 5 - frame[y]
    drawing.draw_pareto(frame, x, y, maximize=["speed"], ax=ax)
    drawn()
    (line,) = ax.lines
    assert len(line.get_xdata()) == 4
    stairs = line.get_path()
    corners = STEP_LOOKUP_MAP[line.get_drawstyle()](*stairs.vertices.T)
    for drawn_x, drawn_y in np.transpose(corners):
        reached = (x_sign * frame[x] <= x_sign * drawn_x) & (y_sign * frame[y] <= y_sign * drawn_y)
        assert reached.any(), (drawn_x, drawn_y)


def test_without_axes_there_are_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    ax = drawing.draw_curves(curves())
    assert ax.figure is plt.gcf()
    plt.close("all")


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda ax: drawing.draw_curves(curves(), "los", ax=ax), "los: no such column. Did you mean 'loss'?"),
        (lambda ax: drawing.draw_sweep(table(), "loss", "widht", ax=ax), "Did you mean 'width'?"),
        (
            lambda ax: drawing.draw_curves(many(), ax=ax),
            "30 settings are too many lines (at most 28); name fewer parameters in `by`.",
        ),
        (lambda ax: drawing.draw_sweep(table().astype({"lr": str}), "loss", ax=ax), "lr: is no numeric parameter"),
        (lambda ax: drawing.draw_curves(curves(), band="sem", ax=ax), "'sem': no such band. Allowed: 'range', 't'."),  # type: ignore[arg-type]
        (lambda ax: drawing.draw_heatmap(table(), "loss", "lr", "widht", ax=ax), "Did you mean 'width'?"),
        (lambda ax: drawing.draw_pareto(table(), "los", "accuracy", ax=ax), "Did you mean 'loss'?"),
    ],
)
def test_bad_input_is_told(ax: Any, draw: Any, said: str) -> None:
    import matplotlib.pyplot as plt

    for axes in (ax, None):
        with pytest.raises(InputError) as error:
            draw(axes)
        assert said in str(error.value)
    assert plt.get_fignums() == []  # a notebook would show an empty picture


def test_a_name_may_stand_alone(ax: Any) -> None:
    drawing.draw_curves(curves(), by="lr", ax=ax)
    drawing.draw_sweep(table(), "loss", by="width", ax=ax)
    assert [line.get_label() for line in ax.lines] == ["lr=0.1", "lr=0.2", "width=8", "width=16"]
    assert len(drawing.pareto(table(), "width", "loss", maximize="loss")) == len(
        drawing.pareto(table(), "width", "loss", maximize=["loss"])
    )


def many() -> pd.DataFrame:
    return pd.DataFrame([(str(n), n, 1, 1.0) for n in range(30)], columns=["trial", "lr", "step", "loss"])
