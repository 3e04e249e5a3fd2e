"""Plots of many trials, each into an Axes that it returns: curves over seeds, a heat map, a sweep, a Pareto front.

Colours are Okabe and Ito's, and viridis, which colour-blind readers can tell apart too.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from runner.errors import InputError
from runner.examine import settings, stats
from runner.examine.axes import tidy
from runner.examine.tables import several
from runner.examine.wide import is_higher_better

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_STYLES = ("-", "--", ":", "-.")
_LOG_SPAN = 30.0
_LINES_MAX = len(COLOURS) * len(_STYLES)
# More bands are a fog, and a longer legend hides what is drawn.
_BANDS_MAX, _LEGEND_MAX, _LABEL_MAX = 8, 8, 60
Band = Literal["range", "t"]
_BANDS: dict[Band, str] = {"range": "lowest to highest", "t": "95 % t interval of the mean"}
_CELLS_MAX = 150
_TEXT_SIZES = (5.0, 8.3)
_TICK_SIZE = 10.0


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    axes: Axes = plt.figure(layout="constrained").subplots()
    return axes


def draw_curves(
    curves: pd.DataFrame,
    metric: str = "loss",
    by: str | Sequence[str] | None = None,
    over: str = settings.SEED,
    band: Band = "range",
    ax: Axes | None = None,
) -> Axes:
    """Draw a metric over the steps, a line for each setting: the mean over the seeds, in a band that the legend tells.

    Args:
        curves: the frame of `runner.examine.curves`.
        by: the parameters that make a setting; all but `over` when they aren't said.
        band: from the lowest seed to the highest, or the 95 % t interval of the mean.

    Raises:
        InputError: no such column, or more settings than there are ways to draw a line.
    """
    if band not in _BANDS:
        raise InputError(f"band {band!r}: no such band. Allowed: {', '.join(map(repr, _BANDS))}.")
    known = _parameters(curves)
    names = several(by) if by is not None else [name for name in known if name != over]
    if metric in known:
        others = ", ".join(map(str, curves.columns[len(known) + 2 :]))
        raise InputError(f"{metric}: is a parameter. Curves: {others or 'none'}.")
    curves = _with_numbers(curves, metric)
    settings.check_columns(curves, names)
    groups = settings.groups(curves[curves[metric].notna()], names)
    if len(groups) > _LINES_MAX:
        raise InputError(
            f"{len(groups)} settings are too many lines (at most {_LINES_MAX}); name fewer parameters in `by`."
        )
    ax = _axes(ax)
    counts: list[int] = []
    for place, (key, group) in enumerate(groups):
        steps, mean, low, high = _band(group, metric, band)
        colour, style = COLOURS[place % len(COLOURS)], _STYLES[place // len(COLOURS)]
        marker = "o" if len(steps) == 1 else None
        ax.plot(steps, mean, style, color=colour, label=_label(names, key), lw=1.5, marker=marker)
        counts.append(group["trial"].nunique())
        if counts[-1] > 1 and len(groups) <= _BANDS_MAX:
            ax.fill_between(steps, low, high, color=colour, alpha=0.2, lw=0)
    _tidy(ax, "step", metric)
    note = _note(counts, _BANDS[band] if len(groups) <= _BANDS_MAX else None)
    if groups and (names or note):
        _legend(ax, len(groups), note)
    return ax


def _note(counts: Sequence[int], band: str | None) -> str | None:
    """What lines and bands are of so many trials each; None where each line is one trial."""
    fewest, most = min(counts, default=0), max(counts, default=0)
    if most <= 1:
        return None
    mean = f"mean of {most if fewest == most else f'{fewest} to {most}'} trials"
    return mean if band is None else f"{mean}, band: {band}"


def _parameters(curves: pd.DataFrame) -> list[str]:
    columns = list(curves.columns)
    return columns[1 : columns.index("step")]


def _band(group: pd.DataFrame, metric: str, band: Band) -> tuple[Any, Any, Any, Any]:
    """Steps, mean and band; at each step those trials count that were measured there."""
    table = group.pivot_table(index="step", columns="trial", values=metric, observed=True)
    mean = table.mean(axis=1).to_numpy()
    if band == "range":
        return table.index.to_numpy(), mean, table.min(axis=1).to_numpy(), table.max(axis=1).to_numpy()
    spans = [stats.interval(row[np.isfinite(row)]) for row in table.to_numpy(float)]
    low, high = np.array(spans).T
    return table.index.to_numpy(), mean, low, high


def draw_heatmap(table: pd.DataFrame, metric: str, x: str, y: str, ax: Axes | None = None) -> Axes:
    """Draw the mean of a metric for each pair of values of two parameters; a cell without a number stays empty."""
    table = _with_numbers(table, metric)
    found = stats.aggregate(table, metric, by=[y, x], kind=None)
    keys = [tuple(map(settings.key_of, key)) for key in found.index.tolist()]
    columns = _ordered({key[1] for key in keys})
    rows = _ordered({key[0] for key in keys})
    cells = np.full((len(rows), len(columns)), np.nan)
    for key, mean in zip(keys, found["mean"], strict=True):
        cells[rows.index(key[0]), columns.index(key[1])] = mean
    colours = "viridis" if is_higher_better(metric) else "viridis_r"
    ax = _axes(ax)
    image = ax.imshow(cells, cmap=colours, origin="lower", aspect="auto")
    names = [_short(value) for value in columns]
    is_tight = _text_size(ax, len(columns), max(map(len, names), default=0), _TICK_SIZE) < _TICK_SIZE
    ax.set_xticks(range(len(columns)), names, rotation=45 * is_tight, ha="right" if is_tight else "center")
    ax.set_yticks(range(len(rows)), [_short(value) for value in rows])
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    if ax.figure is not None:
        ax.figure.colorbar(image, ax=ax, label=metric)
    digits = _digits(cells[np.isfinite(cells)])
    texts = [[f"{cell:.{digits}g}" for cell in row] for row in cells]
    size = _text_size(ax, len(columns), max(len(text) for row in texts for text in row), _TEXT_SIZES[1])
    if cells.size <= _CELLS_MAX and size >= _TEXT_SIZES[0]:
        for row, column in zip(*np.nonzero(np.isfinite(cells)), strict=True):
            red, green, blue, _ = image.to_rgba(cells[row, column])
            colour = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "black"
            ax.text(column, row, texts[row][column], ha="center", va="center", color=colour, fontsize=size)
    return ax


def _text_size(ax: Axes, columns: int, length: int, largest: float) -> float:
    """Return the size in points, the largest at most, at which texts of a length stand side by side, one a column."""
    # A digit is 0.64 of its size wide.
    width = ax.get_window_extent().width * 72 / ax.figure.dpi
    return min(largest, width / columns / (0.64 * (length + 0.5)))


def _digits(values: settings.Array) -> int:
    """Return the significant digits, 4 to 6, that tell the different ones of these values apart."""
    count = len(np.unique(values))
    return next((digits for digits in (4, 5) if len({f"{value:.{digits}g}" for value in values}) == count), 6)


def draw_sweep(
    table: pd.DataFrame, metric: str, x: str = "lr", by: str | Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw a metric against a numeric parameter, such as the loss against the LR: mean and range over the seeds.

    One line for each setting of the parameters `by`, all others but the seed when they aren't said. The axis of the
    parameter is logarithmic where its values above 0 span a factor of 30.
    """
    names = several(by) if by is not None else settings.parameters(table, without=[x, settings.SEED])
    settings.check_columns(table, [x, *names])
    table = _with_numbers(table, metric)
    if table[x].dtype.kind not in "iuf":
        raise InputError(f"{x}: is no numeric parameter; choose another one for the axis.")
    groups = settings.groups(table, names)
    if len(groups) > _LINES_MAX:
        raise InputError(
            f"{len(groups)} settings are too many lines (at most {_LINES_MAX}); name fewer parameters in `by`."
        )
    ax = _axes(ax)
    counts: list[int] = []
    for place, (key, group) in enumerate(groups):
        found = group.groupby(x)[metric].agg(["mean", "min", "max", "count"])
        counts += found["count"].tolist()
        colour, style = COLOURS[place % len(COLOURS)], _STYLES[place // len(COLOURS)]
        ax.plot(found.index, found["mean"], style, color=colour, marker="o", ms=4, label=_label(names, key))
        if len(groups) <= _BANDS_MAX:
            ax.fill_between(found.index, found["min"], found["max"], color=colour, alpha=0.2, lw=0)
    _scale(ax, settings.numbers(table[x].dropna()))
    _tidy(ax, x, metric)
    note = _note(counts, _BANDS["range"] if len(groups) <= _BANDS_MAX else None)
    if groups and (names or note):
        _legend(ax, len(groups), note)
    return ax


def _scale(ax: Axes, values: settings.Array) -> None:
    above = values[values > 0]
    if not len(above) or values.min() < 0 or above.max() / above.min() < _LOG_SPAN:
        return
    if len(above) == len(values):
        ax.set_xscale("log")
    else:  # 0 stands beside the least value, as far as a power of ten is from the next
        ax.set_xscale("symlog", linthresh=above.min())


def pareto(table: pd.DataFrame, x: str, y: str, maximize: str | Sequence[str] = ()) -> pd.DataFrame:
    """Return the trials that no other one beats in both columns, sorted by the first; those without a number are out.

    A trial that equals another one in both is kept beside it. Lower is better, but for accuracies and the like, and
    for the columns named in `maximize`.
    """
    table = _with_numbers(table, x, y)
    known = table[np.isfinite(table[[x, y]].to_numpy(float)).all(axis=1)]
    maximize = several(maximize)
    signs = [-1.0 if is_higher_better(name, maximize) else 1.0 for name in (x, y)]
    points = known[[x, y]].to_numpy(float) * signs
    order = np.lexsort((points[:, 1], points[:, 0]))
    kept: list[int] = []
    best = np.inf
    for place in order:
        is_double = bool(kept) and (points[place] == points[kept[-1]]).all()
        if points[place, 1] < best or is_double:
            kept.append(place)
            best = points[place, 1]
    front: pd.DataFrame = known.iloc[kept]
    return front.sort_values(x, kind="stable")


def draw_pareto(
    table: pd.DataFrame, x: str, y: str, maximize: str | Sequence[str] = (), ax: Axes | None = None
) -> Axes:
    """Draw all trials as points over two columns, and as stairs what the best of them reach.

    The stairs are the best `y` among the trials that are at least as good in `x`: they claim nothing that no trial has.
    """
    maximize = several(maximize)
    front = pareto(table, x, y, maximize)
    table = _with_numbers(table, x, y)
    ax = _axes(ax)
    ax.scatter(table[x], table[y], s=18, color=COLOURS[4], label="trials")
    stairs: Any = "steps-pre" if is_higher_better(x, maximize) else "steps-post"
    ax.plot(front[x], front[y], "o-", color=COLOURS[1], ms=5, drawstyle=stairs, label="Pareto front")
    _tidy(ax, x, y)
    _legend(ax, 2)
    return ax


def _with_numbers(table: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The table with nothing but numbers in these columns, of which each must have some."""
    settings.check_columns(table, names)
    found = {name: settings.numbers(table[name]) for name in names}
    for name, numbers in found.items():
        if not np.isfinite(numbers).any():
            raise InputError(f"{name}: no trial has a number there.")
    return table.assign(**found)


def _legend(ax: Axes, count: int, note: str | None = None) -> None:
    look: Any = {"fontsize": "small", "title": note, "title_fontsize": "small"}
    if count <= _LEGEND_MAX:
        ax.legend(framealpha=0.8, edgecolor="none", **look)
    else:
        ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0, **look)


def _tidy(ax: Axes, x: str, y: str) -> None:
    ax.set_xlabel(x.replace("$", r"\$"))
    ax.set_ylabel(y.replace("$", r"\$"))
    tidy(ax)


def _ordered(values: set[Hashable]) -> list[Any]:
    """Numbers by size, then the rest by their text."""
    return sorted(values, key=lambda value: (0, value, "") if isinstance(value, int | float) else (1, 0, str(value)))


def _label(names: Sequence[Any], key: Sequence[Hashable]) -> str:
    """The values of a setting, cut to what leaves room for the picture."""
    if not names:
        return "all trials"
    text = ", ".join(f"{name}={_short(value)}" for name, value in zip(names, key, strict=True))
    return text if len(text) <= _LABEL_MAX else f"{text[: _LABEL_MAX - 1]}…"


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return (text if len(text) <= 24 else f"…{text[-23:]}").replace("$", r"\$")
