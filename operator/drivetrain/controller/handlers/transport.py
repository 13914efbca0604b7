"""Kopf as the transport: it lists and watches, and every event becomes a wake-up hint. Nothing else of it is used.

Why so little (each seen with 1.45.2): after a 410 it does not tell of objects deleted in the gap; another error ends
the watch of that kind for good, in one case with the whole operator, in another with nothing but a line in the log; its
peering has no compare-and-swap; when it ends, it cancels every task of its event loop that was made after it. Hence
live reads, a resync, a Lease, a process that ends when a watch is dead, and an event loop in a thread of its own.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import kopf

from drivetrain.api.documents import Document
from drivetrain.api.kinds import Kind
from drivetrain.controller.cluster.access import Access
from drivetrain.controller.cluster.session import RequestObserver, open_session

Hint = Callable[[Kind, Document, bool], None]
"""(kind, object, deleted)"""

SERVER_TIMEOUT = 120
"""Seconds after which the server ends a watch and Kopf opens the next; an integer, the API server refuses 120.0."""
DEAD_AFTER = 2.0 * SERVER_TIMEOUT
"""A watch that was neither renewed nor brought an event for so many seconds has died without ending anything."""
INACTIVITY_TIMEOUT = 70.0


def settings() -> kopf.OperatorSettings:
    """Return the settings, each that matters stated, because defaults changed often between releases."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False  # events are ours, written after the status
    chosen.posting.loggers = False
    chosen.peering.standalone = True  # the Lease elects
    chosen.scanning.disabled = True  # needs rights on all namespaces and CRDs; we look for missing kinds ourselves
    chosen.watching.server_timeout = SERVER_TIMEOUT
    chosen.watching.inactivity_timeout = INACTIVITY_TIMEOUT
    chosen.watching.reconnect_backoff = 1.0
    chosen.networking.request_timeout = 30.0
    chosen.networking.enforce_retry_after = True
    return chosen


def registry_of(kinds: Iterable[Kind], hint: Hint, access: Access, observe: RequestObserver) -> kopf.OperatorRegistry:
    """Return handlers that pass the events of these kinds to `hint`, and a login by our own session.

    `hint` and `observe` are called in the event loop that runs now, not in Kopf's.
    """
    ours = asyncio.get_running_loop()
    registry = kopf.OperatorRegistry()

    def observe_from_afar(verb: str, resource: str, status: int, seconds: float) -> None:
        ours.call_soon_threadsafe(observe, verb, resource, status, seconds)

    @kopf.on.login(registry=registry)
    async def log_in(**_: object) -> kopf.AiohttpSession:
        session = open_session(access, observe_from_afar)
        return kopf.AiohttpSession(
            server=access.server, aiohttp_session=session, default_namespace=access.namespace or None
        )

    def register(kind: Kind) -> None:
        @kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=f"wake-{kind.plural}")
        async def wake(event: kopf.RawEvent, **_: object) -> None:
            deleted = event["type"] == "DELETED"
            ours.call_soon_threadsafe(hint, kind, cast(Document, event["object"]), deleted)

    for kind in kinds:
        register(kind)
    return registry


async def run(registry: kopf.OperatorRegistry, namespaces: Sequence[str]) -> None:
    """Watch until cancelled, or until Kopf gives up; an empty `namespaces` means all."""
    stop = threading.Event()

    def serve() -> None:
        asyncio.run(
            kopf.operator(
                registry=registry,
                settings=settings(),
                standalone=True,
                clusterwide=not namespaces,
                namespaces=list(namespaces),
                stop_flag=stop,
            )
        )

    try:
        await asyncio.to_thread(serve)
    finally:
        stop.set()
