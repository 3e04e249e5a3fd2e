"""Text as bytes: the sources of Python's standard library, a file, or a directory of files. numpy only."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from train.errors import TrainError

Bytes: TypeAlias = NDArray[np.uint8]

SPLITS = ("train", "val", "test")
CUTS = (0.90, 0.95)
"""Where the validation and the test split begin, as fractions of the text."""
STDLIB_BYTES = 8_000_000
# Tests, other people's packages, and files that are tables rather than programs.
STDLIB_SKIPPED = frozenset(
    (
        *("test", "tests", "idlelib", "idle_test", "lib2to3", "turtledemo", "ensurepip"),
        *("site-packages", "dist-packages", "encodings", "pydoc_data"),
    )
)


@dataclass(frozen=True)
class Text:
    """The splits of a text, without a byte in common, and the digest of the whole."""

    train: Bytes
    val: Bytes
    test: Bytes
    sha256: str

    @property
    def n_bytes(self) -> int:
        return len(self.train) + len(self.val) + len(self.test)

    def split(self, name: str) -> Bytes:
        return {"train": self.train, "val": self.val, "test": self.test}[name]


def load(source: str, context: int) -> Text:
    """Read the text, the same bytes in the same order each time, and split it."""
    try:
        documents = list(_documents(source))
    except OSError as error:
        raise TrainError(f"cannot read the data {source}: {error.strerror or error}") from error
    text = b"".join(documents)
    whole = np.frombuffer(text, dtype=np.uint8)
    ends = np.cumsum([len(document) for document in documents])
    val, test = (_cut(ends, len(text), fraction) for fraction in CUTS)
    parts = (whole[:val], whole[val:test], whole[test:])
    for name, part in zip(SPLITS, parts, strict=True):
        if len(part) <= context:
            raise TrainError(
                f"the data {source} is too short: its {name} split has {len(part)} bytes, "
                f"a context of {context} needs at least {context + 1}"
            )
    return Text(*parts, sha256=hashlib.sha256(text).hexdigest())


def _cut(ends: NDArray[np.int64], size: int, fraction: float) -> int:
    """Return where to cut: at the end of a document where one is near, so that none is in two splits."""
    target = int(size * fraction)
    if not len(ends):
        return target
    nearest = int(ends[np.abs(ends - target).argmin()])
    return nearest if abs(nearest - target) <= 0.01 * size else target


def _documents(source: str) -> Iterator[bytes]:
    path = Path(source)
    if source == "stdlib":
        yield from _stdlib()
    elif path.is_dir():
        yield from (file.read_bytes() for file in _shuffled(path, "", frozenset()))
    elif path.exists():
        yield path.read_bytes()
    else:
        raise TrainError(f"no data at {source}: allowed are 'stdlib', a text file or a directory of them")


def _stdlib() -> Iterator[bytes]:
    n_bytes = 0
    for file in _shuffled(Path(sysconfig.get_path("stdlib")), ".py", STDLIB_SKIPPED):
        if n_bytes >= STDLIB_BYTES:
            return
        document = file.read_bytes()
        n_bytes += len(document)
        yield document


def _shuffled(root: Path, suffix: str, skipped: frozenset[str]) -> list[Path]:
    """Return the files below `root`, but hidden ones, in an order that only their relative paths decide."""
    found: list[tuple[bytes, Path]] = []
    for directory, subdirectories, names in os.walk(root):
        subdirectories[:] = [
            name for name in subdirectories if name not in skipped and not name.startswith((".", "__pycache__"))
        ]
        for name in names:
            if name.endswith(suffix) and not name.startswith("."):
                path = Path(directory, name)
                found.append((hashlib.sha256(path.relative_to(root).as_posix().encode()).digest(), path))
    return [path for _, path in sorted(found)]


def spaced_windows(data: Bytes, context: int, limit: int) -> Bytes:
    """Return up to `limit` windows of context + 1 bytes, evenly spaced, each byte predicted at most once."""
    available = (len(data) - 1) // context
    n = min(limit, available)
    starts = np.arange(n) * available // n * context
    windows: Bytes = data[starts[:, None] + np.arange(context + 1)]
    return windows
