"""What expressions mean for one row, what they can reach, and which columns they fit."""

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivetrain.api.errors import ExpressionError
from drivetrain.api.expression import BOOLEAN, NUMBER, bounds, check, evaluate, is_affine_in, parse, text_of
from drivetrain.api.interval import Interval
from tests.support.expressions import conditions, numbers

NULL = None
Value = float | str | bool | None


@pytest.mark.parametrize(
    ("text", "values", "result"),
    [
        pytest.param("bought * (price - 1.1)", {"bought": True, "price": 1.6}, 0.5, id="true-counts-as-one"),
        pytest.param("brand = 'CH'", {"brand": "CH"}, 1, id="the-realised-class-is-one"),
        pytest.param("brand <> 'CH'", {"brand": "MM"}, 1, id="another-class-differs"),
        pytest.param("brand = 'CH'", {"brand": NULL}, math.nan, id="an-unknown-class-is-null"),
        pytest.param("a + 1", {"a": NULL}, math.nan, id="arithmetic-with-null-is-null"),
        pytest.param("a = a", {"a": NULL}, math.nan, id="null-does-not-equal-itself"),
        pytest.param("a > 0 and b > 0", {"a": NULL, "b": -1}, 0, id="null-and-false-is-false"),
        pytest.param("a > 0 and b > 0", {"a": NULL, "b": 1}, math.nan, id="null-and-true-is-null"),
        pytest.param("a > 0 or b > 0", {"a": NULL, "b": 1}, 1, id="null-or-true-is-true"),
        pytest.param("a > 0 or b > 0", {"a": NULL, "b": -1}, math.nan, id="null-or-false-is-null"),
        pytest.param("not a > 0", {"a": NULL}, math.nan, id="not-null-is-null"),
        pytest.param("case when a > 0 then 1 else 2 end", {"a": NULL}, 2, id="a-null-condition-is-not-taken"),
        pytest.param("least(a, b)", {"a": NULL, "b": 3}, 3, id="least-leaves-null-out"),
        pytest.param("greatest(a, b, 4)", {"a": NULL, "b": 3}, 4, id="greatest-leaves-null-out"),
        pytest.param("least(a, b)", {"a": NULL, "b": NULL}, math.nan, id="least-of-nulls-is-null"),
        pytest.param("coalesce(a, b, 5)", {"a": NULL, "b": 3}, 3, id="coalesce-takes-the-first-known"),
        pytest.param("1 / a", {"a": 0}, math.inf, id="division-by-zero-is-infinite"),
        pytest.param("-1 / a", {"a": 0}, -math.inf, id="division-by-zero-keeps-the-sign"),
        pytest.param("a / a", {"a": 0}, math.nan, id="zero-by-zero-is-null"),
        pytest.param("ln(a)", {"a": 0}, -math.inf, id="ln-of-zero"),
        pytest.param("ln(a)", {"a": -1}, math.nan, id="ln-of-a-negative-number-is-null"),
        pytest.param("exp(a)", {"a": 1000}, math.inf, id="exp-overflows-to-infinity"),
        pytest.param("abs(a) - exp(ln(2))", {"a": -2}, 0, id="functions"),
    ],
)
def test_a_row_has_the_value_that_sql_gives_it(text: str, values: dict[str, Value], result: float) -> None:
    assert evaluate(parse(text), values) == pytest.approx(result, nan_ok=True)


