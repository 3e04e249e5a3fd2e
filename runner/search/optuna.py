"""`python -m runner.search.optuna`: Optuna's samplers as the `next` command of a search.

The study is made anew for each decision, in memory: it is asked for the batches of all rounds so far again, and told
what came of them. With the same seed the same batches come, so that a decision which was killed, or is taken twice,
asks for nothing twice, and no state can be lost. `--storage` gets a copy, for Optuna's own tools.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
import warnings
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from runner.errors import InputError, RunnerError, did_you_mean
from runner.search import rounds, space

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import Trial as Asked

    from runner.search.rounds import Trial

SAMPLERS = ("tpe", "gp", "cmaes", "grid", "qmc", "random")
STUDY = "search"
BEST = "best.json"
PRUNED = "pruned"
_KNOWN_BATCHES = 100
NEEDED = "pip install 'params-runner[search]' (and [train] for gp)"


def sampler(name: str, seed: int, found: space.Space) -> BaseSampler:
    """Optuna's sampler of that name, with its own defaults."""
    from optuna import samplers

    warnings.simplefilter("ignore", category=_experimental())
    if name == "grid":
        return samplers.GridSampler(space.grid_of(found), seed=seed)
    makers: dict[str, type[BaseSampler]] = {
        "tpe": samplers.TPESampler,
        "gp": samplers.GPSampler,
        "cmaes": samplers.CmaEsSampler,
        "qmc": samplers.QMCSampler,
        "random": samplers.RandomSampler,
    }
    maker: Any = makers[name]
    return maker(seed=seed)  # type: ignore[no-any-return]


def _experimental() -> type[Warning]:
    from optuna.exceptions import ExperimentalWarning

    return ExperimentalWarning


