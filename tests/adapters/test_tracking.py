"""MLflow, really: one run and one version for all attempts, with what the record must carry."""

import json
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest
from mlflow import MlflowClient

from drivetrain.api.errors import ReportedError
from drivetrain.pipelines.tracking import Opening, Registration, Tracking

OPENING = Opening("shops.juice", "juice-1", "uid-1", {"drivetrain.cause": "Drift"}, {"seed": "7"})
DONE = Registration(
    source="s3://bucket/juice/models/abc",
    digest="abc",
    approved=True,
    data_version="d" * 32,
    data_uri="s3://bucket/juice/versions/d",
    metrics={"logLoss": 0.5, "slice.store=3.logLoss": 0.7, **{f"m{number}": 1.0 for number in range(150)}},
    params={"winner": "trees", "long": "x" * 10_000},
    tags={"drivetrain.gates": json.dumps([{"name": "g"}]), "drivetrain.slices": "y" * 10_000},
    trials=({"logLoss": 0.9}, {"logLoss": 0.5}),
)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def tracking(uri: str) -> Iterator[Tracking]:
    with Tracking(uri) as client:
        yield client


def test_attempts_of_a_run_share_its_record_and_its_version(uri: str, tracking: Tracking) -> None:
    heard: list[str] = []
    tracking.open(OPENING, heard.append)
    assert tracking.register(DONE) == "1"
    tracking.open(OPENING, heard.append)
    assert tracking.register(DONE) == "1", "the same attempt again, or the next one"
    assert tracking.register(replace(DONE, digest="other", approved=False)) == "2"
    tracking.close("FINISHED")
    assert len(set(heard)) == 1
    client = MlflowClient(tracking_uri=uri)
    run = client.get_run(heard[0])
    assert (run.info.run_name, run.info.status) == ("juice-1", "FINISHED")
    assert run.data.params["seed"] == "7"
    assert run.data.params["winner"] == "trees"
    assert run.data.metrics["slice.store_3.logLoss"] == 0.7
    assert len(run.data.metrics) == 153
    assert {point.value for point in client.get_metric_history(heard[0], "trial.logLoss")} == {0.9, 0.5}
    assert run.data.tags["drivetrain.cause"] == "Drift"
    assert json.loads(run.data.tags["drivetrain.gates"]) == [{"name": "g"}]
    assert run.inputs is not None
    assert run.inputs.dataset_inputs[0].dataset.digest == "d" * 32
    version = client.get_model_version("shops.juice", "1")
    assert version.source == DONE.source
    assert version.run_id == heard[0]
    assert client.get_model_version_by_alias("shops.juice", "approved").version in ("1", 1)


def test_projects_of_one_name_in_two_namespaces_share_neither_versions_nor_alias(uri: str) -> None:
    for namespace in ("north", "south"):
        with Tracking(uri) as tracking:
            tracking.open(replace(OPENING, name=f"{namespace}.juice", run_uid=f"uid-{namespace}"), lambda run: None)
            assert tracking.register(DONE) == "1"
    client = MlflowClient(tracking_uri=uri)
    north, south = (client.get_model_version_by_alias(f"{each}.juice", "approved") for each in ("north", "south"))
    assert north.run_id != south.run_id
    experiments = {client.get_run(each.run_id or "").info.experiment_id for each in (north, south)}
    assert len(experiments) == 2


def test_a_server_that_does_not_answer_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with Tracking("http://127.0.0.1:9") as tracking:
        tracking.open(OPENING, lambda run: None)
        with pytest.raises(ReportedError) as caught:
            tracking.opened()
    assert caught.value.reason == "TrackingFailed"


@pytest.mark.usefixtures("tracking")
def test_the_client_sends_no_telemetry_whose_thread_would_change_the_environment_under_a_request() -> None:
    (child,) = [each for each in psutil.Process().children() if "drivetrain.pipelines.tracking" in each.cmdline()]
    assert child.environ()["MLFLOW_DISABLE_TELEMETRY"] == "true"
