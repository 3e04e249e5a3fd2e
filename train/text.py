"""Text: the sources of Python's standard library, a file, or a directory of files, in three splits. numpy only."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from train.errors import TrainError, told

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


def load(source: str) -> dict[str, bytes]:
    """Read the text, the same bytes in the same order each time, and cut it into its splits."""
    try:
        documents = list(_documents(source))
    except OSError as error:
        raise TrainError(f"cannot read the data {source}: {told(error)}") from error
    text = b"".join(documents)
    ends = np.cumsum([len(document) for document in documents])
    val, test = (_cut(ends, len(text), fraction) for fraction in CUTS)
    return dict(zip(SPLITS, (text[:val], text[val:test], text[test:]), strict=True))


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
