"""Whose the objects are that a plan writes: what is somebody else's is not written over, and the owner says so."""

from collections.abc import Callable
from dataclasses import replace

from drivetrain.api.documents import Document, documents, labels_of, name_of, text, uid_of, value
from drivetrain.api.kinds import Ref
from drivetrain.api.names import MANAGED_BY, MANAGED_BY_LABEL
from drivetrain.controller.core.conditions import Fact, is_inherited
from drivetrain.controller.core.plan import LATE, RETRY, Apply, Observed, Plan


def only_own(plan: Plan, observed: Observed, stalled: Callable[[Fact], Plan], *records: Ref) -> Plan:
    """The plan where all children that it writes, and the owner's records, are the owner's or not there yet.

    Else what `stalled` makes of the reason. What the plan states no controller of was made by others, such as the
    RayClusters of KubeRay, and is changed all the same.
    """
    stated = [each.ref for each in (plan.ledger, *plan.effects) if isinstance(each, Apply) and _controller(each.object)]
    for ref in (*records, *stated):
        live = observed.live.get(ref)
        if live is None or _belongs(live, observed.owner):
            continue
        if is_inherited(observed.owner, live):
            return Plan(wake_after=LATE)
        return replace(stalled(_taken(live, observed.owner)), wake_after=RETRY)
    return plan


def _belongs(live: Document, owner: Document) -> bool:
    """Its controller says so; one that has none and that we made is an orphan, which a namesake of its owner adopts."""
    controller = _controller(live)
    if controller is not None:
        return text(controller, "uid") == uid_of(owner)
    return labels_of(live).get(MANAGED_BY_LABEL) == MANAGED_BY


def _controller(document: Document) -> Document | None:
    owners = documents(document, "metadata", "ownerReferences")
    return next((each for each in owners if value(each, "controller") is True), None)


def _taken(live: Document, owner: Document) -> Fact:
    controller, kind = _controller(live), text(owner, "kind")
    whose = f"{text(controller, 'kind')} {text(controller, 'name')}" if controller else f"nothing that this {kind} made"
    return Fact(
        "NameTaken",
        f"{text(live, 'kind')} {name_of(live)} exists already and belongs to {whose}; it was left as it is, and "
        f"nothing else was written. Delete it, or give this {kind} another name.",
    )
