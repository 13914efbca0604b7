"""The example repository for Argo CD, and what GitOps asks of the operator whoever plays it."""

import json
from pathlib import Path

import pytest
import yaml

from drivetrain.api.documents import JSON, Document, annotations_of, documents, mapping, name_of, text
from drivetrain.api.kinds import CONFIG_MAP, RAY_JOB, RAY_SERVICE, ROLE, ROLE_BINDING, SERVICE, SERVICE_ACCOUNT
from drivetrain.api.names import GATEWAY_LABEL, MANAGED_BY, MANAGED_BY_LABEL
from drivetrain.cli.validation import validate
from tests.support.argocd import run
from tests.support.helm import CHART, of_kind, render
from tests.support.operator_world import World, a_quick_project
from tests.support.ray_programs import version_of
from tests.support.rest import Rest, serve

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "gitops"
WAVE = "argocd.argoproj.io/sync-wave"
TEAM = ("namespace.yaml", "project.yaml", "deployment.yaml")


def read(path: Path) -> Document:
    found: Document = yaml.safe_load(path.read_text())
    return found


def wave(document: Document) -> int:
    return int(annotations_of(document).get(WAVE, "0"))


def test_what_a_team_declares_means_something() -> None:
    verdict = validate([EXAMPLE / "team-a" / name for name in TEAM])
    assert (verdict.checked, [str(each) for each in verdict.findings]) == (2, [])


def test_definitions_come_before_what_is_defined_and_an_endpoint_after_its_project() -> None:
    platform, team = (read(EXAMPLE / "apps" / name) for name in ("platform.yaml", "team-a.yaml"))
    assert wave(platform) < wave(team)
    namespace, project, deployment = (read(EXAMPLE / "team-a" / name) for name in TEAM)
    assert wave(namespace) < wave(project) < wave(deployment)
    assert mapping(namespace, "metadata", "labels")["drivetrain.dev/enabled"] == "true"


def test_every_application_names_a_folder_of_this_repository() -> None:
    for file in (EXAMPLE / "root.yaml", *(EXAMPLE / "apps").glob("*.yaml")):
        application = read(file)
        assert (ROOT / text(application, "spec", "source", "path")).is_dir()
        assert "ignoreDifferences" not in mapping(application, "spec")


def the_platform(**values: Document) -> tuple[Document, ...]:
    platform = read(EXAMPLE / "apps" / "platform.yaml")
    return render({**mapping(platform, "spec", "source", "helm", "valuesObject"), **values})


def test_the_platform_runs_the_images_that_the_readme_tells_to_edit() -> None:
    placeholder = "registry.example.org/drivetrain"
    assert placeholder in (EXAMPLE / "README.md").read_text()
    (operator,) = of_kind(the_platform(), "Deployment")
    (container,) = documents(operator, "spec", "template", "spec", "containers")
    (ray,) = [each for each in documents(container, "env") if each["name"] == "DRIVETRAIN_RAY_IMAGE"]
    assert text(container, "image") == f"{placeholder}/operator:0.1.0"
    assert text(ray, "value") == f"{placeholder}/ray:0.1.0"


def test_the_platform_needs_no_definitions_of_prometheus_operator_until_they_are_asked_for() -> None:
    def monitors(found: tuple[Document, ...]) -> set[str]:
        return {text(each, "kind") for each in found if text(each, "apiVersion").startswith("monitoring.coreos.com/")}

    on: Document = {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}
    assert monitors(the_platform()) == set()
    assert monitors(the_platform(metrics=on)) >= {"ServiceMonitor", "PrometheusRule"}


HEALTHY: Document = {"health": {"status": "Healthy"}}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, "Progressing"),
        ({}, "Progressing"),
        ({"health": {"status": "Missing"}, "sync": {"status": "OutOfSync"}}, "Missing"),
        ({**HEALTHY, "sync": {"status": "OutOfSync"}}, "Progressing"),
        ({**HEALTHY, "sync": {"status": "OutOfSync"}, "operationState": {"phase": "Running"}}, "Progressing"),
        ({**HEALTHY, "sync": {"status": "OutOfSync"}, "operationState": {"phase": "Succeeded"}}, "Healthy"),
        ({**HEALTHY, "sync": {"status": "Synced"}}, "Healthy"),
        ({"health": {"status": "Degraded", "message": "why"}, "sync": {"status": "Synced"}}, "Degraded"),
    ],
)
def test_the_root_waits_for_an_application_until_it_is_synced_and_healthy(status: JSON, expected: str) -> None:
    script = text(read(EXAMPLE / "argocd-cm.yaml"), "data", "resource.customizations.health.argoproj.io_Application")
    application = {**read(EXAMPLE / "apps" / "platform.yaml"), "status": status}
    told = run(script, application)
    assert told["status"] == expected
    assert bool(told["message"]) == (expected in ("Progressing", "Degraded"))


