"""A compiled expression gives every element what polars' SQL and the row-wise meaning give it."""

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivetrain.api.expression import evaluate, parse
from drivetrain.levers import formula
from tests.support.expressions import conditions, numbers

ROWS: dict[str, Sequence[float | bool | str | None]] = {
    "a": [-2.0, -0.5, 0.0, 0.5, 1.0, 3.0, 1.0, -2.0],
    "b": [3.0, 0.25, 1.0, 2.0, 0.25, 0.5, 1.0, 10.0],
    "n": [None, 1.0, 2.0, None, -1.0, 0.0, 1.0, None],
    "f": [True, False, True, True, False, False, True, False],
    "s": ["CH", "MM", None, "it's", "CH", "MM", None, "it's"],
}
FRAME = pl.DataFrame(ROWS)
COLUMNS = {name: FRAME[name].to_numpy() for name in ROWS}


def by_formula(text: str) -> list[float]:
    values: list[float] = np.broadcast_to(formula.compile(parse(text))(COLUMNS), 8).tolist()
    return values


def by_polars(text: str) -> list[float]:
    # Row by row: polars 2.1 collapses a CASE none of whose rows match to one value and then refuses its shape.
    question = pl.sql_expr(text).cast(pl.Float64).alias("value")
    values = [row.select(question).item() for row in FRAME.iter_slices(1)]
    assert not any(value is not None and math.isnan(value) for value in values), "polars' NaN is not NULL"
    return [math.nan if value is None else value for value in values]


def by_rows(text: str) -> list[float]:
    expression = parse(text)
    return [evaluate(expression, row) for row in FRAME.iter_rows(named=True)]


@settings(max_examples=200, deadline=None)
@given(st.one_of(numbers(), conditions()))
def test_a_formula_equals_polars_sql(text: str) -> None:
    assert by_formula(text) == pytest.approx(by_polars(text), rel=1e-12, nan_ok=True)


@settings(max_examples=200, deadline=None)
@given(st.one_of(numbers(), conditions()))
def test_a_formula_equals_the_value_of_each_row(text: str) -> None:
    assert by_formula(text) == pytest.approx(by_rows(text), rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("text", ["1 / a", "a / a", "-1 / (a * 0)", "ln(a)", "ln(-b)", "exp(1e3 * b)", "0 / n"])
def test_a_formula_equals_the_value_of_each_row_where_it_is_not_finite(text: str) -> None:
    assert by_formula(text) == pytest.approx(by_rows(text), nan_ok=True)


def test_rows_and_actions_broadcast() -> None:
    margin = formula.compile(parse("purchase * (price - discount - cost)"))
    purchase = np.full((3, 4), 0.5)
    value = margin({"purchase": purchase, "price": np.arange(4.0), "discount": 0.25, "cost": np.zeros((3, 1))})
    assert value.shape == (3, 4)
    assert value[2].tolist() == [-0.125, 0.375, 0.875, 1.375]


def test_a_class_is_its_probability_when_predicted_and_zero_or_one_when_realised() -> None:
    value = formula.compile(parse("(brand = 'CH') * 2 + (brand <> 'MM') * 10"))
    predicted = value({}, {("brand", "CH"): np.array([0.25, 1.0]), ("brand", "MM"): np.array([0.75, 0.0])})
    realised = value({"brand": np.array(["MM", "CH"])})
    assert predicted.tolist() == [3.0, 12.0]
    assert realised.tolist() == [0.0, 12.0]


def test_missing_text_is_null_whether_none_or_nan() -> None:
    is_store = formula.compile(parse("store <> 'A'"))
    assert np.isnan(is_store({"store": np.array(["A", None, math.nan, "B"], dtype=object)})).tolist() == [0, 1, 1, 0]


def test_integers_and_booleans_are_read_as_numbers() -> None:
    value = formula.compile(parse("count / 2 + member"))
    assert value({"count": np.array([1, 2]), "member": np.array([True, False])}).tolist() == [1.5, 1.0]


def test_an_expression_without_columns_is_a_scalar() -> None:
    assert formula.compile(parse("1 + 1"))({}).shape == ()


def test_a_name_without_values_is_an_error_and_not_a_guess() -> None:
    with pytest.raises(KeyError, match="price"):
        formula.compile(parse("price + 1"))({})
