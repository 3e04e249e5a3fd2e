"""The daemon as a job of a batch system: who submits the next one."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner import serve
from runner.batch import submitjob
from runner.lock import Lock
from runner.plan import Journal


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An output directory in which something is left to do."""
    Journal(tmp_path).append({"kind": "plan", "time": "20260101.120000", "options": {}, "trials": 1})
    return tmp_path


def test_a_job_that_finds_another_daemon_submits_no_other(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[Path] = []
    monkeypatch.setattr(submitjob, "submit_again", submitted.append)
    monkeypatch.setattr(serve, "LOCK_WAIT_S", 0.0)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    lock = Lock(output)
    try:
        assert serve.main(["--here", str(output)]) == 1
    finally:
        lock.release()
    assert submitted == []


def test_a_job_whose_time_is_over_submits_the_next(output: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom runner import serve\nfrom runner.batch import submitjob\n"
        "submitjob.submit_again = lambda output, ran_s: (output / 'submitted').touch()\n"
        "sys.exit(serve.main(['--here', sys.argv[1]]))\n"
    )
    job = subprocess.Popen([sys.executable, "-c", code, str(output)], stdout=subprocess.DEVNULL)
    log, end = output / ".runner" / "daemon.log", time.monotonic() + 60
    while "serving" not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < end
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    assert job.wait(60) == 0
    assert (output / "submitted").exists()


def test_another_users_file_beside_the_log_keeps_no_daemon_from_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_open = os.open

    def refuse(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if Path(path).name == "daemon.err":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really_open(path, flags, mode)

    monkeypatch.setattr("runner.serve.os.open", refuse)
    ready, tell_ready = os.pipe()
    standard_error = os.dup(2)
    try:
        serve._become_silent(tmp_path / "daemon.log", tell_ready)
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)
    assert os.read(ready, 8) == b"0"
    os.close(ready)
