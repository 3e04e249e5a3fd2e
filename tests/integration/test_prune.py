"""Trials that are ended early, as a user sees them."""

from __future__ import annotations

import sys

from tests.conftest import Project

PROGRAM = """
import signal, sys
out, loss = sys.argv[1:]
with open(f"{out}/metrics.csv", "w") as file:
    print("step,loss", file=file)
    print(f"10,{loss}", file=file, flush=True)
    if loss != "1":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
        signal.alarm(50)
        signal.pause()
    print(f"20,{loss}", file=file)
"""
PARAMS = f"""
template:
  train:
    cmd: {sys.executable} -S program.py {{_output}} {{loss}}
    prune: {{rungs: [10], keep: 1/3}}
  evaluate: "true"
resource: {{cpu: 3}}
gather:
  after:
    cmd: wc -l < {{_trials}} > {{_output}}/count; date >> {{_output}}/runs
    of: all
    need: 1
---
_title: all
loss: [3, 1, 2]
"""


def test_those_that_fall_behind_are_pruned_and_the_run_is_complete(project: Project) -> None:
    (project.path / "program.py").write_text(PROGRAM)
    project.write(PARAMS)
    done = project.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert project.stat("Loss_1") == {"train": "finished", "evaluate": "finished"}
    for name in ("Loss_2", "Loss_3"):
        assert project.stat(name) == {"train": "pruned", "evaluate": "pruned"}
    assert "fell behind, output/Loss_3" in done.stdout
    # What waits for them has waited for those that might still have been revived.
    gathered = project.output / "gather.after" / "all"
    assert (gathered / "count").read_text().strip() == "1"
    assert len((gathered / "runs").read_text().splitlines()) == 1
    waited = project.run("wait")
    assert waited.stdout == "No daemon works here: all is complete.\n"
    assert waited.returncode == 0
    again = project.run()
    assert again.returncode == 0
    assert "START" not in again.stdout
    assert project.run("status").stdout.count("pruned") == 1
    assert project.run("-o", "other", "--detach").returncode == 0
    assert project.run("wait", "-o", "other").returncode == 0


def test_what_a_decided_round_pruned_stays_in_its_search(project: Project) -> None:
    (project.path / "program.py").write_text(PROGRAM)
    project.write(PARAMS.replace("need: 1", "need: all").replace("_title: all", "_title: all\n_search: {next: 'true'}"))
    assert project.run().returncode == 0
    again = project.run()
    assert again.returncode == 0
    assert "START" not in again.stdout
    assert (project.output / "gather.after" / "all" / "count").read_text().strip() == "1"
    status = project.run("status").stdout
    assert "pruned" in status
    assert "earlier" not in status
    assert project.run("retry", "Loss_3").stdout == "Due again: 2 jobs of 1 trial.\n"
    assert project.run("wait").returncode == 0
    assert project.stat("Loss_3") == {"train": "pruned", "evaluate": "pruned"}


def test_a_wrong_rule_is_told_where_it_stands(project: Project) -> None:
    for rule, told in (
        ("{rungs: [10, 5]}", "line 4, template.train.prune.rungs: [10, 5] are no rungs; allowed: steps that rise."),
        ("{rungs: [10], keep: many}", "line 4, template.train.prune.keep: 'many' is no part; allowed: a number"),
        ("{rung: [10]}", "Allowed: keep, maximize, metric, rungs."),
    ):
        project.write(f"template:\n  train:\n    cmd: 'true'\n    prune: {rule}\n---\nloss: [3, 1]\n")
        done = project.run()
        assert done.returncode == 2
        assert told in done.stderr, done.stderr
        assert not project.output.exists()
