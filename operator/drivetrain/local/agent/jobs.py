"""RayJobs: KubeRay's state machine of jobDeploymentStatus, with Ray's jobs API in place of a submitter. Pure.

Follows rayjob_controller.go of KubeRay 1.6.2: names are written to status before anything is created, suspension is
atomic, a finished RayJob never changes but for its cluster's end. `backoffLimit` above 0 retries with a new cluster.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import yaml

from drivetrain.api.documents import (
    JSON,
    Document,
    integer,
    mapping,
    name_of,
    namespace_of,
    sequence,
    text,
    texts,
    uid_of,
    value,
)
from drivetrain.api.kinds import RAY_CLUSTER, Ref
from drivetrain.local.agent.clusters import misnamed, ray_cluster
from drivetrain.local.agent.containers import ContainerError, environment, mounts, relocated_command
from drivetrain.local.agent.effects import Delete, Effect, Hold, SetStatus, Stop, Submit
from drivetrain.local.agent.facts import TERMINAL, RayJobInfo, World, deleting, is_head, parse, stamp

FINALIZER = "ray.io/rayjob-finalizer"
_FINISHED = frozenset({"Complete", "Failed"})
_KUBERAY = "ray.io/kuberay-operator"
SUBMITTER_WITHIN = timedelta(seconds=300)
"""How long a submitter may outlive its job; KubeRay's grace period."""
_LOST = "Submitter completed but Ray job not found in RayCluster."
"""KubeRay's words when the head was lost with the job in it."""


def decide(job: Document, world: World, suffix: str, refused: str = "") -> tuple[Effect, ...]:
    """Return what to do about one RayJob.

    `suffix` names what this pass may create; `refused` is what Ray answered to the submission.
    """
    if text(job, "spec", "managedBy") not in ("", _KUBERAY):
        return ()
    if deleting(job):
        return _end(job, world)
    status = mapping(job, "status")
    match text(status, "jobDeploymentStatus"):
        case "":
            return _begin(job, world, suffix)
        case "Initializing":
            return _initialize(job, world)
        case "Running":
            return _run(job, world, refused)
        case "Suspending" | "Retrying":
            return _clear(job, world)
        case "Suspended":
            return () if value(job, "spec", "suspend") is True else (_set(job, {**status, "jobDeploymentStatus": ""}),)
        case phase if phase in _FINISHED:
            return _clean_up(job, world)
        case _:  # Waiting belongs to interactive mode, ValidationFailed to no one
            return ()


def active_submission(job: Document) -> str:
    """Return the id to ask Ray for, or "" when there is none to follow."""
    status = mapping(job, "status")
    phase = text(status, "jobDeploymentStatus")
    return text(status, "jobId") if phase in ("Initializing", "Running") or deleting(job) else ""


def to_follow(job: Document, world: World) -> tuple[str, Mapping[str, str]] | None:
    """The submission id and the head's variables of a job that Ray has taken; None where nobody can follow yet."""
    submission = active_submission(job)
    head = world.head(namespace_of(job), text(job, "status", "rayClusterName"))
    if not submission or head is None or world.ray is None or world.ray.jobs.get(submission) is None:
        return None
    try:
        return submission, environment(head, world)
    except ContainerError:
        return None  # a reference vanished: the pod's status says so


def _begin(job: Document, world: World, suffix: str) -> tuple[Effect, ...]:
    if refused := _invalid(job):
        failed = {"jobDeploymentStatus": "ValidationFailed", "reason": "ValidationFailed", "message": refused}
        return (_set(job, failed),)
    if FINALIZER not in sequence(job, "metadata", "finalizers"):
        return (Hold(job, (FINALIZER,)),)
    name = name_of(job)
    kept = {key: entry for key, entry in mapping(job, "status").items() if key in ("failed", "succeeded")}
    status: dict[str, JSON] = {
        **kept,
        "jobId": text(job, "spec", "jobId") or f"{name}-{suffix}",
        "rayClusterName": f"{name}-{suffix}",
        "jobStatus": "",
        "jobDeploymentStatus": "Initializing",
        "startTime": stamp(world.now),
    }
    return (_set(job, status),)


