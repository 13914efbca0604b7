"""The shell around a decision: observe, decide, apply."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar, assert_never

from drivetrain.api.documents import JSON, Document, documents, name_of, namespace_of, resource_version_of, text, uid_of
from drivetrain.api.errors import ClusterError
from drivetrain.api.kinds import Kind, Ref
from drivetrain.controller.cluster.port import ABSENT, FIELD_MANAGER, Cluster, Precondition
from drivetrain.controller.core.difference import needs_write
from drivetrain.controller.core.plan import Apply, Delete, Emit, Observed, Plan
from drivetrain.controller.core.refusals import stalled_by

O = TypeVar("O", bound=Observed)  # noqa: E741 - an observation


class Controller(Protocol[O]):
    """One kind of resource and how it is run."""

    @property
    def kind(self) -> Kind:
        """The kind whose objects are decided about."""

    @property
    def watched(self) -> tuple[Kind, ...]:
        """The kinds whose changes may matter for a decision."""

    async def observe(self, cluster: Cluster, ref: Ref) -> O | None:
        """Read the object and everything a decision about it needs; None if it does not exist."""

    def decide(self, observed: O, now: datetime) -> Plan:
        """Return what to do: synchronous, total, pure."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a reconcile left behind."""

    wake_after: timedelta | None = None
    conditions: Mapping[str, tuple[str, str]] | None = None
    """Type to status and reason; None: the object does not exist."""
    owner: Document | None = None
    """The object with the status that is stored now."""


async def reconcile(controller: Controller[O], cluster: Cluster, ref: Ref, now: datetime, identity: str) -> Reconciled:
    """Observe, decide, apply, once.

    Raises:
        ClusterError: the API is in trouble, or the world changed on the way; try again with a new observation.
    """
    observed = await controller.observe(cluster, ref)
    if observed is None:
        return Reconciled()
    plan = controller.decide(observed, now)
    owner = await carry_out(plan, observed, cluster, now, identity)
    found = documents(owner, "status", "conditions")
    conditions = {text(each, "type"): (text(each, "status"), text(each, "reason")) for each in found}
    return Reconciled(plan.wake_after, conditions, owner)


async def carry_out(plan: Plan, observed: Observed, cluster: Cluster, now: datetime, identity: str) -> Document:
    """Write what the plan asks for and the cluster does not have yet; return the owner that is stored then.

    The order is what makes a crash after any write harmless: the ledger first, because it holds what cannot be
    observed again; the effects, each safe to run twice; the status, a view of both; events last. If the API server
    refuses a child, the status tells so, and the error is raised all the same: nothing wakes us when that changes.
    """
    status = _status_of(observed.owner) if plan.status is None else plan.status
    try:
        await _write_children(plan, observed, cluster)
    except ClusterError as error:
        told = stalled_by(error, status, observed.owner, now)
        if told is not None:
            await _write_status(told, observed.owner, cluster)
        raise
    stored = await _write_status(status, observed.owner, cluster) if plan.status is not None else None
    if stored is not None:
        for effect in plan.effects:
            if isinstance(effect, Emit):
                await cluster.create_event(event_document(effect, stored, now, identity))
    return observed.owner if stored is None else stored


async def _write_children(plan: Plan, observed: Observed, cluster: Cluster) -> None:
    if plan.ledger is not None:
        await _apply(plan.ledger, observed, cluster)
    for effect in plan.effects:
        match effect:
            case Apply():
                await _apply(effect, observed, cluster)
            case Delete():
                await _delete(effect, observed, cluster)
            case Emit():
                pass  # told once the status is written
            case _:
                assert_never(effect)


async def _write_status(status: Document, owner: Document, cluster: Cluster) -> Document | None:
    """Write the status onto the owner as it was read; return the stored owner, or None if nothing had to change."""
    intent: Document = {**_identity(owner), "status": status}
    if not needs_write(owner, intent, manager=FIELD_MANAGER, subresource="status"):
        return None
    return await cluster.apply_status(intent, expected=Precondition.of(owner))


async def _apply(effect: Apply, observed: Observed, cluster: Cluster) -> None:
    live = observed.live.get(effect.ref)
    if live is None:
        await cluster.apply(effect.object, expected=ABSENT)
    elif needs_write(live, effect.object, manager=FIELD_MANAGER):
        await cluster.apply(effect.object, expected=Precondition.of(live))


async def _delete(effect: Delete, observed: Observed, cluster: Cluster) -> None:
    live = observed.live.get(effect.ref)
    if live is not None and uid_of(live) == effect.uid:
        if text(live, "metadata", "deletionTimestamp"):
            return  # asked for already; what keeps it is not ours
        await cluster.delete(effect.ref, expected=Precondition.of(live))
    else:
        await cluster.delete(effect.ref, expected=Precondition(uid=effect.uid))


def event_document(effect: Emit, owner: Document, now: datetime, identity: str) -> Document:
    """Return the Event about this version of the owner; its name makes sending it twice harmless."""
    version = resource_version_of(owner)
    content = "\n".join((uid_of(owner), version, effect.type, effect.reason, effect.message))
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{name_of(owner)}.{digest}", "namespace": namespace_of(owner)},
        "eventTime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": "drivetrain.dev/operator",
        "reportingInstance": identity[:128],
        "action": "Reconcile",
        "reason": effect.reason,
        "type": effect.type,
        "note": effect.message[:1024],
        "regarding": {
            **{key: owner[key] for key in ("apiVersion", "kind")},
            "name": name_of(owner),
            "namespace": namespace_of(owner),
            "uid": uid_of(owner),
            "resourceVersion": version,
        },
    }


def _identity(owner: Document) -> dict[str, JSON]:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "metadata": {"name": name_of(owner), "namespace": namespace_of(owner)},
    }


def _status_of(owner: Document) -> Document:
    status = owner.get("status")
    return status if isinstance(status, Mapping) else {}
