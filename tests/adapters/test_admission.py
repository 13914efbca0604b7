"""What a real API server does with the definitions: it takes them, fills defaults, and states each rule's message."""

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from drivetrain.api.meta import ApiModel
from drivetrain.api.structural import rules_of
from drivetrain.api.v1alpha1.deployment import Deployment
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.api.v1alpha1.trainingrun import TrainingRun
from tests.support.admission_cases import CASES, Case
from tests.support.api_server import ApiServer
from tests.support.builders import Manifest, a_deployment, a_project, a_run

pytestmark = pytest.mark.binaries

CRDS = sorted((Path(__file__).parents[2] / "crds").glob("*.yaml"))
PLURALS = {resource.__name__: resource.plural for resource in (DrivetrainProject, TrainingRun, Deployment)}


@dataclass(frozen=True)
class Client:
    """Plain JSON over HTTPS: status and body."""

    server: ApiServer

    def __call__(
        self, method: str, path: str, body: object = None, kind: str = "json", accept: str = "application/json"
    ) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"{self.server.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.server.token}",
                "Content-Type": f"application/{kind}",
                "Accept": accept,
            },
        )
        context = ssl.create_default_context(cafile=str(self.server.ca_file))
        try:
            with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def create(self, manifest: Manifest, *, dry: bool = False) -> tuple[int, Any]:
        """Creates an object of ours, unknown fields refused."""
        query = "?fieldValidation=Strict" + ("&dryRun=All" if dry else "")
        return self("POST", path_of(manifest["kind"]) + query, manifest)


def path_of(kind: str, name: str = "") -> str:
    path = f"/apis/drivetrain.dev/v1alpha1/namespaces/default/{PLURALS[kind]}"
    return f"{path}/{name}" if name else path


@pytest.fixture(scope="module")
def client(api_server: ApiServer) -> Client:
    """An API server with our definitions established."""
    client = Client(api_server)
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for file in CRDS:
        manifest = yaml.safe_load(file.read_text())
        status, answer = client("POST", f"{definitions}?fieldValidation=Strict", manifest)
        assert status in (201, 409), json.dumps(answer)
        name = manifest["metadata"]["name"]
        _until(partial(_is_established, client, f"{definitions}/{name}"))
    for kind in PLURALS:
        _until(partial(_answers, client, path_of(kind)))
    return client


def _until(holds: Callable[[], bool], *, deadline: float = 30.0) -> None:
    end = time.monotonic() + deadline
    while not holds():
        assert time.monotonic() < end, "the definitions are not served in time"
        time.sleep(0.05)


def _is_established(client: Client, path: str) -> bool:
    _, definition = client("GET", path)
    conditions = {item["type"]: item for item in definition.get("status", {}).get("conditions") or []}
    assert conditions.get("NonStructuralSchema", {}).get("status") != "True", conditions["NonStructuralSchema"]
    return bool(conditions.get("Established", {}).get("status") == "True")


def _answers(client: Client, path: str) -> bool:
    return client("GET", path)[0] == 200


def test_a_new_object_has_its_defaults_and_is_not_observed_yet(client: Client) -> None:
    for builder in (a_project("defaults"), a_run("defaults"), a_deployment("defaults")):
        manifest = builder.document()
        status, answer = client.create(manifest)
        assert status == 201, answer
        _, found = client("GET", path_of(manifest["kind"], "defaults"))
        assert found["status"] == {"observedGeneration": -1}
    _, run = client("GET", path_of("TrainingRun", "defaults"))
    assert run["spec"]["tuning"] == {"algorithm": "Random", "trials": 8, "seed": 1}
    assert run["spec"]["deadline"] == "1d"


def test_what_the_server_stores_parses_to_what_the_manifest_says(client: Client) -> None:
    for builder in (a_project("parsed"), a_run("parsed"), a_deployment("parsed")):
        assert client.create(builder.document())[0] == 201
        _, found = client("GET", path_of(builder.manifest["kind"], "parsed"))
        assert builder.kind.parse(found).spec == builder.build().spec


def test_numbers_may_be_written_without_quotes_where_they_are_whole(client: Client) -> None:
    whole = (
        a_project("whole")
        .with_lever("price", minimum=1, maximum=3, step=1)
        .with_field("spec.serving.resources", {"cpu": 2, "memory": "4Gi"})
    )
    assert client.create(whole.document(), dry=True)[0] == 201
    broken = a_project("whole").with_lever("price", minimum=1.5)
    status, answer = client.create(broken.document(), dry=True)
    assert (status, "spec.levers[0].minimum" in answer["message"]) == (422, True)


def test_an_unknown_field_is_refused_by_strict_validation(client: Client) -> None:
    status, answer = client.create(a_project("unknown").with_field("spec.levrs", []).document(), dry=True)
    assert (status, 'unknown field "spec.levrs"' in answer["message"]) == (400, True)


TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
STATUS = {
    "observedGeneration": 1,
    "stage": "Learn",
    "champion": {"version": "7", "digest": "d", "run": "shown-3"},
    "kpi": {"mean": 0.3125, "decisions": 1000, "unit": "USD"},
    "nextDecision": {"what": "Wait", "why": "cooldown"},
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Serving",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ],
}


