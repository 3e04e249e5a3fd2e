"""How commands reach a daemon: JSON lines over a socket in a directory that is the user's alone.

A request is one object with the key `do`; the answer is one object, with `error` and `exit_code` when it was refused.
Who watches gets lines with `events`, `say` and `over` besides.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Any, TypeAlias

from runner.errors import RunnerError, SystemFaultError

Message: TypeAlias = "dict[str, Any]"

_READ = 1 << 16
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_SYSTEM_TEMPORARY = "/tmp"


class ConnectionLostError(RunnerError):
    """The daemon is gone, or was never there."""


def socket_directory() -> Path:
    """The user's own directory for sockets.

    Raises:
        SystemFaultError: somebody else made it, or others may look into it.
    """
    path = Path(_SYSTEM_TEMPORARY, f"params-runner-{os.getuid()}")
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        check_private(path)
    except OSError as error:
        raise SystemFaultError(f"{path}: {error.strerror}; the daemon's socket needs that directory.") from error
    return path


def check_private(path: Path) -> None:
    """
    Raises:
        SystemFaultError: the directory is not this user's alone.
    """
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise SystemFaultError(f"{path}: must be a directory of yours with mode 0700; remove it, or have it removed.")


def socket_path(output: Path) -> Path:
    """Where the daemon of an output directory listens; a hash, since such a path may have 108 bytes at most."""
    return socket_directory() / f"{hashlib.sha256(os.fsencode(output.resolve())).hexdigest()[:24]}.sock"


def peer_uid(connection: socket.socket) -> int:
    """The user at the other end, as the kernel knows it."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(credentials)[1])


def encode(message: Message) -> bytes:
    """A message as its line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class Lines:
    """Messages out of the pieces in which they arrive."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes.

        Raises:
            ValueError: a line is no message.
        """
        head, newline, rest = data.rpartition(b"\n")
        if not newline:
            self._parts.append(data)
            return []
        whole = b"".join([*self._parts, head])
        self._parts = [rest] if rest else []
        messages = [json.loads(line) for line in whole.split(b"\n")]
        if not all(isinstance(message, dict) for message in messages):
            raise ValueError("no message")
        return messages


class Channel:
    """A client's end of a connection."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            ConnectionLostError: nobody listens there, or somebody else.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._lines = Lines()
        self._pending: list[Message] = []
        try:
            check_private(path.parent)
            self._socket.connect(str(path))
            if peer_uid(self._socket) != os.getuid():
                raise ConnectionLostError(f"{path}: another user listens there.")
        except OSError as error:
            self._socket.close()
            raise ConnectionLostError(f"{path}: {error.strerror}.") from error
        except RunnerError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The descriptor, to wait for."""
        return self._socket.fileno()

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()

    def send(self, message: Message) -> None:
        """
        Raises:
            ConnectionLostError: the daemon is gone.
        """
        try:
            self._socket.sendall(encode(message))
        except OSError as error:
            raise ConnectionLostError(f"The daemon is gone ({error.strerror}).") from error

    def receive(self, timeout_s: float | None = None) -> list[Message]:
        """What has come; waits for something, up to `timeout_s`.

        Raises:
            ConnectionLostError: the daemon is gone.
        """
        if self._pending:
            pending, self._pending = self._pending, []
            return pending
        self._socket.settimeout(timeout_s)
        try:
            data = self._socket.recv(_READ)
        except TimeoutError:
            return []
        except OSError as error:
            raise ConnectionLostError(f"The daemon is gone ({error.strerror}).") from error
        finally:
            self._socket.settimeout(None)
        if not data:
            raise ConnectionLostError("The daemon is gone.")
        return self._lines.feed(data)

    def ask(self, message: Message) -> Message:
        """Sends a request and waits for its answer; what else arrives meanwhile is kept.

        Raises:
            ConnectionLostError: the daemon is gone.
            RefusedError: it refused.
        """
        self.send(message)
        kept: list[Message] = []
        while True:
            arrived = self.receive()
            for number, item in enumerate(arrived):
                if "answer" in item:
                    self._pending = kept + arrived[number + 1 :]
                    if "error" in item:
                        raise RefusedError(item["error"], item.get("exit_code", 1))
                    return item
                kept.append(item)


class RefusedError(RunnerError):
    """The daemon's own error, told by the client."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
