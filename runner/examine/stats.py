"""From trials to statements: means over seeds with intervals, comparisons in pairs, the weight of parameters.

Every function takes the frame of `wide_table` (or any frame of one row per trial) and says how many values it used and
how many it lacked. SciPy does the tests, scikit-learn the importance; both come with the extra `stats`.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from runner.errors import InputError
from runner.examine.settings import SEED, Array, check_columns, groups, key_of, members, numbers, parameters
from runner.examine.tables import several
from runner.examine.wide import fact, is_higher_better

if TYPE_CHECKING:
    import pandas as pd

_RESAMPLES = 9999
_NAN = float("nan")


def _extra(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"{name.partition('.')[0]} is not installed: pip install 'params-runner[stats]'.") from error


def interval(values: Array, kind: Literal["t", "bootstrap"] = "t", level: float = 0.95) -> tuple[float, float]:
    """Return the confidence interval of the mean; NaN for fewer than two values.

    `t` is Student's, exact for normal values and a fair guess for the few that seeds give. `bootstrap` is the
    bias-corrected and accelerated one (Efron 1987), which needs more values, ten at least, to mean much.
    """
    if kind not in ("t", "bootstrap"):
        raise InputError(f"kind {kind!r}: no such interval. Allowed: 't', 'bootstrap'.")
    if len(values) < 2:
        return _NAN, _NAN
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    stats = _extra("scipy.stats")
    if kind == "t":
        half = stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
        return float(values.mean() - half), float(values.mean() + half)
    found = stats.bootstrap((values,), np.mean, confidence_level=level, n_resamples=_RESAMPLES, rng=0)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def aggregate(
    table: pd.DataFrame,
    metric: str,
    by: str | Sequence[str] | None = None,
    over: str | Sequence[str] = SEED,
    kind: Literal["t", "bootstrap"] | None = "t",
    level: float = 0.95,
) -> pd.DataFrame:
    """Return one row for each setting: n, missing, mean, std, sem, and, unless `kind` is None, the interval low, high.

    A setting is a combination of the parameters `by`, all but `over` when they aren't said. NaN, of which `missing`
    is the number, is in none of the other numbers; trials that aren't finished are in them: `unfinished` counts these.
    """
    import pandas as pd

    names = several(by) if by is not None else parameters(table, without=several(over))
    check_columns(table, [metric, *names])
    state = fact(table, "state")
    unfinished = None if state is None else (table[state] != "finished").to_numpy(bool)
    column = numbers(table[metric])
    rows = {}
    for key, chosen in members(table, names).items():
        values = column[chosen]
        known = values[np.isfinite(values)]
        n = len(known)
        std = float(known.std(ddof=1)) if n > 1 and np.ptp(known) > 0 else 0.0 if n > 1 else _NAN
        mean = float(known.mean()) if n else _NAN
        row = [n, len(values) - n, mean, std, std / np.sqrt(n) if n else _NAN]
        if unfinished is not None:
            row.insert(2, int(unfinished[chosen].sum()))
        rows[key] = row if kind is None else [*row, *interval(known, kind, level)]
    told = ["unfinished"] if state is not None else []
    columns = ["n", "missing", *told, "mean", "std", "sem", *(["low", "high"] if kind else [])]
    index = pd.MultiIndex.from_tuples(list(rows), names=names) if names else pd.Index(["all"])
    if len(names) == 1:
        index = index.get_level_values(0)
    return pd.DataFrame(list(rows.values()), index=index, columns=columns)


def best(
    table: pd.DataFrame,
    metric: str,
    by: str | Sequence[str] = (),
    over: str | Sequence[str] = SEED,
    maximize: bool | None = None,
    kind: Literal["t", "bootstrap"] | None = "t",
) -> pd.DataFrame:
    """Return the settings from the best mean to the worst; with `by`, only the best one for each combination of these.

    Settings without any value come last, those that lack some keep their place and say so in `missing`.

    Args:
        maximize: whether the highest is the best; by the metric's name when it isn't said.
    """
    if maximize is None:
        maximize = is_higher_better(metric)
    by = several(by)
    check_columns(table, by)
    kept = parameters(table, without=several(over))
    for name in by:
        if name not in kept:
            raise InputError(f"{name}: by which the best are chosen must be one of: {', '.join(map(str, kept))}.")
    found = aggregate(table, metric, over=over, kind=kind)
    found = found.sort_values("mean", ascending=not maximize, kind="stable", na_position="last")
    if by:
        found = found.groupby(level=by, sort=False, dropna=False).head(1)
    return found


def compare(
    table: pd.DataFrame,
    metric: str,
    parameter: str,
    values: Sequence[Any] | None = None,
    over: str = SEED,
    test: Literal["t", "permutation"] = "t",
    level: float = 0.95,
) -> pd.DataFrame:
    """Compare the values of a parameter in pairs of trials that differ in nothing else.

    One row for each two values and each setting of the other parameters: how many seeds both have (`n`) and only one
    has (`unpaired`), the mean of the differences b − a with its t interval, the p value of the two-sided paired test,
    and `p_holm`, corrected for the number of rows by Holm's method. No test is made of a single pair, nor of
    differences that are all the same but not zero: their p is NaN. A p value below 0.05 in one of many rows is what
    chance gives; `p_holm` isn't.

    Args:
        values: only these values of the parameter, of which the first is `a`.
        over: what the pairs have in common besides the other parameters.
        test: Student's t, which takes the differences for normal, or the exact test over all changes of sign, which
            doesn't, but of fewer than six pairs can't give a p below 0.05.
    """
    import pandas as pd

    others = parameters(table, without=[parameter, over])
    # Without seeds, or with one for all, each value has a single trial.
    check_columns(table, [metric, parameter, *([] if over == SEED else [over])])
    wanted = [key_of(value) for value in values] if values is not None else None
    rows = []
    for setting, group in groups(table, others):
        by_value = {key[0]: _by_seed(part, metric, over) for key, part in groups(group, [parameter])}
        chosen = [value for value in (wanted or by_value) if value in by_value]
        for a, b in itertools.combinations(chosen, 2):
            rows.append([*setting, a, b, *_paired(by_value[a], by_value[b], test, level)])
    names = [*others, "a", "b", "n", "unpaired", "difference", "low", "high", "p"]
    frame = pd.DataFrame(rows, columns=names)
    frame["p_holm"] = holm(frame["p"].to_numpy(float))
    return frame


def _by_seed(group: pd.DataFrame, metric: str, over: str) -> dict[Hashable, float]:
    """The value of each seed; the mean where a seed was run more than once."""
    found: dict[Hashable, list[float]] = {}
    seeds = map(key_of, group[over]) if over in group else itertools.repeat(None, len(group))
    for seed, number in zip(seeds, numbers(group[metric]), strict=True):
        found.setdefault(seed, []).append(float(number))
    means = {seed: float(np.mean(of_seed)) for seed, of_seed in found.items()}
    return {seed: mean for seed, mean in means.items() if np.isfinite(mean)}


def _paired(a: dict[Hashable, float], b: dict[Hashable, float], test: str, level: float) -> list[Any]:
    shared = [seed for seed in a if seed in b]
    differences = np.array([b[seed] - a[seed] for seed in shared])
    n = len(differences)
    mean = float(differences.mean()) if n else _NAN
    p = _NAN
    low, high = interval(differences, "t", level)
    if n > 1 and not differences.any():
        p = 1.0
    elif n > 1 and np.ptp(differences) > 0:
        p = _p_value(differences, test)
    elif n > 1:
        low = high = _NAN
    return [n, len(a.keys() ^ b.keys()), mean, low, high, p]


def _p_value(differences: Array, test: str) -> float:
    stats = _extra("scipy.stats")
    if test == "t":
        return float(stats.ttest_1samp(differences, 0).pvalue)
    if test == "permutation":
        found = stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=_RESAMPLES, rng=0
        )
        return float(found.pvalue)
    raise InputError(f"test {test!r}: no such test. Allowed: 't', 'permutation'.")


def holm(p_values: Array) -> Array:
    """Return the p values corrected for their number (Holm 1979); NaN, which no test gave, doesn't count."""
    result = np.full(len(p_values), np.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    weights = np.arange(len(order), 0, -1)
    result[order] = np.minimum(np.maximum.accumulate(p_values[order] * weights), 1)
    return result


def marginal(table: pd.DataFrame, metric: str, parameter: str, level: float = 0.95) -> pd.DataFrame:
    """Return the mean of the metric at each value of a parameter, over the settings that were run with all values.

    Settings of the other parameters, the seed among them, that lack a value or a result are left out, so that the rows
    differ in the parameter alone; `n` says how many are left.
    """
    others = parameters(table, without=[parameter])
    check_columns(table, [metric, parameter])
    count = table[parameter].map(key_of).nunique(dropna=False)
    kept = []
    for _, group in groups(table, others):
        known = group[np.isfinite(numbers(group[metric]))]
        if known[parameter].map(key_of).nunique(dropna=False) == count:
            kept += known.index.tolist()
    return aggregate(table.loc[kept], metric, by=[parameter], level=level).drop(columns="missing")


def importance(
    table: pd.DataFrame, metric: str, names: str | Sequence[str] | None = None, folds: int = 5
) -> pd.DataFrame:
    """Return how much worse a random forest predicts the metric when a parameter's values are shuffled.

    The forest is judged on trials that it hasn't seen, in turn (`folds` times): `importance` is the loss of R², its
    mean and spread over the folds. `attrs["r2"]` is the R² without shuffling: near zero or below, the parameters
    explain nothing and the numbers mean nothing. Trials without a number are left out; `attrs["left_out"]` counts them.

    Raises:
        InputError: fewer than 10 trials with a number.
    """
    import pandas as pd

    ensemble = _extra("sklearn.ensemble")
    inspection = _extra("sklearn.inspection")
    selection = _extra("sklearn.model_selection")
    names = several(names) if names is not None else parameters(table, without=[])
    check_columns(table, [metric, *names])
    target = numbers(table[metric])
    known = np.isfinite(target)
    if known.sum() < 2 * folds:
        raise InputError(f"importance of {metric}: {known.sum()} trials with a number; {2 * folds} are needed.")
    features = np.column_stack([_codes(table[name])[known] for name in names])
    target = target[known]
    scores, drops = [], []
    for train, rest in selection.KFold(folds, shuffle=True, random_state=0).split(features):
        forest = ensemble.RandomForestRegressor(100, random_state=0).fit(features[train], target[train])
        scores.append(forest.score(features[rest], target[rest]))
        shuffled = inspection.permutation_importance(forest, features[rest], target[rest], n_repeats=5, random_state=0)
        drops.append(shuffled.importances_mean)
    frame = pd.DataFrame(
        {"importance": np.mean(drops, 0), "std": np.std(drops, 0)}, index=pd.Index(names, name="parameter")
    )
    frame = frame.sort_values("importance", ascending=False)
    frame.attrs = {"r2": float(np.mean(scores)), "left_out": int((~known).sum())}
    return frame


def _codes(column: pd.Series[Any]) -> Array:
    """Numbers as they are; other values by their place among all."""
    import pandas as pd

    if column.dtype.kind in "iuf":
        return column.fillna(column.min() - 1).to_numpy(float)
    return pd.factorize(column.map(key_of).astype(str), sort=True)[0].astype(float)
