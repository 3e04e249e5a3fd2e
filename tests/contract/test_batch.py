"""What only batch systems are told: set-up commands, a user's own script, GPUs, what they refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.contract.conftest import SYSTEMS, batch_place

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.conftest import Place, Site

ONE = "resource: {cpu: 1}\ntemplate:\n  a: echo $MADE $RUNNER_STAGE\n  b: 'true'\n---\nn: 0\n"


@pytest.fixture(params=SYSTEMS, scope="module")
def place(request: pytest.FixtureRequest) -> Place:
    """Each batch system in turn."""
    return batch_place(request)


def test_set_up_commands_come_before_the_trials_own(site: Site) -> None:
    site.write_params(ONE, setup=["export MADE='by set-up'", "true"])
    said = site.run()
    assert said.returncode == 0, said.stdout + said.stderr
    assert site.log("N_0", "a") == "by set-up a\n"


def test_a_set_up_command_that_fails_is_told(site: Site) -> None:
    site.write_params(ONE, setup=["module-that-is-not-there load x"])
    said = site.run()
    assert said.returncode == 1
    assert "setup: module-that-is-not-there load x failed with exit code 127" in said.stdout
    assert "START" not in said.stdout


def test_a_users_own_script_runs_the_trial_where_it_says(site: Site) -> None:
    mark = "#SBATCH --comment=own" if site.place.name == "slurm" else "#$ -ac own=1"
    site.write(f"#!/bin/bash\n{mark}\nexport MADE=mine\n{{_task}}\necho after >> after\n", "own.sh")
    site.write_params(ONE, script="own.sh")
    said = site.run()
    assert said.returncode == 0, said.stdout + said.stderr
    assert site.log("N_0", "a") == "mine a\n"


def test_what_is_refused_fails_at_once_with_the_systems_own_word(site: Site) -> None:
    key = {"slurm": "partition", "sge": "queue"}[site.place.name]
    site.write_params(ONE, **{key: "nowhere"})
    said = site.run()
    assert said.returncode == 1
    reason = {
        "slurm": "Invalid partition name specified",
        "sge": 'requests unknown queue "nowhere"',
    }
    assert reason[site.place.name] in said.stdout
    assert "START" not in said.stdout
    assert site.states()["N_0"] in ({"a": "failed", "b": "blocked"}, {"a": "pending", "b": "pending"})


def test_a_stage_has_the_gpus_that_it_asks_for(site: Site, until: Callable[..., None]) -> None:
    # All at once: none is given to two of them.
    site.write_params(
        "template:\n"
        + "".join(
            f"  s{gpus}: {{cmd: 'echo ${{CUDA_VISIBLE_DEVICES-none}} > {{_output}}/gpus; hostname > {{_output}}/host; "
            f"until test $(cat output/*/host | wc -l) = 4; do sleep 0.1; done', gpus: {gpus}}}\n"
            for gpus in (0, 1, 2)
        )
        + "---\n_cmd: s0\nn: [0]\n---\n_cmd: s1\nn: [10, 11]\n---\n_cmd: s2\nn: [2]\n"
    )
    said = site.run()
    assert said.returncode == 0, said.stdout + said.stderr
    told = {name: (site.output / name / "gpus").read_text().strip() for name in site.trials()}
    hosts = {name: (site.output / name / "host").read_text().strip() for name in site.trials()}
    if site.place.name == "sge":  # counts them, and names none
        assert set(told.values()) == {"none"}
    else:
        assert (told["N_0"], told["N_2"]) == ("none", "0,1")
        assert {told["N_10"], told["N_11"]} == {"0", "1"}
    assert hosts["N_10"] == hosts["N_11"] != hosts["N_2"]
