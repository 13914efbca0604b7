"""The submitter of a run's RayJob: submits the driver, follows its log, and leaves a dossier however it ends.

It runs in a Pod of its own beside the cluster, so that what is left of a driver outlives its head. KubeRay tells it
where the head is, the submission id and the token. Exit codes: 0 the job ended, or the head lost it (KubeRay asks Ray
which); 1 Ray never took the job; 143 told to stop. An id that Ray knows already is followed, never submitted again.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import aiohttp
from pydantic import ConfigDict, ValidationError

from drivetrain.api.canonical import canonical_json
from drivetrain.api.dossier import TRIALS_LIMIT, Dossier, Ending, JobRecord, TriedModel
from drivetrain.api.errors import DrivetrainError, StoreError
from drivetrain.api.layout import attempt as attempt_key
from drivetrain.api.layout import dossier as dossier_key
from drivetrain.api.meta import ApiModel
from drivetrain.api.names import ATTEMPT_ENV, SPEC_ENV
from drivetrain.api.v1alpha1.dataset import Store
from drivetrain.pipelines.jobs_api import TERMINAL, HeadSilentError, JobsApi, RefusedError
from drivetrain.pipelines.transcript import Transcript, secret_values
from drivetrain.store import ObjectStore, open_store

_LOG = logging.getLogger("drivetrain.submit")

ADDRESS_ENV: Final = "RAY_DASHBOARD_ADDRESS"
SUBMISSION_ENV: Final = "RAY_JOB_SUBMISSION_ID"
TOKEN_ENV: Final = "RAY_AUTH_TOKEN"  # noqa: S105 - the name of a variable
_ENDINGS: Final[Mapping[str, Ending]] = {"SUCCEEDED": "Succeeded", "FAILED": "Failed", "STOPPED": "Stopped"}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds."""

    submission: float = 300
    """Until Ray has taken the job."""
    silence: float = 120
    """Until a head that does not answer is given up."""
    pause: float = 2
    last_look: float = 2
    """For Ray's record of the job, when told to stop."""
    store: float = 60
    """Until a store that does not answer is given up, unless told to stop."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How following a job ended."""

    ended: Ending
    message: str = ""
    job: JobRecord | None = None


async def submit_and_follow(
    api: JobsApi, submission: str, entrypoint: str, transcript: Transcript, patience: Patience
) -> Outcome:
    """Submits the job unless Ray knows its id, and follows it to its end."""
    try:
        await _submitted(api, submission, entrypoint, patience)
    except HeadSilentError as error:
        return Outcome("NotSubmitted", f"{error.message} Given up after {patience.submission:g} s.")
    except RefusedError as error:
        return Outcome("NotSubmitted", error.message)
    return await _followed(api, submission, transcript, patience)


async def _submitted(api: JobsApi, submission: str, entrypoint: str, patience: Patience) -> None:
    """Returns once Ray knows the job. Raises RefusedError, and HeadSilentError when the time is up."""
    now = asyncio.get_running_loop().time
    until = now() + patience.submission
    while True:
        try:
            if await api.record(submission) is not None:
                _LOG.info("Ray knows %s already; following it", submission)
                return
            await api.submit(submission, entrypoint)
        except HeadSilentError as error:
            if now() >= until:
                raise
            _LOG.warning("%s Trying again.", error.message)
            await asyncio.sleep(patience.pause)
        else:
            _LOG.info("submitted %s: %s", submission, entrypoint)
            return


async def _followed(api: JobsApi, submission: str, transcript: Transcript, patience: Patience) -> Outcome:
    job: JobRecord | None = None
    silent_since: float | None = None
    now = asyncio.get_running_loop().time
    while True:
        try:
            transcript.rewind()
            async for piece in api.tail(submission):
                silent_since = None
                transcript.hear(piece)
        except HeadSilentError as error:
            _LOG.warning("%s", error.message)  # whether the job goes on is asked below
        try:
            found = await api.record(submission)
        except HeadSilentError as error:
            silent_since = now() if silent_since is None else silent_since
            if now() - silent_since >= patience.silence:
                return Outcome("Lost", f"{error.message} Given up after {patience.silence:g} s.", job)
        else:
            if found is None:
                return Outcome("Lost", "The head knows the job no more: it was restarted.", job)
            job, silent_since = found, None
            if found.status in TERMINAL:
                return Outcome(_ENDINGS[found.status], job=found)
        await asyncio.sleep(patience.pause)


