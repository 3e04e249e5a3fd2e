"""SIGKILL at random moments in a search of three rounds: the same rounds and decisions as when nothing disturbs it."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.crash.conftest import Site

pytestmark = [pytest.mark.crash, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("RUNNER_KILLS", "60")) // 12
FILE = """\
template: {train: 'bash train.sh {x} {_output}'}
resource: {cpu: 2}
gather: {best: {cmd: 'sort {_trials} > {_output}/best', of: greedy}}
---
_title: greedy
_search: {next: python3 next.py, rounds: 5}
x: [1, 4]
---
_title: last
_after: best
x: 0
"""
TRAIN = """\
sleep 0.2
printf 'step,loss\\n1,%s\\n' $(( ($1 - 6) * ($1 - 6) )) > $2/metrics.csv
"""
# Goes on around the best with half the step, and with a random number that depends on the round alone.
NEXT = """\
import json, os, random, sys
number = int(os.environ["RUNNER_ROUND"])
trials = [json.loads(line) for line in sys.stdin]
best = min(trials, key=lambda trial: trial["metrics"]["loss"])["parameters"]["x"]
step = 4 // 2**number
if step:
    print(f"x: [{best - step}, {best + step}, {random.Random(number).randrange(100, 200)}]\\n_why: {best} is best")
"""


def outcome(site: Site) -> list[dict[str, Any]]:
    """What each decision read and chose, without what differs from run to run."""
    found = []
    for path in sorted(site.output.glob("search.*/*/decision.json")):
        record = json.loads(path.read_text())
        rows = [
            {key: row[key] for key in ("id", "name", "parameters", "state", "round", "metrics")}
            for row in record["read"]
        ]
        found.append({key: record[key] for key in ("round", "grid", "why", "ended", "inputs")} | {"read": rows})
    return found


def completions(site: Site) -> Counter[tuple[str, str]]:
    """How often each job, those of the units among them, has recorded that it is complete.

    A decision that was under way when `run` was typed stands, and plans its round once more: it counts as one.
    """
    names = [str(path.parent.relative_to(site.output)) for path in site.output.rglob("attempts")]
    found = Counter(
        (name, record["stage"])
        for name in names
        for record in site.project.attempts(name, "exit")
        if record["exit_code"] == 0
    )
    return Counter({job: 1 if job[1] == "decide" else count for job, count in found.items()})


@pytest.mark.parametrize("victim", ["daemon", "client", "everything"])
def test_kill_9_at_random_moments_of_a_search(site: Site, victim: str, until: Callable[..., None]) -> None:
    choice = random.Random(seed := random.randrange(10**6))
    site.project.write(FILE)
    site.project.write(TRAIN, "train.sh")
    site.project.write(NEXT, "next.py")
    kill = {"daemon": site.kill_daemon, "client": site.kill_clients, "everything": site.kill_everything}[victim]
    began = time.monotonic()
    assert site.finish() == 1
    length_s = time.monotonic() - began
    site.wait_until_left()
    undisturbed, jobs = outcome(site), completions(site)
    assert len(undisturbed) == 3
    assert len(jobs) == 8 + 3 + 1 + 1  # trials, decisions, the gather and what waits for it
    kills = typed = 0
    while kills < KILLS:
        site.begin_anew()
        run = site.type()
        for _ in range(3):
            time.sleep(choice.uniform(0.0, length_s / 2))  # the moment is what is tested
            if run.is_over and run.wait() == 0:
                break
            kills += bool(kill())
            if victim != "daemon" or run.is_over:
                run = site.type()
                typed += 1
        typed += site.finish()
        site.wait_until_left()
        site.check_whole()
        assert outcome(site) == undisturbed, f"seed {seed}"
        assert completions(site) == jobs, f"seed {seed}"
        assert not site.project.living()
    print(f"{victim}: {kills} kills, `run` typed {typed} times; the same {len(undisturbed)} decisions each time")
