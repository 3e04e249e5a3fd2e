"""checkpoints/<step>.pt: the whole state of a run, replaced at once, read without unpickling code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZipFile, is_zipfile

import torch
from filelock import FileLock, Timeout

from train.config import HOW, Config
from train.errors import TrainError
from train.files import replacing
from train.flags import config_class, make

DIRECTORY = "checkpoints"
BEST = "best.pt"
LOCK = ".lock"
FORMAT = 2


def save(directory: Path, state: dict[str, Any], keep: int) -> Path:
    """Save the state of its step, and remove all but the last `keep` (0: none is removed)."""
    path = directory / DIRECTORY / f"{state['step']}.pt"
    _write(path, state)
    for old in saved(directory)[:-keep] if keep else []:
        old.unlink()
    return path


def save_best(directory: Path, state: dict[str, Any]) -> None:
    _write(directory / DIRECTORY / BEST, state)


def _write(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as file:
        try:
            torch.save({"format": FORMAT, **state}, file)
        except RuntimeError as error:
            # Of a full disk torch tells no more than that its own count of bytes is wrong.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def saved(directory: Path) -> list[Path]:
    """Return the checkpoints of a run by their steps, the newest last."""
    return sorted((p for p in (directory / DIRECTORY).glob("*.pt") if p.stem.isdecimal()), key=lambda p: int(p.stem))


def load_newest(directory: Path) -> dict[str, Any] | None:
    """Return the newest state of a run; None where there is none."""
    paths = saved(directory)
    return load(paths[-1]) if paths else None


def load(path: Path, advice: str = "remove it to go on from the one before it, or to begin anew") -> dict[str, Any]:
    """Return a state; raise TrainError, with `advice`, for a file that holds none of this version."""
    try:
        check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, UnpicklingError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise TrainError(f"cannot read {path} ({reason}); {advice}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise TrainError(f"{path} is not a checkpoint of this version; {advice}")
    return state


def check_archive(path: Path) -> None:
    """Raise ValueError for a file that is cut off, or whose content is not what was written.

    Torch compares no checksums, and would read what is no archive as its oldest format, with any exception for an end.
    """
    if not is_zipfile(path):
        raise ValueError("it is cut off or no checkpoint")
    try:
        with ZipFile(path) as archive:
            damaged = archive.testzip()
    # A damaged directory of the archive ends in as many ways as there are bytes.
    except Exception as error:
        raise ValueError(f"it is damaged: {error}") from error
    if damaged:
        raise ValueError("it is damaged: a checksum differs")


def load_origin(path: Path, begin: int) -> dict[str, Any]:
    """Return the state that another run begins with: of a file, or of a run's directory at step `begin` (0: newest)."""
    if path.is_dir():
        steps = {int(file.stem): file for file in saved(path)}
        wanted = begin or max(steps, default=0)
        if wanted not in steps:
            there = ", ".join(map(str, steps)) or "none"
            raise TrainError(f"init_from: {path} holds no checkpoint of step {wanted}; there are: {there}")
        path = steps[wanted]
    elif not path.exists():
        raise TrainError(f"init_from: there is no {path}")
    state = load(path, "init_from takes one that `python -m train` of this version wrote, or the directory of a run")
    if begin and state["step"] != begin:
        raise TrainError(f"begin is {begin}: {path} is the state of step {state['step']}")
    return state


def recorded_config(directory: Path, state: dict[str, Any]) -> Config:
    """Return the config of the run that a state belongs to."""
    return make(config_class(state["config"]["task"]), {**state["config"], "out": directory})


def continued(config: Config, state: dict[str, Any]) -> Config:
    """Return the config with which a run goes on; raise where what is asked for is another run.

    An option that was given neither then nor now has the default of then.
    """
    then = recorded_config(config.out, state)
    config = config.in_steps(state["epoch"])
    if type(then) is not type(config):
        differing = [f"task ({then.task} there, {config.task} here)"]
    else:
        given = {*state["given"], *config.model_fields_set} - HOW
        pairs = {name: (getattr(then, name), getattr(config, name)) for name in sorted(given)}
        # What is None here is inferred.
        differing = [f"{n} ({old} there, {new} here)" for n, (old, new) in pairs.items() if new not in (old, None)]
    if differing:
        raise TrainError(
            f"{config.out} holds a checkpoint of another run: different {', '.join(differing)}; "
            "use another --out, or remove the checkpoints"
        )
    how = {name: getattr(config, name) for name in HOW & type(config).model_fields.keys()}
    return then.model_copy(update=how)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other processes from training in a directory; the system opens the lock when this process ends."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / LOCK)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TrainError(
            f"another process is training in {directory}: wait for its end, or use another --out"
        ) from error
    except OSError as error:
        raise TrainError(f"cannot write to {directory}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
