"""Notifications, by a command and by a service, which stands on this machine."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from runner.notify import Notify, command_of, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
EVIL = "it's $(touch x) `touch y` \"; touch z; {event}\nsecond line"


@pytest.fixture
def service() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a web service, and what it is sent."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200 if self.path == "/hook" else 500)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"json://127.0.0.1:{server.server_port}", received
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def notified(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Starts a notification and waits for it; gives its exit code and its outputs."""

    def run(settings: Notify, message: str = "all is done", **variables: str) -> tuple[int, str]:
        log = tmp_path / "notify.log"
        with log.open("wb") as file:
            environment = {**ENVIRONMENT, **variables}
            process = start(settings, "sweep-ended", "curves", message, environment, str(tmp_path), file.fileno())
        assert process is not None
        return process.wait(timeout=60), log.read_text()

    return run


def test_a_command_gets_the_message_quoted_and_as_its_input(
    notified: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    code, text = notified(Notify(cmd='printf "%s|" {event} {sweep} "<{message}>"; cat'), EVIL)
    assert code == 0
    assert text == f"sweep-ended|curves|<{EVIL}>|{EVIL}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["notify.log"]


def test_a_command_that_reads_nothing_blocks_nobody(notified: Callable[..., tuple[int, str]]) -> None:
    assert notified(Notify(cmd="exit 3"), "x" * 1_000_000) == (3, "")


def test_a_service_gets_title_and_message(
    notified: Callable[..., tuple[int, str]], service: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    (tmp_path / "runner").mkdir()
    (tmp_path / "apprise.py").write_text("raise RuntimeError")
    url, received = service
    assert notified(Notify(url=f"{url}/hook"), "12 done, 1 failed") == (0, "")
    assert [(item["title"], item["message"]) for item in received] == [("curves: sweep-ended", "12 done, 1 failed")]


def test_a_service_that_refuses_is_told(
    notified: Callable[..., tuple[int, str]], service: tuple[str, list[dict[str, Any]]]
) -> None:
    code, text = notified(Notify(url=f"{service[0]}/elsewhere"))
    assert code == 1
    assert "did not take the message" in text


def test_an_address_that_no_service_has_is_told_without_showing_it(notified: Callable[..., tuple[int, str]]) -> None:
    code, text = notified(Notify(url="nonsense://secret"))
    assert code == 2
    assert "does not know this `url`" in text
    assert "secret" not in text


def test_without_apprise_the_package_to_install_is_named(
    notified: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "apprise.py").write_text("raise ImportError")
    code, text = notified(Notify(url="json://127.0.0.1"), PYTHONPATH=f"{tmp_path / 'hidden'}:{ROOT}")
    assert code == 2
    assert "pip install 'params-runner[notify]'" in text


def test_the_address_is_not_among_the_arguments() -> None:
    command = command_of(Notify(url="mailto://me:secret@example.org"), "paused", "", "text")
    assert command == (
        [sys.executable, "-P", "-m", "runner.notify", "paused"],
        {"RUNNER_NOTIFY_URL": "mailto://me:secret@example.org"},
    )


@pytest.mark.parametrize("settings", [Notify(), Notify(cmd="true", on=frozenset({"paused"}))])
def test_other_events_start_nothing(settings: Notify, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        assert start(settings, "first-failure", "s", "m", ENVIRONMENT, str(tmp_path), log.fileno()) is None
    assert (tmp_path / "log").read_bytes() == b""


@pytest.mark.parametrize(("cmd", "cwd"), [("true", "gone"), ("cat <<EOF", "."), ("x\0y", ".")])
def test_a_notification_that_cannot_start_is_told_in_the_log(tmp_path: Path, cmd: str, cwd: str) -> None:
    with (tmp_path / "log").open("wb") as log:
        directory = str(tmp_path / cwd)
        assert start(Notify(cmd=cmd), "paused", "s", "m", ENVIRONMENT, directory, log.fileno()) is None
    assert (tmp_path / "log").read_text().startswith("No notification of paused: ")
