"""The executors drive real batch systems."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from runner.executors import registry
from runner.executors.batch import (
    Batch,
    BatchExecutor,
    FullError,
    RefusedError,
    TaskId,
    TaskState,
    UnreachableError,
    Why,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cluster.sge import GridEngine
    from tests.cluster.slurm import Slurm

pytestmark = pytest.mark.cluster

ENGINES = ("slurm", "sge")
GPUS = {"slurm": {}, "sge": {"gpu_resource": "gpus"}}
NOWHERE = {"slurm": {"partition": "nowhere"}, "sge": {"queue": "nowhere.q"}}
HOLD = {"slurm": ["scontrol", "hold", "{0}"], "sge": ["qhold", "{0}"]}
NUMBER = {"slurm": "$SLURM_ARRAY_TASK_ID", "sge": "$((SGE_TASK_ID - 1))"}
# It says which signals it gets, until it is told to go.
HEARS = (
    'bash -c \'for name in TERM USR1 USR2; do trap "echo $name >>{0}/signals" $name; done; '
    ">{0}/ready; until test -e {0}/go; do sleep 0.1; done'"
)


@dataclass
class Site:
    """An executor and a batch system for it."""

    name: str
    executor: BatchExecutor
    system: Slurm | GridEngine
    directory: Path
    since: float

    def batch(self, task: str, count: int = 1, **keys: object) -> Batch:
        """An array of this task; `{number}` is its number."""
        return Batch(
            name=f"run-{os.urandom(6).hex()}",
            count=count,
            gpus=0,
            cpus=1,
            cwd=str(self.directory),
            log_directory=str(self.directory / "log"),
            enter=f"number={NUMBER[self.name]}",
            task=task,
            keys=self.executor.keys.model_validate(keys),
        )

    def submit(self, batch: Batch) -> str:
        """Submits an array."""
        return self.executor.submit(batch, self.executor.script(batch))

    def states(self, batch: Batch) -> dict[int, TaskState]:
        """The tasks of an array that are in the queue."""
        return {task.id.number: task.state for task in self.executor.queue() if task.name == batch.name}

    def why(self, batch: Batch, job: str) -> dict[int, Why]:
        """What accounting says of the tasks of an array."""
        tasks = {TaskId(job, number) for number in range(batch.count)}
        return {gone.id.number: gone.why for gone in self.executor.gone(tasks, {batch.name}, self.since)}


@pytest.fixture(params=ENGINES)
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Each of the batch systems; what is left in its queue goes."""
    system = request.getfixturevalue(request.param)
    for name, value in system.environment.items():
        monkeypatch.setenv(name, value)
    directory = tmp_path / "it's a $TASK_ID, 100%a: ü#"
    (directory / "log").mkdir(parents=True)
    executor = registry.load(request.param)
    yield Site(request.param, executor, system, directory, time.time())
    for job in {task.id.job for task in executor.queue()}:
        executor.cancel(job)


def test_an_array_runs_and_is_accounted_for(site: Site, until: Callable[..., None]) -> None:
    batch = site.batch("bash -c 'env -0 >env.$0; echo said $0; exit $(($0 % 2))' $number", 5, time=600, memory="100MiB")
    job = site.submit(batch)
    until(lambda: not site.states(batch), lambda: site.executor.queue())
    for number in range(5):
        assert (site.directory / "log" / f"{number}.log").read_text() == f"said {number}\n"
        lines = (site.directory / f"env.{number}").read_text().split("\0")
        here = site.executor.here(dict(line.split("=", 1) for line in lines if line))
        assert here is not None
        assert (here.id, here.restart) == (TaskId(job, number), 0)
    expected = dict.fromkeys(range(5), Why.ENDED)
    until(lambda: site.why(batch, job) == expected, lambda: site.why(batch, job))


def test_a_job_is_found_by_its_name_while_it_waits_and_runs_and_when_it_is_over(
    site: Site, until: Callable[..., None]
) -> None:
    batch = site.batch("bash -c 'until test -e go; do sleep 0.1; done'", 2, limit=1)
    names = {batch.name, "run-000000000000"}
    assert site.executor.find(names, site.since) == {}
    expected = {batch.name: site.submit(batch)}
    assert site.executor.find(names, site.since) == expected
    states = Counter({TaskState.RUNNING: 1, TaskState.WAITING: 1})
    until(lambda: Counter(site.states(batch).values()) == states, lambda: site.executor.queue())
    assert site.executor.find(names, site.since) == expected
    (site.directory / "go").touch()
    until(lambda: not site.states(batch), lambda: site.executor.queue())
    until(lambda: site.executor.find(names, site.since) == expected, lambda: site.executor.find(names, site.since))


def test_a_task_with_gpus_gets_them(site: Site, until: Callable[..., None]) -> None:
    batch = site.batch("bash -c 'echo ${CUDA_VISIBLE_DEVICES-unset}'", 1, **GPUS[site.name])
    assert site.executor.has_gpus(batch.keys)
    two = Batch(**{**vars(batch), "gpus": 2})
    site.submit(two)
    until(lambda: not site.states(two), lambda: site.executor.queue())
    said = (site.directory / "log" / "0.log").read_text()
    assert said == {"slurm": "0,1\n", "sge": "unset\n"}[site.name]  # Grid Engine only counts them


