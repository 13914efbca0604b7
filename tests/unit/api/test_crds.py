"""The definitions say all that the models say: described, bounded, defaulted, and as they lie in crds/."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from drivetrain.api.crds import crds, main
from drivetrain.api.documents import Document, mapping, sequence
from drivetrain.api.yaml_text import to_yaml

ROOT = Path(__file__).parents[3]
DEFINITIONS = crds()
KINDS = {str(mapping(document, "spec", "names")["kind"]): document for document in DEFINITIONS.values()}


def version(kind: str) -> Document:
    found = sequence(KINDS[kind], "spec", "versions")[0]
    assert isinstance(found, Mapping)
    return found


def nodes(schema: Document, path: str) -> Iterator[tuple[str, Document]]:
    """Every node of a schema with its path."""
    yield path, schema
    for name, child in mapping(schema, "properties").items():
        assert isinstance(child, Mapping)
        yield from nodes(child, f"{path}.{name}")
    for key, suffix in (("items", "[]"), ("additionalProperties", "{}")):
        if child := mapping(schema, key):
            yield from nodes(child, f"{path}{suffix}")


NODES = {
    path: schema
    for kind in KINDS
    for path, schema in nodes(mapping(version(kind), "schema", "openAPIV3Schema"), kind)
    if ".metadata" not in path  # the API server describes and bounds it itself, and forbids us to
}
TYPES = {"object", "array", "string", "integer", "number", "boolean"}
MIXED = {"x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string"}


def test_the_files_in_crds_are_what_the_models_say() -> None:
    assert main(["--check", str(ROOT / "crds")]) == 0


def test_a_changed_missing_or_additional_file_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 0
    assert main(["--check", str(tmp_path)]) == 0
    (tmp_path / "drivetrain.dev_trainingruns.yaml").write_text("kind: Other\n")
    (tmp_path / "stale.yaml").write_text("")
    assert main(["--check", str(tmp_path)]) == 1
    assert "drivetrain.dev_trainingruns.yaml, stale.yaml" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 0
    assert not (tmp_path / "stale.yaml").exists()


@pytest.mark.parametrize("name", DEFINITIONS)
def test_the_yaml_reads_back_as_the_definition(name: str) -> None:
    assert yaml.safe_load(to_yaml(DEFINITIONS[name])) == DEFINITIONS[name]


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "a: b",
        "# c",
        "null",
        "No",
        "1.0",
        "- x",
        "it's",
        "a " * 90 + "b",
        "two\nlines " * 20 + "x",
        "é",
        "'",
        "{}",
    ],
)
def test_any_text_survives_the_yaml_writer(value: str) -> None:
    document: Document = {"key": value, "list": [value, "x"], "map": {"list": [{"a": value, "b": [1, None, True]}]}}
    assert yaml.safe_load(to_yaml(document)) == document


def test_the_walk_reaches_every_corner() -> None:
    assert len(NODES) > 400
    assert "DrivetrainProject.spec.serving.rollout.analysis.metrics[].tolerance" in NODES
    assert "TrainingRun.spec.candidates[].search{}.minimum" in NODES


def test_every_node_has_a_type_unless_it_mixes_scalars() -> None:
    assert [path for path, schema in NODES.items() if schema.get("type") not in TYPES and not MIXED & set(schema)] == []


def test_every_field_is_described() -> None:
    silent = [path for path, schema in NODES.items() if len(str(schema.get("description", ""))) < 4]
    assert [path for path in silent if not path.endswith(("[]", "{}"))] == []


def test_every_text_list_and_map_is_bounded() -> None:
    assert [path for path, schema in NODES.items() if not _is_bounded(schema)] == []


def _is_bounded(schema: Document) -> bool:
    match schema.get("type"):
        case "string":
            return "enum" in schema or "maxLength" in schema
        case "array":
            return "maxItems" in schema
        case "object":
            return "properties" in schema or "maxProperties" in schema
    return True


def test_a_status_that_nobody_wrote_is_not_read_as_done() -> None:
    for kind in KINDS:
        status = mapping(version(kind), "schema", "openAPIV3Schema", "properties", "status")
        assert status["default"] == {"observedGeneration": -1}
        defaults = [path for path, schema in nodes(status, "status") if "default" in schema]
        assert defaults == ["status", "status.observedGeneration"]


def test_defaults_are_written_as_a_manifest_would_write_them() -> None:
    spec = mapping(version("DrivetrainProject"), "schema", "openAPIV3Schema", "properties", "spec", "properties")
    objective = mapping(spec, "objective", "properties", "kpi", "properties")
    assert mapping(objective, "maturesAfter")["default"] == "1h"
    rollout = mapping(spec, "serving", "properties", "rollout")
    assert rollout["default"] == {
        "steps": [{"weight": 10}, {"weight": 25}, {"weight": 50}],
        "holdout": 0.01,
        "analysis": mapping(rollout, "properties", "analysis")["default"],
    }


def test_our_deployment_does_not_take_the_name_of_the_core_one() -> None:
    names = mapping(KINDS["Deployment"], "spec", "names")
    assert (names["plural"], names["singular"], names["shortNames"]) == (
        "drivetraindeployments",
        "drivetraindeployment",
        ["dtd"],
    )


def test_a_deployment_can_be_scaled() -> None:
    assert mapping(version("Deployment"), "subresources", "scale") == {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }


def test_named_things_are_unique_by_name() -> None:
    spec = mapping(version("DrivetrainProject"), "schema", "openAPIV3Schema", "properties", "spec", "properties")
    for path in (("levers",), ("data", "properties", "columns"), ("data", "properties", "sources")):
        found = mapping(spec, *path)
        assert (found["x-kubernetes-list-type"], found["x-kubernetes-list-map-keys"]) == ("map", ["name"])
