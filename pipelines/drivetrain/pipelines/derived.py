"""Derived columns inside the graph: an expression's tree as ONNX nodes, and which way it moves with a lever."""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Literal, TypeAlias, assert_never

from drivetrain.api.errors import ExpressionError
from drivetrain.api.expression import (
    Binary,
    Call,
    Case,
    Compare,
    Expression,
    Interval,
    Logical,
    Name,
    Node,
    Not,
    Number,
    Text,
    Unary,
    bounds,
    walk,
)
from drivetrain.api.model import NULL_TOKEN
from drivetrain.pipelines.graph import ML_DOMAIN, GraphBuilder

Direction: TypeAlias = Literal[-1, 0, 1]
"""Falls with, does not depend on, rises with."""

_ARITHMETIC = {"+": "Add", "-": "Sub", "*": "Mul", "/": "Div"}
_COMPARISONS = {"=": "Equal", "<>": "Equal", "<": "Less", "<=": "LessOrEqual", ">": "Greater", ">=": "GreaterOrEqual"}
_UNARY = {"abs": "Abs", "ln": "Log", "exp": "Exp"}


def add_expression(graph: GraphBuilder, node: Node, columns: Mapping[str, str]) -> str:
    """Adds an expression over [rows, 1] tensors named by `columns`; it means what `evaluate` says, NaN being NULL.

    Arithmetic is float32. Returns the name of the [rows, 1] result (a scalar where the expression is constant).
    """
    match node:
        case Number(value):
            return graph.number(value)
        case Name(name):
            return columns[name]
        case Compare(operator, Name(name), Text(text)):
            held, other = (1.0, 0.0) if operator == "=" else (0.0, 1.0)
            return graph.add(
                "LabelEncoder",
                columns[name],
                domain=ML_DOMAIN,
                keys_strings=[text, NULL_TOKEN],
                values_floats=[held, float("nan")],
                default_float=other,
            )
        case Unary(operand):
            return graph.add("Neg", add_expression(graph, operand, columns))
        case Not(operand):
            return graph.add("Sub", graph.number(1), add_expression(graph, operand, columns))
        case Binary(arithmetic, left, right):
            return graph.add(
                _ARITHMETIC[arithmetic], add_expression(graph, left, columns), add_expression(graph, right, columns)
            )
        case Compare(operator, left, right):
            return _comparison(
                graph, operator, add_expression(graph, left, columns), add_expression(graph, right, columns)
            )
        case Logical(logical, left, right):
            return _logical(graph, logical, add_expression(graph, left, columns), add_expression(graph, right, columns))
        case Case(branches, otherwise):
            result = add_expression(graph, otherwise, columns)
            for condition, branch in reversed(branches):
                held_if = graph.add("Equal", add_expression(graph, condition, columns), graph.number(1))
                result = graph.add("Where", held_if, add_expression(graph, branch, columns), result)
            return result
        case Call(function, (argument,)):
            return graph.add(_UNARY[function], add_expression(graph, argument, columns))
        case Call(function, arguments):
            combine = _PAIRWISE[function]
            return reduce(
                lambda left, right: combine(graph, left, right),
                [add_expression(graph, argument, columns) for argument in arguments],
            )
        case Text():
            raise AssertionError("text stands only beside a name; the parser refuses it elsewhere")
    assert_never(node)


def _comparison(graph: GraphBuilder, operator: str, left: str, right: str) -> str:
    truth = graph.add(_COMPARISONS[operator], left, right)
    if operator == "<>":
        truth = graph.add("Not", truth)
    unknown = graph.add("Or", graph.add("IsNaN", left), graph.add("IsNaN", right))
    return graph.add("Where", unknown, graph.number(float("nan")), graph.cast(truth))