def test_some_tasks_are_canceled_and_then_all(site: Site, until: Callable[..., None]) -> None:
    batch = site.batch("sleep 600", 20, limit=2)
    job = site.submit(batch)
    running = {0: TaskState.RUNNING, 1: TaskState.RUNNING}
    until(lambda: running.items() <= site.states(batch).items(), lambda: site.executor.queue())
    site.executor.cancel(job, [0, 3, 4, 5, 9])
    left = set(range(20)) - {0, 3, 4, 5, 9}
    until(lambda: set(site.states(batch)) == left, lambda: site.executor.queue())
    until(lambda: site.why(batch, job).get(0) is Why.CANCELED, lambda: site.why(batch, job))
    site.executor.cancel(job)
    until(lambda: not site.states(batch), lambda: site.executor.queue())
    site.executor.cancel(job, [0, 19])  # what is over does not matter
    site.executor.cancel(job)


def test_a_task_that_somebody_holds_back_is_told_as_held(site: Site, until: Callable[..., None]) -> None:
    batch = site.batch("sleep 600", 3, limit=1)
    job = site.submit(batch)
    until(lambda: TaskState.RUNNING in site.states(batch).values(), lambda: site.executor.queue())
    site.system.call(*(word.format(job) for word in HOLD[site.name]))
    expected = {0: TaskState.RUNNING, 1: TaskState.HELD, 2: TaskState.HELD}
    until(lambda: site.states(batch) == expected, lambda: site.executor.queue())


def test_a_task_hears_that_it_is_canceled(site: Site, until: Callable[..., None], tmp_path: Path) -> None:
    batch = site.batch(HEARS.format(tmp_path), 1)
    job = site.submit(batch)
    until((tmp_path / "ready").exists, lambda: site.executor.queue())
    site.executor.cancel(job)
    until((tmp_path / "signals").exists, lambda: site.executor.queue())
    assert (tmp_path / "signals").read_text() == {"slurm": "TERM\n", "sge": "USR2\n"}[site.name]
    (tmp_path / "go").touch()
    until(lambda: not site.states(batch), lambda: site.executor.queue())


def test_a_task_hears_of_its_time_limit_ahead(site: Site, until: Callable[..., None], tmp_path: Path) -> None:
    batch = site.batch(HEARS.format(tmp_path), 1, time=60, ahead=58)  # at most half of the time is set aside
    site.submit(batch)
    until((tmp_path / "signals").exists, lambda: site.executor.queue(), timeout_s=60)
    assert (tmp_path / "signals").read_text() == {"slurm": "TERM\n", "sge": "USR1\n"}[site.name]
    assert site.states(batch) == {0: TaskState.RUNNING}
    (tmp_path / "go").touch()
    until(lambda: not site.states(batch), lambda: site.executor.queue())


def test_the_users_own_script_is_taken(site: Site, until: Callable[..., None]) -> None:
    head = {"slurm": "#SBATCH --array=0-9\n#SBATCH --export=NONE\n", "sge": "#$ -t 1-9\n#$ -o /nowhere/x\n#$ -cwd\n"}
    batch = site.batch('echo "task $number in $PWD"', 2, setup=["mine=$number"])
    own = Batch(**{**vars(batch), "template": f"#!/bin/bash\n{head[site.name]}\necho before\n{{_task}}\necho $mine\n"})
    site.submit(own)
    until(lambda: not site.states(own), lambda: site.executor.queue())
    logs = {path.name: path.read_text() for path in (site.directory / "log").iterdir()}
    assert logs == {f"{number}.log": f"before\ntask {number} in {site.directory}\n{number}\n" for number in ("0", "1")}


def test_what_the_site_does_not_have_is_refused_and_nothing_is_left(site: Site) -> None:
    batch = site.batch("true", 1, **NOWHERE[site.name])
    with pytest.raises(RefusedError, match="nowhere"):
        site.submit(batch)
    too_many = site.batch("true", site.executor.max_tasks() + 1)
    with pytest.raises(RefusedError):
        site.submit(too_many)
    assert site.executor.find({batch.name, too_many.name}, site.since) == {}


def test_an_array_of_the_greatest_size_is_taken(site: Site) -> None:
    batch = site.batch("sleep 600", site.executor.max_tasks(), limit=1)
    site.submit(batch)
    assert len(site.states(batch)) == batch.count


def test_a_full_queue_is_no_refusal(site: Site) -> None:
    if site.name != "slurm":
        pytest.skip("the tests' Grid Engine takes jobs without limit")
    batch = site.batch("true", 6, qos="few")
    with pytest.raises(FullError, match="QOSMaxSubmitJobPerUserLimit"):
        site.submit(batch)


def test_a_batch_system_that_is_down_is_told_and_answers_again(site: Site, until: Callable[..., None]) -> None:
    batch = site.batch("true", 1)
    site.system.kill_controller()
    try:
        for ask in (site.executor.queue, site.executor.max_tasks, lambda: site.submit(batch)):
            with pytest.raises(UnreachableError):
                ask()
    finally:
        site.system.start_controller()
    job = site.submit(batch)
    until(lambda: site.executor.find({batch.name}, site.since) == {batch.name: job}, lambda: site.executor.queue())
