"""From sources to one table: types, bounds, missing values, appended and joined sources."""

from typing import Any

import polars as pl
import pytest

from drivetrain.api.errors import SourceError
from drivetrain.pipelines.contract import typed
from drivetrain.pipelines.frame import assemble, conform
from drivetrain.pipelines.rows import EXPLORED, PROPENSITY, SOURCE
from tests.support.shop import COLUMNS, a_dataset, visits

SHOP = a_dataset()


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        pytest.param([" 1", "2.0", None], "Integer", None, id="a space is no digit"),
        pytest.param(["1", "2.0", None], "Integer", [1, 2, None], id="whole numbers as text"),
        pytest.param([1.0, float("nan")], "Integer", [1, None], id="whole floats, NaN is missing"),
        pytest.param(["9007199254740993"], "Integer", [9007199254740993], id="large integers stay exact"),
        pytest.param([1.5], "Integer", None, id="a fraction is no integer"),
        pytest.param(["1e3", None], "Float", [1000.0, None], id="numbers as text"),
        pytest.param([float("nan"), 1.0], "Float", [None, 1.0], id="NaN is missing"),
        pytest.param([float("inf")], "Float", None, id="infinity is no value"),
        pytest.param(["abc"], "Float", None, id="words are no numbers"),
        pytest.param(["True", "0", None], "Boolean", [True, False, None], id="truth as text"),
        pytest.param([1, 0], "Boolean", [True, False], id="truth as numbers"),
        pytest.param([2], "Boolean", None, id="two is no truth"),
        pytest.param([7, None], "String", ["7", None], id="numbers as names"),
        pytest.param(["2026-01-02T03:04:05Z"], "Timestamp", ["2026-01-02 03:04:05"], id="a time with zone"),
        pytest.param(["2026-01-02 03:04:05"], "Timestamp", ["2026-01-02 03:04:05"], id="a time without zone is UTC"),
        pytest.param(["yesterday"], "Timestamp", None, id="words are no time"),
        pytest.param([5], "Timestamp", None, id="numbers are no time"),
    ],
)
def test_values_take_the_contracted_type_or_are_refused(values: list[Any], kind: Any, expected: Any) -> None:
    series = pl.Series("x", values)
    if expected is None:
        with pytest.raises(SourceError, match="for example") as caught:
            typed(series, kind, source="visits")
        assert caught.value.reason == "SourceFormat"
    else:
        found = typed(series, kind, source="visits")
        shown = found.dt.to_string("%Y-%m-%d %H:%M:%S") if kind == "Timestamp" else found
        assert shown.to_list() == expected


def test_a_value_of_the_wrong_type_is_counted_and_shown() -> None:
    frame = visits(10).with_columns(week=pl.Series(["x"] * 3 + ["1"] * 7))
    _fails("SourceFormat", r"week of source visits: 3 of 10 values are no Integer, for example 'x'", visits=frame)


def test_a_missing_column_is_named_with_its_source() -> None:
    _fails("ColumnMissing", "Column shelf is missing in source visits", visits=visits(10).drop("shelf"))


def test_a_missing_target_is_named() -> None:
    _fails("ColumnMissing", "Column sold is missing in source visits", visits=visits(10).drop("sold"))


def test_rows_outside_the_bounds_are_counted_and_one_is_shown() -> None:
    frame = visits(10).with_columns(shelf=pl.Series([0.5] * 2 + [1.9] * 8))
    _fails(
        "BoundsBroken", r"shelf of source visits: 2 of 10 rows lie below the minimum 1, for example 0.5", visits=frame
    )


def test_missing_values_are_counted_unless_the_column_is_nullable() -> None:
    frame = visits(10).with_columns(shelf=pl.Series([None] * 2 + [1.9] * 8))
    _fails("BoundsBroken", "shelf is missing in 2 of 10 rows", visits=frame)
    nullable = [{**column, "nullable": column["name"] == "shelf"} for column in COLUMNS]
    assert assemble(a_dataset(columns=nullable), {"visits": frame}).frame["shelf"].null_count() == 2


def test_a_row_without_target_breaks_the_contract() -> None:
    _fails("BoundsBroken", "sold is missing in 1 of 3", visits=visits(3).with_columns(sold=pl.Series([1, None, 0])))


def test_a_target_that_is_no_yes_or_no_is_refused() -> None:
    _fails(
        "SourceFormat",
        "1 of 3 values are no Boolean, for example 7",
        visits=visits(3).with_columns(sold=pl.Series([1, 7, 0])),
    )


def test_a_class_that_is_not_declared_is_refused() -> None:
    data = a_dataset(target={"name": "sold", "type": "Multiclass", "classes": ["a", "b", "c"]})
    frame = visits(3).with_columns(sold=pl.Series(["a", "b", "z"]))
    with pytest.raises(SourceError, match="1 of 3 rows are none of a, b, c, for example 'z'") as caught:
        assemble(data, {"visits": frame})
    assert caught.value.reason == "BoundsBroken"


