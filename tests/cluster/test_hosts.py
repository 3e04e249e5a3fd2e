"""Hosts that are lost or cut off, and sites that lack something: no trial is lost, none runs twice at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.faultysite import FaultySite
    from tests.cluster.sge import GridEngine
    from tests.cluster.slurm import Slurm

    See = Callable[..., None]

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def test_a_trial_whose_host_lost_its_power_runs_on_the_other(
    site: FaultySite, system: Slurm | GridEngine, see: See
) -> None:
    site.write_trials(1)
    assert site.run("--detach").returncode == 0
    see(lambda: site.ledger()["begin 0"] == 1)
    host = (site.output / "N_0" / "host").read_text().strip()
    system.kill_node(host)
    try:
        see(lambda: site.ledger()["begin 0"] == 2)
        site.go()
        site.finish()
    finally:
        system.start_node(host)
    site.check(1, most=2)
    assert (site.output / "N_0" / "host").read_text().strip() != host
    assert [record["attempt"] for record in site.attempts("N_0", "start")] == [1, 2]


def test_the_copy_of_a_trial_that_is_cut_off_ends_before_the_next_begins(
    slurm_site: FaultySite, slurm: Slurm, see: See
) -> None:
    slurm_site.write_trials(1)
    assert slurm_site.run("--detach").returncode == 0
    see(lambda: slurm_site.ledger()["begin 0"] == 1)
    host = (slurm_site.output / "N_0" / "host").read_text().strip()
    slurm.cut_node(host)
    try:
        see(lambda: slurm_site.ledger()["begin 0"] == 2)
        lines = (slurm_site.output / "N_0" / "beats").read_text().split()
        see(lambda: (slurm_site.output / "N_0" / "beats").read_text().split()[len(lines) :].count("2") > 5)
        assert "1" not in (slurm_site.output / "N_0" / "beats").read_text().split()[lines.count("1") :]
        slurm_site.go()
        slurm_site.finish()
    finally:
        slurm.join_node(host)
        see(lambda: slurm.state(host) in ("idle", "mixed"))
    slurm_site.check(1, most=2)


# --- sites ---


def test_without_accounting_trials_end_as_their_records_say(
    slurm_without_accounting: Slurm, site_of: Callable[[Slurm], FaultySite]
) -> None:
    site = site_of(slurm_without_accounting)
    site.write_params("resource: {cpu: 1}\ntemplate: {a: 'exit {n}'}\n---\nn: [0, 3]\n")
    assert site.run().returncode == 1
    assert [site.stat(f"N_{n}") for n in (0, 3)] == [{"a": "finished"}, {"a": "failed"}]


def test_what_needs_too_much_memory_failed_for_that(
    slurm_with_cgroups: Slurm, site_of: Callable[[Slurm], FaultySite]
) -> None:
    site = site_of(slurm_with_cgroups)
    site.write_params(
        "resource: {cpu: 1}\ntemplate: {a: 'python -c \"print(len(bytearray(10**9)))\"'}\n---\nn: 0\n",
        memory="200MiB",
    )
    said = site.run()
    assert said.returncode == 1, said.stdout
    assert site.attempts("N_0", "end")[-1]["cause"] == "host-oom"
