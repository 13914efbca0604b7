"""Expressions over one row: what they mean, what they can reach, and whether they fit their columns.

Values are numbers; true is 1 and false is 0; NULL is a missing value and reads as NaN. The meaning is SQL's:

1. arithmetic and comparison with NULL give NULL; AND and OR are three-valued; CASE does not take a NULL condition;
2. least and greatest leave NULLs out; coalesce gives the first value that is not NULL;
3. x / 0 is infinite, 0 / 0 and ln of a negative number are NULL, ln(0) is -inf: `bounds` refuses expressions in which
   declared values can get there, and a realised value that is not finite is never averaged.
"""

import math
from collections.abc import Callable, Mapping
from typing import NoReturn, assert_never

from drivetrain.api.columntypes import BOOLEAN, NUMBER, ColumnType, Kind, check, text_of
from drivetrain.api.errors import ExpressionError
from drivetrain.api.interval import TRUTH, Interval, coalesce, greatest, least
from drivetrain.api.parser import parse
from drivetrain.api.syntax import (
    Arithmetic,
    Binary,
    Call,
    Case,
    Compare,
    Comparison,
    Expression,
    Logical,
    Name,
    Node,
    Not,
    Number,
    Text,
    Unary,
    children,
    walk,
)

__all__ = [
    "BOOLEAN",
    "NUMBER",
    "Binary",
    "Call",
    "Case",
    "ColumnType",
    "Compare",
    "Expression",
    "Interval",
    "Kind",
    "Logical",
    "Name",
    "Node",
    "Not",
    "Number",
    "Text",
    "Unary",
    "bounds",
    "check",
    "class_terms",
    "evaluate",
    "is_affine_in",
    "parse",
    "text_of",
    "walk",
]


def class_terms(expression: Expression, target: str) -> tuple[str, ...]:
    """The classes with which `target` is compared, sorted; a comparison is that class's probability."""
    return tuple(
        sorted(
            {
                node.right.value
                for node in walk(expression.tree)
                if isinstance(node, Compare) and isinstance(node.right, Text) and node.left == Name(target)
            }
        )
    )


def is_affine_in(expression: Expression, names: frozenset[str] | set[str]) -> bool:
    """Whether E[f(Y)] = f(E[Y]) for the given names: a comparison with a class counts as that class's indicator."""
    return _degree(expression.tree, frozenset(names)) <= 1


def evaluate(expression: Expression, values: Mapping[str, float | str | bool | None]) -> float:
    """The value of one row; true is 1, false 0, NULL NaN. Raises KeyError for a name without value."""
    return _evaluate(expression.tree, values)


def bounds(expression: Expression, intervals: Mapping[str, Interval]) -> Interval:
    """What the expression can reach; infinite only where an interval is. Names compared with text need no interval.

    Raises ExpressionError where some value is undefined or overflows: division by an interval that contains 0, ln of
    one that reaches 0 or below, exp beyond the floating point range.
    """
    result = _bounds(expression.tree, intervals)
    used = [interval for name, interval in intervals.items() if name in expression.names]
    if not result.finite and all(interval.finite for interval in used):
        raise ExpressionError("The expression overflows over the bounds.", remedy="Narrow the bounds of its columns.")
    return result


def _degree(node: Node, names: frozenset[str]) -> float:
    """Degree of the polynomial in `names`; infinite when it is none."""
    match node:
        case Name(name):
            return 1 if name in names else 0
        case Compare(_, Name(name), Text()):
            return 1 if name in names else 0
        case Unary(operand) | Not(operand):
            return _degree(operand, names)
        case Binary("+" | "-", left, right):
            return max(_degree(left, names), _degree(right, names))
        case Binary("*", left, right):
            return _degree(left, names) + _degree(right, names)
        case Binary("/", left, right) if _degree(right, names) == 0:
            return _degree(left, names)
        case Case(branches, otherwise) if not any(_degree(condition, names) for condition, _ in branches):
            return max(_degree(otherwise, names), *(_degree(result, names) for _, result in branches))
    return math.inf if any(_degree(child, names) for child in children(node)) else 0


def _evaluate(node: Node, values: Mapping[str, float | str | bool | None]) -> float:
    match node:
        case Number(value):
            return value
        case Name(name):
            value_of = values[name]
            return math.nan if value_of is None else float(value_of)
        case Compare(operator, Name(name), Text(text)):
            actual = values[name]
            return math.nan if actual is None else float((actual == text) == (operator == "="))
        case Unary(operand):
            return -_evaluate(operand, values)
        case Not(operand):
            return 1 - _evaluate(operand, values)
        case Binary(operator, left, right):
            return _arithmetic(operator, _evaluate(left, values), _evaluate(right, values))
        case Compare(operator, left, right):
            return _compare(operator, _evaluate(left, values), _evaluate(right, values))
        case Logical(logical, left, right):
            dominant = 0.0 if logical == "AND" else 1.0
            pair = (_evaluate(left, values), _evaluate(right, values))
            return dominant if dominant in pair else sum(pair) / 2
        case Case(branches, otherwise):
            for condition, result in branches:
                if _evaluate(condition, values) == 1:
                    return _evaluate(result, values)
            return _evaluate(otherwise, values)
        case Call(function, arguments):
            return _CALLS[function]([_evaluate(argument, values) for argument in arguments])
        case Text():
            _alone(node)
    assert_never(node)


