"""`run table`, `best`, `compare`, `plot`, `report`, `tensorboard-sync` as they are typed."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runner.code import provenance
from runner.examine import curves

if TYPE_CHECKING:
    from tests.conftest import Project, Said

    Typed = Callable[..., Said]

# The loss is lr + seed / 100 after 3 steps; lr 3 fails after the first.
PROGRAM = """\
import os, sys
lr, seed, out = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
with open(f"{out}/metrics.csv", "w") as file:
    file.write("step,lr,loss\\n")
    for step in (1, 2, 3):
        file.write(f"{step},{lr},{lr + seed / 100 + 3 - step}\\n")
        if lr == 3:
            sys.exit("RuntimeError: the loss is <b>NaN</b>")
print(f"done with {lr}")
"""
PARAMS = """\
template: {train: 'python program.py {lr} {seed} {_output}'}
resource: {cpu: 2}
---
lr: [1, 2, 3]
seed: [0, 1]
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which `run` has come to its end, once for all tests."""
    path = tmp_path_factory.mktemp("swept")
    (path / "program.py").write_text(PROGRAM)
    (path / "params.yaml").write_text(PARAMS)
    command = [sys.executable, "-c", "from runner.cli import main; raise SystemExit(main())"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    assert (
        subprocess.run(command, cwd=path, env=environment, capture_output=True, timeout=60, check=False).returncode == 1
    )
    return path


@pytest.fixture
def ran(project: Project, swept: Path) -> Project:
    shutil.copytree(swept, project.path, dirs_exist_ok=True)
    return project


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_table_shows_every_trial(ran: Project, typed: Typed) -> None:
    said = typed("table")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].split()[:8] == ["trial", "lr", "seed", "loss", "loss_best", "state", "cause", "duration_s"]
    assert [line.split()[0] for line in lines[1:]] == [f"Lr_{lr}-Seed_{seed}" for lr in (1, 2, 3) for seed in (0, 1)]
    assert lines[5].split()[5] == "failed"
    chosen = typed("table", "Lr_1*", "Lr_2-Seed_0", "--csv", "--sort", "loss", "--max").out
    assert [float(row["loss"]) for row in rows(chosen)] == pytest.approx([2, 1.01, 1])
    worst_last = rows(typed("table", "--csv", "--sort", "loss", "-n", "2").out)
    assert [row["trial"] for row in worst_last] == ["Lr_1-Seed_0", "Lr_1-Seed_1"]


def test_table_of_means(ran: Project, typed: Typed) -> None:
    found = [json.loads(line) for line in typed("table", "--by", "lr", "--json").out.splitlines()]
    assert [(row["lr"], row["trials"]) for row in found] == [(1, 2), (2, 2), (3, 2)]
    assert [row["loss"] for row in found] == pytest.approx([1.005, 2.005, 5.005])
    markdown = typed("table", "--by", "lr", "--md", "-n", "1").out.splitlines()
    assert markdown[0].startswith("| lr | trials | loss |")
    assert len(markdown) == 3


def test_table_of_everything_as_json(ran: Project, typed: Typed) -> None:
    found = [json.loads(line) for line in typed("table", "--all", "--json").out.splitlines()]
    assert {row["exit_code"] for row in found} == {0, 1}
    assert {row["host"] for row in found} != {None}
    assert found[0]["loss_step"] == 3


def test_best(ran: Project, typed: Typed) -> None:
    found = rows(typed("best", "loss", "--csv").out)
    assert [row["lr"] for row in found] == ["1", "2", "3"]
    assert [float(row["mean"]) for row in found] == pytest.approx([1.005, 2.005, 5.005])
    assert [row["unfinished"] for row in found] == ["0", "0", "2"]
    assert rows(typed("best", "loss", "--max", "--csv", "-n", "1").out)[0]["lr"] == "3"
    assert len(rows(typed("best", "loss", "--by", "seed", "--over", "lr", "--csv").out)) == 2


def test_compare(ran: Project, typed: Typed) -> None:
    said = typed("compare", "Lr_1-Seed_0", "Lr_2-Seed_0")
    assert (said.code, said.err) == (0, "")
    parameters, metrics, *_ = said.out.split("\n\n")
    assert parameters.splitlines()[2].split() == ["lr", "1", "2"]
    assert metrics.splitlines()[2].split() == ["loss", "1", "2", "1"]
    assert "  -done with 1.0\n  +done with 2.0\n" in said.out
    assert "-train: python program.py 1 0 output/{trial}" in said.out
    (ran.path / "new.py").write_text("new = 1\n")
    assert "Code:" not in said.out


def test_compare_tells_of_other_code(ran: Project, typed: Typed) -> None:
    kept = ran.output / ".runner" / "code"
    kept.mkdir(exist_ok=True)
    for lr in (1, 2):
        (kept / f"d{lr}.diff").write_text(f"+lr = {lr}\n")
        content = {"commit": f"{lr}" * 40, "changes": f"d{lr}", "packages": [f"torch=={lr}"]}
        (kept / f"c{lr}.json").write_text(json.dumps(content))
        path = ran.output / f"Lr_{lr}-Seed_0" / "attempts"
        path.write_text(re.sub(r'"code": "\w+"', f'"code": "c{lr}"', path.read_text()))
    said = typed("compare", "Lr_1-Seed_0", "Lr_2-Seed_0").out
    assert f"  -commit {'1' * 40}\n" in said
    assert "  +torch==2\n" in said
    assert "  ++lr = 2\n" in said
    assert rows(typed("table", "Lr_?-Seed_0", "--csv", "--all").out)[1]["commit"] == "222222222+"


def test_compare_reads_long_logs_as_far_as_it_shows_them(ran: Project, typed: Typed) -> None:
    def write(lr: int, lines: Iterable[str]) -> None:
        (ran.output / f"Lr_{lr}-Seed_0" / "log.train.20991121.120000").write_text("\n".join(lines))

    same = [f"step {step}" for step in range(3000)]
    for lr in (1, 2):
        write(lr, [*same, f"lr={lr}", *(f"{lr}: {step}" for step in range(5000))])
    said = typed("compare", "Lr_1-Seed_0", "Lr_2-Seed_0", "--lines", "2").out
    assert said.endswith(
        "Log of train:\n  @@ -3001,2000 +3001,2000 @@\n  -lr=1\n  … and 3,999 more lines (--lines)\n"
        "  … (compared: 2,000 lines of each, from the first difference on)\n\n"
    )
    assert typed("compare", "Lr_1-Seed_0", "Lr_2-Seed_0", "--lines", "20000").out.endswith("  +2: 4999\n\n")
    write(2, same)
    write(1, ["step 0", *same[2:], "more", "end"])
    said = typed("compare", "Lr_1-Seed_0", "Lr_2-Seed_0", "--lines", "20000").out
    assert said.endswith("  @@ -1,0 +2 @@\n  +step 1\n  @@ -3000,2 +3000,0 @@\n  -more\n  -end\n\n")


@pytest.mark.parametrize(
    "words",
    [[], ["--by", "lr"], ["--x", "lr"], ["--x", "lr", "--y", "seed"], ["--against", "duration_s"], ["Lr_1*"]],
)
def test_plot(ran: Project, typed: Typed, words: list[str]) -> None:
    said = typed("plot", "loss", *words)
    assert (said.code, said.out, said.err) == (0, "output/loss.png\n", "")
    assert (ran.output / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert typed("plot", "loss", *words, "--save", "mine.svg").out == "mine.svg\n"


def test_report_is_one_file_that_names_nothing_elsewhere(ran: Project, typed: Typed) -> None:
    said = typed("report")
    assert (said.code, said.out, said.err) == (0, "output/report.html\n", "")
    text = (ran.output / "report.html").read_text()
    body = text[text.index("<body>") :]
    assert body.count("<tr>") >= 7
    assert "the loss is &lt;b&gt;NaN&lt;/b&gt;" in body
    assert "<b>NaN</b>" not in body
    assert '<link rel="stylesheet"' not in text
    assert "<script src" not in text
    assert typed("report", "Lr_1*", "--metric", "loss_best", "--save", "small.html").code == 0
    assert "Lr_2-Seed_0" not in (ran.path / "small.html").read_text()


def test_tensorboard_sync(ran: Project, typed: Typed) -> None:
    assert typed("tensorboard-sync").out.startswith("6 trials, 46 new events.")
    assert typed("tensorboard-sync", "--watch", "1").out.startswith("6 trials, 0 new events.")
    assert typed("tensorboard-sync", "Lr_1*").out.startswith("2 trials, 0 new")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["table", "-o", "nowhere"], "-o nowhere: no such directory"),
        (["table", "Lr_4*"], "Lr_4*: no such trial"),
        (["table", "--sort", "los"], "los: no such column. Did you mean 'loss'?"),
        (["table", "--by", "lrr"], "lrr: no such column"),
        (["best", "lr"], "lr: is no metric. Allowed: loss, loss_best"),
        (["best", "loss", "--by", "x"], "x: no such column"),
        (["compare", "Lr_1-Seed_0", "Lr_1-Seed_9"], "Lr_1-Seed_9: no such trial in output. Did you mean"),
        (["compare", "../output/Lr_1-Seed_0", "Lr_1-Seed_0"], "no such trial"),
        (["plot", "los"], "los: no such column"),
        (["plot", "loss", "Lr_1*", "--x", "lr"], "lr: is the same in all of these trials"),
        (["plot", "loss", "--against", "gpu_hours"], "gpu_hours: is the same in all of these trials"),
        (["plot", "loss", "--y", "lr"], "--y: needs --x"),
        (["plot", "loss", "--x", "state"], "state: is no numeric parameter"),
        (["plot", "loss", "--save", "a.xyz"], "--save a.xyz: no such kind of file. Allowed: ."),
        (["report", "--metric", "x"], "--metric x: is no metric. Allowed: loss"),
        (["tensorboard-sync", "--watch", "0"], "--watch 0: give the seconds"),
        (["repro", "Lr_9"], "Lr_9: no such trial in output"),
        (["repro", "Lr_1-Seed_0", "-c", "test"], "-c test: no such stage of output/Lr_1-Seed_0. Allowed: train"),
        (["repro", "Lr_1-Seed_0", "--run"], "its code is not on record"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(ran: Project, typed: Typed, words: list[str], said: str) -> None:
    typed("table")  # the caches
    curves(ran.output)
    before = files(ran.path)
    told = typed(*words)
    assert told.code == 2
    assert told.out == ""
    assert said in told.err
    assert told.err.count("\n") == 1
    assert files(ran.path) == before


@pytest.mark.parametrize("words", [["plot", "loss"], ["report"]])
def test_where_nothing_may_be_written_another_file_is_asked_for(ran: Project, typed: Typed, words: list[str]) -> None:
    target = ran.output / {"plot": "loss.png", "report": "report.html"}[words[0]]
    target.mkdir()
    told = typed(*words)
    assert told.code == 1
    assert told.err == f"run: error: output/{target.name}: Is a directory; choose another file with --save.\n"


def files(path: Path) -> set[tuple[str, bytes]]:
    return {
        (str(file), file.read_bytes())
        for file in path.rglob("*")
        if file.is_file() and "results.cache" not in file.name
    }


def test_an_output_without_trials_or_metrics(project: Project, typed: Typed) -> None:
    (project.path / "output").mkdir()
    assert typed("table").code == 0
    assert typed("report").code == 0
    assert typed("tensorboard-sync").out.startswith("0 trials")
    assert typed("table", "--by", "lr").code == 2


def test_provenance_outside_of_git(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", project.environment["PATH"])
    name = provenance.record(project.output, project.path)
    code: Any = provenance.load(project.output, name)
    assert code.commit is None
    assert any(package.startswith("pytest==") for package in code.packages)
    assert provenance.load(project.output, "other") is None
