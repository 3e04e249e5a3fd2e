"""A greedy search as a user types it: rounds, checkpoints, the schedule, and what a second `run` does."""

from __future__ import annotations

import json
import sys

from tests.conftest import Project

PROGRAM = """
import math, pathlib, sys
out, begin, steps, lr1, lr2, origin = sys.argv[1:]
out, best = pathlib.Path(out), {"10": 1e-2, "20": 2e-2}[steps]
if origin != "None":
    assert pathlib.Path(origin).read_text() == begin, origin
if float(lr2) == 1:
    sys.exit(76)
loss = 2 + abs(math.log10(max(float(lr2), 1e-6) / best))
(out / "metrics.csv").write_text(f"step,lr,loss\\n{steps},{lr2},{loss}\\n")
(out / "checkpoints").mkdir()
(out / "checkpoints" / f"{steps}.pt").write_text(steps)
"""
PARAMS = f"""
template:
  train: {sys.executable} -S program.py {{_output}} {{begin}} {{steps}} {{lr1}} {{lr2}} {{init_from}}
default: {{begin: 0, lr1: 0.0, init_from: null}}
resource: {{cpu: 2}}
---
_title: greedy
_search: {{next: {sys.executable} -m runner.search.greedy --segments 2 --steps 20 --delete-losers}}
steps: 10
lr2: [1e0, 1e-1, 1e-2, 1e-3]
"""


def test_a_greedy_search_from_one_file_to_its_schedule(project: Project) -> None:
    (project.path / "program.py").write_text(PROGRAM)
    project.write(PARAMS)
    done = project.run()
    # One candidate diverges, and is told as a failure of the run.
    assert done.returncode == 1, done.stdout + done.stderr
    last = project.output / "search.greedy" / "round_2"
    assert json.loads((last / "schedule.json").read_text()) == {"knots": [[0, 0.0], [10, 0.01], [20, 0.02]]}
    assert (last / "search.png").stat().st_size > 0
    # The first segment's losers have lost their checkpoints.
    assert len(list(project.output.glob("*/checkpoints/10.pt"))) == 1
    assert len(list(project.output.glob("*/checkpoints/20.pt"))) == 6
    why = json.loads((project.output / "search.greedy" / "round_1" / "decision.json").read_text())["why"]
    assert why.startswith("round 1, segment 1 of 2: lr2 0.01 with a loss of 2.0000 of 3 candidates; left out: lr2 1 (")
