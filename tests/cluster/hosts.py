"""Two hosts made of namespaces: each has processes, a name, a machine id and a network of its own, on one bridge."""

from __future__ import annotations

import shlex
import socket
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.machine import Daemon, UnavailableError, call, works

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAMES = ("node1", "node2")
# The first process of a host reaps what its jobs leave behind, as any init does.
INIT = """\
mount --bind {directory}/hosts /etc/hosts
mount --bind {directory}/machine-id.{name} /etc/machine-id
hostname {name}
{command} &
wait
"""


class Hosts:
    """The hosts of one batch system; the number of their network, 10.77.NUMBER.0/24, stands in `network`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def create(self) -> None:
        """Makes the bridge, and a cable from it into the network namespace of each host."""
        number = next(_free_networks())
        (self.directory / "network").write_text(str(number))
        call("ip", "address", "add", f"{self.address()}/24", "dev", self._bridge())
        call("ip", "link", "set", self._bridge(), "up")
        for name in NAMES:
            space, cable = self._space(name), self._cable(name)
            call("ip", "netns", "add", space)
            call("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
            call("ip", "link", "set", cable, "master", self._bridge(), "up")
            call("ip", "-n", space, "address", "add", f"{self.address(name)}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                call("ip", "-n", space, "link", "set", device, "up")
            (self.directory / f"machine-id.{name}").write_text(uuid.uuid4().hex + "\n")
        lines = ["127.0.0.1 localhost", f"{self.address()} {socket.gethostname()}"]
        lines += [f"{self.address(name)} {name}" for name in NAMES]
        (self.directory / "hosts").write_text("\n".join(lines) + "\n")

    def address(self, name: str | None = None) -> str:
        """The address of a host, or of this machine as the hosts see it."""
        return f"10.77.{self._number()}.{10 + NAMES.index(name) if name else 1}"

    def daemon(self, name: str, command: Sequence[str | Path]) -> Daemon:
        """The host itself, running one program. When it is killed, all that was started on the host is dead."""
        init = INIT.format(directory=self.directory, name=name, command=shlex.join(map(str, command)))
        space = ["nsenter", f"--net=/run/netns/{self._space(name)}"]  # `ip netns exec` would hide /sys/fs/cgroup
        own = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--uts"]
        return Daemon(self.directory, name, [*space, *own, "bash", "-c", init])

    def cut(self, name: str) -> None:
        """Pulls the network cable out of a host."""
        call("ip", "link", "set", self._cable(name), "down")

    def join(self, name: str) -> None:
        """Puts it back."""
        call("ip", "link", "set", self._cable(name), "up")

    def remove(self) -> None:
        """Takes the networks away; a host that still runs keeps its own until it is killed."""
        if not (self.directory / "network").exists():
            return
        for name in NAMES:
            works("ip", "netns", "delete", self._space(name))
        works("ip", "link", "delete", self._bridge())

    def _number(self) -> int:
        return int((self.directory / "network").read_text())

    def _bridge(self) -> str:
        return f"cluster{self._number()}"

    def _space(self, name: str) -> str:
        return f"{self._bridge()}-{name}"

    def _cable(self, name: str) -> str:
        return f"{self._bridge()}{name}"


def _free_networks() -> Iterator[int]:
    """Numbers of networks whose bridge we just made, so that nobody else can have them."""
    for number in range(1, 255):
        try:
            call("ip", "link", "add", f"cluster{number}", "type", "bridge")
        except RuntimeError as error:
            if "File exists" not in str(error):
                reason = str(error).splitlines()[-1]
                raise UnavailableError(f"no hosts can be made: {reason} (needs CAP_NET_ADMIN)") from error
            continue
        yield number
