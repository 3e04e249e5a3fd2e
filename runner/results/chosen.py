"""Which trials and columns a command line means."""

from __future__ import annotations

import importlib.util
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    import pandas as pd


def table(options: argparse.Namespace, is_concise: bool = True) -> pd.DataFrame:
    """The wide table of the chosen trials.

    Raises:
        InputError: no such directory or trial.
    """
    from runner.examine import wide_table
    from runner.examine.wide import without_constants

    frame = wide_table(output(options.output), concise=False)
    frame = frame.loc[names(options.names, list(frame.index))]
    return without_constants(frame) if is_concise else frame


def with_nan(shown: pd.DataFrame, full: pd.DataFrame) -> pd.DataFrame:
    """The rows with `nan` for a last value that was written so, which is not the same as none."""
    told = {}
    for metric in shown.columns.intersection(full.attrs["metrics"]):
        step = f"{metric.removeprefix('metric.')}_step"
        if step in full:
            is_nan = (full[metric].isna() & full[step].notna()).loc[shown.index]
            if is_nan.any():
                told[metric] = shown[metric].astype(object).mask(is_nan, "nan")
    return shown.assign(**told)


def output(name: str) -> Path:
    """The output directory; raises InputError where there is none."""
    if not Path(name).is_dir():
        raise InputError(f"-o {name}: no such directory.")
    return Path(name)


def names(words: Sequence[str], known: Sequence[str]) -> list[str]:
    """The trials that the words name, all without words; raises InputError for a word that names none."""
    for word in words:
        if not any(_fits(name, word) for name in known):
            raise InputError(f"{word}: no such trial.{did_you_mean(word, known)}")
    return [name for name in known if not words or any(_fits(name, word) for word in words)]


def _fits(name: str, word: str) -> bool:
    # [ stands for itself, as in `run rm`.
    return name == word or fnmatchcase(name, word.replace("[", "[[]"))


def trial(name: str, directory: str) -> Path:
    """The directory of one trial."""
    from runner.examine.readers import shared_trials, trial_names

    path = output(directory) / name
    if "/" not in name and (path / "param").is_file():
        return path
    shared = shared_trials(directory)
    if name not in shared:
        if name in trial_names(directory):
            raise InputError(f"{name}: no trial: {path} has no 'param'.")
        known = [*trial_names(directory), *shared]
        raise InputError(f"{name}: no such trial in {directory}.{did_you_mean(name, known)}")
    return shared[name]


def interval_kind() -> str | None:
    """Student's intervals where SciPy, which is optional, is there."""
    return "t" if importlib.util.find_spec("scipy") else None
