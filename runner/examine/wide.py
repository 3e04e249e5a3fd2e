"""One row per trial with everything that is known of it."""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.examine.scan import Record, labels, many_objects, read_entries
from runner.examine.tables import parameter_names, typed, varies
from runner.examine.tidy import long_frame

if TYPE_CHECKING:
    import pandas as pd

    from runner.examine.cache import Entry

FACTS = (
    *("state", "stage", "cause", "line", "exit_code", "attempts", "duration_s", "gpu_hours", "peak_vram_mib"),
    *("peak_rss_mib", "host", "started", "ended", "commit", "code", "log", "faults"),
)
"""The columns behind the metrics, as far as they are on record."""
_TROUBLE = {"cause", "line", "faults"}
_HIGHER_IS_BETTER = re.compile(
    r"(^|[_/.\s-])(acc\d?|accuracy|auc|auroc|map|bleu\d?|rouge\w?|f1|precision|recall|score|reward|return|psnr|ssim|r2"
    r"|iou|miou|dice|top\d|em|hits?|ndcg|mrr|win_?rate)($|[_/.\s@\d-])",
    re.IGNORECASE,
)


def is_higher_better(metric: str, maximize: Collection[str] = ()) -> bool:
    """Return whether a metric's best value is its highest: named so, or called accuracy, F1, reward and the like."""
    return metric in maximize or _HIGHER_IS_BETTER.search(metric) is not None


@many_objects()
def wide_table(
    output: str | Path = "output",
    regex: str = ".*",
    concise: bool = True,
    maximize: Collection[str] = (),
    series: Iterable[str] = (),
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
    entries = read_entries(output, regex, use_cache)
    frame = _whole_table(Path(output), entries, frozenset(maximize))
    frame = without_constants(frame) if concise else frame.copy()
    for name in series:
        cells: Any = _series(long_frame(Path(output), entries, [name], use_cache), name, len(entries))
        frame[f"{name}_curve"] = cells
    return frame


_latest: tuple[dict[str, Entry], frozenset[str], pd.DataFrame] | None = None
"""The table that this process made last, since a notebook asks for one again and again; nobody else has it."""


def _whole_table(output: Path, entries: dict[str, Entry], maximize: frozenset[str]) -> pd.DataFrame:
    global _latest
    if _latest is not None:
        before, their_maximize, frame = _latest
        is_same = list(before) == list(entries) and all(map(operator.is_, before.values(), entries.values()))
        if is_same and their_maximize == maximize:
            return frame
    records = {label: entries[name][1] for name, label in labels(entries).items()}
    _add_commits(output, records.values())
    frame = _frame(records, maximize)
    _latest = entries, maximize, frame
    return frame


def _add_commits(output: Path, records: Iterable[Record]) -> None:
    from runner import provenance

    known: dict[str, str | None] = {}
    for record in records:
        name = record.get("code")
        if name is not None:
            if name not in known:
                code = provenance.load(output, name)
                known[name] = code.shown or None if code else None
            record["commit"] = known[name]


def _frame(records: Mapping[str, Record], maximize: Collection[str]) -> pd.DataFrame:
    import pandas as pd

    rows = list(records.values())
    params = [record["param"] for record in rows]
    parameters = parameter_names(params)
    parameters.sort(key=lambda name: name == "seed")
    columns: dict[Any, list[Any]] = {name: [param.get(name) for param in params] for name in parameters}
    metrics, steps = _metric_columns(rows, maximize)
    facts = {name: [record.get(name) for record in rows] for name in FACTS}
    facts["faults"] = ["; ".join(faults) if faults else None for faults in facts["faults"]]
    named = [_add(columns, more, prefix) for more, prefix in ((metrics, "metric"), (steps, "metric"), (facts, "run"))]
    index = pd.Index(list(records), name="trial", dtype="object")
    frame = pd.DataFrame({name: typed(column) for name, column in columns.items()}, index=index, columns=list(columns))
    frame.attrs = {"parameters": parameters, "metrics": named[0], "facts": named[2]}
    return frame


def without_constants(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the wide table without the columns that are the same everywhere, but for metrics, `state` and troubles."""
    import pandas as pd

    facts = frame.attrs["facts"]
    kept = []
    for name in frame.columns:
        if name in frame.attrs["metrics"] or (name in facts and name.endswith("state")):
            kept.append(name)
            continue
        column = frame[name].tolist()
        if frame[name].hasnans:
            column = [None if value is pd.NA else value for value in column]
        is_known = any(value is not None and value == value for value in column)
        if name in facts and name.removeprefix("run.") in _TROUBLE:
            kept += [name] if is_known else []
        elif (is_known or name not in facts) and varies(column):
            kept.append(name)
    concise = frame[kept]
    concise.attrs = {kind: [name for name in names if name in kept] for kind, names in frame.attrs.items()}
    return concise


def _add(columns: dict[Any, list[Any]], more: Mapping[str, list[Any]], prefix: str) -> list[str]:
    names = []
    for name, column in more.items():
        free = f"{prefix}.{name}" if name in columns else name
        columns[free] = column
        names.append(free)
    return names


def _metric_columns(
    rows: Sequence[Record], maximize: Collection[str]
) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    names = list(dict.fromkeys(name for record in rows for name in record.get("metrics", {})))
    values = list(dict.fromkeys(name for record in rows for name in record.get("values", {})))
    metrics: dict[str, list[Any]] = {}
    steps: dict[str, list[Any]] = {}
    nothing = [None] * 6
    of_rows = [record.get("metrics", {}) for record in rows]
    for name in names:
        last, last_step, *extremes = zip(*[summaries.get(name, nothing) for summaries in of_rows], strict=True)
        best, best_step = extremes[2:] if is_higher_better(name, maximize) else extremes[:2]
        metrics[name] = list(last)
        steps[f"{name}_step"] = _whole(last_step)
        if any(value is not None for value in best):
            metrics[f"{name}_best"] = list(best)
            steps[f"{name}_best_step"] = _whole(best_step)
    for name in values:
        # Of two sources of one name the evaluation counts.
        before = metrics.get(name, [None] * len(rows))
        metrics[name] = [record.get("values", {}).get(name, other) for record, other in zip(rows, before, strict=True)]
    return metrics, steps


def _whole(steps: Iterable[float | None]) -> list[Any]:
    return [step if step is None or step % 1 else int(step) for step in steps]


def _series(long: pd.DataFrame, name: str, count: int) -> list[pd.Series[Any] | None]:
    found = {code: part[name] for code, part in long.set_index("step").groupby("code")} if len(long) else {}
    return [found.get(code) for code in range(count)]
