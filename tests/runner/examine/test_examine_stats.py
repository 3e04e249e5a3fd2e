"""Intervals, paired comparisons, corrections and importance, against SciPy, statsmodels and hand-worked cases."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from runner.errors import InputError
from runner.examine import stats

NAN = math.nan


def trials(rows: list[tuple[Any, ...]], *names: str) -> Any:
    """A table of parameters and the metric `loss`."""
    frame = pd.DataFrame(rows, columns=[*names, "loss"], index=[f"t{place}" for place in range(len(rows))])
    frame.attrs["parameters"] = list(names)
    return frame


SEEDS = trials(
    [("a", 0, 1.0), ("a", 1, 2.0), ("a", 2, 4.0), ("b", 0, 2.0), ("b", 1, NAN), ("b", 2, 3.0), ("c", 0, 5.0)],
    "schedule",
    "seed",
)


def test_means_over_seeds_by_hand() -> None:
    found = stats.aggregate(SEEDS, "loss")
    assert found.index.tolist() == ["a", "b", "c"]
    assert found["n"].tolist() == [3, 2, 1]
    assert found["missing"].tolist() == [0, 1, 0]
    assert found["mean"].tolist() == pytest.approx([7 / 3, 2.5, 5])
    # The variance of 1, 2, 4 is 7/3, and the t quantile of two degrees of freedom 4.302653.
    assert found["std"].tolist()[:2] == pytest.approx([math.sqrt(7 / 3), math.sqrt(0.5)])
    assert found["high"].tolist()[0] == pytest.approx(7 / 3 + 4.302653 * math.sqrt(7 / 9), rel=1e-6)
    assert found.loc["c", ["std", "sem", "low", "high"]].isna().all()


def test_nothing_measured_at_all() -> None:
    found = stats.aggregate(trials([("a", 0, NAN), ("a", 1, math.inf)], "schedule", "seed"), "loss")
    assert found[["n", "missing"]].to_numpy().tolist() == [[0, 2]]
    assert found[["mean", "std", "low"]].isna().all(axis=None)


@given(st.lists(st.floats(-1e6, 1e6).map(lambda value: round(value, 3)), min_size=2, max_size=12))
def test_the_t_interval_is_that_of_statsmodels(values: list[float]) -> None:
    low, high = stats.interval(np.array(values))
    if len(set(values)) == 1:
        assert low == high == values[0]
        return
    assert (low, high) == pytest.approx(DescrStatsW(values).tconfint_mean(), rel=1e-6, abs=1e-6)


def test_the_bootstrap_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(1).exponential(size=25)
    wanted = scipy.stats.bootstrap((values,), np.mean, rng=np.random.default_rng(5), method="BCa").confidence_interval
    assert stats.interval(values, "bootstrap") == pytest.approx(tuple(wanted), rel=0.02)
    assert stats.interval(np.array([2.0, 2.0, 2.0]), "bootstrap") == (2, 2)
    assert all(map(math.isnan, stats.interval(np.array([2.0]), "bootstrap")))


def test_the_best_setting() -> None:
    assert stats.best(SEEDS, "loss").index.tolist() == ["a", "b", "c"]
    assert stats.best(SEEDS, "loss", maximize=True).index.tolist() == ["c", "b", "a"]
    accuracy = SEEDS.rename(columns={"loss": "accuracy"})
    assert stats.best(accuracy, "accuracy").index.tolist() == ["c", "b", "a"]
    rows = [(size, lr, seed, lr * size + seed) for size in (1, 2) for lr in (3, 1, 2) for seed in (0, 1)]
    by_size = stats.best(trials(rows, "size", "lr", "seed"), "loss", by=["size"])
    assert by_size.index.tolist() == [(1, 1), (2, 1)]


def test_pairs_by_hand() -> None:
    """a and b share the seeds 0 and 2: the differences are 1 and -1."""
    found = stats.compare(SEEDS, "loss", "schedule")
    assert found[["a", "b", "n", "unpaired"]].to_numpy().tolist() == [
        ["a", "b", 2, 1],
        ["a", "c", 1, 2],
        ["b", "c", 1, 1],
    ]
    assert found["difference"].tolist() == [0, 4, 3]
    assert found["p"].tolist()[0] == pytest.approx(1)
    assert found["p"].isna().tolist() == [False, True, True]
    assert found["p_holm"].isna().tolist() == [False, True, True]


def measured(differences: list[float]) -> Any:
    base = [0.5 * seed for seed in range(len(differences))]
    rows = [("a", seed, value) for seed, value in enumerate(base)]
    rows += [("b", seed, value + base[seed]) for seed, value in enumerate(differences)]
    return trials(rows, "norm", "seed")


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=8))
def test_the_paired_tests_are_those_of_scipy(differences: list[int]) -> None:
    table = measured([float(value) for value in differences])
    (row,) = stats.compare(table, "loss", "norm").to_dict("records")
    (exact,) = stats.compare(table, "loss", "norm", test="permutation").to_dict("records")
    if not any(differences):
        assert row["p"] == exact["p"] == 1
    elif len(set(differences)) == 1:
        assert math.isnan(row["p"])
        assert math.isnan(exact["p"])
    else:
        known = scipy.stats.ttest_rel(table["loss"][len(differences) :], table["loss"][: len(differences)])
        assert row["p"] == pytest.approx(known.pvalue, rel=1e-6)
        assert (row["low"], row["high"]) == pytest.approx(tuple(known.confidence_interval()), rel=1e-6)
        total = abs(sum(differences))
        signs = itertools.product((1, -1), repeat=len(differences))
        sums = [abs(sum(s * d for s, d in zip(sign, differences, strict=True))) for sign in signs]
        assert exact["p"] == pytest.approx(sum(each >= total for each in sums) / len(sums))


def test_other_parameters_are_kept_apart() -> None:
    rows = [(norm, lr, seed, float(seed + lr * (norm == "b"))) for norm in "ab" for lr in (0, 1) for seed in range(3)]
    found = stats.compare(trials(rows, "norm", "lr", "seed"), "loss", "norm", values=["b", "a"])
    assert found[["lr", "a", "b", "n", "difference"]].to_numpy().tolist() == [[0, "b", "a", 3, 0], [1, "b", "a", 3, -1]]
    assert found["p"].tolist()[0] == 1
    assert math.isnan(found["p"].tolist()[1]), "differences that are all the same have no spread to test against"


@settings(max_examples=30)
@given(st.lists(st.one_of(st.floats(0, 1), st.just(NAN)), max_size=12))
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    found = stats.holm(np.array(p_values))
    known = [p for p in p_values if p == p]
    assert np.isnan(found).tolist() == [p != p for p in p_values]
    if known:
        wanted = multipletests(known, method="holm")[1]
        np.testing.assert_allclose(found[~np.isnan(found)], wanted, rtol=1e-12)


def test_the_effect_of_a_parameter_alone() -> None:
    rows = [("a", 1, 0, 1.0), ("b", 1, 0, 2.0), ("a", 2, 0, 3.0), ("b", 2, 0, 4.0), ("a", 9, 0, 99.0), ("b", 9, 0, NAN)]
    found = stats.marginal(trials(rows, "norm", "lr", "seed"), "loss", "norm")
    assert found[["n", "mean"]].to_numpy().tolist() == [[2, 2], [2, 3]]


def test_importance_finds_what_matters_and_says_when_nothing_does() -> None:
    rng = np.random.default_rng(0)
    grid = list(itertools.product((1e-3, 1e-2, 1e-1), ("relu", "gelu"), range(6)))
    rows = [(lr, act, seed, math.log10(lr) + 0.3 * (act == "gelu") + 0.01 * rng.normal()) for lr, act, seed in grid]
    rows.append((0.1, "relu", 9, NAN))
    found: Any = stats.importance(trials(rows, "lr", "act", "seed"), "loss", folds=3)
    assert found.index.tolist() == ["lr", "act", "seed"]
    assert found.attrs["r2"] > 0.9
    assert found.attrs["left_out"] == 1
    assert found.loc["lr", "importance"] > 3 * found.loc["act", "importance"] > 0
    noise = [(lr, act, seed, rng.normal()) for lr, act, seed in grid]
    assert stats.importance(trials(noise, "lr", "act", "seed"), "loss", folds=3).attrs["r2"] < 0.3


def test_without_seeds_each_value_has_a_single_trial() -> None:
    rows = [("a", 8, 1.0), ("a", 16, 2.0), ("b", 8, 4.0), ("b", 16, 3.0)]
    bare = trials(rows, "schedule", "width")
    same = trials(rows, "schedule", "width")
    same.attrs["constants"] = ["seed"]
    for table in (bare, same):
        found = stats.compare(table, "loss", "schedule")
        assert found[["width", "a", "b", "n", "difference"]].to_numpy().tolist() == [
            [8, "a", "b", 1, 3],
            [16, "a", "b", 1, 1],
        ]
    with pytest.raises(InputError, match="fold: no such column"):
        stats.compare(bare, "loss", "schedule", over="fold")


def test_values_of_any_type_are_settings() -> None:
    rows = [([1, 2], None, 0, 1.0), ([1, 2], None, 1, 3.0), ([1, 3], True, 0, 5.0)]
    found = stats.aggregate(trials(rows, "widths", "flag", "seed"), "loss")
    assert found["mean"].tolist() == [2, 5]


def test_a_name_may_stand_alone() -> None:
    assert stats.aggregate(SEEDS, "loss", by="schedule").equals(stats.aggregate(SEEDS, "loss", by=["schedule"]))
    assert stats.best(SEEDS, "loss", by="schedule").equals(stats.best(SEEDS, "loss", by=["schedule"]))


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: stats.aggregate(SEEDS, "los"), "los: no such column. Did you mean 'loss'?"),
        (lambda: stats.best(SEEDS, "loss", by=["shedule"]), "Did you mean 'schedule'?"),
        (lambda: stats.aggregate(SEEDS, "loss", kind="z"), "Allowed: 't', 'bootstrap'"),  # type: ignore[arg-type]
        (lambda: stats.importance(SEEDS, "loss"), "6 trials with a number; 10 are needed"),
        (lambda: stats.compare(measured([1, 2]), "loss", "norm", test="z"), "Allowed: 't', 'permutation'"),  # type: ignore[arg-type]
        (lambda: stats.best(pd.DataFrame({"loss": [1]}), "loss"), "says nowhere which columns are parameters"),
    ],
)
def test_bad_input_is_told(ask: Any, said: str) -> None:
    with pytest.raises(InputError) as error:
        ask()
    assert said in str(error.value)
