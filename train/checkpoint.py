"""checkpoint.pt: the whole state of a run, replaced at once, read without unpickling code."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch

from train.config import Config
from train.errors import TrainError
from train.files import replacing

NAME = "checkpoint.pt"
FORMAT = 1


def save(directory: Path, state: dict[str, Any]) -> None:
    with replacing(directory / NAME) as file:
        torch.save({"format": FORMAT, **state}, file)


def load(directory: Path) -> dict[str, Any] | None:
    """Return the state saved in a directory, None where there is none."""
    path = directory / NAME
    try:
        # What is no archive torch would read as its oldest format, with any exception for an end.
        if path.exists() and not is_zipfile(path):
            raise ValueError("it is cut off or no checkpoint")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, RuntimeError, UnpicklingError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise TrainError(f"cannot read {path} ({reason}); remove it to begin anew") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise TrainError(f"{path} is not a checkpoint of this version; remove it to begin anew")
    return state


def require_same(directory: Path, state: dict[str, Any], config: Config, data_sha256: str) -> None:
    """Raise where the checkpoint belongs to another run, with the names of what differs."""
    # A flag that is younger than the checkpoint had its default.
    then = {**Config(directory, **state["config"]).compared(), "data's content": state["data_sha256"][:12]}
    now = {**config.compared(), "data's content": data_sha256[:12]}
    differing = [f"{key} ({then[key]} there, {now[key]} here)" for key in now if then[key] != now[key]]
    if differing:
        raise TrainError(
            f"{directory} holds a checkpoint of another run: different {', '.join(differing)}; "
            "use another --out, or remove the checkpoint"
        )
