"""KPIs and guardrails whose bounds nobody declared: derived where they can be, asymptotic where they cannot."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from drivetrain.api import decision_log as log
from drivetrain.api.policy import EndpointConfig, Policy, policy_hash
from drivetrain.api.report import RolloutEvidence
from drivetrain.api.v1alpha1.dataset import Target
from drivetrain.api.v1alpha1.project import DrivetrainProjectSpec, VersionReference
from drivetrain.serving.clipping import SAMPLE
from drivetrain.serving.evidence import Evidence
from drivetrain.serving.judged import Judged
from drivetrain.serving.maturation import Cohort
from tests.unit.serving.logs import START
from tests.unit.serving.written import cohort

MANIFEST = Path(__file__).parents[3] / "examples" / "renewals" / "project.yaml"
COST = {"none": 0.0, "email": 0.5, "call": 6.0}


def renewals() -> DrivetrainProjectSpec:
    return DrivetrainProjectSpec.model_validate(yaml.safe_load(MANIFEST.read_text())["spec"])


class Rollout:
    """The renewals project with version 1 rolled out against today's policy: an e-mail and a credit of 5."""

    def __init__(self, *, metrics: Sequence[dict[str, Any]] = (), target: Target | None = None, noise: str = "even"):
        spec = renewals()
        columns = spec.data.columns
        if target is not None:  # the column must not bound what the target does not
            free = {"minimum": target.minimum, "maximum": target.maximum}
            columns = tuple(c.model_copy(update=free) if c.name == target.name else c for c in columns)
        fields: dict[str, Any] = {
            "objective": spec.objective,
            "levers": spec.levers,
            "columns": columns,
            "target": target or spec.data.target,
        }
        today = Policy(**fields)
        model = Policy(**fields, model=VersionReference(version="1", digest="0" * 64, run="renewals-1"))
        self.policies = {policy_hash(each): Judged.of(policy_hash(each), each) for each in (today, model)}
        self.stable, self.candidate = self.policies
        self.objective = self.policies[self.stable].objective
        self.noise = noise
        assert spec.serving is not None
        analysis = spec.serving.rollout.analysis.model_dump(by_alias=True) | {"metrics": list(metrics)}
        self.config = EndpointConfig.model_validate(
            {
                "stable": self.stable,
                "baseline": self.stable,
                "candidate": self.candidate,
                "weight": 50,
                "rollout": "r1",
                "salt": "s",
                "analysis": analysis,
            }
        )

    def evidence(self) -> Evidence:
        found = Evidence()
        found.configure(self.config, self.policies)
        return found

    def matured(self, rng: np.random.Generator, number: int, rows: int = 400, *, call_adds: float = 12.0) -> Cohort:
        """Version 1 calls everybody; a call brings more revenue and costs 6."""
        candidate = rng.random(rows) < 0.5
        channel = np.where(candidate, "call", "email").astype(object)
        mean = 30 + call_adds * candidate
        spread = rng.uniform(-20, 20, rows) if self.noise == "even" else rng.standard_t(4, rows) * 8
        columns = {
            log.ARM: np.where(candidate, "candidate", "stable").astype(object),
            log.POLICY: np.where(candidate, self.candidate, self.stable).astype(object),
            log.ROLLOUT: "r1",
            log.WEIGHT: 0.5,
            log.OBJECTIVE: self.objective,
            f"{log.ACTION_PREFIX}channel": channel,
            f"{log.ACTION_PREFIX}credit": 5.0,
        }
        at = START.timestamp() + number * 10 + np.arange(rows) / 1e3
        return cohort(at, columns, [{"label.revenue": value} for value in (mean + spread).tolist()])


def found(evidence: Evidence) -> RolloutEvidence:
    report = evidence.findings(START, 50).rollout
    assert report is not None
    return report


