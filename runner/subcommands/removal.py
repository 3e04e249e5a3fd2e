"""`run rm` and `run archive`: trials that are no longer wanted where they are."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from runner import planning, process, records, recovery
from runner.errors import InputError, SystemFaultError, did_you_mean
from runner.examine.readers import shared_trials
from runner.executors.local import process_of
from runner.lock import sole_user
from runner.model import JobState
from runner.trials import STATE_DIRECTORY

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Sequence

_SHOWN = 10
EXIT_OK, EXIT_DECLINED = 0, 1


class Stored(NamedTuple):
    """A trial as it lies in an output directory: its own directory or that of its records, and how it is shown."""

    name: str
    directory: Path
    shown: str


def run(options: argparse.Namespace) -> int:
    """Removes what was chosen, after the user said yes."""
    output = Path(options.output)
    if not (options.names or options.title or options.state):
        raise InputError(f"run {options.subcommand}: name trials, or choose them with -t or --state.")
    if not output.is_dir():
        raise InputError(f"-o {output}: no such directory.")
    if not choose(output, options):  # before the lock, which would be written
        print("No such trial.")
        return EXIT_OK
    with sole_user(output):
        chosen = choose(output, options)
        for trial in chosen:
            _refuse_running(trial.directory)
        if not (options.yes or _says_yes(options.subcommand, chosen)):
            print("Nothing was done.")
            return EXIT_DECLINED
        for trial in chosen:
            _remove(trial, output, is_kept=options.subcommand == "archive")
    print(f"{len(chosen):,} {'trial' if len(chosen) == 1 else 'trials'} {_PAST[options.subcommand]}.")
    return EXIT_OK


_PAST = {"rm": "deleted", "archive": f"packed into {STATE_DIRECTORY}/archive"}


def choose(output: Path, options: argparse.Namespace) -> list[Stored]:
    """The trials that fit all that was said, by name.

    Raises:
        InputError: a name or a state that does not exist.
    """
    found = _stored(output)
    if options.title:
        asked = planning.read(options).trials(is_preview=True)
        of_sweep = {word for trial in asked for word in (Path(trial.directory).name, trial.trial_id)}
        found = [trial for trial in found if trial.directory.name in of_sweep]
    names = dict.fromkeys(trial.name for trial in found)
    for word in options.names:
        if not any(_fits(name, word, names) for name in names):
            raise InputError(f"{word}: no such trial in {output}.{did_you_mean(word, names)}")
    if options.names:
        found = [trial for trial in found if any(_fits(trial.name, word, names) for word in options.names)]
    if options.state:
        words = [state.value for state in JobState]
        if options.state not in words:
            raise InputError(f"--state {options.state}: no such state. Allowed: {', '.join(words)}.")
        stages = _stages(options)
        found = [
            trial
            for trial in found
            if any(
                state == options.state and (stages is None or stage in stages)
                for stage, state in records.read_stat(str(trial.directory)).items()
            )
        ]
    return found


def _stored(output: Path) -> list[Stored]:
    """The trials with directories of their own, then those that share the output directory, which lose their records
    alone."""
    own = [path for path in sorted(output.iterdir()) if (path / "param").is_file() and path.name != STATE_DIRECTORY]
    shared = [Stored(name, path, f"{output}: {name}") for name, path in shared_trials(output).items()]
    return [Stored(path.name, path, str(path)) for path in own] + shared


def _stages(options: argparse.Namespace) -> Collection[str] | None:
    """The stages that count: those of the file; None, where there is none: all that were ever run."""
    return planning.read(options).config.templates.keys() if Path(options.yaml).exists() else None


def _fits(name: str, word: str, names: Collection[str]) -> bool:
    """Whether a word names a trial: exactly, or, when no trial is called so, with * and ? for any characters."""
    if word in names:
        return name == word
    return fnmatchcase(name, word.replace("[", "[[]"))


def _refuse_running(directory: Path) -> None:
    """An attempt may have outlived its `run`, or run on another host."""
    host = process.this_host()
    for attempt in records.read_attempts(str(directory)).attempts:
        if attempt.end is not None or attempt.exit_code is not None:
            continue
        is_here = (attempt.start["boot"], attempt.start["pid_namespace"]) == (host.boot, host.pid_namespace)
        where = recovery.exit_record(str(directory), attempt.stage, attempt.number)
        if is_here and process.find(*process_of(attempt.process), where) is not None:
            raise InputError(f"{directory}: `{attempt.stage}` still runs; type `run` to watch it, or end it first.")
        if not is_here and attempt.start["host"] != host.name:
            place = f"was started on host {attempt.start['host']} and has no recorded end"
            raise InputError(f"{directory}: `{attempt.stage}` {place}; type `run` there first.")


def _says_yes(subcommand: str, chosen: Sequence[Stored]) -> bool:
    for trial in chosen[:_SHOWN]:
        print(f"  {trial.shown}")
    if len(chosen) > _SHOWN:
        print(f"  … and {len(chosen) - _SHOWN:,} more")
    verb = {"rm": "Delete", "archive": "Archive"}[subcommand]
    print(f"{verb} {len(chosen):,} {'trial' if len(chosen) == 1 else 'trials'}? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _remove(trial: Stored, output: Path, is_kept: bool) -> None:
    directory = trial.directory
    try:
        if is_kept:
            _pack(trial, output)
        if directory.is_symlink():
            directory.unlink()
            return
        # Moved first: a directory that is half deleted must not be taken for a trial.
        doomed = Path(tempfile.mkdtemp(prefix="deleting.", dir=output / STATE_DIRECTORY))
        directory.rename(doomed / "trial")
        shutil.rmtree(doomed)
    except OSError as error:
        raise SystemFaultError(f"{error.filename or directory}: {error.strerror or error}.") from error


def _pack(trial: Stored, output: Path) -> None:
    archive = output / STATE_DIRECTORY / "archive"
    archive.mkdir(parents=True, exist_ok=True)
    target, count = archive / f"{trial.name}.tar.gz", 1
    while target.exists():
        count += 1
        target = archive / f"{trial.name}.{count}.tar.gz"
    part = target.with_name(f"{target.name}.part")
    with tarfile.open(part, "w:gz") as packed:
        packed.add(trial.directory.resolve(), arcname=str(trial.directory.relative_to(output)))
    os.replace(part, target)  # noqa: PTH105 - whole, or not there
