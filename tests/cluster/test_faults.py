"""Faults of the runner, of Slurm and of its hosts: no trial is lost, none runs twice at the same time."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.conftest import Place, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cluster.slurm import Slurm

    See = Callable[..., None]

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

# Each attempt keeps a ledger, and says so when another one of its trial is at work, wherever that is.
JOB = """\
exec 9> $RUNNER_OUTPUT/busy
flock -n 9 || echo twice $1 >> ledger
hostname > $RUNNER_OUTPUT/host
echo begin $1 >> ledger
until test -e go; do sleep 0.1; echo $RUNNER_ATTEMPT >> $RUNNER_OUTPUT/beats; done
echo end $1 >> ledger
"""
# A command of Slurm before which something happens to the daemon that calls it, or to itself; each time another line of
# `faults` says what.
WRAPPER = """\
#!/bin/bash
read -r fault < {path}/faults.{name}
sed -i 1d {path}/faults.{name}
case $fault in
  kill-and-leave) kill -9 $PPID; exit 1 ;;
  kill-before) kill -9 $PPID; sleep 0.1 ;;
  kill-long-before) kill -9 $PPID; sleep 3 ;;
  fail) echo "{name}: error: Unable to contact slurm controller (connect failure)" >&2; exit 1 ;;
esac
{real} "$@" > {path}/said.{name}.$$
code=$?
echo {name} $code >> {path}/called
test "$fault" = kill-after && kill -9 $PPID
cat {path}/said.{name}.$$
exit $code
"""


class FaultySite(Site):
    """A directory in which things go wrong."""

    def write_trials(self, count: int, **keys: Any) -> None:
        """So many trials that wait for the file `go`."""
        self.write(JOB, "job.sh")
        self.write_params(
            f"resource: {{cpu: 1}}\ntemplate: {{a: 'bash job.sh {{n}}'}}\n---\nn: {[*range(count)]}\n",
            **{"lease": "10s", **keys},
        )

    def go(self) -> None:
        """Lets the trials come to their ends."""
        (self.path / "go").touch()

    def wrap(self, name: str, *faults: str) -> None:
        """Puts a wrapper before a command of Slurm; the daemons that are started from now on find it."""
        (self.path / "bin").mkdir(exist_ok=True)
        wrapper = self.path / "bin" / name
        (self.path / f"faults.{name}").write_text("".join(f"{fault}\n" for fault in faults))
        wrapper.write_text(WRAPPER.format(path=self.path, name=name, real=shutil.which(name)))
        wrapper.chmod(0o755)
        if not self.environment["PATH"].startswith(f"{self.path}/bin:"):
            self.environment["PATH"] = f"{self.path}/bin:{self.environment['PATH']}"

    def ledger(self) -> Counter[str]:
        """What the attempts wrote, line by line."""
        path = self.path / "ledger"
        return Counter(path.read_text().splitlines() if path.exists() else ())

    def submitted(self) -> int:
        """How often sbatch took something."""
        return (self.path / "called").read_text().splitlines().count("sbatch 0")

    def finish(self) -> None:
        """Types `run` until all is done."""
        for _ in range(5):
            said = self.run()
            assert "Traceback" not in said.stdout + said.stderr, said.stdout + said.stderr
            if said.returncode == 0:
                return
        pytest.fail(f"it still says:\n{said.stdout}{said.stderr}\n{self.daemon_log()}")

    def check(self, count: int, most: int = 1) -> None:
        """Each trial is complete, was begun at most so often, and never twice at the same time."""
        ledger = self.ledger()
        assert not [line for line in ledger if line.startswith("twice")]
        assert [ledger[f"end {n}"] for n in range(count)] == [1] * count
        assert max(ledger[f"begin {n}"] for n in range(count)) <= most
        assert [self.stat(f"N_{n}") for n in range(count)] == [{"a": "finished"}] * count


@pytest.fixture
def site_of(tmp_path: Path) -> Iterator[Callable[[Slurm], FaultySite]]:
    """A directory whose trials run on a Slurm."""
    made = []

    def make(system: Slurm) -> FaultySite:
        made.append(FaultySite(tmp_path, Place("slurm", system, system.environment)))
        made[-1].timeout_s = 200
        return made[-1]

    yield make
    for site in made:
        site.clean_up()


@pytest.fixture
def site(slurm: Slurm, site_of: Callable[[Slurm], FaultySite]) -> FaultySite:
    """A directory whose trials run on the Slurm that all tests share."""
    return site_of(slurm)


@pytest.fixture
def see(site_of: Callable[..., FaultySite], tmp_path: Path, until: Callable[..., None]) -> Callable[..., None]:
    """Waits for what comes in its time; tells the daemon's log when it does not come."""
    log = tmp_path / "output" / ".runner" / "daemon.log"

    def see(condition: Callable[[], bool], timeout_s: float = 100.0) -> None:
        until(condition, lambda: log.read_text() if log.exists() else "no daemon", timeout_s)

    return see


