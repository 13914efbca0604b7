"""The e-detector and the calibration report: arithmetic, false-alarm rates, offsets and stored state."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from drivetrain.api.errors import DrivetrainError
from drivetrain.evidence.betting import FRACTIONS
from drivetrain.evidence.calibration import (
    OTHERS,
    Calibration,
    CalibrationPlan,
    CalibrationState,
    KpiDrop,
    Part,
    RunLengths,
    Severity,
)
from drivetrain.evidence.canary import Outcomes
from drivetrain.evidence.detector import (
    Band,
    Detector,
    DetectorState,
    average_run_length,
    false_alarms_per_year,
)
from drivetrain.evidence.intervals import Bounds, Floats, OutOfBoundsError

BAND = Band(bound=1.0, tolerance=0.05, offset_rows=100)
PLAN = CalibrationPlan(Bounds(0, 1), 0.05, RunLengths(1e4, 1e5), offset_rows=200)


def noise(count: int, mean: float, seed: int = 1) -> Floats:
    return np.clip(np.random.default_rng(seed).normal(mean, 0.2, count), -1, 1)


def test_the_statistic_follows_the_shiryaev_roberts_recursion() -> None:
    x = noise(400, 0.1)
    detector = Detector(BAND)
    detector.update(x, np.arange(400.0))
    offset, radius = (float(value) for value in detector.offset())
    assert offset == pytest.approx(float(x[:100].mean()))
    edges = np.array([offset + 0.05 + radius, offset - 0.05 - radius])
    bound = 1.0 + np.max(np.abs(edges))
    statistic, peak = np.zeros((2, len(FRACTIONS))), 0.0
    for value in x[100:]:
        gain = np.array([value - edges[0], edges[1] - value]) / bound
        statistic = (statistic + 1) * (1 + gain[:, None] * FRACTIONS)
        peak = max(peak, float(statistic.mean()))
    assert float(detector.peak) == pytest.approx(peak)


def test_how_rows_are_batched_changes_neither_offset_nor_statistic_nor_the_start_of_the_change() -> None:
    x = np.concatenate([noise(600, 0.0), noise(300, -0.4, seed=2)])
    at = np.arange(900.0)
    whole, parts = Detector(BAND), Detector(BAND)
    whole.update(x, at)
    for start in range(0, 900, 41):
        parts.update(x[start : start + 41], at[start : start + 41])
    one, other = whole.reading(), parts.reading()
    assert (one.rows, one.direction, one.began) == (other.rows, "Down", other.began)
    assert one.offset == pytest.approx(other.offset)
    np.testing.assert_allclose(whole.state()["statistic"], parts.state()["statistic"])


def test_a_stored_detector_goes_on_as_if_it_had_never_stopped() -> None:
    x, at = noise(800, 0.1), np.arange(800.0)
    uninterrupted, before, after = Detector(BAND), Detector(BAND), Detector(BAND)
    uninterrupted.update(x[:300], at[:300])
    uninterrupted.update(x[300:], at[300:])
    before.update(x[:300], at[:300])
    stored: DetectorState = json.loads(json.dumps(before.state()))
    after.restore(stored)
    after.update(x[300:], at[300:])
    assert after.reading() == uninterrupted.reading()


def test_a_change_that_nobody_answers_saturates_instead_of_overflowing() -> None:
    detector = Detector(BAND)
    detector.update(noise(100, 0.0), np.zeros(100))
    for _ in range(20):
        detector.update(np.ones(500), np.zeros(500))
    reading = detector.reading()
    assert np.isfinite(reading.evidence)
    assert reading.evidence > 1e200
    assert json.loads(json.dumps(detector.state()))["peak"] == [reading.evidence]


def test_a_value_beyond_the_bound_is_refused() -> None:
    with pytest.raises(DrivetrainError, match="beyond the declared bound"):
        Detector(BAND).update(np.array([1.5]), np.zeros(1))


def test_false_alarms_per_year_and_run_length_are_each_others_inverse() -> None:
    run_length = average_run_length(2.0, rows_per_year=1e6)
    assert run_length == 500_000
    assert false_alarms_per_year(run_length, 1e6) == 2.0
    with pytest.raises(DrivetrainError):
        average_run_length(0.0, 1e6)


def fed(calibration: Calibration, count: int, bias: float, names: tuple[str, ...] = ("a", "b"), seed: int = 1) -> None:
    rng = np.random.default_rng(seed)
    prediction = rng.uniform(0.3, 0.7, count)
    outcome = (rng.random(count) < prediction + bias).astype(np.float64)
    calibration.update(outcome, prediction, np.arange(count, dtype=np.float64), {"store": rng.choice(names, count)})


def test_an_offset_beyond_the_tolerance_is_miscalibrated_and_not_drift() -> None:
    calibration = Calibration(PLAN, columns=["store"])
    fed(calibration, 6_000, 0.2)
    report = calibration.report()
    assert report.miscalibrated
    assert report.severity is Severity.NONE


def test_a_well_calibrated_model_is_neither() -> None:
    calibration = Calibration(PLAN, columns=["store"])
    fed(calibration, 6_000, 0.0)
    report = calibration.report()
    assert not report.miscalibrated
    assert report.severity is Severity.NONE
    assert {str(part) for part in report.parts} == {"overall", "store=a", "store=b"}


def test_a_drop_after_promotion_is_severe_and_dated() -> None:
    calibration = Calibration(PLAN, columns=["store"])
    fed(calibration, 3_000, 0.0)
    fed(calibration, 3_000, -0.29, seed=2)
    report = calibration.report()
    assert report.severity is Severity.SEVERE
    assert report.strongest[1].reading.direction == "Down"


def test_slices_share_the_alarm_rate_so_each_needs_twice_the_evidence() -> None:
    run_lengths = RunLengths(100.0, 1_000.0)
    assert run_lengths.severity(1_500.0) is Severity.SEVERE
    assert run_lengths.severity(1_500.0, share=2.0) is Severity.WARN
    assert run_lengths.severity(99.0) is Severity.NONE


def test_every_slice_column_and_class_shares_the_alarm_rate_and_the_chance_of_a_bad_offset() -> None:
    rows = 400
    draws = np.random.default_rng(5)
    outcome = np.eye(3)[draws.integers(3, size=rows)]
    slices = {"store": draws.choice(["a", "b"], rows), "day": draws.choice(["x", "y", "z"], rows)}
    calibration = Calibration(PLAN, columns=["store", "day"], classes=["red", "green", "blue"])
    calibration.update(outcome, np.full((rows, 3), 1 / 3), np.arange(400.0), slices)
    report = calibration.report()
    assert len(report.parts) == 3 * (1 + 2 + 3)
    assert {"overall", "store=a"}.isdisjoint(str(part) for part in report.parts)
    assert {"class red", "class blue, day=z"} <= {str(part) for part in report.parts}
    radius = report.parts[Part(label="red")].reading.radius
    alone = Calibration(PLAN)
    alone.update(outcome[:, 0], np.full(rows, 1 / 3), np.arange(400.0))
    narrow = alone.report().parts[Part()].reading.radius
    assert radius is not None
    assert narrow is not None
    assert radius / narrow == pytest.approx(float(norm.ppf(1 - 0.005 / 9) / norm.ppf(0.995)))
    assert calibration.severity is report.severity


def test_values_beyond_the_most_that_are_watched_share_one_detector_whatever_the_batches() -> None:
    plan = replace(PLAN, most_slices=3)
    names = np.array(["d", "b", "a", "c", "e", "a", "d"] * 30)
    outcome, at = np.tile([0.0, 1.0, 0.0], 70), np.arange(210.0)
    whole, parts = Calibration(plan, columns=["store"]), Calibration(plan, columns=["store"])
    whole.update(outcome, np.full(210, 0.5), at, {"store": names})
    for start in range(0, 210, 4):
        rows = slice(start, start + 4)
        parts.update(outcome[rows], np.full(len(at[rows]), 0.5), at[rows], {"store": names[rows]})
    rows_of = {str(part): found.reading.rows for part, found in whole.report().parts.items()}
    assert rows_of == {"overall": 210, "store=d": 60, "store=b": 30, "store=a": 60, f"store={OTHERS}": 60}
    assert rows_of == {str(part): found.reading.rows for part, found in parts.report().parts.items()}


@pytest.mark.parametrize("rows", [1, 7, 3000])
def test_a_slice_that_moved_stays_severe_through_batches_without_its_rows(rows: int) -> None:
    rng, count = np.random.default_rng(4), 6000
    stores, times = rng.integers(0, 5, count).astype(str), np.arange(count, dtype=float)
    outcome = (rng.random(count) < np.where((stores == "3") & (times > 3000), 0.05, 0.6)).astype(float)
    calibration, heard = Calibration(PLAN, columns=["store"]), []
    for start in range(0, count, rows):
        at = times[start : start + rows]
        part = slice(start, start + rows)
        calibration.update(outcome[part], np.full(len(at), 0.6), at, {"store": stores[part]})
        heard.append(calibration.severity)
    first = heard.index(Severity.SEVERE)
    assert 3000 <= first * rows < 4000
    assert set(heard[first:]) == {Severity.SEVERE}
    part_named, _ = calibration.report().strongest
    assert part_named == Part("store", "3")


def test_stored_calibration_goes_on_as_if_it_had_never_stopped() -> None:
    uninterrupted, before, after = (Calibration(PLAN, columns=["store"]) for _ in range(3))
    for calibration in (uninterrupted, before):
        fed(calibration, 2_000, 0.0)
    stored: CalibrationState = json.loads(json.dumps(before.state()))
    after.restore(stored)
    for calibration in (uninterrupted, after):
        fed(calibration, 500, 0.1, seed=3)
    assert after.report() == uninterrupted.report()


def test_an_outcome_outside_the_bounds_is_refused_before_anything_is_counted() -> None:
    calibration = Calibration(PLAN)
    with pytest.raises(OutOfBoundsError):
        calibration.update(np.array([0.5, 2.0]), np.array([0.5, 0.5]), np.zeros(2))
    assert calibration.report().parts[Part()].reading.rows == 0


def test_a_kpi_drop_looks_down_only_and_its_state_goes_on() -> None:
    rng = np.random.default_rng(4)
    count = 4_000
    policy = rng.random(count) < 0.5
    y = (rng.random(count) < np.where(policy, 0.5, 0.4) + 0.4 * policy * (np.arange(count) > 1_000)).astype(np.float64)
    drop, copy = KpiDrop(PLAN), KpiDrop(PLAN)
    half = Outcomes(y, np.full(count, 0.5), np.full(count, 0.5))
    drop.update(policy, np.full(count, 0.5), half, np.arange(count, dtype=np.float64))
    assert drop.report().severity is Severity.NONE  # the policy got better
    copy.restore(json.loads(json.dumps(drop.state())))
    assert copy.report() == drop.report()
