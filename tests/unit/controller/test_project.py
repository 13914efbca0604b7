"""Decisions about one project: runs it starts, versions it approves, the Deployment it makes, what status says."""

import pytest

from drivetrain.api.documents import Document, documents, mapping, name_of, sequence, text, texts, uid_of, value
from drivetrain.api.kinds import CONFIG_MAP, DEPLOYMENT, DRIVETRAIN_PROJECT, RAY_SERVICE, TRAINING_RUN, Ref
from drivetrain.api.ledger import DeploymentLedger, ProjectLedger, RunLedger, StableVariant, StartedRun
from drivetrain.api.names import OWNER_UID_LABEL, REVISION_LABEL, report_name
from drivetrain.api.policy import policy_hash
from drivetrain.api.report import ServingReport
from drivetrain.api.v1alpha1.deployment import RejectedVariant
from drivetrain.api.v1alpha1.project import DrivetrainProject, VersionReference
from drivetrain.controller.core.policies import policy_of
from tests.support.bench import NAMESPACE, Bench
from tests.support.builders import ProjectBuilder, a_deployment, a_project, a_run


class ProjectBench(Bench):
    """A bench that reconciles its project."""

    def __init__(self, project: ProjectBuilder | None = None) -> None:
        super().__init__(project=(project or a_project()).document())
        self.look()

    def look(self) -> None:
        self.reconcile(DRIVETRAIN_PROJECT, "shop")

    @property
    def record(self) -> ProjectLedger:
        return self.ledger(ProjectLedger, DRIVETRAIN_PROJECT, "shop")

    def said(self, type_: str) -> tuple[str, str, str] | None:
        return self.condition(DRIVETRAIN_PROJECT, "shop", type_)

    def finish(self, number: int, state: str = "Approved", **told: str) -> VersionReference:
        """Let a run end."""
        self.pass_time(minutes=1)
        version = VersionReference(version=str(number), digest=f"{number:x}" * 64, run=f"shop-{number}")
        ledger = RunLedger.model_validate(
            {
                "attempt": 1,
                "finished": state,
                "finished_at": self.now,
                "version": version,
                "lever_effect": "Observational",
                **told,
            }
        )
        self.write_ledger(TRAINING_RUN, f"shop-{number}", ledger)
        self.look()
        return version

    def serve(self, version: VersionReference | None, rejected: tuple[RejectedVariant, ...] = ()) -> None:
        """Let the Deployment's ledger say what is stable."""
        policy = policy_of(DrivetrainProject.parse(self.read(DRIVETRAIN_PROJECT, "shop")), version)
        ledger = DeploymentLedger(
            stable=StableVariant(hash="s", since=self.now), baseline="b", policies={"s": policy}, rejected=rejected
        )
        self.write_ledger(DEPLOYMENT, "shop", ledger)
        self.look()

    def report(self, **parts: object) -> None:
        """Let the Monitor of the project's Deployment report."""
        service: Document = {
            "apiVersion": RAY_SERVICE.api_version,
            "kind": RAY_SERVICE.kind,
            "metadata": {
                "name": "shop-r",
                "namespace": NAMESPACE,
                "labels": {OWNER_UID_LABEL: uid_of(self.read(DEPLOYMENT, "shop")), REVISION_LABEL: "r"},
            },
        }
        self.cluster.put(service)
        self.set_status(RAY_SERVICE, "shop-r", activeServiceStatus={"rayClusterName": "c"})
        serving = self.ledger(DeploymentLedger, DEPLOYMENT, "shop")
        self.write_ledger(DEPLOYMENT, "shop", serving.model_copy(update={"revision": "r"}))
        told = ServingReport.model_validate({"sequence": 1, "at": self.now, "replicas": 1, **parts})
        name = report_name(DEPLOYMENT.kind, "shop")
        self.cluster.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE}})
        self.write_report(DEPLOYMENT, "shop", "c", told)
        self.look()

    def runs(self) -> list[str]:
        return [name_of(each) for each in self.cluster.find(TRAINING_RUN)]


