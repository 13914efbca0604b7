"""What a candidate does beside the stable version while it gets no traffic."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from drivetrain.api.report import ShadowEvidence
from drivetrain.levers.grid import Booleans, Integers
from drivetrain.serving.scoring import MODEL_FAILED, NOT_FINITE, ArmScore


@dataclass(frozen=True, slots=True)
class Shadowed:
    """Sums over the decisions that it was asked for; rows that lack a field only it needs are left out."""

    decisions: int = 0
    failed: int = 0
    """Of these: its model raised an error."""
    not_finite: int = 0
    """Of these: no action had a finite value."""
    fallbacks: int = 0
    """Of these: its fallback would have answered, for these or any other reason."""
    fallbacks_stable: int = 0
    """Of the same decisions: the stable version's fallback did answer."""
    seconds: float = 0.0
    """What it took, all together."""
    message: str = ""
    """The error that its model raised, one of them."""

    def __add__(self, other: "Shadowed") -> "Shadowed":
        return Shadowed(
            self.decisions + other.decisions,
            self.failed + other.failed,
            self.not_finite + other.not_finite,
            self.fallbacks + other.fallbacks,
            self.fallbacks_stable + other.fallbacks_stable,
            self.seconds + other.seconds,
            self.message or other.message,
        )


def shadowed(
    stable: ArmScore, candidate: ArmScore, kind: Integers, complete: Booleans, *, seconds: float, message: str
) -> Shadowed:
    """What one batch adds; `kind` is the context of each row, `complete` the rows that the candidate may answer."""
    of_candidate, of_stable = candidate.fallback[kind][complete], stable.fallback[kind][complete]
    return Shadowed(
        decisions=int(complete.sum()),
        failed=int(np.sum(of_candidate == MODEL_FAILED)),
        not_finite=int(np.sum(of_candidate == NOT_FINITE)),
        fallbacks=int(np.sum(of_candidate != "")),
        fallbacks_stable=int(np.sum(of_stable != "")),
        seconds=seconds,
        message=message,
    )


def shadow_evidence(parts: Iterable[Shadowed]) -> ShadowEvidence:
    """What all replicas saw together, as it is reported."""
    total = sum(parts, Shadowed())
    return ShadowEvidence(
        decisions=total.decisions,
        failed=total.failed,
        not_finite=total.not_finite,
        fallbacks=total.fallbacks,
        fallbacks_stable=total.fallbacks_stable,
        milliseconds=1000 * total.seconds / total.decisions if total.decisions else 0.0,
        message=total.message[:1024],
    )
