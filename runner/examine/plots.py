"""Drawing the curves of many trials into one picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from runner.examine import grouping
from runner.examine.axes import missing_glyphs, tidy
from runner.examine.grouping import Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Style = Literal["-", "--", ":"]
DISTINCT_MAX = 12
_DPI = 150
# Okabe and Ito's colours without the yellow, which is too light for a line on white.
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"]
_STYLES: list[Style] = ["-", "--"]
_LOG_SPAN = 30.0
_BANDS_MAX = 40
_LEGEND_WIDTH = 138
_LR_POINTS_MAX = 1000


class Look:
    """How one group is drawn."""

    def __init__(self, colour: Any, style: Style = "-", width: float = 1.6, alpha: float = 1.0) -> None:
        self.colour, self.style, self.width, self.alpha = colour, style, width, alpha


_BEST_STYLES: list[Style] = ["-", "--", ":"]
_BEST_LOOKS = [Look("#1a1a1a", style, 1.4) for style in _BEST_STYLES]


def draw(groups: Sequence[Group], metric: str, target: Path) -> None:
    """Draw the groups' curves, and the learning rate below them, into the PNG file `target`."""
    has_lr = any(len(curve.lr) for group in groups for curve in group.curves)
    figure = Figure(figsize=(9.5, 6.2 if has_lr else 5.0), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    rows = figure.subplots(2 if has_lr else 1, 1, sharex=True, squeeze=False, height_ratios=[3.4, 1] if has_lr else [1])
    axes: list[Axes] = list(rows[:, 0])
    looks, scale = _looks(groups)
    _draw_metric(axes[0], groups, looks, metric)
    if has_lr:
        _draw_lr(axes[1], groups, looks)
    axes[-1].set_xlabel("step")
    if scale is not None:
        figure.colorbar(scale[0], ax=axes, label=_plain(str(scale[1])), fraction=0.05, pad=0.01)
    _legend(figure, groups, looks)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    with missing_glyphs():
        canvas.print_figure(part, format="png", dpi=_DPI)
    part.replace(target)


def _looks(groups: Sequence[Group]) -> tuple[list[Look], tuple[ScalarMappable, Any] | None]:
    """Return how each group is drawn and, where a parameter decides it, its scale and name."""
    if len(groups) <= DISTINCT_MAX:
        pairs = [(colour, style) for style in _STYLES for colour in _COLOURS]
        return [Look(colour, style) for colour, style in pairs[: len(groups)]], None
    colours = mpl.colormaps["viridis"].resampled(256)(np.linspace(0.0, 0.92, 256))
    colour_map = LinearSegmentedColormap.from_list("viridis without its lightest end", colours)
    name = grouping.colour_parameter(groups, grouping.varying_names(groups))
    if name is None:
        keys, norm = grouping.final_ranks(groups), Normalize(0, len(groups) - 1)
    else:
        keys = np.array([float(group.param[name]) for group in groups])
        is_wide = keys.min() > 0 and keys.max() / keys.min() >= _LOG_SPAN
        norm = (LogNorm if is_wide else Normalize)(keys.min(), keys.max())
    looks = [Look(colour_map(norm(key)), width=0.9, alpha=0.7) for key in keys]
    return looks, None if name is None else (ScalarMappable(norm, colour_map), name)


def _draw_metric(axes: "Axes", groups: Sequence[Group], looks: Sequence[Look], metric: str) -> None:
    lines, edges = [], []
    for group, look in zip(groups, looks, strict=True):
        steps, mean, lowest, highest = grouping.group_line(group)
        lines.append((steps, mean))
        if len(group.curves) > 1 and len(groups) <= _BANDS_MAX:
            edges += [(steps, lowest), (steps, highest)]
            band_alpha = 0.2 if len(groups) <= DISTINCT_MAX else 0.06
            axes.fill_between(steps, lowest, highest, color=look.colour, alpha=band_alpha, linewidth=0)
        _line(axes, steps, mean, look)
    if len(groups) > DISTINCT_MAX:
        for index, look in zip(grouping.best(groups, len(_BEST_LOOKS)), _BEST_LOOKS, strict=False):
            _line(axes, *lines[index], look)
    low, high, is_log = grouping.limits(lines + edges)
    if is_log:
        axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.set_ylabel(_plain(metric))
    outside = sum(not low <= line[-1] <= high for _, line in lines)
    title = _title(groups, metric) + (f" (outside the picture: {outside})" if outside else "")
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    _tidy(axes)


def _draw_lr(axes: "Axes", groups: Sequence[Group], looks: Sequence[Look]) -> None:
    for group, look in zip(groups, looks, strict=True):
        # Seeds share their schedule; the longest trial shows the most of it.
        curve = max(group.curves, key=lambda curve: len(curve.lr))
        if len(curve.lr):
            # Every n-th value, not means: the corners of a schedule stay where they are.
            stride = -(-len(curve.lr) // _LR_POINTS_MAX)
            _line(axes, curve.lr_steps[::stride], curve.lr[::stride], look)
    peaks = grouping.peak_lrs(groups)
    if peaks and min(peaks) > 0 and max(peaks) / min(peaks) >= _LOG_SPAN:
        axes.set_yscale("log")
        axes.set_ylim(min(peaks) / 30, max(peaks) * 1.5)
    else:
        axes.set_ylim(0, 1.08 * max([*peaks, 0.0]) or 1)
        axes.ticklabel_format(axis="y", scilimits=(-2, 3))
    axes.set_ylabel("LR")
    _tidy(axes)


def _line(axes: "Axes", steps: grouping.Array, values: grouping.Array, look: Look) -> None:
    # One point makes no line.
    marker = "o" if len(steps) == 1 else None
    axes.plot(steps, values, look.style, color=look.colour, lw=look.width, alpha=look.alpha, marker=marker, ms=4)


def _tidy(axes: "Axes") -> None:
    axes.margins(x=0.01)
    tidy(axes)


def _plain(text: str) -> str:
    return text.replace("$", r"\$")


def _title(groups: Sequence[Group], metric: str) -> str:
    sizes = {len(group.curves) for group in groups}
    trials = sum(len(group.curves) for group in groups)
    if sizes == {1}:
        return _plain(f"{metric}, {trials} trial{'s' if trials > 1 else ''}")
    seeds = f"{sizes.pop()}" if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)}"
    return _plain(f"{metric}, {trials} trials: mean and range of {seeds} seeds")


