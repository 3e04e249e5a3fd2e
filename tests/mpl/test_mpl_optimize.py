"""Optimised schedules: what they never do, and how low they get."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpl import Curve, FitResult, MplError, fit, optimize_schedule
from mpl.laws import law_of, to_logs
from mpl.optimize import KINDS
from mpl.smooth import Before, Smooth
from mpl.staircase import Stairs
from mpl.terms import compress
from tests.mpl.curves import PARAMETERS
from train.schedules import Array, schedule

STEPS, PEAK, WARMUP = 24000, 3e-4, 2160


def given_fit(law: str = "mpl", size: int = 25, **changed: float) -> FitResult:
    values = dict(zip(law_of("mpl").parameters, PARAMETERS[size], strict=True))
    if law == "mpl_risk":
        values["B"] /= 3
    if law == "mpl_gamma0":
        del values["gamma"]
    return FitResult.given(law, {**values, **changed})


def without_warmup(values: tuple[float, ...], lrs: Array) -> float:
    """The final loss as the public optimiser counts it: the warm-up's own changes of the LR are left out."""
    l0, a, alpha, b, c, beta, gamma = values
    area = np.cumsum(lrs[::-1])[::-1]
    at = np.arange(WARMUP, len(lrs))
    response = 1 - (1 + c * lrs[at] ** -gamma * area[at]) ** -beta
    return float(l0 + a * area[0] ** -alpha - b * ((lrs[at - 1] - lrs[at]) @ response))


@pytest.mark.parametrize(("size", "least", "public"), [(25, 3.147610, 3.14968), (100, 2.791632, 2.79414)])
def test_final_losses_at_the_published_parameters(size: int, least: float, public: float) -> None:
    sizes = {"steps": STEPS, "peak": PEAK, "warmup": WARMUP, "floor": 0.0, "convention": "linspace"}
    stairs = optimize_schedule(given_fit(size=size), kind="staircase", **sizes)  # type: ignore[arg-type]
    smooth = optimize_schedule(given_fit(size=size), **sizes)  # type: ignore[arg-type]
    assert without_warmup(PARAMETERS[size], stairs.lrs) <= least
    assert without_warmup(PARAMETERS[size], smooth.lrs) == pytest.approx(public, abs=1e-4)


law_parameters = st.tuples(
    st.floats(0.1, 5.0),
    st.floats(1e-3, 10.0),
    st.floats(0.05, 1.5),
    st.floats(1e-3, 1e5),
    st.floats(1e-6, 1e4),
    st.floats(0.01, 20.0),
    st.floats(0.01, 3.0),
)


@settings(max_examples=40)
@given(
    law_parameters,
    st.sampled_from(["mpl", "mpl_risk", "mpl_gamma0"]),
    st.sampled_from(KINDS),
    st.integers(2, 400),
    st.floats(1e-6, 10.0),
    st.floats(0.0, 1.0),
    st.sampled_from([0.0, 0.01, 1.0]),
    st.sampled_from([None, 0.01]),
)
def test_never_a_rise_or_a_negative_lr(
    values: tuple[float, ...],
    law: str,
    kind: str,
    steps: int,
    peak: float,
    warm: float,
    floor: float,
    max_decay: float | None,
) -> None:
    fit = FitResult.given(law, values[: len(law_of(law).parameters)])
    warmup = int(warm * (steps - 1))
    lrs = optimize_schedule(fit, steps, peak, warmup, floor, kind, max_decay=max_decay).lrs
    assert lrs.shape == (steps,)
    assert np.isfinite(lrs).all()
    assert (lrs >= 0).all()
    assert lrs.max() <= peak * (1 + 1e-12)
    assert (np.diff(lrs[max(warmup - 1, 0) :]) <= 0).all()
    assert lrs[warmup:].min() >= floor * peak * (1 - 1e-9)


@pytest.mark.parametrize("law", ["mpl", "mpl_risk", "mpl_gamma0"])
@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_no_bend_of_the_smooth_optimum_lowers_the_loss(law: str, floor: float) -> None:
    fit = given_fit(law, C=200.0) if law == "mpl_gamma0" else given_fit(law)
    found = optimize_schedule(fit, 6000, PEAK, 600, floor)
    rng, place = np.random.default_rng(0), np.linspace(0, 1, 5400)
    for _ in range(60):
        bend = sum(rng.normal() * np.sin((i + 1) * np.pi * place) for i in range(6)) * 0.02
        bent = np.minimum.accumulate(np.clip(found.lrs[600:] * np.exp(bend), floor * PEAK, PEAK))
        lrs = np.concatenate((found.lrs[:600], bent))
        assert fit.predict(lrs, np.array([5999])).loss[0] > found.loss - 1e-6
    assert found.loss < min(found.usual.values())


