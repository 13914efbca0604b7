"""What a run or an endpoint holds already is not asked for once more."""

from drivetrain.api.documents import JSON, Document, uid_of
from drivetrain.api.kinds import CLUSTER_QUEUE, DEPLOYMENT, RAY_JOB, TRAINING_RUN, WORKLOAD, Kind
from drivetrain.api.names import OWNER_UID_LABEL
from drivetrain.cli.asks import worst
from drivetrain.cli.forecast import Forecast
from drivetrain.cli.foreign import NODE
from drivetrain.controller.cluster.observation import JOB_UID_LABEL
from tests.support.bench import Bench, RunBench, ServingBench
from tests.support.builders import a_deployment, a_run
from tests.unit.cli.person import Person
from tests.unit.cli.test_forecast import QUEUED, RICH, a_gpu_run, planned, text_of
from tests.unit.cli.test_nodes import a_node, a_pod
from tests.unit.cli.test_quota import pool


def level(found: Forecast) -> str:
    (priced,) = found.priced
    return worst(judged.level for judged in priced.judged)


def a_workload(job: Document, **status: JSON) -> Document:
    """A Workload of Kueue's for that job."""
    labels = {JOB_UID_LABEL: uid_of(job)}
    metadata: Document = {"name": "w", "namespace": "default", "labels": labels}
    return {"apiVersion": WORKLOAD.api_version, "kind": WORKLOAD.kind, "metadata": metadata, "status": status}


def queued(**status: JSON) -> Bench:
    """A run with two GPUs whose Workload has that status."""
    bench = Bench()
    bench.cluster.put(a_gpu_run())
    bench.reconcile(TRAINING_RUN, "shop-1")
    workload = a_workload(bench.cluster.find(RAY_JOB)[0], **status)
    bench.cluster.put(workload)
    bench.cluster.put_status(workload)
    return bench


def test_quota_that_a_run_holds_itself_is_there_for_it() -> None:
    assigned: JSON = [
        {"flavors": {"nvidia.com/gpu": "default"}, "resourceUsage": {"nvidia.com/gpu": "2"}, "name": "worker"}
    ]
    reserved: JSON = [{"type": "QuotaReserved", "status": "True"}]
    bench = queued(conditions=reserved, admission={"podSetAssignments": assigned})
    full = {**QUEUED, CLUSTER_QUEUE: [pool(used=4)]}
    assert level(planned(Person(bench, others=full), a_gpu_run())) == "fits"
    assert level(planned(Person(bench, others=full), a_gpu_run(name="shop-2"))) == "waits"
    late = {**QUEUED, CLUSTER_QUEUE: [pool(used=0)]}
    assert "2 nvidia.com/gpu asked, 0 of 4 in use" in text_of(planned(Person(bench, others=late), a_gpu_run()))


def test_a_run_does_not_wait_behind_itself() -> None:
    bench = queued(conditions=[{"type": "QuotaReserved", "status": "False", "reason": "Pending"}])
    assert level(planned(Person(bench, others={**QUEUED, CLUSTER_QUEUE: [pool(pending=1)]}), a_gpu_run())) == "fits"
    assert level(planned(Person(bench, others={**QUEUED, CLUSTER_QUEUE: [pool(pending=2)]}), a_gpu_run())) == "waits"


def tight(bench: Bench, kind: Kind, name: str) -> Person:
    """A person on a cluster whose one node is just big enough for what the object runs there."""
    pod = a_pod("a", cpu="2", memory="4Gi")
    metadata: Document = {
        "name": "p",
        "namespace": "default",
        "labels": {OWNER_UID_LABEL: uid_of(bench.read(kind, name))},
    }
    bench.cluster.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, **pod})
    return Person(bench, others={**RICH, NODE: [a_node("a", cpu="2", memory="4Gi")]})


def test_an_endpoint_that_runs_has_room_on_a_node_that_is_just_big_enough() -> None:
    bench = ServingBench(a_deployment().document())
    bench.up()
    found = planned(tight(bench, DEPLOYMENT, "shop"), a_deployment().document())
    assert level(found) == "fits"


def test_an_endpoint_whose_cluster_is_replaced_needs_room_beside_the_old_one() -> None:
    bench = ServingBench(a_deployment().document())
    bench.up()
    changed = a_deployment().with_field("spec.cluster.image", "example.org/mine:1").document()
    assert level(planned(tight(bench, DEPLOYMENT, "shop"), changed)) == "waits"


def test_a_run_that_goes_on_has_room_where_its_own_pods_are() -> None:
    bench = RunBench()
    bench.running()
    assert level(planned(tight(bench, TRAINING_RUN, "shop-1"), a_run().document())) == "fits"


def test_a_run_that_is_over_asks_for_nothing() -> None:
    bench = RunBench()
    bench.running()
    bench.annotate(TRAINING_RUN, "shop-1", cancel="now")
    bench.look()
    found = planned(Person(bench, others=RICH), a_run().document())
    assert found.priced == ()


def test_a_run_is_not_among_its_own_earlier_runs() -> None:
    bench = Bench()
    bench.cluster.put(a_gpu_run())
    done = {"type": "Ready", "status": "True", "reason": "Succeeded"}
    bench.set_status(TRAINING_RUN, "shop-1", gpuSeconds=3600, conditions=[done])
    assert "earlier run" not in text_of(planned(Person(bench, others=QUEUED), a_gpu_run()))
