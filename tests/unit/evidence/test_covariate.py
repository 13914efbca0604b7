"""Histograms, the corrected distance, e-BH and the windows' e-processes."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivetrain.api.errors import DrivetrainError
from drivetrain.evidence.calibration import Severity
from drivetrain.evidence.covariate import ColumnEvidence, CovariatePlan, WindowState, discoveries, judge
from drivetrain.evidence.histogram import Bins, Histogram, distance

COUNTS = st.lists(st.integers(0, 50), min_size=4, max_size=4).map(tuple)


@given(COUNTS, COUNTS, COUNTS)
def test_histograms_merge_in_any_order(a: tuple[int, ...], b: tuple[int, ...], c: tuple[int, ...]) -> None:
    one, two, three = Histogram(a), Histogram(b), Histogram(c)
    assert (one + two) + three == one + (three + two)
    assert (one + two).rows == one.rows + two.rows


def test_numbers_fall_into_bins_of_about_equal_mass_with_null_last() -> None:
    values = np.arange(100.0)
    bins = Bins.of_numbers(values, count=4)
    assert bins.count_numbers(np.append(values, [np.nan, np.nan])).counts[-1] == 2
    assert max(bins.count_numbers(values).counts) <= 26
    assert bins.count_numbers(np.array([-1e9, 1e9, np.inf])).rows == 3


def test_a_column_of_few_distinct_numbers_gets_a_bin_for_each() -> None:
    values = np.repeat([0.0, 1.0], [90, 10])
    assert Bins.of_numbers(values).count_numbers(values).counts == (90, 10, 0)


def test_levels_that_the_reference_lacks_and_nulls_have_bins_of_their_own() -> None:
    bins = Bins.of_levels(["a", "b", "b"])
    assert bins.count_levels(["a", "b", "zebra", None, "b"]).counts == (1, 2, 1, 1)


def test_only_the_most_frequent_levels_get_a_bin() -> None:
    assert Bins.of_levels(["c", "b", "b", "a", "a"], most=2).levels == ("a", "b")


def test_bins_are_restored_from_their_state() -> None:
    for bins in (Bins.of_numbers(np.arange(50.0)), Bins.of_levels(["x", "y"])):
        assert Bins.from_state(json.loads(json.dumps(bins.state()))) == bins


def test_histograms_over_other_bins_do_not_merge() -> None:
    with pytest.raises(DrivetrainError, match="different bins"):
        Histogram((1, 2)) + Histogram((1, 2, 3))


def test_the_corrected_distance_is_zero_on_average_without_drift_and_large_with_it() -> None:
    rng = np.random.default_rng(1)
    chances = np.full(10, 0.1)
    quiet = [
        distance(Histogram(tuple(rng.multinomial(500, chances))), Histogram(tuple(rng.multinomial(300, chances))))
        for _ in range(300)
    ]
    assert abs(float(np.mean(quiet))) < 0.01
    assert distance(Histogram((500, 500, 0)), Histogram((0, 500, 500))) > 1


def test_an_empty_side_says_nothing() -> None:
    assert distance(Histogram((0, 0)), Histogram((5, 5))) == 0.0


def test_e_bh_keeps_the_largest_set_that_its_evidence_carries() -> None:
    evidence = {"a": 100.0, "b": 30.0, "c": 1.0, "d": 0.1}
    assert discoveries(evidence, 0.1) == {"a", "b"}  # 100 >= 4 / 0.1 / 1, and 30 >= 4 / 0.1 / 2
    assert discoveries(evidence, 0.03) == set()
    assert discoveries({}, 0.1) == set()


def a_column(shift: float, rows: int = 1_000) -> ColumnEvidence:
    rng = np.random.default_rng(2)
    reference = rng.normal(size=3_000)
    bins = Bins.of_numbers(reference)
    column = ColumnEvidence(bins.count_numbers(reference), rng)
    column.update(bins.count_numbers(rng.normal(shift, 1, rows)), rng)
    return column


def test_severity_needs_both_an_effect_and_evidence() -> None:
    lenient = CovariatePlan(0.1, 0.25, warn_alpha=0.1, severe_alpha=0.02)
    readings = judge({"moved": a_column(0.8), "still": a_column(0.0)}, lenient)
    assert readings["moved"].severity is Severity.SEVERE
    assert readings["still"].severity is Severity.NONE
    insensitive = CovariatePlan(5.0, 9.0, warn_alpha=0.1, severe_alpha=0.02)
    assert judge({"moved": a_column(0.8)}, insensitive)["moved"].severity is Severity.NONE


def test_stated_rates_become_a_chance_per_window() -> None:
    plan = CovariatePlan.of_rates(warn_per_year=12, severe_per_year=1, windows_per_year=52)
    assert (plan.warn_alpha, plan.severe_alpha) == (12 / 52, 1 / 52)


def test_a_stored_window_goes_on_as_if_it_had_never_stopped() -> None:
    column = a_column(0.3, rows=300)
    stored: WindowState = json.loads(json.dumps(column.state()))
    copy = a_column(0.0, rows=0)
    copy.restore(stored)
    batch = Histogram((30, 10, 10, 10, 10, 10, 10, 5, 5, 0, 0))
    for one in (column, copy):
        one.update(batch, np.random.default_rng(7))
    assert copy.evidence == column.evidence
    assert copy.distance == column.distance


def test_evidence_of_another_reference_is_refused() -> None:
    rng = np.random.default_rng(3)
    with pytest.raises(DrivetrainError, match="another reference"):
        ColumnEvidence(Histogram((100, 100)), rng).restore(a_column(0.0).state())


def test_a_reference_of_a_few_rows_is_refused() -> None:
    with pytest.raises(DrivetrainError, match="100 rows"):
        ColumnEvidence(Histogram((20, 20)), np.random.default_rng(4))
