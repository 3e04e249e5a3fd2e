"""A real Slurm on this machine: two hosts with two pretended GPUs each, its own ports, keys and database.

All it needs lies in one directory, so that several can run side by side; /etc/slurm is not touched. Written for
Slurm 22.05 of Debian 12, and proved with it.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from tests.cluster.hosts import NAMES, Hosts
from tests.cluster.machine import Daemon, call, free_port, install, wait_for, works

if TYPE_CHECKING:
    from collections.abc import Iterator

GPUS = 2  # of each node
TEMPLATES = Path(__file__).with_name("etc")
PACKAGES = {  # and a command of each
    "munge": "munged",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "slurm-client": "sbatch",
    "slurmdbd": "slurmdbd",
    "mariadb-server": "mariadbd",
    "iproute2": "ip",
}
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=$address
AccountingStoragePort=$slurmdbd_port
AccountingStoragePass=$directory/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=limits,qos
"""
WATCHED = "JobAcctGatherParams=OverMemoryKill\n"
LOOSE = "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\n"
TIGHT = "ProctrackType=proctrack/cgroup\nTaskPlugin=task/cgroup\n"


@dataclass(frozen=True)
class Kind:
    """What differs between sites."""

    # slurmdbd and MariaDB: `sacct` works, and quality-of-service limits are enforced. Without them a job that is seen
    # to take more memory than it asked for is killed.
    accounting: bool = True
    cgroups: bool = False  # memory is limited: OUT_OF_MEMORY is real