def _legend(figure: Figure, groups: Sequence[Group], looks: Sequence[Look]) -> None:
    names = grouping.varying_names(groups)
    if not names:
        return
    is_falling = grouping.is_falling(groups)
    title = None
    shown = list(zip(groups, looks, strict=True))
    if len(groups) > DISTINCT_MAX:
        end = "lowest" if is_falling else "highest"
        title = f"{end} at the end, of {len(groups)}"
        if grouping.colour_parameter(groups, names) is None:
            title += " (the darker, the lower)"
        shown = [
            (groups[i], look) for i, look in zip(grouping.best(groups, len(_BEST_LOOKS)), _BEST_LOOKS, strict=False)
        ]
    labels = [_plain(grouping.label(group.param, names)) for group, _ in shown]
    handles = [Line2D([], [], color=look.colour, linestyle=look.style, linewidth=2) for _, look in shown]
    columns = min(len(labels), max(1, _LEGEND_WIDTH // (max(map(len, labels)) + 7)))
    rows = -(-len(labels) // columns) + (title is not None)
    figure.set_figheight(figure.get_figheight() + 0.2 * rows)
    figure.legend(
        handles,
        labels,
        title=title,
        loc="outside lower left",
        ncols=columns,
        frameon=False,
        fontsize=8.5,
        title_fontsize=8.5,
        alignment="left",
    )
