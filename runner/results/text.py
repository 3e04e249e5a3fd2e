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
        _flat(shown).to_csv(sys.stdout, index=False)
    elif form == "json":
        for record in _flat(shown).to_dict("records"):
            print(json.dumps({str(key): _plain(value) for key, value in record.items()}))
    elif form == "md":
        _print_markdown(shown)
    else:
        _print_aligned(shown)
        if len(shown) < len(frame):
            print(f"… and {len(frame) - len(shown):,} more")


def _plain(value: Any) -> Any:
    """A value as JSON has it; what is no number there becomes null."""
    value = value.item() if hasattr(value, "item") else value
    if type(value).__name__ == "NAType":
        return None
    if value is None or isinstance(value, bool | int | str | list | dict):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


def cell(value: Any) -> str:
    """A value in a table for people."""
    value = _plain(value) if not isinstance(value, float) else value
    if value is None or value != value:
        return MISSING
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with its index as the first columns; a parameter of such a name gets a prefix."""
    names = [name for name in frame.index.names if name in frame.columns]
    return frame.rename(columns={name: f"param.{name}" for name in names}).reset_index()


def cells(frame: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """The headings and the rows of a table for people."""
    flat = _flat(frame)
    return [str(name) for name in flat.columns], [
        [cell(value) for value in row] for row in flat.itertuples(index=False)
    ]


def _print_aligned(frame: pd.DataFrame) -> None:
    from rich.cells import cell_len

    from runner.text import printable

    headers, rows = cells(frame)
    safe = [[printable(text) for text in row] for row in [headers, *rows]]
    sizes = [list(map(cell_len, row)) for row in safe]
    widths = list(map(max, zip(*sizes, strict=True)))
    is_text = [any(not _is_number(row[place]) for row in safe[1:]) for place in range(len(headers))]
    for row, of_row in zip(safe, sizes, strict=True):
        pads = (" " * (width - size) for width, size in zip(widths, of_row, strict=True))
        aligned = (
            f"{text}{pad}" if left else f"{pad}{text}" for text, pad, left in zip(row, pads, is_text, strict=True)
        )
        print("  ".join(aligned).rstrip())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == MISSING
    return True


def _print_markdown(frame: pd.DataFrame) -> None:
    headers, rows = cells(frame)
    for row in [headers, ["---"] * len(headers), *rows]:
        print("| " + " | ".join(" ".join(text.replace("|", r"\|").split()) for text in row) + " |")
