"""Code that is on record, put into a directory: the commit, the uncommitted changes, and what git does not keep."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from runner.errors import SystemFaultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_SUBMODULE = "160000"  # git's file mode of one


def put(top: Path, commit: str, changes: Path | None, into: Path) -> None:
    """Makes `into` a repository of its own with a commit checked out and a difference applied to it.

    Raises:
        SystemFaultError: git refused.
    """
    # Shared: a commit that no branch has any more is still there, and the repository stays as it is.
    git(top, "clone", "--quiet", "--shared", "--no-checkout", str(top), str(into))
    git(into, "checkout", "--quiet", "--detach", commit)
    if changes is not None:
        git(into, "apply", "--binary", "--whitespace=nowarn", str(changes.resolve()))


def link_rest(top: Path, into: Path, left_out: Iterable[str], is_wanted: Callable[[Path], bool]) -> None:
    """Links what no commit and no difference holds: data and environments that git ignores, submodules, and the new
    files that were left out as too large. What is there already stays, compiled code is not wanted."""
    ignored = git(top, "ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z").split("\0")
    for name in [*ignored, *_submodules(top), *left_out]:
        source, target = top / name.rstrip("/"), into / name.rstrip("/")
        if name and source.name != "__pycache__" and is_wanted(source):
            link(source, target)


def link(source: Path, target: Path) -> None:
    """Links a file or directory, unless there is something already; an empty directory is nothing."""
    if _is_empty_directory(target):
        target.rmdir()
    if not source.exists() or os.path.lexists(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.resolve())


def git(directory: Path, *arguments: str) -> str:
    """What a git command prints.

    Raises:
        SystemFaultError: it refused; its first fatal line says why, or else its last one.
    """
    done = subprocess.run(["git", "-C", str(directory), *arguments], capture_output=True, check=False)
    if done.returncode:
        lines = os.fsdecode(done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
        why = next((line for line in lines if line.startswith("fatal: ")), lines[-1])
        raise SystemFaultError(f"git {arguments[0]}: {why.removeprefix('fatal: ')}")
    return os.fsdecode(done.stdout)


def _submodules(top: Path) -> list[str]:
    entries = git(top, "ls-files", "--stage", "-z").split("\0")
    return [entry.split("\t", 1)[1] for entry in entries if entry.startswith(_SUBMODULE)]


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())
