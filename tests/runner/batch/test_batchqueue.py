"""What waits to be submitted, and what arrays are made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner.batch import batchfile
from runner.options import StageOptions
from tests.runner.batchworld import LEASE_S, Site, sites

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    yield from sites(tmp_path, monkeypatch)


def test_many_trials_are_cut_at_what_the_site_allows(site: Site) -> None:
    site.system.most = 3
    site.run(*range(7))
    site.settle(6)
    assert [batch.count for batch in site.system.batches.values()] == [2, 2, 3]
    keys = [part.key for folder in map(site.folder, "123") for task in batchfile.read(folder).tasks for part in task]
    assert keys == [f"T_{index}" for index in range(7)]


def test_the_limit_of_trials_at_once_and_the_cores_of_a_pack_are_asked_for(site: Site) -> None:
    options = StageOptions(executor="fake", batch={"pack": 3, "limit": 2}, cpus=4)
    site.run(*range(7), options={"a": options})
    (batch,) = site.system.batches.values()
    assert (batch.count, batch.cpus, batch.keys.limit) == (3, 12, 2)


def test_two_executors_share_a_file(site: Site) -> None:
    other = StageOptions(executor="other", batch={"lease": LEASE_S})
    site.run(0, 1, stages="ab", options={"b": other})
    for number in range(2):
        site.through(number=number)
    site.look(2)
    assert site.said == [
        "Submitted to fake: job 1, 2 tasks.",
        "Submitted to other: job 2, 2 tasks.",
    ]
    site.system.rows.clear()
    assert site.states("T_1") == {"a": "finished", "b": "submitted"}
    assert [place[0] for place in site.daemon.places()[-1:]] == ["other"]


def test_stages_that_ask_for_different_things_are_submitted_apart(site: Site) -> None:
    site.run(0)
    site.run(1, told={"time": "1h"}, is_full=False)
    assert [batch.keys.time for batch in site.system.batches.values()] == [None, 3600.0]


def test_an_executor_that_is_no_longer_there_fails_its_trials_with_the_reason(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ValueError(f"{name!r} is no executor.")

    monkeypatch.setattr("runner.executors.registry.load", missing)
    site.run(0)
    assert site.states() == {"a": "failed"}
    assert site.events[-1].line == "'fake' is no executor."
    assert site.daemon.is_done
