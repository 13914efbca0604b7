"""How often do the drift detectors cry wolf, and how soon do they see a wolf?"""

import numpy as np
import pytest

from drivetrain.evidence.calibration import (
    Calibration,
    CalibrationPlan,
    KpiDrop,
    RunLengths,
    Severity,
)
from drivetrain.evidence.canary import Outcomes
from drivetrain.evidence.covariate import ColumnEvidence, CovariatePlan, judge
from drivetrain.evidence.detector import Band, Detector
from drivetrain.evidence.histogram import Bins, distance
from drivetrain.evidence.intervals import Bounds, Floats
from drivetrain.evidence.sample_ratio import SampleRatio
from tests.support.binomial import assert_rate_above, assert_rate_below

RUN_LENGTH = 400_000.0


def residuals(runs: int, rows: int, shift: float, rng: np.random.Generator) -> Floats:
    """Purchase minus its exact probability, where every customer has another one, plus a shift."""
    chance = rng.uniform(0.2, 0.8, (runs, rows))
    return np.asarray((rng.random((runs, rows)) < chance + shift) - chance)


def first_alarms(
    detector: Detector, shift: float, rows: int, rng: np.random.Generator, *, runs: int, every: int = 250
) -> Floats:
    """Rows until the first alarm of each run, to the next multiple of `every`; infinite: none."""
    found = np.full(runs, np.inf)
    for start in range(0, rows, every):
        detector.update(residuals(runs, every, shift, rng), np.arange(start, start + every, dtype=np.float64))
        found = np.where((detector.peak >= RUN_LENGTH) & np.isinf(found), start + every, found)
    return found


@pytest.mark.parametrize(("bias", "tolerance"), [(0.0, 0.0), (0.06, 0.03)], ids=["perfect", "biased beyond tolerance"])
def test_a_model_that_stays_as_it_was_alarms_no_more_often_than_stated(bias: float, tolerance: float) -> None:
    """In 20,000 rows at a run length of 400,000 the chance of a false alarm is at most 5 %."""
    runs = 300
    rng = np.random.default_rng(11)
    detector = Detector(Band(1.0, tolerance, offset_rows=500), runs=(runs,))
    found = first_alarms(detector, bias, 20_000, rng, runs=runs)
    assert_rate_below(int(np.isfinite(found).sum()), runs, 20_000 / RUN_LENGTH)


@pytest.mark.parametrize("age", [2_000, 20_000])
def test_a_change_is_seen_as_soon_however_long_it_was_quiet_before(age: int) -> None:
    runs = 200
    rng = np.random.default_rng(12)
    detector = Detector(Band(1.0, 0.03, offset_rows=1_000), runs=(runs,))
    assert not np.isfinite(first_alarms(detector, 0.0, age, rng, runs=runs)).any()
    delay = first_alarms(detector, -0.2, 1_500, rng, runs=runs, every=50)
    assert_rate_above(int(np.sum(delay <= 1_000)), runs, 0.95)
    assert np.median(delay) <= 500


def test_the_beginning_of_a_change_is_found_to_within_a_few_hundred_rows() -> None:
    rng = np.random.default_rng(13)
    close = 0
    for _ in range(100):
        detector = Detector(Band(1.0, 0.03, offset_rows=1_000))
        before, after = residuals(1, 5_000, 0.0, rng)[0], residuals(1, 1_000, -0.2, rng)[0]
        detector.update(np.concatenate([before, after]), np.arange(6_000.0))
        reading = detector.reading()
        assert reading.direction == "Down"
        close += abs(reading.began - 5_000) <= 300
    assert_rate_above(close, 100, 0.85)


def test_overall_and_five_stores_share_one_false_alarm_rate_and_a_changed_store_is_named() -> None:
    plan = CalibrationPlan(Bounds(0, 1), 0.05, RunLengths(warn=RUN_LENGTH, severe=RUN_LENGTH))
    rng = np.random.default_rng(14)
    runs, rows = 100, 10_000
    false_alarms, named = 0, 0
    stores = np.array(["1", "2", "3", "4", "7"])
    bias = np.array([0.031, -0.02, 0.0, 0.01, 0.005])
    for _ in range(runs):
        store = rng.integers(5, size=rows + 2_500)
        chance = rng.uniform(0.35, 0.85, len(store))
        changed = (np.arange(len(store)) >= rows) & (store == 2)
        y = (rng.random(len(store)) < chance + bias[store] - 0.3 * changed).astype(np.float64)
        at = np.arange(len(store), dtype=np.float64)
        calibration = Calibration(plan, columns=["store"])
        worst = Severity.NONE
        for start in range(0, rows, 1_000):
            part = slice(start, start + 1_000)
            calibration.update(y[part], chance[part], at[part], {"store": stores[store[part]]})
            worst = max(worst, calibration.report().severity)
        false_alarms += worst > Severity.NONE
        calibration.update(y[rows:], chance[rows:], at[rows:], {"store": stores[store[rows:]]})
        report = calibration.report()
        named += report.severity is Severity.SEVERE and str(report.strongest[0]) == "store=3"
    assert_rate_below(false_alarms, runs, 0.08)
    assert_rate_above(named, runs, 0.9)


