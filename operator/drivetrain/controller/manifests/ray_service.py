"""The RayService of a Deployment's cluster revision, and the Service that clients reach it by."""

import json
import math
from decimal import Decimal

from drivetrain.api.canonical import canonical_json, digest
from drivetrain.api.documents import JSON, Document, documents, integer, text, value
from drivetrain.api.kinds import RAY_SERVICE, SERVICE
from drivetrain.api.names import (
    DEPLOYMENT_ENV,
    KEYS_DIRECTORY,
    KEYS_ENV,
    NODE_TYPE_LABEL,
    OWNER_UID_LABEL,
    POLICIES_DIRECTORY,
    POLICIES_ENV,
    PROJECT_ENV,
    REPORT_ENV,
    REVISION_LABEL,
    SERVE_HEALTH_PATH,
    SERVE_IMPORT_PATH,
    STORE_ENV,
    account_name,
    policies_name,
    ray_service_name,
    report_name,
)
from drivetrain.api.policy import EndpointConfig
from drivetrain.api.v1alpha1.dataset import SecretReference, Store
from drivetrain.api.v1alpha1.deployment import DeploymentSpec
from drivetrain.api.v1alpha1.training import Queue, Resources
from drivetrain.controller.manifests import pods
from drivetrain.controller.manifests.metadata import Owner, child
from drivetrain.controller.manifests.quantities import times
from drivetrain.controller.manifests.ray_cluster import PORTS, Group, Runtime, ray_cluster
from drivetrain.controller.manifests.ray_job import S3_KEYS, queue_labels

HTTP_PORT = 8000
APPLICATION = "endpoint"
READINESS: Document = {
    "httpGet": {"path": SERVE_HEALTH_PATH, "port": HTTP_PORT},
    "initialDelaySeconds": 10,
    "periodSeconds": 5,
    "timeoutSeconds": 2,
    "failureThreshold": 2,
}
"""Of workers. KubeRay's own starts wget, which an image need not have."""
HEAD_RESOURCE = "node:__internal_head__"
"""Ray gives it to the head and to no other node: who asks for a little of it runs there."""
REPLICAS = "Endpoint"
"""The Serve deployment that decides; the Monitor beside it is one."""
_SIZE_FIELDS = ("replicas", "minReplicas", "maxReplicas")
_COUNT_FIELDS = ("num_replicas", "autoscaling_config")


def cluster_config(owner: Owner, spec: DeploymentSpec, store: Store, runtime: Runtime) -> Document:
    """The `rayClusterConfig`, without the label of its own revision."""
    account = account_name(owner.kind.kind, owner.name)
    values = {
        PROJECT_ENV: owner.project,
        DEPLOYMENT_ENV: owner.name,
        REPORT_ENV: report_name(owner.kind.kind, owner.name),
        POLICIES_ENV: POLICIES_DIRECTORY,
        KEYS_ENV: KEYS_DIRECTORY,
        STORE_ENV: canonical_json(store),
    }
    shared = (*pods.variables(values), *pods.secret_variables(store.credentials, *S3_KEYS))
    mounts = (
        pods.config_map("policies", POLICIES_DIRECTORY, policies_name(owner.name)),
        pods.secret("keys", KEYS_DIRECTORY, SecretReference(secret_name=spec.auth.secret_name)),
    )
    head = pods.PodPlan(
        container="ray-head",
        image=runtime.image,
        resources=spec.cluster.head,
        account=account,
        labels=owner.labels,
        environment=(*pods.base_environment(reports=True), *runtime.expectations, *shared),
        mounts=(*mounts, pods.api_token()),
        ports=PORTS,
    )
    worker = pods.PodPlan(
        container="ray-worker",
        image=runtime.image,
        resources=pod_resources(spec),
        account=account,
        labels=owner.labels,
        environment=(*pods.base_environment(reports=False), *runtime.expectations, *shared),
        mounts=mounts,
        readiness=READINESS,
        topology=spec.cluster.topology,
    )
    return ray_cluster(
        runtime,
        head=Group(pods.template(head, spec.cluster), head.resources, cpus=0),
        worker=Group(pods.template(worker, spec.cluster), worker.resources, cpus=replicas_per_pod(spec)),
        workers=_workers(spec, replicas_per_pod(spec)),
    )


