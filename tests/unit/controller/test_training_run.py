"""Decisions about one run, made over a fake cluster in which the test is KubeRay, Kueue, the kubelet and the driver."""

from dataclasses import replace
from datetime import timedelta

import pytest

from drivetrain.api.documents import (
    Document,
    annotations_of,
    documents,
    labels_of,
    mapping,
    name_of,
    text,
    texts,
    uid_of,
    value,
)
from drivetrain.api.kinds import (
    CONFIG_MAP,
    DRIVETRAIN_PROJECT,
    RAY_JOB,
    ROLE,
    SERVICE_ACCOUNT,
    TRAINING_RUN,
    WORKLOAD,
)
from drivetrain.api.names import INCARNATION_ANNOTATION, ray_job_name
from drivetrain.api.runspec import RunSpec
from drivetrain.controller.manifests.settings import Settings
from tests.support.bench import NAMESPACE, SETTINGS, RunBench

DIGEST = "a" * 64


def approved(**changed: object) -> dict[str, object]:
    return {
        "state": "Approved",
        "version": "1",
        "digest": DIGEST,
        "uri": f"s3://shop/data/models/{DIGEST}",
        "project_uid": "00000000-0000-4000-8000-000000000001",
        **changed,
    }


def test_a_run_gets_its_records_its_account_and_one_ray_job() -> None:
    bench = RunBench()
    bench.look()
    kinds = {(text(each, "kind"), name_of(each)) for each in bench.cluster.everything()}
    assert kinds >= {
        ("ConfigMap", "shop-1-spec"),
        ("ConfigMap", "trainingrun-shop-1-ledger"),
        ("ConfigMap", "trainingrun-shop-1-report"),
        ("ServiceAccount", "trainingrun-shop-1"),
        ("Role", "trainingrun-shop-1"),
        ("RoleBinding", "trainingrun-shop-1"),
        ("RayJob", "shop-1-a1"),
    }
    assert bench.said("Reconciling") == ("True", "Starting", "The Ray cluster is starting.")


def test_the_role_gives_get_and_patch_on_the_report_and_nothing_else() -> None:
    bench = RunBench()
    bench.look()
    assert bench.read(ROLE, "trainingrun-shop-1")["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["trainingrun-shop-1-report"],
            "verbs": ["get", "patch"],
        }
    ]


def test_a_run_without_its_project_stalls_and_makes_nothing() -> None:
    bench = RunBench(project="shoe")
    wake = bench.look()
    stalled = bench.said("Stalled")
    assert stalled is not None
    assert stalled[1] == "ProjectNotFound"
    assert wake is not None
    assert bench.cluster.find(RAY_JOB) == ()


def test_the_run_spec_is_written_once_and_survives_a_changed_project() -> None:
    bench = RunBench()
    bench.look()
    before = bench.read(CONFIG_MAP, "shop-1-spec")
    bench.cluster.put(_with_description(bench))
    bench.look()
    assert bench.read(CONFIG_MAP, "shop-1-spec") == before
    assert before["immutable"] is True
    assert RunSpec.model_validate_json(texts(before, "data")["spec.json"]).tracking_uri == "http://mlflow:5000"


def test_a_changed_spec_of_a_run_stalls_it() -> None:
    bench = RunBench()
    bench.running()
    bench.edit(TRAINING_RUN, "shop-1", attempts=5)
    bench.look()
    stalled = bench.said("Stalled")
    assert stalled is not None
    assert stalled[1] == "InvalidSpec"
    assert "spec.attempts" in stalled[2]


def test_a_driver_whose_clock_is_far_ahead_is_alive_now() -> None:
    bench = RunBench()
    bench.running()
    bench.tell(at="9999-12-31T23:59:00Z", stage="Tuning")
    assert bench.look() == timedelta(minutes=10)
    assert text(bench.read(TRAINING_RUN, "shop-1"), "status", "stage") == "Tuning"


