"""Trials of a search as files, and its rounds without a runner: grids are expanded, a function gives the losses."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from runner.search import greedy
from runner.yamlfile import load

Curve = Callable[[Mapping[str, Any]], list[float]]


def combinations(grid: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The trials of a grid document without ranges and zips."""
    plain = {name: value for name, value in grid.items() if not name.startswith(("_", "LIST"))}
    for branch in grid.get("LIST_branch", [{}]):
        axes = [[(k, v) for v in (v if isinstance(v, list) else [v])] for k, v in {**plain, **branch}.items()]
        yield from map(dict, itertools.product(*axes))


class Rounds:
    """A search in a directory: `play` makes trials of a grid, `decide` asks the command for the next one."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory, self.monkeypatch, self.capsys = directory, monkeypatch, capsys
        self.lines: list[dict[str, Any]] = []
        self.round = 0
        self.told = ""

    def play(self, grid: Mapping[str, Any], curve: Curve, **common: Any) -> None:
        """A round: each combination is a trial with this curve; an empty one is a trial that failed."""
        self.round += 1
        for parameters in combinations(grid):
            losses = curve(parameters)
            name = f"trial_{len(self.lines)}"
            self.lines.append(
                {
                    "name": name,
                    "directory": str(self.directory / name),
                    "parameters": {**common, **parameters},
                    "round": self.round,
                    "state": "finished" if losses else "failed",
                    "cause": None if losses else "diverged",
                    "metrics": {"loss": losses[-1]} if losses else {},
                }
            )
            checkpoint = self.directory / name / "checkpoints" / f"{parameters['steps']}.pt"
            checkpoint.parent.mkdir(parents=True)
            checkpoint.write_text("")
            rows = "".join(f"{step},0.1,{loss}\n" for step, loss in enumerate(losses, start=1))
            (self.directory / name / "metrics.csv").write_text(f"step,lr,loss\n{rows}")

    def decide(self, *argv: str) -> dict[str, Any] | None:
        """The next grid; None at the end. What was said stands in `told`."""
        code, out = self.call(*argv)
        assert code == 0, self.told
        return load(out) if out else None

    def call(self, *argv: str) -> tuple[int, str]:
        """The exit code and what was printed."""
        self.monkeypatch.setenv("RUNNER_ROUND", str(self.round))
        self.monkeypatch.setenv("RUNNER_OUTPUT", str(self.directory / "search"))
        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        self.monkeypatch.setattr("sys.stdin", io.StringIO(text))
        code = greedy.main(argv)
        out, self.told = self.capsys.readouterr()
        return code, out

    def answer(self, name: str) -> Any:
        """A JSON file of the answer."""
        return json.loads((self.directory / "search" / name).read_text())


@pytest.fixture
def rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rounds:
    return Rounds(tmp_path, monkeypatch, capsys)
