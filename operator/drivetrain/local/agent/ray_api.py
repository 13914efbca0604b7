"""Ray's jobs API and Serve's REST API, as far as the agent uses them."""

import json
from collections.abc import Mapping

import aiohttp

from drivetrain.api.documents import JSON, Document, integer, mapping, text
from drivetrain.api.errors import ComponentError
from drivetrain.local.agent.facts import RayJobInfo

REQUEST_SECONDS = 30.0
DEPLOY_SECONDS = 180.0
"""The first deployment starts Serve's controller and proxy before it is answered."""


class RefusedError(ComponentError):
    """Ray understood the request and refuses it; sending it again cannot help."""


class RayApi:
    """One Ray instance. Every method raises ComponentError when Ray does not answer."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str) -> None:
        self._session = session
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}

    async def job(self, submission_id: str) -> RayJobInfo | None:
        """Return what Ray knows of a job, or None when it does not know it."""
        status, found = await self._call("GET", f"/api/jobs/{submission_id}")
        if status == 404:
            return None
        return RayJobInfo(
            status=text(found, "status"),
            message=text(found, "message"),
            start_ms=integer(found, "start_time"),
            end_ms=integer(found, "end_time"),
        )

    async def submit(self, submission_id: str, entrypoint: str, runtime_env: Document, metadata: Document) -> None:
        """Submit a job; an id that Ray knows already is success. Raises RefusedError."""
        body: dict[str, JSON] = {
            "submission_id": submission_id,
            "entrypoint": entrypoint,
            "runtime_env": runtime_env,
            "metadata": metadata,
        }
        status, found = await self._call("POST", "/api/jobs/", body)
        if status >= 400 and await self.job(submission_id) is None:
            raise RefusedError(text(found, "error"))

    async def stop(self, submission_id: str) -> None:
        """Ask a job to end; unknown and finished ones are fine."""
        await self._call("POST", f"/api/jobs/{submission_id}/stop")

    async def applications(self) -> Mapping[str, Document]:
        """Return the details of every Serve application by name; none while Serve has never been started."""
        status, found = await self._call("GET", "/api/serve/applications/")
        if status >= 400:
            raise ComponentError(f"Ray Serve does not tell its applications: {text(found, 'error')}.")
        entries = mapping(found, "applications")
        return {name: entry for name, entry in entries.items() if isinstance(entry, Mapping)}

    async def deploy(self, config: Document) -> None:
        """Give Ray Serve the configuration of everything that it is to run. Raises RefusedError."""
        status, found = await self._call("PUT", "/api/serve/applications/", config, DEPLOY_SECONDS)
        if 400 <= status < 500:
            raise RefusedError(text(found, "error"))
        if status >= 500:
            raise ComponentError(f"Ray Serve does not take the configuration: {text(found, 'error')}.")

    async def _call(
        self, method: str, path: str, body: Document | None = None, seconds: float = REQUEST_SECONDS
    ) -> tuple[int, Document]:
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self._session.request(
                method, self._url + path, json=body, headers=self._headers, timeout=timeout
            ) as response:
                content = await response.text()
                if response.status in (401, 403):
                    raise ComponentError(
                        "Ray refuses the token.", remedy="Run `drivetrain down`, then `drivetrain up`."
                    )
                return response.status, _document(content)
        except (TimeoutError, aiohttp.ClientError) as error:
            raise ComponentError(f"Ray does not answer at {self._url}: {error}.") from error


def _document(content: str) -> Document:
    try:
        found = json.loads(content)
    except ValueError:
        return {"error": content.strip()[-2000:]}
    return found if isinstance(found, dict) else {"error": str(found)}
