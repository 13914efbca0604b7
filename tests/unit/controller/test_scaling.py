"""The number of replicas: what Serve is told, and how many workers the Ray cluster has."""

import json
from collections.abc import Mapping

import pytest

from drivetrain.api.documents import JSON, Document, documents, integer, labels_of, mapping, name_of, sequence, text
from drivetrain.api.kinds import DEPLOYMENT, POD, RAY_CLUSTER, Ref
from drivetrain.api.policy import EndpointConfig
from tests.support.bench import SETTINGS, ServingBench
from tests.support.builders import a_deployment, a_project
from tests.unit.controller.test_deployment import a_bench, config, rolling, upgraded


def test_a_cluster_that_waits_to_be_replaced_is_told_the_new_number_of_replicas_and_nothing_else_of_the_spec() -> None:
    bench = a_bench()
    rolling(bench)
    before = json.loads(text(bench.services()[0], "spec", "serveConfigV2"))
    bench.edit(DEPLOYMENT, "shop", resources={"cpu": "2"}, replicas=3)
    bench.annotate(DEPLOYMENT, "shop", promote=config(bench.services()[0]).load[0])
    bench.look()
    (old,) = (each for each in bench.services() if labels_of(each)["drivetrain.dev/revision"] == bench.record.revision)
    after = json.loads(text(old, "spec", "serveConfigV2"))
    assert config(old).stable != EndpointConfig.model_validate(endpoint_of(before)["user_config"]).stable
    assert endpoint_of(before)["num_replicas"] == 1
    assert endpoint_of(after) == {
        **endpoint_of(before),
        "user_config": endpoint_of(after)["user_config"],
        "num_replicas": 3,
    }


def endpoint_of(serve: Mapping[str, JSON]) -> dict[str, JSON]:
    (application,) = documents(serve, "applications")
    return dict(documents(application, "deployments")[0])


class Cluster:
    """What KubeRay makes of the RayService that a bench holds: a RayCluster, and worker Pods by name."""

    def __init__(self, bench: ServingBench, workers: int) -> None:
        self.bench = bench
        (service,) = bench.services()
        self.name = f"{name_of(service)}-c"
        bench.cluster.put(
            {
                "apiVersion": "ray.io/v1",
                "kind": "RayCluster",
                "metadata": {"name": self.name, "namespace": "default", "labels": dict(labels_of(service))},
                "spec": mapping(service, "spec", "rayClusterConfig"),
            }
        )
        self.labels: dict[str, JSON] = {**labels_of(service), "ray.io/cluster": self.name, "ray.io/node-type": "worker"}
        for number in range(workers):
            self.worker(f"w{number}")

    def worker(self, name: str, *, ready: bool = True, status: Document | None = None) -> None:
        conditions: JSON = [{"type": "Ready", "status": str(ready)}]
        self.bench.cluster.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": "default", "labels": self.labels},
                "status": {"phase": "Running", "conditions": conditions, **(status or {})},
            }
        )

    def scale(self, replicas: int) -> None:
        self.bench.edit(DEPLOYMENT, "shop", replicas=replicas)
        self.bench.look()

    @property
    def size(self) -> tuple[int, list[str]]:
        (group,) = documents(self.bench.read(RAY_CLUSTER, self.name), "spec", "workerGroupSpecs")
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
        return integer(group, "replicas"), [str(each) for each in sequence(group, "scaleStrategy", "workersToDelete")]


def test_a_cluster_that_runs_grows_at_once() -> None:
    bench = a_bench()
    cluster = Cluster(bench, 1)
    cluster.scale(3)
    assert cluster.size == (3, [])
    assert len(bench.services()) == 1
    template = mapping(documents(bench.read(RAY_CLUSTER, cluster.name), "spec", "workerGroupSpecs")[0], "template")
    (group,) = documents(bench.services()[0], "spec", "rayClusterConfig", "workerGroupSpecs")
    assert template == mapping(group, "template")


def test_a_cluster_that_waits_for_the_end_of_a_rollout_grows_by_its_own_pods() -> None:
    project = a_project().with_serving(resources={"gpu": 0.5})
    project = project.with_field("spec.decisions.environment.accelerator", "GPU")
    document = a_deployment().with_field("spec.resources", {"cpu": "1", "gpu": 0.5}).document()
    bench = ServingBench(document, project=project.document())
    bench.up()
    rolling(bench)
    cluster = Cluster(bench, 1)
    bench.edit(DEPLOYMENT, "shop", resources={"cpu": "1", "gpu": 1})
    cluster.scale(3)
    assert len(bench.services()) == 1
    assert cluster.size == (2, []), "two replicas share a Pod there, whatever the spec says meanwhile"
    (group,) = documents(bench.services()[0], "spec", "rayClusterConfig", "workerGroupSpecs")
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == 2


