"""The page of `run report` as a reader sees it in Chromium, without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PROGRAM = """\
import math, sys
lr, seed, out = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
with open(f"{out}/metrics.csv", "w") as file:
    file.write("step,lr,loss,accuracy\\n")
    for step in range(1, 101):
        loss = 2 + math.exp(-lr * step) + seed / 50
        file.write(f"{step},{lr},{loss},{1 / loss}\\n")
        if lr == 3 and step == 40:
            print("epoch 4")
            sys.exit("RuntimeError: CUDA out of memory")
"""
PARAMS = """\
template: {train: 'python program.py {lr} {seed} {_output}'}
resource: {cpu: 2}
---
lr: [3, 0.3, 0.03, 1e-3]
seed: [0, 1, 2]
"""


@pytest.fixture(scope="module")
def report(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a grid of 12 trials, of which 3 failed; it needs `browser` so that no skipped test runs anything."""
    path = tmp_path_factory.mktemp("project")
    (path / "program.py").write_text(PROGRAM)
    (path / "params.yaml").write_text(PARAMS)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-c", "from runner.cli import main; raise SystemExit(main())"]
    for words, code in (([], 1), (["report"], 0)):
        ended = subprocess.run(
            [*command, *words], cwd=path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert ended.returncode == code, ended.stdout + ended.stderr
    return path / "output" / "report.html"


@pytest.fixture
def opened(report: Path, page: Page) -> Page:
    """The page, from a computer that reaches nothing."""
    page.context.set_offline(True)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: asked.append(str(error)))
    page.goto(report.as_uri())
    expect(page.locator("#curves .main-svg").first).to_be_visible()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    return page


def column(page: Page, name: str, table: str = "#trials") -> list[str]:
    names = page.locator(f"{table} th").all_inner_texts()
    cells = page.locator(f"{table} tbody tr:visible td:nth-child({names.index(name) + 1})")
    return cells.all_inner_texts()


def drawn(page: Page) -> int:
    return page.locator("#curves .scatterlayer .trace").count()


def test_all_trials_and_curves_are_there(opened: Page, shoot: Callable[[str], None]) -> None:
    names = [f"Lr_{lr}-Seed_{seed}" for lr in ("0.001", "0.03", "0.3", "3") for seed in range(3)]
    assert sorted(column(opened, "trial")) == names
    assert drawn(opened) == 12
    assert column(opened, "state").count("failed") == 3
    assert column(opened, "lr", "#settings") == ["3", "0.3", "0.03", "0.001"]
    assert column(opened, "n", "#settings") == ["3"] * 4
    assert column(opened, "unfinished", "#settings") == ["3", "0", "0", "0"]
    expect(opened.locator("details")).to_have_count(4)  # three failures, and the code that all ran
    opened.locator("details summary").first.click()
    expect(opened.locator("details pre").first).to_contain_text("epoch 4\nRuntimeError: CUDA out of memory")
    shoot("report")


def test_headings_sort(opened: Page) -> None:
    loss = opened.locator("#trials th", has_text="loss").first
    loss.click()
    found = [float(text) for text in column(opened, "loss")]
    assert found == sorted(found)
    loss.click()
    assert [float(text) for text in column(opened, "loss")] == found[::-1]
    opened.locator("#trials th").first.press("Enter")
    assert column(opened, "trial")[0] == "Lr_0.001-Seed_0"
    assert opened.locator("#trials th[aria-sort]").count() == 1


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("", 12),
        ("failed", 3),
        ("Lr_0.3 seed=2", 1),
        ("lr<0.1", 6),
        ("lr>0.1 state=finished", 3),
        ("lr=1e-3", 3),
        ("loss<2.01", 2),
        ("nothing like it", 0),
    ],
)
def test_the_filter_filters_rows_and_curves(opened: Page, words: str, count: int, shoot: Callable[[str], None]) -> None:
    opened.get_by_label("filter the trials").fill(words)
    expect(opened.locator("#trials tbody tr:visible")).to_have_count(count)
    expect(opened.locator("#shown")).to_have_text(f"{count} of 12")
    expect(opened.locator("#curves .scatterlayer .trace")).to_have_count(count)
    if words == "lr<0.1":
        shoot("report_filtered")
