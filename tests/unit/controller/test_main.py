"""The command line of the operator, and what it sets up."""

import json
import sys
from pathlib import Path

import pytest

from drivetrain.api.errors import ComponentError
from drivetrain.api.kinds import KINDS, OWN_KINDS, WORKLOAD, WORKLOAD_V1BETA1, Kind
from drivetrain.controller.main import Controllers, main, options_of, parser_for, settings_of
from drivetrain.controller.manifests.settings import Settings
from tests.support.fake_cluster import FakeCluster


@pytest.fixture
def kubeconfig(tmp_path: Path) -> str:
    path = tmp_path / "config"
    entries = {
        "clusters": {"server": "http://127.0.0.1:1"},
        "users": {"token": "t"},
        "contexts": {"cluster": "x", "user": "x"},
    }
    named = {section: [{"name": "x", section.removesuffix("s"): entry}] for section, entry in entries.items()}
    path.write_text(json.dumps({"current-context": "x", **named}))
    return str(path)


def test_flags_win_over_the_environment_and_the_environment_over_defaults(kubeconfig: str) -> None:
    environment = {
        "DRIVETRAIN_HTTP_PORT": "9000",
        "DRIVETRAIN_RAY_IMAGE": "from-environment",
        "DRIVETRAIN_RAY_PULL_SECRETS": "registry,mirror",
        "DRIVETRAIN_API_SERVER_PORTS": "443, 16443",
        "KUBECONFIG": kubeconfig,
    }
    parsed = parser_for(environment).parse_args(["--ray-image", "from-flag", "--namespaces", "a, b"])
    options = options_of(parsed)
    assert (options.port, options.namespaces, options.lease_namespace) == (9000, ("a", "b"), "default")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert settings_of(parsed) == Settings(
        ray_image="from-flag",
        ray_version="2.60.0",
        python_version=python,
        pull_secrets=("registry", "mirror"),
        api_ports=(443, 16443),
    )


@pytest.mark.parametrize("written", ["", "0", "https", "443,65536"])
def test_ports_that_are_none_end_with_a_message(written: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser_for({}).parse_args(["--api-server-ports", written])
    assert "--api-server-ports: invalid ports value" in capsys.readouterr().err


def test_every_process_has_a_name_of_its_own(kubeconfig: str) -> None:
    parsed = parser_for({"KUBECONFIG": kubeconfig}).parse_args([])
    assert options_of(parsed).identity != options_of(parsed).identity


def test_outside_a_pod_and_without_a_kubeconfig_it_says_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ComponentError, match="--kubeconfig"):
        options_of(parser_for({}).parse_args([]))


def test_a_broken_kubeconfig_ends_with_a_message_and_not_a_trace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["--kubeconfig", str(tmp_path / "none")]) == 1
    assert "is not a readable kubeconfig" in caplog.text


@pytest.mark.parametrize(
    ("absent", "watched"),
    [
        pytest.param((), {WORKLOAD}, id="the newest of two versions"),
        pytest.param((WORKLOAD,), {WORKLOAD_V1BETA1}, id="the old version alone"),
        pytest.param((WORKLOAD, WORKLOAD_V1BETA1), set(), id="no Kueue"),
    ],
)
async def test_workloads_are_watched_in_the_version_that_is_served(
    absent: tuple[Kind, ...], watched: set[Kind]
) -> None:
    cluster = FakeCluster(kinds=[kind for kind in KINDS if kind not in absent])
    bound = await Controllers(Settings(ray_image="i", ray_version="2.60.0"))(cluster)
    assert {each.kind for each in bound} == set(OWN_KINDS)
    assert {kind for each in bound for kind in each.watched if kind.kind == "Workload"} == watched