class Slurm:
    """A Slurm in `directory`; another object with the same directory finds the same one."""

    def __init__(self, directory: Path, kind: Kind = Kind()) -> None:
        self.directory = directory
        self.kind = kind
        self.configuration = directory / "slurm.conf"
        self.environment = {"SLURM_CONF": str(self.configuration)}
        self.hosts = Hosts(directory)
        socket_file = directory / "mariadb.socket"
        munge = ["munged", "--foreground", "--force", f"--key-file={directory}/munge.key"]
        munge += [f"--socket={directory}/munge.socket"]
        munge += [f"--{name}-file={directory}/munge.{name}" for name in ("pid", "seed", "log")]
        self.munge = Daemon(directory, "munged", munge)
        database = ["mariadbd", "--no-defaults", "--user=root", f"--datadir={directory}/mariadb"]
        database += [f"--socket={socket_file}", "--skip-networking", "--skip-grant-tables", "--performance-schema=OFF"]
        database += [f"--innodb-{words}" for words in ("lock-wait-timeout=900", "flush-log-at-trx-commit=0")]
        self.database = Daemon(directory, "mariadb", database)
        self._database_environment = {"MYSQL_UNIX_PORT": str(socket_file), **self.environment}
        self.accounting = Daemon(directory, "slurmdbd", ["slurmdbd", "-D"])
        self.controller = Daemon(directory, "slurmctld", ["slurmctld", "-D", "-f", self.configuration])

    def start(self) -> None:
        """Starts everything that does not run yet, and returns when both hosts take jobs."""
        install(PACKAGES)
        if not self.configuration.exists():
            self._configure()
        self.munge.start()
        if self.kind.accounting:
            self._start_accounting()
        self.start_controller()
        for name in NAMES:
            self.start_node(name)

    def stop(self) -> None:
        """Ends every job, daemon and network; what is left is the directory."""
        for name in NAMES:
            Daemon(self.directory, name).kill()
        for daemon in (self.controller, self.accounting, self.database, self.munge):
            daemon.kill()
        self.hosts.remove()
        for leaf in _control_groups():
            with suppress(OSError):
                leaf.rmdir()

    def kill_controller(self) -> None:
        """`kill -9` of slurmctld."""
        self.controller.kill()

    def start_controller(self) -> None:
        """Starts slurmctld and returns when it answers.

        One that was killed would give its newest ids again, and hosts that remember them would be drained.
        """
        if self.controller.process() is None:
            text = self.configuration.read_text()
            self.configuration.write_text(
                re.sub(r"FirstJobId=(\d+)", lambda found: f"FirstJobId={int(found[1]) + 1000}", text)
            )
        self.controller.start()
        wait_for(lambda: works("scontrol", "ping", **self.environment), f"slurmctld (see {self.directory}/log)")

    def kill_node(self, name: str) -> None:
        """A host loses its power: its slurmd, its jobs and all that they started are gone.

        slurmctld notices that after SlurmdTimeout; a host that is back earlier seems to be running its jobs still.
        """
        self._host(name).kill()

    def start_node(self, name: str) -> None:
        """Starts a host and returns when it takes jobs."""
        self._host(name).start()
        wait_for(lambda: self.state(name) in ("idle", "mixed", "allocated"), f"{name} (see {self.directory}/log)")

    def cut_node(self, name: str) -> None:
        """Pulls the network cable of a host: its jobs go on, and nobody can tell."""
        self.hosts.cut(name)

    def join_node(self, name: str) -> None:
        """Puts the cable back."""
        self.hosts.join(name)

    @contextmanager
    def small_arrays(self, size: int) -> Iterator[None]:
        """Within, an array may have so many tasks."""
        text = self.configuration.read_text()
        self.configuration.write_text(
            text.replace("SchedulerParameters=", f"SchedulerParameters=max_array_tasks={size},")
        )
        try:
            self.call("scontrol", "reconfigure")
            yield
        finally:
            self.configuration.write_text(text)
            self.call("scontrol", "reconfigure")

    def state(self, name: str) -> str:
        """What Slurm thinks of a host: idle, down …; with a `*`, it does not answer."""
        return self.call("sinfo", "--noheader", "--nodes", name, "--format=%T").split("\n")[0]

    def call(self, *command: str) -> str:
        """Runs one of Slurm's commands and returns what it printed."""
        return call(*command, **self.environment)

    def _host(self, name: str) -> Daemon:
        return self.hosts.daemon(name, ["slurmd", "-D", "-N", name, "-f", self.configuration])

    def _configure(self) -> None:
        """Writes the configuration, and makes the network and the pretended GPUs that it names."""
        for name in ("state", "run", "log"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        key = self.directory / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        devices = [self.directory / f"gpu{number}" for number in range(GPUS)]
        for number, device in enumerate(devices):  # device files of a driver that does not exist
            call("mknod", "-m", "666", device, "c", "240", str(number))
        self._write("gres.conf", f"Name=gpu File={self.directory}/gpu[0-{GPUS - 1}]\n")
        # Naming a version keeps slurmd from looking for one, which is fatal where there is none.
        self._write("cgroup.conf", "ConstrainRAMSpace=yes\n" if self.kind.cgroups else "CgroupPlugin=cgroup/v1\n")
        self.hosts.create()
        values = {
            "directory": str(self.directory),
            "head": socket.gethostname(),
            "address": self.hosts.address(),
            "slurmctld_port": str(free_port()),
            "slurmdbd_port": str(free_port()),
            "nodes": "\n".join(self._nodes()),
        }
        text = (TEMPLATES / "slurm.conf").read_text()
        text += ACCOUNTING if self.kind.accounting else WATCHED
        text += TIGHT if self.kind.cgroups else LOOSE
        self._write("slurmdbd.conf", Template((TEMPLATES / "slurmdbd.conf").read_text()).substitute(values))
        self._write("slurm.conf", Template(text).substitute(values))

    def _nodes(self) -> Iterator[str]:
        for name in NAMES:
            place = f"NodeName={name} NodeAddr={self.hosts.address(name)}"
            yield f"{place} CPUs=8 RealMemory=8000 Gres=gpu:{GPUS} State=UNKNOWN"

    def _write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_text(text)

    def _start_accounting(self) -> None:
        """Starts the database and slurmdbd, and tells them who may submit: root, with two qualities of service."""
        data = self.directory / "mariadb"
        if not data.exists():
            call("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db")
        self.database.start()
        admin = ("mariadb-admin", "--no-defaults", f"--socket={self.directory}/mariadb.socket", "ping")
        wait_for(lambda: works(*admin), f"MariaDB (see {self.directory}/log)")
        self.accounting.start(**self._database_environment)
        manager = ("sacctmgr", "--immediate", "--quiet")
        wait_for(lambda: works(*manager, "show", "cluster", **self.environment), f"slurmdbd (see {self.directory}/log)")
        for words in (
            "add cluster tests",
            "add account tests cluster=tests",
            # At most five jobs at a time may be submitted with it.
            "add qos few MaxSubmitJobsPerUser=5 Flags=DenyOnLimit",
            "add user root account=tests cluster=tests defaultaccount=tests qos=normal,few defaultqos=normal",
        ):
            works(*manager, *words.split(), **self.environment)


def _control_groups() -> Iterator[Path]:
    """The cgroups of our hosts, innermost first."""
    for directory, names, _ in os.walk("/sys/fs/cgroup", topdown=False):
        yield from (Path(directory, name) for name in names if "/slurm_node" in f"{directory}/{name}")
