"""The daemon's end of the socket."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runner.events import Event, Kind
from runner.model import Job, Trial
from runner.protocol import Channel, ConnectionLostError, encode
from runner.service import connections as module
from runner.service.connections import FLUSH_S, Connection, Connections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.protocol import Message

JOB = Job(Trial(0, "id", "T_0", "o", "o", ("train",)), "train")


class Server:
    """Answers every request with what it was."""

    def __init__(self, path: Path) -> None:
        path.parent.chmod(0o700)
        self.path = path
        self.selector = selectors.DefaultSelector()
        self.asked: list[Connection] = []
        self.connections = Connections(self.selector, self.answer)
        self.connections.listen(path)

    def answer(self, request: Message, connection: Connection) -> Message | None:
        self.asked.append(connection)
        if request.get("do") == "watch":
            self.connections.watch(connection, {"answer": True})
            return None
        return {"answer": request}

    def turn(self, times: int = 20) -> None:
        """Handles what has come."""
        for _ in range(times):
            ready = self.selector.select(0)
            if not ready:
                return
            for key, mask in ready:
                key.data(mask)

    def close(self) -> None:
        self.connections.close(self.path)
        self.selector.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "s")
    yield made
    made.close()


def event() -> Event:
    return Event(Kind.DONE, JOB, 1.0)


def ask(server: Server, channel: Channel, message: Message) -> list[Message]:
    channel.send(message)
    server.turn()
    return channel.receive(5.0)


def test_a_request_in_pieces_is_answered_when_it_is_whole(server: Server) -> None:
    channel = Channel(server.path)
    raw = socket.socket(fileno=os.dup(channel.fileno()))
    for byte in encode({"do": "x"}):
        raw.send(bytes([byte]))
        server.turn()
    raw.send(encode({"do": "y"}) + encode({"do": "z"}))
    server.turn()
    assert channel.receive(5.0) == [{"answer": {"do": word}} for word in "xyz"]
    raw.close()
    channel.close()


def test_the_socket_is_the_users_alone(server: Server) -> None:
    assert server.path.stat().st_mode & 0o777 == 0o600


def test_who_sends_no_message_is_cut_off_and_nobody_else(server: Server) -> None:
    good, bad = Channel(server.path), Channel(server.path)
    os.write(bad.fileno(), b"rubbish\n")
    server.turn()
    with pytest.raises(ConnectionLostError):
        bad.receive(5.0)
    assert ask(server, good, {"do": "x"}) == [{"answer": {"do": "x"}}]
    good.close()
    bad.close()


def test_only_who_watches_hears_of_events_and_together(server: Server) -> None:
    watching, other = Channel(server.path), Channel(server.path)
    assert ask(server, watching, {"do": "watch"}) == [{"answer": True}]
    ask(server, other, {"do": "x"})
    server.connections.event(event())
    server.connections.event(event())
    wait_s = server.connections.flush(100.0)
    assert wait_s == pytest.approx(FLUSH_S)
    assert server.connections.flush(100.0 + FLUSH_S) is None
    assert watching.receive(5.0) == [{"events": [event().to_wire()] * 2}]
    assert other.receive(0.01) == []
    watching.close()
    other.close()


def test_a_line_for_all_comes_after_the_events_before_it(server: Server) -> None:
    channel = Channel(server.path)
    ask(server, channel, {"do": "watch"})
    server.connections.event(event())
    server.connections.tell({"say": "x"})
    arrived: list[Message] = []
    while len(arrived) < 2:
        arrived += channel.receive(5.0)
    assert arrived == [{"events": [event().to_wire()]}, {"say": "x"}]
    channel.close()


def test_who_goes_away_is_forgotten(server: Server) -> None:
    channel = Channel(server.path)
    ask(server, channel, {"do": "watch"})
    assert server.connections.any()
    channel.close()
    server.turn()
    assert not server.connections.any()
    server.connections.tell({"say": "x"})


def test_a_slow_reader_gets_everything_and_holds_up_nobody(server: Server) -> None:
    slow, quick = Channel(server.path), Channel(server.path)
    ask(server, slow, {"do": "watch"})
    text = "x" * 100_000
    for number in range(40):
        server.connections.tell({"say": f"{number} {text}"})
    assert ask(server, quick, {"do": "x"}) == [{"answer": {"do": "x"}}]
    arrived: list[Any] = []
    while len(arrived) < 40:
        server.turn(1)
        arrived += [message["say"] for message in slow.receive(5.0)]
    assert arrived == [f"{number} {text}" for number in range(40)]
    slow.close()
    quick.close()


def test_who_never_reads_is_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNSENT", 1_000_000)
    asleep = Channel(server.path)
    ask(server, asleep, {"do": "watch"})
    for _ in range(30):
        server.connections.tell({"say": "x" * 100_000})
    assert not server.connections.any()
    asleep.close()


def test_a_socket_that_a_killed_daemon_left_is_replaced(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "s"))
    left.close()
    server = Server(tmp_path / "s")
    channel = Channel(server.path)
    assert ask(server, channel, {"do": "x"}) == [{"answer": {"do": "x"}}]
    channel.close()
    server.close()


def test_a_socket_that_was_cleaned_up_is_opened_again(server: Server) -> None:
    old = Channel(server.path)
    server.turn()
    server.path.unlink()
    server.connections.keep_listening()
    new = Channel(server.path)
    assert ask(server, new, {"do": "x"}) == [{"answer": {"do": "x"}}]
    assert ask(server, old, {"do": "y"}) == [{"answer": {"do": "y"}}]
    new.close()
    old.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_not_listened_to() -> None:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # what tests get is root's alone
    server = Server(folder / "s")
    # As if both had been opened by mistake.
    folder.chmod(0o755)
    server.path.chmod(0o666)
    script = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect(sys.argv[1]); print('in', flush=True)\n"
        'try:\n    s.sendall(b\'{"do": "stop"}\\n\'); print(s.recv(10))\n'
        "except OSError: print(b'')"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(server.path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 20
    while child.poll() is None and time.monotonic() < end:
        for key, mask in server.selector.select(0.05):
            key.data(mask)
    said, errors = child.communicate(timeout=5)
    assert said.split() == ["in", "b''"], errors
    assert server.asked == []
    server.close()
    folder.rmdir()
