"""The driver as a process: what it reports, how it exits, and that it leaves nothing running."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivetrain.api.runspec import RunSpec
from drivetrain.store import S3Store
from tests.support.pod import CLUSTER, Pod, a_pod
from tests.support.s3 import S3Server
from tests.support.shop import a_dataset, a_run, visits

DEADLINE = 240.0


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    with a_pod(tmp_path) as made:
        made.annotations["drivetrain.dev/incarnation"] = f"1 {CLUSTER}"
        yield made


def start(pod: Pod, **env: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "drivetrain.pipelines"], env={**os.environ, **pod.env, **env, "OMP_NUM_THREADS": "1"}
    )


def finish(process: "subprocess.Popen[bytes]") -> int:
    try:
        return process.wait(DEADLINE)
    finally:
        process.kill()


def write_spec(pod: Pod, spec: RunSpec) -> None:
    Path(pod.env["DRIVETRAIN_SPEC"]).write_text(spec.model_dump_json(by_alias=True))


def test_a_spec_that_cannot_be_read_is_reported_as_permanent(pod: Pod) -> None:
    Path(pod.env["DRIVETRAIN_SPEC"]).write_text(json.dumps({"run": 7}))
    assert finish(start(pod)) == 2
    result = pod.reports()[-1].result
    assert result is not None
    assert (result.state, result.reason, result.permanent) == ("Failed", "InvalidSpec", True)


def test_an_image_with_another_ray_is_reported_before_the_spec_is_read(pod: Pod) -> None:
    Path(pod.env["DRIVETRAIN_SPEC"]).write_text("{")
    assert finish(start(pod, DRIVETRAIN_EXPECTED_RAY="2.59.1")) == 2
    result = pod.reports()[-1].result
    assert result is not None
    assert (result.reason, result.permanent) == ("ImageUnsupported", True)
    assert "expected 2.59.1" in result.message


def test_a_missing_credential_of_the_store_is_reported_as_permanent(pod: Pod) -> None:
    write_spec(pod, a_run(a_dataset()))
    assert finish(start(pod, AWS_ACCESS_KEY_ID="k")) == 2
    result = pod.reports()[-1].result
    assert result is not None
    assert result.reason == "CredentialsMissing"
    assert "AWS_SECRET_ACCESS_KEY" in result.message


def test_a_driver_that_is_told_to_stop_while_it_waits_stops(pod: Pod) -> None:
    write_spec(pod, a_run(a_dataset()))
    pod.annotations["drivetrain.dev/incarnation"] = "1 another-cluster"
    process = start(pod)
    pod.wait_until_asked(1, DEADLINE)
    process.send_signal(signal.SIGTERM)
    assert finish(process) == 143
    assert pod.reports() == []


def a_shop_on_s3(server: S3Server, uri: str, tmp_path: Path) -> tuple[RunSpec, S3Store]:
    store = server.open(uri)
    visits(700).write_parquet(tmp_path / "visits.parquet")
    store.upload("in/visits.parquet", tmp_path / "visits.parquet")
    return a_run(a_dataset(f"{uri}/in/visits.parquet").model_copy(update={"store": server.place(uri)})), store


@pytest.mark.binaries
def test_a_driver_whose_run_is_owned_by_a_higher_attempt_ends_without_a_result(
    pod: Pod, s3_server: S3Server, s3_uri: str, tmp_path: Path
) -> None:
    spec, store = a_shop_on_s3(s3_server, s3_uri, tmp_path)
    write_spec(pod, spec)
    store.put("runs/uid-1/attempt-1/owner", b'{"attempt":2,"incarnation":1,"cluster":"juice-1-a2"}')
    assert finish(start(pod, **s3_server.environment())) == 3
    assert not [report for report in pod.reports() if report.result is not None]


@pytest.mark.binaries
@pytest.mark.ray
def test_a_run_goes_from_its_spec_to_an_approved_version(
    pod: Pod, s3_server: S3Server, s3_uri: str, tmp_path: Path
) -> None:
    spec, store = a_shop_on_s3(s3_server, s3_uri, tmp_path)
    write_spec(pod, spec)
    code = finish(start(pod, **s3_server.environment()))
    reports = pod.reports()
    last = reports[-1]
    assert code == 0, last.result
    assert last.result is not None
    assert (last.result.state, last.result.version, last.progress.percent) == ("Approved", "1", 100)
    assert last.data_rows == 700
    assert last.mlflow_run
    assert {info.key.rpartition("/")[2] for info in store.list(f"models/{last.result.digest}/")} == {
        "model.onnx",
        "contract.json",
        "reference.json",
    }
    assert [report.sequence for report in reports] == sorted({report.sequence for report in reports})
