"""The grammar of expressions: SQL spelling, one row, an allow-list. A small Pratt parser, one power per operator.

    or:  OR      and: AND      not: NOT      comparison: = <> != < <= > >= (not chained)
    sum: + -     product: * /  sign: -       primary: name, number, 'text', (…), CASE WHEN … THEN … ELSE … END,
                                                      least, greatest, coalesce, abs, ln, exp

Keywords and functions are case-insensitive, names are not. Text appears only in `name = 'text'` and `name <> 'text'`.
"""

import difflib
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

from drivetrain.api.errors import ExpressionError
from drivetrain.api.syntax import (
    Arithmetic,
    Binary,
    Call,
    Case,
    Compare,
    Comparison,
    Expression,
    Function,
    Logical,
    Name,
    Node,
    Not,
    Number,
    Text,
    Unary,
    walk,
)

MAX_LENGTH = 1024
MAX_NESTING = 32
MAX_OPERATIONS = 128

FUNCTIONS: dict[str, tuple[Function, int, int]] = {
    "least": ("least", 2, 16),
    "greatest": ("greatest", 2, 16),
    "coalesce": ("coalesce", 2, 16),
    "abs": ("abs", 1, 1),
    "ln": ("ln", 1, 1),
    "exp": ("exp", 1, 1),
}
"""Function, fewest and most arguments, by spelling."""

_AGGREGATES = frozenset(
    {"sum", "avg", "mean", "min", "max", "count", "median", "mode", "std", "stddev", "var", "variance", "quantile"}
    | {
        "percentile",
        "any_value",
        "array_agg",
        "string_agg",
        "stddev_samp",
        "stddev_pop",
        "var_samp",
        "var_pop",
        "total",
    }
)
_WINDOWS = frozenset(
    {"row_number", "rank", "dense_rank", "ntile", "lag", "lead", "first", "last", "first_value", "last_value"}
)
_REPLACEMENTS = {
    "if": "Use CASE WHEN … THEN … ELSE … END.",
    "iff": "Use CASE WHEN … THEN … ELSE … END.",
    "nullif": "Use CASE WHEN … THEN … ELSE … END.",
    "ifnull": "Use coalesce.",
    "nvl": "Use coalesce.",
    "log": "Use ln (the natural logarithm).",
    "log10": "Use ln(x) / 2.302585092994046.",
    "sqrt": "Use exp(0.5 * ln(x)), with x bounded above 0.",
    "pow": "Multiply, or use exp(y * ln(x)) with x bounded above 0.",
    "power": "Multiply, or use exp(y * ln(x)) with x bounded above 0.",
}
_REFUSED = {
    "select": "A subquery is not allowed: an expression sees one row.",
    "over": "A window function is not allowed: an expression sees one row.",
    "null": "NULL is not allowed. Use coalesce(x, default) to replace a missing value.",
    "is": "IS is not allowed. Use coalesce(x, default) to replace a missing value.",
    "true": "TRUE is not allowed. Write the condition itself, or 1.",
    "false": "FALSE is not allowed. Write NOT condition, or 0.",
    "in": "IN is not allowed. Write name = 'a' OR name = 'b'.",
    "between": "BETWEEN is not allowed. Write x >= a AND x <= b.",
    "like": "LIKE is not allowed. Compare with = or <>.",
    "cast": "CAST is not allowed: booleans count as 0 and 1, everything else is a number.",
    "distinct": "DISTINCT is not allowed: an expression sees one row.",
}
RESERVED = frozenset(_REFUSED) | {"and", "or", "not", "case", "when", "then", "else", "end"}
"""Lower-case words that cannot name a column in an expression."""

_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)"
    r"|(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<text>'(?:[^']|'')*')"
    r"|(?P<comment>--|/\*)"
    r"|(?P<symbol><>|!=|<=|>=|[-+*/()<>=,])"
)
_COMPARISONS: dict[str, Comparison] = {"=": "=", "<>": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_ARITHMETIC: dict[str, Arithmetic] = {"+": "+", "-": "-", "*": "*", "/": "/"}
_POWER = {"OR": 1, "AND": 2, "=": 4, "<>": 4, "<": 4, "<=": 4, ">": 4, ">=": 4, "+": 5, "-": 5, "*": 6, "/": 6}
_NOT_POWER = 3
_SIGN_POWER = 7


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


@lru_cache(maxsize=1024)
def parse(text: str) -> Expression:
    """Parses once. Raises ExpressionError with position and remedy for anything outside the allow-list."""
    tree = _parsed(text)
    return Expression(text, tree, frozenset(node.name for node in walk(tree) if isinstance(node, Name)))


def _parsed(text: str) -> Node:
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            f"The expression has {len(text)} characters; {MAX_LENGTH} is the limit.",
            position=MAX_LENGTH,
            remedy="Move parts of it to Derived columns.",
        )
    return _Parser(text).whole()


