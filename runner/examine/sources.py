"""Metrics that are not in a metrics.csv: JSON lines, logs, TensorBoard's event files."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from runner.examine.readers import latest_log
from runner.examine.rows import Row, Rows

if TYPE_CHECKING:
    import pandas as pd

    from runner.examine.results import Experiment

JSONL_FILE = "metrics.jsonl"
_BLOCK_BYTES = 1 << 20
_LINE_ENDS = re.compile(r"[\r\n]+")
_NUMBER = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|nan|inf|NaN|Infinity)"
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
    return jsonl_rows(path).frame()


def jsonl_rows(path: str | Path) -> Rows:
    """Return the numbers of each line of a file of JSON objects.

    Raises ValueError where a whole line is no JSON object.
    """
    with Path(path).open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
        return Rows(_objects(file))


def _objects(lines: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip() or not line.endswith("\n"):
            continue
        try:
            yield {key: value for key, value in json.loads(line).items() if _is_number(value)}
        except (ValueError, AttributeError):
            raise ValueError(f"line {number} is no JSON object") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (type(value) is int and abs(value) <= sys.float_info.max)


def read_log(path: str | Path, pattern: str | re.Pattern[str] = KEY_VALUE) -> pd.DataFrame:
    """Return the numbers in a log as one row per line that has any, or per step where lines say one.

    `pattern` is a regular expression with the groups `name` and `value`, of which a line may hold several, or with a
    group for each column, such as `epoch (?P<epoch>\\d+) .* accuracy (?P<accuracy>[\\d.]+)`; or one of `"key=value"`,
    `"key: value"` and `"key value"`. A last line that is being written does not count.

    Raises:
        ValueError: the pattern has no named group, or is no regular expression.
    """
    return _log_rows(path, pattern).frame()


def _log_rows(path: str | Path, pattern: str | re.Pattern[str]) -> Rows:
    try:
        compiled = re.compile(PATTERNS.get(pattern, pattern) if isinstance(pattern, str) else pattern)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r} is not a regular expression: {error}") from None
    if not compiled.groupindex:
        raise ValueError(f"pattern {compiled.pattern!r} has no named group, such as (?P<loss>[0-9.]+)")
    numbers_in = _pairs_in if compiled.groupindex.keys() == {"name", "value"} else _groups_in
    with Path(path).open("rb") as file:
        return Rows(row for line in _shown_lines(file) if (row := numbers_in(compiled, line)))


def _shown_lines(file: BinaryIO) -> Iterator[str]:
    """The lines that are whole. A progress bar overwrites its own: each state of it counts as one."""
    parts: list[bytes] = []  # of a line that goes on in the next block
    while block := file.read(_BLOCK_BYTES):
        end = max(block.rfind(b"\n"), block.rfind(b"\r")) + 1
        if end:
            yield from _LINE_ENDS.split(b"".join([*parts, block[:end]]).decode("utf-8", "replace"))
            parts = []
        parts.append(block[end:])


def _pairs_in(pattern: re.Pattern[str], line: str) -> Row:
    return _numbers((found["name"], found["value"]) for found in pattern.finditer(line))


def _groups_in(pattern: re.Pattern[str], line: str) -> Row:
    return _numbers(pair for found in pattern.finditer(line) for pair in found.groupdict().items())


def _numbers(pairs: Iterable[tuple[str, str | None]]) -> Row:
    row: Row = {}
    for name, value in pairs:
        try:
            row[name] = float(value)  # type: ignore[arg-type]
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
        experiment.cache["log"] = rows.frame()
        experiment.metric.update(rows.last())

    return parse
