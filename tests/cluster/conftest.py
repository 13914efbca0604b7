"""Whatever cluster KUBECONFIG names, with KubeRay and Kueue on it; see images.py for how images get there."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.images import Images, load_images
from tests.cluster.kubectl import Kubectl, delete_namespaces, tell
from tests.cluster.queues import PRIORITIES, cluster_queue, kueue
from tests.cluster.release import a_namespace

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not item.path.is_relative_to(HERE):  # the hook sees the items of all folders
            continue
        item.add_marker(pytest.mark.cluster)
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def cluster() -> Kubectl:
    """kubectl in the namespace default; fails at once where no cluster answers."""
    assert os.environ.get("KUBECONFIG"), "KUBECONFIG names no cluster"
    kubectl = Kubectl()
    assert kubectl("get", "--raw", "/readyz").strip() == "ok"
    return kubectl


@pytest.fixture(scope="session")
def images() -> Images:
    """Both images of this working tree, on the cluster."""
    return load_images()


@pytest.fixture
def namespaces(cluster: Kubectl, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Kubectl]]:
    """Makes namespaces that enforce Pod Security `restricted`; they end with the test, told of when it fails."""
    made: list[Kubectl] = []

    def make(name: str) -> Kubectl:
        cluster.apply(a_namespace(name, **{"drivetrain.dev/enabled": "true"}))
        made.append(cluster.within(name))
        return made[-1]

    failed = request.session.testsfailed
    yield make
    for kubectl in made if request.session.testsfailed > failed else ():
        tell(kubectl)
    delete_namespaces(cluster, [kubectl.namespace for kubectl in made])


@pytest.fixture
def queue(cluster: Kubectl) -> Iterator[Callable[[str, int], None]]:
    """Makes a ClusterQueue of one flavor with GPUs and more CPU and memory than a test asks for, and its priorities."""
    made: list[str] = []

    def make(name: str, gpus: int) -> None:
        quotas = {"cpu": "20", "memory": "64Gi", "nvidia.com/gpu": str(gpus)}
        spec = {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
            "preemption": {"withinClusterQueue": "LowerPriority"},
        }
        made.append(name)
        cluster.apply(
            kueue("ResourceFlavor", name),
            cluster_queue(name, quotas, flavor=name, **spec),
            *(kueue("WorkloadPriorityClass", f"{name}-{each}", value=value) for each, value in PRIORITIES.items()),
        )

    yield make
    for name in made:
        for kind in (f"clusterqueue/{name}", f"resourceflavor/{name}"):
            cluster("delete", kind, "--ignore-not-found", "--wait=false")
        cluster("delete", "workloadpriorityclass", *(f"{name}-{each}" for each in PRIORITIES), "--ignore-not-found")