def _fail(message: str, position: int, remedy: str = "") -> NoReturn:
    raise ExpressionError(message, position=position, remedy=remedy)


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            _refuse_character(text, position)
        kind = str(match.lastgroup)
        if kind == "comment":
            _fail("Comments are not allowed.", position, "Write a - (-b) for a doubled minus.")
        if kind == "word" and match.group().lower() in RESERVED:
            tokens.append(_Token("keyword", match.group().upper(), position))
        elif kind != "space":
            tokens.append(_Token(kind, "<>" if match.group() == "!=" else match.group(), position))
        position = match.end()
    return [*tokens, _Token("end", "", len(text))]


def _refuse_character(text: str, position: int) -> NoReturn:
    character = text[position]
    remedies = {
        '"': "Write names without quotes, and text in single quotes.",
        "`": "Write names without quotes.",
        "'": "Close the text with a single quote; a quote inside it is doubled.",
        "%": "There is no modulo.",
        "^": "Multiply, or use exp(y * ln(x)).",
        ";": "One expression, without a semicolon.",
        ".": "Names have no prefix: write column, not table.column.",
        "[": "Names have no index.",
        "|": "Use OR; text cannot be joined.",
        "&": "Use AND.",
    }
    _fail(f"{character!r} at position {position} is not allowed.", position, remedies.get(character, ""))


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0
        self._nesting = 0
        self._operations = 0

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next
        self._at += 1
        return token

    def whole(self) -> Node:
        if self._next.kind == "end":
            _fail("The expression is empty.", 0)
        node = self._expression(0)
        if self._next.kind != "end":
            self._trailing()
        if isinstance(node, Text):
            _misplaced(node)
        return node

    def _expression(self, power: int) -> Node:
        """Pratt's loop: an operand, then every operator that binds tighter than `power`."""
        left = self._operand()
        while (binding := _POWER.get(self._next.text, 0) if self._next.kind in ("symbol", "keyword") else 0) > power:
            token = self._take()
            right = self._expression(binding)
            self._count(token)
            left = self._join(token, left, right)
        return left

    def _join(self, token: _Token, left: Node, right: Node) -> Node:
        operator, position = token.text, token.position
        if comparison := _COMPARISONS.get(operator):
            following = self._next
            if following.kind == "symbol" and _POWER.get(following.text) == 4:
                _fail("Comparisons cannot be chained.", following.position, "Join two of them with AND.")
            return _comparison(comparison, left, right, position)
        for operand in (left, right):
            if isinstance(operand, Text):
                _misplaced(operand)
        if arithmetic := _ARITHMETIC.get(operator):
            return Binary(arithmetic, left, right, position)
        return Logical("AND" if operator == "AND" else "OR", left, right, position)

    def _operand(self) -> Node:
        token = self._take()
        if token.kind == "number":
            value = float(token.text)
            if not math.isfinite(value):
                _fail(f"The number {token.text} is too large.", token.position)
            return Number(value, token.position)
        if token.kind == "text":
            return Text(token.text[1:-1].replace("''", "'"), token.position)
        if token.kind == "word":
            return self._call(token) if self._next.text == "(" else Name(token.text, token.position)
        if token.text == "(":
            return self._nested(token, 0, close=True)
        if token.text == "-":
            return Unary(self._nested(token, _SIGN_POWER), token.position)
        if token.text == "+":
            _fail("A leading + is not allowed.", token.position, "Leave it out.")
        if token.text == "NOT":
            return Not(self._nested(token, _NOT_POWER), token.position)
        if token.text == "CASE":
            return self._case(token)
        return self._refuse(token, "a name, a number, CASE, a function or '('")

    def _nested(self, token: _Token, power: int, *, close: bool = False) -> Node:
        """One level deeper: what a bracket, a sign, NOT, a function or CASE holds."""
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            _fail(
                f"The expression is nested deeper than {MAX_NESTING} levels.",
                token.position,
                "Move parts of it to Derived columns.",
            )
        node = self._expression(power)
        if close:
            self._expect(")")
        elif isinstance(node, Text):
            _misplaced(node)
        self._nesting -= 1
        if power:
            self._count(token)
        return node

    def _call(self, name: _Token) -> Node:
        known = FUNCTIONS.get(name.text.lower())
        if known is None:
            _refuse_function(name)
        function, fewest, most = known
        self._count(name)
        opening = self._take()
        arguments: list[Node] = []
        if self._next.text != ")":
            arguments.append(self._nested(opening, 0))
            while self._next.text == ",":
                self._take()
                arguments.append(self._nested(opening, 0))
        if not fewest <= len(arguments) <= most:
            wanted = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            _fail(f"{function} takes {wanted} argument(s), not {len(arguments)}.", name.position)
        self._expect(")")
        if self._next.text == "OVER":
            self._refuse(self._next, "")
        return Call(function, tuple(arguments), name.position)

    def _case(self, case: _Token) -> Node:
        self._count(case)
        if self._next.text != "WHEN":
            _fail("CASE needs WHEN directly after it.", self._next.position, "Write CASE WHEN name = value THEN …")
        branches: list[tuple[Node, Node]] = []
        while self._next.text == "WHEN":
            when = self._take()
            condition = self._nested(when, 0)
            self._expect("THEN")
            branches.append((condition, self._nested(when, 0)))
        if self._next.text == "END":
            _fail("CASE needs ELSE.", self._next.position, "Add ELSE and the value of all other rows before END.")
        other = self._expect("ELSE")
        otherwise = self._nested(other, 0)
        self._expect("END")
        return Case(tuple(branches), otherwise, case.position)

    def _expect(self, text: str) -> _Token:
        if self._next.text != text:
            self._refuse(self._next, repr(text))
        return self._take()

    def _count(self, token: _Token) -> None:
        self._operations += 1
        if self._operations > MAX_OPERATIONS:
            _fail(
                f"The expression has more than {MAX_OPERATIONS} operations.",
                token.position,
                "Move parts of it to Derived columns.",
            )

    def _trailing(self) -> NoReturn:
        token = self._next
        if token.text in {",", ")"}:
            _fail(f"{token.text!r} at position {token.position} closes nothing.", token.position)
        self._refuse(token, "an operator or the end")

    def _refuse(self, token: _Token, wanted: str) -> NoReturn:
        if token.kind == "keyword" and token.text.lower() in _REFUSED:
            message, _, remedy = _REFUSED[token.text.lower()].partition(". ")
            _fail(message.rstrip(".") + ".", token.position, remedy)
        if token.kind == "end":
            _fail(f"The expression ends where {wanted} is needed.", token.position)
        _fail(f"{token.text!r} at position {token.position} stands where {wanted} is needed.", token.position)


