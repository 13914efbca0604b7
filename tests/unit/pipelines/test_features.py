"""The feature graph: what Derived columns mean, how nulls and unknown values enter, and which way columns move."""

import math
from collections.abc import Mapping

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivetrain.api.errors import ContractError
from drivetrain.api.expression import Interval, evaluate, parse
from drivetrain.api.model import NULL_TOKEN, InputColumn
from drivetrain.api.v1alpha1.dataset import Column, Dataset
from drivetrain.api.v1alpha1.lever import Lever
from drivetrain.pipelines.derived import add_expression, direction
from drivetrain.pipelines.features import FeaturePlan, feed_of, fit_features, matrices
from drivetrain.pipelines.graph import GraphBuilder, session_of
from tests.support.expressions import conditions, numbers
from tests.support.training_rows import shop_rows, shop_spec

NUMBERS = ("a", "b", "n", "f")
QUARTERS = st.integers(-12, 12).map(lambda value: value / 4)
ROWS = st.fixed_dictionaries(
    {
        "a": QUARTERS,
        "b": QUARTERS,
        "n": st.one_of(st.none(), QUARTERS),
        "f": st.sampled_from((0.0, 1.0)),
        "s": st.sampled_from(("CH", "MM", "it's", None)),
    }
)


def in_graph(text: str, row: Mapping[str, float | str | None]) -> float:
    graph = GraphBuilder()
    columns = {name: graph.input(InputColumn(name=name, role="Context", type="Float")) for name in NUMBERS}
    columns["s"] = graph.input(InputColumn(name="s", role="Context", type="String"))
    spread = graph.add("Expand", add_expression(graph, parse(text).tree, columns), graph.add("Shape", "a"))
    graph.output(spread, "result", 1)
    feed = {name: np.array([[math.nan if row[name] is None else row[name]]], dtype=np.float32) for name in NUMBERS}
    texts = np.array([[NULL_TOKEN if row["s"] is None else row["s"]]], dtype=object)
    return float(session_of(graph.model()).run({**feed, "s": texts})["result"][0, 0])


@settings(max_examples=150, deadline=None)
@given(st.one_of(numbers(), conditions()), ROWS)
def test_an_expression_means_in_the_graph_what_it_means_for_one_row(
    text: str, row: dict[str, float | str | None]
) -> None:
    expected, found = evaluate(parse(text), row), in_graph(text, row)
    # Quarters are exact in float32 until a division, ln or exp; a comparison next to their rounding may then flip.
    inexact = any(part in text.lower() for part in ("/", "ln", "exp"))
    if inexact and any(mark in text.lower() for mark in ("<", ">", "=", "case")):
        return
    if not math.isfinite(expected) or abs(expected) > 1e30:
        assert math.isnan(found) == math.isnan(expected)
    else:
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4 if inexact else 1e-5)


@pytest.mark.parametrize(
    ("text", "row", "expected"),
    [
        pytest.param("((s = 'CH') + 0) * (1 / a)", {"s": "CH", "a": 2}, 0.5, id="a product of a reciprocal loads"),
        pytest.param("a / b", {"a": 1, "b": 0}, math.inf, id="a number through zero is infinite"),
        pytest.param("n + 1", {"n": None}, math.nan, id="arithmetic with null is null"),
        pytest.param("n > 1 OR a > 0", {"n": None, "a": 1}, 1, id="true OR null is true"),
        pytest.param("n > 1 AND a > 0", {"n": None, "a": 1}, math.nan, id="true AND null is null"),
        pytest.param("least(n, a)", {"n": None, "a": 3}, 3, id="least leaves null out"),
        pytest.param("coalesce(n, a)", {"n": None, "a": 3}, 3, id="coalesce takes the first known"),
        pytest.param("CASE WHEN n > 0 THEN 1 ELSE 2 END", {"n": None}, 2, id="CASE takes no null condition"),
        pytest.param("s = 'CH'", {"s": None}, math.nan, id="text that is null equals nothing"),
        pytest.param("s <> 'CH'", {"s": "other"}, 1, id="text that was never seen differs"),
    ],
)
def test_null_and_infinity_follow_sql(text: str, row: dict[str, float | str | None], expected: float) -> None:
    found = in_graph(text, {"a": 0.0, "b": 0.0, "n": 0.0, "f": 0.0, "s": "CH", **row})
    assert found == pytest.approx(expected, nan_ok=True)


def shop_plan() -> tuple[FeaturePlan, pl.DataFrame]:
    rows, spec = shop_rows(300), shop_spec()
    frame = rows.frame.filter(pl.Series(rows.train))
    return fit_features(frame, spec.data, spec.levers), frame


def column(plan: FeaturePlan, frame: pl.DataFrame, name: str) -> list[float]:
    plain, _ = matrices(plan, feed_of(frame, plan.inputs))
    return [round(value, 5) for value in plain[:, plan.columns.index(name)].tolist()]


def test_a_missing_number_becomes_the_training_median_and_says_so() -> None:
    plan, frame = shop_plan()
    one = frame.head(2).with_columns(pl.Series("area", [None, 2.5]))
    median = frame["area"].median()
    assert isinstance(median, float)
    assert column(plan, one, "area") == [pytest.approx(median, abs=1e-5), 2.5]
    assert column(plan, one, "area?") == [1, 0]


