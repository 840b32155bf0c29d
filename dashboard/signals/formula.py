"""Formulas of a run's signals: numbers, signals in braces, + - * / **, and a few functions.

    parse("log10({grad/norm_by_layer:layers.3})").names == ("grad/norm_by_layer:layers.3",)

A formula is read into a tree and the tree is walked: nothing that a link brings along is ever run as code.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainvitals.errors import UsageError

Array = NDArray[np.float64]
MOST_LENGTH, MOST_PARTS = 400, 80
"""Characters and operations of a formula: what a person writes, and no more than a chart waits for."""
FUNCTIONS: Mapping[str, Callable[..., Array]] = {
    "abs": np.abs, "exp": np.exp, "log": np.log, "log10": np.log10, "sqrt": np.sqrt, "min": np.minimum,
    "max": np.maximum,
}  # fmt: skip
_OPERATORS: Mapping[type[ast.operator], Callable[[Array, Array], Array]] = {
    ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.divide, ast.Pow: np.power,
}  # fmt: skip
_TWO = {"min", "max"}
_NAME = re.compile(r"\{([^{}]*)\}")
_PLACE = "signal_{}"


@dataclass(frozen=True, slots=True)
class Formula:
    """A formula that was understood."""

    text: str
    names: tuple[str, ...]
    """Signals in the order of their first use, each `signal` or `signal:label`."""
    tree: ast.expr

    def of(self, values: Mapping[str, Array]) -> Array:
        """The value at every step. values: name -> array [n]; what is undefined there is NaN or infinite."""
        places = {_PLACE.format(i): np.asarray(values[name], float) for i, name in enumerate(self.names)}
        with np.errstate(all="ignore"):
            result = _value(self.tree, places)
        length = max((len(v) for v in places.values()), default=0)
        return np.broadcast_to(np.asarray(result, float), (length,)).astype(float)


def is_formula(text: str) -> bool:
    """Whether a text means a formula and not the name of one signal."""
    return "{" in text or "}" in text


def parse(text: str) -> Formula:
    """Read a formula.

    Raises:
        UsageError: it is none; the message says where, and what may stand there.
    """
    if len(text) > MOST_LENGTH:
        raise UsageError(f"The formula has {len(text):,} characters; at most {MOST_LENGTH} are read.")
    names = tuple(dict.fromkeys(found.strip() for found in _NAME.findall(text)))
    if not names or "" in names:
        raise UsageError("A formula names its signals in braces, as in {loss/val} - {loss/train}.")
    bare = _NAME.sub(lambda m: f" {_PLACE.format(names.index(m[1].strip()))} ", text)
    try:
        tree = ast.parse(bare.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError("The formula cannot be read: write it as in ({loss/val} - {loss/train}) / 2.") from error
    if sum(1 for _ in ast.walk(tree)) > MOST_PARTS * 4:
        raise UsageError(f"The formula has more than {MOST_PARTS} operations.")
    _check(tree, {_PLACE.format(i) for i in range(len(names))})
    return Formula(text, names, tree)


def _check(node: ast.expr, places: set[str]) -> None:
    match node:
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            _check(left, places)
            _check(right, places)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=inner):
            _check(inner, places)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            _check_call(name, arguments)
            for argument in arguments:
                _check(argument, places)
        case ast.Name(id=name) if name in places:
            pass
        case ast.Constant(value=value) if type(value) in (int, float):
            pass
        case ast.Name(id=name):
            raise UsageError(f"{name} stands without braces. Signals are written {{{name}}}.")
        case _:
            raise UsageError(f"A formula may hold numbers, signals in braces, + - * / ** and {', '.join(FUNCTIONS)}.")


def _check_call(name: str, arguments: list[ast.expr]) -> None:
    if name not in FUNCTIONS:
        near = difflib.get_close_matches(name, FUNCTIONS, 1)
        raise UsageError(f"There is no function {name}" + (f"; {near[0]} was meant?" if near else
                                                           f": there are {', '.join(FUNCTIONS)}."))
    wanted = 2 if name in _TWO else 1
    if len(arguments) != wanted:
        raise UsageError(f"{name} takes {wanted} value{'s' if wanted > 1 else ''}, not {len(arguments)}.")


def _value(node: ast.expr, places: Mapping[str, Array]) -> Array:
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_value(left, places), _value(right, places))
        case ast.UnaryOp(op=op, operand=inner):
            value = _value(inner, places)
            return np.negative(value) if isinstance(op, ast.USub) else value
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return FUNCTIONS[name](*(_value(a, places) for a in arguments))
        case ast.Name(id=name):
            return places[name]
        case ast.Constant(value=int() | float() as value):
            # As a float: whole numbers of any length would make ** as long as the universe.
            return np.asarray(float(value)) if abs(value) < 1e300 else np.asarray(np.inf)
    raise AssertionError(f"{node} was not checked")
