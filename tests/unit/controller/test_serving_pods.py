"""What a Deployment says while Pods of the cluster that serves are away, though KubeRay calls the RayService ready."""

import pytest

from drivetrain.api.documents import JSON, uid_of
from drivetrain.api.kinds import DEPLOYMENT, POD, Ref
from drivetrain.api.names import OWNER_UID_LABEL, REVISION_LABEL
from tests.support.bench import NAMESPACE, ServingBench
from tests.support.builders import a_deployment


@pytest.fixture
def bench() -> ServingBench:
    found = ServingBench(a_deployment().document())
    found.up()
    pod(found, "head", ready=True)
    pod(found, "worker", ready=True)
    found.look()
    return found


def pod(bench: ServingBench, node: str, *, ready: bool, revision: str = "") -> None:
    labels: dict[str, JSON] = {
        OWNER_UID_LABEL: uid_of(bench.read(DEPLOYMENT, "shop")),
        REVISION_LABEL: revision or bench.record.revision,
        "ray.io/node-type": node,
    }
    condition: JSON = {"type": "Ready", "status": str(ready)}
    bench.cluster.put(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"{node}{revision}", "namespace": NAMESPACE, "labels": labels},
            "status": {"phase": "Running", "conditions": [condition]},
        }
    )


def test_an_endpoint_whose_pods_are_ready_serves(bench: ServingBench) -> None:
    assert bench.said("Ready") == ("True", "Serving", "Serves today's policy.")
    assert bench.said("Degraded") is None


def test_an_endpoint_without_a_ready_replica_pod_is_not_ready_and_keeps_what_it_serves(bench: ServingBench) -> None:
    before = bench.record
    pod(bench, "worker", ready=False)
    pod(bench, "worker", ready=True, revision="another")
    bench.look()
    assert (bench.said("Ready") or ("", ""))[:2] == ("False", "Starting")
    assert (bench.said("Reconciling") or ("",))[0] == "True"
    assert bench.said("Stalled") is None
    assert bench.record == before
    pod(bench, "worker", ready=True)
    bench.look()
    assert (bench.said("Ready") or ("",))[0] == "True"


def test_an_endpoint_whose_head_is_away_is_degraded_and_ready_while_a_replica_lives(bench: ServingBench) -> None:
    bench.cluster.remove(Ref(POD, NAMESPACE, "head"))
    bench.look()
    degraded = bench.said("Degraded")
    assert degraded is not None
    assert degraded[:2] == ("True", "HeadDown")
    assert degraded[2].startswith("The Ray head is gone and comes back.")
    assert (bench.said("Ready") or ("",))[0] == "True"
    pod(bench, "head", ready=False)
    bench.look()
    assert "head head is not ready" in (bench.said("Degraded") or ("", "", ""))[2]
    pod(bench, "worker", ready=False)
    bench.look()
    assert "head head is not ready" in (bench.said("Reconciling") or ("", "", ""))[2]
    pod(bench, "head", ready=True)
    pod(bench, "worker", ready=True)
    bench.look()
    assert bench.said("Degraded") is None
