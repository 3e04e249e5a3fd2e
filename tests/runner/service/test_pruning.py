"""Trials that fall behind are ended early, stay so, and go on when they turn out to be among the best."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from runner import daemon as module
from runner import records
from runner.events import Kind
from runner.examine.metrics import read_metrics
from runner.halving import Rule
from runner.metricsfile import rows
from runner.model import JobState, Slot
from runner.options import StageOptions
from runner.scheduler import Scheduler
from runner.service.pruning import Pruning
from tests.runner.standins import Clock, planned
from tests.runner.test_daemon import Story

STEPS = 90
OPTIONS = StageOptions(prune=Rule((3, 10, 30)))
COMPLETED, PRUNED = JobState.COMPLETED, JobState.PRUNED


class Training(Story):
    """A daemon whose attempts take one step a second; their losses fall to what the trial's number says."""

    def __init__(self, output: Path, clock: Clock) -> None:
        self.spent = 0
        super().__init__(output, clock)

    def loss(self, number: int, step: int) -> float:
        return number + 5 / step

    def second(self) -> None:
        """Every attempt takes a step, or, when it was asked to, leaves its state and ends."""
        self.clock.now += 1
        for attempt in list(self.world.living.values()):
            name, stage = attempt.job
            if stage == "b":
                self.executor.end(attempt, 0)
                continue
            file = self.output / name / "metrics.csv"
            if signal.SIGTERM in attempt.signals:
                self.executor.end(attempt, 75)
                continue
            done = len(file.read_text().splitlines()) if file.exists() else 1
            if done == 1:
                file.write_text("step,loss\n")
            with file.open("a") as out:
                out.write(f"{done},{self.loss(int(name[2:]), done)}\n")
            self.spent += 1
            if done == STEPS:
                self.executor.end(attempt, 0)
        self.settle()

    def train(self, seconds: int = 3000) -> None:
        """Until nothing is left to do."""
        for _ in range(seconds):
            if self.daemon.is_done:
                return
            self.second()
        pytest.fail(f"still at work: {self.world.jobs()}")

    def came_to(self, state: JobState) -> list[int]:
        names = [trial.name for trial in self.daemon.scheduler.trials()]
        return [int(name[2:]) for name in names if self.states(name)["a"] is state]


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    clock = Clock()
    monkeypatch.setattr(module, "boot_seconds", clock)
    return Training(tmp_path, clock)


ORDER = [13, 4, 22, 9, 0, 17, 26, 2, 11, 20, 6, 15, 24, 1, 8, 19, 3, 25, 12, 7, 21, 10, 5, 16, 23, 14, 18]


def test_a_grid_of_27_keeps_its_best_for_at_most_two_fifths_of_the_steps(training: Training) -> None:
    training.run(*ORDER, stages="a", options=OPTIONS, count=4)
    training.train()
    assert 0 in training.came_to(COMPLETED)
    assert len(training.came_to(COMPLETED)) + len(training.came_to(PRUNED)) == 27
    assert training.spent <= 0.4 * 27 * STEPS


def test_a_pruned_trial_is_asked_politely_marked_and_left_alone(training: Training) -> None:
    training.run(0, 1, 2, 3, 4, 5, stages="ab", options=OPTIONS, count=6)
    training.train()
    stat = records.read_stat(f"{training.output}/T_5")
    assert stat == {"a": PRUNED, "b": PRUNED}
    last = records.read_attempts(f"{training.output}/T_5").last("a")
    assert last is not None
    assert last.end is not None
    assert (last.end["state"], last.end["exit_code"]) == ("pruned", 75)
    started = training.started()
    assert ("T_5", "b") not in started
    assert ("T_0", "b") in started
    # A run that is typed again, also by a new daemon, begins nothing.
    training.run(0, 1, 2, 3, 4, 5, stages="ab", options=OPTIONS, count=6)
    training.begin()
    training.run(0, 1, 2, 3, 4, 5, stages="ab", options=OPTIONS, count=6)
    assert training.daemon.is_done
    assert training.started() == started


