"""What 10,000 trials on a batch system cost the machine that one logs in to.

    python -m bench.cluster [slurm] [--trials 10000] [--seconds 90]

All tasks are submitted as held, so that none begins. Printed: the time from typing `run --detach` until every array is
submitted; the share of a core that the daemon and its commands take while it looks at the queue every 15 s; and after a
kill the time until the next daemon has taken up all trials, and until it has seen them in the queue, with the processor
time that it needed until then. All is canceled at the end. The machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

RUN = str(Path(sys.executable).with_name("run"))
HOLD = {"slurm": "--hold", "sge": "-h"}
POLL_S = 15
_TICKS = os.sysconf("SC_CLK_TCK")
_SUBMITTED = re.compile(r"Submitted to \w+: job \S+, ([\d,]+) task")


def params_yaml(executor: str, count: int) -> str:
    """A grid of trials that are held."""
    told = {"poll": POLL_S, "time": "10m", "lines": [HOLD[executor]]}
    values = list(range(count))
    return f"executor: {json.dumps({executor: told})}\ntemplate: {{job: 'true {{n}}'}}\n---\nn: {json.dumps(values)}\n"


def run(directory: Path, *arguments: str) -> str:
    """Types `run`; returns what it says."""
    done = subprocess.run([RUN, *arguments], cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"run {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def submitted(directory: Path) -> int:
    """How many tasks the daemon has submitted."""
    log = (directory / "output/.runner/daemon.log").read_text()
    return sum(int(count.replace(",", "")) for count in _SUBMITTED.findall(log))


def daemon(directory: Path) -> int:
    """The daemon's pid."""
    return int(json.loads(run(directory, "status", "--json"))["daemon"]["pid"])


def cpu_s(pid: int) -> tuple[float, float]:
    """The processor time of a process, and that of the commands it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, children = sum(map(int, fields[11:13])), sum(map(int, fields[13:15]))
    return own / _TICKS, children / _TICKS


def wait(condition: Callable[[], object], limit_s: float = 300.0) -> None:
    """Waits until something holds."""
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"not reached within {limit_s:g} s")
        time.sleep(0.05)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("executor", nargs="?", default="slurm", choices=sorted(HOLD))
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=90.0, help="for how long the daemon is watched")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "params.yaml").write_text(params_yaml(given.executor, given.trials))
        try:
            measure(directory, given.trials, given.seconds)
        finally:
            run(directory, "stop")
            wait(lambda: json.loads(run(directory, "status", "--json"))["daemon"] is None)


def measure(directory: Path, count: int, seconds: float) -> None:
    """One line for each figure."""
    start = time.monotonic()
    run(directory, "--detach")
    typed_s = time.monotonic() - start
    wait(lambda: submitted(directory) == count)
    arrays = len(_SUBMITTED.findall((directory / "output/.runner/daemon.log").read_text()))
    show(f"{count:,} trials, `run --detach` returns", f"{typed_s:.1f} s")
    show(f"all submitted, {arrays} arrays", f"{time.monotonic() - start:.1f} s")

    pid = daemon(directory)
    time.sleep(POLL_S)  # the first look, and the end of the start
    (own, children), begin = cpu_s(pid), time.monotonic()
    time.sleep(seconds)
    passed, (own_after, children_after) = time.monotonic() - begin, cpu_s(pid)
    show(f"daemon, over {passed:.0f} s of waiting", f"{100 * (own_after - own) / passed:.2f} % of a core")
    show("its commands", f"{100 * (children_after - children) / passed:.2f} % of a core")

    os.kill(pid, signal.SIGKILL)
    start = time.monotonic()
    subprocess.run([sys.executable, "-P", "-m", "runner.serve", str(directory / "output")], check=True)
    show("killed; the next one has all trials after", f"{time.monotonic() - start:.1f} s")
    wait(lambda: re.search(f"waiting: {count:,} (JobHeld|h)", run(directory, "status")))
    show("and has seen them all in the queue after", f"{time.monotonic() - start:.1f} s")
    show("its processor time until then", f"{cpu_s(daemon(directory))[0]:.1f} s")
    if submitted(directory) != count:
        raise SystemExit("some were submitted twice")


def show(what: str, figure: str) -> None:
    """A line of the table."""
    print(f"{what:45} {figure:>20}", flush=True)


if __name__ == "__main__":
    main()