def test_a_new_project_starts_its_first_run_and_makes_its_deployment() -> None:
    bench = ProjectBench()
    run = bench.read(TRAINING_RUN, "shop-1")
    assert value(run, "spec", "trigger", "cause") == "Initial"
    assert text(bench.read(DEPLOYMENT, "shop"), "spec", "project") == "shop"
    (owner,) = documents(run, "metadata", "ownerReferences")
    assert (owner["kind"], owner["blockOwnerDeletion"]) == ("DrivetrainProject", False)
    assert text(bench.read(DRIVETRAIN_PROJECT, "shop"), "status", "stage") == "Build"


def test_an_invalid_project_stalls_and_makes_nothing() -> None:
    bench = ProjectBench(a_project().with_field("spec.levers[0].step", "0.3"))
    stalled = bench.said("Stalled")
    assert stalled is not None
    assert stalled[1] == "InvalidSpec"
    assert "spec.levers[0]" in stalled[2]
    assert bench.runs() == []
    assert bench.cluster.find(DEPLOYMENT) == ()


def test_a_project_that_turns_invalid_keeps_what_it_has_reached_and_begins_nothing() -> None:
    bench = ProjectBench()
    version = bench.finish(1)
    bench.serve(version)
    bench.annotate(DRIVETRAIN_PROJECT, "shop", retrain="now")
    bench.look()
    before = mapping(bench.read(DRIVETRAIN_PROJECT, "shop"), "status")
    bench.edit(DRIVETRAIN_PROJECT, "shop", levers=[])
    bench.finish(2, "Failed")
    bench.annotate(DRIVETRAIN_PROJECT, "shop", retrain="again")
    bench.look()
    after = mapping(bench.read(DRIVETRAIN_PROJECT, "shop"), "status")
    stalled = bench.said("Stalled")
    assert stalled is not None
    assert stalled[1] == "InvalidSpec"
    assert text(after, "nextDecision", "what") == "Correction of the spec"
    for kept in ("stage", "champion", "approved", "lastRun", "effort"):
        assert after[kept] == before[kept]
    assert [text(each, "state") for each in documents(after, "runs")] == ["Failed", "Promoted"]
    assert bench.runs() == ["shop-1", "shop-2"]
    assert bench.said("LeverEffect") is not None


def test_a_corrected_project_goes_on_where_it_was_and_tells_nothing_twice() -> None:
    bench = ProjectBench()
    version = bench.finish(1)
    bench.serve(version)
    before, levers = bench.record, sequence(bench.read(DRIVETRAIN_PROJECT, "shop"), "spec", "levers")
    bench.edit(DRIVETRAIN_PROJECT, "shop", levers=[])
    bench.look()
    bench.edit(DRIVETRAIN_PROJECT, "shop", levers=levers)
    bench.look()
    assert bench.record == before.model_copy(update={"generation": before.generation + 2})
    assert [each for each in bench.events() if each in ("ChampionChanged", "TrainingStarted")] == [
        "TrainingStarted",
        "ChampionChanged",
    ]


@pytest.mark.parametrize(("state", "reason"), [("Failed", "SourceMissing"), ("Refused", "GateFailed")])
def test_why_a_run_ended_is_read_where_its_end_is(state: str, reason: str) -> None:
    bench = ProjectBench()
    running = {"type": "Ready", "status": "False", "reason": "Running", "message": "The job runs Training."}
    bench.set_status(TRAINING_RUN, "shop-1", conditions=[running])
    bench.finish(1, state, reason=reason, message="It says so.")
    bench.look()
    told = "It says so. Correct the project, or annotate drivetrain.dev/retrain."
    assert bench.said("Stalled") == ("True", reason, told), "the run's status is older than its ledger"


