"""What a trial reads that other trials made, as one hash: the contents of files, or which attempts made them."""

from __future__ import annotations

import functools
import hashlib
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from runner import records
from runner.model import JobState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.model import Trial


def of_members(members: Iterable[tuple[Trial, Iterable[str]]]) -> str:
    """The inputs of a gather, from its trials and their stages: which attempt completed each of these."""
    return _hash(line for trial, stages in members for line in _completions(trial, stages))


def _completions(trial: Trial, stages: Iterable[str]) -> Iterable[str]:
    history = records.read_attempts(trial.directory)
    for stage in stages:
        last = history.last(stage)
        # The time tells an attempt from the one of the same number in a directory that was deleted.
        attempt = "" if last is None else f"{last.number} {last.start['started']}"
        yield f"{trial.trial_id} {stage} {attempt}"


def of_places(cwd: str, places: Iterable[str]) -> str:
    """The inputs of a trial whose parameters name these places in the directories of gathers: the files' contents, or,
    where no file is named, what the gather itself had read."""
    return _hash(f"{place} {_content(os.path.join(cwd, place))}" for place in places)  # noqa: PTH118


def _content(path: str) -> str:
    with suppress(OSError):  # the program that reads it will say so
        found = os.stat(path)  # noqa: PTH116 - for every trial that depends on a gather
        if stat.S_ISREG(found.st_mode):
            return _hash_of_file(path, found.st_ino, found.st_size, found.st_mtime_ns)
    return _inputs_of_gather(path)


@functools.lru_cache(maxsize=1024)
def _hash_of_file(path: str, *_signature: int) -> str:
    with open(path, "rb") as file:  # noqa: PTH123
        return hashlib.file_digest(file, "sha256").hexdigest()


def _inputs_of_gather(path: str) -> str:
    while not os.path.exists(records.attempts_file(path)):  # noqa: PTH110
        above = os.path.dirname(path)  # noqa: PTH120
        if above == path:
            return ""
        path = above
    for attempt in reversed(records.read_attempts(path).attempts):
        if attempt.end is not None and attempt.end["state"] == JobState.COMPLETED:
            return str(attempt.start.get("inputs"))
    return ""


def _hash(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