def test_the_configuration_of_argo_cd_can_judge_the_health_of_all_that_a_wave_waits_for() -> None:
    configuration = [read(folder / "argocd-cm.yaml") for folder in (EXAMPLE, CHART / "files" / "argocd")]
    known = {key for each in configuration for key in mapping(each, "data")}
    for file in (*EXAMPLE.glob("apps/*.yaml"), *EXAMPLE.glob("team-a/*.yaml")):
        document = read(file)
        if text(document, "kind") == "Namespace":  # is there once it is there
            continue
        kind = f"{text(document, 'apiVersion').split('/')[0]}_{text(document, 'kind')}"
        assert f"resource.customizations.health.{kind}" in known


def test_clients_in_the_teams_namespace_may_call_its_endpoints() -> None:
    namespace = read(EXAMPLE / "team-a" / "namespace.yaml")
    assert mapping(namespace, "metadata", "labels")[GATEWAY_LABEL] == "true"


def test_the_definitions_are_never_pruned() -> None:
    for each in of_kind(render(), "CustomResourceDefinition"):
        assert annotations_of(each)["argocd.argoproj.io/sync-options"] == "Prune=false"


def test_children_carry_no_label_or_annotation_of_who_declared_their_owner() -> None:
    """Argo CD would prune what carries its mark and is not in Git."""
    world = World(1)
    tracked = {
        "labels": {"app.kubernetes.io/instance": "root"},
        "annotations": {WAVE: "0", "argocd.argoproj.io/tracking-id": "x"},
    }
    world.declare(a_quick_project().with_metadata(**tracked))
    while world.stable_version() != version_of("shop-1"):
        world.step()
    seen = set()
    for each in world.cluster.everything():
        if name_of(each) == "shop" and text(each, "kind") == "DrivetrainProject":
            continue
        seen.add(text(each, "kind"))
        assert "argocd" not in json.dumps(each), f"{text(each, 'kind')} {name_of(each)}"
        assert "app.kubernetes.io/instance" not in mapping(each, "metadata", "labels")
        owned = mapping(each, "metadata", "labels").get(MANAGED_BY_LABEL) == MANAGED_BY
        assert not owned or mapping(each, "metadata").get("ownerReferences"), "children go with their owner"
    wanted = (CONFIG_MAP, RAY_JOB, RAY_SERVICE, ROLE, ROLE_BINDING, SERVICE, SERVICE_ACCOUNT)
    assert {str(kind) for kind in wanted} | {"TrainingRun", "Deployment"} <= seen


@pytest.mark.binaries
def test_applying_the_same_manifest_again_changes_nothing(rest: Rest) -> None:
    for definition in of_kind(render(), "CustomResourceDefinition"):
        serve(rest, definition)
    documents = [read(EXAMPLE / "team-a" / name) for name in TEAM]
    told = [[rest.apply(each, manager="argocd-controller") for each in documents] for _ in range(3)]
    assert all(answer.status in (200, 201) for answers in told for answer in answers)
    metadata = [[mapping(answer.body, "metadata") for answer in answers] for answers in told]
    generations = [[each.get("generation") for each in row] for row in metadata]
    assert generations == [generations[0]] * 3
    # The second apply of an object stores the time of the first one anew; from then on nothing is written at all.
    assert [each["resourceVersion"] for each in metadata[1]] == [each["resourceVersion"] for each in metadata[2]]
    for each in documents[1:]:
        rest.delete(each)


def test_the_snippet_for_argo_cds_configuration_holds_every_script() -> None:
    snippet = read(CHART / "files" / "argocd" / "argocd-cm.yaml")
    data = mapping(snippet, "data")
    scripts = CHART / "files" / "argocd" / "resource_customizations"
    for script in scripts.glob("*/*/health.lua"):
        kind = f"{script.parent.parent.name}_{script.parent.name}"
        assert data[f"resource.customizations.health.{kind}"] == script.read_text()
    for discovery in scripts.glob("*/*/actions/discovery.lua"):
        folder = discovery.parent
        key = f"resource.customizations.actions.{folder.parent.parent.name}_{folder.parent.name}"
        content = yaml.safe_load(str(data[key]))
        assert content["discovery.lua"] == discovery.read_text()
        found = {each["name"]: each["action.lua"] for each in content["definitions"]}
        assert found == {file.parent.name: file.read_text() for file in folder.glob("*/action.lua")}
