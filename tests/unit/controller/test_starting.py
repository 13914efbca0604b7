"""Why an endpoint does not answer yet, as its status says it."""

import traceback

import pytest

from drivetrain.api import image
from drivetrain.api.documents import JSON, name_of, uid_of
from drivetrain.api.errors import ImageError
from drivetrain.api.kinds import DEPLOYMENT, DRIVETRAIN_PROJECT, KINDS, RAY_JOB, RAY_SERVICE, TRAINING_RUN, Kind
from drivetrain.api.names import OWNER_UID_LABEL
from tests.support.bench import NAMESPACE, Bench, ServingBench
from tests.support.builders import a_deployment, a_project, a_run
from tests.support.fake_cluster import FakeCluster

TRACEBACK = "Deploying app 'endpoint' failed with exception:\nTraceback (most recent call last):\n" + (
    '  File "app.py", line 1, in build\n' * 100 + "StoreError: the bucket shop does not exist\n"
)


def starting() -> ServingBench:
    return ServingBench(a_deployment().document())


def applications(status: str, message: str = "", **deployments: JSON) -> dict[str, JSON]:
    endpoint: JSON = {"status": status, "message": message, "serveDeploymentStatuses": deployments}
    return {"rayClusterName": "shop-c", "applicationStatuses": {"endpoint": endpoint}}


def told(bench: ServingBench, type_: str) -> tuple[str, str]:
    found = bench.said(type_)
    return found[1:] if found is not None else ("", "")


@pytest.mark.parametrize("part", ["pendingServiceStatus", "activeServiceStatus"])
@pytest.mark.parametrize("status", ["DEPLOY_FAILED", "UNHEALTHY"])
def test_an_application_that_serve_gave_up_stalls_the_deployment_with_its_error(part: str, status: str) -> None:
    bench = starting()
    bench.set_status(RAY_SERVICE, name_of(bench.services()[0]), **{part: applications(status, TRACEBACK)})
    bench.look()
    reason, message = told(bench, "Stalled")
    assert reason == "ServeApplicationFailed"
    assert f"endpoint is {status}" in message
    assert "StoreError: the bucket shop does not exist." in message
    assert "Traceback" not in message
    assert len(message) <= 1024


def test_an_image_that_does_not_fit_stalls_the_deployment_by_that_name() -> None:
    with pytest.raises(ImageError) as raised:
        image.check({"DRIVETRAIN_EXPECTED_RAY": "2.60.0"}, {"DRIVETRAIN_EXPECTED_RAY": "2.59.1"})
    said = "".join(traceback.format_exception(raised.value))  # what Serve passes on, after a line of its own
    bench = starting()
    status = applications("DEPLOY_FAILED", f"Deploying app 'endpoint' failed with exception:\n{said}")
    bench.set_status(RAY_SERVICE, name_of(bench.services()[0]), pendingServiceStatus=status)
    bench.look()
    reason, message = told(bench, "Stalled")
    assert reason == "ImageUnsupported"
    assert message == str(raised.value)


def test_a_deployment_that_failed_is_named_where_its_application_says_nothing() -> None:
    bench = starting()
    failed: JSON = {"status": "DEPLOY_FAILED", "message": "The key decide is empty."}
    status = applications("DEPLOY_FAILED", Endpoint=failed, Monitor={"status": "HEALTHY", "message": ""})
    bench.set_status(RAY_SERVICE, name_of(bench.services()[0]), pendingServiceStatus=status)
    bench.look()
    assert "Endpoint is DEPLOY_FAILED: The key decide is empty." in told(bench, "Stalled")[1]
    assert "Monitor" not in told(bench, "Stalled")[1]


def test_an_application_that_is_being_deployed_says_what_it_waits_for() -> None:
    bench = starting()
    waits: JSON = {"status": "UPDATING", "message": "Waiting for a node with 2 CPUs."}
    status = applications("DEPLOYING", Endpoint=waits)
    bench.set_status(RAY_SERVICE, name_of(bench.services()[0]), pendingServiceStatus=status)
    bench.look()
    reason, message = told(bench, "Reconciling")
    assert reason == "Starting"
    assert message == "Serve application endpoint is DEPLOYING: Endpoint is UPDATING: Waiting for a node with 2 CPUs."


def test_an_application_that_fails_while_another_replica_serves_degrades() -> None:
    bench = starting()
    bench.up()
    bench.set_status(
        RAY_SERVICE,
        name_of(bench.services()[0]),
        activeServiceStatus=applications("DEPLOY_FAILED", "The new configuration is refused."),
        conditions=[{"type": "Ready", "status": "True"}],
    )
    bench.look()
    assert told(bench, "Ready")[0] == "Serving"
    assert told(bench, "Degraded")[0] == "ServeApplicationFailed"
    assert bench.said("Stalled") is None


class NoKubeRay(Bench):
    """A cluster whose API server knows nothing of KubeRay, yet."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = FakeCluster(kinds=[kind for kind in KINDS if kind.group != RAY_JOB.group])
        for each in (a_project(), a_run(), a_deployment()):
            self.cluster.put(each.document())


@pytest.mark.parametrize(
    ("kind", "name"), [pytest.param(TRAINING_RUN, "shop-1", id="run"), pytest.param(DEPLOYMENT, "shop", id="endpoint")]
)
def test_without_kuberay_it_says_what_to_install_and_goes_on_when_it_is_there(kind: Kind, name: str) -> None:
    bench = NoKubeRay()
    assert bench.reconcile(kind, name) is not None, "it looks again by itself"
    stalled = bench.condition(kind, name, "Stalled")
    assert stalled is not None
    assert stalled[1] == "KubeRayMissing"
    assert "install KubeRay" in stalled[2]
    bench.cluster.install(RAY_JOB)
    bench.cluster.install(RAY_SERVICE)
    bench.reconcile(kind, name)
    assert bench.condition(kind, name, "Stalled") is None
    assert bench.cluster.find(RAY_JOB if kind == TRAINING_RUN else RAY_SERVICE)


def test_a_project_without_kuberay_starts_its_run_which_says_so() -> None:
    bench = NoKubeRay()
    bench.reconcile(DRIVETRAIN_PROJECT, "shop")
    assert bench.condition(DRIVETRAIN_PROJECT, "shop", "Ready") is not None


def test_a_pod_without_its_mounted_keys_names_their_secret() -> None:
    bench = starting()
    labels: JSON = {OWNER_UID_LABEL: uid_of(bench.read(DEPLOYMENT, "shop"))}
    since = "2026-01-01T00:00:00Z"
    condition: JSON = {"type": "PodReadyToStartContainers", "status": "False", "lastTransitionTime": since}
    bench.cluster.put(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "head", "namespace": NAMESPACE, "labels": labels},
            "spec": {"volumes": [{"name": "keys", "secret": {"secretName": "shop-keys"}}]},
            "status": {"phase": "Pending", "conditions": [condition]},
        }
    )
    wake = bench.look()
    assert wake is not None
    assert wake.total_seconds() == 30
    bench.pass_time(seconds=30)
    bench.look()
    reason, message = told(bench, "Stalled")
    assert reason == "VolumesMissing"
    assert "It mounts Secret shop-keys" in message
