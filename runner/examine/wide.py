"""One row per trial with everything that is known of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.examine.scan import labels, many_objects, read_trials
from runner.examine.tables import several, typed, varies
from runner.examine.tidy import long_frame

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from runner.examine.columns import Column, Trials

FACTS = (
    *("state", "stage", "cause", "line", "exit_code", "attempts", "duration_s", "gpu_hours", "peak_vram_mib"),
    *("peak_rss_mib", "host", "started", "ended", "commit", "code", "log", "faults"),
)
"""The columns behind the metrics, as far as they are on record."""
_TROUBLE = {"cause", "line", "faults"}
# Above it not every whole number has a float.
_EXACT_MAX = 2**53
_HIGHER_IS_BETTER = re.compile(
    r"(^|[_/.\s-])(acc\d?|accuracy|auc|auroc|map|bleu\d?|rouge\w?|f1|precision|recall|score|reward|return|psnr|ssim|r2"
    r"|iou|miou|dice|top\d|em|hits?|ndcg|mrr|win_?rate)($|[_/.\s@\d-])",
    re.IGNORECASE,
)
_LOWER_IS_BETTER = frozenset(
    (
        *("loss", "losses", "err", "error", "errors", "mse", "rmse", "mae", "mape", "nll", "kl", "regret", "cost"),
        *("perplexity", "ppl", "bpb", "bpc", "wer", "cer", "std", "stddev", "stdev", "sem", "var", "variance"),
        *("time", "latency", "duration", "seconds"),
    )
)
# What may stand behind the name proper: how the value was chosen and on which split.
_QUALIFIERS = frozenset(
    ("best", "last", "final", "mean", "avg", "average", "train", "val", "valid", "validation", "dev", "test", "eval")
)


def is_higher_better(metric: str, maximize: Collection[str] = ()) -> bool:
    """Return whether a metric's best value is its highest: named so, or called accuracy, F1, reward and the like.

    A name that ends in `loss`, `error`, `std` or `time` says what it is, whatever it is of: `dice_loss`, `top5_err`,
    also as one part of a tag (`loss/recall`).
    """
    if metric in maximize:
        return True
    if any(_noun(part) in _LOWER_IS_BETTER for part in metric.lower().split("/")):
        return False
    return _HIGHER_IS_BETTER.search(metric) is not None


def _noun(name: str) -> str:
    """The last word of a name, without numbers and qualifiers behind it."""
    words = [word for word in re.split(r"[_.\s@-]+", name) if not word.isdecimal() and word not in _QUALIFIERS]
    return words[-1] if words else ""


@many_objects()
def wide_table(
    output: str | Path = "output",
    regex: str = ".*",
    concise: bool = True,
    maximize: str | Iterable[str] = (),
    series: str | Iterable[str] = (),
    use_cache: bool = True,
) -> pd.DataFrame:
    """Return one row per trial, named by its directory, whatever became of it.

    The columns are the parameters with their types, `seed` last; for each metric the last value that was written
    (`loss`, NaN where that was NaN), its step (`loss_step`), the best value (`loss_best`, without the NaN) and its step
    (`loss_best_step`); the values of evaluations (`test_loss`); and FACTS, of which `state` says which trials are
    `finished`, `failed`, `running`, … and `damaged` means that the trial's own records can't be read. A name that is
    taken by a parameter gets the prefix `metric.` or `run.`. `frame.attrs` lists the columns of each kind.

    Args:
        regex: only directories whose name it matches anywhere.
        concise: without the columns that are the same everywhere, but for metrics and `state`.
        maximize: metrics of which the highest value is the best; names such as `accuracy` need not be said.
        series: columns of metrics.csv of which each cell of the column `<name>_curve` holds the whole Series, by step.
        use_cache: read what did not change from `output/.runner/results.cache`, and keep it up to date.
    """
    trials = read_trials(output, regex, use_cache)
    frame = _whole_table(Path(output), trials, frozenset(several(maximize)))
    frame = without_constants(frame) if concise else frame.copy()
    for name in several(series):
        cells: Any = _series(long_frame(Path(output), trials, [name], use_cache), name, len(trials))
        frame[f"{name}_curve"] = cells
    return frame


_latest: tuple[Trials, frozenset[str], pd.DataFrame] | None = None
"""The table that this process made last, since a notebook asks for one again and again; nobody else has it."""


def _whole_table(output: Path, trials: Trials, maximize: frozenset[str]) -> pd.DataFrame:
    global _latest
    if _latest is not None and _latest[0] is trials and _latest[1] == maximize:
        return _latest[2]
    frame = _frame(trials, maximize, _commits(output, trials))
    _latest = trials, maximize, frame
    return frame


def _commits(output: Path, trials: Trials) -> list[str | None]:
    from runner.code import provenance

    def shown(name: str) -> str | None:
        code = provenance.load(output, name)
        return code.shown or None if code else None

    names = trials.column("facts", "code")
    known = {name: shown(name) for name in set(names) if name is not None}
    return [known.get(name) for name in names]


def _frame(trials: Trials, maximize: Collection[str], commits: list[str | None]) -> pd.DataFrame:
    import pandas as pd

    parameters = trials.parameters()
    parameters.sort(key=lambda name: name == "seed")
    columns = {name: trials.column("param", name) for name in parameters}
    metrics, steps = _metric_columns(trials, maximize)
    facts = {name: commits if name == "commit" else trials.column("facts", name) for name in FACTS}
    named = [_add(columns, more, prefix) for more, prefix in ((metrics, "metric"), (steps, "metric"), (facts, "run"))]
    index = pd.Index(labels(trials), name="trial", dtype="object")
    frame = pd.DataFrame({name: typed(column) for name, column in columns.items()}, index=index, columns=list(columns))
    frame.attrs = {"parameters": parameters, "metrics": named[0], "facts": named[2]}
    return frame


def without_constants(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the wide table without the columns that are the same everywhere, but for metrics, `state` and troubles."""
    facts = frame.attrs["facts"]
    kept = []
    for name in frame.columns:
        if name in frame.attrs["metrics"] or (name in facts and name.endswith("state")):
            kept.append(name)
            continue
        column = _values(frame[name])
        is_known = not frame[name].isna().all()
        if name in facts and name.removeprefix("run.") in _TROUBLE:
            kept += [name] if is_known else []
        elif (is_known or name not in facts) and varies(column):
            kept.append(name)
    concise = frame[kept]
    concise.attrs = {kind: [name for name in names if name in kept] for kind, names in frame.attrs.items()}
    concise.attrs["constants"] = [name for name in frame.columns if name not in kept]
    return concise


