"""What the agent sees: the mirrored objects, Ray's jobs and Ray's applications at one moment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path

from drivetrain.api.documents import JSON, Document, documents, labels_of, name_of, namespace_of, text
from drivetrain.api.kinds import POD, RAY_CLUSTER, Kind, Ref
from drivetrain.api.names import CLUSTER_LABEL, NODE_TYPE_LABEL

NODE = "local"
TERMINAL = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
"""The statuses in which a Ray job stays."""


@dataclass(frozen=True, slots=True)
class RayJobInfo:
    """A job as Ray reports it; times in milliseconds since 1970, 0 where there is none."""

    status: str
    message: str
    start_ms: int = 0
    end_ms: int = 0


@dataclass(frozen=True, slots=True)
class RayFacts:
    """Ray at one moment. `jobs` holds those asked for: None where Ray does not know the id.

    `applications` holds the details of each Serve application by name.
    """

    jobs: Mapping[str, RayJobInfo | None] = field(default_factory=dict)
    applications: Mapping[str, Document] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where this environment is reached, and where it puts the volumes of pods."""

    dashboard: str
    serve_url: str
    serve_port: int
    serve_grpc_port: int
    api_port: int
    pods: Path


@dataclass(frozen=True)  # no slots: the indices below are made once, when first asked for
class World:
    """Everything that one pass decides on. `ray` is None while Ray does not answer.

    `environments` holds the variables of containers that have started, by pod uid: like a kubelet's containers they
    keep what they were started with, whatever happens to a Secret later. `followed` holds the Ray jobs whose submitters
    are at work.
    """

    now: datetime
    objects: Mapping[Ref, Document]
    ray: RayFacts | None
    place: Place
    environments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    followed: frozenset[str] = frozenset()

    def all(self, kind: Kind) -> tuple[Document, ...]:
        """Return the objects of a kind, by namespace and name."""
        return self._by_kind.get(kind, ())

    def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """Return one object, or None."""
        return self.objects.get(Ref(kind, namespace, name))

    def cluster(self, namespace: str, name: str) -> Document | None:
        """Return a RayCluster that is not being deleted, or None."""
        found = self.get(RAY_CLUSTER, namespace, name) if name else None
        return None if found is None or deleting(found) else found

    def pods(self, namespace: str, cluster: str) -> tuple[Document, ...]:
        """Return the pods of a RayCluster, the terminating ones too."""
        return self._pods.get((namespace, cluster), ())

    def head(self, namespace: str, cluster: str) -> Document | None:
        """Return the head pod of a RayCluster if it is ready, or None."""
        return next((pod for pod in self.pods(namespace, cluster) if is_head(pod) and ready(pod)), None)

    @cached_property
    def _by_kind(self) -> Mapping[Kind, tuple[Document, ...]]:
        found: dict[Kind, list[Document]] = {}
        for ref in sorted(self.objects):
            found.setdefault(ref.kind, []).append(self.objects[ref])
        return {kind: tuple(items) for kind, items in found.items()}

    @cached_property
    def _pods(self) -> Mapping[tuple[str, str], tuple[Document, ...]]:
        found: dict[tuple[str, str], list[Document]] = {}
        for pod in self.all(POD):
            found.setdefault((namespace_of(pod), labels_of(pod).get(CLUSTER_LABEL, "")), []).append(pod)
        return {cluster: tuple(items) for cluster, items in found.items()}


def is_head(pod: Document) -> bool:
    """Whether a pod is the head of its RayCluster."""
    return labels_of(pod).get(NODE_TYPE_LABEL) == "head"


def deleting(document: Document) -> bool:
    """Whether deletion has been asked for."""
    return bool(text(document, "metadata", "deletionTimestamp"))


def ready(pod: Document) -> bool:
    """Whether a pod runs, is ready and is not being deleted."""
    return not deleting(pod) and condition(pod, "Ready") == "True"


def condition(document: Document, type_: str) -> str:
    """Return the status of a condition: True, False, Unknown, or "" where there is none."""
    found = (entry for entry in documents(document, "status", "conditions") if text(entry, "type") == type_)
    return next((text(entry, "status") for entry in found), "")


def application_prefix(namespace: str, cluster: str) -> str:
    """What the names of a cluster's Serve applications begin with; a cluster's name never comes back."""
    return f"{namespace}.{cluster}."


def stamp(moment: datetime) -> str:
    """Write a time as Kubernetes does."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(moment: str) -> datetime:
    """Read a time that Kubernetes wrote."""
    return datetime.fromisoformat(moment)


def same(one: JSON, other: JSON) -> bool:
    """Whether two documents say the same: the API server spells some absent fields as null."""
    return _without_nulls(one) == _without_nulls(other)


def where(document: Document) -> tuple[str, str]:
    """Return namespace and name."""
    return namespace_of(document), name_of(document)


def _without_nulls(found: JSON) -> JSON:
    if isinstance(found, Mapping):
        return {key: _without_nulls(entry) for key, entry in found.items() if entry is not None}
    if isinstance(found, Sequence) and not isinstance(found, str):
        return [_without_nulls(entry) for entry in found]
    return found
