"""A project directory with a params.yaml, and the real console script run in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml
from hypothesis import settings

from runner.cli import main
from tests.cluster.fixtures import sge, slurm, slurm_with_cgroups, slurm_without_accounting
from tests.fakenvml.fixtures import fake_nvml, nvml_library, old_nvml_library

__all__ = [
    "fake_nvml",
    "nvml_library",
    "old_nvml_library",
    "sge",
    "slurm",
    "slurm_with_cgroups",
    "slurm_without_accounting",
]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# How long an example takes is no fault of the code's. On a build machine they are the same each time: what is new is
# found where somebody can look at it.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

# In the background and under nohup signals are ignored; what the tests start must not inherit that.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)

RUN = Path(sys.executable).with_name("run")
TIMEOUT_S = 60.0


class Project:
    """A user's directory; `run` is typed there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.output = path / "output"
        self.environment = {**os.environ, "COLUMNS": "200", "PATH": f"{RUN.parent}:{os.environ['PATH']}"}
        self.environment.pop("CUDA_VISIBLE_DEVICES", None)
        self.timeout_s = TIMEOUT_S
        self.processes: list[subprocess.Popen[str]] = []

    def write(self, text: str, name: str = "params.yaml") -> None:
        """Writes the file of templates and grids."""
        (self.path / name).write_text(text, encoding="utf-8")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Types `run` and waits for its end."""
        command = [str(RUN), *arguments]
        return subprocess.run(
            command,
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=self.timeout_s,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Types `run` and goes on; what is left of it is killed at the end of the test."""
        process = subprocess.Popen(
            [str(RUN), *arguments],
            cwd=self.path,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def stat(self, trial: str) -> dict[str, str]:
        """The `stat` of a trial."""
        result: dict[str, str] = yaml.safe_load((self.output / trial / "stat").read_text()) or {}
        return result

    def attempts(self, trial: str, event: str) -> list[dict[str, Any]]:
        """The attempt records of one kind."""
        path = self.output / trial / "attempts"
        lines = path.read_text().splitlines() if path.exists() else []
        # A kill may cut a line off; what the attempt's shell adds then stands on the same line.
        whole = (line[max(0, line.rfind('{"event": ')) :] for line in lines)
        return [record for line in whole if (record := json.loads(line))["event"] == event]

    def log(self, trial: str, stage: str) -> str:
        """The newest log of a stage."""
        logs = sorted((self.output / trial).glob(f"log.{stage}.*"))
        return logs[-1].read_text()

    def trials(self) -> list[str]:
        """The names of the trials' directories."""
        return sorted(path.name for path in self.output.iterdir() if path.is_dir() and path.name != ".runner")

    def living(self) -> list[psutil.Process]:
        """Every process of an attempt in this project's output."""
        found = []
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                if environment.get("RUNNER_OUTPUT", "").startswith("output") and Path(process.cwd()) == self.path:
                    found.append(process)
            except (psutil.Error, FileNotFoundError):
                continue
        return found

    def daemons(self) -> list[psutil.Process]:
        """The daemons that work in this project's output directories."""
        found = []
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
            except psutil.Error:
                continue
            if "runner.serve" in words and Path(words[-1]).is_relative_to(self.path):
                found.append(process)
        return found

    def clean_up(self) -> None:
        """Kills whatever a test left."""
        for daemon in self.daemons():
            with suppress(psutil.NoSuchProcess):  # it was about to leave
                daemon.kill()
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
        for left in self.living():
            with suppress(psutil.NoSuchProcess):
                left.kill()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """An empty project directory."""
    result = Project(tmp_path)
    yield result
    result.clean_up()


def wait_for(condition: Callable[[], bool], state: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Polls until `condition` holds; fails with the last `state` when it never does."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not reached within {timeout_s:g} s; last state: {state()}")
        time.sleep(0.01)


@pytest.fixture
def until() -> Callable[..., None]:
    """`wait_for`, for tests."""
    return wait_for


@dataclass(frozen=True)
class Said:
    """What came of a `run`."""

    code: int
    out: str
    err: str

    def started(self) -> list[str]:
        """The jobs that were started: stage and trial's name, in order."""
        lines = [line for line in self.out.splitlines() if line.startswith("START")]
        return sorted(f"{line.split(', ')[1].split(':')[0]} {line.rsplit('/', 1)[-1]}" for line in lines)


@pytest.fixture
def typed(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """`run` with some arguments in the project's directory, in this process."""
    monkeypatch.chdir(project.path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PATH", project.environment["PATH"])  # commands find the Python of this environment

    def run(*arguments: str) -> Said:
        code = main(arguments)
        told = capsys.readouterr()
        return Said(code, told.out, told.err)

    return run
