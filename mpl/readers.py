"""Curves from files: a CSV with a schedule, a trial's directory, a list of trials.

A curve is named on a command line as

    DIRECTORY                  with metrics.csv and lr.npy, as `python -m train` writes them
    FILE.csv@SCHEDULE          a CSV with the columns step and loss, and what its LRs were
    FILE.csv                   the same with FILE.npy, the LR of every step, beside it

SCHEDULE is a file (.npy, .csv, .json: see train.schedules) or `name:key=value,...` with the arguments of
train.schedules.named: `cosine:steps=24000,peak=3e-4,warmup=2160`.
"""

from __future__ import annotations

import csv
import inspect
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mpl.curve import Curve, check_lrs
from mpl.errors import MplError, nearest
from mpl.terms import first_peak
from train.schedules import Array, named, read_knots, schedule

METRICS, LRS, CONFIG = "metrics.csv", "lr.npy", "config.yaml"
WHOLE = ("steps", "warmup")
OPTIONS = tuple(name for name in inspect.signature(named).parameters if name != "name")


def read_curve(text: str, column: str = "loss") -> Curve:
    """Return the curve that an argument of the command line names."""
    path, spec = path_and_schedule(text)
    if not spec and Path(path).is_dir():
        return read_trial(Path(path), column)
    if not spec:
        beside = Path(path).with_suffix(".npy")
        if Path(path).exists() and not beside.exists():
            raise MplError(f"{path}: the LRs of every step are needed: write {path}@SCHEDULE, or put them in {beside}")
        spec = str(beside)
    return read_csv(Path(path), spec, column)


def path_and_schedule(text: str) -> tuple[str, str]:
    """Return the path, which may have an @ too, and the schedule that follows it."""
    return _split(text, "@")


def _split(text: str, separator: str) -> tuple[str, str]:
    """Return what is before a separator, the longest path that there is, and what follows it."""
    parts = text.split(separator)
    paths = [separator.join(parts[:count]) for count in range(len(parts), 0, -1)]
    path = next((path for path in paths if Path(path).exists()), parts[0])
    return path, text[len(path) + 1 :]


def read_csv(path: Path, spec: str, column: str = "loss") -> Curve:
    """Return the curve of a CSV whose header has `step` and `column`, and maybe `lr`, for the schedule `spec`."""
    columns = _columns(path, column)
    steps = columns["step"]
    return Curve.of(path.stem, steps, columns[column], read_schedule(spec, steps), columns.get("lr"))


def read_trial(directory: Path, column: str = "loss", name: str | None = None) -> Curve:
    """Return the curve of a trial: its metrics.csv counts the steps that are done, lr.npy holds every LR.

    The column `loss` is the mean since the row before, and so it belongs to the middle of that stretch; one that
    reaches back to before the LR's peak is left out. So is a row before the first step.
    """
    if not directory.is_dir():
        raise MplError(f"{directory}: no such directory")
    lrs = check_lrs(str(directory / LRS), _load(directory / LRS))
    columns = _columns(directory / METRICS, column)
    begin = _begin(directory, columns["step"]) if column == "loss" else 0
    columns = {key: values[columns["step"] != begin] for key, values in columns.items()}
    done = columns["step"]
    curve = Curve.of(name or directory.name, done - 1, columns[column], lrs, columns.get("lr"))
    if column == "loss":
        since = np.concatenate(([begin], done[:-1]))
        peak = first_peak(lrs)
        kept = since >= peak
        if kept.sum() < 2:
            raise MplError(
                f"{curve.name}: {kept.sum()} rows with a mean loss of steps after the LR's peak at step {peak} alone: "
                "2 are needed; log more often, or take another column, as --column val_loss"
            )
        middle = np.floor((since + done - 1) / 2)
        curve = Curve.of(curve.name, middle[kept], columns[column][kept], lrs)
    return curve


def _begin(directory: Path, done: Array) -> int:
    """Return how many steps were done when the mean of a trial's first row began.

    Its config.yaml says so. Where that is missing, a first row after more steps than there usually are between rows
    may be that of a run that went on from another one's state: then its own steps are returned.
    """
    path = directory / CONFIG
    if path.exists():
        try:
            config = yaml.safe_load(_text(path))
        except yaml.YAMLError as error:
            raise MplError(f"cannot read {path}: it is no YAML") from error
        if isinstance(config, dict) and isinstance(config.get("begin"), int):
            return int(config["begin"])
    return int(done[0]) if len(done) > 1 and done[0] > np.median(np.diff(done)) else 0


