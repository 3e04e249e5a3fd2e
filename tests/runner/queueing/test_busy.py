"""The share of time in which a place was busy."""

import pytest

from runner.model import Slot
from runner.queueing.busy import BusyTimes


def test_a_place_counts_from_when_it_was_first_there() -> None:
    times = BusyTimes()
    times.see(["gpu 0"], 100.0)
    assert times.share("gpu 0", 100.0) == 0.0
    times.start("gpu 0", 110.0)
    assert times.share("gpu 0", 120.0) == pytest.approx(0.5)
    times.end("gpu 0", 130.0)
    times.see(["gpu 0"], 135.0)
    assert times.share("gpu 0", 140.0) == pytest.approx(0.5)
    assert times.share("gpu 9", 140.0) == 0.0


def test_attempts_that_share_a_place_count_once() -> None:
    times = BusyTimes()
    times.start("gpu 0", 0.0)
    times.start("gpu 0", 5.0)
    times.end("gpu 0", 10.0)
    assert times.is_busy("gpu 0")
    times.end("gpu 0", 20.0)
    assert not times.is_busy("gpu 0")
    assert times.share("gpu 0", 40.0) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("label", "places"),
    [("cpu 3", ["cpu 3"]), ("gpu 0 #2", ["gpu 0"]), ("gpu 0,1 #3", ["gpu 0", "gpu 1"]), ("gpu 2:0", ["gpu 2:0"])],
)
def test_a_slot_takes_places(label: str, places: list[str]) -> None:
    assert Slot(label).places == places