def test_a_first_look_at_the_sources_and_other_sources_are_a_new_baseline_and_other_files_a_run() -> None:
    bench = ProjectBench(a_project().with_field("spec.loop", {"cooldown": "0s", "retrain": {"newData": True}}))
    bench.serve(bench.finish(1))
    bench.pass_time(days=1)
    for told, runs in (("a-1", 1), ("b-1", 1), ("b-2", 2)):
        bench.report(data_fingerprint=told)
        assert bench.record.data_fingerprint == told
        assert len(bench.runs()) == runs, told
    assert value(bench.read(TRAINING_RUN, "shop-2"), "spec", "trigger", "cause") == "DataChanged"


def test_a_deployment_of_another_name_that_names_the_project_is_enough() -> None:
    bench = Bench(project=a_project().document())
    bench.cluster.put(a_deployment("mine").document())
    bench.reconcile(DRIVETRAIN_PROJECT, "shop")
    assert [name_of(each) for each in bench.cluster.find(DEPLOYMENT)] == ["mine"]


def test_a_persons_deployment_of_the_projects_name_is_left_alone() -> None:
    bench = Bench(project=a_project().with_serving(replicas=2).document())
    bench.cluster.put(a_deployment("shop").document())
    bench.reconcile(DRIVETRAIN_PROJECT, "shop")
    assert value(bench.read(DEPLOYMENT, "shop"), "spec", "replicas") is None


def test_a_deployment_whose_project_asks_for_no_number_of_replicas_may_be_scaled() -> None:
    bench = Bench(project=a_project().with_serving().document())
    bench.reconcile(DRIVETRAIN_PROJECT, "shop")
    assert "replicas" not in mapping(bench.read(DEPLOYMENT, "shop"), "spec")
    bench.edit(DEPLOYMENT, "shop", replicas=4)
    bench.reconcile(DRIVETRAIN_PROJECT, "shop")
    assert mapping(bench.read(DEPLOYMENT, "shop"), "spec")["replicas"] == 4


def test_the_deployment_follows_the_serving_template() -> None:
    bench = ProjectBench()
    bench.edit(DRIVETRAIN_PROJECT, "shop", serving={"auth": {"secretName": "keys"}, "replicas": 3})
    bench.look()
    assert value(bench.read(DEPLOYMENT, "shop"), "spec", "replicas") == 3


def test_a_version_that_passed_its_gates_is_approved_by_itself() -> None:
    bench = ProjectBench()
    version = bench.finish(1)
    assert bench.record.approved == version
    ready, effect = bench.said("Ready"), bench.said("LeverEffect")
    assert ready is not None
    assert ready[0] == "True"
    assert effect is not None
    assert effect[1] == "Observational"


def test_a_version_that_failed_a_gate_is_not_approved_and_a_first_run_says_so() -> None:
    bench = ProjectBench()
    bench.finish(1, "Refused")
    assert bench.record.approved is None
    assert bench.record.runs[0].verdict == "Refused"
    assert bench.said("Stalled") is not None


def test_manual_approval_waits_for_the_digest() -> None:
    bench = ProjectBench(a_project().with_field("spec.loop.approval", "Manual"))
    version = bench.finish(1)
    assert bench.record.awaiting_approval == version
    assert version.digest in text(bench.read(DRIVETRAIN_PROJECT, "shop"), "status", "nextDecision", "why")
    bench.annotate(DRIVETRAIN_PROJECT, "shop", approve="f" * 64)
    bench.look()
    assert bench.record.awaiting_approval == version
    bench.annotate(DRIVETRAIN_PROJECT, "shop", approve=version.digest)
    bench.look()
    record = bench.record
    assert record.approved == version
    assert record.awaiting_approval is None


def test_a_run_that_a_person_created_is_approved_as_manual() -> None:
    bench = ProjectBench()
    bench.finish(1)
    bench.cluster.put(a_run("by-hand").document())
    version = VersionReference(version="7", digest="7" * 64, run="by-hand")
    bench.pass_time(minutes=1)
    ledger = RunLedger(attempt=1, finished="Approved", finished_at=bench.now, version=version)
    bench.write_ledger(TRAINING_RUN, "by-hand", ledger)
    bench.look()
    assert bench.record.approved == version
    assert {run.name: run.cause for run in bench.record.runs} == {"shop-1": "Initial", "by-hand": "Manual"}


