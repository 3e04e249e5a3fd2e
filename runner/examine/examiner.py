"""The Examiner: user-written parsers run over the trials' directories, their results in one table."""

import sys
from collections.abc import Iterable, Iterator, MutableSet
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.examine import results
from runner.examine.parallel import can_fork, map_forked
from runner.examine.readers import latest_log, match_output
from runner.examine.results import Examined, Experiment, Parser, ParserFailure
from runner.examine.tables import ordered, parameter_names, print_rows

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Examiner", "Experiment", "ParserFailure", "latest_log"]

_REPORTS_MAX = 20


class _Parsers(MutableSet[Parser]):
    """A set that keeps the order in which parsers were added."""

    def __init__(self, parsers: Iterable[Parser] = ()) -> None:
        self._parsers = dict.fromkeys(parsers)

    def __contains__(self, parser: object) -> bool:
        return parser in self._parsers

    def __iter__(self) -> Iterator[Parser]:
        return iter(self._parsers)

    def __len__(self) -> int:
        return len(self._parsers)

    def add(self, value: Parser) -> None:
        self._parsers[value] = None

    def discard(self, value: Parser) -> None:
        self._parsers.pop(value, None)


class _Report:
    """Says on stderr what was skipped and what failed; a long series is cut, the count is not."""

    def __init__(self) -> None:
        self._said = 0

    def say(self, line: str) -> None:
        self._said += 1
        if self._said <= _REPORTS_MAX:
            print(line, file=sys.stderr)

    def close(self, errors: list[ParserFailure]) -> None:
        if self._said > _REPORTS_MAX:
            print(f"… and {self._said - _REPORTS_MAX} more such lines", file=sys.stderr)
        if errors:
            directories = len({error.directory for error in errors})
            what = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
            where = "1 directory" if directories == 1 else f"{directories} directories"
            print(f"{what} in {where}: see examiner.errors", file=sys.stderr)


class Examiner:
    """Runs parsers over the trials' directories and gathers what they find.

    A parser gets the trial's directory, its Experiment (three dicts to fill: `metric` for the table's
    columns, `cache` for what later code needs, `param` as read from the directory) and `caches`, one
    dict that all trials share::

        def accuracy(path, experiment, caches):
            log = latest_log("test", path)
            if log is not None:
                experiment.metric["accuracy"] = float(log.read_text().split()[-1])

        examiner = Examiner()
        examiner.add(accuracy)
        examiner.exam(output="output", regex="lr")
        examiner.table()
    """

    def __init__(self) -> None:
        self.exams: MutableSet[Parser] = _Parsers()
        self.caches: dict[Any, Any] = {}
        self.experiments: dict[str, Experiment] = {}
        self.errors: list[ParserFailure] = []

    def add(self, func: Parser) -> None:
        """Add a parser; they run in the order of their first `add`."""
        self.exams.add(func)

    def exam(self, output: str | Path = "output", regex: str = ".*", verbose: bool = False, workers: int = -1) -> None:
        """Run the parsers over each trial's directory in `output` whose name matches `regex` anywhere.

        Directories without a readable `param` are reported and skipped. A parser that raises is
        reported, kept in `errors` (those of the last exam), and the others go on.

        With `workers` above 0 that many processes share the directories. Each trial's `caches` then
        begins empty, and those of all trials are joined in the order of the directories: dicts key by
        key, of anything else the last one stays. A parser that counts in `caches` needs one process.
        Where processes can't be forked (Windows), one reads them all.
        """
        self.errors = []
        report = _Report()
        paths = match_output(output, regex)
        if workers > 0 and can_fork():
            found = self._examine_parallel(paths, workers, verbose)
        else:
            found = self._examine_serial(paths, verbose)
        for path, examined in found:
            if examined.skipped is not None:
                report.say(f"skip {path}: {examined.skipped}")
                continue
            for error in examined.errors:
                report.say(str(error))
            self.errors += examined.errors
        report.close(self.errors)

    def _examine_serial(self, paths: list[Path], verbose: bool) -> Iterator[tuple[Path, Examined]]:
        # The name comes first, so that one sees where a slow parser is.
        parsers = [_print_name, *self.exams] if verbose else list(self.exams)
        for path in paths:
            examined = results.examine(path, parsers, self.experiments.get(path.name), self.caches)
            if examined.skipped is None:
                self.experiments[path.name] = examined.experiment
            yield path, examined

    def _examine_parallel(self, paths: list[Path], workers: int, verbose: bool) -> Iterator[tuple[Path, Examined]]:
        parsers = list(self.exams)

        def task(path: Path) -> results.Packed:
            return results.pack(path, results.examine(path, parsers, self.experiments.get(path.name), {}))

        for path, packed in zip(paths, map_forked(task, paths, workers), strict=True):
            examined = results.unpack(path, packed)
            if examined.skipped is None:
                if verbose:
                    print(path.name, flush=True)
                known = self.experiments.setdefault(path.name, results.empty_experiment())
                for old, new in zip(known, examined.experiment, strict=True):
                    old.clear()
                    old.update(new)
                _join(self.caches, examined.caches)
            yield path, examined

    def table(self, concise: bool = True, print_tsv: bool = False) -> "pd.DataFrame":
        """Return one row per experiment: the sorted parameters, then the sorted metrics.

        `concise` leaves out the parameters that are the same everywhere; those that begin with `_` are
        always left out. `print_tsv` prints the table, tab-separated, too.
        """
        import pandas as pd

        experiments = list(self.experiments.values())
        params = parameter_names([experiment.param for experiment in experiments], varying=concise)
        metrics = ordered(key for experiment in experiments for key in experiment.metric)
        headers = params + metrics
        rows = [
            [experiment.param.get(name) for name in params] + [experiment.metric.get(name) for name in metrics]
            for experiment in experiments
        ]
        if print_tsv:
            print_rows(headers, rows)
        return pd.DataFrame(rows, columns=headers)


def _print_name(path: Path, experiment: Experiment, caches: dict[Any, Any]) -> None:
    print(path.name, flush=True)


def _join(caches: dict[Any, Any], others: dict[Any, Any]) -> None:
    for key, value in others.items():
        known = caches.get(key)
        if isinstance(known, dict) and isinstance(value, dict):
            _join(known, value)
        else:
            caches[key] = value
