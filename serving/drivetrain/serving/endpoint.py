"""The HTTP surface of a replica: a plain ASGI application, because a framework's routing costs more than a decision."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.types import Message, Receive, Scope, Send

from drivetrain.api.errors import ModelError, StoreError
from drivetrain.serving import inference, openapi
from drivetrain.serving.access import Keys, Purpose, TokenBucket
from drivetrain.serving.replica import NotReadyError, Number, Replica
from drivetrain.serving.rows import RowProblem, RowsError

BODY_LIMIT: Final = 8 * 1024 * 1024
INLINE_ROWS: Final = 8
"""Batches up to this size are decided on the event loop: a thread would cost more than it frees."""
ROWS_PER_SECOND: Final = 20_000.0
BURST_ROWS: Final = 40_000.0
_JSON: Final = b"application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back."""

    status: int
    body: bytes
    content_type: bytes = _JSON
    retry_after: float = 0.0


class HttpError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, reason: str, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.answer = problem(status, reason, message, retry_after=retry_after)


def problem(status: int, reason: str, message: str, *, retry_after: float = 0.0, **more: object) -> Answer:
    """An error as the caller reads it."""
    return Answer(status, orjson.dumps({"error": {"reason": reason, "message": message, **more}}), _JSON, retry_after)


@dataclass(frozen=True, slots=True)
class _Request:
    path: str
    headers: Mapping[bytes, bytes]
    body: bytes