def test_a_propensity_above_one_is_no_probability() -> None:
    frame = visits(4).with_columns(chance=pl.Series([0.5, 1.5, None, 1.0]))
    _fails("BoundsBroken", "no probability, for example 1.5", visits=frame)


def test_logged_propensities_say_which_rows_were_explored() -> None:
    frame = visits(3).with_columns(chance=pl.Series([0.5, None, 1.0]))
    found = assemble(SHOP, {"visits": frame}).frame
    assert found[PROPENSITY].to_list() == [0.5, None, 1.0]
    assert found[EXPLORED].to_list() == [True, False, False]


TWO = a_dataset(
    sources=[
        {"name": "old", "uri": "file:///a", "format": "Parquet"},
        {"name": "new", "uri": "file:///b", "format": "CSV"},
    ]
)


def test_rows_of_all_sources_are_appended_and_know_where_they_came_from() -> None:
    new = visits(2, seed=2).select(pl.all().cast(pl.String))
    found = assemble(TWO, {"old": visits(3), "new": new})
    assert found.frame[SOURCE].to_list() == ["old"] * 3 + ["new"] * 2
    assert found.frame["price"].dtype == pl.Float64
    assert dict(found.rows_by_source) == {"old": 3, "new": 2}


CARDS = a_dataset(
    columns=[*COLUMNS, {"name": "loyalty", "role": "Context", "type": "Float", "minimum": 0, "maximum": 1}],
    sources=[
        {"name": "visits", "uri": "file:///a", "format": "Parquet"},
        {"name": "cards", "uri": "file:///b", "format": "CSV", "joinOn": "visit"},
    ],
)


def test_a_joined_source_adds_its_columns_by_key() -> None:
    cards = pl.DataFrame({"visit": ["v1-1", "v1-0", "v9-9"], "loyalty": ["0.5", "0.25", "1"]})
    found = assemble(CARDS, {"visits": visits(2), "cards": cards}).frame
    assert found["loyalty"].to_list() == [0.25, 0.5]


def test_a_row_that_brought_its_own_value_keeps_it() -> None:
    own = visits(2).with_columns(loyalty=pl.Series([0.9, None]))
    cards = pl.DataFrame({"visit": ["v1-0", "v1-1"], "loyalty": [0.1, 0.2]})
    assert assemble(CARDS, {"visits": own, "cards": cards}).frame["loyalty"].to_list() == [0.9, 0.2]


def test_a_key_with_two_rows_is_refused() -> None:
    cards = pl.DataFrame({"visit": ["v1-0", "v1-0"], "loyalty": [0.1, 0.2]})
    with pytest.raises(SourceError, match="2 rows share their visit with another, for example 'v1-0'") as caught:
        assemble(CARDS, {"visits": visits(2), "cards": cards})
    assert caught.value.reason == "JoinKeyRepeated"


def test_a_row_without_a_card_breaks_the_contract_of_a_column_that_is_not_nullable() -> None:
    cards = pl.DataFrame({"visit": ["v1-0"], "loyalty": [0.1]})
    with pytest.raises(SourceError, match="loyalty is missing in 1 of 2 rows"):
        assemble(CARDS, {"visits": visits(2), "cards": cards})


def test_a_joined_source_without_the_key_is_named() -> None:
    with pytest.raises(SourceError, match="Column visit is missing in source cards"):
        assemble(CARDS, {"visits": visits(2), "cards": pl.DataFrame({"loyalty": [0.1]})})


def test_a_key_that_is_no_contracted_column_joins_and_is_left_out() -> None:
    data = CARDS.model_copy(
        update={"sources": (CARDS.sources[0], CARDS.sources[1].model_copy(update={"join_on": "card"}))}
    )
    own = visits(2).with_columns(card=pl.Series([7, 8]))
    found = assemble(data, {"visits": own, "cards": pl.DataFrame({"card": ["8", "7"], "loyalty": [0.8, 0.7]})}).frame
    assert found["loyalty"].to_list() == [0.7, 0.8]
    assert "card" not in found.columns


def test_a_pinned_version_that_lacks_a_column_of_todays_contract_is_refused() -> None:
    frame = assemble(SHOP, {"visits": visits(5)}).frame
    assert conform(frame, SHOP).equals(frame.select(conform(frame, SHOP).columns))
    with pytest.raises(SourceError, match="Column loyalty is missing in the data version"):
        conform(frame, CARDS)


def _fails(reason: str, words: str, **tables: pl.DataFrame) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        assemble(SHOP, tables)
    assert caught.value.reason == reason
    assert caught.value.remedy
