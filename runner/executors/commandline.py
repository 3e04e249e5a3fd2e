"""Runs a command of a batch system: without what a surrounding job left in the environment, and not for ever."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner import children
from runner.executors import batch
from runner.executors.batch import UnreachableError
from runner.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What a command needs to find its server and its own files. Slurm gives it to the job as well, where the variables of
# a surrounding job would be taken for the new one's.
KEPT = {
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "PATH",
    "LANG",
    "LD_LIBRARY_PATH",
    "SLURM_CONF",
    "SLURM_CONF_SERVER",
    "SGE_ROOT",
    "SGE_CELL",
    "SGE_CLUSTER_NAME",
    "SGE_QMASTER_PORT",
    "SGE_EXECD_PORT",
}
_PREFIX = re.compile(r"^(?:\w+: )?(?:error|fatal): ", re.MULTILINE)


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    command: str
    code: int
    output: str
    complaint: str  # its standard error

    @property
    def message(self) -> str:
        """What went wrong, for the user, in one line."""
        lines = _PREFIX.sub("", self.complaint or self.output).split("\n")
        said = "; ".join(
            printable(line).strip().rstrip(".") for line in lines if line.strip(" .\r") not in ("", "Exiting")
        )
        return f"{self.command}: {said or f'exit code {self.code}'}"


def ask(
    arguments: Sequence[str],
    text: str = "",
    cwd: str = "/",
    inherited: int | None = None,
    variables: Mapping[str, str] | None = None,
) -> Answer:
    """Runs a command with `text` as its input, `variables` added to its environment, and the descriptor `inherited`
    kept open in it.

    Raises:
        UnreachableError: it cannot be started, or gives no answer in time.
    """
    command = arguments[0]
    environment = {name: value for name, value in os.environ.items() if name in KEPT}
    try:
        child = children.start(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env={**environment, **(variables or {})},
            pass_fds=() if inherited is None else (inherited,),
            start_new_session=True,  # some commands are shell scripts: what they start is ended with them
        )
    except OSError as error:
        if isinstance(error, FileNotFoundError) and error.filename == command:
            raise UnreachableError(
                f"{command} is not on the PATH: is this a login node? A daemon keeps its PATH until `run stop`."
            ) from None
        raise UnreachableError(f"{command} could not be started: {error.strerror}: {error.filename}.") from None
    try:
        output, complaint = child.communicate(text.encode("utf-8", "surrogateescape"), batch.COMMAND_S)
    except subprocess.TimeoutExpired:
        _end(child)
        raise UnreachableError(f"{command} gave no answer within {batch.COMMAND_S:g} s.") from None
    finally:
        children.done(child)
    if child.returncode < 0:
        raise UnreachableError(f"{command} was ended by {signal.Signals(-child.returncode).name}.")
    return Answer(command, child.returncode, output.decode(errors="replace"), complaint.decode(errors="replace"))


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kills a command and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            stream.close()


def ranges(numbers: Sequence[int]) -> list[str]:
    """Numbers that rise, as `1-3` and `7`."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return [str(first) if first == last else f"{first}-{last}" for first, last in found]


def expanded(text: str) -> list[int]:
    """The numbers that `1-5:2,7` names.

    Raises:
        ValueError: it names none.
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if match is None:
            raise ValueError(f"{text!r} is no list of tasks")
        numbers.extend(range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1)))
    return numbers
