"""What is held of a trial's records, and what is written of them again."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner import records
from runner.examine import latest_log
from runner.model import Job, JobState, Outcome, Recipe, Slot, Trial
from runner.service.ledger import Ledger, Tags

if TYPE_CHECKING:
    from collections.abc import Iterator

RECIPE = Recipe({"lr": 0.1}, {"a": "true", "b": "true"})
TAGS = Tags("20260101.000000", "plan", "ask")


def test_between_two_stages_no_text_is_held_and_the_second_one_may_empty_the_directory(tmp_path: Path) -> None:
    directory = tmp_path / "Lr_0.1"
    trial = Trial(0, "id", "Lr_0.1", "output/Lr_0.1", str(directory), ("a", "b"))
    ledger = Ledger()
    for stage in trial.stages:
        job = Job(trial, stage)
        opened = ledger.open(job, RECIPE, trial.stages, Slot("cpu 0"), TAGS)
        ledger.note_process(job, opened.number, {"pid": 1})
        if stage == "b":
            shutil.rmtree(directory)
            directory.mkdir()
            (directory / "attempts").write_text(f"{records.exit_prefix('b', 1)}0}}\n")
        ledger.close(job, opened.number, Outcome(JobState.COMPLETED, 0, 1.0), [])
        assert (ledger.page(trial).param, ledger.page(trial).lines) == ("", "")
    history = records.read_attempts(str(directory))
    assert [(item.stage, item.process is not None, item.end is not None) for item in history.attempts] == [
        ("a", True, True), ("b", True, True),
    ]  # fmt: skip
    assert (records.read_param(str(directory)) or {})["lr"] == 0.1


@pytest.fixture
def zone_with_summer_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("zone_with_summer_time")
def test_the_newest_log_is_the_last_attempts_where_an_hour_comes_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "output"
    output.mkdir()
    trial = Trial(0, "id", "Lr_0.1", "output/Lr_0.1", str(output / "Lr_0.1"), ("a", "b"))
    ledger = Ledger()
    before = 1792889400.0  # 2:50 in summer time, ten minutes before it is 2:00 again
    logs = []
    for stage, now in (("b", before + 9000), *(("a", before + later) for later in (0, 1200, 1200, 4200))):
        monkeypatch.setattr("runner.service.ledger.time.time", lambda now=now: now)
        opened = ledger.open(Job(trial, stage), RECIPE, [stage], Slot("cpu 0"), TAGS)
        Path(opened.log).touch()
        logs.append(Path(opened.log).name)
        assert latest_log(stage, trial.directory) == Path(opened.log)
    day = "20261025"
    times = ["025000", "025000.2", "025000.3", "030000"]
    assert logs == [f"log.b.{day}.042000", *(f"log.a.{day}.{time}" for time in times)]
