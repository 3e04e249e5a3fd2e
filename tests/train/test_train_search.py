"""A greedy search over real segments, and the training from scratch with the schedule file that it leaves."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runner.search import greedy
from runner.yamlfile import load
from tests.runner.search.conftest import combinations
from train import trainer
from train.config import Config, LmConfig
from train.signals import Stop

Make = Callable[..., LmConfig]
BOTH: dict[str, Any] = {"averages": ["ema_0.9"], "log_every": 2}


def searched(
    tiny: Make, directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> dict[str, LmConfig]:
    """The runs of a search of three segments of ten steps, by name; its answer lies in the directory."""
    monkeypatch.setenv("RUNNER_OUTPUT", str(directory))
    grid: dict[str, Any] = {"lr2": [1e-1, 1e-2, 1e-3], "lr1": 0.0, "steps": 10}
    lines: list[dict[str, Any]] = []
    runs = {}
    for number in (1, 2, 3):
        for parameters in combinations(grid):
            name = f"trial_{len(lines)}"
            runs[name] = tiny(name, **parameters, **BOTH, warmup=100)
            state = "finished" if trainer.train(runs[name], Stop()) == 0 else "failed"
            line = {"name": name, "directory": str(runs[name].out), "parameters": parameters}
            lines.append({**line, "round": number, "state": state})
        capsys.readouterr()
        monkeypatch.setenv("RUNNER_ROUND", str(number))
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{json.dumps(line)}\n" for line in lines)))
        assert greedy.main(["--segments", "3", "--steps", "30", "--eps", "0.05", "--reach", "1"]) == 0
        grid = load(capsys.readouterr().out) or {}
    assert grid == {}
    return runs


def test_the_search_s_segments_equal_the_run_with_its_schedule_file(
    tiny: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    table: Callable[[Config], list[list[str]]],
    ended_state: Callable[[Config], dict[str, Any]],
) -> None:
    runs = searched(tiny, tmp_path / "answer", monkeypatch, capsys)
    whole = tiny("whole", steps=30, schedule=str(tmp_path / "answer" / "schedule.json"), **BOTH)
    assert trainer.train(whole, Stop()) == 0

    legs = json.loads((tmp_path / "answer" / "search.json").read_text())["legs"]
    chosen = [runs[leg["trial"]] for leg in legs if leg["chosen"]]
    assert len(chosen) == 3
    # The last step of each segment is evaluated too.
    parts = [row[:3] for config in chosen for row in table(config)[1:]]
    assert parts == [row[:3] for row in table(whole)[1:]]
    last, state = ended_state(chosen[-1]), ended_state(whole)
    for key in ("model", "averages", "optimizers", "rngs", "lrs"):
        assert str(last[key]) == str(state[key]), key
    for name, weights in state["model"].items():
        assert (last["model"][name] == weights).all(), name
    np.testing.assert_array_equal(np.load(chosen[-1].out / "lr.npy"), np.load(whole.out / "lr.npy"))
