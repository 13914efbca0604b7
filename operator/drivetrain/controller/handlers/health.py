"""`/healthz`, `/readyz` and `/metrics` on one port, for probes and Prometheus."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from aiohttp import web

Check: TypeAlias = Callable[[], str]
"""Returns what is wrong, or an empty string."""


@asynccontextmanager
async def serve(
    host: str, port: int, *, healthy: Check, ready: Check, metrics: Callable[[], str]
) -> AsyncIterator[int]:
    """Answer on `port` (0: a free one) while the context is open; yield the port."""
    application = web.Application()
    application.router.add_get("/healthz", _answer(healthy))
    application.router.add_get("/readyz", _answer(ready))

    async def tell(_: web.Request) -> web.Response:
        return web.Response(text=metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    application.router.add_get("/metrics", tell)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _answer(check: Check) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        wrong = check()
        return web.Response(status=503 if wrong else 200, text=(wrong or "ok") + "\n")

    return answer
