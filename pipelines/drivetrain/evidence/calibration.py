"""Calibration drift: do realised outcomes still differ from the predictions made for them as they did after promotion?

No trained model is unbiased at the actions it chose, so the null is a band around the offset of the first matured
decisions. A large offset is a fault of the model (Miscalibrated), not a change of the world.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypedDict

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

    Each slice's own offset is measured on its first `offset_rows` too. A slice column's first `most_slices` values are
    watched each for itself, the others together.
    """

    bounds: Bounds
    tolerance: float
    run_lengths: RunLengths
    offset_rows: int = 500
    most_slices: int = 20


@dataclass(frozen=True, slots=True)
class SliceReading:
    """One detector's reading with its severity; `miscalibrated`: its offset itself lies beyond the tolerance."""

    reading: Reading
    severity: Severity
    miscalibrated: bool


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """What one detector watches: the rows of one slice, or all when it has no column; one class of a Multiclass target.

    In words: `overall`, `store=7`, `class CH`, `class CH, store=7`.
    """

    column: str = ""
    value: str = ""
    label: str = ""

    def __str__(self) -> str:
        named = (f"class {self.label}" if self.label else "", f"{self.column}={self.value}" if self.column else "")
        return ", ".join(name for name in named if name) or "overall"


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """What all detectors say; those of all rows come first."""

    parts: Mapping[Part, SliceReading]

    @property
    def severity(self) -> Severity:
        """The most severe of all."""
        return max(part.severity for part in self.parts.values())

    @property
    def strongest(self) -> tuple[Part, SliceReading]:
        """The detector with the most evidence, the first of equals."""
        return max(self.parts.items(), key=lambda item: item[1].reading.evidence)

    @property
    def miscalibrated(self) -> bool:
        """Whether an offset over all rows lies beyond the tolerance."""
        return any(found.miscalibrated for part, found in self.parts.items() if not part.column)


class CalibrationState(TypedDict):
    """What the calibration detectors persist: slice column, value and state of each; '' stands for all rows."""

    detectors: list[tuple[str, str, DetectorState]]


OTHERS: Final = "(others)"
"""The slice of a column's values beyond the most that are watched."""
OFFSET_MISS: Final = 0.01
"""Chance that any offset lies outside its confidence radius."""


class Calibration:
    """Detectors since one promotion, over all rows and over the slices of every column, that share one stated rate.

    A slice counts its own rows, and each column's slices add up to all rows, however many there are. So the sum of all
    statistics grows by at most 1 a row under the null for the overall detector and 1 for each slice column, and that
    for each class. With every detector at that many times the threshold, the stated run length holds for all together,
    whatever they have in common. The chance of a badly measured offset is split in the same way, and a column's part
    over its slices.
    """

    def __init__(self, plan: CalibrationPlan, *, columns: Sequence[str] = (), classes: Sequence[str] = ()) -> None:
        """`columns`: those that slice the rows; `classes`: of a Multiclass target, each watched against all others."""
        self._plan = plan
        self._columns = tuple(columns)
        self._labels = tuple(classes) or ("",)
        self._share = float(len(self._labels) * (1 + len(self._columns)))
        self._detectors: dict[tuple[str, str], Detector] = {("", ""): self._detector("")}

    def update(
        self, outcome: Floats, prediction: Floats, at: Floats, slices: Mapping[str, NDArray[np.str_]] | None = None
    ) -> None:
        """Add matured decisions in decision order: outcome, the prediction made at decision time, time, slices' names.

        `outcome` and `prediction` are [rows], or [rows, classes] with 1 for the class that came and 0 for the others.
        Raises OutOfBoundsError for an outcome outside the bounds.
        """
        bounds = self._plan.bounds
        bounds.require("outcome", outcome.ravel())
        residual = (outcome - np.clip(prediction, bounds.minimum, bounds.maximum)).reshape(len(at), len(self._labels)).T
        self._detectors["", ""].update(residual, at)
        for column in self._columns:
            names = self._named(column, (slices or {})[column])
            for key, detector in self._detectors.items():
                if key[0] == column:
                    rows = names == key[1]
                    detector.update(residual[:, rows], at[rows])

    @property
    def severity(self) -> Severity:
        """That of the report, at less cost."""
        strongest = max(float(detector.peak.max()) for detector in self._detectors.values())
        return self._plan.run_lengths.severity(strongest, self._share)

    def report(self) -> CalibrationReport:
        """What all detectors say after the latest update."""
        return CalibrationReport(
            {
                Part(column, value, label): self._read(detector.reading((number,)))
                for (column, value), detector in self._detectors.items()
                for number, label in enumerate(self._labels)
            }
        )

    def state(self) -> CalibrationState:
        """The small value from which the detectors go on."""
        return {"detectors": [(*key, detector.state()) for key, detector in self._detectors.items()]}

    def restore(self, state: CalibrationState) -> None:
        """Go on from a state of the same plan and classes; slice columns that it lacks begin anew."""
        for column, value, stored in state["detectors"]:
            if column in ("", *self._columns):
                self._detectors[column, value] = self._detector(column)
                self._detectors[column, value].restore(stored)

    def _named(self, column: str, values: NDArray[np.str_]) -> NDArray[np.str_]:
        """Each row's slice; a new value gets a detector of its own, in the order of rows, while there are few."""
        names, first = np.unique(values, return_index=True)
        known = {value for other, value in self._detectors if other == column}
        for value in names[np.argsort(first)].tolist():
            name = value if value in known or len(known - {OTHERS}) < self._plan.most_slices else OTHERS
            if name not in known:
                known.add(name)
                self._detectors[column, name] = self._detector(column)
        return np.where(np.isin(values, sorted(known)), values, OTHERS)

    def _detector(self, column: str) -> Detector:
        plan, miss = self._plan, OFFSET_MISS / self._share
        if column:
            miss /= plan.most_slices + 1
        band = Band(plan.bounds.width, plan.tolerance, offset_rows=plan.offset_rows, offset_level=1 - miss)
        return Detector(band, runs=(len(self._labels),))

    def _read(self, reading: Reading) -> SliceReading:
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
