"""The batch systems, started once for all tests that ask for them; where they cannot be had, those are skipped."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.cluster.machine import UnavailableError
from tests.cluster.sge import GridEngine
from tests.cluster.slurm import Kind, Slurm

if TYPE_CHECKING:
    from collections.abc import Iterator

Engine = TypeVar("Engine", Slurm, GridEngine)


@contextmanager
def started(engine: Engine) -> Iterator[Engine]:
    """Starts a batch system and stops it in the end, whatever happened."""
    try:
        engine.start()
        yield engine
    except UnavailableError as error:
        pytest.skip(str(error))
    finally:
        engine.stop()


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Slurm with accounting."""
    with started(Slurm(tmp_path_factory.mktemp("slurm"))) as engine:
        yield engine


@pytest.fixture(scope="module")
def slurm_without_accounting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Slurm that forgets a job five seconds after its end: no `sacct`."""
    with started(Slurm(tmp_path_factory.mktemp("slurm"), Kind(accounting=False))) as engine:
        yield engine


@pytest.fixture(scope="module")
def slurm_with_cgroups(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Slurm that kills a job which takes more memory than it asked for."""
    with started(Slurm(tmp_path_factory.mktemp("slurm"), Kind(cgroups=True))) as engine:
        yield engine


@pytest.fixture(scope="session")
def sge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridEngine]:
    """Grid Engine."""
    with started(GridEngine(tmp_path_factory.mktemp("sge"))) as engine:
        yield engine
