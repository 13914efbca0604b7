"""The split: stable, without leaks, and honest about data that cannot be split."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from drivetrain.api.errors import ContractError
from drivetrain.api.v1alpha1.dataset import Dataset, TrainingWindow
from drivetrain.pipelines.frame import assemble
from drivetrain.pipelines.rows import DECIDED_AT, PART, PROPENSITY, TrainingRows
from drivetrain.pipelines.split import split
from tests.support.shop import a_dataset, visits

RANDOM = a_dataset()
BY_STORE_WEEK = {"strategy": "Group", "column": "week"}
BY_TIME = {"strategy": "Time", "column": "week"}


def divided(frame: pl.DataFrame, data: Dataset = RANDOM, window: TrainingWindow | None = None) -> TrainingRows:
    return split(assemble(data, {"visits": frame}).frame, "0" * 32, data, "visit", window)


@pytest.mark.parametrize("strategy", [None, BY_STORE_WEEK], ids=["each row for itself", "by group"])
@pytest.mark.parametrize("unlogged", [False, True], ids=["logged propensity", "observational"])
def test_rows_that_come_later_move_no_row_to_another_part_or_half(strategy: Any, unlogged: bool) -> None:
    data = a_dataset(split=strategy) if strategy else RANDOM
    frame = pl.concat([visits(1500, seed=1), visits(800, seed=2)])
    if unlogged:
        frame = frame.with_columns(chance=pl.lit(None, dtype=pl.Float64))
    before, after = divided(frame.head(1500), data), divided(frame, data)
    assert after.frame[PART][:1500].equals(before.frame[PART])
    assert (after.half[:1500] == before.half).all()


def test_the_order_of_rows_does_not_matter() -> None:
    frame = visits(1500)
    straight, turned = divided(frame), divided(frame.reverse())
    assert turned.frame[PART].reverse().equals(straight.frame[PART])


def test_parts_have_their_shares_and_halves_are_even() -> None:
    rows = divided(visits(20_000))
    assert rows.test.mean() == pytest.approx(0.2, abs=0.01)
    assert rows.validation.mean() == pytest.approx(0.2, abs=0.01)
    assert rows.train.mean() == pytest.approx(0.6, abs=0.012)
    assert rows.half.mean() == pytest.approx(0.5, abs=0.015)
    assert rows.half[rows.test].mean() == pytest.approx(0.5, abs=0.03), "halves do not depend on parts"


def test_groups_stay_together() -> None:
    rows = divided(visits(1500), a_dataset(split=BY_STORE_WEEK))
    assert rows.frame.group_by("week").agg(pl.col(PART).n_unique())[PART].max() == 1


def test_observational_rows_are_split_by_the_cell_in_which_the_lever_is_constant() -> None:
    frame = visits(3000).with_columns(chance=pl.lit(None, dtype=pl.Float64))
    rows = divided(frame)
    cells = rows.frame.group_by("week", "store", "price").agg(pl.col(PART).n_unique())
    assert cells[PART].max() == 1
    assert not rows.experimental


def test_a_unit_with_several_logged_rows_stays_together() -> None:
    frame = visits(3000).with_columns(visit=pl.Series([f"customer {number % 500}" for number in range(3000)]))
    rows = divided(frame)
    assert rows.frame.group_by("visit").agg(pl.col(PART).n_unique())[PART].max() == 1
    assert rows.experimental


def test_by_time_the_latest_rows_test_and_rows_of_one_time_stay_together() -> None:
    rows = divided(visits(3000), a_dataset(split=BY_TIME))
    weeks = rows.frame["week"].to_numpy()
    assert weeks[rows.train].max() < weeks[rows.validation].min()
    assert weeks[rows.validation].max() < weeks[rows.test].min()


def test_by_time_logged_decisions_come_after_the_history() -> None:
    frame = assemble(RANDOM, {"visits": visits(1000)}).frame
    live = frame.with_columns(
        pl.lit(None, dtype=pl.Int64).alias("week"),
        pl.datetime_range(
            pl.datetime(2026, 1, 1), pl.datetime(2026, 1, 2), interval="1m", time_zone="UTC", time_unit="us", eager=True
        )
        .head(1000)
        .alias(DECIDED_AT),
    )
    data = a_dataset(split=BY_TIME)
    rows = split(pl.concat([live, frame]), "0" * 32, data, "visit", None)
    assert rows.logged[rows.test].all()
    assert not rows.test[~rows.logged].any()
    assert (np.flatnonzero(rows.test) >= 590).all(), "the latest of the logged ones"


def test_a_window_weighs_fresh_rows_one_and_all_others_less() -> None:
    frame = assemble(RANDOM, {"visits": visits(2000)}).frame
    stamps = pl.Series(
        DECIDED_AT, [None] * 1000 + [pl.Series(["2026-01-02"]).str.to_datetime(time_zone="UTC")[0]] * 1000
    )
    frame = frame.with_columns(stamps.cast(pl.Datetime("us", "UTC")))
    window = TrainingWindow(since="2026-01-01T00:00:00Z", stale_weight=0.25)
    rows = split(frame, "0" * 32, RANDOM, "visit", window)
    assert (rows.weight[:1000] == 0.25).all()
    assert (rows.weight[1000:] == 1).all()
    assert (divided(visits(2000)).weight == 1).all()


def test_columns_known_only_afterwards_are_not_among_the_rows() -> None:
    columns = [*RANDOM.model_dump(by_alias=True)["columns"], {"name": "mood", "role": "AfterAction", "type": "String"}]
    columns = [{key: value for key, value in column.items() if value is not None} for column in columns]
    data = a_dataset(columns=columns)
    rows = divided(visits(1000).with_columns(mood=pl.lit("good")), data)
    assert not {"mood", "chance"} & set(rows.frame.columns)
    assert rows.frame[PROPENSITY].null_count() == 0


def test_one_class_is_nothing_to_learn() -> None:
    _fails("TargetOneClass", "sold = 1", visits(1000).with_columns(sold=pl.lit(1)))


def test_a_constant_regression_target_is_nothing_to_learn_either() -> None:
    data = a_dataset(target={"name": "sold", "type": "Regression"})
    _fails("TargetOneClass", "sold = 3", visits(1000).with_columns(sold=pl.lit(3.0)), data)


def test_a_class_without_training_rows_is_named() -> None:
    data = a_dataset(target={"name": "sold", "type": "Multiclass", "classes": ["a", "b", "c"]})
    frame = visits(1000).with_columns(sold=pl.Series(["a", "b"] * 500))
    _fails("TargetClassMissing", "sold = c", frame, data)


def test_too_few_rows_say_which_part_is_short() -> None:
    _fails("TooFewRows", r"\d+ of 60 rows fall into the validation part; 20 are needed", visits(60))


def test_rows_outside_the_window_are_no_training_rows() -> None:
    window = TrainingWindow(since="2026-01-01T00:00:00Z")
    with pytest.raises(ContractError, match="0 of 1000 rows fall into the training half 0") as caught:
        divided(visits(1000), window=window)
    assert caught.value.reason == "TooFewRows"


def test_a_slice_with_a_value_a_row_is_refused() -> None:
    frame = visits(1000).with_columns(store=pl.Series([f"s{number}" for number in range(1000)]))
    _fails("SliceTooManyValues", "store has 1000 values; at most 50", frame)


def _fails(reason: str, words: str, frame: pl.DataFrame, data: Dataset = RANDOM) -> None:
    with pytest.raises(ContractError, match=words) as caught:
        divided(frame, data)
    assert caught.value.reason == reason
    assert caught.value.remedy
