"""Fits: known parameters found again, the published curves, and what a fit keeps."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from mpl import Curve, FitResult, Metrics, MplError, bars, fit, plots, prior, select
from mpl.curve import divergence
from mpl.fit import left_out, make_problem
from mpl.laws import Law, law_of, to_logs
from mpl.prior import shape_prior
from mpl.problem import Problem, descend, random_starts, settle, solve
from mpl.solve import Prior, huber
from tests.mpl.curves import FITTED, PARAMETERS, UNSEEN, published, synthetic, three
from train.schedules import Array, schedule

TRUE = {
    "mpl": (2.5, 0.5, 0.45, 300.0, 1.5, 0.6, 0.6),
    "mpl_risk": (2.5, 0.5, 0.45, 110.0, 1.5, 0.6, 0.6),
    "mpl_gamma0": (2.5, 0.5, 0.45, 300.0, 100.0, 0.6),
    "momentum": (2.5, 0.5, 0.45, 300.0, 0.004),
    "power": (2.5, 3.0, 0.4),
}


@pytest.mark.parametrize("law", TRUE)
def test_parameters_are_found_again(law: str) -> None:
    found = fit(three(law, TRUE[law]), law, None, error_bars=False)
    assert found.success
    assert found.objective < 1e-9
    np.testing.assert_allclose(list(found.parameters.values()), TRUE[law], rtol=2e-2)


@pytest.mark.parametrize("law", ["mpl", "mpl_risk"])
def test_noise_moves_predictions_by_less_than_itself(law: str) -> None:
    noisy, noise = three(law, TRUE[law], noise=1e-3), 1e-3
    found = fit(noisy, law, None, error_bars=False)
    lrs = schedule("wsd", 6000, 3e-4, 300)
    clean = synthetic("wsd", 6000, lrs, law, TRUE[law])
    assert np.abs(found.predict(lrs, clean.step).loss / clean.loss - 1).max() < noise


def test_the_same_bits_each_time() -> None:
    curves = three("mpl_risk", TRUE["mpl_risk"], noise=1e-3)
    first, second = fit(curves, starts=2), fit(curves, starts=2)
    assert first.as_dict() == second.as_dict()


def test_random_starts_end_at_one_optimum() -> None:
    curves = three("mpl", TRUE["mpl"], noise=1e-3)
    problem, law = make_problem("mpl", curves, 1e-3).thinned(60), law_of("mpl")
    nothing = Prior(np.zeros(7), np.zeros(7))
    ends = [settle(law, problem, nothing, start).objective for start in random_starts(law, problem, 8, seed=1)]
    assert max(ends) < min(ends) * (1 + 1e-5)


@pytest.mark.parametrize("rate", [3e-4, 1e-3])
@pytest.mark.parametrize("noise", [1e-3, 3e-3])
def test_a_law_with_a_parameter_more_fits_no_worse(rate: float, noise: float) -> None:
    curves = three("momentum", (*TRUE["momentum"][:4], rate), noise)
    full, part = (fit(curves, law, None, error_bars=False).objective for law in ("mpl", "mpl_gamma0"))
    assert full <= part * (1 + 1e-5)


def test_a_parameter_at_its_limit_does_not_stop_the_others() -> None:
    curves = three("mpl_gamma0", TRUE["mpl_gamma0"], noise=1e-3)
    problem, law = make_problem("mpl", curves), law_of("mpl")
    start = to_logs(law, (*TRUE["mpl_gamma0"][:3], 100.0, 10.0, 0.6, 1e-3))
    nothing = Prior(np.zeros(7), np.zeros(7))
    assert descend(law, problem, nothing, start).objective <= fit(curves, "mpl_gamma0", None).objective * (1 + 1e-3)


@pytest.mark.parametrize(
    ("law", "gain", "steps"), [("mpl", 1500.0, 2000), ("mpl", 1500.0, 3000), ("mpl_risk", 700.0, 2000)]
)
def test_curves_that_ask_for_no_loss_in_the_end_are_fitted_no_worse_than_by_their_truth(
    law: str, gain: float, steps: int
) -> None:
    truth = (1e-4, 1.85, 0.12, gain, 1.1, 0.6, 0.5)
    curves = three(law, truth, noise=2e-3, steps=steps)
    problem = make_problem(law, curves)
    of_truth = huber(problem.log_loss - np.log(problem.loss(law_of(law), to_logs(law_of(law), truth))), problem.delta)
    found = fit(curves, law, 0.02, error_bars=False)
    assert found.objective < of_truth
    assert found.parameters["L0"] == pytest.approx(1e-6 * min(curve.loss.min() for curve in curves))
    assert found.message.endswith(f"L0 is at its limit of {found.parameters['L0']:.3g}")


def test_a_parameter_at_its_limit_is_told() -> None:
    found = fit(three("mpl_gamma0", TRUE["mpl_gamma0"]), "mpl", None, error_bars=False)
    assert found.parameters["gamma"] == pytest.approx(1e-3)
    assert found.message == "the objective falls no further, gamma is at its limit of 0.001"


def test_a_stronger_prior_holds_the_shape() -> None:
    curves = three("mpl", (*TRUE["mpl"][:5], 2.0, 0.2), noise=1e-3)
    beta = [fit(curves, "mpl", width, error_bars=False).parameters["beta"] for width in (None, 0.1, 0.01)]
    assert abs(beta[0] - 2) < 0.7
    assert abs(beta[0] - 0.6) > abs(beta[1] - 0.6) > abs(beta[2] - 0.6)
    assert beta[2] == pytest.approx(0.6, rel=0.02)


def test_the_prior_is_weak_where_left_out_curves_say_so() -> None:
    far = fit(three("mpl", (*TRUE["mpl"][:3], 900.0, 0.2, 6.0, 0.1)), "mpl")
    near = fit(three("mpl", TRUE["mpl"]), "mpl")
    assert near.shape_prior == min(near.prior_scores)
    assert far.shape_prior is not None
    assert far.shape_prior > near.shape_prior


@pytest.mark.parametrize(("error", "width"), [(1e-3, 0.1), (1e-5, 1.0)])
def test_a_weaker_prior_must_be_better_by_the_error_of_that(
    error: float, width: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [0.0124, 0.0116, 0.0115, 0.0114, 0.0108, 0.0110]
    monkeypatch.setattr(prior, "scores", lambda *_: (found, [error] * len(found)))
    chosen, by_width = prior.choose_width(law_of("mpl"), make_problem("mpl", three("mpl", TRUE["mpl"])))
    assert chosen == width
    assert list(by_width.values()) == found


def test_bars_widen_with_what_left_out_curves_show() -> None:
    good = fit(three("mpl", TRUE["mpl"]), "mpl")
    curves = three("mpl", TRUE["mpl"])
    bent = curves[2].loss * np.where(curves[2].step > 3500, 1.05, 1.0)
    bad = fit([*curves[:2], Curve.of("bent", curves[2].step, bent, curves[2].lrs)], "mpl")
    lrs = schedule("wsd", 6000, 3e-4, 300)
    predicted, worse = good.predict(lrs), bad.predict(lrs)
    assert (predicted.lower < predicted.loss).all()
    assert (predicted.loss < predicted.upper).all()
    assert ((worse.upper - worse.lower)[600:] > 2 * (predicted.upper - predicted.lower)[600:]).all()


def test_bars_widen_where_other_laws_say_otherwise() -> None:
    result = fit(three("mpl", TRUE["mpl"], noise=5e-4))
    assert result.bars is not None
    assert set(result.bars.rivals) == {"mpl", "momentum"}
    like, unlike = schedule("constant", 6000, 3e-4, 300), schedule("linear", 40_000, 3e-4, 300, floor=0.0)
    half = [result.predict(lrs, np.array([len(lrs) - 1])) for lrs in (like, unlike)]
    assert half[1].upper[0] - half[1].loss[0] > 2 * (half[0].upper[0] - half[0].loss[0])


def test_bars_widen_beyond_the_fitted_area_where_the_power_law_bends() -> None:
    straight, bent = three("mpl", TRUE["mpl"], noise=3e-4), []
    for curve in straight:
        bent.append(Curve.of(curve.name, curve.step, curve.loss * _bend(curve.lrs)[curve.step], curve.lrs))
    one, two = fit(straight).bars, fit(bent).bars
    assert one is not None
    assert two is not None
    assert two.growth > 3 * one.growth
    lrs, end = schedule("constant", 18_000, 3e-4, 300), np.array([17_999])
    predicted = fit(bent).predict(lrs, end)
    least = two.factor * two.growth * np.log(lrs.sum() / bent[1].lrs.sum())
    assert predicted.upper[0] / predicted.loss[0] - 1 > least > 0
    truth = synthetic("constant", 18_000, lrs, "mpl", TRUE["mpl"]).loss[-1] * _bend(lrs)[-1]
    assert predicted.lower[0] < truth < predicted.upper[0]


def _bend(lrs: Array) -> Array:
    """A part of the loss that no power law has: 2% more after two thirds of the area of 6,000 steps."""
    return np.asarray(1 + 0.02 / (1 + np.exp(-8 * np.log(np.cumsum(lrs) / 1.2))))


def test_before_any_area_there_is_no_bar() -> None:
    result = fit(three("mpl", TRUE["mpl"]), "mpl")
    lrs = schedule("cosine", 50, 3e-4, 10, convention="linspace")
    first, both = result.predict(lrs, np.array([0])), result.predict(lrs, np.array([0, 40]))
    assert np.isinf(first.loss[0])
    assert np.isnan(first.upper[0])
    assert both.lower[1] < both.loss[1] < both.upper[1]


def test_a_left_out_curve_whose_prediction_is_no_loss_counts_as_infinitely_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = (2.5, 0.5, 0.45, 1e5, 1.5, 0.6, 0.6)
    lrs = [schedule(f"wsdcon_{percent}", 2000, 3e-4) for percent in (96, 97, 98)]
    problem = make_problem("mpl", [synthetic(str(n), 2000, one, "mpl", truth, 1e-4) for n, one in enumerate(lrs)])
    deep = Curve.of("deep", np.arange(1100, 2000, 50), np.full(18, 3.0), schedule("wsdcon_1", 2000, 3e-4))
    monkeypatch.setattr(bars, "folds", lambda *_: [(problem, Problem.of([deep]))])
    found = bars.calibrate(law_of("mpl"), problem, 0.1, to_logs(law_of("mpl"), truth))
    assert found.factor == np.inf
    replace(FitResult.given("mpl", truth), bars=found).save(tmp_path / "fit.json")
    predicted = FitResult.load(tmp_path / "fit.json").predict(lrs[0], np.array([1500]))
    assert (predicted.lower[0], predicted.upper[0]) == (0, np.inf)


def test_no_bar_ends_below_a_loss_of_0() -> None:
    made = fit(three("mpl", TRUE["mpl"], noise=1e-3), "mpl")
    assert made.bars is not None
    wide = replace(made, bars=replace(made.bars, factor=1e4)).predict(schedule("cosine", 6000, 3e-4, 300))
    assert (wide.lower == 0).all()
    assert (wide.upper > wide.loss).all()


def test_a_loss_at_every_step_is_predicted_in_little_memory() -> None:
    found = fit(three("mpl", TRUE["mpl"], noise=1e-3))
    lrs = schedule("cosine", 20_000, 3e-4, 300)
    steps = np.arange(300, 20_000)
    tracemalloc.start()
    predicted = found.predict(lrs, steps)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    some = np.arange(0, len(steps), 300)
    few = found.predict(lrs, steps[some])
    np.testing.assert_allclose(predicted.loss[some], few.loss, rtol=1e-9)
    np.testing.assert_allclose(predicted.upper[some], few.upper, rtol=1e-5)


def test_bars_cover_what_is_past_the_divergence() -> None:
    covered = []
    for noise in (3e-4, 9e-4):
        result = fit(three("momentum", TRUE["momentum"], noise=noise))
        for name in ("wsd", "wsdld", "wsdcon_10"):
            lrs = schedule(name, 6000, 3e-4, 300)
            curve = synthetic(name, 6000, lrs, "momentum", TRUE["momentum"], noise)
            late = curve.part(np.flatnonzero(curve.step >= divergence(curve, three("momentum", TRUE["momentum"]))))
            predicted = result.predict(lrs, late.step)
            covered.append(((predicted.lower <= late.loss) & (late.loss <= predicted.upper)).mean())
    assert np.mean(covered) >= 0.8


def test_a_saved_fit_is_the_fit(tmp_path: Path) -> None:
    curves = three("mpl_risk", TRUE["mpl_risk"], noise=1e-3)
    found = fit(curves)
    found.save(tmp_path / "fit.json")
    loaded = FitResult.load(tmp_path / "fit.json")
    assert loaded.as_dict() == found.as_dict()
    assert loaded.predict(curves[0].lrs).upper.tobytes() == found.predict(curves[0].lrs).upper.tobytes()


def test_laws_are_compared_on_what_they_did_not_see() -> None:
    found = select(three("momentum", TRUE["momentum"], noise=3e-4), ["power", "mpl", "momentum"])
    assert next(iter(found)) == "momentum"
    assert found["power"] > 2 * found["momentum"]


def test_all_laws_are_compared_on_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    curves = three("mpl", TRUE["mpl"], noise=1e-3)
    flat = [synthetic(f"flat {n}", n, schedule("constant", n, 3e-4, 300), "mpl", TRUE["mpl"]) for n in (5000, 6000)]
    compared: list[list[tuple[int, ...]]] = []

    def seen(law: Law, pairs: list[tuple[Problem, Problem]], widths: list[float | None]) -> object:
        compared.append([left.counts for _, left in pairs])
        return scores(law, pairs, widths)

    scores = prior.scores
    monkeypatch.setitem(select.__globals__, "scores", seen)
    select([curves[0], *flat], ["power", "momentum"])
    assert compared[0] == compared[1]
    assert len(compared[0]) == 2, "without the only curve with a drop, the momentum law cannot be fitted"
    assert left_out([curves[0], *flat], ["power", "momentum"]) == "curves left out of the fit, 2 of 3"
    assert left_out([curves[0], *flat], ["power"]) == "curves left out of the fit, 3 of 3"
    assert left_out(curves[:2], ["power"]) == "the last 40% of each curve, left out of the fit"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"law": "mlp"}, "unknown law 'mlp': allowed are mpl, "),
        ({"shape_prior_width": -1.0}, "width of the shape prior is -1.0"),
        ({"shape_prior_width": 1e-300}, "width of the shape prior is 1e-300: a number from 1e-09 on"),
        ({"delta": 0.0}, "delta is 0.0"),
        ({"curves": []}, "no curves"),
        ({"curves": "twice"}, "two curves are named cosine"),
        ({"curves": "constant"}, "in constant the LR never falls after the warm-up"),
    ],
)
def test_what_cannot_be_fitted(changes: dict[str, object], message: str) -> None:
    curves = three("mpl", TRUE["mpl"])
    chosen = {"twice": [curves[0], curves[0]], "constant": [curves[1]]}
    if isinstance(changes.get("curves"), str):
        changes = {**changes, "curves": chosen[str(changes["curves"])]}
    with pytest.raises(MplError, match=message):
        fit(**{"curves": curves, **changes})  # type: ignore[arg-type]


def test_parameters_must_be_the_laws() -> None:
    with pytest.raises(MplError, match="law mpl has the parameters L0, A"):
        to_logs(law_of("mpl"), {"L0": 1.0})
    with pytest.raises(MplError, match="7 finite positive parameters"):
        to_logs(law_of("mpl"), [1.0] * 6 + [0.0])


PUBLISHED_METRICS = {
    25: Metrics(0.99880, 0.00376, 0.00465, 0.00110, 0.00409),
    100: Metrics(0.99830, 0.00435, 0.00592, 0.00142, 0.00583),
}


@pytest.mark.parametrize(("size", "objective"), [(25, 2.912e-4), (100, 2.810e-4)])
def test_published_parameters_have_the_published_figures(size: int, objective: float) -> None:
    given = FitResult.given("mpl", PARAMETERS[size])
    found = Metrics.mean([given.evaluate(published(size, name)) for name in UNSEEN])
    for name, value in PUBLISHED_METRICS[size].as_dict().items():
        assert getattr(found, name) == pytest.approx(value, abs=6e-6), name
    problem = make_problem("mpl", [published(size, name) for name in FITTED], 1e-3)
    loss = problem.loss(given.law, given.log_parameters)
    assert huber(problem.log_loss - np.log(loss), 1e-3) == pytest.approx(objective, rel=3e-4)


@pytest.mark.parametrize(("size", "least"), [(25, 1.38433e-4), (100, 2.13314e-5)])
def test_the_bare_fit_reaches_the_global_optimum(size: int, least: float) -> None:
    curves = [published(size, name) for name in FITTED]
    found = fit(curves, "mpl", None, delta=1e-3, error_bars=False)
    assert found.success
    assert found.objective <= least


@pytest.mark.parametrize("size", [25, 100])
def test_the_default_fit_predicts_better_than_the_published_one(size: int) -> None:
    curves = [published(size, name) for name in FITTED]
    found = fit(curves)
    unseen = [published(size, name) for name in UNSEEN]
    mean, goal = Metrics.mean([found.evaluate(curve) for curve in unseen]), PUBLISHED_METRICS[size]
    assert mean.r2 > goal.r2
    for name in ("mae", "rmse", "prede", "worste"):
        assert getattr(mean, name) < getattr(goal, name), name
    past = [curve.part(np.flatnonzero(curve.step >= divergence(curve, curves))) for curve in unseen]
    assert np.mean([found.evaluate(curve).r2 for curve in past]) > 0.97


def test_metrics_of_a_part_need_the_whole_schedule() -> None:
    curve = three("mpl", TRUE["mpl"])[0]
    result = FitResult.given("mpl", TRUE["mpl"])
    late = curve.part(np.flatnonzero(curve.step > 3000))
    assert result.evaluate(late).worste < 1e-9


def test_bars_of_a_fit_that_leaves_nothing() -> None:
    curves = [Curve.of(curve.name, curve.step, 3.0 + 0 * curve.loss, curve.lrs) for curve in three("mpl", TRUE["mpl"])]
    predicted = fit(curves, shape_prior_width=0.1).predict(curves[0].lrs)
    assert (predicted.upper - predicted.lower < 1e-4).all()
    np.testing.assert_allclose(predicted.loss, 3.0)


def test_where_a_steep_power_law_is_infinite_there_is_no_bar() -> None:
    curves = three("mpl", TRUE["mpl"], noise=1e-3)
    found = replace(fit(curves, "mpl"), log_parameters=to_logs(law_of("mpl"), (2.5, 1e-99, 150.0, *TRUE["mpl"][3:])))
    for steps in (None, np.arange(6000)):
        predicted = found.predict(curves[0].lrs, steps)
        assert np.isinf(predicted.loss[0])
        assert np.isnan(predicted.upper[0])
        assert predicted.lower[-1] < predicted.loss[-1] < predicted.upper[-1]


def test_a_loss_at_every_step_is_looked_at_in_full_only_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    lrs = [schedule(name, 9000, 3e-4, 300) for name in ("cosine", "constant", "wsdcon_30")]
    rng, law = np.random.default_rng(0), law_of("mpl_risk")
    curves = []
    for number, one in enumerate(lrs):
        clean = FitResult.given("mpl_risk", TRUE["mpl_risk"]).predict(one).loss[300:]
        noisy = clean * np.exp(1e-2 * rng.standard_normal(len(clean)))
        curves.append(Curve.of(str(number), np.arange(300, 9000), noisy, one))
    sizes = []

    def counted(problem: Problem, law: Law, parameters: Array) -> tuple[Array, Array]:
        sizes.append(len(problem.log_loss))
        return jacobian(problem, law, parameters)

    jacobian = Problem.jacobian
    monkeypatch.setattr(Problem, "jacobian", counted)
    found = fit(curves)
    assert sizes.count(3 * 8700) < 40
    problem = make_problem("mpl_risk", curves)
    best = solve(law, problem, shape_prior(law, found.shape_prior))[0]
    from_elsewhere = settle(law, problem, shape_prior(law, found.shape_prior), to_logs(law, TRUE["mpl_risk"]))
    assert best.objective <= from_elsewhere.objective * (1 + 1e-6)


def test_many_curves_with_long_names_have_a_legend_beside_the_data(tmp_path: Path) -> None:
    made = three("mpl", TRUE["mpl"], steps=2000)
    curves = [
        Curve.of(f"a sweep of many parameters with a long name, {number}", curve.step, curve.loss, curve.lrs)
        for number, curve in enumerate(made * 4)
    ]
    figures: list[Figure] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, path, dpi: figures.append(figure))
        plots.curves(FitResult.given("mpl", TRUE["mpl"]), curves, tmp_path / "fit.png")
    figure = figures[0]
    figure.draw_without_rendering()
    (legend,), loss = figure.legends, figure.axes[0]
    assert not legend.get_window_extent().overlaps(loss.get_window_extent())
    assert legend.get_window_extent().width < figure.bbox.width
    assert len({text.get_text() for text in legend.get_texts()}) == 12
    assert len({str(line.get_color()) for line in figure.axes[1].lines[:12]}) == 12
