"""What asks for a retraining and what holds it back."""

from datetime import UTC, datetime, timedelta

import pytest

from drivetrain.api.documents import Document
from drivetrain.api.ledger import CandidateVariant, DeploymentLedger, ProjectLedger, StableVariant, StartedRun
from drivetrain.api.report import DetectorEvidence, DriftEvidence, ServingReport
from drivetrain.api.v1alpha1.deployment import RejectedVariant
from drivetrain.api.v1alpha1.loop import Loop
from drivetrain.api.v1alpha1.project import DrivetrainProject, VersionReference
from drivetrain.controller.core.approvals import runs_to_read
from drivetrain.controller.core.governor import Hold, Situation, gpu_hours, hold, legible, next_trigger
from drivetrain.controller.core.policies import policy_of
from tests.support.builders import a_project

NOW = datetime(2026, 1, 10, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=5)


def a_run(number: int = 1, cause: str = "Initial", **changed: object) -> StartedRun:
    values = {"name": f"shop-{number}", "cause": cause, "at": LONG_AGO, "finished": "Approved", "version": str(number)}
    return StartedRun.model_validate({**values, **changed})


def a_ledger(*runs: StartedRun, **changed: object) -> ProjectLedger:
    found = runs or (a_run(),)
    values = {"runs": found, "runs_started": len(found), "training_hash": "t", **changed}
    return ProjectLedger.model_validate(values)


def serving(**changed: object) -> DeploymentLedger:
    values = {"stable": StableVariant(hash="s", since=LONG_AGO), "baseline": "b", **changed}
    return DeploymentLedger.model_validate(values)


def a_report(*, explored: int = 1000, since_change: int = 1000, **drift: DetectorEvidence) -> ServingReport:
    return ServingReport(
        sequence=1,
        at=NOW,
        replicas=1,
        drift=DriftEvidence.model_validate(drift),
        explored=explored,
        explored_since_change=since_change,
    )


def situation(ledger: ProjectLedger | None = None, **changed: object) -> Situation:
    values: dict[str, object] = {
        "loop": Loop(),
        "ledger": ledger or a_ledger(),
        "serving": serving(),
        "report": a_report(),
        "training_hash": "t",
        "matures_after": timedelta(hours=1),
        "retrain_asked": "",
        "data_changed": "",
        "gpu_hours": 0.0,
        **changed,
    }
    return Situation(**values)  # type: ignore[arg-type]  # the values above have the fields' types


SEVERE = DetectorEvidence(
    severity="Severe", message="moved", changed_at=NOW - timedelta(days=1), evidence={"mean": "0.12"}
)
DRIFTED = a_report(calibration=SEVERE)


def cause_of(found: Situation) -> str | None:
    trigger = next_trigger(found, NOW)
    return trigger.cause if trigger else None


def held(found: Situation) -> Hold | None:
    trigger = next_trigger(found, NOW)
    assert trigger is not None
    return hold(found, trigger, NOW)


def test_a_project_without_runs_starts_its_first_at_once() -> None:
    found = situation(ProjectLedger())
    assert cause_of(found) == "Initial"
    assert held(found) is None


def test_a_quiet_loop_asks_for_nothing() -> None:
    assert next_trigger(situation(), NOW) is None


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        pytest.param(situation(training_hash="u"), "SpecChanged", id="another spec"),
        pytest.param(situation(retrain_asked="x"), "Manual", id="a person's wish"),
        pytest.param(situation(data_changed="x"), "DataChanged", id="announced data"),
        pytest.param(situation(report=DRIFTED), "Calibration", id="calibration drift"),
        pytest.param(situation(report=a_report(kpi=SEVERE)), "KpiDrop", id="a KPI drop"),
        pytest.param(situation(report=a_report(covariate=SEVERE)), "Drift", id="covariate drift"),
        pytest.param(
            situation(loop=Loop.model_validate({"retrain": {"schedule": "4d"}})), "Schedule", id="an old champion"
        ),
    ],
)
def test_each_cause_is_named(found: Situation, cause: str) -> None:
    assert cause_of(found) == cause


def test_a_warning_is_not_enough_where_only_severe_drift_retrains() -> None:
    warned = SEVERE.model_copy(update={"severity": "Warn"})
    assert cause_of(situation(report=a_report(calibration=warned))) is None
    asked = Loop.model_validate({"retrain": {"calibration": "Warn"}})
    assert cause_of(situation(loop=asked, report=a_report(calibration=warned))) == "Calibration"


