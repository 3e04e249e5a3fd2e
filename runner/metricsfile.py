"""What the daemon reads of a program's metrics.csv while it runs."""

from __future__ import annotations

import csv


def rows(path: str, metric: str) -> list[tuple[int, float]]:
    """The steps of a metrics.csv with the values of a column, where it has one; a row that is being written is not."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:  # noqa: PTH123
            lines = [line for line in file if line.endswith("\n")]
    except OSError:
        return []
    found = []
    table = csv.DictReader(lines, skipinitialspace=True)
    table.fieldnames = [name.strip() for name in table.fieldnames or ()]
    for row in table:
        try:
            found.append((int(float(row["step"])), float(row[metric])))  # pandas may write steps as 10.0
        except (KeyError, TypeError, ValueError, OverflowError):  # no value in this row
            continue
    return found


def step_reached(directory: str) -> int:
    """The last step in a trial's metrics; 0 without any."""
    return max((step for step, _ in rows(f"{directory}/metrics.csv", "step")), default=0)
