"""What a candidate must show before its first step, while it decides beside the stable version and serves nothing.

No statistics: it is asked whether the candidate works here, on this traffic and these machines. What it is worth is
judged by the steps that follow.
"""

from drivetrain.api.report import ShadowEvidence
from drivetrain.api.v1alpha1.rollout import Shadow


def fault(seen: ShadowEvidence, shadow: Shadow, latency_ms: int) -> str:
    """What is wrong with the candidate; empty where nothing is known to be."""
    if seen.failed:
        return f"Its model failed on {seen.failed} of {seen.decisions} decisions: {seen.message}"
    if seen.not_finite:
        return f"On {seen.not_finite} of {seen.decisions} decisions no action had a finite value."
    if not is_enough(seen, shadow):
        return ""
    own, stable = seen.fallbacks / seen.decisions, seen.fallbacks_stable / seen.decisions
    if own - stable > shadow.fallback_tolerance:
        return (
            f"Its fallback would have answered {own:.1%} of {seen.decisions} decisions, that of the stable version "
            f"answered {stable:.1%}; the tolerance is {shadow.fallback_tolerance:.1%}."
        )
    if seen.milliseconds > latency_ms:
        return f"It took {seen.milliseconds:.3g} ms for a decision, where {latency_ms} ms are allowed."
    return ""


def is_enough(seen: ShadowEvidence, shadow: Shadow) -> bool:
    """Whether it decided as often as is asked for."""
    return seen.decisions >= shadow.min_decisions


def told(seen: ShadowEvidence | None, shadow: Shadow) -> str:
    """How far it is, in words."""
    if seen is None or not seen.decisions:
        return f"It has made none of {shadow.min_decisions} decisions yet."
    return (
        f"{seen.decisions} of {shadow.min_decisions} decisions, {seen.milliseconds:.3g} ms each, "
        f"{seen.fallbacks / seen.decisions:.1%} of them by its fallback."
    )
