"""A child that the API server refuses is a state of its owner, told in a condition, not only a line in a log."""

from collections.abc import Mapping
from datetime import UTC, datetime

from drivetrain.api.documents import JSON, Document, documents, integer, text
from drivetrain.api.errors import ClusterError, ForbiddenError, RejectedError

_LONGEST_MESSAGE = 1024


def stalled_by(error: ClusterError, status: Document, owner: Document, now: datetime) -> Document | None:
    """Return the status that tells of a refusal, or None if the error is not one (trouble of the API passes).

    Stalled becomes true and Reconciling false; Ready stays what the plan says, since a stable endpoint goes on serving.
    """
    reason = _reason(error)
    if reason is None:
        return None
    stated = {text(each, "type"): each for each in documents(status, "conditions")}
    before = {text(each, "type"): each for each in documents(owner, "status", "conditions")}
    generation = integer(owner, "metadata", "generation")
    for kind, holds in (("Stalled", "True"), ("Reconciling", "False")):
        old = before.get(kind, {})
        since = text(old, "lastTransitionTime") if text(old, "status") == holds else ""
        stated[kind] = {
            "type": kind,
            "status": holds,
            "reason": reason,
            "message": str(error)[:_LONGEST_MESSAGE],
            "lastTransitionTime": since or now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "observedGeneration": generation,
        }
    conditions: list[JSON] = [stated[kind] for kind in sorted(stated)]
    told: Mapping[str, JSON] = {**status, "conditions": conditions, "observedGeneration": generation}
    return told


def _reason(error: ClusterError) -> str | None:
    if isinstance(error, RejectedError):
        return "ChildRejected"
    if isinstance(error, ForbiddenError) and error.status == 403:
        # The chart's admission policy names the label that it asks for.
        return "NamespaceNotEnabled" if "drivetrain.dev/enabled" in error.message else "ChildForbidden"
    return None
