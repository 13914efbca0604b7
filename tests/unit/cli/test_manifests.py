"""Files, documents and lines."""

from pathlib import Path

import pytest

from drivetrain.cli.manifests import ManifestError, read

TEXT = """\
apiVersion: drivetrain.dev/v1alpha1
kind: DrivetrainProject
metadata: {name: oj}
spec:
  levers:
  - name: price
    step: "0.05"
  - {name: discount,
     step: "0.1"}
---
# an empty document
---
apiVersion: v1
kind: Secret
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "project.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_every_document_but_empty_ones_is_read(file: Path) -> None:
    assert [(manifest.group, manifest.kind) for manifest in read(file)] == [
        ("drivetrain.dev", "DrivetrainProject"),
        ("v1", "Secret"),
    ]


@pytest.mark.parametrize(
    ("field", "line"),
    [
        pytest.param("spec.levers[0].step", 7, id="a field of a list item"),
        pytest.param("spec.levers[1].step", 9, id="a field in flow style"),
        pytest.param("spec.levers[1]", 8, id="a list item"),
        pytest.param("spec.objective.kpi", 4, id="a missing field stands where its parent does"),
        pytest.param("kind", 2, id="a top-level field"),
    ],
)
def test_a_field_has_its_line(file: Path, field: str, line: int) -> None:
    assert next(iter(read(file))).line(field) == line


def test_broken_yaml_is_named_with_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("spec:\n  levers: [\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"broken\.yaml:3:1"):
        list(read(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"nowhere\.yaml: No such file"):
        list(read(tmp_path / "nowhere.yaml"))
