"""Pods of this node, as the kubelet treats them: what to mount, the status to tell, when one is gone. Pure."""

from dataclasses import dataclass

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
    text,
    uid_of,
)
from drivetrain.api.kinds import POD, Ref
from drivetrain.api.names import CLUSTER_LABEL
from drivetrain.local.agent.clusters import SUBMISSION_ANNOTATION, condition
from drivetrain.local.agent.containers import ContainerError, MountError, resolve
from drivetrain.local.agent.effects import Effect, RemovePod, SetStatus, Stop, Tell
from drivetrain.local.agent.facts import (
    TERMINAL,
    World,
    application_prefix,
    deleting,
    is_head,
    parse,
    same,
    stamp,
)
from drivetrain.local.agent.volumes import Volume, volumes


@dataclass(frozen=True, slots=True)
class Mounted:
    """The volumes that a pod needs now."""

    pod: Document
    volumes: tuple[Volume, ...]


def mounted(pod: Document, world: World) -> Mounted | MountError:
    """Return what to put in place for a pod, or why that cannot be done yet."""
    try:
        return Mounted(pod, volumes(pod, world))
    except MountError as fault:
        return fault


def decide(pod: Document, world: World, placed: Mounted | MountError) -> tuple[Effect, ...]:
    """Return what to tell about a pod. The job or the service starts when its head pod is ready, and not before."""
    if deleting(pod):
        return _remove(pod, world)
    fault = None if uid_of(pod) in world.environments else _fault(pod, world, placed)
    status = pod_status(pod, fault, world)
    effects: list[Effect] = []
    if fault is not None and str(fault):
        reason = "FailedMount" if isinstance(fault, MountError) else "Failed"
        effects.append(Tell(pod, "Warning", reason, str(fault) if reason == "FailedMount" else f"Error: {fault}"))
    if not same(status, mapping(pod, "status")):
        effects.append(SetStatus(pod, status))
    return tuple(effects)


def _fault(pod: Document, world: World, placed: Mounted | MountError) -> ContainerError | None:
    if isinstance(placed, MountError):
        return placed
    try:
        resolve(pod, world)
    except ContainerError as fault:
        return fault
    return ContainerError("") if world.ray is None else None  # Ray is being started: ContainerCreating


def submission_of(pod: Document) -> str:
    """Return the id of the Ray job that runs in a head pod, or ""."""
    return annotations_of(pod).get(SUBMISSION_ANNOTATION, "") if is_head(pod) else ""


def pod_status(pod: Document, fault: ContainerError | None, world: World) -> Document:
    """Return a pod's whole status: running and ready, or waiting with the kubelet's reason and message."""
    before = mapping(pod, "status")
    now = stamp(world.now)
    up = fault is None
    waiting: dict[str, JSON] = {"reason": "ContainerCreating"}
    if fault is not None and str(fault) and not isinstance(fault, MountError):
        waiting = {"reason": "CreateContainerConfigError", "message": str(fault)}
    old = {text(entry, "name"): entry for entry in documents(before, "containerStatuses")}
    statuses: list[JSON] = []
    for container in documents(pod, "spec", "containers"):
        name = text(container, "name")
        since = text(old.get(name, {}), "state", "running", "startedAt") or now
        state: JSON = {"running": {"startedAt": since}} if up else {"waiting": waiting}
        statuses.append(
            {
                "name": name,
                "image": text(container, "image"),
                "imageID": "",
                "ready": up,
                "started": up,
                "lastState": {},
                "restartCount": integer(old.get(name, {}), "restartCount"),
                "state": state,
            }
        )
    unready = "" if up else "ContainersNotReady"
    conditions = [
        _pod_condition(before, "PodReadyToStartContainers", not isinstance(fault, MountError), now, ""),
        _pod_condition(before, "PodScheduled", True, now, ""),
        _pod_condition(before, "Initialized", True, now, ""),
        _pod_condition(before, "ContainersReady", up, now, unready),
        _pod_condition(before, "Ready", up, now, unready),
    ]
    status: dict[str, JSON] = {
        "phase": "Running" if up else "Pending",
        "conditions": conditions,
        "containerStatuses": statuses,
        "startTime": text(before, "startTime") or now,
        "hostIP": "127.0.0.1",
        "podIP": "127.0.0.1",
        "podIPs": [{"ip": "127.0.0.1"}],
    }
    others = {key: entry for key, entry in before.items() if key not in status}  # what the API server adds
    return {**others, **status}


def _pod_condition(before: Document, type_: str, holds: bool, now: str, reason: str) -> Document:
    found = condition(before, type_, holds, reason, now)
    return {key: entry for key, entry in found.items() if entry != ""}


def _remove(pod: Document, world: World) -> tuple[Effect, ...]:
    """A pod that is being deleted goes when its process is gone: the job has ended, no application is left.

    Its volumes serve the job's submitter too, which gets the pod's grace period to end.
    """
    if world.ray is None:
        return ()  # whatever ran is unknown until Ray answers
    namespace = namespace_of(pod)
    if is_head(pod):
        info = world.ray.jobs.get(submission_of(pod))
        if info is not None and info.status not in TERMINAL:
            return (Stop(submission_of(pod)),)
        if submission_of(pod) in world.followed and world.now < parse(text(pod, "metadata", "deletionTimestamp")):
            return ()
        prefix = application_prefix(namespace, labels_of(pod).get(CLUSTER_LABEL, ""))
        if any(name.startswith(prefix) for name in world.ray.applications):
            return ()
    return (RemovePod(Ref(POD, namespace, name_of(pod)), uid_of(pod)),)
