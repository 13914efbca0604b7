"""The loops of a namespace: each project with its runs and its Deployments."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from drivetrain.api.documents import Document, name_of, text
from drivetrain.api.kinds import DEPLOYMENT, DRIVETRAIN_PROJECT, TRAINING_RUN
from drivetrain.api.meta import Resource
from drivetrain.api.v1alpha1.deployment import Deployment
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.api.v1alpha1.trainingrun import TrainingRun
from drivetrain.cli.reader import Reader, missing, parsed

R = TypeVar("R", bound=Resource)
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Loop:
    """What belongs to one project. Without the project itself, what names one that is not there."""

    namespace: str
    name: str
    project: DrivetrainProject | None
    runs: tuple[TrainingRun, ...] = ()
    """Newest first."""
    deployments: tuple[Deployment, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """Objects as read, for `-o`, and the loops that they make."""

    documents: tuple[Document, ...]
    loops: tuple[Loop, ...]


def read(reader: Reader, project: str | None = None, *, everywhere: bool = False) -> Found:
    """The loop of one project, or all loops of the namespace, or of all namespaces.

    Raises DrivetrainError when a project is named that does not exist, ClusterError.
    """
    namespace = "" if everywhere else None
    projects = reader.list(DRIVETRAIN_PROJECT, namespace=namespace)
    if project is not None and project not in map(name_of, projects):
        place = "any namespace" if everywhere else f"namespace {reader.namespace}"
        raise missing(DRIVETRAIN_PROJECT, project, place, map(name_of, projects))
    others = (document for kind in (TRAINING_RUN, DEPLOYMENT) for document in reader.list(kind, namespace=namespace))
    documents = tuple(each for each in (*projects, *others) if project is None or project == project_named(each))
    return Found(documents, loops(documents))


def loops(documents: Iterable[Document]) -> tuple[Loop, ...]:
    """Our objects by the project that they belong to, in order of namespace and name."""
    found = tuple(documents)
    projects = {_key(each, each.metadata.name): each for each in _typed(found, DrivetrainProject)}
    runs, deployments = _typed(found, TrainingRun), _typed(found, Deployment)
    newest = sorted(runs, key=lambda run: run.metadata.creation_timestamp or _NEVER, reverse=True)
    keys = {
        *projects,
        *(_key(run, run.spec.project) for run in runs),
        *(_key(each, project_of(each)) for each in deployments),
    }
    return tuple(
        Loop(
            namespace=key[0],
            name=key[1],
            project=projects.get(key),
            runs=tuple(run for run in newest if _key(run, run.spec.project) == key),
            deployments=tuple(each for each in deployments if _key(each, project_of(each)) == key),
        )
        for key in sorted(keys)
    )


def project_of(deployment: Deployment) -> str:
    """The project that a Deployment serves, or that its pinned model belongs to."""
    return deployment.spec.project or (deployment.spec.model.name if deployment.spec.model else "")


def project_named(document: Document) -> str:
    """The project that an object of ours is, trains for or serves."""
    if document.get("kind") == DRIVETRAIN_PROJECT.kind:
        return name_of(document)
    return text(document, "spec", "project") or text(document, "spec", "model", "name")


def _typed(documents: Sequence[Document], model: type[R]) -> tuple[R, ...]:
    return tuple(parsed(model, each) for each in documents if each.get("kind") == model.__name__)


def _key(resource: Resource, project: str) -> tuple[str, str]:
    return resource.metadata.namespace, project
