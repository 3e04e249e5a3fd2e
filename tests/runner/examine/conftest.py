"""Trials' directories for the tests of the results reader."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "output"
    path.mkdir()
    return path


@pytest.fixture
def make_trial(output: Path) -> Callable[..., Path]:
    """Write a trial's directory as the runner does; `files` are further files, name → content."""

    def make(name: str, params: Mapping[str, Any] | str, files: Mapping[str, str] | None = None) -> Path:
        path = output / name
        path.mkdir()
        if not isinstance(params, str):
            private = {
                "_name": name,
                "_output": f"output/{name}",
                "_time": "20261121.053000",
                "_scripts": {"train": f"python train.py --out output/{name}"},
            }
            params = yaml.safe_dump({**params, **private}, width=1000000)
        (path / "param").write_text(params, encoding="utf-8")
        (path / "stat").write_text("train: finished\n", encoding="utf-8")
        for file, content in (files or {}).items():
            (path / file).write_text(content, encoding="utf-8")
        return path

    return make
