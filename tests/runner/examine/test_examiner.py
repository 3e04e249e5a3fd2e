"""The Examiner: parsers, parallel reading, tables."""

import math
import os
import re
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from runner.examine import Examiner, Experiment, ParserFailure, latest_log

MLRUNNER_PARAM = """\
_name: Lr_{lr:g}-Seed_{seed}
_output: output/Lr_{lr:g}-Seed_{seed}
_scripts:
  test: CUDA_VISIBLE_DEVICES=0 python main.py --mode test > output/Lr_{lr:g}-Seed_{seed}/log.test
  train: CUDA_VISIBLE_DEVICES=0 python main.py --lr {lr} > output/Lr_{lr:g}-Seed_{seed}/log.train
_time: '20230102.030405'
amp: true
lr: {lr}
seed: {seed}
warmup: 1e-3
"""


@pytest.fixture
def sweep(make_trial: Any) -> None:
    """Six trials as mlrunner 0.5.9 writes them."""
    for lr in (0.1, 0.01):
        for seed in (1, 2, 10):
            path = make_trial(f"Lr_{lr:g}-Seed_{seed}", MLRUNNER_PARAM.format(lr=lr, seed=seed))
            (path / "stat").write_text("test: finished\ntrain: finished\n")
            (path / "log.train.20230102.030405").write_text("loss 1.0\n")
            (path / "log.test.20230102.030405").write_text(f"accuracy {seed + lr}\n")
            (path / "log.test.20230101.030405").write_text("accuracy 0\n")


ORDER = [f"Lr_{lr}-Seed_{seed}" for lr in ("0.01", "0.1") for seed in (1, 2, 10)]


def accuracy(path: Path, experiment: Experiment, caches: dict[str, Any]) -> None:
    log = latest_log("test", path)
    assert log is not None
    experiment.cache["text"] = log.read_text()
    experiment.metric["accuracy"] = float(experiment.cache["text"].split()[-1])
    caches["vocabulary"] = ["a", "b"]


@pytest.mark.parametrize("workers", [-1, 2])
def test_a_sweep_of_mlrunner(sweep: None, output: Path, workers: int, capsys: Any) -> None:
    examiner = Examiner()
    examiner.add(accuracy)
    examiner.exam(output=str(output), regex=".*", verbose=True, workers=workers)
    assert capsys.readouterr().out.splitlines() == ORDER
    assert list(examiner.experiments) == ORDER
    first = examiner.experiments["Lr_0.01-Seed_1"]
    assert first.metric == {"accuracy": 1.01}
    assert first.cache == {"text": "accuracy 1.01\n"}
    assert first.param["_time"] == "20230102.030405"
    assert first.param["warmup"] == 1e-3
    assert first._fields == ("cache", "metric", "param")
    assert examiner.caches == {"vocabulary": ["a", "b"]}
    assert examiner.errors == []
    table = examiner.table()
    assert list(table.columns) == ["lr", "seed", "accuracy"]
    assert table["accuracy"].tolist() == [1.01, 2.01, 10.01, 1.1, 2.1, 10.1]
    assert table["seed"].tolist() == [1, 2, 10] * 2
    assert table.groupby("lr")["accuracy"].mean().round(3).to_dict() == {0.01: 4.343, 0.1: 4.433}
    assert list(examiner.table(concise=False).columns) == ["amp", "lr", "seed", "warmup", "accuracy"]
    assert examiner.table(False)["warmup"].tolist() == [1e-3] * 6


def test_parallel_takes_closures_and_equals_serial(sweep: None, output: Path) -> None:
    factor = 3
    here = object()

    def scaled(path: Path, experiment: Experiment, caches: dict[str, Any]) -> None:
        assert here is not None
        experiment.metric["scaled"] = experiment.metric["accuracy"] * factor
        experiment.metric["pid"] = 0
        caches.setdefault("by name", {})[path.name] = experiment.metric["scaled"]
        caches["last"] = path.name

    by_workers = {}
    for workers in (-1, 1, 2, 50):
        examiner = Examiner()
        examiner.add(accuracy)
        examiner.exam(output, workers=workers)
        # The second exam builds on what the first one found.
        examiner.exams.clear()
        examiner.add(scaled)
        examiner.add(lambda path, experiment, caches: experiment.metric.pop("pid"))
        examiner.exam(output, workers=workers)
        by_workers[workers] = examiner
    serial = by_workers.pop(-1)
    assert list(serial.caches["by name"]) == ORDER
    for examiner in by_workers.values():
        assert examiner.experiments == serial.experiments
        assert list(examiner.experiments) == list(serial.experiments)
        assert examiner.caches == serial.caches
        assert list(examiner.caches["by name"]) == ORDER
        pd.testing.assert_frame_equal(examiner.table(), serial.table())
        assert list(examiner.experiments["Lr_0.1-Seed_2"].metric) == ["accuracy", "scaled"]


