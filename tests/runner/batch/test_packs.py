"""`pack: auto`: how many trials share an allocation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner.batch.packs import MOST
from runner.executors.batch import TaskId, Why
from runner.gpus.desk import SampleFile
from runner.gpus.packing import Sample
from runner.service.gpuwork import SAMPLES
from tests.runner.batchworld import Site, sites

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AUTO = {"pack": "auto"}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    yield from sites(tmp_path, monkeypatch)


def saw(site: Site, peak_mib: int) -> None:
    """What an attempt of the stage was seen to need, of a card with 24 GiB."""
    sample = Sample(peak_mib, level=1, was_oom=False, rate=None, card_mib=24_576)
    SampleFile(site.output / ".runner" / SAMPLES).add("a", sample)


def sizes(site: Site) -> list[int]:
    """How many trials each task has, of the batches in their order."""
    return [len(task) for folder in site.system.batches for task in _intent(site, folder)]


def _intent(site: Site, job: str) -> tuple[tuple[object, ...], ...]:
    from runner.batch import batchfile

    return batchfile.read(site.folder(job)).tasks


def test_one_goes_ahead_and_the_others_wait_for_what_it_shows(site: Site) -> None:
    site.run(0, 1, 2, 3, 4, told=AUTO)
    assert sizes(site) == [1]
    assert not site.daemon.is_done
    saw(site, 10_000)
    site.look()
    assert sizes(site) == [1, 2, 2]


def test_where_it_shows_nothing_each_has_an_allocation_of_its_own(site: Site) -> None:
    site.run(0, 1, 2, told=AUTO)
    site.system.lose(TaskId("1", 0), Why.CANCELED)
    site.look(3)
    assert [batch.count for batch in site.system.batches.values()] == [1, 2]


def test_what_is_known_already_needs_nobody_ahead(site: Site) -> None:
    saw(site, 100)
    site.run(*range(MOST + 1), told=AUTO)
    assert sizes(site) == [MOST, 1]


def test_without_a_gpu_each_has_an_allocation_of_its_own(site: Site) -> None:
    from runner.options import StageOptions

    site.run(0, 1, options={"a": StageOptions(executor="fake", batch=AUTO, gpus=0)})
    assert sizes(site) == [1, 1]


def test_what_waits_for_another_can_be_canceled_and_paused(site: Site) -> None:
    site.run(0, 1, 2, told=AUTO)
    site.do("cancel", words=["T_2"])
    site.do("pause")
    assert site.states("T_1") == {"a": "pending"}
    assert site.states("T_2") == {"a": "canceled"}
    assert not site.system.rows
