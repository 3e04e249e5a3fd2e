"""Schedules against their closed forms."""

import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import train.schedules
from train.errors import TrainError
from train.schedules import SCHEDULES, schedule

DECAYING = ["linear", "cosine", "wsd", "wsd_linear", "wsdld", "wsd_sqrt", "multistep"]
NAMED = [*SCHEDULES, "wsdcon_9", "wsdcon_0.3"]


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
    ],
)
def test_closed_forms(name: str, step: int, expected: float) -> None:
    lrs = schedule(name, 1000, peak=3.0, warmup=200, floor=0.1)
    assert lrs[step] == pytest.approx(3.0 * expected, rel=1e-12)


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
    code = "import sys, train.schedules, train.config, train.data; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "False"
