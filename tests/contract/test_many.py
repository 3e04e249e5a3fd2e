"""Many trials, some at once in one task, and what depends on others."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess

    from tests.contract.conftest import Place, Site

TRIALS = 200


@pytest.mark.timeout(300)  # minutes where the cores of the batch system's hosts are two in truth
def test_two_hundred_trials_run_in_arrays_no_larger_than_the_site_takes(site: Site, place: Place) -> None:
    site.timeout_s = 250
    site.write_params(
        f"resource: {{cpu: 4}}\ntemplate: {{a: 'echo {{n}} >> ledger'}}\n---\nn: {[*range(TRIALS)]}\n",
        pack=8,
    )
    said = site.run() if place.system is None else limited(site, place)
    assert said.returncode == 0, said.stdout[-2000:]
    assert Counter((site.path / "ledger").read_text().split()) == Counter(map(str, range(TRIALS)))
    assert len(site.trials()) == TRIALS
    if place.is_batch:
        submitted = [line for line in said.stdout.splitlines() if line.startswith("Submitted to")]
        assert [line.split(", ")[1] for line in submitted] == ["5 tasks."] * 5
    again = site.run()
    assert (again.returncode, again.stdout.count("SKIP")) == (0, TRIALS)


def limited(site: Site, place: Place) -> subprocess.CompletedProcess[str]:
    """`run` while the site takes arrays of five tasks at most."""
    assert place.system is not None
    with place.system.small_arrays(5):
        return site.run()


def test_packed_trials_run_at_the_same_time_in_one_task(site: Site, place: Place) -> None:
    # Each waits until all three of its task have begun.
    site.write_params(
        "resource: {cpu: 3}\n"
        "template:\n  a: 'touch at.{n}; until test $(ls at.{third}?  | wc -l) = 3; do sleep 0.05; done; "
        "echo $SLURM_JOB_ID $SGE_TASK_ID'\n"
        "---\nthird: ['0']\nn: ['00', '01', '02']\n---\nthird: ['1']\nn: ['10', '11', '12']\n",
        pack=3,
    )
    said = site.run()
    assert said.returncode == 0, said.stdout + said.stderr
    if place.is_batch:
        assert "2 tasks." in said.stdout
        assert len({site.log(trial, "a") for trial in site.trials()}) == 2


def test_a_gather_waits_for_its_trials_and_later_trials_for_it(site: Site) -> None:
    site.write(
        "import json, pathlib, sys\n"
        "trials = [json.loads(line) for line in open(sys.argv[1])]\n"
        "total = sum(int(pathlib.Path(trial['directory'], 'value').read_text()) for trial in trials)\n"
        "pathlib.Path(sys.argv[2], 'sum').write_text(f'{total}\\n')\n",
        "sum.py",
    )
    site.write_params(
        "resource: {cpu: 2}\n"
        "template: {train: 'cat value.{n} > {_output}/value || echo {n} > {_output}/value'}\n"
        "default: {law: none}\n"
        "gather:\n  law: {cmd: 'python sum.py {_trials} {_output}', of: curves}\n"
        "---\n_title: curves\nn: [1, 2, 3]\n---\n_title: proof\nn: [0]\nlaw: '{_gather.law}/sum'\n"
    )
    said = site.run()
    assert said.returncode == 0, said.stdout + said.stderr
    order = [line.split(", ")[1].split(":")[0] for line in said.stdout.splitlines() if line.startswith("START")]
    assert order == ["train"] * 3 + ["law", "train"]
    assert (site.output / "gather.law" / "all" / "sum").read_text() == "6\n"


def test_each_round_of_a_search_comes_from_the_results_of_those_before(site: Site) -> None:
    site.write(
        "loss=$(( $1 > 6 ? $1 - 6 : 6 - $1 ))\nprintf 'step,loss\\n1,%s\\n' $loss > $2/metrics.csv\n", "train.sh"
    )
    site.write(
        "import json, os, sys\n"
        "trials = [json.loads(line) for line in sys.stdin]\n"
        "best = min(trials, key=lambda trial: trial['metrics']['loss'])['parameters']['x']\n"
        "if os.environ['RUNNER_ROUND'] == '1':\n    print(f'x: [{best - 2}, {best + 2}]')\n",
        "next.py",
    )
    site.write_params(
        "resource: {cpu: 2}\ntemplate: {train: 'bash train.sh {x} {_output}'}\n"
        "---\n_title: near\n_search: {next: python next.py, rounds: 3}\nx: [1, 4]\n"
    )
    said = site.run()
    assert said.returncode == 0, said.stdout + said.stderr
    assert [name for name in site.trials() if name.startswith("X_")] == ["X_1", "X_2", "X_4", "X_6"]
