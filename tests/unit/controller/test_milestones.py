"""Events that a person finds under `kubectl describe`: what the loop did, once each."""

from drivetrain.api.documents import text
from drivetrain.api.kinds import DEPLOYMENT, DRIVETRAIN_PROJECT, EVENT, TRAINING_RUN
from drivetrain.api.ledger import DeploymentLedger, ProjectLedger, RunLedger, StableVariant
from drivetrain.api.v1alpha1.project import DrivetrainProject, VersionReference
from drivetrain.controller.core.policies import policy_of
from tests.support.bench import Bench, ServingBench
from tests.support.builders import a_deployment, a_project

VERSION = VersionReference(version="1", digest="a" * 64, run="shop-1")
BETTER = {"metric": "margin", "role": "Kpi", "estimate": 0.2, "lower": 0.12345678, "upper": 0.3}


def told(bench: Bench, kind: str) -> list[tuple[str, str, str]]:
    """Type, reason and note of the events about objects of a kind, in order."""
    found = [each for each in bench.cluster.find(EVENT) if text(each, "regarding", "kind") == kind]
    ordered = sorted(found, key=lambda each: int(text(each, "regarding", "resourceVersion")))
    return [(text(each, "type"), text(each, "reason"), text(each, "note")) for each in ordered]


def rolled_out() -> ServingBench:
    """A candidate that went through its steps and was promoted."""
    document = a_deployment().with_field("spec.rollout.steps", [{"weight": 10}, {"weight": 50}]).document()
    bench = ServingBench(document)
    bench.up()
    bench.tell()
    bench.approve(ProjectLedger(approved=VERSION))
    candidate = bench.record.candidate
    assert candidate is not None
    loaded = [{"hash": candidate.hash, "state": "Loaded"}]
    bench.tell(loads=loaded)
    for weight in (10, 50):
        evidence = {
            "rollout": candidate.rollout,
            "stable": bench.record.baseline,
            "candidate": candidate.hash,
            "weight": weight,
            "outcomes_stable": 10_000,
            "outcomes_candidate": 10_000,
            "metrics": [BETTER],
        }
        bench.tell(loads=loaded, rollout=evidence)
    return bench


def test_steps_and_the_promotion_of_a_rollout_are_told_once() -> None:
    bench = rolled_out()
    bench.pass_time(minutes=1)
    bench.look()
    reasons = [reason for _, reason, _ in told(bench, "Deployment")]
    assert [each for each in reasons if each in ("StepEntered", "Promoted")] == ["StepEntered", "Promoted"]
    assert ("Normal", "StepEntered", "Version 1 gets 50 % of units: harm is excluded so far.") in told(
        bench, "Deployment"
    )
    assert ("Normal", "Promoted", "Version 1 is stable now, in place of today's policy.") in told(bench, "Deployment")


def test_a_rejection_is_a_warning() -> None:
    bench = ServingBench(a_deployment().document())
    bench.up()
    bench.tell()
    bench.approve(ProjectLedger(approved=VERSION))
    candidate = bench.record.candidate
    assert candidate is not None
    bench.tell(loads=[{"hash": candidate.hash, "state": "Failed", "reason": "ModelNotFound", "message": "no such"}])
    assert ("Warning", "CandidateRejected") in [each[:2] for each in told(bench, "Deployment")]


def test_a_project_tells_of_its_runs_and_champions() -> None:
    bench = Bench(project=a_project().document())
    bench.reconcile(DRIVETRAIN_PROJECT, "shop")
    policy = policy_of(DrivetrainProject.parse(bench.read(DRIVETRAIN_PROJECT, "shop")), VERSION)
    serving = DeploymentLedger(stable=StableVariant(hash="s", since=bench.now), baseline="b", policies={"s": policy})
    bench.write_ledger(DEPLOYMENT, "shop", serving)
    bench.reconcile(DRIVETRAIN_PROJECT, "shop")
    found = told(bench, "DrivetrainProject")
    assert ("Normal", "TrainingStarted", "shop-1 was started: Initial.") in found
    assert ("Normal", "ChampionChanged", "Version 1 of run shop-1.") in found


def test_a_version_that_waits_for_a_person_is_told_with_what_to_annotate() -> None:
    bench = Bench(project=a_project().with_field("spec.loop.approval", "Manual").document())
    bench.reconcile(DRIVETRAIN_PROJECT, "shop")
    ledger = RunLedger(attempt=1, finished="Approved", finished_at=bench.now, version=VERSION)
    bench.write_ledger(TRAINING_RUN, "shop-1", ledger)
    bench.reconcile(DRIVETRAIN_PROJECT, "shop")
    waiting = [note for _, reason, note in told(bench, "DrivetrainProject") if reason == "AwaitingApproval"]
    assert any(f"drivetrain.dev/approve={VERSION.digest}" in note for note in waiting)


def test_a_project_says_what_its_run_waits_for() -> None:
    bench = Bench(project=a_project().document())
    bench.reconcile(DRIVETRAIN_PROJECT, "shop")
    bench.set_status(
        TRAINING_RUN,
        "shop-1",
        conditions=[{"type": "Ready", "status": "False", "reason": "Queued", "message": "Waiting for quota."}],
    )
    bench.reconcile(DRIVETRAIN_PROJECT, "shop")
    why = text(bench.read(DRIVETRAIN_PROJECT, "shop"), "status", "nextDecision", "why")
    assert why == "It was started for Initial. Waiting for quota."


def test_numbers_in_status_have_four_digits() -> None:
    bench = ServingBench(a_deployment().document())
    bench.up()
    bench.tell(kpi={"mean": 0.4360004819277107, "lower": 0.41234567, "decisions": 1000})
    status = bench.read(DEPLOYMENT, "shop")["status"]
    assert isinstance(status, dict)
    assert status["kpi"] == {"mean": 0.436, "lower": 0.4123, "decisions": 1000, "unit": "USD"}
