"""The page of all options."""

from __future__ import annotations

from pathlib import Path

import pytest

from train.config import CONFIGS
from train.options import page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training-options.md"


def test_the_page_of_options_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "write it again: python -m train.options > docs/training-options.md"


@pytest.mark.parametrize("task", CONFIGS)
def test_every_option_is_documented(task: str) -> None:
    lines = [line.split(" | ") for line in page().splitlines() if line.startswith("| `")]
    documented = {cells[0].strip("| `"): cells[3].strip(" |") for cells in lines}
    missing = [name for name in CONFIGS[task].model_fields if not documented.get(name)]
    assert not missing
