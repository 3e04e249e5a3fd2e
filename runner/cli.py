"""The command `run`. Nothing heavy is imported before the arguments are known to be right."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from runner.errors import RunnerError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_INTERRUPTED = 130

DESCRIPTION = """\
Runs the grid of experiments in params.yaml, several at a time. What is finished is not run again; what was cut off
goes on. Each trial has a directory under the output directory, named after its parameters."""

EPILOG = """\
exit code: 0 all that was asked for is complete; 1 a trial failed or is incomplete; 2 bad input; 130 after Ctrl-C"""


def parser() -> argparse.ArgumentParser:
    """The command line, as mlrunner's users know it."""
    result = argparse.ArgumentParser("run", description=DESCRIPTION, epilog=EPILOG)
    add = result.add_argument
    add(
        "-y",
        "--yaml",
        metavar="FILE",
        default="params.yaml",
        help="the file of templates and grids (default: %(default)s)",
    )
    add(
        "-o",
        "--output",
        metavar="DIR",
        default="output",
        help="where the trials' directories are (default: %(default)s)",
    )
    add("-t", "--title", metavar="TITLE", help="only the grids with this `_title`")
    add("-c", "--command", metavar="STAGE", nargs="+", help="only these stages of the template")
    add(
        "-r",
        "--resource",
        metavar="R",
        nargs="+",
        help="in place of the file's `resource`: GPUs (0 1, or 0,1 2,3), or cpu:N, or auto",
    )
    add("-f", "--force", action="store_true", help="run finished stages again")
    add("--dry-run", action="store_true", help="print the commands; run and write nothing")
    add("--take-over", action="store_true", help="take attempts that another host did not close for dead")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        from runner import session

        return session.run(options)
    except RunnerError as error:
        print(f"run: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
