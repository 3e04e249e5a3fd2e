"""params.yaml to a validated Config; every error names the file, the line, the key, the value and what is allowed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, ValidationError

from runner import template
from runner.errors import InputError, did_you_mean
from runner.grid import Sweep
from runner.yamlfile import Document, read_documents

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runner.template import Template
    from runner.values import Value
    from runner.yamlfile import KeyPath

RESERVED = frozenset({"_name", "_output", "_time"})  # placeholders that the runner fills
SWEEP_KEYS = frozenset({"_title", "_cmd"})
_PARAM_NAME = re.compile(rf"{template.NAME}\Z")
_STAGE_NAME = re.compile(r"[A-Za-z0-9_-]+\Z")


def _scalar(value: Any) -> Any:
    if isinstance(value, dict | list):
        kind = "a mapping" if isinstance(value, dict) else "a list"
        raise ValueError(f"is {kind}; allowed: one string, number, boolean or null")
    if isinstance(value, str) and "\0" in value:
        raise ValueError("holds a NUL character, which no program's argument can hold")
    return value


def _resource_item(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).strip():
        raise ValueError('must be a GPU index (0) or several for one trial ("0,1")')
    return str(value)


Scalar = Annotated[Any, BeforeValidator(_scalar)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class StageSpec(_Strict):
    """A stage written as a mapping."""

    cmd: str


class CpuResource(_Strict):
    """`resource: {cpu: N}`: N slots, whatever the number of cores."""

    cpu: PositiveInt


class Header(_Strict):
    """The first document of params.yaml."""

    template: Annotated[dict[str, str | StageSpec], Field(min_length=1)]
    default: dict[str, Scalar] = {}
    resource: (
        Literal["auto"]
        | CpuResource
        | Annotated[list[Annotated[str, BeforeValidator(_resource_item)]], Field(min_length=1)]
    ) = "auto"


Resource: TypeAlias = Literal["auto"] | CpuResource | list[str]


@dataclass(frozen=True)
class Config:
    """A whole params.yaml."""

    path: Path
    templates: Mapping[str, Template]
    default: Mapping[str, Value]
    resource: Resource
    sweeps: Sequence[Sweep]
    warnings: Sequence[str]

    def orphans(self) -> list[str]:
        """Parameters of the sweeps and defaults that no template uses: they name directories only."""
        used = frozenset[str]().union(*(parsed.names for parsed in self.templates.values()))
        given = dict.fromkeys(key for sweep in self.sweeps for key in sweep.choices) | dict.fromkeys(self.default)
        return [key for key in given if key not in used]


def load(path: Path) -> Config:
    """Reads and validates a params.yaml.

    Raises:
        InputError: anything in it is not as it must be; nothing was written.
    """
    documents = read_documents(path)
    if not documents or documents[0].value is None:
        raise InputError(f"{path}: empty; the first document needs `template`, the next ones are the grids.")
    header = _header(documents[0])
    templates = _templates(header, documents[0])
    _check_params(header.default, documents[0], ("default",))
    sweeps = [_sweep(document, templates) for document in documents[1:] if document.value is not None]
    if not sweeps:
        raise InputError(f"{path}: no grid; add one after a line `---`, such as `lr: [0.1, 0.01]`.")
    config = Config(
        path=path,
        templates=templates,
        default=header.default,
        resource=header.resource,
        sweeps=sweeps,
        warnings=[warning for document in documents for warning in document.warnings],
    )
    _check_placeholders(config, documents)
    return config


def _header(document: Document) -> Header:
    if not isinstance(document.value, dict):
        raise InputError(f"{document.place()}: the first document must be a mapping with `template`.")
    try:
        return Header.model_validate(document.value)
    except ValidationError as error:
        raise InputError(_first_problem(error, document)) from None


def _first_problem(error: ValidationError, document: Document) -> str:
    """The validator's deepest complaint, which is the one about the alternative that the user meant."""
    problems = error.errors()
    problem = max(problems, key=lambda item: sum(part in _marks(document, item["loc"]) for part in item["loc"]))
    path = tuple(part for part in problem["loc"] if part in _marks(document, problem["loc"]))
    if problem["type"] == "missing":
        return f"{document.place(path)}: the key `{problem['loc'][-1]}` is missing."
    if problem["type"] == "extra_forbidden":
        allowed = sorted(Header.model_fields) if len(path) == 1 else ["cmd" if path[0] == "template" else "cpu"]
        hint = did_you_mean(str(path[-1]), allowed)
        return f"{document.place(path)}: unknown key.{hint} Allowed: {', '.join(allowed)}."
    message = str(problem["ctx"]["error"]) if problem["type"] == "value_error" else _plain(path, problem["msg"])
    return f"{document.place(path)}: {problem['input']!r} {message}."


