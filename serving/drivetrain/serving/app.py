"""The Serve application: endpoint replicas behind one ingress, and one Monitor. The only module that knows Ray."""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve import Application
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from drivetrain.api import image
from drivetrain.api.policy import EndpointConfig
from drivetrain.serving.access import Keys
from drivetrain.serving.endpoint import Endpoint as EndpointApp
from drivetrain.serving.monitor import Monitor as MonitorShell
from drivetrain.serving.replica import NotReadyError, Replica
from drivetrain.serving.reporting import report_writer
from drivetrain.serving.settings import Settings
from drivetrain.serving.source_files import SourceWatch

REPORT_SECONDS = 1.0
NUMBER_SECONDS = 20.0


_LOGGING = {"enable_access_log": False}  # a line per request costs more than the decision


@serve.deployment(name="Monitor", num_replicas=1, max_ongoing_requests=64, logging_config=_LOGGING)
class Monitor:
    """Gathers replicas' states, numbers outcomes, tails the log, reports."""

    def __init__(self) -> None:
        settings = Settings.of(os.environ)
        self._monitor = MonitorShell(
            settings,
            settings.open_store(os.environ),
            report_writer(settings, os.environ),
            SourceWatch(settings.bucket, os.environ),
        )
        self._running: asyncio.Task[None] | None = None

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Takes over an EndpointConfig."""
        self._monitor.configure(EndpointConfig.model_validate(user_config))
        if self._running is None:
            self._running = asyncio.create_task(self._monitor.run())

    async def report(self, state: Any) -> None:
        """A replica's ReplicaState."""
        self._monitor.heard(state)

    async def number(self, reports: list[tuple[str, str]]) -> list[int]:
        """Numbers reports of outcomes, (decision id, content) each."""
        return await self._monitor.number(reports)


@serve.deployment(name="Endpoint", max_ongoing_requests=256, logging_config=_LOGGING)
@serve.ingress()
class Endpoint:
    """One replica of the endpoint."""

    def __init__(self, monitor: "DeploymentHandle[Any]") -> None:
        settings = Settings.of(os.environ)
        self._monitor = monitor
        self._replica = Replica(settings, settings.open_store(os.environ), f"{settings.deployment}-r")
        self._keys = Keys(settings.keys)
        self._reporting: asyncio.Task[None] | None = None

    def __serve_build_asgi_app__(self) -> EndpointApp:
        return EndpointApp(self._replica, self._keys, self._number)

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Takes over an EndpointConfig: within 50 ms, except before this replica's first request."""
        config = EndpointConfig.model_validate(user_config)
        if self._reporting is not None:
            self._replica.configure(config)
            return
        self._replica.start()
        self._reporting = asyncio.create_task(self._report())
        await self._replica.first_configuration(config)

    async def _number(self, reports: list[tuple[str, str]]) -> list[int]:
        try:
            numbers: list[int] = await asyncio.wait_for(self._monitor.number.remote(reports), NUMBER_SECONDS)
        except (RayError, RayServeException, TimeoutError) as error:
            raise NotReadyError("The Monitor is restarting.", remedy="Report the same outcomes again.") from error
        return numbers

    async def _report(self) -> None:
        while True:
            self._monitor.report.remote(self._replica.state())
            await asyncio.sleep(REPORT_SECONDS)

    async def __del__(self) -> None:
        if self._reporting is not None:
            self._reporting.cancel()
        await self._replica.close()


def build(args: Mapping[str, Any]) -> Application:
    """The application of a Deployment; configuration comes as `user_config` of both deployments.

    Raises ImageError where this image is not the expected one: Serve shows it as the application's failure, and no
    replica starts.
    """
    image.check(os.environ, image.found())
    return Endpoint.bind(Monitor.bind())  # type: ignore[attr-defined,no-any-return]  # mypy sees the plain classes
