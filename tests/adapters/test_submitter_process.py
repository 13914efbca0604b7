"""The submitter as its Pod and the embedded agent start it: a process of its own, against a real S3 server."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from drivetrain.api.canonical import canonical_json
from drivetrain.api.dossier import Dossier
from drivetrain.api.layout import dossier as dossier_key
from drivetrain.api.names import SUBMIT_COMMAND
from drivetrain.local.agent.followers import Followers
from drivetrain.store import ObjectStore
from tests.support.ray_head import TOKEN, Head
from tests.support.s3 import SECRET_KEY, S3Server
from tests.support.shop import a_dataset, a_run

pytestmark = pytest.mark.binaries

JOB = "shop-1-a1-abcde"
ENTRYPOINT = "python -m drivetrain.pipelines"
ENDED = 30.0


@asynccontextmanager
async def reached(head: Head) -> AsyncIterator[str]:
    server = TestServer(head.application())
    async with server:
        yield f"127.0.0.1:{server.port}"


def environment(s3: S3Server, uri: str, folder: Path) -> dict[str, str]:
    """What the operator renders for a submitter."""
    data = a_dataset("s3://bucket/in.parquet")
    spec = a_run(data.model_copy(update={"store": s3.place(uri)}))
    file = folder / "spec.json"
    file.write_text(canonical_json(spec))
    return {**s3.environment(), "DRIVETRAIN_SPEC": str(file), "DRIVETRAIN_ATTEMPT": "1"}


def kept(store: ObjectStore) -> Dossier:
    written = store.get(dossier_key("uid-1", 1, JOB))
    assert SECRET_KEY.encode() not in written
    return Dossier.model_validate_json(written)


async def started(address: str, env: dict[str, str]) -> asyncio.subprocess.Process:
    told = {"RAY_DASHBOARD_ADDRESS": address, "RAY_JOB_SUBMISSION_ID": JOB, "RAY_AUTH_TOKEN": TOKEN}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *SUBMIT_COMMAND[1:],
        ENTRYPOINT,
        env={**os.environ, **env, **told},
        stdout=asyncio.subprocess.PIPE,
    )


async def followers_ended(followers: Followers) -> None:
    async with asyncio.timeout(ENDED):
        while followers.at_work():  # noqa: ASYNC110 - a process tells nobody
            await asyncio.sleep(0.1)
    await followers.close()


async def test_it_submits_shows_the_log_and_keeps_the_dossier(s3_server: S3Server, s3_uri: str, tmp_path: Path) -> None:
    head = Head(pieces=[f"the key is {SECRET_KEY}\n", "done\n"], ends="FAILED")
    async with reached(head) as address:
        process = await started(address, environment(s3_server, s3_uri, tmp_path))
        shown, _ = await asyncio.wait_for(process.communicate(), ENDED)
    assert (process.returncode, head.submitted) == (0, [ENTRYPOINT])
    assert shown == b"the key is [hidden]\ndone\n"
    dossier = kept(s3_server.open(s3_uri))
    assert (dossier.ended, dossier.log) == ("Failed", "the key is [hidden]\ndone\n")


async def test_a_submitter_that_is_told_to_stop_keeps_the_dossier_first(
    s3_server: S3Server, s3_uri: str, tmp_path: Path
) -> None:
    head = Head(hangs=True)
    async with reached(head) as address:
        process = await started(address, environment(s3_server, s3_uri, tmp_path))
        await asyncio.wait_for(head.tailing.wait(), ENDED)
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), ENDED)
        head.gone.set()
    assert process.returncode == 128 + signal.SIGTERM
    dossier = kept(s3_server.open(s3_uri))
    assert dossier.ended == "Terminated"
    assert dossier.job is not None
    assert dossier.job.status == "RUNNING"


async def test_the_embedded_agent_has_a_job_followed_once_that_it_submitted_itself(
    s3_server: S3Server, s3_uri: str, tmp_path: Path
) -> None:
    head = Head(statuses={JOB: "RUNNING"})
    store = s3_server.open(s3_uri)
    async with reached(head) as address:
        followers = Followers({"RAY_AUTH_TOKEN": TOKEN}, f"http://{address}")
        variables = environment(s3_server, s3_uri, tmp_path)
        await followers.follow("somebody-elses", "sleep 1", {})
        for _ in range(2):
            await followers.follow(JOB, ENTRYPOINT, variables)
        assert followers.at_work() == {JOB}
        await followers_ended(followers)
    assert (head.submitted, head.tails) == ([], 1)
    assert kept(store).ended == "Succeeded"


async def test_the_dossier_of_a_head_that_goes_at_once_is_kept(
    s3_server: S3Server, s3_uri: str, tmp_path: Path
) -> None:
    store = s3_server.open(s3_uri)
    async with reached(Head(statuses={JOB: "RUNNING"}, ends="STOPPED")) as address:
        followers = Followers({"RAY_AUTH_TOKEN": TOKEN}, f"http://{address}")
        variables = environment(s3_server, s3_uri, tmp_path)
        await followers.follow(JOB, ENTRYPOINT, variables)
        Path(variables["DRIVETRAIN_SPEC"]).unlink()
        await followers.follow("too-late", ENTRYPOINT, variables)
        assert followers.at_work() == {JOB}
        await followers_ended(followers)
    assert kept(store).ended == "Stopped"
