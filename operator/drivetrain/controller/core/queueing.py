"""What Kueue says about a run's Workload, in plain words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation

from drivetrain.api.documents import Document, documents, integer, mapping, name_of, text, value
from drivetrain.controller.core.conditions import moment
from drivetrain.controller.manifests.quantities import amount

WORDS: Mapping[str, str] = {
    "Pending": "Waiting for quota.",
    "WaitingForQuota": "Waiting for quota: the pool is fully used.",
    "NoMatchingFlavor": "No resource flavor of the queue fits: check nodeSelector and tolerations.",
    "ExceedsMaxQuota": "Asks for more than the queue can ever give: ask for less or raise the quota.",
    "TopologyPlacementFailed": "No set of nodes fits the requested topology.",
    "WaitingForPreemptedWorkloads": "Waiting for preempted work to leave.",
    "Misconfigured": "The queue is misconfigured: ask who runs the pool.",
    "Suspended": "The queue is stopped.",
    "PendingEvaluation": "Kueue has not looked at it yet.",
    "WaitingForPodsReady": "Waiting for other admitted work to become ready.",
    "Inadmissible": "The queue cannot admit it: check that LocalQueue and ClusterQueue exist and are active.",
    "Preempted": "Preempted by work of higher priority; starts again when there is quota.",
    "PodsReadyTimeout": "Its Pods did not become ready in time; Kueue queues it again.",
    "AdmissionCheck": "An admission check turned it away.",
    "ClusterQueueStopped": "The ClusterQueue was stopped; starts again when it is resumed.",
    "LocalQueueStopped": "The LocalQueue was stopped; starts again when it is resumed.",
    "NodeFailures": "Nodes failed under it.",
}
_LACKING = re.compile(r"insufficient unused quota for (\S+?)(?: in flavor (\S+?))?, (\S+) more needed")
_TOO_MUCH = re.compile(r"insufficient quota for (\S+?)(?: in flavor \S+?)?,[^;]*?maximum capacity \(([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Quota:
    """Whether the work may run, and why not."""

    reserved: bool
    reason: str
    message: str
    since: datetime | None = None
    """Admitted: since when."""
    ended: datetime | None = None
    """When it was evicted, or when all was done."""


@dataclass(frozen=True, slots=True)
class Line:
    """Where a Workload stands in its line, as far as the operator may read it."""

    queue: str
    pending: Document | None = None
    """Kueue's summary of what waits in the LocalQueue."""
    pool: Document | None = None
    """The ClusterQueue."""

    def place(self, workload: Document) -> str:
        """Its position, counted from 1, empty where that is not known."""
        for each in documents(self.pending or {}, "items"):
            if text(each, "metadata", "name") == name_of(workload):
                own, whole = integer(each, "positionInLocalQueue"), integer(each, "positionInClusterQueue")
                ahead = "" if own == whole else f" and {whole + 1} in the whole pool"
                return f"position {own + 1} in its queue{ahead}"
        return ""

    def use(self, resource: str, flavor: str) -> str:
        """How much of a resource is in use, empty where that is not known."""
        nominal = _found(mapping(self.pool or {}, "spec"), ("resourceGroups", "flavors"), flavor, resource)
        used = _found(mapping(self.pool or {}, "status"), ("flavorsReservation",), flavor, resource)
        total, taken = _quantity(nominal, "nominalQuota"), _quantity(used, "total")
        if not total or not taken:
            return ""
        if cohort := text(self.pool or {}, "spec", "cohortName"):  # what other queues of it lend and use is not read
            return f"{taken} of its own {total} in use, shared with cohort {cohort}"
        return f"{taken} of {total} in use"


NOT_SEEN = Quota(False, "WaitingForKueue", "Kueue has not seen the RayJob yet.")
NOT_QUEUED = Quota(True, "NotQueued", "The run names no queue.")


