"""HTTP sessions to the API server: they log in with the present token and tell of every request.

Kopf gets one of these too, so its watches use the same identity and are counted and timed like our own requests.
"""

import time
from typing import Protocol

import aiohttp
from yarl import URL

from drivetrain.controller.cluster.access import Access

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class RequestObserver(Protocol):
    """Is told of every request: `verb` as RBAC names it, the plural, the HTTP status (0: no answer), the duration."""

    def __call__(self, verb: str, resource: str, status: int, seconds: float) -> None: ...


def open_session(access: Access, observe_request: RequestObserver) -> aiohttp.ClientSession:
    """Return a session that adds the token to every request, because mounted tokens rotate, and reports its outcome."""

    async def log_in_and_observe(
        request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        token = access.token()
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
        verb, resource = verb_and_resource(request.method, request.url)
        started = time.monotonic()
        status = 0
        try:
            response = await send(request)
            status = response.status
            return response
        finally:
            observe_request(verb, resource, status, time.monotonic() - started)

    connector = aiohttp.TCPConnector(limit=0, ssl=True if access.tls is None else access.tls)
    return aiohttp.ClientSession(connector=connector, middlewares=(log_in_and_observe,))


def verb_and_resource(method: str, url: URL) -> tuple[str, str]:
    """Return the verb and the plural that RBAC judges a request by; discovery and the like have an empty plural."""
    match [part for part in url.path.split("/") if part]:
        case (
            ["api", _, "namespaces", _, resource, *rest]
            | ["apis", _, _, "namespaces", _, resource, *rest]
            | ["api", _, resource, *rest]
            | ["apis", _, _, resource, *rest]
        ):
            subresource = f"/{rest[1]}" if len(rest) > 1 else ""
            if method != "GET":
                return _VERBS.get(method, method.lower()), resource + subresource
            if url.query.get("watch", "").lower() in ("1", "true"):
                return "watch", resource
            return "get" if rest else "list", resource + subresource
        case _:
            return "get", ""
