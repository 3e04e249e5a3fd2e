"""A disk that is full, and then is not."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Project

pytestmark = pytest.mark.crash


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nothing be mounted")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_one_message_and_nothing_is_lost(project: Project, small_disk: Path) -> None:
    project.write("template:\n  a: 'true'\nresource: {cpu: 2}\n---\nn: [0, 1, 2]\n")
    assert project.run("-o", "disk").returncode == 0
    finished = {path: path.read_bytes() for path in small_disk.glob("[!.]*/*")}
    # It ends when there is no room left.
    with (small_disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while ballast.write(bytes(4096)):
            continue
    project.write("template:\n  a: 'true'\nresource: {cpu: 2}\n---\nn: [0, 1, 2, 3, 4, 5]\n")
    full = project.run("-o", "disk")
    assert full.returncode == 1
    assert "No space left on device" in full.stderr
    assert "Traceback" not in full.stderr
    assert {path: path.read_bytes() for path in finished} == finished

    (small_disk / "ballast").unlink()
    again = project.run("-o", "disk")
    assert again.returncode == 0, again.stdout + again.stderr
    assert sum(line.startswith("SKIP") for line in again.stdout.splitlines()) >= 3
    assert sorted(path.parent.name for path in small_disk.glob("*/stat")) == [f"N_{n}" for n in range(6)]
