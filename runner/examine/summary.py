"""What a run shows at its end: one table and one picture of its trials."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.examine.metrics import METRICS_FILE, collect_final_values, read_metrics
from runner.examine.readers import RecordError, natural_key, read_param
from runner.examine.tables import parameter_names

if TYPE_CHECKING:
    import pandas as pd

    from runner.examine.grouping import Curve

# Beyond it a mean may overflow; NaN and infinity aren't drawn either.
_DRAWN_MAX = 1e100
_log = logging.getLogger(__name__)
Dirs = str | Path | Iterable[str | Path]
"""The directories of trials, or a single one."""


def _params(dirs: Dirs) -> dict[Path, dict[Any, Any]]:
    params = {}
    for path in dict.fromkeys(map(Path, [dirs] if isinstance(dirs, str | Path) else dirs)):
        try:
            params[path] = read_param(path)
        except RecordError as error:
            _log.warning("%s: %s", path, error)
    return params


def _final_values(path: Path) -> dict[str, Any]:
    values, faults = collect_final_values(path)
    for fault in faults:
        _log.warning("%s: %s", path, fault)
    return values


def _rank(value: Any) -> tuple[int, Any, str]:
    """Return a sort key for values of mixed types: numbers, then text, the missing last."""
    if isinstance(value, int | float) and value == value:
        return (0, value, "")
    return (2, 0, "") if value is None else (1, natural_key(str(value)), "")


@dataclass(frozen=True)
class Results:
    """One row per trial, named by its directory: the parameters that vary, then the final values; None: it has none.

    `seed` is the last of the parameters; the rows are sorted by the parameters from left to right.
    """

    trials: list[str]
    parameters: list[Any]
    metrics: list[str]
    rows: list[list[Any]]


def collect_results(dirs: Dirs) -> Results:
    """Return what the trials came to; directories without a readable `param` are left out."""
    params = _params(dirs)
    names = parameter_names(list(params.values()), varying=True)
    names.sort(key=lambda name: name == "seed")
    paths = sorted(
        params, key=lambda path: [*(_rank(params[path].get(name)) for name in names), natural_key(path.name)]
    )
    values = [_final_values(path) for path in paths]
    metrics = list(dict.fromkeys(name for value in values for name in value))
    rows = [
        [*map(params[path].get, names), *map(value.get, metrics)] for path, value in zip(paths, values, strict=True)
    ]
    return Results([path.name for path in paths], names, metrics, rows)


def results_table(dirs: Dirs) -> "pd.DataFrame":
    """Return what the trials came to as a table; directories without a readable `param` are left out.

    One row per trial, named by its directory: the parameters that vary, `seed` the last of them, then the final
    values. The rows are sorted by the parameters from left to right.
    """
    import pandas as pd

    results = collect_results(dirs)
    index = pd.Index(results.trials, name="trial", dtype="object")
    return pd.DataFrame(results.rows, columns=[*results.parameters, *results.metrics], index=index)


def _curve(path: Path, param: dict[Any, Any], metric: str) -> "Curve | None":
    import numpy as np

    from runner.examine.grouping import Curve

    if not (path / METRICS_FILE).is_file():
        return None
    try:
        frame = read_metrics(path)
    except (ValueError, OSError) as error:
        _log.warning("%s: %s", path / METRICS_FILE, error)
        return None
    columns = {}
    for name in (metric, "lr"):
        if not all(column in frame and frame[column].dtype.kind in "iuf" for column in ("step", name)):
            columns[name] = np.empty((0, 2))
            continue
        points = frame[["step", name]].to_numpy(dtype=float)
        columns[name] = points[(np.abs(points) < _DRAWN_MAX).all(axis=1)]
    if not len(columns[metric]):
        return None
    return Curve(param, *columns[metric].T, *columns["lr"].T)


def plot_curves(dirs: Dirs, target: Path, metric: str = "loss") -> Path | None:
    """Draw the trials' curves of one column of metrics.csv into the PNG file `target`, and return it.

    Trials that differ only in `seed` are one line, their mean, in a band from the lowest to the highest.
    Returns None, and writes nothing, where no trial has such a column.
    """
    params = _params(dirs)
    params = dict(sorted(params.items(), key=lambda item: natural_key(item[0].name)))
    found = [_curve(path, param, metric) for path, param in params.items()]
    curves = [curve for curve in found if curve is not None]
    if not curves:
        return None
    from runner.examine.grouping import group_by_seed
    from runner.examine.plots import draw

    draw(group_by_seed(curves), metric, Path(target))
    return Path(target)
