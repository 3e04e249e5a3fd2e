"""A real Grid Engine on this machine: a master here, and two hosts of eight slots and two pretended GPUs each.

All it needs lies in one directory, which is also its SGE_ROOT; the cell of Debian's packages is not touched. Written
for Grid Engine 8.1.9 of Debian 12, and proved with it.
"""

from __future__ import annotations

import re
import shutil
import socket
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from tests.cluster.hosts import NAMES, Hosts
from tests.cluster.machine import Daemon, UnavailableError, call, free_port, install, wait_for, works

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GPUS = 2  # of each node; only a number to Grid Engine, which names none to a job
SLOTS = 8
TEMPLATES = Path(__file__).with_name("etc")
PACKAGES = {  # and a command of each
    "gridengine-master": "sge_qmaster",
    "gridengine-exec": "sge_execd",
    "gridengine-client": "qsub",
    "iproute2": "ip",
}
PROGRAMS = Path("/usr/lib/gridengine")
DEFAULTS = Path("/usr/share/gridengine")

# What a site measures in minutes happens here in seconds.
GLOBAL = {
    "execd_spool_dir": "$directory/spool",
    "mailer": "/bin/true",
    "login_shells": "none",  # a job does not run the profile of whoever runs the tests
    "min_uid": "0",
    "min_gid": "0",
    "load_report_time": "0:0:1",
    # Hosts look for a lost master every half minute; one that was silent for longer is lost, and its jobs start anew.
    "max_unheard": "0:0:40",
    "reschedule_unknown": "0:0:5",
    "reporting_params": "accounting=true reporting=false flush_time=00:00:01 accounting_flush_time=00:00:00",
    "finished_jobs": "0",
    "max_aj_tasks": "1000",  # small enough that arrays have to be cut
    "execd_params": "ENABLE_ADDGRP_KILL=true",
}
SCHEDULER = {
    "schedule_interval": "0:0:1",
    "flush_submit_sec": "1",
    "flush_finish_sec": "1",
    "job_load_adjustments": "NONE",
    "load_adjustment_decay_time": "0:0:0",
}
QUEUE = {
    "qname": "main.q",
    "hostlist": "@allhosts",
    "slots": str(SLOTS),
    "load_thresholds": "NONE",
    "pe_list": "smp",
    "shell": "/bin/bash",
    "rerun": "TRUE",
    "notify": "0:0:5",
}
HOST = {
    "complex_values": f"gpus={GPUS}",
    "load_scaling": "NONE",
    "user_lists": "NONE",
    "xuser_lists": "NONE",
    "projects": "NONE",
    "xprojects": "NONE",
    "usage_scaling": "NONE",
    "report_variables": "NONE",
}
PARALLEL = {
    "pe_name": "smp",
    "slots": "999",
    "user_lists": "NONE",
    "xuser_lists": "NONE",
    "start_proc_args": "NONE",
    "stop_proc_args": "NONE",
    "allocation_rule": "$pe_slots",
    "control_slaves": "FALSE",
    "job_is_first_task": "TRUE",
    "urgency_slots": "min",
    "accounting_summary": "FALSE",
    "qsort_args": "NONE",
}


