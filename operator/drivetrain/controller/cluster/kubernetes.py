"""The Cluster protocol over HTTP: one small aiohttp client for the few requests that the operator makes."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import orjson

from drivetrain.api import errors
from drivetrain.api.documents import JSON, Document, documents, integer, mapping, name_of, namespace_of, text
from drivetrain.api.kinds import EVENT, Kind, Ref, ref_of
from drivetrain.controller.cluster.access import Access
from drivetrain.controller.cluster.port import FIELD_MANAGER, ObjectList, Precondition, WatchEvent, without_empty_maps
from drivetrain.controller.cluster.session import RequestObserver, open_session

PAGE = 500
REQUEST_TIMEOUT = 10.0
WATCH_SECONDS = 300
"""The server ends a watch after this time, so that a stream that died silently is noticed."""
BOOKMARK_SECONDS = 90
"""Servers send a bookmark about every minute; a stream silent for longer is dead."""

_BY_STATUS: Mapping[int, type[errors.ClusterError]] = {
    404: errors.NotFoundError,
    409: errors.ConflictError,
    410: errors.ConflictError,
    **dict.fromkeys((400, 405, 413, 415, 422), errors.RejectedError),
}


@dataclass(frozen=True, slots=True)
class _Request:
    verb: str
    ref: Ref
    method: str
    path: str
    query: Mapping[str, str]
    body: bytes | None = None
    content_type: str = "application/json"


class KubernetesCluster:
    """A real API server; made by `connect`."""

    def __init__(self, server: str, session: aiohttp.ClientSession, request_timeout: float) -> None:
        self._server = server
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=request_timeout)

    async def serves(self, kind: Kind) -> bool:
        """See Cluster.serves."""
        try:
            found = await self._call(_Request("get", Ref(kind, "", ""), "GET", kind.path, {}))
        except errors.NotFoundError:
            return False
        return any(text(each, "name") == kind.plural for each in documents(found, "resources"))

    async def get(self, ref: Ref) -> Document | None:
        """See Cluster.get."""
        try:
            found = await self._call(_Request("get", ref, "GET", _path(ref), {}))
        except errors.NotFoundError:
            return None
        return _typed(found, ref.kind)

    async def list(self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None) -> ObjectList:
        """See Cluster.list. Pages of 500; if a page expires on the way, everything is asked for at once."""
        ref = Ref(kind, namespace, "")
        query = _selector(labels)
        items: list[Document] = []
        token = ""
        while True:
            page_query = {**query, "limit": str(PAGE)} | ({"continue": token} if token else {})
            try:
                page = await self._call(_Request("list", ref, "GET", _path(ref), page_query))
            except errors.ConflictError:
                items.clear()
                page = await self._call(_Request("list", ref, "GET", _path(ref), query))
            items.extend(_typed(item, kind) for item in documents(page, "items"))
            token = text(page, "metadata", "continue")
            if not token:
                return ObjectList(tuple(items), text(page, "metadata", "resourceVersion"))

    @asynccontextmanager
    async def watch(
        self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None, *, resource_version: str
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """See Cluster.watch."""
        ref = Ref(kind, namespace, "")
        query = {
            **_selector(labels),
            "watch": "1",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=None, connect=self._timeout.total, sock_read=BOOKMARK_SECONDS)
        request = _Request("watch", ref, "GET", _path(ref), query)
        async with self._answer(request, timeout) as response:
            yield self._events(request, response)

    async def _events(self, request: _Request, response: aiohttp.ClientResponse) -> AsyncIterator[WatchEvent]:
        # Objects may be larger than the line limit of aiohttp's reader, so lines are cut here.
        pending = b""
        try:
            async for chunk in response.content.iter_any():
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield _watch_event(request, orjson.loads(line))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _no_answer(request, error) from error

    async def apply(
        self, document: Document, *, field_manager: str = FIELD_MANAGER, expected: Precondition | None = None
    ) -> Document:
        """See Cluster.apply."""
        return await self._patch(ref_of(document), document, "", field_manager, expected)

    async def dry_run(self, document: Document) -> Document:
        """See Cluster.dry_run."""
        return await self._patch(ref_of(document), document, "", FIELD_MANAGER, None, dry_run=True)

    async def apply_status(
        self, document: Document, *, field_manager: str = FIELD_MANAGER, expected: Precondition | None = None
    ) -> Document:
        """See Cluster.apply_status."""
        intent = {
            "apiVersion": document["apiVersion"],
            "kind": document["kind"],
            "metadata": {"name": name_of(document), "namespace": namespace_of(document)},
            "status": without_empty_maps(document["status"]),
        }
        return await self._patch(ref_of(document), intent, "/status", field_manager, expected)

    async def delete(self, ref: Ref, *, expected: Precondition | None = None) -> None:
        """See Cluster.delete."""
        options: dict[str, JSON] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if expected is not None:
            options["preconditions"] = _stated(expected)
        try:
            await self._call(_Request("delete", ref, "DELETE", _path(ref), {}, orjson.dumps(options)))
        except errors.NotFoundError:
            return

    async def create_event(self, event: Document) -> None:
        """See Cluster.create_event."""
        ref = Ref(EVENT, namespace_of(event), name_of(event))
        path = _path(Ref(EVENT, ref.namespace, ""))
        try:
            await self._call(_Request("create", ref, "POST", path, {}, orjson.dumps(event)))
        except errors.ConflictError:
            return

    async def _patch(
        self,
        ref: Ref,
        document: Document,
        subresource: str,
        field_manager: str,
        expected: Precondition | None,
        *,
        dry_run: bool = False,
    ) -> Document:
        body = {**document, "metadata": {**mapping(document, "metadata"), **(_stated(expected) if expected else {})}}
        request = _Request(
            verb="patch",
            ref=ref,
            method="PATCH",
            path=_path(ref) + subresource,
            query={"fieldManager": field_manager, "force": "true", **({"dryRun": "All"} if dry_run else {})},
            body=orjson.dumps(body),
            content_type="application/apply-patch+yaml",
        )
        return _typed(await self._call(request), ref.kind)

    async def _call(self, request: _Request) -> Document:
        async with self._answer(request, self._timeout) as response:
            try:
                parsed = orjson.loads(await response.read())
            except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
                raise _no_answer(request, error) from error
        if not isinstance(parsed, dict):
            raise _no_answer(request, TypeError("the answer is not an object"))
        return parsed

    @asynccontextmanager
    async def _answer(self, request: _Request, timeout: aiohttp.ClientTimeout) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"Content-Type": request.content_type, "Accept": "application/json"}
        try:
            async with self._session.request(
                request.method,
                self._server + request.path,
                params=dict(request.query),
                data=request.body,
                headers=headers,
                timeout=timeout,
            ) as response:
                if response.status >= 400:
                    raise _refusal(request, response.status, response.headers, await response.read())
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _no_answer(request, error) from error


@asynccontextmanager
async def connect(
    access: Access, observe_request: RequestObserver, *, request_timeout: float = REQUEST_TIMEOUT
) -> AsyncIterator[KubernetesCluster]:
    """Open a client whose requests end after `request_timeout` seconds; its connections close with the context."""
    async with open_session(access, observe_request) as session:
        yield KubernetesCluster(access.server, session, request_timeout)


def _path(ref: Ref) -> str:
    scope = f"/namespaces/{ref.namespace}" if ref.namespace else ""
    return f"{ref.kind.path}{scope}/{ref.kind.plural}" + (f"/{ref.name}" if ref.name else "")


def _selector(labels: Mapping[str, str] | None) -> dict[str, str]:
    if not labels:
        return {}
    return {"labelSelector": ",".join(f"{key}={labels[key]}" for key in sorted(labels))}


def _stated(expected: Precondition) -> dict[str, str]:
    parts = {"uid": expected.uid, "resourceVersion": expected.resource_version}
    return {key: part for key, part in parts.items() if part}


def _typed(document: Document, kind: Kind) -> Document:
    """Return the object with apiVersion and kind, which lists leave out of their items."""
    return {**document, "apiVersion": kind.api_version, "kind": kind.kind}


def _watch_event(request: _Request, line: Document) -> WatchEvent:
    found = mapping(line, "object")
    match text(line, "type"):
        case ("ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK") as event_type:
            return WatchEvent(event_type, _typed(found, request.ref.kind))
        case _:  # ERROR: its object is a Status
            raise _error(request, integer(found, "code"), text(found, "message"), 0.0)


def _refusal(request: _Request, status: int, headers: Mapping[str, str], body: bytes) -> errors.ClusterError:
    try:
        parsed = orjson.loads(body)
        message = text(parsed, "message") if isinstance(parsed, dict) else ""
    except orjson.JSONDecodeError:
        message = ""
    retry_after = headers.get("Retry-After", "")
    return _error(
        request,
        status,
        message or body[:200].decode(errors="replace").strip(),
        float(retry_after) if retry_after.isdigit() else 0.0,
    )


def _error(request: _Request, status: int, message: str, retry_after: float) -> errors.ClusterError:
    kind, namespace, name = request.ref.kind.kind, request.ref.namespace, request.ref.name
    if status >= 500 and message.startswith("failed to create typed patch object"):
        # A field of the wrong type in a server-side apply comes back as 500, though it is the sender's fault.
        status = 422
    if status in (401, 403):
        remedy = f"Check the operator's rights to {request.verb} {request.ref.kind.plural}."
        return errors.ForbiddenError(message, kind=kind, namespace=namespace, name=name, status=status, remedy=remedy)
    if status in _BY_STATUS:
        return _BY_STATUS[status](message, kind=kind, namespace=namespace, name=name, status=status)
    return errors.UnavailableError(
        message, kind=kind, namespace=namespace, name=name, status=status, retry_after=retry_after
    )


def _no_answer(request: _Request, error: Exception) -> errors.ClusterError:
    message = f"the API server did not answer a {request.verb}: {type(error).__name__} {error}".strip()
    return _error(request, 0, message, 0.0)
