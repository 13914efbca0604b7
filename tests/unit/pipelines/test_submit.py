"""The submitter against a dashboard that answers as Ray's does: submission, the log, and a dossier for every ending."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from drivetrain.api.canonical import canonical_json
from drivetrain.api.dossier import Dossier
from drivetrain.api.errors import StoreError
from drivetrain.api.layout import dossier as dossier_key
from drivetrain.pipelines import submit
from drivetrain.pipelines.jobs_api import JobsApi
from drivetrain.pipelines.submit import Archive, Outcome, Patience, archive_from, insist, run
from drivetrain.pipelines.transcript import HIDDEN, Transcript, secret_values
from drivetrain.store import DirectoryStore
from tests.support.ray_head import TOKEN, Head
from tests.support.shop import a_dataset, a_run

JOB = "shop-1-a1-abcde"
QUICK = Patience(submission=5, silence=0.2, pause=0.01, last_look=0.2, store=5)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@asynccontextmanager
async def reached(head: Head) -> AsyncIterator[tuple[JobsApi, TestServer]]:
    server = TestServer(head.application())
    async with server, aiohttp.ClientSession() as session:
        yield JobsApi(session, f"127.0.0.1:{server.port}", TOKEN), server


async def followed(head: Head, transcript: Transcript, stop: asyncio.Event | None = None) -> Outcome:
    async with reached(head) as (api, _):
        return await run(
            api, JOB, "python -m drivetrain.pipelines", transcript, patience=QUICK, stop=stop or asyncio.Event()
        )


def a_transcript(limit: int = 1000) -> tuple[Transcript, list[str]]:
    shown: list[str] = []
    return Transcript(("canary-secret",), shown.append, limit), shown


async def test_a_job_is_submitted_once_and_its_log_shown() -> None:
    head, (transcript, shown) = Head(), a_transcript()
    outcome = await followed(head, transcript)
    assert (outcome.ended, head.submitted) == ("Succeeded", ["python -m drivetrain.pipelines"])
    assert "".join(shown) == transcript.text() == "one\ntwo\n"


async def test_an_id_that_ray_knows_is_followed_and_not_submitted_again() -> None:
    head, (transcript, _) = Head(statuses={JOB: "RUNNING"}), a_transcript()
    outcome = await followed(head, transcript)
    assert (outcome.ended, head.submitted) == ("Succeeded", [])
    assert transcript.text() == "one\ntwo\n"


async def test_a_lost_connection_shows_no_line_twice() -> None:
    head, (transcript, shown) = Head(cuts_log_after=1), a_transcript()
    assert (await followed(head, transcript)).ended == "Succeeded"
    assert head.tails == 2
    assert "".join(shown) == "one\ntwo\n"


@pytest.mark.parametrize(("status", "ended"), [("FAILED", "Failed"), ("STOPPED", "Stopped")])
async def test_how_a_job_ends_is_rays_word(status: str, ended: str) -> None:
    assert (await followed(Head(ends=status), a_transcript()[0])).ended == ended


async def test_a_refused_job_says_why_and_was_not_submitted() -> None:
    outcome = await followed(Head(refuses="runtime_env is no dictionary"), a_transcript()[0])
    assert outcome.ended == "NotSubmitted"
    assert "runtime_env is no dictionary" in outcome.message


async def test_a_head_that_restarted_has_lost_the_job_and_it_is_not_submitted_again() -> None:
    head, (transcript, _) = Head(forgets=True), a_transcript()
    outcome = await followed(head, transcript)
    assert (outcome.ended, len(head.submitted)) == ("Lost", 1)
    assert transcript.text() == "one\ntwo\n"


async def test_a_head_that_is_gone_for_good_is_given_up() -> None:
    head, (transcript, _) = Head(hangs=True), a_transcript()
    async with reached(head) as (api, server):
        following = asyncio.create_task(run(api, JOB, "x", transcript, patience=QUICK, stop=asyncio.Event()))
        await asyncio.wait_for(head.tailing.wait(), 10)
        head.gone.set()
        await server.close()
        outcome = await asyncio.wait_for(following, 10)
    assert outcome.ended == "Lost"
    assert transcript.text() == "one\ntwo\n"


async def test_no_head_at_all_is_a_submission_that_did_not_happen() -> None:
    async with reached(Head()) as (api, server):
        await server.close()
        patience = Patience(submission=0.2, pause=0.01)
        outcome = await run(api, JOB, "x", a_transcript()[0], patience=patience, stop=asyncio.Event())
    assert outcome.ended == "NotSubmitted"
    assert "does not answer at http://127.0.0.1" in outcome.message


async def test_when_told_to_stop_it_keeps_the_log_and_rays_last_word() -> None:
    head, (transcript, _), stop = Head(hangs=True), a_transcript(), asyncio.Event()
    async with reached(head) as (api, _):
        following = asyncio.create_task(run(api, JOB, "x", transcript, patience=QUICK, stop=stop))
        await asyncio.wait_for(head.tailing.wait(), 10)
        stop.set()
        outcome = await asyncio.wait_for(following, 10)
        head.gone.set()
    assert outcome.ended == "Terminated"
    assert outcome.job is not None
    assert outcome.job.status == "RUNNING"
    assert transcript.text() == "one\ntwo\n"


def test_the_end_of_a_long_log_is_kept() -> None:
    transcript, shown = a_transcript(limit=20)
    for number in range(100):
        transcript.hear(f"line {number}\n")
    assert transcript.text().endswith("line 98\nline 99\n")
    assert len(transcript.text()) <= 20
    assert transcript.cut
    assert len(shown) == 100


def test_a_line_without_end_fills_no_memory() -> None:
    transcript, _ = a_transcript(limit=100)
    for _ in range(1000):
        transcript.hear("x" * 50)
    assert len(transcript.text()) <= 100


def test_secrets_of_the_environment_are_hidden_even_across_pieces() -> None:
    assert secret_values({"AWS_SECRET_ACCESS_KEY": "canary-secret", "HOME": "/tmp/home", "A_KEY": "abc"}) == (
        "canary-secret",
    )
    transcript, shown = a_transcript()
    transcript.hear("key canary-")
    transcript.hear("secret!\n")
    assert shown == [f"key {HIDDEN}!\n"]


async def test_the_dossier_joins_log_record_and_newest_trials_and_holds_no_secret(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    for number in range(12):
        trial = {"key": f"{number:02}", "candidate": "trees", "parameters": {}, "metrics": {"auc": number / 20}}
        store.put(f"runs/r-uid/attempt-2/trials/{number:02}.json", json.dumps({**trial, "seconds": 1.5}).encode())
    transcript, _ = a_transcript()
    outcome = await followed(Head(ends="FAILED", pieces=["it said canary-secret\n"]), transcript)
    Archive(store, "shop-1", "r-uid", 2).keep(JOB, outcome, transcript, NOON)
    written = store.get(dossier_key("r-uid", 2, JOB))
    assert b"canary-secret" not in written
    kept = Dossier.model_validate_json(written)
    assert (kept.ended, kept.attempt, kept.trials_done, kept.at) == ("Failed", 2, 12, NOON)
    assert [trial.metrics["auc"] for trial in kept.trials] == [number / 20 for number in range(2, 12)]
    assert kept.log == f"it said {HIDDEN}\n"
    assert kept.job is not None
    assert kept.job.message == f"it said {HIDDEN}"


class Troubled:
    """A store that fails so many times, and then keeps what it is told."""

    def __init__(self, times: int, reason: str = "StoreUnavailable") -> None:
        self.asked = 0
        self._times, self._reason = times, reason

    def keep(self) -> str:
        self.asked += 1
        if self.asked <= self._times:
            raise StoreError(self._reason, "The store did not answer.")
        return "s3://shop/dossier"


async def test_a_store_that_comes_back_gets_the_dossier() -> None:
    store = Troubled(times=3)
    await insist(store.keep, patience=QUICK, stop=asyncio.Event())
    assert store.asked == 4


async def test_a_store_that_does_not_come_back_is_given_up() -> None:
    store = Troubled(times=10**9)
    await insist(store.keep, patience=Patience(store=0.05, pause=0.01), stop=asyncio.Event())
    assert store.asked > 1


async def test_a_store_that_refuses_the_dossier_is_not_asked_again() -> None:
    store = Troubled(times=1, reason="CredentialsRejected")
    await insist(store.keep, patience=QUICK, stop=asyncio.Event())
    assert store.asked == 1


async def test_a_submitter_that_is_told_to_stop_tries_its_store_once() -> None:
    store, stop = Troubled(times=10**9), asyncio.Event()
    stop.set()
    await insist(store.keep, patience=QUICK, stop=stop)
    assert store.asked == 1


def mounted(folder: Path, document: object) -> dict[str, str]:
    """The environment of a submitter whose spec says this."""
    file = folder / "spec.json"
    file.write_text(json.dumps(document))
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    return {"DRIVETRAIN_SPEC": str(file), "DRIVETRAIN_ATTEMPT": "2", **keys}


def test_fields_of_a_newer_operator_do_not_keep_a_dossier_from_its_place(tmp_path: Path) -> None:
    document = json.loads(canonical_json(a_run(a_dataset())))
    newer = {"aFieldOfTheNextRelease": 1}
    for part in (document, document["spec"], document["data"], document["data"]["store"]):
        part.update(newer)
    archive = archive_from(mounted(tmp_path, document))
    assert archive is not None
    assert (archive.run, archive.run_uid, archive.attempt) == (document["run"], "uid-1", 2)
    assert archive.store.uri("x") == f"{document['data']['store']['uri']}/x"


async def test_a_spec_that_the_image_cannot_read_is_submitted_for_its_driver_to_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    head = Head()
    async with TestServer(head.application()) as server:
        env = {
            **mounted(tmp_path, {"data": {"stores": []}}),
            submit.ADDRESS_ENV: f"127.0.0.1:{server.port}",
            submit.SUBMISSION_ENV: JOB,
            submit.TOKEN_ENV: TOKEN,
        }
        assert await submit._main(env, "python -m drivetrain.pipelines", lambda: NOON) == 0
    assert head.submitted == ["python -m drivetrain.pipelines"]
    assert "cannot read the run's spec" in caplog.text
