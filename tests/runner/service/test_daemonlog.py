"""The daemon's log: its lines, its size, and a disk that is full."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from runner.service.daemonlog import close_log, open_log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def log(tmp_path: Path) -> Iterator[logging.Logger]:
    logger = open_log(tmp_path / "daemon.log")
    yield logger
    close_log(logger)


def test_a_record_is_one_line_in_utc(log: logging.Logger, tmp_path: Path) -> None:
    log.info("started %s", "Lr_1")
    log.warning("a\nb\x1b[31m é \udc80")
    try:
        raise KeyError("lr")
    except KeyError:
        log.exception("bad")
    first, second, third = (tmp_path / "daemon.log").read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 info started Lr_1", first)
    assert second.endswith(r" warning a\nb\x1b[31m é \udc80")
    assert " error bad\\nTraceback" in third
    assert third.endswith("KeyError: 'lr'")


def test_only_the_owner_may_read_it(log: logging.Logger, tmp_path: Path) -> None:
    log.info("x" * 999_900)
    log.info("y" * 100)
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["daemon.log", "daemon.log.1"]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_it_stays_small(log: logging.Logger, tmp_path: Path) -> None:
    for index in range(50):
        log.info("%d %s", index, "x" * 100_000)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"daemon.log", "daemon.log.1", "daemon.log.2"}
    assert max(sizes.values()) <= 1_000_000
    assert (tmp_path / "daemon.log").read_text().splitlines()[-1].split(" ")[2] == "49"


def test_it_goes_on_where_the_last_daemon_left_it(log: logging.Logger, tmp_path: Path) -> None:
    log.info("first")
    open_log(tmp_path / "daemon.log").info("second")
    assert [line.split()[-1] for line in (tmp_path / "daemon.log").read_text().splitlines()] == ["first", "second"]


# Under a limit on the size of files a write fails in the middle, as on a full disk.
FULL = """
import resource, signal, sys
from pathlib import Path
from runner.service.daemonlog import open_log
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = open_log(Path(sys.argv[1]))
log.info("before")
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
log.info("lost %s", "x" * 1000)
log.info("lost, too")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.info("after")
"""


def test_a_full_disk_costs_records_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "daemon.log"
    result = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    lines = path.read_text().splitlines()
    assert lines[0].endswith(" info before")
    assert re.fullmatch(r"\S+ info after", lines[-1])
    assert len(lines) == 3  # of the first lost record what found room
    assert all(re.match(r"\d{4}-", line) for line in lines)


def test_a_directory_that_is_gone_raises_nothing(log: logging.Logger, tmp_path: Path) -> None:
    missing = open_log(tmp_path / "gone" / "daemon.log")
    missing.info("lost")
    (tmp_path / "gone").mkdir()
    missing.info("found")
    assert (tmp_path / "gone" / "daemon.log").read_text().endswith(" info found\n")


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "daemon.log").symlink_to(tmp_path / "target")
    logger = open_log(tmp_path / "daemon.log")
    logger.info("lost")
    close_log(logger)
    assert not (tmp_path / "target").exists()
