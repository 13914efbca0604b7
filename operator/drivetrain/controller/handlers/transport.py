"""Kopf as the transport: it lists and watches, and every event becomes a wake-up hint. Nothing else of it is used.

Why so little (each seen with 1.45.2): after a 410 it does not tell of objects deleted in the gap; a non-410 watch error
ends it; its peering has no compare-and-swap. Hence live reads, a resync, a Lease, and a process that simply ends.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import cast

import kopf

from drivetrain.api.documents import Document
from drivetrain.api.kinds import Kind
from drivetrain.controller.cluster.access import Access
from drivetrain.controller.cluster.session import RequestObserver, open_session

Hint = Callable[[Kind, Document, bool], None]
"""(kind, object, deleted)"""

SERVER_TIMEOUT = 300.0
INACTIVITY_TIMEOUT = 70.0


def settings() -> kopf.OperatorSettings:
    """Return the settings, each that matters stated, because defaults changed often between releases."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False  # events are ours, written after the status
    chosen.posting.loggers = False
    chosen.peering.standalone = True  # the Lease elects
    chosen.scanning.disabled = True  # needs rights on all namespaces and CRDs; missing kinds are looked for at resync
    chosen.watching.server_timeout = SERVER_TIMEOUT
    chosen.watching.inactivity_timeout = INACTIVITY_TIMEOUT
    chosen.watching.reconnect_backoff = 1.0
    chosen.networking.request_timeout = 30.0
    chosen.networking.enforce_retry_after = True
    return chosen


def registry_of(kinds: Iterable[Kind], hint: Hint, access: Access, observe: RequestObserver) -> kopf.OperatorRegistry:
    """Return handlers that pass the events of these kinds to `hint`, and a login by our own session."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def log_in(**_: object) -> kopf.AiohttpSession:
        session = open_session(access, observe)
        return kopf.AiohttpSession(
            server=access.server, aiohttp_session=session, default_namespace=access.namespace or None
        )

    for kind in kinds:
        _register(registry, kind, hint)
    return registry


def _register(registry: kopf.OperatorRegistry, kind: Kind, hint: Hint) -> None:
    @kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=f"wake-{kind.plural}")
    async def wake(event: kopf.RawEvent, **_: object) -> None:
        hint(kind, cast(Document, event["object"]), event["type"] == "DELETED")


async def run(registry: kopf.OperatorRegistry, namespaces: Sequence[str]) -> None:
    """Watch until the process is asked to end (SIGTERM, SIGINT); an empty `namespaces` means all."""
    await kopf.operator(
        registry=registry,
        settings=settings(),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=list(namespaces),
    )
