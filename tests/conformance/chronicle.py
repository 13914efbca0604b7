"""Everything that an API server tells about a namespace, in order: what sequences of states are read from."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from drivetrain.api.documents import Document, labels_of, resource_version_of
from drivetrain.api.kinds import Kind, Ref, ref_of
from drivetrain.controller.cluster.port import Cluster

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Moment:
    """One change of one object; `version` orders the changes of all kinds, because one etcd counts them."""

    version: int
    ref: Ref
    document: Document
    gone: bool = False


class Chronicle:
    """Watches from when it is opened; the API server leaves no change out of a watch."""

    def __init__(self, cluster: Cluster, namespace: str, kinds: Sequence[Kind]) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._kinds = kinds
        self._moments: list[Moment] = []
        self._live: dict[Ref, Document] = {}
        self._changed = asyncio.Event()
        self._watching: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Begin; what is there already is left out until it changes."""
        for kind in self._kinds:
            listed = await self._cluster.list(kind, self._namespace)
            self._watching.append(asyncio.create_task(self._watch(kind, listed.resource_version)))

    async def close(self) -> None:
        """End; what was told remains."""
        for task in self._watching:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def moments(self, ref: Ref | None = None) -> Iterator[Moment]:
        """All changes, or those of one object, in the order in which they were stored."""
        found = sorted(self._moments, key=lambda moment: moment.version)
        return (moment for moment in found if ref is None or moment.ref == ref)

    def get(self, kind: Kind, name: str) -> Document | None:
        """An object as it is now, or None."""
        return self._live.get(Ref(kind, self._namespace, name))

    def items(self, kind: Kind, labels: Mapping[str, str]) -> tuple[Document, ...]:
        """Objects of a kind with these labels as they are now."""
        live = (document for ref, document in self._live.items() if ref.kind == kind)
        return tuple(each for each in live if labels.items() <= labels_of(each).items())

    async def until(self, seen: Callable[[], T | None], seconds: float, what: str) -> T:
        """The first true value of `seen`, which is asked again after each change. Fails when it stays false so long."""
        try:
            async with asyncio.timeout(seconds):
                while not (found := seen()):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {seconds:.0f} s: {what}") from None
        return found

    async def _watch(self, kind: Kind, version: str) -> None:
        while True:
            async with self._cluster.watch(kind, self._namespace, resource_version=version) as events:
                async for event in events:
                    version = resource_version_of(event.object)
                    if event.type != "BOOKMARK":
                        self._take(Moment(int(version), ref_of(event.object), event.object, event.type == "DELETED"))

    def _take(self, moment: Moment) -> None:
        self._moments.append(moment)
        if moment.gone:
            self._live.pop(moment.ref, None)
        else:
            self._live[moment.ref] = moment.document
        self._changed.set()
