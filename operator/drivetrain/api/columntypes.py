"""Whether an expression fits its columns: names are known, text is only compared, conditions are conditions."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from drivetrain.api.errors import ExpressionError
from drivetrain.api.syntax import (
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
    children,
)


class Kind(Enum):
    """What a value is."""

    NUMBER = "a number"
    BOOLEAN = "true or false"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class ColumnType:
    """The kind of a column and, for text, its declared values (none: any)."""

    kind: Kind
    values: tuple[str, ...] = ()


NUMBER = ColumnType(Kind.NUMBER)
BOOLEAN = ColumnType(Kind.BOOLEAN)


def text_of(*values: str) -> ColumnType:
    """A text column with its declared classes or categories."""
    return ColumnType(Kind.TEXT, values)


def check(expression: Expression, types: Mapping[str, ColumnType], *, boolean: bool = False) -> None:
    """Checks names and kinds; the result must be a condition when `boolean`, else a number (conditions are 1 or 0).

    Raises ExpressionError for an unknown name (with the nearest known one), text outside a comparison with one of its
    declared values, and a number where a condition is needed.
    """
    kind = _kind(expression.tree, types)
    if boolean and kind is not Kind.BOOLEAN:
        raise ExpressionError(
            "The expression is a number where a condition is needed.", remedy="Compare it, for example with >= 0."
        )


def _kind(node: Node, types: Mapping[str, ColumnType]) -> Kind:
    match node:
        case Number():
            return Kind.NUMBER
        case Name():
            found = _type_of(node, types)
            if found.kind is Kind.TEXT:
                raise ExpressionError(
                    f"{node.name} is text, and text has no value.",
                    position=node.position,
                    remedy=f"Compare it with one of its values, for example {node.name} = {_example(found)}.",
                )
            return found.kind
        case Compare(_, Name() as name, Text() as text):
            _check_text(name, text, _type_of(name, types))
            return Kind.BOOLEAN
        case Not(operand):
            _need_condition(operand, types)
            return Kind.BOOLEAN
        case Logical(_, left, right):
            _need_condition(left, types)
            _need_condition(right, types)
            return Kind.BOOLEAN
        case Case(branches, otherwise):
            for condition, _ in branches:
                _need_condition(condition, types)
            kinds = {_kind(result, types) for _, result in branches} | {_kind(otherwise, types)}
            return Kind.BOOLEAN if kinds == {Kind.BOOLEAN} else Kind.NUMBER
        case Compare() | Unary() | Binary() | Call():
            for child in children(node):
                _kind(child, types)
            return Kind.BOOLEAN if isinstance(node, Compare) else Kind.NUMBER
        case Text():
            raise ExpressionError(f"The text '{node.value}' stands alone.", position=node.position)
    assert_never(node)


def _need_condition(node: Node, types: Mapping[str, ColumnType]) -> None:
    if _kind(node, types) is not Kind.BOOLEAN:
        raise ExpressionError(
            f"A number stands at position {node.position} where a condition is needed.",
            position=node.position,
            remedy="Compare it, for example with <> 0.",
        )


def _type_of(name: Name, types: Mapping[str, ColumnType]) -> ColumnType:
    if name.name in types:
        return types[name.name]
    near = difflib.get_close_matches(name.name, types, n=1)
    remedy = f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(sorted(types)[:20]) or 'nothing'}."
    raise ExpressionError(f"{name.name} is not known here.", position=name.position, remedy=remedy)


def _check_text(name: Name, text: Text, found: ColumnType) -> None:
    if found.kind is not Kind.TEXT:
        raise ExpressionError(
            f"{name.name} is {found.kind.value} and cannot be compared with text.",
            position=text.position,
            remedy="Write a number without quotes, or 1 and 0 for true and false.",
        )
    if found.values and text.value not in found.values:
        near = difflib.get_close_matches(text.value, found.values, n=1)
        remedy = f"Did you mean '{near[0]}'?" if near else f"Its values: {', '.join(found.values[:20])}."
        raise ExpressionError(f"{name.name} has no value '{text.value}'.", position=text.position, remedy=remedy)


def _example(found: ColumnType) -> str:
    return f"'{found.values[0]}'" if found.values else "'value'"
