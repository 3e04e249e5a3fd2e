"""Schedules against their closed forms."""

import doctest
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import train.schedules
from train.errors import TrainError
from train.pieces import read_knots
from train.schedules import SCHEDULES, join, named, piecewise_linear, ramp, schedule

DECAYING = ["linear", "cosine", "wsd", "wsd_linear", "wsdld", "wsd_sqrt", "step", "multistep", "polynomial_2"]
NAMED = [*SCHEDULES, "wsdcon_9", "wsdcon_0.3", "polynomial_0.5", "polynomial_2", "cosine_restarts_1"]


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (2, 1), (10, 10), (100, 0), (1000, 37)])
def test_contract(name: str, steps: int, warmup: int) -> None:
    lrs = schedule(name, steps, peak=0.01, warmup=warmup, floor=0.1)
    assert lrs.shape == (steps,)
    assert lrs.dtype == np.float64
    assert np.isfinite(lrs).all()
    assert (lrs > 0).all()
    assert (lrs <= 0.01).all()
    assert (np.diff(lrs[warmup:]) <= 0).all(), "it must not rise after the warm-up"


@pytest.mark.parametrize("name", NAMED)
def test_warm_up_is_linear_and_reaches_the_peak(name: str) -> None:
    lrs = schedule(name, 1000, peak=0.01, warmup=100, floor=0.1)
    np.testing.assert_allclose(lrs[:100], 0.01 * np.arange(1, 101) / 100, rtol=1e-12)


@pytest.mark.parametrize("name", DECAYING)
def test_the_last_step_is_at_the_floor(name: str) -> None:
    lrs = schedule(name, 777, peak=0.01, warmup=50, floor=0.07)
    assert lrs[-1] == pytest.approx(0.01 * 0.07, rel=1e-12)
    assert lrs[-2] >= lrs[-1]


@pytest.mark.parametrize("name", ["linear", "cosine", "wsd_linear", "wsd_sqrt"])
def test_a_floor_of_zero(name: str) -> None:
    assert schedule(name, 100, peak=1.0, warmup=0, floor=0.0)[-1] == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(
    ("name", "step", "expected"),
    [
        ("constant", 999, 1.0),
        ("linear", 599, 0.55),  # halfway from step 200 to the end
        ("cosine", 399, 0.1 + 0.9 * (1 + np.cos(np.pi / 4)) / 2),
        ("cosine", 599, 0.55),
        ("wsd", 799, 1.0),
        ("wsd", 849, 0.1**0.25),
        ("wsd", 899, 0.1**0.5),
        ("wsd_linear", 849, 1 - 0.9 * 0.25),
        ("wsdld", 849, 1 - 0.9 * 0.25),
        ("wsd_sqrt", 849, 1 - 0.9 * 0.5),
        ("multistep", 799, 1.0),
        ("multistep", 800, 0.1**0.5),
        ("multistep", 899, 0.1**0.5),
        ("multistep", 900, 0.1),
        ("inverse_sqrt", 199, 1.0),
        ("inverse_sqrt", 799, 0.5),
        ("wsdcon_9", 499, 1.0),
        ("wsdcon_9", 500, 0.09),
        ("wsdcon_0.09", 999, 0.09),
        ("wsdcon_1", 999, 0.01),
        ("step", 199, 1.0),
        ("step", 200, 0.1**0.25),
        ("step", 799, 0.1**0.75),
        ("step", 800, 0.1),
        ("polynomial_1", 599, 0.55),
        ("polynomial_2", 599, 0.1 + 0.9 * 0.25),
        ("polynomial_0.5", 799, 0.1 + 0.9 * 0.25**0.5),
        ("cosine_restarts_4", 299, 0.55),
        ("cosine_restarts_4", 399, 0.1),
        ("cosine_restarts_4", 499, 0.55),
        ("cosine_restarts_4", 999, 0.1),
    ],
)
def test_closed_forms(name: str, step: int, expected: float) -> None:
    lrs = schedule(name, 1000, peak=3.0, warmup=200, floor=0.1)
    assert lrs[step] == pytest.approx(3.0 * expected, rel=1e-12)


def test_restarts_rise_to_the_peak_again() -> None:
    lrs = schedule("cosine_restarts_3", 310, peak=1.0, warmup=10, floor=0.1)
    assert np.flatnonzero(np.diff(lrs[10:]) > 0).tolist() == [99, 199]
    np.testing.assert_array_equal(lrs[10:110], lrs[110:210])
    np.testing.assert_array_equal(schedule("cosine_restarts_1", 77, 1.0, 5), schedule("cosine", 77, 1.0, 5))


