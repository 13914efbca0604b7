"""The running operator: hints and resyncs go into the queue, the queue runs reconciles."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from drivetrain.api.documents import Document, name_of, namespace_of
from drivetrain.api.errors import ClusterError, ComponentError, ConflictError, FencedError
from drivetrain.api.kinds import TRAINING_RUN, Kind, Ref
from drivetrain.controller.cluster.port import Cluster
from drivetrain.controller.core.plan import Observed
from drivetrain.controller.handlers.metrics import Metrics
from drivetrain.controller.handlers.owners import Owners
from drivetrain.controller.handlers.queue import WorkQueue
from drivetrain.controller.handlers.race import until_one_ends
from drivetrain.controller.handlers.reconcile import Controller, Reconciled, reconcile

O = TypeVar("O", bound=Observed)  # noqa: E741 - an observation

RESYNC_SECONDS = 300.0
RESYNC_JITTER = 0.2
MISSING_SECONDS = 20.0
"""How often a kind that is not installed is looked for: one small request each."""
RETRY_SECONDS = 5.0
WORKERS = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bound:
    """A controller whose observation type is closed over, so that different ones fit into one table."""

    kind: Kind
    watched: tuple[Kind, ...]
    reconcile: Callable[[Cluster, Ref, datetime, str], Awaitable[Reconciled]]


def bind(controller: Controller[O]) -> Bound:
    """Return the controller as the table holds it."""

    async def run(cluster: Cluster, ref: Ref, now: datetime, identity: str) -> Reconciled:
        return await reconcile(controller, cluster, ref, now, identity)

    return Bound(controller.kind, controller.watched, run)


class Operator:
    """Reconciles objects of the bound kinds in `namespaces` (none: all) for as long as `run` runs."""

    def __init__(
        self,
        cluster: Cluster,
        bound: Sequence[Bound],
        *,
        namespaces: Sequence[str],
        missing: Sequence[Kind],
        metrics: Metrics,
        now: Callable[[], datetime],
        rng: random.Random,
        identity: str,
    ) -> None:
        self._cluster = cluster
        self._bound: Mapping[Kind, Bound] = {each.kind: each for each in bound}
        self._namespaces = tuple(namespaces) or ("",)
        self._missing = tuple(missing)
        self._metrics = metrics
        self._now = now
        self._rng = rng
        self._identity = identity
        self._owners = Owners()
        self._meanwhile: dict[Ref, Document | None] = {}
        """The objects whose reconcile runs, with what the last event told of them meanwhile."""
        self.synced = asyncio.Event()
        """Set once every object was listed."""
        self.queue: WorkQueue[Ref] = WorkQueue(self._work, rng=rng, fatal=FencedError, on_failure=self._failed)

    def hint(self, kind: Kind, document: Document, deleted: bool) -> None:
        """Take note that an object changed."""
        self._metrics.saw_watch(kind.plural)
        itself = Ref(kind, namespace_of(document), name_of(document))
        for ref in self._owners.to_wake(kind, document, deleted=deleted):
            if ref == itself and ref in self._meanwhile and not deleted:
                self._meanwhile[ref] = document  # perhaps what this reconcile writes: judged when it ends
            elif ref.kind in self._bound:
                self.queue.wake(ref)

    async def run(self) -> None:
        """Resync and reconcile until cancelled.

        Raises:
            FencedError: another process leads now.
            ComponentError: a kind that was not installed is now, and only a new process can watch it.
        """
        looking = [self._look_for_missing()] if self._missing else []
        await until_one_ends(self._resync_for_ever(), self.queue.run(WORKERS), *looking)

    async def _look_for_missing(self) -> None:
        while True:
            try:
                for kind in self._missing:
                    if await self._cluster.serves(kind):
                        raise ComponentError(f"{kind.plural}.{kind.group} is installed now: restarting to watch it.")
            except ClusterError as error:
                _log.warning("cannot look for what is not installed, again in %g s: %s", MISSING_SECONDS, error)
            await asyncio.sleep(MISSING_SECONDS)

    async def _resync_for_ever(self) -> None:
        spread = 0.0
        while True:
            try:
                await self.resync(spread)
            except ClusterError as error:
                _log.warning("resync failed, again in %g s: %s", RETRY_SECONDS, error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self.synced.set()
            # Spread over half the interval, so that a thousand objects are not read at once.
            spread = RESYNC_SECONDS / 2
            await asyncio.sleep(RESYNC_SECONDS * self._rng.uniform(1 - RESYNC_JITTER, 1 + RESYNC_JITTER))

    async def resync(self, spread: float) -> None:
        """Wake every object of our kinds within `spread` seconds, whether or not it tells anything new."""
        for kind in self._bound:
            for namespace in self._namespaces:
                for document in (await self._cluster.list(kind, namespace)).items:
                    ref = Ref(kind, namespace_of(document), name_of(document))
                    self._owners.listed(ref, document)
                    self.queue.wake(ref, self._rng.uniform(0.0, spread))

    async def _work(self, ref: Ref) -> float | None:
        kind = ref.kind.kind
        started = asyncio.get_running_loop().time()
        self._meanwhile[ref] = None
        try:
            reconciled = await self._bound[ref.kind].reconcile(self._cluster, ref, self._now(), self._identity)
        finally:
            told = self._meanwhile.pop(ref)
        self._owners.reconciled(ref, reconciled.owner)
        if told is not None and self._owners.is_new(ref, told):
            self.queue.wake(ref)
        self._metrics.durations.observe(kind, seconds=asyncio.get_running_loop().time() - started)
        self._metrics.reconciles.add(kind, "success")
        self._metrics.show_conditions(kind, ref.namespace, ref.name, reconciled.conditions or {})
        if ref.kind == TRAINING_RUN:
            self._metrics.show_run(ref, reconciled.owner)
        return None if reconciled.wake_after is None else reconciled.wake_after.total_seconds()

    def _failed(self, ref: Ref, error: Exception, delay: float) -> None:
        match error:
            case ConflictError():  # normal: somebody else wrote meanwhile
                result, level = "conflict", logging.DEBUG
            case ClusterError():
                result, level = "api-error", logging.WARNING
            case _:
                result, level = "error", logging.ERROR
        self._metrics.reconciles.add(ref.kind.kind, result)
        trace = None if isinstance(error, ClusterError) else error
        _log.log(level, "%s: %s; again in %.1f s", ref, error, delay, exc_info=trace)