def read_trials(path: Path) -> list[dict[str, Any]]:
    """Return the trials of a JSON-lines file, each with `name`, `directory` and `parameters`, that are finished."""
    trials = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            trial = json.loads(line)
            trial = {"parameters": {}, "state": "finished", **trial}
            str(trial["name"]), Path(trial["directory"]), trial["parameters"].items()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise MplError(
                f"{path}, line {number}: needed is a JSON object with `name` and `directory`, and `parameters`, if "
                f"there are, as an object: found {line[:60]!r}"
            ) from error
        if trial["state"] == "finished":
            trials.append(trial)
    if not trials:
        raise MplError(f"{path}: no finished trial")
    return trials


def read_schedule(spec: str, points: Array | None = None) -> Array:
    """Return the LR of every step of `name:key=value,...` or of a file.

    Without `steps` it ends with what the file holds, that of a name at the last of `points`.
    """
    name, rest = _split(spec, ":")
    values: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, _, text = part.partition("=")
        if key not in OPTIONS:
            raise MplError(f"schedule {spec!r}: unknown option {key!r}{nearest(key, OPTIONS)}: {', '.join(OPTIONS)}")
        values[key] = text if key in ("warmup_kind", "convention") else _fraction(spec, key, text)
    if name.endswith(".npy"):
        values.setdefault("steps", len(_load(Path(name))))
    if name.endswith((".csv", ".json")) and "steps" not in values:
        values["steps"] = _last_knot(Path(name)) + 1
    if points is not None and len(points):
        values.setdefault("steps", int(max(points.max(), 0)) + 1)
    if name.endswith((".npy", ".csv", ".json")):
        values.setdefault("peak", 1.0)
    missing = [key for key in ("steps", "peak") if key not in values]
    if missing:
        raise MplError(f"schedule {spec!r}: {' and '.join(missing)} missing: write {name}:steps=24000,peak=3e-4")
    try:
        return schedule(name, **values)
    except (ValueError, MemoryError) as error:  # a TrainError, or more steps than numpy can hold
        raise MplError(f"schedule {spec!r}: {error}") from error


def _last_knot(path: Path) -> int:
    try:
        return int(read_knots(path)[-1][0])
    except OSError as error:
        raise MplError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # a TrainError, or no text
        raise MplError(f"cannot read {path}: {error}") from error


def _fraction(spec: str, key: str, text: str) -> float | int:
    kind = "a whole number" if key in WHOLE else "a number"
    try:
        value = Fraction(text)
        if key in WHOLE and value.denominator != 1:
            raise ValueError
        return int(value) if key in WHOLE else float(value)
    except (ValueError, ArithmeticError) as error:
        raise MplError(f"schedule {spec!r}: {key} is {text!r}: {kind} is needed") from error


def _columns(path: Path, column: str) -> dict[str, Array]:
    """Return the columns step, `column` and, where there is one, lr; rows without a value in `column` are skipped."""
    lines = [line for line in _text(path).splitlines() if line.strip()]
    reader = csv.DictReader(lines)
    try:
        reader.fieldnames = _names(reader.fieldnames or [])
        rows = list(enumerate(reader, start=1))
    except csv.Error as error:
        raise MplError(f"cannot read {path}: {error}") from error
    found = list(reader.fieldnames or [])
    if not rows:
        raise MplError(f"{path}: no rows: a header step,lr,loss and at least two rows are needed")
    for name in ("step", column):
        if found.count(name) > 1:
            raise MplError(f"{path}: two columns are named {name}")
        if name not in found:
            raise MplError(f"{path}: no column {name!r}{nearest(name, found)}: the header has {', '.join(found)}")
    kept = [(number, row) for number, row in rows if (row[column] or "").strip()]
    columns = {}
    for name in dict.fromkeys(("step", column, *(["lr"] if "lr" in found else []))):
        columns[name] = np.array([_number(path, number, name, row[name]) for number, row in kept])
    return columns


def _names(header: Sequence[str]) -> list[str]:
    """Return the names of the columns; Step and LR, as other programs write them, are step and lr."""
    names = [name.strip() for name in header]
    lower = {name: name.lower() for name in names if name.lower() in ("step", "lr") and name.lower() not in names}
    return [lower.get(name, name) for name in names]


def _number(path: Path, number: int, name: str, text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError as error:
        raise MplError(f"{path}, row {number}: {name} is {text!r}: a number is needed") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MplError(f"cannot read {path}: {reason}") from error


def _load(path: Path) -> Array:
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise MplError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise MplError(f"cannot read {path}: it is no .npy file of numbers") from error
    return np.atleast_1d(np.asarray(array))
