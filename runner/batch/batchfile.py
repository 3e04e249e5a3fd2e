"""Batches on disk: `output/.runner/batches/<name>/` holds what an array was made for, and what its tasks have come to.

batch.json     what each task runs; written before the array is submitted, so that it can be found again by its name
script.sh      the script, as it was submitted
job            the id that the batch system gave
lock           held while the submitting command lives; there as soon as it was tried
settled        the tasks whose trials have come back
N.K.jsonl      task N, begun for the K-th time: who runs it, then what happens; its age says whether that one lives
N.log          what the task's own shell said
words.jsonl    what tasks that run are told
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.appendfile import append_line, whole_lines
from runner.errors import RunnerError
from runner.trials import STATE_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

PREFIX = "run-"
VERSION = 1
KILL = "kill"  # a word: end it at once
_WORDS = "words.jsonl"
_SETTLED = "settled"


class DamagedBatchError(RunnerError):
    """A batch's file cannot be read."""

    @classmethod
    def of(cls, folder: Path, error: Exception) -> DamagedBatchError:
        """With what to do about it."""
        return cls(
            f"{folder}/batch.json cannot be read ({error}): end the job {folder.name}, if the batch system has it, and "
            f"remove its directory; its trials are then submitted anew."
        )


@dataclass(frozen=True)
class Part:
    """One trial of a task: the stages that the task runs, each with the plan that has it, and where in the plan."""

    key: str
    stages: Mapping[str, tuple[str, int, int]]  # plan, offset and checksum of its line
    ask: str
    inputs: str | None = None


@dataclass(frozen=True)
class Intent:
    """What an array is made for; `plan` is the one whose environment its script has."""

    name: str
    executor: str
    told: Mapping[str, Any]
    plan: str
    cwd: str
    gpus: int | None
    cpus: int
    tasks: tuple[tuple[Part, ...], ...]
    created: float = field(default_factory=time.time)


def new_name() -> str:
    """A name that no other job has."""
    return PREFIX + secrets.token_hex(6)


def directory_of(output: str | Path) -> Path:
    """Where the batches of an output directory lie."""
    return Path(output) / STATE_DIRECTORY / "batches"


def folders(output: str | Path) -> list[Path]:
    """The batches that are not over."""
    return sorted(path.parent for path in directory_of(output).glob(f"{PREFIX}*/batch.json"))


def clear(output: str | Path) -> None:
    """Removes what a kill left of batches that were being made or removed."""
    for folder in directory_of(output).glob(f"{PREFIX}*"):
        if not (folder / "batch.json").exists():
            shutil.rmtree(folder, ignore_errors=True)


def keys(output: str | Path) -> set[str]:
    """The trials in tasks that are not known to be over."""
    found: set[str] = set()
    for folder in folders(output):
        over = settled(folder)
        tasks = read(folder).tasks
        found |= {part.key for number, task in enumerate(tasks) if number not in over for part in task}
    return found


def write(folder: Path, intent: Intent) -> None:
    """Makes a batch durable, before anything is submitted.

    Raises:
        OSError: the machine refused; nothing is left of it.
    """
    folder.mkdir(parents=True)
    try:
        _replace(folder / "batch.json", {"version": VERSION, **asdict(intent)})
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def keep_script(folder: Path, script: str) -> None:
    """Keeps the script as it is submitted."""
    (folder / "script.sh").write_text(script, encoding="utf-8")


def read(folder: Path) -> Intent:
    """What an array was made for.

    Raises:
        DamagedBatchError: it cannot be read.
    """
    try:
        record = json.loads((folder / "batch.json").read_bytes())
        if record.pop("version") > VERSION:
            raise ValueError("written by a newer version of run")
        tasks = tuple(tuple(_part(item) for item in task) for task in record.pop("tasks"))
        return Intent(tasks=tasks, **record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedBatchError.of(folder, error) from error


def _part(record: dict[str, Any]) -> Part:
    stages = {stage: (plan, offset, checksum) for stage, (plan, offset, checksum) in record.pop("stages").items()}
    return Part(stages=stages, **record)


def delete(folder: Path) -> None:
    """Removes a batch that is over; a task that was cut off and still lives takes that as its end."""
    (folder / "batch.json").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


# --- the job ---


def note_job(folder: Path, job: str) -> None:
    """Keeps the id that the batch system gave."""
    _replace(folder / "job", {"job": job})


def job_of(folder: Path) -> str | None:
    """The id that the batch system gave, as far as it came to be known."""
    try:
        return str(json.loads((folder / "job").read_bytes())["job"])
    except FileNotFoundError:
        return None


@contextmanager
def submitting(folder: Path) -> Iterator[int]:
    """A descriptor that the submitting command inherits, so that it is known to live though the daemon is killed."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)


def was_tried(folder: Path) -> bool:
    """Whether it was begun to submit the batch."""
    return (folder / "lock").exists()


def is_submitting(folder: Path) -> bool:
    """Whether a submitting command lives."""
    try:
        with submitting(folder):
            return False
    except BlockingIOError:
        return True


# --- tasks ---


def settle(folder: Path, number: int) -> None:
    """Notes that the trials of a task come back: they are none of its business any more."""
    if folder.is_dir():  # nobody has removed it
        append_line(folder / _SETTLED, b"%d\n" % number)


def settled(folder: Path) -> set[int]:
    """The tasks whose trials have come back."""
    return set(map(int, whole_lines(folder / _SETTLED)))


# --- words ---


def tell(folder: Path, word: str, keys: Collection[str]) -> None:
    """Leaves a word for the tasks that run, about some trials of theirs."""
    append_line(folder / _WORDS, json.dumps({"word": word, "trials": [*keys]}).encode() + b"\n")


class Words:
    """A task's end: reads each word once."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _WORDS
        self._count = 0

    def take(self) -> list[dict[str, Any]]:
        """The words that have come."""
        lines = whole_lines(self._path)
        new, self._count = lines[self._count :], len(lines)
        return [json.loads(line) for line in new]


def _replace(path: Path, record: Mapping[str, Any]) -> None:
    part = path.with_name(f"{path.name}.tmp")
    with part.open("wb") as file:
        file.write(json.dumps(record).encode())
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
