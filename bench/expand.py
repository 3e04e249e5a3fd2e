"""The cost of expansion: `run --dry-run --json` for two stages, by the size of the grid.

    python -m bench.expand [--sizes 10000 100000 1000000]

Each size is a process of its own; the time includes its start. Memory is the process's largest resident set.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PARAMS = """\
template:
  train: python train.py --lr {{lr}} [seed] [width] [depth] --out {{_output}}
  test: python test.py {{_output}} [split]
default: {{split: test, depth: 3}}
---
lr: {{_logspace: [1e-5, 1e-1, 100]}}
width: {{_range: [0, 100]}}
seed: {{_range: [0, {seeds}]}}
"""


def measure(size: int) -> tuple[int, float, float]:
    """Trials printed, seconds, and MiB."""
    with tempfile.TemporaryDirectory(prefix="expand-") as directory:
        (Path(directory) / "params.yaml").write_text(PARAMS.format(seeds=size // 10_000))
        code = "from runner.cli import main; raise SystemExit(main(['--dry-run', '--json']))"
        start = time.perf_counter()
        with subprocess.Popen([sys.executable, "-c", code], cwd=directory, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            trials = sum(1 for _ in process.stdout)
            _, _, usage = os.wait4(process.pid, 0)
            process.returncode = 0
        return trials, time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    sizes = parser.parse_args().sizes
    print(f"{'trials':>10}{'seconds':>10}{'trials/s':>12}{'MiB':>8}")
    for size in sizes:
        trials, seconds, mib = measure(size)
        print(f"{trials:10,}{seconds:10.2f}{trials / seconds:12,.0f}{mib:8.0f}")


if __name__ == "__main__":
    main()
