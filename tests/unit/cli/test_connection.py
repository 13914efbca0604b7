"""Which cluster a command talks to."""

import json
from pathlib import Path

import pytest

from drivetrain.cli import connection
from drivetrain.cli.application import PLUGIN
from drivetrain.cli.connection import Asked, connect
from drivetrain.local.environment import Addresses

HERE, THERE = "https://127.0.0.1:1", "https://cluster.example:6443"


def kubeconfig(path: Path, server: str, namespace: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
    }
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and an environment that runs on this machine."""
    here = Addresses(
        kubeconfig=kubeconfig(tmp_path / "state" / "kubeconfig", HERE, "default"),
        api=HERE,
        mlflow="",
        ray_dashboard="",
        serve="",
        s3="http://127.0.0.1:2",
        bucket="drivetrain",
        s3_secret="s3",
        s3_access_key="",
        s3_secret_key="",
        ray_token="",
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / ".kube/config"))
    monkeypatch.setattr(connection, "_here", lambda environment: here)
    return tmp_path


def test_without_a_word_it_is_the_environment_on_this_machine(home: Path) -> None:
    kubeconfig(home / ".kube" / "config", THERE, "team")
    found = connect(Asked(), program="drivetrain", environment={})
    assert (found.session.host, found.session.namespace, found.local is None) == (HERE, "default", False)


def test_the_plugin_talks_to_what_kubectl_talks_to(home: Path) -> None:
    kubeconfig(home / ".kube" / "config", THERE, "team")
    found = connect(Asked(), program=PLUGIN, environment={})
    assert (found.session.host, found.session.namespace, found.local) == (THERE, "team", None)


def test_the_plugin_finds_this_machine_where_kubectl_knows_nothing(home: Path) -> None:
    assert connect(Asked(), program=PLUGIN, environment={}).session.host == HERE


def test_a_named_kubeconfig_decides_and_this_machine_is_known_by_its_address(home: Path) -> None:
    other = kubeconfig(home / "other", THERE, "team")
    assert connect(Asked(other), program="drivetrain", environment={}).session.host == THERE
    same = kubeconfig(home / "same", HERE, "mine")
    found = connect(Asked(same), program="drivetrain", environment={"KUBECONFIG": str(same)})
    assert (found.session.namespace, found.local is None) == ("mine", False)


def test_a_namespace_on_the_command_line_wins(home: Path) -> None:
    assert connect(Asked(namespace="x"), program="drivetrain", environment={}).session.namespace == "x"
