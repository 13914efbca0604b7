"""The operator as the chart sets it up: its account, its rights, its policy, on a real API server."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import yaml

from drivetrain.api import rights
from drivetrain.api.documents import JSON, Document, documents, mapping, name_of, text
from tests.chart.conftest import ENABLED, OTHER
from tests.support.api_server import ApiServer, free_ports
from tests.support.builders import ProjectBuilder, a_project
from tests.support.helm import NAMESPACE, of_kind, render
from tests.support.rest import Rest, serve, until

pytestmark = pytest.mark.binaries

ACCOUNT = f"system:serviceaccount:{NAMESPACE}:drivetrain"
GROUP = "/apis/drivetrain.dev/v1alpha1/namespaces"
APPLIED = (
    *("CustomResourceDefinition", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"),
    *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
)
ROOT = Path(__file__).parents[2]


@contextmanager
def installed(rest: Rest, values: Mapping[str, JSON], folder: Path) -> Iterator[Path]:
    """Install what gives and confines rights, and run an operator with the environment of the rendered Pod."""
    rendered = render(values)
    applied = [each for kind in APPLIED for each in of_kind(rendered, kind)]
    for each in applied:
        if text(each, "kind") == "CustomResourceDefinition":
            serve(rest, each)
        else:
            answer = rest.apply(each)
            assert answer.status in (200, 201), answer.message
    request: Document = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = rest("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/drivetrain/token", request)
    assert answer.status == 201, answer.message
    log = folder / "operator.log"
    (deployment,) = of_kind(rendered, "Deployment", "drivetrain")
    (container,) = documents(deployment, "spec", "template", "spec", "containers")
    environment = {text(each, "name"): text(each, "value") for each in documents(container, "env")}
    environment["DRIVETRAIN_HTTP_PORT"] = str(free_ports(1)[0])
    environment["DRIVETRAIN_LEASE_NAMESPACE"] = NAMESPACE  # what a Pod reads beside its token
    command = [sys.executable, "-m", "drivetrain.controller.main"]
    kubeconfig = _kubeconfig(rest.server, text(answer.body, "status", "token"), folder)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--kubeconfig", str(kubeconfig)],
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
            cwd=ROOT,
        )
    try:
        yield log
    finally:
        process.terminate()  # it gives the lease back, so that the next one need not wait
        process.wait(timeout=30)
        for namespace in (ENABLED, OTHER):
            for project in rest("GET", f"{GROUP}/{namespace}/drivetrainprojects").body["items"]:
                rest("DELETE", f"{GROUP}/{namespace}/drivetrainprojects/{name_of(project)}")
        for each in reversed(applied):
            if text(each, "kind") != "CustomResourceDefinition":
                rest.delete(each)


def _kubeconfig(server: ApiServer, token: str, folder: Path) -> Path:
    config = json.loads(server.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    path = folder / "operator.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def declare(rest: Rest, project: ProjectBuilder) -> None:
    answer = rest.apply(project.document(), manager="kubectl")
    assert answer.status == 201, answer.message


def children(
    rest: Rest, namespace: str, project: str, path: str = "apis/ray.io/v1", plural: str = "rayjobs"
) -> list[str]:
    """Names of a project's children; no garbage collector runs here, so those of other tests are still there."""
    found = rest("GET", f"/{path}/namespaces/{namespace}/{plural}").body["items"]
    return [name_of(each) for each in found if project in name_of(each)]


def stalled(rest: Rest, namespace: str, project: str) -> str:
    """The reason of the project's Stalled condition, an empty text without one."""
    found = rest("GET", f"{GROUP}/{namespace}/drivetrainprojects/{project}").body
    conditions = documents(found, "status", "conditions")
    return next((text(each, "reason") for each in conditions if text(each, "type") == "Stalled"), "")


def requests(server: ApiServer) -> list[Document]:
    """What the operator's account has asked for so far, from the audit log."""
    lines = map(json.loads, server.audit_log.read_text().splitlines())
    return [each for each in lines if text(each, "user", "username") == ACCOUNT and each["stage"] == "ResponseComplete"]


def refused(server: ApiServer, *namespaces: str) -> list[str]:
    """Requests in these namespaces, and cluster-wide ones, that ended in 403."""
    return [
        f"{text(each, 'verb')} {text(each, 'requestURI')}: {text(each, 'responseStatus', 'message')}"
        for each in requests(server)
        if mapping(each, "responseStatus").get("code") == 403
        and text(each, "objectRef", "namespace") in ("", NAMESPACE, *namespaces)
    ]


def not_granted(server: ApiServer) -> set[str]:
    """Verbs on resources that were asked for and stand in no rule."""
    granted = {
        (right.group, resource, verb)
        for right in (*rights.OPERATOR, *rights.LEASE)
        for resource in right.resources
        for verb in right.verbs
    }
    asked = set()
    for each in requests(server):
        where = mapping(each, "objectRef")
        if where:
            subresource = f"/{where['subresource']}" if "subresource" in where else ""
            asked.add((text(where, "apiGroup"), text(where, "resource") + subresource, text(each, "verb")))
    return {f"{verb} {resource}.{group}" for group, resource, verb in asked - granted}


def test_in_named_namespaces_the_operator_reconciles_with_its_roles_alone(rest: Rest, tmp_path: Path) -> None:
    values: Mapping[str, JSON] = {"watchNamespaces": [ENABLED, OTHER], "rayImage": {"pullSecrets": ["registry"]}}
    with installed(rest, values, tmp_path) as log:
        for namespace in (ENABLED, OTHER):
            declare(rest, a_project("named", namespace))
            until(partial(children, rest, namespace, "named"), f"a RayJob in {namespace}; {log.read_text()[-2000:]}")
            account = rest("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts/trainingrun-named-1").body
            assert account["imagePullSecrets"] == [{"name": "registry"}]
        assert refused(rest.server, ENABLED, OTHER) == []
        assert not_granted(rest.server) == set()


def test_cluster_wide_the_operator_keeps_to_enabled_namespaces_and_says_so(rest: Rest, tmp_path: Path) -> None:
    with installed(rest, {}, tmp_path) as log:
        declare(rest, a_project("wide", ENABLED))
        declare(rest, a_project("wide", OTHER))
        until(lambda: children(rest, ENABLED, "wide"), f"a RayJob; {log.read_text()[-2000:]}")
        until(lambda: stalled(rest, OTHER, "wide"), "the project in the other namespace is told")
        assert stalled(rest, OTHER, "wide") == "NamespaceNotEnabled"
        assert children(rest, OTHER, "wide") == children(rest, OTHER, "wide", "api/v1", "configmaps") == []
        assert refused(rest.server, ENABLED) == []
        assert not_granted(rest.server) == set()
        namespace = f"/api/v1/namespaces/{OTHER}"
        label = {"metadata": {"labels": {"drivetrain.dev/enabled": "true"}}}
        assert rest("PATCH", namespace, label, "merge-patch+json").status == 200
        try:
            until(lambda: children(rest, OTHER, "wide"), "it goes on by itself once the namespace is enabled")
            until(lambda: not stalled(rest, OTHER, "wide"), "it says so")
        finally:
            rest("PATCH", namespace, {"metadata": {"labels": {"drivetrain.dev/enabled": None}}}, "merge-patch+json")
