"""Objects as `kubectl -o` writes them. Pure."""

import json
from collections.abc import Sequence
from enum import StrEnum

import yaml

from drivetrain.api.documents import JSON, Document, mapping, name_of
from drivetrain.api.kinds import kind_of


class Format(StrEnum):
    """How objects are printed."""

    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class Rendering(StrEnum):
    """How what is no object of the cluster is printed."""

    JSON = "json"
    YAML = "yaml"


def objects(found: Sequence[Document], form: Format) -> str:
    """A List as `kubectl get` prints it, or `plural.group/name` a line. managedFields are left out, as kubectl does."""
    if form is Format.NAME:
        return "\n".join(named(each) for each in found)
    return document({"apiVersion": "v1", "kind": "List", "items": [_shown(each) for each in found]}, Rendering(form))


def document(content: Document, form: Rendering) -> str:
    """One document as JSON or YAML."""
    if form is Rendering.JSON:
        return json.dumps(content, indent=2)
    return yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=False).rstrip()


def named(each: Document) -> str:
    """`plural.group/name`, which kubectl takes as an argument."""
    kind = kind_of(each)
    return f"{kind.plural}.{kind.group}/{name_of(each)}"


def _shown(each: Document) -> dict[str, JSON]:
    metadata = {key: part for key, part in mapping(each, "metadata").items() if key != "managedFields"}
    return {**each, "metadata": metadata}
