"""Faults of the runner and of a batch system's commands: no trial is lost, none runs twice at the same time."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.cluster.faultysite import DIES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.faultysite import FaultySite
    from tests.cluster.sge import GridEngine
    from tests.cluster.slurm import Slurm

    See = Callable[..., None]

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


# --- the runner ---


@pytest.mark.parametrize("fault", ["kill-and-leave", "kill-before", "kill-long-before", "kill-after"])
def test_a_daemon_killed_while_it_submits_neither_loses_trials_nor_submits_them_twice(
    site: FaultySite, fault: str
) -> None:
    site.write_trials(2)
    site.go()
    site.wrap(site.words.submit, fault)
    site.finish()
    site.check(2)
    assert site.submitted() == 1
    assert site.daemon_log().count("serving") == 2


def test_a_daemon_killed_at_each_step_of_a_submission_submits_each_trial_once(slurm_site: FaultySite, see: See) -> None:
    slurm_site.go()
    slurm_site.wrap("sbatch")
    number, said = slurm_site.path / "number", slurm_site.path / "died"
    (slurm_site.path / "hook").mkdir()
    (slurm_site.path / "hook" / "sitecustomize.py").write_text(DIES.format(number=str(number), said=str(said)))
    slurm_site.environment["PYTHONPATH"] = f"{slurm_site.path / 'hook'}:{slurm_site.environment.get('PYTHONPATH', '')}"
    count = 0
    while not number.exists():  # it was killed
        see(lambda: not slurm_site.daemons())
        count += 1
        number.write_text(str(count))
        slurm_site.write_trials(count)
        slurm_site.finish()
    slurm_site.check(count)
    assert slurm_site.submitted() == count
    steps = said.read_text().splitlines()
    assert len(steps) == count - 1
    assert {"os.mkdir run-", "os.rename batch.json.tmp", "subprocess.Popen sbatch", "os.rename job.tmp"} <= set(steps)


def test_a_daemon_killed_while_trials_run_takes_them_up_again(site: FaultySite, see: See) -> None:
    site.write_trials(2)
    site.wrap(site.words.submit)
    assert site.run("--detach").returncode == 0
    for _ in range(3):
        see(lambda: site.ledger()["begin 0"] == 1)
        for daemon in site.daemons():
            daemon.kill()
        see(lambda: not site.daemons())
        assert site.run("--detach").returncode == 0
    site.go()
    site.finish()
    site.check(2)
    assert site.submitted() == 1


def test_a_daemon_that_is_a_job_submits_the_next_when_its_time_is_over(site: FaultySite, see: See) -> None:
    site.write_trials(2)
    said = site.run("--submit", "1m")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "Submitted the daemon to" in said.stdout
    for count in (1, 2):
        see(lambda count=count: site.daemon_log().count("serving") == count)
        see(lambda: site.ledger()["begin 1"] == 1)
        if count == 1:
            (daemon,) = site.daemons()
            daemon.terminate()
    assert not site.run("status", "--json").returncode
    site.go()
    waited = site.run("wait")
    assert waited.returncode == 0, waited.stdout + waited.stderr
    site.check(2)
    see(lambda: not (site.output / ".runner" / "daemon.job").exists())
    see(lambda: not site.daemons())


# --- its commands ---


def test_jobs_that_a_killed_controller_forgot_are_submitted_again(
    slurm_site: FaultySite, slurm: Slurm, see: See
) -> None:
    slurm_site.write_trials(2)
    slurm_site.wrap("sbatch")
    assert slurm_site.run("--detach").returncode == 0
    see(lambda: "Submitted to slurm" in slurm_site.daemon_log())
    slurm.kill_controller()
    slurm.start_controller()
    slurm_site.go()
    slurm_site.finish()
    slurm_site.check(2, most=2)


def test_commands_that_fail_for_a_while_are_told_once_and_tried_again(site: FaultySite) -> None:
    site.write_trials(1)
    site.go()
    site.wrap(site.words.submit, "fail", "fail")
    said = site.run()
    assert said.returncode == 0, said.stdout
    assert said.stdout.count(site.words.fails.rpartition("error: ")[2]) == 1
    assert f"{site.place.name} takes jobs again." in said.stdout
    site.check(1)


def test_a_command_that_hangs_is_ended_and_what_it_did_is_found(slurm_site: FaultySite) -> None:
    slurm_site.write_trials(1)
    slurm_site.go()
    slurm_site.wrap("sbatch", "hang-after")
    said = slurm_site.run()
    assert said.returncode == 0, said.stdout
    assert "sbatch gave no answer within 60 s. It is asked again" in said.stdout
    slurm_site.check(1)
    assert slurm_site.submitted() == 1


def test_a_full_queue_is_waited_for_and_never_asked_for_more_than_it_holds(
    slurm_site: FaultySite, slurm: Slurm, see: See
) -> None:
    others = ["sbatch", "--parsable", "--qos=few", "--array=0-4", "--output=/dev/null", "--wrap=sleep 600"]
    job = slurm.call(*others).strip()
    slurm_site.write_trials(7, qos="few")  # five at a time
    slurm_site.go()
    assert slurm_site.run("--detach").returncode == 0
    see(lambda: "QOSMaxSubmitJobPerUserLimit" in slurm_site.daemon_log())
    slurm.call("scancel", job)
    slurm_site.finish()
    slurm_site.check(7)


def test_a_job_that_is_held_goes_on_when_it_is_released(site: FaultySite, system: Slurm | GridEngine, see: See) -> None:
    site.write_trials(1, lines=[*site.words.hold])
    site.go()
    assert site.run("--detach").returncode == 0
    see(lambda: "Submitted to" in site.daemon_log())
    see(lambda: site.words.held in site.run("status").stdout)
    assert not site.ledger()
    (record,) = (site.output / ".runner" / "batches").glob("*/job")
    job = json.loads(record.read_text())["job"]
    system.call(*site.words.release.format(job=job).split())
    site.finish()
    site.check(1)


def test_what_an_administrator_deletes_is_not_run_again(site: FaultySite, system: Slurm | GridEngine, see: See) -> None:
    site.write_trials(2, limit=1)
    process = site.start()
    see(lambda: site.ledger()["begin 0"] == 1)
    system.call(*site.words.cancel)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 1, output
    assert site.ledger() == Counter({"begin 0": 1})
    assert "CANCEL    a: 1/2, output/N_0" in output
    assert "CANCEL    a: 2/2, output/N_1" in output
    assert not site.living()


def test_without_accounting_what_was_deleted_while_its_script_starts_is_canceled(
    slurm_without_accounting: Slurm, site_of: Callable[..., FaultySite], see: See
) -> None:
    site = site_of(slurm_without_accounting)
    site.write_trials(1, setup="touch starts; sleep 600")
    process = site.start()
    see((site.path / "starts").exists)
    slurm_without_accounting.call(*site.words.cancel)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 1, output
    assert "CANCEL    a: 1/1, output/N_0" in output
    assert not site.ledger()


def test_a_task_that_took_too_much_memory_is_not_run_again(
    slurm_without_accounting: Slurm, site_of: Callable[..., FaultySite]
) -> None:
    site = site_of(slurm_without_accounting)
    site.write_params("resource: {cpu: 1}\ntemplate: {a: python hungry.py}\n---\nn: 0\n", lease="10s")
    site.write("import time\ntaken = b'x' * (300 << 20)\ntime.sleep(60)\n", "hungry.py")
    said = site.run()
    assert said.returncode == 1, said.stdout
    assert site.stat("N_0") == {"a": "failed"}
    (end,) = site.attempts("N_0", "end")
    assert end["cause"] == "host-oom"


def test_a_task_that_was_deleted_alone_while_it_waited_is_not_run(
    site: FaultySite, system: Slurm | GridEngine, see: See
) -> None:
    site.write_trials(4, limit=1)
    process = site.start()
    see(lambda: site.ledger()["begin 0"] == 1)
    (record,) = (site.output / ".runner" / "batches").glob("*/job")
    job = json.loads(record.read_text())["job"]
    system.call(*(["scancel", f"{job}_2"] if site.place.name == "slurm" else ["qdel", f"{job}.3"]))
    see(lambda: '"canceled": 1' in site.run("status", "--json").stdout)
    site.go()
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 1, output
    assert site.ledger() == Counter(f"{word} {n}" for word in ("begin", "end") for n in (0, 1, 3))
    assert "CANCEL    a: 3/4, output/N_2" in output
