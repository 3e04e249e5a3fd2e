"""Optuna as the `next` command: what it asks for is what Optuna asks for, however often it is called."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from runner.search import optuna as command
from runner.yamlfile import load

optuna = pytest.importorskip("optuna")
samplers = optuna.samplers

AXES = ("x=-5.0:5.0", "lr=1e-5:1e-1:log", "layers=1:4", "kind=a,b")
FIRST: list[dict[str, Any]] = [
    {"x": 4.0, "lr": 1e-2, "layers": 2, "kind": "a"},
    {"x": -4.0, "lr": 1e-4, "layers": 3, "kind": "b"},
]


def function(parameters: Mapping[str, Any]) -> float:
    """A bowl whose least value, 0, is at x = 1, lr = 1e-3, layers = 3, kind = b."""
    kind = 0.5 * (parameters["kind"] == "a")
    return float(
        (parameters["x"] - 1) ** 2 + math.log10(parameters["lr"] / 1e-3) ** 2 + abs(parameters["layers"] - 3) + kind
    )


class Played:
    """Rounds of trials without a runner: equal parameters are one trial."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory, self.monkeypatch, self.capsys = directory, monkeypatch, capsys
        self.lines: list[dict[str, Any]] = []
        self.round, self.told = 0, ""

    def play(self, points: list[dict[str, Any]], metrics: Callable[[Mapping[str, Any]], dict[str, float]]) -> None:
        self.round += 1
        for point in points:
            if all(line["parameters"] != {"seed": 1, **point} for line in self.lines):
                found = metrics(point)
                name = f"trial_{len(self.lines)}"
                line = {"name": name, "directory": name, "parameters": {"seed": 1, **point}, "round": self.round}
                state = {"state": "finished" if found else "failed", "cause": None, "metrics": found}
                self.lines.append({**line, **state})

    def call(self, *argv: str) -> tuple[int, str]:
        self.monkeypatch.setenv("RUNNER_ROUND", str(self.round))
        self.monkeypatch.setenv("RUNNER_OUTPUT", str(self.directory / f"round_{self.round}"))
        text = "".join(f"{json.dumps(line)}\n" for line in self.lines)
        self.monkeypatch.setattr("sys.stdin", io.StringIO(text))
        code = command.main(argv)
        out, self.told = self.capsys.readouterr()
        return code, out

    def decide(self, *argv: str) -> list[dict[str, Any]]:
        """The points of the next round; none at the end."""
        code, out = self.call(*argv)
        assert code == 0, self.told
        columns = load(out)["_zip"] if out else {}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def best(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.directory / f"round_{self.round}" / "best.json").read_text())
        return found


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Played:
    return Played(tmp_path, monkeypatch, capsys)


def loss(point: Mapping[str, Any]) -> dict[str, float]:
    return {"loss": function(point)}


def directly(sampler: Any, rounds: int, batch: int) -> Any:
    """What Optuna itself does: the first points are given, then batches are asked for and told."""
    study = optuna.create_study(sampler=sampler)
    distributions = {
        "x": optuna.distributions.FloatDistribution(-5.0, 5.0),
        "lr": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True),
        "layers": optuna.distributions.IntDistribution(1, 4),
        "kind": optuna.distributions.CategoricalDistribution(("a", "b")),
    }
    for point in FIRST:
        study.add_trial(optuna.create_trial(params=point, distributions=distributions, value=function(point)))
    for _ in range(rounds):
        asked = [study.ask() for _ in range(batch)]
        for trial in asked:
            trial.suggest_float("x", -5.0, 5.0)
            trial.suggest_float("lr", 1e-5, 1e-1, log=True)
            trial.suggest_int("layers", 1, 4)
            trial.suggest_categorical("kind", ("a", "b"))
        for trial in asked:
            study.tell(trial, function(trial.params))
    return study


def test_tpe_reaches_what_optuna_itself_reaches_with_the_same_seed_and_batch(played: Played) -> None:
    played.play(FIRST, loss)
    asked = []
    for _ in range(8):
        points = played.decide(*AXES, "--batch", "4", "--seed", "3")
        asked += points
        played.play(points, loss)
    played.decide(*AXES, "--batch", "4", "--seed", "3")
    study = directly(samplers.TPESampler(seed=3), rounds=8, batch=4)
    assert asked == [trial.params for trial in study.trials[len(FIRST) :]]
    assert played.best()[0]["values"]["loss"] == study.best_value
    assert study.best_value < min(map(function, FIRST)) / 4


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "qmc", "random"])
def test_a_decision_that_is_taken_twice_asks_for_the_same(played: Played, name: str) -> None:
    argv = (*(AXES[:2] if name == "cmaes" else AXES), "--sampler", name, "--batch", "2")
    played.play(FIRST, loss)
    for _ in range(3):
        points = played.decide(*argv)
        assert played.decide(*argv) == points
        assert len(points) == 2
        assert all(-5 <= point["x"] <= 5 and 1e-5 <= point["lr"] <= 1e-1 for point in points)
        played.play([{"layers": 3, "kind": "b", **point} for point in points], loss)
    assert len({json.dumps(line["parameters"]) for line in played.lines}) == 8


def test_a_grid_ends_with_its_last_point(played: Played) -> None:
    argv = ("x=-1.0:1.0:1.0", "kind=a,b", "--sampler", "grid", "--batch", "4")
    played.play([{"x": -1.0, "kind": "a"}], lambda point: {"loss": point["x"]})
    found = []
    while points := played.decide(*argv):
        found += points
        played.play(points, lambda point: {"loss": point["x"]})
    assert "the sampler has no more points" in played.told
    tried = {(line["parameters"]["x"], line["parameters"]["kind"]) for line in played.lines}
    assert tried == {(x, kind) for x in (-1.0, 0.0, 1.0) for kind in "ab"}
    assert len(found) == 6


