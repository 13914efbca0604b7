"""The Kubernetes kinds that Drivetrain reads or writes, and how one object is named."""

from dataclasses import dataclass

from drivetrain.api.documents import Document, name_of, namespace_of, text


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """A resource of the Kubernetes API; `plural` is its name in the URL."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`group/version`, or `version` in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def path(self) -> str:
        """The URL path of the group version: `/api/v1` or `/apis/<group>/<version>`."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def __str__(self) -> str:
        return self.kind


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """The name of one object; `namespace` is empty for cluster-scoped kinds."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind.kind} {self.name}"


GROUP = "drivetrain.dev"

DRIVETRAIN_PROJECT = Kind(GROUP, "v1alpha1", "drivetrainprojects", "DrivetrainProject")
TRAINING_RUN = Kind(GROUP, "v1alpha1", "trainingruns", "TrainingRun")
DEPLOYMENT = Kind(GROUP, "v1alpha1", "drivetraindeployments", "Deployment")

RAY_JOB = Kind("ray.io", "v1", "rayjobs", "RayJob")
RAY_SERVICE = Kind("ray.io", "v1", "rayservices", "RayService")
RAY_CLUSTER = Kind("ray.io", "v1", "rayclusters", "RayCluster")

# Kueue serves v1beta1 before 0.15 and both from there on; which of them is asked for is found at start.
WORKLOAD_V1BETA1 = Kind("kueue.x-k8s.io", "v1beta1", "workloads", "Workload")
WORKLOAD = Kind("kueue.x-k8s.io", "v1beta2", "workloads", "Workload")

LOCAL_QUEUE = Kind("kueue.x-k8s.io", "v1beta2", "localqueues", "LocalQueue")
CLUSTER_QUEUE = Kind("kueue.x-k8s.io", "v1beta2", "clusterqueues", "ClusterQueue", namespaced=False)
PENDING_WORKLOADS = Kind("visibility.kueue.x-k8s.io", "v1beta2", "localqueues", "PendingWorkloadsSummary")
"""Kueue's own API server; the name of such an object is `<LocalQueue>/pendingworkloads`."""

POD = Kind("", "v1", "pods", "Pod")
CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")
SERVICE = Kind("", "v1", "services", "Service")
SERVICE_ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
NAMESPACE = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
ROLE = Kind("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDING = Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
NETWORK_POLICY = Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")
EVENT = Kind("events.k8s.io", "v1", "events", "Event")
CUSTOM_RESOURCE_DEFINITION = Kind(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)

OWN_KINDS = (DRIVETRAIN_PROJECT, TRAINING_RUN, DEPLOYMENT)
KINDS = (
    *OWN_KINDS,
    *(RAY_JOB, RAY_SERVICE, RAY_CLUSTER, WORKLOAD, WORKLOAD_V1BETA1),
    *(POD, CONFIG_MAP, SERVICE, SERVICE_ACCOUNT, NAMESPACE, ROLE, ROLE_BINDING, NETWORK_POLICY, LEASE, EVENT),
    CUSTOM_RESOURCE_DEFINITION,
)

SECRET = Kind("", "v1", "secrets", "Secret")
CLUSTER_ROLE = Kind("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTER_ROLE_BINDING = Kind(
    "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False
)
ADMINISTRATOR_KINDS = (SECRET, CLUSTER_ROLE, CLUSTER_ROLE_BINDING)
"""What setting up an environment writes; the operator has no right to any of them."""

QUEUE_KINDS = (LOCAL_QUEUE, CLUSTER_QUEUE, PENDING_WORKLOADS)
"""What is read of Kueue beside Workloads, where that is allowed."""

_BY_NAME = {(kind.api_version, kind.kind): kind for kind in (*KINDS, *ADMINISTRATOR_KINDS, *QUEUE_KINDS)}


def kind_of(document: Document) -> Kind:
    """Return the kind that `apiVersion` and `kind` name.

    Raises:
        KeyError: the document names a kind that is not in `KINDS`.
    """
    return _BY_NAME[text(document, "apiVersion"), text(document, "kind")]


def ref_of(document: Document) -> Ref:
    """Return the name of a document of one of `KINDS`.

    Raises:
        KeyError: the document names a kind that is not in `KINDS`.
    """
    return Ref(kind_of(document), namespace_of(document), name_of(document))
