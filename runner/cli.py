"""The command `run`. Nothing heavy is imported before the arguments are known to be right."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import RunnerError, did_you_mean
from runner.results import options as results

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130

DESCRIPTION = """\
Runs the grid of experiments in params.yaml, several at a time. What is finished is not run again; what was cut off
goes on. Each trial has a directory under the output directory, named after its parameters."""

EPILOG = """\
exit code: 0 all that was asked for is complete; 1 a trial failed or is incomplete; 2 bad input; 129 the terminal was
closed, the work goes on; 130 after Ctrl-C"""


RESOURCE_HELP = "in place of the file's `resource`: GPUs (0 1, or 0,1 2,3), or cpu:N, or auto"


@dataclass(frozen=True)
class Command:
    """A subcommand: the module whose `run(options)` does it, and its options."""

    module: str
    description: str
    add_options: Callable[[argparse.ArgumentParser], None]

    def parser(self, name: str) -> argparse.ArgumentParser:
        """The subcommand's own command line."""
        result = argparse.ArgumentParser(f"run {name}".rstrip(), description=self.description)
        result.set_defaults(subcommand=name)
        self.add_options(result)
        return result


def _file_options(result: argparse.ArgumentParser) -> None:
    add = result.add_argument
    add("-y", "--yaml", metavar="FILE", default="params.yaml", help="templates and grids (default: %(default)s)")
    add("-o", "--output", metavar="DIR", default="output", help="where the trials are (default: %(default)s)")
    add("-t", "--title", metavar="TITLE", help="only the grids with this `_title`")


def _run_options(result: argparse.ArgumentParser) -> None:
    _file_options(result)
    add = result.add_argument
    add("-c", "--command", metavar="STAGE", nargs="+", help="only these stages of the template")
    add("-r", "--resource", metavar="R", nargs="+", help=RESOURCE_HELP)
    add("-x", "--executor", metavar="X", help="where trials run: local, slurm, sge … (default: the file's `executor`)")
    add("-f", "--force", action="store_true", help="run finished stages again")
    add("-d", "--debug", action="store_true", help="only the first trial, on this terminal, as if with -f: pdb works")
    add("--sample", metavar="N", type=results.count, help="only N combinations of each grid, drawn at random")
    add("--seed", type=int, default=0, help="the seed of --sample (default: %(default)s)")
    add("--no-subdir", action="store_true", help="no directory for each trial: {_output} is the output directory")
    add("--dry-run", action="store_true", help="print the commands; run and write nothing")
    add("--json", action="store_true", help="with --dry-run: one JSON object a trial on standard output")
    add("--detach", action="store_true", help="return once the plan is safe; `run watch` attaches again")
    add(
        "--submit", metavar="TIME", nargs="?", const="24h", type=_duration,
        help="the daemon, too, is a job of the batch system, for so long at a time (default: 24h)",
    )  # fmt: skip
    add("--prune", action="store_true", help="end running trials that the file no longer asks for")
    add("--take-over", action="store_true", help="take attempts that another host did not close for dead")


def _output_option(result: argparse.ArgumentParser) -> None:
    result.add_argument(
        "-o", "--output", metavar="DIR", default="output", help="where the trials are (default: %(default)s)"
    )


def _status_options(result: argparse.ArgumentParser) -> None:
    _output_option(result)
    add = result.add_argument
    add("names", metavar="TRIAL", nargs="*", help="only these trials: names, beginnings of names, numbers, * and ?")
    add("--trials", action="store_true", help="every trial")
    add("--json", action="store_true", help="one JSON object: daemon, sweeps, trials")
    add("--all", action="store_true", help="every daemon of yours on this machine")


def _logs_options(result: argparse.ArgumentParser) -> None:
    _output_option(result)
    add = result.add_argument
    add("trial", metavar="TRIAL", help="its name, the beginning of it, or its number")
    add("stage", metavar="STAGE", nargs="?", help="only this stage's newest attempt (default: the newest of all)")
    add("-f", "--follow", action="store_true", help="go on as it is written, into the trial's next stages")


def _stop_options(result: argparse.ArgumentParser) -> None:
    _output_option(result)
    result.add_argument("--now", action="store_true", help="end what runs, politely; said again, at once")


def _pause_options(result: argparse.ArgumentParser) -> None:
    _output_option(result)
    result.add_argument("-t", "--title", metavar="SWEEP", help="only this sweep")


def _names_options(result: argparse.ArgumentParser) -> None:
    _output_option(result)
    add = result.add_argument
    add("names", metavar="TRIAL", nargs="*", help="names, beginnings of names, numbers, * and ?")


def _removal_options(result: argparse.ArgumentParser) -> None:
    add = result.add_argument
    add("names", metavar="NAME", nargs="*", help="names of trials; * and ? stand for any characters")
    _file_options(result)
    add("--state", metavar="STATE", help="only trials with a stage in this state: failed, interrupted …")
    add("--yes", action="store_true", help="do not ask")


