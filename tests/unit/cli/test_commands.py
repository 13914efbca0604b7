"""The command tree as a person meets it: help, reference, completion, exit codes."""

from pathlib import Path

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from drivetrain.api.documents import Document
from drivetrain.api.errors import DrivetrainError
from drivetrain.cli.application import ORDER
from drivetrain.cli.connection import Asked, connect
from drivetrain.cli.main import app
from drivetrain.cli.printing import Format, objects
from drivetrain.cli.reference import reference
from drivetrain.cli.session import Session
from tests.support.builders import a_deployment, a_project

ROOT = Path(__file__).parents[3]
VERBS = ("retrain", "approve", "promote", "abort", "pause", "resume", "retry", "cancel")


def test_the_reference_page_is_what_the_parser_says() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == reference(), "run: python -m drivetrain.cli.reference docs/cli.md"


def test_every_command_has_help_and_a_place_in_the_list() -> None:
    group = get_command(app)
    names = group.list_commands(None)  # type: ignore[attr-defined]  # a group, which needs no context here
    assert names == ORDER
    helped = [group.get_command(None, name).help for name in names]  # type: ignore[attr-defined]  # likewise
    assert all(helped)


@pytest.mark.parametrize("name", ["status", "why", "runs", "logs", "plan", "doctor", "purge", "validate", *VERBS])
def test_what_talks_to_a_cluster_takes_the_options_of_kubectl(name: str) -> None:
    told = CliRunner().invoke(app, [name, "--help"]).output
    assert all(option in told for option in ("--namespace", "-n", "--context", "--kubeconfig"))


@pytest.mark.parametrize("name", ["status", "runs"])
def test_what_lists_objects_prints_them_for_programs_and_for_all_namespaces(name: str) -> None:
    told = CliRunner().invoke(app, [name, "--help"]).output
    assert all(option in told for option in ("--all-namespaces", "-A", "--output", "-o"))


def test_a_wrong_command_line_is_exit_code_2() -> None:
    assert CliRunner().invoke(app, ["status", "--nonsense"]).exit_code == 2


def test_no_cluster_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DrivetrainError, match="Run `drivetrain up`"):
        connect(Asked(tmp_path / "absent"), program="drivetrain", environment={})


@pytest.mark.parametrize(
    "written", ["a: [", "hello", "[1]", "clusters: 5\ncontexts: [{name: a, context: {cluster: a}}]"]
)
def test_a_kubeconfig_that_is_none_is_named_with_what_to_do(tmp_path: Path, written: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(f"{written}\n")
    for path in (file, tmp_path):
        with pytest.raises(DrivetrainError, match=rf"{path}.*--kubeconfig"):
            Session.open(kubeconfig=path)


def test_objects_are_printed_as_kubectl_does() -> None:
    managed: Document = {"managedFields": [{"manager": "kubectl"}]}
    project, deployment = a_project().document(), a_deployment().document()
    project["metadata"] |= managed
    found: list[Document] = [project, deployment]
    assert (
        objects(found, Format.NAME)
        == "drivetrainprojects.drivetrain.dev/shop\ndrivetraindeployments.drivetrain.dev/shop"
    )
    printed = yaml.safe_load(objects(found, Format.YAML))
    assert (printed["kind"], [each["kind"] for each in printed["items"]]) == (
        "List",
        ["DrivetrainProject", "Deployment"],
    )
    assert "managedFields" not in printed["items"][0]["metadata"]
