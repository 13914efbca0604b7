"""The governor of retraining: what asks for a run, and what holds it back. Pure.

A trigger is found from the ledger and the Monitor's report; a hold says why it must wait, and until when if a clock
decides. A person's request (Manual) and the first run are held by nothing but a run that is under way.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from drivetrain.api.ledger import DeploymentLedger, ProjectLedger, StartedRun
from drivetrain.api.report import DetectorEvidence, ServingReport
from drivetrain.api.v1alpha1.dataset import TrainingWindow
from drivetrain.api.v1alpha1.deployment import RejectedVariant
from drivetrain.api.v1alpha1.loop import Loop, Severity
from drivetrain.api.v1alpha1.trainingrun import Cause
from drivetrain.controller.core.policies import champion_of, same_version

WEEK = timedelta(days=7)
DRIFT_CAUSES: frozenset[str] = frozenset({"Drift", "Calibration", "KpiDrop"})
GOVERNED: frozenset[str] = DRIFT_CAUSES | {"CanaryRejected", "Schedule", "DataChanged"}
"""Causes that nobody asked for by hand: cooldown, breaker and the need for explored outcomes apply."""
_LARGE = re.compile(r"\b([1-9](?:\.\d+)?)e\+(\d+)\b")
_RANK = {"None": 0, "Warn": 1, "Severe": 2}


@dataclass(frozen=True, slots=True)
class Trigger:
    """A reason to train."""

    cause: Cause
    why: str
    evidence: Mapping[str, str] = field(default_factory=dict)
    window: TrainingWindow | None = None
    changed_at: datetime | None = None
    harm: bool = False
    """A rejection for proved harm: it need not wait for the last promotion to mature."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a trigger waits."""

    why: str
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """What the governor looks at."""

    loop: Loop
    ledger: ProjectLedger
    serving: DeploymentLedger | None
    report: ServingReport | None
    training_hash: str
    matures_after: timedelta
    retrain_asked: str
    """Value of the retrain annotation that was not acted on yet."""
    data_changed: str
    """Value of the data-changed annotation that was not acted on yet."""
    gpu_hours: float
    """Of the runs that were under way within the last seven days."""


def next_trigger(s: Situation, now: datetime) -> Trigger | None:
    """The first reason to train that holds, in this order of rank."""
    if not s.ledger.runs and s.ledger.runs_started == 0:
        return Trigger("Initial", "No run has been started yet.")
    if s.retrain_asked:
        return Trigger("Manual", "Asked for by annotation.", {"token": s.retrain_asked[:64]})
    if s.ledger.training_hash is not None and s.ledger.training_hash != s.training_hash:
        evidence = {"was": s.ledger.training_hash, "is": s.training_hash}
        return Trigger("SpecChanged", "The project's data, training, decisions or objective changed.", evidence)
    if s.data_changed:
        return Trigger("DataChanged", "New data was announced by annotation.", {"token": s.data_changed[:64]})
    return _rejected(s) or _drifted(s) or _new_files(s) or _scheduled(s, now)


def hold(s: Situation, trigger: Trigger, now: datetime) -> Hold | None:
    """Why this trigger must wait; None: train now."""
    running = next((run for run in s.ledger.runs if not run.finished), None)
    if running is not None:
        return Hold(f"{running.name} is under way; runs go one at a time.")
    if trigger.cause in ("Initial", "Manual"):
        return None
    if s.serving is not None and s.serving.candidate is not None:
        return Hold("A rollout is open; training now would answer a question that it has not settled.")
    matured = _matured_at(s)
    if matured is not None and now < matured and not trigger.harm:
        return Hold("The last promotion's first decisions have not matured yet.", matured)
    if s.gpu_hours >= s.loop.gpu_hours_per_week > 0:
        return Hold(f"{s.gpu_hours:.1f} of {s.loop.gpu_hours_per_week:g} GPU-hours of this week are used.")
    return _governed(s, trigger, now) if trigger.cause in GOVERNED else None


def _governed(s: Situation, trigger: Trigger, now: datetime) -> Hold | None:
    if circuit_open(s.ledger, s.loop):
        return Hold(
            f"{s.ledger.rejected_in_a_row} candidates in a row were rejected. Look at them, then ask for a retraining."
        )
    if s.ledger.last_loop_run_at is not None and now < s.ledger.last_loop_run_at + s.loop.cooldown:
        return Hold("Cooling down after the last retraining.", s.ledger.last_loop_run_at + s.loop.cooldown)
    if trigger.cause == "DataChanged":
        return None
    drift = trigger.cause in DRIFT_CAUSES
    explored = (s.report.explored_since_change if drift else s.report.explored) if s.report else 0
    if explored < s.loop.min_explored_outcomes:
        since = " since the change" if drift else ""
        return Hold(f"{explored} of {s.loop.min_explored_outcomes} matured explored outcomes are in{since}.")
    return None


