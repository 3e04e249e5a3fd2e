"""A user's words reach trials wherever they run: logs, status, cancel, retry, wait, stop, Ctrl-C, an edited file."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.conftest import Place, Site

    See = Callable[..., None]

# Each trial says that it began, and goes on once a file of its name is there. One runs at a time.
GATED = """\
resource: {{cpu: 1}}
template:
  a: 'echo begun {{n}}; touch {{_output}}/begun; until test -e go.{{n}}; do sleep 0.05; done; echo over'
  b: echo second {{n}}
---
_title: main
n: {numbers}
"""


def begun(site: Site, *numbers: int) -> bool:
    return all((site.output / f"N_{n}" / "begun").exists() for n in numbers)


def go(site: Site, *numbers: int) -> None:
    for n in numbers:
        (site.path / f"go.{n}").touch()


@pytest.fixture
def gated(site: Site, see: See) -> Callable[..., Site]:
    """Some trials, of which the first runs and waits."""

    def gated(*numbers: int) -> Site:
        site.write_params(GATED.format(numbers=list(numbers)), limit=1)
        said = site.run("--detach")
        assert said.returncode == 0, said.stderr
        see(lambda: begun(site, numbers[0]))
        return site

    return gated


def test_a_log_is_followed_into_the_next_stage(gated: Callable[..., Site]) -> None:
    site = gated(0)
    follower = site.start("logs", "N_0", "-f")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "begun 0\n"
    go(site, 0)
    assert follower.communicate(timeout=60)[0] == "over\n\n--- b, attempt 1 ---\nsecond 0\n"
    assert site.run("wait").returncode == 0


def test_status_tells_what_runs_and_what_waits(gated: Callable[..., Site], see: See, place: Place) -> None:
    site = gated(0, 1)
    see(lambda: site.states()["N_0"]["a"] == "running")
    # What was given to a batch system is no longer the daemon's.
    waits = "submitted" if place.is_batch else "pending"
    assert site.states() == {"N_0": {"a": "running", "b": "pending"}, "N_1": {"a": waits, "b": "pending"}}
    assert begun(site, 0)
    assert not begun(site, 1)
    go(site, 0, 1)
    waits_for = site.run("wait")
    assert waits_for.returncode == 0
    assert set(site.states()["N_1"].values()) == {"finished"}


def test_cancel_takes_out_what_waits_and_ends_what_runs(gated: Callable[..., Site], see: See) -> None:
    site = gated(0, 1, 2)
    see(lambda: site.states()["N_0"]["a"] == "running")
    assert site.run("cancel", "N_0", "N_1").stdout == "Canceled 4 jobs of 2 trials.\n"
    go(site, 2)
    assert site.run("wait").returncode == 1
    assert site.stat("N_0")["a"] == "canceled"
    assert site.stat("N_2") == {"a": "finished", "b": "finished"}
    assert site.attempts("N_0", "end")[0]["state"] == "canceled"
    assert not (site.output / "N_1").exists()
    assert not site.living()


def test_retry_runs_what_failed_again(site: Site, see: See) -> None:
    site.write_params(
        "resource: {cpu: 2}\n"
        "template: {a: 'test {n} = 0 || test -e mended', b: 'while ! test -e go; do sleep 0.05; done'}\n"
        "---\nn: [0, 1]\n"
    )
    assert site.run("--detach").returncode == 0
    see(lambda: site.output.exists() and site.states().get("N_1", {}).get("a") == "failed")
    (site.path / "mended").touch()
    assert site.run("retry").stdout == "Due again: 2 jobs of 1 trial.\n"
    (site.path / "go").touch()
    assert site.run("wait").returncode == 0
    assert [record["exit_code"] for record in site.attempts("N_1", "end")] == [1, 0, 0]


def test_an_edited_file_changes_what_nobody_has_begun(gated: Callable[..., Site]) -> None:
    site = gated(0, 1, 2)
    text = GATED.format(numbers=[0, 2, 4]).replace("echo second", "echo other")
    site.write_params(text, limit=1)
    said = site.run("--detach").stdout
    assert "1 new, 1 running, 1 waiting, now with another command" in said
    assert "1 no longer asked for, taken out" in said
    go(site, 0, 1, 2, 4)
    waited = site.run("wait")
    assert waited.returncode == 0, waited.stdout + waited.stderr
    assert {name: set(states.values()) for name, states in site.states().items()} == {
        "N_0": {"finished"},
        "N_2": {"finished"},
        "N_4": {"finished"},
    }
    assert site.log("N_2", "b") == "other 2\n"
    assert not (site.output / "N_1").exists()


def test_prune_ends_what_is_no_longer_asked_for(gated: Callable[..., Site], see: See) -> None:
    site = gated(0, 1)
    see(lambda: site.states()["N_0"]["a"] == "running")
    site.write_params(GATED.format(numbers=[1]), limit=1)
    assert site.run("--detach", "--prune").returncode == 0
    see(lambda: site.stat("N_0") == {"a": "canceled"})
    go(site, 1)
    site.run("wait")
    again = site.run()
    assert again.returncode == 0
    assert "START" not in again.stdout
    assert site.stat("N_1") == {"a": "finished", "b": "finished"}


def test_a_program_may_save_at_ctrl_c_and_goes_on_in_the_next_run(site: Site, see: See) -> None:
    site.write(
        "import pathlib, signal, sys, time\n"
        "here = pathlib.Path(sys.argv[1])\n"
        "def save(*_):\n    (here / 'saved').touch()\n    sys.exit(75)\n"
        "if (here / 'saved').exists():\n    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save)\n(here / 'begun').touch()\ntime.sleep(60)\n",
        "program.py",
    )
    site.write_params("resource: {cpu: 1}\ntemplate: {a: 'python program.py {_output}'}\n---\nn: [0, 1]\n", limit=1)
    process = site.start()
    see(lambda: begun(site, 0))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Stopping: 1 running attempt was asked to end" in output
    assert (site.output / "N_0" / "saved").exists()
    assert site.stat("N_0") == {"a": "interrupted"}
    assert not site.living()
    (site.output / "N_1").mkdir(exist_ok=True)
    (site.output / "N_1" / "saved").touch()
    again = site.run()
    assert again.returncode == 0, again.stdout
    assert [record["attempt"] for record in site.attempts("N_0", "start")] == [1, 2]


def test_what_ignores_ctrl_c_is_killed_at_the_second_one(site: Site, see: See) -> None:
    site.write_params(
        "resource: {cpu: 1}\n"
        "template:\n  a: \"trap '' TERM; touch {_output}/begun; while :; do sleep 0.1; done\"\n---\nn: 0\n"
    )
    process = site.start()
    see(lambda: begun(site, 0))
    process.send_signal(signal.SIGINT)
    see(lambda: "Stopping" in site.daemon_log())
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    see(lambda: not site.living())
    assert site.stat("N_0") == {"a": "interrupted"}


def test_a_closed_terminal_and_a_stopped_daemon_leave_the_queue_to_the_next(
    gated: Callable[..., Site], see: See
) -> None:
    site = gated(0, 1)
    (daemon,) = site.daemons()
    daemon.terminate()
    see(lambda: not site.daemons())
    go(site, 0, 1)
    again = site.run()
    assert again.returncode == 0, again.stdout
    assert {name: set(states.values()) for name, states in site.states().items()} == {
        "N_0": {"finished"},
        "N_1": {"finished"},
    }
