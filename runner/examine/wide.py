"""One row per trial with everything that is known of it, and all curves in one tidy frame."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.examine.metrics import METRICS_FILE, read_metrics
from runner.examine.scan import Record, read_trials
from runner.examine.sources import JSONL_FILE, is_event_file, read_jsonl, read_scalars
from runner.examine.tables import parameter_names, varies

if TYPE_CHECKING:
    import pandas as pd

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
    records = read_trials(output, regex, use_cache)
    _add_commits(Path(output), records.values())
    frame = _frame(records, maximize)
    if concise:
        frame = without_constants(frame)
    for name in series:
        cells: Any = _series(Path(output), records, name)
        frame[f"{name}_curve"] = cells
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
    frame = pd.DataFrame({name: _typed(column) for name, column in columns.items()}, index=index, columns=list(columns))
    frame.attrs = {"parameters": parameters, "metrics": named[0], "facts": named[2]}
    return frame


def without_constants(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the wide table without the columns that are the same everywhere, but for metrics, `state` and troubles."""
    import pandas as pd

    facts = frame.attrs["facts"]
    kept = []
    for name in frame.columns:
        column = [None if value is pd.NA else value for value in frame[name].tolist()]
        is_known = any(value is not None and value == value for value in column)
        if name in frame.attrs["metrics"] or (name in facts and name.endswith("state")):
            kept.append(name)
        elif name in facts and name.removeprefix("run.") in _TROUBLE:
            kept += [name] if is_known else []
        elif varies(column) and (is_known or name not in facts):
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
    for name in names:
        found = [record.get("metrics", {}).get(name, nothing) for record in rows]
        best = 4 if is_higher_better(name, maximize) else 2
        metrics[name] = [summary[0] for summary in found]
        steps[f"{name}_step"] = _whole([summary[1] for summary in found])
        if any(summary[2] is not None for summary in found):
            metrics[f"{name}_best"] = [summary[best] for summary in found]
            steps[f"{name}_best_step"] = _whole([summary[best + 1] for summary in found])
    for name in values:
        # Of two sources of one name the evaluation counts.
        before = metrics.get(name, [None] * len(rows))
        metrics[name] = [record.get("values", {}).get(name, other) for record, other in zip(rows, before, strict=True)]
    return metrics, steps


def _whole(steps: list[float | None]) -> list[Any]:
    return [step if step is None or step % 1 else int(step) for step in steps]


def _typed(column: list[Any]) -> Any:
    """A column that keeps what its values are: whole numbers and booleans stay so where a trial has none."""
    import pandas as pd

    kinds = {type(value) for value in column}
    if kinds == {int, type(None)}:
        return pd.array(column, dtype="Int64")
    if kinds == {bool, type(None)}:
        return pd.array(column, dtype="boolean")
    if kinds <= {int, float, type(None)} and kinds & {float}:
        return [float("nan") if value is None else float(value) for value in column]
    if kinds <= {int} or kinds <= {bool}:
        return column
    return pd.Series(column, dtype="object").array


def _series(output: Path, records: Mapping[str, Record], name: str) -> list[pd.Series[Any] | None]:
    long = _long(output, list(records), [name])
    found = {code: part[name] for code, part in long.set_index("step").groupby("code")} if len(long) else {}
    return [found.get(code) for code in range(len(records))]


