"""A disk that is full, and then is not."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Project
    from tests.crash.conftest import Site

pytestmark = pytest.mark.crash


def fill(disk: Path) -> None:
    """Writes until there is no room left."""
    with (disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while ballast.write(bytes(4096)):
            continue


def test_a_full_disk_is_one_message_and_nothing_is_lost(project: Project, small_disk: Path) -> None:
    project.write("template:\n  a: 'true'\nresource: {cpu: 2}\n---\nn: [0, 1, 2]\n")
    assert project.run("-o", "disk").returncode == 0
    finished = {path: path.read_bytes() for path in small_disk.glob("[!.]*/*")}
    fill(small_disk)
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


def test_a_disk_that_fills_while_attempts_run_only_delays(
    site: Site, small_disk: Path, until: Callable[..., None]
) -> None:
    site.project.write(
        "template:\n  a: 'touch {_output}/started; while ! test -e go; do sleep 0.05; done'\n  b: 'true'\n"
        "resource: {cpu: 2}\n---\nn: [0, 1, 2]\n"
    )
    run = site.type("-o", "disk")
    until(lambda: all((small_disk / f"N_{n}" / "started").exists() for n in (0, 1)), lambda: run.text)
    fill(small_disk)
    (site.path / "go").touch()
    until(lambda: "No space left on device" in run.text, lambda: run.text)
    (small_disk / "ballast").unlink()
    assert run.wait() == 0, run.text
    for n in range(3):
        lines = (small_disk / f"N_{n}" / "attempts").read_text().splitlines()
        assert [stage for stage in ("a", "b") for line in lines if f'"start", "stage": "{stage}"' in line] == ["a", "b"]