def test_a_cluster_that_is_about_to_be_replaced_grows_while_the_next_one_is_made_ready() -> None:
    bench = a_bench()
    cluster = Cluster(bench, 1)
    bench.edit(DEPLOYMENT, "shop", resources={"cpu": "2"})
    bench.look()
    cluster.scale(3)
    assert len(bench.services()) == 2
    assert cluster.size == (3, [])


def test_a_cluster_that_waits_to_be_replaced_is_handed_to_serves_own_autoscaling() -> None:
    bench = a_bench()
    rolling(bench)
    cluster = Cluster(bench, 1)
    bench.edit(DEPLOYMENT, "shop", resources={"cpu": "2"}, autoscaling={"maxReplicas": 2})
    bench.look()
    told = endpoint_of(json.loads(text(bench.services()[0], "spec", "serveConfigV2")))
    assert "num_replicas" not in told
    assert mapping(told, "autoscaling_config")["max_replicas"] == 2
    assert cluster.size == (2, [])


@pytest.mark.parametrize("rollout", ["open", "none"])
def test_after_an_upgrade_scaling_changes_the_cluster_in_place(rollout: str) -> None:
    bench = a_bench()
    if rollout == "open":
        rolling(bench)
    cluster = Cluster(bench, 1)
    newer = upgraded(bench)
    newer.reconcile(DEPLOYMENT, "shop")
    newer.edit(DEPLOYMENT, "shop", replicas=3)
    newer.reconcile(DEPLOYMENT, "shop")
    assert len(bench.services()) == 1
    assert cluster.size == (3, [])
    assert endpoint_of(json.loads(text(bench.services()[0], "spec", "serveConfigV2")))["num_replicas"] == 3
    assert bench.record.runtime == SETTINGS.runtime


def test_after_an_upgrade_bounds_of_autoscaling_change_in_place() -> None:
    bench = ServingBench(a_deployment().with_field("spec.autoscaling", {"maxReplicas": 2}).document())
    bench.up()
    cluster = Cluster(bench, 2)
    newer = upgraded(bench)
    newer.edit(DEPLOYMENT, "shop", autoscaling={"maxReplicas": 3})
    newer.reconcile(DEPLOYMENT, "shop")
    assert len(bench.services()) == 1
    assert cluster.size == (3, [])


def test_a_cluster_shrinks_by_the_workers_that_hold_no_replica_once_they_are_known() -> None:
    bench = ServingBench(a_deployment().with_field("spec.replicas", 3).document())
    bench.up()
    cluster = Cluster(bench, 3)
    cluster.scale(1)
    assert cluster.size == (3, []), "each may hold the last replica"
    assert endpoint_of(json.loads(text(bench.services()[0], "spec", "serveConfigV2")))["num_replicas"] == 1
    cluster.worker("w0", ready=False)
    bench.look()
    assert cluster.size == (2, ["w0"])
    cluster.worker("w2", ready=False)
    bench.look()
    assert cluster.size == (1, ["w0", "w2"]), "one that is named stays so until it is gone"
    for name in ("w0", "w2"):
        bench.cluster.remove(Ref(POD, "default", name))
    bench.look()
    assert cluster.size == (1, [])


def test_a_cluster_does_not_shrink_while_fewer_workers_than_wanted_are_ready() -> None:
    bench = ServingBench(a_deployment().with_field("spec.replicas", 2).document())
    bench.up()
    cluster = Cluster(bench, 0)
    cluster.worker("w0", ready=False)
    cluster.worker("w1", ready=False)
    cluster.scale(1)
    assert cluster.size == (2, [])


def test_a_worker_without_a_node_is_told_while_the_others_serve() -> None:
    bench = a_bench()
    cluster = Cluster(bench, 1)
    bench.tell()
    cluster.scale(2)
    told = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    waits: JSON = [{"type": "PodScheduled", "status": "False", "message": told}]
    cluster.worker("w1", status={"phase": "Pending", "conditions": waits})
    bench.look()
    assert bench.said("Progressing") == ("True", "Scaling", f"1 of at most 2 replicas answer. Pod w1: {told}")
    ready = bench.said("Ready")
    assert ready is not None
    assert ready[0] == "True"
