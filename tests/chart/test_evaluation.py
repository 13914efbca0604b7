"""The evaluation's S3 server with the rendered arguments, a team's part of it, and `helm test` without a cluster."""

import base64
import csv
import importlib.util
import io
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError

from drivetrain.api.documents import Document, documents, sequence, text
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.api.validation import validate_project
from tests.support.api_server import binary, free_ports
from tests.support.helm import CHART, NAMESPACE, of_kind, render
from tests.support.s3 import ACCESS_KEY, SECRET_KEY, S3Server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.binaries

ROOT = Path(__file__).parents[2]
ROOT_KEYS = ("administrator", "administrator-secret")


def test_a_secret_of_ones_own_is_used_and_none_is_made() -> None:
    rendered = render({"evaluation": {"enabled": True, "s3": {"rootSecretName": "mine"}}})
    assert not of_kind(rendered, "Secret")
    (deployment,) = of_kind(rendered, "Deployment", "drivetrain-s3")
    (container,) = documents(deployment, "spec", "template", "spec", "containers")
    named = {text(each, "valueFrom", "secretKeyRef", "name") for each in documents(container, "env")}
    assert named == {"mine", ""}


@dataclass(frozen=True, slots=True)
class Server:
    """The server as the chart would start it, and its administrator's command line."""

    endpoint: str
    environment: Mapping[str, str]

    def admin(self, *arguments: str) -> None:
        """What the documentation runs by `kubectl exec`."""
        command = [binary("versitygw"), "admin", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def client(self, access_key: str, secret_key: str) -> "S3Client":
        """S3 for one account."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (deployment,) = of_kind(render({"evaluation": {"enabled": True}}), "Deployment", "drivetrain-s3")
    (container,) = documents(deployment, "spec", "template", "spec", "containers")
    for mount in documents(container, "volumeMounts"):
        (tmp_path / text(mount, "mountPath").lstrip("/")).mkdir(parents=True)
    (port,) = free_ports(1)
    arguments = [
        str(each).replace("/data", str(tmp_path / "data")).replace(":7070", f":{port}")
        for each in sequence(container, "args")
    ]
    environment = {**os.environ}
    for each in documents(container, "env"):
        key = text(each, "valueFrom", "secretKeyRef", "key")
        value = dict(zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ROOT_KEYS, strict=True)).get(key)
        environment[text(each, "name")] = value or text(each, "value").replace(":7070", f":{port}")
    process = subprocess.Popen([binary("versitygw"), *arguments], env=environment, stdout=subprocess.DEVNULL)
    started = Server(f"http://127.0.0.1:{port}", environment)
    try:
        _until_it_answers(started)
        yield started
    finally:
        process.kill()
        process.wait()


def _until_it_answers(server: Server) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            server.client(*ROOT_KEYS).list_buckets()
        except EndpointConnectionError:
            assert time.monotonic() < deadline, "versitygw does not answer"
            time.sleep(0.1)
        else:
            return


def test_each_team_has_an_account_and_a_bucket_and_reaches_no_other(server: Server) -> None:
    for team in ("team-a", "team-b"):
        server.admin("create-user", "--access", team, "--secret", f"{team}-secret", "--role", "user")
        server.admin("create-bucket", "--owner", team, "--bucket", team)
    ours, theirs = (server.client(team, f"{team}-secret") for team in ("team-a", "team-b"))
    ours.put_object(Bucket="team-a", Key="models/m/model.onnx", Body=b"ours", IfNoneMatch="*")
    assert ours.get_object(Bucket="team-a", Key="models/m/model.onnx")["Body"].read() == b"ours"
    with pytest.raises(ClientError, match="PreconditionFailed"):
        ours.put_object(Bucket="team-a", Key="models/m/model.onnx", Body=b"again", IfNoneMatch="*")
    for attempt in (
        lambda: theirs.get_object(Bucket="team-a", Key="models/m/model.onnx"),
        lambda: theirs.put_object(Bucket="team-a", Key="models/m/model.onnx", Body=b"theirs"),
        lambda: theirs.delete_object(Bucket="team-a", Key="models/m/model.onnx"),
        lambda: theirs.list_objects_v2(Bucket="team-a"),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            attempt()
    assert ours.get_object(Bucket="team-a", Key="models/m/model.onnx")["Body"].read() == b"ours"


KUBECTL = """#!/bin/sh
case "$*" in
exec*) while [ "$1" != versitygw ]; do shift; done; shift; exec {versitygw} "$@" ;;
*AWS_SECRET_ACCESS_KEY*) echo {secret} ;;
get*) echo found ;;
esac
"""
"""A cluster where everything is there but accounts and buckets."""


def test_a_team_is_prepared_beside_one_whose_name_begins_with_its_own(server: Server, tmp_path: Path) -> None:
    secret = "prepared-secret"
    script = KUBECTL.format(versitygw=binary("versitygw"), secret=base64.b64encode(secret.encode()).decode())
    kubectl = tmp_path / "programs" / "kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(script)
    kubectl.chmod(0o755)
    environment = {**server.environment, "PATH": f"{kubectl.parent}:{os.environ['PATH']}"}
    for team in ("team-a-2", "team-a", "team-a"):
        subprocess.run([ROOT / "examples" / "pool" / "prepare", team], env=environment, check=True)
        server.client(team, secret).put_object(Bucket=team, Key="own", Body=b"")


def the_test_pod(values: Document) -> Mapping[str, str]:
    (pod,) = of_kind(render(values, tests=True), "Pod", "drivetrain-test")
    (container,) = documents(pod, "spec", "containers")
    secret = {text(each, "valueFrom", "secretKeyRef", "name") for each in documents(container, "env")} - {""}
    told = {text(each, "name"): text(each, "value") for each in documents(container, "env")}
    return {**told, "secret": ",".join(sorted(secret))}


def first_run() -> ModuleType:
    specification = importlib.util.spec_from_file_location("first_run", CHART / "files" / "test" / "first_run.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_release_is_tested_with_the_evaluation_or_with_a_store_of_ones_own() -> None:
    own = the_test_pod({"evaluation": {"enabled": True}})
    assert own["TEST_STORE"] == "s3://helm-test"
    assert own["TEST_ENDPOINT"] == f"http://drivetrain-s3.{NAMESPACE}.svc:7070"
    assert own["TEST_SECRET"] == own["secret"] == "drivetrain-s3"
    other = the_test_pod({"evaluation": {"enabled": True}, "test": {"store": "s3://b/p", "secretName": "mine"}})
    assert (other["TEST_STORE"], other["TEST_ENDPOINT"], other["TEST_SECRET"]) == ("s3://b/p", "", "mine")


def test_without_a_store_the_test_of_the_release_fails_and_says_what_it_needs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    environment = the_test_pod({})
    assert environment["secret"] == ""
    assert first_run().main({**environment}) == 1
    said = capsys.readouterr().out
    assert "test.store" in said
    assert "test.secretName" in said
    assert "evaluation.enabled=true" in said


def test_where_the_operator_does_not_look_the_test_of_the_release_does_not_wait(
    capsys: pytest.CaptureFixture[str],
) -> None:
    environment = the_test_pod({"evaluation": {"enabled": True}, "watchNamespaces": ["team-a", "team-b"]})
    assert first_run().main({**environment}) == 1
    assert f"add {NAMESPACE} to watchNamespaces" in capsys.readouterr().out


def test_a_store_that_cannot_be_reached_is_named_by_the_test_of_the_release(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = first_run()
    monkeypatch.setattr(script, "REACHED_SECONDS", 0)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps the keys of its first call
    for name, value in {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    (port,) = free_ports(1)
    nowhere = f"http://127.0.0.1:{port}"
    environment = the_test_pod({"test": {"store": "s3://b/p", "secretName": "mine", "endpoint": nowhere}})
    assert script.main({**environment}) == 1
    assert nowhere in capsys.readouterr().out


@pytest.fixture
def process_one() -> Iterator[None]:
    """SIGTERM does nothing unless the program says what, as in a container."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("process_one")
