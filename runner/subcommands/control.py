"""`run stop`, `pause`, `resume`, `cancel` and `retry`: a user's word to the daemon of an output directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runner import client, faraway
from runner.batch import submitjob
from runner.errors import InputError
from runner.text import counted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from runner.protocol import Message

EXIT_OK = 0


def run(options: argparse.Namespace) -> int:
    """Sends the word, and says what came of it.

    Raises:
        RunnerError: no daemon works there, or it refused.
    """
    word: str = options.subcommand
    output = Path(options.output)
    request, said = _WORDS[word](options)
    if faraway.tell(output, {"do": word, **request}):
        print(f"Left for the daemon, {submitjob.job_of(output)}, which has not begun yet.")
        return EXIT_OK
    answer = client.command(output, {"do": word, **request})
    if answer is None:
        print("Left for the daemon, which works on another host and looks every few seconds.")
    else:
        print(said(answer))
    return EXIT_OK


def _stop(options: argparse.Namespace) -> tuple[Message, Callable[[Message], str]]:
    def said(answer: Message) -> str:
        count = answer["running"]
        verb = "has" if count == 1 else "have"
        if options.now:
            return f"Stopping: {_attempts(count)} asked to end. `run` goes on from here."
        left = f"{counted(count, 'running attempt')} {verb} ended"
        return f"Nothing more starts; the daemon leaves when {left}. `run` goes on from there."

    return {"now": options.now}, said


def _pause(options: argparse.Namespace) -> tuple[Message, Callable[[Message], str]]:
    what = options.title or "everything"
    return (
        {"sweep": options.title},
        lambda answer: (
            f"Paused {what}: nothing of it starts until `run resume`; {_attempts(answer['running'])} left alone."
        ),
    )


def _resume(_options: argparse.Namespace) -> tuple[Message, Callable[[Message], str]]:
    return {}, lambda _: "Goes on."


def _cancel(options: argparse.Namespace) -> tuple[Message, Callable[[Message], str]]:
    if not options.names:
        raise InputError("run cancel: name trials; '*' stands for all, `run stop --now` ends everything.")
    return {"words": options.names}, lambda answer: f"Canceled {_jobs(answer)}."


def _retry(options: argparse.Namespace) -> tuple[Message, Callable[[Message], str]]:
    return (
        {"words": options.names},
        lambda answer: (
            f"Due again: {_jobs(answer)}." if answer["trials"] else "Nothing has failed or was canceled or interrupted."
        ),
    )


def _jobs(answer: Message) -> str:
    return f"{counted(answer['jobs'], 'job')} of {counted(answer['trials'], 'trial')}"


def _attempts(count: int) -> str:
    return "one running attempt was" if count == 1 else f"{count} running attempts were"


_WORDS = {"stop": _stop, "pause": _pause, "resume": _resume, "cancel": _cancel, "retry": _retry}
