"""Which code and which environment a plan ran with, so that a trial can be run again as it was.

`record` writes `output/.runner/code/<hash>.json`, and the uncommitted changes beside it, once for each state of code
and environment; an attempt says the hash.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.trials import STATE_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterable

FILE_BYTES_MAX, FILES_MAX, _CHANGES_BYTES_MAX = 1 << 20, 1000, 64 << 20
_GIT_TIMEOUT_S = 30.0
_PATHS = "import platform, sys; print(platform.python_version(), *sys.path, sep=chr(10))"


@dataclass(frozen=True)
class Code:
    """What is on record of a plan: git's part is empty outside of a repository."""

    commit: str | None = None
    branch: str | None = None
    directory: str = ""  # where `run` was typed, relative to the top of the repository
    changes: str | None = None  # the hash of the uncommitted difference; None when there was none
    left_out: tuple[str, ...] = ()  # new files too large to be kept; the changes lack them
    top: str | None = None  # of the repository, on the machine that ran
    python: str = ""
    platform: str = ""
    driver: str | None = None
    cuda: str | None = None
    gpus: tuple[str, ...] = ()
    packages: tuple[str, ...] = field(default=())

    @property
    def shown(self) -> str:
        """The commit in short, with a + when there were changes."""
        return f"{(self.commit or '')[:9]}{'+' if self.changes or self.left_out else ''}"


def record(output: Path, directory: Path) -> str:
    """Writes down the code in `directory` and the environment; returns the hash that stands for both.

    It takes some tens of milliseconds, more in a large repository: once for each plan is right.
    """
    return keep(output, *collect(directory, output))


def keep(output: Path, code: Code, changes: bytes) -> str:
    """Writes down what `collect` found; returns the hash that stands for it."""
    text = json.dumps(asdict(code), indent=1, sort_keys=True)
    name = _hash(text.encode())
    kept = _directory(output)
    kept.mkdir(parents=True, exist_ok=True)
    if code.changes is not None:
        _write(kept / f"{code.changes}.diff", changes)
    _write(kept / f"{name}.json", text.encode())
    return name


def load(output: Path, name: str) -> Code | None:
    """What stands for a hash; None when it is not there, or cannot be read."""
    try:
        content = json.loads((_directory(output) / f"{name}.json").read_bytes())
        known: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
        }
        return Code(**known)
    except (OSError, ValueError, TypeError):
        return None


def changes_file(output: Path, code: Code) -> Path | None:
    """The file with the uncommitted difference, as `git apply` takes it."""
    return None if code.changes is None else _directory(output) / f"{code.changes}.diff"


def collect(directory: Path, output: Path) -> tuple[Code, bytes]:
    """The code in a directory and the environment, with the uncommitted changes; nothing under `output` counts."""
    python, packages = _packages()
    driver, cuda, gpus = _gpus()
    of_git, changes = _of_git(directory, output)
    about = {"python": python, "platform": platform.platform(), "driver": driver, "cuda": cuda}
    return Code(**of_git, **about, gpus=gpus, packages=packages), changes  # type: ignore[arg-type]


def _directory(output: Path) -> Path:
    return output / STATE_DIRECTORY / "code"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _write(path: Path, content: bytes) -> None:
    if path.exists():
        return
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


# --- git ---


class _GitError(Exception):
    """There is no git, no repository, or no commit."""


def _git(directory: Path | str, *arguments: str, index: str | None = None, stdin: bytes = b"") -> bytes:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    if index is not None:
        environment["GIT_INDEX_FILE"] = index
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            input=stdin,
            capture_output=True,
            timeout=_GIT_TIMEOUT_S,
            check=True,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise _GitError from error
    return done.stdout


def _of_git(directory: Path, output: Path) -> tuple[dict[str, object], bytes]:
    try:
        top = _git(directory, "rev-parse", "--show-toplevel").decode().rstrip("\n")
        commit = _git(top, "rev-parse", "HEAD").decode().strip()
        branch = _git(top, "rev-parse", "--abbrev-ref", "HEAD").decode().strip()
        changes, left_out = _changes(top, output)
    except _GitError:
        return {}, b""
    return {
        "commit": commit,
        "branch": branch,
        "directory": os.path.relpath(directory.resolve(), Path(top).resolve()),
        "changes": _hash(changes) if changes else None,
        "left_out": left_out,
        "top": top,
    }, changes


def _changes(top: str, output: Path) -> tuple[bytes, tuple[str, ...]]:
    """The difference to the commit, new files included; the repository and its index stay as they are."""
    new: list[str] = []
    left_out: list[str] = []
    inside = os.path.relpath(output.resolve(), Path(top).resolve())
    for name in _git(top, "ls-files", "--others", "--exclude-standard", "-z").split(b"\0"):
        path = os.fsdecode(name)
        if not name or path == inside or path.startswith(f"{inside}/"):
            continue
        is_kept = _size(Path(top) / path) <= FILE_BYTES_MAX and len(new) < FILES_MAX
        (new if is_kept else left_out).append(path)
    with tempfile.TemporaryDirectory(prefix="runner-index-") as temporary:
        index = str(Path(temporary) / "index")
        own = Path(top) / _git(top, "rev-parse", "--git-path", "index").decode().rstrip("\n")
        if own.exists():
            shutil.copyfile(own, index)
        if new:
            names = b"\0".join(map(os.fsencode, new))
            _git(top, "add", "-N", "--pathspec-from-file=-", "--pathspec-file-nul", index=index, stdin=names)
        difference = ["diff", "--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv"]
        prefixes = ["--src-prefix=a/", "--dst-prefix=b/"]
        changes = _git(top, *difference, *prefixes, "HEAD", "--", ".", f":(exclude,top,literal){inside}", index=index)
    if len(changes) > _CHANGES_BYTES_MAX:
        return b"", (*left_out, "all changes to tracked files")
    return changes, tuple(sorted(left_out))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


# --- the environment ---


def _packages() -> tuple[str, tuple[str, ...]]:
    """The version of the Python that commands find first, and its packages."""
    found = shutil.which("python") or shutil.which("python3")
    if found is None or Path(found).parent == Path(sys.executable).parent:
        return platform.python_version(), _installed(sys.path)
    try:
        done = subprocess.run([found, "-c", _PATHS], capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return "", ()
    version, *paths = done.stdout.splitlines()
    return version, _installed(paths)


def _installed(paths: Iterable[str]) -> tuple[str, ...]:
    """The packages in some directories by the names of their records: a hundred times sooner than reading these."""
    found = set()
    for path in filter(os.path.isdir, paths):
        for name in os.listdir(path):  # noqa: PTH208
            if name.endswith(".dist-info") and "-" in name:
                package, _, version = name.removesuffix(".dist-info").rpartition("-")
                found.add(f"{package}=={version}")
    return tuple(sorted(found))


@functools.cache
def _gpus() -> tuple[str | None, str | None, tuple[str, ...]]:
    """NVIDIA's driver and the CUDA version that it knows, and the names of the GPUs."""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            cuda = pynvml.nvmlSystemGetCudaDriverVersion()
            handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
            names = tuple(str(pynvml.nvmlDeviceGetName(handle)) for handle in handles)
            return str(pynvml.nvmlSystemGetDriverVersion()), f"{cuda // 1000}.{cuda % 1000 // 10}", names
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None, None, ()