def test_the_project_is_deleted_when_helm_gives_up_before_its_run_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    script, asked = first_run(), []

    def api(method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
        asked.append(f"{method} {path}")
        if method in ("GET", "DELETE"):  # a second one, while it tidies up, does not keep it from that
            signal.raise_signal(signal.SIGTERM)
        stalled = {"type": "Stalled", "status": "True", "reason": "NotInterrupted", "message": ""}
        return 201, {"metadata": {"name": "drivetrain-test"}, "status": {"conditions": [stalled]}}

    monkeypatch.setattr(script, "uploaded", lambda *told: True)
    monkeypatch.setattr(script, "Api", lambda namespace: api)
    environment = the_test_pod({"evaluation": {"enabled": True}})
    project = str(CHART / "files" / "test" / "project.json")
    with pytest.raises(SystemExit, match="deleted before the run was Ready"):
        script.main({**environment, "TEST_PROJECT": project})
    name = f"drivetrainprojects/{environment['TEST_NAME']}"
    assert asked == ["POST drivetrainprojects", f"GET {name}", f"DELETE {name}"]


def test_what_the_test_declares_means_something_and_its_rows_are_on_the_store(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = first_run()
    project = json.loads((CHART / "files" / "test" / "project.json").read_text())
    project["metadata"] = {"name": "drivetrain-test", "namespace": NAMESPACE}
    project["spec"]["data"]["store"] = {"uri": "s3://bucket/project", "credentials": {"secretName": "s3"}}
    project["spec"]["data"]["sources"][0]["uri"] = "s3://bucket/visits.csv"
    assert validate_project(DrivetrainProject.parse(project)) == ()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    script.upload({"TEST_ENDPOINT": s3_server.endpoint, "TEST_REGION": ""}, "a-new-bucket", "source/visits.csv")
    script.upload({"TEST_ENDPOINT": s3_server.endpoint, "TEST_REGION": ""}, "a-new-bucket", "source/visits.csv")
    found = s3_server.open("s3://a-new-bucket/source").get("visits.csv").decode()
    rows = list(csv.DictReader(io.StringIO(found)))
    assert len(rows) == script.ROWS
    assert set(rows[0]) == {column["name"] for column in project["spec"]["data"]["columns"]}
    bought = [sum(row["purchase"] == "true" for row in rows if float(row["price"]) == price) for price in script.PRICES]
    assert bought == sorted(bought, reverse=True), "the lever's declared effect is in the rows"
