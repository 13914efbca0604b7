"""What a decision asks for: the seam between pure `decide` functions and the shell that carries plans out.

The shell writes in this order: `ledger`, then `effects` as they stand, then `status`, then the events. A write whose
content the live object already has is left out, so a plan may always state its whole intent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Protocol, TypeAlias

from drivetrain.api.documents import Document
from drivetrain.api.kinds import Kind, Ref, ref_of

LATE = timedelta(seconds=1)
"""How soon to look again after a read that was older than what was acted on."""
RETRY = timedelta(minutes=1)
"""How soon to look again for what no watch tells us about."""


@dataclass(frozen=True, slots=True)
class Apply:
    """Make this object exist with these fields (server-side apply by `drivetrain-operator`).

    `object` is the whole intent with apiVersion, kind and metadata: fields applied before and absent now are removed.
    The shell adds the precondition: the resourceVersion of the live object, or that there is none yet.
    """

    object: Document

    @property
    def ref(self) -> Ref:
        """The name of the object; its kind is one of `drivetrain.api.kinds.KINDS`."""
        return ref_of(self.object)


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete this very object (uid precondition, background propagation); absent already is success."""

    kind: Kind
    namespace: str
    name: str
    uid: str

    @property
    def ref(self) -> Ref:
        """The name of the object."""
        return Ref(self.kind, self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Emit:
    """Publish a Kubernetes event about the owner, once the status of the same plan was written as a change.

    A plan whose status is None or already stored emits nothing: events tell transitions, and must not repeat.
    """

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


Effect: TypeAlias = Apply | Delete | Emit


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer of one decision."""

    ledger: Apply | None = None
    """Written first, before any effect."""
    effects: tuple[Effect, ...] = ()
    status: Document | None = None
    """The whole `status` of the owner; None: leave it alone."""
    wake_after: timedelta | None = None
    """Decide again after this time even if nothing happens; None: wait for an event or the resync."""


class Observed(Protocol):
    """What every observation offers to the shell; controllers add typed fields of their own."""

    @property
    def owner(self) -> Document:
        """The primary object as it was read."""

    @property
    def live(self) -> Mapping[Ref, Document]:
        """Every object that a plan may apply, as it was read (children, ledger, report); absent: does not exist."""
