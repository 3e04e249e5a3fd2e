"""TensorBoard events made from metrics.csv: what TensorBoard reads, once, and after interruptions."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from runner.examine import read_scalars
from runner.examine.eventwriter import FILE, sync_trial

HEADER = "step,lr,loss,note,time_s\n"


def accumulated(path: Path) -> Any:
    make: Any = EventAccumulator
    accumulator = make(str(path), size_guidance={"scalars": 0})
    accumulator.Reload()
    return accumulator


def curve(path: Path, tag: str = "loss") -> list[tuple[int, float]]:
    return [(each.step, each.value) for each in accumulated(path).Scalars(tag)]


@pytest.fixture
def trial(make_trial: Any) -> Path:
    path: Path = make_trial("a", {"lr": 0.1, "seed": 1, "amp": True, "norm": "new"})
    (path / "metrics.csv").write_text(HEADER + "1,0.1,3.5,x,1.5\n2,0.1,2.5,,3\n")
    (path / "stat").write_text("train: running\n")
    return path


def test_curves_and_parameters_are_written_once(trial: Path) -> None:
    assert sync_trial(trial) == 6
    assert sync_trial(trial) == 0
    found = accumulated(trial)
    assert set(found.Tags()["scalars"]) == {"loss", "lr"}
    assert curve(trial) == [(1, 3.5), (2, 2.5)]
    times = [each.wall_time for each in found.Scalars("loss")]
    assert times[1] - times[0] == pytest.approx(1.5)
    content = found.PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(content["_hparams_/session_start_info"]).hparams
    assert (start["lr"].number_value, start["amp"].bool_value) == (0.1, True)
    assert (start["norm"].string_value, start["seed"].string_value) == ("new", "1")
    assert "_hparams_/session_end_info" not in content


def test_a_file_that_grows_is_followed(trial: Path) -> None:
    sync_trial(trial)
    before = (trial / FILE).read_bytes()
    with (trial / "metrics.csv").open("a") as file:
        file.write("3,0.1,1.5,,4\n4,0.1,1.")
    (trial / "stat").write_text("train: finished\n")
    assert sync_trial(trial) == 3
    assert (trial / FILE).read_bytes().startswith(before)
    assert curve(trial) == [(1, 3.5), (2, 2.5), (3, 1.5)]
    end = accumulated(trial).PluginTagToContent("hparams")["_hparams_/session_end_info"]
    assert metadata.parse_session_end_info_plugin_data(end).status == 1
    assert sync_trial(trial) == 0


@pytest.mark.parametrize(
    "rows",
    [
        "1,0.1,3.5,x,1\n2,0.1,2.25,,2\n3,0.1,1,,3\n",
        "1,0.1,9,x,1\n",
        "",
        "5,0.1,9,x,1\n6,0.1,8,,2\n",
        "1,0.1,nan,x,1\n2,0.1,inf,,2\n",
    ],
)
def test_an_attempt_that_began_anew_replaces_the_old_one(trial: Path, rows: str) -> None:
    sync_trial(trial)
    (trial / "metrics.csv").write_text(HEADER + rows)
    assert sync_trial(trial) > 0
    assert sync_trial(trial) == 0
    cells = [row.split(",") for row in rows.splitlines()]
    wanted = [(int(row[0]), float(row[2])) for row in cells if row[2] != "nan"]
    scalars = read_scalars(trial).get("loss")
    found = [] if scalars is None else list(zip(scalars.steps.tolist(), scalars.values.tolist(), strict=True))
    assert found == wanted
    if wanted:
        assert curve(trial) == wanted


def test_what_a_kill_cut_off_is_written_again(trial: Path) -> None:
    sync_trial(trial)
    whole = (trial / FILE).read_bytes()
    for size in (0, 5, 40, len(whole) // 2, len(whole) - 1):
        (trial / FILE).write_bytes(whole[:size])
        sync_trial(trial)
        assert curve(trial) == [(1, 3.5), (2, 2.5)]
        assert len((trial / FILE).read_bytes()) == len(whole)


def test_a_program_with_events_of_its_own_gets_no_second_curves(trial: Path, make_trial: Any) -> None:
    other = make_trial("b", {"lr": 0.2})
    sync_trial(other)
    own = (other / FILE).read_bytes()
    (trial / "logs").mkdir()
    (trial / "logs" / "events.out.tfevents.1.host").write_bytes(own)
    assert sync_trial(trial) == 0
    (trial / "logs" / "events.out.tfevents.1.host").write_bytes(own[: own.index(b"hparams") - 60])
    assert sync_trial(trial) == 2, "the parameters alone"
    assert accumulated(trial).Tags()["scalars"] == []
    (trial / "logs" / "events.out.tfevents.1.host").write_bytes(own)
    assert sync_trial(trial) == 0
    assert not (trial / FILE).exists()


def test_evaluations_and_trials_without_metrics(make_trial: Any) -> None:
    path = make_trial("a", {"lr": 0.1}, {"metrics.csv": HEADER + "7,0.1,2,,1\n"})
    (path / "eval_test.json").write_text(json.dumps({"loss": 2.5}))
    sync_trial(path)
    assert curve(path, "test_loss") == [(7, 2.5)]
    bare = make_trial("b", {"lr": 0.2})
    assert sync_trial(bare) == 3
    assert sync_trial(bare) == 0
    with pytest.raises(FileNotFoundError):
        sync_trial(path.parent)


def test_wall_times_come_from_the_program(trial: Path) -> None:
    then = time.time() - 1000
    os.utime(trial / "metrics.csv", (then, then))
    sync_trial(trial)
    assert accumulated(trial).Scalars("loss")[1].wall_time == pytest.approx(then, abs=1)
