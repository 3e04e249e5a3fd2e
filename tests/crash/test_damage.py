"""Files of the runner that were cut, removed or overwritten: rebuilt, or one clear message; never taken for empty."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.crash.conftest import Site

pytestmark = [pytest.mark.crash, pytest.mark.timeout(3600)]

SAMPLES = 1 if int(os.environ.get("RUNNER_KILLS", "60")) < 500 else 8
TRIALS, STAGES = 3, ("a", "b")
# The first trial is finished; the second is killed in its second stage, the third waits.
PARAMS = """\
template:
  a: echo begin {n} a >> ledger; echo end {n} a >> ledger
  b: echo begin {n} b >> ledger; test {n} != 1 || test -e go || sleep 100; echo end {n} b >> ledger
resource: {cpu: 1}
---
n: [0, 1, 2]
"""
FILES = [
    "plan.jsonl", "plan", "environment", "lock", "copy", "N_0/param", "N_0/stat", "N_0/attempts", "N_1/param",
    "N_1/stat", "N_1/attempts",
]  # fmt: skip


def path_of(output: Path, file: str) -> Path:
    state = output / ".runner"
    return {
        "plan.jsonl": state / "plan.jsonl",
        "plan": next((state / "plans").glob("*.jsonl"), state / "plans" / "none"),
        "environment": next((state / "plans").glob("*.env"), state / "plans" / "none"),
        "lock": state / "lock",
        "copy": output / "params.yaml",
    }.get(file, output / file)


def cut(path: Path, choice: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: choice.randrange(len(data)) if data else 0])


def rubbish(path: Path, choice: random.Random) -> None:
    path.write_bytes(choice.randbytes(200))


def overwrite(path: Path, choice: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(min(8, len(data))):
        data[choice.randrange(len(data))] = choice.randrange(256)
    path.write_bytes(data)


def empty(path: Path, _: random.Random) -> None:
    path.write_bytes(b"")


def remove(path: Path, _: random.Random) -> None:
    path.unlink(missing_ok=True)


def become_directory(path: Path, _: random.Random) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


DAMAGES: list[Callable[[Path, random.Random], None]] = [cut, rubbish, overwrite, empty, remove, become_directory]


@pytest.fixture
def kept(site: Site, until: Callable[..., None]) -> Iterator[Path]:
    """An output directory, and the ledger, as a machine left them that died in the middle."""
    site.project.write(PARAMS)
    site.type()
    until(lambda: site.begins()[("1", "b")] == 1, site.daemon_log)
    until(lambda: len(site.project.attempts("N_1", "process")) == 2, site.daemon_log)
    site.kill_everything()
    folder = site.path / "kept"
    shutil.copytree(site.output, folder / "output")
    shutil.copy(site.path / "ledger", folder / "ledger")
    (site.path / "go").touch()
    yield folder
    shutil.rmtree(folder)


def test_damage_is_mended_or_told(site: Site, kept: Path) -> None:
    choice = random.Random(seed := random.randrange(10**6))
    outcomes: Counter[str] = Counter()
    for file in FILES:
        for damage in DAMAGES:
            if file == "copy" and damage is become_directory:
                continue
            for _ in range(SAMPLES if damage in {cut, overwrite, rubbish} else 1):
                site.begin_anew()
                shutil.copytree(kept / "output", site.output)
                shutil.copy(kept / "ledger", site.path / "ledger")
                path = path_of(site.output, file)
                damage(path, choice)
                outcomes[check(site, path, f"seed {seed}: {damage.__name__} {file}")] += 1
    print(f"{outcomes.total()} damages: {dict(outcomes)}")


def check(site: Site, path: Path, where: str) -> str:
    typed = site.type()
    code = typed.wait()
    said = f"{where}\n{typed.text}\n{site.daemon_log()}"
    assert "Traceback" not in said, said
    begins = site.begins()
    # What was finished has not been started again.
    assert begins["0", "a"] == begins["0", "b"] == begins["1", "a"] == 1, said
    if code == 0:
        assert begins["1", "b"] == 2, said
        assert {site.project.stat(f"N_{n}")["b"] for n in range(TRIALS)} == {"finished"}, said
        return "mended"
    assert code in {1, 2}, said
    assert str(path.relative_to(site.path)) in typed.text, said
    assert len(typed.text.strip().splitlines()) <= 3, said
    assert begins["1", "b"] == 1, said
    return "told"