def test_a_batch_of_known_points_ends_no_search(played: Played) -> None:
    argv = ("kind=a,b", "layers=1:3", "--sampler", "grid", "--batch", "2")
    every = [{"kind": kind, "layers": layers} for kind in "ab" for layers in (1, 2, 3)]
    played.play([point for point in every if point != {"kind": "b", "layers": 2}], lambda point: {"loss": 1.0})
    points = played.decide(*argv)
    assert {"kind": "b", "layers": 2} in points
    played.play(points, lambda point: {"loss": 0.5})
    assert len(played.lines) == 6
    assert played.decide(*argv) == []


def test_failed_and_nan_trials_are_told_as_failures(played: Played) -> None:
    played.play(FIRST, loss)
    points = played.decide(*AXES)
    results: list[dict[str, float]] = [{}, {"accuracy": 1.0}, {"loss": 7.0}, {"loss": 8.0}]
    played.play(points, lambda point: results[points.index(dict(point))])
    played.lines[3]["metrics"], played.lines[3]["nan"] = {"loss": None}, ["loss"]
    played.decide(*AXES, "--storage", str(played.directory / "study.db"))
    storage = optuna.storages.RDBStorage(f"sqlite:///{played.directory / 'study.db'}")
    states = [trial.state.name for trial in optuna.load_study(study_name="search", storage=storage).trials]
    storage.engine.dispose()
    assert states == ["COMPLETE"] * 2 + ["FAIL"] * 2 + ["COMPLETE"] * 2 + ["RUNNING"] * 4


def test_the_journal_holds_the_study_and_is_replaced(played: Played) -> None:
    file = played.directory / "study.log"
    played.play(FIRST, loss)
    for _ in range(2):
        played.decide(*AXES, "--storage", str(file))
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(file)))
    assert len(optuna.load_study(study_name="search", storage=storage).trials) == 2 + 4
    assert [path.name for path in played.directory.iterdir() if path.is_file()] == ["study.log"]


def test_several_objectives_give_those_that_no_other_beats(played: Played) -> None:
    argv = (*AXES, "--minimize", "loss", "--maximize", "speed")
    played.play(FIRST, lambda point: {"loss": function(point), "speed": -point["layers"]})
    points = played.decide(*argv)
    played.play(points, lambda point: {"loss": function(point), "speed": -point["layers"]})
    played.decide(*argv)
    values = {(one["values"]["loss"], one["values"]["speed"]) for one in played.best()}
    every = {(line["metrics"]["loss"], line["metrics"]["speed"]) for line in played.lines}
    beaten = {one for one in every if any(o != one and o[0] <= one[0] and o[1] >= one[1] for o in every)}
    assert values == every - beaten


def test_a_space_from_a_file(played: Played) -> None:
    file = played.directory / "space.yaml"
    file.write_text(
        "x: {low: -5.0, high: 5.0}\nlr: {low: 1e-5, high: 1e-1, log: true}\nlayers: {low: 1, high: 4}\nkind: [a, b]\n"
    )
    played.play(FIRST, loss)
    assert played.decide("--space", str(file)) == played.decide(*AXES)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "needed is a space"),
        (["x"], "'x' is no parameter of a space: NAME=LOW:HIGH"),
        (["x=1:2:3:4"], "too many parts"),
        (["x=a:2"], "low is 'a'; needed is a number"),
        (["x=2:1"], "needed are low up to high"),
        (["x=0:1:log"], "above 0 and without a step with log"),
        (["x=0.0:1.0", "--sampler", "grid"], "x: a grid needs a step, or a list of values"),
        (["x=0:1", "--batch", "0"], "--batch 0: needed is a number from 1"),
        (["x=0:1", "--sampler", "best"], "invalid choice: 'best'"),
        (["--space", "no.yaml"], "no.yaml"),
    ],
)
def test_bad_input_is_one_line(played: Played, argv: list[str], message: str) -> None:
    played.play(FIRST, loss)
    assert played.call(*argv) == (2, "")
    assert message in played.told
    assert played.told.count("\n") == 1


def test_a_mistyped_key_of_a_space_names_the_line(played: Played) -> None:
    file = played.directory / "space.yaml"
    file.write_text("x: {low: 1, high: 2}\nlr: {low: 1, hgih: 2}\n")
    assert played.call("--space", str(file)) == (2, "")
    assert "space.yaml, line 2, lr: no key 'hgih'. Did you mean 'high'?" in played.told


def test_a_search_whose_options_changed_is_refused(played: Played) -> None:
    played.play(FIRST, loss)
    played.play(played.decide(*AXES), loss)
    assert played.call(*AXES, "--seed", "9") == (2, "")
    assert "were the space, the sampler, --seed or --batch changed" in played.told


def test_an_objective_that_no_trial_has_is_refused(played: Played) -> None:
    played.play(FIRST, loss)
    assert played.call(*AXES, "--minimize", "los") == (2, "")
    assert "no finished trial has a column 'los' in its metrics.csv. Did you mean 'loss'? Columns: loss." in played.told
    played.lines[0]["metrics"], played.lines[0]["nan"] = {"loss": None, "los": None}, ["loss", "los"]
    assert played.decide(*AXES, "--minimize", "los")


def test_a_trial_that_was_asked_for_twice_is_one_of_the_best_once(played: Played) -> None:
    argv = ("x=0:1", "--sampler", "random", "--batch", "4")
    played.play([{"x": 1}], lambda point: {"loss": point["x"]})
    played.play(played.decide(*argv), lambda point: {"loss": point["x"]})
    played.decide(*argv)
    assert [one["parameters"] for one in played.best()] == [{"x": 0}]
