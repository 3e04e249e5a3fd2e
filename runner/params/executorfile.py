"""What params.yaml says of executors: which one runs each stage, and what it is told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from runner.errors import InputError, did_you_mean
from runner.executors import registry
from runner.executors.scripts import TASK
from runner.model import LOCAL
from runner.yamlfile import read_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.params.header import Header
    from runner.yamlfile import Document, KeyPath


def read(header: Header, document: Document, wanted: str | None) -> dict[str, tuple[str, dict[str, Any]]]:
    """The executor of each stage and gather, with what it is told; `wanted` is the command line's.

    Raises:
        InputError: there is no such executor, or it does not know what it is told.
    """
    if wanted is not None:
        _check_name(wanted, f"-x {wanted}")
    for path, told in _blocks(header):
        for name, keys in told.items():
            _check_name(name, f"{_place(document, (*path, name), path)}: {name!r}")
            if name == LOCAL or registry.is_built_in(name):  # another package need not be here where it is not used
                _checked(name, keys, document, [(*path, name)])
    found = {}
    for stage in (*header.template, *header.gather):
        name, told = header.executor_of(stage, wanted)
        spec = header.template.get(stage) or header.gather[stage]
        own = None if isinstance(spec, str) else spec.executor
        above = "template" if stage in header.template else "gather"
        paths: list[KeyPath] = [(above, stage, "executor", name)] if own and name in own else []
        paths += [("stage", "executor", name), ("executor", name)]
        found[stage] = name, _checked(name, told, document, paths)
    return found


def _blocks(header: Header) -> list[tuple[KeyPath, Mapping[str, Any]]]:
    blocks: list[tuple[KeyPath, Mapping[str, Any]]] = [(("executor",), header.executor)]
    for path, keys in header.option_blocks():
        if keys.executor is not None:
            blocks.append(((*path, "executor"), keys.executor))
    return blocks


def _check_name(name: str, place: str) -> None:
    if name == LOCAL or registry.is_built_in(name):
        return
    names = [LOCAL, *registry.names()]
    if name not in names:
        raise InputError(f"{place} is no executor.{did_you_mean(name, names)} Allowed: {', '.join(names)}.")


def _checked(name: str, told: dict[str, Any], document: Document, paths: list[KeyPath]) -> dict[str, Any]:
    if name == LOCAL:
        if told:
            key = next(iter(told))
            raise InputError(f"{_key_place(document, paths, key)}: the executor `{LOCAL}` is told nothing.")
        return {}
    try:
        keys = registry.load(name).keys
    except ValueError as error:  # a package's own, which cannot be loaded
        raise InputError(f"{_key_place(document, paths, name)}: {error}") from None
    try:
        keys.model_validate(told)
    except ValidationError as error:
        problem = error.errors()[0]
        key = str(problem["loc"][0])
        place = _key_place(document, paths, key)
        if problem["type"] == "extra_forbidden":
            hint = did_you_mean(key, keys.model_fields)
            raise InputError(f"{place}: unknown key.{hint} Allowed: {', '.join(sorted(keys.model_fields))}.") from None
        said = str(problem["ctx"]["error"]) if problem["type"] == "value_error" else f"is not allowed: {problem['msg']}"
        raise InputError(f"{place}: {problem['input']!r} {said}.") from None
    if told.get("script"):
        told = told | {"script": _script(told["script"], _key_place(document, paths, "script"))}
    return told


def _script(name: str, place: str) -> str:
    """The text of the user's own script."""
    path = Path(name)
    if not path.is_file():
        raise InputError(f"{place}: {name}: no such file in {Path.cwd()}.")
    text = read_text(path)
    if not any(TASK in line for line in text.splitlines() if not line.lstrip().startswith("#")):
        raise InputError(f"{place}: {name} lacks {TASK}, where the trial's command goes.")
    return text


def _key_place(document: Document, paths: list[KeyPath], key: str) -> str:
    """Where a key stands: with the stage, or with what holds for all."""
    for path in paths:
        if (*path, key) in document.lines:
            return str(document.place((*path, key)))
    return str(document.place(paths[-1][:1]))


def _place(document: Document, path: KeyPath, above: KeyPath) -> str:
    return str(document.place(path if path in document.lines else above))