def _logical(graph: GraphBuilder, operator: str, left: str, right: str) -> str:
    dominant = graph.number(0 if operator == "AND" else 1)
    decided = graph.add("Or", graph.add("Equal", left, dominant), graph.add("Equal", right, dominant))
    mean = graph.add("Mul", graph.add("Add", left, right), graph.number(0.5))
    return graph.add("Where", decided, dominant, mean)


def _first_known(graph: GraphBuilder, left: str, right: str) -> str:
    return graph.add("Where", graph.add("IsNaN", left), right, left)


def _extreme(operator: str) -> Callable[[GraphBuilder, str, str], str]:
    def combine(graph: GraphBuilder, left: str, right: str) -> str:
        known_left, known_right = _first_known(graph, left, right), _first_known(graph, right, left)
        return graph.add(operator, known_left, known_right)

    return combine


_PAIRWISE: dict[str, Callable[[GraphBuilder, str, str], str]] = {
    "least": _extreme("Min"),
    "greatest": _extreme("Max"),
    "coalesce": _first_known,
}


def direction(
    node: Node, lever: str, moves: Mapping[str, Direction | None], ranges: Mapping[str, Interval]
) -> Direction | None:
    """Which way `node` moves when `lever` rises and every Context column stays; None when that cannot be told.

    `moves` holds the answer for earlier Derived columns, `ranges` what columns can be (signs of factors come from it).
    """
    match node:
        case Number() | Text():
            return 0
        case Name(name):
            return 1 if name == lever else moves.get(name, 0)
        case Unary(operand) | Not(operand):
            return _flipped(direction(operand, lever, moves, ranges))
        case Binary("+", left, right) | Logical(_, left, right):
            return _agreed(direction(left, lever, moves, ranges), direction(right, lever, moves, ranges))
        case Binary("-", left, right):
            return _agreed(direction(left, lever, moves, ranges), _flipped(direction(right, lever, moves, ranges)))
        case Binary(operator, left, right):
            upper = direction(left, lever, moves, ranges)
            lower = direction(right, lever, moves, ranges)
            if operator == "/":
                lower = _flipped(lower)
            return _agreed(_scaled(upper, _sign(right, ranges)), _scaled(lower, _sign(left, ranges)))
        case Compare(operator, left, right):
            difference = _agreed(
                direction(left, lever, moves, ranges), _flipped(direction(right, lever, moves, ranges))
            )
            if operator in ("=", "<>"):
                return 0 if difference == 0 else None
            return difference if operator in (">", ">=") else _flipped(difference)
        case Case(branches, otherwise):
            parts = [otherwise, *(result for _, result in branches)]
            if any(direction(condition, lever, moves, ranges) != 0 for condition, _ in branches):
                return None
            return reduce(_agreed, [direction(part, lever, moves, ranges) for part in parts])
        case Call("abs", (argument,)):
            return _scaled(direction(argument, lever, moves, ranges), _sign(argument, ranges))
        case Call(_, arguments):
            return reduce(_agreed, [direction(argument, lever, moves, ranges) for argument in arguments])
    assert_never(node)


def _flipped(move: Direction | None) -> Direction | None:
    return None if move is None else 1 if move < 0 else -1 if move > 0 else 0


def _agreed(left: Direction | None, right: Direction | None) -> Direction | None:
    if left is None or right is None or left * right < 0:
        return None
    return left or right


def _scaled(move: Direction | None, sign: Direction | None) -> Direction | None:
    """The move of a product's factor, given the sign of the other one."""
    if move == 0 or sign == 0:
        return 0
    return None if sign is None else move if sign > 0 else _flipped(move)


def _sign(node: Node, ranges: Mapping[str, Interval]) -> Direction | None:
    names = frozenset(part.name for part in walk(node) if isinstance(part, Name))
    try:
        reach = bounds(Expression("", node, names), ranges)
    except ExpressionError:
        return None
    if reach.low == reach.high == 0:
        return 0
    return 1 if reach.low >= 0 else -1 if reach.high <= 0 else None
