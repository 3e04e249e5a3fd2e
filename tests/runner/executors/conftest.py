"""Batch systems that are nothing but recorded answers."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


class Fakes:
    """Commands on the PATH, alone there, that answer what they are told to and write down what they were asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def answer(self, name: str, output: str = "", complaint: str = "", code: int = 0) -> None:
        """What a command says from now on."""
        files = {}
        for suffix, text in {"output": output, "complaint": complaint}.items():
            files[suffix] = self.directory / f"{name}.{suffix}"
            files[suffix].write_text(text)
        cat = shlex.quote(shutil.which("cat", path="/usr/bin:/bin") or "cat")
        self.script(
            name,
            f'printf "%s\\n" "$@" >"$0.arguments"; {cat} >"$0.input"; '
            f'{cat} "$0.output"; {cat} "$0.complaint" >&2; exit {code}',
        )

    def script(self, name: str, text: str) -> None:
        """A command that does as it is told."""
        path = self.directory / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def arguments(self, name: str) -> list[str]:
        """With what a command was called last."""
        return (self.directory / f"{name}.arguments").read_text().splitlines()

    def was_asked(self, name: str) -> bool:
        """Whether a command was called at all."""
        return (self.directory / f"{name}.arguments").exists()


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    """An empty directory of commands."""
    directory = tmp_path / "commands"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return Fakes(directory)


@pytest.fixture
def recorded() -> Callable[[str], str]:
    """What a command said on a real system: Slurm 22.05.8, Grid Engine 8.1.9."""
    return lambda name: (Path(__file__).parent / "recorded" / name).read_text()