def test_a_constant_warm_up_runs_at_a_tenth() -> None:
    lrs = schedule("constant", 10, peak=3.0, warmup=4, warmup_kind="constant")
    np.testing.assert_allclose(lrs, [0.3] * 4 + [3.0] * 6)


def test_the_convention_of_the_published_curves() -> None:
    flags: dict[str, Any] = {"steps": 24000, "peak": 3e-4, "warmup": 2160, "floor": 0.1, "convention": "linspace"}
    lrs = schedule("cosine", **flags)
    np.testing.assert_allclose(lrs[:2160], np.linspace(0, 3e-4, 2160), rtol=1e-14)
    assert lrs[2160] == 3e-4
    assert lrs[2288] == pytest.approx(0.0002999771173709568, rel=1e-14)  # the file cosine_24000.csv
    assert lrs[23920] == pytest.approx(3.000893868085248e-05, rel=1e-14)
    assert schedule("wsd", decay=4000 / 24000, **flags)[23904] == pytest.approx(3.170452527640976e-05, rel=1e-14)
    assert schedule("wsdld", decay=4000 / 24000, **flags)[23904] == pytest.approx(3.648e-05, rel=1e-14)


def test_lines_through_knots() -> None:
    lrs = piecewise_linear([(2, 1.0), (4, 0.0), (8, 2.0)])(np.arange(10.0))
    assert lrs.tolist() == [1, 1, 1, 0.5, 0, 0.5, 1, 1.5, 2, 2]
    assert piecewise_linear([(3, 0.25)])(np.arange(5.0)).tolist() == [0.25] * 5


@given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1e3)), min_size=2, max_size=8),
    st.floats(1e-9, 1.0),
)
def test_a_ramp_is_a_segment_of_the_whole_to_the_last_bit(parts: list[tuple[int, float]], scale: float) -> None:
    ends = np.cumsum([length for length, _ in parts])
    knots = [(int(end), lr * scale) for end, (_, lr) in zip(ends, parts, strict=True)]
    whole = piecewise_linear(knots)
    for (first, lr1), (last, lr2) in pairwise(knots):
        steps = np.arange(first, last + 1, dtype=np.float64)
        segment = ramp(first, last, lr1, lr2)(steps)
        assert segment.tobytes() == whole(steps).tobytes()
        assert (segment[0], segment[-1]) == (lr1, lr2)
        assert (segment >= 0).all()