class Search:
    """A study and what it is told: trials by their values in the space, `directions` by metric."""

    def __init__(self, options: argparse.Namespace, trials: Sequence[Trial]) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space: space.Space = options.space
        self.distributions = {name: axis.distribution() for name, axis in self.space.items()}
        self.directions: dict[str, str] = options.directions
        self.batch: int = options.batch
        self.study = optuna.create_study(
            study_name=STUDY,
            sampler=sampler(options.sampler, options.seed, self.space),
            directions=[*self.directions.values()],
        )
        self.trials = {self.key(trial.parameters): trial for trial in reversed(trials)}
        self.size = math.prod(len(axis.points()) for axis in self.space.values()) if options.sampler == "grid" else None

    def key(self, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """What tells a trial from others in this space."""
        return tuple(axis.key(parameters.get(name)) for name, axis in self.space.items())

    def give(self, trial: Trial) -> None:
        """Tell the study about a trial of the first round, which it has not asked for."""
        from optuna.trial import TrialState, create_trial

        values = self.values(trial)
        state = TrialState.COMPLETE if values else TrialState.FAIL
        parameters = {name: trial.parameters.get(name) for name in self.space}
        try:
            self.study.add_trial(
                create_trial(state=state, values=values, params=parameters, distributions=self.distributions)
            )
        except (ValueError, TypeError) as error:
            print(f"{trial.name} lies outside the space and does not count: {error}", file=sys.stderr)

    def values(self, trial: Trial) -> list[float] | None:
        """The trial's objectives; none where it did not finish, or one is missing or not finite."""
        found = [trial.metrics.get(name, math.nan) for name in self.directions]
        return found if trial.ok and all(map(math.isfinite, found)) else None

    def ask(self, number: int) -> list[Asked]:
        """The batch of round `number`, the first one in which a point is new; none when there is no such batch.

        A batch of known points is told at once: to the runner, a round without a new trial is the end.
        """
        known = {key for key, trial in self.trials.items() if trial.round < number}
        for _ in range(_KNOWN_BATCHES):
            left = self.batch if self.size is None else min(self.batch, self.size - len(self.study.trials))
            asked = [self.study.ask(self.distributions) for _ in range(left)]
            if any(self.key(one.params) not in known for one in asked):
                return asked
            self.tell(asked, number)
        return []

    def tell(self, asked: Sequence[Asked], number: int) -> None:
        """Tell the study what came of the batch of round `number`."""
        from optuna.trial import TrialState

        found = [self.trials.get(self.key(one.params)) for one in asked]
        if asked and not any(found):
            raise InputError(
                f"round {number}: none of its trials is among those that this search asks for: were the space, the "
                "sampler, --seed or --batch changed since it began? Set them back, or begin anew elsewhere."
            )
        for one, trial in zip(asked, found, strict=True):
            values = self.values(trial) if trial else None
            is_pruned = trial is not None and trial.state == PRUNED and len(self.directions) == 1
            state = TrialState.COMPLETE if values else TrialState.PRUNED if is_pruned else TrialState.FAIL
            # At its last point Optuna's grid stops the loop that it takes to be in; the trial is told all the same.
            with suppress(RuntimeError) if self.size is not None else nullcontext():
                self.study.tell(one, values, state)


def next_grid(options: argparse.Namespace, trials: list[Trial]) -> Mapping[str, Any] | None:
    """The next batch as a grid; None where the sampler has no more."""
    done = rounds.rounds_done(trials)
    _refuse_unknown(options.directions, [trial for trial in trials if trial.ok])
    search = Search(options, trials)
    # A grid asks for each of its points once, those of the first round too.
    for trial in trials if search.size is None else ():
        if trial.round == 1:
            search.give(trial)
    for number in range(2, done + 1):
        search.tell(search.ask(number), number)
    directory = rounds.own_directory(options.out)
    best = _best(search, trials)
    rounds.replace_text(directory / BEST, json.dumps(best, indent=2) + "\n")
    asked = search.ask(done + 1)
    if options.storage:
        _copy(search.study, options.storage)
    if not asked:
        print(f"round {done}: the sampler has no more points", file=sys.stderr)
        return None
    # Two of a batch may be the same point: that is one trial, and both are told its values.
    points = {search.key(one.params): one.params for one in asked}
    told = ", ".join(f"{name} {value:.6g}" for name, value in best[0]["values"].items()) if best else "none yet"
    columns = {name: [point[name] for point in points.values()] for name in search.space}
    return {"_why": f"round {done}: best so far {told}; {options.sampler} asks for {len(points)}", "_zip": columns}


def _refuse_unknown(objectives: Iterable[str], finished: Sequence[Trial]) -> None:
    """An objective that no trial has is a slip: the sampler would hear of failures alone."""
    known = sorted({name for trial in finished for name in (*trial.metrics, *trial.nan)})
    for name in objectives:
        if finished and name not in known:
            raise InputError(
                f"no finished trial has a column {name!r} in its metrics.csv.{did_you_mean(name, known)} "
                f"Columns: {', '.join(known) or 'none'}."
            )


def _best(search: Search, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """The best trial, or, of several objectives, those that no other beats in all."""
    by_key = {search.key(trial.parameters): trial for trial in reversed(trials)}
    found: list[dict[str, Any]] = []
    for one in search.study.best_trials:
        trial = by_key[search.key(one.params)]
        values = dict(zip(search.directions, one.values, strict=True))
        if all(item["trial"] != trial.name for item in found):  # the sampler may have asked for it twice
            found.append({"trial": trial.name, "round": trial.round, "values": values, "parameters": one.params})
    return found


def _copy(study: Study, path: Path) -> None:
    """Write the study into a storage file, in place of the one before."""
    import optuna

    beside = path.with_name(f"{path.name}.tmp")
    beside.unlink(missing_ok=True)
    storage = _storage(beside)
    optuna.copy_study(from_study_name=STUDY, from_storage=study._storage, to_storage=storage)
    if isinstance(storage, optuna.storages.RDBStorage):
        storage.engine.dispose()
    beside.replace(path)


def _storage(path: Path) -> BaseStorage:
    from optuna import storages
    from optuna.storages.journal import JournalFileBackend

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.removesuffix(".tmp").endswith((".db", ".sqlite", ".sqlite3")):
        return storages.RDBStorage(f"sqlite:///{path}")
    return storages.JournalStorage(JournalFileBackend(str(path)))


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def parser() -> Parser:
    """The options, with their help."""
    parser = Parser(prog="python -m runner.search.optuna", description=(__doc__ or "").partition("\n\n")[2])
    own = parser.add_argument
    own("axes", nargs="*", metavar="NAME=RANGE", help=f"a parameter: {space.ARGUMENT}")
    own("--space", type=Path, dest="file", help="a YAML file of parameters: lists, or {low, high, log, step}")
    own("--sampler", choices=SAMPLERS, default="tpe", help="(default: tpe)")
    own("--batch", type=int, default=4, help="trials of a round (default: 4)")
    own("--seed", type=int, default=0, help="of the sampler (default: 0)")
    own("--minimize", nargs="+", default=[], metavar="METRIC", help="columns of metrics.csv (default: loss)")
    own("--maximize", nargs="+", default=[], metavar="METRIC", help="columns of metrics.csv")
    own("--storage", type=Path, help="a copy of the study: .db is SQLite, any other name a journal of Optuna's")
    own("--out", type=Path, help=f"directory of {BEST} (default: that of the decision)")
    return parser


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; raises InputError with what is allowed."""
    given = parser().parse_args(argv)
    if bool(given.axes) == bool(given.file):
        raise InputError("needed is a space: NAME=RANGE arguments, or --space FILE.")
    given.space = space.of_file(given.file) if given.file else space.of_arguments(given.axes)
    if given.batch < 1:
        raise InputError(f"--batch {given.batch}: needed is a number from 1.")
    named = dict.fromkeys(given.minimize, "minimize") | dict.fromkeys(given.maximize, "maximize")
    given.directions = named or {"loss": "minimize"}
    if given.sampler == "grid":
        space.grid_of(given.space)
    return given


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 2 for bad input."""
    try:
        given = options(argv)
        import optuna  # noqa: F401

        return rounds.decide(functools.partial(next_grid, given))
    except ImportError as error:  # also of what a sampler needs
        print(f"error: {error.name} is missing: {NEEDED}.", file=sys.stderr)
        return InputError.exit_code
    except RunnerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
