"""Killed at every step of a decision: before, during and after each call that others can see."""

from __future__ import annotations

import importlib.util
import os
import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.crash.conftest import Site

pytestmark = [pytest.mark.crash, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("RUNNER_KILLS", "60"))
TRIALS, STAGES = 3, ("a", "b")
ONCE = Counter({(str(n), stage): 1 for n in range(TRIALS) for stage in STAGES})
PARAMS = """\
template:
  a: echo begin {n} a >> ledger; echo end {n} a >> ledger
  b: echo begin {n} b >> ledger; echo end {n} b >> ledger
resource: {cpu: 2}
---
n: [0, 1, 2]
"""
TEXTS = {"write", "send", "sendall"}


def moments(calls: list[str]) -> list[tuple[int, str]]:
    """Every step of a process that made these calls."""
    return [
        (number, when)
        for number, name in enumerate(calls, start=1)
        for when in ("before", "during", "after")
        if when != "during" or name in TEXTS
    ]


def spread(points: list[tuple[int, str]], count: int, choice: random.Random) -> list[tuple[int, str]]:
    """So many of the points, evenly spread; where more are wanted than there are, some twice."""
    offset = choice.randrange(len(points))
    return [points[(offset + turn * len(points) // count) % len(points)] for turn in range(count)]


def test_kill_9_at_every_step_of_a_daemon(site: Site) -> None:
    choice = random.Random(seed := random.randrange(10**6))
    site.project.write(PARAMS)
    assert site.finish() == 1
    site.wait_until_left()
    calls = site.calls()
    fired: Counter[str] = Counter()
    typed = 0
    for point in spread(moments(calls), max(1, KILLS * 2 // 5), choice):
        site.begin_anew()
        # Those that take up what is left are killed, too: while they read the records, and at any later step.
        followers = [choice.choice(moments(calls)[:100]), choice.choice(moments(calls))]
        site.arm([point, *followers])
        typed += site.finish()
        site.wait_until_left()
        where = f"seed {seed}: {[point, *followers]}, killed {site.fired()}"
        site.check_complete(TRIALS, STAGES)
        # The jobs themselves were not killed: each has begun once, whatever daemons came and went.
        assert site.begins() == ONCE, where
        fired.update(site.fired())
    kills = sum(fired.values())
    print(f"daemon: {kills} kills at {len(fired)} different points, `run` typed {typed} times; no job began twice")
    print(f"calls of a whole run: {dict(Counter(calls))}")
    assert kills >= KILLS * 2 // 3


def faults() -> Any:
    """The module that arms a process; of the same name in every daemon."""
    spec = importlib.util.spec_from_file_location("faults", Path(__file__).with_name("faults") / "sitecustomize.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_kill_9_at_every_step_of_a_client(site: Site) -> None:
    choice = random.Random(seed := random.randrange(10**6))
    site.project.write(PARAMS)
    module = faults()
    arm = site.faults

    def prepare() -> None:
        # The client alone: its daemon finds nothing to take.
        module.install(arm)
        del os.environ[module.VARIABLE]

    assert site.type(prepare=prepare).wait() == 0
    calls = site.calls()
    kills = 0
    for point in spread(moments(calls), max(1, KILLS // 4), choice):
        site.begin_anew()
        site.arm([point])
        code = site.type(prepare=prepare).wait()
        kills += code == -9
        site.finish()
        site.wait_until_left()
        site.check_complete(TRIALS, STAGES)
        assert site.begins() == ONCE, f"seed {seed}: {point}, killed {site.fired()}"
    print(f"client: {kills} kills at {len(calls)} calls: {dict(Counter(calls))}; no job began twice")
    assert kills >= KILLS // 8