def test_waiting_for_quota_is_reconciling_in_plain_words() -> None:
    bench = RunBench(queue={"name": "pool"})
    bench.look()
    bench.cluster.put(_workload(bench))
    conditions = [{"type": "QuotaReserved", "status": "False", "reason": "WaitingForQuota", "message": "needs 2 more"}]
    bench.set_status(WORKLOAD, "w", conditions=conditions)
    bench.look()
    reconciling, reserved = bench.said("Reconciling"), bench.said("QuotaReserved")
    assert reconciling == ("True", "Queued", "Waiting for quota: the pool is fully used. needs 2 more")
    assert reserved is not None
    assert reserved[:2] == ("False", "WaitingForQuota")
    assert bench.said("Stalled") is None


def test_waiting_for_quota_uses_up_no_deadline() -> None:
    bench = RunBench(queue={"name": "pool"}, deadline="1h")
    bench.look()
    bench.pass_time(days=30)
    bench.look()
    assert bench.record.finished == ""
    assert bench.record.attempt == 1


def test_an_eviction_raises_the_incarnation_and_uses_no_attempt() -> None:
    bench = RunBench()
    bench.running()
    bench.job("Running", cluster="shop-1-a1-y")
    bench.look()
    assert (bench.record.attempt, bench.record.incarnation, bench.record.cluster) == (1, 2, "shop-1-a1-y")
    report = bench.read(CONFIG_MAP, "trainingrun-shop-1-report")
    assert annotations_of(report)[INCARNATION_ANNOTATION] == "2 shop-1-a1-y"


def test_a_late_read_does_not_bring_an_old_cluster_back() -> None:
    bench = RunBench()
    bench.running()
    bench.job("Running", cluster="shop-1-a1-y")
    bench.look()
    bench.job("Running", cluster="shop-1-a1-x")
    bench.look()
    assert (bench.record.incarnation, bench.record.cluster) == (2, "shop-1-a1-y")


def test_the_report_of_another_incarnation_does_not_count() -> None:
    bench = RunBench()
    bench.running()
    bench.tell(incarnation=2, result=approved())
    bench.look()
    assert bench.record.finished == ""


def test_a_report_that_cannot_be_read_does_not_count() -> None:
    bench = RunBench()
    bench.running()
    live = bench.read(CONFIG_MAP, "trainingrun-shop-1-report")
    bench.cluster.put({**live, "data": {"shop-1-a1-x": '{"attempt": "many"}'}}, "driver")
    bench.look()
    assert bench.record.finished == ""


def test_keys_of_clusters_that_are_gone_are_removed_from_the_report() -> None:
    bench = RunBench()
    bench.running()
    bench.tell()
    bench.job("Running", cluster="shop-1-a1-y")
    bench.tell(cluster="shop-1-a1-y", incarnation=2)
    bench.look()
    assert set(texts(bench.read(CONFIG_MAP, "trainingrun-shop-1-report"), "data")) == {"shop-1-a1-y"}


def test_an_approved_version_completes_the_run() -> None:
    bench = RunBench()
    bench.running()
    bench.tell(result=approved(lever_effect="Observational"))
    bench.look()
    ready, complete = bench.said("Ready"), bench.said("Complete")
    assert ready is not None
    assert ready[:2] == ("True", "Succeeded")
    assert complete is not None
    assert bench.said("Reconciling") is None
    assert bench.record.version is not None
    assert bench.record.version.run == "shop-1"
    assert bench.record.lever_effect == "Observational"


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"project_uid": "another"}, id="of another project"),
        pytest.param({"uri": "s3://elsewhere/models/x"}, id="outside the store"),
        pytest.param({"uri": "s3://shop/data/../models/x"}, id="out of the store by two dots"),
        pytest.param({"digest": None}, id="without its digest"),
    ],
)
def test_an_approved_version_that_does_not_fit_the_project_is_not_believed(changed: dict[str, object]) -> None:
    bench = RunBench()
    bench.running()
    bench.tell(result=approved(**changed))
    bench.look()
    assert bench.record.finished == "Failed"
    assert bench.record.reason == "ReportInvalid"
    assert bench.record.version is None


