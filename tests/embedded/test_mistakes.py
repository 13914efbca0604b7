"""Bad input goes through the real operator and agent and comes back with its cause and remedy; nothing else comes."""

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from drivetrain.api.documents import Document, labels_of, name_of, text, value
from drivetrain.api.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    DRIVETRAIN_PROJECT,
    GROUP,
    RAY_CLUSTER,
    RAY_JOB,
    RAY_SERVICE,
    TRAINING_RUN,
)
from drivetrain.api.names import OWNER_NAME_LABEL, PROJECT_LABEL
from tests.embedded.conftest import Embedded, condition_in_force, until

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(420)]  # the first test waits for seven drivers

API = f"{GROUP}/v1alpha1"
RUN_SECONDS = 240.0
"""Seven drivers start at once on two cores."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """A project that cannot be trained, and what its run must say."""

    name: str
    reason: str
    cause: str
    remedy: str
    rows: pl.DataFrame
    """What its source holds."""
    file_format: str = "CSV"
    keys: str = "s3"
    """The Secret that its store names."""

    def __str__(self) -> str:
        return self.name


def visits(count: int) -> pl.DataFrame:
    draws = np.random.default_rng(3)
    price = draws.choice([1.0, 1.5, 2.0], count)
    return pl.DataFrame(
        {
            "area": draws.choice(["north", "south"], count).tolist(),
            "size": draws.random(count).round(3),
            "price": price,
            "chance": np.full(count, 1 / 3),
            "sold": (draws.random(count) < 1 / price / 1.5).astype(np.int64),
        }
    )


GOOD = visits(400)
MISTAKES = (
    Mistake("wrong-format", "SourceFormat", "is no Parquet", "Correct format in data.sources", GOOD, "Parquet"),
    Mistake("no-column", "ColumnMissing", "Column size is missing", "data.columns", GOOD.drop("size")),
    Mistake("out-of-bounds", "BoundsBroken", "Column size", "data.columns", GOOD.with_columns(size=7.5)),
    Mistake("one-class", "TargetOneClass", "sold = 1", "correct the target", GOOD.with_columns(sold=1)),
    Mistake("few-rows", "TooFewRows", "of 60 rows", "Bring more rows", GOOD.head(60)),
    Mistake(
        "many-slices",
        "SliceTooManyValues",
        "Slice column area has 400 values",
        "Slice by a coarser column",
        GOOD.with_columns(area=pl.Series([f"area {number}" for number in range(400)])),
    ),
    Mistake("wrong-key", "CredentialsRejected", "refuses", "AWS_SECRET_ACCESS_KEY", GOOD, keys="stranger"),
)


def a_project(name: str, source: str, *, file_format: str = "CSV", keys: str = "s3", sold: str = "sold") -> Document:
    return {
        "apiVersion": API,
        "kind": "DrivetrainProject",
        "metadata": {"name": name},
        "spec": {
            "objective": {
                "kpi": {"name": "revenue", "unit": "USD", "maturesAfter": "1s"},
                "value": f"{sold} * price",
                "baseline": {"action": {"price": "1"}},
                "modelMetric": {"name": "logLoss", "direction": "Minimize"},
            },
            "levers": [{"name": "price", "type": "Continuous", "minimum": "1", "maximum": "2", "step": "0.5"}],
            "data": {
                "store": {"uri": f"s3://drivetrain/mistakes/{name}", "credentials": {"secretName": keys}},
                "sources": [{"name": "visits", "uri": source, "format": file_format}],
                "columns": [
                    {"name": "area", "role": "Uncontrolled", "type": "String"},
                    {"name": "size", "role": "Context", "type": "Float", "minimum": 0, "maximum": 1},
                    {"name": "price", "role": "Lever", "type": "Float"},
                    {"name": "chance", "role": "Assignment", "type": "Float"},
                ],
                "target": {"name": "sold", "type": "Binary"},
                "slices": ["area"],
            },
            "training": {
                "candidates": [{"name": "line", "estimator": "LogisticRegression"}],
                "tuning": {"trials": 1, "parallelTrials": 1},
                "attempts": 1,
            },
        },
    }


def a_deployment(name: str, **spec: str | Document) -> Document:
    """One whose keys do not exist, so that no endpoint needs to start."""
    return {
        "apiVersion": API,
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"auth": {"secretName": "no-keys"}, **spec},
    }


@pytest.fixture(scope="module")
def mistakes(embedded: Embedded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """All of them at once."""
    here = embedded.within("mistakes")
    here.apply_secret("stranger", AWS_ACCESS_KEY_ID="stranger", AWS_SECRET_ACCESS_KEY="guessed")
    folder = tmp_path_factory.mktemp("sources")
    for mistake in MISTAKES:
        path = folder / f"{mistake.name}.csv"
        mistake.rows.write_csv(path)
        here.apply(a_project(mistake.name, path.as_uri(), file_format=mistake.file_format, keys=mistake.keys))
    here.apply(a_deployment("elder", project="few-rows"))
    yield here
    for project in here.items(DRIVETRAIN_PROJECT):
        here.delete(DRIVETRAIN_PROJECT, name_of(project))


def the_stalled_run(here: Embedded, project: str) -> Document:
    return until(lambda: here.stalled(TRAINING_RUN, f"{project}-1"), RUN_SECONDS, f"the run of {project} stalls")


def stall(found: Document) -> tuple[str, str]:
    """Reason and message of its Stalled condition, which is in force."""
    stated = condition_in_force(found, "Stalled")
    assert stated is not None
    return text(stated, "reason"), text(stated, "message")


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_a_run_that_cannot_succeed_says_which_mistake_it_was_and_what_to_do(
    mistakes: Embedded, mistake: Mistake
) -> None:
    run = the_stalled_run(mistakes, mistake.name)
    why = text(run, "status", "why")
    assert stall(run) == (mistake.reason, why)
    assert mistake.cause in why
    assert mistake.remedy in why
    assert value(run, "status", "attempt") == 1
    assert value(run, "status", "dataVersion") is None
    assert value(run, "status", "modelVersion") is None


def test_a_project_repeats_why_its_only_run_failed(mistakes: Embedded) -> None:
    run = the_stalled_run(mistakes, "one-class")

    def stalled_alike() -> Document | None:
        # The run's end is in its ledger a moment before its conditions tell the reason.
        found = mistakes.stalled(DRIVETRAIN_PROJECT, "one-class")
        return found if found is not None and stall(found)[0] == "TargetOneClass" else None

    project = until(stalled_alike, 30, "the project stalls for the reason of its run")
    assert text(run, "status", "why") in stall(project)[1]


def test_a_mistake_registers_and_versions_nothing(mistakes: Embedded) -> None:
    for mistake in MISTAKES:
        the_stalled_run(mistakes, mistake.name)
    place = mistakes.addresses
    found = mistakes.s3().list_objects_v2(Bucket=place.bucket, Prefix="mistakes/").get("Contents", [])
    folders = {each["Key"].split("/")[2] for each in found}
    assert folders == {"runs"}, "only who ran, and until when it looked"
    query = urllib.parse.urlencode({"max_results": 1000})
    address = f"{place.mlflow}/api/2.0/mlflow/registered-models/search?{query}"
    with urllib.request.urlopen(address, timeout=30) as response:
        registered = {each["name"] for each in json.load(response).get("registered_models", [])}
    assert not registered & {f"{mistakes.namespace}.{mistake.name}" for mistake in MISTAKES}


def test_a_run_without_its_secret_waits_for_it_and_then_fails_for_a_source_that_is_not_there(
    mistakes: Embedded, tmp_path: Path
) -> None:
    mistakes.apply(a_project("nothing-there", (tmp_path / "no.csv").as_uri(), keys="late"))
    run = the_stalled_run(mistakes, "nothing-there")
    reason, why = stall(run)
    assert (reason, text(run, "status", "why")) == ("SecretMissing", why)
    assert 'secret "late" not found' in why
    assert "Create the Secret" in why
    keys = mistakes.addresses
    mistakes.apply_secret("late", AWS_ACCESS_KEY_ID=keys.s3_access_key, AWS_SECRET_ACCESS_KEY=keys.s3_secret_key)

    def failed() -> Document | None:
        found = mistakes.get(TRAINING_RUN, "nothing-there-1")
        return found if found and condition_in_force(found, "Failed") else None

    ended = until(failed, RUN_SECONDS, "the run goes on by itself")
    reason, why = stall(ended)
    assert reason == "SourceNotFound"
    assert "nothing at file://" in why
    assert "Correct the uri in data.sources" in why
    assert value(ended, "status", "attempt") == 1


def test_a_spec_that_admission_cannot_judge_stalls_the_project_without_children(mistakes: Embedded) -> None:
    mistakes.apply(a_project("invalid", "file:///nowhere.csv", sold="bought"))
    project = until(lambda: mistakes.stalled(DRIVETRAIN_PROJECT, "invalid"), 30, "the project stalls")
    reason, message = stall(project)
    assert reason == "InvalidSpec"
    assert "spec.objective.value" in message
    assert "bought" in message
    children = [
        name_of(found)
        for kind in (TRAINING_RUN, CONFIG_MAP)
        for found in mistakes.items(kind)
        if labels_of(found).get(PROJECT_LABEL) == "invalid"
    ]
    assert children == []


def test_a_second_deployment_of_a_project_gets_no_endpoint(mistakes: Embedded) -> None:
    waiting = until(lambda: mistakes.stalled(DEPLOYMENT, "elder"), 60, "the first one misses its keys")
    reason, message = stall(waiting)
    assert reason == "VolumesMissing"
    assert "It mounts Secret no-keys: create what is missing" in message
    mistakes.apply(a_deployment("younger", project="few-rows"))
    reason, message = stall(until(lambda: mistakes.stalled(DEPLOYMENT, "younger"), 30, "the second one stalls"))
    assert reason == "ProjectAlreadyServed"
    assert "Deployment elder serves project few-rows already. Delete one of the two." in message
    owners = {labels_of(found)[OWNER_NAME_LABEL] for found in mistakes.items(RAY_SERVICE)}
    assert "elder" in owners
    assert "younger" not in owners


def test_a_pinned_version_that_nobody_registered_is_not_found(mistakes: Embedded) -> None:
    mistakes.apply(a_deployment("pinned", model={"name": "one-class", "version": "7"}))
    deployment = until(lambda: mistakes.stalled(DEPLOYMENT, "pinned"), 30, "the Deployment stalls")
    assert stall(deployment)[0] == "ModelNotFound"
    assert "No run of project one-class has registered version 7" in text(deployment, "status", "why")


def test_a_deleted_project_leaves_no_object_behind(embedded: Embedded, tmp_path: Path) -> None:
    here = embedded.within("deleted")
    serving: Document = {"auth": {"secretName": "no-keys"}}
    project = a_project("gone", (tmp_path / "no.csv").as_uri(), keys="nobody")
    spec = project["spec"]
    assert isinstance(spec, dict)
    here.apply({**project, "spec": {**spec, "serving": serving}})
    until(lambda: here.stalled(TRAINING_RUN, "gone-1"), 60, "the run waits for its Secret")
    until(lambda: here.items(RAY_SERVICE) and len(here.items(RAY_CLUSTER)) == 2, 60, "its endpoint waits for its keys")
    assert here.items(RAY_JOB)
    here.delete(DRIVETRAIN_PROJECT, "gone")
    until(lambda: not here.managed(), 90, "everything is gone")
