"""Plain arithmetic over parameters, as `{batch}/2`: numbers, + - * / // % ** and brackets."""

from __future__ import annotations

import ast
import math
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.values import Value

ALLOWED = "numbers, parameters such as {batch}, + - * / // % ** and brackets"
_NAME = re.compile(r"\{([^{}]+)\}")
_MAX_LENGTH = 200
_MAX_POWER = 100
_BINARY: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


@dataclass(frozen=True)
class Expression:
    """A text that was understood; `names` are the parameters in it."""

    names: tuple[str, ...]
    _root: ast.expr

    def value(self, params: Mapping[str, Value]) -> float:
        """Its value.

        Raises:
            ValueError: a parameter is no number, or the result is none.
        """
        try:
            result = self._of(self._root, params)
            is_finite = math.isfinite(result)
        except (ZeroDivisionError, OverflowError) as error:
            raise ValueError(str(error)) from None
        if not is_finite:
            raise ValueError(f"{result} is no number")
        return result

    def _of(self, node: ast.expr, params: Mapping[str, Value]) -> float:
        if isinstance(node, ast.Constant):
            assert isinstance(node.value, int | float)
            return node.value
        if isinstance(node, ast.Name):
            name = self.names[int(node.id[1:])]
            value = params[name]
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} is {value!r}, which is no number")
            return value
        if isinstance(node, ast.UnaryOp):
            return -self._of(node.operand, params)
        assert isinstance(node, ast.BinOp)
        left, right = self._of(node.left, params), self._of(node.right, params)
        if isinstance(node.op, ast.Pow) and abs(right) > _MAX_POWER:
            raise ValueError(f"the power {right} is too large")
        result = _BINARY[type(node.op)](left, right)
        if isinstance(result, complex):  # a root of what is below 0
            raise ValueError(f"{left} ** {right} is no number")
        return result


def parse(text: str) -> Expression:
    """Understands a text.

    Raises:
        ValueError: it is no plain arithmetic.
    """
    names: list[str] = []

    def numbered(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f" _{names.index(match[1])} "

    if len(text) > _MAX_LENGTH or "_" in _NAME.sub("", text):
        raise ValueError(f"is no plain arithmetic; allowed: {ALLOWED}")
    try:
        root = ast.parse(_NAME.sub(numbered, text).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"is no plain arithmetic; allowed: {ALLOWED}") from None
    if not all(map(_is_allowed, _expressions(root))):
        raise ValueError(f"is no plain arithmetic; allowed: {ALLOWED}")
    return Expression(tuple(names), root)


def _expressions(root: ast.expr) -> list[ast.expr]:
    return [node for node in ast.walk(root) if isinstance(node, ast.expr)]


def _is_allowed(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return type(node.value) in {int, float}
    if isinstance(node, ast.Name):
        return node.id.startswith("_")
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub)
    return isinstance(node, ast.BinOp) and type(node.op) in _BINARY
