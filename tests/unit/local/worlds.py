"""Builders of what the agent sees."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from drivetrain.api.documents import JSON, Document, mapping, name_of, namespace_of, text
from drivetrain.api.kinds import RAY_JOB, RAY_SERVICE, Ref, kind_of
from drivetrain.api.names import ENDPOINT_URL_ANNOTATION
from drivetrain.local.agent.clusters import pods as pods_of
from drivetrain.local.agent.clusters import ray_cluster
from drivetrain.local.agent.containers import ContainerError
from drivetrain.local.agent.facts import Place, RayFacts, RayJobInfo, World
from drivetrain.local.agent.pods import pod_status

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
STARTED = "2026-03-01T11:59:00Z"
PLACE = Place(
    dashboard="http://127.0.0.1:8265",
    serve_url="http://127.0.0.1:8000",
    serve_port=8000,
    serve_grpc_port=9000,
    api_port=6443,
    pods=Path("/state/pods"),
)


def a_world(
    *objects: Document, ray: RayFacts | None = None, environments: Mapping[str, Mapping[str, str]] | None = None
) -> World:
    """A world with these objects, in which Ray answers and knows nothing unless told otherwise."""
    found = {Ref(kind_of(item), namespace_of(item), name_of(item)): item for item in objects}
    return World(NOW, found, RayFacts() if ray is None else ray, PLACE, environments or {})


def without_ray(world: World) -> World:
    """The same world while Ray does not answer."""
    return replace(world, ray=None)


def ray_with(job: str, status: str, message: str = "") -> RayFacts:
    """Ray that knows one job."""
    return RayFacts(jobs={job: RayJobInfo(status, message, 1_772_366_400_000, 0)})


def an_object(api_version: str, kind: str, name: str, **fields: JSON) -> Document:
    """An object of the namespace `team` as the API server stores it."""
    metadata: dict[str, JSON] = {"name": name, "namespace": "team", "uid": f"uid-{name}", "generation": 1}
    given = fields.pop("metadata", {})
    assert isinstance(given, Mapping)
    return {"apiVersion": api_version, "kind": kind, "metadata": {**metadata, **given}, **fields}


def a_template(**spec: JSON) -> Document:
    """A pod template with one container; `spec` overrides fields of the container or adds volumes."""
    volumes = spec.pop("volumes", [])
    container: dict[str, JSON] = {"name": "ray-head", "image": "local", **spec}
    return {"spec": {"containers": [container], "volumes": volumes}}


def a_job(status: Mapping[str, JSON] | None = None, metadata: Document | None = None, /, **spec: JSON) -> Document:
    """A RayJob called `train`."""
    body: dict[str, JSON] = {
        "entrypoint": "python -m train",
        "rayClusterSpec": {"headGroupSpec": {"template": a_template()}},
        **spec,
    }
    held: Document = {"finalizers": ["ray.io/rayjob-finalizer"], **(metadata or {})}
    return an_object(RAY_JOB.api_version, RAY_JOB.kind, "train", metadata=held, spec=body, status=dict(status or {}))


def a_running_job(job_status: str = "", **spec: JSON) -> Document:
    """A RayJob whose submission is under way or known as `job_status`."""
    return a_job(
        {
            "jobDeploymentStatus": "Running",
            "jobStatus": job_status,
            "jobId": "train-abcde",
            "rayClusterName": "train-abcde",
            "startTime": STARTED,
        },
        **spec,
    )


def a_service(status: Mapping[str, JSON] | None = None, name: str = "shop", **spec: JSON) -> Document:
    """A RayService with one application called `endpoint`."""
    body: dict[str, JSON] = {
        "serveConfigV2": "applications: [{name: endpoint, route_prefix: /, import_path: 'app:app'}]",
        "rayClusterConfig": {"headGroupSpec": {"template": a_template()}},
        **spec,
    }
    held: Document = {
        "finalizers": ["ray.io/rayservice-finalizer"],
        "annotations": {ENDPOINT_URL_ANNOTATION: f"{PLACE.serve_url}/team/{name}"},
    }
    return an_object(
        RAY_SERVICE.api_version, RAY_SERVICE.kind, name, metadata=held, spec=body, status=dict(status or {})
    )


def its_cluster(owner: Document, name: str, *, state: str = "ready") -> Document:
    """The RayCluster of a job's or service's incarnation, as stored."""
    key = "rayClusterSpec" if owner["kind"] == RAY_JOB.kind else "rayClusterConfig"
    submission = text(owner, "status", "jobId")
    made = ray_cluster(owner, name, mapping(owner, "spec", key), submission=submission).document
    metadata = {**mapping(made, "metadata"), "uid": f"uid-{name}", "generation": 1}
    return {**made, "metadata": metadata, "status": {"state": state}}


def its_head(cluster: Document, *, up: bool = True, deleting: bool = False) -> Document:
    """The head pod of a RayCluster, as stored."""
    pod = next(iter(pods_of(cluster)))
    metadata = {**mapping(pod, "metadata"), "uid": f"uid-{name_of(pod)}"}
    if deleting:
        metadata["deletionTimestamp"] = STARTED
    stored = {**pod, "metadata": metadata}
    return {**stored, "status": pod_status(stored, None if up else ContainerError(""), a_world())}
