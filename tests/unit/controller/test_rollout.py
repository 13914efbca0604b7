"""The rollout's state machine: every state with every event, and the evidence rules at their edges."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from drivetrain.api.ledger import CandidateVariant, DeploymentLedger, StableVariant
from drivetrain.api.names import ABORT_ANNOTATION, PROMOTE_ANNOTATION, RETRY_ANNOTATION
from drivetrain.api.policy import Policy, policy_hash
from drivetrain.api.report import MetricEvidence, PolicyLoad, RolloutEvidence
from drivetrain.api.v1alpha1.objective import Constraint
from drivetrain.api.v1alpha1.project import VersionReference
from drivetrain.api.v1alpha1.rollout import Rollout
from drivetrain.controller.core.policies import policy_of
from drivetrain.controller.core.rollout import (
    TABLE,
    Event,
    Look,
    Phase,
    Target,
    advance,
    apply_event,
    event,
    judged,
    phase_of,
    weight_of,
)
from tests.support.builders import a_project

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PROJECT = a_project().build()
BASELINE = policy_of(PROJECT, None)
CANDIDATE = policy_of(PROJECT, VersionReference(version="2", digest="b" * 64, run="shop-2"))
STABLE, NEW = policy_hash(BASELINE), policy_hash(CANDIDATE)
GUARDED = {"metrics": [{"name": "purchase", "better": "Higher", "tolerance": 0.05}]}


def ledger(phase: Phase, *, step: int = 0, **changed: object) -> DeploymentLedger:
    candidate = None
    if phase is not Phase.IDLE:
        candidate = CandidateVariant(hash=NEW, rollout="r1", since=NOW, phase=phase.value, step=step)
    found = DeploymentLedger(
        stable=StableVariant(hash=STABLE),
        baseline=STABLE,
        candidate=candidate,
        policies={STABLE: BASELINE, NEW: CANDIDATE},
    )
    return found.model_copy(update=changed)


def evidence(*metrics: tuple[str, float, float], outcomes: int = 1000, **changed: object) -> RolloutEvidence:
    return RolloutEvidence.model_validate(
        {
            "rollout": "r1",
            "stable": STABLE,
            "candidate": NEW,
            "weight": 10,
            "outcomes_stable": outcomes,
            "outcomes_candidate": outcomes,
            "metrics": [
                MetricEvidence(
                    metric=name,
                    role="Kpi" if name == "margin" else "Bound" if " " in name else "Guardrail",
                    estimate=(lower + upper) / 2,
                    lower=lower,
                    upper=upper,
                )
                for name, lower, upper in metrics
            ],
            **changed,
        }
    )


def look(
    found: RolloutEvidence | None = None,
    *,
    analysis: Mapping[str, object] | None = None,
    steps: tuple[int, ...] = (10, 50),
    shadow: Mapping[str, object] | None = None,
    **changed: object,
) -> Look:
    rollout = Rollout.model_validate(
        {
            "steps": [{"weight": weight} for weight in steps],
            "analysis": {"minOutcomes": 300, **(analysis or {})},
            "shadow": shadow,
        }
    )
    values: dict[str, object] = {
        "target": Target(NEW, CANDIDATE),
        "rollout": rollout,
        "kpi": PROJECT.spec.objective.kpi,
        "loads": {},
        "evidence": found,
        "may_start": True,
        "paused": False,
        "asked": {},
        "uid": "0123456789",
        "latency_ms": 50,
        **changed,
    }
    return Look(**values)  # type: ignore[arg-type]  # the values above have the fields' types


def loaded(state: str = "Loaded", reason: str = "") -> dict[str, PolicyLoad]:
    return {NEW: PolicyLoad.model_validate({"hash": NEW, "state": state, "reason": reason, "message": "told"})}


@pytest.mark.parametrize(("phase", "found"), list(product(Phase, Event)))
def test_an_event_leads_where_the_table_says_or_raises_and_changes_nothing(phase: Phase, found: Event) -> None:
    before = ledger(phase)
    if (phase, found) not in TABLE:
        with pytest.raises(ValueError, match="cannot happen"):
            apply_event(before, found, look(), NOW)
        assert before == ledger(phase)
    else:
        assert phase_of(apply_event(before, found, look(), NOW)) is TABLE[phase, found]


def test_an_approved_version_is_offered_with_weight_nothing_until_it_is_loaded() -> None:
    after = advance(ledger(Phase.IDLE), look(), NOW)
    assert after.candidate is not None
    assert (after.candidate.phase, after.candidate.rollout) == ("Loading", "01234567-1")
    assert advance(after, look(loads=loaded("Loading")), NOW) == after
    weighted = advance(after, look(loads=loaded()), NOW)
    assert phase_of(weighted) is Phase.WEIGHTED


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(look(may_start=False), id="while the cluster is replaced"),
        pytest.param(look(target=None), id="when nothing is approved"),
        pytest.param(look(target=Target(STABLE, BASELINE)), id="when it serves already"),
    ],
)
def test_no_rollout_starts(found: Look) -> None:
    assert event(ledger(Phase.IDLE), found, NOW) is None


def test_a_load_failure_rejects_with_the_replicas_reason() -> None:
    after = advance(ledger(Phase.LOADING), look(loads=loaded("Failed", "ModelNotFound")), NOW)
    assert [(each.reason, each.message, each.version, each.digest) for each in after.rejected] == [
        ("LoadFailed", "ModelNotFound: told", "2", "b" * 64)
    ]
    assert after.stable == ledger(Phase.IDLE).stable


SHADOW = {"minDecisions": 100, "fallbackTolerance": 0.1}


def shadowing(decisions: int = 100, *, paused: bool = False, **seen: object) -> Look:
    found = evidence(weight=0, outcomes=0, shadow={"decisions": decisions, "milliseconds": 1, **seen})
    return look(found, shadow=SHADOW, paused=paused)


def test_a_candidate_with_a_shadow_gets_no_weight_when_it_is_loaded() -> None:
    after = advance(ledger(Phase.LOADING), look(loads=loaded(), shadow=SHADOW), NOW)
    assert phase_of(after) is Phase.SHADOW
    assert weight_of(after, look(shadow=SHADOW).rollout) == 0


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(look(shadow=SHADOW), None, id="nothing is reported yet"),
        pytest.param(shadowing(99, fallbacks=99, milliseconds=900), None, id="one decision short of the minimum"),
        pytest.param(shadowing(), Event.SHADOWED, id="enough decisions without a fault"),
        pytest.param(shadowing(paused=True), None, id="a pause holds it"),
        pytest.param(shadowing(fallbacks=10), Event.SHADOWED, id="fallbacks up to the tolerance"),
        pytest.param(shadowing(fallbacks=11), Event.SHADOW_FAILED, id="fallbacks beyond the tolerance"),
        pytest.param(shadowing(fallbacks=30, fallbacks_stable=20), Event.SHADOWED, id="as the stable version's"),
        pytest.param(shadowing(milliseconds=50), Event.SHADOWED, id="as slow as is allowed"),
        pytest.param(shadowing(milliseconds=51), Event.SHADOW_FAILED, id="slower than is allowed"),
        pytest.param(shadowing(8, failed=8, paused=True), Event.SHADOW_FAILED, id="an error, at once"),
        pytest.param(shadowing(8, not_finite=1), Event.SHADOW_FAILED, id="a value that is not finite, at once"),
        pytest.param(look(asked={PROMOTE_ANNOTATION: NEW}, shadow=SHADOW), Event.PROMOTED_BY_HAND, id="by hand"),
        pytest.param(look(), Event.SHADOWED, id="the spec no longer asks for a shadow"),
    ],
)
def test_a_shadow_ends_with_the_first_step_or_with_a_rejection(found: Look, expected: Event | None) -> None:
    assert event(ledger(Phase.SHADOW), found, NOW) is expected


def test_a_candidate_that_fails_in_the_shadow_is_remembered_with_its_error() -> None:
    after = advance(ledger(Phase.SHADOW), shadowing(8, failed=8, message="bad shape"), NOW)
    assert [(each.hash, each.reason, each.message) for each in after.rejected] == [
        (NEW, "ShadowFailed", "Its model failed on 8 of 8 decisions: bad shape")
    ]
    assert advance(after, look(shadow=SHADOW), NOW) == after


def test_a_shadow_without_traffic_ends_at_the_deadline_and_says_so() -> None:
    late = NOW + timedelta(days=14)
    after = advance(ledger(Phase.SHADOW), shadowing(40), late)
    assert after.rejected[0].reason == "Inconclusive"
    assert "40 of 100 decisions" in after.rejected[0].message


def test_harm_on_the_kpi_rejects_at_any_time_even_before_the_least_outcomes_and_while_paused() -> None:
    found = evidence(("margin", -0.3, -0.01), outcomes=20)
    assert event(ledger(Phase.WEIGHTED), look(found, paused=True), NOW) is Event.HARMED


def test_a_kpi_to_minimize_is_harmed_when_it_rises() -> None:
    kpi = PROJECT.spec.objective.kpi.model_copy(update={"direction": "Minimize"})
    assert event(ledger(Phase.WEIGHTED), look(evidence(("margin", 0.01, 0.3)), kpi=kpi), NOW) is Event.HARMED
    assert event(ledger(Phase.WEIGHTED), look(evidence(("margin", -0.3, -0.01)), kpi=kpi), NOW) is Event.STEPPED


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        pytest.param((-0.2, -0.06), Event.HARMED, id="harm is proved beyond the tolerance"),
        pytest.param((-0.2, -0.05), None, id="harm up to the tolerance is not proved"),
        pytest.param((-0.05, 0.2), None, id="harm at the tolerance is not excluded"),
        pytest.param((-0.04, 0.2), Event.STEPPED, id="harm is excluded above it"),
    ],
)
def test_a_listed_guardrail_is_held_against_its_tolerance(
    interval: tuple[float, float], expected: Event | None
) -> None:
    found = evidence(("margin", -0.1, 0.3), ("purchase", *interval))
    assert event(ledger(Phase.WEIGHTED), look(found, analysis=GUARDED), NOW) is expected


def test_a_lower_is_better_guardrail_is_harmed_when_it_rises() -> None:
    analysis = {"metrics": [{"name": "purchase", "better": "Lower"}]}
    found = evidence(("purchase", 0.01, 0.2))
    assert event(ledger(Phase.WEIGHTED), look(found, analysis=analysis), NOW) is Event.HARMED


def test_a_metric_that_is_not_listed_is_shown_and_rejects_nothing() -> None:
    found = evidence(("margin", -0.1, 0.3), ("logLoss", -0.5, -0.4))
    assert event(ledger(Phase.WEIGHTED), look(found), NOW) is Event.STEPPED


def test_a_listed_guardrail_without_an_interval_holds_the_step() -> None:
    assert event(ledger(Phase.WEIGHTED), look(evidence(("margin", -0.1, 0.3)), analysis=GUARDED), NOW) is None


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(evidence(("margin", 0.1, 0.3), outcomes=299), id="too few outcomes"),
        pytest.param(evidence(("margin", 0.1, 0.3), weight=0), id="the weight is not in force yet"),
        pytest.param(evidence(("margin", 0.1, 0.3), halted="KpiOutOfBounds"), id="halted"),
    ],
)
def test_a_step_holds(found: RolloutEvidence) -> None:
    assert event(ledger(Phase.WEIGHTED), look(found), NOW) is None


def test_a_halted_rollout_draws_no_conclusion_from_its_intervals() -> None:
    found = evidence(("margin", -0.3, -0.1), halted="KpiOutOfBounds")
    assert event(ledger(Phase.WEIGHTED), look(found), NOW) is None


def test_promotion_needs_the_last_step_and_a_proof_of_superiority() -> None:
    last = ledger(Phase.WEIGHTED, step=1)
    assert event(last, look(evidence(("margin", 0.0, 0.3), weight=50)), NOW) is None
    won = look(evidence(("margin", 0.01, 0.3), weight=50))
    assert event(last, won, NOW) is Event.WON
    after = advance(last, won, NOW)
    assert after.stable == StableVariant(hash=NEW, since=NOW, proved_superior=True)
    assert after.candidate is None


def test_losses_accepted_by_non_inferiority_add_up_until_the_tolerance_is_spent() -> None:
    analysis = {"goal": "NonInferior", "tolerance": 0.1}
    first = look(evidence(("margin", -0.06, 0.02), weight=50), analysis=analysis)
    after = advance(ledger(Phase.WEIGHTED, step=1), first, NOW)
    assert after.stable is not None
    assert (after.stable.proved_superior, after.stable.loss_accepted) == (False, 0.06)
    second = ledger(Phase.WEIGHTED, step=1, stable=StableVariant(hash=STABLE, loss_accepted=0.06))
    assert event(second, first, NOW) is None
    assert event(second, look(evidence(("margin", -0.03, 0.02), weight=50), analysis=analysis), NOW) is Event.WON


@pytest.mark.parametrize(("policy", "expected"), [("Abort", Event.INCONCLUSIVE), ("Hold", None)])
def test_the_deadline_ends_a_rollout_without_a_verdict_where_it_should(policy: str, expected: Event | None) -> None:
    late = NOW + timedelta(days=1)
    found = look(evidence(("margin", -0.1, 0.3), outcomes=20), analysis={"deadline": "1d", "onInconclusive": policy})
    assert event(ledger(Phase.WEIGHTED), found, late - timedelta(seconds=1)) is None
    assert event(ledger(Phase.WEIGHTED), found, late) is expected


def test_a_rejected_hash_is_not_rolled_out_again() -> None:
    rejected = advance(ledger(Phase.WEIGHTED), look(evidence(("margin", -0.3, -0.1))), NOW)
    assert rejected.rejected[0].reason == "Harm"
    assert advance(rejected, look(), NOW) == rejected


def test_a_rejection_for_harm_tells_the_intervals_of_kpi_and_guardrails_what_is_harmed_first() -> None:
    found = look(evidence(("margin", -0.1, 0.2), ("purchase", -0.3, -0.1)), analysis=GUARDED)
    assert advance(ledger(Phase.WEIGHTED), found, NOW).rejected[0].message == (
        "Harm is proved. purchase: candidate minus stable in [-0.3, -0.1], tolerance 0.05; "
        "margin: candidate minus stable in [-0.1, 0.2], tolerance 0"
    )


def bounded(side: str = "minimum") -> Target:
    """The candidate, with an objective that bounds its purchases by 0.25."""
    constraint = Constraint.model_validate({"scope": "Portfolio", "metric": "purchase", side: 0.25})
    objective = CANDIDATE.objective.model_copy(update={"constraints": (constraint,)})
    return Target(NEW, CANDIDATE.model_copy(update={"objective": objective}))


@pytest.mark.parametrize(
    ("side", "interval", "told"),
    [
        ("minimum", (-0.07, -0.03), "purchase: candidate in [0.18, 0.22], below the minimum 0.25"),
        ("maximum", (0.03, 0.07), "purchase: candidate in [0.28, 0.32], above the maximum 0.25"),
    ],
)
def test_a_candidate_proved_beyond_the_bound_of_a_portfolio_constraint_is_rejected_for_harm(
    side: str, interval: tuple[float, float], told: str
) -> None:
    found = look(evidence(("margin", -0.1, 0.2), (f"purchase {side}", *interval)), target=bounded(side))
    after = advance(ledger(Phase.WEIGHTED), found, NOW)
    assert (after.rejected[0].reason, after.rejected[0].message) == (
        "Harm",
        f"Harm is proved. {told}; margin: candidate minus stable in [-0.1, 0.2], tolerance 0",
    )
    shown = judged(after, found)
    assert shown is not None
    assert shown.harm is not None  # also once the ledger has forgotten the candidate
    assert str(shown.harm) == told


def test_a_bound_that_is_not_excluded_holds_up_neither_step_nor_promotion_and_proves_nothing_better() -> None:
    at_bound = ("purchase minimum", -0.03, 0.03)
    last = ledger(Phase.WEIGHTED, step=1)
    steps = look(evidence(("margin", -0.1, 0.2), at_bound), target=bounded())
    assert event(ledger(Phase.WEIGHTED), steps, NOW) is Event.STEPPED
    wins = look(evidence(("margin", 0.01, 0.2), at_bound, weight=50), target=bounded())
    assert event(last, wins, NOW) is Event.WON
    good = look(evidence(("margin", -0.1, 0.2), ("purchase minimum", 0.1, 0.3), weight=50), target=bounded())
    assert event(last, good, NOW) is None


def test_a_bound_that_the_candidates_objective_does_not_declare_is_shown_only() -> None:
    found = evidence(("margin", -0.1, 0.3), ("purchase minimum", -0.2, -0.1))
    for target in (Target(NEW, CANDIDATE), bounded("maximum")):
        assert event(ledger(Phase.WEIGHTED), look(found, target=target), NOW) is Event.STEPPED


def test_a_retry_that_names_the_hash_rolls_it_out_once_more_and_only_once() -> None:
    rejected = advance(ledger(Phase.WEIGHTED), look(evidence(("margin", -0.3, -0.1))), NOW)
    again = advance(rejected, look(asked={RETRY_ANNOTATION: f"{NEW}:2"}), NOW)
    assert again.rejected == ()
    assert again.answered == {RETRY_ANNOTATION: f"{NEW}:2"}
    assert event(again, look(), NOW) is Event.OFFERED


def test_a_retry_of_another_hash_is_answered_and_changes_nothing_else() -> None:
    rejected = advance(ledger(Phase.WEIGHTED), look(evidence(("margin", -0.3, -0.1))), NOW)
    after = advance(rejected, look(asked={RETRY_ANNOTATION: "another"}), NOW)
    assert after.rejected == rejected.rejected


def test_an_abort_is_remembered_like_a_rejection_and_answered() -> None:
    after = advance(ledger(Phase.WEIGHTED), look(asked={ABORT_ANNOTATION: NEW}), NOW)
    assert [each.reason for each in after.rejected] == ["Aborted"]
    assert after.answered == {ABORT_ANNOTATION: NEW}


def test_a_person_may_promote_without_evidence_but_not_before_it_is_loaded() -> None:
    asked = {PROMOTE_ANNOTATION: NEW}
    assert event(ledger(Phase.LOADING), look(asked=asked), NOW) is None
    after = advance(ledger(Phase.WEIGHTED), look(asked=asked), NOW)
    assert after.stable is not None
    assert (after.stable.hash, after.stable.proved_superior) == (NEW, False)


def test_a_pause_holds_steps_and_promotion() -> None:
    assert event(ledger(Phase.WEIGHTED), look(evidence(("margin", 0.1, 0.3)), paused=True), NOW) is None


def test_another_approved_policy_supersedes_the_candidate_without_rejecting_it() -> None:
    other: Policy = policy_of(PROJECT, VersionReference(version="3", digest="c" * 64, run="shop-3"))
    after = advance(ledger(Phase.WEIGHTED), look(target=Target(policy_hash(other), other)), NOW)
    assert after.candidate is None
    assert after.rejected == ()


def test_a_pinned_version_serves_as_soon_as_it_is_loaded() -> None:
    found = look(target=Target(NEW, CANDIDATE, pinned=True), loads=loaded())
    after = advance(ledger(Phase.LOADING), found, NOW)
    assert after.stable is not None
    assert after.stable.hash == NEW
