"""`drivetrain validate`: every fault with its file and line, and nothing else."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from drivetrain.api.kinds import DRIVETRAIN_PROJECT
from drivetrain.cli import judging
from drivetrain.cli.loops import read
from drivetrain.cli.main import app
from drivetrain.cli.printing import Format, objects
from drivetrain.cli.validation import validate
from tests.support.bench import Bench
from tests.support.builders import Manifest, a_deployment, a_project, a_run
from tests.unit.cli.person import Person


def written(path: Path, *manifests: Manifest) -> Path:
    path.write_text(yaml.safe_dump_all(manifests, sort_keys=False), encoding="utf-8")
    return path


def test_valid_files_have_no_finding_and_other_groups_are_counted(tmp_path: Path) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}}
    files = (
        written(tmp_path / "a.yaml", a_project().document(), secret),
        written(tmp_path / "b.yaml", a_run().document(), a_deployment().document()),
    )
    verdict = validate(files)
    assert (verdict.checked, verdict.other, verdict.problems) == (3, 1, 0)


def test_a_fault_is_one_line_with_file_line_field_cause_and_remedy(tmp_path: Path) -> None:
    value = "purchase *\n  (prise - discount)"
    file = written(tmp_path / "project.yaml", a_project().with_value(value).document())
    (finding,) = validate([file]).findings
    line = next(number for number, text in enumerate(file.read_text().splitlines(), 1) if "value:" in text)
    assert str(finding).startswith(f"{file}:{line}: spec.objective.value: ")
    assert "prise" in str(finding)
    assert "\n" not in str(finding)


def test_a_run_is_judged_beside_its_project_in_another_file(tmp_path: Path) -> None:
    project = written(tmp_path / "a.yaml", a_project().document())
    run = a_run().with_field("spec.candidates[0].estimator", "LinearRegression").document()
    (finding,) = validate([project, written(tmp_path / "b.yaml", run)]).findings
    assert finding.path.name == "b.yaml"
    assert finding.problem.field == "spec.candidates[0].estimator"


def test_two_deployments_of_one_project_are_found_and_two_namespaces_are_none_of_it(tmp_path: Path) -> None:
    elsewhere = a_deployment("third", "other").document()
    file = written(tmp_path / "a.yaml", a_deployment("first").document(), a_deployment("second").document(), elsewhere)
    (finding,) = validate([file]).findings
    assert str(finding.problem) == (
        "spec.project: Deployment first serves project shop already. Delete one of the two."
    )


def test_an_unknown_kind_of_ours_is_named(tmp_path: Path) -> None:
    file = written(tmp_path / "a.yaml", {"apiVersion": "drivetrain.dev/v1alpha1", "kind": "Project"})
    (finding,) = validate([file]).findings
    assert "has no kind 'Project'" in str(finding)


def test_a_file_that_is_no_yaml_hides_no_fault_of_another(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [\n", encoding="utf-8")
    faulty = written(tmp_path / "b.yaml", a_project().with_field("spec.levers[0].step", "0.3").document())
    verdict = validate([broken, faulty])
    assert len(verdict.unreadable) == 1
    assert [finding.path for finding in verdict.findings] == [faulty]


def test_what_status_prints_is_valid_as_a_file(tmp_path: Path) -> None:
    bench = Bench()
    bench.reconcile(DRIVETRAIN_PROJECT, "shop")
    file = tmp_path / "status.yaml"
    file.write_text(objects(read(Person(bench)).documents, Format.YAML))
    verdict = validate([file])
    assert (verdict.checked, verdict.problems) == (3, 0)


def test_manifests_from_a_pipe_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Connected:
        session: Person
        local: None = None

    monkeypatch.setattr(judging, "connected", lambda *_: Connected(Person()))
    missing = {"name": "visits", "uri": f"file://{tmp_path}/visits.csv", "format": "CSV"}
    project = a_project().with_field("spec.data.sources", [missing]).document()
    pipe, writer = os.pipe()
    os.write(writer, yaml.safe_dump(project).encode())
    os.close(writer)
    result = CliRunner().invoke(app, ["validate", "--live", f"/dev/fd/{pipe}"])
    os.close(pipe)
    assert result.exit_code == 1
    assert "shop: source visits: " in result.stdout


def test_an_integer_with_more_digits_than_a_decimal_may_have_is_a_fault(tmp_path: Path) -> None:
    lever = a_project().with_field("spec.levers[0].maximum", 10**30).with_field("spec.levers[0].step", 1)
    (finding,) = validate([written(tmp_path / "a.yaml", lever.document())]).findings
    assert str(finding.problem).startswith("spec.levers[0].maximum: 1000000000000000000000000000000 is not a decimal")


def test_the_command_prints_a_line_a_fault_and_fails(tmp_path: Path) -> None:
    faulty = a_project().with_field("spec.levers[0].step", "0.3").with_field("spec.levers[1].step", "0.3").document()
    result = CliRunner().invoke(app, ["validate", str(written(tmp_path / "a.yaml", faulty))])
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 2
    valid = CliRunner().invoke(app, ["validate", str(written(tmp_path / "b.yaml", a_project().document()))])
    assert valid.exit_code == 0
