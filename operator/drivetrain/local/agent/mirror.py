"""A copy of the API server's objects of some kinds, kept by list and watch."""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from drivetrain.api.documents import Document, name_of, namespace_of, resource_version_of
from drivetrain.api.errors import ClusterError, ConflictError
from drivetrain.api.kinds import Kind, Ref
from drivetrain.controller.cluster.port import Cluster

LOG = logging.getLogger("drivetrain.local.agent.mirror")
RETRY_SECONDS = 1.0


class Mirror:
    """Objects by name; `changed` is set whenever one changes. It may lag: writes state what they were based on."""

    def __init__(self, cluster: Cluster, kinds: Sequence[Kind]) -> None:
        self._cluster = cluster
        self._kinds = kinds
        self._objects: dict[Kind, dict[Ref, Document]] = {}
        self.changed = asyncio.Event()

    @property
    def complete(self) -> bool:
        """Whether every kind has been listed once."""
        return len(self._objects) == len(self._kinds)

    def objects(self) -> Mapping[Ref, Document]:
        """Return a snapshot of everything."""
        return {ref: document for objects in self._objects.values() for ref, document in objects.items()}

    async def run(self) -> None:
        """Follow all kinds until cancelled."""
        await asyncio.gather(*(self._follow(kind) for kind in self._kinds))

    def remember(self, kind: Kind, document: Document) -> None:
        """Take in the answer to a write of our own, so that the next decision knows it."""
        ref = Ref(kind, namespace_of(document), name_of(document))
        known = self._objects.get(kind, {}).get(ref)
        # a watch may have told a later change already; versions of one kind are ordered (Kubernetes 1.35 and later)
        if known is None or int(resource_version_of(document)) > int(resource_version_of(known)):
            self._objects[kind][ref] = document

    async def _follow(self, kind: Kind) -> None:
        while True:
            try:
                listed = await self._cluster.list(kind)
                self._objects[kind] = {Ref(kind, namespace_of(item), name_of(item)): item for item in listed.items}
                self.changed.set()
                await self._watch(kind, listed.resource_version)
            except ConflictError:
                continue  # the version is compacted: list again
            except ClusterError as error:
                LOG.warning("%s cannot be followed, trying again: %s", kind, error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _watch(self, kind: Kind, version: str) -> None:
        objects = self._objects[kind]
        while True:
            async with self._cluster.watch(kind, resource_version=version) as events:
                async for event in events:
                    version = resource_version_of(event.object)
                    ref = Ref(kind, namespace_of(event.object), name_of(event.object))
                    if event.type == "DELETED":
                        objects.pop(ref, None)
                    elif event.type != "BOOKMARK":
                        objects[ref] = event.object
                    else:
                        continue
                    self.changed.set()
