"""Command templates: placeholders are found once, and each value is quoted for the place where it stands.

`{name}` becomes the value, `[name]` becomes `--name value` (the flag alone for true, nothing for false or null).
`{{name}}` and `[[name]]` are the literal braces and brackets; whatever is no bare name (`{print $1}`, `${HOME}`,
`[[ -f x ]]`) is left alone.
"""

from __future__ import annotations

import functools
import itertools
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from runner.values import NAME, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.values import Value

_PLACEHOLDER = rf"""\{{\{{(?P<literal_brace>{NAME})\}}\}} | \[\[(?P<literal_bracket>{NAME})\]\]
    | (?P<value>\{{{NAME}\}}) | (?P<flag>\[{NAME}\])"""
_TOKEN = re.compile(rf"\$\$ | \$\{{[^}}]*\}} | {_PLACEHOLDER} | \\. | \$' | \$\( | .", re.VERBOSE | re.DOTALL)
# Where the shell expands nothing, a dollar is a character.
_TOKEN_IN_QUOTES = re.compile(rf"{_PLACEHOLDER} | \\. | .", re.VERBOSE | re.DOTALL)
_IN_EXPANSION = re.compile(rf"\{{{NAME}\}}$")
_CASE_IN_SUBSTITUTION = re.compile(r"\$\([^)]*\bcase\s")

_GOES_ON = ("\\", "&&", "||", "|", ";", "(", "{", "&", "do", "then", "else", "in")

Place: TypeAlias = Literal["bare", "single", "double", "ansi", "paren", "backtick"]


@dataclass(frozen=True)
class Placeholder:
    """`{name}` or `[name]`, and the shell's quoting around it, innermost last."""

    name: str
    is_flag: bool
    places: tuple[Place, ...]
    is_before_redirection: bool = False

    def render(self, value: Value) -> str:
        """The value as shell text for this place."""
        if not self.is_flag:
            text = _quote(text_of(value), self.places)
            # A bare number there would be the descriptor that is redirected.
            return f"'{text}'" if self.is_before_redirection and text.isdigit() else text
        if value is None or value is False:
            return ""
        flag = f"--{self.name}"
        if value is True:
            return _quote(flag, self.places)
        return f"{flag} {_quote(text_of(value), self.places)}"


@dataclass(frozen=True)
class Template:
    """A parsed command: literal text and placeholders in turn."""

    parts: tuple[str | Placeholder, ...]

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """The parameters that the command uses."""
        return frozenset(part.name for part in self.parts if isinstance(part, Placeholder))

    def spelling(self, name: str) -> tuple[str, str]:
        """How the template writes a parameter, and how it would write the same as plain text."""
        is_flag = all(part.is_flag for part in self.parts if isinstance(part, Placeholder) and part.name == name)
        return (f"[{name}]", f"[[{name}]]") if is_flag else (f"{{{name}}}", f"{{{{{name}}}}}")

    def render(self, values: Mapping[str, Value]) -> str:
        """The exact shell line. Raises KeyError with the name of a parameter that has no value."""
        return "".join(part if isinstance(part, str) else part.render(values[part.name]) for part in self.parts).strip()


class TemplateError(ValueError):
    """A command that cannot mean what its writer meant."""


def parse(text: str) -> Template:
    """Reads a template; its newlines and the blanks around them become one space.

    Raises:
        TemplateError: on one line the command would be another one, or a placeholder stands where no value can.
    """
    # A backslash at the end of a line continues it, as it does anyway.
    lines = re.sub(r"\s*\n\s*", "\n", re.sub(r"(?<=\s)\\(?=\n)", "", text)).strip()
    parts: list[str | Placeholder] = []
    places: list[Place] = ["bare"]
    position, before, is_comment = 0, "\n", False
    while position < len(lines):
        pattern = _TOKEN_IN_QUOTES if places[-1] in {"single", "ansi"} else _TOKEN
        match = pattern.match(lines, position)
        assert match is not None
        position = match.end()
        token = match.group()
        if places == ["bare"]:
            is_comment = is_comment or (token == "#" and before in " \t\n;&|(")
            _refuse_what_needs_lines(before + token, lines[position:], is_comment)
            if token == "\\ " and before in " \t\n":
                raise TemplateError(
                    "holds a backslash before a blank, which makes the blank a part of the next word; YAML joins the "
                    "lines of this text itself: leave the backslash out"
                )
        piece = _part(match, tuple(places), lines[position : position + 1])
        if isinstance(piece, str) and parts and isinstance(parts[-1], str):
            parts[-1] += piece
        else:
            parts.append(piece)
        if isinstance(piece, str) and match.lastgroup is None:
            _follow_quoting(token, places)
        before = token[-1]
    template = Template(tuple(parts))
    if template.names and _CASE_IN_SUBSTITUTION.search(lines):
        raise TemplateError("holds `case` inside $(…), where the quoting of values cannot be told; use a script")
    return template


