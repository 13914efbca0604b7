"""What matured decisions prove, and what they must not."""

import dataclasses
import json
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from drivetrain.api import decision_log as log
from drivetrain.api.policy import EndpointConfig, Policy
from drivetrain.api.portfolio import portfolio_bounds
from drivetrain.api.report import DriftEvidence, MetricEvidence, RolloutEvidence
from drivetrain.api.v1alpha1.lever import Exploration
from drivetrain.api.v1alpha1.rollout import Analysis, AnalysisMetric, Monitoring
from drivetrain.serving.evidence import Evidence, Findings
from drivetrain.serving.judged import Judged
from drivetrain.serving.maturation import Cohort, Maturation
from drivetrain.serving.view import Serving
from tests.unit.serving.conftest import View
from tests.unit.serving.logs import START, Buys, Traffic, table, true_market
from tests.unit.serving.worlds import REFERENCE, World, policy, publish

HOUR = timedelta(hours=1)
QUARTER = HOUR / 4
ANALYSIS = Analysis(
    metrics=(
        AnalysisMetric(name="purchase", better="Higher", tolerance=0.2),
        AnalysisMetric(name="fallbackRate", better="Lower", tolerance=0.02),
    )
)


def judged(serving: Serving) -> dict[str, Judged]:
    variants = (serving.stable, serving.baseline, serving.candidate)
    return {
        v.hash: Judged.of(v.hash, v.policy, v.graph.contract if v.graph else None, REFERENCE if v.graph else None)
        for v in variants
        if v is not None
    }


def followed(serving: Serving, config: EndpointConfig | None = None) -> Evidence:
    evidence = Evidence()
    evidence.configure(config or serving.config, judged(serving))
    return evidence


def cohorts(
    traffic: Traffic,
    batches: int,
    rows: int,
    buys: Buys,
    *,
    start: timedelta = timedelta(0),
    every: timedelta = timedelta(minutes=1),
    **outcomes: Any,
) -> list[Cohort]:
    """Matured cohorts, a minute apart, each answered in time."""
    maturation = Maturation(HOUR)
    result = []
    for number in range(batches):
        at = START + start + number * every
        uploads, ids, decisions = traffic.decided(rows, at)
        maturation.add_decisions(table(uploads[0]))
        reported = traffic.outcomes(ids, decisions, buys, at + timedelta(seconds=30), **outcomes)
        maturation.add_outcomes(table(reported))
        cohort = maturation.mature(at)
        assert cohort is not None
        result.append(cohort)
    return result


def rollout_of(findings: Findings) -> RolloutEvidence:
    assert findings.rollout is not None
    return findings.rollout


def harmful(world: World) -> Any:
    return policy(publish(world.store, slope=3.0, intercept=6.0), version="2")


def test_a_candidate_that_prices_too_high_is_proved_harmful(view: View, world: World) -> None:
    serving = view(candidate=harmful(world), weight=30, analysis=ANALYSIS, exploration=Exploration(share=0.2))
    evidence = followed(serving)
    for cohort in cohorts(Traffic(serving), 4, 800, true_market):
        evidence.feed(cohort)
    found = rollout_of(evidence.findings(START + 2 * HOUR, 30))
    kpi, purchase, fallback, shown = found.metrics
    assert (kpi.metric, kpi.role, shown.metric, shown.role) == ("margin", "Kpi", "logLoss", "Shown")
    assert kpi.upper < 0
    assert purchase.upper < -0.2
    assert fallback.lower <= 0 <= fallback.upper
    assert shown.lower > 0
    assert found.outcomes_stable + found.outcomes_candidate == 3200
    assert found.losing_slices


