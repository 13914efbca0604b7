"""The life of a run's attempts as changes of its ledger: pure, one function a transition.

An attempt is open from `started` until `closed`; `finished` ends the run. Quota is held from `admitted` on, until
`charged` adds up what it cost.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from drivetrain.api.documents import Document, documents, name_of, text, value
from drivetrain.api.ledger import RunLedger
from drivetrain.api.v1alpha1.project import VersionReference
from drivetrain.controller.core.conditions import clipped, moment

FORMER_CLUSTERS = 20
FAILURES = 10
LOST_AFTER = timedelta(minutes=5)
"""How long past its grace a Pod on a lost node still blocks the next attempt."""
OUTAGES = ("StoreUnavailable", "TrackingFailed")
"""What an attempt fails of that the next one, at once, would most likely fail of too."""
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(minutes=15)
MOUNTED_WITHIN = timedelta(seconds=30)
"""How long a Pod on its node may wait for its volumes and network before what it mounts is named."""
_CREATING = ("ContainerCreating", "PodInitializing")


def is_open(ledger: RunLedger) -> bool:
    """Whether an attempt is under way."""
    return ledger.attempt_started_at is not None


def used_up(ledger: RunLedger, attempts: int) -> bool:
    """Whether all counted attempts are spent."""
    return counted(ledger) >= attempts


def counted(ledger: RunLedger) -> int:
    """How many attempts are spent."""
    return ledger.attempt - ledger.uncounted


def started(ledger: RunLedger, now: datetime, *, queued: bool, part: Literal["", "p"] = "") -> RunLedger:
    """Open the next attempt; without a queue it holds what it needs at once."""
    attempt = {"attempt": ledger.attempt + 1, "incarnation": 0, "part": part}
    return _opened(ledger, now, queued=queued).model_copy(update=attempt)


def prepared(ledger: RunLedger, now: datetime, gpus: int) -> RunLedger:
    """The first part of the attempt is done: its job goes, and the one with GPUs follows."""
    return charged(ledger, now, gpus).model_copy(update={"part": "t", "attempt_started_at": None})


def is_prepared(ledger: RunLedger) -> bool:
    """Whether the attempt waits for its second part to open."""
    return ledger.part == "t" and not is_open(ledger)


def continued(ledger: RunLedger, now: datetime, *, queued: bool) -> RunLedger:
    """Open the second part; its cluster is the attempt's next incarnation."""
    return _opened(ledger, now, queued=queued)


def _opened(ledger: RunLedger, now: datetime, *, queued: bool) -> RunLedger:
    return ledger.model_copy(
        update={
            "cluster": None,
            "former_clusters": _former(ledger),
            "attempt_started_at": now,
            "next_attempt_at": None,
            "killed": "",
            "active_since": None if queued else now,
            "waiting_since": now if queued else None,
        }
    )


def admitted(ledger: RunLedger, since: datetime) -> RunLedger:
    """Quota is held, since this time."""
    if ledger.active_since is not None:
        return ledger
    # Kueue's times are whole seconds: an attempt that is admitted in the second of its start is charged from that on.
    opened = ledger.attempt_started_at.replace(microsecond=0) if ledger.attempt_started_at else since
    began = max(since, opened)
    return _waited(ledger, began).model_copy(update={"active_since": began})


def waiting(ledger: RunLedger, since: datetime, gpus: int) -> RunLedger:
    """Quota is not held, or no longer, since this time."""
    if ledger.active_since is not None:
        return charged(ledger, since, gpus).model_copy(update={"waiting_since": since})
    return ledger if ledger.waiting_since is not None else ledger.model_copy(update={"waiting_since": since})


def waited_total(ledger: RunLedger, now: datetime) -> float:
    """Seconds without quota, over all attempts."""
    return _waited(ledger, now).waited_seconds


def _waited(ledger: RunLedger, until: datetime) -> RunLedger:
    if ledger.waiting_since is None:
        return ledger
    seconds = max((until - ledger.waiting_since).total_seconds(), 0.0)
    return ledger.model_copy(update={"waited_seconds": ledger.waited_seconds + seconds, "waiting_since": None})


def charged(ledger: RunLedger, now: datetime, gpus: int) -> RunLedger:
    """Quota was given back: add up the time, and the GPUs by that time."""
    seconds = active_now(ledger, now)
    return ledger.model_copy(
        update={
            "active_seconds": ledger.active_seconds + seconds,
            "gpu_seconds": ledger.gpu_seconds + seconds * gpus,
            "active_since": None,
        }
    )


def incarnated(ledger: RunLedger, cluster: str, now: datetime, gpus: int) -> RunLedger:
    """KubeRay made another cluster for the same attempt."""
    return renewed(ledger, now, gpus).model_copy(
        update={
            "incarnation": ledger.incarnation + 1,
            "cluster": cluster,
            "former_clusters": _former(ledger),
        }
    )


def renewed(ledger: RunLedger, now: datetime, gpus: int) -> RunLedger:
    """The time until the job must run starts again where quota is held; the run's deadline does not."""
    since = now if ledger.active_since is not None else None
    return charged(ledger, now, gpus).model_copy(update={"active_since": since})


def closed(ledger: RunLedger, now: datetime, gpus: int, *, failure: str | None) -> RunLedger:
    """End the attempt. None: it was not the work's fault, and does not count."""
    ledger = _waited(charged(ledger, now, gpus), now)
    ledger = ledger.model_copy(update={"attempt_started_at": None, "part": ""})
    if failure is None:
        return ledger.model_copy(update={"uncounted": ledger.uncounted + 1})
    failures = (*ledger.failures, clipped(f"Attempt {ledger.attempt}: {failure} {ledger.killed}".rstrip()))[-FAILURES:]
    return ledger.model_copy(update={"failures": failures})


