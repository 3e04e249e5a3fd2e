"""A command line, and a YAML file below it, as a Config. Every error is one line with what is allowed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from train.config import CONFIGS, Config
from train.errors import EXIT_USAGE, TrainError, nearest

KINDS: dict[Any, str] = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    Path: "path",
    list: "list",
    dict: "mapping",
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with the nearest flag for one that does not exist."""

    def error(self, message: str) -> NoReturn:
        fail(self.prog, message)

    def parse_all(self, argv: Sequence[str] | None) -> argparse.Namespace:
        values, unknown = self.parse_known_args(argv)
        if unknown:
            word = unknown[0].partition("=")[0]
            flags = [option for action in self._actions for option in action.option_strings]
            self.error(f"unknown argument {word}{elsewhere(word) or nearest(word, flags)}")
        return values


def fail(program: str, message: object) -> NoReturn:
    """End the program with one line on stderr."""
    print(f"{program}: error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(EXIT_USAGE)


def parse(argv: Sequence[str] | None = None) -> Config:
    """Read the command line; a wrong one ends the program."""
    try:
        first = Parser(prog="train", add_help=False, allow_abbrev=False)
        first.add_argument("--config", type=Path)
        first.add_argument("--task")
        asked, _ = first.parse_known_args(argv)
        values = {} if asked.config is None else read_yaml(asked.config)
        kind = config_class(asked.task or values.get("task", "lm"))
        values |= vars(parser_of(kind).parse_all(argv))
        values.pop("config", None)
        config = make(kind, values)
        if isinstance(config.steps, int) and isinstance(config.warmup, int) and config.init_from is None:
            # A wrong schedule must not cost the import of torch.
            config.lrs()
        return config
    except TrainError as error:
        fail("train", error)


def config_class(task: object) -> type[Config]:
    if task not in CONFIGS:
        hint = nearest(str(task), CONFIGS) or f": allowed are {', '.join(CONFIGS)}"
        raise TrainError(f"unknown task {task!r}{hint}")
    return CONFIGS[str(task)]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file of options; nothing is checked but that it is a mapping."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise TrainError(f"cannot read the config {path}: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise TrainError(f"the config {path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise TrainError(f"the config {path} holds no mapping of options")
    return {str(name).replace("-", "_"): value for name, value in values.items()}


def make(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """Return the config with these values; raises TrainError with the first wrong one."""
    for name in values:
        if name not in kind.model_fields:
            raise TrainError(f"unknown option {name}{elsewhere(name) or nearest(name, kind.model_fields)}")
    try:
        return kind(**values)
    except ValidationError as error:
        raise TrainError(first_fault(error)) from error


def first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    message = fault["msg"].removeprefix("Value error, ")
    if not fault["loc"]:
        return message
    name = ".".join(str(part) for part in fault["loc"] if part not in ("int", "str"))
    if fault["type"] == "missing":
        return f"{name} is missing"
    allowed = fault.get("ctx", {}).get("expected", "")
    hint = nearest(str(fault["input"]), [word.strip("'") for word in allowed.replace(" or ", ", ").split(", ")])
    return f"{name} is {fault['input']!r}: {message[0].lower()}{message[1:]}{hint}"


def elsewhere(word: str) -> str:
    """Say which other task has an option."""
    name = word.lstrip("-").replace("-", "_")
    owners = [task for task, kind in CONFIGS.items() if name in kind.model_fields]
    return f": it is an option of task {' and '.join(owners)}" if owners else ""


def parser_of(kind: type[Config]) -> Parser:
    parser = Parser(
        prog="train",
        description=f"Train: {(kind.__doc__ or '').splitlines()[0]} Options of other tasks: --task NAME --help.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of options; flags replace its values")
    for name, info in kind.model_fields.items():
        spellings = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
        kind_and_default = f"{kind_of(info.annotation)}; default: {shown(info.default)}"
        text = f"{describe(name, info)} ({kind_and_default})".replace("%", "%%")
        if info.annotation is bool:
            parser.add_argument(*spellings, dest=name, nargs="?", const=True, metavar="BOOL", help=text)
        else:
            parser.add_argument(*spellings, dest=name, type=reader(info), metavar=name.upper(), help=text)
    return parser


def describe(name: str, info: FieldInfo) -> str:
    """Return an option's documentation; an option with another default in a task has that of all tasks."""
    text = info.description or Config.model_fields[name].description or ""
    return " ".join(text.split())


def shown(default: object) -> str:
    return (
        "none"
        if default is None or default == ""
        else "required"
        if repr(default) == "PydanticUndefined"
        else str(default)
    )


def reader(info: FieldInfo) -> Any:
    """Return what reads a flag's value: YAML for lists and mappings, the text itself for everything else."""

    def read(text: str) -> Any:
        if structured(info.annotation):
            try:
                return yaml.safe_load(text)
            except yaml.YAMLError:
                return text
        return None if text.lower() in ("none", "null") and type(None) in get_args(info.annotation) else text

    return read


def structured(annotation: Any) -> bool:
    return get_origin(annotation) in (list, dict)


def kind_of(annotation: Any) -> str:
    """Return what an option takes, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(map(str, inner))
    if origin is Annotated:
        return kind_of(inner[0])
    if origin in KINDS:
        return KINDS[origin]
    if inner:
        found = [kind_of(choice) for choice in inner if choice is not type(None)]
        return "duration" if found == ["integer", "text"] else " or ".join(found)
    return KINDS[annotation]
