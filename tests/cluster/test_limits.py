"""Trials whose allocation ends before they do: they save, and go on in another one."""

from __future__ import annotations

import datetime
import random
from typing import TYPE_CHECKING

import pytest

from tests.contract.conftest import Place, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cluster.slurm import Slurm

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

STEPS = (10, 20, 30)
# A training run that stays at some steps until it is asked to end, once at each.
PACED = f"""\
import os, pathlib, sys, time
from train import signals

stops = []
own = signals.Stop.install

def install(stop):
    stops.append(stop)
    return own(stop)

signals.Stop.install = install
from train.state import Run

train_step = Run.train_step

def paced_step(run, parts):
    train_step(run, parts)
    mark = pathlib.Path(os.environ["RUNNER_OUTPUT"], f"at.{{run.step}}")
    if run.step in {STEPS} and not mark.exists():
        mark.touch()
        while not stops[0]:
            time.sleep(0.05)

if sys.argv.pop(1) == "paced":
    Run.train_step = paced_step
from train.__main__ import main
sys.exit(main())
"""
PARAMS = """\
resource: {cpu: 1}
template:
  train: >
    python paced.py {pace} --out {_output} --data words.txt --steps 40 --warmup 5 --width 16 --heads 2 --context 16
    --batch 4 --log_every 5 --eval_every 20 --eval_examples 16 --checkpoint_every 15 --device cpu
---
pace: [paced, undisturbed]
"""
WORDS = ("learning", "rates", "decay", "because", "small", "steps", "average", "what", "warm", "starts", "need")


@pytest.fixture
def site(slurm: Slurm, tmp_path: Path) -> Iterator[Site]:
    """A directory whose trials run on Slurm."""
    site = Site(tmp_path, Place("slurm", slurm, slurm.environment))
    site.timeout_s = 200
    yield site
    site.clean_up()


def metrics(site: Site, name: str) -> list[list[str]]:
    """The lines of metrics.csv without the times."""
    lines = (site.output / name / "metrics.csv").read_text().splitlines()
    return [line.split(",")[:-2] for line in lines]


def test_training_that_its_time_limit_ends_three_times_equals_an_undisturbed_run(
    site: Site, slurm: Slurm, until: Callable[..., None]
) -> None:
    choice = random.Random(0)
    site.write(" ".join(choice.choice(WORDS) for _ in range(30_000)), "words.txt")
    site.write(PACED, "paced.py")
    site.write_params(PARAMS, time="10m", ahead="30s")
    assert site.run("--detach").returncode == 0
    for step in STEPS:
        until((site.output / "Pace_paced" / f"at.{step}").exists, site.daemon_log, 100)
        for job in slurm.call("squeue", "--noheader", "--states=running", "--format=%A").split():
            # Slurm looks at limits twice a minute: this one is told at its next look.
            end = datetime.datetime.now() + datetime.timedelta(seconds=60)
            slurm.call("scontrol", "update", f"jobid={job}", f"EndTime={end:%Y-%m-%dT%H:%M:%S}")
    waited = site.run("wait")
    assert waited.returncode == 0, waited.stdout + site.daemon_log()
    assert [record["exit_code"] for record in site.attempts("Pace_paced", "end")] == [75, 75, 75, 0]
    assert len(site.attempts("Pace_undisturbed", "end")) == 1
    assert metrics(site, "Pace_paced") == metrics(site, "Pace_undisturbed")


def test_a_program_that_its_time_limit_ends_without_progress_has_failed(site: Site) -> None:
    site.write_params(
        "resource: {cpu: 1}\ntemplate: {a: 'sleep 600'}\n---\nn: 0\n", partition="short", time="1m", ahead="30s"
    )
    said = site.run()
    assert said.returncode == 1, said.stdout
    assert site.stat("N_0") == {"a": "timeout"}
    (end,) = site.attempts("N_0", "end")
    assert end["cause"] == "timeout"


def test_a_trial_that_is_preempted_goes_on_in_another_allocation(
    site: Site, slurm: Slurm, until: Callable[..., None]
) -> None:
    site.write(
        "import pathlib, signal, sys, time\n"
        "here = pathlib.Path(sys.argv[1])\n"
        "def save(*_):\n    (here / 'saved').touch()\n    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "(here / 'begun').touch()\n"
        "if not (here / 'saved').exists():\n    time.sleep(600)\n",
        "program.py",
    )
    site.write_params(
        "resource: {cpu: 1}\ntemplate: {a: 'python program.py {_output}'}\n---\nn: 0\n", partition="low", time="10m"
    )
    assert site.run("--detach").returncode == 0
    until((site.output / "N_0" / "begun").exists, site.daemon_log, 100)
    host = slurm.call("squeue", "--noheader", "--states=running", "--format=%N").strip()
    words = ["--partition=high", f"--nodelist={host}", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"]
    slurm.call("sbatch", *words)
    waited = site.run("wait")
    assert waited.returncode == 0, waited.stdout + site.daemon_log()
    assert [record["exit_code"] for record in site.attempts("N_0", "end")] == [75, 0]
