"""Trials that come back from a batch system: what is told of them, and whether they go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner.batch.trialreturns import VANISHED_AGAIN_S
from runner.executors.batch import RefusedError, TaskId, Why
from tests.runner.batchworld import Site, sites

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    yield from sites(tmp_path, monkeypatch)


def vanish(site: Site, job: str) -> None:
    """A task is gone before it began, and accounting says that its node was."""
    site.system.lose(TaskId(job, 0), Why.NODE_LOST)
    site.look(2)


def test_what_vanished_is_not_submitted_again_at_once(site: Site) -> None:
    site.run(0)
    vanish(site, "1")
    assert site.states() == {"a": "pending"}
    assert len(site.system.batches) == 1
    assert not site.daemon.is_done
    site.clock.now += VANISHED_AGAIN_S
    site.settle()
    assert len(site.system.batches) == 2


def test_a_task_that_began_makes_up_for_those_that_vanished(site: Site) -> None:
    site.run(0, command="exit 75", told={"resumes": 5})
    for job in ("1", "2", "3", "4"):
        vanish(site, job)
        site.look()
    site.through("5")
    site.look(2)
    assert site.states() == {"a": "submitted"}
    vanish(site, "6")
    site.look()
    assert site.states() == {"a": "submitted"}


def test_a_refusal_blocks_what_comes_after_it_and_counts_as_a_failure(site: Site) -> None:
    site.system.refusal = RefusedError("no such account")
    site.run(0, 1, stages="ab", fail_fast=2)
    assert site.states() == {"a": "failed", "b": "blocked"}
    assert [(event.kind.value, event.cause) for event in site.events[:2]] == [("FAIL", "exit"), ("BLOCK", "exit")]
    assert site.daemon.scheduler.paused == ["s"]


def test_a_retry_submits_anew_what_was_refused(site: Site) -> None:
    site.system.refusal = RefusedError("no such account")
    site.run(0)
    site.system.refusal = None
    site.do("retry", words=["T_0"])
    assert site.states() == {"a": "submitted"}


def test_failures_that_pause_a_sweep_take_back_what_has_not_begun(site: Site) -> None:
    site.run(0, 1, 2, command="exit 1", fail_fast=2)
    for number in range(2):
        site.through(number=number)
    site.look()
    assert site.states("T_2") == {"a": "pending"}
    assert site.system.canceled == [("1", None)]
    assert not site.folders


def test_a_trial_whose_stages_are_all_at_their_end_is_refused_in_silence(site: Site) -> None:
    site.run(0)
    site.through()
    site.look()
    trial = site.trial("T_0")
    told = len(site.events)
    site.daemon._batches._returns._owner.refused(trial, "too late")
    assert site.states() == {"a": "finished"}
    assert len(site.events) == told