def revision_of(config: Document) -> str:
    """Names what makes a new cluster necessary. Sizes of worker groups are left out: KubeRay changes them in place."""
    return digest(_without_sizes(config))[:12]


def ray_service(
    owner: Owner,
    spec: DeploymentSpec,
    config: Document,
    serve: Document,
    revision: str,
    *,
    queued: bool = False,
) -> Document:
    """The RayService of a cluster and of what Serve is told there; `queued` where Kueue is known to queue RayServices.

    `upgradeStrategy` is None, because while a pending cluster exists KubeRay gives a changed serve configuration to the
    pending one only: another cluster is another RayService.
    """
    body: dict[str, JSON] = {
        "spec": {
            "upgradeStrategy": {"type": "None"},
            "serveConfigV2": canonical_json(serve),
            "rayClusterConfig": with_revision(config, revision),
        }
    }
    return child(
        RAY_SERVICE,
        ray_service_name(owner.name, revision),
        owner,
        body,
        labels={REVISION_LABEL: revision, **(queue_labels(spec.queue) if queued else {})},
    )


def queue_probe(owner: Owner, queue: Queue) -> Document:
    """A RayService for a dry run: a Kueue that queues such answers with a suspended cluster, another one does not.

    Under one that does not (0.15.0) a queue label makes Kueue and KubeRay fight over the cluster's `suspend`.
    """
    container: Document = {"name": "ray-head", "image": "probe"}
    head: Document = {"rayStartParams": {}, "template": {"spec": {"containers": [container]}}}
    body: Document = {"spec": {"rayClusterConfig": {"headGroupSpec": head}}}
    return child(RAY_SERVICE, ray_service_name(owner.name, "probe"), owner, body, labels=queue_labels(queue))


def is_suspended(service: Document) -> bool:
    """Whether a RayService's cluster waits for quota."""
    return value(service, "spec", "rayClusterConfig", "suspend") is True


def serve_config(spec: DeploymentSpec, endpoint: EndpointConfig) -> dict[str, JSON]:
    """The Serve configuration: during a rollout only `user_config` and replica counts change."""
    user_config = _user_config(endpoint)
    # What Ray calls a CPU of a worker is room for one replica, so that no Pod gets more than it is sized for.
    options: dict[str, JSON] = {"num_cpus": 1}
    if spec.resources.gpu:
        options["num_gpus"] = spec.resources.gpu
    replicas: dict[str, JSON] = {
        "name": REPLICAS,
        "user_config": user_config,
        "ray_actor_options": options,
        **_counts(spec),
    }
    monitor: dict[str, JSON] = {
        "name": "Monitor",
        "num_replicas": 1,
        "user_config": user_config,
        "ray_actor_options": {"num_cpus": 0, "resources": {HEAD_RESOURCE: 0.001}},
    }
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": HTTP_PORT},  # noqa: S104 - the Service reaches it by the Pod's address
        "applications": [
            {
                "name": APPLICATION,
                "route_prefix": "/",
                "import_path": SERVE_IMPORT_PATH,
                "deployments": [replicas, monitor],
            }
        ],
    }


def reconfigured(service: Document, spec: DeploymentSpec, endpoint: EndpointConfig) -> dict[str, JSON]:
    """What Serve is told in a cluster that the spec has moved on from: rollout and replica counts, else as before.

    What a replica asks for stays, because the Pods there have room for nothing else.
    """
    serve: dict[str, JSON] = json.loads(text(service, "spec", "serveConfigV2"))
    applications: list[JSON] = []
    for application in documents(serve, "applications"):
        told: list[JSON] = []
        for each in documents(application, "deployments"):
            kept: dict[str, JSON] = {**each, "user_config": _user_config(endpoint)}
            if text(each, "name") == REPLICAS:
                kept = {key: part for key, part in kept.items() if key not in _COUNT_FIELDS} | _counts(spec)
            told.append(kept)
        applications.append({**application, "deployments": told})
    return {**serve, "applications": applications}


