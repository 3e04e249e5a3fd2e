"""`run compare A B`: in what two trials differ."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import provenance, records
from runner.results import chosen, text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    import pandas as pd


def run(options: argparse.Namespace) -> int:
    """Prints parameters, metrics, commands, code and logs, as far as they differ."""
    from runner.examine.wide import wide_table

    a, b = (chosen.trial(name, options.output) for name in (options.a, options.b))
    frame = wide_table(options.output, concise=False).loc[[options.a, options.b]]
    parameters = _differing(frame, frame.attrs["parameters"])
    _section("Parameters", parameters)
    _section("Metrics", _with_difference(_pairs(frame, [name for name in frame.columns if _is_metric(frame, name)])))
    _section("Records", _differing(frame, frame.attrs["facts"]))
    _print_difference("Commands", _commands(a), _commands(b), options.lines)
    output = Path(options.output)
    _print_difference("Code", _code(a, output), _code(b, output), options.lines)
    for stage in frame.attrs.get("stages", _stages(a, b)):
        _print_difference(f"Log of {stage}", _log(a, stage), _log(b, stage), options.lines)
    return 0


def _is_metric(frame: pd.DataFrame, name: str) -> bool:
    return name in frame.attrs["metrics"] or (name.endswith("_step") and name not in frame.attrs["parameters"])


def _pairs(frame: pd.DataFrame, names: Iterable[Any]) -> pd.DataFrame:
    import pandas as pd

    rows = {name: [text.cell(value) for value in frame[name]] for name in names if frame[name].notna().any()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(frame.index)).rename_axis("")


def _differing(frame: pd.DataFrame, names: Iterable[Any]) -> pd.DataFrame:
    pairs = _pairs(frame, names)
    return pairs[pairs.iloc[:, 0] != pairs.iloc[:, 1]] if len(pairs) else pairs


def _with_difference(pairs: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    numbers = pairs.apply(pd.to_numeric, errors="coerce")
    return pairs.assign(difference=(numbers.iloc[:, 1] - numbers.iloc[:, 0]).map(text.cell)) if len(pairs) else pairs


def _section(title: str, pairs: pd.DataFrame) -> None:
    print(f"{title}: {'no difference' if pairs.empty else ''}".rstrip(" "))
    if not pairs.empty:
        text.show(pairs, None, None)
    print()


def _print_difference(title: str, a: list[str], b: list[str], lines_max: int) -> None:
    from runner.text import printable

    lines = list(difflib.unified_diff(a, b, lineterm="", n=0))[2:]
    if not lines:
        return
    print(f"{title}:")
    for line in lines[:lines_max]:
        print(f"  {printable(line)}")
    if len(lines) > lines_max:
        print(f"  … and {len(lines) - lines_max:,} more lines (--lines)")
    print()


def _commands(trial: Path) -> list[str]:
    scripts = (records.read_param(str(trial)) or {}).get("_scripts") or {}
    # A trial's own directory is no difference.
    return [f"{stage}: {line}".replace(trial.name, "{trial}") for stage, line in scripts.items()]


def _code(trial: Path, output: Path) -> list[str]:
    names = [attempt.start.get("code") for attempt in records.read_attempts(str(trial)).attempts]
    code = provenance.load(output, str(names[-1])) if names and names[-1] else None
    if code is None:
        return []
    changes = provenance.changes_file(output, code)
    has_changes = changes is not None and changes.is_file()
    difference = changes.read_text(errors="replace").splitlines() if changes is not None and has_changes else []
    return [f"commit {code.commit}", f"python {code.python}", *code.packages, *difference]


def _stages(a: Path, b: Path) -> list[str]:
    return list(dict.fromkeys(stage for trial in (a, b) for stage in records.read_stat(str(trial))))


def _log(trial: Path, stage: str) -> list[str]:
    from runner.examine.readers import latest_log

    log = latest_log(stage, trial)
    if log is None:
        return []
    return log.read_text(errors="replace").replace(trial.name, "{trial}").splitlines()