@pytest.mark.parametrize(("side", "value", "proved"), [("minimum", 0.6, True), ("maximum", 0.6, False)])
def test_a_portfolio_constraint_is_judged_by_the_candidates_own_mean(
    view: View, world: World, side: str, value: float, proved: bool
) -> None:
    constraint = {"scope": "Portfolio", "metric": "purchase", side: value, "window": "1h"}
    candidate = policy(publish(world.store, slope=3.0, intercept=6.0), version="2", constraints=(constraint,))
    serving = view(candidate=candidate, weight=30, exploration=Exploration(share=0.2))
    evidence, parts = followed(serving), cohorts(Traffic(serving), 4, 800, true_market)
    for cohort in parts:
        evidence.feed(cohort)
    kpi, bound, _ = rollout_of(evidence.findings(START + 2 * HOUR, 30)).metrics
    sold = np.concatenate(
        [
            np.array([float(value or 0) for value in part.reported(f"{log.LABEL_PREFIX}purchase")])[
                part.texts(log.ARM) == "candidate"
            ]
            for part in parts
        ]
    )
    assert (kpi.role, bound.metric, bound.role) == ("Kpi", f"purchase {side}", "Bound")
    assert bound.lower < np.mean(sold) - value < bound.upper < 0  # it sells to fewer in either case
    assert harm(candidate, bound) is proved


def harm(candidate: Policy, bound: MetricEvidence) -> bool:
    """Whether the bound's interval lies on its bad side, as the controller reads it."""
    (declared,) = portfolio_bounds(candidate.objective.constraints)
    return bound.upper < 0 if declared.side == "minimum" else bound.lower > 0


def test_a_copy_of_stable_is_neither_better_nor_worse(view: View, world: World) -> None:
    copy = policy(publish(world.store, half=0.21), version="2")
    serving = view(candidate=copy, weight=50, analysis=ANALYSIS)
    evidence = followed(serving)
    for cohort in cohorts(Traffic(serving), 4, 800, true_market):
        evidence.feed(cohort)
    kpi = rollout_of(evidence.findings(START + 2 * HOUR, 50)).metrics[0]
    assert kpi.lower < 0 < kpi.upper


def test_a_unit_counts_once_with_its_first_decision(view: View, world: World) -> None:
    serving = view(candidate=harmful(world), weight=50)
    evidence = followed(serving)
    for cohort in cohorts(Traffic(serving, units=100), 5, 100, true_market):
        evidence.feed(cohort)
    found = rollout_of(evidence.findings(START + 2 * HOUR, 50))
    assert found.outcomes_stable + found.outcomes_candidate == 100


def test_how_decisions_are_batched_changes_nothing(view: View, world: World) -> None:
    serving = view(candidate=harmful(world), weight=30, analysis=ANALYSIS, holdout=0.05)
    parts = cohorts(Traffic(serving), 6, 150, true_market)
    apart, together = followed(serving), followed(serving)
    for cohort in parts:
        apart.feed(cohort)
    together.feed(Cohort(pa.concat_tables([p.table for p in parts]), tuple(r for p in parts for r in p.reports)))
    one, other = (e.findings(START + 2 * HOUR, 30) for e in (apart, together))
    for first, second in zip(rollout_of(one).metrics, rollout_of(other).metrics, strict=True):
        assert first.estimate == pytest.approx(second.estimate)
        assert (first.lower, first.upper) == pytest.approx((second.lower, second.upper), rel=1e-6)
    assert one.kpi is not None
    assert other.kpi is not None
    assert one.kpi.mean == pytest.approx(other.kpi.mean)


def test_a_restart_goes_on_exactly(view: View, world: World) -> None:
    serving = view(candidate=harmful(world), weight=30, analysis=ANALYSIS, holdout=0.1)
    parts = cohorts(Traffic(serving, units=700), 6, 150, true_market)
    through, before = followed(serving), followed(serving)
    for number, cohort in enumerate(parts):
        through.feed(cohort)
        if number < 3:
            before.feed(cohort)
    after = followed(serving)
    after.restore(json.loads(json.dumps(before.state())))
    for cohort in parts[3:]:
        after.feed(cohort)
    assert after.findings(START + 2 * HOUR, 30) == through.findings(START + 2 * HOUR, 30)
    assert after.offsets() == through.offsets()
    assert json.dumps(after.state()) == json.dumps(through.state())


def test_a_new_rollout_starts_from_nothing(view: View, world: World) -> None:
    serving = view(candidate=harmful(world), weight=30)
    evidence = followed(serving)
    parts = cohorts(Traffic(serving), 2, 100, true_market)
    evidence.feed(parts[0])
    evidence.configure(serving.config.model_copy(update={"rollout": "r2"}), judged(serving))
    evidence.feed(parts[1])
    found = rollout_of(evidence.findings(START + 2 * HOUR, 30))
    assert (found.outcomes_stable, found.outcomes_candidate) == (0, 0)


