"""What a manifest alone shows to be wrong: the same checks for `drivetrain validate` and for the operator.

Structure is checked when a resource is parsed (`Resource.parse`). These functions add what pydantic and CEL cannot
state and repeat what only CEL states, so that both together are the union of admission's verdict and the operator's.
Fields are paths as written in a manifest: `spec.levers[1].step`.
"""

from collections.abc import Iterator

from drivetrain.api.errors import Problem
from drivetrain.api.v1alpha1.deployment import DEPLOYMENT_NAME_LIMIT, Deployment
from drivetrain.api.v1alpha1.project import PROJECT_NAME_LIMIT, DrivetrainProject
from drivetrain.api.v1alpha1.trainingrun import MUTABLE_FIELDS, RUN_NAME_LIMIT, TrainingRun, TrainingRunSpec
from drivetrain.api.validation.dataset import check_dataset
from drivetrain.api.validation.levers import check_levers
from drivetrain.api.validation.names import check_name
from drivetrain.api.validation.objective import check_objective
from drivetrain.api.validation.scope import Scope
from drivetrain.api.validation.serving import check_serving
from drivetrain.api.validation.training import check_training, check_window

__all__ = ["validate_deployment", "validate_project", "validate_run"]


def validate_project(project: DrivetrainProject) -> tuple[Problem, ...]:
    """All problems of a project, in the order of its fields; none when it can be built."""
    return tuple(_project(project))


def validate_run(
    run: TrainingRun, project: DrivetrainProject | None = None, *, created: TrainingRunSpec | None = None
) -> tuple[Problem, ...]:
    """All problems of a run: beside its project where that is known, and against the spec that it was created with."""
    return tuple(_run(run, project, created))


def validate_deployment(deployment: Deployment, project: DrivetrainProject | None = None) -> tuple[Problem, ...]:
    """All problems of a Deployment, beside its project where that is known."""
    return tuple(_deployment(deployment, project))


def _project(project: DrivetrainProject) -> Iterator[Problem]:
    spec = project.spec
    scope = Scope.of(spec)
    yield from check_name(project.metadata.name, PROJECT_NAME_LIMIT, "a project's name")
    yield from check_objective(spec, scope)
    yield from check_levers(spec)
    yield from check_dataset(spec.data, scope)
    yield from check_training("spec.training", spec.training, spec)
    if spec.serving is not None:
        yield from check_serving("spec.serving", spec.serving, spec)


def _run(run: TrainingRun, project: DrivetrainProject | None, created: TrainingRunSpec | None) -> Iterator[Problem]:
    yield from check_name(run.metadata.name, RUN_NAME_LIMIT, "a run's name")
    yield from _belongs(run.spec.project, project)
    yield from check_training("spec", run.spec, project.spec if project else None)
    yield from check_window(run.spec.window)
    if created is not None:
        for name, field in TrainingRunSpec.model_fields.items():
            alias = field.alias or name
            if alias not in MUTABLE_FIELDS and getattr(run.spec, name) != getattr(created, name):
                cause = "a run's spec is immutable, except suspend, deadline and ttlAfterFinished."
                yield Problem(f"spec.{alias}", cause, "Change it back, and create another run instead.")


def _deployment(deployment: Deployment, project: DrivetrainProject | None) -> Iterator[Problem]:
    yield from check_name(deployment.metadata.name, DEPLOYMENT_NAME_LIMIT, "a Deployment's name")
    if deployment.spec.project is not None:
        yield from _belongs(deployment.spec.project, project)
    yield from check_serving("spec", deployment.spec, project.spec if project else None)


def _belongs(named: str, project: DrivetrainProject | None) -> Iterator[Problem]:
    yield from check_name(named, PROJECT_NAME_LIMIT, "a project's name", field="spec.project")
    if project is not None and project.metadata.name != named:
        yield Problem("spec.project", f"{named} is not {project.metadata.name}.", "Name the project.")
