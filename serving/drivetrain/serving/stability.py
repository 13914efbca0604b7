"""Drift since the stable policy's promotion: who comes, how they respond, and what the policy is worth."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import numpy as np

from drivetrain.api import decision_log as log
from drivetrain.api.policy import EndpointConfig
from drivetrain.api.report import DetectorEvidence, DriftEvidence
from drivetrain.evidence.calibration import (
    Calibration,
    CalibrationPlan,
    KpiDrop,
    RunLengths,
    Severity,
    SliceReading,
)
from drivetrain.evidence.canary import Outcomes
from drivetrain.evidence.detector import average_run_length
from drivetrain.evidence.intervals import Bounds, OutOfBoundsError
from drivetrain.levers.assignment import Arm
from drivetrain.levers.grid import Booleans, Floats
from drivetrain.serving.alarm import NAMES, WARN_FACTOR, YEAR_DAYS, Alarm
from drivetrain.serving.arrivals import Doubt
from drivetrain.serving.covariates import Covariates
from drivetrain.serving.judged import Judged, Realised
from drivetrain.serving.maturation import Cohort, instant

_MOST_SNAPSHOTS: Final = 64
"""Beyond as many, going back may go further than was needed."""


class Stability:
    """Detectors of one stable policy; fed with its matured decisions from its promotion on."""

    def __init__(self, config: EndpointConfig, stable: Judged, since: datetime | None) -> None:
        self._config = config
        self._stable = stable
        self.since = since
        monitoring = config.monitoring
        rows_per_year = monitoring.decisions_per_day * YEAR_DAYS
        drift = monitoring.drift
        self._run_lengths = {
            "calibration": _run_lengths(drift.calibration.false_alarms_per_year, rows_per_year),
            "kpi": _run_lengths(drift.kpi.false_alarms_per_year, rows_per_year),
        }
        self._calibration, self._kpi_drop = self._detectors()
        self._covariates = Covariates(monitoring, stable.reference)
        self._confirmation = stable.policy.objective.kpi.matures_after.total_seconds()
        self._alarms = {"calibration": Alarm(), "kpi": Alarm()}
        self._snapshots: list[tuple[float, dict[str, Any]]] = []
        self._message = ""
        self._halted = False

    def configure(self, config: EndpointConfig) -> None:
        """Takes over a changed configuration of the same stable policy."""
        monitoring = config.monitoring
        if (monitoring.window, monitoring.drift.covariate) != (
            self._config.monitoring.window,
            self._config.monitoring.drift.covariate,
        ):
            self._covariates = Covariates(monitoring, self._stable.reference)
        self._config = config

    def feed(self, cohort: Cohort, outcome: Realised, doubt: Doubt) -> None:
        """Adds a matured cohort, valued by the stable policy's objective.

        What compares outcomes with the past leaves doubted decisions out; where they have been counted already, it goes
        back to where it was before them.
        """
        times = cohort.seconds
        since = self.since.timestamp() if self.since is not None else -np.inf
        recent = times > since
        if not recent.any():
            return
        if doubt.since is not None:
            self._go_back(doubt.since)
        certain = recent & ~doubt.rows
        if certain.any():
            self._keep_snapshot(float(times[certain][0]), doubt.open_since)
            self._feed_outcomes(cohort, outcome, certain)
            for name, severity in self._severities().items():
                self._alarms[name].heard(severity, float(times[certain][-1]))
        self._covariates.feed(cohort.where(recent))

    def _feed_outcomes(self, cohort: Cohort, outcome: Realised, recent: Booleans) -> None:
        policy = np.asarray(cohort.texts(log.POLICY) == self._stable.hash, dtype=bool)
        arm = cohort.texts(log.ARM)
        chosen = np.asarray(cohort.texts(log.FALLBACK) == "", dtype=bool)
        try:
            own = recent & policy & chosen & np.isfinite(outcome.target) & ~outcome.overridden
            if self._calibration is not None and own.any():
                self._feed_calibration(cohort.where(own), outcome.target[own])
            stable_arm = np.asarray(arm == Arm.STABLE.value, dtype=bool) & policy
            held = np.asarray(arm == Arm.HOLDOUT.value, dtype=bool)
            compared = recent & (stable_arm | held) & np.isfinite(outcome.kpi)
            if self._kpi_drop is not None and compared.any():
                self._feed_kpi(cohort.where(compared), outcome.kpi[compared], stable_arm[compared])
        except OutOfBoundsError as error:
            self._halted, self._message = True, str(error)

    def report(self, *, open_since: str, trouble: str = "") -> DriftEvidence:
        """The detectors' words; `open_since` names what forbids a verdict now, '' when nothing does.

        `trouble` says why outcomes cannot be compared with the past now.
        """
        calibration, kpi = self._calibration_evidence(), self._kpi_evidence()
        covariate = self._covariates.evidence()
        miscalibrated = self._calibration is not None and self._calibration.report().miscalibrated
        if trouble:
            calibration, kpi = (_silenced(part, trouble) for part in (calibration, kpi))
        if open_since:
            covariate, calibration, kpi = (
                _silenced(part, f"No verdict {open_since}.") for part in (covariate, calibration, kpi)
            )
        return DriftEvidence(covariate=covariate, calibration=calibration, kpi=kpi, miscalibrated=miscalibrated)

    def state(self) -> dict[str, Any]:
        """What a restart needs to go on exactly."""
        return {
            "stable": self._stable.hash,
            "outcomes": self._outcome_state(),
            "covariates": self._covariates.state(),
            "halted": [self._halted, self._message],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state of the same policy."""
        self._restore_outcomes(state["outcomes"])
        self._covariates.restore(state["covariates"])
        self._halted, self._message = state["halted"]

    def _detectors(self) -> tuple[Calibration | None, KpiDrop | None]:
        """New detectors of what outcomes tell, as far as the policy and its bounds allow them."""
        stable, drift = self._stable, self._config.monitoring.drift
        if stable.policy.model is None:
            return None, None
        calibration, kpi_drop = None, None
        classes = stable.policy.target.classes
        if (bounds := Bounds(0.0, 1.0) if classes else stable.target_bounds) is not None:
            plan = CalibrationPlan(bounds, drift.calibration.tolerance, self._run_lengths["calibration"])
            calibration = Calibration(plan, columns=stable.policy.slices, classes=classes)
        if self._config.holdout > 0 and (bounds := stable.kpi_bounds) is not None:
            plan = CalibrationPlan(self._signed(bounds), drift.kpi.tolerance, self._run_lengths["kpi"])
            kpi_drop = KpiDrop(plan)
        return calibration, kpi_drop

    def _severities(self) -> dict[str, Severity]:
        found = {}
        if self._calibration is not None:
            found["calibration"] = self._calibration.severity
        if self._kpi_drop is not None:
            found["kpi"] = self._kpi_drop.report().severity
        return found

    def _outcome_state(self) -> dict[str, Any]:
        return {
            "calibration": self._calibration.state() if self._calibration is not None else None,
            "kpi": self._kpi_drop.state() if self._kpi_drop is not None else None,
            "alarms": {name: alarm.state() for name, alarm in self._alarms.items()},
        }

    def _restore_outcomes(self, state: Mapping[str, Any]) -> None:
        self._calibration, self._kpi_drop = self._detectors()
        if self._calibration is not None and state["calibration"] is not None:
            self._calibration.restore(state["calibration"])
        if self._kpi_drop is not None and state["kpi"] is not None:
            self._kpi_drop.restore(state["kpi"])
        self._alarms = {name: Alarm(*times) for name, times in state["alarms"].items()}

    def _keep_snapshot(self, first: float, open_since: float) -> None:
        """Remembers the state before the decision made at `first`, four times in a maturation time.

        Kept are those of three maturation times, and the last one before what may yet be doubted.
        """
        if self._snapshots and first < self._snapshots[-1][0] + self._confirmation / 4:
            return
        self._snapshots.append((first, self._outcome_state()))
        horizon = min(first - 3 * self._confirmation, open_since)
        while len(self._snapshots) > 1 and self._snapshots[1][0] <= horizon:
            del self._snapshots[0]
        if len(self._snapshots) > _MOST_SNAPSHOTS:
            del self._snapshots[1]

    def _go_back(self, before: float) -> None:
        """To the last state kept before that time, or the oldest one kept."""
        while len(self._snapshots) > 1 and self._snapshots[-1][0] > before:
            del self._snapshots[-1]
        if self._snapshots:
            self._restore_outcomes(self._snapshots[-1][1])

    def _feed_calibration(self, cohort: Cohort, target: Floats) -> None:
        assert self._calibration is not None
        # A replica that had yet to hear of the promotion logged this policy as the candidate.
        before = np.asarray(cohort.texts(log.ARM) == Arm.CANDIDATE.value, dtype=bool)
        stable, candidate = (
            cohort.matrix(name).reshape(len(cohort), -1) for name in (log.PREDICTION_STABLE, log.PREDICTION_CANDIDATE)
        )
        prediction = np.where(before[:, None], candidate, stable)
        known = np.asarray(np.isfinite(prediction).all(axis=1), dtype=bool)
        if not known.any():
            return
        cohort, target, prediction = cohort.where(known), target[known], prediction[known]
        classes = len(self._stable.policy.target.classes)
        outcome = np.eye(classes)[target.astype(np.int64)] if classes else target[:, None]
        slices = {
            column: cohort.labels(log.CONTEXT_PREFIX + column).astype(str) for column in self._stable.policy.slices
        }
        self._calibration.update(outcome, prediction, cohort.seconds, slices)

    def _feed_kpi(self, cohort: Cohort, kpi: Floats, in_policy: Booleans) -> None:
        assert self._kpi_drop is not None
        sign = 1.0 if self._stable.higher_is_better else -1.0
        m_policy, m_holdout = cohort.numbers(log.M_STABLE), cohort.numbers(log.M_HOLDOUT)
        known = np.isfinite(m_policy) & np.isfinite(m_holdout)
        # Share of the policy among the units that follow it or the holdout, by the weight in force at decision time.
        holdout = self._config.holdout
        policy = (1 - holdout) * (1 - cohort.numbers(log.WEIGHT))
        outcomes = Outcomes(sign * kpi, sign * np.where(known, m_holdout, 0.0), sign * np.where(known, m_policy, 0.0))
        self._kpi_drop.update(in_policy, policy / (policy + holdout), outcomes, cohort.seconds)

    def _calibration_evidence(self) -> DetectorEvidence:
        if self._calibration is None:
            return DetectorEvidence(message="Needs a model and a bounded target.")
        part, strongest = self._calibration.report().strongest
        alarm = self._alarms["calibration"]
        return _detector(
            strongest, alarm.confirmed(self._confirmation), f"mean residual ({part})", self._trouble(alarm)
        )

    def _kpi_evidence(self) -> DetectorEvidence:
        if self._kpi_drop is None:
            return DetectorEvidence(message="Needs a model, a holdout and a bounded KPI.")
        found = self._kpi_drop.report()
        alarm = self._alarms["kpi"]
        return _detector(found, alarm.confirmed(self._confirmation), "advantage over the holdout", self._trouble(alarm))

    def _trouble(self, alarm: Alarm) -> str:
        if self._message or alarm.confirmed(self._confirmation) is not Severity.NONE or alarm.warn is None:
            return self._message
        return "It may have moved; judged once outcomes as late as twice kpi.maturesAfter are in."

    def _signed(self, bounds: Bounds) -> Bounds:
        return bounds if self._stable.higher_is_better else Bounds(-bounds.maximum, -bounds.minimum)