@pytest.mark.parametrize("restarted", [False, True])
def test_other_metrics_declared_within_a_rollout_are_compared_from_nothing_and_that_is_told(
    view: View, world: World, *, restarted: bool
) -> None:
    serving = view(candidate=harmful(world), weight=30, analysis=ANALYSIS)
    parts = cohorts(Traffic(serving), 2, 100, true_market)
    evidence = followed(serving)
    evidence.feed(parts[0])
    changed = serving.config.model_copy(update={"analysis": Analysis(metrics=ANALYSIS.metrics[:1])})
    if restarted:
        state = json.loads(json.dumps(evidence.state()))
        evidence = followed(serving, changed)
        evidence.restore(state)
    else:
        evidence.configure(changed, judged(serving))
    evidence.feed(parts[1])
    evidence.configure(changed.model_copy(update={"weight": 50}), judged(serving))
    found = rollout_of(evidence.findings(START + 2 * HOUR, 30))
    assert [each.metric for each in found.metrics if each.role != "Shown"] == ["margin", "purchase"]
    assert found.outcomes_stable + found.outcomes_candidate == 100
    assert "began anew" in found.message


def test_a_kpi_outside_its_bounds_halts_the_canary(view: View, world: World) -> None:
    narrow: dict[str, Any] = {
        "kpi": {"name": "margin", "unit": "USD", "minimum": "-0.1", "maximum": "0.1", "maturesAfter": "1h"}
    }
    stable = policy(publish(world.store), **narrow)
    candidate = policy(publish(world.store, slope=8.0), version="2", **narrow)
    serving = view(stable=stable, candidate=candidate)
    evidence = followed(serving)
    for cohort in cohorts(Traffic(serving), 1, 50, true_market):
        evidence.feed(cohort)
    assert rollout_of(evidence.findings(START + 2 * HOUR, 50)).halted == "KpiOutOfBounds"


@pytest.mark.parametrize(("when", "halted"), [("Fail", "OutcomesMissing"), ("Zero", ""), ("Exclude", "")])
def test_a_missing_outcome_means_what_is_declared(view: View, world: World, when: str, halted: str) -> None:
    kpi = {"name": "margin", "unit": "USD", "minimum": "-1", "maximum": "1", "maturesAfter": "1h", "whenMissing": when}
    stable = policy(publish(world.store), kpi=kpi)
    candidate = policy(publish(world.store, slope=8.0), version="2", kpi=kpi)
    serving = view(stable=stable, candidate=candidate)
    evidence = followed(serving)
    for cohort in cohorts(Traffic(serving), 2, 200, true_market, share=0.5):
        evidence.feed(cohort)
    found = rollout_of(evidence.findings(START + 2 * HOUR, 50))
    assert found.halted == halted
    counted = found.outcomes_stable + found.outcomes_candidate
    assert counted == {"Fail": 0, "Zero": 400}.get(when, counted)
    if when == "Exclude":
        assert 150 < counted < 250


WHEN = pytest.mark.parametrize("when", ["Zero", "Exclude", "Fail"])


def rolling_out(view: View, world: World, when: str, **changes: Any) -> Serving:
    kpi = {"name": "margin", "unit": "USD", "minimum": "-1", "maximum": "1", "maturesAfter": "1h", "whenMissing": when}
    stable = policy(publish(world.store), kpi=kpi, **changes)
    return view(stable=stable, candidate=policy(publish(world.store, slope=8.0), version="2", kpi=kpi, **changes))


@WHEN
def test_another_label_than_the_target_leaves_the_outcome_missing(view: View, world: World, when: str) -> None:
    serving = rolling_out(view, world, when)
    silent, talkative = followed(serving), followed(serving)
    for cohort in cohorts(Traffic(serving), 3, 200, true_market):
        reports = [report for report in cohort.reports if report is not None]
        other = [dataclasses.replace(report, values={"label.minutes": 3.0}) for report in reports]
        bought = [report.values["label.purchase"] == 1 for report in reports]
        for evidence, instead in ((silent, [None] * len(cohort)), (talkative, other)):
            told = zip(bought, reports, instead, strict=True)
            evidence.feed(Cohort(cohort.table, tuple(report if yes else no for yes, report, no in told)))
    at = START + 2 * HOUR
    assert talkative.findings(at, 50) == silent.findings(at, 50)
    assert json.dumps(talkative.state()) == json.dumps(silent.state())