def test_a_driver_that_was_told_to_train_cannot_say_that_it_prepared() -> None:
    bench = RunBench()
    bench.running()
    bench.tell(result={"state": "Prepared"})
    bench.look()
    ready = bench.said("Ready")
    assert ready is not None
    assert ready[1] == "ReportInvalid"


def test_a_failed_gate_ends_the_run_with_the_gates_in_the_message() -> None:
    bench = RunBench()
    bench.running()
    gates = [
        {"name": "rocAuc", "verdict": "Failed", "message": "0.52 is below 0.6"},
        {"name": "logLoss", "verdict": "Passed"},
    ]
    bench.tell(gates=gates, result={"state": "Refused", "version": "1", "digest": DIGEST})
    bench.look()
    assert bench.said("Stalled") == ("True", "GateFailed", "rocAuc: 0.52 is below 0.6")
    assert bench.said("Complete") is not None
    assert bench.said("Failed") is None


def test_a_mistake_in_the_data_is_not_tried_again() -> None:
    bench = RunBench()
    bench.running()
    result = {"state": "Failed", "reason": "SourceNotFound", "message": "s3://shop/visits is empty.", "permanent": True}
    bench.tell(result=result)
    bench.look()
    assert bench.said("Stalled") == ("True", "SourceNotFound", "s3://shop/visits is empty.")
    assert bench.record.attempt == 1


def test_an_unsupported_ray_stalls_a_run_before_anything_is_made() -> None:
    bench = RunBench(cluster={"rayVersion": "2.52.1"})
    bench.look()
    stalled = bench.said("Stalled")
    assert stalled is not None
    assert stalled[1] == "ImageUnsupported"
    assert not bench.cluster.find(RAY_JOB)


def test_a_run_fetches_its_images_with_the_secrets_that_the_operator_is_told() -> None:
    bench = RunBench(settings=replace(SETTINGS, pull_secrets=("registry",)))
    bench.look()
    assert bench.read(SERVICE_ACCOUNT, "trainingrun-shop-1")["imagePullSecrets"] == [{"name": "registry"}]


