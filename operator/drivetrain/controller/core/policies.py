"""What a model version becomes under a project's objective and levers."""

from drivetrain.api.policy import Policy
from drivetrain.api.v1alpha1.project import DrivetrainProject, VersionReference


def policy_of(project: DrivetrainProject, model: VersionReference | None) -> Policy:
    """The policy that this model makes under the project's objective and levers; without one, today's policy."""
    spec = project.spec
    return Policy(
        model=model,
        objective=spec.objective,
        levers=spec.levers,
        columns=spec.data.columns,
        target=spec.data.target,
        slices=spec.data.slices,
        sources=spec.data.sources,
    )
