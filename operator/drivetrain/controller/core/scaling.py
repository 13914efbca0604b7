"""How many workers the Ray cluster of an endpoint has while it runs.

KubeRay 1.6.2 makes a RayCluster with the sizes that its RayService states and never carries a later change over, so
sizes are changed on the RayCluster itself. Of workers that are too many it removes any, those with the last replicas
included: so they are named, once they are seen to hold none.
"""

from collections.abc import Sequence

from drivetrain.api.documents import (
    JSON,
    Document,
    documents,
    integer,
    labels_of,
    name_of,
    namespace_of,
    sequence,
    text,
)
from drivetrain.api.kinds import RAY_CLUSTER
from drivetrain.api.names import CLUSTER_LABEL, NODE_TYPE_LABEL
from drivetrain.controller.core.plan import Apply
from drivetrain.controller.core.records import is_true


def resized(cluster: Document, wanted: int, pods: Sequence[Document]) -> Apply | None:
    """The RayCluster with another number of workers; None where it stays as it is.

    It grows at once. It shrinks by workers that are not ready, because a worker is ready while it holds a replica, and
    only while as many others are ready as are wanted.
    """
    groups = documents(cluster, "spec", "workerGroupSpecs")
    if len(groups) != 1:
        return None
    own = [pod for pod in pods if labels_of(pod).get(CLUSTER_LABEL) == name_of(cluster)]
    workers = {name_of(pod): pod for pod in own if labels_of(pod).get(NODE_TYPE_LABEL) == "worker"}
    now, named = integer(groups[0], "replicas"), set(map(str, sequence(groups[0], "scaleStrategy", "workersToDelete")))
    if wanted > now:
        return _sized(cluster, groups[0], wanted, ())
    leaving = named & workers.keys()  # stays named until it is gone, or KubeRay would make up the number with another
    if wanted == now:
        return _sized(cluster, groups[0], now, ()) if named and not leaving else None
    stay = {name: pod for name, pod in workers.items() if name not in leaving}
    stay = {name: pod for name, pod in stay.items() if not text(pod, "metadata", "deletionTimestamp")}
    ready = {name for name, pod in stay.items() if is_true(pod, "Ready")}
    idle = sorted(stay.keys() - ready)[: now - wanted]
    if not idle or len(ready) < wanted:
        return None
    return _sized(cluster, groups[0], now - len(idle), sorted(leaving.union(idle)))


def _sized(cluster: Document, group: Document, size: int, leaving: Sequence[str]) -> Apply:
    sizes: dict[str, JSON] = {"replicas": size, "minReplicas": size, "maxReplicas": size}
    strategy: dict[str, JSON] = {"workersToDelete": list(leaving)}
    return Apply(
        {
            "apiVersion": RAY_CLUSTER.api_version,
            "kind": RAY_CLUSTER.kind,
            "metadata": {"name": name_of(cluster), "namespace": namespace_of(cluster)},
            "spec": {"workerGroupSpecs": [{**group, **sizes, "scaleStrategy": strategy}]},
        }
    )
