"""Metrics that are not in a metrics.csv: JSON lines, logs, TensorBoard's event files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from runner.examine.readers import latest_log

if TYPE_CHECKING:
    import pandas as pd

    from runner.examine.results import Experiment

Row: TypeAlias = "dict[str, float]"

JSONL_FILE = "metrics.jsonl"
_NUMBER = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|nan|inf|NaN|Infinity)"
_STEPS = ("step", "global_step", "iteration", "iter", "epoch")
_EDGE = r"(?![\w.])"
# The name may hold several words (`test loss`), each but the first beginning with a letter.
KEY_VALUE = re.compile(rf"(?P<name>[A-Za-z_][\w./-]*) ?= ?(?P<value>{_NUMBER}){_EDGE}")
"""`loss=1.5 acc=0.9`, with or without spaces around the sign."""
KEY_COLON = re.compile(rf"(?P<name>[A-Za-z_][\w./-]*)['\"]?: ?(?P<value>{_NUMBER}){_EDGE}")
"""`loss: 1.5, lr: 1e-3`, and the dictionaries that Hugging Face's Trainer prints: `{{'loss': 1.5, 'epoch': 2.0}}`."""
KEY_SPACE = re.compile(rf"(?P<name>[A-Za-z_][\w./-]*) +(?P<value>{_NUMBER}){_EDGE}")
"""`step 100 loss 1.5`, as many training loops print."""
PATTERNS: Mapping[str, re.Pattern[str]] = {"key=value": KEY_VALUE, "key: value": KEY_COLON, "key value": KEY_SPACE}


def is_event_file(name: str) -> bool:
    """Return whether a file's name is one of TensorBoard's event files."""
    return ".tfevents." in name or name.endswith(".tfevents")


def read_scalars(directory: Path) -> Any:
    """Return tag → scalars of the event files in a directory."""
    from runner.examine.eventfile import read_scalars as read

    return read(directory)


def read_jsonl(path: str | Path) -> pd.DataFrame:
    """Return a file of one JSON object a line, such as metrics.jsonl, as one row per step, steps ascending.

    The step is `step`, `global_step`, `iteration`, `iter` or `epoch`, whichever comes first in this list, or else the
    line's number. Values that are no numbers are left out, as is a last line that is being written; rows of the same
    step are joined. Raises ValueError where a whole line is no JSON object.
    """
    return frame_of(jsonl_rows(path))


def jsonl_rows(path: str | Path) -> list[Row]:
    """Return the numbers of each line of a file of JSON objects, as they stand there.

    Raises ValueError where a whole line is no JSON object.
    """
    rows = []
    content = Path(path).read_bytes()
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows.append({key: value for key, value in row.items() if _is_number(value)})
        except (ValueError, AttributeError):
            raise ValueError(f"line {number} is no JSON object") from None
    return _with_steps(rows)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _with_steps(rows: list[Row]) -> list[Row]:
    """The rows with their step, whatever it is called there; without any they are counted."""
    name = next((name for name in _STEPS if any(name in row for row in rows)), None)
    if name is None:
        return [{"step": number, **row} for number, row in enumerate(rows, start=1)]
    # A line without the step, such as one of settings before the first, is none of the rows.
    return [{"step": row.pop(name), **row} for row in rows if not math.isnan(row.get(name, math.nan))]


def last_values(rows: list[Row]) -> Row:
    """Return the last value of each number that was written, also where that is NaN."""
    last: Row = {}
    for row in rows:
        last |= row
    last.pop("step", None)
    return last


def frame_of(rows: list[Row]) -> pd.DataFrame:
    """Return rows as a table, one row per step, steps ascending."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=None if rows else ["step"])
    frame = frame.groupby("step", sort=True).last().reset_index()
    if frame["step"].dtype.kind == "f" and (frame["step"] % 1 == 0).all():
        frame = frame.astype({"step": "int64"})
    return frame


def read_log(path: str | Path, pattern: str | re.Pattern[str] = KEY_VALUE) -> pd.DataFrame:
    """Return the numbers in a log as one row per line that has any, or per step where lines say one.

    `pattern` is a regular expression with the groups `name` and `value`, of which a line may hold several, or with a
    group for each column, such as `epoch (?P<epoch>\\d+) .* accuracy (?P<accuracy>[\\d.]+)`; or one of `"key=value"`,
    `"key: value"` and `"key value"`. A last line that is being written does not count.

    Raises:
        ValueError: the pattern has no named group.
    """
    return frame_of(_log_rows(path, pattern))


def _log_rows(path: str | Path, pattern: str | re.Pattern[str]) -> list[Row]:
    compiled = re.compile(PATTERNS.get(pattern, pattern) if isinstance(pattern, str) else pattern)
    if not compiled.groupindex:
        raise ValueError(f"pattern {compiled.pattern!r} has no named group, such as (?P<loss>[0-9.]+)")
    text = Path(path).read_bytes().decode("utf-8", "replace")
    # A progress bar overwrites its line: each state of it counts as a line.
    lines = re.split(r"[\r\n]+", text[: max(text.rfind("\n"), text.rfind("\r")) + 1])
    return _with_steps([row for line in lines if (row := _numbers_in(compiled, line))])


def _numbers_in(pattern: re.Pattern[str], line: str) -> Row:
    row: Row = {}
    for found in pattern.finditer(line):
        groups = found.groupdict()
        pairs = {groups["name"]: groups["value"]} if groups.keys() == {"name", "value"} else groups
        for name, value in pairs.items():
            try:
                row[name] = float(value)
            except (TypeError, ValueError):  # an optional group that did not take part, or a word
                continue
    return row


def log_metrics(
    stage: str, pattern: str | re.Pattern[str] = KEY_VALUE
) -> Callable[[Path, Experiment, dict[Any, Any]], None]:
    """Return a parser for `Examiner.add`: the last value of each number in the stage's latest log.

    The whole table, a row per step, is kept in `experiment.cache["log"]`.
    """

    def parse(path: Path, experiment: Experiment, caches: dict[Any, Any]) -> None:
        log = latest_log(stage, path)
        if log is None:
            return
        rows = _log_rows(log, pattern)
        experiment.cache["log"] = frame_of(rows)
        experiment.metric.update(last_values(rows))

    return parse
