"""The hash of what a trial reads that others made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runner import inputs
from runner.model import Trial


def write_attempt(directory: Path, started: str = "2026-01-01T00:00:00+00:00", **more: Any) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    common = {"stage": "go", "attempt": 1}
    start = {"event": "start", "started": started, "slot": "", "log": "", "host": "", "boot": "", "pid_namespace": ""}
    lines = [start | common | more, {"event": "end", "state": "finished", "exit_code": 0} | common]
    (directory / "attempts").write_text("".join(json.dumps(line) + "\n" for line in lines))


def member(directory: Path, number: int) -> Trial:
    return Trial(number, f"id{number}", directory.name, str(directory), str(directory), ("go",))


def test_the_hash_of_members_tells_a_trial_that_was_made_anew(tmp_path: Path) -> None:
    trials = [(member(tmp_path / f"T_{number}", number), ("go",)) for number in range(2)]
    for trial, _ in trials:
        write_attempt(Path(trial.directory))
    before = inputs.of_members(trials)
    assert inputs.of_members(trials) == before
    assert inputs.of_members(trials[:1]) != before
    write_attempt(Path(trials[1][0].directory), started="2026-01-02T00:00:00+00:00")
    assert inputs.of_members(trials) != before


def test_the_hash_of_a_file_is_that_of_its_content(tmp_path: Path) -> None:
    unit = tmp_path / "output" / "gather.law" / "all"
    write_attempt(unit, inputs="first")
    places = ["output/gather.law/all/lr"]
    (unit / "lr").write_text("1")
    before = inputs.of_places(str(tmp_path), places)
    write_attempt(unit, inputs="second")
    assert inputs.of_places(str(tmp_path), places) == before
    (unit / "lr").write_text("2")
    after = inputs.of_places(str(tmp_path), places)
    assert after != before


def test_without_a_file_it_is_that_of_what_the_gather_had_read(tmp_path: Path) -> None:
    unit = tmp_path / "output" / "gather.law" / "all"
    write_attempt(unit, inputs="first")
    found = {
        place: inputs.of_places(str(tmp_path), [place])
        for place in ("output/gather.law/all", "output/gather.law/all/no/file")
    }
    write_attempt(unit, inputs="second")
    for place, before in found.items():
        assert inputs.of_places(str(tmp_path), [place]) != before
