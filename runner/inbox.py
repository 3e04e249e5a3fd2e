"""Commands from another host of the same file system: files dropped into `output/.runner/inbox/`."""

from __future__ import annotations

import json
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

from runner.trials import STATE_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.protocol import Message


class Inbox:
    """The daemon's end: reads requests, oldest first, each once."""

    def __init__(self, output: Path) -> None:
        self._path = output / STATE_DIRECTORY / "inbox"

    def take(self) -> Iterator[Message]:
        """The requests that have come; those of other users than the directory's owner are left alone."""
        try:
            names = sorted(os.listdir(self._path))  # noqa: PTH208 - looked at every two seconds
        except FileNotFoundError:
            return
        for name in names:
            path = self._path / name
            if not name.endswith(".json") or path.lstat().st_uid != os.getuid():
                continue
            try:
                request = json.loads(path.read_bytes())
            except (OSError, ValueError):
                request = None
            if not isinstance(request, dict):  # no request of ours
                path.rename(path.with_suffix(".damaged"))
                continue
            path.unlink()
            yield request


def drop(output: Path, request: Message) -> Path:
    """Leaves a request for the daemon, wherever it runs; returns its file, which is gone when it has been read."""
    folder = output / STATE_DIRECTORY / "inbox"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{time.time_ns():020d}.{secrets.token_hex(4)}"
    part = Path(folder, f"{name}.part")
    part.write_text(json.dumps(request), encoding="utf-8")
    return part.rename(part.with_suffix(".json"))
