"""A user's directory in which the same params.yaml is run by each executor in turn."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import Project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.cluster.sge import GridEngine
    from tests.cluster.slurm import Slurm

TIMEOUT_S = 100.0  # of a `run`: batch systems take seconds for what a machine does at once
SYSTEMS = [pytest.param(name, marks=pytest.mark.cluster) for name in ("slurm", "sge")]
KEYS: Mapping[str, Mapping[str, Any]] = {
    "local": {},
    "slurm": {"poll": 1},
    "sge": {"poll": 1, "gpu_resource": "gpus"},
}
CANCEL_ALL = {"slurm": ("scancel", "--user=root"), "sge": ("qdel", "-u", "root")}


@dataclass(frozen=True)
class Place:
    """Where trials run: on this machine, or on those of a batch system that was started for the tests."""

    name: str
    system: Slurm | GridEngine | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_batch(self) -> bool:
        """Whether a batch system runs them."""
        return self.system is not None

    def line(self, keys: Mapping[str, Any]) -> str:
        """The one line of params.yaml that differs, with what batch systems are told besides."""
        if not self.is_batch:
            return "executor: local\n"
        return f"executor: {json.dumps({self.name: {**KEYS[self.name], **keys}})}\n"

    def cancel_all(self) -> None:
        """Takes out of the queue what a test left."""
        if self.system is not None:
            with suppress(RuntimeError):  # Grid Engine complains where there is nothing
                self.system.call(*CANCEL_ALL[self.name])


class Site(Project):
    """A user's directory; what is written there is run at one place."""

    def __init__(self, path: Path, place: Place) -> None:
        super().__init__(path)
        self.place = place
        self.environment |= place.environment
        self.timeout_s = TIMEOUT_S

    def write_params(self, text: str, **keys: Any) -> None:
        """Writes params.yaml; `keys` are told to batch systems."""
        self.write(self.place.line(keys) + text)

    def states(self) -> dict[str, dict[str, str]]:
        """The states of each trial's stages, as `run status` tells them."""
        found = json.loads(self.run("status", "--json").stdout)
        return {trial["name"]: trial["states"] for trial in found["trials"]}

    def daemon_log(self) -> str:
        """What the daemons have noted."""
        path = self.output / ".runner" / "daemon.log"
        return path.read_text(errors="replace") if path.exists() else "(no daemon.log)"

    def clean_up(self) -> None:
        """Kills whatever a test left."""
        super().clean_up()
        self.place.cancel_all()


def batch_place(request: pytest.FixtureRequest) -> Place:
    """The batch system that a fixture is for."""
    system = request.getfixturevalue(request.param)
    return Place(request.param, system, system.environment)


@pytest.fixture(params=["local", *SYSTEMS], scope="module")
def place(request: pytest.FixtureRequest) -> Place:
    """Each executor in turn."""
    return Place("local") if request.param == "local" else batch_place(request)


@pytest.fixture
def site(tmp_path: Path, place: Place) -> Iterator[Site]:
    """An empty directory."""
    result = Site(tmp_path, place)
    yield result
    result.clean_up()


@pytest.fixture(scope="module")
def lasting_site(tmp_path_factory: pytest.TempPathFactory, place: Place) -> Iterator[Site]:
    """A directory that all tests of a module look at."""
    result = Site(tmp_path_factory.mktemp("site"), place)
    yield result
    result.clean_up()


@pytest.fixture
def see(site: Site, until: Callable[..., None]) -> Callable[..., None]:
    """Waits for what comes in its time, longer where a batch system is between; tells the daemon's log when it
    does not come."""

    def see(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        until(condition, site.daemon_log, timeout_s)

    return see
