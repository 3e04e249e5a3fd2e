"""A headless Chromium, its windows, and pictures of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

TIMEOUT_S = 60
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def find_chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium: $CHROMIUM is not set, and no chromium or google-chrome is on the PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """A window that is tall enough for all charts: TensorBoard draws only those in sight."""
    page = browser.new_page(viewport={"width": 1600, "height": 2200})
    page.set_default_timeout(TIMEOUT_S * 1000)
    expect.set_options(timeout=TIMEOUT_S * 1000)
    yield page
    # Also where the test has failed.
    page.screenshot(path=tmp_path / "at_the_end.png")
    page.close()


@pytest.fixture
def shoot(page: Page, tmp_path: Path) -> Callable[[str], None]:
    """Take a picture, also into the directory $SCREENSHOTS."""

    def shoot(name: str) -> None:
        picture = page.screenshot()
        for directory in (tmp_path, Path(os.environ.get("SCREENSHOTS") or tmp_path)):
            directory.mkdir(parents=True, exist_ok=True)
            (directory / f"{name}.png").write_bytes(picture)

    return shoot
