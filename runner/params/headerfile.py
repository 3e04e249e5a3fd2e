"""The first document of params.yaml, read: what is wrong with it is told with line, key, value and what is allowed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydantic import ValidationError

from runner import keep, template
from runner.errors import InputError, did_you_mean
from runner.notify import EVENTS, PLACEHOLDERS
from runner.params.header import (
    RESOURCES,
    GatherSpec,
    Header,
    NotifySpec,
    PruneSpec,
    ResourceKeys,
    RetrySpec,
    StageKeys,
    StageSpec,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

    from runner.yamlfile import Document, KeyPath

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def read(document: Document) -> Header:
    """The validated header.

    Raises:
        InputError: it is not as it must be.
    """
    if not isinstance(document.value, dict):
        raise InputError(f"{document.place()}: the first document must be a mapping with `template`.")
    try:
        header = Header.model_validate(document.value)
    except ValidationError as error:
        raise InputError(_first_problem(error, document)) from None
    for path, keys in header.option_blocks():
        for name in keys.env:
            if not _VARIABLE.match(name):
                raise InputError(f"{document.place((*path, 'env', name))}: {name!r} is no name of a variable.")
        for pattern in keys.keep:
            if reason := keep.refusal(pattern):
                raise InputError(f"{document.place((*path, 'keep', pattern))}: {pattern!r} {reason}.")
    if header.notify is not None:
        _check_notify(header.notify, document)
    return header


def _check_notify(spec: NotifySpec, document: Document) -> None:
    if (spec.cmd is None) is (spec.url is None):
        raise InputError(f"{document.place(('notify',))}: needs either a `cmd` or a `url`.")
    try:
        names = template.parse(spec.cmd or "").names
    except template.TemplateError as error:
        raise InputError(f"{document.place(('notify', 'cmd'))}: the command {error}.") from None
    for name in sorted(names - PLACEHOLDERS):
        allowed = ", ".join(f"{{{item}}}" for item in sorted(PLACEHOLDERS))
        raise InputError(f"{document.place(('notify', 'cmd'))}: no value for {{{name}}}; allowed: {allowed}.")


def _first_problem(error: ValidationError, document: Document) -> str:
    """The validator's deepest complaint, which is the one about the alternative that the user meant."""
    problems = error.errors()
    problem = max(problems, key=lambda item: sum(part in _marks(document, item["loc"]) for part in item["loc"]))
    path = tuple(part for part in problem["loc"] if part in _marks(document, problem["loc"]))
    if problem["type"] == "missing":
        return f"{document.place(path)}: the key `{problem['loc'][-1]}` is missing."
    if problem["type"] == "extra_forbidden":
        allowed = sorted(_keys_at(path).model_fields)
        hint = did_you_mean(str(path[-1]), allowed)
        grids = " Parameters of a grid stand below a line `---`." if len(path) == 1 and not hint else ""
        return f"{document.place(path)}: unknown key.{hint} Allowed: {', '.join(allowed)}.{grids}"
    message = str(problem["ctx"]["error"]) if problem["type"] == "value_error" else _plain(path, problem["msg"])
    is_default = path[:1] == ("default",) and len(path) > 1
    grids = " Several values stand in a grid." if is_default and isinstance(problem["input"], list) else ""
    return f"{document.place(path)}: {problem['input']!r} {message}.{grids}"


def _keys_at(path: KeyPath) -> type[BaseModel]:
    """The model whose keys are allowed where `path` ends."""
    if len(path) == 1:
        return Header
    inner: dict[str, type[BaseModel]] = {"retry": RetrySpec, "prune": PruneSpec}
    for name in path[1:-1]:
        if name in inner:
            return inner[str(name)]
    models: dict[str, type[BaseModel]] = {
        "template": StageSpec,
        "gather": GatherSpec,
        "stage": StageKeys,
        "notify": NotifySpec,
        "resource": ResourceKeys,
    }
    return models[str(path[0])]


def _plain(path: KeyPath, message: str) -> str:
    if path[:1] == ("resource",) and len(path) == 1:
        return RESOURCES
    if message.startswith(("Dictionary should have at least 1", "List should have at least 1")):
        return "is empty; at least one entry is needed"
    if path == ("template",):
        return "is no template; allowed: stages and their commands, such as {train: python train.py}"
    if path == ("notify",):
        events = ", ".join(sorted(EVENTS))
        return f"is no notification; allowed: {{cmd: COMMAND}} or {{url: ADDRESS}}, and in it `on: [{events}]`"
    if path[:1] == ("template",) and len(path) == 2:
        return "is no command; allowed: a string, or a mapping with `cmd`"
    if path[-1:] == ("per_gpu",):
        return "is not allowed: allowed are a whole number above 0 and auto"
    if path[:1] == ("gather",) and len(path) == 2:
        return "is no gather; allowed: a mapping with `cmd` and `of`"
    wording = message.replace("a valid dictionary", "a mapping").replace("a valid integer", "a whole number")
    wording = wording.replace("a valid list", "a list, in [ ]").replace("a valid string", "a string")
    return f"is not allowed: {wording[0].lower()}{wording[1:]}"


def _marks(document: Document, location: Iterable[str | int]) -> KeyPath:
    """The parts of a validator's location that are keys of the file; the others name its alternatives."""
    path: KeyPath = ()
    for part in location:
        if (*path, part) in document.lines:
            path = (*path, part)
    return path
