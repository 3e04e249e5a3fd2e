"""A user's directory on a batch system in which things go wrong."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from tests.contract.conftest import Site

# Each attempt keeps a ledger, and says so when another one of its trial is at work, wherever that is.
JOB = """\
exec 9> $RUNNER_OUTPUT/busy
flock -n 9 || echo twice $1 >> ledger
hostname > $RUNNER_OUTPUT/host
echo begin $1 >> ledger
until test -e go; do sleep 0.1; echo $RUNNER_ATTEMPT >> $RUNNER_OUTPUT/beats; done
echo end $1 >> ledger
"""
# A command of a batch system before which something happens to the daemon that calls it, or to itself; each time
# another line of `faults` says what.
WRAPPER = """\
#!/bin/bash
read -r fault < {path}/faults.{name}
sed -i 1d {path}/faults.{name}
case $fault in
  kill-and-leave) kill -9 $PPID; exit 1 ;;
  kill-before) kill -9 $PPID; sleep 0.1 ;;
  kill-long-before) kill -9 $PPID; sleep 3 ;;
  fail) echo "{says}" >&2; exit 1 ;;
esac
{real} "$@" > {path}/said.{name}.$$
code=$?
echo {name} $code >> {path}/called
test "$fault" = kill-after && kill -9 $PPID
test "$fault" = hang-after && sleep 600
cat {path}/said.{name}.$$
exit $code
"""


# It ends the daemon in the middle of a submission: before the operation whose number stands in the file, which is told.
DIES = """\
import os, signal, sys
number, said = {number!r}, {said!r}
AT = ("os.mkdir", "open", "os.rename", "subprocess.Popen", "os.remove", "os.rmdir")

def look(event, arguments):
    global left
    told = str(arguments[:2])
    if event in AT and ("/.runner/batches/" in told or "sbatch" in told):
        left -= 1
        if left == 0:
            os.unlink(number)
            with open(said, "a") as file:
                what = os.path.basename(str(arguments[0]))
                file.write(f"{{event}} {{what[:4] if what.startswith('run-') else what}}\\n")
            os.kill(os.getpid(), signal.SIGKILL)

if "runner.serve" in sys.orig_argv and os.path.exists(number):
    left = int(open(number).read())
    sys.addaudithook(look)
"""


@dataclass(frozen=True)
class Words:
    """How a batch system's commands are called, and what they say."""

    submit: str
    fails: str  # what it says when its controller is down
    cancel: tuple[str, ...]
    hold: tuple[str, ...]
    release: str
    held: str  # the reason that the runner tells


WORDS = {
    "slurm": Words(
        "sbatch",
        "sbatch: error: Unable to contact slurm controller (connect failure)",
        ("scancel", "--user=root"),
        ("--hold",),
        "scontrol release {job}",
        "JobHeld",
    ),
    "sge": Words(
        "qsub",
        "error: commlib error: got select error (Connection refused)",
        ("qdel", "-u", "root"),
        ("-h",),
        "qrls {job}",
        "held (hqw)",
    ),
}


class FaultySite(Site):
    """A directory in which things go wrong."""

    @property
    def words(self) -> Words:
        """Those of its batch system."""
        return WORDS[self.place.name]

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
        """Puts a wrapper before a command; the daemons that are started from now on find it."""
        (self.path / "bin").mkdir(exist_ok=True)
        wrapper = self.path / "bin" / name
        (self.path / f"faults.{name}").write_text("".join(f"{fault}\n" for fault in faults))
        says = self.words.fails
        wrapper.write_text(WRAPPER.format(path=self.path, name=name, says=says, real=shutil.which(name)))
        wrapper.chmod(0o755)
        if not self.environment["PATH"].startswith(f"{self.path}/bin:"):
            self.environment["PATH"] = f"{self.path}/bin:{self.environment['PATH']}"

    def ledger(self) -> Counter[str]:
        """What the attempts wrote, line by line."""
        path = self.path / "ledger"
        return Counter(path.read_text().splitlines() if path.exists() else ())

    def submitted(self) -> int:
        """How often an array was taken."""
        return (self.path / "called").read_text().splitlines().count(f"{self.words.submit} 0")

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
