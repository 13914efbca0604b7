"""The agent's client of Ray's REST APIs, against a server that answers as Ray 2.60 was seen to."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from drivetrain.api.errors import ComponentError
from drivetrain.local.agent.facts import RayJobInfo
from drivetrain.local.agent.ray_api import RayApi, RefusedError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def ray(**handlers: Handler) -> AsyncIterator[RayApi]:
    """A Ray that has these answers, by `METHOD_place`; every request must bring the token."""
    places = {
        "GET_job": ("GET", "/api/jobs/{id}"),
        "POST_jobs": ("POST", "/api/jobs/"),
        "GET_serve": ("GET", "/api/serve/applications/"),
        "PUT_serve": ("PUT", "/api/serve/applications/"),
    }

    @web.middleware
    async def checked(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get("Authorization") != "Bearer secret":
            return web.Response(status=401, text="Unauthorized")
        return await handler(request)

    application = web.Application(middlewares=[checked])
    for name, handler in handlers.items():
        application.router.add_route(*places[name], handler)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession() as session:
            yield RayApi(session, f"http://127.0.0.1:{runner.addresses[0][1]}", "secret")
    finally:
        await runner.cleanup()


def answers(status: int, body: object) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        return (
            web.json_response(body, status=status)
            if not isinstance(body, str)
            else web.Response(status=status, text=body)
        )

    return handler


async def test_a_job_is_read_with_its_times() -> None:
    body = {"status": "FAILED", "message": "no", "start_time": 1000, "end_time": None, "submission_id": "a"}
    async with ray(GET_job=answers(200, body)) as api:
        assert await api.job("a") == RayJobInfo("FAILED", "no", 1000, 0)


async def test_an_unknown_job_is_none() -> None:
    async with ray(GET_job=answers(404, "Job a does not exist")) as api:
        assert await api.job("a") is None


async def test_a_second_submission_of_one_id_is_success() -> None:
    known = {"status": "RUNNING", "message": ""}
    refused = answers(400, "Traceback ... ValueError: Job with submission_id a already exists.")
    async with ray(POST_jobs=refused, GET_job=answers(200, known)) as api:
        await api.submit("a", "true", {}, {})


async def test_a_submission_that_ray_refuses_says_why() -> None:
    async with ray(POST_jobs=answers(400, "bad runtime_env"), GET_job=answers(404, "unknown")) as api:
        with pytest.raises(RefusedError, match="bad runtime_env"):
            await api.submit("a", "true", {"env_vars": {}}, {})


async def test_serve_that_was_never_started_has_no_applications() -> None:
    async with ray(GET_serve=answers(200, {"applications": {}})) as api:
        assert await api.applications() == {}


async def test_a_configuration_that_serve_refuses_is_told_from_a_serve_that_fails() -> None:
    async with ray(PUT_serve=answers(400, "1 validation error for ServeDeploySchema")) as api:
        with pytest.raises(RefusedError, match="validation error"):
            await api.deploy({"applications": []})
    async with ray(PUT_serve=answers(503, "controller is not ready")) as api:
        with pytest.raises(ComponentError, match="not ready") as caught:
            await api.deploy({"applications": []})
        assert not isinstance(caught.value, RefusedError)


async def test_silence_is_an_error_with_the_address() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ComponentError, match="does not answer at http"):
            await RayApi(session, "http://127.0.0.1:1", "secret").job("a")


async def test_a_wrong_token_says_what_to_do() -> None:
    async with ray(GET_job=answers(200, {})) as right, aiohttp.ClientSession() as session:
        wrong = RayApi(session, right._url, "other")
        with pytest.raises(ComponentError, match="refuses the token"):
            await wrong.job("a")
