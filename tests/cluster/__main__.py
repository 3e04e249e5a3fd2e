"""Starts or stops a batch system by hand: `python -m tests.cluster slurm up`, then `eval` what it prints.

Exit code 77: it cannot be had on this machine; the reason is printed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from tests.cluster.machine import UnavailableError
from tests.cluster.sge import GridEngine
from tests.cluster.slurm import Kind, Slurm


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("engine", choices=["slurm", "sge"])
    parser.add_argument("word", choices=["up", "down"])
    parser.add_argument("--directory", type=Path, help="default: /tmp/cluster-slurm, /tmp/cluster-sge")
    parser.add_argument("--without-accounting", action="store_true", help="Slurm without slurmdbd: no sacct")
    parser.add_argument("--cgroups", action="store_true", help="Slurm that enforces memory limits")
    arguments = parser.parse_args()
    directory = arguments.directory or Path("/tmp", f"cluster-{arguments.engine}")
    kind = Kind(accounting=not arguments.without_accounting, cgroups=arguments.cgroups)
    engine = Slurm(directory, kind) if arguments.engine == "slurm" else GridEngine(directory)
    if arguments.word == "down":
        engine.stop()
        shutil.rmtree(directory, ignore_errors=True)
        return 0
    try:
        engine.start()
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return 77
    for name, value in engine.environment.items():
        print(f"export {name}={value}")
    return 0


sys.exit(main())
