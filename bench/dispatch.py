"""The cost of one job: 500 against 3,000 trivial jobs, two at a time, on one core, beside other tools.

    python -m bench.dispatch [--repeats 5] [--mlrunner /path/to/python]

What is printed is the slope between the two sizes, so that starting a program does not count. The floor is a bare loop
that does only what nobody can leave out: a directory, a log, `param` and `stat` written, `bash -c` spawned, the exit
code written by that shell. A tool that is not installed is left out of the table, by name.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = (500, 3000)
SLOTS = 2


def params_yaml(count: int, resource: str) -> str:
    """A grid of `count` trivial jobs that either runner understands."""
    values = ", ".join(str(number) for number in range(count))
    return f"template:\n  job: 'true {{n}}'\nresource: {resource}\n---\nn: [{values}]\n"


def floor(directory: Path, count: int) -> None:
    """Two shells at a time, each with a directory, a log, an exit code, `param` and `stat`."""
    living = 0
    for number in range(count):
        if living == SLOTS:
            os.wait()
            living -= 1
        own = f"{directory}/n_{number}"
        os.mkdir(own)
        with open(f"{own}/param", "w") as file:
            file.write(f"n: {number}\n")
        with open(f"{own}/stat", "w") as file:
            file.write("job: running\n")
        log = os.open(f"{own}/log", os.O_WRONLY | os.O_CREAT, 0o666)
        script = f"true {number}; echo $? > {own}/exit"
        actions = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        os.posix_spawn("/bin/bash", ["bash", "-c", script], os.environ, file_actions=actions, setsid=True)
        os.close(log)
        living += 1
    for _ in range(living):
        os.wait()


def run_floor(directory: Path, count: int) -> None:
    """The floor in a process of its own, as the tools are."""
    subprocess.run([sys.executable, __file__, "--floor", str(count)], cwd=directory, check=True)


def run_ours(directory: Path, count: int) -> None:
    """`run`, from its console script's module."""
    (directory / "params.yaml").write_text(params_yaml(count, "{cpu: 2}"))
    code = "from runner.cli import main; raise SystemExit(main())"
    subprocess.run([sys.executable, "-c", code], cwd=directory, check=True, stdout=subprocess.DEVNULL)


def run_mlrunner(python: str, directory: Path, count: int) -> None:
    """mlrunner with two workers."""
    (directory / "params.yaml").write_text(params_yaml(count, "[0, 1]"))
    code = "from mlrunner.run import main; main()"
    subprocess.run([python, "-c", code], cwd=directory, check=True, stdout=subprocess.DEVNULL)


def run_xargs(directory: Path, count: int) -> None:
    """xargs: no directory, no log, no record."""
    lines = "".join(f"{number}\n" for number in range(count))
    command = ["xargs", "-P2", "-I{}", "bash", "-c", "true {}"]
    subprocess.run(command, input=lines, text=True, cwd=directory, check=True)


def run_parallel(directory: Path, count: int) -> None:
    """GNU parallel with a log of each job and a job log."""
    lines = "".join(f"{number}\n" for number in range(count))
    command = ["parallel", "--will-cite", "-j2", "--results", "logs", "--joblog", "joblog", "true {}"]
    subprocess.run(command, input=lines, text=True, cwd=directory, check=True, stdout=subprocess.DEVNULL)


def seconds(tool: Callable[[Path, int], None], count: int, parent: str) -> float:
    """Wall time of `count` jobs in a fresh directory."""
    directory = Path(tempfile.mkdtemp(dir=parent))
    start = time.perf_counter()
    tool(directory, count)
    return time.perf_counter() - start


def slope_ms(tool: Callable[[Path, int], None], parent: str) -> float:
    """Milliseconds that each further job costs."""
    few, many = (seconds(tool, count, parent) for count in SIZES)
    return (many - few) / (SIZES[1] - SIZES[0]) * 1e3


def measure(found: dict[str, Callable[[Path, int], None]], repeats: int, parent: str) -> dict[str, list[float]]:
    """The slopes of all tools, taken in turn, so that a machine that slows down slows all."""
    slopes: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(repeats):
        for name, tool in found.items():
            slopes[name].append(slope_ms(tool, parent))
    return slopes


def tools(mlrunner_python: str | None) -> dict[str, Callable[[Path, int], None]]:
    """What is installed here, the floor first; says what is not."""
    found: dict[str, Callable[[Path, int], None]] = {"floor": run_floor, "run": run_ours}
    if mlrunner_python:
        found["mlrunner"] = lambda directory, count: run_mlrunner(mlrunner_python, directory, count)
    if shutil.which("parallel"):
        found["GNU parallel"] = run_parallel
    if shutil.which("xargs"):
        found["xargs"] = run_xargs
    for name in ("mlrunner", "GNU parallel", "xargs"):
        if name not in found:
            print(f"{name}: not installed, left out")
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--mlrunner", metavar="PYTHON", help="a Python that has mlrunner installed")
    parser.add_argument("--directory", help="where the jobs' directories are made (default: the temporary directory)")
    parser.add_argument("--floor", type=int, metavar="COUNT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.floor is not None:
        floor(Path.cwd(), options.floor)
        return
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    found = tools(options.mlrunner)
    # Deleted only at the end: ext4 creates files slowly for a minute after many were deleted.
    with tempfile.TemporaryDirectory(prefix="dispatch-", dir=options.directory) as parent:
        slopes = measure(found, options.repeats, parent)
    print(f"{'':14}{'ms per job':>12}{'(min to max)':>18}{'x floor':>10}")
    for name, values in slopes.items():
        ratio = statistics.median(a / b for a, b in zip(values, slopes["floor"], strict=True))
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"{name:14}{statistics.median(values):12.2f}{spread:>18}{ratio:10.2f}")


if __name__ == "__main__":
    main()
