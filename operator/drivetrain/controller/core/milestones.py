"""Events that tell what the loop did, read off the stored status and the next one: each is told once, none is lost.

A condition whose reason stays the same hides them: an endpoint is `Serving` before and after a promotion.
"""

from drivetrain.api.documents import Document, integer, mapping, text, value
from drivetrain.api.v1alpha1.deployment import DeploymentStatus, Variant
from drivetrain.api.v1alpha1.project import DrivetrainProjectStatus
from drivetrain.controller.core.plan import Emit


def of_deployment(owner: Document, after: DeploymentStatus) -> tuple[Emit, ...]:
    """Promotions and steps. That a rollout begins, waits or fails is told by its conditions."""
    before, found = mapping(owner, "status"), []
    stable = text(before, "stable", "hash")
    if stable and after.stable is not None and after.stable.hash != stable:
        promoted = after.stable.hash == text(before, "candidate", "hash")
        was = f"version {version}" if (version := text(before, "stable", "version")) else "today's policy"
        told = f"{_named(after.stable)} is stable now, in place of {was}."
        found.append(Emit("Normal", "Promoted" if promoted else "StableChanged", told))
    candidate = after.candidate
    if candidate is not None and candidate.hash == text(before, "candidate", "hash") and after.step is not None:
        step = value(before, "step")
        if step is not None and integer(before, "step") != after.step:
            told = f"{_named(candidate)} gets {after.weight} % of units: harm is excluded so far."
            found.append(Emit("Normal", "StepEntered", told))
    return tuple(found)


def of_project(owner: Document, after: DrivetrainProjectStatus) -> tuple[Emit, ...]:
    """Runs that were started and why, champions, and what waits for a person or for its time."""
    before, found = mapping(owner, "status"), []
    if after.runs and after.last_run != (text(before, "lastRun") or None):
        found.append(Emit("Normal", "TrainingStarted", f"{after.runs[0].name} was started: {after.runs[0].cause}."))
    was = (text(before, "champion", "version"), text(before, "champion", "digest"))
    if after.champion is not None and (after.champion.version, after.champion.digest) != was:
        found.append(
            Emit("Normal", "ChampionChanged", f"Version {after.champion.version} of run {after.champion.run}.")
        )
    waits = after.next_decision
    if waits is not None and waits.what != text(before, "nextDecision", "what"):
        if after.awaiting_approval is not None and waits.what.startswith("Approval"):
            found.append(Emit("Normal", "AwaitingApproval", waits.why))
        elif waits.what.startswith("Retraining"):
            found.append(Emit("Normal", "RetrainingHeld", f"{waits.what}. {waits.why}"))
    return tuple(found)


def _named(variant: Variant) -> str:
    return f"Version {variant.version}" if variant.version else f"Policy {variant.hash}"