def circuit_open(ledger: ProjectLedger, loop: Loop) -> bool:
    """Whether too many candidates in a row were rejected for the loop to go on by itself."""
    return ledger.rejected_in_a_row >= loop.stop_after_rejected


def gpu_hours(runs: tuple[StartedRun, ...], now: datetime) -> float:
    """GPU-hours of the runs that were under way within the last seven days.

    They count whole, since nobody knows when in its life a run held its GPUs: never too few, some for a while too long.
    """
    return sum(run.gpu_seconds for run in runs if not run.finished or (run.ended_at or run.at) > now - WEEK) / 3600


def loop_rejection(serving: DeploymentLedger | None, runs: tuple[StartedRun, ...]) -> RejectedVariant | None:
    """The newest rejection on evidence of a candidate that the loop had trained and nothing was started after.

    The champion's own model under other levers or constraints is none: they were rejected, and no training mends them.
    """
    newest = max((run.at for run in runs), default=None)
    champion = champion_of(serving) if serving else None
    for each in serving.rejected if serving else ():
        run = next((run for run in runs if same_version(run, each)), None)
        if each.at is not None and newest is not None and each.at > newest and each.reason in ("Harm", "Inconclusive"):
            return each if run is not None and run.cause != "Manual" and not same_version(each, champion) else None
    return None


def _rejected(s: Situation) -> Trigger | None:
    found = loop_rejection(s.serving, s.ledger.runs) if s.loop.retrain.rejected else None
    if found is None:
        return None
    evidence = {"hash": found.hash, "version": found.version or "", "reason": found.reason, "message": found.message}
    why = f"Version {found.version} was rejected: {found.reason}."
    return Trigger("CanaryRejected", why, evidence, harm=found.reason == "Harm")


def _drifted(s: Situation) -> Trigger | None:
    if s.report is None or s.report.drift is None:
        return None
    drift, asked = s.report.drift, s.loop.retrain
    detectors: tuple[tuple[Cause, DetectorEvidence, Severity], ...] = (
        ("Calibration", drift.calibration, asked.calibration),
        ("KpiDrop", drift.kpi, asked.kpi),
        ("Drift", drift.covariate, asked.drift),
    )
    for cause, found, least in detectors:
        if least == "Never" or _RANK[found.severity] < _RANK[least] or _answers(s, found):
            continue
        since = found.changed_at
        window = TrainingWindow(since=since.isoformat(), stale_weight=asked.stale_weight) if since else None
        numbers = {name: legible(told) for name, told in found.evidence.items()}
        evidence = {"severity": found.severity, "message": found.message, **numbers}
        return Trigger(cause, found.message or f"{cause}: {found.severity}.", evidence, window, since)
    return None


def legible(evidence: str) -> str:
    """Evidence whose large numbers are powers of ten: 10^249 and not 1.875e+249."""
    return _LARGE.sub(lambda found: f"10^{math.log10(float(found[1])) + int(found[2]):.0f}", evidence)


def _answers(s: Situation, found: DetectorEvidence) -> bool:
    """Whether a run was started for this drift already and may still turn out well.

    One that was refused by its gates or failed answers nothing: after the cooldown there is more data to try with. One
    that was deleted does: whoever deleted it wants none, and a read from the past that lacks it must start no second.
    """
    promoted = s.serving.stable.since if s.serving and s.serving.stable else None
    begun = max((each for each in (found.changed_at, promoted) if each is not None), default=None)
    for run in s.ledger.runs:
        if run.cause not in DRIFT_CAUSES or (begun is not None and run.at < begun):
            continue
        if run.finished in ("", "Approved", "Deleted") and run.verdict in ("", "Promoted"):
            return True
    return False


def _new_files(s: Situation) -> Trigger | None:
    seen = s.report.data_fingerprint if s.report else None
    if not s.loop.retrain.new_data or not seen or not s.ledger.data_fingerprint or seen == s.ledger.data_fingerprint:
        return None
    return Trigger("DataChanged", "Files under the sources' prefixes changed.", {"fingerprint": seen})


def _scheduled(s: Situation, now: datetime) -> Trigger | None:
    last = max((run.at for run in s.ledger.runs), default=None)
    if s.loop.retrain.schedule is None or last is None or now < last + s.loop.retrain.schedule:
        return None
    return Trigger("Schedule", "The last training is older than the schedule allows.", {"last": last.isoformat()})


def scheduled_at(loop: Loop, ledger: ProjectLedger) -> datetime | None:
    """When the schedule asks for the next run."""
    last = max((run.at for run in ledger.runs), default=None)
    return last + loop.retrain.schedule if loop.retrain.schedule is not None and last is not None else None


def _matured_at(s: Situation) -> datetime | None:
    """When the first decisions since the last promotion of a model are matured."""
    stable = s.serving.stable if s.serving else None
    if s.serving is None or stable is None or stable.since is None or stable.hash == s.serving.baseline:
        return None
    return stable.since + s.matures_after
