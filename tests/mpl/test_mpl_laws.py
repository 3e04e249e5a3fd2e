"""The laws against independent evaluations, closed forms and finite differences."""

from __future__ import annotations

import doctest
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mpl.jsontext
import mpl.metrics
import mpl.optimize
import mpl.solve
import mpl.staircase
from mpl import Curve, FitResult
from mpl.dense import loss_everywhere
from mpl.laws import LAWS, law_of, to_logs
from mpl.panels import interpolation
from mpl.problem import after_warmup
from mpl.terms import Changes, compress, first_peak
from tests.mpl.curves import PARAMETERS
from train.schedules import Array, schedule

VALUES = {"L0": 2.5, "A": 0.5, "alpha": 0.45, "B": 300.0, "C": 1.5, "beta": 0.6, "gamma": 0.6, "rate": 2e-3}
SCHEDULES: dict[str, Callable[[int], Array]] = {
    "cosine": lambda steps: schedule("cosine", steps, 3e-4, steps // 20),
    "to zero": lambda steps: schedule("linear", steps, 3e-4, steps // 20, floor=0.0),
    "two stages": lambda steps: schedule("wsdcon_10", steps, 3e-4, steps // 20),
    "staircase": lambda steps: schedule("step", steps, 3e-4, steps // 20, floor=0.01),
    "restarts": lambda steps: schedule("cosine_restarts_3", steps, 3e-4, steps // 20),
    "constant warm-up": lambda steps: schedule("wsd", steps, 3e-4, steps // 20, warmup_kind="constant"),
    "from zero": lambda steps: schedule("wsdld", steps, 3e-4, steps // 20, convention="linspace"),
    "pauses": lambda steps: np.where(np.arange(steps) % 100 < 50, 3e-4, 0.0),
    "noise": lambda steps: 3e-4 * np.random.default_rng(0).random(steps),
}


def values(law: str) -> Array:
    return to_logs(
        law_of(law),
        {name: VALUES[name] / (3 if law == "mpl_risk" and name == "B" else 1) for name in law_of(law).parameters},
    )


def plain_sum(law: str, lrs: Array, step: int) -> mpmath.mpf:
    """The law as it stands in the papers, term by term, with 50 digits."""
    with mpmath.workdps(50):
        p = {
            name: mpmath.exp(mpmath.mpf(float(log)))
            for name, log in zip(law_of(law).parameters, values(law), strict=True)
        }
        eta = [mpmath.mpf(float(lr)) for lr in lrs[: step + 1]]
        area = mpmath.fsum(eta)
        if law == "power":
            return p["L0"] + p["A"] * mpmath.mpf(step + 1) ** -p["alpha"]
        main = p["L0"] + p["A"] * area ** -p["alpha"]
        level = mpmath.fsum(mpmath.mpf(float(lr)) for lr in lrs[: first_peak(lrs) + 1])
        gamma, earned, rest = p.get("gamma", mpmath.mpf(0)), mpmath.mpf(0), area - eta[0]
        for k in range(1, step + 1):
            if law == "momentum":
                response = 1 - mpmath.exp(-p["rate"] * (step - k + 1))
            elif rest == 0:
                response = mpmath.mpf(0)
            elif eta[k] == 0 and gamma > 0:
                response = mpmath.mpf(1)
            else:
                response = 1 - (1 + p["C"] * (eta[k] ** -gamma if gamma else 1) * rest) ** -p["beta"]
            before = max(area - rest, level)
            weight = p["L0"] + p["A"] * before ** -p["alpha"] if law == "mpl_risk" else 1
            earned += (eta[k - 1] - eta[k]) * weight * response
            rest -= eta[k]
        return main - p["B"] * earned


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_single_precision_is_right_to_a_millionth_of_the_loss(law: str, name: str) -> None:
    """At C = e^100, beyond the range of single precision, too."""
    lrs, chosen = SCHEDULES[name](2000), law_of(law)
    terms = compress(lrs, np.arange(200, 2000, 7))
    slow = np.array([*values(law)[:4], 100.0, np.log(0.01), np.log(2.0)])[: len(chosen.parameters)]
    for logs in (values(law), slow) if "C" in chosen.parameters else (values(law),):
        loss, jacobian = chosen.jacobian(logs, terms)
        single, slopes = chosen.jacobian(logs, terms.single())
        np.testing.assert_allclose(single, loss, rtol=1e-6)
        np.testing.assert_allclose(slopes, jacobian, rtol=0, atol=3e-6 * np.abs(jacobian).max())


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_against_fifty_digits(law: str, name: str) -> None:
    lrs = SCHEDULES[name](700)
    steps = np.array([2, 34, 35, 36, 99, 400, 640, 698, 699])
    found = law_of(law).loss(values(law), compress(lrs, steps))
    expected = [float(plain_sum(law, lrs, int(step))) for step in steps]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("law", ["mpl", "mpl_risk", "momentum"])
@pytest.mark.parametrize("name", ["cosine", "to zero", "two stages", "restarts", "noise"])
def test_merged_blocks_and_every_step_equal_the_plain_sum(law: str, name: str) -> None:
    count = 400 if name == "noise" else 4000
    lrs = SCHEDULES[name](count)
    steps = np.unique(np.concatenate((np.arange(20), np.arange(0, count, 97), [199, 200, 201, count - 2, count - 1])))
    unmerged = compress(lrs, steps, nodes=count)
    exact = law_of(law).loss(values(law), unmerged)
    merged = compress(lrs, steps)
    if name != "noise":
        assert len(merged.weight) < len(unmerged.weight) / 2
    np.testing.assert_allclose(law_of(law).loss(values(law), merged), exact, rtol=1e-9)
    np.testing.assert_allclose(loss_everywhere(law_of(law), values(law), Changes(lrs))[steps], exact, rtol=1e-9)


def test_a_million_steps_need_few_evaluations() -> None:
    lrs = schedule("wsd", 1_000_000, 3e-4, 2160)
    predicted = FitResult.given("mpl", PARAMETERS[25]).predict(lrs).loss
    at = np.array([2160, 500_000, 800_001, 900_000, 999_999])
    np.testing.assert_allclose(predicted[at], LAWS["mpl"].loss(np.log(PARAMETERS[25]), compress(lrs, at)), rtol=1e-9)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", ["cosine", "to zero", "pauses"])
def test_the_jacobian_against_finite_differences(law: str, name: str) -> None:
    terms = compress(SCHEDULES[name](900), np.array([60, 200, 500, 899]))
    loss, jacobian = law_of(law).jacobian(values(law), terms)
    np.testing.assert_allclose(loss, law_of(law).loss(values(law), terms))
    for index in range(len(values(law))):
        move = np.zeros(len(values(law)))
        move[index] = 1e-5
        above, below = law_of(law).loss(values(law) + move, terms), law_of(law).loss(values(law) - move, terms)
        np.testing.assert_allclose(jacobian[:, index], (above - below) / 2e-5, rtol=1e-6, atol=1e-8)


def test_one_drop_in_closed_form() -> None:
    lrs = np.array([1.0] * 10 + [0.25] * 5)
    result = FitResult.given("mpl", {"L0": 2, "A": 3, "alpha": 0.5, "B": 0.4, "C": 2, "beta": 1, "gamma": 0.5})
    area = 10 + 5 * 0.25
    x = 2 * 0.25**-0.5 * 1.25
    assert result.predict(lrs).loss[-1] == pytest.approx(2 + 3 * area**-0.5 - 0.4 * 0.75 * x / (1 + x), rel=1e-12)
    without = FitResult.given("momentum", {"L0": 2, "A": 3, "alpha": 0.5, "B": 0.4, "rate": 0.1})
    assert without.predict(lrs).loss[-1] == pytest.approx(2 + 3 * area**-0.5 - 0.4 * 0.75 * -np.expm1(-0.5), rel=1e-12)


def test_a_constant_lr_leaves_the_power_law() -> None:
    result = FitResult.given("mpl", PARAMETERS[25])
    np.testing.assert_allclose(
        result.predict(np.full(50, 1e-3)).loss, 3.04045406 + 0.52468604 * (1e-3 * np.arange(1, 51)) ** -0.50786857
    )


def test_before_any_area_the_loss_is_infinite() -> None:
    loss = FitResult.given("mpl", PARAMETERS[25]).predict(schedule("cosine", 50, 3e-4, 10, convention="linspace")).loss
    assert np.isinf(loss[0])
    assert np.isfinite(loss[1:]).all()


@given(
    st.lists(st.sampled_from([0.0, 1e-8, 1e-5, 1e-4, 3e-4]), min_size=2, max_size=60),
    st.floats(0.05, 3.0),
    st.floats(0.05, 1.5),
    st.sampled_from(["mpl", "mpl_risk"]),
)
def test_any_lrs_give_finite_losses_and_slopes(lrs: list[float], beta: float, gamma: float, law: str) -> None:
    p = to_logs(law_of(law), {**{name: VALUES[name] for name in law_of(law).parameters}, "beta": beta, "gamma": gamma})
    schedule_ = np.array([1e-4, *lrs])
    loss, jacobian = law_of(law).jacobian(p, compress(schedule_, np.arange(len(schedule_))))
    assert np.isfinite(loss).all()
    assert np.isfinite(jacobian).all()


def test_the_examples_of_the_documentation() -> None:
    for module in (mpl, mpl.jsontext, mpl.metrics, mpl.optimize, mpl.solve, mpl.staircase):
        assert doctest.testmod(module, extraglobs={"np": np}).failed == 0


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", ["cosine", "to zero", "two stages", "restarts", "pauses", "noise"])
def test_points_between_nodes_of_panels_equal_the_law(law: str, name: str) -> None:
    lrs = SCHEDULES[name](6000)
    steps = np.arange(int(np.argmax(lrs)), 6000, 8)
    (needed,), matrix = interpolation([(lrs, steps)])
    loss = law_of(law).loss(values(law), compress(lrs, steps))
    np.testing.assert_allclose(matrix @ loss[needed], loss, rtol=1e-7)
    assert len(needed) < len(steps) / 2 or name in ("noise", "pauses")


@pytest.mark.parametrize(
    ("lrs", "step"),
    [
        ([0.0, 1.0, 2.0, 2.0, 2.0], 2),
        ([1.0, 2.0, 2.0, 1.0, 3.0, 1.0], 1),
        ([0.1, 0.1, 1.0, 1.0, 0.5], 2),
        ([0.0, 0.0, 1.0, 0.0, 1.0], 2),
        ([3.0, 2.0, 1.0], 0),
        ([0.0, 1.0], 1),
    ],
)
def test_the_warm_up_ends_at_the_first_peak(lrs: list[float], step: int) -> None:
    assert first_peak(np.array(lrs)) == step


def test_points_before_a_rise_to_a_higher_lr_are_used() -> None:
    lrs = np.concatenate((schedule("wsd", 1000, 1e-4, 100), schedule("constant", 1000, 3e-4, 100)))
    steps = np.arange(50, 2000, 50)
    curve = Curve.of("again", steps, np.full(len(steps), 3.0), lrs)
    assert after_warmup(curve).step[0] == 100
