"""Queues of Kueue for tests: pools with priorities, and the queues of a namespace that lead to them."""

from collections.abc import Mapping
from typing import Any

from drivetrain.api.documents import Document

PRIORITIES = {"low": 10, "high": 100}


def kueue(kind: str, name: str, **fields: Any) -> Document:
    """A manifest of Kueue's."""
    return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": kind, "metadata": {"name": name}, **fields}


def cluster_queue(name: str, quotas: Mapping[str, str], *, flavor: str, **spec: Any) -> Document:
    """A ClusterQueue of one flavor with these nominal quotas."""
    resources = [{"name": resource, "nominalQuota": quota} for resource, quota in quotas.items()]
    groups = [{"coveredResources": list(quotas), "flavors": [{"name": flavor, "resources": resources}]}]
    return kueue("ClusterQueue", name, spec={**spec, "resourceGroups": groups})


def local_queue(name: str, cluster_queue: str) -> Document:
    """A LocalQueue that leads to a pool."""
    return kueue("LocalQueue", name, spec={"clusterQueue": cluster_queue})
