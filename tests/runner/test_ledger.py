"""What is held of a trial's records, and what is written of them again."""

from __future__ import annotations

import shutil
from pathlib import Path

from runner import records
from runner.ledger import Ledger, Tags
from runner.model import Job, JobState, Outcome, Recipe, Slot, Trial

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
