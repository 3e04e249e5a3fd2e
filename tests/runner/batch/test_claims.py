"""Who runs a task: one process at a time."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import process
from runner.batch import claims
from runner.executors.batch import Here, TaskId

if TYPE_CHECKING:
    from pathlib import Path

HERE = Here(TaskId("7", 0), 0)
AGAIN = Here(TaskId("7", 0), 1)
ELSEWHERE = {"boot": "another", "pid_namespace": "p", "pid": 1, "ticks": 1, "job": "7"}


def made(folder: Path, number: int, holder: dict[str, Any]) -> claims.Claim:
    assert claims._make(claims.path_of(folder, 0, number), holder)
    return claims.Claim(folder, 0, number)


def test_the_first_copy_has_the_task_at_once(tmp_path: Path) -> None:
    claim = claims.take(tmp_path, 0, HERE, lease_s=60)
    assert claim is not None
    assert not claim.is_lost
    assert claims.latest(tmp_path, 0) == 0
    assert claims.latest(tmp_path, 1) is None
    holder = claims.standing(claim.path).holder
    assert (holder["pid"], holder["job"]) == (os.getpid(), "7")


def test_a_task_that_was_taken_back_is_not_run(tmp_path: Path) -> None:
    assert claims.revoke(tmp_path, 0)
    assert claims.take(tmp_path, 0, HERE, lease_s=60) is None


def test_what_somebody_has_begun_cannot_be_taken_back(tmp_path: Path) -> None:
    claims.take(tmp_path, 0, HERE, lease_s=60)
    assert not claims.revoke(tmp_path, 0)


def test_another_job_of_the_same_array_is_one_too_many(tmp_path: Path) -> None:
    claim = claims.take(tmp_path, 0, HERE, lease_s=60)
    assert claims.take(tmp_path, 0, Here(TaskId("8", 0), 0), lease_s=60) is None
    assert claim is not None
    assert not claim.is_lost


def test_a_batch_that_is_over_is_not_run(tmp_path: Path) -> None:
    assert claims.take(tmp_path / "gone", 0, HERE, lease_s=60) is None


def test_a_batch_that_is_removed_ends_its_copies(tmp_path: Path) -> None:
    claim = claims.take(tmp_path, 0, HERE, lease_s=60)
    assert claim is not None
    claim.path.unlink()
    assert claim.is_lost
    claim.over("done")
    assert not claim.path.exists()


def test_a_later_copy_goes_on_as_soon_as_the_earlier_one_has_ended(tmp_path: Path) -> None:
    earlier = made(tmp_path, 0, ELSEWHERE)
    ended = threading.Timer(0.3, earlier.over, ["lost"])
    ended.start()
    later = claims.take(tmp_path, 0, AGAIN, lease_s=100)
    ended.join()
    assert later is not None
    assert earlier.is_lost


def test_a_copy_that_shows_no_sign_of_life_is_waited_for_as_long_as_its_lease(tmp_path: Path) -> None:
    made(tmp_path, 0, ELSEWHERE)
    begin = time.monotonic()
    assert claims.take(tmp_path, 0, AGAIN, lease_s=0.5) is not None
    assert time.monotonic() - begin >= 0.5


def test_a_copy_that_lives_is_waited_for_longer(tmp_path: Path) -> None:
    earlier = made(tmp_path, 0, ELSEWHERE)
    ended: list[float] = []

    def live() -> None:
        for _ in range(8):
            earlier.beat()
            time.sleep(0.1)
        ended.append(time.monotonic())
        earlier.over("lost")

    thread = threading.Thread(target=live)
    thread.start()
    assert claims.take(tmp_path, 0, AGAIN, lease_s=0.6) is not None
    taken = time.monotonic()
    thread.join()
    assert taken >= ended[0]


def test_a_third_copy_wins_over_a_second_one_that_waits(tmp_path: Path) -> None:
    made(tmp_path, 0, ELSEWHERE)
    found: list[claims.Claim | None] = []
    second = threading.Thread(target=lambda: found.append(claims.take(tmp_path, 0, AGAIN, lease_s=60)))
    second.start()
    while claims.latest(tmp_path, 0) != 1:
        time.sleep(0.01)
    claims.Claim(tmp_path, 0, 1).over("lost")  # a third one need not wait
    third = claims.take(tmp_path, 0, Here(TaskId("7", 0), 2), lease_s=60)
    second.join()
    assert found == [None]
    assert third is not None


def test_a_dead_process_of_this_machine_is_not_waited_for(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "60"])
    host = process.this_host()
    holder = {"boot": host.boot, "pid_namespace": host.pid_namespace, "pid": child.pid, "job": "7"}
    claim = made(tmp_path, 0, holder | {"ticks": process.start_ticks(child.pid)})
    assert not claims.is_at_end(claim.path)
    child.kill()
    child.wait()
    assert claims.is_at_end(claim.path)
    assert claims.take(tmp_path, 0, AGAIN, lease_s=1000) is not None


@pytest.mark.parametrize("text", ["", "{", "\0\0\n", '["START"]\n'])
def test_of_a_damaged_claim_nobody_can_say_that_it_is_over(tmp_path: Path, text: str) -> None:
    path = claims.path_of(tmp_path, 0, 0)
    path.write_text(text)
    assert not claims.is_at_end(path)
    assert claims.standing(path).holder == {}
    assert claims.take(tmp_path, 0, HERE, lease_s=60) is None


def test_a_line_that_was_cut_off_does_not_count(tmp_path: Path) -> None:
    claim = made(tmp_path, 0, ELSEWHERE)
    claim.tell(["START", 1])
    with claim.path.open("a") as file:
        file.write('{"over": "do')
    standing = claims.standing(claim.path)
    assert (standing.lines, standing.is_over) == ([["START", 1]], False)
    claim.over("done")
    assert claims.standing(claim.path).is_over


def test_why_a_task_could_never_run_is_kept(tmp_path: Path) -> None:
    claim = made(tmp_path, 0, ELSEWHERE)
    claim.over("failed", "its plan is gone")
    assert claims.standing(claim.path).fault == "its plan is gone"


def test_nothing_but_claims_is_left_of_many_tries(tmp_path: Path) -> None:
    for _ in range(3):
        claims.revoke(tmp_path, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["0.0.jsonl"]


@given(st.lists(st.booleans(), min_size=2, max_size=8))
def test_of_all_who_want_a_task_at_once_one_has_it(
    tmp_path_factory: pytest.TempPathFactory, takers: list[bool]
) -> None:
    folder = tmp_path_factory.mktemp("batch")
    gate = threading.Barrier(len(takers))

    def want(index: int) -> bool:
        gate.wait()
        if takers[index]:
            return claims.take(folder, 0, Here(TaskId(str(index), 0), 0), lease_s=0.0) is not None
        return claims.revoke(folder, 0)

    with ThreadPoolExecutor(len(takers)) as threads:
        won = list(threads.map(want, range(len(takers))))
    assert sum(won) == 1
    assert claims.latest(folder, 0) == 0