def quota(workload: Document | None, line: Line) -> Quota:
    """Read a Workload: known reasons in plain words with Kueue's own beside them, unknown ones verbatim."""
    if workload is None:
        return NOT_SEEN
    found = {text(each, "type"): each for each in documents(workload, "status", "conditions")}
    reserved, admitted, evicted = (found.get(type_, {}) for type_ in ("QuotaReserved", "Admitted", "Evicted"))
    is_evicted = text(evicted, "status") == "True"
    finished = found.get("Finished", {})
    if text(finished, "status") == "True":  # Kueue takes the other two back with the quota
        done = _since(finished)
        return Quota(True, "Finished", text(finished, "message"), done, done)
    if text(reserved, "status") == "True" and not is_evicted:
        checks = documents(workload, "status", "admissionChecks")
        if checks and text(admitted, "status") != "True":
            waits = ", ".join(text(each, "name") for each in checks if text(each, "state") != "Ready")
            return Quota(False, "AdmissionChecks", f"Quota is reserved; waits for admission checks: {waits}.")
        return Quota(True, "QuotaReserved", text(reserved, "message"), _since(admitted) or _since(reserved))
    why = _waits(workload, line, text(reserved, "message"))
    told = evicted if is_evicted else reserved
    reason = text(told, "reason") or "PendingEvaluation"
    words = [WORDS.get(reason, "")] if is_evicted or not why else []
    words.append(why or text(told, "message"))
    message = " ".join(part for part in words if part)
    return Quota(False, reason, message or reason, ended=_since(evicted) if is_evicted else None)


def _waits(workload: Document, line: Line, message: str) -> str:
    """What it waits for in one line, where Kueue's message says what is lacking; else empty."""
    place = line.place(workload)
    if too_much := _TOO_MUCH.search(message):
        resource, most = too_much.groups()
        asked = f"asks for {_asked(workload, resource)} {resource}"
        return f"{asked}, and queue {line.queue} can never give more than {most}: ask for less or raise the quota."
    parts = []
    for resource, (flavor, lacking) in _lacking(message).items():
        use = line.use(resource, flavor)
        told = f"{lacking} more needed" + (f", {use}" if use else "")
        parts.append(f"waits for {_asked(workload, resource)} {resource} in queue {line.queue}: {told}")
    if not parts:
        return f"{message} ({place})" if message and place else ""
    return ", ".join(part for part in ("; ".join(parts), place) if part)


def _lacking(message: str) -> dict[str, tuple[str, str]]:
    """Resource to the flavor that comes nearest and how much of it is lacking."""
    found: dict[str, tuple[str, str]] = {}
    for resource, flavor, lacking in _LACKING.findall(message):
        if resource not in found or _number(lacking) < _number(found[resource][1]):
            found[resource] = (flavor, lacking)
    return found


def _asked(workload: Document, resource: str) -> str:
    """How much of a resource all Pods of the Workload ask for together."""
    total = Decimal()
    for pods in documents(workload, "spec", "podSets"):
        for container in documents(pods, "template", "spec", "containers"):
            asked = value(container, "resources", "requests", resource)
            total += integer(pods, "count") * _number(str(asked)) if asked is not None else 0
    if resource == "memory":
        return f"{total / 1024**3:.4g}Gi"
    return f"{total.normalize():f}"


def _number(quantity: str) -> Decimal:
    """What a quantity of Kueue's stands for; nothing where it is written in a way that we never write."""
    try:
        return amount(quantity)
    except InvalidOperation:
        return Decimal()


def _found(part: Document, path: tuple[str, ...], flavor: str, resource: str) -> Document:
    """The entry of a resource in a flavor, below lists named by `path`."""
    if len(path) > 1:
        entries = [_found(each, path[1:], flavor, resource) for each in documents(part, path[0])]
        return next((each for each in entries if each), {})
    for each in documents(part, path[0]):
        for entry in documents(each, "resources"):
            if (text(each, "name"), text(entry, "name")) == (flavor, resource):
                return entry
    return {}


def _quantity(entry: Document, field: str) -> str:
    found = value(entry, field)
    return "" if found is None else str(found)


def _since(condition: Document) -> datetime | None:
    return moment(text(condition, "lastTransitionTime"))
