"""The key `_search` of a grid, which makes it the first round of a search."""

from __future__ import annotations

import re
import shlex
import sys
from typing import TYPE_CHECKING, Any

from runner.errors import InputError, did_you_mean
from runner.grid import Search
from runner.options import StageOptions, seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runner.grid import Sweep
    from runner.yamlfile import Document, KeyPath

DECIDE = "decide"
"""The stage of a search's decisions."""
KEYS = ("next", "rounds", "trials", "hours", "round_limit")
_TITLE = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_CALLABLE = re.compile(r"[^:]+:[A-Za-z_]\w*\Z")


def read(document: Document) -> Search | None:
    """The search of a grid document; None when it is a plain grid.

    Raises:
        InputError: it is not as it must be.
    """
    if "_search" not in document.value:
        return None
    given = document.value["_search"]
    if not isinstance(given, dict):
        raise _error(document, (), f"{given!r} is no search; allowed: a mapping with `next`.")
    for key in given:
        if key not in KEYS:
            raise _error(document, (key,), f"unknown key.{did_you_mean(key, KEYS)} Allowed: {', '.join(KEYS)}.")
    if "next" not in given:
        raise _error(document, (), "the key `next` is missing: the command that prints the next grid.")
    limit = given.get("round_limit")
    try:
        limit_s = None if limit is None else seconds(limit)
    except ValueError as error:
        raise _error(document, ("round_limit",), f"{limit!r} {error}.") from None
    if limit_s == 0:
        raise _error(document, ("round_limit",), f"{limit!r} is no limit; allowed: a duration above 0.")
    return Search(
        _command(document, given["next"]),
        rounds=_count(document, "rounds"),
        trials=_count(document, "trials"),
        hours=_hours(document),
        round_limit_s=limit_s,
    )


def _command(document: Document, given: Any) -> str:
    if isinstance(given, dict) and list(given) == ["python"] and isinstance(given["python"], str):
        name = given["python"]
        if not _CALLABLE.match(name):
            raise _error(
                document, ("next", "python"), f"{name!r} is no function; allowed: file.py:name, or module:name."
            )
        return shlex.join([sys.executable, "-P", "-m", "runner.callnext", name])
    if not isinstance(given, str) or not given.strip() or "\0" in given:
        raise _error(document, ("next",), f"{given!r} is no command; allowed: a string, or {{python: file.py:name}}.")
    return given


def _count(document: Document, key: str) -> int | None:
    value = document.value["_search"].get(key)
    if value is not None and (type(value) is not int or value < 1):
        raise _error(document, (key,), f"{value!r} is no count; allowed: a whole number above 0.")
    return value


def _hours(document: Document) -> float | None:
    value = document.value["_search"].get("hours")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise _error(document, ("hours",), f"{value!r} is no number of hours; allowed: a number above 0.")
    return float(value)


def _error(document: Document, path: KeyPath, message: str) -> InputError:
    return InputError(f"{document.place(('_search', *path))}: {message}")


def check(documents: Sequence[Document], sweeps: Sequence[Sweep], stages: Iterable[str]) -> None:
    """A search has a title of its own, which names the directories of its decisions.

    Raises:
        InputError: it has not.
    """
    titles = [sweep.title for sweep in sweeps]
    for document, sweep in zip(documents, sweeps, strict=True):
        if sweep.search is None:
            continue
        if sweep.title is None:
            raise _error(document, (), "a search needs a `_title`, which names its rounds.")
        if not _TITLE.match(sweep.title) or titles.count(sweep.title) > 1:
            rule = "up to 64 letters, digits, - and _, and no other grid has the same"
            raise InputError(f"{document.place(('_title',))}: {sweep.title!r} cannot name a search; allowed: {rule}.")
        if DECIDE in stages:
            raise _error(document, (), f"a stage is called `{DECIDE}`, as the decisions of a search are; rename it.")


def options(sweeps: Iterable[Sweep]) -> dict[str, StageOptions]:
    """The options of the decisions, when there are any."""
    return {DECIDE: StageOptions(gpus=0)} if any(sweep.search for sweep in sweeps) else {}
