"""Thins out the files of finished trials: of the checkpoints that a pattern names only the newest stay."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from runner.model import CONFIG_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

# The runner's own files and the program's results.
_PROTECTED = frozenset({"param", "stat", "attempts", "metrics.csv", "lr.npy", CONFIG_FILE})


def refusal(pattern: str) -> str | None:
    """Why a text is no pattern of files to keep; None for one that is."""
    path = PurePosixPath(pattern)
    if not path.parts or "\0" in pattern:
        return "is no pattern of files; allowed: one such as ckpt/*.pt"
    if path.is_absolute() or ".." in path.parts:
        return "leaves the trial's directory; patterns are relative to it and do without `..`"
    if any("**" in part and part != "**" for part in path.parts):
        return "has ** beside other characters; ** stands for any directories, as in **/*.pt"
    return None


def remove_files(directory: str, keep: Mapping[str, int]) -> list[str]:
    """Deletes, for each pattern of `keep`, all but the newest so many of the trial's files that match it.

    `**` stands for any directories; the newest are those modified last, of equal ones the last by name. A file stays
    only when every pattern that it matches keeps it. Plain files alone go, never through a symbolic link, and none of
    the runner's. What cannot be deleted stays.

    Returns:
        The deleted files, relative to the directory, in the order of their names.
    """
    doomed: set[str] = set()
    for pattern, count in keep.items():
        found = sorted(_files(Path(directory), pattern), reverse=True)
        doomed.update(name for _, name in found[count:])
    return [name for name in sorted(doomed) if _unlink(f"{directory}/{name}")]


def _files(directory: Path, pattern: str) -> list[tuple[int, str]]:
    """The time of the last change, in ns, and the relative name of each file that may be deleted."""
    root = directory.resolve()
    found = []
    for path in directory.glob(pattern):
        name = path.relative_to(directory)
        if name.name in _PROTECTED or name.name.startswith("log."):
            continue
        try:
            status = path.lstat()
        except OSError:  # gone meanwhile
            continue
        # Equal only where no part of the way is a link.
        if stat.S_ISREG(status.st_mode) and path.resolve() == root / name:
            found.append((status.st_mtime_ns, str(name)))
    return found


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)  # noqa: PTH108 - a plain name
    except OSError:
        return False
    return True