COLORS = ("red", "green", "blue")
COLUMNS = {"store": ("1", "2", "3", "4", "7"), "day": ("Mon", "Tue", "Wed"), "channel": ("app", "web")}


class Boutique:
    """Customers of three slice columns who choose a colour; every one has another distribution, known exactly."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._rows = 0

    def serve(self, calibration: Calibration, rows: int, *, lost: float = 0.0) -> None:
        """The next customers; `lost`: share of the red choices of store 3 that became blue."""
        rng = self._rng
        slices = {column: rng.choice(values, rows) for column, values in COLUMNS.items()}
        chance = rng.dirichlet((4.0, 3.0, 3.0), rows)
        chosen = (rng.random(rows)[:, None] > np.cumsum(chance, axis=1)[:, :2]).sum(axis=1)
        moved = (chosen == 0) & (slices["store"] == "3") & (rng.random(rows) < lost)
        outcome = np.eye(3)[np.where(moved, 2, chosen)]
        at = np.arange(self._rows, self._rows + rows, dtype=np.float64)
        self._rows += rows
        calibration.update(outcome, chance, at, slices)


def test_three_slice_columns_of_three_classes_share_one_false_alarm_rate_even_without_a_tolerance() -> None:
    """In 5,000 rows at a run length of 50,000 the chance that any of 33 detectors alarms falsely is at most 10 %."""
    rng = np.random.default_rng(20)
    plan = CalibrationPlan(Bounds(0, 1), 0.0, RunLengths(warn=50_000, severe=50_000))
    runs, rows, alarms = 60, 5_000, 0
    for _ in range(runs):
        calibration, boutique = Calibration(plan, columns=tuple(COLUMNS), classes=COLORS), Boutique(rng)
        worst = Severity.NONE
        for _ in range(rows // 1_000):
            boutique.serve(calibration, 1_000)
            worst = max(worst, calibration.severity)
        alarms += worst > Severity.NONE
    assert len(calibration.report().parts) == 3 * (1 + 5 + 3 + 2)
    assert_rate_below(alarms, runs, rows / 50_000)


def test_a_class_that_one_store_loses_is_named_within_a_thousand_of_its_rows() -> None:
    rng = np.random.default_rng(21)
    plan = CalibrationPlan(Bounds(0, 1), 0.05, RunLengths(warn=RUN_LENGTH, severe=RUN_LENGTH))
    runs, named, delays = 40, 0, []
    for _ in range(runs):
        calibration, boutique = Calibration(plan, columns=tuple(COLUMNS), classes=COLORS), Boutique(rng)
        boutique.serve(calibration, 5_000)
        quiet = calibration.severity
        assert quiet is Severity.NONE
        delay = 0
        while calibration.severity is Severity.NONE and delay < 5_000:
            boutique.serve(calibration, 250, lost=0.8)
            delay += 250
        delays.append(delay / 5)
        part = calibration.report().strongest[0]
        named += (part.column, part.value) == ("store", "3") and part.label in ("red", "blue")
    print(f"rows of the store from change to alarm: median {np.median(delays):.0f}, most {max(delays):.0f}")  # noqa: T201 - what the simulation found
    assert_rate_above(sum(delay < 1_000 for delay in delays), runs, 0.85)
    assert_rate_above(named, runs, 0.85)


def test_a_kpi_drop_that_the_holdout_shares_is_silent_and_one_that_it_does_not_is_seen() -> None:
    plan = CalibrationPlan(Bounds(0, 1), 0.02, RunLengths(warn=1e4, severe=1e5), offset_rows=4_000)
    rng = np.random.default_rng(15)
    runs, rows, changes_at = 60, 20_000, 8_000
    shared, own = 0, 0
    for _ in range(runs):
        for holdout_suffers in (True, False):
            share = np.full(rows, 0.8)
            policy = rng.random(rows) < share
            late = np.arange(rows) >= changes_at
            chance = 0.4 + 0.2 * policy - 0.2 * late * (policy | holdout_suffers)
            y = (rng.random(rows) < chance).astype(np.float64)
            drop = KpiDrop(plan)
            severe = False
            for start in range(0, rows, 500):
                part = slice(start, start + 500)
                expected = np.full(500, 0.5)
                drop.update(policy[part], share[part], Outcomes(y[part], expected, expected), np.arange(500.0))
                severe |= drop.report().severity is Severity.SEVERE
            if holdout_suffers:
                shared += severe
            else:
                own += severe
    assert_rate_below(shared, runs, 0.2)  # 20,000 rows at a run length of 100,000
    assert_rate_above(own, runs, 0.9)


def a_window(shift: float, rows: int, rng: np.random.Generator) -> dict[str, ColumnEvidence]:
    """Evidence on ten columns after one window, the first of them shifted by `shift` standard deviations."""
    columns = {}
    for number in range(10):
        reference = rng.normal(size=2_000)
        bins = Bins.of_numbers(reference)
        column = ColumnEvidence(bins.count_numbers(reference), rng)
        column.update(bins.count_numbers(rng.normal(shift * (number == 0), 1, rows)), rng)
        columns[f"column-{number}"] = column
    return columns


def test_windows_without_covariate_drift_alarm_no_more_often_than_stated_though_raw_distances_are_large() -> None:
    plan = CovariatePlan.of_rates(warn_per_year=5.2, severe_per_year=1.0, windows_per_year=52)
    rng = np.random.default_rng(16)
    windows, alarms, raw, corrected = 150, 0, 0, 0
    for _ in range(windows):
        readings = judge(a_window(0.0, 200, rng), plan)
        alarms += any(reading.severity for reading in readings.values())
        reference = rng.normal(size=200)
        bins = Bins.of_numbers(reference, count=20)
        n, m = bins.count_numbers(reference), bins.count_numbers(rng.normal(size=200))
        moved = distance(n, m)
        raw += moved + 19 * (1 / 200 + 1 / 200) > 0.1
        corrected += moved > 0.1
    assert_rate_below(alarms, windows, 0.1)
    assert_rate_above(raw, windows, 0.85)  # what the uncorrected index would have called drift
    assert_rate_below(corrected, windows, 0.3)


def test_a_shifted_column_is_found_severe_within_a_window_and_its_neighbours_are_not() -> None:
    plan = CovariatePlan.of_rates(warn_per_year=5.2, severe_per_year=1.0, windows_per_year=52)
    rng = np.random.default_rng(17)
    windows, found, neighbours = 60, 0, 0
    for _ in range(windows):
        readings = judge(a_window(0.8, 1_000, rng), plan)
        found += readings["column-0"].severity is Severity.SEVERE
        neighbours += any(reading.severity for name, reading in readings.items() if name != "column-0")
    assert_rate_above(found, windows, 0.9)
    assert_rate_below(neighbours, windows, 0.1)


def test_unequal_reporting_halts_and_equal_reporting_does_not() -> None:
    rng = np.random.default_rng(18)
    runs, rows = 200, 6_000
    false_alarms, found = 0, 0
    for run in range(runs):
        weight = np.where(np.arange(rows) < rows // 2, 0.1, 0.5)
        candidate = rng.random(rows) < weight
        unequal = run % 2 == 1
        reports = rng.random(rows) < np.where(candidate & unequal, 0.6, 0.8)
        check = SampleRatio(alpha=0.01)
        mismatch = False
        for start in range(0, rows, 500):
            part = slice(start, start + 500)
            check.update(candidate[part][reports[part]], weight[part][reports[part]])
            mismatch |= check.mismatch
        if unequal:
            found += mismatch
        else:
            false_alarms += mismatch
    assert_rate_below(false_alarms, runs // 2, 0.05)
    assert_rate_above(found, runs // 2, 0.95)


@pytest.mark.nightly
def test_the_stated_run_length_holds_over_many_long_quiet_streams() -> None:
    runs, rows = 2_000, 50_000
    detector = Detector(Band(1.0, 0.0, offset_rows=500), runs=(runs,))
    found = first_alarms(detector, 0.0, rows, np.random.default_rng(19), runs=runs)
    assert_rate_below(int(np.isfinite(found).sum()), runs, rows / RUN_LENGTH)
