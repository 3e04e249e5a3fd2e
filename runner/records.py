"""The files of a trial: `param`, `stat`, and the records of its attempts.

`param` and `stat` are YAML for people, and for mlrunner's tools. `attempts` holds one JSON object a line: each
attempt's start, its process, its exit code, its end. The exit code is written by the attempt's own shell, so that it is
known even when nobody watched.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from runner import yamlfile
from runner.appendfile import append_line, whole_lines, write_all
from runner.errors import RunnerError
from runner.model import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.model import Outcome
    from runner.values import Value

Record: TypeAlias = "dict[str, Any]"

_EXIT = b'{"event": "exit"'
_STARTED_WITH = {"slot", "log", "host", "boot", "pid_namespace"}
_WORDS = {state.value: state for state in JobState}


class DamagedRecordError(RunnerError):
    """A record that cannot be read; it is never taken for an empty one."""


# --- param and stat ---


def read_param(directory: str) -> Record | None:
    """The trial's `param`; None when there is none.

    Raises:
        DamagedRecordError: it cannot be read, or lacks the trial's name, which every one has.
    """
    param = _read_mapping(f"{directory}/param")
    if param is not None and ("_name" not in param or not _are_scripts(param.get("_scripts", {}))):
        raise DamagedRecordError(f"{directory}/param: not whole; mend it, or move the directory away.")
    return param


def _are_scripts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(script, str) for script in value.values())


def read_stat(directory: str) -> dict[str, JobState]:
    """The state of each stage; a word that is not ours counts as interrupted."""
    stat = _read_mapping(f"{directory}/stat") or {}
    return {stage: _WORDS.get(str(word), JobState.INTERRUPTED) for stage, word in stat.items()}


def _read_mapping(path: str) -> Record | None:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - called for every trial
            value = yamlfile.load(file.read().decode())
    except FileNotFoundError:
        return None
    except (yaml.YAMLError, ValueError, KeyError, OSError) as error:
        raise DamagedRecordError(
            f"{path}: cannot be read ({type(error).__name__}); move it away or mend it."
        ) from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DamagedRecordError(f"{path}: holds no mapping; move it away or mend it.")
    return value


def write_param(directory: str, params: Mapping[str, Value], own: Mapping[str, str], scripts: Mapping[str, str]) -> str:
    """Replaces `param`: the parameters, then the runner's `own` keys and the shell line of each stage; returns it."""
    lines = [f"{_key(key)}: {_scalar(value)}\n" for key, value in params.items()]
    lines += [f"{key}: {_quoted(text)}\n" for key, text in own.items()]
    lines.append("_scripts:\n" if scripts else "_scripts: {}\n")
    lines += [f"  {_key(stage)}: {_quoted(command)}\n" for stage, command in scripts.items()]
    text = "".join(lines)
    replace_text(f"{directory}/param", text)
    return text


def replace_text(path: str, text: str) -> None:
    """Writes a file beside the old one and renames it, so that a kill leaves one of the two."""
    temporary = f"{path}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        write_all(descriptor, text.encode())
    finally:
        os.close(descriptor)
    os.replace(temporary, path)  # noqa: PTH105 - called for every trial


