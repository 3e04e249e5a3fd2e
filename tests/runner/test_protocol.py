"""Messages in pieces, and who may be at the other end."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import protocol
from runner.errors import SystemFaultError
from runner.protocol import Channel, ConnectionLostError, Lines, Message, RefusedError, encode

MESSAGES = st.lists(
    st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.text(), max_size=3), max_size=4),
    max_size=6,
)


@given(messages=MESSAGES, data=st.data())
def test_messages_come_whole_out_of_any_pieces(messages: list[Message], data: st.DataObject) -> None:
    text = b"".join(encode(message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    lines = Lines()
    arrived = [
        message
        for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)
        for message in lines.feed(text[start:end])
    ]
    assert arrived == messages


def test_a_message_comes_with_its_last_byte() -> None:
    lines = Lines()
    text = encode({"do": "status"})
    assert [lines.feed(text[index : index + 1]) for index in range(len(text) - 1)] == [[]] * (len(text) - 1)
    assert lines.feed(text[-1:] + b'{"do"') == [{"do": "status"}]
    assert lines.feed(b':"x"}\n') == [{"do": "x"}]


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b"7\n", b"{\n", b"\xff\xfe\n", b'{"do": 1}\nnull\n', b"\0\0\n"])
def test_a_line_that_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"no message|Expecting|decode|Extra"):
        Lines().feed(line)


def test_a_line_may_hold_any_text() -> None:
    message = {"a": "ü\n\u2028\0", "b": "\ud800"}
    assert Lines().feed(encode(message)) == [message]


# --- the directory ---


def test_a_directory_of_mine_alone_is_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    protocol.check_private(tmp_path)


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o750, 0o777])
def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(SystemFaultError, match=r"must be a directory of yours with mode 0700"):
        protocol.check_private(tmp_path)


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "own")
    with pytest.raises(SystemFaultError, match="0700"):
        protocol.check_private(tmp_path / "link")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", 65534, 65534)
    with pytest.raises(SystemFaultError, match="0700"):
        protocol.check_private(tmp_path / "theirs")


def test_sockets_have_short_paths_of_their_own(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 200) / ("ü" * 90)
    paths = {protocol.socket_path(path) for path in (tmp_path, deep, tmp_path / "other")}
    assert len(paths) == 3
    assert all(len(os.fsencode(path)) < 108 for path in paths)
    assert protocol.socket_path(tmp_path / "a" / "..") == protocol.socket_path(tmp_path)


# --- a client's end ---


@pytest.fixture
def listener(tmp_path: Path) -> socket.socket:
    tmp_path.chmod(0o700)
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(tmp_path / "s"))
    made.listen()
    return made


def test_nobody_listening_is_a_lost_connection(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(ConnectionLostError, match="No such file"):
        Channel(tmp_path / "s")


def test_an_answer_is_told_from_what_else_arrives(tmp_path: Path, listener: socket.socket) -> None:
    channel = Channel(tmp_path / "s")
    peer, _ = listener.accept()
    peer.sendall(encode({"events": [1]}) + encode({"answer": True, "x": 2}) + encode({"say": "3"}))
    assert channel.ask({"do": "status"}) == {"answer": True, "x": 2}
    assert channel.receive() == [{"events": [1]}, {"say": "3"}]
    assert channel.receive(0.01) == []
    assert Lines().feed(peer.recv(1000)) == [{"do": "status"}]
    for item in (channel, peer, listener):
        item.close()


def test_a_refusal_keeps_its_message_and_exit_code(tmp_path: Path, listener: socket.socket) -> None:
    channel = Channel(tmp_path / "s")
    peer, _ = listener.accept()
    peer.sendall(encode({"answer": False, "error": "no such trial", "exit_code": 2}))
    with pytest.raises(RefusedError, match="no such trial") as caught:
        channel.ask({"do": "cancel"})
    assert caught.value.exit_code == 2
    for item in (channel, peer, listener):
        item.close()


def test_a_daemon_that_dies_is_a_lost_connection(tmp_path: Path, listener: socket.socket) -> None:
    channel = Channel(tmp_path / "s")
    peer, _ = listener.accept()
    peer.close()
    listener.close()
    with pytest.raises(ConnectionLostError, match="The daemon is gone"):
        channel.ask({"do": "status"})
    channel.close()
