"""A Ray cluster's spec: one head, at most one group of equal workers, token authentication always on."""

from dataclasses import dataclass

from drivetrain.api.documents import JSON, Document
from drivetrain.api.v1alpha1.training import Cluster
from drivetrain.controller.manifests.settings import Settings

PORTS = {"gcs": 6379, "dashboard": 8265, "client": 10001, "serve": 8000}


@dataclass(frozen=True, slots=True)
class Runtime:
    """Image and Ray version of a cluster."""

    image: str
    ray_version: str

    @classmethod
    def of(cls, cluster: Cluster, settings: Settings) -> "Runtime":
        """What the spec says, else the operator's defaults."""
        return cls(cluster.image or settings.ray_image, cluster.ray_version or settings.ray_version)


def ray_cluster(
    runtime: Runtime, *, head: Document, worker: Document | None, workers: int, head_cpus: int | None = None
) -> Document:
    """The `rayClusterSpec` of a RayJob or the `rayClusterConfig` of a RayService.

    In-tree autoscaling stays off: it binds rights on all Pods of the namespace to the head. `head_cpus` 0 keeps work
    off the head.
    """
    start: dict[str, JSON] = {"dashboard-host": "0.0.0.0"}  # noqa: S104 - KubeRay reaches it by the Pod's address
    if head_cpus is not None:
        start["num-cpus"] = str(head_cpus)
    spec: dict[str, JSON] = {
        "rayVersion": runtime.ray_version,
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": False,
        "headGroupSpec": {"rayStartParams": start, "template": head},
    }
    if worker is not None and workers > 0:
        spec["workerGroupSpecs"] = [
            {
                "groupName": "workers",
                "replicas": workers,
                "minReplicas": workers,
                "maxReplicas": workers,
                "rayStartParams": {},
                "template": worker,
            }
        ]
    return spec
