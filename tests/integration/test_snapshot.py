"""`snapshot: true`: waiting trials run the code as it was when they were planned."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.code import snapshot
from runner.errors import InputError

if TYPE_CHECKING:
    from tests.conftest import Project, Said

    Typed = Callable[..., Said]
    Until = Callable[..., None]

# What it prints depends on a module of its own, on data that git ignores and on data beside the repository; it waits
# for a file that is named absolutely.
TRAIN = """\
import pathlib, sys, time
from model import VERSION
n, gate, out = int(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
while n == 0 and not gate.exists():
    time.sleep(0.02)
beside = pathlib.Path("../../beside/numbers.txt").read_text().strip()
(out / "result").write_text(f"{VERSION} {pathlib.Path('data/numbers.txt').read_text().strip()} {beside}")
"""
PARAMS = """\
template: {{train: 'python train.py {{n}} {gate} {{_output}}'}}
resource: {{cpu: 1}}
snapshot: true
---
n: [0, 1{more}]
"""


def git(path: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    identity += ["-c", "protocol.file.allow=always"]
    return subprocess.run(["git", *identity, *words], cwd=path, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(project: Project) -> Project:
    """`run` is typed in `repository/code`, whose newest state is not committed."""
    top = project.path / "repository"
    code = top / "code"
    for directory, numbers in ((code / "data", "1 2"), (project.path / "beside", "3")):
        directory.mkdir(parents=True)
        (directory / "numbers.txt").write_text(numbers)
    (top / ".gitignore").write_text("data/\noutput/\n__pycache__/\n")
    (code / "train.py").write_text("print('not yet')\n")
    git(top, "init", "-q", "-b", "work")
    git(top, "add", ".")
    git(top, "commit", "-q", "-m", "first")
    (code / "train.py").write_text(TRAIN)
    (code / "model.py").write_text("VERSION = 'old'\n")
    project.path, project.output = code, code / "output"
    return project


def write_params(project: Project, more: str = "") -> None:
    project.write(PARAMS.format(gate=project.path.parents[1] / "gate", more=more))


def open_gate(project: Project) -> None:
    (project.path.parents[1] / "gate").touch()


def results(project: Project) -> dict[str, str]:
    return {name: (project.output / name / "result").read_text() for name in project.trials()}


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if ".git" not in path.parts)


def plan_and_edit(project: Project, until: Until) -> None:
    """The first trial runs and the others wait, while the module that they read is edited and a script deleted."""
    write_params(project)
    said = project.run("--detach")
    assert said.returncode == 0, said.stderr
    until(lambda: project.output.exists() and "N_0" in project.trials(), lambda: "not begun")
    (project.path / "model.py").write_text("VERSION = 'new'\n")


def test_waiting_trials_run_the_code_that_was_planned(repository: Project, until: Until, tmp_path: Path) -> None:
    plan_and_edit(repository, until)
    train = (repository.path / "train.py").read_text()
    (repository.path / "train.py").unlink()
    open_gate(repository)
    assert repository.run("wait").returncode == 0
    assert results(repository) == {"N_0": "old 1 2 3", "N_1": "old 1 2 3"}

    (repository.path / "train.py").write_text(train)
    write_params(repository, ", 2")
    assert repository.run().returncode == 0
    assert results(repository) == {"N_0": "old 1 2 3", "N_1": "old 1 2 3", "N_2": "new 1 2 3"}
    # The records tell the code that really ran, and the commands and names are those without a snapshot.
    starts = [repository.attempts(name, "start") for name in ("N_0", "N_1", "N_2")]
    codes = [record["code"] for (record,) in starts]
    assert (codes[0] == codes[1], codes[1] == codes[2]) == (True, False)
    on_record = json.loads((repository.output / ".runner" / "code" / f"{codes[1]}.json").read_text())
    assert (on_record["directory"], on_record["top"]) == ("code", str(repository.path.parent))
    assert f"{tmp_path}/gate output/N_1" in (repository.output / "N_1" / "param").read_text()
    again = repository.run("repro", "N_1", "--run", "--into", str(tmp_path / "again"))
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again" / "code" / "output" / "N_1" / "result").read_text().startswith("old")


def test_run_again_gives_waiting_trials_the_new_code_and_says_so(repository: Project, until: Until) -> None:
    plan_and_edit(repository, until)
    said = repository.run("--detach").stdout
    assert "Applied to the queue: 1 running, 1 waiting, now with another command, other options or other code." in said
    assert "1 running, 1 waiting as before." in repository.run("--detach").stdout
    open_gate(repository)
    assert repository.run("wait").returncode == 0
    assert results(repository) == {"N_0": "old 1 2 3", "N_1": "new 1 2 3"}
    assert len(list((repository.output / ".runner" / "snapshots").iterdir())) == 2


def test_no_subdir_has_its_records_in_the_real_output(repository: Project) -> None:
    open_gate(repository)
    write_params(repository)
    repository.write((repository.path / "params.yaml").read_text().replace("{n} /", "{n} --config={_config} /"))
    (repository.path / "train.py").write_text(
        "import sys\nassert open(sys.argv[2].partition('=')[2]).read() == f'n: {sys.argv[1]}\\n'\n"
    )
    assert repository.run("--no-subdir").returncode == 0
    assert len(list((repository.output / ".runner" / "trials").iterdir())) == 2


def test_no_repository_is_one_line_and_nothing_is_written(project: Project, typed: Typed) -> None:
    write_params(project)
    said = typed()
    assert said.code == 2
    assert said.err == f"run: error: snapshot: {project.path} is in no git repository with a commit; " + (
        "commit, or leave it out.\n"
    )
    assert not project.output.exists()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (".", "-o .: holds the code itself; with `snapshot`, name another directory."),
        ("..", "-o ..: holds the code itself; with `snapshot`, name another directory."),
        ("../../../far", "with `snapshot`, write it as "),
    ],
)
def test_an_output_that_a_snapshot_cannot_reach(repository: Project, typed: Typed, output: str, message: str) -> None:
    write_params(repository)
    before = files(repository.path.parents[1])
    said = typed("-o", output)
    assert (said.code, message in said.err) == (2, True), said.err
    assert files(repository.path.parents[1]) == before


@pytest.mark.parametrize("output", ["../../results", "../results", "absolute"])
def test_an_output_elsewhere_is_reached(repository: Project, output: str, tmp_path: Path) -> None:
    name = str(tmp_path / "elsewhere" / "output") if output == "absolute" else output
    open_gate(repository)
    write_params(repository)
    assert repository.run("-o", name).returncode == 0
    assert (repository.path / name / "N_1" / "result").read_text() == "old 1 2 3"


def test_what_is_too_much_is_refused(
    repository: Project, typed: Typed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_params(repository)
    monkeypatch.setattr(snapshot, "SIZE_MAX_MIB", 0.0001)
    assert "a snapshot has at most 0.0001 MiB; keep data out of git" in typed().err
    monkeypatch.undo()
    monkeypatch.setattr("runner.code.provenance.FILES_MAX", 1)
    with pytest.raises(InputError, match=r"is not committed \(code/params.yaml\); allowed: at most 1 new files"):
        snapshot.source(repository.path, repository.output)
    assert not repository.output.exists()


def test_links_lead_to_what_is_no_code(repository: Project) -> None:
    """A submodule, a large new file, ignored files in a directory that git has nothing of, an output that git has."""
    top = repository.path.parent
    other = top.parent / "other"
    other.mkdir()
    (other / "module.py").touch()
    git(other, "init", "-q")
    git(other, "add", ".")
    git(other, "commit", "-q", "-m", "first")
    git(top, "submodule", "add", "-q", str(other), "third")
    (top / "large.bin").write_bytes(bytes(2 << 20))
    (top / "raw" / "data").mkdir(parents=True)
    (top / "raw" / "data" / "numbers.txt").touch()
    repository.output.mkdir()
    (repository.output / "README").touch()
    git(top, "add", "-f", "code/output/README")
    git(top, "commit", "-q", "-m", "second")
    source = snapshot.source(repository.path, repository.output)
    kept = source.keep()
    tree = Path(kept.directory).parent
    assert source.keep() == kept
    assert (tree / "third" / "module.py").resolve() == top / "third" / "module.py"
    assert (tree / "large.bin").resolve() == top / "large.bin"
    assert (tree / "raw" / "data" / "numbers.txt").exists()
    assert (tree / "code" / "output").resolve() == repository.output
    assert (repository.output / "README").exists()
    assert not (tree / "code" / "train.py").is_symlink()
    assert git(tree, "rev-parse", "HEAD") == git(top, "rev-parse", "HEAD")


def test_what_was_ignored_later_is_linked_then(repository: Project) -> None:
    first = snapshot.source(repository.path, repository.output).keep()
    (repository.path.parent / "data").mkdir()
    assert snapshot.source(repository.path, repository.output).keep() == first
    assert (Path(first.directory).parent / "data").is_symlink()
