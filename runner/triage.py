"""Why an attempt failed, told from how it ended and from the end of its log.

The log counts only where it speaks of the end: its last traceback and its last lines. A word such as `nan` further up,
or an out-of-memory that the program got over, is no cause.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from runner.text import printable, shown_lines

EXIT_DIVERGED = 76  # the program says that its training diverged
_LINE_LENGTH = 300
_SCANNED_LENGTH = 2000  # of one line: a regular expression must not meet a megabyte
_LAST_LINES = 10  # telling lines in which a bare message can be the cause
_AFTER_TRACEBACK = 40  # telling lines that may follow the traceback that ended the program
_MESSAGE_LINES = 12  # of an exception whose message goes on below its first line


class CauseKind(StrEnum):
    """Why an attempt failed; the values are the words of `retry: {on: […]}`."""

    CUDA_OOM = "oom"
    HOST_OOM = "host-oom"
    DIVERGED = "diverged"
    TRACEBACK = "traceback"
    TIMEOUT = "timeout"
    STALL = "stall"
    SIGNAL = "signal"
    NOT_FOUND = "not-found"  # the command, or it cannot be executed
    DISK_FULL = "disk-full"
    EXIT = "exit"  # any other exit code
    LOST = "lost"  # nobody saw the end


@dataclass(frozen=True)
class Cause:
    """A cause and the line of the log that tells it: printable, at most 300 characters, empty for an empty log."""

    kind: CauseKind
    line: str


@dataclass(frozen=True)
class _Failure:
    """An exception in the log; `end` is the number of the line that names it."""

    kind: CauseKind
    line: str
    end: int
    is_root: bool  # no wrapper's, and not what follows when another process fails


_MESSAGES = (
    (
        CauseKind.CUDA_OOM,
        re.compile(
            r"torch\.(?:cuda\.)?OutOfMemoryError|cupy\.\S*OutOfMemoryError|(?:CUDA|HIP|MPS backend|XPU) out of memory"
            r"|(?:CUDA|HIP) error: out of memory|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation"
            r"|cudaMalloc failed: out of memory|Cuda failure \d+ 'out of memory'"
            r"|CU(?:BLAS|DNN|SOLVER|SPARSE|FFT)_(?:STATUS_)?ALLOC_FAILED|No executable batch size found"
            r"|RESOURCE_EXHAUSTED: .{0,80}(?:[Oo]ut of memory|OOM|allocat)|OOM when allocating tensor.{0,400}GPU:\d"
        ),
    ),
    (
        CauseKind.HOST_OOM,
        re.compile(
            r"^\W*(?:[\w.]*\.)?_?(?:Array)?MemoryError\b|std::bad_alloc|DefaultCPUAllocator: (?:can't|not enough)"
            r"|\[Errno 12\]|Cannot allocate memory|DataLoader worker \(pid.{0,40} is killed by signal: (?:Killed|Bus)"
            r"|java\.lang\.OutOfMemoryError|\boom[_-]kill event|OOM Killed|OOM when allocating tensor.{0,400}CPU:\d"
        ),
    ),
    (CauseKind.DISK_FULL, re.compile(r"No space left on device|\bENOSPC\b|\[Errno (?:28|122)\]|Disk quota exceeded")),
    (
        CauseKind.DIVERGED,
        re.compile(
            r"\b(?:loss|grad\w*|norm|training|parameters?|weights?|logits|activations?|metric)\b.{0,100}"
            r"\b(?:nan|infs?|infinite|infinity|non-?finite|not finite|explod\w+)\b"
            r"|\b(?:nan|inf|non-?finite)\b[^,;:]{0,20}\b(?:loss|grad\w*|weights?|parameters?|values? in)\b"
            r"|\b(?:has |have )?diverged\b|returned nan values|either `inf`, `nan`|invalid value \(nan\)"
            r"|loss scale.{0,60}(?:minimum|exploding)|Minimum loss scale reached",
            re.IGNORECASE,
        ),
    ),
)
# Of one process of several: what the others say when one has failed, and what the launcher says then.
_FOLLOWS_FROM_ANOTHER = re.compile(
    r"ChildFailedError|CalledProcessError|Process(?:Raised|Exited)Exception|BrokenProcessPool|TerminatedWorkerError"
    r"|Dist(?:Backend|Network|Store)Error|\bNCCL\b|\bgloo\b|Connection (?:closed|reset) by (?:peer|remote)"
    r"|BrokenPipeError|ConnectionResetError|ConnectionRefusedError|EOFError|SystemExit|SignalException"
)
_HEADER = re.compile(r"(?:Original )?(?:Exception Group )?Traceback \(most recent call last\):?\W*$")
_NO_END_IN = re.compile(
    r"^(?:Exception ignored |Error in atexit|--- Logging error ---|Exception in thread |Error in sys\.excepthook)"
)
_DIRECT_CAUSE = "The above exception was the direct cause of the following exception:"
_WHILE_HANDLING = "During handling of the above exception, another exception occurred:"
_EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Failure|Fault)(?:: .*|:)?$")
_ANY_EXCEPTION = re.compile(r"^[A-Za-z_][\w.<>]*(?:: ?.*)?$")
_RANK = re.compile(r"^(?:\[(?:rank|default)?\d+\]: ?|\(\w+ pid=\d+[^)]*\) ?|\d+: (?=Traceback|  |\w+Error))")
_NOISE = re.compile(
    r"^\s|^[-=*_#~─═╭╰│╯╮+|\s]+|^wandb:|\w*Warning: |warnings\.warn\(|resource_tracker: |^Exception ignored |^frame #"
    r"|HYDRA_FULL_ERROR|TORCH_USE_CUDA_DSA|CUDA_LAUNCH_BLOCKING|CUDA kernel errors might be|torch[./]distributed[./]"
    r"|^(?:\[rank\d+\]:)?\[W\d+|^[WE]\d{4} |^srun: |^make(?:\[\d+\])?: \*\*\*|^ERROR conda|closing signal SIGTERM"
    r"|^(?:Failures|Root Cause .*):$|^\S+ FAILED$|destroy_process_group|^\s*$|\d+%\|"
    r"|^run: error: round \d+ of .*: `next` failed with exit code "  # which has said why, above
)
_GOT_OVER = re.compile(r"skip|retr(?:y|ies)|reduc|halv|fall(?:ing)? ?back|smaller batch|recover", re.IGNORECASE)
_LOSS_IS_NAN = re.compile(r"\bloss\b[^a-z]{0,5}(?:is |became |was )?(?:nan|[-+]?inf)\b", re.IGNORECASE)
_DIED = re.compile(
    r"^(?:\S+: line \d+: +)?(?:\d+ +)?(?:Killed|Terminated|Segmentation fault|Aborted|Bus error|Illegal instruction"
    r"|Floating point exception)\b|^Fatal Python error: |Signal \d+ \(SIG\w+\) received by PID|died with <Signals\."
    r"|^terminate called after throwing"
)
_TIME_LIMIT = re.compile(r"DUE TO TIME LIMIT")
_NOT_FOUND = re.compile(r"not found|No such file or directory|Permission denied|cannot execute|Is a directory")
_NO_PROGRAM = re.compile(r"can't open file .*No such file or directory|^\S*python\S*: No module named ")
_COMPLAINT = re.compile(r"\b(?:error|fatal|failed|failure|exception|cannot|can't|could not|invalid)\b", re.IGNORECASE)
# With these a program ends itself, having said why; the others come from outside.
_OWN_SIGNALS = {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP}


def classify(
    exit_code: int | None,
    signal_number: int | None,
    tail: str,
    *,
    ended_as: Literal["timeout", "stall"] | None = None,
    was_oom_killed: bool = False,
) -> Cause:
    """The cause of a failed attempt.

    `exit_code` as its shell recorded it (128 + n when a signal ended the program), `signal_number` when the shell
    itself was ended by one, `tail` the end of the log, `ended_as` when the daemon ended it for that,
    `was_oom_killed` when the kernel is known to have killed a process of it for memory.

    A SIGKILL alone is `signal`: without the kernel's word nobody knows whether it was for memory.
    """
    lines = [_RANK.sub("", line[:_SCANNED_LENGTH]) for line in map(printable, shown_lines(tail))]
    telling = [line.strip() for line in lines if not _NOISE.search(line)]
    last = _last(telling) or _last([line.strip() for line in lines if line.strip()])
    number = signal_number or (exit_code - 128 if exit_code is not None and 128 < exit_code <= 192 else None)
    bare = telling[-_LAST_LINES:]
    if ended_as is not None:
        return _cause(CauseKind(ended_as), last)
    if was_oom_killed:
        return _cause(CauseKind.HOST_OOM, last)
    if exit_code == EXIT_DIVERGED:
        return _cause(CauseKind.DIVERGED, _last_match(bare, _MESSAGES[-1][1], _LOSS_IS_NAN) or last)
    if exit_code is None and signal_number is None:
        return _cause(CauseKind.LOST, last)
    if exit_code in {126, 127}:
        return _cause(CauseKind.NOT_FOUND, _last_match(bare, _NOT_FOUND) or last)
    if time_limit := _last_match(lines[-_LAST_LINES:], _TIME_LIMIT):
        return _cause(CauseKind.TIMEOUT, time_limit)
    if number is not None and number not in _OWN_SIGNALS:
        killed = _last_match(lines[-_LAST_LINES:], re.compile("oom[_-]kill|OOM Killed"))
        return _cause(CauseKind.HOST_OOM, killed) if killed else _of_signal(number, bare, last)
    return _from_text(lines, bare) or _otherwise(number, lines, bare, last)


def _from_text(lines: list[str], bare: list[str]) -> Cause | None:
    """What the last traceback says, or else one of the last lines."""
    start = _start_of_the_end(lines)
    failures = [failure for failure in _failures(lines) if failure.end >= start]
    roots = [failure for failure in failures if failure.is_root]
    if roots:
        return _cause(roots[-1].kind, roots[-1].line)
    for line in reversed(bare):
        kind = _kind_of(line)
        if kind not in {None, CauseKind.DIVERGED} and not _GOT_OVER.search(line):
            return _cause(kind or CauseKind.EXIT, line)
    if bare and (_LOSS_IS_NAN.search(bare[-1]) or _kind_of(bare[-1])) and not failures:
        return _cause(CauseKind.DIVERGED, bare[-1])
    died = _last_match(lines[-_AFTER_TRACEBACK:], _DIED)
    if died:
        return _cause(CauseKind.SIGNAL, died)
    return _cause(failures[-1].kind, failures[-1].line) if failures else None


def _otherwise(number: int | None, lines: list[str], bare: list[str], last: str) -> Cause:
    if number is not None:
        return _of_signal(number, bare, last)
    if missing := _last_match(bare[-3:], _NO_PROGRAM):
        return _cause(CauseKind.NOT_FOUND, missing)
    return _cause(CauseKind.EXIT, _last_match(bare[-5:], _COMPLAINT) or last)


def _of_signal(number: int, bare: list[str], last: str) -> Cause:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    said = _last_match([line for line in bare if _DIED.search(line) or line == "KeyboardInterrupt"], re.compile(""))
    return _cause(CauseKind.SIGNAL, said or (f"ended by {name} after: {last}" if last else f"ended by {name}"))


def _failures(lines: list[str]) -> list[_Failure]:
    """The exceptions of the log, in order; those that end no program are left out."""
    found: list[_Failure] = []
    is_inside = is_harmless = False
    link = before = ""
    for number, line in enumerate(lines):
        text = line.strip(" |+│")
        if _HEADER.search(text):
            is_inside, is_harmless = True, bool(_NO_END_IN.search(before))
        elif text in {_DIRECT_CAUSE, _WHILE_HANDLING}:
            link = text
        elif (is_inside and text and not _is_frame(line)) or (not is_inside and _EXCEPTION.search(text)):
            if _ANY_EXCEPTION.search(text) and not is_harmless:
                failure = _failure(lines, number, text)
                found.append(_joined(found[-1], failure, link) if link and found else failure)
            is_inside, is_harmless, link = False, False, ""
        before = text or before
    return found


def _is_frame(line: str) -> bool:
    return line.startswith((" ", "│", "╭", "╰", "^", "\t"))


def _failure(lines: list[str], number: int, text: str) -> _Failure:
    if text == "KeyboardInterrupt":
        return _Failure(CauseKind.SIGNAL, text, number, is_root=True)
    message = [text]
    for line in lines[number + 1 : number + _MESSAGE_LINES]:
        if _HEADER.search(line):
            break
        message.append(line)
    kind = _kind_of(text) or next((own for line in message if (own := _kind_of(line, is_first=False))), None)
    # torch.distributions: the values stand on the next line.
    if kind is None and text.endswith("invalid values:") and "nan" in "".join(message[1:3]):
        kind = CauseKind.DIVERGED
    is_root = kind is not None or not _FOLLOWS_FROM_ANOTHER.search(text)
    return _Failure(kind or CauseKind.TRACEBACK, text, number, is_root)


def _joined(earlier: _Failure, later: _Failure, link: str) -> _Failure:
    """Of two chained exceptions the one that tells why; the handler of a full disk fails in its own words."""
    is_cause = later.kind is CauseKind.TRACEBACK and (
        earlier.kind is CauseKind.DISK_FULL or (link == _DIRECT_CAUSE and earlier.kind is not CauseKind.TRACEBACK)
    )
    return _Failure(earlier.kind, earlier.line, later.end, earlier.is_root) if is_cause else later


def _kind_of(line: str, is_first: bool = True) -> CauseKind | None:
    for kind, pattern in _MESSAGES:
        if (is_first or kind is not CauseKind.DIVERGED) and pattern.search(line):
            return kind
    return None


def _start_of_the_end(lines: list[str]) -> int:
    """The number of the line from which on a traceback can be the one that ended the program."""
    telling = [number for number, line in enumerate(lines) if not _NOISE.search(line)]
    return telling[-_AFTER_TRACEBACK - 1] if len(telling) > _AFTER_TRACEBACK else 0


def _last(lines: list[str]) -> str:
    return lines[-1] if lines else ""


def _last_match(lines: list[str], *patterns: re.Pattern[str]) -> str:
    return next((line for line in reversed(lines) if any(pattern.search(line) for pattern in patterns)), "")


def _cause(kind: CauseKind, line: str) -> Cause:
    text = line.strip()
    return Cause(kind, text if len(text) <= _LINE_LENGTH else text[: _LINE_LENGTH - 1] + "…")