def test_a_list_shows_at_a_glance_what_is_going_on(client: Client) -> None:
    assert client.create(a_project("shown").document())[0] == 201
    path = path_of("DrivetrainProject", "shown")
    status, answer = client("PATCH", f"{path}/status?fieldValidation=Strict", {"status": STATUS}, "merge-patch+json")
    assert status == 200, answer
    _, table = client("GET", path, accept=TABLE)
    shown = {
        column["name"]: cell for column, cell in zip(table["columnDefinitions"], table["rows"][0]["cells"], strict=True)
    }
    assert shown | {"Age": ""} == {
        "Name": "shown",
        "Ready": "True",
        "Stage": "Learn",
        "Champion": "7",
        "KPI": "0.3125",
        "Next": "Wait",
        "Why": "cooldown",
        "Age": "",
    }


def test_runs_and_deployments_are_found_by_their_project(client: Client) -> None:
    for make in (a_run, a_deployment):
        assert client.create(make("mine", project="chosen").document())[0] == 201
        assert client.create(make("yours", project="other").document())[0] == 201
        _, found = client("GET", path_of(make().manifest["kind"]) + "?fieldSelector=spec.project%3Dchosen")
        assert [item["metadata"]["name"] for item in found["items"]] == ["mine"]


def test_a_deployment_is_scaled_like_any_other(client: Client) -> None:
    assert client.create(a_deployment("scaled").document())[0] == 201
    path = path_of("Deployment", "scaled")
    status, answer = client("PATCH", f"{path}/scale", {"spec": {"replicas": 3}}, "merge-patch+json")
    assert status == 200, answer
    assert client("GET", path)[1]["spec"]["replicas"] == 3
    client("PATCH", f"{path}/status", {"status": {"replicas": 2, "selector": "a=b"}}, "merge-patch+json")
    assert client("GET", f"{path}/scale")[1]["status"] == {"replicas": 2, "selector": "a=b"}


@pytest.mark.parametrize("case", CASES, ids=[case.message for case in CASES])
def test_a_rule_accepts_what_satisfies_it_and_rejects_the_rest_with_its_message(client: Client, case: Case) -> None:
    status, answer = client.create(case.accepted, dry=True)
    assert status == 201, answer
    status, answer = client.create(case.rejected, dry=True)
    assert status == 422, answer
    causes = {cause["field"]: cause["message"] for cause in answer["details"]["causes"]}
    assert any(case.message in message and field.startswith(case.field) for field, message in causes.items()), causes


IMMUTABLE = "a run's spec is immutable, except suspend, deadline and ttlAfterFinished; create another run instead"


def test_every_rule_has_a_case() -> None:
    told = {case.message for case in CASES} | {IMMUTABLE}
    assert told == {rule.message for model in _models() for rule in rules_of(model)}


def _models() -> set[type[ApiModel]]:
    found: set[type[ApiModel]] = set()
    waiting: list[type[ApiModel]] = [ApiModel]
    while waiting:
        model = waiting.pop()
        found.add(model)
        waiting.extend(model.__subclasses__())
    return found


@pytest.mark.parametrize("weight", [0, 100])
def test_a_weight_outside_1_to_99_is_rejected(client: Client, weight: int) -> None:
    manifest = a_deployment().with_field("spec.rollout.steps", [{"weight": weight}]).document()
    status, answer = client.create(manifest, dry=True)
    assert (status, "spec.rollout.steps[0].weight" in answer["message"]) == (422, True)


def test_two_levers_of_one_name_are_rejected(client: Client) -> None:
    levers = a_project().manifest["spec"]["levers"]
    manifest = a_project().with_field("spec.levers", [*levers, levers[0]]).document()
    status, answer = client.create(manifest, dry=True)
    assert status == 422
    assert "Duplicate value" in answer["message"]


@pytest.fixture
def run(client: Client) -> Iterator[Callable[[Manifest], tuple[int, Any]]]:
    """Patches the spec of a stored run."""
    built = a_run("stored").with_field("spec.candidates[0].parameters", {"C": 1.0, "penalty": "l2", "warm": False})
    assert client.create(built.document())[0] == 201
    path = path_of("TrainingRun", "stored")
    yield lambda spec: client("PATCH", f"{path}?dryRun=All", {"spec": spec}, "merge-patch+json")
    client("DELETE", path)


CHANGES: list[Manifest] = [
    {"project": "other"},
    {"candidates": [{"name": "logistic", "estimator": "RandomForest"}]},
    {"candidates": [{"name": "logistic", "estimator": "LogisticRegression", "parameters": {"C": 2.0}}]},
    {"tuning": {"trials": 9}},
    {"ensemble": {"methods": ["Bagging"]}},
    {"evaluation": {"gates": [{"metric": "rocAuc", "threshold": 0.6}]}},
    {"scaling": {"workers": 1}},
    {"cluster": {"image": "other"}},
    {"queue": {"name": "other"}},
    {"attempts": 4},
    {"trigger": {"cause": "Drift"}},
    {"dataVersion": "0" * 32},
    {"window": {"since": "2026-01-01T00:00:00Z"}},
]


@pytest.mark.parametrize("change", [pytest.param(change, id=str(next(iter(change.items())))) for change in CHANGES])
def test_a_runs_spec_cannot_change(run: Callable[[Manifest], tuple[int, Any]], change: Manifest) -> None:
    status, answer = run(change)
    assert (status, IMMUTABLE in answer["message"]) == (422, True), answer


def test_a_run_can_be_suspended_and_its_deadline_and_age_limit_can_move(
    run: Callable[[Manifest], tuple[int, Any]],
) -> None:
    status, answer = run({"suspend": True, "deadline": "2h", "ttlAfterFinished": "7d"})
    assert status == 200, answer
