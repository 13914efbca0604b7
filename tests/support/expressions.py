"""Hypothesis strategies for expressions as text, over columns a, b (numbers), n (may be NULL), f (boolean), s (text).

Numbers are written with an exponent, because polars reads 1.5 as a decimal and 2 as a 32-bit integer.
"""

from hypothesis import strategies as st

NUMERALS = ("0e0", "1e0", "2e0", "5e-1", "1.25e0", "3e0", "1e1")
CLASSES = ("CH", "MM", "it''s")


def numbers(*, depth: int = 4) -> st.SearchStrategy[str]:
    """Expressions whose value is a number."""
    leaf = st.sampled_from(("a", "b", "n", "f", *NUMERALS))
    if depth == 0:
        return leaf
    below = numbers(depth=depth - 1)
    condition = conditions(depth=depth - 1)
    return st.one_of(
        leaf,
        st.builds("({} {} {})".format, below, st.sampled_from("+-*/"), below),
        st.builds("{} {} {}".format, leaf, st.sampled_from("+-*/"), below),
        st.builds("(- {})".format, below),
        st.builds("abs(0e0 + {})".format, below),
        st.builds("exp(least(5e0, {}))".format, below),
        st.builds("ln(greatest(1e-1, {}))".format, below),
        st.builds("{}({}, {})".format, st.sampled_from(("least", "GREATEST", "coalesce")), below, below),
        st.builds("least({}, {}, {})".format, below, below, below),
        st.builds("case when {} then {} else {} end".format, condition, below, below),
        st.builds("CASE WHEN {} THEN {} WHEN {} THEN {} ELSE {} END".format, condition, below, condition, below, below),
        st.builds("({}) * {}".format, condition, below),
    )


def conditions(*, depth: int = 3) -> st.SearchStrategy[str]:
    """Expressions that are true, false or NULL."""
    leaf = st.one_of(
        st.builds("s {} '{}'".format, st.sampled_from(("=", "<>")), st.sampled_from(CLASSES)),
        st.builds(
            "{} {} {}".format, st.sampled_from("abn"), st.sampled_from(("<", "<=", ">=")), st.sampled_from("abn")
        ),
        st.just("f"),
    )
    if depth == 0:
        return leaf
    below = conditions(depth=depth - 1)
    number = numbers(depth=depth - 1)
    comparison = st.sampled_from(("=", "<>", "!=", "<", "<=", ">", ">="))
    return st.one_of(
        leaf,
        st.builds("({}) {} ({})".format, number, comparison, number),
        st.builds("({}) and ({})".format, below, below),
        st.builds("({}) OR ({})".format, below, below),
        st.builds("not ({})".format, below),
    )
