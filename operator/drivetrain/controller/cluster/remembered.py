"""Reads of what nobody but the operator is meant to change: once a minute, and after each write of ours.

Accounts, their rights, NetworkPolicies and Services are stated by every decision and differ from it almost never, yet
they were a third of what a look at a run or a Deployment reads. They are not watched: who edits or deletes one sees it
put right at the first look after a minute, and each resync brings one. A write states the version that was read, so
that one from a stale memory is refused, and the next look reads anew.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile

from drivetrain.api.documents import Document
from drivetrain.api.kinds import NETWORK_POLICY, ROLE, ROLE_BINDING, SERVICE, SERVICE_ACCOUNT, Ref, ref_of
from drivetrain.controller.cluster.lease import LeasedCluster
from drivetrain.controller.cluster.port import FIELD_MANAGER, Precondition

STATIC = frozenset((SERVICE_ACCOUNT, ROLE, ROLE_BINDING, NETWORK_POLICY, SERVICE))
MEMORY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RememberingCluster(LeasedCluster):
    """A LeasedCluster whose `get` of a static object may be a minute old; `monotonic` is in seconds."""

    monotonic: Callable[[], float]
    _known: dict[Ref, tuple[float, Document]] = field(default_factory=dict)
    """When it is to be forgotten, and what was read; in the order of reading."""

    async def get(self, ref: Ref) -> Document | None:
        """See Cluster.get."""
        if ref.kind not in STATIC:
            return await self.cluster.get(ref)
        now = self.monotonic()
        for old in [old for old, _ in takewhile(lambda each: each[1][0] <= now, self._known.items())]:
            del self._known[old]
        until, known = self._known.get(ref, (now, None))
        if until > now:
            return known
        found = await self.cluster.get(ref)
        self._known.pop(ref, None)
        if found is not None:
            self._known[ref] = (now + MEMORY_SECONDS, found)
        return found

    async def apply(
        self, document: Document, *, field_manager: str = FIELD_MANAGER, expected: Precondition | None = None
    ) -> Document:
        """See Cluster.apply."""
        self._known.pop(ref_of(document), None)
        return await LeasedCluster.apply(self, document, field_manager=field_manager, expected=expected)

    async def delete(self, ref: Ref, *, expected: Precondition | None = None) -> None:
        """See Cluster.delete."""
        self._known.pop(ref, None)
        await LeasedCluster.delete(self, ref, expected=expected)
