"""Gathers, as a user types them: stages that run once over many trials, and what depends on them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Project, Said

    Typed = Callable[..., "Said"]

FILE = """\
template:
  train: 'test ! -e fail.{{n}} || exit 3; cat value.{{n}} > {{_output}}/value || echo {{n}} > {{_output}}/value'
resource: {{cpu: 2}}
default: {{size: tiny}}
gather:
  law: {{cmd: 'python sum.py {{_trials}} {{_output}}', of: curves{gather}}}
---
_title: curves
size: {sizes}
n: {numbers}
---
_title: proof
size: {sizes}
n: [0]
law: "{{_gather.law}}/sum"
"""
SUM = """\
import json, pathlib, sys
trials = [json.loads(line) for line in open(sys.argv[1])]
total = sum(int(pathlib.Path(trial["directory"], "value").read_text()) for trial in trials)
pathlib.Path(sys.argv[2], "sum").write_text(f"{total % 10}\\n")
"""


@pytest.fixture
def write(project: Project) -> Callable[..., None]:
    """Writes a file with a gather over one sweep, and a sweep that reads what it made."""

    def write(gather: str = "", sizes: str = "tiny", numbers: str = "[1, 2, 3]") -> None:
        project.write(FILE.format(gather=gather, sizes=sizes, numbers=numbers))
        project.write(SUM, "sum.py")

    return write


A = "_title: a\nn: 1"
LAW = "law: {cmd: x, of: a}"


def members(unit: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (unit / "trials.jsonl").read_text().splitlines()]


def test_a_gather_runs_once_over_its_trials_and_before_what_reads_it(
    write: Callable[..., None], typed: Typed, project: Project
) -> None:
    write()
    said = typed()
    assert said.code == 0, said.out
    order = [line.split(", ")[1].split(":")[0] for line in said.out.splitlines() if line.startswith("START")]
    assert order == ["train"] * 3 + ["law", "train"]
    unit = project.output / "gather.law" / "all"
    assert (unit / "sum").read_text() == "6\n"
    assert project.stat("gather.law/all") == {"law": "finished"}
    found = members(unit)
    assert [trial["name"] for trial in found] == ["Size_tiny-N_1", "Size_tiny-N_2", "Size_tiny-N_3"]
    assert found[0] | {"id": ""} == {
        "id": "",
        "name": "Size_tiny-N_1",
        "directory": "output/Size_tiny-N_1",
        "parameters": {"size": "tiny", "n": 1},
        "state": "finished",
        "states": {"train": "finished"},
        "sweep": "curves",
    }
    proof = next(name for name in project.trials() if "Law" in name)
    assert "law: output/gather.law/all/sum" in (project.output / proof / "param").read_text()
    assert typed().started() == []


def test_groups_have_a_unit_each_and_wait_for_their_own_trials_alone(
    write: Callable[..., None], typed: Typed, project: Project
) -> None:
    write(", by: [size], where: {n: [1, 2]}", "[tiny, small]")
    (project.path / "value.1").write_text("4\n")
    assert typed().code == 0
    units = project.output / "gather.law"
    assert sorted(path.name for path in units.iterdir()) == ["Size_small", "Size_tiny"]
    assert [trial["name"] for trial in members(units / "Size_small")] == ["Size_small-N_1", "Size_small-N_2"]
    # One trial of a group is made anew: its group's gather is due again, and what reads that.
    (project.path / "value.1").write_text("5\n")
    shutil.rmtree(project.output / "Size_small-N_1")
    assert typed().started() == ["law Size_small", "train Size_small-N_0-Law_law_sum", "train Size_small-N_1"]


def test_what_reads_equal_contents_does_not_run_again(
    write: Callable[..., None], typed: Typed, project: Project
) -> None:
    write()
    assert typed().code == 0
    shutil.rmtree(project.output / "Size_tiny-N_2")
    assert typed().started() == ["law all", "train Size_tiny-N_2"]
    write(numbers="[1, 2, 3, 20, 30, 50]")  # the sum ends with the same digit
    assert typed().started() == ["law all", *(f"train Size_tiny-N_{n}" for n in (20, 30, 50))]
    write(numbers="[1, 2, 3, 20, 30, 50, 4]")
    assert "train Size_tiny-N_0-Law_law_sum" in typed().started()


@pytest.mark.parametrize("need", ["2", "60%"])
def test_enough_complete_trials_are_enough(
    write: Callable[..., None], typed: Typed, project: Project, need: str
) -> None:
    write(f", need: {need}")
    (project.path / "fail.2").touch()
    assert typed().code == 1
    assert [trial["parameters"]["n"] for trial in members(project.output / "gather.law" / "all")] == [1, 3]
    assert (project.output / "gather.law" / "all" / "sum").read_text() == "4\n"
    # Once the third is there, the gather reads three.
    (project.path / "fail.2").unlink()
    again = typed()
    assert again.code == 0
    assert again.started() == ["law all", "train Size_tiny-N_0-Law_law_sum", "train Size_tiny-N_2"]


def test_too_few_complete_trials_block_the_gather_and_what_reads_it_until_they_are_tried_again(
    write: Callable[..., None], typed: Typed, project: Project, until: Callable[..., None]
) -> None:
    write()
    (project.path / "fail.2").touch()
    said = typed()
    assert said.code == 1
    sentence = "2 of 3 trials are complete, needed are 3 (Size_tiny-N_2 failed)"
    assert f"BLOCK     law: 5/5, {sentence}, output/gather.law/all" in said.out
    assert "gather.law/all is blocked, output/Size_tiny-N_0-Law_law_sum" in said.out
    assert not (project.output / "gather.law").exists()
    shown = project.run("status").stdout  # without a daemon
    assert f"Blocked: gather.law/all\n  {sentence}" in shown
    assert "Blocked: Size_tiny-N_0-Law_law_sum\n  gather.law/all is blocked" in shown
    assert json.loads(project.run("status", "--json").stdout)["blocked"]["gather.law/all"] == sentence
    (project.path / "fail.2").unlink()
    assert typed().started() == ["law all", "train Size_tiny-N_0-Law_law_sum", "train Size_tiny-N_2"]


def test_a_gather_that_fails_blocks_what_reads_it_and_is_tried_again(
    write: Callable[..., None], typed: Typed, project: Project
) -> None:
    write()
    project.write("raise SystemExit('no convergence')", "sum.py")
    said = typed()
    assert said.code == 1
    assert "Failed: law, gather.law/all\n  no convergence" in said.out
    assert "gather.law/all failed, output/Size_tiny-N_0-Law_law_sum" in said.out
    write()
    assert typed().started() == ["law all", "train Size_tiny-N_0-Law_law_sum"]


def test_retry_takes_up_what_a_failed_trial_held_back(
    typed: Typed, project: Project, until: Callable[..., None]
) -> None:
    project.write(
        "template: {a: 'test ! -e fail.{n}', b: 'while test -e wait.{n}; do sleep 0.02; done'}\n"
        "resource: {cpu: 2}\ngather: {law: {cmd: 'true', of: s, where: {n: [1, 2]}}}\n"
        "---\n_title: s\nn: [1, 2, 3]\n---\n_title: t\n_after: law\nn: 4\n"
    )
    for name in ("fail.1", "wait.3"):
        (project.path / name).touch()
    run = project.start()
    until(lambda: (project.output / "N_3" / "stat").exists() and "b" in project.stat("N_3"), run.poll)
    until(lambda: "law: blocked" in typed("status", "--trials").out, lambda: (run.poll(), typed("status", "--trials")))
    told = typed("status").out  # with a daemon
    assert "Blocked: gather.law/all\n  1 of 2 trials are complete, needed are 2 (N_1 failed)" in told
    assert "Blocked: N_4\n  gather.law/all is blocked" in told
    (project.path / "fail.1").unlink()
    assert typed("retry", "N_1").code == 0
    until(lambda: typed("status", "N_4").out.count("finished") == 2, lambda: typed("status").out)
    (project.path / "wait.3").unlink()
    assert run.wait(timeout=30) == 0
    assert project.stat("gather.law/all") == {"law": "finished"}


def test_gathers_read_what_depends_on_gathers(typed: Typed, project: Project) -> None:
    project.write(
        "template: {go: 'cat {src} > {_output}/x'}\nresource: {cpu: 2}\n"
        "gather:\n  first: {cmd: 'echo 1 > {_output}/x', of: one}\n"
        "  second: {cmd: 'cat output/Src_first_x/x > {_output}/x', of: two}\n"
        "---\n_title: three\nsrc: '{_gather.second}/x'\n"
        "---\n_title: two\nsrc: '{_gather.first}/x'\n---\n_title: one\nsrc: [/dev/null]\n"
    )
    said = typed()
    assert said.code == 0, said.out
    starts = [line.rsplit("/", 1)[-1] for line in said.out.splitlines() if line.startswith("START")]
    assert starts == ["Src_dev_null", "all", "Src_first_x", "all", "Src_second_x"]
    assert (project.output / "Src_second_x" / "x").read_text() == "1\n"


@pytest.mark.parametrize(
    ("gather", "grids", "told"),
    [
        (LAW, f"{A}\nm: '{{_gather.law}}/f'", "line 3, gather.law.of: these wait for each other: law → a → law"),
        ("{law: {cmd: x, of: a}, fit: {cmd: x, of: b}}", f"{A}\n_after: fit\n---\n_title: b\n_after: law\nn: 2",
         "law → a → fit → b → law"),
        ("law: {cmd: x, of: b}", A, "gather.law.of: no grid has the title 'b'. Titles: a."),
        ("law: {cmd: x, of: curve}", "_title: curves\nn: 1", "Did you mean 'curves'? Titles: curves."),
        ("law: {cmd: x, of: a, by: [mm]}", f"{A}\nm: 2", "gather.law.by: a has no parameter 'mm'. Did you mean 'm'?"),
        ("law: {cmd: x, of: a, where: {m: 1}}", A, "gather.law.where.m: a has no parameter 'm'."),
        ("law: {cmd: x, of: a, where: {n: 2}}", A, "gather.law: no trial of a is one of `where`."),
        ("law: {cmd: x, of: a, need: 3}", A, "gather.law, need: 3 trials, but gather.law/all has 1."),
        ("law: {cmd: x, of: a, need: most}", A, "gather.law.need: 'most' is no such number; allowed: all"),
        ("law: {cmd: 'x {_trial}', of: a}", A, "gather.law.cmd: no value for {_trial}"),
        (LAW, f"{A}\n---\nn: '{{_gather.lwa}}'", "line 8, n: no gather 'lwa'. Did you mean 'law'?"),
        (LAW, f"{A}\n---\n_after: lwa\nn: 2", "_after: no gather 'lwa'. Did you mean 'law'?"),
        ("law: {cmd: x, of: a, by: [n]}", f"{A}\n---\nm: '{{_gather.law}}'\nn: 2",
         "line 8, m: M_law-N_2 needs gather.law/N_2, which there is not; the gather makes gather.law/N_1."),
        ("law: {cmd: x, of: a, by: [n], cmt: 1}", A, "gather.law.cmt: unknown key."),
        ("law: {cmd: x, of: a, prune: {metric: m, rungs: [1]}}", A, "only has a meaning for a stage of the template."),
        ("a: {cmd: x, of: a}", A, "gather.a: 'a' is the name of a stage or the title of a grid"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(
    typed: Typed, project: Project, capsys: pytest.CaptureFixture[str], gather: str, grids: str, told: str
) -> None:
    block = f"gather: {gather}\n" if gather.startswith("{") else f"gather:\n  {gather}\n"
    project.write(f"template: {{go: 'echo {{n}}'}}\n{block}---\n{grids}\n")
    said = typed()
    assert said.code == 2
    assert told in said.err
    assert not project.output.exists()


def test_a_part_of_the_file_runs_with_what_its_gathers_made_before(
    write: Callable[..., None], typed: Typed, project: Project
) -> None:
    write()
    missing = typed("-t", "proof")
    assert missing.code == 2
    assert "output/gather.law/all has not finished; `run` without -t, -c and -d makes it first." in missing.err
    assert typed("-t", "curves").started() == [f"train Size_tiny-N_{n}" for n in (1, 2, 3)]
    assert typed().started() == ["law all", "train Size_tiny-N_0-Law_law_sum"]
    assert typed("-t", "proof").started() == []
    (project.output / "gather.law" / "all" / "sum").write_text("7\n")
    assert typed("-t", "proof").started() == ["train Size_tiny-N_0-Law_law_sum"]


def test_the_first_trial_alone_needs_no_gather_that_others_wait_for(
    write: Callable[..., None], typed: Typed, project: Project
) -> None:
    write()
    assert typed("-d").code == 0
    assert [path.parent.name for path in project.output.glob("*/attempts")] == ["Size_tiny-N_1"]


def test_a_trial_that_waits_for_a_gather_over_itself_is_refused(typed: Typed, project: Project) -> None:
    project.write(
        "template: {train: 'true'}\nresource: {cpu: 2}\ngather: {law: {cmd: 'true', of: a}}\n"
        "---\n_title: a\nn: [1, 2]\n---\n_title: b\n_after: law\nn: [2, 3]\n"
    )
    for words in ((), ("check",)):
        said = typed(*words)
        assert said.code == 2
        assert "line 3, gather.law: these wait for each other: gather.law/all → N_2 → gather.law/all." in said.err
    assert not project.output.exists()


def test_a_part_runs_nothing_again_after_all_groups_of_a_gather(typed: Typed, project: Project) -> None:
    project.write(
        "template: {train: 'true'}\nresource: {cpu: 2}\ngather: {law: {cmd: 'true', of: a, by: [n]}}\n"
        "---\n_title: a\nn: [3, 1, 2]\n---\n_title: b\n_after: law\nn: 4\n"
    )
    assert "train N_4" in typed().started()
    assert typed("-t", "b").started() == typed("-c", "train").started() == typed().started() == []


def test_tools_take_no_gather_for_a_trial_and_find_it_by_its_name(
    write: Callable[..., None], typed: Typed, project: Project
) -> None:
    write()
    project.write(SUM + "print('fitted')\n", "sum.py")
    assert typed().code == 0
    rows = [json.loads(line) for line in typed("table", "--json").out.splitlines()]
    assert len(rows) == 4
    assert not any("gather" in json.dumps(row.get("name", "")) for row in rows)
    assert "gather.law/all   law: finished" in typed("status", "gather.law/all").out
    assert typed("logs", "output/gather.law/all").out == "fitted\n"
    states = {trial["name"]: trial["states"] for trial in json.loads(typed("status", "--json").out)["trials"]}
    assert states["gather.law/all"] == {"law": "finished"}


def test_a_gathers_command_is_shown_and_checked_before_it_runs(
    write: Callable[..., None], typed: Typed, project: Project
) -> None:
    write(", by: [size]")
    shown = [json.loads(line) for line in typed("--dry-run", "--json").out.splitlines()]
    assert shown[-1]["output"] == "output/gather.law/Size_tiny"
    assert shown[-1]["params"] == {"size": "tiny"}
    out = "output/gather.law/Size_tiny"
    assert shown[-1]["commands"] == {"law": f"python sum.py {out}/trials.jsonl {out}"}
    assert typed("check").code == 0
    assert not project.output.exists()
