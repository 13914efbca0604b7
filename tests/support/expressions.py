"""Hypothesis strategies for expressions as text, over columns a, b (numbers), n (may be NULL), f (boolean), s (text).

Numbers are written with an exponent, because polars reads 1.5 as a decimal and 2 as a 32-bit integer, and a boolean
enters arithmetic beside a number, because polars subtracts no booleans. Divisors are guarded: 0 / 0 is NaN to polars
and NULL to us, and `bounds` refuses it before anything is computed.
"""

from collections.abc import Callable

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[str]], str]

LEAVES = st.sampled_from(("a", "b", "n", "(f + 0e0)", "0e0", "1e0", "2e0", "5e-1", "1.25e0", "3e0", "1e1"))
CLASSES = st.sampled_from(("CH", "MM", "it''s"))
COMPARISONS = st.sampled_from(("=", "<>", "!=", "<", "<=", ">", ">="))
NUMBER_FORMS = st.sampled_from(
    (
        *("N", "N", "(N + N)", "N - N", "(N - N)", "N * N", "(N * N)", "(N / greatest(5e-1, N))", "(- N)"),
        *("abs(0e0 + N)", "exp(least(5e0, N))", "ln(greatest(1e-1, N))", "least(N, N)", "Greatest(N, N, N)"),
        *(
            "coalesce(N, N)",
            "case when C then N else N end",
            "case when C then N When C then N else N end",
            "((C) + 0e0)",
        ),
    )
)
CONDITION_FORMS = st.sampled_from(("(N) ~ (N)", "(N) ~ (N)", "(C) and (C)", "(C) OR (C)", "not (C)", "C"))


@st.composite
def numbers(draw: Draw) -> str:
    """Expressions whose value is a number."""
    return _number(draw, depth=3)


@st.composite
def conditions(draw: Draw) -> str:
    """Expressions that are true, false or NULL."""
    return _condition(draw, depth=3)


def _number(draw: Draw, depth: int) -> str:
    return _filled(draw, draw(NUMBER_FORMS), depth - 1) if depth else draw(LEAVES)


def _condition(draw: Draw, depth: int) -> str:
    if depth:
        return _filled(draw, draw(CONDITION_FORMS), depth - 1)
    return draw(st.sampled_from(("f", f"s = '{draw(CLASSES)}'", f"s <> '{draw(CLASSES)}'", f"{draw(LEAVES)} < n")))


def _filled(draw: Draw, form: str, depth: int) -> str:
    """`form` with every N a number, every C a condition and ~ a comparison."""
    words = []
    for letter in form:
        if letter == "N":
            words.append(_number(draw, depth))
        elif letter == "C":
            words.append(_condition(draw, depth))
        else:
            words.append(draw(COMPARISONS) if letter == "~" else letter)
    return "".join(words)