def _gpus_options(result: argparse.ArgumentParser) -> None:
    result.add_argument("--json", action="store_true", help="one JSON object a GPU on standard output")


def _no_options(_result: argparse.ArgumentParser) -> None: ...


def _duration(text: str) -> str:
    from runner.options import seconds

    try:
        seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from None
    return text


RUN = Command("runner.run", DESCRIPTION, _run_options)
COMMANDS = {
    "status": Command(
        "runner.subcommands.status", "Says how far everything is, what runs, what failed and why.", _status_options
    ),
    "watch": Command("runner.subcommands.attach", "Watches the daemon; Ctrl-C leaves it alone.", _output_option),
    "wait": Command(
        "runner.subcommands.attach", "Waits until all is done; the exit code is that of `run`.", _output_option
    ),
    "logs": Command("runner.subcommands.logs", "Prints what the newest attempt of a trial has written.", _logs_options),
    "top": Command(
        "runner.subcommands.top", "Shows slots, GPUs, memory and progress, live; Ctrl-C leaves.", _output_option
    ),
    "stop": Command(
        "runner.subcommands.control", "Lets what runs end, and starts nothing more; the daemon leaves.", _stop_options
    ),
    "pause": Command("runner.subcommands.control", "Starts nothing more until `run resume`.", _pause_options),
    "resume": Command("runner.subcommands.control", "Takes every pause back.", _output_option),
    "cancel": Command(
        "runner.subcommands.control", "Takes trials out of the queue, and ends what runs of them.", _names_options
    ),
    "retry": Command(
        "runner.subcommands.control", "Makes failed trials due again: all, or those named.", _names_options
    ),
    "check": Command("runner.subcommands.check", "Says what `run` would find, and what looks wrong.", _file_options),
    "schema": Command("runner.subcommands.schema", "Prints the JSON schema of params.yaml, for editors.", _no_options),
    "gpus": Command("runner.gpus.command", "Says what each GPU does and why it is or is not used.", _gpus_options),
    "rm": Command("runner.subcommands.removal", "Deletes trials, after a question.", _removal_options),
    "archive": Command(
        "runner.subcommands.removal", "Packs trials into .runner/archive/, after a question.", _removal_options
    ),
    "table": Command("runner.results.table", "Prints a row for each trial, or means.", results.table),
    "best": Command("runner.results.table", "Prints the settings, the best mean first.", results.best),
    "compare": Command("runner.results.compare", "Prints in what two trials differ.", results.compare),
    "plot": Command("runner.results.plot", "Draws curves, a sweep, a heat map or a Pareto front.", results.plot),
    "report": Command("runner.results.report", "Writes one HTML page that needs no network.", results.report),
    "tensorboard-sync": Command(
        "runner.results.tensorboard", "Writes TensorBoard events from metrics.csv.", results.tensorboard_sync
    ),
    "repro": Command("runner.results.repro", "Prints or does what makes a trial again.", results.repro),
}


def _dispatch(words: Sequence[str]) -> int:
    # A subcommand only as the first word, since `-c check` names a stage.
    name = words[0] if words and words[0] in COMMANDS else ""
    command = COMMANDS.get(name, RUN)
    parser = command.parser(name)
    if not name:
        parser.epilog = f"{EPILOG}. Subcommands: {', '.join(COMMANDS)}; `run check --help` tells of one."
    options, unknown = parser.parse_known_args(words[1:] if name else words)
    if unknown:
        parser.error(_unknown(unknown, is_run=not name))
    if not name and options.json and not options.dry_run:
        parser.error("--json goes with --dry-run")
    exit_code: int = importlib.import_module(command.module).run(options)
    return exit_code


def _unknown(words: Sequence[str], is_run: bool) -> str:
    """What is wrong with words that no option takes."""
    first = words[0]
    if not is_run or first.startswith("-"):
        return f"unrecognized arguments: {' '.join(words)}"
    if first in COMMANDS:
        return f"{first!r} is a subcommand, which comes first: `run {first} …`"
    if Path(first).is_file():
        return f"{first!r} is a file: `run -y {shlex.quote(first)}` runs what stands in it"
    return f"there is no subcommand {first!r}.{did_you_mean(first, COMMANDS)} `run --help` lists all"


def _open_standard_streams() -> None:
    """A stream that the caller closed goes nowhere; otherwise the first file that is opened would get its number.

    What a stream cannot show is escaped: its encoding, or a name that is no text, ends no command.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for what it cannot show; stderr has it by itself


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    _open_standard_streams()
    try:
        return _dispatch(sys.argv[1:] if arguments is None else arguments)
    except RunnerError as error:
        print(f"run: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone; the interpreter's own flush at the end must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:  # the machine refused: no permission, a full disk
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        print(f"run: error: {place}{error.strerror or error}.", file=sys.stderr)
        return EXIT_FAILED
