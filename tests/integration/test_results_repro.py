"""`run repro`: a trial from a tree with uncommitted changes gives the same numbers again."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runner.code import provenance

if TYPE_CHECKING:
    from tests.conftest import Project, Said

    Typed = Callable[..., Said]

# Numbers that depend on the code, on a new module, on data that git ignores, and on the parameters.
TRAIN = """\
import pathlib, sys, time
import numpy as np
from model import step
lr, seed, out = float(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
data = np.loadtxt(pathlib.Path(__file__).parent / "data" / "numbers.txt")
weights = np.random.default_rng(seed).normal(size=data.shape)
with (out / "metrics.csv").open("w") as file:
    file.write("step,lr,loss,time_s\\n")
    for number in range(1, 21):
        weights = step(weights, data, lr)
        file.write(f"{number},{lr!r},{float(((weights - data) ** 2).mean())!r},{time.time()}\\n")
"""
PARAMS = """\
template: {train: 'python code/train.py {lr} {seed} {_output}'}
resource: {cpu: 2}
---
lr: [0.1, 0.30000000000000004]
seed: 3
"""


def git(path: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *words], cwd=path, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def dirty(project: Project) -> Project:
    """A repository with a commit, a change to it, a new module and a new image that git would keep."""
    code = project.path / "code"
    (code / "data").mkdir(parents=True)
    (code / "data" / "numbers.txt").write_text("1 2 3\n")
    (code / "train.py").write_text("print('not yet')\n")
    (project.path / ".gitignore").write_text("data/\noutput/\n__pycache__/\n")
    project.write(PARAMS)
    git(project.path, "init", "-q", "-b", "work")
    git(project.path, "add", ".")
    git(project.path, "commit", "-q", "-m", "first")
    (code / "train.py").write_text(TRAIN)
    (code / "model.py").write_text("def step(weights, data, lr):\n    return weights - lr * (weights - data)\n")
    (code / "picture.bin").write_bytes(bytes(range(256)))
    (code / "large.bin").write_bytes(bytes(2 << 20))
    return project


@pytest.fixture
def ran(dirty: Project, typed: Typed) -> Project:
    assert typed().code == 0
    # Since then the code went on.
    (dirty.path / "code" / "model.py").write_text("def step(weights, data, lr):\n    return weights - 2 * lr\n")
    git(dirty.path, "add", ".")
    git(dirty.path, "commit", "-q", "-m", "second")
    return dirty


NAME = "Lr_0.30000000000000004-Seed_3"


def test_the_same_numbers_to_the_last_bit(ran: Project, typed: Typed, tmp_path: Path) -> None:
    before = git(ran.path, "status", "--porcelain")
    said = typed("repro", NAME, "--run", "--into", "again")
    assert said.code == 0, said.out + said.err
    assert said.out.endswith("All metrics are the same to the last bit.\n")
    again = ran.path / "again" / "output" / NAME / "metrics.csv"
    strip = [line.rpartition(",")[0] for line in again.read_text().splitlines()]
    assert strip == [line.rpartition(",")[0] for line in (ran.output / NAME / "metrics.csv").read_text().splitlines()]
    assert (ran.path / "again" / "code" / "picture.bin").read_bytes() == bytes(range(256))
    assert git(ran.path, "status", "--porcelain").replace("?? again/\n", "") == before
    assert git(ran.path, "worktree", "list").count("\n") == 1


def test_other_numbers_are_told(ran: Project, typed: Typed) -> None:
    metrics = ran.output / NAME / "metrics.csv"
    lines = metrics.read_text().splitlines()
    lines[5] = lines[5].replace(lines[5].split(",")[2], "0.125")
    metrics.write_text("\n".join(lines) + "\n")
    said = typed("repro", NAME, "--run", "--into", "again")
    assert said.code == 1
    assert "metrics.csv, loss: row 5 was 0.125 and is " in said.out
    again = typed("repro", NAME, "--run", "--into", "again")
    assert (again.code, "is not empty" in again.err) == (2, True)


def test_the_commands_can_be_typed(ran: Project, typed: Typed) -> None:
    said = typed("repro", NAME, "--into", "typed")
    assert said.code == 0
    assert not (ran.path / "typed").exists()
    script = said.out.replace("# not on record", "# ") + "ln -s"
    commands = [line for line in said.out.splitlines() if not line.startswith("#")]
    assert script.count("large.bin") == 1
    commands.insert(3, "ln -s $PWD/code/data typed/code/data")
    subprocess.run(["bash", "-ec", "\n".join(commands)], cwd=ran.path, check=True, env=ran.environment)
    again = (ran.path / "typed" / "output" / NAME / "metrics.csv").read_text().splitlines()
    then = (ran.output / NAME / "metrics.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in again] == [line.split(",")[:3] for line in then]


def test_what_is_recorded(dirty: Project) -> None:
    index = (dirty.path / ".git" / "index").read_bytes()
    code, changes = provenance.collect(dirty.path / "code", dirty.output)
    assert code.commit == git(dirty.path, "rev-parse", "HEAD").strip()
    assert (code.branch, code.directory, code.left_out) == ("work", "code", ("code/large.bin",))
    assert code.shown == f"{code.commit[:9]}+"
    text = changes.decode()
    assert [line.split(" b/")[1] for line in text.splitlines() if line.startswith("diff")] == [
        "code/model.py",
        "code/picture.bin",
        "code/train.py",
    ]
    assert (dirty.path / ".git" / "index").read_bytes() == index
    assert provenance.record(dirty.output, dirty.path) == provenance.record(dirty.output, dirty.path)
    assert len(list((dirty.output / ".runner" / "code").iterdir())) == 2


def test_an_output_that_git_would_keep_is_no_change(dirty: Project) -> None:
    (dirty.path / ".gitignore").write_text("data/\n")
    dirty.output.mkdir()
    (dirty.output / "metrics.csv").write_text("step\n")
    before: Any = provenance.collect(dirty.path, dirty.output)
    (dirty.output / "metrics.csv").write_text("step\n1\n")
    assert provenance.collect(dirty.path, dirty.output) == before
    assert b"output/" not in before[1].replace(b"-output/", b"")


def test_a_clean_tree_and_an_empty_repository(dirty: Project) -> None:
    git(dirty.path, "add", ".")
    git(dirty.path, "commit", "-q", "-m", "all")
    code, changes = provenance.collect(dirty.path, dirty.output)
    assert (code.changes, changes, code.shown) == (None, b"", str(code.commit)[:9])
    empty = dirty.path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    assert provenance.collect(empty, dirty.output)[0].commit is None


def test_lost_changes_are_told(ran: Project, typed: Typed) -> None:
    for path in (ran.output / ".runner" / "code").glob("*.diff"):
        path.unlink()
    said = typed("repro", NAME, "--run")
    assert said.code == 2
    assert f"the uncommitted changes that output/{NAME} ran with are lost" in said.err


def test_a_repository_of_somebody_else_is_told(ran: Project, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    said = typed("repro", "Lr_0.1-Seed_3", "--run")
    assert said.code == 1
    assert "git clone: detected dubious ownership in repository" in said.err


def test_code_on_record_is_json(ran: Project) -> None:
    (path,) = (ran.output / ".runner" / "code").glob("*.json")
    assert json.loads(path.read_text())["branch"] == "work"