def _invalid(job: Document) -> str:
    """Why a RayJob is not carried out, "" where it is."""
    if text(job, "spec", "submissionMode") == "InteractiveMode" or mapping(job, "spec", "clusterSelector"):
        return "The embedded mode runs RayJobs with a cluster and an entrypoint of their own."
    return misnamed(job)


def _initialize(job: Document, world: World) -> tuple[Effect, ...]:
    if interruption := _interruption(job, world):
        return interruption
    namespace, name = namespace_of(job), text(job, "status", "rayClusterName")
    cluster = world.cluster(namespace, name)
    if cluster is None:
        submission = text(job, "status", "jobId")
        return (ray_cluster(job, name, mapping(job, "spec", "rayClusterSpec"), submission=submission),)
    status = {**mapping(job, "status"), "rayClusterStatus": _without_times(mapping(cluster, "status"))}
    if text(cluster, "status", "state") != "ready":
        return () if status == mapping(job, "status") else (_set(job, status),)
    dashboard = world.place.dashboard.removeprefix("http://")
    return (_set(job, {**status, "dashboardURL": dashboard, "jobDeploymentStatus": "Running"}),)


def _run(job: Document, world: World, refused: str) -> tuple[Effect, ...]:
    if interruption := _interruption(job, world):
        return interruption
    status = mapping(job, "status")
    namespace, name = namespace_of(job), text(status, "rayClusterName")
    submission = text(status, "jobId")
    begun = bool(text(status, "jobStatus"))
    if begun and not any(is_head(pod) and not deleting(pod) for pod in world.pods(namespace, name)):
        return (_finish(job, world, "AppFailed", _LOST),)
    if world.ray is None or submission not in world.ray.jobs:
        return ()  # Ray does not answer, or was asked before this id was known
    info = world.ray.jobs[submission]
    if info is not None:
        return _mirror(job, info, world)
    if begun and submission in world.followed:
        return ()  # its submitter finds out by itself
    if begun:
        return (_finish(job, world, "AppFailed", _LOST),)
    if refused:
        return (_finish(job, world, "SubmissionFailed", refused),)
    head = world.head(namespace, name)
    if head is None:
        return ()
    try:
        variables = environment(head, world)
    except ContainerError:
        return ()  # a reference vanished since the pod became ready: its status says so, and the job waits for it
    given = yaml.safe_load(text(job, "spec", "runtimeEnvYAML") or "{}")
    runtime_env = {**given, "env_vars": {**texts(given, "env_vars"), **variables}}
    entrypoint = relocated_command(text(job, "spec", "entrypoint"), mounts(head, world.place.pods))
    return (Submit(submission, entrypoint, runtime_env, texts(job, "spec", "metadata")),)


def _mirror(job: Document, info: RayJobInfo, world: World) -> tuple[Effect, ...]:
    phase, reason = "Running", ""
    followed = text(job, "status", "jobId") in world.followed
    overdue = world.now >= datetime.fromtimestamp(info.end_ms / 1000, UTC) + SUBMITTER_WITHIN
    if info.status in TERMINAL and (overdue or not followed):
        phase, reason = ("Failed", "AppFailed") if info.status == "FAILED" else ("Complete", "")
    times = {
        key: stamp(datetime.fromtimestamp(moment / 1000, UTC))
        for key, moment in (("startTime", info.start_ms), ("endTime", info.end_ms))
        if moment
    }
    seen: dict[str, JSON] = {
        **mapping(job, "status"),
        "jobStatus": info.status,
        "message": info.message,
        "rayJobInfo": dict(times),
    }
    if phase != "Running":
        return (_finish(job, world, reason, info.message, phase=phase, seen=seen),)
    # the message alone never makes a write: KubeRay, too, compares the two statuses only
    changed = text(job, "status", "jobStatus") != info.status
    return (_set(job, seen),) if changed else ()