def test_schedules_are_joined() -> None:
    pieces = [ramp(0, 10, 0.0, 1.0), named("cosine", 50, 1.0), named("constant", 40, 0.1)]
    lrs = join(pieces, [10, 60])(np.arange(100.0))
    expected = [np.arange(10) / 10, schedule("cosine", 50, 1.0), np.full(40, 0.1)]
    np.testing.assert_array_equal(lrs, np.concatenate(expected))
    for boundaries in ([10], [60, 10], [0, 10]):
        with pytest.raises(TrainError, match=r"3 schedules are joined at .*rising steps above 0"):
            join(pieces, boundaries)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("knots.csv", "step,lr\n0,1\n4,0.5\n9,0\n"),
        ("knots.csv", "\ufeffstep, lr\n0, 1\n4, 0.5\n9, 0\n"),
        ("knots.json", '{"knots": [[0, 1], [4, 0.5], [9, 0]]}'),
        ("knots.json", '\ufeff{"knots": [[0, 1], [4, 0.5], [9, 0]]}'),
    ],
)
@pytest.mark.parametrize("steps", [9, 10])
def test_a_file_of_knots(tmp_path: Path, name: str, text: str, steps: int) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    lrs = schedule(str(path), steps, peak=7.0, warmup=3)
    np.testing.assert_allclose(lrs, [1, 0.875, 0.75, 0.625, 0.5, 0.4, 0.3, 0.2, 0.1, 0][:steps], atol=1e-15)
    assert read_knots(path) == [(0, 1), (4, 0.5), (9, 0)]
    with pytest.raises(TrainError, match=r"knots\.\w+ has knots from step 0 to 9: needed are 0 to 10 or 11"):
        schedule(str(path), 11, peak=7.0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "steps of knots must rise"),
        ("a.csv", "step,loss\n0,1\n", "no knots"),
        ("a.csv", "step,lr\n0,x\n", "no knots .*'x'"),
        ("a.csv", "step,lr\n0,1\n0,1\n", "steps of knots must rise"),
        ("a.csv", "step,lr\n0,1\n1,-1\n", "negative or not finite"),
        ("a.json", "{", "no knots"),
        ("a.json", "[[0, 1]]", "no knots"),
        ("a.json", '{"knots": [[0, NaN], [1, 0]]}', "negative or not finite"),
        ("a.json", '{"knots": [0, 1]}', "no knots"),
    ],
)
def test_a_file_without_good_knots(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(TrainError, match=rf"the schedule .*{name}.*{message}"):
        schedule(str(path), 2, peak=1.0)


def test_the_decay_stage_has_the_length_asked_for() -> None:
    lrs = schedule("wsd_linear", 1000, peak=1.0, warmup=0, floor=0.0, decay=0.1)
    assert (lrs[:900] == 1).all()
    assert lrs[900] == pytest.approx(0.99)


def test_a_warm_up_that_reaches_into_the_decay_shortens_it() -> None:
    lrs = schedule("wsd_linear", 100, peak=1.0, warmup=90, floor=0.0)
    assert lrs[89] == 1
    assert lrs[94] == pytest.approx(0.5)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "lrs.npy"
    np.save(path, np.linspace(1, 0, 50, dtype=np.float32))
    lrs = schedule(str(path), 50, peak=7.0, warmup=10)
    assert lrs.dtype == np.float64
    np.testing.assert_allclose(lrs, np.linspace(1, 0, 50), atol=1e-7)
    with pytest.raises(TrainError, match=r"lrs\.npy holds float32 \(50,\).*shape \(51,\)"):
        schedule(str(path), 51, peak=1.0)


@pytest.mark.parametrize("content", [[[0.1, 0.2]], [0.1, -0.2], [0.1, np.nan], [0.1, np.inf], ["a", "b"], [1j, 2]])
def test_a_file_that_is_no_schedule(tmp_path: Path, content: list[object]) -> None:
    path = tmp_path / "lrs.npy"
    np.save(path, np.array(content))
    with pytest.raises(TrainError, match=r"lrs\.npy"):
        schedule(str(path), 2, peak=1.0)


def test_a_file_is_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "lrs.npy"
    np.save(path, np.array([{}, {}], dtype=object))
    with pytest.raises(TrainError, match=r"cannot read the schedule .*lrs\.npy"):
        schedule(str(path), 2, peak=1.0)
    with pytest.raises(TrainError, match="cannot read the schedule absent"):
        schedule("absent.npy", 2, peak=1.0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"name": "cosin"}, r"unknown schedule 'cosin', did you mean cosine\?.*allowed: constant, .*wsdcon_"),
        ({"name": "zzz"}, "unknown schedule 'zzz': allowed: constant, "),
        ({"name": "wsdcon_"}, "wsdcon_"),
        ({"name": "wsdcon_101"}, "'101' is not a percentage"),
        ({"name": "wsdcon_-1"}, "'-1' is not a percentage"),
        ({"name": "wsdcon_nan"}, "'nan' is not a percentage"),
        ({"name": "wsd", "floor": 0.0}, "wsd needs a floor above 0"),
        ({"steps": 0}, "steps is 0"),
        ({"warmup": 11}, r"warmup is 11: it must lie between 0 and steps \(10\)"),
        ({"warmup": -1}, "warmup is -1"),
        ({"floor": 1.5}, "floor is 1.5"),
        ({"decay": -0.1}, "decay is -0.1"),
        ({"name": "polynomial_0"}, r"'0' is not a power"),
        ({"name": "cosine_restarts_2.5"}, "'2.5' is not a number of cycles"),
        ({"name": "step", "floor": 0.0}, "step needs a floor above 0"),
        ({"name": "absent.csv"}, r"cannot read the schedule absent\.csv"),
        ({"warmup_kind": "cosine"}, "warmup_kind is 'cosine': allowed are linear, constant"),
        ({"convention": "first"}, "convention is 'first': allowed are last, linspace"),
        ({"peak": -1.0}, "peak LR is -1.0"),
        ({"peak": float("nan")}, "peak LR is nan"),
    ],
)
def test_errors_say_what_is_allowed(flags: dict[str, object], message: str) -> None:
    with pytest.raises(TrainError, match=message):
        schedule(**{"name": "cosine", "steps": 10, "peak": 1.0, **flags})  # type: ignore[arg-type]


def test_the_examples_of_the_documentation() -> None:
    results = doctest.testmod(train.schedules)
    assert results.attempted >= 2
    assert results.failed == 0


def test_schedules_and_flags_come_without_torch() -> None:
    code = "import sys, train.schedules, train.config, train.flags; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "False"
