"""Finding and reading the small files of a trial's directory: `param`, `stat` and the logs."""

import fnmatch
import operator
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsIndex

import yaml

from runner.examine import paramfile

RECORDS_DIRECTORY = ".runner"
UNITS = ("gather.", "search.")
"""How the directories of gathers and of searches' decisions begin, which are no trials."""
SHARED_DIRECTORY = f"{RECORDS_DIRECTORY}/trials"
"""Where the records of trials lie that share one output directory, as `run --no-subdir` has it."""
# The latter is where an output directory is a file system of its own.
_NO_TRIALS = {RECORDS_DIRECTORY, "lost+found"}
_TIME = r"[0-9]{8}\.[0-9]{6}"
_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?)")
_INTEGER = re.compile(r"([0-9]+)")


class RecordError(ValueError):
    """A trial's `param` or `stat` is missing or can't be read; the message says why, in one line."""


def _read_mapping(file: Path) -> dict[Any, Any]:
    try:
        content = paramfile.load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"no '{file.name}' found") from None
    except OSError as error:
        raise RecordError(f"'{file.name}' can't be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise RecordError(f"'{file.name}' is not valid YAML: {reason}") from error
    if content is None:
        raise RecordError(f"'{file.name}' is empty")
    if not isinstance(content, dict):
        raise RecordError(f"'{file.name}' holds a {type(content).__name__}, not a mapping")
    return content


def read_param(path: str | Path) -> dict[Any, Any]:
    """Return the parameters of the trial in `path`, with `_name`, `_output`, `_time` and `_scripts`.

    Raises RecordError where the file is missing, empty or broken.
    """
    return _read_mapping(Path(path) / "param")


def read_stat(path: str | Path) -> dict[str, str]:
    """Return stage → state (`finished`, `failed`, `running`, …) of the trial in `path`.

    Raises RecordError where the file is missing, empty or broken.
    """
    return {str(stage): str(state) for stage, state in _read_mapping(Path(path) / "stat").items()}


def natural_key(name: str) -> tuple[list[str | float], str]:
    """Return a sort key that puts `lr_0.15` before `lr_0.5`, and `seed_2` before `seed_10`."""
    parts: list[str | float] = list(_NUMBER.split(name))
    parts[1::2] = [float(part) for part in parts[1::2]]
    return parts, name


def trial_names(output: str | Path = "output", regex: str = ".*") -> list[str]:
    """Return the names of the directories in `output` that `regex` matches anywhere, in natural order."""
    return sorted(trial_directories(output, regex), key=natural_key)


def trial_directories(output: str | Path, regex: str) -> list[str]:
    """Return what `trial_names` does in no particular order."""
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise ValueError(f"regex {regex!r} is not a regular expression: {error} ('.*' matches all)") from None
    if not Path(output).is_dir():
        raise FileNotFoundError(f"no output directory '{output}' (in {Path.cwd()})")
    with os.scandir(output) as entries:
        return [
            entry.name
            for entry in entries
            if entry.name not in _NO_TRIALS
            and not entry.name.startswith(UNITS)
            and pattern.search(entry.name)
            and entry.is_dir()
        ]


def shared_directories(output: str | Path) -> list[str]:
    """Return the directories, relative to `output`, with the records of trials that have none of their own."""
    try:
        with os.scandir(Path(output) / SHARED_DIRECTORY) as entries:
            return sorted(f"{SHARED_DIRECTORY}/{entry.name}" for entry in entries if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def shared_name(directory: str | Path) -> str:
    """Return the name that a trial without its own directory has in its `param`; its id where that can't be read."""
    try:
        return str(read_param(directory).get("_name", Path(directory).name))
    except RecordError:
        return Path(directory).name


def labels(names: Mapping[str, str]) -> dict[str, str]:
    """Return the names of trials by their directories; one that several have ends with the beginning of the id."""
    count = Counter(names.values())
    return {
        directory: name if count[name] == 1 else f"{name}-{Path(directory).name[:8]}"
        for directory, name in names.items()
    }


def shared_trials(output: str | Path) -> dict[str, Path]:
    """Return the trials that have no directories of their own: name → directory of the records, in natural order."""
    names = labels({directory: shared_name(Path(output) / directory) for directory in shared_directories(output)})
    found = {name: Path(output) / directory for directory, name in names.items()}
    return dict(sorted(found.items(), key=lambda item: natural_key(item[0])))


def match_output(output: str | Path = "output", regex: str = ".*") -> list[Path]:
    """Return the directories of the trials in `output` whose name matches `regex` anywhere, in natural order.

    After them come those with the records of trials that share one output directory.
    """
    own = [Path(output) / name for name in trial_names(output, regex)]
    return own + [path for name, path in shared_trials(output).items() if re.search(regex, name)]


def time_key(path: Path) -> tuple[list[str | int], str]:
    """Return a sort key for files whose names hold times: their integers count as such."""
    parts: list[str | int] = list(_INTEGER.split(path.name))
    parts[1::2] = [int(part) for part in parts[1::2]]
    return parts, path.name


def latest_log(command: str, path: str | Path, index: SupportsIndex = -1) -> Path | None:
    """Return the last log of the stage `command` in the trial's directory `path`, or None.

    `index` counts the stage's logs from the oldest (0) or from the latest (-1); None is returned
    where there is no such log. Attempts that began within one second stand in their order.
    """
    position = operator.index(index)
    prefix, pattern = f"log.{command}.", f"log.{command}.*"
    # The logs of a stage `train.more` begin with `log.train.` too.
    foreign = re.compile(re.escape(prefix) + rf"(?!{_TIME}).+\.{_TIME}(\.[0-9]+)?")
    logs = [
        file
        for file in Path(path).glob("log.*")
        if (file.name.startswith(prefix) or fnmatch.fnmatchcase(file.name, pattern))
        and not foreign.fullmatch(file.name)
    ]
    logs.sort(key=time_key)
    return logs[position] if -len(logs) <= position < len(logs) else None
