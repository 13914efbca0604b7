"""A Ray head as a submitter sees it: the jobs API, with faults on demand."""

import asyncio
from dataclasses import dataclass, field

from aiohttp import web

TOKEN = "ray-token"


@dataclass
class Head:
    """A Ray head: what it knows of jobs, and what it says."""

    pieces: list[str] = field(default_factory=lambda: ["one\n", "two\n"])
    ends: str = "SUCCEEDED"
    refuses: str = ""
    cuts_log_after: int | None = None
    """Drop the connection of the first tail after so many pieces."""
    forgets: bool = False
    """Restart when the log was read: no job is known any more."""
    hangs: bool = False
    """Never end, until it is `gone`."""
    submitted: list[str] = field(default_factory=list)
    statuses: dict[str, str] = field(default_factory=dict)
    tails: int = 0
    tailing: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/api/jobs/", self._submit)
        app.router.add_get("/api/jobs/{id}", self._record)
        app.router.add_get("/api/jobs/{id}/logs/tail", self._tail)
        return app

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if self.refuses:
            return web.Response(status=400, text=self.refuses)
        self.submitted.append(body["entrypoint"])
        self.statuses[body["submission_id"]] = "RUNNING"
        return web.json_response({"submission_id": body["submission_id"]})

    async def _record(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        status = self.statuses.get(request.match_info["id"])
        if status is None:
            return web.Response(status=404, text="does not exist")
        environment = {"env_vars": {"AWS_SECRET_ACCESS_KEY": "canary-secret"}}
        message = "it said canary-secret" if status == "FAILED" else ""
        return web.json_response({"status": status, "message": message, "runtime_env": environment})

    async def _tail(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.tails += 1
        for number, piece in enumerate(self.pieces):
            if self.tails == 1 and number == self.cuts_log_after:
                assert request.transport is not None
                request.transport.close()
                return socket
            await socket.send_str(piece)
        self.tailing.set()
        if self.hangs:
            await self.gone.wait()
        if self.forgets:
            self.statuses.clear()
        elif not self.hangs:
            self.statuses[request.match_info["id"]] = self.ends
        return socket