def test_a_name_that_a_person_took_is_skipped() -> None:
    bench = Bench(project=a_project().document())
    bench.cluster.put(a_run("shop-1").document())
    bench.reconcile(DRIVETRAIN_PROJECT, "shop")
    assert [name_of(each) for each in bench.cluster.find(TRAINING_RUN)] == ["shop-1", "shop-2"]


def test_a_run_that_was_seen_and_is_deleted_is_not_created_again() -> None:
    bench = ProjectBench()
    bench.cluster.remove(Ref(TRAINING_RUN, NAMESPACE, "shop-1"))
    bench.look()
    assert bench.runs() == []
    assert bench.record.runs[0].finished == "Deleted"


def test_the_champion_is_what_the_deployments_ledger_calls_stable() -> None:
    bench = ProjectBench()
    version = bench.finish(1)
    bench.serve(version)
    status = bench.read(DRIVETRAIN_PROJECT, "shop")
    assert text(status, "status", "champion", "version") == "1"
    assert text(status, "status", "stage") == "Learn"
    assert bench.record.runs[0].verdict == "Promoted"


def test_a_retrain_annotation_starts_one_run_and_the_same_value_no_other() -> None:
    bench = ProjectBench()
    bench.finish(1)
    bench.annotate(DRIVETRAIN_PROJECT, "shop", retrain="monday")
    bench.look()
    bench.finish(2)
    assert bench.runs() == ["shop-1", "shop-2"]
    assert value(bench.read(TRAINING_RUN, "shop-2"), "spec", "trigger", "cause") == "Manual"
    bench.annotate(DRIVETRAIN_PROJECT, "shop", retrain="tuesday")
    bench.look()
    assert bench.runs() == ["shop-1", "shop-2", "shop-3"]


def test_changed_training_starts_a_run_and_changed_lever_bounds_do_not() -> None:
    bench = ProjectBench()
    bench.finish(1)
    bounds = a_project().with_lever("price", maximum="2.04").document()["spec"]
    bench.edit(DRIVETRAIN_PROJECT, "shop", levers=bounds["levers"])
    bench.look()
    assert bench.runs() == ["shop-1"]
    candidates = [{"name": "forest", "estimator": "RandomForest"}]
    bench.edit(DRIVETRAIN_PROJECT, "shop", training={"candidates": candidates})
    bench.look()
    assert value(bench.read(TRAINING_RUN, "shop-2"), "spec", "trigger", "cause") == "SpecChanged"


def test_a_late_read_of_an_older_spec_is_not_acted_on() -> None:
    bench = ProjectBench()
    bench.finish(1)
    bench.write_ledger(
        DRIVETRAIN_PROJECT, "shop", bench.record.model_copy(update={"generation": 2, "training_hash": "x"})
    )
    bench.look()
    assert bench.runs() == ["shop-1"]


def test_three_rejections_in_a_row_open_the_circuit_until_a_person_asks_for_a_run() -> None:
    bench = ProjectBench(a_project().with_field("spec.loop", {"cooldown": "0s", "minExploredOutcomes": 0}))
    bench.serve(bench.finish(1))
    rejected: tuple[RejectedVariant, ...] = ()
    for number in (2, 3, 4):
        spec = a_project().with_field("spec.training.tuning", {"trials": number}).document()["spec"]
        bench.pass_time(hours=2)
        bench.edit(DRIVETRAIN_PROJECT, "shop", training=spec["training"])
        bench.look()
        bench.finish(number)
        bench.pass_time(minutes=1)
        entry = RejectedVariant(hash=f"h{number}", version=str(number), reason="Inconclusive", at=bench.now)
        rejected = (entry, *rejected)
        bench.serve(VersionReference(version="1", digest="1" * 64, run="shop-1"), rejected)
    opened = bench.said("CircuitOpen")
    assert opened is not None
    assert bench.record.rejected_in_a_row == 3
    bench.annotate(DRIVETRAIN_PROJECT, "shop", retrain="understood")
    bench.look()
    assert bench.record.rejected_in_a_row == 0
    assert bench.said("CircuitOpen") is None