def test_the_renewals_project_is_judged_within_bounds_derived_from_its_own_manifest() -> None:
    rollout = Rollout()
    bounds = rollout.policies[rollout.candidate].kpi_bounds
    assert bounds is not None
    assert (bounds.minimum, bounds.maximum) == (-26.0, 120.0)  # 0 - 20 - 6, and a full revenue without any cost
    evidence, rng = rollout.evidence(), np.random.default_rng(1)
    for number in range(6):
        evidence.feed(rollout.matured(rng, number))
    report = found(evidence)
    (kpi,) = report.metrics
    assert (report.halted, report.message) == ("", "")
    assert kpi.lower < 12 - 5.5 < kpi.upper
    assert kpi.lower > 0
    assert report.outcomes_stable + report.outcomes_candidate == 2_400


UNBOUNDED = Target(name="revenue", type="Regression", minimum=0)


def test_an_unbounded_kpi_is_judged_asymptotically_beyond_a_measured_clip_and_says_so() -> None:
    rollout = Rollout(target=UNBOUNDED, noise="heavy")
    assert rollout.policies[rollout.candidate].kpi_bounds is None
    evidence, rng = rollout.evidence(), np.random.default_rng(2)
    evidence.feed(rollout.matured(rng, 0, SAMPLE - 1))
    assert "measure" in found(evidence).message
    for number in range(1, 6):
        evidence.feed(rollout.matured(rng, number))
    report = found(evidence)
    assert report.halted == ""
    assert "asymptotic" in report.message
    assert report.metrics[0].lower > 0
    assert report.metrics[0].lower < 6.5 < report.metrics[0].upper
    assert report.outcomes_stable + report.outcomes_candidate == 5 * 400 - 1  # the first 200 only measured


def test_nothing_is_claimed_of_an_unbounded_kpi_before_a_hundred_outcomes_per_arm() -> None:
    rollout = Rollout(target=UNBOUNDED)
    evidence, rng = rollout.evidence(), np.random.default_rng(3)
    evidence.feed(rollout.matured(rng, 0, SAMPLE + 150, call_adds=100))
    (kpi,) = found(evidence).metrics
    assert (kpi.lower, kpi.upper) == (-1e300, 1e300)


@pytest.mark.parametrize("batch", [37, 400])
def test_batches_and_restarts_do_not_move_the_clip(batch: int) -> None:
    rollout, rng = Rollout(target=UNBOUNDED), np.random.default_rng(4)
    whole = rollout.matured(rng, 0, 1_200)
    together, apart = rollout.evidence(), rollout.evidence()
    together.feed(whole)
    for start in range(0, 1_200, batch):
        apart.feed(whole.where((np.arange(1_200) >= start) & (np.arange(1_200) < start + batch)))
        state = json.loads(json.dumps(apart.state()))
        apart = rollout.evidence()
        apart.restore(state)
    one, other = found(together), found(apart)
    assert one.message == other.message
    assert one.metrics[0].lower == pytest.approx(other.metrics[0].lower)
    assert one.outcomes_stable == other.outcomes_stable


def test_an_unbounded_kpi_that_never_varies_claims_nothing_and_halts_nothing() -> None:
    rollout, rng = Rollout(target=UNBOUNDED), np.random.default_rng(5)
    evidence = rollout.evidence()
    constant = rollout.matured(rng, 0, 500)
    evidence.feed(Cohort(constant.table, (None,) * 500))  # whenMissing: Zero
    report = found(evidence)
    assert (report.halted, report.metrics) == ("", ())
    assert "measure" in report.message


def test_a_guardrail_without_bounds_of_its_own_takes_those_of_its_column_or_goes_asymptotic() -> None:
    guardrail = {"name": "revenue", "better": "Higher", "tolerance": 2.0}
    bounded, free = Rollout(metrics=[guardrail]), Rollout(metrics=[guardrail], target=UNBOUNDED)
    for rollout, asymptotic in ((bounded, False), (free, True)):
        evidence, rng = rollout.evidence(), np.random.default_rng(6)
        for number in range(6):
            evidence.feed(rollout.matured(rng, number))
        report = found(evidence)
        assert report.halted == ""
        assert [metric.role for metric in report.metrics] == ["Kpi", "Guardrail"]
        assert report.metrics[1].lower > -2.0
        assert ("revenue" in report.message) == asymptotic
