"""A release as Helm really makes it on an API server: installed, upgraded, and gone again. No Pod runs here."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from drivetrain.api.documents import JSON, Document, mapping, name_of, text
from tests.support.builders import a_project
from tests.support.helm import CHART, NAMESPACE, RELEASE, helm, identities, of_kind, render
from tests.support.rest import Rest

pytestmark = pytest.mark.binaries

VALUES: Mapping[str, JSON] = {"evaluation": {"enabled": True}, "metrics": {"serviceMonitor": {"enabled": True}}}


def run(rest: Rest, *arguments: str, values: Mapping[str, JSON] | None = None) -> str:
    return helm(*arguments, "--namespace", NAMESPACE, "--kubeconfig", str(rest.server.kubeconfig), values=values)


def a_newer_chart(folder: Path) -> Path:
    """The same chart with another version, and with a column more in a definition."""
    newer = folder / "drivetrain"
    shutil.copytree(CHART, newer)
    declared = yaml.safe_load((CHART / "Chart.yaml").read_text())
    (newer / "Chart.yaml").write_text(yaml.safe_dump({**declared, "version": "9.9.9", "appVersion": "9.9.9"}))
    definition = newer / "templates" / "crds" / "drivetrain.dev_trainingruns.yaml"
    text = definition.read_text()
    column = "    additionalPrinterColumns:\n    - name: Newer\n      type: string\n      jsonPath: .spec.project\n"
    assert "    additionalPrinterColumns:\n" in text
    definition.write_text(text.replace("    additionalPrinterColumns:\n", column, 1))
    return newer


def test_a_release_is_installed_upgraded_and_leaves_the_definitions_with_all_resources(
    rest: Rest, tmp_path: Path
) -> None:
    # Definitions that somebody applied before belong to no release yet.
    installed = run(rest, "install", RELEASE, str(CHART), "--take-ownership", values=VALUES)
    assert "kubectl label namespace my-team drivetrain.dev/enabled=true" in installed
    rendered = render(VALUES)
    for each in rendered:
        assert rest("GET", rest.path_of(each)).status == 200, identities((each,))
    (secret,), claims = of_kind(rendered, "Secret"), of_kind(rendered, "PersistentVolumeClaim")
    before = rest("GET", rest.path_of(secret)).body["data"]
    kept = [rest("GET", rest.path_of(each)).body["metadata"]["uid"] for each in claims]
    project = a_project("kept", NAMESPACE).document()
    assert rest.apply(project, manager="kubectl").status == 201

    run(rest, "upgrade", RELEASE, str(a_newer_chart(tmp_path)), values=VALUES)
    assert rest("GET", rest.path_of(secret)).body["data"] == before, "whoever wrote objects must still read them"
    assert [rest("GET", rest.path_of(each)).body["metadata"]["uid"] for each in claims] == kept
    (definition,) = of_kind(rendered, "CustomResourceDefinition", "trainingruns.drivetrain.dev")
    (version,) = rest("GET", rest.path_of(definition)).body["spec"]["versions"]
    assert version["additionalPrinterColumns"][0]["name"] == "Newer"
    (deployment,) = of_kind(rendered, "Deployment", "drivetrain")
    assert _image(rest("GET", rest.path_of(deployment)).body) == "drivetrain/operator:9.9.9"

    run(rest, "upgrade", RELEASE, str(CHART), "--set", "watchNamespaces={team-a}", values=VALUES)
    gone = [*of_kind(rendered, "ClusterRoleBinding"), *of_kind(rendered, "ValidatingAdmissionPolicy")]
    assert [rest("GET", rest.path_of(each)).status for each in gone] == [404] * len(gone)

    run(rest, "uninstall", RELEASE)
    left = {text(each, "kind") for each in rendered if _is_left(rest, each)}
    assert left == {"CustomResourceDefinition"}
    assert rest("GET", rest.path_of(project)).status == 200
    rest.delete(project)
    # What stayed belongs to no release any more; the next one takes it over.
    run(rest, "install", RELEASE, str(CHART), values={"watchNamespaces": ["team-a"]})
    run(rest, "uninstall", RELEASE)


def _image(deployment: Document) -> str:
    containers = mapping(deployment, "spec", "template", "spec")["containers"]
    assert isinstance(containers, list)
    return text(containers[0], "image")


def _is_left(rest: Rest, document: Document) -> bool:
    found = rest("GET", rest.path_of(document))
    return found.status == 200 and "deletionTimestamp" not in found.body["metadata"]  # claims wait for their finalizer


def test_names_in_a_release_follow_its_own() -> None:
    """Two releases in one cluster, each with namespaces of its own, do not share an object."""
    assert name_of(of_kind(render({"fullnameOverride": "second"}), "Deployment")[0]) == "second"