def write_stat(directory: str, stat: Mapping[str, JobState]) -> None:
    """Overwrites `stat` in one write that never shortens it.

    A kill leaves the old text or the new one, and a full disk cannot take it away. Renaming would do that too, but the
    inodes that it frees make every new file slow on ext4 for seconds.
    """
    text = "".join(f"{_key(stage)}: {state.value}\n" for stage, state in stat.items()).encode()
    descriptor = os.open(f"{directory}/stat", os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        # Empty lines cover what a longer text left.
        write_all(descriptor, text.ljust(os.fstat(descriptor).st_size, b"\n"))
    finally:
        os.close(descriptor)


def _scalar(value: Value) -> str:
    if type(value) is int:
        return str(value)
    return _word(value) if isinstance(value, str) else yamlfile.dump({"": value}).partition(": ")[2].rstrip("\n")


@functools.lru_cache(maxsize=4096)
def _word(text: str) -> str:
    # Text repeats from trial to trial, and the dumper knows when it may stand without quotes.
    return yamlfile.dump({"": text}).partition(": ")[2].removesuffix("\n")


@functools.lru_cache(maxsize=256)
def _key(stage: str) -> str:
    return yamlfile.dump({stage: 0}).removesuffix(": 0\n")


def _quoted(text: str) -> str:
    # A JSON string is a YAML string as long as it needs no escape for control characters.
    if text.isprintable():
        return json.dumps(text, ensure_ascii=False)
    return _word(text)


# --- attempts ---


@dataclass
class Attempt:
    """What is known of one numbered execution of a job."""

    stage: str
    number: int
    start: Record
    process: Record | None = None
    exit_code: int | None = None
    end: Record | None = None


@dataclass
class History:
    """All attempts of a trial, in the order of their starts."""

    attempts: list[Attempt] = field(default_factory=list)

    def last(self, stage: str) -> Attempt | None:
        """The newest attempt of a stage."""
        return next((item for item in reversed(self.attempts) if item.stage == stage), None)


def attempts_file(directory: str) -> str:
    """The path of a trial's attempt records."""
    return f"{directory}/attempts"


def append_attempt(directory: str, record: Record) -> str:
    """Adds one record to the trial's attempts; returns the line."""
    line = json.dumps(record) + "\n"
    append_line(attempts_file(directory), line.encode())
    return line


def restore(directory: str, param: str, attempts: str) -> bool:
    """Writes both again where a command has emptied its own directory; False where there is no need.

    Since then its shell has added the exit code to what it took for a new file of attempts.
    """
    path = attempts_file(directory)
    if os.path.exists(f"{directory}/param") or not os.path.exists(path):  # noqa: PTH110 - called for every attempt
        return False
    since = b"".join(line + b"\n" for line in whole_lines(path)).decode()
    if not since.startswith(attempts):  # as after a first try on a full disk
        replace_text(path, attempts + since)
    replace_text(f"{directory}/param", param)
    return True


def texts(directory: str) -> tuple[str, str]:
    """`param` and the attempts as they stand there, for `restore`; nothing of what is missing."""
    param = Path(directory, "param")
    lines = b"".join(line + b"\n" for line in whole_lines(attempts_file(directory)))
    return param.read_text(encoding="utf-8", errors="replace") if param.is_file() else "", lines.decode()


def drop_leftover(directory: str) -> None:
    """Removes what a shell added to the attempts after its command had emptied the directory, as nobody saw its end."""
    path = attempts_file(directory)
    if _is_leftover(directory, whole_lines(path)):
        os.unlink(path)  # noqa: PTH108


def _is_leftover(directory: str, lines: Sequence[bytes]) -> bool:
    # Of a damaged file `param` is still there, or more than exit codes.
    if not lines or not all(line.startswith(_EXIT) for line in lines):
        return False
    return not os.path.exists(f"{directory}/param")  # noqa: PTH110


@functools.lru_cache(maxsize=256)
def exit_prefix(stage: str, attempt: int) -> str:
    """The text before the exit code in the line that the attempt's shell writes; a brace follows the code."""
    return json.dumps({"event": "exit", "stage": stage, "attempt": attempt, "exit_code": 0})[:-2]


def read_exit_code(directory: str, stage: str, attempt: int) -> int | None:
    """The recorded exit code; None when the attempt's shell did not come to write one."""
    prefix = exit_prefix(stage, attempt).encode()
    for line in map(_whole, reversed(whole_lines(attempts_file(directory)))):
        if line.startswith(prefix):
            return int(json.loads(line)["exit_code"])
    return None


def _whole(line: bytes) -> bytes:
    """The line without the rest of another one, after which a kill or a full disk let the shell write its own."""
    # Within a record's texts the quotes would be escaped.
    return line[max(0, line.rfind(_EXIT)) :]


def read_attempts(directory: str) -> History:
    """The trial's attempts.

    Raises:
        DamagedRecordError: a line is no record.
    """
    history = History()
    try:
        lines = whole_lines(attempts_file(directory))
    except OSError as error:
        raise DamagedRecordError(f"{attempts_file(directory)}: {error.strerror}; move it away or mend it.") from error
    if _is_leftover(directory, lines):
        return history
    for number, line in enumerate(lines, start=1):
        try:
            _add(history, json.loads(_whole(line)))
        except (ValueError, KeyError, TypeError, StopIteration) as error:
            path = attempts_file(directory)
            raise DamagedRecordError(
                f"{path}, line {number}: no attempt record; move the file away or mend it."
            ) from error
    return history


def _add(history: History, record: Record) -> None:
    stage, number, event = str(record["stage"]), int(record["attempt"]), record["event"]
    if event == "start":
        datetime.fromisoformat(record["started"])
        if missing := _STARTED_WITH - record.keys():
            raise KeyError(*missing)
        history.attempts.append(Attempt(stage, number, record))
        return
    attempt = next(item for item in reversed(history.attempts) if (item.stage, item.number) == (stage, number))
    if event == "process":
        attempt.process = record
    elif event == "exit":
        attempt.exit_code = int(record["exit_code"])
    elif event == "end":
        JobState(record["state"])  # an unknown word is damage, too
        attempt.end = record
    else:
        raise ValueError(event)


def end_record(stage: str, attempt: int, outcome: Outcome, ended: str) -> Record:
    """The line that closes an attempt; times in seconds, memory in MiB."""
    return {
        "event": "end",
        "stage": stage,
        "attempt": attempt,
        "ended": ended,
        "state": outcome.state.value,
        "exit_code": outcome.exit_code,
        "seconds": round(outcome.seconds, 3),
        "cpu_s": outcome.cpu_s,
        "peak_rss_mib": outcome.peak_rss_mib,
        "cause": outcome.cause,
        "line": outcome.line,
    } | {name: value for name in ("peak_vram_mib", "peak_host_mib", "fallback") if (value := getattr(outcome, name))}