def _detector(found: SliceReading, severity: Severity, what: str, trouble: str) -> DetectorEvidence:
    reading = found.reading
    numbers = {"rows": str(reading.rows), "evidence": f"{reading.evidence:.4g}"}
    if reading.offset is not None and reading.radius is not None:
        numbers["offset"] = f"{reading.offset:.4f} +- {reading.radius:.4f}"
    if trouble:
        message = trouble
    elif reading.offset is None:
        message = f"The {what} is being measured after the promotion."
    elif severity is Severity.NONE:
        message = f"The {what} stays near its offset."
    else:
        message = f"The {what} moved {reading.direction.lower()} from its offset."
    alarmed = severity is not Severity.NONE
    return DetectorEvidence(
        severity=NAMES[severity],
        message=message,
        changed_at=instant(reading.began * 1e6) if alarmed else None,
        evidence=numbers,
    )


def _silenced(found: DetectorEvidence, message: str) -> DetectorEvidence:
    return found.model_copy(update={"severity": "None", "message": message, "changed_at": None})


def _run_lengths(false_alarms_per_year: float, rows_per_year: float) -> RunLengths:
    severe = max(average_run_length(false_alarms_per_year, rows_per_year), 2.0)
    return RunLengths(warn=max(severe / WARN_FACTOR, 1.5), severe=severe)
