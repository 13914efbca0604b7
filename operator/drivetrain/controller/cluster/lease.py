"""Leader election: one `coordination.k8s.io` Lease, compare-and-swap, and deadlines on the monotonic clock.

1. Whoever finds the Lease free, or unchanged for its whole duration on its own clock, writes itself as the holder; the
   resourceVersion in the write makes exactly one of several win.
2. The holder renews. Its deadline is the duration counted from *before* the renewal was sent, while others start
   counting after they saw it: the holder always stops first. Wall clocks are never compared.
3. Before every write the deadline must be further away than the request may take, so a request that is still under way
   cannot land after somebody else took over.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from drivetrain.api.documents import Document, integer, mapping, text
from drivetrain.api.errors import ClusterError, ConflictError, FencedError
from drivetrain.api.kinds import LEASE, Kind, Ref
from drivetrain.controller.cluster.port import (
    ABSENT,
    FIELD_MANAGER,
    Cluster,
    ObjectList,
    Precondition,
    WatchEvent,
)

DURATION = 30
"""Seconds; three requests of 10 s fit into it."""
RENEW_EVERY = 5.0


@dataclass(slots=True)
class Leadership:
    """One candidate; `step` is called every `RENEW_EVERY` seconds."""

    cluster: Cluster
    namespace: str
    name: str
    identity: str
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    duration: int = DURATION
    _deadline: float = float("-inf")
    _seen: tuple[str, str] = ("", "")
    """Holder and renewTime as last read, and since when they have not changed."""
    _seen_at: float = float("-inf")
    _held: asyncio.Event = field(default_factory=asyncio.Event)
    known: bool = False
    """Whether the Lease was read at least once."""

    @property
    def ref(self) -> Ref:
        """The Lease."""
        return Ref(LEASE, self.namespace, self.name)

    @property
    def leads(self) -> bool:
        """Whether the lease is held now."""
        return self.may_write(0.0)

    def may_write(self, request_timeout: float) -> bool:
        """Return whether a request that takes `request_timeout` seconds ends before anybody else may lead."""
        return self._deadline - self.monotonic() > request_timeout

    async def acquired(self) -> None:
        """Return once the lease was held for the first time."""
        await self._held.wait()

    async def step(self) -> bool:
        """Acquire or renew once; return whether this candidate leads.

        Raises:
            FencedError: it led before, and somebody else does now; this process must not write any more.
            ClusterError: the API is in trouble; the deadline stays what it was.
        """
        started = self.monotonic()
        live = await self.cluster.get(self.ref)
        self.known = True
        holder = text(live or {}, "spec", "holderIdentity")
        if holder != self.identity:
            if self._held.is_set():
                raise FencedError(f"lease {self.namespace}/{self.name} is held by {holder or 'nobody'} now.")
            if holder and not self._expired(live or {}, self.monotonic()):
                return False
        try:
            await self.cluster.apply(self._document(live), expected=Precondition.of(live) if live else ABSENT)
        except ConflictError:
            return False  # another candidate was faster; the next step sees who
        self._deadline = started + self.duration
        self._held.set()
        return True

    async def release(self) -> None:
        """Give the lease back if it is ours, so that the next leader need not wait."""
        self._deadline = float("-inf")
        live = await self.cluster.get(self.ref)
        if live is not None and text(live, "spec", "holderIdentity") == self.identity:
            released = self._document(live)
            spec = {**mapping(released, "spec"), "holderIdentity": ""}
            await self.cluster.apply({**released, "spec": spec}, expected=Precondition.of(live))

    async def keep(self) -> None:
        """Step for ever; ends only by FencedError, or by ClusterError once a held lease has run out.

        Raises:
            FencedError: somebody else leads.
            ClusterError: the API was in trouble for so long that the lease cannot be trusted any more.
        """
        while True:
            try:
                await self.step()
            except ClusterError:
                if self._held.is_set() and not self.leads:
                    raise
            await asyncio.sleep(RENEW_EVERY)

    def _expired(self, live: Document, at: float) -> bool:
        seen = (text(live, "spec", "holderIdentity"), text(live, "spec", "renewTime"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, at
        return at - self._seen_at > max(self.duration, integer(live, "spec", "leaseDurationSeconds"))

    def _document(self, live: Document | None) -> Document:
        stamp = self.now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = mapping(live or {}, "spec")
        ours = text(spec, "holderIdentity") == self.identity
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"namespace": self.namespace, "name": self.name},
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": self.duration,
                "acquireTime": text(spec, "acquireTime") if ours else stamp,
                "renewTime": stamp,
                "leaseTransitions": integer(spec, "leaseTransitions") + (0 if ours or live is None else 1),
            },
        }


@dataclass(frozen=True, slots=True)
class LeasedCluster:
    """A Cluster that reads always and writes only while the lease is safely held; else it raises FencedError."""

    cluster: Cluster
    leadership: Leadership
    request_timeout: float

    async def serves(self, kind: Kind) -> bool:
        """See Cluster.serves."""
        return await self.cluster.serves(kind)

    async def get(self, ref: Ref) -> Document | None:
        """See Cluster.get."""
        return await self.cluster.get(ref)

    async def list(self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None) -> ObjectList:
        """See Cluster.list."""
        return await self.cluster.list(kind, namespace, labels)

    def watch(
        self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None, *, resource_version: str
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchEvent]]:
        """See Cluster.watch."""
        return self.cluster.watch(kind, namespace, labels, resource_version=resource_version)

    async def apply(
        self, document: Document, *, field_manager: str = FIELD_MANAGER, expected: Precondition | None = None
    ) -> Document:
        """See Cluster.apply."""
        self._guard()
        return await self.cluster.apply(document, field_manager=field_manager, expected=expected)

    async def dry_run(self, document: Document) -> Document:
        """See Cluster.dry_run."""
        return await self.cluster.dry_run(document)

    async def apply_status(
        self, document: Document, *, field_manager: str = FIELD_MANAGER, expected: Precondition | None = None
    ) -> Document:
        """See Cluster.apply_status."""
        self._guard()
        return await self.cluster.apply_status(document, field_manager=field_manager, expected=expected)

    async def delete(self, ref: Ref, *, expected: Precondition | None = None) -> None:
        """See Cluster.delete."""
        self._guard()
        await self.cluster.delete(ref, expected=expected)

    async def create_event(self, event: Document) -> None:
        """See Cluster.create_event."""
        self._guard()
        await self.cluster.create_event(event)

    def _guard(self) -> None:
        if not self.leadership.may_write(self.request_timeout):
            raise FencedError(
                f"lease {self.leadership.ref.namespace}/{self.leadership.ref.name} may run out during this write.",
                remedy="The API server answers too slowly to renew it, or another operator leads.",
            )
