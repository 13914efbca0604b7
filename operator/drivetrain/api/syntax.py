"""The tree of an expression: frozen nodes, equal when they say the same, wherever they stand."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, assert_never

Arithmetic: TypeAlias = Literal["+", "-", "*", "/"]
Comparison: TypeAlias = Literal["=", "<>", "<", "<=", ">", ">="]
Function: TypeAlias = Literal["least", "greatest", "coalesce", "abs", "ln", "exp"]


@dataclass(frozen=True, slots=True)
class Name:
    """A column, lever, prediction or metric."""

    name: str
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Number:
    """A finite literal."""

    value: float
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Text:
    """A string literal; only ever the right side of a Compare with a Name."""

    value: str
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Unary:
    """Minus."""

    operand: "Node"
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Binary:
    """Arithmetic of two numbers."""

    operator: Arithmetic
    left: "Node"
    right: "Node"
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Compare:
    """A comparison; true, false or NULL."""

    operator: Comparison
    left: "Node"
    right: "Node"
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Logical:
    """AND and OR of SQL's three-valued logic."""

    operator: Literal["AND", "OR"]
    left: "Node"
    right: "Node"
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Not:
    """NOT; NULL stays NULL."""

    operand: "Node"
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Case:
    """The result of the first branch (condition, result) whose condition is true, else `otherwise`."""

    branches: tuple[tuple["Node", "Node"], ...]
    otherwise: "Node"
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    """One of the six functions."""

    function: Function
    arguments: tuple["Node", ...]
    position: int = field(default=0, compare=False)


Node: TypeAlias = Name | Number | Text | Unary | Binary | Compare | Logical | Not | Case | Call


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression: its text, its tree and the names it reads."""

    text: str
    tree: Node
    names: frozenset[str]


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below, left to right."""
    match node:
        case Name() | Number() | Text():
            return ()
        case Unary(operand) | Not(operand):
            return (operand,)
        case Binary(_, left, right) | Compare(_, left, right) | Logical(_, left, right):
            return (left, right)
        case Case(branches, otherwise):
            return (*(part for branch in branches for part in branch), otherwise)
        case Call(_, arguments):
            return arguments
    assert_never(node)


def walk(tree: Node) -> Iterator[Node]:
    """All nodes, parents before children, left to right."""
    yield tree
    for child in children(tree):
        yield from walk(child)
