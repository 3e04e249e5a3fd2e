"""The numbers of a trial: its metrics.csv and the eval_<split>.json files."""

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.examine.results import Experiment

if TYPE_CHECKING:
    import pandas as pd

METRICS_FILE = "metrics.csv"
_FIRST_COLUMNS = ["step", "lr", "loss"]
NOT_RESULTS = {"step", "lr", "time", "time_s"}


def _whole_rows(path: Path) -> list[bytes]:
    """Return the header and the rows that were written to their end."""
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    # What follows the last line end is being written, or was when the trial was killed.
    lines = [line for line in content[: content.rfind(b"\n") + 1].splitlines() if line.strip()]
    if not lines:
        return []
    if b'"' in content:
        return lines
    commas = lines[0].count(b",")
    return [line for line in lines if line.count(b",") == commas]


def _metrics_file(path: str | Path) -> Path:
    path = Path(path)
    return path / METRICS_FILE if path.is_dir() else path


def read_metrics(path: str | Path) -> "pd.DataFrame":
    """Return metrics.csv of the trial in `path` (or that file itself), one row per step, steps ascending.

    Rows that were torn while being written are left out; rows of the same step are joined, the later
    value of a column first. Empty cells are NaN. Raises FileNotFoundError where there is no such file.
    """
    import pandas as pd

    rows = _whole_rows(_metrics_file(path))
    if not rows:
        return pd.DataFrame(columns=_FIRST_COLUMNS, dtype=float)
    text = io.BytesIO(b"\n".join(rows))
    frame = pd.read_csv(text, low_memory=False, index_col=False, skipinitialspace=True, encoding_errors="replace")
    frame.columns = frame.columns.str.strip()
    for name in frame.columns[~frame.dtypes.map(pd.api.types.is_numeric_dtype)]:
        frame[name] = _numbers(frame[name])
    return _by_step(frame) if "step" in frame.columns else frame


def _numbers(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Turn a column into numbers if most of it is; a stray header or torn cell becomes NaN."""
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce")
    is_text = 2 * numbers.notna().sum() < column.notna().sum()
    return column if is_text else numbers


def _by_step(frame: "pd.DataFrame") -> "pd.DataFrame":
    frame = frame[frame["step"].notna()]
    steps = frame["step"]
    if not (steps.is_monotonic_increasing and steps.is_unique):
        frame = frame.groupby("step", sort=True).last().reset_index()
    if frame["step"].dtype.kind == "f" and (frame["step"] % 1 == 0).all():
        frame = frame.astype({"step": "int64"})
    return frame.reset_index(drop=True)


def _cell(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def last_cells(path: Path) -> dict[str, Any]:
    """Return the last cell of each column that isn't empty; a `nan` that was written counts."""
    rows = _whole_rows(path)
    if not rows:
        return {}
    cells_by_row = csv.reader(row.decode("utf-8", "replace") for row in [rows[0], *reversed(rows[1:])])
    header = [name.strip() for name in next(cells_by_row)]
    missing = dict(enumerate(header))
    last: dict[str, Any] = {}
    for cells in cells_by_row:
        if not missing:
            break
        cells = [cell.strip() for cell in cells]
        if cells == header:
            continue
        found = [index for index in missing if index < len(cells) and cells[index]]
        last.update((missing.pop(index), _cell(cells[index])) for index in found)
    return last


def read_evaluation(file: Path) -> dict[str, float]:
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file.name} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} holds no JSON object")
    split = content.get("split", file.stem.removeprefix("eval_"))
    return {
        f"{split}_{name}": value
        for name, value in content.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in NOT_RESULTS
    }


def collect_final_values(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the trial's final values as `final_values` does, and what is wrong with its files."""
    values: dict[str, Any] = {}
    faults: list[str] = []
    if (path / METRICS_FILE).is_file():
        last = last_cells(path / METRICS_FILE)
        values = {name: value for name, value in last.items() if name not in NOT_RESULTS}
    for file in sorted(path.glob("eval_*.json")):
        try:
            values.update(read_evaluation(file))
        except (ValueError, OSError) as error:
            faults.append(str(error))
    return values, faults


def final_values(path: str | Path) -> dict[str, Any]:
    """Return the last value of each column of metrics.csv, and `<split>_<name>` from eval_<split>.json.

    The columns step, lr, time and time_s are left out, as are files that don't exist. Where both give a name,
    the evaluation counts. Raises ValueError where an evaluation is broken.
    """
    values, faults = collect_final_values(Path(path))
    if faults:
        raise ValueError("; ".join(faults))
    return values


def final_metrics(path: Path, experiment: Experiment, caches: dict[Any, Any]) -> None:
    """Fill `experiment.metric` with the trial's final values: a parser for `Examiner.add`.

    Raises ValueError where an evaluation is broken, after all others have been filled in.
    """
    values, faults = collect_final_values(Path(path))
    experiment.metric.update(values)
    if faults:
        raise ValueError("; ".join(faults))
