"""`snapshot: true`: waiting trials run the code as it was when they were planned, whatever is edited meanwhile.

`output/.runner/snapshots/<commit>-<changes>/<repository>/` holds the code once for each state of it; the stages run at
the same place inside. Links beside and within lead to what is no code: the output, data and environments that git
ignores, and the neighbours of the repository, so that relative paths mean what they meant.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runner.code import checkout, provenance
from runner.errors import InputError
from runner.trials import STATE_DIRECTORY

SIZE_MAX_MIB = 1024.0


@dataclass(frozen=True)
class Snapshot:
    """A place where the planned code lies, as a stage's working directory, and the hash by which it is on record."""

    directory: str
    code: str


@dataclass(frozen=True)
class Source:
    """The code as it is now, found fit to be kept; nothing has been written."""

    code: provenance.Code
    changes: bytes
    output: Path  # as the command line names it

    def keep(self) -> Snapshot:
        """Puts the code under the output directory, unless it is there already.

        Raises:
            SystemFaultError: git refused.
            OSError: the machine did.
        """
        name = provenance.keep(self.output, self.code, self.changes)
        assert self.code.top is not None
        top = Path(self.code.top)
        kept = self.output.resolve() / STATE_DIRECTORY / "snapshots" / self._key
        if not kept.exists():
            self._put(top, kept)
        tree = kept / top.name
        checkout.link_rest(top, tree, self.code.left_out, lambda _: True)
        _link_output(Path(os.path.abspath(self.output)), top, tree)  # noqa: PTH100 - a link stays one
        with suppress(PermissionError):  # a parent that cannot be listed has no neighbours that could be meant
            for neighbour in top.parent.iterdir():
                checkout.link(neighbour, kept / neighbour.name)
        return Snapshot(os.path.normpath(tree / self.code.directory), name)

    @property
    def _key(self) -> str:
        return f"{str(self.code.commit)[:12]}-{self.code.changes or 'clean'}"

    def _put(self, top: Path, kept: Path) -> None:
        part = kept.with_name(f"{kept.name}.{os.getpid()}.part")
        try:
            part.mkdir(parents=True)
            changes = provenance.changes_file(self.output, self.code)
            checkout.put(top, str(self.code.commit), changes, part / top.name)
            part.rename(kept)
        except OSError:
            if not kept.exists():  # otherwise another `run` was faster
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)


def source(directory: Path, output: Path) -> Source:
    """The code in a directory, for trials in `output`.

    Raises:
        InputError: there is no commit to begin with, the code is too large, or the output directory holds it.
    """
    code, changes = provenance.collect(directory, output)
    if code.commit is None or code.top is None:
        raise InputError(f"snapshot: {directory} is in no git repository with a commit; commit, or leave it out.")
    top = Path(code.top)
    _check_output(directory, output, top)
    _check_left_out(code, top)
    entries = checkout.git(top, "ls-tree", "-r", "-l", "-z", code.commit).split("\0")
    sizes = (entry.split("\t")[0].rpartition(" ")[2] for entry in entries if entry)
    size_mib = (sum(int(size) for size in sizes if size.isdigit()) + len(changes)) / 2**20
    if size_mib > SIZE_MAX_MIB:
        limit = f"a snapshot has at most {SIZE_MAX_MIB:g} MiB; keep data out of git, or leave `snapshot` out"
        raise InputError(f"snapshot: the code in {top} has {size_mib:,.0f} MiB; {limit}.")
    return Source(code, changes, output)


def _check_output(directory: Path, output: Path, top: Path) -> None:
    if directory.resolve().is_relative_to(output.resolve()):
        raise InputError(f"-o {output}: holds the code itself; with `snapshot`, name another directory.")
    within = os.path.relpath(os.path.abspath(output), top.parent)  # noqa: PTH100
    if not output.is_absolute() and within.startswith(os.pardir):
        raise InputError(f"-o {output}: too far from {top}; with `snapshot`, write it as {output.resolve()}.")


def _check_left_out(code: provenance.Code, top: Path) -> None:
    """Large new files are taken for data; what else the record lacks is code, and must not be missing."""
    for name in code.left_out:
        path = top / name
        if not os.path.lexists(path) or path.lstat().st_size <= provenance.FILE_BYTES_MAX:
            allowed = f"at most {provenance.FILES_MAX} new files and 64 MiB of changes; commit, or have git ignore them"
            raise InputError(f"snapshot: too much in {top} is not committed ({name}); allowed: {allowed}.")


def _link_output(output: Path, top: Path, tree: Path) -> None:
    """The output directory is found at its place within the code, too, whatever git has there."""
    if not output.is_relative_to(top):
        return
    target = tree / output.relative_to(top)
    if target.resolve() == output.resolve():
        return
    if target.parent.resolve().is_relative_to(tree):  # never through a link, to where the user's files are
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(output.resolve())
