"""What the axes of all plots have in common."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# From here on whole numbers are so long that neighbouring ticks run into each other: 10k instead.
_LONG = 10_000


def tidy(axes: Axes) -> None:
    """Draw a light grid behind what is drawn, no frame, and large numbers along the x axis as 250k or 1.5M.

    To be called when all is drawn: the numbers that the axis spans decide.
    """
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    low, high = axes.get_xlim()
    # A narrow part far from zero needs all its digits.
    if axes.get_xscale() == "linear" and high >= _LONG and high - low >= high / 100:
        from matplotlib.ticker import EngFormatter

        axes.xaxis.set_major_formatter(EngFormatter(sep=""))


@contextmanager
def missing_glyphs() -> Iterator[None]:
    """Let a character that the font lacks be drawn as a box, without a word."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield
