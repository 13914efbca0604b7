"""How the API client reads trouble: against a small HTTP server that answers as API servers do in bad moments."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from drivetrain.api.documents import Document, name_of
from drivetrain.api.errors import ClusterError, ConflictError, ForbiddenError, RejectedError, UnavailableError
from drivetrain.api.kinds import CONFIG_MAP, POD, Ref
from drivetrain.controller.cluster.access import Access
from drivetrain.controller.cluster.kubernetes import KubernetesCluster, connect
from drivetrain.controller.cluster.port import WatchEvent

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
REF = Ref(CONFIG_MAP, "team", "a")


@dataclass
class Server:
    """Answers what it is told to; remembers what it was asked."""

    answer: Answer
    requests: list[web.Request] = field(default_factory=list)
    seen: list[tuple[str, str, int]] = field(default_factory=list)
    token: str = "one"


@asynccontextmanager
async def serving(answer: Answer, timeout: float = 5.0) -> AsyncIterator[tuple[KubernetesCluster, Server]]:
    server = Server(answer)

    async def handle(request: web.Request) -> web.StreamResponse:
        server.requests.append(request)
        return await server.answer(request)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    access = Access(
        server=f"http://127.0.0.1:{runner.addresses[0][1]}", token=lambda: server.token, tls=None, namespace="team"
    )

    def observe(verb: str, resource: str, status: int, seconds: float) -> None:
        server.seen.append((verb, resource, status))

    try:
        async with connect(access, observe, request_timeout=timeout) as cluster:
            yield cluster, server
    finally:
        await runner.cleanup()


def status(code: int, message: str, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        body = {"kind": "Status", "code": code, "message": message}
        return web.json_response(
            body, status=code, headers={key.replace("_", "-"): text for key, text in headers.items()}
        )

    return answer


@pytest.mark.parametrize(
    ("code", "message", "error"),
    [
        pytest.param(401, "Unauthorized", ForbiddenError, id="unauthorized"),
        pytest.param(403, "cannot get configmaps", ForbiddenError, id="forbidden"),
        pytest.param(409, "modified", ConflictError, id="conflict"),
        pytest.param(422, "invalid", RejectedError, id="invalid"),
        pytest.param(500, "failed to create typed patch object (a): .data: wrong", RejectedError, id="wrong type"),
        pytest.param(500, "etcdserver: leader changed", UnavailableError, id="internal error"),
        pytest.param(503, "apiserver is shutting down", UnavailableError, id="shutting down"),
        pytest.param(504, "timeout", UnavailableError, id="gateway timeout"),
    ],
)
async def test_refusals_become_errors_that_name_object_status_and_message(
    code: int, message: str, error: type[ClusterError]
) -> None:
    async with serving(status(code, message)) as (cluster, server):
        with pytest.raises(error, match="ConfigMap team/a") as raised:
            await cluster.get(REF)
    assert raised.value.status in (code, 422)
    assert message in str(raised.value)
    assert server.seen == [("get", "configmaps", code)]


async def test_the_wait_that_a_busy_server_asks_for_is_passed_on() -> None:
    async with serving(status(429, "too many requests", Retry_After="7")) as (cluster, _):
        with pytest.raises(UnavailableError) as raised:
            await cluster.get(REF)
    assert raised.value.retry_after == 7.0


async def test_an_answer_that_never_comes_is_unavailable_and_counted_as_no_answer() -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(hang, timeout=0.2) as (cluster, server):
        with pytest.raises(UnavailableError, match="did not answer a get"):
            await cluster.get(REF)
        assert server.seen == [("get", "configmaps", 0)]


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with serving(status(200, "")) as (_, server):
        pass
    gone = Access(server="http://127.0.0.1:9", token=lambda: "", tls=None, namespace="")
    async with connect(gone, lambda *_: None) as cluster:
        with pytest.raises(UnavailableError):
            await cluster.list(POD)
    assert server.requests == []


async def test_an_answer_that_is_no_json_is_unavailable() -> None:
    async def half(_: web.Request) -> web.StreamResponse:
        return web.Response(text='{"kind": "ConfigM')

    async with serving(half) as (cluster, _):
        with pytest.raises(UnavailableError):
            await cluster.get(REF)


async def test_every_request_carries_the_token_of_the_moment() -> None:
    async with serving(status(404, "not found")) as (cluster, server):
        await cluster.get(REF)
        server.token = "two"
        await cluster.get(REF)
    assert [request.headers["Authorization"] for request in server.requests] == ["Bearer one", "Bearer two"]


def pages(*pages_: Document) -> Answer:
    remaining = list(pages_)

    async def answer(_: web.Request) -> web.StreamResponse:
        page = remaining.pop(0)
        return web.json_response(page, status=410 if page.get("kind") == "Status" else 200)

    return answer


def a_page(*names: str, token: str = "") -> Document:
    return {
        "metadata": {"resourceVersion": "9", "continue": token},
        "items": [{"metadata": {"name": n}} for n in names],
    }


async def test_a_list_reads_all_pages_and_never_asks_for_a_cached_version() -> None:
    async with serving(pages(a_page("a", token="t"), a_page("b"))) as (cluster, server):
        found = await cluster.list(CONFIG_MAP)
    assert [name_of(item) for item in found.items] == ["a", "b"]
    assert [request.query.get("continue") for request in server.requests] == [None, "t"]
    assert all("resourceVersion" not in request.query for request in server.requests)


async def test_a_list_whose_pages_expire_starts_again_whole() -> None:
    expired: Document = {"kind": "Status", "code": 410, "message": "the provided continue parameter is too old"}
    async with serving(pages(a_page("a", token="t"), expired, a_page("a", "b", "c"))) as (cluster, server):
        found = await cluster.list(CONFIG_MAP)
    assert [name_of(item) for item in found.items] == ["a", "b", "c"]
    assert "limit" not in server.requests[-1].query


def stream(*chunks: bytes) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        return response

    return answer


def line(event: str, /, **found: object) -> bytes:
    return json.dumps({"type": event, "object": found}).encode() + b"\n"


async def test_watch_lines_are_cut_where_they_end_whatever_their_size_and_packets() -> None:
    large = line("ADDED", metadata={"name": "large"}, data={"x": "y" * 300_000})
    small = line("DELETED", metadata={"name": "small"})
    whole = large + small
    async with (
        serving(stream(whole[:10], whole[10:200_000], whole[200_000:])) as (cluster, _),
        cluster.watch(CONFIG_MAP, resource_version="1") as events,
    ):
        seen = [(event.type, name_of(event.object)) async for event in events]
    assert seen == [("ADDED", "large"), ("DELETED", "small")]


async def first_event(cluster: KubernetesCluster) -> WatchEvent:
    async with cluster.watch(CONFIG_MAP, resource_version="1") as events:
        return await anext(events)


async def test_a_compacted_version_is_a_conflict_whether_told_at_once_or_in_the_stream() -> None:
    gone = line("ERROR", kind="Status", code=410, message="too old resource version")
    for answer in (stream(gone), status(410, "too old resource version")):
        async with serving(answer) as (cluster, _):
            with pytest.raises(ConflictError) as raised:
                await first_event(cluster)
            assert raised.value.status == 410


async def test_any_other_error_in_a_watch_is_raised_too() -> None:
    async with serving(stream(line("ERROR", kind="Status", code=500, message="etcd"))) as (cluster, _):
        with pytest.raises(UnavailableError):
            await first_event(cluster)
