"""`run plot`: one picture of the results, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import InputError, SystemFaultError
from runner.results import chosen

if TYPE_CHECKING:
    import argparse

    from matplotlib.axes import Axes


def run(options: argparse.Namespace) -> int:
    """Draws the picture and prints where it is."""
    if options.y and not options.x:
        raise InputError("--y: needs --x, too: a heat map has two axes.")
    if options.against and options.x:
        raise InputError("--against: is a picture of its own; leave --x out.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from runner.examine.axes import missing_glyphs

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    _draw(options, ax)
    name = options.metric.replace("/", "_")
    target = Path(options.save) if options.save else Path(options.output) / f"{name}.png"
    formats = sorted(figure.canvas.get_supported_filetypes())
    if target.suffix[1:] not in formats:
        raise InputError(f"--save {target}: no such kind of file. Allowed: .{', .'.join(formats)}.")
    try:
        with missing_glyphs():
            figure.savefig(target, dpi=150)
    except OSError as error:
        raise SystemFaultError(f"{target}: {error.strerror}; choose another file with --save.") from error
    print(target)
    return 0


def _draw(options: argparse.Namespace, ax: Axes) -> None:
    from runner.examine import drawing

    table = chosen.table(options)
    if options.against:
        drawing.draw_pareto(table, options.against, options.metric, ax=ax)
    elif options.y:
        drawing.draw_heatmap(table, options.metric, options.x, options.y, ax=ax)
    elif options.x:
        drawing.draw_sweep(table, options.metric, options.x, options.by, ax=ax)
    else:
        from runner.examine.tidy import curves, title

        frame = curves(options.output, concise=False)
        frame = frame[frame["trial"].isin(table.index)]
        by = options.by or [name for name in table.attrs["parameters"] if name != "seed"]
        drawing.draw_curves(frame, options.metric, list(map(title, by)), ax=ax)
