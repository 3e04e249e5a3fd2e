"""YAML as a researcher means it: safe, 1e-3 is a number, duplicate keys are errors, and every value knows its line.

Three readings differ from YAML 1.1, because they surprise: `012` is 12, `1:30` and `2024-01-01` are strings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from runner.errors import InputError, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

KeyPath: TypeAlias = "tuple[str | int, ...]"

MAX_NODES = 300_000
MAX_DEPTH = 100
_FLOAT = re.compile(
    r"""^[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?   # 1.  1.5  1.5e3
        |\d[\d_]*[eE][-+]?\d+                        # 1e-3, a string in YAML 1.1
        |\.\d[\d_]*(?:[eE][-+]?\d+)?                 # .5
        |\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$""",
    re.VERBOSE,
)
_INT = re.compile(r"^[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|\d[\d_]*)$")
_SEXAGESIMAL = re.compile(r"^[-+]?\d[\d_]*(?::[0-5]?\d)+(?:\.\d*)?$")
_BOOL_WORDS = {"yes", "no", "on", "off"}
# What libyaml says where a plain text holds, or begins with, what means something in YAML.
_WANTS_QUOTES = {
    "mapping values are not allowed in this context",
    "found character that cannot start any token",
    "did not find expected alphabetic or numeric character",
    "did not find expected key",
}
_QUOTE = "text that holds `: `, or begins with one of \" ' { [ * & % @ `, must stand in quotes, or below a `>`"
_STANDARD_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")}

_BaseLoader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BaseDumper: type = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Loader(_BaseLoader):  # type: ignore[misc]
    """The safe loader with the number rules above."""

    yaml_implicit_resolvers: dict[str, Any] = {  # noqa: RUF012
        first: [(tag, rule) for tag, rule in rules if not tag.endswith((":timestamp", ":float", ":int", ":value"))]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


class _Dumper(_BaseDumper):  # type: ignore[misc]
    """The safe dumper that quotes strings which the loader above would read as numbers."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: list(rules) for first, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))


def _read_int(text: str) -> int:
    digits = text.replace("_", "")
    value = int(digits, 0) if re.match(r"[-+]?0[box]", digits) else int(digits, 10)
    str(value)  # Python refuses to print numbers of thousands of digits
    return value


def _read_float(text: str) -> float:
    digits = text.replace("_", "").lower()
    return float(digits.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: _read_int(loader.construct_scalar(node)))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: _read_float(loader.construct_scalar(node)))


# mlrunner's `param` may hold a tuple. The documents of params.yaml never come to a constructor with such a tag.
_Loader.add_constructor(
    "tag:yaml.org,2002:python/tuple", lambda loader, node: tuple(loader.construct_sequence(node, deep=True))
)


@dataclass
class Document:
    """One document of a YAML file: its value, the line of every key path in it, and what looked suspicious."""

    file: str
    value: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def place(self, path: KeyPath = ()) -> Place:
        """Where `path` stands; the nearest key above it when it stands nowhere."""
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        return Place(self.file, self.lines.get(known), _dotted(path))


def _dotted(path: KeyPath) -> str:
    """The key path in a message; a very deep one is cut."""
    text = ".".join(map(str, path[:8]))
    return f"{text}…" if len(path) > 8 else text