def test_parallel_runs_in_other_processes(sweep: None, output: Path) -> None:
    def pid(path: Path, experiment: Experiment, caches: dict[str, Any]) -> None:
        experiment.metric["pid"] = os.getpid()

    examiner = Examiner()
    examiner.add(pid)
    examiner.exam(output, workers=2)
    assert os.getpid() not in set(examiner.table()["pid"])


def test_parsers_run_in_the_order_of_add_and_once(sweep: None, output: Path) -> None:
    calls: list[str] = []
    parsers = [lambda *_, name=name: calls.append(name) for name in "zyxwvuabcdef"]
    examiner = Examiner()
    for parser in [*parsers, parsers[0], parsers[3]]:
        examiner.add(parser)
    examiner.exam(output, regex="^Lr_0.1-Seed_10$")
    assert calls == list("zyxwvuabcdef")
    assert len(examiner.exams) == 12
    assert parsers[0] in examiner.exams
    examiner.exams.remove(parsers[0])
    assert next(iter(examiner.exams)) is parsers[1]


def no_accuracy(path: Path, experiment: Experiment, caches: dict[str, Any]) -> None:
    experiment.metric["before"] = 1
    if "Seed_2" in path.name:
        raise KeyError("accuracy\nof two lines")


@pytest.mark.parametrize("workers", [-1, 2])
def test_a_parser_that_raises_is_reported_and_the_others_go_on(
    sweep: None, output: Path, workers: int, capsys: Any
) -> None:
    examiner = Examiner()
    examiner.add(no_accuracy)
    examiner.add(accuracy)
    examiner.exam(output, workers=workers)
    assert [(error.directory, error.parser) for error in examiner.errors] == [
        ("Lr_0.01-Seed_2", "no_accuracy"),
        ("Lr_0.1-Seed_2", "no_accuracy"),
    ]
    assert all('raise KeyError("accuracy' in error.traceback for error in examiner.errors)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"Lr_0.01-Seed_2: no_accuracy: KeyError: .*accuracy.* \(line \d+\)", lines[0])
    assert lines[2:] == ["2 errors in 2 directories: see examiner.errors"]
    assert examiner.table()["accuracy"].notna().all()
    assert examiner.table()["before"].tolist() == [1] * 6
    examiner.exams.discard(no_accuracy)
    examiner.exam(output, workers=workers)
    assert examiner.errors == []


def test_a_parser_that_fails_everywhere_does_not_flood_the_screen(make_trial: Any, output: Path, capsys: Any) -> None:
    for index in range(30):
        make_trial(f"t_{index}", {"i": index})
    examiner = Examiner()
    examiner.add(lambda path, experiment, caches: 1 / 0)
    examiner.exam(output)
    lines = capsys.readouterr().err.splitlines()
    assert len(examiner.errors) == 30
    assert len(lines) == 22
    assert "ZeroDivisionError" in lines[0]
    assert lines[-2:] == ["… and 10 more such lines", "30 errors in 30 directories: see examiner.errors"]
    assert isinstance(examiner.errors[0], ParserFailure)


@pytest.mark.parametrize("workers", [-1, 2])
def test_directories_that_are_no_trials_are_reported_and_skipped(
    make_trial: Any, output: Path, workers: int, capsys: Any
) -> None:
    make_trial("good", {"x": 1})
    make_trial("broken", "x: [1\n")
    make_trial("empty", "")
    (output / "none").mkdir()
    (output / ".runner").mkdir()
    (output / ".runner" / "param").write_text("x: 1\n")
    (output / "file").write_text("x: 1\n")
    examiner = Examiner()
    examiner.exam(output, workers=workers)
    assert list(examiner.experiments) == ["good"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"skip {output}/{name}" for name in ("broken", "empty", "none")]
    assert lines[2].endswith("no 'param' found")
    assert examiner.errors == []


def test_what_can_not_be_pickled_is_named_and_the_rest_arrives(make_trial: Any, output: Path, capsys: Any) -> None:
    make_trial("a", {"x": 1})
    make_trial("b", {"x": 2})

    def parser(path: Path, experiment: Experiment, caches: dict[str, Any]) -> None:
        experiment.metric["score"] = experiment.param["x"]
        if path.name == "b":
            experiment.cache["model"] = lambda: None
            caches["lock"] = iter(lambda: 1, 2)

    examiner = Examiner()
    examiner.add(parser)
    examiner.exam(output, workers=2)
    assert [error.parser for error in examiner.errors] == ["cache 'model'", "caches 'lock'"]
    assert capsys.readouterr().err.startswith("b: cache 'model': the value can't be sent from the worker process")
    assert examiner.table()["score"].tolist() == [1, 2]
    examiner.exam(output)
    assert examiner.errors == []
    assert callable(examiner.experiments["b"].cache["model"])


class Unloadable:
    def __reduce__(self) -> Any:
        return int, ("not a number",)


