"""A machine with GPUs that a test invents: the fake NVML library, and the file that says what it shows."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SOURCE = Path(__file__).with_name("fakenvml.c")
PROGRAM = Path(__file__).with_name("program.py")
NOT_SUPPORTED = -1
HANGS = -1
EVERY_CALL, EVERY_DEVICE, NO_DEVICE = "*", "*", "-"
LIBRARY = "libnvidia-ml.so.1"


def uuid(number: int) -> str:
    """The UUID of the fake GPU with this number."""
    return f"GPU-{number:08x}-0000-4000-8000-00000000face"


@dataclass
class FakeGpu:
    """What the driver tells of one GPU; a test changes it and calls `FakeNvml.show`."""

    index: int
    total_mib: int = 24_576
    other_used_mib: int = 0  # by nobody in the list of processes
    utilization: int = 0
    mig_mode: int = 0
    name: str = "NVIDIA Fake 24GB"
    # Each process: pid, kind (C compute, G graphics, M through MPS), MiB or NOT_SUPPORTED.
    processes: list[tuple[int, str, int]] = field(default_factory=list)
    instances: list[tuple[int, str, int]] = field(default_factory=list)  # MIG: number, UUID, MiB
    uuid: str = ""

    def __post_init__(self) -> None:
        self.uuid = self.uuid or uuid(self.index)

    def lines(self) -> list[str]:
        """Its lines in the file."""
        bus = f"00000000:{self.index + 1:02X}:00.0"
        head = f"{self.index} {self.uuid} {bus} {self.total_mib} {self.other_used_mib}"
        return [
            f"device {head} {self.utilization} {self.mig_mode} {self.name}",
            *(f"process {self.uuid} {kind} {pid} {mib}" for pid, kind, mib in self.processes),
            *(f"mig {self.uuid} {number} {name} {mib} MIG 1g" for number, name, mib in self.instances),
        ]


class FakeNvml:
    """The fake driver of one test; processes started with `environment` see it through the real pynvml."""

    def __init__(self, directory: Path, library: Path, gpus: Sequence[FakeGpu]) -> None:
        self.path = directory / "nvml"
        self.library = library
        self.gpus = list(gpus)
        self.errors: list[tuple[str, str, int]] = []
        self.init_error = 0
        self.environment = {"FAKE_NVML": str(self.path), "LD_LIBRARY_PATH": str(library)}
        self.show()

    def show(self) -> None:
        """Puts what the test has changed before the running processes, all at once."""
        lines = [f"init {self.init_error}", *(line for gpu in self.gpus for line in gpu.lines())]
        lines += [f"error {call} {device} {code}" for call, device, code in self.errors]
        new = self.path.with_name(f"{self.path.name}.new")
        new.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
        new.replace(self.path)

    def fail(self, call: str, device: str, code: int) -> None:
        """Lets a call on a device fail with an error code of NVML, or, with HANGS, not return before `heal`."""
        self.errors.append((call, device, code))
        self.show()

    def heal(self) -> None:
        """No call fails any more."""
        self.errors.clear()
        self.init_error = 0
        self.show()

    def note_use(self, pid: int, device: str, used_mib: int) -> None:
        """Says for a living process how much memory it uses from now on; with 0 it has left the device."""
        with self.path.with_name(f"{self.path.name}.uses").open("a", encoding="ascii") as file:
            file.write(f"{pid} {device} {used_mib}\n")

    @contextmanager
    def program(self, device: str, *curve: str, environment: dict[str, str] | None = None) -> Iterator[int]:
        """A stranger's program on a device until the end of the block; yields its pid once it has the first amount."""
        own = {**os.environ, **self.environment, "CUDA_VISIBLE_DEVICES": device, **(environment or {})}
        arguments = [sys.executable, str(PROGRAM), *curve, "for-ever"]
        with subprocess.Popen(arguments, env=own, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                yield process.pid
            finally:
                process.kill()


def compile_library(directory: Path, *flags: str) -> Path:
    """Compiles the fake library with gcc, or with the ziglang wheel; returns the directory for LD_LIBRARY_PATH."""
    if shutil.which("gcc"):
        compiler = ["gcc"]
    elif importlib.util.find_spec("ziglang"):
        compiler = [sys.executable, "-m", "ziglang", "cc"]
    else:
        pytest.skip("no C compiler: the fake NVML library needs gcc, or the package ziglang")
    wanted = ["-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread", *flags]
    directory.mkdir(exist_ok=True)
    subprocess.run([*compiler, *wanted, "-o", str(directory / LIBRARY), str(SOURCE)], check=True, timeout=60)
    return directory


def load_here(monkeypatch: pytest.MonkeyPatch, fake: FakeNvml) -> None:
    """Lets the pynvml of this process use the fake library, as LD_LIBRARY_PATH does for a new process."""
    import pynvml

    monkeypatch.setenv("FAKE_NVML", str(fake.path))
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(fake.library / LIBRARY)))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