def test_a_drift_run_weighs_rows_by_when_the_change_began() -> None:
    loop = Loop.model_validate({"retrain": {"staleWeight": 0.25}})
    trigger = next_trigger(situation(loop=loop, report=DRIFTED), NOW)
    assert trigger is not None
    assert trigger.window is not None
    assert (trigger.window.since, trigger.window.stale_weight) == ((NOW - timedelta(days=1)).isoformat(), 0.25)
    assert trigger.evidence["mean"] == "0.12"


def test_a_drift_that_a_run_answered_is_not_answered_again() -> None:
    answer = a_run(2, "Calibration", at=NOW - timedelta(hours=20), verdict="")
    assert cause_of(situation(a_ledger(answer, a_run()), report=DRIFTED)) is None


def test_a_drift_whose_answer_somebody_deleted_is_left_to_people() -> None:
    answer = a_run(2, "Calibration", at=NOW - timedelta(hours=20), finished="Deleted", verdict="")
    assert cause_of(situation(a_ledger(answer, a_run()), report=DRIFTED)) is None


def test_a_drift_whose_answer_was_refused_by_its_gates_is_answered_again() -> None:
    answer = a_run(2, "Calibration", at=NOW - timedelta(hours=20), finished="Refused", verdict="Refused")
    assert cause_of(situation(a_ledger(answer, a_run()), report=DRIFTED)) == "Calibration"


def a_rejection(cause: str, reason: str = "Harm") -> Situation:
    rejected = RejectedVariant(hash="h", version="2", reason=reason, at=NOW - timedelta(hours=8))
    run = a_run(2, cause, at=NOW - timedelta(days=1))
    return situation(a_ledger(run, a_run()), serving=serving(rejected=(rejected,)))


def test_a_rejected_candidate_of_the_loop_retrains_and_a_persons_is_only_recorded() -> None:
    assert cause_of(a_rejection("Calibration")) == "CanaryRejected"
    assert cause_of(a_rejection("Manual")) is None
    assert cause_of(a_rejection("Calibration", reason="Aborted")) is None


def test_new_constraints_that_are_rejected_with_the_champions_own_model_ask_for_no_training() -> None:
    found = a_rejection("Calibration")
    assert found.serving is not None
    project = DrivetrainProject.parse(a_project().document())
    champion = policy_of(project, VersionReference(version="2", digest="d", run="shop-2"))
    serving = found.serving.model_copy(update={"policies": {"s": champion}})
    assert cause_of(situation(found.ledger, serving=serving)) is None


def test_a_rejection_of_another_mlflows_version_with_the_champions_number_is_the_loops_own() -> None:
    found = a_rejection("Calibration")
    assert found.serving is not None
    project = DrivetrainProject.parse(a_project().document())
    champion = policy_of(project, VersionReference(version="2", digest="d", run="shop-1"))
    (rejected,) = found.serving.rejected
    update = {"policies": {"s": champion}, "rejected": (rejected.model_copy(update={"digest": "e"}),)}
    serving = found.serving.model_copy(update=update)
    runs = (a_run(2, "Calibration", at=NOW - timedelta(days=1), digest="e"), a_run(1, version="2", digest="d"))
    assert cause_of(situation(a_ledger(*runs), serving=serving)) == "CanaryRejected"


def test_a_rejection_is_answered_by_any_later_run() -> None:
    found = a_rejection("Calibration")
    later = a_run(3, "CanaryRejected", at=NOW - timedelta(hours=7))
    ledger = a_ledger(later, *found.ledger.runs)
    assert cause_of(situation(ledger, serving=found.serving)) is None


def test_runs_go_one_at_a_time() -> None:
    running = situation(a_ledger(a_run(2, "Manual", finished="")), retrain_asked="x")
    found = held(running)
    assert found is not None
    assert "shop-2 is under way" in found.why


def test_an_open_rollout_holds_everything_but_a_person() -> None:
    open_ = serving(candidate=CandidateVariant(hash="c", rollout="r", since=NOW))
    assert held(situation(report=DRIFTED, serving=open_)) is not None
    assert held(situation(training_hash="u", serving=open_)) is not None
    assert held(situation(retrain_asked="x", serving=open_)) is None


