"""JSON that every reader takes: null stands for a number that JSON has none for, such as the R2 of a constant loss."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def dumps(value: Any, indent: int | None = None) -> str:
    """Return the JSON text.

    >>> dumps({"lower": float("nan"), "starts": (1.0, float("inf"))})
    '{"lower": null, "starts": [1.0, null]}'
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def write(path: Path, value: Any) -> None:
    path.write_text(dumps(value, indent=2) + "\n", encoding="utf-8")


def number(value: float | None) -> float:
    """Return what was a number before it was written."""
    return math.nan if value is None else float(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
