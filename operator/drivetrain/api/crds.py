"""The CustomResourceDefinitions, generated from the models: `python -m drivetrain.api.crds [--check] DIR`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

from drivetrain.api.documents import Document
from drivetrain.api.kinds import GROUP
from drivetrain.api.meta import VERSION, ApiModel, PrinterColumn, Resource
from drivetrain.api.structural import Schema, rule_document, rules_of, structural_schema
from drivetrain.api.v1alpha1.deployment import Deployment
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.api.v1alpha1.trainingrun import TrainingRun
from drivetrain.api.yaml_text import to_yaml

CATEGORY = "drivetrain"
_HEADER = "# Generated from drivetrain.api by `make crds`; edit the models instead.\n"
_SCALABLE: Schema = {
    "scale": {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
}
_API_VERSION = "Version of the schema of this object, here drivetrain.dev/v1alpha1."
_NAME_LENGTH = 253  # of any Kubernetes object; what ours may have is a rule, with its own message
_KIND = "What this object is."


def crds() -> dict[str, Document]:
    """The three definitions by file name."""
    documents = {
        DrivetrainProject: crd(DrivetrainProject),
        TrainingRun: crd(TrainingRun),
        Deployment: crd(Deployment, subresources=_SCALABLE),
    }
    return {f"{GROUP}_{resource.plural}.yaml": document for resource, document in documents.items()}


def crd(resource: type[Resource], *, subresources: Document = MappingProxyType({})) -> Document:
    """The definition of one kind; its status is a subresource whose `observedGeneration` starts at -1."""
    kind = resource.__name__
    names: Schema = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": resource.plural,
        "singular": resource.plural.removesuffix("s"),
        "shortNames": [resource.short_name],
        "categories": [CATEGORY],
    }
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_column(column) for column in resource.printer_columns],
        "subresources": {"status": {}, **subresources},
        "schema": {"openAPIV3Schema": _schema(resource)},
    }
    if resource.selectable_fields:
        version["selectableFields"] = [{"jsonPath": path} for path in resource.selectable_fields]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}"},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }


def _schema(resource: type[Resource]) -> Schema:
    status = structural_schema(_part(resource, "status"), status=True)
    schema: Schema = {
        "description": " ".join((resource.__doc__ or "").split()),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"description": _API_VERSION, "type": "string", "maxLength": 64},
            "kind": {"description": _KIND, "type": "string", "maxLength": 64},
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": _NAME_LENGTH}}},
            "spec": structural_schema(_part(resource, "spec")),
            "status": {**status, "default": {"observedGeneration": -1}},
        },
    }
    if rules := rules_of(resource):
        schema["x-kubernetes-validations"] = [rule_document(rule) for rule in rules]
    return schema


def _part(resource: type[Resource], name: str) -> type[ApiModel]:
    model = resource.model_fields[name].annotation
    assert isinstance(model, type)
    assert issubclass(model, ApiModel)
    return model


def _column(column: PrinterColumn) -> Schema:
    optional: Schema = {"priority": column.priority} if column.priority else {}
    if column.description:
        optional["description"] = column.description
    return {"name": column.name, "type": column.type, "jsonPath": column.json_path, **optional}


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the definitions and the chart's copies, or with --check compares them. Returns 1 when a file differs."""
    parser = argparse.ArgumentParser(prog="python -m drivetrain.api.crds", description="Write or check the CRDs.")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("directory", type=Path)
    options = parser.parse_args(arguments)
    wanted = {name: _HEADER + to_yaml(document) for name, document in crds().items()}
    directory: Path = options.directory
    found = {path.name: path.read_text("utf-8") for path in sorted(directory.glob("*.yaml"))}
    copies = _copies_in_the_chart(directory, check=options.check)
    if options.check:
        differing = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        if differing:
            sys.stderr.write(f"{', '.join(differing)} in {directory} is not what the models say; run `make crds`\n")
        return 1 if differing else copies
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in wanted.items():
        (directory / name).write_text(text, "utf-8")
    for name in found.keys() - wanted.keys():
        (directory / name).unlink()
    return 0


def _copies_in_the_chart(directory: Path, *, check: bool) -> int:
    from drivetrain.api import chart  # which imports this module

    folder = directory.parent / "charts" / "drivetrain"
    return chart.main([*(["--check"] if check else []), str(folder)]) if folder.is_dir() else 0


if __name__ == "__main__":
    sys.exit(main())
