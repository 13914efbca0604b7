"""Drift of a stable policy whose target has classes, by every slice column that the project declares."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np

from drivetrain.api import decision_log as log
from drivetrain.api.policy import EndpointConfig, Policy, policy_hash
from drivetrain.api.report import DetectorEvidence
from drivetrain.api.v1alpha1.dataset import Target
from drivetrain.api.v1alpha1.project import VersionReference
from drivetrain.api.v1alpha1.rollout import Monitoring
from drivetrain.serving.evidence import Evidence
from drivetrain.serving.judged import Judged
from drivetrain.serving.maturation import Cohort
from tests.unit.serving.logs import START
from tests.unit.serving.worlds import COLUMNS, LEVERS, objective
from tests.unit.serving.written import cohort

CLASSES = ("CH", "MM", "none")
COHORT = 600


class Brands:
    """A model that knows the chance of each brand exactly, and customers of two stores on two weekdays."""

    def __init__(self) -> None:
        fields = {
            "objective": objective(value="(purchase = 'CH') * (price - discount - 1.1)"),
            "levers": LEVERS,
            "columns": COLUMNS,
            "target": Target(name="purchase", type="Multiclass", classes=CLASSES),
            "slices": ("store", "weekday"),
        }
        today = Policy.model_validate(fields)
        stable = Policy.model_validate({**fields, "model": VersionReference(version="1", digest="0" * 64, run="r")})
        self.policies = {policy_hash(each): Judged.of(policy_hash(each), each) for each in (today, stable)}
        baseline, self.stable = self.policies
        since = (START - timedelta(seconds=1)).isoformat()
        monitoring = Monitoring(decisions_per_day=20_000)
        self.config = EndpointConfig(
            stable=self.stable, baseline=baseline, salt="s", stable_since=since, monitoring=monitoring
        )
        self._rng = np.random.default_rng(7)
        self._cohorts = 0

    def evidence(self) -> Evidence:
        found = Evidence()
        found.configure(self.config, self.policies)
        return found

    def matured(self, *, lost: float = 0.0) -> Cohort:
        """A quarter of an hour; on Sundays a share `lost` of those who chose CH chooses MM instead."""
        rng = self._rng
        chance = rng.dirichlet((4.0, 3.0, 3.0), COHORT)
        weekday = rng.choice(["Sat", "Sun"], COHORT)
        chosen = (rng.random(COHORT)[:, None] > np.cumsum(chance, axis=1)[:, :2]).sum(axis=1)
        chosen = np.where((chosen == 0) & (weekday == "Sun") & (rng.random(COHORT) < lost), 1, chosen)
        columns: dict[str, object] = {
            log.ARM: "stable",
            log.POLICY: self.stable,
            log.OBJECTIVE: self.policies[self.stable].objective,
            log.PREDICTION_STABLE: chance.tolist(),
            log.PREDICTION_CANDIDATE: [None] * COHORT,
            f"{log.ACTION_PREFIX}price": 1.99,
            f"{log.ACTION_PREFIX}discount": 0.0,
            f"{log.CONTEXT_PREFIX}store": rng.choice(["1", "2"], COHORT).astype(object),
            f"{log.CONTEXT_PREFIX}weekday": weekday.astype(object),
        }
        at = START.timestamp() + 900 * self._cohorts + np.linspace(0, 899, COHORT)
        self._cohorts += 1
        return cohort(at, columns, [{"label.purchase": CLASSES[index]} for index in chosen.tolist()])


def calibration(evidence: Evidence) -> DetectorEvidence:
    drift = evidence.findings(datetime(2027, 1, 1, tzinfo=UTC), 0).drift
    assert drift is not None
    return drift.calibration


def test_a_class_that_one_slice_of_the_second_column_loses_is_named_and_nothing_before() -> None:
    brands = Brands()
    evidence = brands.evidence()
    for _ in range(8):
        evidence.feed(brands.matured())
    assert calibration(evidence).severity == "None"
    for _ in range(8):
        evidence.feed(brands.matured(lost=0.8))
    found = calibration(evidence)
    assert found.severity == "Severe"
    assert "weekday=Sun" in found.message
    assert "class CH" in found.message or "class MM" in found.message


def test_the_evidence_of_classes_and_slices_goes_on_after_a_restart() -> None:
    brands = Brands()
    through, before = brands.evidence(), brands.evidence()
    for number in range(6):
        matured = brands.matured(lost=0.4 * (number > 3))
        through.feed(matured)
        if number < 3:
            before.feed(matured)
        elif number == 3:
            after = brands.evidence()
            after.restore(json.loads(json.dumps(before.state())))
            after.feed(matured)
        else:
            after.feed(matured)
    assert calibration(after) == calibration(through)
    assert json.dumps(after.state()) == json.dumps(through.state())