@WHEN
def test_a_kpi_that_cannot_be_computed_is_missing_whatever_the_outcome(view: View, world: World, when: str) -> None:
    serving = rolling_out(view, world, when, value="purchase * (price - discount - 1.1) + 0 * shelf_price")
    evidence = followed(serving)
    (cohort,) = cohorts(Traffic(serving), 1, 400, true_market)
    shelf = [None if row % 2 else 1.99 for row in range(400)]
    place = cohort.table.column_names.index("context.shelf_price")
    table = cohort.table.set_column(place, "context.shelf_price", pa.array(shelf, pa.float64()))
    evidence.feed(Cohort(table, cohort.reports))
    found = rollout_of(evidence.findings(START + 2 * HOUR, 50))
    counted = found.outcomes_stable + found.outcomes_candidate
    assert (counted, found.halted) == {"Zero": (400, ""), "Exclude": (200, ""), "Fail": (0, "OutcomesMissing")}[when]


def test_an_arm_that_reports_less_often_halts_a_canary_that_excludes_missing_outcomes(view: View, world: World) -> None:
    kpi = {"name": "margin", "unit": "USD", "minimum": "-1", "maximum": "1", "maturesAfter": "1h"}
    kpi["whenMissing"] = "Exclude"
    stable = policy(publish(world.store), kpi=kpi)
    candidate = policy(publish(world.store, slope=8.0), version="2", kpi=kpi)
    serving = view(stable=stable, candidate=candidate)
    evidence = followed(serving)
    draws = np.random.default_rng(1)
    for cohort in cohorts(Traffic(serving), 4, 400, true_market):
        silent = (cohort.texts(log.ARM) == "candidate") & (draws.random(len(cohort)) < 0.5)
        kept = [None if gone else report for gone, report in zip(silent.tolist(), cohort.reports, strict=True)]
        evidence.feed(Cohort(cohort.table, tuple(kept)))
    found = rollout_of(evidence.findings(START + 2 * HOUR, 50))
    assert found.halted == "SampleRatioMismatch"
    assert "more often" in found.message


def test_compliance_is_the_share_of_decisions_that_nobody_overrode(view: View) -> None:
    serving, traffic = stable_only(view)
    evidence = followed(serving)
    (cohort,) = cohorts(traffic, 1, 200, true_market)
    evidence.feed(cohort)
    assert "compliance" not in evidence.in_words(START + 2 * HOUR)
    raised = [
        dataclasses.replace(report, values={**report.values, "applied.price": 2.09, "applied.discount": 0.0})
        for report in cohort.reports
        if report is not None
    ]
    evidence.feed(Cohort(cohort.table, (*cohort.reports[:150], *raised[150:])))
    assert evidence.in_words(START + 2 * HOUR)["compliance"].startswith("87.5% of 400")


MONITORED = Monitoring(decisions_per_day=20_000)


def stable_only(view: View, **config: object) -> tuple[Serving, Traffic]:
    serving = view(
        monitoring=MONITORED, stable_since="2026-05-04T09:00:00+00:00", exploration=Exploration(share=0.2), **config
    )
    return serving, Traffic(serving)


def steeper(net: float, rival: float, store: str) -> float:
    """Customers who have become more price-sensitive."""
    return true_market(net + 0.25, rival, store)


def test_a_change_in_how_customers_respond_is_severe_calibration_drift_and_quiet_before(view: View) -> None:
    serving, traffic = stable_only(view, holdout=0.05)
    evidence = followed(serving)
    for cohort in cohorts(traffic, 10, 300, true_market):
        evidence.feed(cohort)
    quiet = evidence.findings(START + 2 * HOUR, 0).drift
    assert quiet is not None
    assert (quiet.calibration.severity, quiet.kpi.severity) == ("None", "None")
    moved = cohorts(traffic, 10, 300, steeper, start=HOUR, every=QUARTER)
    for cohort in moved[:3]:
        evidence.feed(cohort)
    early = evidence.findings(START + 2 * HOUR, 0).drift
    assert early is not None
    assert early.calibration.severity == "None"
    assert "late" in early.calibration.message  # one more maturation time for outcomes that are on their way
    for cohort in moved[3:]:
        evidence.feed(cohort)
    found = evidence.findings(START + 2 * HOUR, 0)
    assert found.drift is not None
    assert found.drift.calibration.severity == "Severe"
    assert found.drift.calibration.changed_at is not None
    assert found.explored_since_change > 0
    assert found.drift.covariate.severity == "None"