def test_a_run_that_publishes_a_rejected_graph_again_is_rejected_with_it() -> None:
    bench = ProjectBench()
    bench.serve(bench.finish(1))
    bench.annotate(DRIVETRAIN_PROJECT, "shop", retrain="again")
    bench.look()
    version = bench.finish(2)
    project = DrivetrainProject.parse(bench.read(DRIVETRAIN_PROJECT, "shop"))
    hash_ = policy_hash(policy_of(project, version))
    entry = RejectedVariant(hash=hash_, version="an earlier one", reason="Harm", at=bench.now)
    bench.serve(VersionReference(version="1", digest="1" * 64, run="shop-1"), (entry,))
    assert {run.name: run.verdict for run in bench.record.runs} == {"shop-1": "Promoted", "shop-2": "Rejected"}


def test_what_the_project_creates_is_stated_whole_and_valid() -> None:
    bench = ProjectBench()
    for kind in (TRAINING_RUN, DEPLOYMENT):
        for each in bench.cluster.find(kind):
            assert sequence(each, "metadata", "ownerReferences")
            bench.reconcile(kind, name_of(each))
            stalled = bench.condition(kind, name_of(each), "Stalled")
            assert stalled is None, stalled


def test_a_rejection_told_at_length_starts_a_run_with_as_much_of_it_as_a_trigger_may_carry() -> None:
    bench = ProjectBench(a_project().with_field("spec.loop", {"cooldown": "0s", "minExploredOutcomes": 0}))
    champion = bench.finish(1)
    bench.serve(champion)
    bench.pass_time(days=1)
    bench.edit(DRIVETRAIN_PROJECT, "shop", training={"candidates": [{"name": "forest", "estimator": "RandomForest"}]})
    bench.look()
    bench.finish(2)
    bench.pass_time(days=1)
    told = "; ".join(f"{metric}: candidate minus stable in [-0.1235, -0.04567]" for metric in "abcdefgh")
    bench.serve(champion, (RejectedVariant(hash="h", version="2", reason="Harm", message=told, at=bench.now),))
    bench.pass_time(days=1)
    bench.look()
    trigger = mapping(bench.read(TRAINING_RUN, "shop-3"), "spec", "trigger")
    assert text(trigger, "cause") == "CanaryRejected"
    assert text(trigger, "evidence", "message") == f"{told[:255]}…"


def test_a_run_that_an_earlier_operator_recorded_with_more_evidence_than_fits_is_created() -> None:
    bench = ProjectBench()
    bench.finish(1)
    run = StartedRun(name="shop-2", cause="CanaryRejected", at=bench.now, evidence={"message": "m" * 512})
    record = bench.record.model_copy(update={"runs": (run, *bench.record.runs), "runs_started": 2})
    bench.write_ledger(DRIVETRAIN_PROJECT, "shop", record)
    bench.look()
    assert text(bench.read(TRAINING_RUN, "shop-2"), "spec", "trigger", "evidence", "message") == f"{'m' * 255}…"


def test_a_run_whose_status_gives_a_reason_of_any_length_leaves_the_project_its_status() -> None:
    bench = ProjectBench()
    bench.set_status(TRAINING_RUN, "shop-1", conditions=[{"type": "Ready", "status": "False", "reason": "R" * 128}])
    bench.look()
    (run,) = documents(bench.read(DRIVETRAIN_PROJECT, "shop"), "status", "runs")
    assert text(run, "state") == f"{'R' * 63}…"


