"""What the Pods of the cluster that serves tell.

A RayService is Ready while any proxy is, the head's included, which answers nobody as long as no replica lives: so the
Pods that hold replicas are asked too.
"""

from drivetrain.api.documents import Document, labels_of, name_of, text
from drivetrain.api.names import NODE_TYPE_LABEL, REVISION_LABEL
from drivetrain.controller.core.conditions import Fact
from drivetrain.controller.core.records import is_true


def answer(pods: tuple[Document, ...], revision: str | None) -> bool:
    """Whether a Pod with replicas is ready; true where no such Pod is known, since then nothing speaks against it."""
    workers = _of(pods, revision, "worker")
    return not workers or any(map(_is_ready, workers))


def headless(pods: tuple[Document, ...], revision: str | None) -> Fact | None:
    """What is missing while no head is ready; None where one is, or where no Pod is known."""
    heads = _of(pods, revision, "head")
    if any(map(_is_ready, heads)) or not (heads or _of(pods, revision, "worker")):
        return None
    named = f"head {name_of(heads[0])} is not ready" if heads else "head is gone and comes back"
    told = "Replicas that live answer decisions meanwhile; outcomes are refused, and no evidence counts."
    return Fact("HeadDown", f"The Ray {named}. {told}")


def _of(pods: tuple[Document, ...], revision: str | None, node: str) -> tuple[Document, ...]:
    wanted = (revision, node)
    return tuple(
        pod for pod in pods if (labels_of(pod).get(REVISION_LABEL), labels_of(pod).get(NODE_TYPE_LABEL)) == wanted
    )


def _is_ready(pod: Document) -> bool:
    return is_true(pod, "Ready") and not text(pod, "metadata", "deletionTimestamp")
