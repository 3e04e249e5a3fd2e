"""Reading the results: logs, metrics, tables and curves of the trials under an output directory."""

from runner.examine.examiner import Examiner, Experiment, ParserFailure
from runner.examine.metrics import final_metrics, final_values, read_metrics
from runner.examine.readers import latest_log, read_param, read_stat
from runner.examine.summary import plot_curves, results_table

__all__ = [
    "Examiner",
    "Experiment",
    "ParserFailure",
    "final_metrics",
    "final_values",
    "latest_log",
    "plot_curves",
    "read_metrics",
    "read_param",
    "read_stat",
    "results_table",
]