def test_drops_that_earn_much_are_weighed_with_what_they_earn_earlier() -> None:
    fit = FitResult.given("mpl_risk", (2.5, 0.5, 0.45, 900.0, 1.5, 0.6, 0.6))
    found = optimize_schedule(fit, 6000, PEAK, 300, 0.01)
    assert found.loss < min(found.usual.values()) - 0.05
    longer = np.minimum.accumulate(np.clip(found.lrs[300:] * 1.03, 0, PEAK))
    for lrs in (longer, found.lrs[300:] * 0.97):
        changed = np.concatenate((found.lrs[:300], np.maximum(lrs, 0.01 * PEAK)))
        assert fit.predict(changed, np.array([5999])).loss[0] > found.loss


def two_laws(true: FitResult, steps: int, peak: float) -> tuple[FitResult, Callable[[Array], float]]:
    """Return mpl_risk fitted to curves that another law made, and the last loss that this one gives a schedule."""
    curves = []
    for name in ("cosine", "constant", "wsdcon_9"):
        lrs, at = schedule(name, steps, peak, steps // 40), np.arange(steps // 30, steps, 20)
        curves.append(Curve.of(name, at, true.predict(lrs, at).loss, lrs))
    return fit(curves), lambda lrs: float(true.predict(lrs, np.array([len(lrs) - 1])).loss[0])


@pytest.mark.parametrize(
    ("steps", "peak", "parameters"),
    [
        # The noise answers slowly: mpl_risk promises most of a drop to 40% of the peak right after the warm-up.
        (4000, 1e-2, (2.0, 1.01, 0.5, 30.0, 0.142, 0.6, 0.6)),
        # The loss is all noise: any LR that is low from the beginning on looks best.
        (1500, 0.3, (2.7, 3e4, 5.0, 1.7, 3.3, 0.6, 0.5)),
    ],
)
def test_an_early_drop_that_only_the_formula_promises_is_not_planned(
    steps: int, peak: float, parameters: tuple[float, ...]
) -> None:
    fitted, last = two_laws(FitResult.given("mpl", parameters), steps, peak)
    found = optimize_schedule(fitted, steps, peak, steps // 40)
    usual = [last(schedule(name, steps, peak, steps // 40, found.floor)) for name in found.usual]
    assert last(found.lrs) <= min(usual) * (1 + 1e-9)
    assert found.loss <= min(found.usual.values())
    assert found.lower < last(found.lrs) < found.upper
    assert found.lrs[steps // 40] > 0.9 * peak
    # Nor is it planned for a bound on the decay that is kept anyway.
    bounded = optimize_schedule(fitted, steps, peak, steps // 40, max_decay=0.5)
    np.testing.assert_array_equal(bounded.lrs, found.lrs)


@pytest.mark.parametrize("c", [1e4, 1e6, 1e12])
@pytest.mark.parametrize("law", ["mpl", "mpl_risk"])
def test_a_decay_of_a_few_steps_is_not_lost_between_them(law: str, c: float) -> None:
    found = optimize_schedule(given_fit(law, C=c), 1500, PEAK, 50, 0.1)
    assert found.lrs[-1] == pytest.approx(0.1 * PEAK)
    assert found.loss <= min(found.usual.values())


def test_the_unit_of_the_loss_does_not_matter() -> None:
    plans = []
    for unit in (1.0, 0.005):
        law = given_fit("mpl_risk", L0=2.5 * unit, A=0.5 * unit, alpha=0.45, B=300.0, C=1.5)
        plans.append(optimize_schedule(law, 6000, PEAK, 300, 0.01).lrs)
    np.testing.assert_allclose(plans[1], plans[0], rtol=1e-6)


@pytest.mark.parametrize("law", ["mpl", "mpl_risk"])
def test_a_staircase_gets_lower_still_and_says_that_it_extrapolates(law: str) -> None:
    smooth = optimize_schedule(given_fit(law), STEPS, PEAK, WARMUP, 0.1)
    stairs = optimize_schedule(given_fit(law), STEPS, PEAK, WARMUP, 0.1, "staircase")
    assert stairs.loss < smooth.loss
    assert len(np.unique(stairs.lrs[WARMUP:])) <= 5
    assert any("far from the schedules" in note for note in stairs.notes)


def test_what_now_after_steps_that_are_taken() -> None:
    taken = schedule("constant", 3000, PEAK, 300)
    fit = given_fit("mpl_risk")
    found = optimize_schedule(fit, 4000, PEAK, prefix=taken, floor=0.05)
    np.testing.assert_array_equal(found.lrs[:3000], taken)
    assert found.loss < min(found.usual.values())
    # So few steps that the LR has to drop at once.
    short = optimize_schedule(fit, 3040, PEAK, prefix=taken, floor=0.01)
    assert short.lrs[3000] < 0.9 * PEAK
    assert short.loss < min(short.usual.values())


def test_a_rise_after_the_prefix_is_said() -> None:
    found = optimize_schedule(given_fit(), 400, PEAK, prefix=np.full(100, PEAK / 3))
    assert any("the LR rises from 0.0001, the last one of the prefix" in note for note in found.notes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("law", ["mpl", "mpl_risk"])
def test_pauses_in_the_prefix_are_fine(law: str, kind: str) -> None:
    for prefix in (np.array([PEAK, 0.0]), np.array([0.0, PEAK]), np.tile([PEAK, 0.0], 50)):
        found = optimize_schedule(given_fit(law), 400, PEAK, prefix=prefix, kind=kind)
        planned = found.lrs[len(prefix) :]
        assert np.isfinite(found.loss)
        assert (planned >= 0).all()
        assert (np.diff(planned) <= 0).all()


def test_the_largest_decay_is_kept() -> None:
    found = optimize_schedule(given_fit(), 2000, PEAK, 100, 0.01, "staircase", max_decay=0.01)
    planned = found.lrs[100:]
    assert (planned[1:] >= planned[:-1] * 0.99 * (1 - 1e-9)).all()
    assert planned[-1] < PEAK / 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("law", ["mpl", "mpl_risk"])
@pytest.mark.parametrize("most", [2e-4, 5e-4, 1e-3])
def test_with_a_largest_decay_no_usual_schedule_that_keeps_it_is_lower(kind: str, law: str, most: float) -> None:
    found = optimize_schedule(given_fit(law), STEPS, PEAK, WARMUP, 0.1, kind, max_decay=most)
    usual = [schedule("wsd", STEPS, PEAK, WARMUP, decay=decay) for decay in (0.1, 0.2, 0.4, 0.8)]
    kept = [lrs for lrs in usual if (lrs[WARMUP:] >= lrs[WARMUP - 1 : -1] * (1 - most)).all()]
    assert kept
    for lrs in kept:
        assert found.loss < given_fit(law).predict(lrs, np.array([STEPS - 1])).loss[0]


@pytest.mark.parametrize("peak", [PEAK / 3, PEAK, 3 * PEAK])
def test_the_largest_decay_is_kept_from_the_last_lr_of_a_prefix_on(peak: float) -> None:
    found = optimize_schedule(given_fit(), 2000, peak, prefix=np.full(500, PEAK), floor=0.01, max_decay=0.01)
    planned = found.lrs[499:]
    assert (planned[1:] >= planned[:-1] * 0.99 * (1 - 1e-9)).all()
    assert planned.max() <= max(peak, PEAK) * (1 + 1e-12)


def test_a_floor_below_the_curves_is_said_to_extrapolate() -> None:
    found = optimize_schedule(replace(given_fit(), least_lr=0.1), 2000, PEAK, 100, 0.0)
    assert any("extrapolates" in note for note in found.notes)


def test_without_a_floor_the_least_lr_of_the_curves_is_one() -> None:
    fit = replace(given_fit(), least_lr=0.2)
    assert optimize_schedule(fit, 2000, PEAK, 100).lrs[-1] == pytest.approx(0.2 * PEAK)


def test_where_gamma_is_above_one_the_floor_of_the_curves_holds() -> None:
    fit = replace(given_fit(gamma=1.4), least_lr=0.1)
    for kind in KINDS:
        found = optimize_schedule(fit, 2000, PEAK, 100, 0.0, kind)
        assert found.lrs[100:].min() >= 0.1 * PEAK * (1 - 1e-9)
        assert any("gamma is above 1" in note for note in found.notes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("floor", [None, 0.0])
def test_where_gamma_is_above_one_and_no_curve_has_a_floor_one_is_asked_for(kind: str, floor: float | None) -> None:
    found = optimize_schedule(given_fit(gamma=1.4), 2000, PEAK, 100, floor, kind)
    assert any("give a floor above 0" in note for note in found.notes)


def test_a_staircase_is_never_above_the_smooth_optimum() -> None:
    fit = FitResult.given("mpl", (2.5, 0.5, 0.45, 300.0, 1.5 * PEAK**2.4, 0.6, 3.0))
    stairs, smooth = (optimize_schedule(fit, 6000, PEAK, 300, kind=kind) for kind in ("staircase", "smooth"))
    assert stairs.loss == smooth.loss < min(stairs.usual.values())
    assert any("no staircase was found that is lower" in note for note in stairs.notes)


def test_the_files_are_schedules_for_train(tmp_path: Path) -> None:
    found = optimize_schedule(given_fit(), 300, PEAK, 30, 0.1)
    found.save(tmp_path)
    for name in ("schedule.npy", "schedule.csv", "schedule.json"):
        np.testing.assert_array_equal(schedule(str(tmp_path / name), 300, 1.0), found.lrs)
    said = json.loads((tmp_path / "schedule.json").read_text())
    assert said["gain"]["cosine"] == pytest.approx(said["usual"]["cosine"] - said["loss"])


@pytest.mark.parametrize("law", ["mpl", "mpl_risk"])
def test_the_staircase_against_the_law_and_its_slopes(law: str) -> None:
    fit, taken = given_fit(law), schedule("constant", 100, PEAK, 100)
    stairs = Stairs(Smooth(fit.law, fit.log_parameters, Before.of(taken), 0.0, 1000), PEAK)
    levels, lengths = np.array([2e-4, 5e-5, 1e-5]), np.array([600.0, 200.0, 150.0, 50.0])
    lrs = np.concatenate((taken, np.repeat([PEAK, *levels], lengths.astype(int))))
    loss, by_level, by_length = stairs.loss(levels, lengths)
    assert loss == pytest.approx(fit.law.loss(fit.log_parameters, compress(lrs, np.array([1099])))[0], rel=1e-12)
    for i in range(3):
        move = np.eye(3)[i] * 1e-9
        slope = (stairs.loss(levels + move, lengths)[0] - stairs.loss(levels - move, lengths)[0]) / 2e-9
        assert by_level[i] == pytest.approx(slope, rel=1e-4)
    for i in range(4):
        move = np.eye(4)[i] * 1e-2
        slope = (stairs.loss(levels, lengths + move)[0] - stairs.loss(levels, lengths - move)[0]) / 2e-2
        assert by_length[i] == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "jagged"}, "the kind is 'jagged': allowed are smooth, staircase"),
        ({"peak": -1.0}, "the peak LR is -1.0"),
        ({"warmup": 100}, "the warm-up is 100 of 100 steps"),
        ({"steps": 1}, "of 1 steps"),
        ({"steps": 10**20}, "100000000000000000000 steps are too many"),
        ({"floor": 2.0}, "the floor is 2.0"),
        ({"max_decay": 1.0}, "the largest decay is 1.0"),
        ({"prefix": np.ones(100)}, "the prefix has 100 steps, and the whole run 100"),
        ({"prefix": np.array([1.0, np.nan])}, "the prefix: the LR in row 2 is nan"),
    ],
)
def test_what_cannot_be_optimised(changes: dict[str, object], message: str) -> None:
    with pytest.raises(MplError, match=message):
        optimize_schedule(given_fit(), **{"steps": 100, "peak": PEAK, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("law", "parameters", "message"),
    [
        ("power", [1.0, 1.0, 0.5], "law power knows the steps alone: no schedule is better than another; fit mpl or"),
        ("momentum", [1.0, 1.0, 0.5, 1.0, 0.1], "by law momentum the best schedule is one drop: fit mpl or"),
    ],
)
def test_a_law_without_a_smooth_optimum_says_so(law: str, parameters: list[float], message: str) -> None:
    fit = FitResult(law_of(law), to_logs(law_of(law), parameters))
    with pytest.raises(MplError, match=message):
        optimize_schedule(fit, 100, PEAK)


@pytest.mark.parametrize(("peak", "is_far"), [(PEAK, False), (1.9 * PEAK, False), (3 * PEAK, True), (PEAK / 3, True)])
def test_a_peak_far_from_those_of_the_fit_is_told(peak: float, is_far: bool) -> None:
    found = optimize_schedule(replace(given_fit(), peaks=(PEAK, PEAK)), 2000, peak, 100, 0.1)
    assert any("far away the law is a guess" in note for note in found.notes) == is_far
