"""The Cluster protocol: everything that the operator can ask of a Kubernetes API server, and nothing more.

It is the seam for fault injection: `tests/support/fake_cluster.py` and `kubernetes.py` pass the same contract tests.
Every method raises the errors of `drivetrain.api.errors`: NotFoundError, ConflictError, ForbiddenError, RejectedError,
UnavailableError (the write may have taken effect).
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from drivetrain.api.documents import JSON, Document, resource_version_of, uid_of
from drivetrain.api.kinds import Kind, Ref

FIELD_MANAGER = "drivetrain-operator"


@dataclass(frozen=True, slots=True)
class Precondition:
    """What must hold of the stored object for a write to happen; an empty part is not checked."""

    uid: str = ""
    resource_version: str = ""

    @classmethod
    def of(cls, document: Document) -> "Precondition":
        """Require the very object and version that was read."""
        return cls(uid=uid_of(document), resource_version=resource_version_of(document))


ABSENT = Precondition(resource_version="1")
"""No such object exists yet. No object ever has version 1, so an API server refuses to apply this to one that
exists, and creates one that does not: the only create-if-absent that server-side apply knows."""


@dataclass(frozen=True, slots=True)
class ObjectList:
    """A consistent list and the resourceVersion from which a watch continues."""

    items: tuple[Document, ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change; of a BOOKMARK only metadata.resourceVersion counts."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: Document


class Cluster(Protocol):
    """A Kubernetes API server as the operator sees it."""

    async def serves(self, kind: Kind) -> bool:
        """Return whether the API server knows the kind: whether its definition is installed."""

    async def get(self, ref: Ref) -> Document | None:
        """Return the newest stored object, or None."""

    async def list(self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None) -> ObjectList:
        """Return all objects of a kind, consistently (never from a stale cache), in all namespaces if none is named.

        Raises NotFoundError where the API server does not serve the kind.
        """

    def watch(
        self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None, *, resource_version: str
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchEvent]]:
        """Iterate over the changes after `resource_version`; the iterator ends when the server closes the stream.

        Raises ConflictError (status 410) when that version is compacted: list again.
        """

    async def apply(
        self, document: Document, *, field_manager: str = FIELD_MANAGER, expected: Precondition | None = None
    ) -> Document:
        """Server-side apply of the whole intent, taking over fields of other managers; return the stored object.

        Without `expected` it applies to whatever is there and creates what is not. Raises ConflictError where
        `expected` does not hold: another version, another object, an object that is gone.
        """

    async def dry_run(self, document: Document) -> Document:
        """Return a new object as the API server would store it, admission included; nothing is stored."""

    async def apply_status(
        self, document: Document, *, field_manager: str = FIELD_MANAGER, expected: Precondition | None = None
    ) -> Document:
        """Server-side apply of `document["status"]` through the status subresource of an existing object.

        Apply and not merge patch: the whole status is stated, so a wiped status comes back whole, and fields that are
        no longer stated vanish without reading them first; so does a map without entries. Raises NotFoundError when the
        object is gone.
        """

    async def delete(self, ref: Ref, *, expected: Precondition | None = None) -> None:
        """Delete with background propagation; an object that is gone already is success.

        Raises ConflictError where `expected` does not hold.
        """

    async def create_event(self, event: Document) -> None:
        """Create an events.k8s.io/v1 Event; one of the same name being there already is success."""


def without_empty_maps(part: JSON) -> JSON:
    """A status as it is sent: where a map had entries before, the merge of an apply without any would leave null, which
    the kind's own schema then refuses."""
    if isinstance(part, Mapping):
        kept = {key: without_empty_maps(inner) for key, inner in part.items()}
        return {key: inner for key, inner in kept.items() if inner != {}}
    return [without_empty_maps(inner) for inner in part] if isinstance(part, list | tuple) else part
