"""Cluster revisions of a Deployment: which RayService serves, which is being made ready, and when clients move."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from drivetrain.api.documents import JSON, Document, mapping
from drivetrain.api.ledger import DeploymentLedger
from drivetrain.controller.core.records import is_true, service_of

PENDING_WITHIN = timedelta(minutes=30)
"""How long a cluster may take to become ready."""
DRAIN = timedelta(minutes=1)
"""How long the old cluster stays after clients were moved: until every node has seen the Service change."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """The RayServices of a Deployment, and the revision that its spec asks for."""

    desired: str
    services: tuple[Document, ...]

    def ready(self, revision: str | None) -> bool:
        """Whether the RayService of this revision answers."""
        return is_true(service_of(revision, self.services), "Ready")


def revised(ledger: DeploymentLedger, clusters: Clusters, now: datetime) -> DeploymentLedger:
    """The ledger after one look at the clusters. The rules, in order:

    1. a pending revision that is no longer asked for is dropped;
    2. the pending one becomes the current one when it is ready;
    3. one that is not ready in time is given up, if another serves;
    4. a new revision is begun when there is none, or when no rollout is open;
    5. one that was given up is tried again once another was asked for in between.
    """
    if ledger.failed_revision not in (None, clusters.desired):
        ledger = ledger.model_copy(update={"failed_revision": None})
    current = ledger.revision
    if current is not None and current != clusters.desired and service_of(current, clusters.services) is None:
        current, ledger = None, ledger.model_copy(update={"revision": None})  # nothing serves that could be kept
    if ledger.pending_revision is not None and ledger.pending_revision != clusters.desired:
        return ledger.model_copy(update={"pending_revision": None, "pending_since": None})
    if ledger.pending_revision is not None:
        if clusters.ready(ledger.pending_revision):
            return ledger.model_copy(
                update={
                    "revision": ledger.pending_revision,
                    "pending_revision": None,
                    "pending_since": None,
                    "switched_at": now,
                }
            )
        if current is not None and is_overdue(ledger, now):
            return ledger.model_copy(
                update={"failed_revision": clusters.desired, "pending_revision": None, "pending_since": None}
            )
        return ledger
    begins = current is None or (
        current != clusters.desired and ledger.candidate is None and ledger.failed_revision != clusters.desired
    )
    return ledger.model_copy(update={"pending_revision": clusters.desired, "pending_since": now}) if begins else ledger


def is_overdue(ledger: DeploymentLedger, now: datetime) -> bool:
    """Whether the pending cluster has had its time."""
    return ledger.pending_since is not None and now >= ledger.pending_since + PENDING_WITHIN


def to_keep(ledger: DeploymentLedger, now: datetime) -> frozenset[str] | None:
    """The revisions whose RayServices stay; None: all of them, the last move is too recent."""
    if ledger.switched_at is not None and now < ledger.switched_at + DRAIN:
        return None
    return frozenset(each for each in (ledger.revision, ledger.pending_revision) if each)


def live_config(service: Document) -> Document:
    """The cluster of a RayService as it is, to be stated again where the spec has moved on and must wait.

    `suspend` is left out: it is not ours.
    """
    found: dict[str, JSON] = {
        key: part for key, part in mapping(service, "spec", "rayClusterConfig").items() if key != "suspend"
    }
    return found
