"""A task as a daemon knows it: begun or not, dead or not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from runner.batch import batchfile, claims
from runner.batch.batchfile import Intent, Part
from runner.batch.tasks import Array, Task
from runner.executors.batch import BatchKeys

if TYPE_CHECKING:
    from pathlib import Path

PART = Part("T_0", {"a": ("p1", 0, 0)}, "p1")
ELSEWHERE = {"boot": "another", "pid_namespace": "p", "pid": 1, "ticks": 1, "job": "7"}


@pytest.fixture
def array(tmp_path: Path) -> Array:
    intent = Intent("run-1", "slurm", {}, "p1", "/", None, 1, ((PART,),))
    folder = batchfile.directory_of(tmp_path) / intent.name
    batchfile.write(folder, intent)
    return Array(folder, intent, BatchKeys(lease=10.0), "7")


def task(array: Array) -> Task:
    """As the next daemon finds it."""
    return Task(array, 0, (PART,))


def begin(array: Array, number: int = 0) -> claims.Claim:
    assert claims._make(claims.path_of(array.folder, 0, number), ELSEWHERE)
    return claims.Claim(array.folder, 0, number)


def test_nobody_can_begin_a_task_that_was_taken_back(array: Array) -> None:
    first = task(array)
    assert not first.has_begun
    assert first.revoke()
    assert not first.has_begun
    assert first.is_dead(0.0)
    again = task(array)
    assert not again.has_begun
    assert again.is_revoked


def test_a_task_that_has_begun_is_not_taken_back(array: Array) -> None:
    begin(array)
    assert task(array).has_begun
    assert not task(array).revoke()


def test_a_task_is_dead_when_it_shows_no_sign_of_life_for_its_lease(array: Array) -> None:
    claim = begin(array)
    known = task(array)
    assert not known.is_dead(100.0)
    assert claim.is_lost  # so that what still lives ends
    os.utime(claim.path, (1, 1))
    assert not known.is_dead(105.0)
    assert not known.is_dead(114.0)
    assert known.is_dead(115.0)


def test_a_task_that_says_so_is_dead_at_once(array: Array) -> None:
    claim = begin(array)
    known = task(array)
    claim.over("lost")
    assert known.is_dead(100.0)


def test_the_next_daemon_does_not_take_a_fenced_copy_for_one_that_never_was(array: Array) -> None:
    begin(array)
    assert task(array).fence()
    again = task(array)
    assert again.has_begun
    assert again.claim == 0
    assert not again.is_revoked
    assert not again.is_dead(100.0)


def test_no_fence_keeps_out_a_copy_that_has_begun(array: Array) -> None:
    begin(array)
    known = task(array)
    assert known.has_begun
    begin(array, 1)
    assert not known.fence()
    assert not known.is_dead(1e9)
    assert known.has_later()
    again = task(array)
    assert again.has_begun
    assert again.claim == 1


def test_a_fence_holds_when_it_is_set_again(array: Array) -> None:
    begin(array)
    known = task(array)
    assert known.has_begun
    assert known.fence()
    assert known.fence()
    assert not known.has_later()


def test_the_last_words_of_a_script_are_kept(array: Array) -> None:
    assert task(array).last_words() == ""
    (array.folder / "0.log").write_text("one\nmodule: not found\n\n")
    assert task(array).last_words() == "module: not found"