def _plain(path: KeyPath, message: str) -> str:
    if path[:1] == ("resource",) and len(path) == 1:
        return "is no resource; allowed: auto, a list of GPUs such as [0, 1] or ['0,1', '2,3'], or {cpu: 4}"
    if path[:1] == ("template",) and len(path) == 2:
        return "is no command; allowed: a string, or a mapping with `cmd`"
    wording = message.replace("a valid dictionary", "a mapping").replace("a valid integer", "a whole number")
    return f"is not allowed: {wording[0].lower()}{wording[1:]}"


def _marks(document: Document, location: Iterable[str | int]) -> KeyPath:
    """The parts of a validator's location that are keys of the file; the others name its alternatives."""
    path: KeyPath = ()
    for part in location:
        if (*path, part) in document.lines:
            path = (*path, part)
    return path


def _templates(header: Header, document: Document) -> dict[str, Template]:
    parsed: dict[str, Template] = {}
    for stage, spec in header.template.items():
        place = document.place(("template", stage))
        if not _STAGE_NAME.match(stage):
            raise InputError(f"{place}: {stage!r} is no stage name; allowed: letters, digits, - and _.")
        command = spec if isinstance(spec, str) else spec.cmd
        if not command.strip() or "\0" in command:
            raise InputError(f"{place}: the command is empty or holds a NUL character.")
        parsed[stage] = template.parse(command)
    return parsed


def _check_params(names: Iterable[str], document: Document, parent: KeyPath = ()) -> None:
    for name in names:
        place = document.place((*parent, name))
        if name in RESERVED or name.startswith("_"):
            allowed = SWEEP_KEYS if not parent else frozenset[str]()
            hint = did_you_mean(name, allowed) + (f" Allowed: {', '.join(sorted(allowed))}." if allowed else "")
            raise InputError(f"{place}: keys that begin with _ belong to the runner.{hint}")
        if not _PARAM_NAME.match(name):
            raise InputError(f"{place}: {name!r} is no parameter name; allowed: letters, digits, - and _.")


def _sweep(document: Document, stages: Iterable[str]) -> Sweep:
    if not isinstance(document.value, dict):
        raise InputError(f"{document.place()}: a grid must be a mapping of parameters to their values.")
    params = {key: value for key, value in document.value.items() if key not in SWEEP_KEYS}
    _check_params(params, document)
    return Sweep(
        choices={key: _choices(document, key, value) for key, value in params.items()},
        title=_title(document),
        stages=_stages(document, list(stages)),
    )


def _choices(document: Document, key: str, value: Any) -> list[Value]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise InputError(f"{document.place((key,))}: the list of values is empty; a grid over it has no trial.")
    for index, item in enumerate(values):
        try:
            _scalar(item)
        except ValueError as error:
            path: KeyPath = (key, index) if isinstance(value, list) else (key,)
            raise InputError(f"{document.place(path)}: {item!r} {error}.") from None
    return values


def _title(document: Document) -> str | None:
    title = document.value.get("_title")
    if title is not None and (not isinstance(title, str) or not title.strip()):
        raise InputError(f"{document.place(('_title',))}: {title!r} is no title; allowed: a string.")
    return title


def _stages(document: Document, known: list[str]) -> tuple[str, ...] | None:
    if "_cmd" not in document.value:
        return None
    given = document.value["_cmd"]
    wanted = given if isinstance(given, list) else [given]
    if not wanted:
        raise InputError(f"{document.place(('_cmd',))}: the list is empty; leave `_cmd` out to run all stages.")
    for stage in wanted:
        if stage not in known:
            hint = did_you_mean(str(stage), known)
            raise InputError(f"{document.place(('_cmd',))}: no stage {stage!r}.{hint} Allowed: {', '.join(known)}.")
    return tuple(stage for stage in known if stage in wanted)


def _check_placeholders(config: Config, documents: Sequence[Document]) -> None:
    """Every placeholder of a stage has a value in each sweep that runs the stage."""
    grids = [document for document in documents[1:] if document.value is not None]
    for sweep, document in zip(config.sweeps, grids, strict=True):
        known = RESERVED | set(config.default) | set(sweep.choices)
        for stage in sweep.stages or config.templates:
            for name in sorted(config.templates[stage].names - known):
                place = documents[0].place(("template", stage))
                grid = sweep.title or f"the grid at line {document.place().line}"
                raise InputError(
                    f"{place}: no value for {{{name}}} in {grid}; add `{name}` to `default` or to the grid, "
                    f"or write {{{{{name}}}}} for the text.{did_you_mean(name, known)}"
                )
