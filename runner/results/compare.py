"""`run compare A B`: in what two trials differ."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from runner import records
from runner.code import provenance
from runner.results import chosen, text
from runner.results.difference import COMPARED_MAX, difference, lines_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pandas as pd


def run(options: argparse.Namespace) -> int:
    """Prints parameters, metrics, commands, code and logs, as far as they differ."""
    from runner.examine.wide import wide_table

    a, b = (chosen.trial(name, options.output) for name in (options.a, options.b))
    both = [options.a, options.b]
    frame = wide_table(options.output, concise=False).loc[both]
    _print_pairs("Parameters", _differing(_pairs(frame, frame.attrs["parameters"])), both)
    metrics = _pairs(frame, [name for name in frame.columns if _is_metric(frame, name)])
    compared = {name: [*pair, _difference(pair)] for name, pair in metrics.items()}
    _print_pairs("Metrics", compared, [*both, "difference"])
    _print_pairs("Records", _differing(_pairs(frame, frame.attrs["facts"])), both)
    _print_difference("Commands", _commands(a), _commands(b), options.lines)
    output = Path(options.output)
    _print_difference("Code", _code(a, output), _code(b, output), options.lines)
    for stage in frame.attrs.get("stages", _stages(a, b)):
        with _log(a, stage) as log_a, _log(b, stage) as log_b:
            _print_difference(f"Log of {stage}", _lines(log_a, a), _lines(log_b, b), options.lines)
    return 0


def _is_metric(frame: pd.DataFrame, name: str) -> bool:
    return name in frame.attrs["metrics"] or (name.endswith("_step") and name not in frame.attrs["parameters"])


def _pairs(frame: pd.DataFrame, names: Iterable[Any]) -> dict[Any, list[Any]]:
    """What both have in these columns, but for those in which neither has anything."""
    return {name: frame[name].tolist() for name in names if frame[name].notna().any()}


def _differing(pairs: Mapping[Any, list[Any]]) -> dict[Any, list[Any]]:
    from runner.examine.tables import identity

    return {name: pair for name, pair in pairs.items() if identity(pair[0]) != identity(pair[1])}


def _difference(pair: Sequence[Any]) -> Any:
    is_number = [isinstance(value, int | float) and not isinstance(value, bool) for value in pair]
    return pair[1] - pair[0] if all(is_number) else None


def _print_pairs(title: str, pairs: Mapping[Any, list[Any]], columns: Sequence[Any]) -> None:
    import pandas as pd

    print(f"{title}: {'' if pairs else 'no difference'}".rstrip(" "))
    if pairs:
        rows = {name: _cells(pair) for name, pair in pairs.items()}
        text.show(pd.DataFrame.from_dict(rows, orient="index", columns=list(columns)).rename_axis(""), None, None)
    print()


def _cells(row: Sequence[Any]) -> list[str]:
    """The values as tables have them; in full where those of two trials differ and would look the same."""
    a, b, *others = map(text.cell, row)
    return [repr(row[0]), repr(row[1]), *others] if a == b and _differing({"": list(row)}) else [a, b, *others]


def _print_difference(title: str, a: Iterable[str], b: Iterable[str], lines_max: int) -> None:
    from runner.text import printable

    compared = max(COMPARED_MAX, lines_max)
    lines, is_all = difference(a, b, compared)
    if not lines:
        return
    print(f"{title}:")
    for line in lines[:lines_max]:
        print(f"  {printable(line)}")
    if len(lines) > lines_max:
        print(f"  … and {len(lines) - lines_max:,} more lines (--lines)")
    if not is_all:
        print(f"  … (compared: {compared:,} lines of each, from the first difference on)")
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


def _log(trial: Path, stage: str) -> TextIO:
    from runner.examine.readers import latest_log

    log = latest_log(stage, trial)
    return io.StringIO() if log is None else log.open(encoding="utf-8", errors="replace")


def _lines(log: TextIO, trial: Path) -> Iterator[str]:
    return (line.replace(trial.name, "{trial}") for line in lines_of(log))
