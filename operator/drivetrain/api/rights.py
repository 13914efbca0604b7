"""What the operator may do in a cluster: the one list behind the chart's roles, the embedded mode and the audit."""

from dataclasses import dataclass

from drivetrain.api.documents import Document
from drivetrain.api.kinds import GROUP


@dataclass(frozen=True, slots=True)
class Right:
    """Verbs on resources of one API group; an apply needs `patch`, and `create` where the object may be new."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]

    @property
    def rule(self) -> Document:
        """The rule of a Role or ClusterRole."""
        return {"apiGroups": [self.group], "resources": list(self.resources), "verbs": list(self.verbs)}


_READ = ("get", "list", "watch")
_RBAC = "rbac.authorization.k8s.io"

OPERATOR: tuple[Right, ...] = (
    Right(GROUP, ("drivetrainprojects",), _READ),
    Right(GROUP, ("trainingruns",), (*_READ, "create", "patch", "delete")),
    Right(GROUP, ("drivetraindeployments",), (*_READ, "create", "patch")),
    Right(GROUP, ("drivetrainprojects/status", "trainingruns/status", "drivetraindeployments/status"), ("patch",)),
    Right("ray.io", ("rayjobs", "rayservices"), ("list", "watch", "create", "patch", "delete")),
    Right("ray.io", ("rayclusters",), ("get", "patch")),
    Right("kueue.x-k8s.io", ("workloads",), ("list", "watch")),
    Right("kueue.x-k8s.io", ("localqueues",), ("get",)),
    Right("visibility.kueue.x-k8s.io", ("localqueues/pendingworkloads",), ("get",)),
    Right("", ("pods",), ("list", "watch")),
    Right("", ("configmaps",), (*_READ, "create", "patch")),
    Right("", ("serviceaccounts", "services"), ("get", "create", "patch")),
    Right(_RBAC, ("roles", "rolebindings"), ("get", "create", "patch")),
    Right("networking.k8s.io", ("networkpolicies",), ("get", "create", "patch")),
    Right("events.k8s.io", ("events",), ("create",)),
)
"""In every namespace that it looks after."""

LEASE: tuple[Right, ...] = (Right("coordination.k8s.io", ("leases",), ("get", "create", "patch")),)
"""In its own namespace."""

CLUSTER_QUEUES: tuple[Right, ...] = (Right("kueue.x-k8s.io", ("clusterqueues",), ("get",)),)
"""Cluster-scoped, and only where the installation asks for it: then a waiting run also says how much is in use."""
