"""What a decision asks for. Every effect may be carried out twice."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from drivetrain.api.documents import JSON, Document, name_of, text, uid_of
from drivetrain.api.kinds import Ref


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply under `manager`; with `create_only` nothing happens to an object that exists."""

    document: Document
    manager: str
    create_only: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """Declare finalizers and annotations of ours on the very object that was read, or none of them."""

    document: Document
    finalizers: tuple[str, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SetStatus:
    """State the whole status of the very object that was read: a change in between means deciding again."""

    document: Document
    status: Document


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the object if it still has this uid; dependents go by garbage collection."""

    ref: Ref
    uid: str


@dataclass(frozen=True, slots=True)
class RemovePod:
    """Tell the API server that the process is gone, as the kubelet does: deletion without grace."""

    ref: Ref
    uid: str


@dataclass(frozen=True, slots=True)
class Submit:
    """Submit a Ray job; an id that Ray knows already is success."""

    submission_id: str
    entrypoint: str
    runtime_env: Document
    metadata: Document


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop a Ray job."""

    submission_id: str


@dataclass(frozen=True, slots=True)
class Tell:
    """An event about an object, once per (object, reason, message)."""

    about: Document
    type: str
    reason: str
    message: str


Effect = Apply | Hold | SetStatus | Delete | RemovePod | Submit | Stop | Tell


def owner_reference(owner: Document) -> dict[str, JSON]:
    """Return the controller reference from a child to `owner`."""
    return {
        "apiVersion": text(owner, "apiVersion"),
        "kind": text(owner, "kind"),
        "name": name_of(owner),
        "uid": uid_of(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }
