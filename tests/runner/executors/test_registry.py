"""Executors by name."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from runner.executors import registry
from runner.executors.sge import SgeExecutor
from runner.executors.slurm import SlurmExecutor


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """What other packages bring along."""
    entries: list[EntryPoint] = []
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: EntryPoints(entries).select(group=group))
    return entries


def test_the_built_in_ones_need_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("importlib.metadata.entry_points")
    assert isinstance(registry.load("slurm"), SlurmExecutor)
    assert isinstance(registry.load("sge"), SgeExecutor)


def test_a_package_brings_its_own(packages: list[EntryPoint]) -> None:
    packages.append(EntryPoint("pbs", "runner.executors.sge:SgeExecutor", "runner.executors"))
    packages.append(EntryPoint("other", "runner.executors.sge:SgeExecutor", "some.other.group"))
    assert registry.names() == ["pbs", "sge", "slurm"]
    assert isinstance(registry.load("pbs"), SgeExecutor)


def test_a_name_that_nobody_knows(packages: list[EntryPoint]) -> None:
    packages.append(EntryPoint("pbs", "a.package:Executor", "runner.executors"))
    message = r"^'slurn' is no executor\. Did you mean 'slurm'\? Allowed: pbs, sge, slurm\.$"
    with pytest.raises(ValueError, match=message):
        registry.load("slurn")


@pytest.mark.parametrize("value", ["a.package.that.is.missing:Executor", "runner.executors.sge:NoSuchThing"])
def test_a_package_that_cannot_be_loaded_is_named(packages: list[EntryPoint], value: str) -> None:
    packages.append(EntryPoint("pbs", value, "runner.executors"))
    with pytest.raises(ValueError, match=f"^'pbs' is an executor of {value}, which cannot be loaded: "):
        registry.load("pbs")
