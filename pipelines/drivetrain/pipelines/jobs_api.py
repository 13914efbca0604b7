"""Ray's jobs API, as far as the submitter uses it."""

import json
from collections.abc import AsyncIterator

import aiohttp

from drivetrain.api.documents import Document, integer, text, value
from drivetrain.api.dossier import JobRecord
from drivetrain.api.errors import ReportedError

TERMINAL = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
_REQUEST_SECONDS = 20.0
_SUBMIT_SECONDS = 90.0
"""Ray starts the job's supervisor before it answers."""
_HEARTBEAT_SECONDS = 20.0
"""A head that is gone without a word is noticed after this time."""
_MESSAGE = 8192


class HeadSilentError(ReportedError):
    """The head does not answer."""

    def __init__(self, address: str, cause: object) -> None:
        super().__init__("HeadSilent", f"Ray's head does not answer at {address}: {cause or type(cause).__name__}.")


class RefusedError(ReportedError):
    """Ray understood the submission and refuses it."""

    def __init__(self, told: str) -> None:
        super().__init__("SubmissionRefused", f"Ray refuses the job: {told.strip()[-2000:] or 'it does not say why'}.")


class JobsApi:
    """One head. Methods raise HeadSilentError when it does not answer."""

    def __init__(self, session: aiohttp.ClientSession, address: str, token: str) -> None:
        self._session = session
        self.address = address if "://" in address else f"http://{address}"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def record(self, submission: str) -> JobRecord | None:
        """What Ray knows of a job; None where it does not know it."""
        status, found = await self._call("GET", f"/api/jobs/{submission}", None, _REQUEST_SECONDS)
        if status == 404:
            return None
        if status != 200:
            raise HeadSilentError(self.address, f"HTTP {status}")
        code = value(found, "driver_exit_code")
        return JobRecord(
            status=text(found, "status")[:32],
            message=text(found, "message")[-_MESSAGE:],
            error_type=text(found, "error_type")[:128],
            entrypoint=text(found, "entrypoint")[:1024],
            driver_exit_code=code if isinstance(code, int) else None,
            start_time=integer(found, "start_time"),
            end_time=integer(found, "end_time"),
        )

    async def submit(self, submission: str, entrypoint: str) -> None:
        """Submits the job. Raises RefusedError for what would be refused again; an id that is taken is success."""
        body: Document = {"submission_id": submission, "entrypoint": entrypoint, "runtime_env": {}, "metadata": {}}
        status, found = await self._call("POST", "/api/jobs/", body, _SUBMIT_SECONDS)
        if status < 400 or await self.record(submission) is not None:
            return
        if status < 500:
            raise RefusedError(text(found, "error"))
        raise HeadSilentError(self.address, f"HTTP {status}, {text(found, 'error')[-300:]}")

    async def tail(self, submission: str) -> AsyncIterator[str]:
        """The job's log from its beginning, as it grows, until the job has ended or the connection."""
        address = f"{self.address}/api/jobs/{submission}/logs/tail"
        try:
            async with self._session.ws_connect(
                address, headers=self._headers, heartbeat=_HEARTBEAT_SECONDS, max_msg_size=0
            ) as socket:
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        yield message.data
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise HeadSilentError(self.address, error) from error

    async def _call(self, method: str, path: str, body: Document | None, seconds: float) -> tuple[int, Document]:
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self._session.request(
                method, self.address + path, json=body, headers=self._headers, timeout=timeout
            ) as answer:
                content = await answer.text()
                return answer.status, _document(content)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise HeadSilentError(self.address, error) from error


def _document(content: str) -> Document:
    try:
        found = json.loads(content)
    except ValueError:
        return {"error": content}
    return found if isinstance(found, dict) else {"error": content}
