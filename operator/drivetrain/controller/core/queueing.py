"""What Kueue says about a run's Workload, in plain words."""

from collections.abc import Mapping
from dataclasses import dataclass

from drivetrain.api.documents import Document, documents, text

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
    "ClusterQueueStopped": "The ClusterQueue was stopped.",
    "LocalQueueStopped": "The LocalQueue was stopped.",
    "NodeFailures": "Nodes failed under it.",
}


@dataclass(frozen=True, slots=True)
class Quota:
    """Whether the work may run, and why not."""

    reserved: bool
    reason: str
    message: str


NOT_SEEN = Quota(False, "WaitingForKueue", "Kueue has not seen the RayJob yet.")
NOT_QUEUED = Quota(True, "NotQueued", "The run names no queue.")


def quota(workload: Document | None) -> Quota:
    """Read a Workload: known reasons in plain words with Kueue's own beside them, unknown ones verbatim."""
    if workload is None:
        return NOT_SEEN
    found = {text(each, "type"): each for each in documents(workload, "status", "conditions")}
    reserved, evicted = found.get("QuotaReserved", {}), found.get("Evicted", {})
    if text(reserved, "status") == "True" and text(evicted, "status") != "True":
        return Quota(True, "QuotaReserved", text(reserved, "message"))
    told = evicted if text(evicted, "status") == "True" else reserved
    reason = text(told, "reason") or "PendingEvaluation"
    words = " ".join(part for part in (WORDS.get(reason, ""), text(told, "message")) if part)
    return Quota(False, reason, words or reason)