def _counts(spec: DeploymentSpec) -> dict[str, JSON]:
    """How many replicas Serve keeps."""
    if spec.autoscaling is None:
        return {"num_replicas": spec.replicas}
    bounds: dict[str, JSON] = {
        "min_replicas": spec.autoscaling.min_replicas,
        "max_replicas": spec.autoscaling.max_replicas,
        "target_ongoing_requests": spec.autoscaling.target_ongoing_requests,
    }
    return {"autoscaling_config": bounds}


def _user_config(endpoint: EndpointConfig) -> JSON:
    found: JSON = endpoint.model_dump(mode="json", by_alias=True, exclude_none=True)
    return found


def service(owner: Owner, revision: str) -> Document:
    """The Service of the Deployment's name: to the Pods of one revision that serve."""
    return child(
        SERVICE,
        owner.name,
        owner,
        {
            "spec": {
                "selector": {OWNER_UID_LABEL: owner.uid, REVISION_LABEL: revision, "ray.io/serve": "true"},
                "ports": [{"name": "http", "port": HTTP_PORT, "targetPort": HTTP_PORT, "protocol": "TCP"}],
            }
        },
    )


def replica_selector(uid: str, revision: str) -> str:
    """The Pods of one revision of the Deployment with this uid that hold replicas, as a label selector in one line."""
    labels = {OWNER_UID_LABEL: uid, REVISION_LABEL: revision, NODE_TYPE_LABEL: "worker"}
    return ",".join(f"{name}={label}" for name, label in labels.items())


def with_revision(config: Document, revision: str) -> Document:
    """The same cluster with the revision's label on all Pods."""

    def labelled(part: JSON) -> JSON:
        if isinstance(part, dict):
            part = {key: labelled(inner) for key, inner in part.items()}
            labels = value(part, "template", "metadata", "labels")
            if isinstance(labels, dict):
                labels[REVISION_LABEL] = revision
            return part
        return [labelled(inner) for inner in part] if isinstance(part, list) else part

    stated = labelled(config)
    assert isinstance(stated, dict)
    return stated


def most_replicas(spec: DeploymentSpec) -> int:
    """How many replicas the cluster has room for."""
    return spec.autoscaling.max_replicas if spec.autoscaling else spec.replicas


def replicas_per_pod(spec: DeploymentSpec) -> int:
    """How many replicas a worker Pod has room for: those that can share its GPU, else one.

    However many there are now: scaling changes the number of Pods, never a Pod, which would be another cluster.
    """
    share = Decimal(str(spec.resources.gpu))
    return int(1 / share) if 0 < share < 1 else 1


def with_workers(config: Document, spec: DeploymentSpec) -> Document:
    """The same cluster with as many of its own worker Pods as hold all replicas."""
    groups: list[JSON] = []
    for group in documents(config, "workerGroupSpecs"):
        workers = _workers(spec, int(text(group, "rayStartParams", "num-cpus") or 1))
        groups.append({**group, **dict.fromkeys(_SIZE_FIELDS, workers)})
    return {**config, "workerGroupSpecs": groups}


def workers_in(config: Document) -> int:
    """How many worker Pods a cluster states."""
    return sum(integer(group, "replicas") for group in documents(config, "workerGroupSpecs"))


def _workers(spec: DeploymentSpec, per_pod: int) -> int:
    return math.ceil(most_replicas(spec) / per_pod)


def pod_resources(spec: DeploymentSpec) -> Resources:
    """What a worker Pod asks for; GPUs are handed out whole."""
    count = replicas_per_pod(spec)
    return Resources(
        cpu=times(spec.resources.cpu, count),
        memory=times(spec.resources.memory, count),
        gpu=math.ceil(Decimal(str(spec.resources.gpu)) * count),
    )


def _without_sizes(part: JSON) -> JSON:
    if isinstance(part, dict):
        return {key: _without_sizes(inner) for key, inner in part.items() if key not in _SIZE_FIELDS}
    return [_without_sizes(inner) for inner in part] if isinstance(part, list) else part
