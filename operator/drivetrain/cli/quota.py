"""Whether Kueue has quota for what is asked. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product

from drivetrain.api.documents import Document, documents, integer, name_of, text, value
from drivetrain.cli.asks import GPU, LEVELS, Ask, Judgement, Level, described, quantity, shown, worst
from drivetrain.controller.core.records import is_true


def quota(
    ask: Ask, queue: Document, pool: Document, cohort: Sequence[Document] = (), own: Sequence[Document] = ()
) -> tuple[Judgement, ...]:
    """Whether a ClusterQueue admits the ask, resource by resource.

    `cohort` are all ClusterQueues of its cohort, itself included, where they can be read. Quotas that a Cohort object
    has of its own are not counted. `own` are the Workloads of the one who asks: what they hold is there for it.
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
        covered = set(_covered(group)) & ask.total.keys()
        flavors = [text(each, "name") for each in documents(group, "flavors")]
        rooms = {each: {resource: _room(pool, each, resource, cohort, own) for resource in covered} for each in flavors}
        pods = {
            pod.name: {each: pod.count * pod.amounts[each] for each in covered & pod.amounts.keys()} for pod in ask.pods
        }
        found += _Group(f"queue {name}", rooms, {each: asked for each, asked in pods.items() if asked}).judged()
    pending = integer(pool, "status", "pendingWorkloads") - sum(map(_is_pending, own))
    if pending > 0 and worst(each.level for each in found) != "never":
        found.append(
            Judgement("waits", f"queue {name}: {pending} workloads wait in ClusterQueue {name_of(pool)} already")
        )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Room:
    """What there is of one resource in one flavor."""

    most: Decimal | None
    """What it can ever give; None where it may borrow, and from whom is not known."""
    free: Decimal
    cohort: str = ""
    """Whose quotas are counted with its own."""

    def level(self, wanted: Decimal) -> Level:
        """Whether that much is there."""
        if wanted <= self.free:
            return "fits"
        if self.most is None:
            return "unknown"
        return "never" if wanted > self.most else "waits"

    @property
    def lends(self) -> str:
        """In words, from whom it may borrow."""
        return f", borrowing from cohort {self.cohort} included" if self.cohort else ""

    def told(self, resource: str, wanted: Decimal) -> str:
        """In words, whether that much is there."""
        if self.most is None:
            own = f"{shown(resource, self.free)} of its own quota are free"
            return f"{own}, and what cohort {self.cohort} lends is not known"
        free = max(self.free, Decimal())
        state = f"{shown(resource, self.most - free)} of {shown(resource, self.most)} in use{self.lends}"
        return f"{shown(resource, wanted - free)} more needed: {state}" if wanted > self.free else state


@dataclass(frozen=True, slots=True)
class _Group:
    """One resource group before an ask: equal Pods get one flavor of it together, others may get another."""

    queue: str
    rooms: Mapping[str, Mapping[str, _Room]]
    """Flavor to resource to what there is."""
    pods: Mapping[str, Mapping[str, Decimal]]
    """Name of equal Pods to resource to what they ask for together."""

    def judged(self) -> tuple[Judgement, ...]:
        """The verdict on the best choice of flavors, the first of equal ones.

        Kueue takes the first flavor with room for the head, then for the workers; where none is left for these, it
        goes on with the next flavors when it looks again.
        """
        if never := tuple(self._scarce()) or tuple(self._homeless()):
            return tuple(Judgement("never", f"{self.queue}: {told}") for told in never)
        choices = product(*map(self._possible, self.pods.values()))
        best = min(map(self._together, choices), key=lambda wanted: LEVELS.index(self._level(wanted)))
        if self._level(best) == "never":
            return (Judgement("never", f"{self.queue}: no choice of its flavors can ever hold all Pods together"),)
        return tuple(
            Judgement(
                self.rooms[flavor][resource].level(amount),
                f"{self.queue}: {shown(resource, amount)} {resource} asked"
                + (f" of flavor {flavor}" if len(self.rooms) > 1 else "")
                + f", {self.rooms[flavor][resource].told(resource, amount)}",
            )
            for (resource, flavor), amount in sorted(best.items())
        )

    def _scarce(self) -> Iterator[str]:
        """Resources of which all flavors together can never give enough."""
        for resource in sorted({resource for amounts in self.pods.values() for resource in amounts}):
            wanted = sum((amounts.get(resource, Decimal()) for amounts in self.pods.values()), Decimal())
            found = [room[resource] for room in self.rooms.values()]
            most = sum((room.most for room in found if room.most is not None), Decimal())
            if wanted > most and all(room.most is not None for room in found):
                lends = max((room.lends for room in found), default="")
                asked = f"{shown(resource, wanted)} {resource} asked"
                yield f"{asked}, it can never give more than {shown(resource, most)}{lends}"

    def _homeless(self) -> Iterator[str]:
        """Equal Pods that no flavor can ever hold."""
        for pods, asked in self.pods.items():
            if not self._possible(asked):
                yield f"the {pods} Pods ask for {described(asked)} together, and no flavor can ever give that"

    def _possible(self, asked: Mapping[str, Decimal]) -> tuple[str, ...]:
        """The flavors that can ever hold equal Pods, other Pods apart."""
        return tuple(
            flavor for flavor in self.rooms if self._level({(each, flavor): asked[each] for each in asked}) != "never"
        )

    def _together(self, choice: Sequence[str]) -> dict[tuple[str, str], Decimal]:
        """What is asked of each resource of each flavor, one flavor having been chosen for each of the Pods."""
        sums: dict[tuple[str, str], Decimal] = {}
        for flavor, asked in zip(choice, self.pods.values(), strict=True):
            for resource, amount in asked.items():
                sums[resource, flavor] = sums.get((resource, flavor), Decimal()) + amount
        return sums

    def _level(self, wanted: Mapping[tuple[str, str], Decimal]) -> Level:
        return worst(self.rooms[flavor][resource].level(amount) for (resource, flavor), amount in wanted.items())


