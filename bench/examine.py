"""The cost of reading results: the wide table of many trials, beside mlrunner's Examiner.

    python -m bench.examine [--sizes 10000 100000] [--repeat 3] [--peer VENV/bin/python]

Every trial has ten parameters, two finished stages and a metrics.csv of 200 rows with three metrics. Each reading is
a process of its own, and all files are in the page cache; the least of several repetitions counts. The peer's parser
reads the same metrics.csv with pandas, as its users do, and takes the same numbers from it (`lean`: with NumPy's
loadtxt); it reads neither `stat` nor `attempts`. Seconds, and those of the processor, are of the reading alone, without
the start of Python and its imports, which have a row of their own; memory is the process's largest resident set,
imports included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROWS = 200
SETTLED_S = 2.5  # what is newer may change again unnoticed, and is not kept in the cache
CLOCK = """
import sys, time

def timed(work):
    start = time.perf_counter(), time.process_time()
    found = work()
    print(len(found), time.perf_counter() - start[0], time.process_time() - start[1])
"""
OURS = """
import numpy, pandas
from runner.examine import wide_table
for _ in range(2):
    timed(lambda: wide_table(sys.argv[1]))
"""
AGAIN = """
import numpy, pandas
from runner.examine import wide_table
timed(lambda: wide_table(sys.argv[1]))
"""
CURVES = """
import numpy, pandas
from runner.examine import curves
timed(lambda: curves(sys.argv[1]))
"""
STARTED = """
start = time.perf_counter()
import numpy, pandas
from runner.examine import wide_table
print(0, time.perf_counter() - start, time.process_time())
"""
READINGS = (
    (STARTED, ["Python and its imports"], 0),
    (OURS, ["first wide table", "second, same process"], 1),
    (AGAIN, ["second, new process"], 1),
    (CURVES, ["first curves"], ROWS),
    (CURVES, ["second curves"], ROWS),
)
PEER = """
import numpy as np, pandas as pd
from mlrunner.examine import Examiner

def with_pandas(path, experiment, caches):
    frame = pd.read_csv(path / "metrics.csv")
    steps = frame["step"].to_numpy()
    for name in ("loss", "val_loss", "accuracy"):
        take(experiment, name, steps, frame[name].to_numpy())

def with_numpy(path, experiment, caches):
    data = np.loadtxt(path / "metrics.csv", delimiter=",", skiprows=1)
    for column, name in ((2, "loss"), (3, "val_loss"), (4, "accuracy")):
        take(experiment, name, data[:, 0], data[:, column])

def take(experiment, name, steps, values):
    best = values.argmax() if name == "accuracy" else values.argmin()
    experiment.metric.update({name: values[-1], name + "_best": values[best], name + "_best_step": steps[best]})