MARKET = {
    "purchase": Interval(0, 1),
    "price": Interval(1.69, 2.09),
    "discount": Interval(0, 0.5),
    "delta": Interval(-1, 2),
    "cost": Interval(0.5, 2),
    "rival": Interval(-math.inf, math.inf),
    "late": Interval(1, 2, nullable=True),
}


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        pytest.param("purchase * (price - discount - 1.1)", 0, 0.99, id="margin"),
        pytest.param("-delta", -2, 1, id="a-sign-turns-the-interval"),
        pytest.param("delta * delta", 0, 4, id="a-square-is-not-negative"),
        pytest.param("delta * cost", -2, 4, id="a-product-takes-its-extreme-corner"),
        pytest.param("delta / cost", -2, 4, id="a-quotient"),
        pytest.param("abs(delta)", 0, 2, id="a-magnitude-across-zero"),
        pytest.param("ln(cost) + exp(delta)", math.log(0.5) + math.exp(-1), math.log(2) + math.exp(2), id="ln-and-exp"),
        pytest.param("case when delta > 0 then 5 else delta end", -1, 5, id="case-spans-its-branches"),
        pytest.param("least(greatest(rival, 0), 10)", 0, 10, id="clipping-bounds-an-unbounded-column"),
        pytest.param("least(late, 1.5)", 1, 1.5, id="a-known-argument-caps-least"),
        pytest.param("least(late, cost)", 0.5, 2, id="an-argument-that-may-be-null-does-not-cap-least"),
        pytest.param("coalesce(late, 7)", 1, 7, id="coalesce-reaches-the-default-of-what-may-be-null"),
        pytest.param("coalesce(cost, 7)", 0.5, 2, id="coalesce-stops-at-what-is-never-null"),
        pytest.param("brand = 'CH'", 0, 1, id="a-class-needs-no-bounds"),
        pytest.param("rival * 0", 0, 0, id="zero-times-an-unbounded-column"),
        pytest.param("rival + 1", -math.inf, math.inf, id="an-unbounded-column-stays-unbounded"),
    ],
)
def test_an_expression_reaches_what_its_columns_allow(text: str, low: float, high: float) -> None:
    reached = bounds(parse(text), MARKET)
    assert [reached.low, reached.high] == pytest.approx([low, high])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("price / delta", "divisor 0 -1 to 2 greatest", id="a-divisor-that-can-be-zero"),
        pytest.param("1 / discount", "divisor 0", id="a-divisor-that-starts-at-zero"),
        pytest.param("ln(discount)", "ln 0 more", id="ln-from-zero"),
        pytest.param("ln(delta)", "ln -1", id="ln-of-negative-values"),
        pytest.param("exp(1000 * price)", "exp overflows least", id="exp-beyond-the-floats"),
        pytest.param("exp(rival)", "exp overflows inf", id="exp-of-an-unbounded-column"),
        pytest.param("1e308 * price * price", "overflows", id="a-product-beyond-the-floats"),
        pytest.param("other + 1", "bounds other", id="a-column-without-an-interval"),
        pytest.param("case when 1 / delta > 0 then 1 else 0 end", "divisor", id="inside-a-condition"),
    ],
)
def test_an_expression_that_is_not_finite_over_the_bounds_is_refused(text: str, words: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        bounds(parse(text), MARKET)
    for word in words.split():
        assert word in str(caught.value)


@given(numbers(), st.integers(0, 2))
def test_no_row_within_the_bounds_lies_outside_what_is_reached(text: str, resolution: int) -> None:
    expression = parse(text)
    intervals = {"a": Interval(-2, 1), "b": Interval(0.25, 3), "n": Interval(1, 2, nullable=True), "f": Interval(0, 1)}
    try:
        reached = bounds(expression, intervals)
    except ExpressionError:
        return
    for a, b, n, f, s in product((-2, 0, 0.5 * resolution, 1), (0.25, 1, 3), (1, 2, None), (0, 1), ("CH", "MM")):
        value = evaluate(expression, {"a": a, "b": b, "n": n, "f": f, "s": s})
        if math.isnan(value):
            assert reached.nullable
        else:
            assert reached.contains(Interval(value, value))


TYPES = {
    "price": NUMBER,
    "discount": NUMBER,
    "member": BOOLEAN,
    "brand": text_of("CH", "MM"),
    "note": text_of(),
}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("(brand = 'CH') * price", id="a-comparison-counts-as-a-number"),
        pytest.param("member * price + (member = 1)", id="a-boolean-counts-as-a-number"),
        pytest.param(
            "case when member and note = 'any' then 1 else price end", id="any-text-of-an-undeclared-category"
        ),
        pytest.param("price > 1", id="a-condition-counts-as-a-number"),
    ],
)
def test_an_expression_that_fits_its_columns_is_accepted(text: str) -> None:
    check(parse(text), TYPES)


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        pytest.param("price - discont", 8, "discont mean discount", id="a-misspelled-column"),
        pytest.param("price - zzz", 8, "zzz Known brand", id="an-unknown-column"),
        pytest.param("brand * 2", 0, "brand text brand = 'CH'", id="text-in-arithmetic"),
        pytest.param("brand = price", 0, "brand text", id="text-beside-a-number"),
        pytest.param("brand = 'CHH'", 8, "CHH mean 'CH'", id="an-undeclared-class"),
        pytest.param("price = 'CH'", 8, "price number", id="a-number-beside-text"),
        pytest.param("price and member", 0, "condition Compare", id="a-number-as-a-condition"),
        pytest.param("not price", 4, "condition", id="a-negated-number"),
        pytest.param("case when price then 1 else 0 end", 10, "condition", id="a-number-in-when"),
    ],
)
def test_an_expression_that_does_not_fit_its_columns_is_refused(text: str, position: int, words: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        check(parse(text), TYPES)
    assert caught.value.position == position
    for word in words.split():
        assert word in str(caught.value)


def test_a_constraint_must_be_a_condition() -> None:
    check(parse("price - discount >= 1.3"), TYPES, boolean=True)
    check(parse("member"), TYPES, boolean=True)
    with pytest.raises(ExpressionError, match="condition"):
        check(parse("price - discount"), TYPES, boolean=True)


@pytest.mark.parametrize(
    ("text", "affine"),
    [
        pytest.param("y * (price - 1)", True, id="a-target-times-a-margin"),
        pytest.param("2 - y / price + z", True, id="sums-and-constant-divisors"),
        pytest.param("(brand = 'CH') * 2 + (brand <> 'MM')", True, id="class-indicators"),
        pytest.param("not brand = 'CH'", True, id="the-opposite-of-a-class"),
        pytest.param("case when price > 1 then y else 0 end", True, id="a-choice-that-does-not-look-at-the-target"),
        pytest.param("exp(price) * y", True, id="a-function-of-other-columns"),
        pytest.param("y * z", False, id="a-product-of-targets"),
        pytest.param("y * y", False, id="a-square"),
        pytest.param("1 / y", False, id="a-target-as-divisor"),
        pytest.param("greatest(y, 0)", False, id="a-function-of-a-target"),
        pytest.param("y > 3", False, id="a-comparison-with-a-number"),
        pytest.param("case when y > 3 then 1 else 0 end", False, id="a-choice-by-the-target"),
        pytest.param("brand = 'CH' or brand = 'MM'", False, id="logic-over-classes"),
    ],
)
def test_only_what_is_affine_in_the_targets_may_be_applied_to_their_means(text: str, affine: bool) -> None:
    assert is_affine_in(parse(text), {"y", "z", "brand"}) is affine


@given(conditions())
def test_a_generated_condition_checks_as_one(text: str) -> None:
    types = {"a": NUMBER, "b": NUMBER, "n": NUMBER, "f": BOOLEAN, "s": text_of("CH", "MM", "it's")}
    check(parse(text), types, boolean=True)
