"""What params.yaml says of executors."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from typing import TYPE_CHECKING

import pytest

from runner import config
from runner.errors import InputError
from runner.executors import registry

if TYPE_CHECKING:
    from pathlib import Path

    from runner.config import Config

TEMPLATE = "template: {a: run, b: {cmd: run, executor: {slurm: {time: 2h}}}, c: {cmd: run, executor: local}}\n"
GRID = "---\nx: [1]\n"


def load(tmp_path: Path, text: str, wanted: str | None = None) -> Config:
    path = tmp_path / "params.yaml"
    path.write_text(text + GRID, encoding="utf-8")
    return config.load(path, executor=wanted)


def executors(loaded: Config) -> dict[str, str]:
    return {stage: options.executor for stage, options in loaded.options.items()}


def test_without_a_word_all_runs_here(tmp_path: Path) -> None:
    loaded = load(tmp_path, "template: {a: run}\n")
    assert executors(loaded) == {"a": "local"}
    assert loaded.options["a"].batch == {}


def test_a_stage_keeps_to_the_executor_that_it_names(tmp_path: Path) -> None:
    loaded = load(tmp_path, "executor: sge\n" + TEMPLATE)
    assert executors(loaded) == {"a": "sge", "b": "slurm", "c": "local"}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("slurm", {"a": "slurm", "b": "slurm", "c": "local"}),
        ("local", {"a": "local", "b": "local", "c": "local"}),
        ("sge", {"a": "sge", "b": "slurm", "c": "local"}),
    ],
)
def test_the_command_lines_word_comes_before_the_files(tmp_path: Path, wanted: str, found: dict[str, str]) -> None:
    assert executors(load(tmp_path, "executor: sge\n" + TEMPLATE, wanted)) == found


def test_what_a_stage_says_comes_before_what_is_said_for_all(tmp_path: Path) -> None:
    loaded = load(tmp_path, "executor: {slurm: {time: 1h, account: lab}}\n" + TEMPLATE)
    assert loaded.options["a"].batch == {"time": "1h", "account": "lab"}
    assert loaded.options["b"].batch == {"time": "2h", "account": "lab"}


def test_one_line_may_stand_for_a_list_of_them(tmp_path: Path) -> None:
    loaded = load(tmp_path, "executor: {slurm: {setup: module load x, lines: --nice}}\n" + TEMPLATE)
    keys = registry.load("slurm").keys.model_validate(loaded.options["a"].batch)
    assert (keys.setup, keys.lines) == (["module load x"], ["--nice"])


def test_a_script_is_read_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "submit.sh").write_text("module load x\n{_task}\n")
    loaded = load(tmp_path, "executor: {slurm: {script: submit.sh}}\ntemplate: {a: run}\n")
    (tmp_path / "submit.sh").unlink()
    assert loaded.options["a"].batch["script"] == "module load x\n{_task}\n"


@pytest.mark.parametrize(
    ("text", "wanted", "message"),
    [
        ("executor: slurn\n", None, "line 1, executor: 'slurn' is no executor. Did you mean 'slurm'?"),
        ("", "slurn", "-x slurn is no executor. Did you mean 'slurm'? Allowed: local, sge, slurm."),
        ("executor: {slurm: {partitoin: x}}\n", None, "partitoin: unknown key. Did you mean 'partition'? Allowed: "),
        ("executor: {slurm: {time: soon}}\n", None, "time: 'soon' is no duration; allowed: "),
        ("executor: {slurm: {lease: 0}}\n", None, "lease: 0 is not allowed: "),
        ("executor: {slurm: {pack: 0}}\n", None, "pack: 0 is no number of trials; allowed: 1, 2, 3 … or auto"),
        ("executor: {slurm: {pack: all}}\n", None, "pack: 'all' is no number of trials"),
        ("executor: {slurm: {memory: 0GiB}}\n", None, "memory: '0GiB' is not allowed: "),
        ("executor: {slurm: {gpu_type: 'a100:2'}}\n", None, "gpu_type: 'a100:2' is no type of GPU"),
        ('executor: {slurm: {lines: ["a\\nb"]}}\n', None, "is no option; allowed: one line"),
        ("executor: {local: {time: 1h}}\n", None, "time: the executor `local` is told nothing."),
        ("executor: {slurm: {script: submit.sh}}\n", None, "submit.sh lacks {_task}, where the trial's command goes."),
        (
            "executor: {slurm: {script: nowhere.sh}}\n",
            None,
            "executor.slurm.script: nowhere.sh: no such file in",
        ),
        ("executor: {slurm: {script: comment.sh}}\n", None, "comment.sh lacks {_task}"),
        ("executor: {slurm: {time: 0}}\n", None, "time: 0 is not allowed: "),
        ('executor: {slurm: {lines: ["--array=0-0"]}}\n', None, "has --array, which is set by run itself"),
        ('executor: {slurm: {lines: ["-Jmine"]}}\n', None, "has -J, which is set by run itself"),
        ('executor: {sge: {lines: ["-tc 2", "-t 1-2"]}}\n', None, "has -t, which is set by run itself"),
        ("executor: {slurm: {}, sge: {time: soon}}\n", None, "executor.sge.time: 'soon' is no duration"),
        ("executor: []\n", None, "is no executor; allowed: a name such as local or slurm"),
        ("executor: {slurm: 4h}\n", None, "executor"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, wanted: str | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "submit.sh").write_text("module load x\n")
    (tmp_path / "comment.sh").write_text("  # {_task}\nexit 0\n")
    with pytest.raises(InputError) as error:
        load(tmp_path, text + "template: {a: run}\n", wanted)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["no.such.package:Executor", "json:nothing", "json:loads"])
def test_a_package_that_cannot_be_loaded_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    entries = EntryPoints([EntryPoint("pbs", value, "runner.executors")])
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: entries.select(group=group))
    with pytest.raises(InputError, match=rf"line 1, executor: 'pbs' is an executor of {value}, which cannot be loaded"):
        load(tmp_path, "executor: pbs\ntemplate: {a: run}\n")
