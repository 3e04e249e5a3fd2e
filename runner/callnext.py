"""Calls a Python function as the `next` of a search: `python -m runner.callnext FILE.py:NAME`, or `MODULE:NAME`.

The function gets the trials of all rounds, a list of mappings, and returns the next grid as a mapping, or None.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import runpy
import sys
from typing import TYPE_CHECKING, Any

from runner import yamlfile
from runner.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def main(arguments: Sequence[str]) -> int:
    """Prints what the function returns, as YAML."""
    with contextlib.redirect_stdout(sys.stderr):  # standard output is the grid's alone
        function = _find(arguments[0])
        grid = function([json.loads(line) for line in sys.stdin])
    if grid:
        print(yamlfile.dump(grid), end="")
    return 0


def _find(spelling: str) -> Callable[[list[dict[str, Any]]], dict[str, Any] | None]:
    source, _, name = spelling.rpartition(":")
    sys.path.insert(0, "")  # the directory where `run` was typed
    names = runpy.run_path(source) if source.endswith(".py") else vars(importlib.import_module(source))
    function = names.get(name)
    if not callable(function):
        known = [key for key, value in names.items() if callable(value)]
        raise InputError(f"{source}: no function {name!r}.{did_you_mean(name, known)}")
    return function  # type: ignore[no-any-return]


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except InputError as error:
        print(f"run: error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
