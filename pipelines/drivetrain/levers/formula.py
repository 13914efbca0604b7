"""An expression as a function of numpy arrays, compiled once to closures: rows by actions, no text is parsed per call.

The meaning is that of `drivetrain.api.expression.evaluate`, elementwise; polars' SQL is the oracle in the tests.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import TypeAlias, assert_never

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drivetrain.api.expression import (
    Binary,
    Call,
    Case,
    Compare,
    Expression,
    Logical,
    Name,
    Node,
    Not,
    Number,
    Text,
    Unary,
    walk,
)

Floats: TypeAlias = NDArray[np.float64]
Columns: TypeAlias = Mapping[str, ArrayLike]
Classes: TypeAlias = Mapping[tuple[str, str], Floats]

_NO_CLASSES: Classes = {}
_NULL = np.float64(np.nan)


@dataclass(frozen=True, slots=True)
class _Inputs:
    numbers: Mapping[str, Floats]
    texts: Columns
    classes: Classes


_Step: TypeAlias = Callable[[_Inputs], Floats]


@dataclass(frozen=True, slots=True)
class Formula:
    """A compiled expression; call it with the arrays of its names."""

    expression: Expression
    _step: _Step = field(repr=False, compare=False)
    _numeric: tuple[str, ...] = field(repr=False, compare=False)

    def __call__(self, columns: Columns, classes: Classes = _NO_CLASSES) -> Floats:
        """The value of every element, float64, in the shape to which the columns that are read broadcast (scalar: 0-d).

        `columns` holds numbers, booleans, or text (object arrays with None for NULL, or fixed-width strings); NaN and
        None are NULL. `classes` maps (target, class) to the probability that stands for the comparison of the two, and
        takes precedence over a column of the target's name. Raises KeyError for a name that neither provides.
        """
        numbers = {name: np.asarray(columns[name], dtype=np.float64) for name in self._numeric}
        with np.errstate(all="ignore"):  # 1/0, ln(-1) and overflow have a meaning here
            return np.asarray(self._step(_Inputs(numbers, columns, classes)), dtype=np.float64)


def compile(expression: Expression) -> Formula:  # noqa: A001 - it reads as formula.compile
    """Compiles an expression once, for any number of calls."""
    classes = {
        id(node.left) for node in walk(expression.tree) if isinstance(node, Compare) and isinstance(node.right, Text)
    }
    numeric = {node.name for node in walk(expression.tree) if isinstance(node, Name) and id(node) not in classes}
    return Formula(expression, _compile(expression.tree), tuple(sorted(numeric)))


def _compile(node: Node) -> _Step:
    match node:
        case Number(value):
            constant = np.asarray(value)
            return lambda inputs: constant
        case Name(name):
            return lambda inputs: inputs.numbers[name]
        case Compare(operator, Name(name), Text(text)):
            return _class_term(name, text, equal=operator == "=")
        case Unary(operand):
            negated = _compile(operand)
            return lambda inputs: -negated(inputs)
        case Not(operand):
            denied = _compile(operand)
            return lambda inputs: 1.0 - denied(inputs)
        case Binary(operator, left, right):
            return _joined(_ARITHMETIC[operator], _compile(left), _compile(right))
        case Compare(operator, left, right):
            return _joined(_comparison(_COMPARISONS[operator], left=left, right=right), _compile(left), _compile(right))
        case Logical(operator, left, right):
            return _joined(_conjunction if operator == "AND" else _disjunction, _compile(left), _compile(right))
        case Case(branches, otherwise):
            return _case(
                tuple((_compile(condition), _compile(result)) for condition, result in branches), _compile(otherwise)
            )
        case Call(function, (argument,)):
            unary, only = _UNARY[function], _compile(argument)
            return lambda inputs: unary(only(inputs))
        case Call(function, arguments):
            pairwise, steps = _PAIRWISE[function], tuple(_compile(argument) for argument in arguments)
            return lambda inputs: reduce(pairwise, (step(inputs) for step in steps))
        case Text():
            raise AssertionError("text stands only beside a name; the parser refuses it elsewhere")
    assert_never(node)


_Pairwise: TypeAlias = Callable[[Floats, Floats], Floats]


def _joined(operation: _Pairwise, left: _Step, right: _Step) -> _Step:
    return lambda inputs: operation(left(inputs), right(inputs))


def _class_term(name: str, text: str, *, equal: bool) -> _Step:
    key = (name, text)

    def term(inputs: _Inputs) -> Floats:
        probability = inputs.classes.get(key)
        if probability is not None:
            return probability if equal else 1.0 - probability
        column = np.asarray(inputs.texts[name])
        held: NDArray[np.bool_] = (column == text) if equal else (column != text)
        if column.dtype != object:
            return held.astype(np.float64)
        missing: NDArray[np.bool_] = (column == np.array(None)) | ~np.equal(column, column, dtype=bool)  # None, NaN
        return np.where(missing, _NULL, held)

    return term


def _comparison(compare: Callable[[Floats, Floats], NDArray[np.bool_]], *, left: Node, right: Node) -> _Pairwise:
    """A comparison that is NULL where a side is; a literal never is, which saves its test."""
    if isinstance(right, Number):
        return lambda x, y: np.where(np.isnan(x), _NULL, compare(x, y))
    if isinstance(left, Number):
        return lambda x, y: np.where(np.isnan(y), _NULL, compare(x, y))
    return lambda x, y: np.where(np.isnan(x) | np.isnan(y), _NULL, compare(x, y))


def _conjunction(x: Floats, y: Floats) -> Floats:
    """Three-valued AND: false if either is false, else NULL if either is NULL."""
    return np.where((x == 0) | (y == 0), 0.0, x * y)


def _disjunction(x: Floats, y: Floats) -> Floats:
    """Three-valued OR: true if either is true, else NULL if either is NULL."""
    return np.where((x == 1) | (y == 1), 1.0, x + y)


def _coalesce(x: Floats, y: Floats) -> Floats:
    return np.where(np.isnan(x), y, x)


def _case(branches: tuple[tuple[_Step, _Step], ...], otherwise: _Step) -> _Step:
    def choose(inputs: _Inputs) -> Floats:
        result = otherwise(inputs)
        for condition, branch in reversed(branches):
            result = np.where(condition(inputs) == 1, branch(inputs), result)
        return result

    return choose


_ARITHMETIC: dict[str, _Pairwise] = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}
_COMPARISONS: dict[str, Callable[[Floats, Floats], NDArray[np.bool_]]] = {
    "=": np.equal,
    "<>": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}
_UNARY: dict[str, Callable[[Floats], Floats]] = {"abs": np.abs, "ln": np.log, "exp": np.exp}
_PAIRWISE: dict[str, _Pairwise] = {"least": np.fmin, "greatest": np.fmax, "coalesce": _coalesce}