def test_a_name_that_another_projects_run_has_is_skipped() -> None:
    bench = Bench(project=a_project().document())
    other = a_run("shop-1").document()
    bench.cluster.put({**other, "spec": {**other["spec"], "project": "other"}})
    bench.reconcile(DRIVETRAIN_PROJECT, "shop")
    started = text(bench.read(DRIVETRAIN_PROJECT, "shop"), "status", "lastRun")
    assert (started, text(bench.read(TRAINING_RUN, started), "spec", "project")) == ("shop-2", "shop")


def test_a_recorded_run_whose_name_went_to_another_project_gets_the_next_one() -> None:
    bench = ProjectBench()
    bench.finish(1)
    run = StartedRun(name="shop-2", cause="Manual", at=bench.now, evidence={"token": "x"})
    record = bench.record.model_copy(update={"runs": (run, *bench.record.runs), "runs_started": 2})
    bench.write_ledger(DRIVETRAIN_PROJECT, "shop", record)
    other = a_run("shop-2").document()
    bench.cluster.put({**other, "spec": {**other["spec"], "project": "other"}})
    bench.look()
    assert [each.name for each in bench.record.runs] == ["shop-3", "shop-1"]
    assert text(bench.read(TRAINING_RUN, "shop-3"), "spec", "trigger", "evidence", "token") == "x"
    bench.finish(3)
    bench.annotate(DRIVETRAIN_PROJECT, "shop", retrain="again")
    bench.look()
    assert bench.record.runs[0].name == "shop-4"


@pytest.mark.parametrize("edits", [0, 2])
def test_a_ledger_that_was_left_behind_without_its_owner_is_taken_over_with_all_it_remembers(edits: int) -> None:
    bench = ProjectBench()
    version = bench.finish(1)
    for number in range(edits):
        bench.edit(DRIVETRAIN_PROJECT, "shop", loop={"cooldown": f"{number + 1}h"})
        bench.look()
    assert bench.record.generation == edits + 1
    ledger = bench.read(CONFIG_MAP, "drivetrainproject-shop-ledger")
    kept = {key: part for key, part in mapping(ledger, "metadata").items() if key != "ownerReferences"}
    bench.cluster.put({**ledger, "metadata": kept})
    bench.cluster.remove(Ref(DRIVETRAIN_PROJECT, NAMESPACE, "shop"))
    bench.cluster.put(a_project().document())
    bench.look()
    assert (bench.record.generation, bench.record.approved) == (1, version)
    assert text(bench.read(DRIVETRAIN_PROJECT, "shop"), "status", "approved", "version") == "1"
    (owner,) = documents(bench.read(CONFIG_MAP, "drivetrainproject-shop-ledger"), "metadata", "ownerReferences")
    assert text(owner, "uid") == uid_of(bench.read(DRIVETRAIN_PROJECT, "shop"))


def test_a_version_that_awaits_approval_may_be_approved_after_its_run_was_deleted() -> None:
    bench = ProjectBench(a_project().with_field("spec.loop.approval", "Manual"))
    version = bench.finish(1)
    bench.cluster.remove(Ref(TRAINING_RUN, NAMESPACE, "shop-1"))
    bench.cluster.remove(Ref(CONFIG_MAP, NAMESPACE, "trainingrun-shop-1-ledger"))
    bench.look()
    assert bench.record.awaiting_approval == version
    bench.annotate(DRIVETRAIN_PROJECT, "shop", approve=version.digest)
    bench.look()
    record = bench.record
    assert record.approved == version
    assert record.awaiting_approval is None


def test_a_version_with_the_champions_number_from_another_mlflow_is_rolled_out_and_not_called_promoted() -> None:
    bench = ProjectBench()
    bench.serve(bench.finish(1))
    bench.annotate(DRIVETRAIN_PROJECT, "shop", retrain="again")
    bench.look()
    bench.pass_time(minutes=5)
    version = VersionReference(version="1", digest="f" * 64, run="shop-2")
    ledger = RunLedger(attempt=1, finished="Approved", finished_at=bench.now, version=version)
    bench.write_ledger(TRAINING_RUN, "shop-2", ledger)
    bench.look()
    assert bench.record.approved == version
    assert {run.name: run.verdict for run in bench.record.runs} == {"shop-1": "Promoted", "shop-2": ""}
    bench.serve(version)
    assert {run.name: run.verdict for run in bench.record.runs} == {"shop-1": "Promoted", "shop-2": "Promoted"}
    assert bench.events().count("ChampionChanged") == 2