examiner = Examiner()
examiner.add({"pandas": with_pandas, "lean": with_numpy}[sys.argv[2]])
timed(lambda: examiner.exam(output=sys.argv[1]) or examiner.table())
"""


def write_trials(output: Path, count: int) -> None:
    """Makes the directories, as `run` leaves them."""
    rng = random.Random(0)
    output.mkdir()
    for index in range(count):
        lr, width, seed = 10 ** -(1 + index % 50 / 10), 32 * (1 + index // 50 % 20), index // 1000
        name = f"Lr_{lr!r}-Width_{width}-Seed_{seed}"
        directory = output / name
        directory.mkdir()
        (directory / "param").write_text(
            f"lr: {lr!r}\nwidth: {width}\nseed: {seed}\nschedule: cosine\ndepth: 3\ndropout: 0.1\nwarmup: 100\n"
            f"compile: false\ndata: stdlib\nsteps: 20000\n_name: {json.dumps(name)}\n"
            f'_output: "output/{name}"\n_time: "20261121.120000"\n_scripts:\n'
            f'  train: "python train.py --lr {lr!r} --width {width} --seed {seed} --out output/{name}"\n'
            f'  test: "python test.py output/{name} --split test"\n'
        )
        (directory / "stat").write_text("train: finished\ntest: finished\n")
        (directory / "attempts").write_text(_attempt("train", index) + _attempt("test", index + 1))
        loss = rng.uniform(1.5, 2.5)
        rows = (
            f"{100 * row},{lr * (ROWS - row) / ROWS:.9g},{loss + 3 / row:.6f},{loss + 3.1 / row:.6f},"
            f"{1 - 1 / (row + loss):.6f}\n"
            for row in range(1, ROWS + 1)
        )
        (directory / "metrics.csv").write_text("step,lr,loss,val_loss,accuracy\n" + "".join(rows))


def _attempt(stage: str, minute: int) -> str:
    head = {"stage": stage, "attempt": 1}
    started, ended = (datetime(2026, 11, 21, tzinfo=UTC) + timedelta(minutes=minute + more) for more in (0, 1))
    log = f"log.{stage}.{started:%Y%m%d.%H%M%S}"
    start = {"started": started.isoformat(timespec="milliseconds"), "slot": "gpu 0", "log": log}
    place = {"host": "machine", "boot": "b" * 36, "pid_namespace": "pid:[4026531836]"}
    ends = ended.isoformat(timespec="milliseconds")
    end = {"ended": ends, "state": "finished", "exit_code": 0, "seconds": 60 + minute / 1000}
    lines = [
        {"event": "start", **head, **start, **place},
        {"event": "process", **head, "pid": 4711, "start_ticks": 123456},
        {"event": "exit", **head, "exit_code": 0},
        {"event": "end", **head, **end, "cpu_s": 59.0, "peak_rss_mib": 512.0},
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def measure(python: str, code: str, *arguments: str) -> tuple[list[list[float]], float]:
    """The lines of numbers that a process prints, and its largest resident set in MiB."""
    with subprocess.Popen([python, "-c", CLOCK + code, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.read().splitlines()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}")
    # mlrunner says there what it skips.
    printed = [line for line in printed if line[:1].isdigit()]
    return [[float(word) for word in line.split()] for line in printed], usage.ru_maxrss / 1024


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000])
    parser.add_argument("--repeat", type=int, default=3, help="of the peer once")
    parser.add_argument("--peer", metavar="PYTHON", help="the interpreter of an environment that has mlrunner")
    parser.add_argument("--directory", type=Path, help="where the trials are made, and kept for the next time")
    options = parser.parse_args()
    for size in options.sizes:
        directory = options.directory or Path(tempfile.mkdtemp(prefix="examine-"))
        output = directory / f"trials.{size}"
        try:
            if not output.exists():
                write_trials(output, size)
            _report(output, size, options.repeat, options.peer)
        finally:
            if options.directory is None:
                shutil.rmtree(directory)


def _report(output: Path, size: int, repeat: int, peer: str | None) -> None:
    subprocess.run(["grep", "-rqs", "no such text", output], check=False)  # fills the page cache
    time.sleep(SETTLED_S)
    found: dict[str, list[list[float]]] = {}
    for _ in range(repeat):
        shutil.rmtree(output / ".runner", ignore_errors=True)
        for code, names, rows_each in READINGS:
            lines, mib = measure(sys.executable, code, str(output))
            for name, (rows, *spent) in zip(names, lines, strict=True):
                assert rows == rows_each * size, name
                found.setdefault(name, []).append([*spent, mib])
    print(f"{f'{size:,} trials':<26}{'seconds':>10}{'CPU s':>10}{'MiB':>8}")
    for name, measured in found.items():
        _row(name, measured)
    first = min(cpu_s for _, cpu_s, _ in found["first wide table"])
    for kind in ("pandas", "lean") if peer else ():
        ((_, *spent),), mib = measure(str(peer), PEER, str(output), kind)
        _row(f"mlrunner, {kind}", [[*spent, mib]], f"{spent[1] / first:6.1f} times the first wide table")


def _row(what: str, measured: list[list[float]], note: str = "") -> None:
    seconds, cpu_s, mib = map(min, zip(*measured, strict=True))
    print(f"{what:<26}{seconds:10.2f}{cpu_s:10.2f}{mib:8.0f}  {note}".rstrip(), flush=True)


if __name__ == "__main__":
    main()
