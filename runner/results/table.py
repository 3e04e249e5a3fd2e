"""`run table` and `run best`: the trials in rows, or the settings in the order of their means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.errors import InputError
from runner.results import chosen, text

if TYPE_CHECKING:
    import argparse

    import pandas as pd

_FACTS = ("state", "cause", "duration_s", "gpu_hours", "peak_vram_mib", "exit_code")


def run(options: argparse.Namespace) -> int:
    """Prints the table."""
    if options.subcommand == "best":
        return _best(options)
    from runner.examine.settings import check_columns
    from runner.examine.wide import is_higher_better, without_constants

    full = chosen.table(options, is_concise=False)
    frame = full if options.all else without_constants(full)
    shown = _means(frame, options.by) if options.by else frame if options.all else _brief(frame)
    if options.sort:
        check_columns(shown, [options.sort])
        is_metric = options.sort in frame.attrs["metrics"]
        maximize = is_metric and is_higher_better(options.sort) if options.maximize is None else options.maximize
        shown = shown.sort_values(
            options.sort, key=_comparable, ascending=not maximize, kind="stable", na_position="last"
        )
    if not options.by and options.form != "json":
        shown = chosen.with_nan(shown, full)
    text.show(shown, options.form, options.rows)
    return 0


def _brief(frame: pd.DataFrame) -> pd.DataFrame:
    """What fits on a screen: the parameters, the metrics, and how it went."""
    from runner.examine.wide import fact

    facts = [name for name in (fact(frame, name) for name in _FACTS) if name is not None]
    return frame[[*frame.attrs["parameters"], *frame.attrs["metrics"], *facts]]


def _comparable(column: pd.Series[Any]) -> pd.Series[Any]:
    """The places of values of mixed types in their order: numbers, then the rest by their text."""
    import pandas as pd

    if column.dtype != object:
        return column
    known = column[column.notna()]
    keys = [(0, value, "") if isinstance(value, int | float) else (1, 0, str(value)) for value in known]
    places = {key: place for place, key in enumerate(sorted(set(keys)))}
    return pd.Series([places[key] for key in keys], index=known.index, dtype=float).reindex(column.index)


def _means(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    import pandas as pd

    from runner.examine.stats import aggregate

    parts: dict[str, Any] = {}
    for metric in frame.attrs["metrics"]:
        found = aggregate(frame, metric, by=by, kind=None)
        parts.setdefault("trials", found["n"] + found["missing"])
        parts |= {metric: found["mean"], f"{metric}_std": found["std"]}
        if found["missing"].any():
            parts[f"{metric}_missing"] = found["missing"]
    if not parts:
        raise InputError("no metrics: no trial has a metrics.csv, a metrics.jsonl or TensorBoard events.")
    return pd.DataFrame(parts)


def _best(options: argparse.Namespace) -> int:
    from runner.examine import settings, stats

    frame = chosen.table(options)
    settings.check_columns(frame, [options.metric])
    if options.metric not in frame.attrs["metrics"]:
        metrics = ", ".join(frame.attrs["metrics"])
        raise InputError(f"{options.metric}: is no metric. Allowed: {metrics or 'nothing, as no trial has any'}.")
    kind: Any = chosen.interval_kind()
    found = stats.best(frame, options.metric, options.by, options.over, options.maximize, kind)
    text.show(found, options.form, options.rows)
    return 0
