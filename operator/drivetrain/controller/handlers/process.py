"""The life of one operator process: lease, transport, reconciles and probes, side by side until one of them ends.

It ends on any trouble that a fresh process answers better (a lost lease, a broken watch, a kind that was installed
meanwhile); whoever supervises it starts it again, and everything it knew is in the cluster.
"""

import asyncio
import logging
import random
import signal
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass

from drivetrain.api.errors import ClusterError, ComponentError
from drivetrain.api.kinds import Kind
from drivetrain.controller.cluster import clock
from drivetrain.controller.cluster.access import Access
from drivetrain.controller.cluster.kubernetes import REQUEST_TIMEOUT, connect
from drivetrain.controller.cluster.lease import Leadership
from drivetrain.controller.cluster.port import Cluster
from drivetrain.controller.cluster.remembered import RememberingCluster
from drivetrain.controller.handlers import health, transport
from drivetrain.controller.handlers.metrics import Metrics
from drivetrain.controller.handlers.race import until_one_ends
from drivetrain.controller.handlers.runtime import MISSING_SECONDS, Bound, Operator

LEASE_NAME = "drivetrain-operator"
LONGEST_WAIT = 600.0
"""Seconds for which a due object may wait before the process counts as unhealthy."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """How one process is set up; `namespaces` empty means all, `port` 0 a free one."""

    access: Access
    namespaces: tuple[str, ...]
    lease_namespace: str
    identity: str
    host: str
    port: int


async def run(
    options: Options,
    controllers: Callable[[Cluster], Coroutine[None, None, Sequence[Bound]]],
    wanted: Collection[Kind] = (),
) -> None:
    """Run the operator until it is asked to end; `controllers` may look at the cluster first.

    When a kind appears that is watched, or `wanted`, and was not installed at the start, the process ends.

    Raises:
        DrivetrainError: the process should be started again; the message says why.
    """
    metrics = Metrics(time.monotonic)
    async with connect(options.access, metrics.observe_request) as cluster:
        leadership = Leadership(
            cluster, options.lease_namespace, LEASE_NAME, options.identity, now=clock.now, monotonic=time.monotonic
        )
        bound = await controllers(cluster)
        watched = {kind for each in bound for kind in (each.kind, *each.watched)}
        installed = {kind: await cluster.serves(kind) for kind in sorted({*watched, *wanted})}
        served = [kind for kind in installed if installed[kind] and kind in watched]
        missing = [kind for kind in installed if not installed[kind]]
        if missing:
            names = ", ".join(f"{kind.plural}.{kind.version}.{kind.group}" for kind in missing)
            _log.warning("not installed, looked for every %g s: %s", MISSING_SECONDS, names)
        operator = Operator(
            RememberingCluster(cluster, leadership, REQUEST_TIMEOUT, time.monotonic),
            bound,
            namespaces=options.namespaces,
            missing=missing,
            metrics=metrics,
            now=clock.now,
            rng=random.Random(options.identity),
            identity=options.identity,
        )
        registry = transport.registry_of(served, operator.hint, options.access, metrics.observe_request)

        async def lead() -> None:
            await leadership.acquired()
            _log.info("%s leads", options.identity)
            await operator.run()

        def healthy() -> str:
            stuck = operator.queue.oldest_age()
            return f"an object has waited for {stuck:.0f} s" if stuck > LONGEST_WAIT else ""

        def ready() -> str:
            if not leadership.known:
                return "the lease was not read yet"
            return "" if operator.synced.is_set() or not leadership.leads else "the first listing is under way"

        def tell() -> str:
            # Who waits to lead hears the hints as well, and what they make due stays so until it leads.
            metrics.queue_depth.set(value=operator.queue.depth() if leadership.leads else 0)
            metrics.queue_age.set(value=operator.queue.oldest_age())
            metrics.leader.set(value=float(leadership.leads))
            return metrics.text()

        async with health.serve(options.host, options.port, healthy=healthy, ready=ready, metrics=tell) as port:
            _log.info("probes and metrics answer on port %d", port)
            try:
                await until_one_ends(
                    _asked_to_end(),
                    leadership.keep(),
                    lead(),
                    transport.run(registry, options.namespaces),
                    _end_with_dead_watch(served, metrics),
                )
            finally:
                with suppress(ClusterError, TimeoutError):  # the next leader then waits for the lease to run out
                    async with asyncio.timeout(REQUEST_TIMEOUT):
                        await leadership.release()


async def _asked_to_end() -> None:
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    await asked.wait()


async def _end_with_dead_watch(kinds: Sequence[Kind], metrics: Metrics) -> None:
    while True:
        await asyncio.sleep(transport.DEAD_AFTER / 10)
        for kind in kinds:
            age = metrics.age_of_watch(kind.plural)
            if age > transport.DEAD_AFTER:
                raise ComponentError(f"the watch of {kind.plural} has been dead for {age:.0f} s: restarting.")