@pytest.mark.parametrize(("digest", "verdict"), [("2" * 64, ""), (None, "Rejected")])
def test_a_version_with_a_rejected_number_is_judged_by_its_digest_where_the_rejection_has_one(
    digest: str | None, verdict: str
) -> None:
    bench = ProjectBench()
    champion = bench.finish(1)
    bench.serve(champion, (RejectedVariant(hash="h", version="2", digest=digest, reason="Aborted", at=bench.now),))
    bench.annotate(DRIVETRAIN_PROJECT, "shop", retrain="again")
    bench.look()
    bench.pass_time(minutes=5)
    version = VersionReference(version="2", digest="f" * 64, run="shop-2")
    ledger = RunLedger(attempt=1, finished="Approved", finished_at=bench.now, version=version)
    bench.write_ledger(TRAINING_RUN, "shop-2", ledger)
    bench.look()
    assert {run.name: run.verdict for run in bench.record.runs} == {"shop-1": "Promoted", "shop-2": verdict}
    assert (bench.record.approved == version) == (verdict == "")


def test_a_run_that_is_deleted_while_it_trains_was_charged_as_its_status_said() -> None:
    bench = ProjectBench()
    bench.write_ledger(TRAINING_RUN, "shop-1", RunLedger(attempt=1, part="t", gpu_seconds=600, active_since=bench.now))
    bench.set_status(TRAINING_RUN, "shop-1", gpuSeconds=8 * 36000)
    bench.look()
    assert value(bench.read(DRIVETRAIN_PROJECT, "shop"), "status", "effort", "gpuHours") == 80
    bench.cluster.remove(Ref(TRAINING_RUN, NAMESPACE, "shop-1"))
    bench.cluster.remove(Ref(CONFIG_MAP, NAMESPACE, "trainingrun-shop-1-ledger"))
    bench.pass_time(days=8)
    bench.look()
    (run,) = bench.record.runs
    assert (run.finished, run.ended_at) == ("Deleted", bench.now)
    assert value(bench.read(DRIVETRAIN_PROJECT, "shop"), "status", "effort", "gpuHours") == 80
    bench.pass_time(days=8)
    bench.look()
    assert value(bench.read(DRIVETRAIN_PROJECT, "shop"), "status", "effort", "gpuHours") == 0


def test_what_a_job_cost_that_ended_before_its_status_was_written_again_is_what_the_runs_ledger_says() -> None:
    bench = ProjectBench()
    bench.set_status(TRAINING_RUN, "shop-1", gpuSeconds=60)
    bench.finish(1, "Failed", gpu_seconds="90")
    assert bench.record.runs[0].gpu_seconds == 90
    assert bench.record.runs[0].ended_at == bench.now


def test_a_report_with_a_time_of_no_zone_counts_as_none() -> None:
    bench = ProjectBench()
    bench.serve(bench.finish(1))
    detector = {"severity": "Severe", "message": "moved"}
    bench.report(drift={"calibration": {**detector, "changed_at": "2026-01-01T00:00:00Z"}}, matured=7)
    assert value(bench.read(DRIVETRAIN_PROJECT, "shop"), "status", "effort", "labels") == 7
    written = texts(bench.read(CONFIG_MAP, report_name(DEPLOYMENT.kind, "shop")), "data")["c"]
    live = bench.read(CONFIG_MAP, report_name(DEPLOYMENT.kind, "shop"))
    bench.cluster.put({**live, "data": {"c": written.replace("2026-01-01T00:00:00Z", "2026-01-01T00:00:00")}}, "c")
    bench.look()
    assert value(bench.read(DRIVETRAIN_PROJECT, "shop"), "status", "effort", "labels") in (None, 0)