def test_what_can_not_be_loaded_is_named(make_trial: Any, output: Path) -> None:
    make_trial("a", {"x": 1})
    examiner = Examiner()
    examiner.add(lambda path, experiment, caches: experiment.metric.update(bad=Unloadable(), good=1))
    examiner.exam(output, workers=1)
    assert [(error.directory, error.parser) for error in examiner.errors] == [("a", "metric 'bad'")]
    assert examiner.experiments["a"].metric == {"good": 1}


def test_a_worker_that_dies_is_an_error_that_names_where(make_trial: Any, output: Path) -> None:
    for index in range(4):
        make_trial(f"t_{index}", {"i": index})

    def killer(path: Path, experiment: Experiment, caches: dict[str, Any]) -> None:
        if path.name == "t_2":
            os.kill(os.getpid(), signal.SIGKILL)

    examiner = Examiner()
    examiner.add(killer)
    with pytest.raises(RuntimeError, match=r"a worker process died .* of 4 directories; .*t_2"):
        examiner.exam(output, workers=1)


def test_interrupting_a_parser_stops_the_exam(sweep: None, output: Path) -> None:
    def interrupted(path: Path, experiment: Experiment, caches: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    for workers in (-1, 2):
        examiner = Examiner()
        examiner.add(interrupted)
        with pytest.raises(KeyboardInterrupt):
            examiner.exam(output, workers=workers)


def test_an_output_that_is_missing_or_empty(output: Path) -> None:
    examiner = Examiner()
    with pytest.raises(FileNotFoundError, match="no output directory"):
        examiner.exam(output / "missing")
    for workers in (-1, 2):
        examiner.exam(output, workers=workers)
    assert examiner.table().empty
    assert list(examiner.table().columns) == []


def examined(**params: dict[Any, Any]) -> Examiner:
    examiner = Examiner()
    for name, param in params.items():
        examiner.experiments[name] = Experiment(cache={}, metric={}, param=param)
    return examiner


@pytest.mark.parametrize(
    ("values", "varies"),
    [
        ([1, True], True),
        ([1, 1.0], True),
        ([0, False], True),
        ([1, "1"], True),
        ([None, "None"], True),
        ([1, 1], False),
        ([0.001, 1e-3], False),
        ([math.nan, float("nan")], False),
        ([[1, 2], [1, 2]], False),
        ([[1, 2], [1, True]], True),
        ([{"a": 1, "b": 2}, {"b": 2, "a": 1}], False),
        ([{"a": 1}, {"a": [1]}], True),
        ([None, None], False),
        ([None, 1], True),
    ],
)
def test_concise_knows_which_values_are_one(values: list[Any], varies: bool) -> None:
    examiner = examined(a={"x": values[0], "_name": "a"}, b={"x": values[1], "_name": "b"})
    assert list(examiner.table().columns) == (["x"] if varies else [])
    full = examiner.table(concise=False)
    assert list(full.columns) == ["x"]
    for index, value in enumerate(values):
        cell = full["x"].iloc[index]
        assert cell == value or (pd.isna(cell) and (value is None or value != value))


def test_concise_keeps_a_parameter_that_some_trials_lack() -> None:
    table = examined(a={"x": 1}, b={"x": 1, "y": 2}).table()
    assert list(table.columns) == ["y"]
    assert table["y"].isna().tolist() == [True, False]


def test_columns_are_sorted_and_private_keys_left_out(capsys: Any) -> None:
    examiner = examined(a={"b": 1, "a": [1], "_x": 1, 3: "t\tt"}, b={"b": 2, "a": [2], "_x": 2, 3: "n\nn"})
    examiner.experiments["a"].metric.update(z=1.5, acc=None)
    examiner.experiments["b"].metric.update(m=True)
    table = examiner.table(print_tsv=True)
    assert list(table.columns) == [3, "a", "b", "acc", "m", "z"]
    assert table["a"].tolist() == [[1], [2]]
    assert capsys.readouterr().out.splitlines() == [
        "3\ta\tb\tacc\tm\tz",
        "t\\tt\t[1]\t1\tNone\tNone\t1.5",
        "n\\nn\t[2]\t2\tNone\tTrue\tNone",
    ]


def test_experiment_is_a_plain_tuple_of_three_dicts() -> None:
    experiment = Experiment(cache={"c": 1}, metric={"m": 2}, param={"p": 3})
    assert tuple(experiment) == ({"c": 1}, {"m": 2}, {"p": 3})
    cache, metric, param = experiment
    assert (cache, metric, param) == (experiment.cache, experiment.metric, experiment.param)


def test_verbose_names_the_trial_before_its_parsers_run(make_trial: Any, output: Path, capsys: Any) -> None:
    make_trial("a", {"x": 1})
    examiner = Examiner()
    examiner.add(lambda path, experiment, caches: print("parsing"))
    examiner.exam(output, verbose=True)
    assert capsys.readouterr().out.splitlines() == ["a", "parsing"]
    assert len(examiner.exams) == 1