def fact(frame: pd.DataFrame, name: str) -> str | None:
    """Return the column of one of FACTS, which is called `run.…` where a parameter has its name; None without one."""
    known = frame.attrs.get("facts", [name])
    return next((title for title in (f"run.{name}", name) if title in known and title in frame), None)


def _values(column: pd.Series[Any]) -> Column:
    import numpy as np
    import pandas as pd

    if column.dtype in (np.dtype(float), np.dtype(np.int64)):
        return column.to_numpy()
    return [None if value is pd.NA else value for value in column.tolist()]


def _add(columns: dict[Any, Column], more: Mapping[str, Column], prefix: str) -> list[str]:
    names = []
    for name, column in more.items():
        free = name
        while free in columns:
            free = f"{prefix}.{free}"
        columns[free] = column
        names.append(free)
    return names


def _metric_columns(trials: Trials, maximize: Collection[str]) -> tuple[dict[str, Column], dict[str, Column]]:
    metrics: dict[str, Column] = {}
    steps: dict[str, Column] = {}
    for name in trials.titles("metrics"):
        last, last_step, best, best_step = _summaries(trials.column("metrics", name), is_higher_better(name, maximize))
        metrics[name] = last
        steps[f"{name}_step"] = _whole(last_step)
        if (best == best).any():
            metrics[f"{name}_best"] = best
            steps[f"{name}_best_step"] = _whole(best_step)
    for name in trials.titles("values"):
        # Of two sources of one name the evaluation counts.
        values = trials.column("values", name)
        if name in metrics:
            pairs = zip(_plain(values), _plain(metrics[name]), strict=True)
            values = [other if value is None else value for value, other in pairs]
        metrics[name] = values
    return metrics, steps


def _plain(column: Column) -> list[Any]:
    return column if isinstance(column, list) else list(column.tolist())


def _summaries(column: Column, is_highest: bool) -> tuple[Column, NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The last values and their steps, the best and theirs; NaN where there is none."""
    import numpy as np

    rows = [[None] * 6 if entry is None else entry for entry in column] if isinstance(column, list) else column
    numbers = np.array([row[1:] for row in rows], dtype=float)
    best = 3 if is_highest else 1
    last = [row[0] for row in rows] if isinstance(column, list) else column[:, 0]
    return last, numbers[:, 0], numbers[:, best], numbers[:, best + 1]


def _whole(steps: NDArray[Any]) -> Column:
    """The steps as whole numbers, where all are."""
    import numpy as np

    is_known = ~np.isnan(steps)
    if (steps[is_known] % 1 != 0).any() or (abs(steps[is_known]) > _EXACT_MAX).any():
        return steps
    if is_known.all():
        return steps.astype(np.int64)
    return [int(step) if known else None for step, known in zip(steps.tolist(), is_known.tolist(), strict=True)]


def _series(long: pd.DataFrame, name: str, count: int) -> list[pd.Series[Any] | None]:
    found = {code: part[name] for code, part in long.set_index("step").groupby("code")} if len(long) else {}
    return [found.get(code) for code in range(count)]