def test_another_operators_default_image_is_for_other_runs() -> None:
    bench = RunBench()
    bench.running()
    bench.job("Failed", message="it crashed")
    bench.pass_time(minutes=1)
    newer = RunBench(settings=Settings(ray_image="example.org/ray:2", ray_version="2.60.1"))
    newer.cluster = bench.cluster
    bench.look()
    newer.look()
    (job,) = bench.cluster.find(RAY_JOB)
    assert name_of(job) == "shop-1-a2"
    head = documents(job, "spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "containers")[0]
    assert text(head, "image") == "example.org/ray:1"


def test_the_deadline_counts_active_time_over_all_incarnations() -> None:
    bench = RunBench(deadline="30m")
    bench.running()
    for minute in range(0, 30, 5):
        assert bench.record.finished == "", f"after {minute} minutes"
        bench.pass_time(minutes=5)
        bench.job("Running", cluster=f"shop-1-a1-{minute}")
        bench.look()
        bench.tell(cluster=f"shop-1-a1-{minute}", incarnation=bench.record.incarnation)
    bench.look()
    assert bench.said("Stalled") is not None
    assert bench.record.reason == "DeadlineExceeded"
    assert bench.cluster.find(RAY_JOB) == ()


def test_suspension_deletes_the_job_and_the_next_attempt_is_not_counted() -> None:
    bench = RunBench(attempts=1)
    bench.running()
    bench.edit(TRAINING_RUN, "shop-1", suspend=True)
    bench.look()
    assert bench.cluster.find(RAY_JOB) == ()
    ready = bench.said("Ready")
    assert ready is not None
    assert ready[:2] == ("False", "Suspended")
    bench.edit(TRAINING_RUN, "shop-1", suspend=False)
    bench.look()
    assert [name_of(job) for job in bench.cluster.find(RAY_JOB)] == ["shop-1-a2"]
    assert bench.record.uncounted == 1


def test_a_cancelled_run_stops_its_job_and_stays_cancelled() -> None:
    bench = RunBench()
    bench.running()
    bench.annotate(TRAINING_RUN, "shop-1", cancel="now")
    bench.look()
    assert bench.cluster.find(RAY_JOB) == ()
    stalled = bench.said("Stalled")
    assert stalled is not None
    assert stalled[1] == "Cancelled"


def test_a_finished_run_is_deleted_at_its_age() -> None:
    bench = RunBench(ttlAfterFinished="1h")
    bench.running()
    bench.tell(result=approved())
    bench.job("Complete")
    assert bench.look() == timedelta(hours=1)
    bench.pass_time(hours=1)
    bench.look()
    assert bench.read(TRAINING_RUN, "shop-1") == {}


def test_a_job_with_a_result_that_does_not_end_by_itself_is_stopped() -> None:
    bench = RunBench()
    bench.running()
    bench.tell(result=approved())
    bench.look()
    assert len(bench.cluster.find(RAY_JOB)) == 1
    bench.pass_time(minutes=6)
    bench.look()
    assert bench.cluster.find(RAY_JOB) == ()


def test_a_job_that_is_preempted_after_its_result_does_not_start_again() -> None:
    bench = RunBench()
    bench.running()
    bench.tell(result=approved())
    bench.look()
    bench.job("Initializing", cluster="another")
    bench.look()
    assert bench.cluster.find(RAY_JOB) == ()
    complete = bench.said("Complete")
    assert complete is not None
    assert complete[0] == "True"


def test_suspend_is_never_written_on_a_ray_job() -> None:
    bench = RunBench(queue={"name": "pool", "priorityClass": "low"})
    bench.look()
    job = bench.read(RAY_JOB, "shop-1-a1")
    assert value(job, "spec", "suspend") is None
    assert labels_of(job)["kueue.x-k8s.io/queue-name"] == "pool"
    assert labels_of(job)["kueue.x-k8s.io/priority-class"] == "low"
    # Kueue's own field survives whatever the operator states later.
    bench.cluster.put({**job, "spec": {**mapping(job, "spec"), "suspend": True}}, "kueue")
    bench.look()
    assert value(bench.read(RAY_JOB, "shop-1-a1"), "spec", "suspend") is True


def test_a_wiped_status_comes_back_and_changes_nothing() -> None:
    bench = RunBench()
    bench.running()
    before = bench.read(TRAINING_RUN, "shop-1")["status"]
    bench.set_status(TRAINING_RUN, "shop-1")
    bench.look()
    assert bench.read(TRAINING_RUN, "shop-1")["status"] == before


def test_a_run_created_again_under_the_same_name_does_not_inherit_the_old_ones_end() -> None:
    bench = RunBench()
    bench.running()
    bench.tell(result=approved())
    bench.look()
    document = {key: part for key, part in bench.read(TRAINING_RUN, "shop-1").items() if key in ("spec", "kind")}
    bench.drop(TRAINING_RUN, "shop-1")
    metadata: Document = {"name": "shop-1", "namespace": NAMESPACE}
    bench.cluster.put({**document, "apiVersion": TRAINING_RUN.api_version, "metadata": metadata})
    assert bench.look() == timedelta(seconds=1)
    assert bench.said("Complete") is None
    bench.cluster.collect_garbage()
    bench.look()
    assert (bench.record.attempt, bench.record.finished) == (1, "")


def test_events_tell_transitions_once() -> None:
    bench = RunBench()
    bench.running()
    bench.tell(result=approved())
    bench.look()
    bench.look()
    assert sorted(bench.events()) == ["Running", "Starting", "Succeeded"]


def _with_description(bench: RunBench) -> Document:
    live = bench.read(DRIVETRAIN_PROJECT, "shop")
    spec = mapping(live, "spec")
    return {**live, "spec": {**spec, "objective": {**mapping(spec, "objective"), "description": "changed"}}}


def _workload(bench: RunBench, part: str = "") -> Document:
    labels = {"kueue.x-k8s.io/job-uid": uid_of(bench.read(RAY_JOB, ray_job_name("shop-1", 1, part)))}
    metadata: Document = {"name": "w", "namespace": NAMESPACE, "labels": labels}
    return {"apiVersion": WORKLOAD.api_version, "kind": "Workload", "metadata": metadata}