def cohort_of(pool: Document) -> str:
    """The cohort of a ClusterQueue, by the field of either API version; empty without one."""
    return text(pool, "spec", "cohortName") or text(pool, "spec", "cohort")


def _covered(group: Document) -> tuple[str, ...]:
    found = group.get("coveredResources")
    return tuple(str(each) for each in found) if isinstance(found, Sequence) and not isinstance(found, str) else ()


def _room(pool: Document, flavor: str, resource: str, cohort: Sequence[Document], holders: Sequence[Document]) -> _Room:
    """What a ClusterQueue has of a resource in a flavor, by what its cohort lends and by what `holders` give back."""
    own = _quota(pool, flavor, resource)
    held = sum((_held(each, flavor, resource) for each in holders), Decimal())
    used = max(_reserved(pool, flavor, resource) - held, Decimal())
    named = cohort_of(pool)
    if not named or own.borrows == 0:
        return _Room(own.nominal, own.nominal - used)
    if not cohort:
        return _Room(None, own.nominal - used, named)
    most, free = own.nominal, own.nominal - used
    for each in cohort:
        if name_of(each) != name_of(pool):
            other = _quota(each, flavor, resource)
            most += other.lent
            free += min(other.lent, other.nominal - _reserved(each, flavor, resource))
    if own.borrows is not None:
        most, free = min(most, own.nominal + own.borrows), min(free, own.nominal + own.borrows - used)
    return _Room(most, free, named)


@dataclass(frozen=True, slots=True)
class _Quota:
    """Quota of one resource in one flavor of a ClusterQueue; limits are None where they are open."""

    nominal: Decimal = Decimal()
    borrows: Decimal | None = Decimal()
    lends: Decimal | None = None

    @property
    def lent(self) -> Decimal:
        """What others of the cohort may use of it."""
        return self.nominal if self.lends is None else min(self.nominal, self.lends)


def _quota(pool: Document, flavor: str, resource: str) -> _Quota:
    for group in documents(pool, "spec", "resourceGroups"):
        for each in documents(group, "flavors"):
            for entry in documents(each, "resources") if text(each, "name") == flavor else ():
                if text(entry, "name") == resource:
                    limits = (entry.get("borrowingLimit"), entry.get("lendingLimit"))
                    borrows, lends = (None if limit is None else quantity(limit) for limit in limits)
                    return _Quota(quantity(entry.get("nominalQuota")), borrows, lends)
    return _Quota()


def _reserved(pool: Document, flavor: str, resource: str) -> Decimal:
    for each in documents(pool, "status", "flavorsReservation"):
        for entry in documents(each, "resources") if text(each, "name") == flavor else ():
            if text(entry, "name") == resource:
                return quantity(entry.get("total"))
    return Decimal()


def _held(workload: Document, flavor: str, resource: str) -> Decimal:
    """What a Workload has reserved."""
    pods = documents(workload, "status", "admission", "podSetAssignments")
    if not is_true(workload, "QuotaReserved"):
        return Decimal()
    given = (value(each, "resourceUsage", resource) for each in pods if text(each, "flavors", resource) == flavor)
    return sum(map(quantity, given), Decimal())


def _is_pending(workload: Document) -> bool:
    return not (is_true(workload, "QuotaReserved") or is_true(workload, "Finished"))


def _stopped(queue: Document) -> str:
    """Why a queue admits nothing, empty if it may."""
    policy = text(queue, "spec", "stopPolicy")
    if policy in ("Hold", "HoldAndDrain"):
        return f"{text(queue, 'kind')} {name_of(queue)} is stopped ({policy})"
    for each in documents(queue, "status", "conditions"):
        if (text(each, "type"), text(each, "status")) == ("Active", "False"):
            return f"{text(queue, 'kind')} {name_of(queue)} is not active: {text(each, 'message')}"
    return ""
