"""A Ray cluster's spec: one head, at most one group of equal workers, token authentication always on."""

from dataclasses import dataclass

from drivetrain.api.documents import JSON, Document
from drivetrain.api.ledger import RecordedRuntime
from drivetrain.api.names import EXPECTED_PYTHON_ENV, EXPECTED_RAY_ENV, EXPECTED_VERSION_ENV
from drivetrain.api.v1alpha1.training import Cluster, Resources
from drivetrain.controller.manifests.pods import variables
from drivetrain.controller.manifests.quantities import object_store_bytes

PORTS = {"gcs": 6379, "dashboard": 8265, "client": 10001, "serve": 8000}


@dataclass(frozen=True, slots=True)
class Group:
    """A Pod template and what its container asks for."""

    template: Document
    resources: Resources
    cpus: int | None = None
    """CPUs that Ray counts there, 0 to keep work off; absent: what the container asks for, rounded up."""

    @property
    def start(self) -> dict[str, JSON]:
        """How Ray is started there; KubeRay adds CPUs, GPUs and memory from what the container asks for."""
        counted: dict[str, JSON] = {} if self.cpus is None else {"num-cpus": str(self.cpus)}
        return {"object-store-memory": str(object_store_bytes(self.resources)), **counted}


@dataclass(frozen=True, slots=True)
class Runtime:
    """Image and Ray version of a cluster."""

    image: str
    ray_version: str
    python_version: str = ""
    version: str = ""

    @classmethod
    def of(cls, cluster: Cluster, recorded: RecordedRuntime) -> "Runtime":
        """What the spec says, else what was recorded of the operator's defaults."""
        return cls(
            cluster.image or recorded.image,
            cluster.ray_version or recorded.ray_version,
            recorded.python_version,
            recorded.version,
        )

    @property
    def expectations(self) -> tuple[Document, ...]:
        """Environment variables by which our programs check that the image is what it is taken for."""
        expected = {
            EXPECTED_RAY_ENV: self.ray_version,
            EXPECTED_PYTHON_ENV: self.python_version,
            EXPECTED_VERSION_ENV: self.version,
        }
        return variables({name: version for name, version in expected.items() if version})


def ray_cluster(runtime: Runtime, *, head: Group, worker: Group | None, workers: int) -> Document:
    """The `rayClusterSpec` of a RayJob or the `rayClusterConfig` of a RayService.

    In-tree autoscaling stays off: it binds rights on all Pods of the namespace to the head.
    """
    start: dict[str, JSON] = {"dashboard-host": "0.0.0.0", **head.start}  # noqa: S104 - KubeRay reaches it by the Pod's address
    spec: dict[str, JSON] = {
        "rayVersion": runtime.ray_version,
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": False,
        "headGroupSpec": {"rayStartParams": start, "template": head.template},
    }
    if worker is not None and workers > 0:
        spec["workerGroupSpecs"] = [
            {
                "groupName": "workers",
                "replicas": workers,
                "minReplicas": workers,
                "maxReplicas": workers,
                "rayStartParams": worker.start,
                "template": worker.template,
            }
        ]
    return spec