def test_the_maturation_window_of_the_last_promotion_holds_until_it_is_over() -> None:
    promoted = serving(stable=StableVariant(hash="s", since=NOW - timedelta(minutes=59)))
    found = held(situation(training_hash="u", serving=promoted))
    assert found is not None
    assert found.not_before == NOW + timedelta(minutes=1)


def test_proved_harm_does_not_wait_for_maturation() -> None:
    promoted = StableVariant(hash="s", since=NOW - timedelta(minutes=59))
    found = a_rejection("Calibration")
    assert found.serving is not None
    harmed = situation(found.ledger, serving=found.serving.model_copy(update={"stable": promoted}))
    assert held(harmed) is None
    inconclusive = a_rejection("Calibration", reason="Inconclusive")
    assert inconclusive.serving is not None
    waits = situation(inconclusive.ledger, serving=inconclusive.serving.model_copy(update={"stable": promoted}))
    assert held(waits) is not None


def test_the_cooldown_holds_what_the_loop_starts_and_says_until_when() -> None:
    recent = a_ledger(last_loop_run_at=NOW - timedelta(hours=5))
    found = held(situation(recent, report=DRIFTED))
    assert found is not None
    assert found.not_before == NOW + timedelta(hours=1)
    assert held(situation(recent, training_hash="u")) is None
    assert held(situation(recent, retrain_asked="x")) is None


def test_the_open_circuit_holds_the_loop_and_not_a_person() -> None:
    broken = a_ledger(rejected_in_a_row=3)
    assert held(situation(broken, report=DRIFTED)) is not None
    assert held(situation(broken, retrain_asked="x")) is None


def test_a_drift_needs_explored_outcomes_since_it_began() -> None:
    found = held(situation(report=a_report(explored=10_000, since_change=499, calibration=SEVERE)))
    assert found is not None
    assert "499 of 500" in found.why
    assert held(situation(report=a_report(explored=0, since_change=500, calibration=SEVERE))) is None


def test_a_spent_budget_holds_all_but_a_person() -> None:
    assert held(situation(training_hash="u", gpu_hours=40.0)) is not None
    assert held(situation(training_hash="u", gpu_hours=39.9)) is None
    assert held(situation(retrain_asked="x", gpu_hours=40.0)) is None


def test_a_run_that_is_judged_is_still_read_until_its_last_gpu_seconds_are_in_the_budget() -> None:
    refused = [a_run(number, finished="Refused", verdict="Refused", gpu_seconds=60) for number in (3, 2, 1)]
    documents: list[Document] = [
        {"metadata": {"name": run.name}, "status": {"gpuSeconds": seconds}}
        for run, seconds in zip(refused, (60, 72.5, 60), strict=True)
    ]
    assert runs_to_read(a_ledger(*refused), documents) == ("shop-3", "shop-2")  # the newest explains why it was refused


def test_the_budget_counts_the_last_seven_days() -> None:
    runs = (
        a_run(2, at=NOW - timedelta(days=6), gpu_seconds=7200),
        a_run(1, at=NOW - timedelta(days=8), gpu_seconds=36000),
    )
    assert gpu_hours(runs, NOW) == 2.0


@pytest.mark.parametrize(
    ("finished", "ended_at", "hours"),
    [
        pytest.param("Failed", NOW - timedelta(hours=1), 10.0, id="ended within the week"),
        pytest.param("Deleted", NOW - timedelta(days=6), 10.0, id="deleted within it"),
        pytest.param("", None, 10.0, id="still running"),
        pytest.param("Failed", NOW - timedelta(days=8), 0.0, id="ended before"),
    ],
)
def test_a_run_that_began_earlier_counts_whole_until_seven_days_after_its_end(
    finished: str, ended_at: datetime | None, hours: float
) -> None:
    run = a_run(at=NOW - timedelta(days=9), gpu_seconds=36000, finished=finished, ended_at=ended_at)
    assert gpu_hours((run,), NOW) == hours


def test_evidence_beyond_all_counting_is_a_power_of_ten() -> None:
    assert legible("1.875e+249") == "10^249"
    assert legible("distance 0.412, e 3e+07") == "distance 0.412, e 10^7"
    assert legible("0.0700 +- 0.0120") == "0.0700 +- 0.0120"
