"""What a model version becomes under a project's objective and levers."""

from typing import Protocol

from drivetrain.api.ledger import DeploymentLedger
from drivetrain.api.policy import Policy
from drivetrain.api.v1alpha1.project import DrivetrainProject, VersionReference


class Versioned(Protocol):
    """What tells of a model version."""

    @property
    def version(self) -> str | None:
        """Its number in the registry."""

    @property
    def digest(self) -> str | None:
        """SHA-256 of its graph; None where an earlier operator wrote the record."""


def same_version(one: Versioned | None, other: Versioned | None) -> bool:
    """Whether both tell of the same version: by number and digest, since another MLflow counts from 1 again."""
    if one is None or other is None or one.version is None or one.version != other.version:
        return False
    return one.digest is None or other.digest is None or one.digest == other.digest


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


def stable_policy(ledger: DeploymentLedger) -> Policy | None:
    """The policy that serves as stable; None before there is one."""
    return ledger.policies.get(ledger.stable.hash) if ledger.stable else None


def champion_of(ledger: DeploymentLedger) -> VersionReference | None:
    """The version that serves as stable; None where today's policy does."""
    policy = stable_policy(ledger)
    return policy.model if policy else None


def champion_version(ledger: DeploymentLedger) -> str | None:
    """Its number in the registry."""
    champion = champion_of(ledger)
    return champion.version if champion else None