@pytest.mark.parametrize("quiet", [1, 8], ids=["while the offset is measured", "after it was measured"])
def test_a_burst_of_late_outcomes_is_no_drift_and_a_change_after_it_still_is(view: View, quiet: int) -> None:
    serving, traffic = stable_only(view, holdout=0.05)
    evidence = followed(serving)

    def fed(batches: int, buys: Buys, start: int, share: float = 1.0) -> DriftEvidence:
        for cohort in cohorts(traffic, batches, 300, buys, start=start * QUARTER, every=QUARTER, share=share):
            evidence.feed(cohort)
        found = evidence.findings(START + 100 * HOUR, 0).drift
        assert found is not None
        return found

    assert fed(quiet, true_market, 0).calibration.severity == "None"
    burst = fed(2, true_market, quiet, share=0.1).calibration  # nine of ten outcomes are still on their way
    assert burst.severity == "None"
    missing = np.repeat([(START + number * QUARTER).timestamp() for number in (quiet, quiet + 1)], 100)
    evidence.late(missing)
    during = fed(1, true_market, quiet + 2)
    assert during.calibration.severity == "None"
    assert during.calibration.message.startswith("OutcomesLate: 8.3%" if quiet == 8 else "OutcomesLate: 16.7%")
    assert during.kpi.message.startswith("OutcomesLate")
    assert "later than maturesAfter" in evidence.in_words(START + 2 * HOUR)["outcomes"]
    after = fed(20, true_market, quiet + 3)
    assert (after.calibration.severity, after.kpi.severity) == ("None", "None")
    assert after.calibration.evidence["offset"].startswith(("0.0", "-0.0"))
    assert not after.miscalibrated
    assert not evidence.in_words(START + 2 * HOUR)
    assert fed(12, steeper, quiet + 23).calibration.severity == "Severe"


@pytest.mark.parametrize("reported", [1.0, 0.5], ids=["every outcome is reported", "every other one is"])
def test_an_outage_of_whoever_reports_is_no_drift_however_long_and_a_change_after_it_still_is(
    view: View, reported: float
) -> None:
    serving, traffic = stable_only(view, holdout=0.05)
    evidence = followed(serving)
    said: list[DriftEvidence] = []

    def fed(batches: int, buys: Buys, start: int, share: float = reported) -> DriftEvidence:
        for cohort in cohorts(traffic, batches, 300, buys, start=start * QUARTER, every=QUARTER, share=share):
            evidence.feed(cohort)
            found = evidence.findings(START + 100 * HOUR, 0).drift
            assert found is not None
            said.append(found)
        return said[-1]

    assert fed(12, true_market, 0).calibration.severity == "None"
    fading = fed(3, true_market, 12, share=reported / 3)  # outcomes that take long are lost before the outage
    assert fading.calibration.severity == "None"
    during = fed(25, true_market, 15, share=0.0)
    assert during.calibration.message.startswith("OutcomesMissing: none of the last 7")
    assert during.kpi.message == during.calibration.message
    assert evidence.in_words(START + 2 * HOUR)["outcomes"] == during.calibration.message
    fed(3, true_market, 40, share=reported / 3)  # and so are some right after it
    after = fed(20, true_market, 43)
    assert "stays near" in after.calibration.message
    assert "OutcomesMissing" not in evidence.in_words(START + 2 * HOUR).get("outcomes", "")
    assert {drift.calibration.severity for drift in said} == {"None"}
    assert {drift.kpi.severity for drift in said} == {"None"}
    assert fed(16, steeper, 63).calibration.severity == "Severe"


