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


@pytest.mark.parametrize(
    ("written", "told"),
    [
        pytest.param("a: 1\nb: M\u00fcnchen\n".encode("latin-1"), r":2: this is not UTF-8.*Save", id="Latin-1"),
        pytest.param("a: 1\n".encode("utf-16"), r":1: this is not UTF-8.*Save", id="UTF-16"),
        pytest.param(b"a: 1\nb: x\x07\n", r":2: the character U\+0007 .*Remove", id="a control character"),
        pytest.param(b"a: 1\nb:\n- c: 2024-02-30\n", r":3:6: day is out of range.*Correct", id="an impossible date"),
    ],
)
def test_what_is_no_text_or_means_nothing_is_named_with_its_line(tmp_path: Path, written: bytes, told: str) -> None:
    path = tmp_path / "project.yaml"
    path.write_bytes(written)
    with pytest.raises(ManifestError, match=told):
        list(read(path))


def test_the_items_of_a_list_are_documents_with_their_own_lines(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    items = "".join("- " + TEXT.split("---", maxsplit=1)[0].replace("\n", "\n  ").rstrip() + "\n" for _ in range(2))
    path.write_text(f"apiVersion: v1\nkind: List\nitems:\n{items}")
    assert [(each.kind, each.line("spec.levers[0].step")) for each in read(path)] == [
        ("DrivetrainProject", 10),
        ("DrivetrainProject", 19),
    ]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"nowhere\.yaml: No such file"):
        list(read(tmp_path / "nowhere.yaml"))
