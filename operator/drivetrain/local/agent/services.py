"""RayServices: merged into the one Serve configuration of this machine, and the status of each as KubeRay's. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from drivetrain.api.documents import (
    JSON,
    Document,
    annotations_of,
    documents,
    integer,
    labels_of,
    mapping,
    name_of,
    namespace_of,
    sequence,
    text,
    texts,
    uid_of,
    value,
)
from drivetrain.api.kinds import RAY_CLUSTER, RAY_SERVICE, Ref
from drivetrain.api.names import ENDPOINT_URL_ANNOTATION
from drivetrain.local.agent.clusters import SERVE_LABEL, condition, is_of, misnamed, ray_cluster
from drivetrain.local.agent.containers import ContainerError, environment, mounts, relocated_tree
from drivetrain.local.agent.effects import Apply, Delete, Effect, Hold, SetStatus
from drivetrain.local.agent.facts import World, application_prefix, deleting, same, stamp, where

FINALIZER = "ray.io/rayservice-finalizer"
LABEL_MANAGER = "drivetrain-agent-serve"
_KUBERAY = "ray.io/kuberay-operator"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The applications of one RayService as Ray Serve is to run them; `fault` says why there are none."""

    service: tuple[str, str]
    applications: tuple[Document, ...] = ()
    fault: str = ""


def decide(service: Document, world: World, suffix: str, refused: str = "") -> tuple[Effect, ...]:
    """Return what to do about one RayService; `refused` is what Ray Serve answered to its configuration."""
    if text(service, "spec", "managedBy") not in ("", _KUBERAY):
        return ()
    if deleting(service):
        return _end(service, world)
    namespace, name = namespace_of(service), name_of(service)
    address = {ENDPOINT_URL_ANNOTATION: endpoint_url(namespace, name, world)}
    known = address.items() <= annotations_of(service).items()
    if not known or FINALIZER not in sequence(service, "metadata", "finalizers"):
        return (Hold(service, (FINALIZER,), address),)
    if refused_name := misnamed(service):
        return _invalid(service, world, refused_name)
    cluster_name = cluster_of(service)
    if not cluster_name:
        return (SetStatus(service, _status(service, world, f"{name}-{suffix}", serving=False, refused="")),)
    effects: list[Effect] = []
    if world.cluster(namespace, cluster_name) is None:
        effects.append(ray_cluster(service, cluster_name, mapping(service, "spec", "rayClusterConfig")))
    if world.ray is None:
        return tuple(effects)
    states = _applications(service, world)
    head = world.head(namespace, cluster_name)
    expected = {text(app, "name") for app in documents(parsed(service)[0], "applications")}
    running = {app for app, state in states.items() if text(state, "status") == "RUNNING"}
    active = text(service, "status", "activeServiceStatus", "rayClusterName") == cluster_name
    healthy = bool(expected) and head is not None and expected <= running
    # A change is taken over in place: what served goes on answering while Serve deploys it, and when Serve gives it up.
    kept = active and (bool(running) or (_was_ready(service) and bool(states)))
    serving = head is not None and (healthy or kept)
    if head is not None and labels_of(head).get(SERVE_LABEL) != str(serving).lower():
        effects.append(Apply(_head_of(head, {"labels": {SERVE_LABEL: str(serving).lower()}}), LABEL_MANAGER))
    status = _status(service, world, cluster_name, serving=serving, refused=refused)
    if status != mapping(service, "status"):
        effects.append(SetStatus(service, status))
    return tuple(effects)


def _invalid(service: Document, world: World, why: str) -> tuple[Effect, ...]:
    generation = integer(service, "metadata", "generation")
    told = condition(
        mapping(service, "status"),
        "Ready",
        False,
        "ValidationFailed",
        stamp(world.now),
        message=why,
        generation=generation,
    )
    status: Document = {"conditions": [told], "observedGeneration": generation}
    return () if same(status, mapping(service, "status")) else (SetStatus(service, status),)


def _end(service: Document, world: World) -> tuple[Effect, ...]:
    """End its clusters; a deleted RayService stays until none is left, as in a cluster."""
    if FINALIZER not in sequence(service, "metadata", "finalizers"):
        return ()
    left = [each for each in world.all(RAY_CLUSTER) if is_of(each, service)]
    if not left:
        return (Hold(service, ()),)
    doomed = (each for each in left if not deleting(each))
    return tuple(Delete(Ref(RAY_CLUSTER, *where(each)), uid_of(each)) for each in doomed)


def _was_ready(service: Document) -> bool:
    stated = documents(service, "status", "conditions")
    return any((text(each, "type"), text(each, "status")) == ("Ready", "True") for each in stated)


def endpoint_url(namespace: str, name: str, world: World) -> str:
    """Return where clients reach a RayService of this machine."""
    return f"{world.place.serve_url}/{namespace}/{name}"


def cluster_of(service: Document) -> str:
    """Return the name of the cluster that serves, or is to serve."""
    status = mapping(service, "status")
    return text(status, "activeServiceStatus", "rayClusterName") or text(
        status, "pendingServiceStatus", "rayClusterName"
    )


def parsed(service: Document) -> tuple[Document, str]:
    """Return a RayService's own Serve configuration, and why it cannot be used ("" when it can)."""
    try:
        config = yaml.safe_load(text(service, "spec", "serveConfigV2") or "{}")
    except yaml.YAMLError as error:
        return {}, f"serveConfigV2 is not YAML: {error}"
    if not isinstance(config, Mapping) or not all(text(app, "name") for app in documents(config, "applications")):
        return {}, "serveConfigV2 must be a map with named applications."
    return config, ""