def _arithmetic(operator: Arithmetic, x: float, y: float) -> float:
    match operator:
        case "+":
            return x + y
        case "-":
            return x - y
        case "*":
            return x * y
        case "/":
            if y == 0:
                return math.nan if x == 0 or math.isnan(x) else math.copysign(math.inf, x) * math.copysign(1.0, y)
            return x / y
    assert_never(operator)


def _compare(operator: Comparison, x: float, y: float) -> float:
    if math.isnan(x) or math.isnan(y):
        return math.nan
    match operator:
        case "=":
            return float(x == y)
        case "<>":
            return float(x != y)
        case "<":
            return float(x < y)
        case "<=":
            return float(x <= y)
        case ">":
            return float(x > y)
        case ">=":
            return float(x >= y)
    assert_never(operator)


def _known(values: list[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _ln(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf if x == 0 else math.nan


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


_CALLS: dict[str, Callable[[list[float]], float]] = {
    "least": lambda values: min(_known(values), default=math.nan),
    "greatest": lambda values: max(_known(values), default=math.nan),
    "coalesce": lambda values: next(iter(_known(values)), math.nan),
    "abs": lambda values: abs(values[0]),
    "ln": lambda values: _ln(values[0]),
    "exp": lambda values: _exp(values[0]),
}


def _bounds(node: Node, intervals: Mapping[str, Interval]) -> Interval:
    match node:
        case Number(value):
            return Interval(value, value)
        case Name(name):
            if name not in intervals:
                raise ExpressionError(f"Nothing is known about the bounds of {name}.", position=node.position)
            return intervals[name]
        case Compare(_, Name(name), Text()):
            return Interval(0.0, 1.0, name in intervals and intervals[name].nullable)
        case Unary(operand):
            return -_bounds(operand, intervals)
        case Not(operand):
            return Interval(1.0, 1.0) - _bounds(operand, intervals)
        case Binary(operator, left, right):
            return _combined(node, operator, _bounds(left, intervals), _bounds(right, intervals))
        case Compare(_, left, right) | Logical(_, left, right):
            nullable = _bounds(left, intervals).nullable | _bounds(right, intervals).nullable
            return Interval(TRUTH.low, TRUTH.high, nullable)
        case Case(branches, otherwise):
            result = _bounds(otherwise, intervals)
            for condition, branch in branches:
                _bounds(condition, intervals)
                result = result.hull(_bounds(branch, intervals))
            return result
        case Call(function, arguments):
            return _reached(node, function, tuple(_bounds(argument, intervals) for argument in arguments))
        case Text():
            _alone(node)
    assert_never(node)


def _combined(node: Binary, operator: Arithmetic, x: Interval, y: Interval) -> Interval:
    match operator:
        case "+":
            return x + y
        case "-":
            return x - y
        case "*":
            return x.square() if node.left == node.right else x * y
        case "/":
            try:
                return x * y.reciprocal()
            except ZeroDivisionError:
                raise ExpressionError(
                    f"The divisor at position {node.position} can be 0: it reaches from {y.low:g} to {y.high:g}.",
                    position=node.position,
                    remedy="Bound it away from 0, for example by greatest(divisor, 0.01) or by tighter column bounds.",
                ) from None
    assert_never(operator)


def _reached(node: Call, function: str, arguments: tuple[Interval, ...]) -> Interval:
    x = arguments[0]
    match function:
        case "least":
            return least(arguments)
        case "greatest":
            return greatest(arguments)
        case "coalesce":
            return coalesce(arguments)
        case "abs":
            return x.magnitude()
        case "ln":
            if x.low <= 0:
                raise ExpressionError(
                    f"ln at position {node.position} can meet {x.low:g}, and needs more than 0.",
                    position=node.position,
                    remedy="Bound its argument above 0, for example by greatest(x, 0.01).",
                )
            return Interval(_ln(x.low), _ln(x.high), x.nullable)
    if math.isinf(_exp(x.high)):
        raise ExpressionError(
            f"exp at position {node.position} overflows: its argument reaches {x.high:g}.",
            position=node.position,
            remedy="Bound its argument, for example by least(x, 20).",
        )
    return Interval(_exp(x.low), _exp(x.high), x.nullable)


def _alone(text: Text) -> NoReturn:
    raise ExpressionError(f"The text '{text.value}' stands alone.", position=text.position)