class _Builder:
    """Builds the plain value of one composed document and notes lines and suspicious scalars on the way."""

    def __init__(self, file: str) -> None:
        self.document = Document(file, None)
        self.constructor = _Loader("")
        self.nodes = 0

    def build(self, node: yaml.Node, path: KeyPath = ()) -> Any:
        self.nodes += 1
        line = node.start_mark.line + 1
        place = Place(self.document.file, line, _dotted(path))
        if self.nodes > MAX_NODES:
            raise InputError(f"{place}: more than {MAX_NODES} values; anchors that repeat each other?")
        if len(path) > MAX_DEPTH:
            raise InputError(f"{place}: nested deeper than {MAX_DEPTH} levels; an anchor inside itself?")
        self.document.lines.setdefault(path, line)
        if node.tag not in _STANDARD_TAGS:
            raise InputError(f"{place}: the tag {node.tag!r} is not allowed; write plain values.")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, place)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, place: Place) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        own: dict[KeyPath, int] = {}  # after those of what is merged, which they outweigh
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged |= self._merge(value_node, path, place)
                continue
            key = self._key(key_node, place)
            if key in result:
                line = key_node.start_mark.line + 1
                raise InputError(f"{Place(place.file, line, key)}: the key stands here twice; remove one of them.")
            own[(*path, key)] = key_node.start_mark.line + 1
            result[key] = self.build(value_node, (*path, key))
        self.document.lines |= own
        return merged | result

    def _merge(self, node: yaml.Node, path: KeyPath, place: Place) -> dict[str, Any]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for source in reversed(sources):
            if not isinstance(source, yaml.MappingNode):
                raise InputError(f"{place}: '<<' takes a mapping or a list of mappings.")
            merged |= self.build(source, path)
        return merged

    def _key(self, node: yaml.Node, place: Place) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise InputError(
                f"{Place(place.file, node.start_mark.line + 1)}: a key must be a name, not a list or mapping."
            )
        if node.tag not in _STANDARD_TAGS:
            line = node.start_mark.line + 1
            raise InputError(f"{Place(place.file, line)}: the tag {node.tag!r} is not allowed; write plain values.")
        return str(node.value)

    def _scalar(self, node: yaml.Node, place: Place) -> Any:
        try:
            value = self.constructor.construct_object(node)
        except (ValueError, KeyError, yaml.YAMLError) as error:
            raise InputError(f"{place}: {node.value[:60]!r} is no {node.tag.rsplit(':', 1)[-1]}: {error}") from error
        note = _suspicious(node, value)
        if note:
            self.document.warnings.append(f"{place}: {note}")
        return value


def _numbers_of(text: str) -> list[str]:
    """The numbers of a text that may be meant as a list: several, and nothing but these."""
    parts = [part for part in re.split(r"[\s,]+", text.strip("()")) if part not in {"", "-"}]
    return parts if len(parts) > 1 and all(_INT.match(part) or _FLOAT.match(part) for part in parts) else []


def _suspicious(node: yaml.Node, value: Any) -> str:
    """What a reader may take otherwise than YAML does; nothing for a quoted scalar."""
    if getattr(node, "style", None):  # quoted or a block
        return ""
    text = node.value
    if isinstance(value, bool) and text.lower() in _BOOL_WORDS:
        return f"{text} is read as {value}; write true or false, or '{text}' for the word."
    if isinstance(value, int) and re.match(r"^[-+]?0[\d_]+$", text):
        return f"{text} is read as the number {value}; write '{text}' for the text."
    if isinstance(value, str) and _SEXAGESIMAL.match(text):
        return f"{text} is read as the text '{text}'; quote it to say so."
    if isinstance(value, str) and (numbers := _numbers_of(value)):
        return f"{value} is read as one text; write [{', '.join(numbers)}] for a list, or quote it to say so."
    return ""


def parse_documents(file: str, text: str) -> list[Document]:
    """All documents of a YAML text; `file` names it in messages.

    Raises:
        InputError: it is not YAML, or says something twice.
    """
    return list(_documents(file, text))


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. `run` reads params.yaml here; name another one with -y.") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a directory; -y takes a YAML file.") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{Place(str(path), line)}: not UTF-8 (byte 0x{error.object[error.start]:02x}).") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from None


def _refuse_depth(file: str, text: str) -> None:
    """The composer calls itself for each level, in C, where too many end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            place = Place(file, event.start_mark.line + 1 if event.start_mark else None)
            raise InputError(f"{place}: nested deeper than {MAX_DEPTH} levels.")


def _documents(file: str, text: str) -> Iterator[Document]:
    try:
        _refuse_depth(file, text)
        nodes = list(yaml.compose_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        raise InputError(f"{Place(file, line)}: not YAML: {_problem(error, text)}.") from None
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1
        raise InputError(f"{Place(file, line)}: not YAML: {str(error).splitlines()[0]}.") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{file}: not YAML: {str(error).splitlines()[0]}.") from None
    for node in nodes:
        builder = _Builder(file)
        # An empty document composes to nothing.
        builder.document.value = None if node is None else builder.build(node)
        yield builder.document


def _problem(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if mark and line[mark.column : mark.column + 1] == "\t":
        return "a tab; YAML is indented with spaces"
    problem = error.problem or str(error.context)
    return f"{problem}; {_QUOTE}" if problem in _WANTS_QUOTES else problem


def load(text: str) -> Any:
    """The value of a single document that this project wrote, `param` or `stat`; raises yaml.YAMLError."""
    return yaml.load(text, Loader=_Loader)


def dump(value: Any) -> str:
    """YAML that `load`, and any safe loader, reads back as the same typed values."""
    return str(yaml.dump(value, Dumper=_Dumper, width=1_000_000, allow_unicode=True, sort_keys=False))
