"""Tells the user what happened, by a child process: a command of the user's, or a web service through apprise.

The child stands alone: it can neither block nor fail the daemon.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner import template
from runner.process import bash

if TYPE_CHECKING:
    from collections.abc import Mapping

EVENTS = frozenset({"sweep-ended", "paused", "first-failure"})
PLACEHOLDERS = frozenset({"event", "message", "sweep"})
# A service's address holds its password, which other users could read among the arguments of a process.
_URL_VARIABLE = "RUNNER_NOTIFY_URL"


@dataclass(frozen=True)
class Notify:
    """What to do at which events; `cmd` has the placeholders {event}, {message} and {sweep}, `url` is apprise's."""

    cmd: str | None = None
    url: str | None = None
    on: frozenset[str] = EVENTS


def command_of(settings: Notify, event: str, sweep: str, message: str) -> tuple[list[str], dict[str, str]] | None:
    """The arguments of the child and what it needs in its environment; None when nobody wants to hear of the event.

    Raises:
        TemplateError: the user's command cannot be read.
    """
    if event not in settings.on:
        return None
    if settings.cmd is not None:
        values = {"event": event, "message": message, "sweep": sweep}
        return [bash(), "-c", template.parse(settings.cmd).render(values)], {}
    if settings.url is not None:
        title = f"{sweep}: {event}" if sweep else event
        # -P: nothing in the user's directory stands in for a package.
        return [sys.executable, "-P", "-m", "runner.notify", title], {_URL_VARIABLE: settings.url}
    return None


def start(
    settings: Notify, event: str, sweep: str, message: str, environment: Mapping[str, str], cwd: str, log: int
) -> subprocess.Popen[bytes] | None:
    """Starts the child, with the message as its standard input and its outputs in the descriptor `log`.

    None when nobody wants to hear of the event, or the child could not be started, of which `log` then tells. The
    caller waits for the child when it has ended, and kills its process group when that takes too long.
    """
    try:
        command = command_of(settings, event, sweep, message)
        if command is None:
            return None
        arguments, own = command
        # A file, as a pipe would block on a child that does not read.
        with tempfile.TemporaryFile() as body:
            body.write(message.encode() + b"\n")
            body.seek(0)
            return subprocess.Popen(
                arguments,
                stdin=body,
                stdout=log,
                stderr=log,
                env={**environment, **own},
                cwd=cwd,
                start_new_session=True,
            )
    except (OSError, ValueError) as error:
        os.write(log, f"No notification of {event}: {error}\n".encode())
        return None


def main() -> int:
    """Sends standard input to the service of the environment variable; the one argument is the title."""
    try:
        import apprise
    except ImportError:
        print("notify: `url` needs the package apprise: pip install 'params-runner[notify]'", file=sys.stderr)
        return 2
    service = apprise.Apprise()
    if not service.add(os.environ.pop(_URL_VARIABLE, "")):
        print("notify: apprise does not know this `url`; its wiki lists the services.", file=sys.stderr)
        return 2
    if not service.notify(title=sys.argv[1], body=sys.stdin.read().strip()):
        print("notify: the service did not take the message.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
