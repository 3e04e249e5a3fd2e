"""Where a batch system cannot be had, the reason is one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster import machine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is installed, and we are root."""
    monkeypatch.setattr(machine, "SYSTEM_PATH", str(tmp_path))
    monkeypatch.setattr(machine, "POLICY", tmp_path / "policy")
    monkeypatch.setattr(machine, "INSTALLING", tmp_path / "installing")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("os.geteuid", lambda: 0)


@pytest.mark.usefixtures("_bare")
def test_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(machine.UnavailableError, match="only be started by root, not by user 1000"):
        machine.install({"slurmctld": "slurmctld"})


@pytest.mark.usefixtures("_bare")
def test_without_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(machine.UnavailableError, match=r"^no slurmctld here, and no apt-get to install it"):
        machine.install({"slurmctld": "slurmctld"})


@pytest.mark.usefixtures("_bare")
def test_without_a_network_and_nothing_is_left(tmp_path: Path) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho 'E: Failed to fetch it' >&2\nexit 100\n")
    apt.chmod(0o755)

    with pytest.raises(machine.UnavailableError, match="apt-get cannot install slurmctld: E: Failed to fetch it"):
        machine.install({"slurmctld": "slurmctld"})
    assert not (tmp_path / "policy").exists()