def _interruption(job: Document, world: World) -> tuple[Effect, ...]:
    status = mapping(job, "status")
    if value(job, "spec", "suspend") is True:
        return (_set(job, {**status, "jobDeploymentStatus": "Suspending"}),)
    limits = [("activeDeadlineSeconds", "DeadlineExceeded")]
    if text(status, "jobDeploymentStatus") == "Initializing":
        limits.append(("preRunningDeadlineSeconds", "PreRunningDeadlineExceeded"))
    for field, reason in limits:
        seconds = value(job, "spec", field)
        began = text(status, "startTime")
        if isinstance(seconds, int) and began and world.now >= parse(began) + timedelta(seconds=seconds):
            message = f"The RayJob has passed the {field}. StartTime: {began}. {field[0].upper()}{field[1:]}: {seconds}"
            return (*_stop(job, world), _finish(job, world, reason, message))
    return ()


def _clear(job: Document, world: World) -> tuple[Effect, ...]:
    """End the incarnation; only when nothing of it is left does the status move on."""
    namespace, name = namespace_of(job), text(job, "status", "rayClusterName")
    if left := _delete_cluster(job, world):
        return left
    if world.get(RAY_CLUSTER, namespace, name) is not None or world.pods(namespace, name):
        return ()
    status = mapping(job, "status")
    kept = {key: entry for key, entry in status.items() if key in ("failed", "succeeded", "startTime")}
    phase = "Suspended" if text(status, "jobDeploymentStatus") == "Suspending" else ""
    return (_set(job, {**kept, "jobStatus": "", "jobDeploymentStatus": phase}),)


def _clean_up(job: Document, world: World) -> tuple[Effect, ...]:
    ended = text(job, "status", "endTime")
    if value(job, "spec", "shutdownAfterJobFinishes") is not True or not ended:
        return ()
    ttl = timedelta(seconds=integer(job, "spec", "ttlSecondsAfterFinished"))
    return _delete_cluster(job, world) if world.now >= parse(ended) + ttl else ()


def _end(job: Document, world: World) -> tuple[Effect, ...]:
    """Let a deleted RayJob go. Its pods stay, as in a cluster, until the process is gone."""
    if FINALIZER not in sequence(job, "metadata", "finalizers"):
        return ()
    return (*_stop(job, world), Hold(job, ()))


def _stop(job: Document, world: World) -> tuple[Effect, ...]:
    submission = text(job, "status", "jobId")
    info = world.ray.jobs.get(submission) if world.ray else None
    return (Stop(submission),) if info is not None and info.status not in TERMINAL else ()


def _delete_cluster(job: Document, world: World) -> tuple[Effect, ...]:
    namespace, name = namespace_of(job), text(job, "status", "rayClusterName")
    cluster = world.cluster(namespace, name)
    return (Delete(Ref(RAY_CLUSTER, namespace, name), uid_of(cluster)),) if cluster else ()


def _finish(
    job: Document,
    world: World,
    reason: str,
    message: str,
    *,
    phase: str = "Failed",
    seen: Mapping[str, JSON] | None = None,
) -> SetStatus:
    status = {
        **(seen or mapping(job, "status")),
        "jobDeploymentStatus": phase,
        "message": message,
    }
    if reason:
        status["reason"] = reason
    failed = integer(status, "failed") + (phase == "Failed")
    status["failed"] = failed
    status["succeeded"] = integer(status, "succeeded") + (text(status, "jobStatus") == "SUCCEEDED")
    limit = value(job, "spec", "backoffLimit")
    if phase == "Failed" and reason != "DeadlineExceeded" and isinstance(limit, int) and failed < limit + 1:
        return _set(job, {**status, "jobDeploymentStatus": "Retrying"})
    return _set(job, {**status, "endTime": stamp(world.now)})


def _set(job: Document, status: Mapping[str, JSON]) -> SetStatus:
    return SetStatus(job, {**status, "observedGeneration": integer(job, "metadata", "generation")})


def _without_times(status: Document) -> Document:
    """What a RayJob repeats of its cluster; the time of the last update alone is no news."""
    return {key: entry for key, entry in status.items() if key != "lastUpdateTime"}
