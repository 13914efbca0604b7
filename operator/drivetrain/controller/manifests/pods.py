"""Pod templates of Ray clusters: what Pod Security `restricted` asks for, and the environment our programs read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from drivetrain.api.documents import JSON, Document
from drivetrain.api.names import (
    NAMESPACE_ENV,
    NO_TELEMETRY,
    OWNER_UID_LABEL,
    SERVICE_ACCOUNT_DIRECTORY,
    SERVICE_ACCOUNT_ENV,
    WORK_DIRECTORY,
    WORK_ENV,
)
from drivetrain.api.v1alpha1.dataset import SecretReference
from drivetrain.api.v1alpha1.training import Cluster, Resources, Topology
from drivetrain.controller.manifests.quantities import shared_memory

TOKEN_SECONDS = 3600
REQUIRED_TOPOLOGY = "kueue.x-k8s.io/podset-required-topology"
PREFERRED_TOPOLOGY = "kueue.x-k8s.io/podset-preferred-topology"
USER = 1000
"""The user that Ray images run as; a number, because the kubelet cannot tell that a name is not root."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume and where the container sees it."""

    name: str
    path: str
    source: Document
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class PodPlan:
    """What one Pod template is made of."""

    container: str
    image: str
    resources: Resources
    account: str
    labels: Mapping[str, str]
    environment: tuple[Document, ...]
    mounts: tuple[Mount, ...] = ()
    ports: Mapping[str, int] = field(default_factory=dict)
    restart_policy: str = ""
    grace_seconds: int | None = None
    """How long it may take to end when told to; Kubernetes' default when absent."""
    command: tuple[str, ...] = ()
    """What the container runs; KubeRay says it for heads and workers."""
    readiness: Document | None = None
    """A probe in place of KubeRay's."""
    topology: Topology = field(default_factory=Topology)
    """Of workers; one head or submitter lies anywhere."""


def template(plan: PodPlan, cluster: Cluster) -> Document:
    """The Pod template: non-root, no privileges, read-only root with scratch space, no token unless mounted."""
    mounts = (*SCRATCH, shared(plan.resources), *plan.mounts)
    container: dict[str, JSON] = {
        "name": plan.container,
        "image": plan.image,
        "imagePullPolicy": "IfNotPresent",
        "env": list(plan.environment),
        "resources": quantities(plan.resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": mount.name, "mountPath": mount.path, **({"readOnly": True} if mount.read_only else {})}
            for mount in mounts
        ],
    }
    if plan.command:
        container["command"] = list(plan.command)
    if plan.readiness is not None:
        container["readinessProbe"] = plan.readiness
    if plan.ports:
        container["ports"] = [
            {"name": name, "containerPort": port, "protocol": "TCP"} for name, port in plan.ports.items()
        ]
    spec: dict[str, JSON] = {
        "serviceAccountName": plan.account,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": mount.name, **mount.source} for mount in mounts],
    }
    if plan.restart_policy:
        spec["restartPolicy"] = plan.restart_policy
    if plan.grace_seconds is not None:
        spec["terminationGracePeriodSeconds"] = plan.grace_seconds
    if cluster.node_selector:
        spec["nodeSelector"] = dict(sorted(cluster.node_selector.items()))
    if cluster.tolerations:
        spec["tolerations"] = [
            toleration.model_dump(mode="json", by_alias=True, exclude_none=True) for toleration in cluster.tolerations
        ]
    if cluster.runtime_class:
        spec["runtimeClassName"] = cluster.runtime_class
    if plan.topology.spread:
        owner = {"matchLabels": {OWNER_UID_LABEL: plan.labels[OWNER_UID_LABEL]}}
        spec["topologySpreadConstraints"] = [
            {**spread.model_dump(mode="json", by_alias=True), "labelSelector": owner} for spread in plan.topology.spread
        ]
    metadata: dict[str, JSON] = {"labels": dict(sorted(plan.labels.items()))}
    placed = {REQUIRED_TOPOLOGY: plan.topology.required, PREFERRED_TOPOLOGY: plan.topology.preferred}
    if annotations := {name: label for name, label in placed.items() if label}:
        metadata["annotations"] = annotations
    return {"metadata": metadata, "spec": spec}


def quantities(resources: Resources) -> Document:
    """What Kueue counts, and limits on what cannot be shared.

    CPU has no limit: cores that nobody else asked for may be used, and starting Ray takes fifteen seconds of one.
    """
    limits: dict[str, JSON] = {"memory": resources.memory}
    if resources.gpu:
        limits["nvidia.com/gpu"] = str(resources.gpu)
    return {"requests": {"cpu": resources.cpu, **limits}, "limits": limits}


def empty_dir(name: str, path: str) -> Mount:
    """Scratch space that lives as long as the Pod."""
    return Mount(name, path, {"emptyDir": {}}, read_only=False)


def config_map(name: str, path: str, source: str) -> Mount:
    """The keys of a ConfigMap as files."""
    return Mount(name, path, {"configMap": {"name": source}})


def secret(name: str, path: str, source: SecretReference) -> Mount:
    """The keys of a Secret as files."""
    return Mount(name, path, {"secret": {"secretName": source.secret_name}})


def api_token() -> Mount:
    """What a mounted ServiceAccount token looks like everywhere, for the one Pod that reports."""
    return Mount(
        "kube-api-access",
        SERVICE_ACCOUNT_DIRECTORY,
        {
            "projected": {
                "sources": [
                    {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    {
                        "downwardAPI": {
                            "items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]
                        }
                    },
                ]
            }
        },
    )


def shared(resources: Resources) -> Mount:
    """Shared memory for Ray's object store, as large as that is; without a limit it were half of the node's memory."""
    source: Document = {"emptyDir": {"medium": "Memory", "sizeLimit": shared_memory(resources)}}
    return Mount("shm", "/dev/shm", source, read_only=False)  # noqa: S108 - a mount path inside the Pod


SCRATCH = (
    empty_dir("tmp", "/tmp"),  # noqa: S108 - a mount path inside the Pod
    empty_dir("work", WORK_DIRECTORY),
)


def variables(values: Mapping[str, str]) -> tuple[Document, ...]:
    """Environment variables with plain values, in the order given."""
    return tuple({"name": name, "value": value} for name, value in values.items())


def secret_variables(source: SecretReference, *keys: str, optional: bool = False) -> tuple[Document, ...]:
    """Environment variables that take their values from the Secret's keys of the same name."""
    return tuple(
        {
            "name": key,
            "valueFrom": {
                "secretKeyRef": {"name": source.secret_name, "key": key, **({"optional": True} if optional else {})}
            },
        }
        for key in keys
    )


def base_environment(*, reports: bool) -> tuple[Document, ...]:
    """What every Ray container is told; the serving flags sit everywhere, because Ray reads them where it starts."""
    namespace: Document = {"name": NAMESPACE_ENV, "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}
    values = {
        # The root is read-only and the user's home lies on it: what libraries keep goes to the scratch space.
        "HOME": WORK_DIRECTORY,
        "XDG_CACHE_HOME": f"{WORK_DIRECTORY}/cache",
        WORK_ENV: WORK_DIRECTORY,
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        **NO_TELEMETRY,
    }
    if reports:
        values[SERVICE_ACCOUNT_ENV] = SERVICE_ACCOUNT_DIRECTORY
    return (namespace, *variables(values))
