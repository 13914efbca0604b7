"""Whether Kueue has quota for what is asked. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from drivetrain.api.documents import Document, documents, integer, name_of, text
from drivetrain.cli.asks import GPU, LEVELS, Ask, Judgement, Level, quantity, shown, worst


def quota(ask: Ask, queue: Document, pool: Document, cohort: Sequence[Document] = ()) -> tuple[Judgement, ...]:
    """Whether a ClusterQueue admits the ask, resource by resource.

    `cohort` are all ClusterQueues of its cohort, itself included, where they can be read. Quotas that a Cohort object
    has of its own are not counted.
    """
    name = name_of(queue)
    stopped = _stopped(queue) or _stopped(pool)
    if stopped:
        return (Judgement("never", f"queue {name}: {stopped}"),)
    found: list[Judgement] = []
    groups = documents(pool, "spec", "resourceGroups")
    for resource in sorted(ask.total):
        if not any(resource in _covered(group) for group in groups):
            told = f"queue {name}: ClusterQueue {name_of(pool)} does not cover {resource}, so it never admits this"
            found.append(Judgement("never", f"{told}; it must cover cpu, memory and, for GPUs, {GPU}"))
    for group in groups:
        needed = {resource: amount for resource, amount in ask.total.items() if resource in _covered(group)}
        if needed:
            flavors = (_Flavor(name, pool, text(each, "name"), cohort) for each in documents(group, "flavors"))
            options = [flavor.judged(needed) for flavor in flavors]
            best = min(options, key=lambda option: LEVELS.index(worst(each.level for each in option)), default=())
            found += best
    pending = integer(pool, "status", "pendingWorkloads")
    if pending and worst(each.level for each in found) != "never":
        found.append(
            Judgement("waits", f"queue {name}: {pending} workloads wait in ClusterQueue {name_of(pool)} already")
        )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Flavor:
    """One flavor of a ClusterQueue, and the queues that share it."""

    queue: str
    pool: Document
    name: str
    cohort: Sequence[Document]

    def judged(self, needed: Mapping[str, Decimal]) -> tuple[Judgement, ...]:
        return tuple(_one(self, resource, wanted) for resource, wanted in sorted(needed.items()))


def _one(flavor_: _Flavor, resource: str, wanted: Decimal) -> Judgement:
    queue, pool, flavor, cohort = flavor_.queue, flavor_.pool, flavor_.name, flavor_.cohort
    own, limit = _nominal(pool, flavor, resource)
    used = _reserved(pool, flavor, resource)
    most, free = own, own - used
    named = cohort_of(pool)
    lends = ""
    if named and limit != 0:
        shared = sum((_nominal(each, flavor, resource)[0] for each in cohort), Decimal())
        in_use = sum((_reserved(each, flavor, resource) for each in cohort), Decimal())
        reach = own + limit if limit is not None else shared
        most, free = min(reach, shared), min(reach - used, shared - in_use)
        lends = f", borrowing from cohort {named} included"
        if not cohort:
            level: Level = "fits" if wanted <= own - used else "unknown"
            told = (
                f"{shown(resource, own - used)} of its own quota are free, and what cohort {named} lends is not known"
            )
            return Judgement(level, f"queue {queue}: {shown(resource, wanted)} {resource} asked, {told}")
    asked = f"queue {queue}: {shown(resource, wanted)} {resource} asked"
    if wanted > most:
        return Judgement("never", f"{asked}, it can never give more than {shown(resource, most)}{lends}")
    state = f"{shown(resource, most - max(free, Decimal()))} of {shown(resource, most)} in use{lends}"
    if wanted > free:
        return Judgement("waits", f"{asked}, {shown(resource, wanted - max(free, Decimal()))} more needed: {state}")
    return Judgement("fits", f"{asked}, {state}")


def cohort_of(pool: Document) -> str:
    """The cohort of a ClusterQueue, by the field of either API version; empty without one."""
    return text(pool, "spec", "cohortName") or text(pool, "spec", "cohort")


def _covered(group: Document) -> tuple[str, ...]:
    found = group.get("coveredResources")
    return tuple(str(each) for each in found) if isinstance(found, Sequence) and not isinstance(found, str) else ()


def _nominal(pool: Document, flavor: str, resource: str) -> tuple[Decimal, Decimal | None]:
    """Nominal quota and borrowing limit, None where it is open."""
    for group in documents(pool, "spec", "resourceGroups"):
        for each in documents(group, "flavors"):
            for entry in documents(each, "resources") if text(each, "name") == flavor else ():
                if text(entry, "name") == resource:
                    limit = entry.get("borrowingLimit")
                    return quantity(entry.get("nominalQuota")), None if limit is None else quantity(limit)
    return Decimal(), Decimal()


def _reserved(pool: Document, flavor: str, resource: str) -> Decimal:
    for each in documents(pool, "status", "flavorsReservation"):
        for entry in documents(each, "resources") if text(each, "name") == flavor else ():
            if text(entry, "name") == resource:
                return quantity(entry.get("total"))
    return Decimal()


def _stopped(queue: Document) -> str:
    """Why a queue admits nothing, empty if it may."""
    policy = text(queue, "spec", "stopPolicy")
    if policy in ("Hold", "HoldAndDrain"):
        return f"{text(queue, 'kind')} {name_of(queue)} is stopped ({policy})"
    for each in documents(queue, "status", "conditions"):
        if (text(each, "type"), text(each, "status")) == ("Active", "False"):
            return f"{text(queue, 'kind')} {name_of(queue)} is not active: {text(each, 'message')}"
    return ""