def wanted(world: World) -> tuple[Wanted, ...]:
    """Return what every RayService wants Ray Serve to run now; one whose head pod is not ready waits."""
    found = []
    for service in world.all(RAY_SERVICE):
        namespace, name = namespace_of(service), name_of(service)
        if deleting(service) or not cluster_of(service):
            continue
        head = world.head(namespace, cluster_of(service))
        if head is None:
            continue
        config, fault = parsed(service)
        try:
            variables = environment(head, world)
        except ContainerError as waiting:
            found.append(Wanted((namespace, name), fault=str(waiting)))
            continue
        volumes = mounts(head, world.place.pods)
        prefix = application_prefix(namespace, cluster_of(service))
        applications = tuple(
            _application(app, f"/{namespace}/{name}", prefix, variables, relocated_tree(app, volumes))
            for app in documents(config, "applications")
        )
        found.append(Wanted((namespace, name), applications, fault))
    return tuple(found)


def deployed(service: tuple[str, str], world: World) -> Wanted:
    """Return what Ray Serve runs of a RayService: what goes on when its new configuration cannot be used."""
    found = world.get(RAY_SERVICE, *service)
    if found is None or world.ray is None:
        return Wanted(service)
    prefix = application_prefix(service[0], cluster_of(found))
    running = [details for name, details in sorted(world.ray.applications.items()) if name.startswith(prefix)]
    return Wanted(service, tuple(mapping(details, "deployed_app_config") for details in running))


def serve_config(services: tuple[Wanted, ...], world: World) -> Document:
    """Return the one configuration for Ray Serve."""
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": world.place.serve_port},
        "grpc_options": {"port": world.place.serve_grpc_port, "grpc_servicer_functions": []},
        "applications": [app for service in services for app in service.applications],
    }


def _application(app: Document, base: str, prefix: str, variables: Mapping[str, str], moved: JSON) -> Document:
    assert isinstance(moved, Mapping)
    route = text(app, "route_prefix")
    runtime_env = mapping(moved, "runtime_env")
    deployments: list[JSON] = [_without_devices(entry) for entry in documents(moved, "deployments")]
    return {
        **moved,
        "name": prefix + text(app, "name"),
        "route_prefix": None
        if value(app, "route_prefix") is None and "route_prefix" in app
        else base + route.rstrip("/"),
        "runtime_env": {**runtime_env, "env_vars": {**variables, **texts(runtime_env, "env_vars")}},
        "deployments": deployments,
    }


def _without_devices(deployment: Document) -> Document:
    """Requests are bookkeeping on one machine: a GPU that nobody has must not keep a replica waiting."""
    options = mapping(deployment, "ray_actor_options")
    if not options:
        return deployment
    return {**deployment, "ray_actor_options": {key: entry for key, entry in options.items() if key != "num_gpus"}}


def _applications(service: Document, world: World) -> dict[str, Document]:
    """Return the states of a RayService's applications under their own names, as KubeRay reports them."""
    assert world.ray is not None
    prefix = application_prefix(namespace_of(service), cluster_of(service))
    states: dict[str, Document] = {}
    for name, details in world.ray.applications.items():
        if not name.startswith(prefix):
            continue
        deployments: dict[str, JSON] = {
            key: {"status": text(entry, "status"), "message": text(entry, "message")}
            for key, entry in mapping(details, "deployments").items()
            if isinstance(entry, Mapping)
        }
        states[name.removeprefix(prefix)] = {
            "status": text(details, "status"),
            "message": text(details, "message"),
            **({"serveDeploymentStatuses": deployments} if deployments else {}),
        }
    return states


def _status(service: Document, world: World, cluster: str, *, serving: bool, refused: str) -> Document:
    before = mapping(service, "status")
    now = stamp(world.now)
    generation = integer(service, "metadata", "generation")
    was_active = text(before, "activeServiceStatus", "rayClusterName") == cluster
    states = dict(_applications(service, world)) if world.ray and cluster_of(service) else {}
    problem = refused or parsed(service)[1]
    if problem:
        names = [text(app, "name") for app in documents(parsed(service)[0], "applications")] or ["default"]
        for name in names:
            states[name] = {**states.get(name, {}), "status": "DEPLOY_FAILED", "message": problem}
    # An empty map applied over entries of ours becomes null on the API server, which KubeRay's schema refuses.
    part: Document = {"rayClusterName": cluster, **({"applicationStatuses": dict(states)} if states else {})}
    active = was_active or serving
    reason, message = (
        ("NonZeroServeEndpoints", "Number of serve endpoints is greater than 0")
        if serving
        else ("ZeroServeEndpoints", "Number of serve endpoints dropped to 0")
        if active
        else ("Initializing", "RayService is initializing")
    )
    upgrade = (
        ("NoPendingCluster", "Active Ray cluster exists and no pending Ray cluster")
        if active
        else ("Initializing", "RayService is initializing")
    )
    conditions = [
        condition(before, "Ready", serving, reason, now, message=message, generation=generation),
        condition(before, "UpgradeInProgress", False, upgrade[0], now, message=upgrade[1], generation=generation),
    ]
    status: dict[str, JSON] = {
        "conditions": conditions,
        "observedGeneration": generation,
        "numServeEndpoints": 1 if serving else 0,
        "activeServiceStatus" if active else "pendingServiceStatus": part,
    }
    if serving:
        status["serviceStatus"] = "Running"
    if {key: entry for key, entry in before.items() if key != "lastUpdateTime"} == status:
        return before
    return {**status, "lastUpdateTime": now}


def _head_of(document: Document, metadata: Document) -> Document:
    """Return the part of an object that a field manager of ours owns: some metadata."""
    return {
        "apiVersion": text(document, "apiVersion"),
        "kind": text(document, "kind"),
        "metadata": {"name": name_of(document), "namespace": namespace_of(document), **metadata},
    }