def paused(ledger: RunLedger, now: datetime) -> RunLedger:
    """Put off the next attempt of a closed one: 1, 5, then 15 minutes, by the attempts that are spent."""
    pause = min(FIRST_PAUSE * 5 ** (counted(ledger) - 1), LONGEST_PAUSE)
    return ledger.model_copy(update={"next_attempt_at": now + pause})


def finished(
    ledger: RunLedger,
    now: datetime,
    *,
    state: Literal["Approved", "Refused", "Failed"],
    reason: str,
    message: str,
    version: VersionReference | None = None,
    lever_effect: Literal["Experimental", "Observational"] | None = None,
) -> RunLedger:
    """End the run; what it holds is charged until it is given back."""
    return _waited(ledger, now).model_copy(
        update={
            "attempt_started_at": None,
            "finished_at": now,
            "finished": state,
            "reason": reason,
            "message": clipped(message),
            "version": version,
            "lever_effect": lever_effect,
        }
    )


def active_now(ledger: RunLedger, now: datetime) -> float:
    """Seconds that the current incarnation has held quota."""
    return max((now - ledger.active_since).total_seconds(), 0.0) if ledger.active_since else 0.0


def active_total(ledger: RunLedger, now: datetime) -> float:
    """Seconds of quota over all incarnations: what the deadline counts."""
    return ledger.active_seconds + active_now(ledger, now)


def blocking(pods: Sequence[Document], now: datetime) -> tuple[Document, ...]:
    """The Pods that keep the next attempt from starting: all but those that are lost with their node."""
    return tuple(pod for pod in pods if not is_lost(pod, now))


def is_lost(pod: Document, now: datetime) -> bool:
    """Whether a Pod is Terminating well past its grace because its node is gone, as the taint manager says."""
    due = moment(text(pod, "metadata", "deletionTimestamp"))
    if due is None or now < due + LOST_AFTER:
        return False
    return any(
        (text(each, "type"), text(each, "status"), text(each, "reason"))
        == ("DisruptionTarget", "True", "DeletionByTaintManager")
        for each in documents(pod, "status", "conditions")
    )


def trouble(pods: Sequence[Document]) -> tuple[str, str]:
    """The reason and message of the first container that cannot start, empty where none says so."""
    for pod in pods:
        for key in ("initContainerStatuses", "containerStatuses"):
            for status in documents(pod, "status", key):
                reason = text(status, "state", "waiting", "reason")
                if reason and reason not in _CREATING:
                    return reason, f"Pod {name_of(pod)}: {text(status, 'state', 'waiting', 'message') or reason}"
    return "", ""


def killed(pods: Sequence[Document]) -> str:
    """What the first Pod died of that ran out of memory or was evicted by its node, empty where none did."""
    for pod in pods:
        if text(pod, "status", "reason") == "Evicted":
            why = text(pod, "status", "message") or "it gives no reason."
            return f"Pod {name_of(pod)} was evicted by its node: {why}"
        for status in documents(pod, "status", "containerStatuses"):
            ends = (text(status, when, "terminated", "reason") for when in ("state", "lastState"))
            if "OOMKilled" in ends:
                return f"Pod {name_of(pod)}: {text(status, 'name')} was OOMKilled; ask for more memory."
    return ""


def unmounted(pods: Sequence[Document], now: datetime) -> str:
    """The Secrets of the first Pod that waits for its volumes for too long, empty where none does.

    A Pod does not say which volume is missing; events do, which the operator may not read.
    """
    for pod in pods:
        due, secrets = mount_due(pod), _mounted_secrets(pod)
        if due is None or now < due or not secrets:
            continue
        named = " and ".join(f"Secret {name}" for name in secrets)
        return (
            f"Pod {name_of(pod)} has waited for its volumes for {MOUNTED_WITHIN.seconds} s. It mounts {named}: create "
            f"what is missing and it goes on. `kubectl describe pod {name_of(pod)}` tells more."
        )
    return ""


def mount_due(pod: Document) -> datetime | None:
    """Until when the Pod should have its volumes; None where it has them, as every Pod that pulls an image has."""
    for each in documents(pod, "status", "conditions"):
        if (text(each, "type"), text(each, "status")) == ("PodReadyToStartContainers", "False"):
            since = moment(text(each, "lastTransitionTime"))
            over = text(pod, "metadata", "deletionTimestamp") or text(pod, "status", "phase") in ("Succeeded", "Failed")
            return since + MOUNTED_WITHIN if since is not None and not over else None
    return None


def _mounted_secrets(pod: Document) -> tuple[str, ...]:
    """Names of the Secrets without which the Pod's volumes cannot be made."""
    volumes = documents(pod, "spec", "volumes")
    named = [text(each, "secret", "secretName") for each in volumes if value(each, "secret", "optional") is not True]
    return tuple(sorted({name for name in named if name}))


def unschedulable(pods: Sequence[Document]) -> str:
    """What the scheduler says of the first Pod that it cannot place, empty where it says nothing."""
    for pod in pods:
        for each in documents(pod, "status", "conditions"):
            if text(each, "type") == "PodScheduled" and text(each, "status") == "False":
                return f"Pod {name_of(pod)}: {text(each, 'message')}"
    return ""


def _former(ledger: RunLedger) -> tuple[str, ...]:
    if ledger.cluster is None or ledger.cluster in ledger.former_clusters:
        return ledger.former_clusters
    return (ledger.cluster, *ledger.former_clusters)[:FORMER_CLUSTERS]
