"""The fake driver as fixtures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakenvml.driver import FakeGpu, FakeNvml, compile_library, load_here

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the fake library, that of a driver of today."""
    return compile_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the fake library of a driver that lacks what came later."""
    return compile_library(tmp_path_factory.mktemp("old-nvml"), "-DOLD_DRIVER")


@pytest.fixture
def fake_nvml(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeNvml]:
    """A machine with the given GPUs, for this process and for those started with its `environment`."""

    def make(*gpus: FakeGpu, library: Path = nvml_library) -> FakeNvml:
        fake = FakeNvml(tmp_path, library, gpus)
        load_here(monkeypatch, fake)
        monkeypatch.setenv("RUNNER_LEASES", str(tmp_path / "leases"))
        fake.environment["RUNNER_LEASES"] = str(tmp_path / "leases")
        return fake

    return make