def _comparison(operator: Comparison, left: Node, right: Node, position: int) -> Node:
    if isinstance(left, Text) and isinstance(right, Name):
        left, right = right, left
    if isinstance(left, Text):
        _misplaced(left)
    if isinstance(right, Text):
        if not isinstance(left, Name):
            _misplaced(right)
        if operator not in ("=", "<>"):
            _fail(f"Text cannot be ordered by {operator}.", position, "Compare text with = or <>.")
    return Compare(operator, left, right, position)


def _misplaced(text: Text) -> NoReturn:
    _fail(
        f"The text '{text.value}' stands alone.",
        text.position,
        "Text may only be compared with a column: name = 'text' or name <> 'text'.",
    )


def _refuse_function(name: _Token) -> NoReturn:
    spelled = name.text.lower()
    if spelled in _WINDOWS:
        _fail(f"{name.text} is a window function; an expression sees one row.", name.position)
    if spelled in _AGGREGATES:
        rowwise = {
            "min": "Use least for the smaller of two values.",
            "max": "Use greatest for the larger of two values.",
        }
        _fail(
            f"{name.text} is an aggregate; an expression sees one row.",
            name.position,
            rowwise.get(spelled, "The platform averages the KPI itself; write its value for one row."),
        )
    near = difflib.get_close_matches(spelled, FUNCTIONS, n=1)
    remedy = _REPLACEMENTS.get(spelled) or (
        f"Did you mean {near[0]}?" if near else f"Known functions: {', '.join(FUNCTIONS)}."
    )
    _fail(f"There is no function {name.text}.", name.position, remedy)
