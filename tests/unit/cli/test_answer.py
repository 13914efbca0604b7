"""`drivetrain why`: the one sentence, and the facts behind it from each place that keeps one."""

from datetime import timedelta
from pathlib import Path

import pytest

from drivetrain.api.documents import Document, uid_of
from drivetrain.api.dossier import Dossier, JobRecord
from drivetrain.api.errors import DrivetrainError, StoreError, UnavailableError
from drivetrain.api.kinds import CONFIG_MAP, DRIVETRAIN_PROJECT, EVENT, POD, RAY_JOB, TRAINING_RUN, WORKLOAD
from drivetrain.api.layout import dossier as dossier_key
from drivetrain.api.names import LEDGER_KEY, ledger_name, ray_job_name
from drivetrain.api.v1alpha1.dataset import Store
from drivetrain.cli.answer import answer, pod_trouble
from drivetrain.cli.inquiry import JOB_UID_LABEL, OpenStore, investigate, subjects
from drivetrain.store import DirectoryStore, ObjectStore
from tests.support.bench import NAMESPACE, Bench, RunBench
from tests.support.builders import a_deployment
from tests.unit.cli.person import Person


def no_store(store: Store, namespace: str) -> ObjectStore:
    raise StoreError("CredentialsForbidden", f"You may not read the Secret {store.credentials.secret_name}.")


def told(bench: Bench, name: str, person: Person | None = None, open_store: OpenStore = no_store) -> str:
    person = person or Person(bench)
    (subject,) = subjects(person, name)
    return answer(investigate(person, subject, open_store), bench.now).text().plain


def queued() -> RunBench:
    bench = RunBench(queue={"name": "gpu-pool"})
    bench.look()
    job = bench.read(RAY_JOB, ray_job_name("shop-1", 1))
    workload: Document = {
        "apiVersion": WORKLOAD.api_version,
        "kind": "Workload",
        "metadata": {"name": "rayjob-1", "namespace": NAMESPACE, "labels": {JOB_UID_LABEL: uid_of(job)}},
    }
    bench.cluster.put(workload)
    lacks = "couldn't assign flavors to pod set head: insufficient unused quota for nvidia.com/gpu, 1 more needed"
    waits = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": lacks}
    bench.cluster.put_status({**workload, "status": {"conditions": [waits]}}, "kueue")
    bench.look()
    return bench


def test_a_queued_run_names_what_is_lacking_in_kueues_words() -> None:
    found = told(queued(), "shop-1")
    assert found.startswith("TrainingRun shop-1: Queued")
    assert "1 more needed" in found
    assert "drivetrain plan FILE" in found


def test_a_project_that_waits_for_its_run_says_so() -> None:
    bench = Bench()
    for kind, name in ((DRIVETRAIN_PROJECT, "shop"), (TRAINING_RUN, "shop-1"), (DRIVETRAIN_PROJECT, "shop")):
        bench.reconcile(kind, name)
    found = told(bench, "dtp/shop")
    assert "Gates of shop-1: It was started for Initial." in found
    assert "shop-1, 0s ago for Initial: under way" in found


def test_the_pod_that_cannot_start_is_named_with_its_reason() -> None:
    bench = RunBench()
    bench.look()
    bench.pod(
        "shop-1-a1-head",
        status={
            "phase": "Pending",
            "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: no GPU."}
            ],
        },
    )
    found = told(bench, "shop-1")
    assert "shop-1-a1-head: Unschedulable: 0/1 nodes: no GPU." in found


def test_a_container_that_ran_out_of_memory_is_told_with_its_restarts() -> None:
    ended: Document = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    status: Document = {"name": "ray-head", "restartCount": 2, "lastState": ended}
    pod: Document = {"status": {"containerStatuses": [status]}}
    assert pod_trouble(pod) == "ray-head ended with exit code 137 (OOMKilled), restarted 2 times"


def failed() -> RunBench:
    bench = RunBench(attempts=1)
    bench.running()
    bench.job("Failed", endTime="2026-01-01T00:00:00Z", message="driver died")
    bench.pass_time(minutes=2)
    bench.look()
    return bench