def test_null_unknown_and_empty_text_have_paths_of_their_own() -> None:
    plan, frame = shop_plan()
    odd = frame.head(4).with_columns(pl.Series("store", ["north", None, "", "moon"]))
    assert column(plan, odd, "store=north") == [1, 0, 0, 0]
    assert column(plan, odd, "store=null") == [0, 1, 0, 0]
    assert column(plan, odd, "store=other") == [0, 0, 1, 1]


def test_linear_models_read_a_standardised_copy_and_trees_the_plain_values() -> None:
    plan, frame = shop_plan()
    plain, scaled = matrices(plan, feed_of(frame, plan.inputs))
    at = plan.columns.index("rival")
    assert (plain[:, at] == frame["rival"].to_numpy().astype(np.float32)).all()
    assert scaled[:, at].mean() == pytest.approx(0, abs=1e-4)
    assert scaled[:, at].std() == pytest.approx(1, abs=1e-4)
    flags = plan.columns.index("store=north")
    assert (plain[:, flags] == scaled[:, flags]).all()


def test_derived_columns_are_recomputed_for_every_lever_value() -> None:
    plan, frame = shop_plan()
    moved = frame.head(1).with_columns(
        pl.lit(2.0).alias("price"), pl.lit(0.5).alias("bonus"), pl.lit(1.0).alias("rival")
    )
    assert column(plan, moved, "net") == [1.5]
    assert column(plan, moved, "gap") == [0.5]


def test_declared_effects_constrain_every_column_that_moves_with_the_lever() -> None:
    plan, _ = shop_plan()
    found = dict(zip(plan.columns, plan.directions, strict=True))
    moving = {name: sign for name, sign in found.items() if sign}
    assert moving == {"price": -1, "bonus": 1, "net": -1, "gap": -1}
    assert plan.loose == ()


def with_derived(expression: str, *levers: str) -> FeaturePlan:
    rows, spec = shop_rows(300), shop_spec()
    columns = [one for one in spec.data.columns if one.role != "Derived"]
    columns.append(Column(name="made", role="Derived", type="Float", expression=expression))
    data: Dataset = spec.data.model_copy(update={"columns": tuple(columns)})
    chosen: list[Lever] = [lever for lever in spec.levers if lever.name in levers]
    return fit_features(rows.frame, data, chosen)


@pytest.mark.parametrize(
    ("expression", "sign"),
    [
        pytest.param("price * rival", -1, id="a product with a positive column rises with it"),
        pytest.param("1 - price", 1, id="a difference falls"),
        pytest.param("rival / price", 1, id="a quotient falls with its divisor"),
        pytest.param("price * price", -1, id="the square of a positive lever rises"),
        pytest.param("greatest(price, rival)", -1, id="the greater of both rises"),
        pytest.param("CASE WHEN rival > 2 THEN price ELSE 2 * price END", -1, id="both branches rise"),
        pytest.param("price > rival", -1, id="a comparison rises from false to true"),
        pytest.param("exp(price - rival)", -1, id="exp rises with what it is of"),
        pytest.param("loyal", 0, id="another column does not move"),
    ],
)
def test_the_constraint_of_a_derived_column_follows_its_expression(expression: str, sign: int) -> None:
    plan = with_derived(expression, "price")
    assert plan.directions[plan.columns.index("made")] == sign
    assert plan.loose == ()


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param("abs(price - rival)", id="a distance falls and rises"),
        pytest.param("price * (rival - 2)", id="the sign of a factor is not known"),
        pytest.param("CASE WHEN price > rival THEN 1 ELSE 2 END", id="a condition on the lever"),
        pytest.param("price + bonus", id="two levers of opposite effect"),
    ],
)
def test_a_column_that_no_constraint_can_bind_leaves_its_lever_to_the_gate(expression: str) -> None:
    plan = with_derived(expression, "price", "bonus")
    assert plan.directions[plan.columns.index("made")] == 0
    assert "price" in plan.loose


@settings(max_examples=150, deadline=None)
@given(numbers(), ROWS, st.integers(1, 8))
def test_a_direction_that_was_told_is_the_one_taken(text: str, row: dict[str, float | str | None], rise: int) -> None:
    ranges = {name: Interval(-3, 3) for name in ("a", "b")} | {"n": Interval(-3, 3, True), "f": Interval(0, 1)}
    told = direction(parse(text).tree, "a", {}, ranges)
    start = row["a"]
    assert isinstance(start, float)
    if told is None or start + rise / 4 > 3:
        return
    low, high = evaluate(parse(text), row), evaluate(parse(text), {**row, "a": start + rise / 4})
    if math.isfinite(low) and math.isfinite(high):
        assert (high - low) * told >= -1e-6 * max(1, abs(low)) if told else high == pytest.approx(low, nan_ok=True)


def test_a_timestamp_input_is_refused_with_what_to_do() -> None:
    rows, spec = shop_rows(50), shop_spec()
    columns = (*spec.data.columns, Column(name="at", role="Context", type="Timestamp"))
    data = spec.data.model_copy(update={"columns": columns})
    with pytest.raises(ContractError, match="Uncontrolled") as refused:
        fit_features(rows.frame, data, ())
    assert refused.value.reason == "TimestampInput"


def test_a_column_without_any_value_is_refused() -> None:
    rows, spec = shop_rows(50), shop_spec()
    empty = rows.frame.with_columns(pl.lit(None, dtype=pl.Float64).alias("area"))
    with pytest.raises(ContractError, match="toCollect"):
        fit_features(empty, spec.data, ())
