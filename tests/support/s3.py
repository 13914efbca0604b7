"""A real S3 server (versitygw) for tests marked `binaries`: one per test session, a bucket of its own per test."""

import itertools
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from drivetrain.api.v1alpha1.dataset import SecretReference, Store
from drivetrain.store import S3Store
from tests.support.api_server import binary, free_ports

ACCESS_KEY = "tests"
SECRET_KEY = "tests-secret"
START_DEADLINE = 30.0


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server."""

    endpoint: str

    def place(self, uri: str) -> Store:
        """The store at `uri`."""
        return Store(uri=uri, endpoint=self.endpoint, region="us-east-1", credentials=SecretReference(secret_name="s3"))

    def open(self, uri: str) -> S3Store:
        """The store at `uri`, opened with the right keys."""
        return S3Store(self.place(uri), ACCESS_KEY, SECRET_KEY)

    def environment(self) -> dict[str, str]:
        """What a Pod finds in its environment."""
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

    def make_bucket(self, name: str) -> None:
        """Creates the bucket, which may exist."""
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        try:
            client.create_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
                raise


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An empty server on a loopback port; stopped at the end of the session."""
    program = binary("versitygw")
    folder = tmp_path_factory.mktemp("s3")
    (folder / "data").mkdir()
    (port,) = free_ports(1)
    server = S3Server(f"http://127.0.0.1:{port}")
    with (folder / "log").open("wb") as log:
        keys = ["--access", ACCESS_KEY, "--secret", SECRET_KEY]
        process = subprocess.Popen(
            [program, "--keep-alive", *keys, "--port", f"127.0.0.1:{port}", "posix", str(folder / "data")],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait(server, folder / "log")
            yield server
        finally:
            process.terminate()
            process.wait(timeout=10)


_NUMBERS = itertools.count(1)


@pytest.fixture
def s3_uri(s3_server: S3Server) -> str:
    """s3://bucket/prefix of an empty bucket."""
    bucket = f"bucket-{next(_NUMBERS)}"
    s3_server.make_bucket(bucket)
    return f"s3://{bucket}/project"


def _wait(server: S3Server, log: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE
    while True:
        try:
            return server.make_bucket("first")
        except EndpointConnectionError:
            if time.monotonic() > deadline:
                pytest.fail(f"versitygw did not start: {log.read_text()}")
            time.sleep(0.05)
