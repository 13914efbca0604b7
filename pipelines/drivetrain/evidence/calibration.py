"""Calibration drift: do realised outcomes still differ from the predictions made for them as they did after promotion?

No trained model is unbiased at the actions it chose, so the null is a band around the offset of the first matured
decisions. A large offset is a fault of the model (Miscalibrated), not a change of the world.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from drivetrain.api.errors import DrivetrainError
from drivetrain.evidence.canary import Outcomes, increments
from drivetrain.evidence.detector import Band, Detector, DetectorState, Reading
from drivetrain.evidence.intervals import Bools, Bounds, Floats


class Severity(IntEnum):
    """How strongly a detector speaks; each level above NONE has its own stated false-alarm rate."""

    NONE = 0
    WARN = 1
    SEVERE = 2


@dataclass(frozen=True, slots=True)
class RunLengths:
    """Rows between false alarms, on average at least, at each severity."""

    warn: float
    severe: float

    def __post_init__(self) -> None:
        if not 1 < self.warn <= self.severe:
            raise DrivetrainError("Average run lengths need 1 < warn <= severe.")

    def severity(self, evidence: float, share: float = 1.0) -> Severity:
        """The severity of one detector's evidence when `share` detectors' worth of rows may raise the same alarm."""
        if evidence >= share * self.severe:
            return Severity.SEVERE
        return Severity.WARN if evidence >= share * self.warn else Severity.NONE


@dataclass(frozen=True, slots=True)
class CalibrationPlan:
    """What is declared for calibration drift: the KPI's or metric's bounds, the tolerance, and what each alarm costs.

    `slice_offset_rows` are the rows of one slice on which its own offset is measured.
    """

    bounds: Bounds
    tolerance: float
    run_lengths: RunLengths
    offset_rows: int = 500
    slice_offset_rows: int = 300


@dataclass(frozen=True, slots=True)
class SliceReading:
    """One detector's reading with its severity; `miscalibrated`: its offset itself lies beyond the tolerance."""

    reading: Reading
    severity: Severity
    miscalibrated: bool


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """The overall detector and those of the slices seen so far."""

    overall: SliceReading
    slices: Mapping[str, SliceReading]

    @property
    def severity(self) -> Severity:
        """The most severe of all."""
        return max((self.overall, *self.slices.values()), key=lambda part: part.severity).severity

    @property
    def strongest(self) -> tuple[str | None, SliceReading]:
        """Name (None: overall) and reading of the detector with the most evidence."""
        parts: list[tuple[str | None, SliceReading]] = [(None, self.overall), *self.slices.items()]
        return max(parts, key=lambda part: part[1].reading.evidence)


class CalibrationState(TypedDict):
    """What the calibration detectors persist."""

    overall: DetectorState
    slices: dict[str, DetectorState]


class Calibration:
    """Overall and sliced detectors since one promotion, sharing one stated false-alarm rate.

    A slice counts its own rows, and the slices' rows add up to all rows, so the sum of all statistics grows by at most
    2 a row under the null: with each detector at twice the threshold the stated run length holds for all together,
    however many slices there are.
    """

    def __init__(self, plan: CalibrationPlan, *, sliced: bool) -> None:
        self._plan = plan
        self._share = 2.0 if sliced else 1.0
        self._overall = Detector(self._band(plan.offset_rows))
        self._slices: dict[str, Detector] = {}

    def update(self, outcome: Floats, prediction: Floats, at: Floats, slices: NDArray[np.str_] | None = None) -> None:
        """Add matured decisions in decision order: outcome, the prediction made at decision time, time, slice's name.

        Raises OutOfBoundsError for an outcome outside the bounds.
        """
        bounds = self._plan.bounds
        bounds.require("outcome", outcome)
        residual = outcome - np.clip(prediction, bounds.minimum, bounds.maximum)
        self._overall.update(residual, at)
        if slices is None:
            return
        for name in sorted({str(name) for name in slices} | set(self._slices)):
            rows = slices == name
            detector = self._slices.setdefault(name, Detector(self._band(self._plan.slice_offset_rows)))
            detector.update(residual[rows], at[rows])

    def report(self) -> CalibrationReport:
        """What all detectors say after the latest update."""
        return CalibrationReport(
            self._read(self._overall), {name: self._read(detector) for name, detector in self._slices.items()}
        )

    def state(self) -> CalibrationState:
        """The small value from which the detectors go on."""
        return {
            "overall": self._overall.state(),
            "slices": {name: detector.state() for name, detector in self._slices.items()},
        }

    def restore(self, state: CalibrationState) -> None:
        """Go on from a state of the same plan."""
        self._overall.restore(state["overall"])
        for name, stored in state["slices"].items():
            self._slices[name] = Detector(self._band(self._plan.slice_offset_rows))
            self._slices[name].restore(stored)

    def _band(self, offset_rows: int) -> Band:
        return Band(bound=self._plan.bounds.width, tolerance=self._plan.tolerance, offset_rows=offset_rows)

    def _read(self, detector: Detector) -> SliceReading:
        reading = detector.reading()
        severity = self._plan.run_lengths.severity(reading.evidence, self._share)
        miscalibrated = reading.offset is not None and abs(reading.offset) > self._plan.tolerance
        return SliceReading(reading, severity, miscalibrated)


class KpiDrop:
    """Does the policy's advantage over the concurrent holdout fall below what it was after promotion, by `tolerance`?

    The stream is the canary's increment with the policy as candidate, so a change that hits both alike stays silent.
    """

    def __init__(self, plan: CalibrationPlan) -> None:
        self._plan = plan
        width = plan.bounds.width
        self._detector = Detector(
            Band(bound=width, tolerance=plan.tolerance, offset_rows=plan.offset_rows, directions=("Down",))
        )

    def update(self, in_policy: Bools, policy_share: Floats, kpi: Outcomes, at: Floats) -> None:
        """Add matured units in decision order, the KPI in its good direction, the holdout being the stable arm.

        Raises OutOfBoundsError for a KPI outside the bounds.
        """
        bounds = self._plan.bounds
        bounds.require("KPI", kpi.y)
        zero = np.zeros_like(kpi.y)
        m_holdout, m_policy = (
            np.clip(zero if m is None else m, bounds.minimum, bounds.maximum) for m in (kpi.m_stable, kpi.m_candidate)
        )
        x = increments(in_policy, policy_share, kpi.y, m_holdout, m_policy)
        self._detector.update(x, at, policy_share * (1 - policy_share))

    def report(self) -> SliceReading:
        """What the detector says; `miscalibrated` is false by definition."""
        reading = self._detector.reading()
        return SliceReading(reading, self._plan.run_lengths.severity(reading.evidence), False)

    def state(self) -> DetectorState:
        """The small value from which the detector goes on."""
        return self._detector.state()

    def restore(self, state: DetectorState) -> None:
        """Go on from a state of the same plan."""
        self._detector.restore(state)