def test_a_failed_run_joins_its_ledger_and_the_dossier_that_its_submitter_kept(tmp_path: Path) -> None:
    bench = failed()
    assert bench.record.finished == "Failed"
    store = DirectoryStore(tmp_path)
    dossier = Dossier(
        run="shop-1",
        attempt=1,
        submission="shop-1-a1-x",
        ended="Failed",
        at=bench.now,
        job=JobRecord(status="FAILED", driver_exit_code=1),
        log="Traceback ...\nMemoryError: too many rows\n",
    )
    uid = uid_of(bench.read(TRAINING_RUN, "shop-1"))
    store.put(dossier_key(uid, 1, "shop-1-a1-x"), dossier.model_dump_json(by_alias=True).encode())
    found = told(bench, "shop-1", open_store=lambda *_: store)
    assert "Attempt 1: the job ended without a result (driver died)." in found
    assert "exit code 1" in found
    assert "MemoryError: too many rows" in found
    assert "drivetrain logs shop-1 -n default" in found


def test_what_may_not_be_read_is_named_and_the_rest_is_told() -> None:
    bench = failed()
    found = told(bench, "shop-1", Person(bench, denied=(POD, EVENT)))
    assert "the job ended without a result" in found
    assert "pods: you may not list pods in namespace default" in found
    assert "events: you may not list events in namespace default" in found
    assert "You may not read the Secret s3." in found


def test_what_cannot_be_read_as_kueue_is_down_is_named_and_the_rest_is_told() -> None:
    bench = queued()
    found = told(bench, "shop-1", Person(bench, down=(WORKLOAD,)))
    assert "workloads: Workload default/: its server is down (HTTP 503)" in found
    assert "attempt 1, 1 of 3 attempts used" in found


def test_an_api_server_in_trouble_is_no_answer_to_why() -> None:
    bench = queued()
    with pytest.raises(UnavailableError):
        told(bench, "shop-1", Person(bench, down=(POD,)))


def test_without_the_ledger_the_status_still_answers() -> None:
    bench = failed()
    found = told(bench, "shop-1", Person(bench, denied=(CONFIG_MAP,)))
    assert "No attempts are left" in found


def test_warnings_about_children_are_told_with_how_often_and_when() -> None:
    bench = RunBench()
    bench.look()
    job = bench.read(RAY_JOB, ray_job_name("shop-1", 1))
    bench.cluster.put(
        {
            "apiVersion": EVENT.api_version,
            "kind": "Event",
            "metadata": {"name": "e1", "namespace": NAMESPACE},
            "type": "Warning",
            "reason": "FailedToCreateRayCluster",
            "note": "quota exceeded",
            "eventTime": (bench.now - timedelta(minutes=3)).isoformat(),
            "deprecatedCount": 4,
            "regarding": {"kind": "RayJob", "name": "shop-1-a1", "uid": uid_of(job)},
        }
    )
    found = told(bench, "shop-1")
    assert "3m ago (x4) RayJob shop-1-a1: FailedToCreateRayCluster: quota exceeded" in found


def test_a_name_of_several_kinds_gives_each_and_a_prefix_picks_one() -> None:
    bench = Bench()
    bench.cluster.put(a_deployment().document())
    person = Person(bench)
    assert [each["kind"] for each in subjects(person, "shop")] == ["DrivetrainProject", "Deployment"]
    assert [each["kind"] for each in subjects(person, "dtd/shop")] == ["Deployment"]


def test_an_unknown_name_is_told_with_those_that_exist() -> None:
    with pytest.raises(DrivetrainError, match=r"Nothing of ours is called shpo .* There are: shop"):
        subjects(Person(Bench()), "shpo")


def test_a_ledger_of_another_version_is_told_with_what_to_do() -> None:
    bench = RunBench()
    bench.look()
    ledger = bench.read(CONFIG_MAP, ledger_name("TrainingRun", "shop-1"))
    bench.cluster.put({**ledger, "data": {LEDGER_KEY: '{"novelty": 1}'}})
    with pytest.raises(DrivetrainError, match=r"novelty: Extra inputs .*drivetrain doctor"):
        told(bench, "shop-1")
