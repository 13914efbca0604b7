"""Policies and the endpoint's configuration: what replicas are told, by reference."""

from pydantic import Field

from drivetrain.api.canonical import digest
from drivetrain.api.meta import ApiModel
from drivetrain.api.v1alpha1.dataset import Column, Source, Target
from drivetrain.api.v1alpha1.lever import Exploration, Lever
from drivetrain.api.v1alpha1.objective import Objective
from drivetrain.api.v1alpha1.project import VersionReference
from drivetrain.api.v1alpha1.rollout import Analysis, Fallback, Monitoring


class Policy(ApiModel):
    """A way to choose actions: a model version under an objective and levers; today's policy when `model` is absent."""

    model: VersionReference | None = None
    objective: Objective
    levers: tuple[Lever, ...]
    columns: tuple[Column, ...]
    """The project's columns when the policy was made: types of request fields that the model does not name."""
    target: Target
    slices: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    """The project's sources when the policy was made: the Monitor watches their files. No part of the hash."""


def policy_hash(policy: Policy) -> str:
    """Names what is rolled out: model digest, objective and levers. 16 hex digits."""
    return digest(
        {
            "model": policy.model.digest if policy.model else None,
            "objective": policy.objective.model_dump(mode="json", by_alias=True, exclude={"description"}),
            "levers": [lever.model_dump(mode="json", by_alias=True) for lever in policy.levers],
        }
    )[:16]


class EndpointConfig(ApiModel):
    """`user_config` of Endpoint and Monitor: references and numbers, at most 16 KiB, no secrets.

    A policy named here is read from `<policies>/<hash>.json`. Replicas load every policy in `load` in the background
    and report it; `candidate` is set, with its weight, only once all replicas reported it."""

    stable: str
    """Hash of the policy that serves."""
    candidate: str | None = None
    """Hash of the policy that is rolled out."""
    baseline: str
    """Hash of today's policy, which the holdout follows."""
    load: tuple[str, ...] = Field(default=(), max_length=4)
    """Hashes to hold ready."""
    weight: int = Field(default=0, ge=0, le=99)
    """Percent of units outside the holdout that the candidate gets."""
    holdout: float = 0
    """Share of all units that follows the baseline."""
    salt: str
    """Makes assignment independent of other deployments."""
    rollout: str | None = None
    """Names the rollout whose evidence is gathered; another name starts from nothing."""
    stable_since: str | None = None
    """RFC 3339: when `stable` was promoted; drift is judged on decisions from then on."""
    exploration: Exploration = Field(default_factory=Exploration)
    fallback: Fallback = Field(default_factory=Fallback)
    analysis: Analysis = Field(default_factory=Analysis)
    monitoring: Monitoring = Field(default_factory=Monitoring)
    pinned: bool | None = None
    """True: `stable` is a named version that is served on /v2 only. Else absent, so that older images can read it."""