def curves(
    output: str | Path = "output",
    columns: Sequence[str] | None = None,
    regex: str = ".*",
    concise: bool = True,
) -> pd.DataFrame:
    """Return every logged step of every trial as one long frame: `trial`, the parameters, `step` and the columns.

    The numbers come from metrics.csv, or else metrics.jsonl, or else TensorBoard's event files (with NaN where a tag
    has no value at a step). Where a trial repeated steps after an interruption, the later ones count. Trials without
    any have no rows; `wide_table` has them all.

    Args:
        columns: only these, such as `["loss"]`; rows in which all of them are empty are left out.
        regex: only directories whose name it matches anywhere.
        concise: without the parameters that are the same everywhere.
    """
    import pandas as pd

    output = Path(output)
    records = read_trials(output, regex)
    trials = list(records)
    params = [record["param"] for record in records.values()]
    parameters = parameter_names(params, varying=concise)
    frame = _long(output, trials, columns)
    if frame.empty:
        return pd.DataFrame(columns=["trial", *parameters, "step", *(columns or [])])
    codes = frame.pop("code").to_numpy()
    heads: dict[Any, Any] = {"trial": pd.Categorical.from_codes(codes, categories=pd.Index(trials, dtype="object"))}
    for name in parameters:
        heads[name] = pd.Series(_typed([records[trial]["param"].get(name) for trial in trials])).array.take(codes)
    overlap = {name: f"metric.{name}" for name in frame.columns if name in heads}
    return pd.concat([pd.DataFrame(heads), frame.rename(columns=overlap)], axis=1)


_CHUNK = 256


def _long(output: Path, trials: Sequence[str], columns: Sequence[str] | None) -> pd.DataFrame:
    """Each trial's rows, with the trial's place as `code`, in the order of the trials."""
    import pandas as pd

    parts = [part for part in _parts(output, trials, columns) if len(part)]
    if not parts:
        return pd.DataFrame({"code": [], "step": []})
    frame = pd.concat(parts, ignore_index=True)
    if not frame["code"].is_monotonic_increasing:
        frame = frame.sort_values("code", kind="stable", ignore_index=True)
    return frame


def _parts(output: Path, trials: Sequence[str], columns: Sequence[str] | None) -> Iterator[pd.DataFrame]:
    import numpy as np
    import pandas as pd

    from runner.examine import batch

    for start in range(0, len(trials), _CHUNK):
        contents: dict[int, bytes] = {}
        for code in range(start, min(start + _CHUNK, len(trials))):
            try:
                contents[code] = (output / trials[code] / METRICS_FILE).read_bytes()
            except OSError:
                contents[code] = b""
        codes = np.array(list(contents))
        blocks, rest = batch.parse(list(contents.values()))
        for block in blocks:
            part = pd.DataFrame(block.rows, columns=block.names)
            if (part["step"] % 1 == 0).all():
                part = part.astype({"step": "int64"})
            counts = np.diff(block.starts, append=len(part))
            yield _chosen(part, columns, np.repeat(codes[block.files], counts))
        for place in rest:
            frame = _slowly(output / trials[codes[place]])
            if frame is not None:
                yield _chosen(frame, columns, np.full(len(frame), codes[place]))


def _slowly(directory: Path) -> pd.DataFrame | None:
    try:
        if (directory / METRICS_FILE).exists():
            frame = read_metrics(directory)
            return frame if "step" in frame else frame.rename_axis("step").reset_index()
        if (directory / JSONL_FILE).exists():
            return read_jsonl(directory / JSONL_FILE)
        if any(is_event_file(file.name) for file in directory.iterdir()):
            return _scalars_frame(directory)
    except (OSError, ValueError):  # wide_table tells of it
        return None
    return None


def _scalars_frame(directory: Path) -> pd.DataFrame:
    import pandas as pd

    columns = {}
    for tag, scalars in read_scalars(directory).items():
        column = pd.Series(scalars.values, index=pd.Index(scalars.steps, name="step"))
        columns[tag] = column[~column.index.duplicated(keep="last")]
    return pd.DataFrame(columns).sort_index().reset_index() if columns else pd.DataFrame({"step": []})


def _chosen(frame: pd.DataFrame, columns: Sequence[str] | None, codes: Any) -> pd.DataFrame:
    chosen = [name for name in columns if name in frame] if columns is not None else frame.columns.drop("step").tolist()
    part = frame[["step", *chosen]]
    part.insert(0, "code", codes)
    return part if columns is None else part[part[chosen].notna().any(axis=1)]
