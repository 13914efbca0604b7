"""What Kueue says of a run, and runs that ask for GPUs, over a fake cluster in which the test is Kueue and KubeRay."""

from drivetrain.api.documents import JSON, Document, documents, mapping, name_of, text, uid_of, value
from drivetrain.api.kinds import CLUSTER_QUEUE, POD, RAY_JOB, TRAINING_RUN, WORKLOAD
from drivetrain.api.names import ray_job_name
from tests.support.bench import NAMESPACE, RunBench

DIGEST = "a" * 64

GPUS: dict[str, JSON] = {"workers": 2, "resourcesPerWorker": {"cpu": "1", "memory": "2Gi", "gpu": 2}}


def approved(**changed: object) -> dict[str, object]:
    return {
        "state": "Approved",
        "version": "1",
        "digest": DIGEST,
        "uri": f"s3://shop/data/models/{DIGEST}",
        "project_uid": "00000000-0000-4000-8000-000000000001",
        **changed,
    }


def prepared(bench: RunBench) -> None:
    """Let a run with GPUs prepare its data for ten minutes."""
    bench.look()
    bench.job("Running", part="p")
    bench.look()
    bench.pass_time(minutes=10)
    bench.tell("shop-1-a1p-x", dataVersion="d" * 32, result={"state": "Prepared"})
    bench.look()
    assert [name_of(job) for job in bench.cluster.find(RAY_JOB)] == ["shop-1-a1-p"]
    bench.job("Complete", part="p")
    bench.look()


def test_a_run_with_gpus_prepares_without_them_and_then_trains_in_the_same_attempt() -> None:
    bench = RunBench(scaling=GPUS, attempts=1)
    prepared(bench)
    (job,) = bench.cluster.find(RAY_JOB)
    assert name_of(job) == "shop-1-a1-t"
    assert text(bench.read(TRAINING_RUN, "shop-1"), "status", "rayJob") == "shop-1-a1-t"
    bench.job("Running", part="t")
    bench.look()
    record = bench.record
    assert (record.attempt, record.incarnation, record.cluster) == (1, 2, "shop-1-a1t-x")
    assert record.former_clusters == ("shop-1-a1p-x",)
    assert record.data_version == "d" * 32
    bench.pass_time(minutes=1)
    bench.tell("shop-1-a1t-x", incarnation=2, result=approved())
    bench.look()
    assert bench.said("Ready") == ("True", "Succeeded", "Version 1 passed all gates.")


def test_a_job_that_prepared_and_does_not_end_by_itself_is_stopped() -> None:
    bench = RunBench(scaling=GPUS)
    bench.look()
    bench.job("Running", part="p")
    bench.look()
    bench.tell("shop-1-a1p-x", result={"state": "Prepared"})
    bench.look()
    bench.pass_time(minutes=6)
    bench.look()
    assert [name_of(job) for job in bench.cluster.find(RAY_JOB)] == ["shop-1-a1-t"]


def test_gpus_are_charged_while_the_training_part_holds_them_only() -> None:
    bench = RunBench(scaling=GPUS)
    prepared(bench)
    assert bench.record.gpu_seconds == 0
    assert bench.record.active_seconds == 600
    bench.look()
    bench.job("Running", part="t")
    bench.look()
    bench.pass_time(minutes=1)
    bench.tell("shop-1-a1t-x", incarnation=2, result=approved())
    bench.look()
    assert bench.record.finished == "Approved"
    ended = bench.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    bench.pass_time(seconds=10)
    bench.job("Complete", part="t", endTime=ended)
    bench.look()
    assert bench.record.gpu_seconds == 4 * 60
    assert value(bench.read(TRAINING_RUN, "shop-1"), "status", "gpuSeconds") == 4 * 60


def test_the_training_part_waits_until_every_pod_of_the_preparing_part_is_gone() -> None:
    bench = RunBench(scaling=GPUS)
    bench.look()
    bench.pod("preparing")
    bench.job("Running", part="p")
    bench.look()
    bench.tell("shop-1-a1p-x", result={"state": "Prepared"})
    bench.look()
    bench.job("Complete", part="p")
    bench.look()
    assert not bench.cluster.find(RAY_JOB)
    ready = bench.said("Ready")
    assert ready is not None
    assert ready[1] == "Prepared"
    bench.drop(POD, "preparing")
    bench.look()
    assert [name_of(job) for job in bench.cluster.find(RAY_JOB)] == ["shop-1-a1-t"]


