"""`run tensorboard-sync`: curves and parameters for TensorBoard, also of programs that write none."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from runner.errors import InputError, SystemFaultError
from runner.results import chosen

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


def run(options: argparse.Namespace) -> int:
    """Writes what is missing, once or until nothing runs any more."""
    from runner.examine.eventwriter import sync

    if options.watch is not None and options.watch <= 0:
        raise InputError(f"--watch {options.watch:g}: give the seconds between two looks, such as 10.")
    output = chosen.output(options.output)
    while True:
        try:
            found = dict(sync(output, _names(output, options.names)))
        except OSError as error:
            raise SystemFaultError(f"{error.filename}: {error.strerror}.") from error
        events = sum(found.values())
        print(
            f"{len(found):,} trials, {events:,} new events. Look at them with: tensorboard --logdir {output}",
            flush=True,
        )
        if options.watch is None or not _is_running(output, list(found)):
            return 0
        time.sleep(options.watch)


def _names(output: Path, words: list[str]) -> list[str]:
    from runner.examine.readers import trial_names

    known = [name for name in trial_names(output) if (output / name / "param").is_file()]
    return chosen.names(words, known)


def _is_running(output: Path, names: list[str]) -> bool:
    from runner.examine.facts import RUNNING, read_facts

    for name in names:
        with suppress(FileNotFoundError):  # deleted meanwhile
            if read_facts(output / name)["state"] == RUNNING:
                return True
    return False