def test_a_restart_within_an_outage_goes_on_exactly(view: View) -> None:
    serving, traffic = stable_only(view)
    parts = cohorts(traffic, 6, 300, true_market, every=QUARTER)
    parts += cohorts(traffic, 4, 300, true_market, start=6 * QUARTER, every=QUARTER, share=0.0)
    parts += cohorts(traffic, 6, 300, true_market, start=10 * QUARTER, every=QUARTER)
    through, before = followed(serving), followed(serving)
    for cohort in parts:
        through.feed(cohort)
    for cohort in parts[:9]:
        before.feed(cohort)
    after = followed(serving)
    after.restore(json.loads(json.dumps(before.state())))
    for cohort in parts[9:]:
        after.feed(cohort)
    assert after.findings(START + 9 * HOUR, 0) == through.findings(START + 9 * HOUR, 0)
    assert after.offsets() == through.offsets()


def test_few_late_outcomes_hold_back_no_verdict(view: View) -> None:
    serving, traffic = stable_only(view)
    evidence = followed(serving)
    for number, cohort in enumerate(cohorts(traffic, 8, 300, true_market, every=QUARTER)):
        evidence.late(np.full(3, (START + number * QUARTER).timestamp()))
        evidence.feed(cohort)
    drift = evidence.findings(START + 100 * HOUR, 0).drift
    assert drift is not None
    assert "stays near" in drift.calibration.message
    assert evidence.in_words(START + 2 * HOUR)["outcomes"].startswith("1.0%")


def test_no_drift_verdict_is_given_while_a_rollout_is_open_or_nothing_has_matured(view: View, world: World) -> None:
    serving, traffic = stable_only(view)
    evidence = followed(serving)
    for buys in (true_market, steeper):
        for cohort in cohorts(traffic, 10, 300, buys):
            evidence.feed(cohort)
    rolling = view(candidate=harmful(world), monitoring=MONITORED, stable_since=serving.config.stable_since)
    evidence.configure(rolling.config, judged(rolling))
    drift = evidence.findings(START + 2 * HOUR, 50).drift
    assert drift is not None
    assert drift.calibration.severity == "None"
    assert "rollout" in drift.calibration.message
    promoted = serving.config.model_copy(update={"stable_since": "2026-05-04T11:30:00+00:00"})
    evidence.configure(promoted, judged(serving))
    drift = evidence.findings(START + 2 * HOUR, 0).drift
    assert drift is not None
    assert "promotion" in drift.calibration.message


def test_the_kpi_window_reports_mean_promise_and_advantage_over_the_holdout(view: View) -> None:
    serving, traffic = stable_only(view, holdout=0.2)
    evidence = followed(serving)
    for cohort in cohorts(traffic, 5, 800, true_market):
        evidence.feed(cohort)
    kpi = evidence.findings(START + 2 * HOUR, 0).kpi
    assert kpi is not None
    assert kpi.lower is not None
    assert kpi.upper is not None
    assert kpi.lower < kpi.mean < kpi.upper
    assert kpi.decisions == 4000
    assert kpi.versus_holdout is not None
    assert kpi.promised == pytest.approx(kpi.mean, abs=0.05)


def test_offsets_measure_realised_less_promised_value(view: View) -> None:
    serving, traffic = stable_only(view)
    evidence = followed(serving)
    for cohort in cohorts(traffic, 5, 400, lambda net, rival, store: 0.5 * true_market(net, rival, store)):
        evidence.feed(cohort)
    offset = evidence.offsets()[serving.stable.hash]
    assert -0.4 < offset.offset - offset.radius < offset.offset + offset.radius < -0.1


def test_offsets_are_measured_by_each_policys_own_objective(view: View, world: World) -> None:
    kpi = {"name": "margin", "unit": "USD", "minimum": "-1", "maximum": "2", "maturesAfter": "1h"}
    value = "purchase * (price - discount - 0.6)"
    serving = view(
        stable=policy(publish(world.store), kpi=kpi), candidate=policy(publish(world.store), kpi=kpi, value=value)
    )
    evidence = followed(serving)
    for cohort in cohorts(Traffic(serving), 4, 400, true_market):
        evidence.feed(cohort)
    offsets = evidence.offsets()
    assert serving.candidate is not None
    for hash_ in (serving.stable.hash, serving.candidate.hash):
        assert abs(offsets[hash_].offset) < 0.1
