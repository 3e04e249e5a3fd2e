"""Directories whose trials run on a batch system that has faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.faultysite import WORDS, FaultySite
from tests.cluster.sge import GridEngine
from tests.contract.conftest import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cluster.slurm import Slurm


@pytest.fixture
def site_of(tmp_path: Path) -> Iterator[Callable[[Slurm | GridEngine], FaultySite]]:
    """A directory whose trials run on a batch system."""
    made = []

    def make(system: Slurm | GridEngine) -> FaultySite:
        name = "sge" if isinstance(system, GridEngine) else "slurm"
        made.append(FaultySite(tmp_path, Place(name, system, system.environment)))
        made[-1].timeout_s = 200
        return made[-1]

    yield make
    for site in made:
        site.clean_up()


@pytest.fixture(params=WORDS)
def system(request: pytest.FixtureRequest) -> Slurm | GridEngine:
    """Each of the batch systems that all tests share."""
    found: Slurm | GridEngine = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def site(system: Slurm | GridEngine, site_of: Callable[..., FaultySite]) -> FaultySite:
    """A directory whose trials run on each of them in turn."""
    return site_of(system)


@pytest.fixture
def slurm_site(slurm: Slurm, site_of: Callable[..., FaultySite]) -> FaultySite:
    """A directory whose trials run on Slurm."""
    return site_of(slurm)


@pytest.fixture
def see(tmp_path: Path, until: Callable[..., None]) -> Callable[..., None]:
    """Waits for what comes in its time; tells the daemon's log when it does not come."""
    log = tmp_path / "output" / ".runner" / "daemon.log"

    def see(condition: Callable[[], bool], timeout_s: float = 100.0) -> None:
        until(condition, lambda: log.read_text() if log.exists() else "no daemon", timeout_s)

    return see