async def run(
    api: JobsApi, submission: str, entrypoint: str, transcript: Transcript, *, patience: Patience, stop: asyncio.Event
) -> Outcome:
    """Like submit_and_follow, but ends when `stop` is set: with Ray's last word on the job, if there is time for it."""
    following = asyncio.create_task(submit_and_follow(api, submission, entrypoint, transcript, patience))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            return following.result()
    finally:
        following.cancel()
        stopping.cancel()
    job: JobRecord | None = None
    try:
        job = await asyncio.wait_for(api.record(submission), patience.last_look)
    except (TimeoutError, HeadSilentError):
        _LOG.warning("the head is silent already")
    if job is not None and job.status in TERMINAL:
        return Outcome(_ENDINGS[job.status], job=job)
    return Outcome("Terminated", "The submitter was told to stop: suspension, eviction or deletion.", job)


@dataclass(frozen=True, slots=True)
class Archive:
    """Where the dossiers of an attempt go."""

    store: ObjectStore
    run: str
    run_uid: str
    attempt: int

    def keep(self, submission: str, outcome: Outcome, transcript: Transcript, at: datetime) -> str:
        """Writes the dossier and returns where it lies. Raises StoreError."""
        found = sorted(
            self.store.list(f"{attempt_key(self.run_uid, self.attempt)}/trials/"), key=lambda info: info.modified
        )
        job = outcome.job
        dossier = Dossier(
            run=self.run,
            attempt=self.attempt,
            submission=submission,
            ended=outcome.ended,
            at=at,
            message=transcript.hide(outcome.message)[:1024],
            # Ray's message repeats the end of the log.
            job=job.model_copy(update={"message": transcript.hide(job.message)}) if job else None,
            trials_done=len(found),
            trials=tuple(self._trial(info.key) for info in found[-TRIALS_LIMIT:]),
            log=transcript.text(),
            log_cut=transcript.cut,
        )
        key = dossier_key(self.run_uid, self.attempt, submission)
        self.store.put(key, canonical_json(dossier).encode())
        return self.store.uri(key)

    def _trial(self, key: str) -> TriedModel:
        record = json.loads(self.store.get(key))
        return TriedModel(candidate=record["candidate"], metrics=record["metrics"], seconds=record["seconds"])


async def insist(keep: Callable[[], str], *, patience: Patience, stop: asyncio.Event) -> None:
    """Keeps the dossier, again and again while the store does not answer and nobody says to stop."""
    now = asyncio.get_running_loop().time
    until = now() + patience.store
    while True:
        last = stop.is_set() or now() >= until
        try:
            _LOG.info("the dossier is %s", keep())
            return
        except StoreError as error:
            _LOG.error("the dossier cannot be kept: %s", error)
            if last or error.reason != "StoreUnavailable":
                return
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), patience.pause)


class _Store(Store):
    model_config = ConfigDict(extra="ignore")


class _Data(ApiModel):
    model_config = ConfigDict(extra="ignore")
    store: _Store


class _Run(ApiModel):
    """What a dossier needs of a RunSpec. The rest may be a newer operator's: then the driver, which checks its image
    before it reads the spec, is the one to say so."""

    model_config = ConfigDict(extra="ignore")
    run: str
    run_uid: str
    data: _Data


def archive_from(env: Mapping[str, str]) -> Archive | None:
    """The archive of the run whose spec is mounted; None where this image cannot read even what that needs.

    Raises StoreError when there are no credentials.
    """
    try:
        spec = _Run.model_validate_json(Path(env[SPEC_ENV]).read_bytes())
    except ValidationError as error:
        _LOG.warning("no dossier will be kept, since this image cannot read the run's spec: %s", error)
        return None
    return Archive(open_store(spec.data.store, env), spec.run, spec.run_uid, int(env[ATTEMPT_ENV]))


async def _main(env: Mapping[str, str], entrypoint: str, clock: Callable[[], datetime]) -> int:
    patience, stop = Patience(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    submission = env[SUBMISSION_ENV]
    archive = archive_from(env)  # now: what is mounted may go with the cluster, and the end may leave no time
    transcript = Transcript(secret_values(env), _show)
    async with aiohttp.ClientSession() as session:
        api = JobsApi(session, env[ADDRESS_ENV], env.get(TOKEN_ENV, ""))
        outcome = await run(api, submission, entrypoint, transcript, patience=patience, stop=stop)
    _LOG.info("%s: %s", submission, " ".join(part for part in (outcome.ended, outcome.message) if part))
    at = clock()
    if archive is not None:
        await insist(lambda: archive.keep(submission, outcome, transcript, at), patience=patience, stop=stop)
    if outcome.ended == "Terminated":
        return 128 + signal.SIGTERM
    return 1 if outcome.ended == "NotSubmitted" else 0


def _show(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()


def _clock() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - the edge: everything above takes the time as an argument


def main() -> int:
    """Runs with the entrypoint as arguments and all that KubeRay and the operator put into the environment."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        return asyncio.run(_main(dict(os.environ), " ".join(sys.argv[1:]), _clock))
    except DrivetrainError as error:
        _LOG.error("%s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
