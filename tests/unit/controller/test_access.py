"""Kubeconfig files and the Pod's own access."""

import json
from pathlib import Path

import pytest
from yarl import URL

from drivetrain.api.errors import ComponentError
from drivetrain.controller.cluster.access import from_kubeconfig, in_cluster
from drivetrain.controller.cluster.session import verb_and_resource


def a_kubeconfig(folder: Path, user: dict[str, object], **cluster: object) -> Path:
    path = folder / "config"
    path.write_text(
        json.dumps(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "team"}}],
                "clusters": [{"name": "k", "cluster": {"server": "http://127.0.0.1:1/", **cluster}}],
                "users": [{"name": "u", "user": user}],
            }
        )
    )
    return path


def test_the_current_context_names_server_token_and_namespace(tmp_path: Path) -> None:
    access = from_kubeconfig(a_kubeconfig(tmp_path, {"token": "t"}))
    assert (access.server, access.token(), access.namespace, access.tls) == ("http://127.0.0.1:1", "t", "team", None)


def test_a_token_file_is_read_again_when_it_rotates(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one\n")
    access = from_kubeconfig(a_kubeconfig(tmp_path, {"tokenFile": "token"}))
    assert access.token() == "one"
    (tmp_path / "token").write_text("two\n")
    assert access.token() == "two"


def test_a_login_that_a_daemon_cannot_repeat_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match=r"exec.*client certificate"):
        from_kubeconfig(a_kubeconfig(tmp_path, {"exec": {"command": "aws"}}))


@pytest.mark.parametrize("content", ["", "just text", "current-context: c", "{unclosed"])
def test_what_is_not_a_kubeconfig_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(ComponentError, match="config"):
        from_kubeconfig(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match="--kubeconfig"):
        from_kubeconfig(tmp_path / "none")


def test_outside_a_pod_a_kubeconfig_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match="--kubeconfig"):
        in_cluster({}, tmp_path)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/api/v1/pods", ("list", "pods")),
        ("GET", "/api/v1/namespaces/team/configmaps/a", ("get", "configmaps")),
        ("GET", "/apis/ray.io/v1/rayjobs?watch=true&resourceVersion=7", ("watch", "rayjobs")),
        ("PATCH", "/apis/ray.io/v1/namespaces/team/rayjobs/a", ("patch", "rayjobs")),
        ("PATCH", "/apis/drivetrain.dev/v1alpha1/namespaces/t/trainingruns/a/status", ("patch", "trainingruns/status")),
        ("DELETE", "/api/v1/namespaces/team/services/a", ("delete", "services")),
        ("POST", "/apis/events.k8s.io/v1/namespaces/team/events", ("create", "events")),
        ("GET", "/api/v1/namespaces", ("list", "namespaces")),
        ("GET", "/apis/ray.io/v1", ("get", "")),
    ],
)
def test_a_request_is_counted_as_rbac_judges_it(method: str, path: str, expected: tuple[str, str]) -> None:
    assert verb_and_resource(method, URL("https://server" + path)) == expected