# --- the runner ---


@pytest.mark.parametrize("fault", ["kill-and-leave", "kill-before", "kill-long-before", "kill-after"])
def test_a_daemon_killed_while_it_submits_neither_loses_trials_nor_submits_them_twice(
    site: FaultySite, fault: str
) -> None:
    site.write_trials(2)
    site.go()
    site.wrap("sbatch", fault)
    site.finish()
    site.check(2)
    assert site.submitted() == 1
    assert site.daemon_log().count("serving") == 2


def test_a_daemon_killed_while_trials_run_takes_them_up_again(site: FaultySite, see: See) -> None:
    site.write_trials(2)
    site.wrap("sbatch")
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


# --- Slurm ---


def test_jobs_that_a_killed_controller_forgot_are_submitted_again(site: FaultySite, slurm: Slurm, see: See) -> None:
    site.write_trials(2)
    site.wrap("sbatch")
    assert site.run("--detach").returncode == 0
    see(lambda: "Submitted to slurm" in site.daemon_log())
    slurm.kill_controller()
    slurm.start_controller()
    site.go()
    site.finish()
    site.check(2, most=2)


def test_commands_that_fail_for_a_while_are_told_once_and_tried_again(site: FaultySite) -> None:
    site.write_trials(1)
    site.go()
    site.wrap("sbatch", "fail")
    said = site.run()
    assert said.returncode == 0, said.stdout
    assert said.stdout.count("Unable to contact slurm controller") == 1
    assert "slurm takes jobs again." in said.stdout
    site.check(1)


def test_a_full_queue_is_waited_for(site: FaultySite, slurm: Slurm, see: See) -> None:
    others = ["sbatch", "--parsable", "--qos=few", "--array=0-4", "--output=/dev/null", "--wrap=sleep 600"]
    job = slurm.call(*others).strip()
    site.write_trials(2, qos="few")
    site.go()
    assert site.run("--detach").returncode == 0
    see(lambda: "QOSMaxSubmitJobPerUserLimit" in site.daemon_log())
    slurm.call("scancel", job)
    site.finish()
    site.check(2)


def test_a_job_that_is_held_goes_on_when_it_is_released(site: FaultySite, slurm: Slurm, see: See) -> None:
    site.write_trials(1, lines=["--hold"])
    site.go()
    assert site.run("--detach").returncode == 0
    see(lambda: "Submitted to slurm" in site.daemon_log())
    see(lambda: "JobHeldUser" in slurm.call("squeue", "--noheader", "--format=%r"))
    see(lambda: "JobHeld" in site.run("status").stdout)
    (job,) = slurm.call("squeue", "--noheader", "--format=%F").split()
    slurm.call("scontrol", "release", job)
    site.finish()
    site.check(1)


def test_what_an_administrator_deletes_is_not_run_again(site: FaultySite, slurm: Slurm, see: See) -> None:
    site.write_trials(2, limit=1)
    process = site.start()
    see(lambda: site.ledger()["begin 0"] == 1)
    slurm.call("scancel", "--user=root")
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 1, output
    assert site.ledger() == Counter({"begin 0": 1})
    assert "CANCEL    a: 1/2, output/N_0" in output
    assert "CANCEL    a: 2/2, output/N_1" in output
    assert not site.living()


# --- hosts ---


def test_a_trial_whose_host_lost_its_power_runs_on_the_other(site: FaultySite, slurm: Slurm, see: See) -> None:
    site.write_trials(1)
    assert site.run("--detach").returncode == 0
    see(lambda: site.ledger()["begin 0"] == 1)
    host = (site.output / "N_0" / "host").read_text().strip()
    slurm.kill_node(host)
    try:
        see(lambda: site.ledger()["begin 0"] == 2)
        site.go()
        site.finish()
    finally:
        slurm.start_node(host)
    site.check(1, most=2)
    assert (site.output / "N_0" / "host").read_text().strip() != host
    assert [record["attempt"] for record in site.attempts("N_0", "start")] == [1, 2]


def test_the_copy_of_a_trial_that_is_cut_off_ends_before_the_next_begins(
    site: FaultySite, slurm: Slurm, see: See
) -> None:
    site.write_trials(1)
    assert site.run("--detach").returncode == 0
    see(lambda: site.ledger()["begin 0"] == 1)
    host = (site.output / "N_0" / "host").read_text().strip()
    slurm.cut_node(host)
    try:
        see(lambda: site.ledger()["begin 0"] == 2)
        lines = (site.output / "N_0" / "beats").read_text().split()
        see(lambda: (site.output / "N_0" / "beats").read_text().split()[len(lines) :].count("2") > 5)
        assert "1" not in (site.output / "N_0" / "beats").read_text().split()[lines.count("1") :]
        site.go()
        site.finish()
    finally:
        slurm.join_node(host)
        see(lambda: slurm.state(host) in ("idle", "mixed"))
    site.check(1, most=2)


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
