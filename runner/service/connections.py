"""The daemon's end of the socket: who is connected, what was said in pieces, and what could not be sent yet."""

from __future__ import annotations

import os
import selectors
import socket
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.events import Event
    from runner.protocol import Message

FLUSH_S = 0.05  # events are sent together, at most so much later
MAX_UNSENT = 64 << 20  # bytes; who reads so slowly has gone to sleep
_READ = 1 << 16


class Connection:
    """One client."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.lines = protocol.Lines()
        self.unsent: deque[bytes] = deque()
        self.unsent_bytes = 0
        self.is_watching = False
        self.is_open = True


class Connections:
    """All clients of a daemon."""

    def __init__(
        self, selector: selectors.BaseSelector, answer: Callable[[Message, Connection], Message | None]
    ) -> None:
        self._selector = selector
        self._answer = answer
        self._all: set[Connection] = set()
        self._events: list[list[Any]] = []
        self._flush_at: float | None = None
        self._listener: socket.socket | None = None
        self._path: Path | None = None

    def listen(self, path: Path) -> None:
        """Opens the socket; one that a killed daemon left is replaced."""
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(128)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._listener, self._path = listener, path

    def keep_listening(self) -> None:
        """Opens the socket again where something cleaned the temporary directory up."""
        if self._listener is not None and self._path is not None and not self._path.exists():
            self._selector.unregister(self._listener)
            self._listener.close()
            protocol.socket_directory()
            self.listen(self._path)

    def close(self, path: Path) -> None:
        """Ends everything."""
        path.unlink(missing_ok=True)
        for connection in list(self._all):
            self._drop(connection)
        if self._listener is not None:
            self._listener.close()

    def any(self) -> bool:
        """Whether anybody is connected."""
        return bool(self._all)

    def event(self, event: Event) -> None:
        """Tells an event to all who watch, soon."""
        if any(connection.is_watching for connection in self._all):
            self._events.append(event.to_wire())

    def tell(self, message: Message) -> None:
        """Tells all who watch."""
        self._send_events()
        for connection in list(self._all):
            if connection.is_watching:
                self.send(connection, message)

    def watch(self, connection: Connection, first: Message) -> None:
        """From now on the connection hears of everything; `first` is what it hears first."""
        self._send_events()
        self.send(connection, first)
        connection.is_watching = True

    def flush(self, now: float, is_forced: bool = False) -> float | None:
        """Sends the events that have waited long enough; returns when to come again."""
        if not self._events:
            return None
        if self._flush_at is None and not is_forced:
            self._flush_at = now + FLUSH_S
        if is_forced or (self._flush_at is not None and now >= self._flush_at):
            self._send_events()
            return None
        return None if self._flush_at is None else self._flush_at - now

    def _send_events(self) -> None:
        events, self._events, self._flush_at = self._events, [], None
        if events:
            line = protocol.encode({"events": events})
            for connection in list(self._all):
                if connection.is_watching:
                    self._send(connection, line)

    def send(self, connection: Connection, message: Message) -> None:
        """Sends to one; what it does not take now is sent when it does."""
        self._send(connection, protocol.encode(message))

    # --- inside ---

    def _accept(self, _mask: int) -> None:
        assert self._listener is not None
        try:
            peer, _ = self._listener.accept()
        except OSError:  # it went away again
            return
        if protocol.peer_uid(peer) != os.getuid():
            peer.close()
            return
        peer.setblocking(False)
        connection = Connection(peer)
        self._all.add(connection)
        self._selector.register(peer, selectors.EVENT_READ, lambda mask: self._ready(connection, mask))

    def _ready(self, connection: Connection, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._write(connection)
        if not (mask & selectors.EVENT_READ and connection.is_open):
            return
        try:
            data = connection.peer.recv(_READ)
            requests = connection.lines.feed(data) if data else None
        except (OSError, ValueError):
            requests = None
        if requests is None:
            self._drop(connection)
            return
        for request in requests:
            answer = self._answer(request, connection)
            if answer is not None and connection.is_open:
                self.send(connection, answer)

    def _send(self, connection: Connection, line: bytes) -> None:
        connection.unsent.append(line)
        connection.unsent_bytes += len(line)
        self._write(connection)
        if connection.unsent_bytes > MAX_UNSENT:
            self._drop(connection)

    def _write(self, connection: Connection) -> None:
        try:
            while connection.unsent:
                line = connection.unsent[0]
                sent = connection.peer.send(line)
                connection.unsent_bytes -= sent
                if sent < len(line):
                    connection.unsent[0] = line[sent:]
                    continue
                connection.unsent.popleft()
        except BlockingIOError:
            self._want(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
            return
        except OSError:
            self._drop(connection)
            return
        self._want(connection, selectors.EVENT_READ)

    def _want(self, connection: Connection, mask: int) -> None:
        if connection.is_open and self._selector.get_key(connection.peer).events != mask:
            self._selector.modify(connection.peer, mask, self._selector.get_key(connection.peer).data)

    def _drop(self, connection: Connection) -> None:
        if connection.is_open:
            connection.is_open = False
            self._all.discard(connection)
            self._selector.unregister(connection.peer)
            connection.peer.close()