def joined_commands(text: str, is_command: Callable[[str], bool]) -> list[tuple[str, str]]:
    """Where the end of a line may have been meant to end a command: the lines on both sides, up to a few words.

    `is_command` says whether a word is a command. A line that ends with an operator or a backslash, or the next of
    which begins with one, is no doubt.
    """
    lines = [line.strip() for line in text.strip().split("\n") if line.strip()]
    found = []
    for before, after in itertools.pairwise(lines):
        first = re.match(r"[\w./+-]+(?=\s|$)", after)
        is_open = before.endswith(_GOES_ON) or before.count("'") % 2 or before.count('"') % 2
        if first and not first[0].startswith("-") and not is_open and is_command(first[0]):
            found.append((_beginning(before), _beginning(after)))
    return found


def _beginning(line: str) -> str:
    words = line.split()
    return " ".join(words[:3]) + (" …" if len(words) > 3 else "")


def _refuse_what_needs_lines(upto: str, rest: str, is_comment: bool) -> None:
    if is_comment and upto.endswith("\n"):
        raise TemplateError("holds a comment (#), which would swallow the lines after it, as they become one line")
    # Not a here-string, <<<.
    if upto.endswith("<") and not upto.endswith("<<") and re.match(r"<-?\s*['\"\\\w]", rest):
        raise TemplateError("holds a here-document (<<), which needs lines of its own; use a script")


def _part(match: re.Match[str], places: tuple[Place, ...], following: str) -> str | Placeholder:
    if match["value"]:
        is_bare = places[-1] in {"bare", "paren", "backtick"}
        return Placeholder(match["value"][1:-1], False, places, is_bare and following in {"<", ">"})
    if match["flag"]:
        return Placeholder(match["flag"][1:-1], True, places)
    if match["literal_brace"]:
        return f"{{{match['literal_brace']}}}"
    if match["literal_bracket"]:
        return f"[{match['literal_bracket']}]"
    token = match.group()
    if token.startswith("${") and _IN_EXPANSION.search(token[2:]):
        raise TemplateError(f"holds a placeholder inside {token}…, where it is not filled; put it outside of ${{…}}")
    return " " if token == "\n" else token


def _follow_quoting(token: str, places: list[Place]) -> None:
    """Keeps `places` at the shell's quoting after `token`, which is one token of the pattern above."""
    inside = places[-1]
    if inside == "single":
        # A backslash is an ordinary character here, so that the quote after it still closes.
        if token.endswith("'"):
            places.pop()
    elif inside == "ansi":
        if token == "'":
            places.pop()
    elif token == '"':
        places.pop() if inside == "double" else places.append("double")
    elif token == "$(":
        places.append("paren")
    elif token == "`":
        _toggle_backtick(places)
    elif inside != "double":
        if token == "'":
            places.append("single")
        elif token == "$'":
            places.append("ansi")
        elif token == "(" and inside == "paren":
            places.append("paren")
        elif token == ")" and inside == "paren":
            places.pop()


def _toggle_backtick(places: list[Place]) -> None:
    if "backtick" in places:
        while places.pop() != "backtick":
            pass
    else:
        places.append("backtick")


def _escape(text: str, characters: str) -> str:
    return re.sub(f"[{re.escape(characters)}]", r"\\\g<0>", text)


_QUOTE: dict[Place, Callable[[str], str]] = {
    "bare": shlex.quote,
    "paren": shlex.quote,
    "backtick": shlex.quote,
    "single": lambda text: text.replace("'", "'\\''"),
    "double": lambda text: _escape(text, '\\"$`'),
    "ansi": lambda text: _escape(text, "\\'"),
}


def _quote(text: str, places: tuple[Place, ...]) -> str:
    """`text` quoted for its innermost place, then for the backticks around it, which take a layer of escapes off."""
    quoted = _QUOTE[places[-1]](text)
    if "backtick" not in places:
        return quoted
    around = places[: places.index("backtick")]
    return _escape(quoted, '\\`$"' if around[-1] == "double" else "\\`$")