def test_an_attempt_that_fails_while_it_trains_prepares_again_in_the_next() -> None:
    bench = RunBench(scaling=GPUS)
    prepared(bench)
    bench.look()
    bench.job("Failed", part="t", message="out of memory")
    bench.look()
    bench.pass_time(minutes=1)
    bench.look()
    assert [name_of(job) for job in bench.cluster.find(RAY_JOB)] == ["shop-1-a2-p"]
    assert bench.record.failures == ("Attempt 1: the job ended without a result (out of memory).",)


LACKING = (
    "couldn't assign flavors to pod set workers: insufficient unused quota for nvidia.com/gpu in flavor default, "
    "1 more needed"
)


def a_waiting_run(message: str, **condition: JSON) -> RunBench:
    """A run that asks for two workers with a GPU each, and what Kueue says of it."""
    bench = RunBench(queue={"name": "gpu-pool"})
    bench.look()
    gpu: JSON = {"resources": {"requests": {"cpu": "1", "nvidia.com/gpu": "1"}}}
    sets: JSON = [
        {"name": "head", "count": 1, "template": {"spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}]}}},
        {"name": "workers", "count": 2, "template": {"spec": {"containers": [gpu]}}},
    ]
    bench.cluster.put({**_workload(bench), "spec": {"podSets": sets}})
    waits = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": message, **condition}
    bench.set_status(WORKLOAD, "w", conditions=[waits])
    return bench


def test_what_a_run_waits_for_is_said_in_one_line() -> None:
    bench = a_waiting_run(LACKING)
    bench.look()
    told = "waits for 2 nvidia.com/gpu in queue gpu-pool: 1 more needed"
    assert bench.said("Reconciling") == ("True", "Queued", told)
    bench.cluster.put(_pending("other", "w"))
    bench.look()
    assert bench.said("Reconciling") == ("True", "Queued", f"{told}, position 2 in its queue and 5 in the whole pool")


def test_a_run_that_has_a_place_before_kueue_has_looked_at_it_says_so() -> None:
    bench = a_waiting_run("")
    bench.cluster.put(_pending("w", first=0))
    bench.set_status(WORKLOAD, "w", conditions=[])
    bench.look()
    assert bench.said("Reconciling") == ("True", "Queued", "Kueue has not looked at it yet.")


def test_how_much_of_the_pool_is_in_use_is_said_where_it_may_be_read() -> None:
    bench = a_waiting_run(LACKING)
    bench.cluster.put(_pending("w", first=0))
    local: Document = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue"}
    bench.cluster.put(
        {**local, "metadata": {"name": "gpu-pool", "namespace": NAMESPACE}, "spec": {"clusterQueue": "q"}}
    )
    group: JSON = {"flavors": [{"name": "default", "resources": [{"name": "nvidia.com/gpu", "nominalQuota": "4"}]}]}
    used: JSON = [{"name": "default", "resources": [{"name": "nvidia.com/gpu", "total": "3"}]}]
    pool: Document = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ClusterQueue", "metadata": {"name": "q"}}
    bench.cluster.put({**pool, "spec": {"resourceGroups": [group]}})
    bench.cluster.put_status({**bench.cluster.find(CLUSTER_QUEUE)[0], "status": {"flavorsReservation": used}}, "kueue")
    bench.look()
    told = "waits for 2 nvidia.com/gpu in queue gpu-pool: 1 more needed, {}, position 1 in its queue"
    assert bench.said("Reconciling") == ("True", "Queued", told.format("3 of 4 in use"))
    live = bench.cluster.find(CLUSTER_QUEUE)[0]
    bench.cluster.put({**live, "spec": {**mapping(live, "spec"), "cohortName": "teams"}})
    bench.look()
    own = "3 of its own 4 in use, shared with cohort teams"
    assert bench.said("Reconciling") == ("True", "Queued", told.format(own))


def test_a_run_that_asks_for_more_than_there_ever_is_is_told_so() -> None:
    bench = a_waiting_run(
        "couldn't assign flavors to pod set workers: insufficient quota for nvidia.com/gpu in flavor default, "
        "previously considered podsets requests (0) + current podset request (2) > maximum capacity (1)"
    )
    bench.look()
    reconciling = bench.said("Reconciling")
    assert reconciling is not None
    assert reconciling[2].startswith("asks for 2 nvidia.com/gpu, and queue gpu-pool can never give more than 1")


def test_a_queue_that_was_drained_is_the_reason_that_is_shown() -> None:
    bench = a_waiting_run("ClusterQueue q is stopped", reason="Inadmissible")
    evicted = {"type": "Evicted", "status": "True", "reason": "ClusterQueueStopped", "message": "The queue is stopped"}
    live = bench.read(WORKLOAD, "w")
    bench.set_status(WORKLOAD, "w", conditions=[*documents(live, "status", "conditions"), evicted])
    bench.look()
    reserved = bench.said("QuotaReserved")
    assert reserved is not None
    assert reserved[:2] == ("False", "ClusterQueueStopped")
    assert reserved[2].startswith("The ClusterQueue was stopped")


def test_gpus_are_charged_from_admission_to_eviction_as_kueue_tells_the_times() -> None:
    bench = RunBench(queue={"name": "pool"}, scaling=GPUS, attempts=1)
    for part in ("p", "t"):
        bench.look()
        bench.cluster.put(_workload(bench, part))
        bench.pass_time(minutes=1)
        _admit(bench)
        bench.job("Running", part=part)
        bench.look()
        if part == "p":
            bench.pass_time(minutes=5)
            bench.tell("shop-1-a1p-x", result={"state": "Prepared"})
            bench.look()
            bench.job("Complete", part="p")
            bench.drop(WORKLOAD, "w")
    bench.pass_time(minutes=2)
    evicted = _condition(bench, "Evicted", "True")
    bench.pass_time(seconds=40)  # the operator hears of it late
    bench.set_status(WORKLOAD, "w", conditions=[_condition(bench, "QuotaReserved", "False"), evicted])
    bench.look()
    assert bench.record.gpu_seconds == 4 * 120
    bench.pass_time(minutes=10)
    _admit(bench)
    bench.job("Running", "shop-1-a1t-y", part="t")
    bench.look()
    bench.pass_time(minutes=1)
    bench.tell("shop-1-a1t-y", incarnation=3, result=approved())
    bench.look()
    bench.pass_time(seconds=15)
    given_back = [_condition(bench, type_, "False") for type_ in ("QuotaReserved", "Admitted")]
    finished = _condition(bench, "Finished", "True")
    bench.pass_time(seconds=3)  # the operator hears of it late, and of the job's end first
    bench.job("Complete", "shop-1-a1t-y", part="t")
    bench.look()
    bench.set_status(WORKLOAD, "w", conditions=[*given_back, finished])
    bench.look()
    assert bench.record.finished == "Approved"
    assert bench.record.gpu_seconds == 4 * (120 + 75)
    assert bench.record.waited_seconds == 60 + 60 + 40 + 600


def training_with_quota(deadline: str = "24h") -> RunBench:
    """A run whose second part holds four GPUs since now, by the word of Kueue."""
    bench = RunBench(queue={"name": "pool"}, scaling=GPUS, deadline=deadline)
    prepared(bench)
    bench.look()
    bench.cluster.put(_workload(bench, "t"))
    _admit(bench)
    bench.job("Running", part="t")
    bench.look()
    return bench


def test_an_eviction_that_nobody_saw_is_charged_until_the_last_sign_of_life() -> None:
    bench = training_with_quota(deadline="10h")
    bench.pass_time(hours=1)
    bench.tell("shop-1-a1t-x", incarnation=2, stage="Tuning")
    bench.pass_time(hours=20)
    _admit(bench)
    bench.job("Initializing", "shop-1-a1t-y", part="t")
    bench.look()
    assert (bench.record.gpu_seconds, bench.record.waited_seconds) == (4 * 3600, 20 * 3600)
    assert not bench.record.finished, "the deadline counts the time with quota only"


def test_an_attempt_that_failed_unseen_is_charged_until_kueue_says_that_it_ended() -> None:
    bench = training_with_quota()
    bench.pass_time(hours=1)
    bench.tell("shop-1-a1t-x", incarnation=2, result={"state": "Failed", "reason": "InternalError", "message": "x"})
    bench.job("Failed", part="t")
    finished = _condition(bench, "Finished", "True")
    bench.pass_time(hours=2)
    bench.set_status(WORKLOAD, "w", conditions=[finished])
    bench.look()
    assert bench.record.failures == ("Attempt 1: InternalError: x",)
    assert bench.record.gpu_seconds == 4 * 3600


def test_a_run_that_is_suspended_after_its_eviction_is_charged_until_the_eviction() -> None:
    bench = training_with_quota()
    bench.pass_time(hours=1)
    gone = [_condition(bench, "QuotaReserved", "False"), _condition(bench, "Evicted", "True")]
    bench.pass_time(hours=2)
    bench.set_status(WORKLOAD, "w", conditions=gone)
    bench.edit(TRAINING_RUN, "shop-1", suspend=True)
    bench.look()
    assert bench.record.gpu_seconds == 4 * 3600


def test_a_run_whose_job_has_ended_waits_for_its_result_and_not_for_quota() -> None:
    bench = RunBench(queue={"name": "pool"})
    bench.look()
    bench.cluster.put(_workload(bench))
    _admit(bench)
    bench.job("Running")
    bench.look()
    given_back = [_condition(bench, type_, "False") for type_ in ("QuotaReserved", "Admitted")]
    bench.set_status(WORKLOAD, "w", conditions=[*given_back, _condition(bench, "Finished", "True")])
    bench.job("Complete", endTime=bench.now.strftime("%Y-%m-%dT%H:%M:%SZ"))
    bench.look()
    reconciling = bench.said("Reconciling")
    assert reconciling is not None
    assert reconciling[1] == "Ending"


def test_a_cluster_that_kuberay_names_while_kueue_holds_the_job_back_is_no_incarnation() -> None:
    bench = RunBench(queue={"name": "pool"})
    bench.look()
    job = bench.read(RAY_JOB, "shop-1-a1")
    bench.cluster.put({**job, "spec": {**mapping(job, "spec"), "suspend": True}})
    bench.job("Suspending", "shop-1-a1-never")
    bench.look()
    assert (bench.record.incarnation, bench.record.cluster) == (0, None)
    job = bench.read(RAY_JOB, "shop-1-a1")
    bench.cluster.put({**job, "spec": {**mapping(job, "spec"), "suspend": False}})
    bench.job("Initializing", "shop-1-a1-first")
    bench.look()
    assert (bench.record.incarnation, bench.record.cluster) == (1, "shop-1-a1-first")


def test_a_run_that_is_admitted_in_the_second_of_its_start_is_charged_from_the_time_that_kueue_tells() -> None:
    bench = RunBench(queue={"name": "pool"}, scaling={"workers": 0}, cluster={"head": {"gpu": 2}})
    prepared(bench)
    bench.pass_time(seconds=0.7)
    bench.look()
    bench.cluster.put(_workload(bench, "t"))
    _admit(bench)  # at whole seconds, as Kueue writes times
    bench.job("Running", part="t")
    bench.look()
    bench.pass_time(seconds=10)
    evicted = _condition(bench, "Evicted", "True")
    bench.set_status(WORKLOAD, "w", conditions=[_condition(bench, "QuotaReserved", "False"), evicted])
    bench.look()
    assert bench.record.gpu_seconds == 2 * 10


def _pending(*names: str, first: int = 3) -> Document:
    """What waits in the LocalQueue gpu-pool; `first` others wait before it elsewhere in the pool."""
    items: JSON = [
        {"metadata": {"name": name}, "positionInLocalQueue": place, "positionInClusterQueue": place + first}
        for place, name in enumerate(names)
    ]
    metadata: JSON = {"name": "gpu-pool/pendingworkloads", "namespace": NAMESPACE}
    kind: Document = {"apiVersion": "visibility.kueue.x-k8s.io/v1beta2", "kind": "PendingWorkloadsSummary"}
    return {**kind, "metadata": metadata, "items": items}


def _condition(bench: RunBench, type_: str, status: str) -> dict[str, JSON]:
    """A condition that changes now."""
    since = bench.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": type_, "status": status, "reason": "Preempted", "message": "", "lastTransitionTime": since}


def _admit(bench: RunBench) -> None:
    bench.set_status(
        WORKLOAD, "w", conditions=[_condition(bench, type_, "True") for type_ in ("QuotaReserved", "Admitted")]
    )


def _workload(bench: RunBench, part: str = "") -> Document:
    labels = {"kueue.x-k8s.io/job-uid": uid_of(bench.read(RAY_JOB, ray_job_name("shop-1", 1, part)))}
    metadata: Document = {"name": "w", "namespace": NAMESPACE, "labels": labels}
    return {"apiVersion": WORKLOAD.api_version, "kind": "Workload", "metadata": metadata}