class Endpoint:
    """Routes requests to a replica. `number` numbers reports of outcomes; the Monitor does."""

    def __init__(self, replica: Replica, keys: Keys, number: Number) -> None:
        self._replica = replica
        self._keys = keys
        self._number = number
        self._bucket = TokenBucket(ROWS_PER_SECOND, BURST_ROWS)
        self._workers = ThreadPoolExecutor(1, thread_name_prefix="decide")
        self._posts: dict[str, tuple[Purpose, Callable[[_Request], Awaitable[Answer]]]] = {
            "/v1/decide": ("decide", self._decide),
            "/v1/simulate": ("decide", self._simulate),
            "/v1/outcomes": ("outcomes", self._outcomes),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        path = _path(scope)
        try:
            answer = await self._answer(scope, path, receive)
        except HttpError as error:
            answer = error.answer
        except RowsError as error:
            faults = [{"row": p.row, "field": p.field, "cause": p.cause} for p in error.problems]
            answer = problem(422, "InvalidRows", str(error), problems=faults)
        except NotReadyError as error:
            answer = problem(503, "NotReady", str(error), retry_after=2)
        except StoreError as error:
            answer = problem(503, error.reason, str(error), retry_after=2)
        except ModelError as error:
            answer = problem(500, error.reason, str(error))
        except OSError as error:
            answer = problem(503, "JournalUnavailable", f"The decision log cannot be written: {error}", retry_after=2)
        await _send(send, answer)
        route = path if path in self._posts else "/v2" if path.startswith("/v2") else "other"
        self._replica.metrics.answered(route, answer.status, time.perf_counter() - started)

    async def _answer(self, scope: Scope, path: str, receive: Receive) -> Answer:
        method = scope["method"]
        post = self._posts.get(path)
        if post is not None and self._replica.pinned:
            told = f"This endpoint serves a pinned version on /v2 only. A Deployment that names a project has {path}."
            raise HttpError(404, "VersionPinned", told)
        if post is not None:
            if method != "POST":
                raise HttpError(405, "MethodNotAllowed", f"{path} takes POST.")
            headers = dict(scope["headers"])
            self._authorize(post[0], headers)
            return await post[1](_Request(path, headers, await _body(headers, receive)))
        if path.startswith("/v2"):
            return await self._inference(scope, path, receive)
        if method in ("GET", "HEAD"):
            return self._page(path)
        raise HttpError(404, "NotFound", f"There is nothing at {path}; see /docs.")

    def _page(self, path: str) -> Answer:
        replica = self._replica
        if path == "/metrics":
            return Answer(200, replica.metrics.text(ready=replica.ready).encode(), b"text/plain; version=0.0.4")
        if path == "/openapi.json":
            return Answer(200, orjson.dumps(openapi.document(replica.serving)))
        if path in ("/", "/docs"):
            return Answer(200, openapi.page(replica.serving).encode(), b"text/html; charset=utf-8")
        if path in ("/healthz", "/-/healthz"):
            return Answer(200, b'{"live":true}')
        raise HttpError(404, "NotFound", f"There is nothing at {path}; see /docs.")

    async def _decide(self, request: _Request) -> Answer:
        rows = _field(_parsed(request.body), "rows")
        self._limit(rows)
        if isinstance(rows, list) and len(rows) > INLINE_ROWS:
            loop = asyncio.get_running_loop()
            return Answer(200, await loop.run_in_executor(self._workers, self._replica.decide, rows))
        return Answer(200, self._replica.decide(rows))

    async def _simulate(self, request: _Request) -> Answer:
        document = _parsed(request.body)
        rows, actions = _field(document, "rows"), _field(document, "actions")
        self._limit(rows)
        policy = document.get("policy", "stable")
        if policy not in ("stable", "candidate"):
            raise RowsError([RowProblem(0, "policy", "must be stable or candidate.")])
        answer = await asyncio.get_running_loop().run_in_executor(
            self._workers, lambda: self._replica.simulate(rows, actions, candidate=policy == "candidate")
        )
        return Answer(200, answer)

    async def _outcomes(self, request: _Request) -> Answer:
        documents = _field(_parsed(request.body), "outcomes")
        self._limit(documents)
        recorded = await self._replica.record(documents, self._number)
        self._replica.metrics.recorded(len(recorded))
        rows = [{"decisionId": outcome.decision_id, "correction": number} for outcome, number in recorded]
        return Answer(200, orjson.dumps({"outcomes": rows}))

    async def _inference(self, scope: Scope, path: str, receive: Receive) -> Answer:
        parts = tuple(part for part in path.split("/") if part)[1:]
        replica = self._replica
        if parts == ("health", "live"):
            return Answer(200, b'{"live":true}')
        if parts == ("health", "ready"):
            return Answer(200 if replica.ready else 503, b'{"ready":true}' if replica.ready else b'{"ready":false}')
        headers = dict(scope["headers"])
        self._authorize("decide", headers)
        if scope["method"] == "POST" and parts[-1:] == ("infer",):
            document = _parsed(await _body(headers, receive))
            found = inference.model_at(replica.serving, parts[:-1])
            if found is None:
                raise HttpError(404, "ModelNotFound", f"There is no model at {path}.")
            request = inference.parse(document, found)
            self._limit([None] * request.rows)
            answer = await asyncio.get_running_loop().run_in_executor(
                self._workers, inference.infer, found, request, replica.serving
            )
            return Answer(200, answer)
        described = inference.describe(replica.serving, parts)
        if described is None:
            raise HttpError(404, "ModelNotFound", f"There is no model at {path}.")
        return Answer(200, orjson.dumps(described))

    def _authorize(self, purpose: Purpose, headers: Mapping[bytes, bytes]) -> None:
        header = headers.get(b"authorization", b"").decode("latin-1")
        verdict = self._keys.allows(purpose, header, time.monotonic())
        if verdict == "forbidden":
            raise HttpError(403, "Forbidden", f"This key does not open {purpose}.")
        if verdict == "unknown":
            raise HttpError(401, "Unauthorized", "Send the key as 'Authorization: Bearer KEY'.")

    def _limit(self, rows: object) -> None:
        count = len(rows) if isinstance(rows, list) else 1
        wait = self._bucket.take(max(count, 1), time.monotonic())
        if wait > 0:
            raise HttpError(429, "TooManyRows", f"More than {ROWS_PER_SECOND:g} rows a second.", retry_after=wait)


async def _body(headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
    length = headers.get(b"content-length", b"0")
    too_large = HttpError(413, "TooLarge", f"A request takes at most {BODY_LIMIT} bytes.")
    if length.isdigit() and int(length) > BODY_LIMIT:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise HttpError(400, "Disconnected", "The request ended early.")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > BODY_LIMIT:
            raise too_large
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise HttpError(400, "InvalidJson", f"The body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise HttpError(400, "InvalidJson", "The body must be a JSON object.")
    return document


def _field(document: Mapping[str, Any], name: str) -> object:
    if name not in document:
        raise RowsError([RowProblem(0, name, "is missing from the body.")])
    return document[name]


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    path = path[len(root) :] if root and path.startswith(root) else path
    return path.rstrip("/") or "/"


async def _send(send: Send, answer: Answer) -> None:
    headers = [(b"content-type", answer.content_type), (b"content-length", str(len(answer.body)).encode())]
    if answer.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if answer.retry_after > 0:
        headers.append((b"retry-after", str(max(1, round(answer.retry_after))).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