def test_a_pruned_trial_goes_on_when_later_ones_are_worse(training: Training) -> None:
    training.run(0, 1, 2, 3, stages="a", options=OPTIONS)
    while not training.came_to(PRUNED):
        training.second()
    assert training.came_to(PRUNED) == [0]
    training.train()
    assert training.came_to(COMPLETED) == [0]
    assert training.started().count(("T_0", "a")) >= 2


def test_a_pruned_trial_that_is_due_again_stays_so_when_the_file_is_run_again(training: Training) -> None:
    training.run(0, 1, 2, 3, stages="a", options=OPTIONS)
    while (Kind.WAIT, "T_0") not in [(event.kind, event.job.trial.name) for event in training.events]:
        training.second()
    assert training.states("T_0") == {"a": JobState.PENDING}
    training.run(0, 1, 2, 3, stages="a", options=OPTIONS)
    assert training.states("T_0") == {"a": JobState.PENDING}


@pytest.mark.parametrize("after_s", [2, 4, 7, 12, 40])
def test_a_daemon_that_was_killed_keeps_the_best_all_the_same(training: Training, after_s: int) -> None:
    training.run(*ORDER[:12], stages="a", options=OPTIONS, count=2)
    for _ in range(after_s):
        training.second()
    training.begin()
    training.settle()
    training.train()
    assert 0 in training.came_to(COMPLETED)
    assert training.spent <= 0.5 * 12 * STEPS


def test_a_metric_that_no_trial_writes_is_told_once(training: Training) -> None:
    training.run(0, 1, 2, stages="a", options=StageOptions(prune=Rule((3, 10), metric="los")), count=3)
    training.train()
    assert training.came_to(COMPLETED) == [0, 1, 2]
    assert training.said == ["T_0: a wrote no 'los' to metrics.csv; `prune` has nothing to go by."]


def test_a_user_revives_a_pruned_trial_by_name_alone(training: Training) -> None:
    training.run(0, 1, 2, 3, stages="a", options=OPTIONS, count=4)
    training.train()
    pruned = training.came_to(PRUNED)
    training.do("retry")
    assert training.came_to(PRUNED) == pruned
    training.do("retry", words=["T_3"])
    assert 3 not in training.came_to(PRUNED)
    training.begin()
    training.settle()
    assert 3 not in training.came_to(PRUNED)
    assert training.world.jobs() == [("T_3", "a")]


def test_a_program_that_begins_anew_is_judged_anew(tmp_path: Path) -> None:
    scheduler = Scheduler([Slot("cpu 0")])
    trial = planned(tmp_path, 0, "a")
    scheduler.add(trial, {"a": JobState.PENDING})
    (job,) = (start.job for start in scheduler.decide())
    pruning, rule = Pruning(scheduler), Rule((3, 10))
    file = Path(trial.directory) / "metrics.csv"
    file.parent.mkdir()
    news = []
    for content in ("", "3,1.0\n", "3,1.0\n4,1.0\n", "", "3,1.0\n", "3,1.0\n10,1.0\n"):
        file.write_text(f"step,loss\n{content}")
        news.append(pruning.has_news(job, rule))
    assert news == [False, True, False, False, True, True]
    assert not pruning.is_behind(job, rule)


def test_rows_without_a_value_and_a_torn_one_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text("step,loss,val_loss\n10,3.0,\n20,2.0,2.5\n20.5,x\n30,nan,2.4\n40,1.0,1.")
    assert rows(str(file), "val_loss") == [(20, 2.5), (30, 2.4)]
    assert [step for step, _ in rows(str(file), "loss")] == [10, 20, 30]
    assert rows(str(file), "acc") == []
    assert rows(str(tmp_path / "none.csv"), "loss") == []


@pytest.mark.parametrize("text", ["step, loss\n10, 3.0\n", "\ufeffstep,loss\n10.0,3\n", "loss ,step\n3,1e1\n"])
def test_a_file_is_read_as_the_tables_read_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text(text)
    assert rows(str(file), "loss") == [(10, 3.0)]
    assert read_metrics(tmp_path)[["step", "loss"]].to_numpy().tolist() == [[10, 3]]
