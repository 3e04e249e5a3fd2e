"""Files that are either the old ones or the new ones, whenever the program ends."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml

RUN_ID = "wandb_id"
"""Of a run's directory: under which Weights & Biases finds a resumed run again."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file beside `path` and, when all of it is on the disk, put it in its place."""
    beside = path.with_name(f"{path.name}.tmp")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        # On a full disk it would keep the room that there is.
        beside.unlink(missing_ok=True)
        raise


def write_yaml(path: Path, value: dict[str, Any], comment: str) -> None:
    with replacing(path) as file:
        file.write(f"# {comment}\n{yaml.safe_dump(value, sort_keys=False, allow_unicode=True)}".encode())


def write_json(path: Path, value: dict[str, Any]) -> None:
    with replacing(path) as file:
        file.write(json.dumps(value, indent=2).encode() + b"\n")