class GridEngine:
    """A Grid Engine in `directory`; another object with the same directory finds the same one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.hosts = Hosts(directory)
        self.common = directory / "default" / "common"
        # A command that knows the hosts' names, which this machine's /etc/hosts does not.
        knowing = f'mount --bind {directory}/hosts.master /etc/hosts; exec {PROGRAMS}/"$0" "$@"'
        self._knowing = ("unshare", "--mount", "bash", "-c", knowing)
        self.master = Daemon(directory, "sge_qmaster", [*self._knowing, "sge_qmaster"])

    @property
    def environment(self) -> dict[str, str]:
        """What its commands need to find it."""
        ports = (self.directory / "ports").read_text().split()
        names = ("SGE_QMASTER_PORT", "SGE_EXECD_PORT")
        return {"SGE_ROOT": str(self.directory), "SGE_CELL": "default", **dict(zip(names, ports, strict=True))}

    def start(self) -> None:
        """Starts everything that does not run yet, and returns when both hosts take jobs."""
        install(PACKAGES)
        new = not self.common.exists()
        if new:
            self._configure()
        self.start_controller()
        if new:
            self._add_queue()
        for name in NAMES:
            self.start_node(name)

    def stop(self) -> None:
        """Ends every job, daemon and network; what is left is the directory."""
        for name in NAMES:
            Daemon(self.directory, name).kill()
        self.master.kill()
        self.hosts.remove()

    def kill_controller(self) -> None:
        """`kill -9` of sge_qmaster."""
        self.master.kill()

    def start_controller(self) -> None:
        """Starts sge_qmaster and returns when it answers; the hosts report to it within half a minute."""
        self.master.start(SGE_ND="1", **self.environment)
        wait_for(lambda: works("qconf", "-sconf", **self.environment), f"sge_qmaster (see {self.directory}/qmaster)")

    def kill_node(self, name: str) -> None:
        """A host loses its power: its sge_execd, its jobs and all that they started are gone."""
        self._host(name).kill()

    def start_node(self, name: str) -> None:
        """Starts a host and returns when it takes jobs."""
        self._host(name).start(SGE_ND="1", **self.environment)
        wait_for(lambda: self.state(name) == "", f"{name} (see {self.directory}/spool/{name}/messages)")

    def cut_node(self, name: str) -> None:
        """Pulls the network cable of a host: its jobs go on, and nobody can tell."""
        self.hosts.cut(name)

    def join_node(self, name: str) -> None:
        """Puts the cable back."""
        self.hosts.join(name)

    @contextmanager
    def small_arrays(self, size: int) -> Iterator[None]:
        """Within, an array may have so many tasks."""
        text = self.call("qconf", "-sconf").partition("\n")[2]  # behind the line that names it
        self._give("-Mconf", _changed(text, {"max_aj_tasks": str(size)}), "global")
        try:
            yield
        finally:
            self._give("-Mconf", text, "global")

    def state(self, name: str) -> str:
        """What Grid Engine thinks of a host: nothing when all is well, `au` when it does not answer."""
        told = re.search(rf"^main\.q@{name} .*$", self.call("qstat", "-f"), re.MULTILINE)
        words = told.group().split() if told else ["unknown"]
        return "" if len(words) == 5 and words[3] != "-NA-" else words[-1]

    def call(self, *command: str | Path) -> str:
        """Runs one of Grid Engine's commands and returns what it printed."""
        return call(*command, **self.environment)

    def _host(self, name: str) -> Daemon:
        return self.hosts.daemon(name, [PROGRAMS / "sge_execd"])

    def _configure(self) -> None:
        """Fills the directory as `inst_sge` would: programs, names, spool, and the defaults with our changes."""
        try:
            socket.gethostbyname(socket.gethostname())
        except OSError as error:
            reason = f"Grid Engine needs the address of this machine's name, {socket.gethostname()}, in /etc/hosts"
            raise UnavailableError(reason) from error
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "ports").write_text(f"{free_port()} {free_port()}\n")
        for name in ("bin", "lib", "util", "utilbin"):
            (self.directory / name).symlink_to(Path("/var/lib/gridengine", name))
        for name in ("spooldb", "spool", "qmaster/job_scripts"):
            (self.directory / name).mkdir(parents=True)
        self.hosts.create()
        nodes = "".join(f"{self.hosts.address(name)} {name}\n" for name in NAMES)
        (self.directory / "hosts.master").write_text(Path("/etc/hosts").read_text() + "\n" + nodes)
        complexes = shutil.copytree(DEFAULTS / "util/resources/centry", self.directory / "complexes")
        words = {"name": "gpus", "shortcut": "gpus", "type": "INT", "relop": "<=", "requestable": "YES"}
        words |= {"consumable": "YES", "default": "0", "urgency": "0"}
        (complexes / "gpus").write_text(_text(words))
        values = {"directory": str(self.directory)}
        configuration = _changed((DEFAULTS / "default-configuration").read_text(), GLOBAL)
        (self.directory / "configuration").write_text(Template(configuration).substitute(values))

        self.common.mkdir(parents=True)
        (self.common / "bootstrap").write_text(Template((TEMPLATES / "bootstrap").read_text()).substitute(values))
        (self.common / "act_qmaster").write_text(socket.gethostname() + "\n")
        (self.common / "host_aliases").write_text(f"{socket.gethostname()} {' '.join(_loopback_names())}\n")
        (self.common / "accounting").touch()
        self.call(PROGRAMS / "spoolinit", "berkeleydb", "libspoolb", self.directory / "spooldb", "init")
        self.call(PROGRAMS / "spooldefaults", "configuration", self.directory / "configuration")
        self.call(PROGRAMS / "spooldefaults", "complexes", complexes)
        self.call(PROGRAMS / "spooldefaults", "usersets", DEFAULTS / "util/resources/usersets")
        self.call(PROGRAMS / "spooldefaults", "managers", "root")

    def _add_queue(self) -> None:
        """Tells the master of the hosts, the queue and the parallel environment, and to be quick."""
        for host in (socket.gethostname(), *NAMES):
            if host in NAMES:
                self.call(*self._knowing, "qconf", "-ah", host)
            self.call(*self._knowing, "qconf", "-as", host)
        self._give("-Msconf", _changed(self.call("qconf", "-ssconf"), SCHEDULER))
        for name in NAMES:
            self._give("-Ae", _text({"hostname": name, **HOST}))
        self._give("-Ahgrp", _text({"group_name": "@allhosts", "hostlist": " ".join(NAMES)}))
        self._give("-Ap", _text(PARALLEL))
        self._give("-Aq", _changed(self.call("qconf", "-sq"), QUEUE))

    def _give(self, option: str, text: str, name: str | None = None) -> None:
        """Lets `qconf` read what it wants to see in a file, which has a name that may tell what it is."""
        path = self.directory / (name or f"qconf{option}")
        path.write_text(text)
        self.call(*self._knowing, "qconf", option, path)


def _text(values: Mapping[str, str]) -> str:
    return "".join(f"{name} {value}\n" for name, value in values.items())


def _changed(text: str, values: Mapping[str, str]) -> str:
    """A configuration with other values; continued lines are joined."""
    text = text.replace("\\\n", "")
    for name, value in values.items():
        text, number = re.subn(rf"^{name}\s.*$", f"{name} {value}", text, flags=re.MULTILINE)
        assert number == 1, f"{name} is not in the configuration"
    return text


def _loopback_names() -> set[str]:
    """The other names of the loopback address: Grid Engine asks who 127.0.0.1 is, and must hear of this machine."""
    lines = (line.split() for line in Path("/etc/hosts").read_text().splitlines())
    names = {name for words in lines if words and words[0] == "127.0.0.1" for name in words[1:]}
    return (names | {"localhost"}) - {socket.gethostname()}
