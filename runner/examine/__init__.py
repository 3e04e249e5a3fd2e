"""Reading the results: logs, metrics, tables and curves of the trials under an output directory."""

import importlib
from typing import TYPE_CHECKING, Any

from runner.examine.examiner import Examiner, Experiment, ParserFailure
from runner.examine.metrics import final_metrics, final_values, read_metrics
from runner.examine.readers import latest_log, read_param, read_stat
from runner.examine.sources import log_metrics, read_jsonl, read_log, read_scalars
from runner.examine.summary import plot_curves, results_table
from runner.examine.tidy import curves
from runner.examine.wide import wide_table

if TYPE_CHECKING:
    from runner.examine.drawing import draw_curves, draw_heatmap, draw_pareto, draw_sweep, pareto
    from runner.examine.stats import aggregate, best, compare, importance, marginal

__all__ = [
    "Examiner",
    "Experiment",
    "ParserFailure",
    "aggregate",
    "best",
    "compare",
    "curves",
    "draw_curves",
    "draw_heatmap",
    "draw_pareto",
    "draw_sweep",
    "final_metrics",
    "final_values",
    "importance",
    "latest_log",
    "log_metrics",
    "marginal",
    "pareto",
    "plot_curves",
    "read_jsonl",
    "read_log",
    "read_metrics",
    "read_param",
    "read_scalars",
    "read_stat",
    "results_table",
    "wide_table",
]

# These need NumPy, which takes longer to import than all else.
_MODULES = {
    "aggregate": "stats",
    "best": "stats",
    "compare": "stats",
    "draw_curves": "drawing",
    "draw_heatmap": "drawing",
    "draw_pareto": "drawing",
    "draw_sweep": "drawing",
    "importance": "stats",
    "marginal": "stats",
    "pareto": "drawing",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
