"""Tables as text: aligned, comma-separated, JSON lines, Markdown."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

MISSING = "·"


def show(frame: pd.DataFrame, form: str | None, rows: int | None) -> None:
    """Prints a table in the form that was asked for."""
    shown = frame if rows is None else frame.head(rows)
    if form == "csv":
        shown.to_csv(sys.stdout)
    elif form == "json":
        for record in shown.reset_index().to_dict("records"):
            print(json.dumps({str(key): _plain(value) for key, value in record.items()}, ensure_ascii=False))
    elif form == "md":
        _print_markdown(shown)
    else:
        _print_aligned(shown)
        if len(shown) < len(frame):
            print(f"… and {len(frame) - len(shown):,} more")


def _plain(value: Any) -> Any:
    """A value as JSON has it; what is no number there becomes null."""
    value = value.item() if hasattr(value, "item") else value
    if value is None or isinstance(value, bool | int | str | list | dict):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if value != value or str(value) == "<NA>" else str(value)


def cell(value: Any) -> str:
    """A value in a table for people."""
    value = _plain(value) if not isinstance(value, float) else value
    if value is None or value != value:
        return MISSING
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _cells(frame: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    flat = frame.reset_index()
    return [str(name) for name in flat.columns], [
        [cell(value) for value in row] for row in flat.itertuples(index=False)
    ]


def _print_aligned(frame: pd.DataFrame) -> None:
    from runner.text import printable

    headers, rows = _cells(frame)
    safe = [[printable(text) for text in row] for row in [headers, *rows]]
    widths = [max(map(len, column)) for column in zip(*safe, strict=True)]
    is_text = [any(not _is_number(row[place]) for row in safe[1:]) for place in range(len(headers))]
    for row in safe:
        aligned = (
            text.ljust(width) if left else text.rjust(width)
            for text, width, left in zip(row, widths, is_text, strict=True)
        )
        print("  ".join(aligned).rstrip())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == MISSING
    return True


def _print_markdown(frame: pd.DataFrame) -> None:
    headers, rows = _cells(frame)
    for row in [headers, ["---"] * len(headers), *rows]:
        print("| " + " | ".join(" ".join(text.replace("|", r"\|").split()) for text in row) + " |")
