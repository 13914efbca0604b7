"""A proxy before a real API server that can strike at any write: the place of crashes and lost answers.

What the simulation does to the in-memory API server, this does to the real one and to the shipped process.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ssl import create_default_context

import aiohttp
from aiohttp import web

from tests.support.api_server import ApiServer

_HOP_BY_HOP = {"host", "content-length", "transfer-encoding", "connection", "content-encoding", "accept-encoding"}


@dataclass
class Proxy:
    """Forwards everything; `strike(n)` is called when the n-th write has taken effect and before its answer goes out,
    and says whether the answer is lost. Writes to Leases are forwarded and not counted."""

    server: ApiServer
    strike: Callable[[int], bool]
    url: str = ""
    writes: list[str] = field(default_factory=list)
    last_write: float = field(default_factory=time.monotonic)

    async def handle(self, request: web.Request, upstream: aiohttp.ClientSession) -> web.StreamResponse:
        """Forward one request; a watch is passed on as it comes."""
        body = await request.read()
        async with upstream.request(
            request.method, f"{self.server.url}{request.path_qs}", data=body or None, headers=_kept(request.headers)
        ) as answer:
            if request.method == "GET" and "watch=" in request.query_string:
                return await _pass_on(request, answer)
            content = await answer.read()
            response = web.Response(status=answer.status, body=content, headers=_kept(answer.headers))
        if request.method != "GET" and "/leases/" not in request.path:
            self.writes.append(f"{request.method} {request.path} {answer.status}")
            self.last_write = time.monotonic()
            if self.strike(len(self.writes)) and request.transport is not None:
                request.transport.abort()
        return response


async def _pass_on(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=_kept(answer.headers))
    await response.prepare(request)
    try:
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
    except (ConnectionError, aiohttp.ClientError):
        pass  # the watcher went away, or the server did: either way the stream ends here
    return response


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key.lower() not in _HOP_BY_HOP}


@asynccontextmanager
async def proxied(server: ApiServer, strike: Callable[[int], bool]) -> AsyncIterator[Proxy]:
    """Open a proxy on a free port; its clients bring their own token."""
    proxy = Proxy(server, strike)
    connector = aiohttp.TCPConnector(limit=0, ssl=create_default_context(cafile=str(server.ca_file)))
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as upstream:

        async def handle(request: web.Request) -> web.StreamResponse:
            return await proxy.handle(request, upstream)

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield proxy
        finally:
            await runner.cleanup()
